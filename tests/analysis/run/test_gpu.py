"""Tests that need a GPU. With several GPUs the last one is used, because it is not the current device."""

import numpy as np
import pytest
import torch

from static_dynamic.analysis import class_feature_pyramid
from static_dynamic.analysis.run import forward
from static_dynamic.analysis.run.extraction import extract
from static_dynamic.analysis.run.forward import Reader, relative_error
from static_dynamic.analysis.run.store import Store
from static_dynamic.datasets import flow_inputs, list_clips, make_views
from static_dynamic.datasets.loader import Decoded
from static_dynamic.device import choose_device
from static_dynamic.models import build_model
from static_dynamic.stylize import build_generator
from static_dynamic.stylize.apply import make_style
from static_dynamic.stylize.checkpoints import save_generator
from static_dynamic.stylize.features import NeighbourDifferences
from static_dynamic.stylize.trainer import StyleTrainer
from static_dynamic.stylize.training_config import read_training_config
from tests.analysis.manifests import small_manifest
from tests.analysis.run.test_extraction import SPEC, OrderBlind, T, contents, planted_clips
from tests.datasets.test_loader import dataset

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")

CPU, GPU = torch.device("cpu"), torch.device("cuda", max(0, torch.cuda.device_count() - 1))


@pytest.fixture(autouse=True)
def exact():
    """Switch TF32 off, with which convolutions agree to three digits only."""
    choose_device("cpu")


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    return planted_clips(tmp_path_factory.mktemp("planted"), clips=40, styles=(1, 2))


def read(net, root, folder, device, **options):
    clips = list_clips(dataset(root), (1, 2))
    views, pairs = make_views(clips.clips, (1, 2), net.input_spec.pathways, n_sample_frames=T, seed=1)
    stages = {name: {"units": s.units, "stream": s.stream} for name, s in net.stages.items()}
    manifest = small_manifest(stages, views, {"seed": 1})
    store = Store.create_or_resume(folder, manifest, views, pairs)
    options = {"batch_size": 8, "num_workers": 0} | options
    extract(net.eval(), clips, views, store, device=device, **options)
    return store


def noise(*shape, device=CPU):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device)


def test_rows_arrive_as_they_are(planted, tmp_path):
    exact = read(OrderBlind(), planted, tmp_path / "cpu", CPU)
    for workers in (0, 2):
        store = read(OrderBlind(), planted, tmp_path / str(workers), GPU, num_workers=workers)
        for stage in store.stages:
            rows, expected = store.activations(stage), exact.activations(stage)
            np.testing.assert_allclose(rows, expected, rtol=1e-4, atol=1e-5)
    assert contents(tmp_path / "0") == contents(tmp_path / "2")


def test_memory_that_really_runs_out():
    class Hungry(OrderBlind):
        """Allocates more memory than the device has for more than two views."""

        def forward(self, x):
            if len(x) > 2:
                total = torch.cuda.get_device_properties(GPU).total_memory
                torch.empty(2 * total, dtype=torch.uint8, device=GPU)
            return super().forward(x)

    net = Hungry().eval()
    reader = Reader(net, list(net.stages), GPU)
    rows = reader.read(noise(7, 3, T, 16, 16, device=GPU))
    assert reader.views_per_pass == 1 and len(rows["stage1"]) == 7


def test_bf16_is_tried_on_the_device():
    net = OrderBlind().eval()
    reader = Reader(net, list(net.stages), GPU)
    reader.try_bf16(noise(8, 3, T, 16, 16, device=GPU))
    assert torch.isfinite(reader.read(noise(2, 3, T, 16, 16, device=GPU))["stage2"]).all()


@pytest.mark.parametrize("name", list(forward.KERNELS))
def test_kernels_yield_the_same_rows(name):
    net, x = OrderBlind().eval(), noise(8, 3, T, 16, 16, device=GPU)
    reader = Reader(net, list(net.stages), GPU)
    exact = reader.read(x)
    reader.use(name)
    for _ in range(2):
        assert max(relative_error(reader.read(x), exact).values()) <= forward.FP32_TOLERANCE


def test_images_and_flow_are_normalised_there():
    draw = np.random.default_rng(0)
    frames = [torch.from_numpy(draw.integers(0, 256, (2, 8, 10, 9), np.uint8)) for _ in range(3)]
    batch = [Decoded(str(i), 1, np.arange(2), [], x) for i, x in enumerate(frames)]
    there, here = flow_inputs(batch, SPEC, GPU), flow_inputs(batch, SPEC, CPU)
    for name, x in here.items():
        torch.testing.assert_close(there[name].cpu(), x)


def test_a_class_leans_on_the_same_kernels():
    net = build_model("x3d_xs")
    video = noise(1, 3, 4, 64, 64)
    maps, features = [], []
    for device in (CPU, GPU):
        pyramid = class_feature_pyramid(net.to(device), net.prepare(video.to(device)), 3, theta=0.7, depth=2)
        maps.append(pyramid.map(0, 3))
        features.append(pyramid.steps[0][1])
    np.testing.assert_array_equal(*features)
    np.testing.assert_allclose(*maps, rtol=1e-3, atol=1e-4)


def test_frames_are_stylized_there(tmp_path):
    save_generator(build_generator((4, 8, 8, 8, 8, 6), 1), tmp_path / "style.safetensors")
    row = {"checkpoint": tmp_path / "style.safetensors"}
    frames = np.random.default_rng(0).integers(0, 256, (5, 21, 30, 3), np.uint8)
    here = make_style(row, CPU, "fp32")(frames)().astype(int)
    for precision, most in (("fp32", 1), ("fp16", 4)):
        there = make_style(row, GPU, precision)
        waits = [
            there(frames[i : i + 1]) for i in range(len(frames))
        ]  # all copies are started before the first is waited for
        assert abs(np.concatenate([wait() for wait in waits]) - here).max() <= most


def test_a_style_learns_there_as_here(tmp_path):
    batch = {"pre": noise(4, 3, 32, 32), "post": noise(4, 3, 32, 32).flip(0)}
    batch |= {"already": noise(4, 3, 32, 32).flip(1), "mask": torch.ones(4, 1, 32, 32)}
    losses = {}
    for device in (CPU, GPU):
        trainer, other = (
            StyleTrainer(
                read_training_config("light"),
                NeighbourDifferences(),
                mask_weights=True,
                device=device,
                seed=1,
            )
            for _ in range(2)
        )
        trainer.step(**batch)
        torch.save(trainer.state_dict(), tmp_path / "state.pt")
        other.load_state_dict(torch.load(tmp_path / "state.pt", map_location="cpu", weights_only=True))
        steps = {state["step"].device for state in other.optimizers["generator"].state.values()}
        assert steps == {CPU}  # on a GPU the host would wait for each of them
        losses[device] = float(other.step(**batch)["generator"])
    assert losses[GPU] == pytest.approx(losses[CPU], rel=0.02)
