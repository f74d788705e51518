"""Task ``calibrate``: compare estimates with the truth of the calibrated data set."""

import sys

from omegaconf import DictConfig, open_dict

from static_dynamic.analysis.estimate.calibration import calibrate, check, mixing_curves
from static_dynamic.analysis.run.locks import writing
from static_dynamic.analysis.run.planned import PlannedRun
from static_dynamic.analysis.run.tables import write_table
from static_dynamic.analysis.show.calibration import draw_calibration, draw_scenes, format_calibration
from static_dynamic.configs import row
from static_dynamic.datasets.calibrated import prepare, read_scenes

# The calibration sets these options, whatever the command line gives.
NEEDED = {"pairs": "factorial", "styles": "1,2,3,4", "stg": None, "until": None, "n_examples": 1_000_000}


def run(cfg: DictConfig) -> None:
    """Run ``model=yardstick`` on ``dataset=calibrated``; write tables and a figure into the run's folder.

    Exits with status 1 if an estimate is outside the bounds that follow from the truth.
    """
    with open_dict(cfg):
        cfg.model = row("model", "yardstick")
        # If the command line gives dataset=calibrated, the data set keeps the options of the command line.
        if cfg.dataset.name != "calibrated":
            cfg.dataset = row("dataset", "calibrated")
        cfg.merge_with(NEEDED)
        cfg.dataset.root = str(prepare(cfg.dataset, cfg.style))
    planned = PlannedRun.of(cfg)
    with writing(planned.folder):
        store = planned.open(planned.folder)
        planned.read(store)
        scenes = read_scenes(planned.clips.root)
        table = calibrate(store, scenes, cfg.n_permutations, cfg.seed)
        curves = mixing_curves(store, scenes)
        checked = check(table, curves)
        for name, numbers in {"calibration": table, "mixtures": curves, "bounds": checked}.items():
            write_table(planned.folder / f"{name}.csv", numbers)
        draw_calibration(table, curves, planned.folder / "calibration.png")
        draw_scenes(planned.clips.root, scenes, planned.folder / "scenes.png")
    print(format_calibration(table, checked))
    written = "calibration.csv, mixtures.csv, bounds.csv, calibration.png, scenes.png"
    print(f"\nwritten to {planned.folder}: {written}")
    if not checked["holds"].all():
        sys.exit(1)
