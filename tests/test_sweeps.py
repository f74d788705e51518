"""The sweep scripts: which runs they start or leave out; every option and row that they name exists."""

import os
import subprocess

import pytest

from static_dynamic.configs import row, rows
from static_dynamic.configs.options import check, translate
from tests.paths import MISC


@pytest.fixture
def sweep(tmp_path):
    """Run a script with a fake interpreter that records its arguments: (status, stderr, commands)."""
    stub = tmp_path / "python"
    stub.write_text('#!/bin/sh\nshift\necho "$@" >>"$0.log"\ncase "$*" in *mvit*FAIL*) exit 2;; esac\n')
    stub.chmod(0o755)

    def call(script, *arguments):
        done = subprocess.run(
            [MISC / script, *map(str, arguments)],
            capture_output=True,
            text=True,
            env=os.environ | {"PYTHON": str(stub)},
        )
        log = stub.with_name("python.log")
        return done.returncode, done.stderr, log.read_text().splitlines() if log.exists() else []

    return call


def test_the_paper_runs_that_are_possible(sweep, tmp_path):
    (tmp_path / "SSv2").mkdir()
    (tmp_path / "SLOW_8x8_R50.pyth").touch()
    status, err, (command, last) = sweep("sweep_ar.sh", tmp_path, tmp_path, "out", "device=cpu")
    assert status == 1 and "11 left out, 0 failed" in err
    assert f"left out: c2d on StylizedActivityNet ({tmp_path}/ActivityNet does not exist)" in err
    assert f"({tmp_path}/SLOWFAST_8x8_R50.pyth does not exist)" in err
    assert "seed=1,2,3,4" in command and command.endswith("on_error=skip device=cpu")
    assert last == "task=status save_dir=out"


def test_every_row_of_the_paper_is_there(sweep, tmp_path):
    for folder in ("ActivityNet", "SSv2", "Diving48"):
        (tmp_path / folder).mkdir()
    table = (MISC / "sweep_ar.sh").read_text().partition('runs="')[2].partition('"')[0]
    for line in table.splitlines():
        dataset, _, model, checkpoint = line.split()
        assert dataset in rows("dataset") and row("model", model).checkpoint.endswith(checkpoint)
        (tmp_path / checkpoint).touch()
    status, err, commands = sweep("sweep_ar.sh", tmp_path, tmp_path, "FAIL")
    assert status == 2 and "0 left out, 1 failed" in err and len(commands) == 13
    check(translate(commands[0].split()))


def test_one_network_on_every_data_set(sweep, tmp_path):
    for folder in ("Kinetics", "folder"):
        (tmp_path / folder).mkdir()
    status, err, commands = sweep("sweep_datasets.sh", tmp_path, "x3d_xs", "x3d.pyth", "out")
    assert status == 1 and "3 left out, 0 failed" in err and len(commands) == 3
    assert "dataset.subset=temporal,static,random" in commands[0]
    for command in commands[:2]:
        check(translate(command.split()))


@pytest.mark.parametrize("script", ["sweep_ar.sh", "sweep_datasets.sh"])
def test_usage(sweep, script):
    assert sweep(script)[0] == 2
