"""Task ``ablate``: remove units of a stage, and measure what happens to the network's predictions."""

from omegaconf import DictConfig

from static_dynamic.analysis.ablation.ablate_run import ablate_run
from static_dynamic.analysis.run.locks import locked
from static_dynamic.analysis.run.manifest import read_manifest
from static_dynamic.analysis.run.progress import finished_runs
from static_dynamic.analysis.show.ablation import draw_ablation, format_ablation


def run(cfg: DictConfig) -> None:
    """Ablate units in each run folder in ``cfg.runs``; write and print tables, and draw a figure."""
    for folder in finished_runs(cfg, "ablate"):
        identity = read_manifest(folder)["identity"]
        with locked(folder):
            table = ablate_run(cfg, folder)
            name = f"{identity['model']['name']} on {identity['dataset']['name']}"
            draw_ablation(table, folder / "ablation.png", name)
        print(f"{name}, {format_ablation(table)}")
        print(f"\nwritten to {folder}: ablation.csv, ablation.png")
