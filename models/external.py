"""Wrap networks of other packages and of the user, so that the outputs of their modules can be read.

A loader imports its package only when one of the package's networks is built.
`static_dynamic.models.stage_discovery` finds which modules can be read.
"""

import importlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from static_dynamic.errors import UserError, nearest, reason
from static_dynamic.models.registry import register
from static_dynamic.models.stage_discovery import choose, declare, default_stages, find_candidates
from static_dynamic.models.stages import NO_OPTIONS, InputSpec, Stage, Tap, VideoNetwork
from static_dynamic.spacing import subsample_positions
from static_dynamic.weights import check_no_nan

# Names of files that describe the preprocessing of a Hugging Face network.
HUGGINGFACE_INPUT = ("video_preprocessor_config.json", "preprocessor_config.json")
# Class of a Hugging Face network -> additional arguments of ``forward``; V-JEPA 2's predictor is skipped.
HUGGINGFACE_CALL = {"VJEPA2Model": {"skip_predictor": True}}


@dataclass(frozen=True)
class Loaded:
    """A network that a package has built, with the preprocessing that the package declares.

    ``input`` holds fields of `InputSpec`. ``call`` holds arguments of the forward pass besides the clip.
    ``convert`` turns the state dict of a checkpoint file into the network's own keys.
    """

    net: nn.Module
    input: Mapping = field(default_factory=dict)
    call: Mapping = field(default_factory=dict)
    convert: Callable[[Mapping], Mapping] = dict


# Function (name of a network, number of classes or None, whether to load weights, options) -> `Loaded`.
Loader = Callable[[str, int | None, bool, Mapping], Loaded]


class AdaptedNetwork(VideoNetwork):
    """Wrapper of another package's network; the input is a clip (B, 3, T, H, W), or one clip per pathway.

    The state dict is the wrapped network's. If the wrapped network has no head, its output averaged over
    time and space stands for the logits.
    """

    prefix = "net."

    def __init__(self, loaded: Loaded, feed: str, input_spec: InputSpec):
        super().__init__()
        self.net, self.feed, self.input_spec = loaded.net, feed, input_spec
        self.call, self.convert_keys = loaded.call, loaded.convert
        self.stages: dict[str, Stage] = {}
        # one tap per tensor of the wrapped network's output; each tap pools a tensor to logits
        self.output: tuple[Tap, ...] = ()
        # True if the wrapped network's output holds one row of class scores per clip
        self.has_head = False

    def prepare(self, video: Tensor) -> Tensor | list[Tensor]:
        """Return one tensor of evenly spaced frames per pathway; for a single pathway, return `video`."""
        counts = list(self.input_spec.pathways.values())
        if len(counts) == 1:
            return video
        return [video[:, :, subsample_positions(video.shape[2], count)] for count in counts]

    def forward(self, inputs: Tensor | Sequence[Tensor]) -> Tensor:
        """Map a clip (B, 3, T, H, W), or a list of one such tensor per pathway, to logits (B, classes)."""
        pattern = f"b c t h w -> {self.feed}"
        one = isinstance(inputs, Tensor)
        arranged = rearrange(inputs, pattern) if one else [rearrange(x, pattern) for x in inputs]
        output = self.net(arranged, **self.call)
        return torch.cat([tap.pool(output) for tap in self.output], dim=1) if self.output else output

    def count_classes(self, output: Any) -> int | None:
        """Return the number of class scores in an output; None if the wrapped network has no classifier."""
        return super().count_classes(output) if self.has_head else None

    def convert(self, state: Mapping) -> Mapping:
        """Translate the keys of the package's checkpoint files to the wrapped network's keys."""
        return self.convert_keys(state)

    def stage_name(self, stg: int | str | None, options: Mapping = NO_OPTIONS) -> str:
        """Return the name of stage `stg`; None means the deepest stage that does not read a class token."""
        return super().stage_name(self.shown_stages()[-1] if stg is None else stg)

    def shown_stages(self, options: Mapping = NO_OPTIONS) -> list[str]:
        """Return the names of stages that average positions: all but class tokens (``PATH/cls``)."""
        return [name for name in self.stages if not name.endswith("/cls")]

    # mypy reports an error, because torch declares two overloads of state_dict
    def state_dict(self, *args, **kwargs) -> dict:  # type: ignore[override]
        """Return the state dict of the wrapped network."""
        return self.net.state_dict(*args, **kwargs)

    def load_state_dict(self, state_dict: Mapping, strict: bool = True, assign: bool = False):
        """Load a state dict into the wrapped network."""
        return self.net.load_state_dict(state_dict, strict, assign)


def adapter(family: str, example: str) -> Callable[[Loader], Loader]:
    """Return a decorator that registers a function as the loader for the option ``model=FAMILY``.

    `example` is shown in the message for a missing name.
    """

    def add(load: Loader) -> Loader:
        register(family)(partial(adapt, family, example, load))
        return load

    return add


