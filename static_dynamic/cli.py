"""Command line: translate flags of the original code (Kowal et al.) to Hydra overrides and run the task."""

import os
import sys
from collections.abc import MutableMapping
from typing import NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import get_method
from omegaconf import DictConfig

from static_dynamic import CHECKOUT, put_checkout_last
from static_dynamic.command import as_user_error, asks_for_help, exit_status, report, start_logging
from static_dynamic.configs import CONFIG_DIR
from static_dynamic.configs.help import help_text
from static_dynamic.configs.options import check, translate
from static_dynamic.errors import UserError

# Number of times that a waiting thread of OpenMP checks for work before it sleeps.
SPIN_COUNT = "10000"


@hydra.main(version_base="1.3", config_path=str(CONFIG_DIR), config_name="config")
def run_task(cfg: DictConfig) -> None:
    """Run the task of a config; if the config chooses the built-in data set, make the data set first."""
    # Jobs of a Hydra launcher start here, so the checkout must be moved to the end of sys.path again.
    put_checkout_last()
    start_logging()
    try:
        if cfg.task.get("needs_data") and not cfg.task.get("input") and cfg.dataset.get("prepare"):
            cfg.dataset.root = str(get_method(cfg.dataset.prepare)(cfg.dataset, cfg.style))
        get_method(cfg.task.run)(cfg)
    except (UserError, OSError) as error:
        stop(as_user_error(error))


def stop(error: UserError) -> NoReturn:
    """End this job with an error; in a Hydra sweep (--multirun) the other jobs continue."""
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        raise error
    sys.exit(report(error))


def limit_spinning(environment: MutableMapping[str, str]) -> None:
    """Let the waiting threads of torch sleep early, unless the user chose how long they spin.

    Threads that spin for a long time slow down extraction several times if other programs use the cores
    (`bench/openmp.py`). GNU's OpenMP library reads this setting when torch is imported, so this function runs
    before that.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & set(environment):
        environment["GOMP_SPINCOUNT"] = SPIN_COUNT


def run() -> None:
    """Check the command line and run the chosen task, or print the help text."""
    # Ask Hydra for full errors, because by default Hydra shortens tracebacks and hides the type of an error.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    limit_spinning(os.environ)
    if CHECKOUT:
        # set PYTHONPATH, so that processes of a Hydra launcher find this package
        paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        if str(CHECKOUT) not in paths:
            os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [*paths, str(CHECKOUT)]))
    if asks_for_help():
        print(help_text([word for word in sys.argv[1:] if word not in ("--help", "-h")]))
        return
    arguments = translate(sys.argv[1:])
    check(arguments)
    sys.argv[1:] = arguments
    try:
        run_task()
    except RuntimeError as error:
        # Compare the error's module by name, because submitit is an optional package.
        if type(error).__module__.partition(".")[0] != "submitit":
            raise
        message = " ".join(str(error).partition("\n---")[0].split())
        raise UserError(
            f"{message} (job logs: save_dir/.submitit; run the same command to resume)"
        ) from error


def main() -> int:
    """Run the program; return the exit status, which is 2 after an error that the user can correct."""
    return exit_status(run)
