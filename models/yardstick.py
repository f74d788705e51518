"""Yardsticks: hand-made encoders, each of which encodes only colour, layout, edges or motion.

Each encoder is one stage of the network ``yardstick``. The stages colour, layout and edges see single frames,
so their motion is exactly 0. The other stages see nothing but change over time:

    colour         opponent colours (van de Sande et al., PAMI 2010, equation 1) and their squares
    layout         gradient energy in each cell of a grid, over its mean (after Oliva & Torralba, IJCV 2001)
    edges          histogram of gradient orientations (Dalal & Triggs, CVPR 2005), without blocks
    motion_energy  energy of spatiotemporal Gabor filters (Adelson & Bergen, JOSA A 1985), divided by the sum
                   over all filters (Heeger, Visual Neuroscience 1992)
    velocity       least-squares optical flow per cell (Lucas & Kanade, IJCAI 1981)
    drift          linear trend over time of each unit of layout

Letters in shapes: B clips, T frames, H and W pixels.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from static_dynamic.models.registry import register
from static_dynamic.models.stages import Stage, Tap, VideoNetwork

# Weights of red, green and blue in brightness (Rec. 601).
LUMA = (0.299, 0.587, 0.114)
# Added to denominators to avoid division by 0; far below squared gradients of natural video (about 1e-3).
SMALL = 1e-6
# Numbers of cells per side of the grids of `Layout` and `Velocity`.
LAYOUT_GRID, VELOCITY_GRID = 4, 2
ORIENTATIONS = 8
# Wavelengths of the Gabor filters, in pixels.
WAVELENGTHS = (8, 14)
# Preferred speeds of the Gabor filters, in pixels per frame.
SPEEDS = (0.5, 1.25)
DIRECTIONS = 8


def grey(video: Tensor) -> Tensor:
    """Return the brightness (B, T, H, W) of a video (B, 3, T, H, W), blurred by a binomial filter.

    Shifted copies are added, because convolutions may round the frames of one batch differently.
    """
    image = sum((weight * video[:, k] for k, weight in enumerate(LUMA)), start=video.new_zeros(()))
    for axis in (-1, -2):
        length = image.shape[axis]
        padded = F.pad(image, (2, 2, 0, 0) if axis == -1 else (0, 0, 2, 2), mode="replicate")
        weights = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)
        shifted = (w * padded.narrow(axis, k, length) for k, w in enumerate(weights))
        image = sum(shifted, start=video.new_zeros(()))
    return image


def gradients(image: Tensor) -> tuple[Tensor, Tensor]:
    """Return horizontal and vertical central differences (B, T, H - 2, W - 2) of images (B, T, H, W)."""
    across = (image[..., 1:-1, 2:] - image[..., 1:-1, :-2]) / 2
    down = (image[..., 2:, 1:-1] - image[..., :-2, 1:-1]) / 2
    return across, down


def cells(image: Tensor, grid: int) -> Tensor:
    """Average frames (B, T, H, W) in each cell of a grid; return (B, T, grid * grid)."""
    return F.adaptive_avg_pool2d(image, grid).flatten(2)


def as_maps(values: Tensor) -> Tensor:
    """Transpose values (B, T, units) to maps (B, units, T, 1, 1)."""
    return values.transpose(1, 2)[..., None, None]


class Colour(nn.Module):
    """Opponent colours of each pixel, and their squares: 6 maps (B, 6, T, H, W)."""

    def forward(self, video):
        """Encode a video (B, 3, T, H, W)."""
        red, green, blue = video.unbind(1)
        opponent = torch.stack(
            [
                (red - green) / math.sqrt(2),
                (red + green - 2 * blue) / math.sqrt(6),
                (red + green + blue) / math.sqrt(3),
            ],
            dim=1,
        )
        return torch.cat([opponent, opponent**2], dim=1)


class Layout(nn.Module):
    """Gradient energy (B, cells, T, 1, 1) of each grid cell, divided by the mean over all cells."""

    def forward(self, video):
        """Encode a video (B, 3, T, H, W)."""
        across, down = gradients(grey(video))
        energy = cells(across**2 + down**2, LAYOUT_GRID)
        return as_maps(energy / (energy.mean(dim=-1, keepdim=True) + SMALL))


class Edges(nn.Module):
    """Histogram (B, orientations, T, 1, 1) of gradient orientations, weighted by gradient magnitude."""

    def forward(self, video):
        """Encode a video (B, 3, T, H, W)."""
        across, down = gradients(grey(video))
        magnitude = torch.sqrt(across**2 + down**2 + SMALL**2)
        # gradient orientation in histogram bins, from -ORIENTATIONS to ORIENTATIONS
        position = torch.atan2(down, across) / math.pi * ORIENTATIONS
        bins = []
        for k in range(ORIENTATIONS):
            away = torch.remainder(position - k + ORIENTATIONS / 2, ORIENTATIONS) - ORIENTATIONS / 2
            bins.append((magnitude * (1 - away.abs()).clamp(min=0)).mean(dim=(-2, -1)))
        histogram = torch.stack(bins, dim=-1)
        return as_maps(histogram / (histogram.sum(dim=-1, keepdim=True) + SMALL))


class MotionEnergy(nn.Module):
    """Motion energy (B, directions * speeds, T - 6, 1, 1), divided by the sum over directions and speeds."""

    def __init__(self):
        super().__init__()
        self.filters: Tensor
        self.register_buffer("filters", gabor_filters(), persistent=False)

    def forward(self, video):
        """Encode a video (B, 3, T, H, W)."""
        image = grey(video)[:, None]
        image = image - image.mean(dim=(2, 3, 4), keepdim=True)
        # Even and odd filters alternate; the energy of each even-odd pair does not depend on the phase.
        responses = F.conv3d(image, self.filters, stride=(1, 2, 2), padding=(0, *(n // 2 for n in self.size)))
        energy = (responses.unflatten(1, (-1, 2)) ** 2).sum(dim=2)
        energy = energy.mean(dim=(-2, -1), keepdim=True)
        return energy / (energy.sum(dim=1, keepdim=True) + SMALL)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the filters."""
        height, width = self.filters.shape[-2:]
        return height, width


