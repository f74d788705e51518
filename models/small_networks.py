"""Small networks that ``task=train_calibrated`` trains on rendered scenes: a 3D CNN and a video transformer.

The stages are the outputs of the blocks.
"""

import torch
from einops import rearrange
from torch import Tensor, nn

from static_dynamic.models.registry import register
from static_dynamic.models.stages import Stage, Tap, VideoNetwork
from static_dynamic.models.timesformer import Attention

# Strides of the blocks of `SmallCNN` in time, height and width.
STRIDES = ((1, 2, 2), (1, 2, 2), (2, 2, 2), (1, 1, 1))


@register("small_cnn")
class SmallCNN(VideoNetwork):
    """Four blocks of 3 x 3 x 3 convolution, batch normalisation and ReLU, for clips (B, 3, T, H, W)."""

    def __init__(self, num_classes: int, widths: tuple[int, ...]):
        super().__init__()
        inputs = (3, *widths)
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(nn.Conv3d(a, b, 3, s, 1, bias=False), nn.BatchNorm3d(b), nn.ReLU())
                for a, b, s in zip(inputs, widths, STRIDES, strict=False)
            )
        )
        self.head = nn.Linear(widths[-1], num_classes)
        self.stages = {f"stage{k}": Stage(w, (Tap(f"blocks.{k - 1}"),)) for k, w in enumerate(widths, 1)}

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 3, T, H, W) to logits (B, classes)."""
        return self.head(self.blocks(x).mean(dim=(2, 3, 4)))


class Block(nn.Module):
    """Transformer block: joint attention over the tokens of all frames, then an MLP; both are residual."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Map N tokens, (B, N, C), to N tokens of the same shape."""
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


@register("small_transformer")
class SmallTransformer(VideoNetwork):
    """Video transformer with tubelet embedding and joint attention over space and time.

    This is model 1 of ViViT (Arnab et al., ICCV 2021), with the mean over all tokens in place of a class
    token. Input (B, 3, T, H, W) of `frames` x `crop` x `crop`; a tubelet has `tubelet` frames, rows, columns.
    """

    token_order = "frame by frame"

    def __init__(
        self,
        num_classes: int,
        frames: int,
        crop: int,
        tubelet: tuple[int, int, int],
        width: int,
        depth: int,
        heads: int,
    ):
        super().__init__()
        t, h, w = tubelet
        tokens = (frames // t) * (crop // h) * (crop // w)
        self.embed = nn.Conv3d(3, width, (t, h, w), (t, h, w))
        self.positions = nn.Parameter(torch.empty(1, tokens, width))
        nn.init.trunc_normal_(self.positions, std=0.02)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, num_classes)
        self.stages = {"embedding": Stage(width, (Tap("embed"),))}
        self.stages |= {
            f"stage{k}": Stage(width, (Tap(f"blocks.{k - 1}", layout="tokens"),)) for k in range(1, depth + 1)
        }

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 3, T, H, W) to logits (B, classes)."""
        tokens = rearrange(self.embed(x), "b c t h w -> b (t h w) c") + self.positions
        return self.head(self.norm(self.blocks(tokens)).mean(dim=1))
