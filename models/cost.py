"""Count the multiply-adds of one clip and the parameters of a network.

One multiplication with its addition counts as one. As in published numbers, convolutions, linear layers,
matrix products and attention count; norms, pooling and elementwise operations do not.

fvcore counts on a traced graph without unused operations. torch's ``FlopCounterMode`` gives the same counts
except for RTNet, where it also counts layer 4 of the flow stream, on which the output does not depend.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

import torch
from omegaconf import DictConfig

from static_dynamic.models.stages import VideoNetwork

# Operators that cost too much to be left out: without a rule for one, counting fails.
EXPENSIVE = re.compile(r"conv|attention|mm$|addbmm|matmul|bilinear$|lstm|gru")


@dataclass(frozen=True)
class Cost:
    """Numbers of multiply-adds, for one clip of ``frames`` x ``height`` x ``width``, and of parameters."""

    frames: int
    height: int
    width: int
    multiply_adds: int
    parameters: int


def measure(net: VideoNetwork) -> Cost:
    """Count the cost of one clip of the size of the network's input spec; runs the network once."""
    spec = net.input_spec
    parameters = sum(parameter.numel() for parameter in net.parameters())
    return Cost(spec.frames, *spec.shape, multiply_adds(net, net.example_input(torch.zeros)), parameters)


def multiply_adds(net: torch.nn.Module, inputs) -> int:
    """Count the multiply-adds of ``net(inputs)``.

    Raises
    ------
    RuntimeError
        If the network uses an expensive operator without a rule, so that the count would be too low.
    """
    # imported here because it takes a second to load and few runs need it
    from fvcore.nn import FlopCountAnalysis

    analysis = FlopCountAnalysis(net, (inputs,)).clear_op_handles().set_op_handle(**rules())
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
    with torch.inference_mode():
        total = analysis.total()
    left_out = sorted(op for op in analysis.unsupported_ops() if EXPENSIVE.search(op))
    if left_out:
        raise RuntimeError(f"{type(net).__name__}: no rule to count {', '.join(left_out)}")
    return round(total)


def rules() -> dict[str, Callable]:
    """Return operator -> function that counts its multiply-adds from its traced inputs and outputs."""
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
    """Count a convolution with padding "same" or "valid", for which fvcore has no rule."""
    weight, (batch, _, *positions) = inputs[1].type().sizes(), outputs[0].type().sizes()
    return batch * math.prod(positions) * math.prod(weight)


def attention(inputs: list, outputs: list) -> int:
    """Count fused attention: products of queries with keys, then of weights with values."""
    # (..., L, E), (..., S, E), (..., S, V)
    query, key, value = (traced.type().sizes() for traced in inputs[:3])
    return math.prod(query[:-1]) * key[-2] * (key[-1] + value[-1])


def baddbmm(inputs: list, outputs: list) -> int:
    """Count a batched matrix product (B, L, E) @ (B, E, S); the first input is the addend."""
    first, second = (traced.type().sizes() for traced in inputs[1:3])
    return math.prod(first) * second[-1]


def at_size(row: DictConfig, *, frames: int | None = None, crop: int | list[int] | None = None) -> DictConfig:
    """Return a row of ``configs/model`` changed to clips of another size; None keeps the row's value."""
    row = row.copy()
    for key, value in (("frames", frames), ("crop", crop)):
        if value is None:
            continue
        if key == "frames":
            for pathway, count in (row.input.get("pathways") or {}).items():
                row.input.pathways[pathway] = count * frames // row.input.frames
        row.input[key] = value
        if key == "crop":
            row.input.size = value  # so that the crop is never larger than the scaled frame
        if key in (row.get("args") or {}):  # the shapes of some networks' weights depend on it
            row.args[key] = value
    return row
