"""Stages: named places of a network whose activation is read, declared as data and read by hooks.

A family file gives each network its ``stages`` and its ``input_spec``; everything else about reading is here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor, nn

from static_dynamic.errors import UserError, nearest


NO_OPTIONS: Mapping = MappingProxyType({})


def _mean(output: Tensor, axes: range) -> Tensor:
    return output.mean(dim=tuple(axes), dtype=torch.float32) if axes else output.float()


# layout -> what makes (B, units) of an output, accumulated in float32
POOLS = {
    "maps": lambda x: _mean(x, range(2, x.dim())),  # (B, C, ...)
    "channels_last": lambda x: _mean(x, range(1, x.dim() - 1)),  # (B, ..., C)
    "tokens": lambda x: _mean(x, range(1, x.dim() - 1)),  # (B, N, C)
    "cls": lambda x: x[:, 0].float(),  # (B, N, C), the class token first
}


@dataclass(frozen=True)
class Tap:
    """One module output to be pooled.

    ``select`` picks one element where the module returns several (one entry a pathway). ``layout`` is a key
    of `POOLS`. ``skip`` leading tokens are left out, which are no places of the clip. ``fold`` rows in turn
    belong to one clip where the network folds frames or places into the batch; their mean is taken.
    """

    module: str
    select: int | str | None = None
    layout: str = "maps"
    skip: int = 0
    fold: int = 1

    def pool(self, output: Tensor) -> Tensor:
        """Average over time and space on the device, accumulated in float32: (B, units)."""
        if self.select is not None:
            output = output[self.select]
        if self.skip:
            output = output[:, self.skip :]
        pooled = POOLS[self.layout](output)  # (B * fold, units)
        return pooled.unflatten(0, (-1, self.fold)).mean(dim=1) if self.fold > 1 else pooled


@dataclass(frozen=True)
class Stage:
    """A stage: the pooled outputs of its taps, side by side, ``units`` columns in all."""

    units: int
    taps: tuple[Tap, ...]
    stream: str = "rgb"


@dataclass(frozen=True)
class InputSpec:
    """All that preprocessing needs to make a clip into this network's input.

    ``frames`` at every ``sampling_rate``-th frame are seen; ``size`` is the short side after scaling,
    ``crop`` the side of the centre crop, in pixels, and either may be (height, width) instead; ``mean`` and
    ``std`` are for values in [0, 1];
    ``pathways`` maps each pathway, in the order that ``forward`` takes them, to its number of frames;
    ``fps`` is the frame rate that ``sampling_rate`` counts in.
    """

    frames: int
    sampling_rate: int
    size: int | tuple[int, int]
    crop: int | tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    pathways: dict[str, int] = field(default_factory=dict)
    fps: float = 30.0

    def __post_init__(self):
        object.__setattr__(self, "mean", tuple(self.mean))
        object.__setattr__(self, "std", tuple(self.std))
        for name in ("size", "crop"):
            value = getattr(self, name)
            object.__setattr__(self, name, value if isinstance(value, int) else tuple(value))
        object.__setattr__(self, "pathways", dict(self.pathways) or {"rgb": self.frames})

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of what the network gets."""
        return (self.crop, self.crop) if isinstance(self.crop, int) else self.crop


class _Enough(Exception):
    """Every stage that was asked for has been read: the rest of the forward pass is not needed."""


