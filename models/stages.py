"""Stages: named places in a network where forward hooks read and pool the outputs of modules.

The file of a family declares the ``stages`` of its networks; this file reads them.
"""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import chain, count
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from static_dynamic.errors import UserError, nearest
from static_dynamic.models.fused_attention import recorded_projections

if TYPE_CHECKING:
    from static_dynamic.models.cells import Cells

# Empty default of the argument `options`; only SlowFast networks have options (``path`` and ``fuse``).
NO_OPTIONS: Mapping = MappingProxyType({})

# Ending of the names of stages that are averaged per cell, in `VideoNetwork.readable`.
CELLS = ".cells"


def _mean(output: Tensor, axes: range) -> Tensor:
    return output.mean(dim=tuple(axes), dtype=torch.float32) if axes else output.float()


# Layout of a module's output -> function that pools the output in float32 to (B, units).
POOLS: dict[str, Callable[[Tensor], Tensor]] = {
    "maps": lambda x: _mean(x, range(2, x.dim())),  # (B, C, ...)
    "channels_last": lambda x: _mean(x, range(1, x.dim() - 1)),  # (B, ..., C)
    "tokens": lambda x: _mean(x, range(1, x.dim() - 1)),  # (B, N, C)
    "time_first": lambda x: POOLS["maps"](x.transpose(1, 2)),  # (B, T, C, ...)
}


# Place of the time steps in an output with the batch axis first -> function that moves the time steps to axis
# 1: (B, T, ...). The second argument is the number of time steps of the output.
TIME_PLACES: dict[str, Callable[[Tensor, int], Tensor]] = {
    "axis 1": lambda x, steps: x,  # (B, T, ...)
    "axis 2": lambda x, steps: x.movedim(2, 1),  # (B, C, T, ...)
    "rows": lambda x, steps: x.unflatten(0, (-1, steps)),  # (B * T, ...)
    "frame by frame": lambda x, steps: x.unflatten(1, (steps, -1)),  # tokens (B, T * positions, C)
    "position by position": lambda x, steps: x.unflatten(1, (-1, steps)).movedim(
        2, 1
    ),  # (B, positions * T, C)
}


