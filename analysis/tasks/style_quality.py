"""Task ``style_quality``."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pandas as pd
from omegaconf import DictConfig, OmegaConf

from static_dynamic.assets import versions
from static_dynamic.files import atomic_path, write_text
from static_dynamic.stylize import quality_report
from static_dynamic.stylize.quality import (
    ORIGINAL,
    judge,
    list_with_originals,
    measure_all,
    run_folder,
    spread,
    summarise,
)

log = logging.getLogger(__name__)


def run(cfg: DictConfig) -> Path:
    """Judge the styles of ``cfg.dataset``; print the table, write csv files and the contact sheet."""
    listing = list_with_originals(cfg)
    task = cfg.task
    chosen = spread(listing.clips, task.clips)
    cards, skipped = measure_all(listing, chosen, task, cfg.num_workers, cfg.on_error)
    rows = pd.DataFrame([row for one in cards for row in one.rows])
    distances = pd.DataFrame([row for one in cards for row in one.distances])
    styles, pairs = summarise(rows, distances)
    failures = judge(styles, pairs, task)
    styles["verdict"] = ["; ".join(failures[k]) or "good" if k != ORIGINAL else "" for k in styles.index]

    folder = run_folder(cfg, listing)
    tables = {"styles": styles.reset_index(), "pairs": pairs.reset_index(), "clips": rows}
    for name, table in tables.items():
        with atomic_path(folder / f"{name}.csv") as temporary:
            table.to_csv(temporary, index=False)
    quality_report.draw_sheet(
        folder / "contact_sheet.png", styles, [one.pictures for one in spread(cards, task.sheet_rows)]
    )
    manifest = {
        "dataset": listing.name,
        "root": str(listing.root),
        "listing_sha256": listing.listing_sha256,
        "task": OmegaConf.to_container(task, resolve=True),
        "clips": [clip.id for clip in chosen],
        "skipped": [*map(list, listing.skipped), *skipped],
        "versions": versions(),
    }
    write_text(folder / "manifest.json", json.dumps(manifest, indent=2) + "\n")
    print(
        f"{listing.name}: {len(cards)} clips, {task.frame_pairs} pairs of frames each; medians over clips\n"
    )
    print(quality_report.format_styles(styles))
    print(
        f"\nstyles from each other (colour in Lab units, texture in octaves)\n\n{quality_report.format_pairs(pairs)}"
    )
    print(f"\nwritten to {folder}: styles.csv, pairs.csv, clips.csv, contact_sheet.png, manifest.json")
    for style, reasons in failures.items():
        for reason in reasons:
            log.warning("style %d: %s", style, reason)
    return folder
