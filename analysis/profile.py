"""The main job: a network and a stylized data set in; table, csv and figure of static and dynamic
information out."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import subprocess
import time
from dataclasses import asdict, replace
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf

from analysis.extract import extract
from analysis.passes import without_tf32
from analysis.results import conclude
from analysis.shards import is_read, launched, merge_shards, shard_of, wait_for_all
from analysis.store import Store, read_manifest, to_json, writing
from configs import UserError
from configs.assets import versions
from configs.files import file_name, sha256, write_text
from datasets import ClipList, list_clips, list_davis, make_views, parse_styles
from datasets.views import FLOW
from models import VideoNetwork, build_from_row
from models.checkpoints import weights_file
from models.twostream import TwoStreamNetwork

log = logging.getLogger(__name__)
# what a model row says that does not change activations, or that the hash of the weights says better
NOT_IDENTITY = ("about", "checkpoint", "pretrained", "original_name")
# batch_size=auto: more than fits is halved where it does not
AUTO_BATCH = {"cpu": 2, "cuda": 64}
# a checkpoint of that name stands for none at all, as in the original
NO_CHECKPOINT = "imgnet"


def run(cfg: DictConfig) -> Path:
    """Profile ``cfg.model`` on ``cfg.dataset``; return the run folder."""
    require_fit(cfg)
    net, weights = build_network(cfg)
    net.stage_name(cfg.stg, cfg.path, cfg.fuse)  # refuses a wrong one before anything is read
    styles = parse_styles(cfg.styles)
    shown = (*styles, 0) if cfg.use_normal_app and 0 not in styles else styles
    clips = find_clips(cfg, net, shown)
    spec = net.input_spec
    window = cfg.n_sample_frames or spec.frames * spec.sampling_rate
    for line in clips.remarks(spec.fps, cfg.resample_fps, window):
        log.warning(line)
    views, pairs = make_views(
        clips.clips, styles, spec.pathways, n_sample_frames=window, seed=cfg.seed, **sampling_of(cfg)
    )
    identity = identity_of(cfg, clips, weights, window)
    folder = run_folder(cfg, identity, f"seed{cfg.seed:03d}")
    manifest = manifest_of(net, clips, identity, views, pairs)
    if cfg.batch_size == "auto":
        manifest["batch_size"] = batch_size_of(cfg, folder)
    shard = shard_of(cfg, batch_size_of(cfg, folder) * clips.rows_per_view)
    if shard and not is_read(folder):
        own = shard.folder(folder)
        with writing(own):
            store = Store.create_or_resume(own, shard.manifest(manifest), views, pairs)
            read_views(cfg, net, clips, views, store)
        if not shard.together:
            log.info("%s is read; when the others are: task=merge", own)
            return own
        wait_for_all()
        if shard.index == 0:
            folders = [replace(shard, index=k).folder(folder) for k in range(shard.of)]
            merge_shards(folder, folders, remove=True)
    if shard and shard.index:
        return folder
    with writing(folder):
        store = Store.create_or_resume(folder, manifest, views, pairs)
        read_views(cfg, net, clips, views, store)
        conclude(cfg, folder, net)
    return folder


def require_fit(cfg: DictConfig) -> None:
    """Raise where network and data set do not go together, before either costs anything."""
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


def identity_of(cfg: DictConfig, clips: ClipList, weights: Path | None, window: int) -> dict:
    """All that decides the activations: two runs with the same identity are the same run."""
    return {
        **subject_of(cfg, clips, clips.root, weights),
        "styles": list(clips.styles),
        **sampling_of(cfg),
        "n_sample_frames": window,
        "seed": cfg.seed,
        # named where they differ from what every run was read with before there was a choice
        **({"precision": cfg.precision} if cfg.precision != "fp32" else {}),
        **({"tune": True} if cfg.tune else {}),
    }


def subject_of(cfg: DictConfig, clips: ClipList, root: Path, weights: Path | None) -> dict:
    """Network, weights and data set, as an identity names them."""
    model = OmegaConf.to_container(cfg.model, resolve=True)
    return {
        "model": {key: value for key, value in model.items() if key not in NOT_IDENTITY},
        "weights_sha256": sha256(weights) if weights else None,
        "dataset": {"name": clips.name, "folder": root.name, "listing_sha256": clips.listing_sha256},
    }


def run_folder(cfg: DictConfig, identity: dict, prefix: str) -> Path:
    """Folder of this run: no two identities share one."""
    if cfg.run_dir:
        return Path(cfg.run_dir)
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]
    model, dataset = (file_name(identity[part]["name"]) for part in ("model", "dataset"))
    return Path(cfg.save_dir) / model / dataset / f"{prefix}-{digest}"


def manifest_of(net: VideoNetwork, clips: ClipList, identity: dict, views, pairs) -> dict:
    """Where a result comes from; holds no time and no machine, so that the same run writes the same bytes."""
    return {
        "identity": identity,
        "stages": {
            name: {"units": stage.units, "stream": stage.stream} for name, stage in net.stages.items()
        },
        "input": asdict(net.input_spec),
        "root": str(clips.root),
        "counts": {
            "clips": len(clips.clips),
            "clusters": int(views["cluster"].nunique()),
            "views": len(views),
            "pairs_dynamic": int((pairs["factor"] == 0).sum()),
            "pairs_static": int((pairs["factor"] == 1).sum()),
        },
        "frame_rates": {str(fps): count for fps, count in clips.frame_rates.items()},
        "skipped_clips": [{"clip": clip, "reason": reason} for clip, reason in clips.skipped],
        "filtered_clips": clips.filtered_by_reason,
        "skipped_views": [],
        "code": code_version(),
        "versions": versions(),
    }


def code_version() -> str:
    """The commit of this project, where it is a git checkout."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True)
    except FileNotFoundError:
        return "unknown"
    return done.stdout.strip() or "unknown"


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
        **{key: cfg[key] for key in ("on_error", "nan", "clip_timeout", "precision", "tune")},
    )
    timing = {"views": to_do, "seconds": time.perf_counter() - begin, "device": str(device)}
    write_text(store.path / "timing.json", to_json(timing))


def batch_size_of(cfg: DictConfig, folder: Path) -> int:
    """Views in a batch; ``auto`` is what the run began with, whatever machine it goes on on."""
    if cfg.batch_size != "auto":
        return cfg.batch_size
    begun = read_manifest(folder) if (folder / "manifest.json").exists() else {}
    return begun.get("batch_size") or AUTO_BATCH[choose_device(cfg.device).type]


def choose_device(device: str | int | None) -> torch.device:
    """The device that ``--device`` means: a number is a GPU, -1 the CPU, null a GPU where there is one (under
    torchrun each process's own). TF32 is off from here on."""
    without_tf32()
    if device is None:
        if not torch.cuda.is_available():
            return torch.device("cpu")
        rank = int(os.environ["LOCAL_RANK"]) if launched() else 0
        return torch.device("cuda", rank % torch.cuda.device_count())
    name = {"-1": "cpu"}.get(str(device), f"cuda:{device}" if str(device).isdigit() else str(device))
    try:
        chosen = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"device={device} is not a device: give cpu, cuda, or the number of a GPU") from error
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise UserError(f"device={device}: torch sees {torch.cuda.device_count()} GPUs here; give device=cpu")
    return chosen
