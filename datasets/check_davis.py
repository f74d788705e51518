"""Decode every frame, mask and flow image of a DAVIS data set and list the faults."""

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

from omegaconf import DictConfig
from tqdm import tqdm

from .davis import (
    FLOW_FOLDERS,
    RESOLUTION,
    DavisClips,
    find_folders,
    require_shape,
    size_text,
    videos_of_split,
)
from .frames import BadFrames, read_image


def styles_on_disk(dataset: DictConfig) -> tuple[int, ...]:
    """Return the ids of the styles whose folders exist; style 0 (unstylized) is in the DAVIS download."""
    root = Path(dataset.root)
    original = Path(dataset.original_data_root or root)
    folders = [(original if k == 0 else root) / "JPEGImages" / f for k, f in enumerate(dataset.style_folders)]
    return tuple(k for k, folder in enumerate(folders) if folder.is_dir())


def check_davis(
    dataset: DictConfig, styles: Sequence[int], workers: int | None = None
) -> tuple[list[str], list[str], int, int]:
    """Check the frames in every style, the masks and the flow images of a split of DAVIS.

    Returns (list of faults, list of notes, number of videos, number of decoded images).
    """
    clips = find_folders(dataset, styles, both_flows=False, frames_at_once=1)
    flows = tuple(flow for flow in FLOW_FOLDERS if (clips.original_root / flow).is_dir())
    clips = replace(clips, flows=flows)
    videos, filtered = videos_of_split(dataset, clips)
    masks = clips.original_root / "Annotations" / RESOLUTION
    absent = [clips.original_root / flow for flow in FLOW_FOLDERS if flow not in flows]
    absent += [] if masks.is_dir() or dataset.cinematograms else [masks]
    notes = [f"note: {folder} does not exist" for folder in absent]
    notes += [f"note: {video} is left out, {reason}" for video, reason in filtered]
    check = partial(check_video, clips, None if dataset.cinematograms else masks)
    items = [(video, stems) for (video, _), stems in videos.items()]
    with ProcessPoolExecutor(workers) as pool:
        reports = list(tqdm(pool.map(check, items), total=len(items), desc="check", unit="video"))
    return [f for faults, _ in reports for f in faults], notes, len(items), sum(n for _, n in reports)


def check_video(
    clips: DavisClips, masks: Path | None, video_and_stems: tuple[str, tuple[str, ...]]
) -> tuple[list[str], int]:
    """Return (list of faults, number of decoded images) of one video; `masks` is the folder of all masks."""
    video, stems = video_and_stems
    folders = {clips.image_folder(video, style): (stems, ".jpg") for style in clips.styles}
    if masks is not None and masks.is_dir():
        folders[masks / video] = (stems, ".png")
    for flow in clips.flows:
        # No flow image is expected from the last frame to a next one, or from the first to a previous one.
        with_flow = stems[:-1] if flow == FLOW_FOLDERS[0] else stems[1:]
        folders[clips.original_root / flow / video] = (with_flow, ".png")
    faults, decoded, first = [], 0, None
    for folder, (names, suffix) in folders.items():
        missing = [name for name in names if not (folder / f"{name}{suffix}").is_file()]
        if missing:
            count = f"{len(missing)} of {len(names)} images are missing"
            faults.append(f"{folder}: {count}, first {missing[0]}{suffix}")
        for name in names:
            file = folder / f"{name}{suffix}"
            if name in missing:
                continue
            try:
                height, width = read_image(file).shape[:2]
                decoded += 1
                first = first or (width, height)
                if folder.parent.name in clips.flows:
                    require_shape(file, (width, height), first)
                elif (width, height) != first:
                    faults.append(
                        f"{file} has {width}x{height} pixels, but the first frame has {size_text(first)}"
                    )
            except BadFrames as error:
                faults.append(str(error))
    return faults, decoded
