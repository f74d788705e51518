"""Make masks of videos with a detector, once: one png per frame in a folder.

A detector is a function (frames (n, H, W, 3) uint8) -> labels (n, H, W), where 0 is background. With
``masks=detector`` it is torchvision's Mask R-CNN, whose foreground is the union of all detected objects of
COCO's classes. With ``masks=package.module.function`` it is a function of the user.
"""

import importlib
import logging
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from static_dynamic.device import choose_device
from static_dynamic.errors import UserError, reason
from static_dynamic.files import atomic_path, json_sha256

from .clips import ClipList, style_folder
from .davis import DavisClips
from .discovery import points_outside
from .mask_files import VOID, FolderMasks
from .pixels import BadFrames

log = logging.getLogger(__name__)

DETECTOR = "detector"
Detector = Callable[[NDArray[np.uint8]], NDArray]
# A detection counts if its score is at least SCORE; a pixel belongs to it if its value is at least 0.5.
SCORE = 0.5
# Number of frames per call of the detector.
FRAMES = 8
FUNCTION = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")


def is_function(source: str) -> bool:
    """Return whether `source` has the form package.module.function."""
    return FUNCTION.fullmatch(source) is not None and not source.endswith(".json")


def detect(source: str, clips: ClipList, folder: Path, device: str | int | None) -> FolderMasks:
    """Detect the objects in the frames of all clips; write ``folder/NAME/VIDEO/POSITION.png``.

    Frames whose masks are already on disk are not read again. Unreadable videos get no masks. The frames are
    those of style 0 if the data set has it, else of the first style.
    """
    if isinstance(clips, DavisClips):
        raise UserError(f"masks={source}: DAVIS has annotations: give masks=davis")
    styles = [
        style for style in (0, *clips.styles) if style_folder(clips.root, style, clips.normal_root).is_dir()
    ]
    style = styles[0] if styles else clips.styles[0]
    if style != 0:
        log.warning(
            "masks=%s: there are no unstylized videos, so style %d is searched for objects", source, style
        )
    about = [source, SCORE, str(clips.root.resolve()), style, clips.name]
    root = folder / f"{clips.name}-{json_sha256(about)[:12]}"
    frames_of: dict[str, set[int]] = {}
    for clip in clips.clips:
        frames_of.setdefault(clip.video, set()).update(range(clip.first, clip.first + clip.length))
    function: Detector | None = None
    with tqdm(total=sum(map(len, frames_of.values())), desc="detect objects", unit="frame", delay=5) as bar:
        for video, positions in frames_of.items():
            if points_outside(video):
                continue  # `FolderMasks.path` refuses this name
            missing = [k for k in sorted(positions) if not (root / video / f"{k:06d}.png").is_file()]
            bar.update(len(positions) - len(missing))
            for start in range(0, len(missing), FRAMES):
                part = missing[start : start + FRAMES]
                try:
                    frames = clips.frames_of(video, style).read(part)
                except BadFrames as error:
                    log.warning("masks=%s: %s", source, error)
                    break
                function = function or load(source, device)
                for k, labels in zip(part, labels_of(source, function, frames), strict=True):
                    with atomic_path(root / video / f"{k:06d}.png") as temporary:
                        Image.fromarray(labels).save(temporary)
                bar.update(len(part))
    return FolderMasks(root, source, by_position=True, title=clips.name)


def labels_of(source: str, function: Detector, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Call a detector; raise UserError if it fails, or does not return labels (n, H, W) from 0 to 255."""
    try:
        found = np.asarray(function(frames))
    except UserError:
        raise
    except Exception as error:
        # the function of a user can raise any exception
        raise UserError(f"masks={source} failed ({type(error).__name__}: {reason(error)})") from error
    if found.shape != frames.shape[:3] or found.dtype.kind not in "biu":
        raise UserError(
            f"masks={source} returned {found.dtype} {found.shape} for frames {frames.shape}: a detector "
            "returns integers (frames, height, width)"
        )
    if found.min() < 0 or found.max() > VOID:
        raise UserError(
            f"masks={source} returned labels {found.min()} to {found.max()}: labels are 0 to {VOID}"
        )
    return found.astype(np.uint8)


def load(source: str, device: str | int | None) -> Detector:
    """Return the detector that the option ``masks`` names; torchvision's computes on `device`."""
    if source == DETECTOR:
        return partial(mask_rcnn, *mask_rcnn_network(device))
    module, _, name = source.rpartition(".")
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"masks={source} is neither a folder, a json file nor a function that can be imported "
            f"({reason(error)})"
        ) from error
    if not callable(function):
        raise UserError(f"masks={source} is no function: give package.module.function")
    return function


def mask_rcnn_network(device: str | int | None) -> tuple[torch.nn.Module, torch.device]:
    """Build torchvision's Mask R-CNN with its weights for COCO; raise UserError if this is impossible."""
    ways = "or give masks=DIR, masks=FILE.json or masks=package.module.function"
    try:
        detection = importlib.import_module("torchvision.models.detection")
    except (ImportError, RuntimeError, AttributeError, OSError) as error:
        raise UserError(
            f"masks=detector needs torchvision ({reason(error)}): install the version for torch "
            f"{torch.__version__}, {ways}"
        ) from error
    chosen = choose_device(device)
    try:
        return detection.maskrcnn_resnet50_fpn_v2(weights="DEFAULT").eval().to(chosen), chosen
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(
            f"masks=detector: no weights of Mask R-CNN ({reason(error)}): download them, {ways}"
        ) from error


@torch.inference_mode()
def mask_rcnn(net: torch.nn.Module, device: torch.device, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return 1 where torchvision's Mask R-CNN detects an object of any class (n, H, W), else 0."""
    labels = np.zeros(frames.shape[:3], np.uint8)
    for k, frame in enumerate(frames):
        image = torch.from_numpy(frame).to(device).permute(2, 0, 1).float() / 255  # (3, H, W)
        (found,) = net([image])
        masks = found["masks"][found["scores"] >= SCORE, 0]  # (objects, H, W)
        labels[k] = (masks >= 0.5).any(dim=0).cpu().numpy()
    return labels
