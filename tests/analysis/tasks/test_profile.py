"""The whole main job, killed at any moment and on a full disk."""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from static_dynamic.analysis.run.store import DONE
from static_dynamic.analysis.run.tables import SUMS_NAME
from tests.analysis.run.test_extraction import contents, planted_clips
from tests.paths import ROOT

TINY = [
    *("model=x3d_xs", "model.init=random", "model.input.size=40", "model.input.crop=32", "device=cpu"),
    *("dataset=folder", "styles='1,2'", "num_workers=1", "batch_size=1", "n_boot=20", "n_permutations=20"),
    *("joint_encoding=true", "stg=5"),  # writes a figure beside the run folder, too
]
# One thread, because last digits depend on the number of threads. No git, because a commit during the test
# would change the code version in the manifest.
SURROUNDINGS = {"OMP_NUM_THREADS": "1", "GIT_DIR": os.devnull}
KILLS, KILLS_WHILE_READING = 6, 2
PAGE = os.sysconf("SC_PAGE_SIZE")


def start(data: Path, save: Path, errors: Path) -> subprocess.Popen:
    """Start the command in a process of its own."""
    command = [sys.executable, ROOT / "main.py", *TINY, f"stylized_data_dir={data}", f"save_dir={save}"]
    with errors.open("w") as file:
        return subprocess.Popen(
            command, env=os.environ | SURROUNDINGS, cwd=save.parent, stdout=subprocess.DEVNULL, stderr=file
        )


def wait_for_a_line(errors: Path, process: subprocess.Popen) -> float:
    """Wait for the first log line, before anything is written; return the time."""
    while not errors.stat().st_size and process.poll() is None:
        time.sleep(0.002)
    return time.time()


def results(save: Path) -> dict[str, bytes]:
    """All files that runs left, hidden ones too, without the time they took."""
    return {name: data for name, data in contents(save).items() if Path(name).name != "timing.json"}


def differing(got: dict[str, bytes], expected: dict[str, bytes]) -> list[str]:
    return sorted(name for name in {*got, *expected} if got.get(name) != expected.get(name))


def all_read(save: Path) -> bool:
    """Whether every view is on disk."""
    files = [file for file in save.rglob("status.npy") if file.stat().st_size]
    return any((np.load(file) == DONE).all() for file in files)


@dataclass(frozen=True)
class Undisturbed:
    """An undisturbed run: its data, its files, and the seconds from its first line until all views were read
    and until its end."""

    data: Path
    results: dict[str, bytes]
    read: float
    end: float

    def require_whole(self, save: Path) -> None:
        """Files under their final names are complete, except activations that are still being read.

        The list of hashes grows with each table; what it lists is true.
        """
        there = {name: data for name, data in results(save).items() if "/." not in name}
        others = [name for name in differing(there, self.results) if name in there]
        assert [name for name in others if not name.endswith((".npy", "error.txt", SUMS_NAME))] == []
        for name in others:
            if name.endswith(SUMS_NAME):
                listed = set(there[name].splitlines())
                assert listed <= set(self.results[name].splitlines())


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    data = planted_clips(folder / "set", clips=8, styles=(1, 2))
    process = start(data, folder / "runs", folder / "errors")
    begin = wait_for_a_line(folder / "errors", process)
    assert process.wait() == 0, (folder / "errors").read_text()
    left = results(folder / "runs")
    assert {Path(name).suffix for name in left} == {"", ".csv", ".npy", ".parquet", ".png", ".html", ".json"}
    assert all(data or name.endswith(".lock") for name, data in left.items())
    times = {p.name: p.stat().st_mtime - begin for p in (folder / "runs").rglob("*")}
    return Undisturbed(data, left, times["timing.json"], times["report.html"])


