"""Make inputs of the benchmarks: videos of drifting textures, the built-in data set, and empty runs."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from omegaconf import OmegaConf
from tqdm import tqdm

from static_dynamic import configs
from static_dynamic.analysis.run.store import Store
from static_dynamic.datasets import ClipList, list_clips
from static_dynamic.datasets.write import write_folder
from static_dynamic.models import VideoNetwork
from tests.analysis.manifests import small_manifest

STYLES, FRAMES = (1, 2, 3, 4), 64


def make_videos(folder: str | Path, clips: int, height: int, width: int) -> ClipList:
    """Write videos of drifting textures as folders of jpg frames, one per style, and list the clips."""
    root, rng = Path(folder), np.random.default_rng(0)
    for clip in tqdm(range(clips), desc="make videos"):
        texture = rng.integers(0, 256, (2 * height // 8 + 1, 2 * width // 8 + 1, 3))
        texture = np.kron(texture, np.ones((8, 8, 1)))  # (2 H, 2 W, 3)
        step = rng.integers(-2, 3, 2)
        for style in STYLES:
            colours = np.random.default_rng((clip, style)).dirichlet(np.ones(3), 3)
            image = (texture @ colours).astype(np.uint8)
            frames = (np.roll(image, tuple(t * step), (0, 1))[:height, :width].copy() for t in range(FRAMES))
            write_folder(frames, root / f"style_{style}" / f"clip{clip:03d}", "%06d.jpg", 1)
    return list_folder("made", root)


def embedded_clips(limit: int) -> ClipList:
    """List the first `limit` clips of the built-in data set, and make the data set if it is missing."""
    # This import is inside the function, because a GPU machine may lack the packages of the stylizer.
    from static_dynamic.stylize.embedded import prepare

    root = prepare(configs.row("dataset", "embedded"), configs.row("style", "builtin"))
    return list_folder("embedded", root, limit)


def list_folder(name: str, root: Path, limit: int | None = None) -> ClipList:
    """List the clips of a folder of stylized videos."""
    return list_clips(OmegaConf.create({"name": name, "layout": "folder", "root": str(root)}), STYLES, limit)


@dataclass(frozen=True)
class CachedVideo:
    """A video whose decoded frames are in memory, as an array (frames, height, width, 3)."""

    frames: np.ndarray

    def read(self, indices, allocate=np.empty):
        """Copy the frames at `indices` to an array that `allocate` creates."""
        out = allocate((len(indices), *self.frames.shape[1:]), np.uint8)
        return np.take(self.frames, indices, axis=0, out=out)


class CachedClips(ClipList):
    """Clips whose frames are already in memory, so that decoding is not timed."""

    def frames_of(self, video, style):
        """Return a video from memory; every style shows the frames of the first style."""
        return CachedVideo(CACHE[video])


CACHE: dict[str, np.ndarray] = {}  # video -> its frames


def cached(clips: ClipList) -> CachedClips:
    """Decode the first style of every video into memory, and return clips that read from memory."""
    for clip in clips.clips:
        CACHE[clip.video] = clips.frames_of(clip.video, STYLES[0]).read(range(FRAMES))
    return CachedClips(clips.name, clips.root, clips.styles, clips.clips)


def stages_of(net: VideoNetwork) -> dict[str, dict]:
    """Return the stages of a network in the format of a run's manifest.json."""
    return {name: {"units": stage.units, "stream": stage.stream} for name, stage in net.stages.items()}


def new_store(
    folder: str | Path, stages: Mapping[str, dict], views: pd.DataFrame, pairs: pd.DataFrame, **noted
) -> Store:
    """Create a run folder without activations; `noted` holds additional keys of manifest.json."""
    manifest = small_manifest(stages, views, **noted)
    return Store.create_or_resume(Path(folder), manifest, views, pairs)
