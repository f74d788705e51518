"""Task ``probe``: decode named variables from the units of each stage of finished runs."""

from omegaconf import DictConfig

from static_dynamic.analysis.estimate.probe import probe_run
from static_dynamic.analysis.estimate.probe_variables import variables_of
from static_dynamic.analysis.run.progress import finished_runs
from static_dynamic.analysis.run.store import Store
from static_dynamic.analysis.run.tables import write_table
from static_dynamic.analysis.show.probe import draw_probes, format_probes
from static_dynamic.errors import UserError


def run(cfg: DictConfig) -> None:
    """Write ``probe.csv``, ``probe_variables.csv`` and ``probe.png`` into each run folder in ``cfg.runs``."""
    task = cfg.task
    folders = finished_runs(cfg, "probe")
    if task.untrained and len(folders) > 1:
        raise UserError("task.untrained belongs to one run: give one folder in runs=[FOLDER]")
    for folder in folders:
        chosen = variables_of(Store.open(folder), task.variables, task.csv, task.circular, task.classes)
        probes = probe_run(
            folder,
            chosen,
            task.untrained,
            folds=task.folds,
            n_permutations=cfg.n_permutations,
            n_boot=cfg.n_boot,
            seed=cfg.seed,
            progress=True,
        )
        for name, table in probes.tables.items():
            write_table(folder / name, table)
        draw_probes(probes, folder / "probe.png")
        print(format_probes(probes))
        print(f"\nwritten to {folder}: {', '.join(probes.tables)}, probe.png")
