"""The program: translate the original programs' flags to Hydra overrides, check them, and run the task."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import get_method
from omegaconf import DictConfig

from static_dynamic import CHECKOUT, put_checkout_last
from static_dynamic.command import as_user_error, exit_status, report, start_logging
from static_dynamic.configs import CONFIG_DIR
from static_dynamic.configs.options import check, help_text, translate
from static_dynamic.errors import UserError


@hydra.main(version_base="1.3", config_path=str(CONFIG_DIR), config_name="config")
def run_task(cfg: DictConfig) -> None:
    """Make the data set if it is one that this program makes, and run the task."""
    put_checkout_last()  # again: a job that a launcher started elsewhere begins here
    start_logging()
    try:
        if cfg.task.get("needs_data") and not cfg.task.get("input") and cfg.dataset.get("prepare"):
            cfg.dataset.root = str(get_method(cfg.dataset.prepare)(cfg.dataset, cfg.style))
        get_method(cfg.task.run)(cfg)
    except UserError as error:
        stop(error)
    except OSError as error:
        stop(as_user_error(error))


def stop(error: UserError) -> NoReturn:
    """End this job; in a sweep the other jobs go on, and Hydra names the one that failed."""
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        raise error
    sys.exit(report(error))


def run() -> None:
    """Check the command line, and run it."""
    # Hydra would otherwise shorten tracebacks and hide the type of an error.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    if CHECKOUT:  # jobs that a launcher starts elsewhere must find this package
        paths = [os.environ.get("PYTHONPATH"), str(CHECKOUT)]
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    if {"--help", "-h"} & set(sys.argv[1:]):
        print(help_text())
        return
    arguments = translate(sys.argv[1:])
    check(arguments)
    sys.argv[1:] = arguments
    try:
        run_task()
    except RuntimeError as error:
        if type(error).__module__.partition(".")[0] != "submitit":  # an optional package
            raise
        said = " ".join(str(error).partition("\n---")[0].split())
        raise UserError(f"{said} (logs of jobs: .submitit in save_dir; the same command resumes)") from error


def main() -> int:
    """Run the program; return its exit status: 2 for an error that the user can put right."""
    return exit_status(run)