def gabor_filters(frames: int = 7) -> Tensor:
    """Return Gabor filters (directions * speeds * 2, 1, frames, size, size), alternately even and odd.

    A filter moves in its direction at its speed; the second speed has the longer wavelength, so that a step
    between two frames is a small part of the wavelength.
    """
    size = 2 * WAVELENGTHS[-1] // 2 + 1
    place = torch.arange(size) - size // 2
    time = (torch.arange(frames) - frames // 2)[:, None, None]
    found = []
    for k in range(DIRECTIONS):
        angle = 2 * math.pi * k / DIRECTIONS
        along = place[None, None, :] * math.cos(angle) + place[None, :, None] * math.sin(angle)
        distance = (place[None, None, :] ** 2 + place[None, :, None] ** 2).float()
        for wavelength, speed in zip(WAVELENGTHS, SPEEDS, strict=True):
            phase = 2 * math.pi / wavelength * (along - speed * time)
            window = torch.exp(-distance / (2 * (0.35 * wavelength) ** 2) - time**2 / (2 * 1.5**2))
            even = window * phase.cos()
            # subtract a multiple of the window, so that uniform brightness gives no response
            even = even - window * (even.sum() / window.sum())
            found += [even, window * phase.sin()]
    return torch.stack(found)[:, None]


class Velocity(nn.Module):
    """Optical flow between consecutive frames in each grid cell: horizontal components, then vertical ones.

    Each estimate is multiplied by the fraction of the temporal change that it explains, because motion does
    not explain the change between unrelated frames. Shape: (B, 2 * cells, T - 1, 1, 1), in pixels per frame.
    """

    def forward(self, video):
        """Encode a video (B, 3, T, H, W)."""
        image = grey(video)
        across, down = gradients((image[:, 1:] + image[:, :-1]) / 2)
        change = (image[:, 1:] - image[:, :-1])[..., 1:-1, 1:-1]
        products = (across**2, down**2, across * down, across * change, down * change, change**2)
        xx, yy, xy, xt, yt, tt = (cells(product, VELOCITY_GRID) for product in products)
        xx, yy = xx + SMALL, yy + SMALL
        determinant = xx * yy - xy**2
        u, v = (xy * yt - yy * xt) / determinant, (xy * xt - xx * yt) / determinant
        explained = (-(u * xt + v * yt) / (tt + SMALL)).clamp(0, 1)
        return as_maps(torch.cat([u * explained, v * explained], dim=-1))


class Drift(nn.Module):
    """Maps (B, cells, T, 1, 1) whose mean over time is the slope over time of each unit of `Layout`."""

    def __init__(self):
        super().__init__()
        self.layout = Layout()

    def forward(self, video):
        """Encode a video (B, 3, T, H, W)."""
        layout = self.layout(video)
        frames = layout.shape[2]
        time = torch.arange(frames, device=layout.device) / max(1, frames - 1) - 0.5
        return layout * (time / (time**2).mean().clamp(min=SMALL))[:, None, None]


# Name of each stage -> encoder and number of units.
ENCODERS: dict[str, tuple[type[nn.Module], int]] = {
    "colour": (Colour, 6),
    "layout": (Layout, LAYOUT_GRID**2),
    "edges": (Edges, ORIENTATIONS),
    "motion_energy": (MotionEnergy, DIRECTIONS * len(SPEEDS)),
    "velocity": (Velocity, 2 * VELOCITY_GRID**2),
    "drift": (Drift, LAYOUT_GRID**2),
}


@register("yardstick")
class Yardstick(VideoNetwork):
    """Apply every hand-made encoder to clips (B, 3, T, H, W); there are no weights and no classifier."""

    def __init__(self, num_classes: int | None = None):
        super().__init__()
        for name, (encoder, _) in ENCODERS.items():
            self.add_module(name, encoder())
        self.stages = {name: Stage(units, (Tap(name),)) for name, (_, units) in ENCODERS.items()}

    def forward(self, x):
        """Return the concatenated units (B, units) of all stages."""
        maps = [self.get_submodule(name)(x) for name in ENCODERS]
        return torch.cat([encoded.mean(dim=(2, 3, 4)) for encoded in maps], dim=1)

    def count_classes(self, output):
        """Return None, because the units are not class scores."""
        return None
