"""Small networks of a user, for the tests of wrapped networks, and what reads them by plain hooks."""

import torch
from einops import rearrange
from torch import nn
from torch.nn import functional as F

from static_dynamic.models import build_model

HERE = __name__
INPUT = {
    "frames": 4,
    "sampling_rate": 2,
    "size": 36,
    "crop": 32,
    "mean": [0.5] * 3,
    "std": [0.25] * 3,
}


class CNN(nn.Module):
    """Stem, two layers of two blocks, a pool, a head; one ReLU for all blocks."""

    def __init__(self, num_classes=5, width=4):
        super().__init__()
        self.stem = nn.Conv3d(3, width, 3, stride=2, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = nn.Sequential(Block(width, self.relu), Block(width, self.relu))
        self.down = nn.MaxPool3d(2)
        self.layer2 = nn.Sequential(Block(width, self.relu), Block(width, self.relu))
        self.pool = nn.AdaptiveAvgPool3d(1)
        self.head = nn.Linear(width, num_classes)

    def forward(self, x):
        x = self.layer2(self.down(self.layer1(self.relu(self.stem(x)))))
        return self.head(self.pool(x).flatten(1))


class Block(nn.Module):
    def __init__(self, width, relu):
        super().__init__()
        self.conv, self.relu = nn.Conv3d(width, width, 3, padding=1), relu

    def forward(self, x):
        return x + self.relu(self.conv(x))


class Tokens(nn.Module):
    """A class token in front of patches of 2 x 8 x 8; attention over time inside a block folds places."""

    def __init__(self, depth=3, width=6):
        super().__init__()
        self.class_token = nn.Parameter(torch.randn(1, 1, width))
        self.patches = nn.Conv3d(3, width, (2, 8, 8), (2, 8, 8))
        self.blocks = nn.ModuleList(TokenBlock(width) for _ in range(depth))
        self.head = nn.Linear(width, 5)

    def forward(self, x):
        x = rearrange(self.patches(x), "b c t h w -> b (h w t) c")
        x = torch.cat([self.class_token.expand(len(x), -1, -1), x], dim=1)
        for block in self.blocks:
            x, _ = block(x)
        return {"logits": self.head(x[:, 0]), "tokens": x}


class TokenBlock(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.over_time, self.mlp = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x):
        places = self.over_time(rearrange(x[:, 1:], "b (n t) c -> (b n) t c", t=2))
        x = torch.cat([x[:, :1], rearrange(places, "(b n) t c -> b (n t) c", b=len(x))], dim=1)
        return x + self.mlp(x), "attention"


class ChannelsLast(nn.Module):
    def __init__(self):
        super().__init__()
        self.patches = nn.Conv3d(3, 6, (1, 8, 8), (1, 8, 8))
        self.layers = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 10))

    def forward(self, x):
        return self.layers(rearrange(self.patches(x), "b c t h w -> b t h w c")).mean(dim=(1, 2, 3))


class Frame(nn.Module):
    """An image network: (B, 3, H, W)."""

    def __init__(self, num_classes=5):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 6, 3, 2, 1)
        self.fc = nn.Linear(6, num_classes)

    def forward(self, x):
        return self.fc(F.relu(self.conv2(F.relu(self.conv1(x)))).mean(dim=(2, 3)))


class TwoPathways(nn.Module):
    def __init__(self):
        super().__init__()
        self.stage = Split()

    def forward(self, pathways):
        return torch.cat([x.mean(dim=(2, 3, 4)) for x in self.stage(pathways)], dim=1)


class Split(nn.Module):
    def __init__(self):
        super().__init__()
        self.slow, self.fast = nn.Conv3d(3, 4, 1), nn.Conv3d(3, 2, 1)

    def forward(self, pathways):
        return [self.slow(pathways[0]), self.fast(pathways[1])]


class TokensFirst(nn.Module):
    """Tokens before clips: (N, B, C), a class token in front; a layer over time has (T, B * places, C)."""

    def __init__(self):
        super().__init__()
        self.cls_token = nn.Parameter(torch.randn(6))
        self.patches = nn.Conv3d(3, 6, (2, 8, 8), (2, 8, 8))
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(6, 6), nn.GELU()) for _ in range(2))
        self.over_time, self.head = nn.Linear(6, 6), nn.Linear(6, 5)

    def forward(self, x):
        x = rearrange(self.patches(x), "b c t h w -> (t h w) b c")
        x = torch.cat([self.cls_token.expand(1, x.shape[1], -1), x])
        for layer in self.layers:
            x = layer(x)
        places = self.over_time(rearrange(x[1:], "(t p) b c -> t (b p) c", t=2))
        return self.head(x[0] + places.mean(dim=0).unflatten(0, (x.shape[1], -1)).mean(dim=1))


class Sum(nn.Module):
    def forward(self, x):
        return x.sum(dim=0)


class Summed(CNN):
    """A module sums over the clips of a batch."""

    def __init__(self):
        super().__init__()
        self.sum = Sum()

    def forward(self, x):
        return super().forward(x) + 0 * self.sum(x).mean()


