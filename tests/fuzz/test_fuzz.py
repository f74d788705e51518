"""A few hundred mutants of every kind keep the contract, and the fuzzer notices each sort of fault."""

import os
import socket
import subprocess
import time

import numpy as np
import pytest

from static_dynamic.errors import UserError
from tests.fuzz import runner
from tests.fuzz.__main__ import table
from tests.fuzz.registry import KINDS, all_kinds
from tests.fuzz.runner import run

# Cases per kind; those of the kind options run the main job, which takes seconds.
CASES = {"options": 60}
USUAL_CASES = 300


@pytest.mark.parametrize("kind", sorted(all_kinds()))
def test_mutants_are_refused_in_one_line_or_give_the_same_numbers(kind):
    count = CASES.get(kind, USUAL_CASES)
    results = list(run(kind, range(count)))
    faults = [f"case {result.case} [{result.what}]: {result.fault}" for result in results if result.fault]
    assert not faults and len(results) == count
    assert sum(result.outcome == "refused" for result in results) > count // 10


def test_a_case_is_repeated_by_its_number():
    kind = sorted(all_kinds())[0]
    first, second = (list(run(kind, cases, seed=3)) for cases in (range(20), [17]))
    assert (first[17].what, first[17].outcome) == (second[0].what, second[0].outcome)


def refuse(text):
    raise UserError(text)


def escape(folder):
    error = UserError("x")
    error.args = ("x\ny",)
    raise error


def too_much_memory(folder):
    peak = runner.peak_mib()  # where the kernel cannot reset the peak, it is that of all tests before
    runner.MAX_MIB = peak + 128  # in the forked process only
    return str(len(np.ones((peak + 256) * 2**20, np.uint8)))


def wrong(folder):
    assert not folder, "the numbers differ"


TRIALS = {
    "traceback: ValueError": lambda folder: int("x"),
    "it takes longer than": lambda folder: time.sleep(9),
    "the process died": lambda folder: os._exit(3),
    "MiB": too_much_memory,
    "it acted: os.system": lambda folder: str(os.system("true")),
    "it acted: subprocess.Popen": lambda folder: str(subprocess.run(["true"])),
    "it acted: socket": lambda folder: str(socket.socket().connect_ex(("127.0.0.1", 9))),
    "it acted: open": lambda folder: str((folder.parent / "x").write_text("x")),
    "control characters": escape,
    "accepted: the numbers differ": wrong,
    "": lambda folder: (folder / "x").write_text("x") and "same numbers",
}


@pytest.mark.parametrize("fault", TRIALS)
def test_faults_are_noticed(monkeypatch, fault):
    def make(rng, folder):
        return "change: file", lambda: TRIALS[fault](folder)

    monkeypatch.setitem(KINDS, "broken", make)
    monkeypatch.setattr(runner, "MAX_SECONDS", 0.5 if "longer" in fault else 10.0)
    monkeypatch.setattr(runner, "MAX_MIB", 10_000)
    results = list(run("broken", range(2)))
    assert [result.case for result in results] == [0, 1]
    assert all(fault in result.fault and bool(result.fault) == bool(fault) for result in results), results
    assert "| change | 2 | 2 |" in table("broken", results)
