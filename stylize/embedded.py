"""Make the built-in data set (``dataset=embedded``): real video shots, unstylized and in every style."""

import json
from functools import partial
from pathlib import Path
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf

from static_dynamic.assets import cache_dir, fetch
from static_dynamic.datasets.frames import open_frames
from static_dynamic.datasets.shots import SHOTS_VERSION, find_shots
from static_dynamic.datasets.write import in_threads, write_folder
from static_dynamic.device import choose_device
from static_dynamic.errors import UserError
from static_dynamic.files import json_sha256, write_text
from static_dynamic.stylize.apply import Style, make_style
from static_dynamic.stylize.exemplars import RENDERING_VERSION, render
from static_dynamic.stylize.flow import Frame
from static_dynamic.stylize.generate import generate
from static_dynamic.stylize.jobs import make_jobs

NAMING = "%06d.jpg"
# TRAINED_BATCH: number of frames per forward pass of a trained style
TRAINED_BATCH = 8
# The hash in the data folder's name still includes these texts of version 0.1, so old folders are found.
OLD_TEXTS = {
    "about": "24 shots of real video, fetched once and stylized in the four shipped styles",
    "prepare": "stylize.embedded.prepare",
}
OLD_STYLE_TEXTS = {
    "builtin": "four image-space renderings - watercolour, charcoal, neon, screen print",
    "shipped": "four trained generators, few-shot patch-based, of the built-in renderings",
}


def prepare(dataset: DictConfig, style: DictConfig) -> Path:
    """Return the folder of the built-in data set in every style of `style`; make the data set if missing.

    After an interruption the next call resumes. A clip in one style is written as a whole or not at all.
    """
    styles = {0: None, **{int(k): v for k, v in _plain(style.styles).items()}}
    device = choose_device(None)
    trained = {k: make_style(v, device) for k, v in styles.items() if v and "checkpoint" in v}
    identity = identity_of(dataset, style, trained)
    root = cache_dir() / "datasets" / f"embedded-{json_sha256(identity)[:12]}"
    if (root / "complete.json").exists():
        return root
    rendered = {k: v for k, v in styles.items() if k not in trained}
    render_one = partial(render_clip, root, dataset, rendered)
    in_threads(render_one, _clips(dataset), None, "render styles", "clip")
    for k, generator in trained.items():
        jobs = make_jobs(root / "style_0", root / f"style_{k}", naming=NAMING)
        generate(jobs, generator, batch_size=TRAINED_BATCH)
    write_text(root / "complete.json", json.dumps(identity, indent=2) + "\n")
    return root


def identity_of(dataset: DictConfig, style: DictConfig, trained: dict[int, Style]) -> dict:
    """Return a dict of all settings that affect the frames; the data folder's name contains the dict's hash.

    The settings are in the form of version 0.1, so that folders of version 0.1 and runs on them are found.
    """
    clips, table = _plain(dataset) | OLD_TEXTS, _plain(style)
    clips.pop("root")
    table["styles"] = {0: None, **table["styles"]}
    if table.get("name") in OLD_STYLE_TEXTS:
        table["about"] = OLD_STYLE_TEXTS[table["name"]]
    identity = {"dataset": clips, "style": table, "code": [RENDERING_VERSION[:12], SHOTS_VERSION[:12]]}
    if trained:
        identity["weights"] = {k: generator.identity for k, generator in trained.items()}
    return identity


def _plain(config: DictConfig) -> dict:
    return cast(dict, OmegaConf.to_container(config, resolve=True))


def _clips(dataset: DictConfig) -> list[tuple[str, Path, int]]:
    """List the first `dataset.clips` shots that are long enough, as (asset name, video file, first frame)."""
    clips = [
        (source.asset, path, first + dataset.trim)
        for source in dataset.sources
        for path in [fetch(source.asset)]
        for first, end in find_shots(path)
        if end - first >= dataset.frames + 2 * dataset.trim
    ]
    if len(clips) < dataset.clips:
        name, most = dataset.name, len(clips)
        raise UserError(f"only {most} shots of dataset={name} are long enough: give clips={most} or less")
    return clips[: dataset.clips]


def render_clip(
    root: Path, dataset: DictConfig, styles: dict[int, dict | None], clip: tuple[str, Path, int]
) -> None:
    """Write a clip in every style whose folder lacks the clip; for style None, write the clip unstylized."""
    asset, path, first = clip
    targets = {k: root / f"style_{k}" / f"{asset}_{first:05d}" for k in styles}
    missing = [k for k, target in targets.items() if not target.exists()]
    if not missing:
        return
    video = open_frames(path).read(range(first, first + dataset.frames))
    crops = {source.asset: source.crop for source in dataset.sources}
    frames = crop_and_scale(video, crops[asset], dataset.short_side)
    for k in missing:
        style = styles[k]
        pictures = frames if style is None else (render(frame, style) for frame in frames)
        try:
            write_folder(pictures, targets[k], NAMING, 1, dataset.jpeg_quality)
        except (UserError, OSError):
            if not targets[k].exists():
                raise
            # Ignore the error if another process has written the same folder in the meantime.


def crop_and_scale(video: NDArray[np.uint8], crop: list[int] | None, short_side: int) -> list[Frame]:
    """Crop a video's frames to `crop`, which is [left, top, width, height] or None, and scale the frames."""
    left, top, width, height = crop or (0, 0, *video.shape[2:0:-1])
    return [scale(frame, short_side) for frame in video[:, top : top + height, left : left + width]]


def scale(frame: Frame, short_side: int) -> Frame:
    """Scale a frame (H, W, 3) so that the shorter side has `short_side` pixels."""
    factor = short_side / min(frame.shape[:2])
    height, width = (round(side * factor) for side in frame.shape[:2])
    interpolation = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return cv2.resize(frame, (width, height), interpolation=interpolation).astype(np.uint8, copy=False)