class AttentionFirst(nn.Module):
    """Blocks that return (attention weights, hidden state)."""

    def __init__(self, average=False):
        super().__init__()
        self.patches = nn.Conv3d(3, 6, (2, 8, 8), (2, 8, 8))
        self.blocks = nn.ModuleList(AttentionBlock(average) for _ in range(2))
        self.head = nn.Linear(6, 5)

    def forward(self, x):
        x = self.patches(x).flatten(2).mT
        for block in self.blocks:
            _, x = block(x)
        return self.head(x.mean(dim=1))


class AttentionBlock(nn.Module):
    def __init__(self, average):
        super().__init__()
        self.query, self.drop, self.average = nn.Linear(6, 6), nn.Dropout(), average

    def forward(self, x):
        heads = self.query(x).unflatten(-1, (2, 3)).transpose(1, 2)
        weights = self.drop((heads @ heads.mT).softmax(dim=-1))
        x = x + (weights @ heads).transpose(1, 2).flatten(2)
        return (weights.mean(dim=1) if self.average else weights), x


class Branches(nn.Module):
    """Two lists of blocks: two branches of tokens of different length, then one branch."""

    def __init__(self):
        super().__init__()
        self.coarse, self.fine = nn.Conv3d(3, 6, (2, 16, 16), (2, 16, 16)), nn.Conv3d(3, 4, 8, 8, (2, 0, 0))
        self.mixed = nn.ModuleList(BranchBlock() for _ in range(2))
        self.last = nn.Sequential(*(nn.Sequential(nn.Linear(6, 6)) for _ in range(2)))

    def forward(self, x):
        branches = [self.coarse(x).flatten(2).mT, self.fine(x).flatten(2).mT]
        for block in self.mixed:
            branches = block(branches)
        return self.last(branches[0]).mean(dim=1)


class BranchBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(6, 6), nn.Linear(4, 4)])

    def forward(self, branches):
        return [layer(x) for layer, x in zip(self.layers, branches, strict=True)]


class Registers(Tokens):
    """A class token, a distillation token and three registers in front of the patches."""

    def __init__(self):
        super().__init__()
        self.class_token = None
        self.cls_token, self.distillation_token = (nn.Parameter(torch.randn(1, 1, 6)) for _ in range(2))
        self.register_tokens = nn.Parameter(torch.randn(1, 3, 6))
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(6, 6), nn.GELU()) for _ in range(2))

    def forward(self, x):
        x = self.patches(x).flatten(2).mT
        prefix = [self.cls_token, self.distillation_token, self.register_tokens]
        x = torch.cat([*(token.expand(len(x), -1, -1) for token in prefix), x], dim=1)
        for block in self.blocks:
            x = block(x)
        return self.head(x[:, 0])


class FramesBeforeChannels(nn.Module):
    """Feature maps (B, T, C, H, W)."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 8, 8), nn.Unflatten(0, (-1, 4)))

    def forward(self, x):
        return self.stem(x.transpose(1, 2).flatten(0, 1)).mean(dim=(1, 3, 4))


class ReadsValues(CNN):
    """The forward pass reads the value of a tensor, and its argument has a keyword."""

    def forward(self, *, clip):
        return super().forward(clip) * (1 if clip.sum().item() > 0 else 2)


class NoHead(CNN):
    """The output is the feature maps of the last layer."""

    def forward(self, x):
        return self.layer2(self.down(self.layer1(self.relu(self.stem(x)))))


class Features(CNN):
    """The output is a row of features per clip, as of timm's networks without a classifier."""

    num_classes = 0


class Caches(CNN):
    """The first pass computes a tensor that later passes use."""

    scale = None

    def forward(self, x):
        if self.scale is None:
            self.scale = 2 * torch.ones_like(x[:1])
        return super().forward(x * self.scale)


class Diverged(CNN):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.stem.weight.data[0] = torch.nan


class Detectors(nn.Module):
    """Pixels' brightness, and opponent Reichardt detectors of motion to the right and down, on a torus."""

    def __init__(self):
        super().__init__()
        self.maps = DetectorMaps()

    def forward(self, x):
        return self.maps(x).mean(dim=(2, 3, 4))


class DetectorMaps(nn.Module):
    def forward(self, x):
        grey = x.mean(dim=1) - 0.5  # (B, T, H, W)
        later = torch.cat([grey[:, 1:], grey[:, -1:]], dim=1)
        moves = [grey * later.roll(-1, dims=axis) - later * grey.roll(-1, dims=axis) for axis in (-1, -2)]
        return torch.stack([grey, *moves], dim=1)


def custom(kind, **options):
    return build_model(
        "custom", **{"network": f"{kind.__module__}.{kind.__name__}", "input": INPUT, **options}
    )


def clip(net, batch=2):
    spec = net.input_spec
    shape = (batch, 3, spec.frames, spec.crop, spec.crop)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def outputs_of(net, inputs):
    """What every module of the wrapped network returns, by plain hooks."""
    seen = {}
    handles = [
        module.register_forward_hook(lambda m, i, o, path=path: seen.update({path: o}))
        for path, module in net.net.named_modules()
    ]
    with torch.inference_mode():
        net(inputs)
    for handle in handles:
        handle.remove()
    return seen
