"""The networks and data sets of the atlas, and the options of their runs."""

from dataclasses import dataclass
from pathlib import Path

from static_dynamic.files import json_sha256

# Options that all runs share. Intervals and tests are those of the program.
COMMON = ("n_boot=500", "n_permutations=200", "num_workers=2", "batch_size=4")


@dataclass(frozen=True)
class Network:
    """A network of the atlas: its module in this folder, its input, and the stages that are read.

    ``trained`` maps the name of each set of trained weights to the arguments of the function ``build``.
    ``sizes`` maps each data set to the side of the frames in pixels, or to (height, width). ``last`` is the
    deepest stage of features, before any decoder or head, which is compared between networks.
    """

    name: str
    label: str
    family: str
    frames: int
    sizes: dict[str, int | tuple[int, int]]
    stages: tuple[str, ...]
    last: str
    trained: dict[str, dict[str, str | bool]]
    mean: float = 0.0
    std: float = 1.0
    # frames per second of the training videos; both data sets have 25
    fps: int = 30


def same_size(size: int | tuple[int, int]) -> dict[str, int | tuple[int, int]]:
    """Return the same size of frames for all data sets."""
    return dict.fromkeys(DATA, size)


# Data set -> options. The number of videos and of styles per video keeps make atlas below 20 minutes.
DATA = {
    "embedded": ("dataset=embedded", "pairs=factorial"),
    "calibrated": ("dataset=calibrated", "dataset.render.videos=16", "pairs=both"),
}
SCENES = ("flow", "dots", "layout", "sprites", "figures")
KINETICS: dict[str, dict[str, str | bool]] = {"kinetics": {"trained": True}}
CUTS: dict[str, dict[str, str | bool]] = {"cuts": {"trained": True}}
PULSE: dict[str, dict[str, str | bool]] = {"rlap": {"weights": "rlap"}, "pure": {"weights": "pure"}}
NETWORKS = (
    Network(
        "inception",
        "Inception-I3D",
        "actions, one stream",
        16,
        {"embedded": 224, "calibrated": 112},
        ("Conv3d_2c_3x3", "Mixed_3c", "Mixed_4f", "Mixed_5b", "Mixed_5c"),
        "Mixed_5c",
        KINETICS,
        mean=0.5,
        std=0.5,
        fps=25,
    ),
    Network(
        "transnetv2",
        "TransNetV2",
        "cuts, one stream",
        24,
        same_size((27, 48)),
        ("SDDCNN.0", "SDDCNN.1", "SDDCNN.2", "color_hist_layer", "frame_sim_layer"),
        "SDDCNN.2",
        CUTS,
        fps=25,
    ),
    Network(
        "physnet",
        "PhysNet",
        "pulse, one stream",
        24,
        same_size(32),
        ("conv1", "conv3", "conv5", "conv7", "conv9", "up2"),
        "conv9",
        PULSE,
    ),
    Network(
        "physformer",
        "PhysFormer",
        "pulse, transformer",
        16,
        same_size(128),
        ("stem1", "stem3", "blocks.3", "blocks.7", "blocks.11", "up2"),
        "blocks.11",
        PULSE,
    ),
    Network(
        "efficientphys",
        "EfficientPhys",
        "pulse, one stream of differences",
        24,
        same_size(72),
        ("motion1", "gated1", "motion2", "gated2", "head.hidden"),
        "gated2",
        PULSE,
    ),
    Network(
        "tscan",
        "TS-CAN",
        "pulse, two streams with connections",
        20,
        same_size(36),
        ("appearance1", "motion1", "fused1", "appearance2", "motion2", "fused2", "head.hidden"),
        "fused2",
        PULSE,
    ),
)
BY_NAME = {network.name: network for network in NETWORKS}
UNTRAINED, YARDSTICK = "untrained", "yardstick"


@dataclass(frozen=True)
class Run:
    """One run of the atlas: a network with one set of weights on one data set."""

    network: str
    weights: str
    data: str

    def folder(self, save_dir: Path) -> Path:
        """Return the folder of the run; its name ends in a hash of the options of the run."""
        return save_dir / self.data / f"{self.network}-{self.weights}-{json_sha256(settings(self))[:8]}"


def all_runs() -> list[Run]:
    """Return all runs, data set by data set; the last run of each data set is that of the yardsticks."""
    runs = []
    for data in DATA:
        runs += [Run(n.name, w, data) for n in NETWORKS for w in (*n.trained, UNTRAINED)]
        runs.append(Run(YARDSTICK, YARDSTICK, data))
    return runs


def overrides(run: Run, save_dir: Path) -> list[str]:
    """Return the options of a run for ``python main.py``."""
    return [*settings(run), f"save_dir={save_dir}", f"run_dir={run.folder(save_dir)}"]


def settings(run: Run) -> list[str]:
    """Return the options of a run that decide its results."""
    options = [*DATA[run.data], *COMMON]
    if run.network == YARDSTICK:
        return [*options, "model=yardstick"]
    network = BY_NAME[run.network]
    size = network.sizes[run.data]
    pixels = f"[{size[0]},{size[1]}]" if isinstance(size, tuple) else str(size)
    options += [
        "model=custom",
        f"model.target=examples.atlas.{network.name}.build",
        f"model.name={network.name}-{run.weights}",
        f"model.stages=[{','.join(network.stages)}]",
        f"model.input.frames={network.frames}",
        "model.input.sampling_rate=1",
        f"model.input.size={pixels}",
        f"model.input.crop={pixels}",
        f"model.input.fps={network.fps}",
        f"model.input.mean=[{network.mean},{network.mean},{network.mean}]",
        f"model.input.std=[{network.std},{network.std},{network.std}]",
    ]
    if run.weights == UNTRAINED:
        return [*options, "model.init=random"]
    arguments = network.trained[run.weights]
    return options + [f"+model.options.{key}={str(value).lower()}" for key, value in arguments.items()]
