"""Look up the kinds (content ...) and unit classes (dynamic ...) of kernels in a ``task=profile`` run.

A kernel has a kind and a unit class if its output channel is a unit of a profiled stage. This holds for the
last convolution before the stage's output; with parallel branches, for the last convolution of each branch.
If the stage adds a shortcut, the unit is the sum, which is what later layers read of the kernel. Other
kernels, inside of blocks, were not measured and have neither.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from static_dynamic.analysis.estimate.estimator import UNIT_CLASSES
from static_dynamic.analysis.estimate.intervals import bootstrap_weights, interval
from static_dynamic.analysis.estimate.kinds import KINDS
from static_dynamic.analysis.explain.class_feature_pyramids import Pyramid
from static_dynamic.analysis.explain.feature_path import FeaturePath, Segment
from static_dynamic.analysis.run.manifest import read_manifest
from static_dynamic.analysis.run.tables import read_table
from static_dynamic.errors import UserError
from static_dynamic.models.stages import Tap, VideoNetwork

# Keys of a model's configuration that identify the network.
SAME = ("family", "args", "num_classes", "init")


@dataclass(frozen=True)
class Labels:
    """A table column that labels units: its name, the labels, and the label of kernels that are not units."""

    column: str
    values: tuple[str, ...]
    other: str


BY_KIND = Labels("kind", KINDS, "not profiled")
BY_CLASS = Labels("class", UNIT_CLASSES, "unknown")


@dataclass(frozen=True)
class KernelClasses:
    """Kinds and unit classes of a network's kernels, from a run of ``task=profile``."""

    # One row per kernel, with columns layer, channel, stage, unit, class, and kind if the run has kinds.
    units: pd.DataFrame
    # Folder name of the ``task=profile`` run.
    origin: str

    def of(self, nodes: pd.DataFrame) -> pd.DataFrame:
        """Add columns ``stage``, ``class``, ``kind`` to a table of kernels; NaN if a kernel is not a unit."""
        return nodes.merge(self.units.drop(columns="unit"), how="left", on=["layer", "channel"])

    @property
    def labels(self) -> list[Labels]:
        """Available labels of kernels: unit classes, and kinds if the run has kinds."""
        return [BY_KIND, BY_CLASS] if "kind" in self.units else [BY_CLASS]


def read_kernel_classes(
    folder: str | Path, net: VideoNetwork, path: FeaturePath, identity: dict
) -> KernelClasses:
    """Read the unit classes of the network's kernels from the folder of a ``task=profile`` run.

    `identity`: the network that the run must have profiled, as ``model`` (its configuration),
    ``weights_sha256`` and ``seed``. Raises UserError if the folder holds no finished run, if the run is of
    another network, or if no profiled stage ends in a convolution.
    """
    folder = Path(folder)
    require_same_network(folder, read_manifest(folder)["identity"], identity)
    if not (folder / "units.parquet").exists():
        raise UserError(f"task.profile={folder} holds no units.parquet: finish that task=profile run first")
    kernels = stage_kernels(net, path)
    profiled = read_table(folder / "units.parquet", ("stage", "unit", "class"))
    known = "kind" in profiled and profiled["kind"].notna().any()
    profiled = profiled[["stage", "unit", "class", *(["kind"] if known else [])]]
    units = kernels.merge(profiled, on=["stage", "unit"])
    if units.empty:
        raise UserError(f"task.profile={folder}: none of the profiled units is a kernel of this network")
    # A channel of SlowFast can be a unit of several stages; only the first of these stages is kept.
    units = units.drop_duplicates(["layer", "channel"]).reset_index(drop=True)
    return KernelClasses(units, folder.resolve().name)


def require_same_network(folder: Path, profiled: dict, explained: dict) -> None:
    """Raise UserError if the run of ``task=profile`` measured another network or other weights."""
    differing = [key for key in SAME if profiled["model"].get(key) != explained["model"].get(key)]
    if profiled.get("weights_sha256") != explained["weights_sha256"]:
        differing.append("weights")
    elif explained["weights_sha256"] is None and profiled.get("seed") != explained["seed"]:
        differing.append("seed of the random weights")
    if differing:
        raise UserError(
            f"task.profile={folder} measured another network ({profiled['model']['name']}; its "
            f"{differing[0]} differs): give a task=profile run of the network that is explained"
        )


