"""Task ``units``: count units per kind and per class; show the clips that contribute most to top units."""

import numpy as np
import pandas as pd
from omegaconf import DictConfig
from tqdm import tqdm

from static_dynamic.analysis.estimate.tables import read_units
from static_dynamic.analysis.estimate.top_parts import kinds_of, top_parts
from static_dynamic.analysis.estimate.units import counts_at, sweep_thresholds, top_units
from static_dynamic.analysis.run.progress import finished_runs
from static_dynamic.analysis.run.store import Store
from static_dynamic.analysis.run.tables import write_table
from static_dynamic.analysis.show import unit_figures
from static_dynamic.analysis.show.strips import read_strips
from static_dynamic.analysis.show.text import align
from static_dynamic.models.stage_names import find_stage


def run(cfg: DictConfig) -> None:
    """Write tables, figures and a contact sheet about units into each run folder in ``cfg.runs``."""
    task = cfg.task
    for folder in tqdm(finished_runs(cfg, "units"), desc="units", unit="run", delay=5):
        units = read_units(folder)
        sweep = sweep_thresholds(units, np.round(np.arange(task.least, task.most + 1e-9, task.step), 6))
        write_table(folder / "thresholds.csv", sweep)
        threshold = cfg.joint_encoding_thresh
        unit_figures.draw_thresholds(sweep, folder / "thresholds.png", threshold)
        unit_figures.draw_histograms(units, folder / "histograms.png", threshold)
        names = list(units["stage"].unique())
        stage = names[-1] if cfg.stg is None else find_stage(cfg.stg, names, cfg)
        store = Store.open(folder)
        top = top_units(store, units, stage, threshold, task.top, task.clips)
        write_table(folder / "top_units.csv", top)
        print(align(counts_at(units, threshold).reset_index().to_dict("records")))
        parts = top_parts(store, units, stage, task.top, task.clips)
        if len(parts):
            write_table(folder / "top_parts.csv", parts)
            unit_figures.draw_parts(units, folder / "parts.png")
            print(f"\n{align(kinds_of(units))}")
        strips = read_strips(store, pd.concat([top, parts]), task.data_root)
        if strips and len(top):
            title = f"{stage}: units with the highest scores of the paper, and the clips that drive them most"
            unit_figures.draw_sheet(top, strips, folder / "top_units.jpg", title)
        if strips and len(parts):
            title = f"{stage}: units with the largest parts, and the clips that drive them most"
            unit_figures.draw_sheet(parts, strips, folder / "top_parts.jpg", title, "kind")
        written = ["thresholds.csv", "thresholds.png", "histograms.png", "top_units.csv"]
        written += ["parts.png", "top_parts.csv"] if len(parts) else []
        written += ["top_units.jpg"] if strips and len(top) else []
        written += ["top_parts.jpg"] if strips and len(parts) else []
        print(f"\nwritten to {folder}: {', '.join(written)}", end="")
        why = f"no unit of {stage} has a score above {threshold}" if top.empty else "imported without videos"
        print("" if strips and len(top) else f"; no top_units.jpg ({why})")
