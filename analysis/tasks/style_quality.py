"""Task ``style_quality``: measure whether the styles of a data set keep motion and change appearance."""

import logging
from pathlib import Path

from omegaconf import DictConfig

from static_dynamic.stylize.quality import assess, list_with_originals
from static_dynamic.stylize.quality_report import format_report, report_folder, write_report

log = logging.getLogger(__name__)


def run(cfg: DictConfig) -> Path:
    """Measure each style's quality; write tables and a contact sheet, and return the output folder."""
    listing = list_with_originals(cfg)
    quality = assess(listing, cfg.task, cfg.num_workers, cfg.on_error)
    folder = report_folder(cfg, listing)
    write_report(folder, quality, listing, cfg.task)
    print(format_report(quality, listing, cfg.task))
    print(f"\nwritten to {folder}: styles.csv, pairs.csv, clips.csv, contact_sheet.png, manifest.json")
    for style, reasons in quality.failures.items():
        for reason in reasons:
            log.warning("style %d: %s", style, reason)
    return folder
