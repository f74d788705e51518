"""Partial forward passes: compute only what comes after a stage, and reuse everything before it.

A first forward pass is traced: every call of a module, and the moment when the stage's first module returns.
The *cut* consists of the outermost calls that have returned at this moment. In further passes the calls of
the cut compute nothing and return a recorded output, so only the code after the stage runs, and the code
between the calls of the cut. Most outputs of the cut are not needed after the stage. To find the needed
outputs, ever smaller groups of outputs are replaced by NaN, and the prediction is compared. Only the needed
outputs are recorded.

The cut is used only if the prediction equals that of a full forward pass. Otherwise, for example in networks
that change the output of an earlier module in place, every pass is a full one.
"""

import logging
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from static_dynamic.models.ablation import clone
from static_dynamic.models.stages import Tap, VideoNetwork

log = logging.getLogger(__name__)

# Largest accepted difference between the predictions of a partial and of a full forward pass, relative to the
# largest absolute value of the prediction (at least 1).
TOLERANCE = 1e-6
# Exceptions that a network may raise when it gets NaN or zeros instead of the output of a module.
FAILURES = (RuntimeError, ValueError, TypeError, IndexError, AttributeError, AssertionError)

Predict = Callable[[Any], Tensor]


@dataclass(frozen=True)
class Call:
    """The k-th call of a module, from 0, among its calls that are not inside another call of the cut."""

    module: str
    k: int


@dataclass
class Recording:
    """Outputs of the calls of the cut for one batch; outputs that are not needed are on the meta device."""

    outputs: dict[Call, Any]

    @property
    def bytes(self) -> int:
        """Size of the recorded tensors in memory."""
        sizes: list[int] = []
        count = lambda x: sizes.append(0 if x.is_meta else x.nbytes)  # noqa: E731
        tree_map_only(Tensor, count, list(self.outputs.values()))
        return sum(sizes)


class PartialForward:
    """Computes predictions of a network from the outputs of one stage on.

    Parameters
    ----------
    predict
        Function that maps an input of ``net.forward`` to a tensor, and calls the network once.
    inputs
        A batch with which the plan is made and tested.
    """

    def __init__(self, net: VideoNetwork, name: str, predict: Predict, inputs: Any):
        self.net, self.predict = net, predict
        self.taps: tuple[Tap, ...] = net.stages[name].taps
        self.cut: list[Call] | None = None
        self.needed: set[Call] = set()
        self._plan(name, inputs)

    @property
    def whole(self) -> bool:
        """Whether each pass is a full forward pass, because the network cannot be cut at this stage."""
        return self.cut is None

    @torch.inference_mode()
    def record(self, inputs: Any) -> tuple[Tensor, Recording]:
        """Run a full forward pass; return the prediction, and the needed outputs of the cut."""
        outputs: dict[Call, Any] = {}

        def keep(call: Call, output: Any) -> None:
            outputs[call] = clone(output) if call in self.needed else without_values(output)

        with recording(self.net, self.cut or [], keep):
            return self.predict(inputs), Recording(outputs)

    @torch.inference_mode()
    def rest(self, inputs: Any, recorded: Recording) -> Tensor:
        """Compute the prediction from recorded outputs: only the code after the stage runs.

        `inputs` must be those of `recorded`; hooks on the modules of the stage run as in a full forward pass.
        """
        with replaying(self.net, self.cut or [], recorded.outputs, 0.0):
            return self.predict(inputs)

    @torch.inference_mode()
    def _plan(self, name: str, inputs: Any) -> None:
        cut = find_cut(self.net, {tap.module for tap in self.taps}, lambda: self.predict(inputs))
        outputs: dict[Call, Any] = {}
        with recording(self.net, cut, lambda call, output: outputs.update({call: clone(output)})):
            full = self.predict(inputs)
        if len(outputs) == len(cut) and self._equal(full, inputs, cut, outputs, 0.0):
            self.cut = cut
            # The last call of the cut runs the stage's module, whose output is always needed.
            self.needed = {cut[-1], *self._find_needed(full, inputs, outputs, cut[:-1])}
            kept = {c: o if c in self.needed else without_values(o) for c, o in outputs.items()}
            if not self._equal(full, inputs, cut, kept, 0.0):
                self.cut = None
        if self.cut is None:
            log.warning(
                "%s: what comes after %s cannot be computed alone in this network: "
                "every ablation is a full forward pass",
                type(self.net).__name__,
                name,
            )

    def _find_needed(
        self, full: Tensor, inputs: Any, outputs: dict[Call, Any], calls: Sequence[Call]
    ) -> list[Call]:
        """Return those of `calls` whose output changes the prediction, by bisection."""
        if not calls:
            return []
        blank = {c: without_values(o) if c in calls else o for c, o in outputs.items()}
        if self._equal(full, inputs, self.cut or [], blank, torch.nan):
            return []
        if len(calls) == 1:
            return list(calls)
        half = len(calls) // 2
        return [
            c for part in (calls[:half], calls[half:]) for c in self._find_needed(full, inputs, outputs, part)
        ]

    def _equal(
        self, full: Tensor, inputs: Any, cut: list[Call], outputs: dict[Call, Any], fill: float
    ) -> bool:
        """Return whether the prediction with replayed outputs equals that of a full forward pass."""
        try:
            with replaying(self.net, cut, outputs, fill):
                found = self.predict(inputs)
        except FAILURES:
            return False
        if found.shape != full.shape:
            return False
        scale = max(1.0, float(full[full.isfinite()].abs().max())) if full.isfinite().any() else 1.0
        return torch.allclose(found, full, rtol=0, atol=TOLERANCE * scale)


