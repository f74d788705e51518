"""Kernels of a class feature pyramid by what a profile says of them: static, dynamic, joint, residual.

A kernel has a class where its channel is a channel of a stage that was profiled: the last convolutions
before the stage's output, of parallel branches each at its place in their concatenation. Where a shortcut is
added, the stage's channel is the sum, which is also what later layers see of the kernel. All other kernels
(those within a block) were not measured, and have none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from static_dynamic.analysis.estimate.bootstrap import bootstrap_weights, interval
from static_dynamic.analysis.estimate.estimator import UNIT_CLASSES
from static_dynamic.analysis.explain.class_feature_pyramids import Pyramid
from static_dynamic.analysis.explain.feature_path import FeaturePath, Segment
from static_dynamic.analysis.run.store import read_manifest
from static_dynamic.errors import UserError
from static_dynamic.models.stages import Tap, VideoNetwork

# what a model row says of the network itself
SAME = ("family", "args", "num_classes", "init")


@dataclass(frozen=True)
class KernelClasses:
    """A profile's classes of the kernels of a network: ``units`` has one row a kernel that has a class
    (layer, channel, stage, unit, class); ``origin`` names the run."""

    units: pd.DataFrame
    origin: str

    def of(self, nodes: pd.DataFrame) -> pd.DataFrame:
        """The kernels of a pyramid with stage and class; both are missing where nothing is known."""
        return nodes.merge(self.units.drop(columns="unit"), how="left", on=["layer", "channel"])


def read_kernel_classes(
    folder: str | Path, net: VideoNetwork, path: FeaturePath, identity: dict
) -> KernelClasses:
    """Classes of the kernels of `net` from the folder of a finished run of ``task=profile``.

    Parameters
    ----------
    identity
        What the run must have been of: ``model`` (a row of ``configs/model``), ``weights_sha256``, ``seed``.

    Raises
    ------
    UserError
        No finished run, one of another network, or one none of whose stages ends in a convolution.
    """
    folder = Path(folder)
    theirs = read_manifest(folder)["identity"]
    require_same_network(folder, theirs, identity)
    if not (folder / "units.parquet").exists():
        raise UserError(f"task.profile={folder} holds no units.parquet: finish that run first")
    kernels = stage_kernels(net, path)
    profiled = pd.read_parquet(folder / "units.parquet", columns=["stage", "unit", "class"])
    units = kernels.merge(profiled, on=["stage", "unit"])
    if units.empty:
        raise UserError(f"task.profile={folder}: no channel of its stages is a kernel of this network")
    # several readings of a stage (SlowFast) hold the same channel
    units = units.drop_duplicates(["layer", "channel"]).reset_index(drop=True)
    return KernelClasses(units, folder.resolve().name)


def require_same_network(folder: Path, theirs: dict, ours: dict) -> None:
    """Raise where a run is of another network or other weights."""
    differing = [key for key in SAME if theirs["model"].get(key) != ours["model"].get(key)]
    if not differing and theirs["weights_sha256"] != ours["weights_sha256"]:
        differing = ["weights"]
    if not differing and ours["weights_sha256"] is None and theirs["seed"] != ours["seed"]:
        differing = ["seed of the random weights"]
    if differing:
        raise UserError(
            f"task.profile={folder} is of another network ({theirs['model']['name']}; its {differing[0]} "
            "differs): profile the one that is to be explained"
        )


def stage_kernels(net: VideoNetwork, path: FeaturePath) -> pd.DataFrame:
    """Which kernel (layer, channel) each unit of each stage is; units that are none are left out."""
    rows = []
    for name, stage in net.stages.items():
        first = 0
        for tap in stage.taps:
            segments = channels_of(tap, path)
            if not segments and len(stage.taps) > 1:
                break  # nobody knows where the next one starts
            for layer, start, end in segments:
                if layer is not None:
                    unit = first + np.arange(end - start)
                    channel = start + np.arange(end - start)
                    rows.append(
                        pd.DataFrame({"layer": layer, "channel": channel, "stage": name, "unit": unit})
                    )
                first += end - start
    columns = ["layer", "channel", "stage", "unit"]
    return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=columns)


def channels_of(tap: Tap, path: FeaturePath) -> Sequence[Segment]:
    """Which convolution's rows the columns of a tap are; nothing where they are no channels of maps."""
    outputs = path.outputs.get(tap.module, [])
    place = 0 if tap.select is None else tap.select
    if tap.layout != "maps" or tap.fold > 1 or not isinstance(place, int) or place >= len(outputs):
        return ()
    return outputs[place]


