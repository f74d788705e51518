"""Out of memory, bf16 and other kernels, with networks that fail as devices do."""

import threading
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from static_dynamic.analysis.run import forward
from static_dynamic.analysis.run.extraction import extract
from static_dynamic.analysis.run.forward import Reader, relative_error
from static_dynamic.analysis.run.identity import identity_of
from static_dynamic.analysis.run.manifest import write_manifest
from static_dynamic.analysis.run.setup import batch_size_of
from static_dynamic.analysis.run.store import Store
from static_dynamic.datasets import ClipList, list_clips, make_views
from static_dynamic.datasets.prefetch import ahead
from static_dynamic.device import choose_device
from static_dynamic.errors import UserError
from static_dynamic.models import Stage, Tap, VideoNetwork
from tests.analysis.manifests import IDENTITY, small_manifest
from tests.analysis.run.test_extraction import OrderBlind, T, contents, planted_clips
from tests.analysis.run.test_shards import asked
from tests.datasets.test_loader import dataset

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    return planted_clips(tmp_path_factory.mktemp("planted"), clips=8, styles=(1, 2))


def read(net, root, folder, **options):
    clips = list_clips(dataset(root), (1, 2))
    views, pairs = make_views(clips.clips, (1, 2), net.input_spec.pathways, n_sample_frames=T, seed=1)
    stages = {name: {"units": s.units, "stream": s.stream} for name, s in net.stages.items()}
    manifest = small_manifest(stages, views, {"seed": 1})
    store = Store.create_or_resume(folder, manifest, views, pairs)
    options = {"device": CPU, "batch_size": 8, "num_workers": 0} | options
    extract(net.eval(), clips, views, store, **options)
    return store


class Small(OrderBlind):
    """Runs out of memory above `most` views; records the number of views per pass."""

    def __init__(self, most):
        super().__init__()
        self.most, self.seen = most, []

    def forward(self, x):
        if len(x) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")
        self.seen.append(len(x))
        return super().forward(x)


class WrongInBf16(OrderBlind):
    """Wrong under autocast, as 3D convolutions of some libraries are."""

    def forward(self, x):
        if torch.is_autocast_enabled("cpu"):
            x = x.roll(1, dims=-1) * torch.linspace(0, 2, x.shape[-1])
        return super().forward(x)


def test_passes_shrink_where_memory_runs_out(planted, tmp_path):
    whole = read(OrderBlind(), planted, tmp_path / "whole")
    net = Small(3)
    store = read(net, planted, tmp_path / "run")
    assert set(net.seen) == {2} and store.manifest["views_a_pass"] == 2
    for stage in store.stages:
        np.testing.assert_allclose(store.activations(stage), whole.activations(stage), rtol=1e-5, atol=1e-6)
    # a resumed run does not try the size again that did not fit
    store.status[8:] = 0
    net = Small(3)
    net.most = 99
    read(net, planted, tmp_path / "run")
    assert set(net.seen) == {2}


def test_a_view_that_does_not_fit_is_one_line(planted, tmp_path):
    with pytest.raises(UserError, match="one view does not fit in the memory of cpu"):
        read(Small(0), planted, tmp_path / "run")


def test_frames_that_do_not_fit_are_one_line(planted, tmp_path, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")

    monkeypatch.setattr(ClipList, "to_inputs", full)
    with pytest.raises(
        UserError, match="the frames of 8 views do not fit in the memory of cpu: give a smaller"
    ):
        read(OrderBlind(), planted, tmp_path / "run")


def test_rows_on_their_way_are_waited_for_on_their_own_device(monkeypatch):
    """The current device is the first one, on whichever device the rows are."""

    class OnGpu(torch.Tensor):
        is_cuda, device = True, torch.device("cuda", 1)

    waited, empty = [], torch.empty
    monkeypatch.setattr(torch, "empty", lambda *shape, pin_memory, **options: empty(*shape, **options))
    monkeypatch.setattr(
        torch.cuda, "Event", lambda: SimpleNamespace(record=lambda stream: waited.append(stream))
    )
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: device)
    forward.PendingRows({"stage1": torch.ones(2, 3).as_subclass(OnGpu)})
    assert waited == [torch.device("cuda", 1)]


