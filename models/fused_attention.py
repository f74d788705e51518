"""Record the input of the output projection of ``nn.MultiheadAttention``.

``nn.MultiheadAttention`` passes the weights of its module ``out_proj`` to ``F.linear`` and never calls the
module, so no forward hook of ``out_proj`` runs.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@contextmanager
def recorded_projections(modules: Iterable[nn.MultiheadAttention]) -> Iterator[dict[nn.Module, Tensor]]:
    """Record the concatenated outputs of the attention heads of `modules` during the ``with`` block.

    Yields a dict that each run of a module fills with module -> tensor of the same axes as the module's
    output: (N, B, C), or (B, N, C) if the module is ``batch_first``. While one of the modules runs,
    ``F.linear`` is replaced. PyTorch's fused kernel for attention, which calls no ``F.linear``, is off during
    the block, also for ``nn.TransformerEncoderLayer``. The values that the modules compute do not change.
    """
    recorded: dict[nn.Module, Tensor] = {}
    running: list[nn.MultiheadAttention] = []
    linear, fused = F.linear, torch.backends.mha.get_fastpath_enabled()

    def record(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        if weight is running[-1].out_proj.weight:
            recorded[running[-1]] = x  # (N * B, C)
        return linear(x, weight, bias)

    def before(module, args):
        running.append(module)
        F.linear = record

    def after(module, args, output):
        F.linear = linear
        running.pop()
        shape = output[0].shape
        if module.batch_first and len(shape) == 3:
            recorded[module] = recorded[module].view(shape[1], shape[0], -1).transpose(0, 1)
        else:
            recorded[module] = recorded[module].view(*shape[:-1], -1)

    handles = [
        h for m in modules for h in (m.register_forward_pre_hook(before), m.register_forward_hook(after))
    ]
    if handles:
        torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield recorded
    finally:
        for handle in handles:
            handle.remove()
        F.linear = linear
        torch.backends.mha.set_fastpath_enabled(fused)
