"""Averages per cell and per region: against a slow average over positions, and against what pixels change."""

from itertools import product

import numpy as np
import pytest
import torch

from static_dynamic.errors import UserError
from static_dynamic.models import build_model
from static_dynamic.models.cells import Cells, add_cells, parse_grid, sides_of
from static_dynamic.models.stages import Tap
from tests.models.test_time_steps import TRANSFORMERS, small
from tests.models.toys import Frame, clip, custom

OWN = (3, 4, 5)
# layout of the output, and its time place -> function that turns (B, t, h, w, C) into such an output
OUTPUTS = {
    ("maps", "axis 2"): lambda x: x.permute(0, 4, 1, 2, 3),
    ("channels_last", "axis 1"): lambda x: x,
    ("time_first", "axis 1"): lambda x: x.permute(0, 1, 4, 2, 3),
    ("tokens", "frame by frame"): lambda x: x.flatten(1, 3),
    ("tokens", "position by position"): lambda x: x.permute(0, 2, 3, 1, 4).flatten(1, 3),
    ("maps", "rows"): lambda x: x.flatten(0, 1).permute(0, 3, 1, 2),
    ("channels_last", "rows"): lambda x: x.flatten(0, 1),
    ("tokens", "rows"): lambda x: x.flatten(0, 1).flatten(1, 2),
}


def overlap(i, own, k, cells):
    """Length of the part of position i (of `own`) that lies in cell k (of `cells`)."""
    return max(0.0, min((i + 1) / own, (k + 1) / cells) - max(i / own, k / cells))


def slow_grid(x, grid):
    """Average (B, t, h, w, C) per cell, position by position."""
    found = []
    for cell in product(*map(range, grid)):
        total, weight = 0, 0
        for place in product(*map(range, x.shape[1:4])):
            share = np.prod([overlap(*of) for of in zip(place, x.shape[1:4], cell, grid, strict=True)])
            total, weight = total + share * x[:, place[0], place[1], place[2]].double(), weight + share
        found.append(total / weight)
    return torch.stack(found, dim=1).flatten(1)


def tap_of(layout, place, grid, pathway="rgb"):
    first = layout in ("maps", "time_first")
    fold = OWN[0] if place == "rows" else 1
    return Tap("m", layout=layout, fold=fold, cells=Cells(place, OWN, grid, pathway, first))


@pytest.mark.parametrize(("layout", "place"), OUTPUTS)
@pytest.mark.parametrize("grid", [(1, 2, 2), (3, 1, 1), (2, 3, 4), (4, 8, 8), (1, 1, 1)])
def test_every_layout_equals_the_slow_average(layout, place, grid):
    x = torch.randn(2, *OWN, 6, generator=torch.Generator().manual_seed(0))
    found = tap_of(layout, place, grid).pool(OUTPUTS[layout, place](x)).flatten(1)
    np.testing.assert_allclose(found, slow_grid(x, grid), atol=2e-6)


@pytest.mark.parametrize(("layout", "place"), OUTPUTS)
def test_regions_equal_the_slow_average(layout, place):
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(2, *OWN, 6, generator=rng)
    # masks at another resolution than the output; the second clip has no foreground
    labels = (torch.rand(2, 6, 8, 10, generator=rng) < 0.3).float()
    labels[1] = 0
    masks = {"rgb": torch.stack([1 - labels, labels], dim=1)}
    found = tap_of(layout, place, None).pool(OUTPUTS[layout, place](x), masks).unflatten(0, (2,))
    for clip_number, region in product(range(2), range(2)):
        total, weight = 0, 0
        for place_of, position in product(product(range(6), range(8), range(10)), product(*map(range, OWN))):
            sides = zip(position, OWN, place_of, (6, 8, 10), strict=True)
            share = np.prod([overlap(*of) for of in sides])
            share = share * masks["rgb"][clip_number, region][place_of].item()
            if share:
                total = total + share * x[clip_number][position].double()
                weight += share
        if weight:
            np.testing.assert_allclose(found[clip_number, region], total / weight, atol=1e-5)
        else:
            assert found[clip_number, region].isnan().all()


