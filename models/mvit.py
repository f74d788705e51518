"""MViT-B (Fan et al., "Multiscale Vision Transformers", ICCV 2021): attention over pooled tokens.

Key names and arithmetic are those of PySlowFast's first release (``blocks.1.attn.pool_q.weight``), without
residual pooling and relative positions. The class token is the first token and is never pooled.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from math import isqrt

import torch
from einops import rearrange, repeat
from torch import Tensor, nn
from torch.nn import functional as F

from static_dynamic.errors import UserError
from static_dynamic.models.registry import register
from static_dynamic.models.stages import Stage, Tap, VideoNetwork

PATCH_STRIDE = (2, 4, 4)
MLP_RATIO = 4
# Epsilon of the layer norms in blocks and head; norms of pooled tokens have torch's default, 1e-5.
EPS = 1e-6


def strided(grid: Sequence[int], strides: Sequence[int]) -> tuple[int, ...]:
    """Return the size (t, h, w) of a map after a padded convolution or pooling: size / stride, rounded up."""
    return tuple(-(-n // s) for n, s in zip(grid, strides, strict=True))


def pool_tokens(tokens: Tensor, grid: tuple[int, ...], pool: nn.Module) -> Tensor:
    """Arrange the patch tokens of `tokens` (B, heads, 1 + t*h*w, C) as maps of size `grid`; pool the maps.

    The class token, which is the first token, is not pooled.
    """
    heads, (t, h, w) = tokens.shape[1], grid
    maps = pool(rearrange(tokens[:, :, 1:], "b m (t h w) c -> (b m) c t h w", t=t, h=h, w=w))
    patches = rearrange(maps, "(b m) c t h w -> b m (t h w) c", m=heads)
    return torch.cat([tokens[:, :, :1], patches], dim=2)


class PooledAttention(nn.Module):
    """Attention whose queries, keys and values are pooled in space by depthwise convolutions.

    All heads share the convolution. With stride 1 there is no pooling.
    """

    def __init__(self, width: int, heads: int, grid: tuple[int, ...], *, q_stride: int, kv_stride: int):
        super().__init__()
        self.heads, self.grid = heads, grid
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        strides = {"q": q_stride, "k": kv_stride, "v": kv_stride}
        self.pooled = [name for name, stride in strides.items() if stride > 1]
        for name in self.pooled:
            d, stride = width // heads, strides[name]
            self.add_module(f"pool_{name}", nn.Conv3d(d, d, 3, (1, stride, stride), 1, groups=d, bias=False))
            self.add_module(f"norm_{name}", nn.LayerNorm(d))

    def forward(self, x: Tensor) -> Tensor:
        """Map N tokens (B, N, C) to M pooled tokens (B, M, C)."""
        tokens = rearrange(self.qkv(x), "b n (three m d) -> three b m n d", three=3, m=self.heads)
        qkv = dict(zip("qkv", tokens, strict=True))
        for name in self.pooled:
            pool, norm = self.get_submodule(f"pool_{name}"), self.get_submodule(f"norm_{name}")
            qkv[name] = norm(pool_tokens(qkv[name], self.grid, pool))
        x = F.scaled_dot_product_attention(qkv["q"], qkv["k"], qkv["v"])
        return self.proj(rearrange(x, "b m n d -> b n (m d)"))


class Block(nn.Module):
    """Transformer block: attention, which divides height and width by `q_stride`, followed by an MLP."""

    def __init__(
        self, width: int, outputs: int, heads: int, grid: tuple[int, ...], *, q_stride: int, kv_stride: int
    ):
        super().__init__()
        self.grid = grid
        self.norm1 = nn.LayerNorm(width, eps=EPS)
        self.attn = PooledAttention(width, heads, grid, q_stride=q_stride, kv_stride=kv_stride)
        self.pool_skip = None
        if q_stride > 1:
            self.pool_skip = nn.MaxPool3d((1, 3, 3), (1, q_stride, q_stride), (0, 1, 1))
        self.norm2 = nn.LayerNorm(width, eps=EPS)
        hidden = MLP_RATIO * width
        layers = OrderedDict(fc1=nn.Linear(width, hidden), act=nn.GELU(), fc2=nn.Linear(hidden, outputs))
        self.mlp = nn.Sequential(layers)
        self.proj = nn.Linear(width, outputs) if outputs != width else None

    def forward(self, x: Tensor) -> Tensor:
        """Map N tokens (B, N, width) to M pooled tokens (B, M, outputs)."""
        skip = x if self.pool_skip is None else pool_tokens(x[:, None], self.grid, self.pool_skip)[:, 0]
        x = skip + self.attn(self.norm1(x))
        normed = self.norm2(x)
        # if the number of channels changes, the shortcut projects the normed tokens
        skip = x if self.proj is None else self.proj(normed)
        return skip + self.mlp(normed)


@register("mvit")
class MViT(VideoNetwork):
    """MViT for clips (B, 3, `frames`, `crop`, `crop`).

    ``forward`` is the prediction that the weights were trained for: norm, class token, head. ``logit_map`` is
    what Kowal et al.'s code reports: the head on the mean of all tokens, without the norm.

    Parameters
    ----------
    width, depth
        Channels of the first block and number of blocks.
    scale_at
        Blocks at which height and width halve and the number of heads doubles. The channels double one block
        earlier.
    kv_stride
        Stride of keys and values in the first blocks. It halves at each block of `scale_at`, so that the grid
        of keys and values is the same in all blocks.
    """

    token_order = "frame by frame"

    def __init__(
        self,
        num_classes: int,
        frames: int,
        crop: int,
        width: int,
        depth: int,
        scale_at: Sequence[int],
        kv_stride: int,
    ):
        super().__init__()
        self.clip = (frames, crop, crop)
        grid = strided(self.clip, PATCH_STRIDE)
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        self.pos_embed_spatial = nn.Parameter(torch.empty(1, grid[1] * grid[2], width))
        self.pos_embed_temporal = nn.Parameter(torch.empty(1, grid[0], width))
        self.pos_embed_class = nn.Parameter(torch.empty(1, 1, width))
        for tokens in list(self.parameters()):
            nn.init.trunc_normal_(tokens, std=0.02)
        proj = nn.Conv3d(3, width, (3, 7, 7), PATCH_STRIDE, (1, 3, 3))
        self.patch_embed = nn.Sequential(OrderedDict(proj=proj))
        self.blocks = nn.ModuleList()
        self.stages = {}
        heads = 1
        for i in range(depth):
            q_stride = 2 if i in scale_at else 1
            heads, kv_stride = heads * q_stride, kv_stride // q_stride
            outputs = 2 * width if i + 1 in scale_at else width
            self.blocks.append(Block(width, outputs, heads, grid, q_stride=q_stride, kv_stride=kv_stride))
            self.stages[f"stage{i}"] = Stage(outputs, (Tap(f"blocks.{i}", layout="tokens"),))
            width, grid = outputs, strided(grid, (1, q_stride, q_stride))
        self.norm = nn.LayerNorm(width, eps=EPS)
        self.head = nn.Sequential(OrderedDict(projection=nn.Linear(width, num_classes)))

    def convert(self, state: Mapping) -> Mapping:
        """Fit the position embeddings of a checkpoint for clips of another size, in space and in time.

        The authors' code interpolates the sum of both embeddings trilinearly, which is bilinear interpolation
        of the spatial embedding plus linear interpolation of the temporal embedding.
        """
        grid, state = strided(self.clip, PATCH_STRIDE), dict(state)
        space, time = state.get("pos_embed_spatial"), state.get("pos_embed_temporal")
        if space is not None and space.shape[1] != grid[1] * grid[2]:
            maps = rearrange(space, "1 (h w) c -> 1 c h w", h=isqrt(space.shape[1]))
            state["pos_embed_spatial"] = F.interpolate(maps, grid[1:], mode="bilinear").flatten(2).mT
        if time is not None and time.shape[1] != grid[0]:
            state["pos_embed_temporal"] = F.interpolate(time.mT, grid[0], mode="linear").mT
        return state

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 3, T, H, W) to logits (B, classes)."""
        return self.head(self.norm(self.tokens(x))[:, 0])

    def logit_map(self, inputs: Tensor) -> Tensor:
        """Return logits (B, classes) of the mean token without final norm, as Kowal et al.'s code does."""
        return self.head(self.tokens(inputs).mean(dim=1))

    def tokens(self, x: Tensor) -> Tensor:
        """Return the last block's tokens (B, 1 + N, C): the class token, then N patch tokens."""
        if tuple(x.shape[2:]) != self.clip:
            raise UserError(
                f"MViT was built for clips of {self.clip} (frames, height, width) but got a clip of "
                f"{tuple(x.shape[2:])}: give model.args and model.input the same frames and the same crop"
            )
        patches = self.patch_embed(x)  # (B, C, t, h, w)
        t, n = patches.shape[2], patches.shape[3] * patches.shape[4]
        space = repeat(self.pos_embed_spatial, "1 n c -> 1 (t n) c", t=t)
        time = repeat(self.pos_embed_temporal, "1 t c -> 1 (t n) c", n=n)
        patches = rearrange(patches, "b c t h w -> b (t h w) c") + space + time
        cls = (self.cls_token + self.pos_embed_class).expand(len(x), -1, -1)
        x = torch.cat([cls, patches], dim=1)  # (B, 1 + t*h*w, C)
        for block in self.blocks:
            x = block(x)
        return x
