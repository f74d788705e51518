"""Wrap a network of another package, so that the outputs of its modules can be read."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from static_dynamic.models.layouts import PREFIX_TOKENS
from static_dynamic.models.stages import NO_OPTIONS, InputSpec, Stage, Tap, VideoNetwork
from static_dynamic.spacing import subsample_positions

# Class of a wrapped network -> order of the tokens of all frames, a key of `TIME_PLACES`.
TOKEN_ORDERS = {
    "Timesformer*": "position by position",
    "VideoMAE*": "frame by frame",
    "Vivit*": "frame by frame",
    "VJEPA2*": "frame by frame",
    "MViT": "frame by frame",
    "MultiscaleVisionTransformers": "frame by frame",
}


@dataclass(frozen=True)
class Wanted:
    """Options of a run that the loader of a package needs to build a network.

    Parameters
    ----------
    network
        Name of the network.
    num_classes
        Number of classes; None means the package's default.
    pretrained
        Whether to load weights.
    options
        Further arguments of the package's builder.
    input
        Fields of `InputSpec` that the user gives; the others are None.
    """

    network: str
    num_classes: int | None = None
    pretrained: bool = False
    options: Mapping = field(default_factory=dict)
    input: Mapping = field(default_factory=dict)


@dataclass(frozen=True)
class Loaded:
    """A network that a package has built, with the preprocessing that the package declares.

    ``input`` holds fields of `InputSpec`, ``feed`` the axes of the network's input. ``call`` holds arguments
    of the forward pass besides the clip. ``convert`` turns the state dict of a checkpoint file into the
    network's own keys. ``run``, a function (network, clip) -> output, is for networks that do not take the
    clip itself.
    """

    net: nn.Module
    input: Mapping = field(default_factory=dict)
    call: Mapping = field(default_factory=dict)
    convert: Callable[[Mapping], Mapping] = dict
    feed: str = "b c t h w"
    run: Callable[[nn.Module, Any], Any] | None = None


class AdaptedNetwork(VideoNetwork):
    """Wrapper of another package's network; the input is a clip (B, 3, T, H, W), or one clip per pathway.

    The state dict is the wrapped network's. If the wrapped network has no head, its output averaged over
    time and space stands for the logits.
    """

    prefix = "net."

    def __init__(self, loaded: Loaded, feed: str, input_spec: InputSpec):
        super().__init__()
        self.net, self.feed, self.input_spec = loaded.net, feed, input_spec
        self.call, self.convert_keys, self.run = loaded.call, loaded.convert, loaded.run
        kind = type(loaded.net).__name__
        self.token_order = next((o for name, o in TOKEN_ORDERS.items() if fnmatchcase(kind, name)), None)
        self.folds_frames = feed.startswith("(b t)")
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
        output = self.run(self.net, inputs) if self.run else self.run_wrapped(inputs)
        return torch.cat([tap.pool(output) for tap in self.output], dim=1) if self.output else output

    def run_wrapped(self, inputs: Tensor | Sequence[Tensor]) -> Any:
        """Rearrange the axes of the inputs as ``feed`` says; return the wrapped network's output."""
        pattern = f"b c t h w -> {self.feed}"
        one = isinstance(inputs, Tensor)
        arranged = rearrange(inputs, pattern) if one else [rearrange(x, pattern) for x in inputs]
        keyword = input_keyword(self.net)
        args, kwargs = ((), {keyword: arranged}) if keyword else ((arranged,), {})
        return self.net(*args, **kwargs, **self.call)

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
        """Return the names of all stages except those that read prefix tokens (``PATH/cls`` ...)."""
        return [name for name in self.stages if name.rpartition("/")[2] not in PREFIX_TOKENS.values()]

    # mypy reports an error, because torch declares two overloads of state_dict
    def state_dict(self, *args, **kwargs) -> dict:  # type: ignore[override]
        """Return the state dict of the wrapped network."""
        return self.net.state_dict(*args, **kwargs)

    def load_state_dict(self, state_dict: Mapping, strict: bool = True, assign: bool = False):
        """Load a state dict into the wrapped network."""
        return self.net.load_state_dict(state_dict, strict, assign)


def input_keyword(net: nn.Module) -> str | None:
    """Return the keyword by which ``forward`` takes the clip; None if the clip is its first argument.

    Networks of Hugging Face name their input ``main_input_name``. Other networks that take no positional
    arguments get the clip as their first keyword argument without a default.
    """
    parameters = inspect.signature(net.forward).parameters.values()
    name = getattr(net, "main_input_name", None)
    if name in {parameter.name for parameter in parameters}:
        return name
    if any(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.VAR_POSITIONAL) for p in parameters):
        return None
    return next((p.name for p in parameters if p.kind == p.KEYWORD_ONLY and p.default is p.empty), None)
