"""Train networks on rendered scenes, profile their checkpoints, and compare the training conditions."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from shutil import rmtree

import pandas as pd
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf, open_dict

from static_dynamic.analysis.run.manifest import LOGITS
from static_dynamic.analysis.run.planned import PlannedRun
from static_dynamic.analysis.run.store import DONE, Store
from static_dynamic.analysis.run.tables import read_table, write_table
from static_dynamic.analysis.run.training import Schedule, StaticDropout, train
from static_dynamic.configs import row
from static_dynamic.configs.tasks import SMALL_NETWORKS
from static_dynamic.datasets.calibrated import TRUTH, VERSION
from static_dynamic.datasets.training_scenes import CLASSES, LABELS_VERSION, labels_of
from static_dynamic.device import choose_device
from static_dynamic.errors import UserError
from static_dynamic.files import atomic_path, json_sha256, write_text
from static_dynamic.models import build_from_row

from .bootstrap import estimate_run
from .decomposition import PARTS
from .tables import seed_half_widths

# written at the end: if this file exists, the training is not repeated
RESULT = "training.csv"


@dataclass(frozen=True)
class Condition:
    """Training condition: what the network learns, and from which videos."""

    target: str  # key of `CLASSES`
    # in most training videos, the shape's position reveals the motion direction
    shortcut: bool = False
    dropout: bool = False  # StaticDropout


CONDITIONS = {
    "velocity": Condition("velocity"),
    "layout": Condition("layout"),
    "texture": Condition("texture"),
    "shortcut": Condition("velocity", shortcut=True),
    "static_dropout": Condition("velocity", shortcut=True, dropout=True),
}
# Differences to report: (condition, condition that is subtracted from it, quantity that is compared).
COMPARED = (
    ("velocity", "layout", "motion"),
    ("velocity", "texture", "motion"),
    ("static_dropout", "shortcut", "motion"),
    ("static_dropout", "shortcut", "accuracy"),
)
NUMBERS = ("accuracy", *PARTS)
# Task options that do not change the result of a training, and so do not enter its folder's name.
CHOOSES = ("networks", "conditions", "seeds", "outdir", "name", "about", "run", "needs_data")


@dataclass(frozen=True)
class Training:
    """One training: a network, a condition and a seed; `folder` holds checkpoints, profiles and result."""

    network: str
    condition: str
    seed: int
    folder: Path

    def result(self) -> pd.DataFrame | None:
        """Read the result of a finished training; None if the training is not finished."""
        file = self.folder / RESULT
        return read_table(file, ("stage", "step", *NUMBERS)) if file.exists() else None

    def run(self, cfg: DictConfig, videos: NDArray, truth: pd.DataFrame, schedule: Schedule) -> Iterator[int]:
        """Train from the beginning and profile each checkpoint; yield the number of finished steps.

        `videos` (n, 3, T, H, W) and `truth` (n rows) are as from `render_training`; `cfg` holds the data set
        of the profile. At the end, one row per checkpoint and stage is written to ``training.csv``.
        """
        condition = CONDITIONS[self.condition]
        # delete checkpoints of an interrupted training
        for old in self.folder.glob("step_*"):
            rmtree(old)
        model = row("model", self.network)
        model.num_classes = CLASSES[condition.target]
        net = build_from_row(model, seed=self.seed)
        dropout = StaticDropout(cfg.task.static_dropout, self.seed) if condition.dropout else None
        frames = cfg.dataset.render.frames
        labels = labels_of(condition.target, truth, frames)
        rows = []
        device = choose_device(cfg.device)
        for step, loss in train(net, videos, labels, schedule, self.seed, device, dropout):
            store = self.read_checkpoint(cfg, model, net, step)
            found = estimate_run(store.path, cfg.n_boot, cfg.seed)
            if dropout:
                units = found.units[found.units["stage"] == list(net.stages)[-1]]
                dropout.update((units["content"] + units["appearance"]).to_numpy())
            layers = found.layers[["stage", "units", *PARTS]]
            about = {"network": self.network, "condition": self.condition, "seed": self.seed, "step": step}
            measured = {"loss": loss, "accuracy": accuracy(store, condition.target, frames)}
            rows.append(layers.assign(**about, **measured)[[*about, *measured, *layers]])
            yield step
        write_table(self.folder / RESULT, pd.concat(rows))

    def read_checkpoint(self, cfg: DictConfig, model: DictConfig, net, step: int) -> Store:
        """Save the network's weights, compute its activations for the profile, and return their store."""
        folder = self.folder / f"step_{step:06d}"
        weights = folder / "weights.pt"
        with atomic_path(weights) as temporary:
            torch.save({name: value.cpu() for name, value in net.state_dict().items()}, temporary)
        own = cfg.copy()
        with open_dict(own):
            own.model, own.checkpoint, own.run_dir = model, str(weights), str(folder / "profile")
        planned = PlannedRun.of(own)
        store = planned.open(planned.folder)
        planned.read(store)
        return store


