"""Read masks from a folder: one folder of images per video, or one array file per video."""

import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from static_dynamic.errors import reason
from static_dynamic.spacing import evenly_spaced

from .discovery import points_outside
from .frames import FrameFolder
from .pixels import MAX_FRAMES, MAX_PIXELS, BadFrames

# Label of pixels that belong to no region, in masks with other labels than 0 and 255.
VOID = 255
ARRAY_SUFFIXES = (".npz", ".npy")
# Modes of Pillow's images that hold one label per pixel.
MODES = ("1", "L", "P", "I", "I;16")
# Largest accepted size of an array in an npz file, in bytes.
MAX_BYTES = 2**31
# Number of bytes of the blocks of an npy file that are hashed, and the number of these blocks.
BLOCK, BLOCKS = 4096, 64
# Number of array files that a process holds in memory; the styles of a video are read one after the other.
OPEN_ARRAYS = 2
# Exceptions that damaged images and array files cause.
DAMAGED = (
    *(OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, EOFError, OverflowError),
    *(MemoryError, RuntimeError, struct.error, zlib.error, zipfile.BadZipFile, Image.DecompressionBombError),
)


@dataclass(frozen=True)
class FolderMasks:
    """Masks in a folder: images in ``ROOT/VIDEO/``, or an array in ``ROOT/VIDEO.npz`` or ``.npy``.

    With `by_position`, the numbers in the names of images are positions of frames, counted from 0. `title`
    is the name of the folder in a run's identity.
    """

    root: Path
    kind: str = "folder"
    by_position: bool = field(default=False, kw_only=True)
    title: str = field(default="", kw_only=True)

    @property
    def name(self) -> str:
        """Name of the folder, without its path."""
        return self.title or self.root.resolve().name

    def open(self, video: str) -> "ImageMasks | ArrayMasks":
        """Open the masks of a video; raise BadFrames if there are none."""
        path = self.path(video)
        return ImageMasks(path) if path.is_dir() else open_array(path)

    def path(self, video: str) -> Path:
        """Return the folder or the array file that holds the masks of a video."""
        if points_outside(video):
            raise BadFrames(f"the video name {video!r} leads outside the folder of masks")
        folder = self.root / video
        for path in (folder, *(folder.with_name(folder.name + suffix) for suffix in ARRAY_SUFFIXES)):
            if path.exists():
                return path
        raise BadFrames(f"video {video} has no masks: {folder} (or .npz, .npy) does not exist")

    def listing(self, video: str) -> list:
        """Return names and sizes of a video's images, or name and content hash of its array file."""
        path = self.path(video)
        try:
            if path.is_dir():
                return [(name, (path / name).stat().st_size) for name in ImageMasks(path).names]
            return [path.name, array_digest(path)]
        except DAMAGED as error:
            raise BadFrames(f"masks of {video} cannot be listed ({reason(error)})") from error


class ImageMasks(FrameFolder):
    """Masks of one video as images with one label per pixel."""

    def labels(self, index: int) -> NDArray:
        """Return the labels (H, W) of one image."""
        return read_labels(self.path / self.names[index])

    def every_label(self) -> Iterator[NDArray]:
        """Yield the distinct labels of each mask."""
        return (np.unique(self.labels(k)) for k in range(len(self)))


class ArrayMasks:
    """Masks of one video as an array (n, H, W)."""

    numbers = None

    def __init__(self, array: NDArray):
        self.array = array

    def __len__(self) -> int:
        return len(self.array)

    def labels(self, index: int) -> NDArray:
        """Return the labels (H, W) of one mask."""
        return self.array[index].astype(np.int64)

    def every_label(self) -> Iterator[NDArray]:
        """Yield the distinct labels of each mask."""
        return (np.unique(mask) for mask in self.array)


