"""From options to what a run needs: network, clips, the options of views and pairs, batch size."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from omegaconf import DictConfig

from static_dynamic.analysis.run.extraction import extract
from static_dynamic.analysis.run.store import Store, read_manifest, to_json
from static_dynamic.datasets import ClipList, list_clips, list_davis
from static_dynamic.datasets.views import FLOW
from static_dynamic.device import choose_device
from static_dynamic.errors import UserError
from static_dynamic.files import write_text
from static_dynamic.models import VideoNetwork, build_from_row
from static_dynamic.models.checkpoints import weights_file
from static_dynamic.models.twostream import TwoStreamNetwork

log = logging.getLogger(__name__)

# batch_size=auto: more than fits is halved where it does not
AUTO_BATCH = {"cpu": 2, "cuda": 64}


# a checkpoint of that name stands for none at all, as in the original
NO_CHECKPOINT = "imgnet"


def require_fit(cfg: DictConfig) -> None:
    """Raise where network and data set do not go together, before either costs anything."""
    if cfg.precision == "fp16":
        raise UserError("precision=fp16 is for task=stylize: give fp32 or bf16")
    shape = cfg.model.get("input") or {}
    flow = FLOW in (shape.get("pathways") or {})
    if flow and cfg.dataset.layout != "davis":
        raise UserError(
            f"model {cfg.model.name!r} takes images and optical flow, which dataset={cfg.dataset.name} "
            "has not: give dataset=StylizedDAVIS"
        )
    if flow and shape["size"] != shape["crop"]:
        raise UserError(
            f"model.input.size={shape['size']}, model.input.crop={shape['crop']}: frames of "
            f"dataset={cfg.dataset.name} are resized to one size: give crop_size=[480,854]"
        )


def build_network(cfg: DictConfig) -> tuple[VideoNetwork, Path | None]:
    """The network that the configuration asks for, and the file that its weights came from (None: random)."""
    if cfg.checkpoint == NO_CHECKPOINT:
        log.warning("checkpoint=%s: no weights are loaded, not even ImageNet's: random ones", NO_CHECKPOINT)
        cfg.model.init = "random"
    if cfg.model.init == "random":
        checkpoint = None
    else:
        checkpoint = cfg.checkpoint or cfg.model.checkpoint
        if checkpoint is None or (checkpoint != "pretrained" and not Path(checkpoint).exists()):
            raise UserError(
                f"model {cfg.model.name!r}: no weights at checkpoint={checkpoint}: give checkpoint=FILE, or "
                "model.init=random to look at the untrained network"
            )
    classes = cfg.dataset.get("num_classes")
    if classes and checkpoint != "pretrained":  # those have a head of their own
        log.info("a head of %d classes, those of dataset=%s (dataset.num_classes)", classes, cfg.dataset.name)
        cfg.model.num_classes = classes
    net = build_from_row(cfg.model, checkpoint=checkpoint, seed=cfg.seed, drop_head=cfg.drop_head)
    return net, weights_file(net, checkpoint, cfg.model.get("pretrained"))


def find_clips(cfg: DictConfig, net: VideoNetwork, styles: tuple[int, ...]) -> ClipList:
    """The clips of ``cfg.dataset``, as the network sees them."""
    if not isinstance(net, TwoStreamNetwork):
        return list_clips(cfg.dataset, styles, cfg.n_examples, cfg.on_error, cfg.normal_data_root)
    return list_davis(
        cfg.dataset,
        styles,
        both_flows=net.channels["Flow"] > net.channels["Image"],
        frames_at_once=net.input_spec.pathways["Image"],
        limit=cfg.n_examples,
        on_error=cfg.on_error,
    )


def sampling_of(cfg: DictConfig) -> dict:
    """How views and pairs are drawn: the options of `make_views`."""
    rules = cfg.dataset.get("window") or {}
    repeats = {"repeats": cfg.dataset.nreps} if "nreps" in cfg.dataset else {}
    return {
        **repeats,
        "pairs": cfg.pairs,
        "window": rules.get(cfg.pairs) or rules.get("default") or "drawn",
        **{key: cfg[key] for key in ("resample_fps", "app_shuffle", "use_normal_app", "m_same")},
    }


def read_views(cfg: DictConfig, net: VideoNetwork, clips: ClipList, views, store: Store) -> None:
    """Extract what is still to be read; measured time goes to ``timing.json``, for planning."""
    to_do = len(store.to_do())
    if not to_do:
        log.info("all %d views are on disk: %s", len(views), store.path)
        return
    device = choose_device(cfg.device)
    begin = time.perf_counter()
    extract(
        net,
        clips,
        views,
        store,
        device=device,
        batch_size=batch_size_of(cfg, store.path),
        num_workers=cfg.num_workers,
        **{key: cfg[key] for key in ("on_error", "nan", "clip_timeout", "tune")},
        precision=cfg.precision or "fp32",
    )
    timing = {"views": to_do, "seconds": time.perf_counter() - begin, "device": str(device)}
    write_text(store.path / "timing.json", to_json(timing))


def batch_size_of(cfg: DictConfig, folder: Path) -> int:
    """Views in a batch; ``auto`` is what the run began with, whatever machine it goes on on."""
    if cfg.batch_size != "auto":
        return cfg.batch_size
    begun = read_manifest(folder) if (folder / "manifest.json").exists() else {}
    return begun.get("batch_size") or AUTO_BATCH[choose_device(cfg.device).type]
