"""Features for the perceptual loss: VGG19 if a weights file is on disk, else differences between pixels."""

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from static_dynamic.errors import UserError, reason
from static_dynamic.pickled import read_pickled
from static_dynamic.weights import check_numbers

log = logging.getLogger(__name__)

# Output channels of VGG19's convolutions; 0 stands for max pooling. A ReLU follows each convolution.
VGG19 = (64, 64, 0, 128, 128, 0, 256, 256, 256, 256, 0, 512, 512, 512, 512, 0, 512, 512, 512, 512, 0)
# HUB_FILE: file of torchvision's VGG19 weights in torch's hub cache
HUB_FILE = "vgg19-dcbb9e9d.pth"
# SCALES: number of resolutions at which `NeighbourDifferences` takes differences
SCALES = 3
# GAIN multiplies the features of `NeighbourDifferences`, because the loss weight was chosen for VGG19.
GAIN = 3.0


def build_features(layers: Sequence[int] = (0, 3, 5), weights: str | Path | None = None) -> nn.Module:
    """Build the VGG19 feature extractor, or `NeighbourDifferences` if no VGG19 weights are found.

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
        state = read_pickled(found)
        features.load_state_dict({key: state[key] for key in features.state_dict()})
    except Exception as error:  # a damaged weights file can cause any exception
        why = f"{type(error).__name__} {reason(error)}"
        raise UserError(f"vgg={found} holds no VGG19 weights (features.0.weight, ...): {why}") from error
    check_numbers(features.state_dict(), {key: state[key] for key in features.state_dict()}, found)
    return features


class VGGFeatures(nn.Module):
    """Feature extractor: outputs of chosen VGG19 layers, flattened and concatenated.

    State-dict keys are torchvision's. As in Texler et al.'s code, images are in [-1, 1] without ImageNet
    normalisation, and the output of a convolution is read before the ReLU.
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
        """Compute the features of images: (B, 3, H, W) -> (B, number of features)."""
        found = []
        for i, layer in enumerate(self.features):
            x = layer(x)
            if i in self.layers:
                found.append(x.flatten(1))
        return torch.cat(found, 1)


class NeighbourDifferences(nn.Module):
    """Feature extractor without weights: pixel differences at three scales, and the downsampled image.

    The differences capture lines and grain, the downsampled image captures tone.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Compute the features of images: (B, 3, H, W) -> (B, number of features)."""
        found = []
        for _ in range(SCALES):
            found += [x[..., 1:] - x[..., :-1], x[..., 1:, :] - x[..., :-1, :]]
            x = functional.avg_pool2d(x, 2, ceil_mode=True)
        found.append(x)
        return GAIN * torch.cat([part.flatten(1) for part in found], 1)
