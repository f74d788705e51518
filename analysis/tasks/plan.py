"""Task ``plan``: estimate how large a study has to be, from a small finished run (the pilot)."""

from pathlib import Path

from omegaconf import DictConfig

from static_dynamic.analysis.estimate.estimator import MEASURED
from static_dynamic.analysis.estimate.planning import plan_study
from static_dynamic.analysis.run.manifest import read_manifest
from static_dynamic.analysis.run.tables import write_table
from static_dynamic.analysis.show.parts import NO_PARTS
from static_dynamic.analysis.show.text import format_plan
from static_dynamic.errors import UserError
from static_dynamic.models.stage_names import find_stage

# If the planned size is more than this many times the expected size, a larger pilot run is recommended.
UNSURE = 5


def run(cfg: DictConfig) -> None:
    """Print and write how many videos, clips, views and hours a study needs, estimated from one pilot run."""
    if len(cfg.runs) != 1:
        raise UserError("task=plan needs the folder of one finished run: give runs=[FOLDER]")
    folder, task = Path(cfg.runs[0]), cfg.task
    names = read_manifest(folder)["stages"]
    stage = None if cfg.stg is None else find_stage(cfg.stg, names, cfg)
    table = plan_study(
        folder,
        task.width,
        stage=stage,
        seconds_per_view=task.seconds_per_view,
        n_boot=cfg.n_boot,
        seed=cfg.seed,
    )
    write_table(folder / "plan.csv", table)
    print(f"for 95 % intervals of +- {task.width:g}; planned size: narrow enough intervals in")
    print("about 80 % of studies; in brackets: size by this run's variance itself, enough in about 40 %")
    print("(scores) and 60 % (parts) of studies\n")
    print(format_plan(table))
    if table["score"].isin(MEASURED).all():
        print(f"\n{NO_PARTS}")
    if (table["clusters"] > UNSURE * table["expected_clusters"]).any():
        print(f"\nA planned size is more than {UNSURE} times the size in brackets, because this run has few")
        print("videos or a few videos decide the variance: plan again from a run of more videos")
    print(f"\nwritten to {folder}: plan.csv, with every stage")
