"""Cost of a network: multiply-adds of one clip (one of each counts as one), and parameters.

Counted as the published numbers are: convolutions, linear layers, matrix products and attention, but no
norms, pooling or elementwise operations.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

import torch
from omegaconf import DictConfig

from static_dynamic.models.stages import VideoNetwork

# operators without a rule of ours that would be too dear to leave out in silence
DEAR = re.compile(r"conv|attention|mm$|addbmm|matmul|bilinear$|lstm|gru")


@dataclass(frozen=True)
class Cost:
    """Multiply-adds of one clip of ``frames`` x ``height`` x ``width``, and parameters; plain counts."""

    frames: int
    height: int
    width: int
    multiply_adds: int
    parameters: int


def measure(net: VideoNetwork) -> Cost:
    """Cost of one clip of the network's own input; runs the network once."""
    spec = net.input_spec
    parameters = sum(parameter.numel() for parameter in net.parameters())
    return Cost(spec.frames, *spec.shape, multiply_adds(net, net.example_input(torch.zeros)), parameters)


def multiply_adds(net: torch.nn.Module, inputs) -> int:
    """Multiply-adds of ``net(inputs)``.

    Raises
    ------
    RuntimeError
        Where the network uses a dear operator that has no rule here: the count would be too low.
    """
    # imported here, since it takes a second and few runs count
    from fvcore.nn import FlopCountAnalysis

    analysis = FlopCountAnalysis(net, (inputs,)).clear_op_handles().set_op_handle(**rules())
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
    with torch.inference_mode():
        total = analysis.total()
    left_out = sorted(op for op in analysis.unsupported_ops() if DEAR.search(op))
    if left_out:
        raise RuntimeError(f"{type(net).__name__}: no rule to count {', '.join(left_out)}")
    return round(total)


def rules() -> dict[str, Callable]:
    """Operator -> function of its traced inputs and outputs that counts its multiply-adds."""
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
    """A convolution whose padding is a word, which fvcore does not know: all weights at every position."""
    weight, (batch, _, *positions) = inputs[1].type().sizes(), outputs[0].type().sizes()
    return batch * math.prod(positions) * math.prod(weight)


def attention(inputs: list, outputs: list) -> int:
    """Fused attention, which fvcore counts as nothing: queries with keys, then weights with values."""
    query, key, value = (
        traced.type().sizes() for traced in inputs[:3]
    )  # (..., L, E), (..., S, E), (..., S, V)
    return math.prod(query[:-1]) * key[-2] * (key[-1] + value[-1])


def baddbmm(inputs: list, outputs: list) -> int:
    """Batched matrix product with an addend that comes first: (B, L, E) with (B, E, S)."""
    first, second = (traced.type().sizes() for traced in inputs[1:3])
    return math.prod(first) * second[-1]


def at_size(row: DictConfig, *, frames: int | None = None, crop: int | list[int] | None = None) -> DictConfig:
    """A row of ``configs/model`` for clips of another size; None leaves what the row has."""
    row = row.copy()
    for key, value in (("frames", frames), ("crop", crop)):
        if value is None:
            continue
        if key == "frames":
            for pathway, count in (row.input.get("pathways") or {}).items():
                row.input.pathways[pathway] = count * frames // row.input.frames
        row.input[key] = value
        if key == "crop":
            row.input.size = value  # nothing is scaled here
        if key in (row.get("args") or {}):  # networks whose weights depend on it
            row.args[key] = value
    return row
