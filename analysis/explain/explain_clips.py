"""Explain a network's predictions for clips (task=saliency and ``misc/class_feature_pyramids.py``)."""

from collections import defaultdict
from pathlib import Path

import pandas as pd
from omegaconf import DictConfig
from tqdm import tqdm

from static_dynamic.analysis.explain import explained_files as files
from static_dynamic.analysis.explain.class_feature_pyramids import check_options
from static_dynamic.analysis.explain.explained_clips import (
    find_shown_clips,
    pictures_of,
    require_clips,
    skip_or_raise,
)
from static_dynamic.analysis.explain.explainer import make_explainer
from static_dynamic.analysis.explain.faithfulness import format_clips, format_faithfulness
from static_dynamic.analysis.explain.kernel_classes import count_kernels
from static_dynamic.analysis.run.tables import write_table
from static_dynamic.datasets.frames import BadFrames
from static_dynamic.errors import UserError
from static_dynamic.files import file_name

# Default number of random masks: by chance, a map does better than all 9 masks in 1 of 10 clips.
MASKS = 9


def explain_clips(cfg: DictConfig) -> Path:
    """Explain predictions for the videos in ``task.input`` or in a data set; return the output folder."""
    options = {str(name): value for name, value in cfg.cfp.items()}
    check_options(**options)
    clips = find_shown_clips(cfg)
    root = Path(str(cfg.task.outdir or Path(cfg.save_dir) / "saliency" / file_name(cfg.model.name)))
    folders = files.clip_folders(root, [clip.clip.id for clip in clips])
    explainer = make_explainer(cfg, options)
    spec = explainer.net.input_spec
    pictures = len(clips) == 1 if cfg.task.pictures is None else cfg.task.pictures
    drawing = {"kernels": cfg.task.kernels, "video": cfg.task.video} if pictures else None
    masks = cfg.task.masks
    if masks is None:
        masks = MASKS if pictures and len(clips) == 1 and options["rules"] == "corrected" else 0
    elif masks and options["rules"] == "original":
        raise UserError(
            "the test of faithfulness (task.masks) needs cfp.rules=corrected: give task.masks=0, or omit it"
        )
    counts, done, faithful = defaultdict(list), [], []
    bar = tqdm(clips, desc="explain", unit="clip", delay=2, disable=len(clips) == 1)
    for clip, folder in zip(bar, folders, strict=True):
        positions = clip.positions(spec, cfg.n_sample_frames, cfg.resample_fps)
        try:
            pyramid, video, summary = explainer.explain(clip, positions)
        except BadFrames as error:
            skip_or_raise(cfg.on_error, clip.clip.id, error)
            continue
        done.append(folder)
        about = {"clip": clip.clip.id, "cluster": clip.clip.cluster or clip.clip.id}
        blank = explainer.blank(pyramid) if drawing or masks else None
        table = explainer.faithfulness(pyramid, blank, video, masks, cfg.seed) if blank and masks else None
        frames = pictures_of(video, spec)
        files.write_explanation(folder, explainer, pyramid, blank, frames, summary, drawing, table)
        if table is not None:
            faithful.append(table.assign(**about)[[*about, *table]])
        if explainer.classes:
            for labels in explainer.classes.labels:
                own = count_kernels(pyramid, explainer.classes, labels)
                counts[labels].append(own.assign(**about, label=explainer.name(pyramid.label)))
        if len(clips) == 1:
            print(files.format_clip(pyramid, summary))
            if table is not None:
                print(f"\n{format_faithfulness(table)}")
    require_clips(done, "task=saliency")
    if explainer.classes:
        found = {labels: pd.concat(own, ignore_index=True) for labels, own in counts.items()}
        files.write_shares(root, found, explainer.classes, cfg.n_boot, cfg.seed)
    if faithful and len(clips) > 1:
        together = pd.concat(faithful, ignore_index=True)
        write_table(root / files.FAITHFULNESS, together)
        print(f"\n{format_clips(together)}")
    print(f"\nwritten to {done[0] if len(clips) == 1 else root}")
    return root