@pytest.mark.parametrize("form", ["tensor", "list", "dict"])
def test_every_form_of_input_is_cut(form):
    x = torch.arange(5.0)
    inputs = {"tensor": x, "list": [x, -x], "dict": {"Image": x, "Flow": -x}}[form]
    assert forward.count_views(inputs) == 5
    part = forward.take_views(inputs, slice(1, 3))
    flat = part if form == "tensor" else list(part.values() if form == "dict" else part)[1]
    assert flat.abs().tolist() == [1, 2]


def test_bf16_behind_its_gate(planted, tmp_path, caplog):
    exact = read(OrderBlind(), planted, tmp_path / "fp32")
    store = read(OrderBlind(), planted, tmp_path / "bf16", precision="bf16")
    assert store.manifest["computed_with"] == {"precision": "bf16", "kernels": []}
    off = relative_error(*({s: torch.tensor(x.activations(s)) for s in store.stages} for x in (store, exact)))
    assert 0 < max(off.values()) <= forward.BF16_TOLERANCE
    caplog.clear()
    right = read(WrongInBf16(), planted, tmp_path / "refused", precision="bf16")
    assert right.manifest["computed_with"] == {"precision": "fp32", "kernels": []}
    assert "staying in fp32" in caplog.text
    for stage in right.stages:
        np.testing.assert_array_equal(right.activations(stage), exact.activations(stage))
    right.status[8:] = 0  # a run that began in fp32 stays in fp32, even if bf16 would agree
    read(OrderBlind(), planted, tmp_path / "refused", precision="bf16")
    for stage in right.stages:
        np.testing.assert_array_equal(right.activations(stage), exact.activations(stage))
    with pytest.raises(UserError, match="precision=fp16; nearest known: (bf16|fp32)"):
        read(OrderBlind(), planted, tmp_path / "other", precision="fp16")


def test_relative_error_is_relative_to_what_views_differ_by():
    draw = torch.Generator().manual_seed(0)
    truth = 100 + torch.randn(500, 4, generator=draw)
    rows = truth + 0.1 * torch.randn(500, 4, generator=draw)
    slow = float(((rows - truth) ** 2).mean() ** 0.5 / truth.var(0, unbiased=False).mean() ** 0.5)
    assert relative_error({"s": rows}, {"s": truth})["s"] == pytest.approx(slow, rel=1e-3)
    assert slow == pytest.approx(0.1, rel=0.1)
    dead = torch.ones(5, 2)
    assert relative_error({"s": dead}, {"s": dead}) == {"s": 0}
    assert relative_error({"s": dead + 1e-9}, {"s": dead}) == {"s": 0}
    assert relative_error({"s": dead + 1}, {"s": dead})["s"] == float("inf")
    assert relative_error({"s": dead * float("nan")}, {"s": truth[:5, :2]})["s"] == float("inf")


def test_kernels_are_used_where_they_are_faster_and_right(planted, tmp_path, monkeypatch):
    def wrong(reader):
        reader.net.conv.weight.data += 0.5

    def broken(reader):
        raise RuntimeError("no compiler")

    def right(reader):
        reader.net.found_right = True

    monkeypatch.setattr(forward, "KERNELS", {"wrong": wrong, "broken": broken, "slow": right, "right": right})
    measured = iter([10.0, 1.0, 2.0])  # of all kernels but the broken one
    monkeypatch.setattr(forward, "speedup", lambda *_: next(measured))
    store = read(OrderBlind(), planted, tmp_path / "run", tune=True)
    assert store.manifest["computed_with"] == {"precision": "fp32", "kernels": ["right"]}
    other = read(OrderBlind(), planted, tmp_path / "other")
    for stage in store.stages:
        np.testing.assert_array_equal(store.activations(stage), other.activations(stage))
    store.status[8:] = 0
    net = OrderBlind()
    read(net, planted, tmp_path / "run", tune=True)  # measures nothing: `measured` is exhausted
    assert net.found_right


@pytest.mark.parametrize("off, kernels", [(0.02, ["other"]), (0.2, [])])
def test_in_bf16_kernels_are_held_against_fp32(planted, tmp_path, monkeypatch, off, kernels):
    """Two results that are both rounded to bf16 differ by more than each differs from fp32."""

    def other(reader):
        reader.net.conv.weight.data *= 1 + off

    monkeypatch.setattr(forward, "KERNELS", {"other": other})
    monkeypatch.setattr(forward, "speedup", lambda *_: 2.0)
    for precision, used in (("bf16", kernels), ("fp32", [])):
        store = read(OrderBlind(), planted, tmp_path / precision, precision=precision, tune=True)
        assert store.manifest["computed_with"] == {"precision": precision, "kernels": used}


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.block = nn.Sequential(nn.Linear(width, width + 1))

    def forward(self, x):
        return self.block(x)


