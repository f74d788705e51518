"""Dataclasses of the tasks: ``--help`` prints the docstrings, and the fields are the options ``task.X``.

Class ``StyleQuality`` is ``task=style_quality``; the program calls ``run(cfg)`` of
``analysis/tasks/style_quality.py``.
"""

import re
from dataclasses import dataclass
from typing import Any

from omegaconf import MISSING

from .schema import Number, option


@dataclass
class Task:
    """Attributes of every task. `tasks()` sets `name`, `about` (one line of ``--help``) and `run`."""

    name: str = MISSING
    about: str = MISSING
    # `run` is the dotted path of the function that runs the task.
    run: str = MISSING
    # If `needs_data` is True, a built-in data set is created before the task, unless task.input is given.
    needs_data: bool = False


# WITHOUT_OPTIONS maps the name of each task that has no special options to the text in --help.
WITHOUT_OPTIONS = {
    "calibrate": "Check the estimates on rendered videos whose motion is known; status 1 if one is wrong.",
    "convergence": "Estimate parts and scores of finished runs (runs=[FOLDER]) from more and more videos.",
    "evaluate_vos": "Segment DAVIS and write region similarity J, boundary measure F, masks and overlays.",
    "merge": "Merge the shards (shards=N shard=K) of runs, either all below save_dir or runs=[FOLDER,...].",
    "report": "Write one HTML file with all results for each finished run in runs=[FOLDER,...].",
    "stages": "Print path, output shape, units, layout and depth of each module that can be a stage.",
    "status": "Print state (done, running, failed or stopped) and progress of each run below save_dir.",
}


def tasks() -> dict[str, Task]:
    """Return a dict {name of a task: the task with default options} of all tasks."""
    named = {re.sub("(?<!^)(?=[A-Z])", "_", task.__name__).lower(): task for task in Task.__subclasses__()}
    texts = WITHOUT_OPTIONS | {name: task.__doc__ or "" for name, task in named.items()}
    return {
        name: named.get(name, Task)(name, about, run=f"static_dynamic.analysis.tasks.{name}.run")
        for name, about in texts.items()
    }


@dataclass
class Profile(Task):
    """Measure how much static and dynamic information each stage of a network encodes (the default task)."""

    needs_data: bool = True


@dataclass
class Compare(Task):
    """Compare finished runs (runs=[FOLDER,...]): write figures, and tables of differences (csv, LaTeX)."""

    outdir: str | None = option(None, "folder of the results; null: save_dir/compare/HASH")
    average_seeds: bool = option(False, "average over runs that differ only in the seed")
    iterations: list[int] = option(
        [], "training iteration of each run's checkpoint, in the order of runs; adds a figure over iterations"
    )
    formats: list[str] = option(["png", "pdf"], "file formats of the figures", choices=("png", "pdf", "svg"))


@dataclass
class Features(Task):
    """Write the activations of stages as npz, HDF5 or Parquet files, with frame times, and as RDMs."""

    needs_data: bool = True
    views: str = option(
        "original",
        "network inputs. original: each clip unstylized (style 0), frames in order; forward: each clip in "
        "every style of styles, frames in order; all: those of task=profile with the same options",
        choices=("original", "forward", "all"),
    )
    stages: list[str] = option(
        [], "names or numbers of the stages, and logits for the class scores; empty: all stages"
    )
    time: bool = option(
        False,
        "keep the time axis: features of the shape (views, time steps, units) instead of (views, units)",
    )
    format: str = option(
        "npz",
        "file format: npz, h5 (needs the package h5py) or parquet",
        choices=("npz", "h5", "parquet"),
    )
    rdm: str | None = option(
        None,
        "also write the dissimilarity matrix of the views for each stage, in a file of rsatoolbox. "
        "correlation: 1 - correlation; euclidean: squared distance divided by number of columns; null: none",
        choices=("correlation", "euclidean"),
    )


