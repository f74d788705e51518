"""Read frames of a run's clips again from the data set, and join several frames into one picture."""

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from static_dynamic.analysis.run.store import Store
from static_dynamic.datasets.clips import style_folder
from static_dynamic.datasets.discovery import find_video
from static_dynamic.datasets.frames import BadFrames, open_frames
from static_dynamic.datasets.views import frame_columns
from static_dynamic.errors import UserError
from static_dynamic.spacing import evenly_spaced

# Number of frames per clip on the contact sheet: the first, the middle and the last one.
SHEET_FRAMES = 3
# Width in pixels of the white gap between two frames of a picture.
GAP = 3


def read_strips(store: Store, top: pd.DataFrame, root: str | None) -> dict[int, NDArray[np.uint8]]:
    """Read frames of the views in `top`; return a dict: row of ``views.parquet`` -> frames (n, H, W, 3).

    `root`: folder of the data set; if None, the run's own. Raises UserError if the frames are gone. The dict
    is empty if activations were imported, because then the videos are unknown.
    """
    views = store.views
    columns = frame_columns(views)
    if not columns:
        return {}
    folder = Path(root or store.manifest.get("root", ""))
    strips = {}
    for row in tqdm(sorted(set(top["row"])), desc="frames", unit="clip", delay=2):
        view = views.iloc[row]
        positions = pick_frames(view[columns[0]], SHEET_FRAMES)
        try:
            strips[row] = read_frames(folder, view["style"], view["video"], positions)
        except BadFrames as error:
            raise UserError(
                f"the frames of the run {store.path} are no longer in {folder} ({error}): give "
                "task.data_root=FOLDER, the folder that now holds style_1, style_2 ..."
            ) from error
    return strips


def read_frames(root: Path, style: int, video: str, positions: list[int]) -> NDArray[np.uint8]:
    """Read the frames at `positions` of one video in one style; return an array (n, H, W, 3)."""
    return open_frames(find_video(style_folder(root, style), video)).read(positions)


def pick_frames(positions: NDArray, count: int) -> list[int]:
    """Return at most `count` evenly spaced elements of an array of frame positions, in unchanged order."""
    return positions[evenly_spaced(count, len(positions), np.trunc)].tolist()


def side_by_side(
    frames: NDArray[np.uint8], *, width: int | None = None, height: int | None = None
) -> NDArray[np.uint8]:
    """Resize frames (n, H, W, 3) to `width` or `height`, and join the frames in a row with white gaps."""
    if width is None:
        assert height is not None
        width = max(1, round(frames.shape[2] * height / frames.shape[1]))
    if height is None:
        height = max(1, round(frames.shape[1] * width / frames.shape[2]))
    lanczos = Image.Resampling.LANCZOS
    resized = [np.asarray(Image.fromarray(frame).resize((width, height), lanczos)) for frame in frames]
    gap = np.full((height, GAP, 3), 255, np.uint8)
    return np.concatenate([part for frame in resized for part in (frame, gap)][:-1], axis=1)