def test_every_block_is_compiled(monkeypatch):
    """By default, torch stops compiling after eight blocks of one class with different widths."""
    compiled = []

    def backend(graph, example):
        compiled.append(graph)
        return graph.forward

    class Net(VideoNetwork):
        stages = {f"s{i}": Stage(i + 2, (Tap(f"{i}.block", layout="tokens"),)) for i in range(13)}

        def __init__(self):
            super().__init__()
            for i in range(13):
                self.add_module(str(i), Block(i + 1))

        def forward(self, x):
            for block in self.children():
                x = block(x)
            return x

    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    net = Net().eval()
    reader = Reader(net, list(net.stages), CPU)
    reader.use("compile")
    reader.read(torch.randn(3, 4, 1))
    assert len(compiled) == 13


@pytest.mark.parametrize("name", list(forward.KERNELS))
def test_kernels_yield_the_same_rows(name, monkeypatch):
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    net = OrderBlind().eval()
    x = torch.randn(3, 3, T, 16, 16, generator=torch.Generator().manual_seed(0))
    expected = net.read(x)
    reader = Reader(net, list(net.stages), CPU)
    reader.use(name)
    for _ in range(2):  # hooks are registered again for each pass
        rows = reader.read(x)
        for stage, values in expected.items():
            torch.testing.assert_close(rows[stage], values, rtol=1e-4, atol=1e-5)
    assert 0 < forward.speedup(reader, Reader(net, list(net.stages), CPU), x) < float("inf")


def test_fp32_means_fp32():
    backends = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [backend.allow_tf32 for backend in backends]
    for backend in backends:
        backend.allow_tf32 = True
    try:
        choose_device("cpu")
        assert not any(backend.allow_tf32 for backend in backends)
    finally:
        for backend, allowed in zip(backends, before, strict=True):
            backend.allow_tf32 = allowed


def test_the_automatic_batch_size_is_that_of_the_beginning(tmp_path):
    assert batch_size_of(asked("batch_size=5"), tmp_path) == 5
    assert batch_size_of(asked("batch_size=auto"), tmp_path) == 2
    write_manifest(tmp_path, {"identity": IDENTITY, "batch_size": 64})  # the run began on a GPU
    assert batch_size_of(asked("batch_size=auto"), tmp_path) == 64


def test_precision_is_part_of_what_a_run_is_and_defaults_are_not(stylized):
    def identity(*arguments):
        return identity_of(asked(*arguments), list_clips(dataset(stylized), (1, 2)), None, 8)

    usual = identity()
    assert {"precision", "tune", "shard", "nan"}.isdisjoint(usual)
    assert identity("precision=bf16") == usual | {"precision": "bf16"}
    assert identity("tune=true") == usual | {"tune": True}


def test_a_thread_works_ahead():
    made = []

    def make(i):
        made.append(i)
        return i * i

    assert list(ahead(range(20), make)) == [i * i for i in range(20)]
    made.clear()
    threads = threading.active_count()
    taken = ahead(range(20), make, depth=2)
    assert next(taken) == 0
    taken.close()  # the consumer stops early
    assert len(made) <= 5 and threading.active_count() == threads

    def breaks(i):
        if i == 3:
            raise UserError("the fourth")
        return i

    got = []
    with pytest.raises(UserError, match="the fourth"):
        for i in ahead(range(20), breaks):
            got.append(i)
    assert got == [0, 1, 2]


def test_sampled_views_that_cannot_be_read(tmp_path):
    root = planted_clips(tmp_path / "set", clips=2, styles=(1, 2))
    before = contents(root)
    for file in root.rglob("000003.png"):
        file.write_bytes(b"no image")
    with pytest.raises(UserError, match="precision=bf16 and tune=true are tested on .* unreadable"):
        read(OrderBlind(), root, tmp_path / "run", precision="bf16", on_error="skip")
    name = next(n for n in before if n.startswith("style_1/clip000/000003"))
    (root / name).write_bytes(before[name])
    store = read(OrderBlind(), root, tmp_path / "run", precision="bf16", on_error="skip")
    assert (store.status == 1).sum() == 2