def count_kernels(pyramid: Pyramid, classes: KernelClasses) -> pd.DataFrame:
    """How many kernels of each level are of each class; one row for each level and stage, those without a
    class with stage ``""``."""
    nodes = classes.of(pyramid.nodes.query("level > 0"))
    nodes = nodes.assign(stage=nodes["stage"].fillna(""), **{"class": nodes["class"].fillna("unknown")})
    table = nodes.groupby(["level", "stage", "class"]).size().unstack(fill_value=0)
    table = table.reindex(columns=[*UNIT_CLASSES, "unknown"], fill_value=0)
    return table.assign(kernels=table.sum(axis=1)).reset_index()


def class_shares(
    counts: pd.DataFrame, classes: KernelClasses, n_boot: int, seed: int, level: float = 0.95
) -> pd.DataFrame:
    """Shares of the classes among the kernels that many clips selected.

    Parameters
    ----------
    counts
        Rows of `count_kernels` of every clip, with the columns ``clip``, ``cluster`` and ``label``.

    Returns
    -------
    One row for each label (and ``all``), level and stage: clips, clusters, kernels (counted once a clip), and
    of each class ``share_`` (with ``_low``, ``_high`` over videos) beside ``stage_share_``, its share of all
    kernels of that stage, which a selection that does not care would have.
    """
    known = counts[counts["stage"] != ""]
    rows = []
    for label, own in [("all", known), *known.groupby("label")]:
        clusters, number = np.unique(own["cluster"], return_inverse=True)
        weights = bootstrap_weights(len(clusters), n_boot, seed)
        for (depth, stage), part in own.assign(_cluster=number).groupby(["level", "stage"]):
            sums = np.zeros((len(clusters), len(UNIT_CLASSES)))
            np.add.at(sums, part["_cluster"].to_numpy(), part[list(UNIT_CLASSES)].to_numpy(float))
            about = {"label": label, "level": depth, "stage": stage, "clips": part["clip"].nunique()}
            about |= {"clusters": part["cluster"].nunique(), "kernels": int(sums.sum())}
            rows.append(about | shares_of(sums, weights, stage_shares(classes, stage), level))
    return pd.DataFrame(rows)


def shares_of(sums: NDArray, weights: NDArray, of_stage: NDArray, level: float) -> dict[str, float]:
    """Shares with intervals from sums by cluster, (clusters, classes)."""
    with np.errstate(invalid="ignore"):
        point = sums.sum(0) / sums.sum()
        drawn = weights @ sums
        replicates = drawn / drawn.sum(axis=1, keepdims=True)
    low, high = interval(point, replicates, len(sums), level)
    low, high = np.clip(low, 0, 1), np.clip(high, 0, 1)
    row = {}
    for k, name in enumerate(UNIT_CLASSES):
        row |= {f"share_{name}": point[k], f"share_{name}_low": low[k], f"share_{name}_high": high[k]}
        row[f"stage_share_{name}"] = of_stage[k]
    return row


def stage_shares(classes: KernelClasses, stage: str) -> NDArray:
    """Shares of the classes among all kernels of a stage."""
    own = classes.units.loc[classes.units["stage"] == stage, "class"]
    return np.array([(own == name).mean() for name in UNIT_CLASSES])
