"""Preprocessing of Hugging Face networks: from the files of the image or video processor to an input spec.

The files are the truth. If the installed packages can build the processor, its defaults complete the files,
and a test picture must come out of the processor as the input spec says.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from static_dynamic.errors import UserError, reason

# (file, key of the settings in the file or None for the whole file), in the order of preference.
SOURCES = (
    ("processor_config.json", "video_processor"),
    ("video_preprocessor_config.json", None),
    ("processor_config.json", "image_processor"),
    ("preprocessor_config.json", None),
)
TYPES = ("video_processor_type", "image_processor_type", "feature_extractor_type")
# Steps that an input spec can express.
STEPS = ("do_resize", "do_center_crop", "do_rescale", "do_normalize")
# Steps that do not change the frames of a video.
HARMLESS = ("do_convert_rgb", "do_sample_frames")
# Processors that subtract 1 after rescaling although their files have no key ``offset``.
OFFSET = ("VivitVideoProcessor",)
# ConvNeXt crops only frames below this size; larger frames are squeezed to a square.
CROP_PCT_BELOW = 384
# A processor's picture may differ from the expected picture by LEVELS grey levels, because of rounding and
# interpolation. It may also be shifted by PIXELS pixels, because a crop cannot be centred exactly if the
# difference between the sides of picture and crop is odd.
LEVELS, PIXELS = 1.5, 1.1
WAY_OUT = "give model.input.size, model.input.crop, model.input.mean and model.input.std"


def declared_input(label: str, network: str, side: Any) -> dict:
    """Return size, crop, mean and std from the processor file of a Hugging Face model; {} if it has none.

    `network` is a folder or hub id, and `side` the frame size in the network's config (None if it has none).
    Raises UserError if an input spec cannot express the preprocessing.
    """
    file, settings = read_settings(network)
    if not settings:
        return {}
    where = f"{label}: {file}"
    kind = str(next((settings[key] for key in TYPES if settings.get(key)), "no class"))
    processor = build_processor(kind, settings)
    if processor is not None:
        settings = json.loads(processor.to_json_string())
    else:
        missing = [key for key in STEPS if key not in settings]
        if missing:
            raise UserError(
                f"{where} does not say {', '.join(missing)}, and the defaults of {kind} are unknown: "
                f"install what {kind} needs (torchvision), or {WAY_OUT}"
            )
    known = {*STEPS, *HARMLESS}
    unknown = [key for key, value in settings.items() if key.startswith("do_") and value and key not in known]
    if unknown:
        raise UserError(f"{where} asks for {', '.join(unknown)}, which this program cannot do: {WAY_OUT}")
    found = geometry(where, settings, side) | values(settings, kind)
    if processor is not None:
        check_processor(where, processor, kind, found)
    return found


def read_settings(network: str) -> tuple[str, dict]:
    """Return the name of the first of `SOURCES` that exists, and its settings; ("", {}) if none exists."""
    from transformers.utils import cached_file

    for file, key in SOURCES:
        try:
            path = cached_file(network, file)
        except OSError:
            continue
        content = json.loads(Path(str(path)).read_text(encoding="utf-8"))
        settings = content if key is None else content.get(key)
        if settings:
            return file, settings
    return "", {}


def build_processor(kind: str, settings: Mapping) -> Any:
    """Build a processor of the class `kind`; return None if transformers lacks it or a package it needs."""
    import transformers

    current = kind.replace("FeatureExtractor", "ImageProcessor")
    for name in (kind, current, current.removesuffix("Fast")):
        found = getattr(transformers, name, None)
        if found is not None and not getattr(found, "is_dummy", False):
            try:
                return found(**{key: value for key, value in settings.items() if key not in TYPES})
            except ImportError:
                return None
    return None


def geometry(where: str, settings: Mapping, side: Any) -> dict:
    """Return the fields size and crop of a `static_dynamic.models.stages.InputSpec`."""
    size = {key: value for key, value in dict_of(settings.get("size")).items() if value}
    scaled: Any
    fitting: Any
    if not settings.get("do_resize"):
        raise UserError(f"{where} does not resize frames, but a run needs one frame size: {WAY_OUT}")
    if size.keys() == {"height", "width"}:
        scaled = fitting = (size["height"], size["width"])
    elif size.keys() == {"shortest_edge"} and settings.get("crop_pct"):
        scaled = fitting = (size["shortest_edge"], size["shortest_edge"])
        if scaled[0] < CROP_PCT_BELOW:
            scaled = int(scaled[0] / settings["crop_pct"])
    elif size.keys() == {"shortest_edge"}:
        scaled, fitting = size["shortest_edge"], side
    else:
        raise UserError(f"{where} has a size that this program cannot read ({size}): {WAY_OUT}")
    if settings.get("do_center_crop"):
        cut = dict_of(settings.get("crop_size"))
        fitting = (cut.get("height"), cut.get("width"))
    fitting = (fitting, fitting) if isinstance(fitting, int) else tuple(fitting or (None,))
    if None in fitting:
        raise UserError(
            f"{where} keeps the aspect ratio of frames, but a run needs one frame size: give model.input.crop"
        )
    return {"size": scaled, "crop": fitting[0] if len(set(fitting)) == 1 else fitting}


def dict_of(size: Any) -> dict:
    """Return a size as a dict; one number, as in older files, stands for both sides."""
    return dict(size) if isinstance(size, Mapping) else {"height": size, "width": size}


def values(settings: Mapping, kind: str) -> dict:
    """Combine a processor's rescaling, offset and normalisation into one mean and std for x in [0, 1].

    The processor computes (255 x * factor - offset - image_mean) / image_std from x in [0, 1].
    """
    rescale, normalize = settings.get("do_rescale"), settings.get("do_normalize")
    factor = settings["rescale_factor"] if rescale else 1
    offset = float(bool(rescale and (settings.get("offset") or kind in OFFSET)))
    mean = triple(settings["image_mean"] if normalize else 0)
    std = triple(settings["image_std"] if normalize else 1)
    # rounded, because 255 * (1 / 255) is not exactly 1
    return {
        "mean": [round((value + offset) / (255 * factor), 12) for value in mean],
        "std": [round(value / (255 * factor), 12) for value in std],
    }


def triple(value: Any) -> list[float]:
    """Return one value per colour channel."""
    return [float(v) for v in value] if isinstance(value, list | tuple) else [float(value)] * 3


def check_processor(where: str, processor: Any, kind: str, declared: Mapping) -> None:
    """Raise UserError if a processor treats a test picture in another way than the input spec says.

    The red and the green channel of the picture are a horizontal and a vertical ramp, so that they show where
    a pixel comes from. The blue channel is constant. Interpolation hardly changes a ramp away from its edges.
    """
    scaled, crop = declared["size"], declared["crop"]
    short = scaled if isinstance(scaled, int) else min(scaled)
    height, width = short * 5 // 4, short * 3 // 2
    picture = np.full((height, width, 3), 77, np.uint8)
    picture[..., 0] = (255 * ramp(width, width)).round()
    picture[..., 1] = (255 * ramp(height, height)).round()[:, None]
    try:
        outputs = processor([picture, picture], return_tensors="pt")
    except Exception as error:
        # catch every exception, because code of another package runs here
        raise UserError(f"{where}: {kind} fails on a picture ({reason(error)}): {WAY_OUT}") from error
    tensor = next(value for value in outputs.values() if torch.is_tensor(value) and value.dim() > 3)
    mean, std = (np.array(declared[key])[:, None, None] for key in ("mean", "std"))
    found = tensor.float().flatten(0, -4)[0].numpy() * std + mean
    rows, columns = (crop, crop) if isinstance(crop, int) else crop
    if not getattr(processor, "do_center_crop", False):
        top, left = (found.shape[1] - rows) // 2, (found.shape[2] - columns) // 2
        found = found[:, top : top + rows, left : left + columns]
    high, wide = (scaled, int(width / height * scaled)) if isinstance(scaled, int) else scaled
    expected = np.empty((3, rows, columns))
    expected[0] = ramp(wide, columns)
    expected[1] = ramp(high, rows)[:, None]
    expected[2] = 77 / 255
    inner = (..., slice(rows // 8, rows - rows // 8), slice(columns // 8, columns - columns // 8))
    tolerance = LEVELS / 255 + PIXELS / min(high, wide)
    if found.shape != expected.shape or abs(found - expected)[inner].max() > tolerance:
        raise UserError(f"{where}: {kind} treats frames in another way than its settings say: {WAY_OUT}")


def ramp(scaled: int, cropped: int) -> NDArray:
    """Return the centre crop of a ramp from 0 to 1 that has been scaled to `scaled` pixels."""
    return ((np.arange(cropped) + (scaled - cropped) // 2 + 0.5) / scaled).clip(0, 1)