@dataclass
class Ablate(Task):
    """Remove units of a stage (stg) of finished runs (runs=[FOLDER]); measure how the prediction changes."""

    sets: list[str] = option(
        ["kind", "motion", "appearance", "content"],
        "which units to remove, one set after another. kind: the units of each kind; class: of each class of "
        "the paper; motion, appearance, content: the units with the largest part, in each of task.doses; "
        "listed: task.units",
        choices=("kind", "class", "motion", "appearance", "content", "listed"),
    )
    doses: list[float] = option(
        [1.0, 2.0, 5.0, 10.0, 20.0, 50.0],
        "percentages of the units to remove, for motion, appearance and content",
        least=0.001,
        most=100,
    )
    units: list[int] = option([], "numbers of the units to remove, for task.sets=[listed]")
    replace: str = option(
        "mean",
        "what replaces the map of a unit. mean: its mean over the data set; zero; or its map for another "
        "input: clip (a clip of another video), order or style (the same clip in another order or style)",
        choices=("mean", "zero", "clip", "order", "style"),
    )
    random: int = option(
        100, "random sets of equal size and matched variance that each set is compared with", least=1
    )
    examples: int | None = option(
        None, "number of clips to read, evenly spread over the clips of the run; null: all", least=1
    )
    data_root: str | None = option(None, "folder with style_1, ...; null: the data folder of the run")


@dataclass
class Information(Task):
    """Estimate mutual information in bits and CKA of a finished run (runs=[FOLDER]), with p-values."""

    units: Any = option(
        None,
        "units of each stage for the nearest-neighbour estimate, e.g. {stage3: [17, 40]}; null: the two "
        "units with the most mutual information, for each stage and factor (dynamic, static)",
    )


@dataclass
class Plan(Task):
    """Estimate from a small finished run (runs=[FOLDER]) how many clips and hours a full study needs."""

    width: Number = option(0.05, "required half-width of the 95 % intervals of parts and scores", least=1e-6)
    seconds_per_view: Number | None = option(
        None,
        "seconds per network input; null: the time measured in the small run (timing.json)",
        least=1e-9,
    )


@dataclass
class Probe(Task):
    """Decode named variables (direction, speed, style, class, ...) from each stage of runs=[FOLDER,...]."""

    variables: list[str] = option(
        [],
        "variables to decode: style, order, label, columns of task.csv, and on dataset=calibrated family, "
        "direction, speed, pattern, coherence, shape, place, wavelength, contrast and colour; empty: all "
        "that vary",
    )
    csv: str | None = option(
        None,
        "csv file with further variables: a column video or clip names the rows, every other column is a "
        "variable (numbers, or names of classes); null: none",
    )
    circular: list[str] = option([], "columns of task.csv that are angles in degrees")
    classes: list[str] = option([], "columns of task.csv whose numbers are names of classes")
    untrained: str | None = option(
        None,
        "folder of a run of the untrained network (model.init=random) on the same views, to compare with; "
        "null: none",
    )
    folds: int = option(10, "number of sets of videos, each predicted from the others", least=2, most=1000)


@dataclass
class Units(Task):
    """Draw score histograms of finished runs (runs=[FOLDER]); show clips that raise the top units' scores."""

    top: int = option(3, "units per unit class (dynamic, static, joint) on the contact sheet", least=1)
    clips: int = option(4, "clips shown per unit on the contact sheet", least=1)
    data_root: str | None = option(None, "folder with style_1, ...; null: the data folder of the run")
    least: Number = option(
        0.0, "smallest score threshold at which the units are classified", least=-1, most=1
    )
    most: Number = option(1.0, "largest score threshold at which the units are classified", least=-1, most=1)
    step: Number = option(0.05, "distance between two score thresholds", least=0.001, most=2)


