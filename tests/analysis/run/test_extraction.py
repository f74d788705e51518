"""From a data set on disk to the tables, with networks whose units are static, dynamic, joint or residual by
construction."""

import multiprocessing
import os
import signal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import static_dynamic.analysis.run.store
from static_dynamic.analysis import estimate_run
from static_dynamic.analysis.run.extraction import extract, unfinished_batches
from static_dynamic.analysis.run.store import Store
from static_dynamic.datasets import list_clips, make_views
from static_dynamic.errors import UserError
from static_dynamic.models import InputSpec, Stage, Tap, VideoNetwork
from tests.analysis.manifests import small_manifest
from tests.conftest import write_frames
from tests.datasets.test_loader import dataset

T = 8
SPEC = InputSpec(frames=T, sampling_rate=1, size=16, crop=16, mean=(0.5,) * 3, std=(0.25,) * 3)


class Planted(VideoNetwork):
    """Reads the colours that `planted_clips` writes: one unit of each class, as maps that `read` pools."""

    stages = {"stage1": Stage(5, (Tap("units"),))}
    input_spec = SPEC

    def __init__(self):
        super().__init__()
        self.units = nn.Identity()

    def forward(self, x):  # (B, 3, T, H, W)
        red, green, blue = x.mean(dim=(3, 4)).unbind(1)  # (B, T)
        order = torch.linspace(-1, 1, T)  # weights frames by time; blind to the mean
        units = [
            red.mean(1),  # static: a colour per clip and style, blind to order
            (green * order).mean(1),  # dynamic: the clip's change over time, equal in every style
            green.mean(1),  # joint: the clip's mean, equal in every style and order
            (blue * order).mean(1),  # residual: another change over time in every style
            torch.zeros_like(red[:, 0]),  # dead
        ]
        self.units(torch.stack(units, dim=1)[..., None, None, None].expand(-1, -1, T, 2, 2))
        return torch.stack(units, dim=1)


class OrderBlind(VideoNetwork):
    """A 2D convolution on each frame, averaged over frames: blind to the order of frames."""

    stages = {"stage1": Stage(6, (Tap("conv"),)), "stage2": Stage(4, (Tap("deep"),))}
    input_spec = SPEC

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.conv = nn.Conv3d(3, 6, (1, 3, 3))
            self.deep = nn.Conv3d(6, 4, (1, 3, 3))

    def forward(self, x):
        return self.deep(self.conv(x).relu()).mean(dim=(2, 3, 4))


def planted_clips(root: Path, clips: int = 60, styles=(1, 2, 3)) -> Path:
    draw = np.random.default_rng(0)
    for clip in range(clips):
        level, course = draw.integers(60, 190), draw.integers(-60, 61, T)
        for style in styles:
            frames = np.empty((T, 16, 16, 3), np.uint8)
            frames[..., 0] = draw.integers(0, 256)
            frames[..., 1] = (level + course - course.mean()).round()[:, None, None]
            frames[..., 2] = draw.integers(0, 256, T)[:, None, None]
            write_frames(root / f"style_{style}" / f"clip{clip:03d}", frames)
    return root


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    return planted_clips(tmp_path_factory.mktemp("planted"))


def run(net, root, folder, *, styles=(1, 2, 3), batch_size=7, num_workers=0, on_error="error"):
    """Extract as the main job does."""
    clips = list_clips(dataset(root), styles)
    views, pairs = make_views(clips.clips, styles, net.input_spec.pathways, n_sample_frames=T, seed=1)
    stages = {name: {"units": s.units, "stream": s.stream} for name, s in net.stages.items()}
    manifest = small_manifest(stages, views, {"seed": 1})
    store = Store.create_or_resume(folder, manifest, views, pairs)
    extract(
        net.eval(),
        clips,
        views,
        store,
        device=torch.device("cpu"),
        batch_size=batch_size,
        num_workers=num_workers,
        on_error=on_error,
    )
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_planted_units_come_out_as_planted(planted, tmp_path):
    r = estimate_run(run(Planted(), planted, tmp_path / "run"), n_boot=200)
    assert list(r.units["class"]) == ["static", "dynamic", "joint", "residual", "dead"]
    np.testing.assert_allclose(r.units["score_static"][[0, 2]], 1, atol=1e-6)
    np.testing.assert_allclose(r.units["score_dynamic"][[1, 2]], 1, atol=1e-6)
    assert r.units["probability_residual"][3] > 0.9 and r.units["probability_dead"][4] == 1


def test_a_network_blind_to_order_is_exactly_static(planted, tmp_path):
    r = estimate_run(run(OrderBlind(), planted, tmp_path / "run"), n_boot=50)
    np.testing.assert_allclose(r.units["score_static"], 1, atol=1e-6)
    np.testing.assert_allclose(r.units[["score_static_low", "score_static_high"]], 1, atol=1e-6)
    np.testing.assert_allclose(r.layers["score_static"], r.layers["score_static_high"], rtol=0.2)


