"""Networks of Hugging Face's ``transformers``: ``model=huggingface``."""

import copy
import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from static_dynamic.errors import UserError
from static_dynamic.models.adapters.adapt import adapter
from static_dynamic.models.adapters.huggingface_input import declared_input
from static_dynamic.models.adapters.network import Loaded, Wanted
from static_dynamic.models.adapters.packages import load_package, package_errors, with_classes

# Class of a Hugging Face network -> additional arguments of ``forward``; V-JEPA 2's predictor is skipped.
HUGGINGFACE_CALL = {"VJEPA2Model": {"skip_predictor": True}}
# Part of the name of a network's class -> class of transformers that loads such networks with their head.
HEADS = {
    "ForVideoClassification": "AutoModelForVideoClassification",
    "ForImageClassification": "AutoModelForImageClassification",
}
# Keys of a config that hold the number of frames.
FRAMES = ("num_frames", "frames_per_clip")
# Keys of a config that hold the side of a frame in pixels.
SIDES = ("image_size", "crop_size")
# (pattern of a network's class, pattern of a parameter (1, frames, C)) -> interpolation by which the authors'
# code resizes the parameter to another number of frames.
INTERPOLATED = {("Timesformer*", "*time_embeddings"): "nearest"}
# Image networks see 8 frames, every 8th frame of the video, as image networks of timm do.
IMAGES = {"frames": 8, "sampling_rate": 8}


@adapter("huggingface", "model.name=FOLDER or model.name=facebook/timesformer-base-finetuned-k400")
def load_huggingface(wanted: Wanted) -> Loaded:
    """Load a ``transformers`` network from a folder or the Hugging Face hub; code stored there never runs."""
    transformers = load_package("huggingface", "transformers")
    label = f"model=huggingface ({wanted.network})"
    check_name(wanted.network)
    with package_errors("huggingface", wanted.network):
        changes = with_classes("num_labels", wanted.num_classes) | dict(wanted.options)
        config = transformers.AutoConfig.from_pretrained(wanted.network, trust_remote_code=False, **changes)
        heads = [auto for part, auto in HEADS.items() if part in str(config.architectures)]
        auto = getattr(transformers, heads[0] if heads else "AutoModel")
        declared = {**preprocessing(label, wanted, config), **set_frames(label, wanted, config)}
        set_side(auto, config, wanted.input.get("crop") or declared.get("crop"))
        if wanted.pretrained:
            module = pretrained(auto, wanted.network, config)
        else:
            module = auto.from_config(config, trust_remote_code=False)
    kind = type(module)

    def convert(state: Mapping) -> Mapping:
        # older versions of transformers wrote other keys, which `from_pretrained` translates
        own = set(module.state_dict()) == set(state)
        return state if own else from_pretrained(kind, None, config, state_dict=dict(state)).state_dict()

    feed = "b t c h w" if key_of(config, FRAMES) else "(b t) c h w"
    return Loaded(module, declared, HUGGINGFACE_CALL.get(kind.__name__, {}), convert, feed)


def check_name(network: str) -> None:
    """Raise UserError if a network is neither a folder nor an id of the Hugging Face hub."""
    if not Path(network).is_dir() and not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", network):
        raise UserError(
            f"model=huggingface ({network}): there is no such folder, and the hub has names such as "
            "facebook/timesformer-base-finetuned-k400"
        )


def key_of(config: Any, keys: tuple[str, ...]) -> str | None:
    """Return the first of `keys` that a config has."""
    return next((key for key in keys if getattr(config, key, None)), None)


def preprocessing(label: str, wanted: Wanted, config: Any) -> dict:
    """Return size, crop, mean and std that the processor's files and the config declare."""
    # a model of video and text holds the config of its vision tower
    holder = config if key_of(config, SIDES) else getattr(config, "vision_config", config)
    key = key_of(holder, SIDES)
    side = getattr(holder, key) if key else None
    if all(wanted.input.get(name) is not None for name in ("size", "crop", "mean", "std")):
        return {}
    return {"size": side, "crop": side} | declared_input(
        label, wanted.network, wanted.input.get("crop") or side
    )


