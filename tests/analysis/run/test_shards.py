"""One run in shards: by separate commands, under torchrun, and by Hydra's launchers."""

import os
import shutil
import signal
import socket
import sys
import time
from io import BytesIO
from multiprocessing import get_context
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_dir

import main
from static_dynamic.analysis.outputs import report
from static_dynamic.analysis.run import shards
from static_dynamic.analysis.run.shards import Shard, merge_shards, shard_of
from static_dynamic.analysis.run.store import Store
from static_dynamic.analysis.show import figures
from static_dynamic.analysis.tasks import merge, profile, status
from static_dynamic.configs import CONFIG_DIR
from static_dynamic.datasets.workers import loader
from static_dynamic.errors import UserError
from tests.analysis.run.test_extraction import contents
from tests.datasets.test_loader import batches

pytestmark = pytest.mark.usefixtures("one_thread")

TINY = [
    *("model=x3d_xs", "model.init=random", "model.input.size=40", "model.input.crop=32", "num_workers=0"),
    *("n_boot=20", "dataset=folder", "styles='1,2'", "batch_size=3", "device=cpu"),
]


def asked(*arguments):
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        return compose("config", overrides=[*TINY, *map(str, arguments)])


def bytes_of(folder: Path) -> dict[str, bytes]:
    """The files of a run, without the time it took."""
    return {name: data for name, data in contents(folder).items() if name != "timing.json"}


def assert_same(got: dict[str, bytes], expected: dict[str, bytes]) -> None:
    """Assert equal bytes; estimates may differ in last digits, which depend on the number of threads."""
    assert "activations/stage5.npy" in expected and "layers.csv" in expected
    for name, data in expected.items():
        if name.startswith(("layers", "units", "variance")):
            read = pd.read_csv if name.endswith(".csv") else pd.read_parquet
            pd.testing.assert_frame_equal(read(BytesIO(got[name])), read(BytesIO(data)), rtol=1e-7, atol=1e-9)
        else:
            assert got[name] == data, name


def undrawn(monkeypatch) -> None:
    """Leave out figures and report, which take longest."""
    for name in ("draw_profile", "draw_variance"):
        monkeypatch.setattr(figures, name, lambda *_, **__: None)
    monkeypatch.setattr(report, "write_report", lambda *_, **__: None)


@pytest.fixture
def whole(stylized, tmp_path, monkeypatch):
    """A run by one process: (arguments, folder)."""
    undrawn(monkeypatch)
    data = f"stylized_data_dir={stylized}"
    return data, profile.run(asked(data, f"save_dir={tmp_path / 'whole'}"))


@pytest.mark.parametrize("n_views", [16, 17, 3, 1])
@pytest.mark.parametrize("of", [2, 3, 7])
def test_shards_are_whole_batches_and_all_views(n_views, of):
    manifest = {"identity": {"seed": 1}, "counts": {"views": n_views}}
    ends = [Shard(k, of, 4).manifest(manifest)["identity"]["shard"] for k in range(of)]
    rows = np.concatenate([np.arange(s["first"], s["end"]) for s in ends])
    np.testing.assert_array_equal(rows, np.arange(n_views))
    assert all(s["first"] % 4 == 0 or s["first"] == n_views for s in ends)


def test_merged_shards_are_the_run(whole, tmp_path, capsys):
    data, run = whole
    save = f"save_dir={tmp_path / 'shares'}"
    first = profile.run(asked(data, save, "shards=2", "shard=1"))
    assert first.name == f"{run.name}.1-of-2"
    with pytest.raises(UserError, match="1 of 1 runs were not merged.*run the command with shards=2 shard=0"):
        merge.run(asked("task=merge", save))
    with pytest.raises(UserError, match="is shard 1 of 2: merge the shards first"):
        Store.open(first).require_finished()
    profile.run(asked(data, save, "shards=2", "shard=0"))
    merge.run(asked("task=merge", save))
    merged = tmp_path / "shares" / run.relative_to(tmp_path / "whole")
    assert bytes_of(merged) == bytes_of(run)
    merge.run(
        asked("task=merge", f"runs=[{first.with_name(run.name)}.0-of-2,{first}]")
    )  # a second merge gives the same bytes
    assert bytes_of(merged) == bytes_of(run)
    assert profile.run(asked(data, save, "shards=2", "shard=0")) == merged  # nothing is read again
    (merged / "report.html").touch()  # left out above, but the state `done` requires it
    capsys.readouterr()
    status.run(asked("task=status", save))
    table = capsys.readouterr().out.splitlines()
    assert len(table) == 6 and table[1].split()[1:3] == ["done", "16"]
    assert table[-1] == "3 runs: 2 to be merged, 1 done; 32 of 32 views are read"


