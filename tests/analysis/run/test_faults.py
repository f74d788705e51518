"""Faults during a long run: killed processes, full disks, files that crash or block their reader, NaN."""

import errno
import os
import random
import shutil
import signal
import sys
import time
from dataclasses import fields
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import _utils as torch_workers
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

import main
import static_dynamic.analysis.run.store
from static_dynamic.analysis import estimate_run
from static_dynamic.analysis.run.extraction import extract
from static_dynamic.analysis.run.locks import is_locked, locked, writing
from static_dynamic.analysis.run.progress import progress_of
from static_dynamic.analysis.run.store import Store
from static_dynamic.datasets import ClipList, list_clips, make_views
from static_dynamic.errors import UserError
from static_dynamic.files import atomic_path, write_text
from tests.analysis.manifests import small_manifest
from tests.analysis.run.test_extraction import OrderBlind, T, contents, planted_clips, run
from tests.datasets.test_loader import dataset

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    return planted_clips(tmp_path_factory.mktemp("planted"), clips=24)


def read_slowly(root: Path, folder: Path, pause: float = 0.0) -> None:
    """The extraction of the main job; tests/analysis/tasks/test_profile.py kills the whole job."""
    with writing(folder):
        run(Slow(pause), root, folder, num_workers=1, on_error="skip")


class Slow(OrderBlind):
    """Pauses in each forward pass, so that there is time to kill the process."""

    def __init__(self, pause: float):
        super().__init__()
        self.pause = pause

    def forward(self, x):
        time.sleep(self.pause)
        return super().forward(x)


def _begin(root, folder, ready):
    static_dynamic.analysis.run.store.COMMIT_SECONDS = 0.0
    torch.set_num_threads(1)
    ready.send(None)
    read_slowly(root, folder, pause=0.03)


def test_killed_between_batches_and_in_the_midst_of_them(tmp_path):
    root = planted_clips(tmp_path / "set", clips=10)
    (root / "style_2" / "clip007" / "000003.png").write_bytes(
        b"not an image"
    )  # named once, however often the run is killed
    begin = time.monotonic()
    read_slowly(root, tmp_path / "undisturbed", pause=0.03)
    seconds = time.monotonic() - begin
    undisturbed = contents(tmp_path / "undisturbed")
    processes = get_context("forkserver")
    processes.set_forkserver_preload([__name__])
    moments, kills, folder = random.Random(5), 0, tmp_path / "killed"
    while kills < 10:
        ours, theirs = processes.Pipe()
        victim = processes.Process(target=_begin, args=(root, folder, theirs))
        victim.start()
        ours.recv()
        victim.join(moments.uniform(0, seconds / 3))
        victim.kill()
        victim.join()
        kills += victim.exitcode == -signal.SIGKILL
        if victim.exitcode == 0:  # it ended before it was killed: start again
            assert contents(folder) == undisturbed
            shutil.rmtree(folder)
    read_slowly(root, folder)  # at once: the lock of the killed run is gone
    assert contents(folder) == undisturbed


def _main(arguments, errors):
    torch.set_num_threads(1)
    sys.argv = ["main.py", *arguments]
    with errors.open("w") as file:
        os.dup2(file.fileno(), sys.stderr.fileno())
        sys.exit(main.main())


def test_sigterm_flushes_and_says_so(stylized, tmp_path):
    arguments = [
        *("model=x3d_xs", "model.init=random", "model.input.size=40", "model.input.crop=32"),
        *("num_workers=1", "batch_size=1", "n_boot=20", "dataset=folder", "styles='1,2'"),
        *(f"stylized_data_dir={stylized}", f"run_dir={tmp_path / 'run'}", f"save_dir={tmp_path}"),
    ]
    victim = get_context("forkserver").Process(target=_main, args=(arguments, tmp_path / "errors"))
    victim.start()
    while not (tmp_path / "run" / "manifest.json").exists():
        time.sleep(0.01)
        assert victim.is_alive()
    assert progress_of(tmp_path / "run")["state"] == "running"
    victim.terminate()
    victim.join()
    err = (tmp_path / "errors").read_text()
    assert victim.exitcode == 128 + signal.SIGTERM, err
    assert err.splitlines()[-1] == "terminated; run the same command to resume" and "Trace" not in err
    assert progress_of(tmp_path / "run")["state"] == "stopped"


