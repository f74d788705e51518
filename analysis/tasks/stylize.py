"""Task ``stylize``."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from static_dynamic.datasets import ClipList, list_clips, parse_styles
from static_dynamic.device import choose_device
from static_dynamic.errors import UserError
from static_dynamic.stylize.apply import make_style
from static_dynamic.stylize.generate import DEFAULT_NAMING, stylize

log = logging.getLogger(__name__)


def run(cfg: DictConfig) -> None:
    """``task=stylize``: one style from ``checkpoint=``, or those of ``style=``; videos of ``task.input=``, or
    the unstylized ones of a data set."""
    task = cfg.task
    names = {"pattern": DEFAULT_NAMING, "first": 1}
    if task.input:
        source, outdir, videos = task.input, task.outdir, None
    else:
        clips = _unstylized(cfg)
        source, outdir = clips.normal_root or clips.root / "style_0", task.outdir or clips.root
        videos = frozenset(clip.video for clip in clips.clips)
        names |= cfg.dataset.get("frames") or {}
    if not outdir:
        raise UserError(
            f"task=stylize: where should the stylized copies of {source} go? Give task.outdir=ROOT"
        )
    if cfg.checkpoint:
        rows = {task.style_id: {"checkpoint": cfg.checkpoint}}
    else:
        wanted = parse_styles(cfg.styles)
        rows = {k: row for k, row in OmegaConf.to_container(cfg.style.styles).items() if int(k) in wanted}
    device = choose_device(cfg.device)
    outdir = Path(outdir).expanduser()
    status = stylize(
        Path(source).expanduser(),
        {outdir / f"style_{k}": make_style(row, device, cfg.precision) for k, row in rows.items()},
        naming=task.naming or names["pattern"],
        first=names["first"] if task.first is None else task.first,
        guides=tuple(Path(guide).expanduser() for guide in task.guides),
        batch_size=8 if cfg.batch_size == "auto" else cfg.batch_size,
        workers=max(1, cfg.num_workers),
        shard=cfg.shard,
        num_shards=cfg.shards,
        videos=videos,
    )
    if status:
        sys.exit(status)


def _unstylized(cfg: DictConfig) -> ClipList:
    """The clips of the data set of the configuration, as they are before any style."""
    if not cfg.dataset.root:
        raise UserError(
            "task=stylize needs task.input=VIDEOS and task.outdir=ROOT, or dataset=NAME and "
            "stylized_data_dir=ROOT with its videos in ROOT/style_0 (or in normal_data_root=VIDEOS)"
        )
    clips = list_clips(cfg.dataset, (0,), cfg.n_examples, cfg.on_error, cfg.normal_data_root)
    for line in clips.left_out():
        log.warning(line)
    return clips
