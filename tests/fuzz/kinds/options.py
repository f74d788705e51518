"""Senseless values of options of the main job, which runs with a tiny network on a tiny data set."""

import contextlib
import io
import os
import sys
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import nn

import main
from static_dynamic.configs.options import COMMON, ROWS
from tests.conftest import moving_square, write_frames
from tests.fuzz.registry import Trial, fuzzer
from tests.paths import ROOT

VALUES = ("5", "-1", "0", "1.5", "-0.001", "1e-9", str(10**20), "1e300", "abc", "nan", "inf", "-inf", "null")
VALUES += ("true", "[]", "[1,2]", "[a,b]", "[[1],[2]]", "{a:1}", "{}", "''", "x" * 300, "a/b", "'a b'", "é")
VALUES += ("'\n'", "'${x}'", "1,2", "[null]", "[1e400]", "style_1", "9" * 5000)
# Options that the tables of options do not list.
MORE = ("+model.options.depth", "+dataset.window.default", "dataset.layout", "dataset.name", "model.name")
MORE += ("model.args", "model.feed", "model.stages", "model.family", "model.adapter", "dataset.frames")
MORE += ("dataset.annotations", "model.input", "model.input.pathways", "model.known_inputs", "dataset.about")
MORE += ("dataset.subset", "dataset.split", "dataset.filters", "dataset.original_data_root")
NAMES = [name for name in (*COMMON, *(option.name for option in ROWS), *MORE) if not name.startswith("cfp.")]


@fuzzer
def options(rng: np.random.Generator, folder: Path) -> tuple[str, Trial]:
    """Give one or two options of the main job a senseless value."""
    words = []
    for _ in range(int(rng.integers(1, 3))):
        words.append(f"{NAMES[rng.integers(len(NAMES))]}={VALUES[rng.integers(len(VALUES))]}")
    root = data()
    return f"option: {' '.join(words)[:150]!r}", lambda: trial(folder, root, words)


def trial(folder: Path, root: Path, words: list[str]) -> str:
    """Run the main job in an empty folder."""
    usual = ("model=custom", f"model.target={__name__}.build", "model.init=random", "model.input.size=32")
    usual += ("model.input.crop=32", "model.input.frames=4", "model.input.sampling_rate=1", "dataset=folder")
    usual += (f"stylized_data_dir={root}", "styles='1,2'", "num_workers=0", "n_boot=2", "n_permutations=2")
    given = {word.partition("=")[0] for word in words}
    arguments = [*(word for word in usual if word.partition("=")[0] not in given), *words]
    before, error, argv = Path.cwd(), io.StringIO(), sys.argv
    os.chdir(folder)
    sys.argv = ["main.py", *arguments]
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(error):
            status = main.main()
    except SystemExit as stop:
        status = stop.code
    finally:
        sys.argv = argv
        os.chdir(before)
    last = error.getvalue().strip().splitlines()
    assert status in (0, 2), f"exit status {status}: {last[-1:]}"
    assert status == 0 or last, "no message"
    return "refused" if status else "accepted"


def build(**options) -> nn.Module:
    """Build a network of one convolution; every option but `depth` and `num_classes` is refused."""
    if set(options) - {"depth", "num_classes"}:
        raise TypeError(f"unknown options {sorted(options)}")
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv3d(3, 4, (1, 5, 5), stride=(1, 4, 4)), nn.ReLU(), nn.AdaptiveAvgPool3d(1))


@cache
def data() -> Path:
    """Return the folder of a data set of three clips in two styles."""
    # Set here, so that the job does not set them while actions are watched.
    os.environ["HYDRA_FULL_ERROR"], os.environ["PYTHONPATH"] = "1", str(ROOT)
    root = Path(tempfile.mkdtemp(prefix="fuzz-data-"))
    for style in (1, 2):
        for k in range(3):
            frames = moving_square(k, n=6)
            write_frames(root / f"style_{style}" / f"clip{k}", frames if style == 1 else 255 - frames)
    return root
