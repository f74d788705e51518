"""Entry: original flags -> Hydra -> task. ``python main.py --help`` lists what there is."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import get_method
from omegaconf import DictConfig

from configs import UserError
from configs.command import as_user_error, exit_status, report, start_logging
from configs.flags import check, help_text, translate


@hydra.main(version_base="1.3", config_path="configs", config_name="config")
def run_task(cfg: DictConfig) -> None:
    """Make the data set where it has to be made, and run the task."""
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
    """End this job; of several, the others go on, and Hydra names the one that failed."""
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        raise error
    sys.exit(report(error))


def run() -> None:
    """Check what was asked for, and run it."""
    # Hydra would cut tracebacks short and swallow the kind of an error
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    # jobs that a launcher starts elsewhere find these packages
    paths = [str(Path(__file__).resolve().parent), os.environ.get("PYTHONPATH")]
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
        raise UserError(f"{said} (logs of jobs: .submitit in save_dir; the same command goes on)") from error


def main() -> int:
    """Run the program; return its exit status: 2 where the user can put it right."""
    return exit_status(run)


if __name__ == "__main__":
    sys.exit(main())