def moments(run: Undisturbed, draw: random.Random) -> list[tuple[float, float]]:
    """The interval of seconds for each kill: some while views are read, the others spread over the rest."""
    edges = np.linspace(run.read, run.end, KILLS - KILLS_WHILE_READING + 1)
    rest = list(zip(edges[:-1], edges[1:], strict=True))
    draw.shuffle(rest)
    return [(0.0, run.read)] * KILLS_WHILE_READING + rest


def test_killed_at_random_moments(undisturbed, tmp_path):
    draw, kills, pace = random.Random(5), 0, 1.0
    spans = moments(undisturbed, draw)
    save, errors = tmp_path / "runs", tmp_path / "errors"
    while kills < KILLS:
        moment = pace * draw.uniform(*spans[kills])
        if all_read(save):
            moment -= pace * undisturbed.read  # a resumed run does not read again
        victim = start(undisturbed.data, save, errors)
        begin = wait_for_a_line(errors, victim)
        time.sleep(max(0.0, begin + moment - time.time()))
        victim.kill()
        if victim.wait() == 0:  # it ended before it was killed: start again
            pace *= 0.9
            assert differing(results(save), undisturbed.results) == []
            shutil.rmtree(save)
            continue
        assert victim.returncode == -signal.SIGKILL, errors.read_text()
        undisturbed.require_whole(save)
        kills += 1
    assert start(undisturbed.data, save, errors).wait() == 0, errors.read_text()
    assert differing(results(save), undisturbed.results) == []


@pytest.fixture
def disk(tmp_path):
    """Mount a small disk; call the fixture to set its size in pages."""
    place = tmp_path / "disk"
    place.mkdir()

    def resize(pages: int) -> Path:
        options = f"size={pages * PAGE}" + (",remount" if place.is_mount() else "")
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", place]
        if not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("no disk can be mounted here: begin the tests with unshare --map-root-user --mount")
        return place

    yield resize
    if place.is_mount():
        subprocess.run(["umount", "--lazy", place], check=True)


def full_disks(results: dict[str, bytes]) -> list[tuple[int, str]]:
    """Sizes of a growing disk, and the file that does not fit: first activations, then results one by one."""

    def pages(*names: str) -> int:
        found = [data for file, data in results.items() if any(name in file for name in names)]
        return sum(-(-len(data) // PAGE) for data in found)

    arrays = ("activations/", "status.npy", "checksums.npy", "pixels.npy")
    read = pages(*arrays, "views.parquet", "pairs.parquet")
    begun = read + pages("manifest.json")
    tables = begun + 1 + pages("inputs.parquet", "SHA256SUMS", "/layers.csv", "/units.parquet", "dim_est/")
    return [
        (5, r"activations/stage\d\.npy: free some space;"),
        (read - 2, r"activations/logits\.npy \(\d+ MiB\): free some space and"),
        (begun, "inputs.parquet"),
        (begun + pages("inputs.parquet"), "timing.json"),
        (tables + pages("profile.png") // 2, "profile.png"),
        (pages("") + 1 - pages("report.html") // 2, "report.html"),
    ]


def test_a_disk_that_is_full_stops_the_run_in_one_line_and_nothing_is_lost(undisturbed, disk, tmp_path):
    errors = tmp_path / "errors"
    disks = full_disks(undisturbed.results)
    for k, (size, file) in enumerate(disks):
        save = disk(size) / "runs"
        was_read = all_read(save)
        assert start(undisturbed.data, save, errors).wait() == 2, errors.read_text()
        said = errors.read_text()
        assert re.search(rf"\nerror: no space on the disk for .*{file}.*\n$", said), said
        assert said.count("rror") == 1 and "Traceback" not in said
        assert ("views are on disk" in said) == was_read and all_read(save) == (k >= 3)
        undisturbed.require_whole(save)
        assert [p.name for p in save.rglob(".*")] == [".lock"]
    save = disk(2 * disks[-1][0]) / "runs"
    assert start(undisturbed.data, save, errors).wait() == 0, errors.read_text()
    assert differing(results(save), undisturbed.results) == []
