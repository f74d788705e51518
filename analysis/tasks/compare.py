"""Task ``compare``: runs side by side, as text, csv, Markdown, LaTeX and figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from static_dynamic.analysis.estimate.comparison import Comparison, compare_runs
from static_dynamic.analysis.run.store import read_manifest
from static_dynamic.analysis.show import comparison_figures as figures
from static_dynamic.analysis.show import comparison_latex as latex
from static_dynamic.analysis.show import comparison_tables as tables
from static_dynamic.files import atomic_path, json_sha256, write_text


def run(cfg: DictConfig) -> Path:
    """Compare ``cfg.runs``: tables on stdout; csv, Markdown, LaTeX and figures into a folder."""
    options = {
        "n_boot": cfg.n_boot,
        "seed": cfg.seed,
        "threshold": cfg.joint_encoding_thresh,
        "fuse": cfg.fuse,
        "stage": None if cfg.stg is None else str(cfg.stg),
        "average_seeds": cfg.task.average_seeds,
        "iterations": list(cfg.task.iterations),
    }
    comparison = compare_runs(cfg.runs, **options, progress=True)
    folder = Path(cfg.task.outdir or comparison_folder(cfg, options))
    write_comparison(comparison, folder, list(cfg.task.formats))
    print(tables.as_text(comparison))
    print(
        f"\nwritten to {folder}: comparison.md, comparison.tex, curves, plane, classes, ... as csv, tex, png"
    )
    return folder


def comparison_folder(cfg: DictConfig, options: dict) -> Path:
    """Folder of this comparison: no two comparisons share one."""
    identities = [read_manifest(Path(folder))["identity"] for folder in cfg.runs]
    digest = json_sha256([identities, options])[:8]
    return Path(cfg.save_dir) / "compare" / digest


def write_comparison(comparison: Comparison, folder: Path, formats: Sequence[str]) -> None:
    """Write every table and figure of a comparison; the same one twice gives the same bytes."""
    for name in ("runs", "layers", "differences", "sweep"):
        with atomic_path(folder / f"{name}.csv") as temporary:
            getattr(comparison, name).to_csv(temporary, index=False)
    write_text(folder / "comparison.md", tables.as_markdown(comparison))
    for name, text in latex.comparison_files(comparison).items():
        write_text(folder / name, text)
    for form in formats:
        figures.draw_comparison(comparison, folder, form)
