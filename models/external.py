"""What loads networks of other packages, and the user's own; a package is imported when it is asked for."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import torch

from static_dynamic.errors import UserError, nearest
from static_dynamic.models.adapters import Loaded, adapter, first_line

# the files in which Hugging Face models say their preprocessing
HUGGINGFACE_INPUT = ("video_preprocessor_config.json", "preprocessor_config.json")
# what the forward pass of a class takes besides the clip: without its predictor V-JEPA 2 is its encoder
HUGGINGFACE_CALL = {"VJEPA2Model": {"skip_predictor": True}}


def load_package(family: str, module: str) -> ModuleType:
    """Import a package that is needed for one family alone.

    Raises
    ------
    UserError
        Where it, or a package that it needs, is not installed, or does not go with this torch.
    """
    try:
        return importlib.import_module(module)
    except (ImportError, RuntimeError) as error:
        missing = getattr(error, "name", None) or ""
        if isinstance(error, ModuleNotFoundError) and "." not in missing:
            raise UserError(f"model={family} needs the package {missing}: pip install {missing}") from error
        raise UserError(
            f"model={family}: {module} cannot be imported beside torch {torch.__version__} "
            f"({first_line(error)}): install the version of {module.partition('.')[0]} made for it"
        ) from error


@contextmanager
def blamed_on(family: str, network: str) -> Iterator[None]:
    """Turn what a package raises into one line: a name or weights that it does not have, no network."""
    try:
        yield
    except (OSError, RuntimeError, ValueError, LookupError, AttributeError) as error:
        raise UserError(f"model={family} ({network}): {first_line(error)}") from error


def check_known(family: str, network: str, known: Sequence[str]) -> None:
    """Refuse a network that a package does not have."""
    if network not in known:
        raise UserError(f"model={family}: the package has no network {network!r}{nearest(network, known)}")


@adapter("torchvision", "model.name=r3d_18")
def load_torchvision(network: str, num_classes: int | None, pretrained: bool, options: Mapping):
    """A network of ``torchvision.models``, and the preprocessing of its newest weights."""
    zoo = load_package("torchvision", "torchvision.models")
    check_known("torchvision", network, zoo.list_models())
    with blamed_on("torchvision", network):
        weights = zoo.get_model_weights(network).DEFAULT
        classes = len(weights.meta["categories"]) if pretrained else num_classes
        module = zoo.get_model(network, weights=None, **with_classes("num_classes", classes), **options)
        if pretrained:
            # read as data: the package itself would unpickle whatever the file holds
            module.load_state_dict(weights.get_state_dict(check_hash=True, weights_only=True))
        preset = weights.transforms()
        size, crop = min(preset.resize_size), min(preset.crop_size)
    return Loaded(module, {"size": size, "crop": crop, "mean": preset.mean, "std": preset.std})


@adapter("pytorchvideo", "model.name=slow_r50")
def load_pytorchvideo(network: str, num_classes: int | None, pretrained: bool, options: Mapping):
    """A network of ``pytorchvideo.models.hub``, which says nothing of its input."""
    hub = load_package("pytorchvideo", "pytorchvideo.models.hub")
    check_known("pytorchvideo", network, [name for name, value in vars(hub).items() if callable(value)])
    builder = getattr(hub, network)
    with blamed_on("pytorchvideo", network):
        module = builder(pretrained=False, **with_classes("model_num_class", num_classes), **options)
        if pretrained:
            # read as data: the package itself would unpickle whatever the file holds
            url = sys.modules[builder.__module__].checkpoint_paths[network]
            state = torch.hub.load_state_dict_from_url(url, map_location="cpu", weights_only=True)
            module.load_state_dict(state["model_state"])
    return Loaded(module)


@adapter("timm", "model.name=resnet50")
def load_timm(network: str, num_classes: int | None, pretrained: bool, options: Mapping):
    """A network of ``timm``, which sees frames one by one, and its preprocessing."""
    timm = load_package("timm", "timm")
    if ":" not in network:  # hf-hub:... and local-dir:... are no names of the table
        check_known("timm", network.partition(".")[0], timm.list_models())
    with blamed_on("timm", network):
        classes = with_classes("num_classes", num_classes)
        module = timm.create_model(network, pretrained=pretrained, **classes, **options)
    said = timm.data.resolve_model_data_config(module)
    crop = said["input_size"][-1]
    size = round(crop / said["crop_pct"])
    return Loaded(module, {"size": size, "crop": crop, "mean": said["mean"], "std": said["std"]})


@adapter("huggingface", "model.name=FOLDER or model.name=facebook/timesformer-base-finetuned-k400")
def load_huggingface(network: str, num_classes: int | None, pretrained: bool, options: Mapping):
    """A network of ``transformers``, from a folder or the hub; code that comes with weights never runs."""
    transformers = load_package("huggingface", "transformers")
    with blamed_on("huggingface", network):
        config = transformers.AutoConfig.from_pretrained(
            network, trust_remote_code=False, **with_classes("num_labels", num_classes), **options
        )
        has_head = any("ForVideoClassification" in name for name in config.architectures or ())
        auto = transformers.AutoModelForVideoClassification if has_head else transformers.AutoModel
        if pretrained:
            module = from_pretrained(auto, network, config)
        else:
            module = auto.from_config(config, trust_remote_code=False)
    kind = type(module)

    def convert(state: Mapping) -> Mapping:
        # files of older versions of the package have other keys, which it knows
        own = set(module.state_dict()) == set(state)
        return state if own else from_pretrained(kind, None, config, state_dict=dict(state)).state_dict()

    call = HUGGINGFACE_CALL.get(kind.__name__, {})
    return Loaded(module, huggingface_input(network, config), call, convert)


def from_pretrained(kind, network: str | None, config, **options) -> torch.nn.Module:
    """A Hugging Face network in float32 whose weights are all there; pickles are read as plain tensors.

    A folder may hold more than the network (a decoder); a state dict alone may not.
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


def huggingface_input(network: str, config) -> dict:
    """What a Hugging Face model says of its input, in its own config and in that of its preprocessor."""
    from transformers.utils import cached_file

    crop = getattr(config, "image_size", None) or getattr(config, "crop_size", None)
    crop = crop if isinstance(crop, int | None) else crop[0]
    said = {
        "frames": getattr(config, "num_frames", None) or getattr(config, "frames_per_clip", None),
        "crop": crop,
        "size": crop,
    }
    for name in HUGGINGFACE_INPUT:
        try:
            path = cached_file(network, name)
        except OSError:
            continue
        preset = json.loads(Path(path).read_text(encoding="utf-8"))
        size = preset.get("size") or {}
        return said | {
            "size": size.get("shortest_edge", crop) if isinstance(size, Mapping) else size,
            "mean": preset.get("image_mean"),
            "std": preset.get("image_std"),
        }
    return said


@adapter("custom", "model.target=package.module.function")
def load_custom(network: str, num_classes: int | None, pretrained: bool, options: Mapping):
    """What a function (or a class) of the user's own returns, with whatever weights it has by then."""
    module_name, _, name = network.rpartition(".")
    try:
        builder = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"model.target={network} cannot be imported: {first_line(error)}") from error
    return Loaded(builder(**with_classes("num_classes", num_classes), **options))


def with_classes(keyword: str, num_classes: int | None) -> dict[str, int]:
    """The number of classes as a package takes it; nothing where it has a default of its own."""
    return {} if num_classes is None else {keyword: num_classes}
