"""The embedded data set: real shots, as they are (style 0) and in the built-in styles, as a stylized folder
in the cache."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import cv2
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf

from static_dynamic.assets import cache_dir, fetch
from static_dynamic.datasets import shots
from static_dynamic.datasets.frames import open_frames
from static_dynamic.datasets.shots import find_shots
from static_dynamic.datasets.write import in_threads, write_folder
from static_dynamic.device import choose_device
from static_dynamic.errors import UserError
from static_dynamic.files import write_text
from static_dynamic.stylize import exemplars
from static_dynamic.stylize.apply import make_style
from static_dynamic.stylize.exemplars import render
from static_dynamic.stylize.generate import generate
from static_dynamic.stylize.jobs import make_jobs

NAMING = "%06d.jpg"
TRAINED_BATCH = 8  # frames a forward pass of a trained style


def prepare(dataset: DictConfig, style: DictConfig) -> Path:
    """Make the embedded data set, once for each table of styles, and return its root.

    Goes on where it was stopped; a style of a clip is there whole or not at all.
    """
    wanted = {
        "dataset": OmegaConf.to_container(dataset, resolve=False),
        "style": OmegaConf.to_container(style, resolve=True),
        "code": [_digest(module.__file__) for module in (exemplars, shots)],
    }
    wanted["dataset"].pop("root")
    wanted["style"]["styles"] = {0: None, **wanted["style"]["styles"]}  # what the quality card compares with
    styles = {int(k): v for k, v in wanted["style"]["styles"].items()}
    device = choose_device(None)
    trained = {k: make_style(v, device) for k, v in styles.items() if v and "checkpoint" in v}
    if trained:
        wanted["weights"] = {k: style.identity for k, style in trained.items()}
    name = hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()[:12]
    root = cache_dir() / "datasets" / f"embedded-{name}"
    if (root / "complete.json").exists():
        return root
    rendered = {k: v for k, v in styles.items() if k not in trained}
    jobs = []
    for clip, (path, crop, first) in _clips(dataset).items():
        todo = {k: v for k, v in rendered.items() if not (root / f"style_{k}" / clip).exists()}
        if todo:
            jobs.append((clip, path, crop, first, todo))
    settings = root, dataset.frames, dataset.short_side, dataset.jpeg_quality
    in_threads(lambda job: render_clip(*settings, *job), jobs, None, "render styles", "clip")
    for k, style in trained.items():
        generate(
            make_jobs(root / "style_0", root / f"style_{k}", naming=NAMING),
            style,
            batch_size=TRAINED_BATCH,
        )
    write_text(root / "complete.json", json.dumps(wanted, indent=2) + "\n")
    return root


def _clips(dataset: DictConfig) -> dict[str, tuple[Path, list[int] | None, int]]:
    """Clip name -> video, crop, first frame; the first ``clips`` shots that are long enough."""
    clips = {}
    for source in dataset.sources:
        path = fetch(source.asset)
        for first, end in find_shots(path):
            if end - first >= dataset.frames + 2 * dataset.trim:
                start = first + dataset.trim
                crop = None if source.crop is None else list(source.crop)
                clips[f"{source.asset}_{start:05d}"] = (path, crop, start)
    if len(clips) < dataset.clips:
        raise UserError(
            f"dataset={dataset.name}: {len(clips)} shots are long enough, "
            f"clips={dataset.clips} were asked for"
        )
    return dict(list(clips.items())[: dataset.clips])


def render_clip(
    root: Path,
    count: int,
    short_side: int,
    quality: int,
    clip: str,
    path: Path,
    crop: list[int] | None,
    first: int,
    styles: dict[int, dict | None],
) -> None:
    """Write ``root/style_<k>/<clip>/%06d.jpg`` for each style of `styles`; None is the scaled original."""
    frames = open_frames(path).read(range(first, first + count))
    if crop is not None:
        left, top, width, height = crop
        frames = frames[:, top : top + height, left : left + width]
    frames = [scale(frame, short_side) for frame in frames]
    for k, style in styles.items():
        pictures = frames if style is None else (render(frame, style) for frame in frames)
        target = root / f"style_{k}" / clip
        try:
            write_folder(pictures, target, NAMING, 1, quality)
        except (UserError, OSError):
            if not target.exists():
                raise
            # else another process was faster; it wrote the same


def scale(frame: NDArray, short_side: int) -> NDArray:
    """Scale a frame (H, W, 3) to a short side."""
    factor = short_side / min(frame.shape[:2])
    size = tuple(round(side * factor) for side in frame.shape[1::-1])
    return cv2.resize(frame, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC)


def _digest(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:12]