@dataclass
class Saliency(Task):
    """Explain a prediction for task.input=VIDEO by kernels and saliency tubes (Class Feature Pyramids)."""

    needs_data: bool = True
    input: str | None = option(
        None,
        "a video file, a folder of frames, a folder with frames.db, or a folder of several of them; "
        "null: the clips of dataset",
    )
    style: int = option(0, "style id in which the clips of dataset are read; 0: unstylized", least=0)
    outdir: str | None = option(None, "output folder, one subfolder per clip; null: save_dir/saliency/MODEL")
    label: int | str | None = option(None, "class to explain, by number or name; null: the predicted class")
    names: str | None = option(
        None,
        "names of the action classes: a file (one name per line, or json), or kinetics400_names; null: the "
        "names that belong to the pretrained weights",
    )
    start: int = option(0, "first frame of task.input to read, counted from 0", least=0)
    end: int | None = option(
        None,
        "frame of task.input at which the clip ends (exclusive); the network's frames are spread evenly over "
        "the clip. null: the clip is as long as the network's input window",
    )
    profile: str | None = option(
        None,
        "folder of a finished task=profile run of this network, which gives each kernel's kind (content, "
        "motion, appearance, mixed, residual) and the paper's unit class (dynamic, static, joint, residual); "
        "null: none",
    )
    kernels: int = option(16, "number of kernels drawn per layer, the most important first", least=1)
    video: str = option("mp4", "file format of the videos of saliency tubes", choices=("mp4", "gif", "none"))
    pictures: bool | None = option(None, "draw saliency tubes and an HTML page; null: for a single clip")
    masks: int | None = option(
        None,
        "number of random masks that the map of each level is compared with; 0: no test of faithfulness; "
        "null: 9 for a single clip whose pictures are drawn, else 0",
        least=0,
    )


@dataclass
class Stylize(Task):
    """Stylize task.input=VIDEOS to task.outdir=DIR, in one style (checkpoint=FILE) or more (style=NAME)."""

    input: str | None = option(
        None,
        "a folder of frames, a video file, or a folder of several such videos (also in class folders); null: "
        "the unstylized videos of dataset",
    )
    outdir: str | None = option(
        None, "output folder for style_K/VIDEO/frames; null: stylized_data_dir, if task.input is null"
    )
    style_id: int = option(1, "style id K of the output folder style_K, with checkpoint=FILE", least=0)
    naming: str | None = option(
        None,
        "file names of the frames, e.g. frame_%05d.jpg (or .png); same: the names of the input frames; "
        "null: the names that dataset expects, else %06d.jpg",
    )
    first: int | None = option(
        None, "first frame number; null: the number that dataset expects, else 1", least=0
    )
    guides: list[str] = option(
        [], "folders of guide images, one per guide of the generator, with the same layout as task.input"
    )


@dataclass
class TrainStyle(Task):
    """Train a style on key frames in task.data_root=DIR (subfolders input, output and, if needed, mask)."""

    data_root: str | None = option(None, "folder with input/, output/ and, optionally, mask/; required")
    outdir: str | None = option(None, "folder of the training; null: save_dir/styles/NAME_OF_DATA_ROOT")
    config: str = option(
        "small",
        "settings: light, small, reference_P, reference_F, or a YAML file of Texler et al.'s code",
    )
    log_interval: int = option(1000, "steps between checkpoints and validation frames", least=1)
    steps: int | None = option(None, "number of training steps; null: task.minutes decides", least=1)
    minutes: Number | None = option(20, "training time in minutes; null: task.steps decides", least=0)
    rules: str = option(
        "corrected",
        "treatment of masks and image borders; original: exactly as in Texler et al.'s code",
        choices=("corrected", "original"),
    )
    vgg: str | None = option(
        None, "file of torchvision's VGG19 weights; null: the file in torch's hub cache, else a substitute"
    )


# Networks of ``task=train_calibrated``.
SMALL_NETWORKS = ("small_cnn", "small_transformer")


