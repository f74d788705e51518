"""Segmentation quality of a network on DAVIS: is this the checkpoint that it is taken for?

Written for each sequence:

    RUN/SEQUENCE/00001.png      what the network found, 0 and 255
    RUN/SEQUENCE/masks.json     the same as COCO run-length encodings
    RUN/SEQUENCE/overlay.mp4    found (filled) and true (outline) over the video
    RUN/SEQUENCE/frames.csv     J and F of each frame
    RUN/sequences.csv           their mean, recall and decay, and the means over the sequences

A sequence's folder takes its name when all of it is there, so that a stopped run goes on with the next.
Measured are all frames but the first and the last, as in DAVIS' own evaluation; the last is not segmented,
since it has no flow.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from static_dynamic.analysis.run.forward import cut
from static_dynamic.analysis.run.identity import subject_of
from static_dynamic.analysis.run.setup import batch_size_of
from static_dynamic.analysis.run.store import differences, read_manifest
from static_dynamic.analysis.vos.segmentation import (
    Statistics,
    boundary_measure,
    coco_masks,
    object_mask,
    overlay,
    read_truth,
    region_similarity,
    summarize,
    video_writer,
)
from static_dynamic.datasets.davis import RESOLUTION, DavisClips
from static_dynamic.datasets.flow_batches import FlowBatches, flow_inputs
from static_dynamic.datasets.frames import BadFrames, read_image
from static_dynamic.datasets.workers import loader
from static_dynamic.errors import UserError
from static_dynamic.models.twostream import TwoStreamNetwork

log = logging.getLogger(__name__)
MEASURES = {"J": region_similarity, "F": boundary_measure}


def evaluation_identity(cfg: DictConfig, clips: DavisClips, weights: Path | None) -> dict:
    """All that decides the masks."""
    subject = subject_of(cfg, clips, clips.original_root, weights)
    return {"task": cfg.task.name, **subject, "seed": cfg.seed}


def require_same_run(folder: Path, identity: dict) -> None:
    """Raise where a folder holds a run that asked for something else."""
    if not (folder / "manifest.json").exists():
        return
    changed = differences(read_manifest(folder).get("identity", {}), identity)
    if changed:
        raise UserError(
            f"{folder} holds a run that differs from what is asked for now ({'; '.join(changed)}): "
            "give another save_dir or remove that folder"
        )


def evaluate_sequence(
    net: TwoStreamNetwork,
    clips: DavisClips,
    sequence: str,
    folder: Path,
    cfg: DictConfig,
    device: torch.device,
    bar: tqdm,
) -> None:
    """Segment and measure one sequence into `folder`; nothing where that is there already.

    Raises
    ------
    BadFrames
        A picture that cannot be read, or a mask that is missing or of another size than its image.
    """
    names = clips.names[sequence]
    if folder.is_dir():
        bar.update(len(names))
        return
    unfinished = folder.with_name(f"{folder.name}~")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    masks, rows = {}, []
    batch_size = batch_size_of(cfg, folder.parent)
    with video_writer(unfinished / "overlay.mp4", clips.clips[0].fps) as show:
        for position, probability in segment(net, clips, sequence, batch_size, cfg.num_workers, device):
            stem = names[position]
            image = read_image(clips.image_file(sequence, 0, position))
            truth = read_truth(mask_file(clips, sequence, stem), image)
            mask = masks[f"{sequence}/{stem}.jpg"] = object_mask(probability, truth.shape)
            Image.fromarray(255 * mask.astype(np.uint8)).save(unfinished / f"{stem}.png")
            show(overlay(image, mask, truth))
            rows.append({"frame": stem, **{name: of(mask, truth) for name, of in MEASURES.items()}})
            bar.update()
    if len(clips.flows) == 1:  # else the first frame, which has no flow to the one before, is out already
        rows = rows[1:] or rows
    (unfinished / "masks.json").write_text(json.dumps(coco_masks(masks)), encoding="utf-8")
    pd.DataFrame(rows).to_csv(unfinished / "frames.csv", index=False)
    unfinished.rename(folder)


def mask_file(clips: DavisClips, sequence: str, stem: str) -> Path:
    """The annotation of one frame."""
    return clips.original_root / "Annotations" / RESOLUTION / sequence / f"{stem}.png"


@torch.inference_mode()
def segment(
    net: TwoStreamNetwork,
    clips: DavisClips,
    sequence: str,
    batch_size: int,
    num_workers: int,
    device: torch.device,
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Position of each frame of a sequence in its order, and the probability of the object, (H, W).

    A network that sees T frames at once is shown frames in turn, T by T; the last ones again where the
    sequence does not divide.

    Raises
    ------
    BadFrames
        A picture that cannot be read.
    """
    views = views_of(clips, sequence)
    together = clips.rows_per_view
    rows = max(1, batch_size // together) * together
    batches = FlowBatches(clips, views, np.arange(len(views)), rows, net.input_spec.shape)
    expected = 0
    for batch in loader(batches, num_workers):
        for item in batch:
            if item.frames is None:
                raise BadFrames(item.error)
        inputs = flow_inputs(batch, net.input_spec, device)
        maps = foreground(net, inputs)
        shown = np.concatenate([item.rows for item in batch])
        for position, probability in zip(views["frame"].iloc[shown], maps, strict=True):
            if position == expected:
                yield position, probability
                expected += 1


def foreground(net: TwoStreamNetwork, inputs: dict[str, Tensor]) -> NDArray[np.float32]:
    """Probability of the object, (rows, H, W); in two halves, and so on, where memory runs out.

    Raises
    ------
    UserError
        Where memory does not hold one item.
    """
    items = len(inputs["Image"])
    try:
        return net.foreground(inputs).float().cpu().numpy()
    except torch.OutOfMemoryError as error:
        if items == 1:
            raise UserError(
                "one frame does not fit in the device's memory: give a smaller crop_size"
            ) from error
    halves = slice(items // 2), slice(items // 2, items)  # what was computed of the whole is free again here
    return np.concatenate([foreground(net, cut(inputs, half)) for half in halves])


def views_of(clips: DavisClips, sequence: str) -> pd.DataFrame:
    """The unstylized frames of a sequence with their flow as it is, as rows of views."""
    count, together = len(clips.names[sequence]), clips.rows_per_view
    rows = []
    for first in range(0, count, together):
        start = max(0, min(first, count - together))
        seen = np.arange(start, start + together).clip(max=count - 1)
        about = {"clip": f"{sequence}/{first}", "video": sequence, "style": 0}
        rows += [{**about, "frames_Image": seen, "jitter": (), "frame": t} for t in seen]
    return pd.DataFrame(rows)


def sequence_table(folder: Path, sequences: list[str]) -> pd.DataFrame:
    """Mean, recall and decay of J and F of each sequence; the last row is their mean over sequences."""
    rows = []
    for sequence in sequences:
        frames = pd.read_csv(folder / sequence / "frames.csv", dtype={"frame": str})
        row = {"sequence": sequence, "frames": len(frames)}
        for name in MEASURES:
            statistics = summarize(frames[name])
            row |= {f"{name} {what}": getattr(statistics, what) for what in Statistics._fields}
        rows.append(row)
    table = pd.DataFrame(rows)
    means = table.drop(columns=["sequence", "frames"]).mean().to_dict()
    return pd.DataFrame([*rows, {"sequence": "mean", "frames": table["frames"].sum(), **means}])
