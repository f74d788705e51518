"""The tasks, one dataclass each: the docstring is the line in ``--help``, the fields are options ``task.X``.

Class ``StyleQuality`` is ``task=style_quality``; the program calls ``run(cfg)`` of
``analysis/tasks/style_quality.py``.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from typing import Any

from omegaconf import MISSING

from static_dynamic.configs.schema import Number, option


@dataclass
class Task:
    """What the program knows of each task; the first three are filled in by `tasks`."""

    name: str = MISSING
    about: str = MISSING
    run: str = MISSING  # dotted path of the function
    needs_data: bool = False  # whether the data set is prepared first, unless task.input is given


def tasks() -> dict[str, Task]:
    """Return every task by name, with its default options."""
    named = {re.sub("(?<!^)(?=[A-Z])", "_", task.__name__).lower(): task for task in Task.__subclasses__()}
    return {
        name: task(name=name, about=inspect.getdoc(task), run=f"static_dynamic.analysis.tasks.{name}.run")
        for name, task in named.items()
    }


@dataclass
class Profile(Task):
    """Measure static and dynamic information in every stage of a network (the main job)."""

    needs_data: bool = True


@dataclass
class Merge(Task):
    """Join the shards of runs (shards=N shard=K): all below save_dir=DIR, or runs=[FOLDER,FOLDER]."""


@dataclass
class Status(Task):
    """Print the progress of the runs below save_dir=DIR: done, running, failed, stopped, views left."""


@dataclass
class Stages(Task):
    """Print every module of a network that can be read as a stage: path, output, units, layout, depth."""


@dataclass
class Report(Task):
    """Write one HTML file per finished run, with all its results: runs=[FOLDER,...]."""


@dataclass
class Compare(Task):
    """Compare finished runs: tables with differences, LaTeX, figures: runs=[FOLDER,FOLDER,...]."""

    outdir: str | None = option(None, "folder of the results; null: save_dir/compare/HASH")
    average_seeds: bool = option(False, "average runs that differ only in their seed")
    iterations: list[int] = option(
        [], "training iterations of the network of each run; adds a figure over iterations"
    )
    formats: list[str] = option(["png", "pdf"], "file formats of the figures", choices=("png", "pdf", "svg"))


@dataclass
class Convergence(Task):
    """Estimate the scores of a finished run from more and more videos, with intervals: runs=[FOLDER]."""


@dataclass
class Information(Task):
    """Estimate mutual information (bits), CKA and permutation p-values of a finished run: runs=[FOLDER]."""

    units: Any = option(
        None,
        "units of the nearest-neighbour estimate: {stage3: [17, 40]}; null: the two highest of each stage",
    )


@dataclass
class Plan(Task):
    """Plan a study: clips and hours that intervals of a given width need, from a small run: runs=[PILOT]."""

    width: Number = option(0.05, "half-width of the 95 % intervals of the scores")
    seconds_per_view: Number | None = option(
        None, "time of one view; null: as measured in the pilot (timing.json)"
    )


@dataclass
class Units(Task):
    """Show single units of a finished run: classes, histograms, the clips that drive them: runs=[FOLDER]."""

    top: int = option(3, "units of each class on the contact sheet", least=1)
    clips: int = option(4, "clips of each of these units", least=1)
    data_root: str | None = option(
        None, "folder of style_1, style_2, ...; null: where the data was during the run"
    )
    least: Number = option(0.0, "smallest threshold")
    most: Number = option(1.0, "largest threshold")
    step: Number = option(0.05, "distance of thresholds")


@dataclass
class Saliency(Task):
    """Explain a prediction by its kernels (Class Feature Pyramids), as graphs and tubes: task.input=VIDEO."""

    needs_data: bool = True
    input: str | None = option(
        None,
        "a video file, a folder of frames, a folder with frames.db, or a folder of these; null: the clips of "
        "dataset",
    )
    style: int = option(0, "style in which clips of dataset are shown; 0: unstylized", least=0)
    outdir: str | None = option(None, "gets one folder per clip; null: save_dir/saliency/MODEL")
    label: int | str | None = option(None, "class to explain, by number or name; null: the predicted class")
    names: str | None = option(
        None,
        "class names: a file (one name per line, or json), or kinetics400_names; null: those of the "
        "pretrained weights",
    )
    start: int = option(0, "first frame of task.input, counted from 0")
    end: int | None = option(
        None,
        "first frame after the clip, over which the network's frames are spread; null: the clip is as "
        "long as the network's window",
    )
    profile: str | None = option(
        None, "folder of a finished task=profile run of this network: adds the classes of kernels; null: none"
    )
    kernels: int = option(16, "kernels of each level that are drawn, the most important first", least=1)
    video: str = option("mp4", "format of the videos", choices=("mp4", "gif", "none"))
    pictures: bool | None = option(None, "draw tubes and page; null: if there is only one clip")


@dataclass
class EvaluateVos(Task):
    """Segment DAVIS with a network: region similarity J, boundary measure F, masks, overlay videos."""


@dataclass
class Stylize(Task):
    """Stylize videos in one style (checkpoint=FILE) or style=TABLE: task.input=VIDEOS task.outdir=ROOT."""

    input: str | None = option(
        None,
        "a folder of frames, a video file, or a folder of these (class folders are allowed); null: the "
        "unstylized videos of dataset",
    )
    outdir: str | None = option(
        None, "gets style_K/VIDEO/frames; null: stylized_data_dir, if task.input is null"
    )
    style_id: int = option(1, "K for the style of checkpoint=FILE", least=0)
    naming: str | None = option(
        None,
        "names of the frames, e.g. frame_%05d.jpg (or .png); same: those of the input; null: as the "
        "loader of dataset expects, else %06d.jpg",
    )
    first: int | None = option(
        None, "number of the first frame; null: as the loader of dataset expects, else 1"
    )
    guides: list[str] = option(
        [], "folders of guide images, as many as the generator takes, laid out as the input"
    )


@dataclass
class TrainStyle(Task):
    """Train a style on key frames: task.data_root=DIR with input/, output/ (stylized), optional mask/."""

    data_root: str | None = option(None, "folder of the key frames; required")
    outdir: str | None = option(None, "folder of the training; null: save_dir/styles/NAME_OF_DATA_ROOT")
    config: str = option("small", "light, small, reference_P, reference_F, or a YAML file of the original")
    log_interval: int = option(1000, "steps between checkpoints and validation frames", least=1)
    steps: int | None = option(None, "number of training steps; null: task.minutes decides", least=1)
    minutes: Number | None = option(20, "training time; null: task.steps decides")
    rules: str = option(
        "corrected",
        "original: masks and image borders exactly as in the original program",
        choices=("corrected", "original"),
    )
    vgg: str | None = option(
        None, "file of torchvision's VGG19 weights; null: those in torch's hub cache, else a substitute"
    )


# A style fails beyond these limits, which apply to medians over clips. The comments give values that were
# measured on the embedded data set.
LIMITS = {
    # Difference between the optical flow of style and original, relative to the length of the flow. Built-in
    # styles: 0.07 to 0.11, with noise of 40 grey levels 0.3; a pattern fixed to the screen 0.99, frozen
    # frames 1.0, jitter of 3 pixels 1.8, shuffled frames 5.
    "motion": {"most": 0.4, "says": "motion is not kept"},
    # Warping error along the flow, relative to the original's. Built-in styles: 1.16 to 1.45; noise of 5 grey
    # levels 2.5, of 10 grey levels 3 to 5; jitter of 3 pixels 5; brightness alternating by 10 levels 8.9.
    "flicker": {"most": 2.0, "says": "it flickers"},
    # Range of lightness, relative to the original's. Built-in styles: 0.78 to 1.17; a style mixed half and
    # half with white 0.34.
    "contrast": {"least": 0.4, "says": "it is washed out"},
}
# Two styles (or a style and the original) are alike if both distances are below these. The nearest built-in
# styles are 16 apart in colour (2.3 is just noticeable) and 0.24 octaves in texture. Shuffled frames of one
# style, which show the same objects, are 1.6 and 0.03 apart.
ALIKE = {"colour": 8.0, "texture": 0.35}


@dataclass
class StyleQuality(Task):
    """Check the quality of a stylization: motion kept, appearance changed, no flicker."""

    needs_data: bool = True
    clips: int = option(48, "clips to measure, evenly spread over the list", least=1)
    frame_pairs: int = option(
        4, "pairs of neighbouring frames per clip, evenly spread over the clip", least=1
    )
    min_motion: Number = option(1.0, "displacement in pixels from which a pixel counts as moving")
    min_moving: Number = option(0.02, "share of moving pixels that a pair of frames needs to judge motion")
    sheet_rows: int = option(6, "clips on the contact sheet", least=1)
    limits: dict[str, Any] = option(LIMITS, "limits of a good style, and what a style beyond them is told")
    alike: dict[str, Any] = option(ALIKE, "two styles are alike if both distances are smaller")
