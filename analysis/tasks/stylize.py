"""Task ``stylize``: render videos in one or more styles."""

import logging
import sys
from pathlib import Path
from typing import cast

from omegaconf import DictConfig, OmegaConf

from static_dynamic.datasets import ClipList, list_clips, parse_styles
from static_dynamic.device import choose_device
from static_dynamic.errors import UserError
from static_dynamic.stylize.apply import make_style
from static_dynamic.stylize.generate import BATCH_SIZE, DEFAULT_NAMING, stylize

log = logging.getLogger(__name__)


def run(cfg: DictConfig) -> None:
    """Stylize the videos in ``task.input`` if given, else the unstylized videos of the data set.

    ``checkpoint``, if given, is the style's network. Else ``styles`` selects from the config file ``style``.
    """
    task = cfg.task
    pattern, first, videos = DEFAULT_NAMING, 1, None
    source, outdir = task.input, task.outdir
    if not source:
        clips = _unstylized(cfg)
        source, outdir = clips.normal_root or clips.root / "style_0", outdir or clips.root
        videos = frozenset(clip.video for clip in clips.clips)
        frames = cfg.dataset.get("frames") or {}
        pattern, first = frames.get("pattern", pattern), frames.get("first", first)
    if not outdir:
        raise UserError(
            f"task=stylize needs a folder for the stylized copies of {source}: give task.outdir=ROOT"
        )
    if cfg.checkpoint:
        rows = {task.style_id: {"checkpoint": cfg.checkpoint}}
    else:
        chosen = parse_styles(cfg.styles)
        styles = cast(dict, OmegaConf.to_container(cfg.style.styles))
        rows = {k: row for k, row in styles.items() if int(k) in chosen}
    device = choose_device(cfg.device)
    outdir = Path(outdir).expanduser()
    status = stylize(
        Path(source).expanduser(),
        {outdir / f"style_{k}": make_style(row, device, cfg.precision) for k, row in rows.items()},
        naming=task.naming or pattern,
        first=first if task.first is None else task.first,
        guides=tuple(Path(guide).expanduser() for guide in task.guides),
        batch_size=BATCH_SIZE if cfg.batch_size == "auto" else cfg.batch_size,
        workers=max(1, cfg.num_workers),
        shard=cfg.shard,
        num_shards=cfg.shards,
        videos=videos,
    )
    if status:
        sys.exit(status)


def _unstylized(cfg: DictConfig) -> ClipList:
    """Return the unstylized clips of the data set; log how many clips cannot be used, and why."""
    if not cfg.dataset.root:
        raise UserError(
            "task=stylize needs videos: give task.input=VIDEOS task.outdir=ROOT, or dataset=NAME "
            "stylized_data_dir=ROOT with the videos in ROOT/style_0 (if they lie elsewhere, add "
            "normal_data_root=VIDEOS)"
        )
    clips = list_clips(cfg.dataset, (0,), cfg.n_examples, cfg.on_error, cfg.normal_data_root)
    for line in clips.left_out():
        log.warning(line)
    return clips
