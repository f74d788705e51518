"""PhysFormer: a video transformer with temporal difference convolutions (Yu et al., CVPR 2022).

Shapes, order and normalisation of the layers are those of the package open-rppg 0.1.1. The network was
trained on clips of 160 frames of 128 x 128 pixels at 30 frames per second. Twelve blocks work on tokens of
4 frames each, 4 x 4 tokens per 4 frames.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from examples.atlas.keras_weights import filled
from examples.atlas.layers import standardise

WIDTH, HIDDEN, HEADS, BLOCKS = 96, 144, 12, 12
# Weight of the temporal difference, and divisor of the attention scores.
THETA, SHARPNESS = 0.7, 2.0


class DifferenceConv(nn.Conv3d):
    """3 x 3 x 3 convolution without bias, minus `THETA` times a 1 x 1 x 1 convolution.

    The kernel of the second convolution is the sum of the first kernel over its first and last frame.
    """

    def __init__(self, width: int):
        super().__init__(width, width, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, T, H, W) to maps of the same shape."""
        difference = self.weight[:, :, [0, 2]].sum((2, 3, 4), keepdim=True)
        return super().forward(x) - THETA * F.conv3d(x, difference)


def normalised(conv: nn.Module, width: int, activation: nn.Module | None = None) -> nn.Sequential:
    """Return a convolution with batch norm and, if given, an activation function."""
    return nn.Sequential(conv, nn.BatchNorm3d(width, eps=1e-3), *([activation] if activation else []))


class Block(nn.Module):
    """Transformer block on maps (B, C, T, H, W), whose queries, keys and MLP see neighbouring tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH, eps=1e-6), nn.LayerNorm(WIDTH, eps=1e-6)
        self.query = normalised(DifferenceConv(WIDTH), WIDTH)
        self.key = normalised(DifferenceConv(WIDTH), WIDTH)
        self.value = nn.Conv3d(WIDTH, WIDTH, 1, bias=False)
        self.proj = nn.Linear(WIDTH, WIDTH)
        around = nn.Conv3d(HIDDEN, HIDDEN, 3, padding=1, groups=HIDDEN, bias=False)
        self.expand = normalised(nn.Conv3d(WIDTH, HIDDEN, 1, bias=False), HIDDEN, nn.ELU())
        self.around = normalised(around, HIDDEN, nn.ELU())
        self.reduce = normalised(nn.Conv3d(HIDDEN, WIDTH, 1, bias=False), WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, T, H, W) to maps of the same shape."""
        normal = self.norm1(x.movedim(1, -1)).movedim(-1, 1)
        maps = self.query(normal), self.key(normal), self.value(normal)
        # axes of q, k, v: (batch, head, token, channel of the head)
        q, k, v = (one.flatten(2).unflatten(1, (HEADS, -1)).transpose(2, 3) for one in maps)
        attended = torch.softmax(q @ k.transpose(2, 3) / SHARPNESS, dim=-1) @ v
        tokens = self.proj(attended.transpose(1, 2).flatten(2))
        x = x + tokens.transpose(1, 2).unflatten(2, x.shape[2:])
        normal = self.norm2(x.movedim(1, -1)).movedim(-1, 1)
        return x + self.reduce(self.around(self.expand(normal)))


class PhysFormer(nn.Module):
    """PhysFormer; the input (B, 3, T, 128, 128) has values in [0, 1], and T is a multiple of 4."""

    # The output is a waveform and has no classes.
    num_classes = 0

    def __init__(self) -> None:
        super().__init__()
        self.stem1 = normalised(nn.Conv3d(3, 24, (1, 5, 5), padding=(0, 2, 2)), 24, nn.ReLU())
        self.stem2 = normalised(nn.Conv3d(24, 48, 3, padding=1), 48, nn.ReLU())
        self.stem3 = normalised(nn.Conv3d(48, WIDTH, 3, padding=1), WIDTH, nn.ReLU())
        self.embed = nn.Conv3d(WIDTH, WIDTH, 4, 4)
        self.blocks = nn.ModuleList(Block() for _ in range(BLOCKS))
        self.up1 = normalised(nn.Conv3d(WIDTH, WIDTH, (3, 1, 1), padding=(1, 0, 0)), WIDTH, nn.ELU())
        self.up2 = normalised(nn.Conv3d(WIDTH, 48, (3, 1, 1), padding=(1, 0, 0)), 48, nn.ELU())
        self.last = nn.Conv1d(48, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map a clip to a waveform (B, T) with mean 0 and standard deviation 1."""
        x = standardise(x, (2, 3, 4))
        for stem in (self.stem1, self.stem2, self.stem3):
            x = F.max_pool3d(stem(x), (1, 2, 2))
        x = self.embed(x)
        for block in self.blocks:
            x = block(x)
        for up in (self.up1, self.up2):
            # repeat every frame
            x = up(x.repeat_interleave(2, dim=2))
        return standardise(self.last(x.mean((3, 4))).squeeze(1), (1,))


def block_layers(number: int) -> dict[str, str]:
    """Return the layers of one block: path of the torch layer -> path of the layer in the weights file."""

    def numbered(name: str, count: int) -> str:
        return f"{name}_{count}" if count else name

    group, block = divmod(number, 4)
    source = numbered("layers/transformer_st_tdc_gra_sharp", group)
    source += "/blocks/" + numbered("block_st_tdc_gra_sharp", block)
    sequences = {
        "query": ("attn/proj_q", "cdc"),
        "key": ("attn/proj_k", "cdc"),
        "expand": ("pwff/fc1", "conv3d"),
        "around": ("pwff/STConv", "conv3d"),
        "reduce": ("pwff/fc2", "conv3d"),
    }
    layers = {name: name for name in ("norm1", "norm2", "proj")} | {"value": "attn/proj_v/layers/conv3d"}
    for name, (path, conv) in sequences.items():
        layers |= {f"{name}.0": f"{path}/layers/{conv}", f"{name}.1": f"{path}/layers/batch_normalization"}
    return {f"blocks.{number}.{name}": f"{source}/{path}" for name, path in layers.items()}


# Path of each torch layer -> path of the layer in the weights file.
LAYERS = {"embed": "layers/conv3d", "last": "ConvBlockLast"}
for _module, _source in {
    "stem1": "sequential",
    "stem2": "sequential_1",
    "stem3": "sequential_2",
    "up1": "sequential_3",
    "up2": "sequential_4",
}.items():
    LAYERS[f"{_module}.0"] = f"layers/{_source}/layers/conv3d"
    LAYERS[f"{_module}.1"] = f"layers/{_source}/layers/batch_normalization"
for _number in range(BLOCKS):
    LAYERS |= block_layers(_number)


def build(weights: str | None = None) -> nn.Module:
    """Return PhysFormer, trained (``rlap`` or ``pure``, named after the data) or untrained."""
    return filled(PhysFormer(), "physformer", weights, LAYERS)
