"""Profile all networks of the atlas, compare them, and write the tables and figures of docs/atlas.md.

usage: python -m examples.atlas.run [--save_dir DIR] [--docs]

A run that is finished is not repeated, so the same command continues a stopped one.
"""

import argparse
import logging
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.utils import get_method
from omegaconf import DictConfig

from examples.atlas.networks import DATA, Run, all_runs, overrides
from examples.atlas.page import write_page
from static_dynamic.command import exit_status
from static_dynamic.configs import CONFIG_DIR
from static_dynamic.configs.options import check
from static_dynamic.files import atomic_path, json_sha256

DOCS = Path(__file__).parents[2] / "docs"


def composed(options: list[str]) -> DictConfig:
    """Return the checked options of one run of the program, and prepare the data set."""
    check(options)
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        cfg = compose("config", options)
    if cfg.task.get("needs_data") and cfg.dataset.get("prepare"):
        cfg.dataset.root = str(get_method(cfg.dataset.prepare)(cfg.dataset, cfg.style))
    return cfg


def execute(options: list[str], log: Path) -> None:
    """Run the program with `options`; write the printed results to the file `log`."""
    cfg = composed(options)
    log.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(log) as temporary, temporary.open("w") as file, redirect_stdout(file):
        get_method(cfg.task.run)(cfg)


def profile_all(save_dir: Path) -> None:
    """Profile every network on every data set, unless the log of a run shows that the run is finished."""
    runs = all_runs()
    for number, run in enumerate(runs, start=1):
        log = log_of(run, save_dir)
        title = f"run {number} of {len(runs)}: {run.network} {run.weights} on {run.data}"
        if log.exists():
            print(f"{title}: finished before", flush=True)
            continue
        print(title, flush=True)
        wall, cpu = time.time(), time.process_time()
        execute(overrides(run, save_dir), log)
        print(f"    {time.time() - wall:.0f} s, {time.process_time() - cpu:.0f} s of CPU time", flush=True)


def log_of(run: Run, save_dir: Path) -> Path:
    """Return the file with the printed results of a run, which exists if the run is finished."""
    return save_dir / "logs" / f"{run.data}-{run.folder(save_dir).name}.txt"


def compare_all(save_dir: Path) -> None:
    """Write one comparison of all networks per data set, with paired intervals (task=compare)."""
    for data in DATA:
        folders = [str(run.folder(save_dir)) for run in all_runs() if run.data == data]
        outdir = save_dir / "compare" / f"{data}-{json_sha256(folders)[:8]}"
        log = save_dir / "logs" / f"compare-{outdir.name}.txt"
        if log.exists():
            print(f"comparison on {data}: finished before", flush=True)
            continue
        print(f"comparison on {data}", flush=True)
        options = ["task=compare", f"runs=[{','.join(folders)}]", f"task.outdir={outdir}", "n_boot=200"]
        execute([*options, f"save_dir={save_dir}"], log)


def main() -> None:
    """Run everything that is not finished yet."""
    parser = argparse.ArgumentParser(description="Profile the networks of the atlas.")
    parser.add_argument("--save_dir", type=Path, default=Path("dim_outputs/atlas"), help="folder of results")
    parser.add_argument("--docs", action="store_true", help="also write the tables and figures in docs/")
    options = parser.parse_args()
    save_dir = options.save_dir.absolute()
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(message)s")
    profile_all(save_dir)
    compare_all(save_dir)
    print(f"written to {write_page(save_dir, DOCS if options.docs else None)}")


if __name__ == "__main__":
    sys.exit(exit_status(main))
