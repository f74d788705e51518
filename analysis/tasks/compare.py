"""Task ``compare``: compare finished runs in tables and figures."""

from pathlib import Path

from omegaconf import DictConfig

from static_dynamic.analysis.estimate.comparison import compare_runs
from static_dynamic.analysis.run.manifest import read_manifest
from static_dynamic.analysis.run.progress import undamaged
from static_dynamic.analysis.show.comparison_files import write_comparison
from static_dynamic.analysis.show.comparison_tables import as_text
from static_dynamic.errors import UserError
from static_dynamic.files import json_sha256


def run(cfg: DictConfig) -> Path:
    """Compare the runs ``cfg.runs``; print and write tables, draw figures, and return the output folder.

    Damaged runs are left out, and named in the UserError that is raised at the end.
    """
    given = [Path(folder) for folder in cfg.runs]
    runs, errors = undamaged(given)
    iterations = list(cfg.task.iterations)
    if len(iterations) == len(given):
        iterations = [count for count, run in zip(iterations, given, strict=True) if run in runs]
    if errors and len(runs) < 2:
        raise errors[0]
    options = {
        "n_boot": cfg.n_boot,
        "seed": cfg.seed,
        "threshold": cfg.joint_encoding_thresh,
        "fuse": cfg.fuse,
        "stage": None if cfg.stg is None else str(cfg.stg),
        "average_seeds": cfg.task.average_seeds,
        "iterations": iterations,
    }
    comparison = compare_runs(runs, **options, progress=True)
    folder = Path(cfg.task.outdir or _comparison_folder(cfg, runs, options))
    write_comparison(comparison, folder, list(cfg.task.formats))
    print(as_text(comparison))
    print(
        f"\nwritten to {folder}: comparison.md, comparison.tex, curves, plane, classes, ... as csv, tex, png"
    )
    if errors:
        raise UserError(f"{len(errors)} of {len(given)} runs were left out; the first error: {errors[0]}")
    return folder


def _comparison_folder(cfg: DictConfig, runs: list[Path], options: dict) -> Path:
    """Return the output folder ``save_dir/compare/HASH``, where HASH is a hash of the runs and options."""
    identities = [read_manifest(folder)["identity"] for folder in runs]
    return Path(cfg.save_dir) / "compare" / json_sha256([identities, options])[:8]
