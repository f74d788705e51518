"""Inception-I3D of the program, for frames of any size from 32 x 32 pixels.

The program's own network needs 224 x 224 pixels, because its classifier averages windows of 7 x 7 positions.
The classifier of this network averages all positions. Both networks give the same logits for 16 frames of
224 x 224 pixels. The convolutions, and so all stages, are unchanged.
"""

from torch import nn

from static_dynamic.assets import fetch
from static_dynamic.models import build_model
from static_dynamic.models.checkpoints import read_checkpoint


def build(trained: bool = False) -> nn.Module:
    """Return Inception-I3D with Kinetics-400 weights, or with random weights."""
    net = build_model("i3d_inception")
    if trained:
        net.load_state_dict(net.convert(read_checkpoint(fetch("i3d_kinetics400"))))
    net.avg_pool = nn.AdaptiveAvgPool3d(1)
    return net
