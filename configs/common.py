"""The options that all tasks share. The class docstrings are section titles of ``python main.py --help``."""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from .schema import Number, option


@dataclass
class Original:
    """Options of Kowal et al.'s code that have a single allowed value or no effect in this project."""

    n_factors: int = option(3, "number of factors: dynamic, static, residual", choices=(3,))
    residual_index: int = option(2, "position of the residual factor, counted from 0", choices=(2,))
    image_size: str | None = option(None, "set model.input.size and model.input.crop instead", ignored=True)
    gp: str | None = option(None, "ignored by Kowal et al.'s code, too", ignored=True)
    torchscript: str | None = option(None, "ignored by Kowal et al.'s code, too", ignored=True)
    stage: str | None = option(None, "use stg; ignored by Kowal et al.'s code, too", ignored=True)


@dataclass
class Execution:
    """Options for results, batches, video decoding, hardware, shards and errors."""

    save_dir: str = option("dim_outputs", "folder of all results")
    run_dir: str | None = option(None, "folder of this run; null: save_dir/MODEL/DATASET/seed00N-HASH")
    batch_size: int | str = option(
        8,
        "network inputs (task=stylize: frames) per forward pass, halved if memory runs out; auto: 64 on "
        "a GPU, else 2",
        choices=("auto",),
        least=1,
        most=1_000_000,
    )
    num_workers: int = option(2, "number of processes that decode video", least=0, most=1024)
    clip_timeout: Number = option(
        300,
        "seconds that decoding one clip may take; a clip that takes longer twice is unreadable",
        least=0.1,
    )
    precision: str | None = option(
        None,
        "number format of the network. task=profile: fp32, or bf16 if a sample of inputs gives the same "
        "activations in both; task=stylize: any. null: fp32 (task=stylize on a GPU: fp16)",
        choices=("fp32", "fp16", "bf16"),
    )
    tune: bool = option(False, "time channels_last_3d and torch.compile first, then use the fastest setting")
    shards: int = option(
        1,
        "number of runs that share the work: views (network inputs) of task=profile, which task=merge joins "
        "afterwards, or videos of task=stylize",
        least=1,
        most=1_000_000,
    )
    shard: int = option(0, "which of the shards this run computes, counted from 0", least=0)
    device: int | str | None = option(None, "cpu, cuda, or the number of a GPU; null: a GPU if there is one")
    on_error: str = option(
        "error", "unreadable clip: stop with an error, or skip and report the clip", choices=("error", "skip")
    )
    nan: str = option(
        "error", "NaN or infinite activations: error, or skip and report the input", choices=("error", "skip")
    )


@dataclass
class Pyramid:
    """Options for the selection of kernels by Class Feature Pyramids (task=saliency)."""

    rules: str = option(
        "corrected",
        "original: repeat the errors of Stergiou et al.'s code; only for their networks (model=cfp_...)",
        choices=("corrected", "original"),
    )
    theta: Number = option(
        0.65,
        "minimum strength of a selected kernel relative to the strongest kernel; published: 0.55 to 0.65",
        least=0,
        most=1,
    )
    depth: int = option(
        3, "number of layers of kernels; 1: only the features that the classifier reads", least=1
    )
    select: str = option(
        "all",
        "all, or topK_inL, e.g. top5_in2: for each kernel of level L (level 1 feeds the classifier), follow "
        "only its K strongest input kernels",
    )


@dataclass
class Sampling:
    """Options for styles, clips and pairs of network inputs."""

    styles: str = option("1,2,3,4", "ids of the styles to use, separated by commas")
    pairs: str = option(
        "factorial",
        "pairs per clip. factorial: all pairs of network inputs from every style in two frame orders; both: "
        "one dynamic pair and one static pair from two styles in two frame orders; paper: one of these two",
        choices=("factorial", "both", "paper"),
    )
    orders: list[str] = option(
        ["forward", "shuffled"],
        "orders of the frames that the network sees; reshuffled, reversed and frozen (one frame repeated) "
        "may be added, each with a motion part of its own; with masks also new_background (the moving "
        "foreground on a new, still background) and frozen_foreground (one frame of it there)",
    )
    backgrounds: str = option(
        "stripes",
        "background in the orders new_background and frozen_foreground: stripes or noise, drawn for each "
        "clip, or clip: a frame of another video",
        choices=("stripes", "noise", "clip"),
    )
    n_examples: int = option(3000, "maximum number of clips, from the start of the data set's list", least=1)
    until: Number | None = option(
        None,
        "read clips in random order, and stop when all intervals of content, motion, appearance and residual "
        "have a half-width of at most this number, e.g. 0.03; null: read all clips",
        least=0,
    )
    n_sample_frames: int | None = option(
        None,
        "frames of the window cut from a clip; null: frames x sampling rate of the network",
        least=1,
        most=1_000_000,
    )
    resample_fps: Number | None = option(
        None,
        "frame rate at which the frames of the window are counted; null: every stored frame counts",
        least=0.01,
        most=100_000,
    )
    app_shuffle: bool = option(
        True, "static pair: a clip and the same clip with shuffled frames; false: two classes in one style"
    )
    use_normal_app: bool = option(False, "take static pairs from the unstylized videos (normal_data_root)")
    normal_data_root: str | None = option(
        None, "folder of the unstylized videos (DAVIS: with optical flow); null: stylized_data_dir/style_0"
    )
    m_same: bool = option(True, "dynamic pair: one video in two styles; false: two videos of one class")
    seed: int = option(
        1, "seed of all random choices; --random_seed in Kowal et al.'s code", least=0, most=2**63 - 1
    )


