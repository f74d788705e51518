"""The package installs, as a copy and editable, and works from another folder: command, data files, scripts.

The virtual environments here take their dependencies from the interpreter that runs the tests. The script
.ci/run installs the package with its dependencies.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.paths import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A copy of the files under version control: a build writes into its folder."""
    if not (ROOT / ".git").exists():
        pytest.skip("which files belong to the package is known in a git checkout only")
    folder = tmp_path_factory.mktemp("source") / "project"
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        if not name.startswith("tests/") and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module", params=["copy", "editable"])
def bin_folder(request, source, tmp_path_factory):
    """The bin folder of a virtual environment in which the package is installed."""
    environment = tmp_path_factory.mktemp(request.param) / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    found = subprocess.run(
        [environment / "bin" / "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    Path(found, "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    how = ["--editable"] if request.param == "editable" else []
    install = [sys.executable, "-m", "pip", f"--python={environment / 'bin' / 'python'}", "install"]
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-build-isolation"]
    subprocess.run([*install, *options, *how, source], check=True)
    return environment / "bin"


def run(folder: Path, *command) -> str:
    """Run a command from `folder`, without this checkout on any path; return what it prints."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_command_from_another_folder(bin_folder, tmp_path):
    for command in ([bin_folder / "static-dynamic"], [bin_folder / "python", "-m", "static_dynamic"]):
        assert "i3d_inception" in run(tmp_path, *command, "--help")
    if "copy" in str(bin_folder):
        return  # .ci/run runs the same job with a copy, in `make package`
    job = ["model.init=random", "n_examples=2", "style=builtin", "n_boot=20", "n_permutations=0"]
    assert "stage5" in run(tmp_path, bin_folder / "static-dynamic", *job)
    (report,) = tmp_path.glob("dim_outputs/i3d_inception/embedded/*/report.html")
    assert report.stat().st_size > 10_000


def test_scripts_and_other_commands(bin_folder, tmp_path):
    modules = ("misc.plot_stages", "misc.class_feature_pyramids", "stylize.train", "stylize.generate")
    program = (
        "import contextlib, runpy, sys\n"
        "for module in sys.argv[1:]:\n"
        "    with contextlib.suppress(SystemExit):\n"
        "        sys.argv = [module, '--help']\n"
        "        runpy.run_module(f'static_dynamic.{module}', run_name='__main__')\n"
    )
    assert run(tmp_path, bin_folder / "python", "-c", program, *modules).count("usage:") == len(modules)


def test_only_one_name_is_installed(bin_folder, tmp_path):
    # `models` and `datasets` stay free for the user and for Hugging Face
    check = (
        "import importlib.util as u, static_dynamic as s; "
        "names = ('models', 'datasets', 'analysis', 'stylize', 'configs', 'misc', 'main'); "
        "origin = [u.find_spec(n) and u.find_spec(n).origin for n in names]; "
        "assert not any(o and o.startswith(str(s.__path__[0]).rpartition('/')[0]) for o in origin), origin; "
        "from static_dynamic.models import build_model, list_models; "
        "from static_dynamic.analysis import class_feature_pyramid, estimate_pairs, estimate_run; "
        "from static_dynamic.stylize import build_generator; "
        "assert len(list_models()) > 30 and build_model('x3d_xs').stages"
    )
    run(tmp_path, bin_folder / "python", "-c", check)
