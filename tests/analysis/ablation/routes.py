"""A network with two routes: one is blind to frame order, the other sees order and no style."""

import torch
from torch import Tensor, nn
from torch.nn import functional

# Units of each route, in the columns of the stage ``both``: first the order-blind ones, then those of motion.
BLIND, MOTION = range(8), range(8, 16)


class TwoRoutes(nn.Module):
    """Map clips (B, 3, T, H, W) to 5 class scores.

    The order-blind route sees the mean frame. The motion route sees how the squared grey value of each cell
    changes over time, which a style that inverts colours does not change.
    """

    def __init__(self, frames: int = 8):
        super().__init__()
        random = torch.Generator().manual_seed(0)
        self.mix = nn.Parameter(torch.randn(8, 3, generator=random))
        ramps = torch.randn(8, frames, generator=random)
        self.ramps = nn.Parameter(ramps - ramps.mean(1, keepdim=True))
        self.earlier = nn.Identity()
        self.both = nn.Identity()
        self.head = nn.Linear(16, 5)
        with torch.no_grad():
            self.head.weight.copy_(torch.randn(5, 16, generator=random))
            self.head.weight[:, MOTION.start :] *= 40
            self.head.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        cells = functional.adaptive_avg_pool3d(self.earlier(x), (x.shape[2], 6, 6))  # (B, 3, T, 6, 6)
        blind = torch.einsum("kc,bchw->bkhw", self.mix, cells.sort(dim=2).values.mean(2))
        energy = cells.mean(1) ** 2  # (B, T, 6, 6)
        motion = torch.einsum("kt,bthw->bkhw", self.ramps, energy)
        return self.head(self.both(torch.cat([blind, motion], dim=1)).mean(dim=(2, 3)))


def build(**options) -> TwoRoutes:
    """Return the network, for ``model.target``."""
    return TwoRoutes()
