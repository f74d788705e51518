"""Set up a run from the options: network, list of clips, sampling of views, batch size."""

import logging
import time
from dataclasses import replace
from pathlib import Path

from omegaconf import DictConfig

from static_dynamic.analysis.run.extraction import extract
from static_dynamic.analysis.run.manifest import has_run, read_manifest, to_json
from static_dynamic.analysis.run.store import Store
from static_dynamic.datasets import ClipList, DavisClips, list_clips, list_davis
from static_dynamic.datasets.backgrounds import Backgrounds
from static_dynamic.datasets.masks import open_masks
from static_dynamic.datasets.orders import (
    ALTERED_ORDERS,
    FLOW,
    FORWARD,
    NEW_BACKGROUND,
    REVERSED,
    SHUFFLED,
    SWAPPED,
    further_alterations,
)
from static_dynamic.device import choose_device, launched
from static_dynamic.errors import UserError
from static_dynamic.files import write_text
from static_dynamic.models import VideoNetwork, build_from_row
from static_dynamic.models.cells import MASK, OBJECTS, add_cells, parse_grid
from static_dynamic.models.checkpoints import weights_file
from static_dynamic.rng import digest

log = logging.getLogger(__name__)

# Views per batch for batch_size=auto, by type of device. `Reader` splits batches too large for memory.
AUTO_BATCH = {"cpu": 2, "cuda": 64}
# The option checkpoint=imgnet loads no weights, as in Kowal et al.'s code.
NO_CHECKPOINT = "imgnet"


def require_fit(cfg: DictConfig) -> None:
    """Raise UserError if options contradict each other, or the network needs flow that the data set lacks."""
    further_alterations(cfg.orders, cfg.pairs)
    if cfg.until is not None:
        require_until(cfg)
    if cfg.precision == "fp16":
        raise UserError("precision=fp16 works only with task=stylize: give precision=fp32 or bf16")
    flow, shape = takes_flow(cfg), cfg.model.get("input") or {}
    if flow and cfg.dataset.layout != "davis":
        raise UserError(
            f"model {cfg.model.name!r} takes images and optical flow, but dataset={cfg.dataset.name} "
            "has no flow: give dataset=StylizedDAVIS"
        )
    if flow and shape["size"] != shape["crop"]:
        raise UserError(
            f"model.input.size={shape['size']} differs from model.input.crop={shape['crop']}, but frames of "
            f"dataset={cfg.dataset.name} are never cropped: set both with crop_size=[480,854]"
        )


def require_until(cfg: DictConfig) -> None:
    """Raise UserError if the option ``until`` does not fit the other options."""
    if cfg.pairs == "paper" or not cfg.app_shuffle or cfg.use_normal_app:
        raise UserError(
            "until=WIDTH measures content, motion and appearance, so it needs two styles in both orders: set "
            "app_shuffle=true, use_normal_app=false, and pairs to factorial or both"
        )
    if cfg.shards > 1 or launched():
        raise UserError(
            "until=WIDTH needs all activations in one process: omit shards=N, and start without torchrun"
        )


def takes_flow(cfg: DictConfig) -> bool:
    """Return whether the network that the options name takes optical flow."""
    return FLOW in ((cfg.model.get("input") or {}).get("pathways") or {})


def build_network(cfg: DictConfig) -> tuple[VideoNetwork, Path | None]:
    """Build the network that the options name; return it and the weights file (None for random weights)."""
    if cfg.checkpoint == NO_CHECKPOINT:
        log.warning("checkpoint=%s: no weights are loaded; the network has random weights", NO_CHECKPOINT)
        cfg.model.init = "random"
    # random weights, or a network without weights
    if cfg.model.init != "checkpoint":
        checkpoint = None
    else:
        checkpoint = cfg.checkpoint or cfg.model.checkpoint
        if checkpoint is None or (checkpoint != "pretrained" and not Path(checkpoint).exists()):
            raise UserError(
                f"no weights for model {cfg.model.name!r} at checkpoint={checkpoint}: give checkpoint=FILE, "
                "or model.init=random to analyse the untrained network"
            )
    classes = cfg.dataset.get("num_classes")
    # a pretrained network keeps its own classes
    if classes and checkpoint != "pretrained":
        log.info(
            "classifier with the %d classes of dataset=%s (dataset.num_classes)", classes, cfg.dataset.name
        )
        cfg.model.num_classes = classes
    net = build_from_row(
        cfg.model,
        checkpoint=checkpoint,
        **{key: cfg[key] for key in ("seed", "drop_head", "checkpoint_key", "units", "tokens")},
    )
    return net, weights_file(net, checkpoint, cfg.model.get("pretrained"), cfg.checkpoint_key)


