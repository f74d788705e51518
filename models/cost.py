"""Count the parameters of a network and the multiply-adds that the network needs for one clip.

One multiplication with its addition counts as one. As in published numbers, convolutions, linear layers,
matrix products and attention count; norms, pooling and elementwise operations do not.

fvcore counts on a traced graph without unused operations. torch's ``FlopCounterMode`` gives the same counts
except for RTNet, where it also counts layer 4 of the flow stream, on which the output does not depend.
"""

import math
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import torch
from omegaconf import DictConfig
from torch.utils.flop_counter import FlopCounterMode

from static_dynamic.models.stages import AllRead, VideoNetwork, run_on_meta, tapped

# Pattern of costly operators: an operator that matches and has no counting rule raises an error.
EXPENSIVE = re.compile(r"conv|attention|mm$|addbmm|matmul|bilinear$|lstm|gru")


@dataclass(frozen=True)
class Cost:
    """Number of parameters, and number of multiply-adds for a clip of ``frames`` x ``height`` x ``width``."""

    frames: int
    height: int
    width: int
    multiply_adds: int
    parameters: int


def measure(net: VideoNetwork) -> Cost:
    """Count a network's parameters, and its multiply-adds for one clip of the size in the input spec."""
    spec = net.input_spec
    parameters = sum(parameter.numel() for parameter in net.parameters())
    return Cost(spec.frames, *spec.shape, multiply_adds(net, net.example_input(torch.zeros)), parameters)


def multiply_adds(net: torch.nn.Module, inputs) -> int:
    """Count the multiply-adds of ``net(inputs)``.

    Raises RuntimeError if an expensive operator has no counting rule, because the count would be too low.
    """
    # fvcore is imported here, because fvcore takes a second to load and few commands need it
    from fvcore.nn import FlopCountAnalysis

    analysis = FlopCountAnalysis(net, (inputs,)).clear_op_handles().set_op_handle(**rules())
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
    with torch.inference_mode():
        total = analysis.total()
    left_out = sorted(op for op in analysis.unsupported_ops() if EXPENSIVE.search(op))
    if left_out:
        raise RuntimeError(f"{type(net).__name__}: no rule counts the multiply-adds of {', '.join(left_out)}")
    return round(total)


def operations_after_stages(net: VideoNetwork) -> tuple[int, int]:
    """Return (operations after the deepest stage has been read, all operations) of one forward pass."""
    with FlopCounterMode(display=False) as until, suppress(AllRead), tapped(net, net.stages, stop=True):
        run_on_meta(net)
    with FlopCounterMode(display=False) as whole:
        run_on_meta(net)
    total = whole.get_total_flops()
    return total - until.get_total_flops(), total


def rules() -> dict[str, Callable]:
    """Return operator -> function that counts multiply-adds from the operator's inputs and outputs."""
    from fvcore.nn import jit_handles

    return {
        "aten::_convolution": jit_handles.conv_flop_jit,
        "aten::_convolution_mode": convolution,
        "aten::linear": jit_handles.linear_flop_jit,
        "aten::addmm": jit_handles.addmm_flop_jit,
        "aten::mm": jit_handles.matmul_flop_jit,
        "aten::matmul": jit_handles.matmul_flop_jit,
        "aten::bmm": jit_handles.bmm_flop_jit,
        "aten::baddbmm": baddbmm,
        "aten::einsum": jit_handles.einsum_flop_jit,
        "aten::scaled_dot_product_attention": attention,
    }


def convolution(inputs: list, outputs: list) -> int:
    """Count the multiply-adds of a convolution with padding "same" or "valid", which fvcore cannot count."""
    weight, (batch, _, *positions) = inputs[1].type().sizes(), outputs[0].type().sizes()
    return batch * math.prod(positions) * math.prod(weight)


def attention(inputs: list, outputs: list) -> int:
    """Count the multiply-adds of attention with queries (L, E), keys (S, E) and values (S, V)."""
    query, key, value = (traced.type().sizes() for traced in inputs[:3])
    return math.prod(query[:-1]) * key[-2] * (key[-1] + value[-1])


def baddbmm(inputs: list, outputs: list) -> int:
    """Count the multiply-adds of ``baddbmm``, which multiplies B matrices (L, E) by B matrices (E, S)."""
    first, second = (traced.type().sizes() for traced in inputs[1:3])
    return math.prod(first) * second[-1]


def at_size(row: DictConfig, *, frames: int | None = None, crop: int | list[int] | None = None) -> DictConfig:
    """Return a copy of a network's config for other `frames` or another `crop`; None keeps the old value."""
    row = row.copy()
    if frames is not None:
        for pathway, count in (row.input.get("pathways") or {}).items():
            row.input.pathways[pathway] = count * frames // row.input.frames
        row.input.frames = frames
    if crop is not None:
        # set `size` too, so that the short side of a frame is scaled to the crop size
        row.input.crop = row.input.size = crop
    for key, value in (("frames", frames), ("crop", crop)):
        # set the network's argument `frames` or `crop`, too: shapes of its weights depend on the argument
        if value is not None and key in (row.get("args") or {}):
            row.args[key] = value
    return row
