"""What only a GPU can show; skipped elsewhere."""

import numpy as np
import pytest
import torch

from analysis.extract import extract
from analysis.passes import Reader
from analysis.store import Store
from datasets import list_clips, make_views
from tests.analysis.test_extract import OrderBlind, T, contents, planted_clips
from tests.datasets.test_loader import dataset

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    return planted_clips(tmp_path_factory.mktemp("planted"), clips=40, styles=(1, 2))


def read(net, root, folder, device, **options):
    clips = list_clips(dataset(root), (1, 2))
    views, pairs = make_views(clips.clips, (1, 2), net.input_spec.pathways, n_sample_frames=T, seed=1)
    stages = {name: {"units": s.units, "stream": s.stream} for name, s in net.stages.items()}
    manifest = {"identity": {"seed": 1}, "stages": stages, "skipped_views": []}
    store = Store.create_or_resume(folder, manifest, views, pairs)
    options = {"batch_size": 8, "num_workers": 0} | options
    extract(net.eval(), clips, views, store, device=torch.device(device), **options)
    return store


def test_rows_arrive_as_they_are(planted, tmp_path):
    exact = read(OrderBlind(), planted, tmp_path / "cpu", "cpu")
    for workers in (0, 2):
        store = read(OrderBlind(), planted, tmp_path / str(workers), "cuda", num_workers=workers)
        for stage in store.stages:
            rows, expected = store.activations(stage), exact.activations(stage)
            np.testing.assert_allclose(rows, expected, rtol=1e-2, atol=2e-3)  # TF32 where torch uses it
    assert contents(tmp_path / "0") == contents(tmp_path / "2")


def test_memory_that_really_runs_out(planted):
    class Hungry(OrderBlind):
        """Takes most of the device for more than two views."""

        def forward(self, x):
            if len(x) > 2:
                total = torch.cuda.get_device_properties(0).total_memory
                torch.empty(2 * total, dtype=torch.uint8, device="cuda")
            return super().forward(x)

    net = Hungry().eval()
    reader = Reader(net, list(net.stages), torch.device("cuda"))
    x = torch.randn(7, 3, T, 16, 16, device="cuda")
    rows = reader.read(x)
    assert reader.views_a_pass == 1 and len(rows["stage1"]) == 7


def test_bf16_is_tried_on_the_device(planted):
    net = OrderBlind().eval()
    reader = Reader(net, list(net.stages), torch.device("cuda"))
    reader.try_bf16(torch.randn(8, 3, T, 16, 16, device="cuda"))
    assert torch.isfinite(reader.read(torch.randn(2, 3, T, 16, 16, device="cuda"))["stage2"]).all()
