"""Average the outputs of modules per cell: a cell of a time x height x width grid, or a region of a mask.

Grids are those of the network's input: the cells of a grid 1x8x8 are an eighth of the input's height and
width. Positions of an output that overlap several cells, or pixels of a mask that overlap several positions,
count by the overlapping area.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from math import isqrt

import torch
from torch import Tensor

from static_dynamic.areas import average_along, resample
from static_dynamic.errors import UserError
from static_dynamic.models.layouts import Shape, in_proportion
from static_dynamic.models.stage_discovery import find_candidates
from static_dynamic.models.stages import TIME_PLACES, Stage, Tap, VideoNetwork
from static_dynamic.models.time_steps import find_time, shapes_of
from static_dynamic.models.units import temporal_sizes

log = logging.getLogger(__name__)

# Values of the option ``cells`` besides grids: background and foreground, or background and each object.
MASK, OBJECTS = "mask", "objects"
Grid = tuple[int, int, int]
NO_PLACES = "have one position in the axes of the grid, or positions whose place in the video is unknown"
# Longest side of a grid; outputs have fewer positions.
LARGEST = 64


@dataclass(frozen=True)
class Cells:
    """How a tap averages an output per cell; the output has `own` positions in time, height and width.

    ``grid`` is the number of cells per axis. It is None if the cells are the regions of masks, which
    ``pathway`` names.
    """

    place: str  # key of `TIME_PLACES`
    own: Grid
    grid: Grid | None
    pathway: str
    channels_first: bool

    def pool(self, part: Tensor, masks: Mapping[str, Tensor]) -> Tensor:
        """Average an output with the batch axis first, to (B, cells, units) float32.

        `masks`: pathway -> (B, regions, T, H, W), the fraction of each pixel that belongs to each region. The
        mean over a region without any pixel is NaN.
        """
        x = TIME_PLACES[self.place](part, self.own[0])  # (B, t, ...)
        channels = 2 if self.channels_first else -1
        if x.dim() == 4:
            x = x.unflatten(2, self.own[1:])  # tokens: (B, t, h, w, units)
        if self.grid is None:
            mask = masks[self.pathway]  # (B, regions, T, H, W)
            if len(mask) != len(x):
                # networks that see several frames of a video return one row per frame
                mask = mask.movedim(2, 1).flatten(0, 1).unsqueeze(2)
            x = x.movedim(channels, -1).float()  # (B, t, h, w, units)
            weights = resample(mask, tuple(x.shape[1:4]))  # (B, regions, t, h, w)
            # rows are added up in float64: sums over whole clips would lose digits in float32
            sums = torch.einsum("brthw,bthwc->brthc", weights, x).double().sum(dim=(2, 3))
            return (sums / weights.double().sum(dim=(2, 3, 4)).unsqueeze(2)).float()
        for axis, cells in zip((1, 3, 4) if self.channels_first else (1, 2, 3), self.grid, strict=True):
            x = average_along(x, axis, cells)
        return x.movedim(channels, -1).flatten(1, 3)


def parse_grid(text: str) -> Grid:
    """Parse the value of the option ``cells``, such as ``1x8x8``; raise UserError if it is not a grid."""
    sides = text.lower().split("x")
    if len(sides) != 3 or not all(side.isdecimal() and 0 < int(side) <= LARGEST for side in sides):
        raise UserError(
            f"cells={text} is not {MASK}, {OBJECTS} or TIMExHEIGHTxWIDTH, each 1 to {LARGEST}: give "
            "for example cells=1x8x8 (maps) or cells=8x1x1 (time courses)"
        )
    time, height, width = map(int, sides)
    return time, height, width


def add_cells(net: VideoNetwork, grid: Grid | None, regions: int = 0) -> None:
    """Fill ``net.cells``: the stages of a network, averaged per cell of a grid or per region of masks.

    Stages whose positions are unknown, or that have a single position (class tokens), get no cells, and a
    message says so. Raises UserError if no stage gets cells.
    """
    shapes = shapes_of(net, net.stages)
    tubelets = net.input_spec.frames
    if any(tap.layout == "tokens" for stage in net.stages.values() for tap in stage.taps):
        tubelets = next(temporal_sizes(find_candidates(net)), tubelets)
    cells, without = {}, []
    for name, stage in net.stages.items():
        taps = [with_cells(net, tap, shapes[tap], tubelets, grid) for tap in stage.taps]
        known = tuple(tap for tap in taps if tap is not None)
        if len(known) < len(taps):
            without.append(name)
            continue
        count = regions if grid is None else grid[0] * grid[1] * grid[2]
        cells[name] = Stage(count * stage.units, known, stage.stream)
    if not cells:
        raise UserError(f"cells: {listed(without)} {NO_PLACES}: omit cells")
    if without:
        log.warning("cells: %s %s, so they get no cells", listed(without), NO_PLACES)
    net.cells = cells


def uses_masks(net: VideoNetwork) -> bool:
    """Return whether the cells of a network are the regions of masks."""
    return any(tap.cells and tap.cells.grid is None for stage in net.cells.values() for tap in stage.taps)


def listed(names: Iterable[str]) -> str:
    """Return the first names of a list as text, with the number of the others."""
    names = list(names)
    more = f" and {len(names) - 3} more stages" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def with_cells(net: VideoNetwork, tap: Tap, shape: Shape, tubelets: int, grid: Grid | None) -> Tap | None:
    """Return a tap that averages per cell; None if the places of its positions are unknown.

    `shape` and `tubelets` are those of `find_time`.
    """
    time = find_time(net, tap, shape, tubelets)
    if time is None or len(shape) < 3 or tap.keep is not None:
        return None
    size, channels_first = net.input_spec.shape, False
    if tap.layout == "tokens":
        tokens = shape[1] - (time.skip - tap.skip)
        space = sides_of(tokens if time.place == "rows" else tokens // time.own, size)
    elif len(shape) == 3:
        return None  # (B, C, T): there is no space
    elif tap.layout == "channels_last":
        space = shape[-3], shape[-2]
    else:
        space, channels_first = (shape[-2], shape[-1]), True
    if space is None:
        return None
    frames = net.input_spec.pathways
    # the pathway with the fewest frames that still shows every time step of the output
    pathway = min(frames, key=lambda name: (frames[name] < time.own, frames[name]))
    own = (time.own, *space)
    divided = [size for size, cells in zip(own, grid or (), strict=grid is not None) if cells > 1]
    if divided and max(divided) == 1:
        return None  # all cells would be equal
    return replace(tap, skip=time.skip, cells=Cells(time.place, own, grid, pathway, channels_first))


def sides_of(positions: int, frame: tuple[int, int]) -> tuple[int, int] | None:
    """Return rows and columns of `positions` patches of a frame (height, width); None if they do not fit."""
    height, width = frame
    least = isqrt(round(positions * height / width))
    for rows in (least, least + 1):
        if rows and positions % rows == 0 and in_proportion((rows, positions // rows), frame):
            return rows, positions // rows
    return None