def test_rows_are_what_each_view_alone_gives(planted, tmp_path):
    net = OrderBlind().eval()
    folder = run(net, planted, tmp_path / "run")
    clips, views, store = (
        list_clips(dataset(planted), (1, 2, 3)),
        pd.read_parquet(folder / "views.parquet"),
        Store.open(folder),
    )
    for row in (0, 17, len(views) - 1):
        view = views.iloc[row]
        frames = clips.frames_of(view["video"], view["style"]).read(view["frames_rgb"])
        x = (torch.from_numpy(frames).permute(3, 0, 1, 2)[None] / 255 - 0.5) / 0.25
        expected = net.conv(x).mean(dim=(2, 3, 4))[0].detach().numpy()
        np.testing.assert_allclose(store.activations("stage1")[row], expected, rtol=1e-5, atol=1e-6)


def test_workers_change_nothing(planted, tmp_path):
    assert contents(run(OrderBlind(), planted, tmp_path / "a")) == contents(
        run(OrderBlind(), planted, tmp_path / "b", num_workers=2)
    )


class DiesAfter(OrderBlind):
    """Kills its own process with SIGKILL after a number of forward passes."""

    def __init__(self, passes):
        super().__init__()
        self.left = passes

    def forward(self, x):
        self.left -= 1
        if self.left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(x)


def _run_and_die(root, folder, passes):
    static_dynamic.analysis.run.store.COMMIT_SECONDS = 0.0
    torch.set_num_threads(1)  # a forked process cannot use the parent's threads
    run(DiesAfter(passes), root, folder)


@pytest.mark.parametrize("passes", [0, 1, 20])
def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(planted, tmp_path, passes):
    undisturbed = contents(run(OrderBlind(), planted, tmp_path / "whole"))
    victim = multiprocessing.get_context("spawn").Process(
        target=_run_and_die, args=(planted, tmp_path / "killed", passes)
    )
    victim.start()
    victim.join()
    assert victim.exitcode == -signal.SIGKILL
    done = int((np.load(tmp_path / "killed" / "status.npy") == 1).sum())
    assert done == 7 * passes
    assert contents(run(OrderBlind(), planted, tmp_path / "killed")) == undisturbed


def test_only_batches_with_views_to_do_are_read():
    assert unfinished_batches(10, np.array([0, 1, 9]), 4).tolist() == [0, 1, 2, 3, 8, 9]
    assert unfinished_batches(10, np.array([], int), 4).tolist() == []


def test_a_clip_that_cannot_be_read_stops_or_is_skipped_and_named(tmp_path):
    root = planted_clips(tmp_path / "set", clips=5, styles=(1, 2))
    (root / "style_2" / "clip002" / "000003.png").write_bytes(b"not an image")
    with pytest.raises(UserError, match=r"clip002/000003.png is not a readable image.*on_error=skip"):
        run(OrderBlind(), root, tmp_path / "run", styles=(1, 2), batch_size=4)
    assert (np.load(tmp_path / "run" / "status.npy") == 1).sum() == 8  # what was read before is kept
    folder = run(OrderBlind(), root, tmp_path / "run", styles=(1, 2), batch_size=4, on_error="skip")
    skipped = Store.open(folder).manifest["skipped_views"]
    assert [s["clip"] for s in skipped] == ["clip002"] and len(skipped[0]["views"]) == 2
    layer = estimate_run(folder, n_boot=20).layers.iloc[0]
    assert layer["pairs_dynamic"] == 4 and layer["pairs_static"] == 9  # one style of clip002 is left
    run(OrderBlind(), root, folder, styles=(1, 2), batch_size=4, on_error="skip")
    assert len(Store.open(folder).manifest["skipped_views"]) == 1


def test_nan_activations_are_named(planted, tmp_path):
    net = OrderBlind()
    net.deep.bias.data[1] = float("nan")
    with pytest.raises(UserError, match="stage2 yields NaN or infinity for clip clip000, style 1, forward"):
        run(net, planted, tmp_path / "run")


def test_a_folder_of_another_run_is_refused(planted, tmp_path):
    run(OrderBlind(), planted, tmp_path / "run")
    views, pairs = (pd.read_parquet(tmp_path / "run" / f"{n}.parquet") for n in ("views", "pairs"))
    manifest = Store.open(tmp_path / "run").manifest
    manifest["identity"]["seed"] = 2
    with pytest.raises(UserError, match="seed: 1 there, 2 now"):
        Store.create_or_resume(tmp_path / "run", manifest, views, pairs)
    (tmp_path / "run" / "activations" / "stage1.npy").write_bytes(b"x")
    with pytest.raises(UserError, match="damaged"):
        Store.open(tmp_path / "run")