def adapt(
    family: str,
    example: str,
    load: Loader,
    num_classes: int | None,
    *,
    network: str | None,
    feed: str,
    input: Mapping,
    known_inputs: Mapping[str, Mapping],
    stages: Sequence[str] | None = None,
    layout: str | None = None,
    leading_tokens: int | None = None,
    options: Mapping | None = None,
    pretrained: bool = False,
) -> AdaptedNetwork:
    """Load a network of another package and declare its stages.

    The keyword arguments are the options of the config group ``model``.
    """
    if not network:
        raise UserError(f"model={family} needs the name of a network, such as {example}")
    if pretrained and num_classes:
        raise UserError(
            f"num_classes={num_classes}: the pretrained weights of model={family} fix the number of classes; "
            "leave out num_classes, or give model.init=random or checkpoint=FILE"
        )
    label = f"model={family} ({network})"
    loaded = load(network, num_classes, pretrained, options or {})
    if pretrained:
        check_no_nan(loaded.net.state_dict(), label)
    spec = input_spec(label, input, loaded.input, known_inputs, (network, type(loaded.net).__name__))
    net = AdaptedNetwork(loaded, feed, spec).eval()
    try:
        found = find_candidates(net, layout, leading_tokens)
    except Exception as error:
        # catch every exception, because code of another package runs here
        size = " x ".join(map(str, (spec.frames, *spec.shape)))
        raise UserError(
            f"{label} does not run on a clip of {size} ({reason(error)}): change model.input (clip size) "
            "or model.feed (order of the axes)"
        ) from error
    own = {path.removeprefix(net.prefix): candidate for path, candidate in found.items()}
    whole = own.pop("net")
    net.output = whole.taps
    # num_classes is 0 for timm networks without a classifier, which return features instead of class scores
    net.has_head = len(whole.shapes[0]) == 2 and getattr(loaded.net, "num_classes", None) != 0
    net.stages = declare(choose(stages, own) if stages else default_stages(net.net, own), own)
    if not net.stages:
        raise UserError(f"{label}: no stage was found. Give model.stages (task=stages lists the modules)")
    return net


def input_spec(
    label: str, wanted: Mapping, declared: Mapping, known: Mapping[str, Mapping], names: Sequence[str]
) -> InputSpec:
    """Build the input spec from the user's options, else the package's values, else ``configs/model``.

    Parameters
    ----------
    wanted, declared
        Fields of `InputSpec` that the user and the package give; None means not given. A field that is
        missing everywhere raises UserError.
    known
        Pattern of a network's name -> fields, from the config file in ``configs/model``.
    names
        Names of the network that the patterns are matched with.
    """
    merged: dict = {}
    for pattern, values in known.items():
        if any(fnmatchcase(name, pattern) for name in names):
            merged |= values
    for values in (declared, wanted):
        merged |= {key: value for key, value in values.items() if value is not None}
    needed = [field.name for field in fields(InputSpec) if field.name not in ("pathways", "fps")]
    missing = [key for key in needed if key not in merged]
    if missing:
        options = ", ".join(f"model.input.{key}" for key in missing)
        raise UserError(f"{label} does not declare its preprocessing: give {options}")
    spec = InputSpec(**merged)
    if isinstance(spec.size, int) and spec.size < min(spec.shape):
        raise UserError(f"{label}: model.input.size={spec.size} must be at least crop={spec.crop}")
    return spec


def load_package(family: str, module: str) -> ModuleType:
    """Import a package that only one family of networks needs.

    Raises UserError if a package is not installed or does not fit this version of torch.
    """
    try:
        return importlib.import_module(module)
    except (ImportError, RuntimeError) as error:
        missing = getattr(error, "name", None) or ""
        if isinstance(error, ModuleNotFoundError) and "." not in missing:
            raise UserError(f"model={family} needs the package {missing}: pip install {missing}") from error
        raise UserError(
            f"model={family}: {module} cannot be imported with torch {torch.__version__} "
            f"({reason(error)}): install the version of {module.partition('.')[0]} for this torch"
        ) from error


@contextmanager
def package_errors(family: str, network: str) -> Iterator[None]:
    """Turn a package's exception (unknown name, missing weights, no connection) into a UserError."""
    try:
        yield
    except (OSError, RuntimeError, ValueError, LookupError, AttributeError) as error:
        raise UserError(f"model={family} ({network}): {reason(error)}") from error


def check_known(family: str, network: str, known: Sequence[str]) -> None:
    """Raise UserError if `network` is not in `known`, the package's list of networks."""
    if network not in known:
        raise UserError(f"model={family}: the package has no network {network!r}{nearest(network, known)}")