def set_frames(label: str, wanted: Wanted, config: Any) -> dict:
    """Write the wanted number of frames into a config; return the number of frames of the input spec."""
    key, frames = key_of(config, FRAMES), wanted.input.get("frames")
    if key is None:
        tower = getattr(config, "vision_config", None)
        own = key_of(tower, FRAMES)
        return {**IMAGES, **({"frames": getattr(tower, own)} if own else {})}
    if frames is not None:
        if wanted.options.get(key, frames) != frames:
            raise UserError(
                f"{label}: model.input.frames={frames}, but model.options.{key}={wanted.options[key]}"
            )
        setattr(config, key, frames)
    return {"frames": getattr(config, key)}


def set_side(auto: Any, config: Any, crop: Any) -> None:
    """Write the side of the network's frames into a config, unless shapes of weights depend on the side.

    Networks whose weights depend on the side interpolate these weights themselves, or refuse other sides.
    """
    key = key_of(config, SIDES)
    if key is None or crop is None or not isinstance(crop, int):
        return
    other = copy.deepcopy(config)
    setattr(other, key, crop if isinstance(getattr(config, key), int) else [crop, crop])
    if getattr(other, key) != getattr(config, key) and shapes_of(auto, other) == shapes_of(auto, config):
        setattr(config, key, getattr(other, key))


def shapes_of(auto: Any, config: Any) -> dict[str, torch.Size]:
    """Return name -> shape of the weights of the network that a config describes."""
    with torch.device("meta"):
        net = auto.from_config(config, trust_remote_code=False)
    return {name: tensor.shape for name, tensor in net.state_dict().items()}


def pretrained(auto: Any, network: str, config: Any) -> nn.Module:
    """Load the weights of a folder or of the hub; fit weights per frame to the number of frames in `config`.

    Raises UserError if a weight depends on the number of frames in a way that `INTERPOLATED` does not list.
    """
    trained, key = copy.deepcopy(config), key_of(config, FRAMES)
    if key is not None:
        own = type(config).from_pretrained(network)
        setattr(trained, key, getattr(own, key))
    module = from_pretrained(auto, network, trained)
    if key is None or getattr(trained, key) == getattr(config, key):
        return module
    other = auto.from_config(config, trust_remote_code=False).float()
    kind, shapes, state = type(module).__name__, other.state_dict(), module.state_dict()
    for name, weights in state.items():
        if weights.shape == shapes[name].shape:
            continue
        modes = [mode for names, mode in INTERPOLATED.items() if all(map(fnmatchcase, (kind, name), names))]
        if not modes:
            raise UserError(
                f"model=huggingface: {kind} of {network} was trained on {getattr(trained, key)} frames, and "
                f"its weights {name} fit no other number: leave out model.input.frames, model.options.{key}"
            )
        size = shapes[name].shape[1]
        state[name] = F.interpolate(weights.mT, size=size, mode=modes[0]).mT
    other.load_state_dict(state)
    return other


def from_pretrained(kind, network: str | None, config, **options) -> nn.Module:
    """Load a Hugging Face network in float32; code in pickled weight files never runs.

    Raises UserError if weights are missing or have other shapes. A folder may hold weights that the network
    lacks (such as a decoder's); a state dict may not.
    """
    if network is not None:
        options |= {"trust_remote_code": False, "weights_only": True}
    module, report = kind.from_pretrained(network, config=config, output_loading_info=True, **options)
    wrong = ["missing_keys", "mismatched_keys", *(["unexpected_keys"] if network is None else [])]
    found = [f"{len(report[kind])} {kind} ({min(map(str, report[kind]))})" for kind in wrong if report[kind]]
    if found:
        raise UserError(
            f"model=huggingface: the weights of {network or 'checkpoint='} do not fit "
            f"{type(module).__name__}: {'; '.join(found).replace('_', ' ')}"
        )
    return module.float()