def _hold(folder, ready):
    with locked(folder):
        ready.send(None)
        if os.fork() == 0:
            time.sleep(60)  # a worker that outlives its parent
        time.sleep(60)


def test_one_run_a_folder_and_a_dead_one_does_not_count(tmp_path):
    processes = get_context("forkserver")
    ours, theirs = processes.Pipe()
    other = processes.Process(target=_hold, args=(tmp_path, theirs))
    other.start()
    ours.recv()
    assert is_locked(tmp_path)
    with pytest.raises(UserError, match="another run is writing .*: wait until that run"), locked(tmp_path):
        pass
    other.kill()
    other.join()
    for name in (".views.part.parquet", "dim_est/.stage1.part.csv"):  # left half-written
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / ".settings.user.yaml").touch()  # a hidden file of another program
    with locked(tmp_path), atomic_path(tmp_path / "layers.csv"):
        with locked(tmp_path):  # a temporary file that is being written stays
            left = {p.name for p in tmp_path.rglob(".*")}
    assert left == {".lock", ".settings.user.yaml", ".layers.part.csv"}
    assert not is_locked(tmp_path)


def test_a_full_disk_is_one_line_and_nothing_is_lost(planted, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        with pytest.raises(UserError, match=r"no space on the disk for .*status.npy .*free some"):
            run(OrderBlind(), planted, tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(Store, "commit", full)
        with pytest.raises(OSError, match="No space left"):
            run(OrderBlind(), planted, tmp_path / "run")
    assert contents(run(OrderBlind(), planted, tmp_path / "run")) == contents(
        run(OrderBlind(), planted, tmp_path / "other")
    )


def test_files_take_their_room_before_anything_is_read(planted, tmp_path):
    folder = run(OrderBlind(), planted, tmp_path / "run")
    for file in [folder / "status.npy", *(folder / "activations").iterdir()]:
        assert file.stat().st_blocks * 512 >= file.stat().st_size


def test_an_error_of_the_system_is_one_line(monkeypatch, capsys):
    def full():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "runs/layers.csv")

    monkeypatch.setattr("static_dynamic.cli.run_task", full)
    monkeypatch.setattr(sys, "argv", ["main.py"])
    assert main.main() == 2
    assert capsys.readouterr().err == (
        "error: no space on the disk for runs/layers.csv: free some space; run the same command to resume\n"
    )


class Deadly(ClipList):
    """Kills the worker that reads style 2 of clip 1."""

    def frames_of(self, video, style):
        if (video, style) == ("clip001", 2):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().frames_of(video, style)


class DeadlyOnce(ClipList):
    """Kills the first worker that reads style 2 of clip 1, as a short lack of memory would."""

    def frames_of(self, video, style):
        mark = self.root / "met"
        if (video, style) == ("clip001", 2) and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().frames_of(video, style)


def trapped(clips: ClipList, kind: type) -> ClipList:
    return kind(**{f.name: getattr(clips, f.name) for f in fields(clips)})


@pytest.fixture
def quick(monkeypatch):
    """Let torch check its workers every 0.2 seconds, not every 5."""
    monkeypatch.setattr(_MultiProcessingDataLoaderIter._try_get_data, "__defaults__", (0.2,))
    monkeypatch.setattr(torch_workers, "MP_STATUS_CHECK_INTERVAL", 0.2)


def read(root, folder, kind=ClipList, **options):
    clips = trapped(list_clips(dataset(root), (1, 2)), kind)
    net = OrderBlind().eval()
    views, pairs = make_views(clips.clips, (1, 2), net.input_spec.pathways, n_sample_frames=T, seed=1)
    stages = {name: {"units": s.units, "stream": s.stream} for name, s in net.stages.items()}
    manifest = small_manifest(stages, views, {"seed": 1})
    store = Store.create_or_resume(folder, manifest, views, pairs)
    options = {"device": torch.device("cpu"), "batch_size": 2, "num_workers": 2} | options
    extract(net, clips, views, store, **options)
    return store


def test_a_file_that_kills_its_reader_is_named_and_skipped(tmp_path, quick):
    root = planted_clips(tmp_path / "set", clips=6, styles=(1, 2))
    with pytest.raises(UserError, match=r"style_2/clip001 crashed its worker \(SIGKILL\), 2 times: repair"):
        read(root, tmp_path / "run", Deadly)
    store = read(root, tmp_path / "run", Deadly, on_error="skip")
    assert [(e["clip"], e["views"]) for e in store.manifest["skipped_views"]] == [("clip001", [6, 7])]
    assert (store.status == 1).sum() == 22 and not len(store.to_do())
    whole = read(root, tmp_path / "whole")
    rows = np.setdiff1d(np.arange(24), [6, 7])
    np.testing.assert_array_equal(store.activations("stage2")[rows], whole.activations("stage2")[rows])


def test_a_worker_lost_once_is_replaced(tmp_path, quick):
    root = planted_clips(tmp_path / "set", clips=4, styles=(1, 2))
    read(root, tmp_path / "run", DeadlyOnce)
    read(root, tmp_path / "other")
    assert contents(tmp_path / "run") == contents(tmp_path / "other")


def test_a_file_that_hangs_is_named_and_skipped(tmp_path, quick):
    root = planted_clips(tmp_path / "set", clips=4, styles=(1, 2))
    hanging = root / "style_1" / "clip002" / "000003.png"
    hanging.unlink()
    os.mkfifo(hanging)  # a reader of a pipe blocks until somebody writes
    store = read(root, tmp_path / "run", on_error="skip", clip_timeout=0.7)
    (entry,) = store.manifest["skipped_views"]
    assert entry["clip"] == "clip002" and "style_1/clip002 was not decoded within 0.7 s" in entry["reason"]
    assert (store.status == 1).sum() == 14


def test_nan_is_named_and_may_be_skipped(planted, tmp_path):
    class Nan(OrderBlind):
        """NaN for the darkest views."""

        def forward(self, x):
            x = x.clone()
            x[x[:, 1].mean((1, 2, 3)) < -0.7] = float("nan")
            return super().forward(x)

    def read_nan(folder, **options):
        return read(planted, folder, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(globals(), "OrderBlind", Nan)
        with pytest.raises(UserError, match="stage1 yields NaN or infinity for clip clip.*nan=skip"):
            read_nan(tmp_path / "a", num_workers=0)
        store = read_nan(tmp_path / "a", nan="skip", num_workers=0)
    skipped = store.manifest["skipped_views"]
    assert 0 < len(skipped) < 48 and len(store.to_do()) == 0
    assert (store.status == 2).sum() == len(skipped) == len({tuple(e["views"]) for e in skipped})
    assert "style" in skipped[0]["reason"]
    for stage in store.stages:
        assert np.isfinite(store.activations(stage)[store.status == 1]).all()
        assert np.isnan(store.activations(stage)[store.status == 2]).all()
    assert estimate_run(tmp_path / "a", n_boot=10).layers["pairs_dynamic"][0] < 24
    with pytest.raises(UserError, match="nan=never; nearest known: error"):
        read_nan(tmp_path / "b", nan="never")


def test_a_view_left_out_is_counted_once(planted, tmp_path):
    store = read(planted, tmp_path / "run", num_workers=0)
    entry = {"clip": "clip000", "views": [0, 1], "reason": "broken"}
    store.skip(np.array([0, 1]), entry["clip"], entry["reason"])
    store.status[:2] = 0  # killed between manifest and status
    store.skip(np.array([0, 1]), entry["clip"], entry["reason"])
    assert store.manifest["skipped_views"] == [entry]
    store.write(np.array([0]), {s: np.ones((1, a["units"])) for s, a in store.stages.items()})
    store.commit()
    assert store.status[0] == 2


def test_status_tells_running_failed_stopped_and_done(planted, tmp_path):
    run(OrderBlind(), planted, tmp_path / "a")
    write_text(tmp_path / "a" / "layers.csv", "")
    assert progress_of(tmp_path / "a")["state"] == "stopped"  # the report is missing, which is written last
    write_text(tmp_path / "a" / "report.html", "")
    assert progress_of(tmp_path / "a") == {
        **{"state": "done", "views": 144, "done": 144, "skipped": 0, "left": 0, "why": ""}
    }
    with pytest.raises(UserError), writing(tmp_path / "a"):
        raise UserError("no such thing")
    failed = progress_of(tmp_path / "a")
    assert failed["state"] == "failed" and failed["why"] == "no such thing"
    with writing(tmp_path / "a"):
        pass
    assert progress_of(tmp_path / "a")["state"] == "done"