@adapter("torchvision", "model.name=r3d_18")
def load_torchvision(network: str, num_classes: int | None, pretrained: bool, options: Mapping) -> Loaded:
    """Load a network of ``torchvision.models`` and the preprocessing that its newest weights declare."""
    zoo = load_package("torchvision", "torchvision.models")
    check_known("torchvision", network, zoo.list_models())
    with package_errors("torchvision", network):
        weights = zoo.get_model_weights(network).DEFAULT
        classes = len(weights.meta["categories"]) if pretrained else num_classes
        module = zoo.get_model(network, weights=None, **with_classes("num_classes", classes), **options)
        if pretrained:
            # weights_only=True refuses arbitrary pickled objects, which torchvision would accept by default
            module.load_state_dict(weights.get_state_dict(check_hash=True, weights_only=True))
        preset = weights.transforms()
        size, crop = min(preset.resize_size), min(preset.crop_size)
    return Loaded(module, {"size": size, "crop": crop, "mean": preset.mean, "std": preset.std})


@adapter("pytorchvideo", "model.name=slow_r50")
def load_pytorchvideo(network: str, num_classes: int | None, pretrained: bool, options: Mapping) -> Loaded:
    """Load a network of ``pytorchvideo.models.hub``, which declares no preprocessing."""
    hub = load_package("pytorchvideo", "pytorchvideo.models.hub")
    check_known("pytorchvideo", network, [name for name, value in vars(hub).items() if callable(value)])
    builder = getattr(hub, network)
    with package_errors("pytorchvideo", network):
        module = builder(pretrained=False, **with_classes("model_num_class", num_classes), **options)
        if pretrained:
            # weights_only=True refuses arbitrary pickled objects, which PyTorchVideo's own loader accepts
            url = sys.modules[builder.__module__].checkpoint_paths[network]
            state = torch.hub.load_state_dict_from_url(url, map_location="cpu", weights_only=True)
            module.load_state_dict(state["model_state"])
    return Loaded(module)


@adapter("timm", "model.name=resnet50")
def load_timm(network: str, num_classes: int | None, pretrained: bool, options: Mapping) -> Loaded:
    """Load an image network of ``timm`` and its preprocessing; the network takes single frames."""
    timm = load_package("timm", "timm")
    # skip the check for hf-hub:NAME and local-dir:NAME, which are not in timm's list of networks
    if ":" not in network:
        check_known("timm", network.partition(".")[0], timm.list_models())
    with package_errors("timm", network):
        classes = with_classes("num_classes", num_classes)
        module = timm.create_model(network, pretrained=pretrained, **classes, **options)
    preset = timm.data.resolve_model_data_config(module)
    crop = preset["input_size"][-1]
    size = round(crop / preset["crop_pct"])
    return Loaded(module, {"size": size, "crop": crop, "mean": preset["mean"], "std": preset["std"]})


@adapter("huggingface", "model.name=FOLDER or model.name=facebook/timesformer-base-finetuned-k400")
def load_huggingface(network: str, num_classes: int | None, pretrained: bool, options: Mapping) -> Loaded:
    """Load a ``transformers`` network from a folder or the Hugging Face hub; code stored there never runs."""
    transformers = load_package("huggingface", "transformers")
    with package_errors("huggingface", network):
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
        # `from_pretrained` translates the keys of checkpoints that older versions of transformers wrote
        own = set(module.state_dict()) == set(state)
        return state if own else from_pretrained(kind, None, config, state_dict=dict(state)).state_dict()

    call = HUGGINGFACE_CALL.get(kind.__name__, {})
    return Loaded(module, huggingface_input(network, config), call, convert)


def from_pretrained(kind, network: str | None, config, **options) -> torch.nn.Module:
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


def huggingface_input(network: str, config) -> dict:
    """Return the preprocessing that the config and preprocessor files of a Hugging Face model declare."""
    from transformers.utils import cached_file

    crop = getattr(config, "image_size", None) or getattr(config, "crop_size", None)
    crop = crop if isinstance(crop, int | None) else crop[0]
    frames = getattr(config, "num_frames", None) or getattr(config, "frames_per_clip", None)
    declared = {"frames": frames, "crop": crop, "size": crop}
    for name in HUGGINGFACE_INPUT:
        try:
            path = cached_file(network, name)
        except OSError:
            continue
        preset = json.loads(Path(path).read_text(encoding="utf-8"))
        size = preset.get("size") or {}
        return declared | {
            "size": size.get("shortest_edge", crop) if isinstance(size, Mapping) else size,
            "mean": preset.get("image_mean"),
            "std": preset.get("image_std"),
        }
    return declared


@adapter("custom", "model.target=package.module.function")
def load_custom(network: str, num_classes: int | None, pretrained: bool, options: Mapping) -> Loaded:
    """Call the user's function or Python class, which returns a network with weights already loaded."""
    module_name, _, name = network.rpartition(".")
    try:
        builder = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"model.target={network} cannot be imported: {reason(error)}") from error
    return Loaded(builder(**with_classes("num_classes", num_classes), **options))


def with_classes(keyword: str, num_classes: int | None) -> dict[str, int]:
    """Return {keyword: num_classes}, or {} if `num_classes` is None (the package's default)."""
    return {} if num_classes is None else {keyword: num_classes}
