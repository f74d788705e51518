"""Declare the options ``model.X`` of a network and ``dataset.X`` of a data set.

The values themselves are in ``configs/model/NAME.yaml`` and ``configs/dataset/NAME.yaml``. A row of these
tables need not have every option.
"""

from dataclasses import dataclass, field

from .schema import Number, option

# model.init: checkpoint loads weights, random keeps initial weights, none is for networks without weights.
INITS = ("checkpoint", "random", "none")
# Orders of the axes of a stage's outputs: keys of `POOLS` in models/stages.py.
LAYOUTS = ("maps", "time_first", "channels_last", "tokens")


@dataclass
class Input:
    """Options of a network's input: frames, size and normalization."""

    frames: int | None = option(None, "frames of one network input", least=1, most=4096)
    sampling_rate: int | None = option(None, "distance between two of these frames", least=1, most=1000)
    size: int | list[int] | None = option(
        None, "pixels of the short side after scaling, or height and width", least=1, most=8192
    )
    crop: int | list[int] | None = option(
        None, "pixels of the square cut from the centre, or height and width", least=1, most=8192
    )
    pathways: dict[str, int] | None = option(None, "frames of each pathway, e.g. {slow: 8, fast: 32}")
    mean: list[Number] | None = option(None, "mean of the red, green and blue values, 0 to 1", least=-1000)
    std: list[Number] | None = option(None, "standard deviation of these values", least=1e-6)
    fps: Number | None = option(None, "frames per second of the training videos", least=0.01, most=100_000)


@dataclass
class ModelRow:
    """Options of a network (``model.X``)."""

    init: str = option("checkpoint", "weights: trained, random, or none", choices=INITS)
    num_classes: int | None = option(None, "number of classes", least=1, most=1_000_000)
    checkpoint: str | None = option(None, "file of weights")
    target: str | None = option(None, "package.module.function that builds the network")
    part: str | None = option(None, "module whose modules are read; null: the whole network")
    layout: str | None = option(None, "axes of the outputs of stages; null: detected", choices=LAYOUTS)
    leading_tokens: int | None = option(None, "number of tokens before the patches", least=0, most=10_000)
    input: Input = field(default_factory=Input)


@dataclass
class Render:
    """Options of a rendered data set (``dataset.render.X``)."""

    videos: int = option(24, "videos per family", least=1, most=100_000)
    frames: int = option(24, "frames per video", least=2, most=10_000)
    size: int = option(64, "height and width in pixels", least=16, most=4096)
    seed: int = option(0, "seed of the videos", least=0, most=2**63 - 1)


@dataclass
class DatasetRow:
    """Options of a data set (``dataset.X``)."""

    root: str | None = option(None, "folder of the videos")
    fps: Number | None = option(None, "frames per second of frame folders", least=0.01, most=100_000)
    num_classes: int | None = option(None, "number of classes", least=1, most=1_000_000)
    nreps: int = option(1, "repetitions of each pair", least=1, most=10_000)
    annotations_dir: str | None = option(None, "folder of the annotation files")
    original_data_root: str | None = option(None, "folder of the unstylized videos")
    masks: str | None = option(None, "masks of the videos, as for the option masks")
    render: Render = field(default_factory=Render)
