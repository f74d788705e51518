"""Networks from outside: wrapped as they are, with modules of theirs as stages.

`static_dynamic.models.external` loads them; `static_dynamic.models.stage_discovery` finds what can be read where.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase

import torch
from einops import rearrange
from torch import Tensor, nn

from static_dynamic.errors import UserError
from static_dynamic.models.registry import register
from static_dynamic.models.stage_discovery import choose, declare, default_stages, find_candidates
from static_dynamic.models.stages import InputSpec, Stage, Tap, VideoNetwork


@dataclass(frozen=True)
class Loaded:
    """What a package gives: the network, and what it says of its input (fields of `InputSpec`).

    ``call`` holds arguments of its forward pass besides the clip; ``convert`` turns the state dict of a
    checkpoint file into the network's own keys.
    """

    net: nn.Module
    input: Mapping = field(default_factory=dict)
    call: Mapping = field(default_factory=dict)
    convert: Callable[[Mapping], Mapping] = dict


# (name, number of classes or None, own weights?, further options) -> what the package gives
Loader = Callable[[str, int | None, bool, Mapping], Loaded]


class AdaptedNetwork(VideoNetwork):
    """A network of another package: input (B, 3, T, H, W), or a list of such, one a pathway.

    Its state dict is the wrapped network's. Where it has no head, what it returns is averaged over time and
    space in place of logits.
    """

    prefix = "net."

    def __init__(self, loaded: Loaded, feed: str, input_spec: InputSpec):
        super().__init__()
        self.net, self.feed, self.input_spec = loaded.net, feed, input_spec
        self.call, self.convert = loaded.call, loaded.convert
        self.stages: dict[str, Stage] = {}
        self.output: tuple[Tap, ...] = ()  # how to read what the wrapped network returns

    def prepare(self, video: Tensor) -> Tensor | list[Tensor]:
        """Give each pathway its frames, evenly spread; one pathway takes the clip as it is."""
        counts = list(self.input_spec.pathways.values())
        if len(counts) == 1:
            return video
        # on the CPU, so that rounding, and with it the choice of frames, is the same for every device
        picked = [torch.linspace(0, video.shape[2] - 1, n, device="cpu").long() for n in counts]
        return [video.index_select(2, index.to(video.device)) for index in picked]

    def forward(self, inputs: Tensor | Sequence[Tensor]) -> Tensor:
        """Map a clip to logits (B, classes)."""
        pattern = f"b c t h w -> {self.feed}"
        if isinstance(inputs, Tensor):
            fed = rearrange(inputs, pattern)
        else:
            fed = [rearrange(pathway, pattern) for pathway in inputs]
        output = self.net(fed, **self.call)
        return torch.cat([tap.pool(output) for tap in self.output], dim=1) if self.output else output

    def stage_name(self, stg: int | str | None, path: str = "fast", fuse: bool = True) -> str:
        """Stages are named by module path; None is the deepest."""
        return super().stage_name(self.shown_stages(path, fuse)[-1] if stg is None else stg, path, fuse)

    def shown_stages(self, path: str, fuse: bool) -> list[str]:
        """Stages read in space and time; those of class tokens stand apart."""
        return [name for name in self.stages if not name.endswith("/cls")]

    def state_dict(self, *args, **kwargs) -> dict:
        """The wrapped network's own."""
        return self.net.state_dict(*args, **kwargs)

    def load_state_dict(self, state_dict: Mapping, strict: bool = True, assign: bool = False):
        """Load the wrapped network's own."""
        return self.net.load_state_dict(state_dict, strict, assign)


def adapter(family: str, example: str) -> Callable[[Loader], Loader]:
    """Make a loader a family: ``model=FAMILY model.name=NAME``; `example` shows where the name is missing."""

    def add(load: Loader) -> Loader:
        def build(
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
            if not network:
                raise UserError(f"model={family} needs the name of a network, such as {example}")
            if pretrained and num_classes:
                raise UserError(
                    f"num_classes={num_classes}: the weights of model={family} have classes of their own; it "
                    "goes with model.init=random or with checkpoint=FILE"
                )
            label = f"model={family} ({network})"
            loaded = load(network, num_classes, pretrained, options or {})
            names = (network, type(loaded.net).__name__)
            spec = input_spec(label, input, loaded.input, known_inputs, names)
            net = AdaptedNetwork(loaded, feed, spec).eval()
            try:
                found = find_candidates(net, layout, leading_tokens)
            except Exception as error:  # whatever the code of others raises
                size = " x ".join(map(str, (spec.frames, *spec.shape)))
                raise UserError(
                    f"{label} does not run on the shapes of a clip of {size} ({first_line(error)}): "
                    "see model.input and model.feed"
                ) from error
            own = {path.removeprefix(net.prefix): candidate for path, candidate in found.items()}
            net.output = own.pop("net").taps
            net.stages = declare(choose(stages, own) if stages else default_stages(net.net, own), own)
            if not net.stages:
                raise UserError(
                    f"{label}: no stage was found; choose model.stages from what task=stages prints"
                )
            return net

        register(family)(build)
        return load

    return add


def input_spec(
    label: str, wanted: Mapping, said: Mapping, known: Mapping[str, Mapping], names: Sequence[str]
) -> InputSpec:
    """The input: what the user wants, else what the package says, else what the row knows by name."""
    merged: dict = {}
    for pattern, values in known.items():
        if any(fnmatchcase(name, pattern) for name in names):
            merged |= values
    for values in (said, wanted):
        merged |= {key: value for key, value in values.items() if value is not None}
    needed = [field.name for field in fields(InputSpec) if field.name not in ("pathways", "fps")]
    missing = [key for key in needed if key not in merged]
    if missing:
        raise UserError(
            f"{label} does not say its input: give {', '.join(f'model.input.{k}' for k in missing)}"
        )
    spec = InputSpec(**merged)
    if isinstance(spec.size, int) and spec.size < min(spec.shape):
        raise UserError(f"{label}: model.input.size={spec.size} is less than crop={spec.crop}")
    return spec


def first_line(error: BaseException) -> str:
    """What an exception says, in one short line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