def test_shards_that_do_not_belong_together_are_refused(whole, tmp_path):
    data, run = whole
    save = f"save_dir={tmp_path / 'shares'}"
    a = profile.run(asked(data, save, "shards=2", "shard=0"))
    b = profile.run(asked(data, save, "shards=2", "shard=1", "seed=2"))
    with pytest.raises(UserError, match="do not belong to the same run .*seed: 1 there, 2 now"):
        merge_shards(tmp_path / "merged", [a, b])
    with pytest.raises(UserError, match="is not a shard: task=merge"):
        merge_shards(tmp_path / "merged", [run])
    with pytest.raises(UserError, match="names of shard folders end in .K-of-N"):
        merge.run(asked("task=merge", f"runs=[{run}]"))
    with pytest.raises(UserError, match="shard.batch_size: 3 there, 2 now"):
        profile.run(asked(data, save, "shards=2", "shard=0", "batch_size=2"))
    status_file = np.load(a / "status.npy", mmap_mode="r+")
    status_file[0] = 0
    with pytest.raises(UserError, match="1 of 9 views of .* not computed yet: run the command of this shard"):
        merge_shards(tmp_path / "merged", [a, b])


def test_which_shard_this_is(monkeypatch):
    assert shard_of(asked(), 3) is None
    assert shard_of(asked("shards=4", "shard=3"), 3) == Shard(3, 4, 3)
    with pytest.raises(UserError, match="shard=4 does not exist: with shards=4, give shard=0 to 3"):
        shard_of(asked("shards=4", "shard=4"), 3)
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "RANK": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    assert shard_of(asked(), 3) == Shard(1, 2, 3, torchrun=True)
    with pytest.raises(UserError, match="under torchrun each process computes one shard"):
        shard_of(asked("shards=2"), 3)


def _rank(rank, port, arguments):
    torch.set_num_threads(1)
    os.environ |= {"TORCHELASTIC_RUN_ID": "x", "RANK": str(rank), "LOCAL_RANK": str(rank)}
    os.environ |= {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    with pytest.MonkeyPatch.context() as patch:
        undrawn(patch)
        profile.run(asked(*arguments))


def test_processes_of_torchrun_share_a_run(whole, tmp_path):
    data, run = whole
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = get_context("forkserver")
    processes.set_forkserver_preload([__name__])
    arguments = [data, f"save_dir={tmp_path / 'ranks'}"]
    ranks = [processes.Process(target=_rank, args=(rank, port, arguments)) for rank in (0, 1)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join()
    assert [rank.exitcode for rank in ranks] == [0, 0]
    (merged,) = (tmp_path / "ranks" / "x3d_xs" / "folder").iterdir()  # the shards are gone
    assert bytes_of(merged).keys() == bytes_of(run).keys()
    assert_same(bytes_of(merged), bytes_of(run))


def _sweep(arguments):
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"  # also for the job
    sys.argv = ["main.py", "-m", *arguments]
    sys.exit(main.main())


def test_a_preempted_job_of_submitit_is_requeued_and_goes_on(stylized, tmp_path, monkeypatch):
    pytest.importorskip("submitit", reason="pip install hydra-submitit-launcher")
    arguments = [*TINY, f"stylized_data_dir={stylized}", "batch_size=1"]
    save = tmp_path / "sweep"
    sweep = get_context("forkserver").Process(
        target=_sweep, args=([*arguments, f"save_dir={save}", "hydra/launcher=submitit_local"],)
    )
    sweep.start()
    while not (statuses := list(save.rglob("status.npy"))):
        assert sweep.is_alive()
        time.sleep(0.005)
    (job,) = (int(p.name) for p in (save / ".submitit").iterdir() if p.name.isdigit())
    (task,) = Path(f"/proc/{job}/task/{job}/children").read_text().split()
    os.kill(int(task), signal.SIGUSR2)  # as SLURM does before it preempts a job
    sweep.join()
    assert sweep.exitcode == 0
    assert "Requeued job" in (save / ".submitit" / str(job) / f"{job}_0_log.out").read_text()
    folder = statuses[0].parent
    requeued = bytes_of(folder)
    shutil.rmtree(folder)
    undrawn(monkeypatch)
    assert profile.run(asked(*arguments[len(TINY) :], f"save_dir={save}")) == folder
    assert_same(requeued, bytes_of(folder))


def _frames_seen(root):
    return [len(batch) for batch in loader(batches(root)[1], 1)]


def test_jobs_of_joblib_have_workers_of_their_own(stylized):
    seen = joblib.Parallel(n_jobs=2)(joblib.delayed(_frames_seen)(stylized) for _ in range(2))
    assert seen == [[2, 2, 2, 2]] * 2


def test_nothing_to_merge(tmp_path):
    with pytest.raises(UserError, match="no shards below"):
        merge.run(asked("task=merge", f"save_dir={tmp_path}"))
    with pytest.raises(UserError, match="no run below"):
        status.run(asked("task=status", f"save_dir={tmp_path}"))
    assert not shards.is_complete(tmp_path)