@dataclass
class TrainCalibrated(Task):
    """Train small networks to classify velocity, layout or texture of rendered scenes, and profile them."""

    networks: list[str] = option(
        list(SMALL_NETWORKS),
        "networks to train",
        choices=SMALL_NETWORKS,
    )
    conditions: list[str] = option(
        ["velocity", "layout", "texture", "shortcut", "static_dropout"],
        "what is trained: one of three targets; or velocity from videos in which the place of the shape "
        "tells the direction (shortcut), and the same with StaticDropout (static_dropout)",
        choices=("velocity", "layout", "texture", "shortcut", "static_dropout"),
    )
    seeds: int = option(5, "number of seeds, counted from the option seed", least=1, most=1000)
    steps: int = option(500, "training steps", least=1, most=10_000_000)
    checkpoints: int = option(
        3, "number of checkpoints with a profile, besides the untrained network", least=1, most=1000
    )
    batch_size: int = option(32, "videos per training step", least=2, most=100_000)
    learning_rate: Number = option(0.001, "largest learning rate of AdamW", least=1e-9, most=10)
    train_videos: int = option(
        256, "number of scenes to train on, each in four styles", least=1, most=100_000
    )
    test_videos: int = option(32, "number of other scenes for profile and accuracy", least=3, most=100_000)
    shortcut: Number = option(
        0.9, "fraction of the scenes with the shortcut in which place tells direction", least=0, most=1
    )
    static_dropout: Number = option(
        0.8,
        "StaticDropout: probability to drop a unit of the last stage, times its content plus appearance as "
        "measured at the last checkpoint",
        least=0,
        most=0.99,
    )
    outdir: str | None = option(None, "folder of the results; null: save_dir/train_calibrated/HASH")


# A style fails if the median of a measure over the clips is above `most` or below `least`.
LIMITS = {
    # `motion` is the relative error of a stylized video's optical flow against the original video's flow.
    # This error is 0.07 to 0.11 for built-in styles, 0.3 with noise of 40 grey levels, 1.0 for frozen frames.
    "motion": {"most": 0.4, "says": "motion is not kept"},
    # `flicker` is the warping error of a stylized video, relative to the original video's warping error.
    # `flicker` is 1.16 to 1.45 for built-in styles, 2.5 with noise of 5 grey levels, 5 with 3-pixel jitter.
    "flicker": {"most": 2.0, "says": "it flickers"},
    # `contrast` is the stylized video's range of lightness, relative to the original video's range.
    # `contrast` is 0.78 to 1.17 for built-in styles, 0.34 for a style blended equally with white.
    "contrast": {"least": 0.4, "says": "it is washed out"},
}
# ALIKE holds the distances in colour (CIELAB) and texture (octaves) below which two styles look alike.
# The two most similar built-in styles differ by 16 CIELAB units in colour and 0.24 octaves in texture.
# A style and the same style with shuffled frames differ by 1.6 CIELAB units and 0.03 octaves of texture.
ALIKE = {"colour": 8.0, "texture": 0.35}


@dataclass
class StyleQuality(Task):
    """Check that stylized videos keep the motion, change the appearance and do not flicker."""

    needs_data: bool = True
    clips: int = option(48, "number of clips to measure, evenly spread over the data set's list", least=1)
    frame_pairs: int = option(4, "pairs of consecutive frames per clip, evenly spread over the clip", least=1)
    min_motion: Number = option(
        1.0, "smallest displacement of a moving pixel between two frames, in pixels", least=0
    )
    min_moving: Number = option(
        0.02, "fraction of moving pixels from which two frames count for motion", least=0, most=1
    )
    sheet_rows: int = option(6, "number of clips on the contact sheet", least=1)
    limits: dict[str, Any] = option(
        LIMITS, "limits of a good style, with a text for styles beyond each limit"
    )
    alike: dict[str, Any] = option(ALIKE, "two styles are too similar if colour and texture differ by less")
