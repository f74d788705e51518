"""Sweeps through SLURM, whose daemons these tests start on this machine."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from getpass import getuser
from multiprocessing import active_children

import pytest

from static_dynamic.analysis.run.progress import progress_of
from static_dynamic.configs.options import check
from static_dynamic.datasets.workers import loader
from static_dynamic.errors import UserError
from tests.analysis.run.test_shards import TINY, bytes_of
from tests.conftest import moving_square, write_frames
from tests.datasets.test_loader import batches
from tests.paths import ROOT

DAEMONS = ("munged", "slurmctld", "slurmd")
TIMEOUT = 60.0  # seconds
CONFIGURATION = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=0,sched_interval=1
JobRequeue=1
KillWait=1
MpiDefault=none
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs=2
PartitionName=gpu Nodes=ALL Default=YES
"""
# A replacement for sacct, whose data base clusters have: it asks the controller.
SACCT = "#!/bin/sh\necho 'JobID|State|NodeList'\nexec squeue --noheader --states=all --format='%i|%T|%N'\n"


def wait_for(found, what):
    """Wait until `found` returns something, and return that."""
    begin = time.monotonic()
    while not (it := found()):
        assert time.monotonic() - begin < TIMEOUT, f"no {what} within {TIMEOUT:g} s"
        time.sleep(0.01)
    return it