def find_clips(cfg: DictConfig, net: VideoNetwork, styles: tuple[int, ...]) -> ClipList:
    """List the clips of the data set; if the network takes optical flow, each frame with flow is a clip.

    With the option ``until``, the order of the clips is random and depends only on the seed and the clips.
    """
    clips: ClipList
    if net.flow_directions:
        clips = find_frames(cfg, net, styles, cfg.n_examples)
    else:
        clips = list_clips(cfg.dataset, styles, cfg.n_examples, cfg.on_error, cfg.normal_data_root)
    if cfg.until is None:
        return clips
    return replace(clips, clips=tuple(sorted(clips.clips, key=lambda c: digest(cfg.seed, c.id, "until"))))


def with_cells(cfg: DictConfig, net: VideoNetwork, clips: ClipList) -> ClipList:
    """Let the network average per cell, as the option ``cells`` asks; return the clips with their masks.

    The clips also get new backgrounds, if ``orders`` has an order with a new background.
    """
    swapped, regions = set(SWAPPED) & set(cfg.orders), cfg.cells in (MASK, OBJECTS)
    if cfg.cells is not None and not regions:
        add_cells(net, parse_grid(cfg.cells))
    if not swapped and not regions:
        if cfg.masks is not None:
            raise UserError(
                f"masks={cfg.masks} has no effect without cells=mask, cells=objects, or an order such as "
                f"{NEW_BACKGROUND}"
            )
        return clips
    masks = open_masks(
        cfg.masks or cfg.dataset.get("masks"),
        clips,
        objects=cfg.cells == OBJECTS,
        folder=Path(cfg.save_dir) / "masks",
        device=cfg.device,
    )
    if regions:
        add_cells(net, None, len(masks.regions))
    if not swapped:
        return replace(clips, masks=masks)
    if net.flow_directions:
        raise UserError(f"orders={','.join(swapped)}: optical flow has no new background: omit these orders")
    return replace(clips, masks=masks, backgrounds=Backgrounds.of(cfg.backgrounds, cfg.seed, clips))


def find_frames(
    cfg: DictConfig, net: VideoNetwork, styles: tuple[int, ...], limit: int | None = None
) -> DavisClips:
    """List the frames of the data set that have flow images in one or both directions, as `net` requires."""
    return list_davis(
        cfg.dataset,
        styles,
        both_flows=net.flow_directions > 1,
        reversed_flow=REVERSED in cfg.orders,
        frames_at_once=net.input_spec.pathways["Image"],
        limit=limit,
        on_error=cfg.on_error,
    )


def sampling_of(cfg: DictConfig) -> dict:
    """Return the options of `make_views` that decide how views and pairs of views are sampled."""
    rules = cfg.dataset.get("window") or {}
    repeats = {"repeats": cfg.dataset.nreps} if "nreps" in cfg.dataset else {}
    orders = [order for order in (FORWARD, *ALTERED_ORDERS) if order in cfg.orders]
    return {
        **repeats,
        # Default orders are left out, so runs that are older than the option ``orders`` keep their identity.
        **({"orders": orders} if set(orders) != {FORWARD, SHUFFLED} else {}),
        "pairs": cfg.pairs,
        "window": rules.get(cfg.pairs) or rules.get("default") or "drawn",
        **{key: cfg[key] for key in ("resample_fps", "app_shuffle", "use_normal_app", "m_same")},
    }


def read_views(
    cfg: DictConfig, net: VideoNetwork, clips: ClipList, views, store: Store, end: int | None = None
) -> None:
    """Compute the activations that are missing in the store; write the time taken to ``timing.json``.

    Views from row number `end` on are left to do.
    """
    to_do = int((store.to_do() < (len(views) if end is None else end)).sum())
    if not to_do:
        if end is None:
            log.info("all %d views are on disk: %s", len(views), store.path)
        return
    if clips.masks is not None:
        clips.masks.check(clips, views, cfg.on_error)
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
        end=end,
    )
    timing = {"views": to_do, "seconds": time.perf_counter() - begin, "device": str(device)}
    write_text(store.path / "timing.json", to_json(timing))


def batch_size_of(cfg: DictConfig, folder: Path) -> int:
    """Return the number of views per batch; with batch_size=auto, a resumed run keeps its earlier number.

    Otherwise a run that resumes on another device would use other batches, and the last digits could differ.
    With further orders, the number is a multiple of the number of orders (unless batch_size is smaller), so
    that all orders of a clip and style are in one batch and each frame is decoded once.
    """
    together = len(set(cfg.orders)) if set(cfg.orders) != {FORWARD, SHUFFLED} else 1
    if cfg.batch_size != "auto":
        return cfg.batch_size // together * together or cfg.batch_size
    begun = read_manifest(folder) if has_run(folder) else {}
    auto = max(together, AUTO_BATCH[choose_device(cfg.device).type])
    return begun.get("batch_size") or auto // together * together
