"""Runs side by side: trained beside untrained, one network beside another."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from omegaconf import DictConfig

from analysis.store import read_manifest
from analysis.tables import align, read_layers, with_interval
from configs import UserError

COLUMNS = ("score_dynamic", "score_static", "share_dynamic", "share_static")


def run(cfg: DictConfig) -> None:
    """Print the stages of ``cfg.runs`` side by side."""
    print(compare_runs(cfg.runs))


def compare_runs(folders: Sequence[str | Path]) -> str:
    """Make a table of several runs: a row for each stage that they have, a column for each run.

    Raises
    ------
    UserError
        Fewer than two runs, one without results, or none of whose stages another has.
    """
    if len(folders) < 2:
        raise UserError("task=compare needs two runs at least: give runs=[FOLDER,FOLDER,...]")
    labels = label_runs([read_manifest(Path(folder))["identity"] for folder in folders])
    runs = {label: read_layers(folder) for label, folder in zip(labels, folders, strict=True)}
    stages = list(dict.fromkeys(stage for layers in runs.values() for stage in layers.index))
    if all(sum(stage in layers.index for layers in runs.values()) < 2 for stage in stages):
        raise UserError(f"no stage is in two of the runs {', '.join(labels)}: nothing stands side by side")
    parts = []
    for column in COLUMNS:
        scale, digits = (100, 1) if column.startswith("share") else (1, 3)
        rows = [
            {"stage": stage}
            | {
                label: with_interval(layers.loc[stage], column, scale, digits)
                if stage in layers.index
                else "-"
                for label, layers in runs.items()
            }
            for stage in stages
        ]
        parts.append(f"{column.replace('_', ', ')}{' (%)' if scale == 100 else ''}\n\n{align(rows)}")
    return "\n\n".join(parts)


def label_runs(identities: Sequence[dict]) -> list[str]:
    """Name runs by what tells them apart: network, untrained or not, data set, seed, else a number."""
    parts = pd.DataFrame(
        {
            "model": [i["model"]["name"] for i in identities],
            "init": ["untrained" if i["model"]["init"] == "random" else "trained" for i in identities],
            "dataset": [i["dataset"]["name"] for i in identities],
            "seed": [f"seed {i['seed']}" for i in identities],
        }
    )
    telling = [c for c in parts if c == "model" or parts[c].nunique() > 1]
    labels = parts[telling].agg(" ".join, axis=1)
    repeated = labels.duplicated(keep=False)
    return [
        f"{label} ({k + 1})" if again else label
        for k, (label, again) in enumerate(zip(labels, repeated, strict=True))
    ]
