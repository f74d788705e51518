"""PhysNet: a 3D convolutional encoder and decoder that finds the pulse in a face (Yu et al., BMVC 2019).

Shapes, order and normalisation of the layers are those of the package open-rppg 0.1.1. The network was
trained on clips of 128 frames of 32 x 32 pixels at 30 frames per second.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from examples.atlas.keras_weights import filled
from examples.atlas.layers import standardise

# Output channels of the nine convolutions.
WIDTHS = (16, 32, 64, 64, 64, 64, 64, 64, 64)
# Number of a convolution -> size and stride of the maximum pooling that follows it.
POOLING = {1: (1, 2, 2), 3: (2, 2, 2), 5: (2, 2, 2), 7: (1, 2, 2)}
# Path of each torch layer -> path of the layer in the weights file.
LAYERS = {
    **{f"conv{k}.0": f"ConvBlock{k}/layers/conv3d" for k in range(1, 10)},
    **{f"conv{k}.1": f"ConvBlock{k}/layers/batch_normalization" for k in range(1, 10)},
    "up1.0": "layers/sequential_9/layers/conv3d_transpose",
    "up1.1": "layers/sequential_9/layers/batch_normalization",
    "up2.0": "layers/sequential_10/layers/conv3d_transpose",
    "up2.1": "layers/sequential_10/layers/batch_normalization",
    "last": "convBlock10",
}


class PhysNet(nn.Module):
    """PhysNet; the input (B, 3, T, 32, 32) has values in [0, 1], and T is a multiple of 4."""

    # The output is a waveform and has no classes.
    num_classes = 0

    def __init__(self) -> None:
        super().__init__()
        inputs = 3
        for k, width in enumerate(WIDTHS, start=1):
            kernel, padding = ((1, 5, 5), (0, 2, 2)) if k == 1 else ((3, 3, 3), (1, 1, 1))
            conv = nn.Conv3d(inputs, width, kernel, padding=padding)
            self.add_module(f"conv{k}", nn.Sequential(conv, nn.BatchNorm3d(width, eps=1e-3), nn.ReLU()))
            inputs = width
        for k in (1, 2):
            double = nn.ConvTranspose3d(64, 64, (4, 1, 1), (2, 1, 1), (1, 0, 0))
            self.add_module(f"up{k}", nn.Sequential(double, nn.BatchNorm3d(64, eps=1e-3), nn.ELU()))
        self.last = nn.Conv3d(64, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map a clip to a waveform (B, T) with mean 0 and standard deviation 1."""
        x = standardise(x, (2, 3, 4))
        for k in range(1, 10):
            x = self.get_submodule(f"conv{k}")(x)
            if k in POOLING:
                x = F.max_pool3d(x, POOLING[k])
        x = self.get_submodule("up2")(self.get_submodule("up1")(x))
        return standardise(self.last(F.avg_pool3d(x, (1, 2, 2))).flatten(1), (1,))


def build(weights: str | None = None) -> nn.Module:
    """Return PhysNet, trained (``rlap`` or ``pure``, named after the data) or untrained."""
    return filled(PhysNet(), "physnet", weights, LAYERS)
