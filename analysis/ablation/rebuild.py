"""Build the network of a finished run again, and read the run's views again from the data set."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf, open_dict

from static_dynamic import configs
from static_dynamic.analysis.run.forward import BF16_TOLERANCE, FP32_TOLERANCE
from static_dynamic.analysis.run.identity import NOT_IDENTITY
from static_dynamic.analysis.run.manifest import IMPORTED
from static_dynamic.analysis.run.resume import require_same_pixels
from static_dynamic.analysis.run.setup import build_network, find_frames
from static_dynamic.analysis.run.store import Store
from static_dynamic.datasets import ClipList
from static_dynamic.datasets.workers import loader
from static_dynamic.device import choose_device
from static_dynamic.errors import UserError
from static_dynamic.files import sha256
from static_dynamic.models import VideoNetwork

# Name of the file of weights that ``task=train_calibrated`` writes beside the run folder of a checkpoint.
NEIGHBOUR = "weights.pt"


@dataclass(frozen=True)
class RebuiltRun:
    """A finished run, with its network and its data set."""

    store: Store
    net: VideoNetwork
    clips: ClipList
    device: torch.device

    def inputs_of(self, rows: NDArray[np.int64]) -> tuple[Any, NDArray[np.int64]]:
        """Decode views; return the network's input, and the row numbers in the order of the input.

        Raises UserError if a view cannot be read or has other pixels than in the run.
        """
        spec = self.net.input_spec
        batches = self.clips.batches(self.store.views, rows, len(rows), spec)
        (batch,) = loader(batches, 0)
        require_same_pixels(batch, self.store)
        order = np.concatenate([decoded.rows for decoded in batch])
        return self.clips.to_inputs(batch, spec, self.device), order

    def require_same_network(self, inputs: Any, rows: NDArray[np.int64], stage: str) -> None:
        """Raise UserError if the network's activations differ from those of the run."""
        used = self.store.manifest.get("computed_with", {})
        tolerance = BF16_TOLERANCE if used.get("precision") == "bf16" else FP32_TOLERANCE
        found = self.net.read(inputs, (stage,))[stage].double().cpu().numpy()
        stored = self.store.activations(stage)[rows].astype(np.float64)
        error = np.sqrt(np.square(found - stored).mean() / max(np.square(stored).mean(), 1e-300))
        if not error <= tolerance:
            raise UserError(
                f"{self.store.path}: the network has other activations at {stage} than in this run (relative "
                f"error {error:.2g}): give the options of the run again (checkpoint=FILE, drop_head=true)"
            )


def rebuild(cfg: DictConfig, folder: Path) -> RebuiltRun:
    """Build the network of a finished run, and open its data set.

    Raises UserError if the run has no frames, or if its weights are not found.
    """
    store = Store.open(folder)
    store.require_finished()
    identity = store.manifest["identity"]
    if identity["model"]["init"] == IMPORTED:
        raise UserError(
            f"{folder} was imported, so its network is unknown: give the folder of a task=profile run"
        )
    own = options_of_run(cfg, folder, identity)
    net, weights = build_network(own)
    found = sha256(weights) if weights else None
    if found != identity.get("weights_sha256"):
        raise UserError(
            f"{folder} was computed with other weights than {own.checkpoint or own.model.checkpoint}: give "
            "checkpoint=FILE, the file of weights of this run"
        )
    device = choose_device(cfg.device)
    clips = clips_of_run(own, net, store)
    return RebuiltRun(store, net.to(device), clips, device)


def options_of_run(cfg: DictConfig, folder: Path, identity: dict) -> DictConfig:
    """Return a copy of the options with the network, the weights, the data set and the seed of a run.

    A run does not record where its weights lie. They are those of ``checkpoint``, or the file `NEIGHBOUR` of
    a training, or the default weights of the network.
    """
    own = cfg.copy()
    neighbour = folder.parent / NEIGHBOUR
    with open_dict(own):
        defaults = row_of(identity["model"])
        own.model = OmegaConf.create({key: defaults.get(key) for key in NOT_IDENTITY} | identity["model"])
        own.checkpoint = cfg.checkpoint or (str(neighbour) if neighbour.is_file() else None)
        own.seed = identity["seed"]
        own.units, own.tokens = identity.get("units", "channels"), identity.get("tokens")
        own.orders = identity.get("orders", ["forward", "shuffled"])
        known = identity["dataset"]["name"] in configs.rows("dataset")
        if cfg.dataset.name != identity["dataset"]["name"]:
            own.dataset = (
                configs.row("dataset", identity["dataset"]["name"]) if known else {"name": "unknown"}
            )
        # The options of the run's network contain the number of classes, so the data set must not change it.
        own.dataset.num_classes = None
    return own


def row_of(model: dict) -> dict:
    """Return the config file of ``configs/model`` that describes a run's network, as a dict."""
    names = configs.rows("model")
    rows = [OmegaConf.to_container(configs.row("model", name), resolve=False) for name in names]
    same = [
        row for name, row in zip(names, rows, strict=True) if isinstance(row, dict) and name == model["name"]
    ]
    same += [row for row in rows if isinstance(row, dict) and row["family"] == model.get("family")]
    return dict(same[0]) if same else {}


def clips_of_run(own: DictConfig, net: VideoNetwork, store: Store) -> ClipList:
    """Open the data set of a run; raise UserError if its folder is missing."""
    styles = tuple(int(style) for style in sorted(store.views["style"].unique()))
    root = Path(own.task.data_root or store.manifest.get("root", "")).expanduser()
    if not root.is_dir():
        raise UserError(
            f"the videos of the run {store.path} are no longer in {root}: give "
            "task.data_root=FOLDER, the folder that now holds them"
        )
    if net.flow_directions:
        with open_dict(own):
            own.dataset.root = str(root)
            own.dataset.original_data_root = own.normal_data_root or str(root)
        return find_frames(own, net, styles)
    normal = Path(own.normal_data_root).expanduser() if own.normal_data_root else None
    return ClipList(store.manifest["identity"]["dataset"]["name"], root, styles, (), normal_root=normal)


def kept_views(store: Store, altered: NDArray[np.int64]) -> pd.DataFrame:
    """Return the computed views in forward order and in the altered order, indexed by row number.

    The column ``altered`` is 0 or 1 (`alteration`); ``position`` numbers the rows of one view, of which there
    are several for networks that see several frames.
    """
    columns = ["clip", "cluster", "video", "label", "style"]
    table = store.views[columns].assign(row=np.arange(len(store.views)), altered=altered)
    table = table[np.isin(table["row"], store.done()) & (altered >= 0)]
    table["position"] = table.groupby(["clip", "style", "altered"]).cumcount()
    return table.set_index("row")
