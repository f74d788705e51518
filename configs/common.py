"""The options that all tasks share: what the configuration holds beside the chosen rows of its tables."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from static_dynamic.configs.schema import Number, option


@dataclass
class Original:
    """Options of the original programs that are fixed or have no effect here."""

    n_factors: int = option(3, "number of factors: dynamic, static, residual", choices=(3,))
    residual_index: int = option(2, "position of the residual factor", choices=(2,))
    image_size: str | None = option(
        None, "the size belongs to the network (model.input.size, model.input.crop)", ignored=True
    )
    gp: str | None = option(None, "had none in the original either", ignored=True)
    torchscript: str | None = option(None, "had none in the original either", ignored=True)
    stage: str | None = option(None, "had none in the original either; the stage is stg", ignored=True)


@dataclass
class Execution:
    """How to run."""

    save_dir: str = option("dim_outputs", "folder of all results")
    run_dir: str | None = option(None, "folder of this run; null: save_dir/MODEL/DATASET/seed00N-HASH")
    batch_size: int | str = option(
        8,
        "views (task=stylize: frames) per forward pass, halved if memory runs out; auto: 64 on a GPU, else 2",
        choices=("auto",),
        least=1,
    )
    num_workers: int = option(2, "processes that decode video", least=0)
    clip_timeout: Number = option(
        300, "seconds in which a worker has to decode one clip; a clip that takes longer twice is unreadable"
    )
    precision: str | None = option(
        None,
        "number format of the network. task=profile: fp32, or bf16, which is used only if a sample of views "
        "gives the same activations; task=stylize: any. null: fp32, for task=stylize on a GPU fp16",
        choices=("fp32", "fp16", "bf16"),
    )
    tune: bool = option(False, "time channels_last_3d and torch.compile first and use what is faster")
    shards: int = option(
        1,
        "parts that the work is split into, one per run: views of task=profile (task=merge joins the runs), "
        "videos of task=stylize",
        least=1,
    )
    shard: int = option(0, "the part that this run does, counted from 0", least=0)
    device: int | str | None = option(None, "cpu, cuda, or the number of a GPU; null: a GPU if there is one")
    on_error: str = option(
        "error",
        "if a clip cannot be read: error stops the run, skip leaves the clip out and reports its name",
        choices=("error", "skip"),
    )
    nan: str = option(
        "error", "the same for a view whose activations are NaN or infinite", choices=("error", "skip")
    )


@dataclass
class Pyramid:
    """Class Feature Pyramids (task=saliency)."""

    rules: str = option(
        "corrected",
        "original: keep the errors of the published code; only for its own networks (model=cfp_...)",
        choices=("corrected", "original"),
    )
    theta: Number = option(
        0.65,
        "strength from which a kernel is selected, relative to the strongest (1); published: 0.55 to 0.65",
    )
    depth: int = option(3, "levels of kernels; 1: only the features that the classifier reads")
    select: str = option(
        "all", "topK_inL, e.g. top5_in2: follow only the K strongest children of each kernel of level L"
    )


@dataclass
class Sampling:
    """Views and pairs."""

    styles: str = option("1,2,3,4", "ids of the styles, separated by commas")
    pairs: str = option(
        "factorial",
        "pairs per clip. factorial: every style in two frame orders, all pairs of these views; both: one "
        "dynamic and one static pair; paper: one pair, dynamic or static",
        choices=("factorial", "both", "paper"),
    )
    n_examples: int = option(3000, "largest number of clips, in the order of the data set's list", least=1)
    n_sample_frames: int | None = option(
        None,
        "length of the window cut from a clip, in frames; null: frames x sampling rate of the network",
        least=1,
    )
    resample_fps: Number | None = option(
        None, "frame rate at which the window is measured; null: frames as they are stored"
    )
    app_shuffle: bool = option(
        True,
        "static pair: a clip and itself with shuffled frames; false: two classes in one style",
    )
    use_normal_app: bool = option(False, "static pairs show the unstylized videos (normal_data_root)")
    normal_data_root: str | None = option(
        None, "folder of the unstylized videos (DAVIS: with optical flow); null: stylized_data_dir/style_0"
    )
    m_same: bool = option(True, "dynamic pair: one video in two styles; false: two videos of one class")
    seed: int = option(1, "seed of all random choices; --random_seed in the original program")


@dataclass
class Statistics:
    """Statistics."""

    runs: list[str] = option([], "folders of finished runs, for the tasks that read them")
    n_boot: int = option(1000, "bootstrap replicates, for intervals", least=0)
    n_permutations: int = option(200, "permutations, for p-values; 0: no permutation test", least=0)


@dataclass
class Subject:
    """Network and videos."""

    stylized_data_dir: str | None = option(
        None,
        "root folder of a stylized data set: style_1/VIDEO, ...; null: for dataset=embedded only",
    )
    checkpoint: str | None = option(None, "file of weights, or pretrained; null: model.checkpoint")
    drop_head: bool = option(
        False, "leave out the classifier of the checkpoint: it was trained on other classes"
    )
    stg: int | str | None = option(
        None,
        "stage to look at: a name (stage3/fuse1/fast, layer4,app_stream) or a number (CNNs: 1 to 5, "
        "transformers: block, counted from 0); null: all stages, and the deepest where one is needed",
    )
    path: str = option("fast", "SlowFast: pathway to look at", choices=("slow", "fast", "cat"))
    fuse: bool = option(True, "SlowFast: stages after the lateral fusion; false: before")
    joint_encoding: bool = option(
        False, "also print and draw the classes of the units of stage stg, as the original program does"
    )
    joint_encoding_thresh: Number = option(0.5, "a unit encodes a factor if its correlation exceeds this")
    cfg_file: str | None = option(
        None, "json file of the original for a two-stream network, e.g. configs/matnet_davis.json; null: none"
    )
    trained_on: str = option(
        "davis", "FusionSeg: training data of the checkpoint; part of the results' names"
    )


@dataclass
class Common(Original, Execution, Statistics, Sampling, Subject):
    """The whole configuration; ``config.yaml`` names the default row of each table."""

    task: Any = MISSING
    dataset: Any = MISSING
    model: Any = MISSING
    style: Any = MISSING
    cfp: Pyramid = field(default_factory=Pyramid)