@dataclass
class Statistics:
    """Options for the bootstrap, for p-values and for tasks that read finished runs."""

    runs: list[str] = option([], "folders of finished runs, for tasks such as report, compare and units")
    n_boot: int = option(1000, "number of bootstrap replicates for the intervals", least=0, most=1_000_000)
    n_permutations: int = option(
        200,
        "number of random sign flips (CKA, neighbours: permutations) for p-values; 0: no p-values",
        least=0,
        most=1_000_000,
    )


@dataclass
class Subject:
    """Options that choose the videos, the network and the stage."""

    stylized_data_dir: str | None = option(
        None, "root folder of a stylized data set (style_1/VIDEO, ...); null: dataset=embedded needs none"
    )
    checkpoint: str | None = option(
        None, "file of weights, or pretrained for weights to download; null: the value of model.checkpoint"
    )
    checkpoint_key: str | None = option(
        None,
        "entry or key prefix of the weights in the checkpoint, such as model_ema or teacher; "
        "null: the weights that fit the network, not averaged",
    )
    drop_head: bool = option(
        False, "accept a checkpoint without classifier, or with one that was trained on other classes"
    )
    stg: int | str | None = option(
        None,
        "stage (layer) to analyse: a name (stage3/fuse1/fast, layer4,app_stream) or a number (CNNs: 1 to 5, "
        "transformers: block, counted from 0); null: all stages, or the deepest where only one is shown",
    )
    units: str = option(
        "channels",
        "units of the stages: channels of their outputs; of a transformer also heads (the outputs of the "
        "attention heads before the output projection) or neurons (the hidden layers of the MLPs)",
        choices=("channels", "heads", "neurons"),
    )
    tokens: str | None = option(
        None,
        "tokens of a transformer that are averaged: patches, the class token, or modules with one token per "
        "frame; null: channels as the stages of the network declare, heads and neurons over patches",
        choices=("patches", "class", "frames"),
    )
    cells: str | None = option(
        None,
        "also average activations per cell: of a grid TIMExHEIGHTxWIDTH such as 1x8x8 (maps) or 8x1x1 (time "
        "courses); mask: inside and outside of the masks; objects: per labelled object; null: no cells",
    )
    masks: str | None = option(
        None,
        "masks of the videos, for cells=mask or objects, and for orders with a new background: a folder "
        "(MASKS/VIDEO/*.png, VIDEO.npz), a COCO json file, davis (the annotations of the DAVIS data set), "
        "detector (torchvision's Mask R-CNN), or package.module.function (a detector); null: those of the "
        "data set",
    )
    path: str = option(
        "fast", "SlowFast: pathway to analyse; cat: both, concatenated", choices=("slow", "fast", "cat")
    )
    fuse: bool = option(True, "SlowFast: read a stage after the lateral fusion; false: before the fusion")
    joint_encoding: bool = option(
        False, "also print and plot how many units of stage stg are dynamic, static, joint or residual"
    )
    joint_encoding_thresh: Number = option(
        0.5,
        "a unit encodes a factor (dynamic, static) if its unit score exceeds this; joint: both factors",
        least=-1,
        most=1,
    )
    cfg_file: str | None = option(
        None,
        "json file of Kowal et al.'s code for two-stream networks, e.g. configs/rtnet_davis.json; null: none",
    )
    trained_on: str = option(
        "davis", "FusionSeg: training data of the checkpoint, used in the names of result files"
    )


@dataclass
class Common(Original, Execution, Statistics, Sampling, Subject):
    """The whole configuration: all common options, and the chosen task, data set, network and style."""

    task: Any = MISSING
    dataset: Any = MISSING
    model: Any = MISSING
    style: Any = MISSING
    cfp: Pyramid = field(default_factory=Pyramid)
