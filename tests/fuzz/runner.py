"""Run cases in processes of their own, and say which of them are faults.

A fault is: an exception other than UserError, an error message with control characters, a case that takes
longer than 10 s, a process that dies or takes more than 4 GB, an action (a command, a connection, a file
written or removed elsewhere), and numbers that differ without a word.
"""

import ctypes
import logging
import multiprocessing
import os
import re
import resource
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from static_dynamic.errors import UserError
from tests.fuzz.registry import all_kinds

MAX_SECONDS = 10.0
MAX_MIB = 4096
# Kinds whose trials are jobs of the user, which write files and start git.
ACTING = ("options",)
PER_PROCESS = 500  # cases per process
ACTIONS = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "os.putenv", "os.kill", "subprocess.Popen")
ACTIONS += ("socket.connect", "socket.bind", "pty.spawn", "ctypes.dlopen", "urllib.Request", "code.__new__")
CHANGES = (
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.mkdir",
    "os.symlink",
    "os.link",
    "os.chmod",
    "os.truncate",
)
# Cython makes an empty code object for each line of its tracebacks.
_empty_code = ctypes.pythonapi.PyCode_NewEmpty
_empty_code.restype = ctypes.py_object
EMPTY_CODE = _empty_code(b"", b"", 1).co_code
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


@dataclass
class Result:
    """Outcome of one case; `fault` is empty if the case kept the contract."""

    case: int
    what: str = ""
    outcome: str = ""
    fault: str = ""
    seconds: float = 0.0
    mib: int = 0


class Watch:
    """Audit hook that notes what acts outside one folder while `folder` is set."""

    def __init__(self):
        self.folder: Path | None = None
        self.seen: list[str] = []
        sys.addaudithook(self)

    def __call__(self, event: str, arguments: tuple) -> None:
        if self.folder is None:
            return
        # PyAV, a compiled package, makes code objects when it raises an exception.
        if event == "code.__new__" and str(arguments[1]).startswith("av/"):
            return
        if event == "code.__new__" and arguments[0] == EMPTY_CODE:
            return
        if event in ACTIONS:
            self.seen.append(f"{event} {arguments!r}"[:200])
        elif event in CHANGES or (
            event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING
        ):
            path = arguments[0]
            inside = isinstance(path, str | os.PathLike) and Path(path).absolute().is_relative_to(self.folder)
            if not inside and path != os.devnull and not isinstance(path, int):
                self.seen.append(f"{event} {path!r}"[:200])


def run(kind: str, cases: Iterable[int], seed: int = 0) -> Iterator[Result]:
    """Yield the result of each case of a kind, in processes that are killed if they take too long."""
    waiting = list(cases)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        while waiting:
            batch, waiting = waiting[:PER_PROCESS], waiting[PER_PROCESS:]
            receive, send = multiprocessing.Pipe(duplex=False)
            process = multiprocessing.get_context("fork").Process(
                target=_work, args=(kind, batch, seed, folder, send)
            )
            process.start()
            send.close()
            done, what, patience = 0, "", 60.0  # the first message comes after the originals are made
            while done < len(batch):
                fault = "" if receive.poll(patience) else f"it takes longer than {MAX_SECONDS:.0f} s"
                try:
                    message = fault or receive.recv()
                except EOFError:
                    fault = "the process died"
                if fault:
                    process.kill()
                    yield Result(batch[done], what, fault=fault, seconds=patience)
                    waiting = batch[done + 1 :] + waiting
                    break
                if isinstance(message, str):  # the description of the case that begins
                    what, patience = message, 1.5 * MAX_SECONDS
                else:
                    done, what = done + 1, ""
                    yield message
            process.join()


def _work(kind: str, cases: list[int], seed: int, folder: str, send) -> None:
    tempfile.tempdir = folder  # mutants and originals are written here
    resource.setrlimit(resource.RLIMIT_AS, (16 * 2**30, 16 * 2**30))
    torch.set_num_threads(1)
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    watch = Watch()
    for case in cases:
        send.send(one(kind, case, seed, watch, send.send))


def one(kind: str, case: int, seed: int, watch: Watch, tell=lambda what: None) -> Result:
    """Make one mutant and try it in this process."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        folder = Path(name).resolve() / "case"
        folder.mkdir()
        what, trial = all_kinds()[kind](np.random.default_rng([seed, case]), folder)
        tell(what)
        result = Result(case, what)
        reset_peak()
        start = time.monotonic()
        watch.seen.clear()
        watch.folder = folder
        try:
            result.outcome = trial()
        except UserError as error:
            result.outcome = "refused"
            if not str(error).isprintable():
                result.fault = f"the message has control characters: {error!r}"
        except AssertionError as error:
            result.fault = f"accepted: {error}"
        except BaseException as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(last.filename).name}:{last.lineno}"
            result.fault = f"traceback: {type(error).__name__} ({where}): {str(error)[:100]}"
        watch.folder = None
    result.seconds = time.monotonic() - start
    result.mib = peak_mib()
    if watch.seen and kind not in ACTING:
        result.fault = f"it acted: {watch.seen[0]}"
    elif result.seconds > MAX_SECONDS:
        result.fault = f"it takes {result.seconds:.0f} s"
    elif result.mib > MAX_MIB:
        result.fault = f"it takes {result.mib} MiB"
    return result


def reset_peak() -> None:
    """Let the kernel measure the largest memory of this process from now on (Linux)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_mib() -> int:
    """Return the largest memory of this process since `reset_peak`, in MiB."""
    with suppress(OSError):
        found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
        if found:
            return int(found[1]) // 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