def folder_of(cfg: DictConfig) -> Path:
    """Return ``task.outdir`` or, if it is null, a folder in ``save_dir`` named by a hash of the options.

    The options are kept in ``options.json``. Raises UserError if the folder holds trainings with others.
    """
    task = {str(k): v for k, v in cfg.task.items() if k not in CHOOSES}
    identity = {"task": task, "render": OmegaConf.to_container(cfg.dataset.render), "version": VERSION}
    identity |= {"styles": cfg.styles, "orders": list(cfg.orders), "seed": cfg.seed, "labels": LABELS_VERSION}
    identity["networks"] = {name: OmegaConf.to_container(row("model", name)) for name in SMALL_NETWORKS}
    digest = json_sha256(identity)[:8]
    given = cfg.task.outdir
    folder = Path(given).expanduser() if given else Path(cfg.save_dir) / "train_calibrated" / digest
    kept, options = folder / "options.json", json.dumps(identity, indent=2) + "\n"
    if kept.exists() and kept.read_text() != options:
        raise UserError(f"{folder} holds trainings with other options: give another task.outdir")
    write_text(kept, options)
    return folder


def accuracy(store: Store, target: str, frames: int) -> float:
    """Return the fraction of forward views for which the class with the largest score is the label."""
    views = store.views
    shown = ((views["order"] == "forward") & (store.status == DONE)).to_numpy()
    truth = pd.read_parquet(Path(store.manifest["root"]) / TRUTH)
    seen = views.loc[shown, ["cluster", "style"]].rename(columns={"cluster": "video"})
    labels = labels_of(target, seen.merge(truth, on=["video", "style"], how="left"), frames)
    return float((store.activations(LOGITS)[shown].argmax(1) == labels).mean())


def summarise(table: pd.DataFrame) -> pd.DataFrame:
    """Average accuracy and parts over seeds, with Student's 95 % intervals (columns _low and _high)."""
    rows = []
    keys = ["network", "condition", "step", "stage"]
    for key, group in table.groupby(keys, sort=False):
        rows.append(dict(zip(keys, key, strict=True)) | {"seeds": len(group)} | columns_of(group[[*NUMBERS]]))
    return pd.DataFrame(rows)


def compare(table: pd.DataFrame) -> pd.DataFrame:
    """Estimate the differences in `COMPARED` at the end of training; runs of equal seed are paired."""
    last = table[table["step"] == table["step"].max()]
    rows = []
    for network, (left, right, number) in product(last["network"].unique(), COMPARED):
        own = last[last["network"] == network].set_index(["condition", "seed", "stage"])[number]
        known = own.index.get_level_values("condition")
        if left not in known or right not in known:
            continue
        differences = (own[left] - own[right]).dropna().unstack("stage")  # (seeds, stages)
        stages = [s for s in own[left].index.get_level_values("stage").unique() if s in differences]
        for stage in stages[-1:] if number == "accuracy" else stages:
            about = {"network": network, "left": left, "right": right, "number": number, "stage": stage}
            found = columns_of(differences[[stage]].rename(columns={stage: "difference"}))
            rows.append(about | {"seeds": len(differences)} | found)
    return pd.DataFrame(rows)


def columns_of(values: pd.DataFrame) -> dict[str, float]:
    """Return the mean of each column over the rows (seeds), with Student's 95 % interval."""
    mean, half = values.to_numpy().mean(0), seed_half_widths(values.to_numpy()).student
    columns: dict[str, float] = {}
    for name, middle, width in zip(values, mean, half, strict=True):
        columns |= {name: middle, f"{name}_low": middle - width, f"{name}_high": middle + width}
    return columns
