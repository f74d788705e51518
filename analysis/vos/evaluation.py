"""Measure a network's segmentation quality on DAVIS, to check that a checkpoint performs as published.

A run writes these files:

    RUN/SEQUENCE/00001.png      predicted mask, 0 and 255
    RUN/SEQUENCE/masks.json     predicted masks as COCO run-length encodings
    RUN/SEQUENCE/overlay.mp4    predicted mask (filled) and true mask (outline) over the video
    RUN/SEQUENCE/frames.csv     J and F of each frame
    RUN/sequences.csv           mean, recall and decay of J and F per sequence, and means

The folder of a sequence gets its final name when it is complete, so a stopped run resumes at the next
sequence. As in the evaluation of DAVIS, the first and the last frame are not measured. The last frame is not
segmented either, because it has no flow to a next frame.
"""

import json
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

from static_dynamic.analysis.run.identity import subject_of
from static_dynamic.analysis.run.setup import batch_size_of
from static_dynamic.analysis.run.tables import read_table
from static_dynamic.analysis.show.encoding import video_writer
from static_dynamic.analysis.vos import segmentation
from static_dynamic.csv_files import write_csv
from static_dynamic.datasets.davis import RESOLUTION, DavisClips
from static_dynamic.datasets.frames import BadFrames, read_image
from static_dynamic.datasets.orders import FORWARD
from static_dynamic.datasets.workers import loader
from static_dynamic.errors import UserError
from static_dynamic.models import VideoNetwork

# Frames per second of the overlay videos if the data set has no frame rate.
FRAME_RATE = 24
MEASURES = {"J": segmentation.region_similarity, "F": segmentation.boundary_measure}


def evaluation_identity(cfg: DictConfig, clips: DavisClips, weights: Path | None) -> dict:
    """Return all settings that determine the predicted masks: task, network, weights, data, seed."""
    subject = subject_of(cfg, clips, clips.original_root, weights)
    return {"task": cfg.task.name, **subject, "seed": cfg.seed}


def evaluate_sequence(
    net: VideoNetwork,
    clips: DavisClips,
    sequence: str,
    folder: Path,
    cfg: DictConfig,
    device: torch.device,
    bar: tqdm,
) -> None:
    """Write predicted masks, J and F of a sequence to `folder`, unless this folder exists.

    Raises BadFrames if a file cannot be read.
    """
    names = clips.names[sequence]
    if folder.is_dir():
        bar.update(len(names))
        return
    unfinished = folder.with_name(f"{folder.name}~")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    true_masks = clips.original_root / "Annotations" / RESOLUTION / sequence
    masks, rows = {}, []
    batch_size = batch_size_of(cfg, folder.parent)
    fps = clips.clips[0].fps or FRAME_RATE
    with video_writer(unfinished / "overlay.mp4", fps, crf="20") as write_frame:
        for position, probability in segment(net, clips, sequence, batch_size, cfg.num_workers, device):
            stem = names[position]
            image = read_image(clips.image_file(sequence, 0, position))
            truth = segmentation.read_truth(true_masks / f"{stem}.png", image)
            mask = masks[f"{sequence}/{stem}.jpg"] = segmentation.object_mask(probability, truth.shape)
            Image.fromarray(255 * mask.astype(np.uint8)).save(unfinished / f"{stem}.png")
            write_frame(segmentation.overlay(image, mask, truth))
            rows.append({"frame": stem, **{name: of(mask, truth) for name, of in MEASURES.items()}})
            bar.update()
    # leave out the first frame, as the evaluation of DAVIS does
    if len(clips.flows) == 1:
        rows = rows[1:] or rows
    (unfinished / "masks.json").write_text(json.dumps(segmentation.coco_masks(masks)), encoding="utf-8")
    write_csv(unfinished / "frames.csv", pd.DataFrame(rows))
    unfinished.rename(folder)


@torch.inference_mode()
def segment(
    net: VideoNetwork,
    clips: DavisClips,
    sequence: str,
    batch_size: int,
    num_workers: int,
    device: torch.device,
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Yield each frame's position and object probabilities of shape (H, W), in temporal order.

    A network that reads T frames at once gets one block of T frames after another. If the length of the
    sequence is no multiple of T, the last block overlaps with the block before.
    Raises BadFrames if an image cannot be read.
    """
    views = views_of(clips, sequence)
    frames_per_view = clips.rows_per_view
    rows = max(1, batch_size // frames_per_view) * frames_per_view
    batches = clips.batches(views, np.arange(len(views)), rows, net.input_spec)
    expected = 0
    for batch in loader(batches, num_workers):
        for item in batch:
            if item.frames is None:
                raise BadFrames(item.error)
        inputs = clips.to_inputs(batch, net.input_spec, device)
        maps = foreground(net, inputs)
        shown = np.concatenate([item.rows for item in batch])
        for position, probability in zip(views["frame"].iloc[shown], maps, strict=True):
            if position == expected:
                yield position, probability
                expected += 1


def foreground(net: VideoNetwork, inputs: dict[str, Tensor]) -> NDArray[np.float32]:
    """Return object probabilities of shape (frames, H, W); split the batch if memory runs out."""
    items = len(inputs["Image"])
    try:
        return net.foreground(inputs).float().cpu().numpy()
    except torch.OutOfMemoryError as error:
        if items == 1:
            raise UserError("one frame exceeds the device's memory: give a smaller crop_size") from error
    # Retry after the except block, because the memory of the failed attempt is not free inside the block.
    halves = slice(items // 2), slice(items // 2, items)
    return np.concatenate([foreground(net, {name: x[half] for name, x in inputs.items()}) for half in halves])


def views_of(clips: DavisClips, sequence: str) -> pd.DataFrame:
    """Return a table of the unstylized views of a sequence, one per frame, without flow jitter."""
    count, frames_per_view = len(clips.names[sequence]), clips.rows_per_view
    rows = []
    for first in range(0, count, frames_per_view):
        start = max(0, min(first, count - frames_per_view))
        frames = np.arange(start, start + frames_per_view).clip(max=count - 1)
        view = {"clip": f"{sequence}/{first}", "video": sequence, "style": 0, "order": FORWARD}
        rows += [{**view, "frames_Image": frames, "jitter": (), "frame": t} for t in frames]
    return pd.DataFrame(rows)


def sequence_table(folder: Path, sequences: list[str]) -> pd.DataFrame:
    """Return mean, recall and decay of J and F of each sequence; the last row is the mean over sequences."""
    rows = []
    for sequence in sequences:
        frames = read_table(folder / sequence / "frames.csv", ("frame", *MEASURES), text=("frame",))
        row = {"sequence": sequence, "frames": len(frames)}
        for name in MEASURES:
            statistics = segmentation.summarize(frames[name])
            row |= {f"{name} {what}": getattr(statistics, what) for what in segmentation.Statistics._fields}
        rows.append(row)
    table = pd.DataFrame(rows)
    means = table.drop(columns=["sequence", "frames"]).mean().to_dict()
    return pd.DataFrame([*rows, {"sequence": "mean", "frames": table["frames"].sum(), **means}])
