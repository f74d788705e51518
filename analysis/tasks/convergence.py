"""Task ``convergence``: estimate parts and scores of finished runs from growing numbers of videos."""

from omegaconf import DictConfig

from static_dynamic.analysis.estimate.convergence import estimate_convergence
from static_dynamic.analysis.run.progress import finished_runs
from static_dynamic.analysis.run.tables import write_table
from static_dynamic.analysis.show.figures import draw_convergence
from static_dynamic.analysis.show.parts import NO_PARTS, has_parts


def run(cfg: DictConfig) -> None:
    """Write ``convergence.csv`` and ``convergence.png`` into the folder of each run in ``cfg.runs``."""
    for folder in finished_runs(cfg, "convergence"):
        table = estimate_convergence(folder, cfg.n_boot, cfg.seed, progress=True)
        write_table(folder / "convergence.csv", table)
        draw_convergence(table, folder / "convergence.png")
        if not has_parts(table):
            print(NO_PARTS)
        print(f"written to {folder}: convergence.csv, convergence.png")