@dataclass(frozen=True)
class Time:
    """How a tap keeps the time axis: the output has ``own`` time steps, which are averaged to ``steps``.

    ``place`` is a key of `TIME_PLACES`; ``steps`` divides ``own``.
    """

    place: str
    own: int
    steps: int

    def pool(self, part: Tensor, layout: str) -> Tensor:
        """Average an output with the batch axis first over space, and over time to (B, steps, units)."""
        moved = TIME_PLACES[self.place](part, self.own)  # (B, own, ...)
        frames = POOLS["maps" if layout == "time_first" else layout](moved.flatten(0, 1))  # (B * own, units)
        return frames.unflatten(0, (-1, self.steps, self.own // self.steps)).mean(dim=2)


@dataclass(frozen=True)
class Tap:
    """A module whose output is read, and how the output is pooled over time and space.

    Parameters
    ----------
    module
        Path of the module.
    select
        Index or key of the tensor to read if the module returns several, such as one per pathway.
    layout
        Key of `POOLS`.
    skip
        Number of leading tokens to leave out, such as class tokens.
    keep
        Number of tokens to average after the first `skip` tokens; None means all.
    batch_axis
        Axis of the output that holds the clips of a batch: 1 for tokens (N, B, C). The other fields describe
        the output after this axis has been moved to the front.
    run
        Which run of the module to read, from 1, if the module runs several times in one forward pass.
    fold
        Number of consecutive rows per clip, if the network folds frames or positions into the batch axis.
        The rows of a clip are averaged.
    source
        The tensor to read: the module's ``output``; its first ``input``; or ``heads``, the concatenated
        outputs of the attention heads of an ``nn.MultiheadAttention``.
    time
        How the time axis is kept; None averages over time.
    cells
        How the output is averaged per cell of a grid, or per region of masks; None averages over space.
    """

    module: str
    select: int | str | None = None
    layout: str = "maps"
    skip: int = 0
    fold: int = 1
    keep: int | None = None
    batch_axis: int = 0
    run: int | None = None
    source: str = "output"
    time: Time | None = None
    cells: "Cells | None" = None

    def pool(self, output: Any, masks: Mapping[str, Tensor] = NO_OPTIONS) -> Tensor:
        """Average a module's output over time and space to (B, units), in float32 on the output's device.

        With ``time``, the output is averaged over space only, to (B, steps, units). With ``cells``, it is
        averaged per cell, to (B, cells, units); `masks` are those of `VideoNetwork.read`.
        """
        if self.select is not None:
            output = output[self.select]
        if self.cells is not None and self.cells.grid != (1, 1, 1):
            return self.cells.pool(self.read_part(output), masks)
        if self.time is not None:
            return self.time.pool(self.read_part(output), self.layout)
        pooled = POOLS[self.layout](self.read_part(output))  # (B * fold, units)
        return pooled.unflatten(0, (-1, self.fold)).mean(dim=1) if self.fold > 1 else pooled

    def read_part(self, output: Tensor) -> Tensor:
        """Return the part of a module's output that is averaged, as a view with the batch axis first."""
        output = output.movedim(self.batch_axis, 0)
        if self.skip or self.keep is not None:
            output = output[:, self.skip : None if self.keep is None else self.skip + self.keep]
        return output


@dataclass(frozen=True)
class Stage:
    """A place in a network: pooled outputs of one or more modules, concatenated to ``units`` columns.

    If the units are attention heads, ``heads`` is their number; the columns of a head are consecutive. If the
    taps keep the time axis, the columns are those of the first time step, then those of the second, ...
    """

    units: int
    taps: tuple[Tap, ...]
    stream: str = "rgb"
    heads: int | None = None

    @property
    def steps(self) -> int:
        """Number of time steps; 1 if the taps average over time."""
        return self.taps[0].time.steps if self.taps[0].time else 1


@dataclass(frozen=True)
class InputSpec:
    """The preprocessing that turns a clip into a network's input.

    Parameters
    ----------
    frames, sampling_rate
        The network takes ``frames`` frames, every ``sampling_rate``-th of the clip.
    size, crop
        Short side of the scaled frame and side of the centre crop, in pixels; or (height, width) of either.
    mean, std
        Mean and standard deviation per colour channel, for values in [0, 1].
    pathways
        Name of each pathway -> its number of frames, in the order that ``forward`` takes them.
    fps
        Frame rate of the videos that ``sampling_rate`` refers to.
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
        for name in ("size", "crop", "mean", "std"):
            value = getattr(self, name)
            object.__setattr__(self, name, value if isinstance(value, int) else tuple(value))
        object.__setattr__(self, "pathways", dict(self.pathways) or {"rgb": self.frames})

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the network's input."""
        return (self.crop, self.crop) if isinstance(self.crop, int) else self.crop


class AllRead(Exception):
    """Exception that ends a forward pass when every requested stage has been read."""


class VideoNetwork(nn.Module):
    """Base class of networks that map video to logits (B, classes) and whose stages can be read.

    A sub-class sets ``stages`` (name -> Stage, in depth order) in its constructor. It overrides ``prepare``
    if its ``forward`` takes anything but one (B, 3, T, H, W) tensor.
    """

    stages: dict[str, Stage]
    input_spec: InputSpec
    # False if the network does not run on the meta device, so that only a real pass shows shapes of outputs
    runs_on_meta: bool = True
    # number of tokens before the patch tokens; None means that the network's token parameters are counted
    leading_tokens: int | None = None
    # order of the tokens of all frames in modules that return tokens: a key of `TIME_PLACES`; None: unknown
    token_order: str | None = None
    # True if the network sees single frames, each in a row of its own of the batch axis
    folds_frames: bool = False
    # the stages averaged per cell, with cells x units columns each; `add_cells` fills this dict
    cells: Mapping[str, Stage] = NO_OPTIONS
    # prefix of module paths in wrapped networks of other packages; users give paths without the prefix
    prefix: str = ""

    @cached_property
    def classes(self) -> int | None:
        """Number of class scores; None if the network has no classifier.

        The first access also checks the declared stages; it raises RuntimeError if a stage has another number
        of units.
        """
        return self.count_classes(check_stages(self))

    @property
    def flow_directions(self) -> int:
        """Number of optical flow fields that the network takes per image: 0, 1 or 2."""
        return 0

    def prepare(self, video: Tensor):
        """Turn a normalised clip (B, 3, T, H, W) into ``forward``'s input; the base class returns `video`."""
        return video

    def example_input(self, make: Callable[..., Tensor], batch: int = 1, size: tuple[int, int] | None = None):
        """Return an input of ``forward`` for `batch` clips; `make` creates a tensor of a given shape.

        `size` (height, width) replaces the size in the input spec, for networks that take several sizes.
        """
        return self.prepare(make((batch, 3, self.input_spec.frames, *(size or self.input_spec.shape))))

    def convert(self, state: Mapping) -> Mapping:
        """Translate another code base's state dict to this network's keys; the base class changes nothing."""
        return state

    def read_folder(self, folder: Path) -> Mapping:
        """Read the state dict from a checkpoint folder; only MATNet has checkpoints that are folders."""
        raise UserError(f"checkpoint {folder} is a folder: give a file in the folder")

    def stage_name(self, stg: int | str | None, options: Mapping = NO_OPTIONS) -> str:
        """Return the name of the stage that the flag ``--stg`` selects; if `stg` is None, the deepest stage.

        `options` are the options of the run, by which SlowFast chooses pathway and fusion.
        """
        if stg is None:
            return list(self.stages)[-1]
        name = stg if str(stg) in self.stages else f"stage{stg}"
        if name not in self.stages:
            raise UserError(
                f"stg={stg}: this network has no such stage{nearest(str(name), self.stages)} "
                f"(stages: {', '.join(self.stages)})"
            )
        return str(name)

    def shown_stages(self, options: Mapping = NO_OPTIONS) -> list[str]:
        """Return the names of the stages that tables and curves show, for the options of a run."""
        return list(self.stages)

    def logit_map(self, inputs) -> Tensor:
        """Return logits (B, classes), or logits at every position if the head slides over the map."""
        return self(inputs)

    def foreground(self, inputs) -> Tensor:
        """Return object probabilities (images, H, W); raise UserError if the network segments no objects."""
        raise UserError(f"{type(self).__name__} does not segment objects: give a network such as matnet")

    def count_classes(self, output: Any) -> int | None:
        """Return the number of classes if an output of ``forward`` holds class scores, else None."""
        scores = isinstance(output, Tensor) and output.dim() == 2 and not self.flow_directions
        return output.shape[1] if scores and output.shape[1] > 1 else None

    @property
    def readable(self) -> dict[str, Stage]:
        """All that `read` reads besides class scores: stages, and as ``STAGE.cells`` their cells."""
        return self.stages | {f"{name}{CELLS}": stage for name, stage in self.cells.items()}

    @torch.inference_mode()
    def read(
        self, inputs, stages: Iterable[str] | None = None, masks: Mapping[str, Tensor] = NO_OPTIONS
    ) -> dict[str, Tensor]:
        """Read stages in one forward pass, which stops after the deepest requested stage.

        Returns stage name -> rows (B, units), float32, on the network's device.

        Parameters
        ----------
        inputs
            The output of ``prepare``.
        stages
            Names of ``self.readable``, or ``"logits"``; None reads every stage.
        masks
            Pathway -> (B, regions, T, H, W), the fraction of each pixel that belongs to each region, if the
            cells of stages are regions of masks.
        """
        wanted = list(self.stages) if stages is None else list(stages)
        readable = self.readable
        for name in wanted:
            if name != "logits" and name not in readable:
                near = nearest(name, self.stages)
                raise UserError(f"the network has no stage {name!r}{near} (stages: {', '.join(self.stages)})")
        names = [name for name in wanted if name != "logits"]
        with tapped(self, names, stop="logits" not in wanted, masks=masks) as pooled:
            try:
                logits = self(inputs)
            except AllRead:
                logits = None
        rows: dict[str, Tensor] = {}
        for name in wanted:
            if name == "logits":
                rows[name] = logits.float().reshape(logits.shape[0], -1)  # (B, classes)
                continue
            stage = readable[name]
            # (B, units), or (B, steps or cells, units of each) if the time axis is kept or there are cells
            rows[name] = torch.cat([pooled[tap] for tap in stage.taps], dim=-1).flatten(1)
            if rows[name].shape[1] != stage.units:
                raise RuntimeError(f"{name} yields {rows[name].shape[1]} units; {stage.units} are declared")
        return rows


@contextmanager
def tapped(
    net: VideoNetwork, names: Iterable[str], *, stop: bool, masks: Mapping[str, Tensor] = NO_OPTIONS
) -> Iterator[dict[Tap, Tensor]]:
    """Attach forward hooks to the modules of the named stages during the ``with`` block.

    Yields a dict that the next forward pass fills with tap -> (B, units). With `stop`, the forward pass ends
    with the exception `AllRead` once the last tap has been read. `masks` are those of `VideoNetwork.read`.
    """
    by_module: dict[str, list[Tap]] = {}
    readable = net.readable
    for tap in chain.from_iterable(readable[name].taps for name in names):
        if tap not in by_module.setdefault(tap.module, []):
            by_module[tap.module].append(tap)
    missing = set(chain.from_iterable(by_module.values()))
    pooled: dict[Tap, Tensor] = {}

    def hook_for(taps: list[Tap]):
        runs = count(1)

        def hook(module, inputs, output):
            run = next(runs)
            for tap in taps:
                if tap.run in (None, run):
                    pooled[tap] = tap.pool(read_source(tap, module, inputs, output), masks)
                    missing.discard(tap)
            if stop and not missing:
                raise AllRead

        return hook

    def read_source(tap: Tap, module: nn.Module, inputs: tuple, output: Any) -> Any:
        return output if tap.source == "output" else inputs[0] if tap.source == "input" else heads[module]

    fused = {path for path, taps in by_module.items() if any(tap.source == "heads" for tap in taps)}
    with recorded_projections(
        cast(nn.MultiheadAttention, net.get_submodule(path)) for path in fused
    ) as heads:
        # these hooks run after those of `recorded_projections`, which are registered first
        handles = [
            net.get_submodule(path).register_forward_hook(hook_for(taps)) for path, taps in by_module.items()
        ]
        try:
            yield pooled
        finally:
            for handle in handles:
                handle.remove()


def run_on_meta(net: VideoNetwork, batch: int = 1) -> Any:
    """Run the network and its forward hooks on the meta device, where tensors have shapes but no values.

    A network whose ``runs_on_meta`` is False computes a real pass of random pixels instead. Returns the
    output of ``forward``.
    """
    tensors = dict(chain(net.named_parameters(), net.named_buffers()))
    with torch.no_grad():
        if not net.runs_on_meta:
            device = next((tensor.device for tensor in tensors.values()), None)
            rng = torch.Generator().manual_seed(0)
            return net(net.example_input(lambda size: torch.rand(size, generator=rng).to(device), batch))
        # The copy has meta tensors instead of weights. Values that the network caches go into the copy.
        memo: dict[int, Any] = {id(tensor): on_meta(tensor) for tensor in tensors.values()}
        inputs = net.example_input(partial(torch.empty, device="meta"), batch)
        return copy.deepcopy(net, memo)(inputs)


def on_meta(tensor: Tensor) -> Tensor:
    """Return a tensor or parameter of the same shape on the meta device."""
    empty = torch.empty_like(tensor, device="meta")
    return nn.Parameter(empty, requires_grad=False) if isinstance(tensor, nn.Parameter) else empty


def check_stages(net: VideoNetwork) -> Any:
    """Run the network, check the number of units of each stage, and return the output of ``forward``.

    Raises RuntimeError if a stage has another number of units than declared.
    """
    with tapped(net, net.stages, stop=False) as pooled:
        output = run_on_meta(net)
    for name, stage in net.stages.items():
        units = sum(pooled[tap].shape[1:].numel() for tap in stage.taps)
        if units != stage.units:
            raise RuntimeError(f"{type(net).__name__} {name}: {units} units, {stage.units} declared")
    return output