class Cluster:
    """A SLURM of one node, all in one folder."""

    def __init__(self, folder):
        self.folder = folder
        self.env = os.environ | {
            "SLURM_CONF": str(folder / "slurm.conf"),
            "PATH": f"{folder}:{os.environ['PATH']}",
            "OMP_NUM_THREADS": "1",  # the last digits of activations depend on it
        }
        for name in ("state", "spool"):
            (folder / name).mkdir()
        (folder / "munge.key").write_bytes(os.urandom(1024))
        (folder / "munge.key").chmod(0o600)
        (folder / "sacct").write_text(SACCT)
        (folder / "sacct").chmod(0o755)
        with ExitStack() as free:
            sockets = [free.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2)]
            ports = [s.getsockname()[1] for s in sockets]
        host = socket.gethostname().partition(".")[0]
        text = CONFIGURATION.format(host=host, ports=ports, user=getuser(), folder=folder)
        (folder / "slurm.conf").write_text(text)
        self.daemons, self.commands = [], []

    def start(self):
        """Start the daemons; skip where they do not run."""
        files = ("socket", "key-file", "pid-file", "log-file", "seed-file")
        munge = [f"--{name}={self.folder}/munge.{name.removesuffix('-file')}" for name in files]
        self.daemon("munged", "--foreground", "--force", "--num-threads=1", *munge)
        self.until((self.folder / "munge.socket").exists)
        for name in DAEMONS[1:]:
            self.daemon(name, "-D", "-c")
        self.until(lambda: self.ask("sinfo", "--noheader", "--format=%T").strip() == "idle")

    def daemon(self, name, *arguments):
        """Start a daemon."""
        with (self.folder / f"{name}.log").open("w") as log:
            self.daemons.append(
                subprocess.Popen([name, *arguments], stdout=log, stderr=log, env=self.env, cwd=self.folder)
            )

    def until(self, ready):
        """Wait for the daemon that was started last."""
        begin = time.monotonic()
        while not ready():
            ended = [daemon.args[0] for daemon in self.daemons if daemon.poll() is not None]
            if ended or time.monotonic() - begin > 15:
                name = ended[0] if ended else self.daemons[-1].args[0]
                said = (self.folder / f"{name}.log").read_text().strip().splitlines()
                pytest.skip(f"{name} does not run here ({said[-1] if said else 'and says nothing'})")
            time.sleep(0.05)

    def stop(self):
        """End commands that wait for jobs, then jobs, then daemons."""
        for command in self.commands:
            if command.poll() is None:
                command.kill()
        begin = time.monotonic()
        while (
            len(self.daemons) == len(DAEMONS)
            and self.ask("squeue", "--noheader")
            and time.monotonic() - begin < 15
        ):
            self.ask("scancel", f"--user={getuser()}")
            time.sleep(0.5)
        for daemon in reversed(self.daemons):
            daemon.terminate()
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()

    def ask(self, *command):
        """Return the output of a SLURM command."""
        return subprocess.run(command, env=self.env, capture_output=True, text=True).stdout

    def sweep(self, *arguments):
        """Start a sweep of jobs, as the README does."""
        launcher = ["hydra/launcher=submitit_slurm", "hydra.launcher.partition=gpu"]
        launcher += ["hydra.launcher.cpus_per_task=1", "hydra.launcher.timeout_min=240"]
        return self.main("-m", *launcher, "hydra.launcher.max_num_timeout=20", *arguments)

    def main(self, *arguments):
        """Start a command of this project."""
        command = [sys.executable, str(ROOT / "main.py"), *map(str, arguments)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self.commands.append(subprocess.Popen(command, env=self.env, text=True, **pipes))
        return self.commands[-1]

    def go_on(self, job):
        """Start a requeued job now; SLURM would wait for two minutes."""
        wait_for(lambda: self.state(job) == "PENDING", f"requeued job {job}")
        self.ask("scontrol", "update", f"JobId={job}", "StartTime=now")

    def state(self, job):
        return self.ask("squeue", "--noheader", f"--jobs={job}", "--states=all", "--format=%T").strip()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    pytest.importorskip("submitit", reason="pip install hydra-submitit-launcher")
    for name in DAEMONS:
        if shutil.which(name) is None:
            pytest.skip(f"{name} is not installed (Debian: apt-get install slurm-wlm munge)")
    cluster = Cluster(tmp_path_factory.mktemp("slurm"))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(scope="module")
def plain(cluster, tmp_path_factory):
    """Two runs without a launcher: (options, folder)."""
    root = tmp_path_factory.mktemp("set")
    for clip in range(16):
        frames = moving_square(clip)
        write_frames(root / "style_1" / f"clip{clip}", frames)
        write_frames(root / "style_2" / f"clip{clip}", 255 - frames[..., ::-1])
    options = [*TINY, "n_permutations=0", "batch_size=1", f"stylized_data_dir={root}"]
    folder = tmp_path_factory.mktemp("plain")
    assert ended(cluster.main("-m", *options, "model=x3d_xs,x3d_s", f"save_dir={folder}"))[0] == 0
    return options, folder


def ended(process):
    """Exit status, stdout and stderr of a command."""
    out, err = process.communicate(timeout=3 * TIMEOUT)
    return process.returncode, out, err


def test_preempted_jobs_go_on_and_are_the_runs(cluster, plain, tmp_path):
    options, folder = plain
    sweep = cluster.sweep(*options, "num_workers=2", "model=x3d_xs,x3d_s", f"save_dir={tmp_path}")
    (log,) = wait_for(lambda: list(tmp_path.glob(".submitit/*_1/*_log.err")), "job")
    wait_for(lambda: re.search(r" [1-9]\d*/64 \[", log.read_text()), "view that is read")
    (run,) = tmp_path.glob("x3d_s/folder/*")
    job = log.parent.name
    assert progress_of(run)["state"] == "running"
    cluster.ask("scancel", "--signal=USR2", job)  # to all processes, as SLURM does before a job's time limit
    wait_for(lambda: cluster.state(job) == "PENDING", "requeued job")
    begun = progress_of(run)
    assert begun["state"] == "stopped" and 0 < begun["done"] < begun["views"] == 64
    cluster.go_on(job)
    status, out, err = ended(sweep)
    assert status == 0, err
    said = log.read_text()
    assert said.count("Calling checkpoint method") == said.count("Requeued job") == 1
    assert f"| {begun['done']}/64 [00:00<?" in said and "Traceback" not in said
    for run in folder.glob("*/folder/*"):
        other = tmp_path / run.relative_to(folder)
        assert bytes_of(other) == bytes_of(run) and progress_of(other)["state"] == "done"


def test_shards_of_requeued_jobs_are_one_run(cluster, plain, tmp_path):
    options, folder = plain
    sweep = cluster.sweep(*options, "shards=2", "shard=0,1", f"save_dir={tmp_path}")
    wait_for(lambda: list(tmp_path.glob("x3d_xs/*/*1-of-2/status.npy")), "run")
    (job,) = (path.name for path in tmp_path.glob(".submitit/*_1"))
    cluster.ask("scontrol", "requeue", job)
    cluster.go_on(job)
    assert ended(sweep)[0] == 0
    assert "Restarts=1" in cluster.ask("scontrol", "show", "job", job)
    status, out, err = ended(cluster.main(*options, "task=merge", f"save_dir={tmp_path}"))
    assert status == 0, err
    (run,) = folder.glob("x3d_xs/folder/*")
    assert bytes_of(tmp_path / run.relative_to(folder)) == bytes_of(run)


def test_a_job_that_fails_says_so_in_one_line(cluster, tmp_path):
    options = [*TINY, f"save_dir={tmp_path}", f"stylized_data_dir={tmp_path / 'nowhere'}"]
    failing = cluster.sweep(*options)
    status, out, err = ended(cluster.sweep(*options, "hydra.launcher.partition=fast"))
    assert status == 2 and "Traceback" not in err
    assert err.splitlines()[-1].startswith("error: sbatch: error: invalid partition specified: fast ")
    status, out, err = ended(failing)
    assert status == 2 and "Traceback" not in err
    assert (
        err.splitlines()[-1]
        == f"error: stylized_data_dir={tmp_path}/nowhere does not exist or is not a folder"
    )


def test_a_wrong_option_of_the_launcher_is_refused_before_a_job():
    pytest.importorskip("submitit", reason="pip install hydra-submitit-launcher")
    with pytest.raises(UserError, match="nearest known: hydra.launcher.partition"):
        check(["-m", "hydra/launcher=submitit_slurm", "hydra.launcher.partitio=gpu"])
    with pytest.raises(UserError, match="Could not find 'hydra/launcher/slurm'; .*: basic, joblib, submitit"):
        check(["-m", "hydra/launcher=slurm"])


def test_workers_leave_the_signals_of_a_cluster_to_the_main_process(stylized, tmp_path):
    answers = tmp_path / "answers"
    answers.mkdir()
    before = signal.signal(signal.SIGUSR2, lambda *_: (answers / str(os.getpid())).touch())
    try:
        _, source = batches(stylized, batch_size=1)
        seen = 0
        for _ in loader(source, 2):
            for process in (os.getpid(), *(worker.pid for worker in active_children())):
                os.kill(process, signal.SIGUSR2)
            seen += 1
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert seen == len(source) and [path.name for path in answers.iterdir()] == [str(os.getpid())]