def stage_kernels(net: VideoNetwork, path: FeaturePath) -> pd.DataFrame:
    """Return a table with the kernel (layer, channel) that computes each unit; skip units without kernel."""
    rows = []
    for name, stage in net.stages.items():
        first = 0
        for tap in stage.taps:
            segments = channels_of(tap, path)
            if not segments and len(stage.taps) > 1:
                # without this tap's channels, the units of later taps cannot be numbered
                break
            for layer, start, end in segments:
                if layer is not None:
                    number = np.arange(end - start)
                    unit = {"layer": layer, "channel": start + number, "stage": name, "unit": first + number}
                    rows.append(pd.DataFrame(unit))
                first += end - start
    columns = ["layer", "channel", "stage", "unit"]
    return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=columns)


def channels_of(tap: Tap, path: FeaturePath) -> Sequence[Segment]:
    """Return which layers compute the channels that a tap reads; empty if the tap reads no feature maps."""
    outputs = path.outputs.get(tap.module, [])
    index = 0 if tap.select is None else tap.select
    if tap.layout != "maps" or tap.fold > 1 or not isinstance(index, int) or index >= len(outputs):
        return ()
    return outputs[index]


def count_kernels(pyramid: Pyramid, classes: KernelClasses, labels: Labels = BY_CLASS) -> pd.DataFrame:
    """Count a pyramid's kernels per level, stage and label; kernels that are not units get the stage ''."""
    nodes = classes.of(pyramid.nodes.query("level > 0"))
    named = nodes[labels.column].fillna(labels.other)
    nodes = nodes.assign(stage=nodes["stage"].fillna(""), **{labels.column: named})
    table = nodes.groupby(["level", "stage", labels.column]).size().unstack(fill_value=0)
    table = table.reindex(columns=[*labels.values, labels.other], fill_value=0)
    return table.assign(kernels=table.sum(axis=1)).reset_index()


def class_shares(
    counts: pd.DataFrame,
    classes: KernelClasses,
    n_boot: int,
    seed: int,
    level: float = 0.95,
    labels: Labels = BY_CLASS,
) -> pd.DataFrame:
    """Estimate each unit class's (or kind's) share among the kernels in the pyramids of many clips.

    `counts`: rows of `count_kernels` of every clip, with the columns ``clip``, ``cluster`` and ``label``.

    Returns one row per label (and ``all``), level and stage: number of clips, clusters and kernels (counted
    once per clip). Each class has the columns ``share_CLASS``, with the bounds ``_low`` and ``_high`` of an
    interval over videos, and ``stage_share_CLASS``, the share among all kernels of the stage, which is the
    expected share of a random selection.
    """
    known = counts[counts["stage"] != ""]
    rows = []
    for label, own in [("all", known), *known.groupby("label")]:
        clusters, number = np.unique(own["cluster"], return_inverse=True)
        weights = bootstrap_weights(len(clusters), n_boot, seed)
        for (depth, stage), part in own.assign(_cluster=number).groupby(["level", "stage"]):
            sums = np.zeros((len(clusters), len(labels.values)))
            np.add.at(sums, part["_cluster"].to_numpy(), part[list(labels.values)].to_numpy(float))
            about = {"label": label, "level": depth, "stage": stage, "clips": part["clip"].nunique()}
            about |= {"clusters": part["cluster"].nunique(), "kernels": int(sums.sum())}
            of_stage = classes.units.loc[classes.units["stage"] == stage, labels.column]
            rows.append(about | shares_of(sums, weights, of_stage, level, labels))
    return pd.DataFrame(rows)


def shares_of(
    sums: NDArray, weights: NDArray, of_stage: pd.Series, level: float, labels: Labels
) -> dict[str, float]:
    """Return each label's share among a stage's selected kernels and among all kernels of the stage."""
    with np.errstate(invalid="ignore"):
        # `sums` has shape (videos, labels)
        point = sums.sum(0) / sums.sum()
        resampled = weights @ sums
        replicates = resampled / resampled.sum(axis=1, keepdims=True)
    low, high = interval(point, replicates, len(sums), level)
    low, high = np.clip(low, 0, 1), np.clip(high, 0, 1)
    row: dict[str, float] = {}
    for k, name in enumerate(labels.values):
        row |= {f"share_{name}": point[k], f"share_{name}_low": low[k], f"share_{name}_high": high[k]}
        row[f"stage_share_{name}"] = (of_stage == name).mean()
    return row