def find_cut(net: nn.Module, stage: set[str], run: Callable[[], Any]) -> list[Call]:
    """Trace a forward pass; return the outermost module calls that have returned when the stage returns.

    These calls are the cut, in the order in which they returned. `stage` holds the paths of the stage's
    modules; the cut is at the return of the first of these modules.
    """
    # one list per call: [module path, index of the enclosing call, whether the call returned before the cut]
    calls: list[list] = []
    running: list[int] = []
    cut_at = False

    def before(name: str):
        def hook(module, inputs):
            calls.append([name, running[-1] if running else None, False])
            running.append(len(calls) - 1)

        return hook

    def after(name: str):
        def hook(module, inputs, output):
            nonlocal cut_at
            number = running.pop()
            calls[number][2] = not cut_at
            cut_at = cut_at or name in stage

        return hook

    handles = []
    for name, module in net.named_modules():
        handles += [module.register_forward_pre_hook(before(name)), module.register_forward_hook(after(name))]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    counts: Counter[str] = Counter()
    cut = []
    for name, parent, returned in calls:
        if returned and (parent is None or not calls[parent][2]):
            cut.append(Call(name, counts[name]))
            counts[name] += 1
    return cut


@contextmanager
def recording(net: nn.Module, cut: Sequence[Call], keep: Callable[[Call, Any], None]) -> Iterator[None]:
    """During the ``with`` block, pass each call of the cut and its output to the function `keep`."""
    by_module = _by_module(cut)
    inside = 0
    handles = []

    def hooks_for(name: str, wanted: deque[Call]):
        def before(module, inputs):
            nonlocal inside
            inside += 1

        def after(module, inputs, output):
            nonlocal inside
            inside -= 1
            if wanted and not inside:
                keep(wanted.popleft(), output)

        return before, after

    for name, calls in by_module.items():
        before, after = hooks_for(name, calls)
        module = net.get_submodule(name)
        handles += [module.register_forward_pre_hook(before), module.register_forward_hook(after)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def replaying(net: nn.Module, cut: Sequence[Call], outputs: dict[Call, Any], fill: float) -> Iterator[None]:
    """During the ``with`` block, let the calls of the cut return copies of `outputs` and compute nothing.

    Floating-point tensors without values (meta) are filled with the number `fill`, other tensors with 0.
    """
    device = next(chain(net.parameters(), net.buffers()), torch.empty(0)).device
    before: dict[nn.Module, Any] = {}

    def forward_of(module: nn.Module, wanted: deque[Call]):
        compute = module.forward

        def forward(*inputs, **named):
            if not wanted:
                return compute(*inputs, **named)
            return tree_map_only(Tensor, lambda x: with_values(x, fill, device), outputs[wanted.popleft()])

        return forward

    try:
        for name, calls in _by_module(cut).items():
            module = net.get_submodule(name)
            before[module] = module.__dict__.get("forward")
            module.forward = forward_of(module, calls)
        yield
    finally:
        for module, forward in before.items():
            if forward is None:
                del module.forward
            else:
                module.forward = forward


def _by_module(cut: Sequence[Call]) -> dict[str, deque[Call]]:
    by_module: dict[str, deque[Call]] = defaultdict(deque)
    for call in cut:
        by_module[call.module].append(call)
    return by_module


def without_values(output: Any) -> Any:
    """Replace the tensors of a module's output by tensors of the same shape that hold no values."""
    return tree_map_only(Tensor, lambda x: torch.empty_like(x, device="meta"), output)


def with_values(x: Tensor, fill: float, device: torch.device) -> Tensor:
    """Return a copy of a tensor; for a meta tensor, return a tensor filled with `fill` (integers: with 0)."""
    if not x.is_meta:
        return x.clone()
    # All elements share one number in memory: large outputs cost no time. A network that writes into this
    # tensor in place raises an error, and the plan then counts the output as needed.
    number = fill if x.is_floating_point() else 0
    return torch.full((), number, dtype=x.dtype, device=device).expand(x.shape)
