"""Run forward passes; choose the views per pass, precision (fp32, bf16), memory layout and compilation.

A faster way is used only after a test with this network on this device: bf16 must agree with fp32, and
channels-last layout and compiled modules must also be measurably faster.
"""

import copy
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from static_dynamic.errors import UserError
from static_dynamic.models import VideoNetwork
from static_dynamic.models.stages import CELLS

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MaskedInputs:
    """Network inputs, and for each pathway the masks of its frames: (B, regions, T, H, W)."""

    inputs: Tensor | list[Tensor] | dict[str, Tensor]
    masks: dict[str, Tensor]


Inputs = Tensor | list[Tensor] | dict[str, Tensor] | MaskedInputs
Rows = dict[str, Tensor]  # stage -> (B, units)

# Largest accepted `relative_error` of a stage in bf16. An error e lowers a correlation by about e^2.
BF16_TOLERANCE = 0.05
# Largest accepted `relative_error` of a stage in fp32 with channels-last layout or compilation.
FP32_TOLERANCE = 0.01
# Smallest speed-up for which channels-last layout or compilation is used.
MIN_SPEEDUP = 1.05
# Each reader is timed this many times, after one untimed call as warm-up.
ROUNDS = 5


class Reader:
    """Computes the activations of a network's stages, in as many forward passes as the memory requires.

    Parameters
    ----------
    stages
        Names of stages, and ``"logits"`` for the class scores.
    views_per_pass
        Largest number of views per forward pass (None: no limit), halved when memory runs out.
    record
        Function that writes its keyword arguments into the manifest of the run.
    """

    def __init__(
        self,
        net: VideoNetwork,
        stages: Sequence[str],
        device: torch.device,
        *,
        views_per_pass: int | None = None,
        record: Callable[..., None] = lambda **entries: None,
    ):
        self.net, self.stages, self.device = net.to(device), list(stages), device
        self.views_per_pass, self.record = views_per_pass, record
        self.bf16 = self.channels_last = False

    def read(self, inputs: Inputs) -> Rows:
        """Return the activations of every stage; use several forward passes if memory is short.

        Raises UserError if the memory does not hold a single view.
        """
        total, parts, start = count_views(inputs), [], 0
        while start < total:
            size = min(self.views_per_pass or total, total - start)
            part = self.try_read(take_views(inputs, slice(start, start + size)))
            if part is None:  # out of memory
                self.halve(size)
            else:
                parts.append(part)
                start += size
        return {stage: torch.cat([part[stage] for part in parts]) for stage in self.stages}

    def try_read(self, inputs: Inputs) -> Rows | None:
        """Compute every stage in one forward pass; return None if memory runs out."""
        try:
            return self.read_once(inputs)
        except torch.OutOfMemoryError:
            return None

    def read_once(self, inputs: Inputs) -> Rows:
        """Compute the activations of every stage in one forward pass."""
        if self.channels_last:
            inputs = map_tensors(inputs, channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            if isinstance(inputs, MaskedInputs):
                return self.net.read(inputs.inputs, self.stages, inputs.masks)
            return self.net.read(inputs, self.stages)

    def halve(self, size: int) -> None:
        """Halve the number of views per forward pass, after `size` views did not fit into memory."""
        if size == 1:
            raise UserError(
                f"one view does not fit in the memory of {self.device}: use a device with more memory"
            )
        self.views_per_pass = size // 2
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        log.warning(
            "out of memory with %d views per forward pass: %d from now on (the last digits may differ)",
            size,
            self.views_per_pass,
        )
        self.record(views_a_pass=self.views_per_pass)

    def try_bf16(self, inputs: Inputs) -> bool:
        """Use bf16 from now on if bf16 agrees with fp32 on a sample of views; return whether bf16 is used."""
        self.bf16 = True
        errors = relative_error(self.read(inputs), self.read_fp32(inputs))
        stage = max(errors, key=lambda name: errors[name])
        self.bf16 = errors[stage] <= BF16_TOLERANCE
        log.warning(
            "bf16: the largest error is %.3f of the standard deviation over views, at %s (allowed: %g): %s",
            errors[stage],
            stage,
            BF16_TOLERANCE,
            "bf16 is used" if self.bf16 else "staying in fp32",
        )
        return self.bf16

    def read_fp32(self, inputs: Inputs) -> Rows:
        """Compute the activations of every stage in fp32, even if bf16 is in use."""
        reader = copy.copy(self)
        reader.bf16 = False
        return reader.read(inputs)

    def tune(self, inputs: Inputs) -> list[str]:
        """Try the speed-ups `KERNELS` on sampled views; keep those that help, and return their names."""
        chosen = []
        reference, tolerance = self.read_fp32(inputs), BF16_TOLERANCE if self.bf16 else FP32_TOLERANCE
        for name in KERNELS:
            log.warning("trying %s", name)
            trial = copy.copy(self)
            trial.net = copy.deepcopy(self.net)
            try:
                KERNELS[name](trial)
                error = max(relative_error(trial.read(inputs), reference).values())
                gain = speedup(trial, self, inputs)
            except Exception as failure:  # compilers raise errors of any type
                log.warning("%s: not usable here (%s)", name, type(failure).__name__)
                continue
            used = gain >= MIN_SPEEDUP and error <= tolerance
            log.warning("%s: %.2f times as fast: %s", name, gain, "used" if used else "not used")
            if used:
                self.use(name)
                chosen.append(name)
        return chosen

    def use(self, name: str) -> None:
        """Apply the speed-up `name`, a key of `KERNELS`, to all further forward passes."""
        KERNELS[name](self)


def use_channels_last(reader: Reader) -> None:
    """Store the weights of 3D convolutions, and the inputs, with channels last in memory."""
    reader.channels_last = True
    for parameter in reader.net.parameters():
        parameter.data = channels_last(parameter.data)


def channels_last(x: Tensor) -> Tensor:
    """Return a (B, C, T, H, W) tensor with channels last in memory, and any other tensor unchanged."""
    return x.contiguous(memory_format=torch.channels_last_3d) if x.dim() == 5 else x


def use_compile(reader: Reader) -> None:
    """Compile the largest modules of the network that contain no stage."""
    readable = reader.net.readable
    read = [readable[name] for name in reader.stages if name in readable]
    taps = {tap.module for stage in read for tap in stage.taps}
    # Raise torch's limit on compilations per class: above the limit, modules silently run uncompiled.
    torch._dynamo.config.recompile_limit = sum(1 for _ in reader.net.modules())

    def visit(module: torch.nn.Module, path: str) -> None:
        if any(tap.startswith(path) and tap != path.rstrip(".") for tap in taps):
            for name, child in module.named_children():
                visit(child, f"{path}{name}.")
        else:
            module.forward = torch.compile(module.forward, dynamic=False)

    visit(reader.net, "")


# `Reader.tune` tries these speed-ups in this order, each in addition to the ones accepted before.
KERNELS: dict[str, Callable[[Reader], None]] = {
    "channels_last_3d": use_channels_last,
    "compile": use_compile,
}


def relative_error(rows: Rows, reference: Rows) -> dict[str, float]:
    """Return per stage the RMS error of `rows`, divided by the standard deviation of `reference`."""
    errors = {}
    for stage, truth in reference.items():
        ours, exact = rows[stage].double(), truth.double()
        if stage.endswith(CELLS):
            # the mean over an empty region of a mask is NaN
            empty = exact.isnan() & ours.isnan()
            ours, exact = ours.masked_fill(empty, 0), exact.masked_fill(empty, 0)
        noise = (ours - exact).square().mean().sqrt()
        spread = (exact - exact.mean(0)).square().mean().sqrt()
        error = float(noise / spread) if noise else 0.0
        errors[stage] = float("inf") if np.isnan(error) else error
    return errors


def speedup(one: Reader, other: Reader, inputs: Inputs) -> float:
    """Time two readers alternately; return the median time of `other` divided by the median time of `one`."""
    seconds: dict[Reader, list[float]] = {one: [], other: []}
    for _ in range(ROUNDS + 1):
        for reader, measured in seconds.items():
            if reader.device.type == "cuda":
                torch.cuda.synchronize(reader.device)
            begin = time.perf_counter()
            for rows in reader.read(inputs).values():
                rows.cpu()  # waits for the device
            measured.append(time.perf_counter() - begin)
    return median(seconds[other][1:]) / median(seconds[one][1:])


def map_tensors(inputs: Inputs, change: Callable[[Tensor], Tensor]) -> Inputs:
    """Apply the function `change` to every tensor of a network input; return the changed input."""
    if isinstance(inputs, Tensor):
        return change(inputs)
    if isinstance(inputs, MaskedInputs):
        masks = {name: change(mask) for name, mask in inputs.masks.items()}
        return MaskedInputs(map_tensors(inputs.inputs, change), masks)  # type: ignore[arg-type]
    if isinstance(inputs, dict):
        return {name: change(x) for name, x in inputs.items()}
    return [change(x) for x in inputs]


def take_views(inputs: Inputs, rows: slice) -> Inputs:
    """Return the part of a network input (a batch of views) that the slice `rows` selects."""
    return map_tensors(inputs, lambda x: x[rows])


def count_views(inputs: Inputs) -> int:
    """Return the number of views in a network input (the batch size)."""
    if isinstance(inputs, Tensor):
        return len(inputs)
    if isinstance(inputs, MaskedInputs):
        return count_views(inputs.inputs)
    return len(next(iter(inputs.values() if isinstance(inputs, dict) else inputs)))


class PendingRows:
    """Activations that are being copied to the CPU while the GPU computes the next batch."""

    def __init__(self, rows: Rows):
        self.widths = {stage: values.shape[1] for stage, values in rows.items()}
        # One table of shape (views, units of all stages) is copied faster than one array per stage.
        table = torch.cat(list(rows.values()), dim=1)
        self.copied = None
        if table.is_cuda:
            self.table = torch.empty(table.shape, dtype=table.dtype, pin_memory=True)
            self.table.copy_(table, non_blocking=True)
            self.copied = torch.cuda.Event()
            # Record the event on the GPU of the activations: torch's current device may be another GPU.
            self.copied.record(torch.cuda.current_stream(table.device))
        else:
            self.table = table

    def arrays(self) -> dict[str, NDArray]:
        """Wait for the copy; return a dict: stage -> float32 activations of shape (views, units)."""
        if self.copied is not None:
            self.copied.synchronize()
        ends = np.cumsum(list(self.widths.values()))[:-1]
        return dict(zip(self.widths, np.split(self.table.numpy(), ends, axis=1), strict=True))