@lru_cache(maxsize=OPEN_ARRAYS)
def open_array(path: Path) -> ArrayMasks:
    """Read the masks of one video from an array file; raise BadFrames if they are not labels (n, H, W)."""
    try:
        if path.suffix == ".npz":
            with zipfile.ZipFile(path) as archive:
                members = archive.infolist()
            if len(members) != 1:
                raise BadFrames(f"{path} holds {len(members)} arrays: save one array (frames, height, width)")
            # the size is checked first, because a small file can hold an array that exhausts the memory
            if members[0].file_size > MAX_BYTES:
                raise BadFrames(
                    f"{path} claims {members[0].file_size / 2**30:.0f} GiB: give npy files or images"
                )
            with np.load(path, allow_pickle=False) as arrays:
                found = arrays[arrays.files[0]]
        else:
            found = np.load(path, allow_pickle=False, mmap_mode="r")
    except DAMAGED as error:
        raise BadFrames(f"{path} is not an array of masks ({reason(error)})") from error
    sound = isinstance(found, np.ndarray) and found.ndim == 3 and found.dtype.kind in "biu"
    if not sound or not found.size or found[0].size > MAX_PIXELS or len(found) > MAX_FRAMES:
        what = f"{found.dtype} {found.shape}" if isinstance(found, np.ndarray) else type(found).__name__
        raise BadFrames(f"{path} holds {what}, but labels (frames, height, width) are needed")
    return ArrayMasks(found)


def array_digest(path: Path) -> str:
    """Return a hash of an array file: of checksums in an npz file, of evenly spaced blocks of an npy file."""
    if path.suffix == ".npz":
        with zipfile.ZipFile(path) as archive:
            content = [(member.filename, member.file_size, member.CRC) for member in archive.infolist()]
        return sha256(repr(content).encode()).hexdigest()
    size = path.stat().st_size
    found = sha256(str(size).encode())
    with path.open("rb") as file:
        for start in evenly_spaced(BLOCKS, max(1, size - BLOCK + 1)):
            file.seek(int(start))
            found.update(file.read(BLOCK))
    return found.hexdigest()


def read_labels(file: Path) -> NDArray[np.int64]:
    """Read an image with one label per pixel, such as a palette image; return the labels (H, W).

    An RGB image is accepted if all its colours are those of DAVIS' palette.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(file) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise BadFrames(f"{file} claims {image.width}x{image.height} pixels: too large")
                if image.format == "JPEG":
                    raise BadFrames(f"{file} is a JPEG, which changes labels: save masks as png")
                labels = davis_labels(np.asarray(image)) if image.mode == "RGB" else None
                if labels is None and image.mode not in MODES:
                    raise BadFrames(
                        f"{file} is a colour image ({image.mode}) with other colours than DAVIS' palette: "
                        "save masks as palette or grey png"
                    )
                return np.asarray(image).astype(np.int64) if labels is None else labels
    except DAMAGED as error:
        raise BadFrames(f"{file} is not a readable image ({reason(error)})") from error


def davis_palette() -> dict[int, int]:
    """Return DAVIS' palette: colour 0xRRGGBB -> label, for black, 21 objects and white (`VOID`).

    DAVIS 2017 has the colours of Pascal VOC, but with 191 for 192; both are accepted.
    """
    found = {0xFFFFFF: VOID}
    for label in range(22):
        for high in (191, 192):
            # bits 0 to 2 of a label say where red, green and blue have 128, bits 3 to 5 where they have 64
            levels = [128 * (label >> k & 1) + 64 * (label >> k + 3 & 1) for k in range(3)]
            red, green, blue = (high if level == 192 else level for level in levels)
            found[red << 16 | green << 8 | blue] = label
    return found


def davis_labels(pixels: NDArray[np.uint8]) -> NDArray[np.int64] | None:
    """Return the labels of RGB pixels (H, W, 3) in DAVIS' palette; None if a colour is not in the palette."""
    palette = davis_palette()
    colours = pixels.astype(np.int64) @ [1 << 16, 1 << 8, 1]
    known = np.array(sorted(palette))
    where = np.searchsorted(known, colours).clip(max=len(known) - 1)
    if (known[where] != colours).any():
        return None
    return np.array([palette[int(colour)] for colour in known])[where]


def repeated(numbers: list[int]) -> int | None:
    """Return the first of ascending frame numbers that occurs twice; None if all differ."""
    return next((a for a, b in pairwise(sorted(numbers)) if a == b), None)