@pytest.mark.parametrize("name", ["x3d_xs", "small_cnn", "yardstick", *TRANSFORMERS])
def test_cells_of_networks_add_up_to_the_stage(name):
    net = small(name, **TRANSFORMERS[name]) if name in TRANSFORMERS else build_model(name, checkpoint=None)
    video = net.prepare(clip(net))
    whole = net.read(video)
    add_cells(net, (2, 4, 4))
    assert net.cells and all(stage.units == 32 * net.stages[name].units for name, stage in net.cells.items())
    cells = net.read(video, list(net.readable))
    for stage in net.cells:
        skips = [tap.cells.own for tap in net.cells[stage].taps]
        units = net.stages[stage].units
        mean = cells[f"{stage}.cells"].unflatten(1, (32, units)).mean(dim=1)
        # the plain average of MViT and TimeSformer includes the class token
        bound = 0.2 if name in ("mvit", "timesformer") else 1e-5
        assert float((mean - whole[stage]).norm() / whole[stage].norm()) < bound, (stage, skips)
        assert torch.equal(cells[stage], whole[stage])


@pytest.mark.parametrize("name", ["x3d_xs", *TRANSFORMERS])
def test_one_cell_has_the_bytes_of_the_stage(name):
    net = small(name, **TRANSFORMERS[name]) if name in TRANSFORMERS else build_model(name, checkpoint=None)
    add_cells(net, (1, 1, 1))
    rows = net.read(net.prepare(clip(net)), list(net.readable))
    for stage in net.cells:
        if net.cells[stage].taps[0].skip == net.stages[stage].taps[0].skip:
            assert torch.equal(rows[stage], rows[f"{stage}.cells"])


def test_uniform_masks_give_the_numbers_of_the_stage():
    net = build_model("slowfast_r50_4x16", checkpoint=None)
    video = net.prepare(torch.randn(2, 3, 32, 64, 64, generator=torch.Generator().manual_seed(0)))
    add_cells(net, None, regions=2)
    frames = net.input_spec.pathways
    masks = {
        p: torch.stack([torch.zeros(2, n, 64, 64), torch.ones(2, n, 64, 64)], 1) for p, n in frames.items()
    }
    rows = net.read(video, list(net.readable), masks)
    for stage in net.cells:
        empty, full = rows[f"{stage}.cells"].unflatten(1, (2, -1)).unbind(1)
        assert empty.isnan().all()
        assert float((full - rows[stage]).norm() / rows[stage].norm()) < 1e-6
    # taps of the slow pathway use the masks of the slow pathway
    taps = [tap for stage in net.cells.values() for tap in stage.taps]
    assert {(tap.cells.own[0], tap.cells.pathway) for tap in taps} == {(4, "slow"), (32, "fast")}


@pytest.mark.parametrize("cell", [(0, 0, 0), (1, 2, 1), (1, 3, 3)])
def test_pixels_change_the_cell_that_holds_them(cell):
    net = small("small_transformer")
    add_cells(net, (2, 4, 4))
    video = clip(net)
    before = net.read(net.prepare(video), ["embedding.cells"])["embedding.cells"]
    t, row, column = cell
    steps, side = video.shape[2] // 2, video.shape[3] // 4
    changed = video.clone()
    changed[
        :, :, t * steps : (t + 1) * steps, row * side : (row + 1) * side, column * side : (column + 1) * side
    ] += 1
    after = net.read(net.prepare(changed), ["embedding.cells"])["embedding.cells"]
    moved = (after - before).abs().unflatten(1, (2, 4, 4, -1)).sum(dim=(0, -1))
    assert moved[cell] > 0 and int((moved > 1e-4).sum()) == 1


def test_stages_without_places_get_no_cells(caplog):
    net = build_model("yardstick", checkpoint=None)
    add_cells(net, (1, 4, 4))
    # the other encoders average over space themselves
    assert list(net.cells) == ["colour"] and "so they get no cells" in caplog.text
    frames = custom(Frame, feed="(b t) c h w")
    add_cells(frames, (4, 2, 2))
    assert all(stage.taps[0].cells.own[0] == frames.input_spec.frames for stage in frames.cells.values())


def test_grids():
    assert parse_grid("1x8x8") == (1, 8, 8) and parse_grid("8X1X1") == (8, 1, 1)
    for text in ("8x8", "1x8x0", "1x8x-8", "1x8x65", "axbxc", "1x8x8x1", "masks", "1x8x²"):
        with pytest.raises(UserError, match="cells="):
            parse_grid(text)
    assert sides_of(196, (224, 224)) == (14, 14) and sides_of(195, (224, 224)) is None
    assert sides_of(14 * 25, (224, 400)) == (14, 25)
