"""Forward passes: how many views at a time, in which precision, with which kernels.

What is faster is used only where it was shown to be right for this network on this device: bf16 behind a
gate, other memory layouts and compiled kernels behind a measurement.
"""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Sequence
from statistics import median

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from static_dynamic.errors import UserError
from static_dynamic.models import VideoNetwork

log = logging.getLogger(__name__)

Inputs = Tensor | list[Tensor] | dict[str, Tensor]
Rows = dict[str, Tensor]  # stage -> (B, units)

# bf16 may add this much noise to a stage, relative to what views differ by: correlations lose its square
BF16_TOLERANCE = 0.05
# other kernels are taken where they are so many times faster, and in fp32 agree so well in the same measure
WORTH, SAME = 1.05, 0.01
ROUNDS = 5


class Reader:
    """Reads stages of a network on a device.

    Parameters
    ----------
    views_a_pass
        Most views in one forward pass; None: as many as come. Halved where memory runs out.
    note
        Called with what is to be remembered of this run (keywords).
    """

    def __init__(
        self,
        net: VideoNetwork,
        stages: Sequence[str],
        device: torch.device,
        *,
        views_a_pass: int | None = None,
        note: Callable[..., None] = lambda **entries: None,
    ):
        self.net, self.stages, self.device = net.to(device), list(stages), device
        self.views_a_pass, self.note = views_a_pass, note
        self.bf16 = self.channels_last = False

    def read(self, inputs: Inputs) -> Rows:
        """Read every stage; in several passes where memory is short.

        Raises
        ------
        UserError
            Where memory does not hold one view.
        """
        total, parts, start = count(inputs), [], 0
        while start < total:
            size = min(self.views_a_pass or total, total - start)
            part = self.attempt(cut(inputs, slice(start, start + size)))
            if part is None:  # what was computed of it is free again here
                self.shrink(size)
            else:
                parts.append(part)
                start += size
        return {stage: torch.cat([part[stage] for part in parts]) for stage in self.stages}

    def attempt(self, inputs: Inputs) -> Rows | None:
        """Read every stage in one forward pass; None where memory ran out."""
        try:
            return self.one_pass(inputs)
        except torch.OutOfMemoryError:
            return None

    def one_pass(self, inputs: Inputs) -> Rows:
        """Read every stage in one forward pass."""
        if self.channels_last:
            inputs = each(inputs, channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            return self.net.read(inputs, self.stages)

    def shrink(self, size: int) -> None:
        """Halve what goes into one pass, of which `size` views did not fit."""
        if size == 1:
            raise UserError(f"one view does not fit in the memory of {self.device}: give a larger device")
        self.views_a_pass = size // 2
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        log.warning(
            "out of memory with %d views a forward pass: %d from now on (last digits may differ)",
            size,
            self.views_a_pass,
        )
        self.note(views_a_pass=self.views_a_pass)

    def try_bf16(self, inputs: Inputs) -> bool:
        """Compute in bf16 from now on, if a sample's rows say the same in it as in fp32; say so if not."""
        self.bf16 = True
        off = disagreement(self.read(inputs), self.exact(inputs))
        stage = max(off, key=off.get)
        self.bf16 = bool(off[stage] <= BF16_TOLERANCE)
        log.warning(
            "bf16 adds %.3f of what views differ by at %s (at most %g may be): %s",
            off[stage],
            stage,
            BF16_TOLERANCE,
            "bf16 is used" if self.bf16 else "staying in fp32",
        )
        return self.bf16

    def exact(self, inputs: Inputs) -> Rows:
        """Read every stage in fp32, whatever is used otherwise."""
        other = copy.copy(self)
        other.bf16 = False
        return other.read(inputs)

    def tune(self, inputs: Inputs) -> list[str]:
        """Measure other kernels on a sample, and keep those that are faster and right; return their names."""
        chosen = []
        exact, tolerance = self.exact(inputs), BF16_TOLERANCE if self.bf16 else SAME
        for name in KERNELS:
            log.warning("trying %s", name)
            other = copy.copy(self)
            other.net = copy.deepcopy(self.net)
            try:
                KERNELS[name](other)
                off = max(disagreement(other.read(inputs), exact).values())
                gain = times_as_fast(other, self, inputs)
            except Exception as error:  # whatever a compiler stumbles on, there is a way without it
                log.warning("%s: not usable here (%s)", name, type(error).__name__)
                continue
            taken = gain >= WORTH and off <= tolerance
            log.warning("%s: %.2f times as fast: %s", name, gain, "used" if taken else "not used")
            if taken:
                self.use(name)
                chosen.append(name)
        return chosen

    def use(self, name: str) -> None:
        """Use kernels of that name (a key of `KERNELS`)."""
        KERNELS[name](self)


def use_channels_last(reader: Reader) -> None:
    """Lay out 3D convolutions and what they read with channels last."""
    reader.channels_last = True
    for parameter in reader.net.parameters():
        parameter.data = channels_last(parameter.data)


def channels_last(x: Tensor) -> Tensor:
    """The same numbers with channels last in memory, where they are (B, C, T, H, W)."""
    return x.contiguous(memory_format=torch.channels_last_3d) if x.dim() == 5 else x


def use_compile(reader: Reader) -> None:
    """Compile the parts of the network between taps, whose hooks stay as they are."""
    taps = {tap.module for stage in reader.stages for tap in reader.net.stages[stage].taps}
    # blocks of one class share one limit, past which a compiled block runs as it was without a word
    torch._dynamo.config.recompile_limit = sum(1 for _ in reader.net.modules())

    def visit(module: torch.nn.Module, path: str) -> None:
        if any(tap.startswith(path) and tap != path.rstrip(".") for tap in taps):
            for name, child in module.named_children():
                visit(child, f"{path}{name}.")
        else:
            module.forward = torch.compile(module.forward, dynamic=False)

    visit(reader.net, "")


# in the order in which they are tried, each on top of those taken before
KERNELS: dict[str, Callable[[Reader], None]] = {
    "channels_last_3d": use_channels_last,
    "compile": use_compile,
}


def disagreement(rows: Rows, exact: Rows) -> dict[str, float]:
    """For each stage the root mean square by which `rows` are off, over that by which views differ."""
    found = {}
    for stage, truth in exact.items():
        noise = (rows[stage].double() - truth.double()).square().mean().sqrt()
        spread = (truth.double() - truth.double().mean(0)).square().mean().sqrt()
        off = float(noise / spread) if noise else 0.0
        found[stage] = off if off == off else float("inf")  # NaN is no agreement
    return found


def times_as_fast(one: Reader, other: Reader, inputs: Inputs) -> float:
    """How many times as fast `one` reads as `other`: medians of reads in turn, after one that warms up."""
    spent: dict[Reader, list[float]] = {one: [], other: []}
    for _ in range(ROUNDS + 1):
        for reader, seconds in spent.items():
            if reader.device.type == "cuda":
                torch.cuda.synchronize(reader.device)
            begin = time.perf_counter()
            for rows in reader.read(inputs).values():
                rows.cpu()  # waits for the device
            seconds.append(time.perf_counter() - begin)
    return median(spent[other][1:]) / median(spent[one][1:])


def each(inputs: Inputs, change: Callable[[Tensor], Tensor]) -> Inputs:
    """Change each tensor of what a network takes."""
    if isinstance(inputs, Tensor):
        return change(inputs)
    if isinstance(inputs, dict):
        return {name: each(x, change) for name, x in inputs.items()}
    return [each(x, change) for x in inputs]


def cut(inputs: Inputs, rows: slice) -> Inputs:
    """Some of the views."""
    return each(inputs, lambda x: x[rows])


def count(inputs: Inputs) -> int:
    """Number of views."""
    while not isinstance(inputs, Tensor):
        inputs = next(iter(inputs.values() if isinstance(inputs, dict) else inputs))
    return len(inputs)


class OnItsWay:
    """Rows on their way to the host: the device computes on while they travel."""

    def __init__(self, rows: Rows):
        self.widths = {stage: values.shape[1] for stage, values in rows.items()}
        table = torch.cat(list(rows.values()), dim=1)  # one copy instead of one a stage
        self.arrived = None
        if table.is_cuda:
            self.table = torch.empty(table.shape, dtype=table.dtype, pin_memory=True)
            self.table.copy_(table, non_blocking=True)
            self.arrived = torch.cuda.Event()
            self.arrived.record(torch.cuda.current_stream(table.device))  # not the current device's
        else:
            self.table = table

    def arrays(self) -> dict[str, NDArray]:
        """Stage -> (B, units) float32; waits until they are here."""
        if self.arrived is not None:
            self.arrived.synchronize()
        ends = np.cumsum(list(self.widths.values()))[:-1]
        return dict(zip(self.widths, np.split(self.table.numpy(), ends, axis=1), strict=True))
