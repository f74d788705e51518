"""Entry: original flags -> Hydra -> task. ``python main.py --help`` lists what there is."""

from __future__ import annotations

import errno
import logging
import os
import signal
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import get_method
from omegaconf import DictConfig

from configs import UserError
from configs.flags import check, help_text, translate


class Terminated(BaseException):
    """Somebody asked this process to end: what is open is flushed and closed on the way out."""


@hydra.main(version_base="1.3", config_path="configs", config_name="config")
def run_task(cfg: DictConfig) -> None:
    """Make the data set where it has to be made, and run the task."""
    start_logging()
    try:
        if cfg.task.get("needs_data") and not cfg.task.get("input") and cfg.dataset.get("prepare"):
            cfg.dataset.root = str(get_method(cfg.dataset.prepare)(cfg.dataset, cfg.style))
        get_method(cfg.task.run)(cfg)
    except UserError as error:
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            raise  # the other jobs go on, and Hydra names the one that failed
        sys.exit(report(error))


def report(error: UserError) -> int:
    """Print an error as one line; return the exit status."""
    print(f"error: {error}", file=sys.stderr)
    return 2


def start_logging() -> None:
    """Log to stderr, so that stdout holds results alone."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)


def terminate(*_) -> None:
    """Handle SIGTERM; once, so that flushing is not disturbed by another."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Terminated


def main() -> int:
    """Run the program; return its exit status: 2 where the user can put it right."""
    start_logging()
    signal.signal(signal.SIGTERM, terminate)
    # Hydra would cut tracebacks short and swallow the kind of an error
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    # jobs that a launcher starts elsewhere find these packages
    paths = [str(Path(__file__).resolve().parent), os.environ.get("PYTHONPATH")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    try:
        if {"--help", "-h"} & set(sys.argv[1:]):
            print(help_text())
            return 0
        arguments = translate(sys.argv[1:])
        check(arguments)
        sys.argv[1:] = arguments
        run_task()
    except UserError as error:
        return report(error)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    except Terminated:
        print("terminated; the same command goes on from here", file=sys.stderr)
        return 128 + signal.SIGTERM
    except BrokenPipeError:  # somebody who reads along, as `head` does, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left is flushed to nowhere
        print("nobody reads the output any more; the same command goes on from here", file=sys.stderr)
        return 128 + signal.SIGPIPE
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        where = f" for {error.filename}" if error.filename else ""
        return report(UserError(f"no room on the disk{where}: free some; the same command goes on from here"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
