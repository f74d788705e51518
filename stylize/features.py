"""Features for the perceptual loss: VGG19 if its weights are on disk, else differences between pixels."""

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from static_dynamic.errors import DAMAGED, UserError

log = logging.getLogger(__name__)

# Output channels of VGG19's convolutions, each followed by a ReLU; 0 stands for max pooling.
VGG19 = (64, 64, 0, 128, 128, 0, 256, 256, 256, 256, 0, 512, 512, 512, 512, 0, 512, 512, 512, 512, 0)
HUB_FILE = "vgg19-dcbb9e9d.pth"  # name of torchvision's ImageNet weights in torch's hub cache
SCALES = 3  # number of resolutions at which `NeighbourDifferences` takes differences
GAIN = 3.0  # makes the loss of `NeighbourDifferences` as large as that of VGG19: one weight fits both


def build_features(layers: Sequence[int] = (0, 3, 5), weights: str | Path | None = None) -> nn.Module:
    """Build the VGG19 features; if there are no weights, build `NeighbourDifferences` instead.

    The outputs of the VGG19 layers with the indices `layers` are the features. `weights` is a file; None: the
    file in torch's hub cache, if there is one. Raises UserError if the file does not hold VGG19's weights.
    """
    found = Path(weights).expanduser() if weights else Path(torch.hub.get_dir()) / "checkpoints" / HUB_FILE
    if weights is None and not found.is_file():
        instead = f"differences of neighbouring pixels at {SCALES} scales instead"
        missing = f"no VGG19 weights at {found} (vgg=FILE gives another path)"
        log.warning("%s: the perceptual loss uses %s", missing, instead)
        return NeighbourDifferences()
    features = VGGFeatures(layers)
    try:
        state = torch.load(found, map_location="cpu", weights_only=True)
        features.load_state_dict({key: state[key] for key in features.state_dict()})
    except (*DAMAGED, OSError) as error:
        lines = str(error).splitlines() or [""]
        fault = "holds no VGG19 weights (keys features.0.weight, ...)"
        raise UserError(f"vgg={found} {fault}: {type(error).__name__} {lines[0]}") from error
    return features


class VGGFeatures(nn.Module):
    """Outputs of some layers of VGG19, flattened and concatenated; state-dict keys are torchvision's.

    As in the original, images are in [-1, 1] without ImageNet normalisation, and a convolution is read before
    its ReLU.
    """

    def __init__(self, layers: Sequence[int] = (0, 3, 5)):
        super().__init__()
        self.layers = frozenset(layers)
        modules: list[nn.Module] = []
        inputs = 3
        for outputs in VGG19:
            if not outputs:
                modules.append(nn.MaxPool2d(2))
                continue
            modules += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()]
            inputs = outputs
        self.features = nn.Sequential(*modules[: max(layers) + 1])
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the features of images: (B, 3, H, W) -> (B, units)."""
        found = []
        for i, layer in enumerate(self.features):
            x = layer(x)
            if i in self.layers:
                found.append(x.flatten(1))
        return torch.cat(found, 1)


class NeighbourDifferences(nn.Module):
    """Horizontal and vertical differences of neighbouring pixels at three scales, and the coarse image.

    The differences capture lines and grain, the coarse image captures tone. No weights are needed.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Compute the features of images: (B, 3, H, W) -> (B, units)."""
        found = []
        for _ in range(SCALES):
            found += [x[..., 1:] - x[..., :-1], x[..., 1:, :] - x[..., :-1, :]]
            x = functional.avg_pool2d(x, 2, ceil_mode=True)
        found.append(x)
        return GAIN * torch.cat([part.flatten(1) for part in found], 1)
