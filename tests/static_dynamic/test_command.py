"""Commands: exit status, one line for an error, and the lazy public faces of the packages."""

import argparse
import errno
import importlib
import os
import signal
import subprocess
import sys

import pytest

import analysis
import datasets
import models
import stylize
from static_dynamic.cli import SPIN_COUNT, limit_spinning
from static_dynamic.command import Options, command, positive
from static_dynamic.errors import UserError
from tests.paths import ROOT

MISC = sorted(path.stem for path in (ROOT / "misc").glob("*.py") if path.stem != "static_dynamic")
BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
# scripts that need torch
HEAVY = {"class_feature_pyramids", "convert_checkpoint", "estimate_flops_params", "prepare_davis"}
LIGHT = [name for name in MISC if name not in HEAVY]


@pytest.fixture(autouse=True)
def own_handler():
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def stopped_by(error: BaseException) -> int:
    @command
    def main(text: str, *, again: str) -> None:
        assert text + again == "ab"
        raise error

    return main("a", again="b")


def test_what_the_work_returns_is_the_status():
    for returned, status in ((None, 0), (0, 0), (1, 1)):
        assert command(lambda value: value)(returned) == status


STOPS = {
    "of the user": (UserError("x: mend it"), 2, "error: x: mend it\n"),
    "may not write": (OSError(errno.EACCES, "", "out.csv"), 2, "error: out.csv cannot be used (permission "),
    "is a folder": (OSError(errno.EISDIR, "", "part", None, "out"), 2, "error: out cannot be used (is a dir"),
    "disk is full": (OSError(errno.ENOSPC, "", "out.csv"), 2, "error: no space on the disk for out.csv: "),
    "interrupted": (KeyboardInterrupt(), 130, "stopped; "),
}


@pytest.mark.parametrize("stop", STOPS)
def test_one_line_for_what_stopped_it(stop, capsys):
    error, status, begin = STOPS[stop]
    assert stopped_by(error) == status
    message = capsys.readouterr().err
    assert message.startswith(begin) and message.count("\n") == 1


@pytest.mark.parametrize(
    "error", [ValueError("a flaw of ours"), OSError(errno.EIO, "", "out.csv"), OSError(errno.EISDIR, "")]
)
def test_other_errors_keep_their_traceback(error):
    with pytest.raises(type(error)):
        stopped_by(error)


def test_terminated(capsys):
    assert command(lambda: os.kill(os.getpid(), signal.SIGTERM))() == 128 + signal.SIGTERM
    assert capsys.readouterr().err.startswith("terminated; ")


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "", "many", "²"])
def test_numbers_from_one_on(text):
    assert positive("12") == 12
    with pytest.raises(argparse.ArgumentTypeError, match="a number from 1 on"):
        positive(text)
    options = Options("about", prog="it.py")
    options.add_argument("--workers", type=positive)
    with pytest.raises(UserError, match=r"^--workers: a number from 1 .*\(it.py --help lists the options\)$"):
        options.parse_args([f"--workers={text}"])


def test_a_reader_who_closes_the_output_is_noticed():
    work = (
        "import sys; from static_dynamic.command import command; sys.exit(command(lambda: print('result'))())"
    )
    for options in ([], ["-u"]):  # noticed at the end, or at once
        read, write = os.pipe()
        os.close(read)
        run = [sys.executable, *options, "-c", work]
        done = subprocess.run(run, cwd=ROOT, env=BUFFERED, stdout=write, stderr=subprocess.PIPE, text=True)
        os.close(write)
        assert done.returncode == 128 + signal.SIGPIPE
        assert done.stderr == "the reader has closed the output; run the same command to resume\n"


@pytest.mark.parametrize("command", ["main.py", "misc/prepare_frames.py", "-m stylize.temporal"])
def test_a_reader_who_closes_the_help_text_sees_no_message(command):
    for options in ([], ["-u"]):  # the closed pipe is noticed at the end, or at once
        read, write = os.pipe()
        os.close(read)
        run = [sys.executable, *options, *command.split(), "--help"]
        done = subprocess.run(run, cwd=ROOT, env=BUFFERED, stdout=write, stderr=subprocess.PIPE, text=True)
        os.close(write)
        # argparse ignores errors of a write, so that only a failed flush is noticed
        assert done.returncode in (0, 128 + signal.SIGPIPE) and done.stderr == ""


@pytest.mark.parametrize("name", MISC)
def test_a_wrong_option_of_a_script(name, monkeypatch, capsys):
    module = importlib.import_module(f"misc.{name}")
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--no_such_option"])
    assert module.main() == 2
    out, err = capsys.readouterr()
    assert not out and err.startswith("error: ") and err.count("\n") == 1 and f"({name}.py --help" in err


def test_what_needs_no_network_does_without_torch():
    imports = "; ".join(["import sys, main", *(f"import misc.{name}" for name in LIGHT)])
    check = (
        "sys.argv = ['main.py', '--bogus', '1']; assert main.main() == 2; assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"{imports}; {check}"], cwd=ROOT, capture_output=True, text=True
    )
    assert len(LIGHT) == 14 and done.returncode == 0, done.stderr


@pytest.mark.parametrize("package", [analysis, datasets, models, stylize])
def test_lazy_exports_of_a_subpackage(package):
    assert package.__all__ and package is importlib.import_module(package.__name__)
    for name in package.__all__:
        found = getattr(package, name)
        assert found.__name__ == name and found.__module__.startswith(f"{package.__name__}.")
        with pytest.raises(ModuleNotFoundError):  # a module of this name would hide the public name
            importlib.import_module(f"{package.__name__}.{name}")
    assert set(package.__all__) <= set(dir(package))
    everything = {}
    exec(f"from {package.__name__} import *", everything)
    assert set(package.__all__) <= set(everything)


def test_a_name_that_a_package_does_not_show():
    with pytest.raises(AttributeError, match="No static_dynamic.analysis attribute estimate_pears"):
        analysis.estimate_pears  # noqa: B018
    with pytest.raises(ImportError, match="estimate_pears"):
        from analysis import estimate_pears  # noqa: F401


@pytest.mark.parametrize("short_first", [True, False])
def test_short_names_in_a_checkout_give_the_same_objects(short_first):
    names = {
        "analysis": "Estimate",
        "datasets": "Clip",
        "models": "build_model",
        "stylize": "build_generator",
    }
    check = ""
    for package, name in names.items():
        first, second = (package, f"static_dynamic.{package}")[:: 1 if short_first else -1]
        check += f"from {first} import {name} as a; from {second} import {name} as b; assert a is b; "
        check += f"import {first} as c, {second} as d; assert c is d; "
    done = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"GOMP_SPINCOUNT": SPIN_COUNT}),
        ({"GOMP_SPINCOUNT": "7"}, {"GOMP_SPINCOUNT": "7"}),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, {"OMP_WAIT_POLICY": "ACTIVE"}),
    ],
)
def test_threads_sleep_early_unless_the_user_decides(given, expected):
    environment = dict(given)
    limit_spinning(environment)
    assert environment == expected


def test_the_spin_count_is_set_before_torch_is_imported():
    code = (
        "import os, sys\n"
        "import static_dynamic.cli as cli\n"
        "os.environ.pop('GOMP_SPINCOUNT', None)\n"
        "sys.argv = ['main.py', '--help']\n"
        "cli.main()\n"
        "assert 'torch' not in sys.modules and os.environ['GOMP_SPINCOUNT'] == cli.SPIN_COUNT\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=True, capture_output=True)
