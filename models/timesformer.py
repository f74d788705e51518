"""TimeSformer (Bertasius et al., "Is Space-Time Attention All You Need for Video Understanding?", ICML 2021).

Each block of this ViT attends over time at each position, then over space in each frame ("divided
space-time"). Key names are those of the original release (``model.blocks.0.temporal_attn.qkv.weight``). The
class token is the first token; the tokens of all frames at position 1 follow, then those at position 2, ...
"""

from collections import OrderedDict
from collections.abc import Mapping
from math import isqrt

import torch
from einops import rearrange, reduce, repeat
from torch import Tensor, nn
from torch.nn import functional as F

from static_dynamic.models.mmaction2_names import from_mmaction2
from static_dynamic.models.registry import register
from static_dynamic.models.stages import Stage, Tap, VideoNetwork

MLP_RATIO = 4
# Epsilon of all layer norms.
EPS = 1e-6


def fit_places(pos_embed: Tensor, height: int, width: int) -> Tensor:
    """Resize a position embedding (1, 1 + side*side, C) to (1, 1 + height*width, C) by nearest neighbour."""
    side = isqrt(pos_embed.shape[1] - 1)
    maps = rearrange(pos_embed[:, 1:], "1 (h w) c -> 1 c h w", h=side)
    places = rearrange(F.interpolate(maps, size=(height, width), mode="nearest"), "1 c h w -> 1 (h w) c")
    return torch.cat([pos_embed[:, :1], places], dim=1)


def fit_times(time_embed: Tensor, frames: int) -> Tensor:
    """Resize a time embedding (1, T, C) to (1, frames, C) by nearest neighbour."""
    times = F.interpolate(rearrange(time_embed, "1 t c -> 1 c t"), size=frames, mode="nearest")
    return rearrange(times, "1 c t -> 1 t c")


class Attention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map N tokens, (B, N, C), to N tokens of the same shape."""
        q, k, v = rearrange(self.qkv(x), "b n (three m d) -> three b m n d", three=3, m=self.heads)
        return self.proj(rearrange(F.scaled_dot_product_attention(q, k, v), "b m n d -> b n (m d)"))


class DividedBlock(nn.Module):
    """Transformer block: attention over time, attention over space and an MLP, with residual connections."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=EPS)
        self.attn = Attention(width, heads)
        self.temporal_norm1 = nn.LayerNorm(width, eps=EPS)
        self.temporal_attn = Attention(width, heads)
        self.temporal_fc = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width, eps=EPS)
        hidden = MLP_RATIO * width
        layers = OrderedDict(fc1=nn.Linear(width, hidden), act=nn.GELU(), fc2=nn.Linear(hidden, width))
        self.mlp = nn.Sequential(layers)

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """Map tokens (B, 1 + n*t, C), a class token and n tokens for each of t frames, to the same shape."""
        cls, patches = x[:, :1], x[:, 1:]
        # attention over time leaves out the class token
        sequences = rearrange(patches, "b (n t) c -> (b n) t c", t=frames)
        sequences = self.temporal_fc(self.temporal_attn(self.temporal_norm1(sequences)))
        patches = patches + rearrange(sequences, "(b n) t c -> b (n t) c", b=len(x))
        # for attention over space, give each frame a copy of the class token; average the copies afterwards
        copies = repeat(cls, "b 1 c -> (b t) 1 c", t=frames)
        images = torch.cat([copies, rearrange(patches, "b (n t) c -> (b t) n c", t=frames)], dim=1)
        images = self.attn(self.norm1(images))
        cls = cls + reduce(images[:, :1], "(b t) 1 c -> b 1 c", "mean", t=frames)
        patches = patches + rearrange(images[:, 1:], "(b t) n c -> b (n t) c", t=frames)
        x = torch.cat([cls, patches], dim=1)
        return x + self.mlp(self.norm2(x))


class DividedViT(nn.Module):
    """Vision transformer with divided space-time attention."""

    def __init__(
        self, num_classes: int, frames: int, crop: int, patch: int, width: int, depth: int, heads: int
    ):
        super().__init__()
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + (crop // patch) ** 2, width))
        self.time_embed = nn.Parameter(torch.empty(1, frames, width))
        for tokens in list(self.parameters()):
            nn.init.trunc_normal_(tokens, std=0.02)
        self.patch_embed = nn.Sequential(OrderedDict(proj=nn.Conv2d(3, width, patch, patch)))
        self.blocks = nn.ModuleList(DividedBlock(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=EPS)
        self.head = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 3, T, H, W) to logits (B, classes)."""
        batch, _, frames, _, _ = x.shape
        patches = self.patch_embed(rearrange(x, "b c t h w -> (b t) c h w"))  # (B*T, C, h, w)
        places = fit_places(self.pos_embed, *patches.shape[2:])
        times = fit_times(self.time_embed, frames)
        patches = rearrange(patches, "(b t) c h w -> b (h w) t c", b=batch)
        patches = patches + rearrange(places[:, 1:], "1 n c -> 1 n 1 c")
        patches = patches + rearrange(times, "1 t c -> 1 1 t c")
        cls = (self.cls_token + places[:, :1]).expand(batch, -1, -1)
        x = torch.cat([cls, rearrange(patches, "b n t c -> b (n t) c")], dim=1)
        for block in self.blocks:
            x = block(x, frames)
        return self.head(self.norm(x)[:, 0])


@register("timesformer")
class TimeSformer(VideoNetwork):
    """TimeSformer for clips (B, 3, T, H, W) with any number of frames and sides of at least `patch` pixels.

    The embeddings fit clips of `frames` x `crop` x `crop`. They are resized by nearest neighbour for clips of
    other sizes, and if a checkpoint has embeddings of another size.
    """

    token_order = "position by position"

    def __init__(
        self, num_classes: int, frames: int, crop: int, patch: int, width: int, depth: int, heads: int
    ):
        super().__init__()
        self.model = DividedViT(num_classes, frames, crop, patch, width, depth, heads)
        self.stages = {
            f"stage{i}": Stage(width, (Tap(f"model.blocks.{i}", layout="tokens"),)) for i in range(depth)
        }

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 3, T, H, W) to logits (B, classes)."""
        return self.model(x)

    def convert(self, state: Mapping) -> Mapping:
        """Translate mmaction2's keys, add the prefix ``model.`` if missing, and resize the embeddings."""
        state = from_mmaction2(state, "timesformer")
        state = {f"model.{key.removeprefix('model.')}": value for key, value in state.items()}
        side = isqrt(self.model.pos_embed.shape[1] - 1)
        for key, fit, size in (
            ("model.pos_embed", fit_places, (side, side)),
            ("model.time_embed", fit_times, (self.model.time_embed.shape[1],)),
        ):
            if key in state:
                state[key] = fit(state[key], *size)
        return state
