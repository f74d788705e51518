"""What a patch looks like, as features whose squared difference is a loss: VGG19 where its weights are
here, differences of neighbours at several scales where they are not."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from static_dynamic.errors import UserError

log = logging.getLogger(__name__)

# widths of VGG19's convolutions, each followed by a ReLU; 0: max pooling
VGG19 = (64, 64, 0, 128, 128, 0, 256, 256, 256, 256, 0, 512, 512, 512, 512, 0, 512, 512, 512, 512, 0)
HUB_FILE = "vgg19-dcbb9e9d.pth"  # as torchvision stores the ImageNet weights
SCALES = 3
# brings the substitute's loss to the size that VGG19's has in training, so that its weight keeps its meaning
GAIN = 3.0


def build_features(layers: Sequence[int] = (0, 3, 5), weights: str | Path | None = None) -> nn.Module:
    """VGG19 features with the weights of a file, or of torch's hub cache; the substitute where neither is.

    Raises
    ------
    UserError
        A file that was named, and is not there or holds no VGG19.
    """
    found = Path(weights).expanduser() if weights else Path(torch.hub.get_dir()) / "checkpoints" / HUB_FILE
    if weights is None and not found.is_file():
        log.warning(
            "no VGG19 weights at %s (vgg=FILE names another place): differences of neighbours at "
            "%d scales take the place of its features",
            found,
            SCALES,
        )
        return NeighbourDifferences()
    features = VGGFeatures(layers)
    try:
        state = torch.load(found, map_location="cpu", weights_only=True)
        features.load_state_dict({key: state[key] for key in features.state_dict()})
    except (
        OSError,
        RuntimeError,
        KeyError,
        TypeError,
        AttributeError,
        EOFError,
        pickle.PickleError,
    ) as error:
        raise UserError(
            f"vgg={found} holds no VGG19 weights (keys features.0.weight, ...): "
            f"{type(error).__name__} {str(error).splitlines()[0] if str(error) else ''}"
        ) from error
    return features


class VGGFeatures(nn.Module):
    """Outputs of some layers of VGG19, flattened and joined; keys as torchvision's.

    Images stay in [-1, 1], unnormalised, and a convolution is read before its ReLU, as in the original.
    """

    def __init__(self, layers: Sequence[int] = (0, 3, 5)):
        super().__init__()
        self.layers = frozenset(layers)
        modules: list[nn.Module] = []
        width = 3
        for wider in VGG19:
            if not wider:
                modules.append(nn.MaxPool2d(2))
                continue
            modules += [nn.Conv2d(width, wider, 3, padding=1), nn.ReLU()]
            width = wider
        self.features = nn.Sequential(*modules[: max(layers) + 1])
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, units)
        found = []
        for i, layer in enumerate(self.features):
            x = layer(x)
            if i in self.layers:
                found.append(x.flatten(1))
        return torch.cat(found, 1)


class NeighbourDifferences(nn.Module):
    """Horizontal and vertical differences of neighbours at three scales, with the local mean: lines,
    grain and tone, without any weights."""

    def forward(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, units)
        found = []
        for _ in range(SCALES):
            found += [x[..., 1:] - x[..., :-1], x[..., 1:, :] - x[..., :-1, :]]
            x = functional.avg_pool2d(x, 2, ceil_mode=True)
        found.append(x)
        return GAIN * torch.cat([part.flatten(1) for part in found], 1)