class VideoNetwork(nn.Module):
    """A network that eats video and whose stages can be read; families derive from it.

    Sub-classes set ``stages`` (name -> Stage, in depth order) in their constructor, and override ``prepare``
    where forward takes anything but one (B, 3, T, H, W) tensor. ``forward`` returns the logits, (B,
    classes).
    """

    stages: dict[str, Stage]
    input_spec: InputSpec
    prefix: str = ""  # in front of module paths that users do not write: a wrapper's own part of them

    @property
    def flow_directions(self) -> int:
        """Number of optical flow pictures that the network takes per image: 0, 1 or 2."""
        return 0

    def prepare(self, video: Tensor):
        """Turn one normalised clip (B, 3, T, H, W) into what ``forward`` takes."""
        return video

    def example_input(self, make: Callable[..., Tensor], batch: int = 1, size: tuple[int, int] | None = None):
        """What ``forward`` takes for `batch` items, filled by `make`, a function of a shape.

        `size` stands for the height and width of the input spec, where the network can see others.
        """
        return self.prepare(make((batch, 3, self.input_spec.frames, *(size or self.input_spec.shape))))

    def convert(self, state: Mapping) -> Mapping:
        """Turn a state dict in another layout of this family into this network's keys; families know
        their own."""
        return state

    def read_folder(self, folder: Path) -> Mapping:
        """State dict of a checkpoint that is a folder; families whose checkpoints are override it."""
        raise UserError(f"checkpoint {folder} is a folder: give the file in it")

    def stage_name(self, stg: int | str | None, options: Mapping = NO_OPTIONS) -> str:
        """Return the name of the stage that the original flag ``--stg`` means; None is the deepest stage.

        `options` are those of the run. Networks that read a stage in several ways choose one by them.
        """
        if stg is None:
            return list(self.stages)[-1]
        name = stg if str(stg) in self.stages else f"stage{stg}"
        if name not in self.stages:
            raise UserError(
                f"stg={stg}: this network has no such stage{nearest(str(name), self.stages)} "
                f"(its stages: {', '.join(self.stages)})"
            )
        return str(name)

    def shown_stages(self, options: Mapping = NO_OPTIONS) -> list[str]:
        """Return the stages that one table or curve shows together; `options` as in `stage_name`."""
        return list(self.stages)

    def logit_map(self, inputs) -> Tensor:
        """Logits at every position that the head sees, (B, ..., classes); families with a position-wise
        head override it."""
        return self(inputs)

    def foreground(self, inputs) -> Tensor:
        """Return the probability of the object at every pixel, (rows, H, W); networks that segment override it."""
        raise UserError(f"{type(self).__name__} does not segment")

    def probabilities(self, inputs) -> Tensor:
        """Class probabilities as the original's test mode has them, (B, classes): softmax at each
        position, then the mean."""
        scores = self.logit_map(inputs).softmax(dim=-1)
        return scores.mean(dim=tuple(range(1, scores.dim() - 1))) if scores.dim() > 2 else scores

    @torch.inference_mode()
    def read(self, inputs, stages: Iterable[str] | None = None) -> dict[str, Tensor]:
        """Read stages in one forward pass, which stops after the deepest of them.

        Parameters
        ----------
        inputs
            What ``prepare`` returns.
        stages
            Names of ``self.stages``, or ``"logits"``; None reads every stage.

        Returns
        -------
        dict
            Stage name -> (B, units) float32 on the device of the network.
        """
        wanted = list(self.stages) if stages is None else list(stages)
        for name in wanted:
            if name != "logits" and name not in self.stages:
                raise UserError(
                    f"no stage {name!r}{nearest(name, self.stages)} (stages: {', '.join(self.stages)})"
                )
        with tapped(self, [n for n in wanted if n != "logits"], stop="logits" not in wanted) as pooled:
            try:
                logits = self(inputs)
            except _Enough:
                logits = None
        rows = {}
        for name in wanted:
            if name == "logits":
                rows[name] = logits.float().reshape(logits.shape[0], -1)  # (B, classes)
                continue
            stage = self.stages[name]
            rows[name] = torch.cat([pooled[tap] for tap in stage.taps], dim=1)  # (B, units)
            if rows[name].shape[1] != stage.units:
                raise RuntimeError(f"{name} yields {rows[name].shape[1]} units; {stage.units} are declared")
        return rows


@contextmanager
def tapped(net: VideoNetwork, names: Iterable[str], *, stop: bool) -> Iterator[dict[Tap, Tensor]]:
    """Hook the taps of the named stages; the hooks are gone on every way out.

    Yields a dict that the next forward pass fills with tap -> (B, units). With ``stop``, that pass ends in
    an exception of its own once the last tap has been filled.
    """
    by_module: dict[str, list[Tap]] = {}
    for tap in chain.from_iterable(net.stages[name].taps for name in names):
        if tap not in by_module.setdefault(tap.module, []):
            by_module[tap.module].append(tap)
    missing = set(chain.from_iterable(by_module.values()))
    pooled: dict[Tap, Tensor] = {}

    def hook_for(taps: list[Tap]):
        def hook(module, inputs, output):
            for tap in taps:
                pooled[tap] = tap.pool(output)
                missing.discard(tap)
            if stop and not missing:
                raise _Enough

        return hook

    handles = [
        net.get_submodule(path).register_forward_hook(hook_for(taps)) for path, taps in by_module.items()
    ]
    try:
        yield pooled
    finally:
        for handle in handles:
            handle.remove()


def check_stages(net: VideoNetwork) -> None:
    """Run the network once on shapes alone and assert that every declared stage is there with its units.

    Raises
    ------
    RuntimeError
        Where a declared stage differs from the network: a mistake in the family file.
    """
    inputs = net.example_input(partial(torch.empty, device="meta"))
    tensors = chain(net.named_parameters(), net.named_buffers())
    shapes = {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors}
    with torch.no_grad(), tapped(net, net.stages, stop=False) as pooled:
        torch.func.functional_call(net, shapes, (inputs,))
    for name, stage in net.stages.items():
        units = sum(pooled[tap].shape[1] for tap in stage.taps)
        if units != stage.units:
            raise RuntimeError(f"{type(net).__name__} {name}: {units} units, {stage.units} declared")
