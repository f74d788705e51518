"""Outputs of a finished run: tables, figures, HTML report, and files in the format of Kowal et al.'s code.

Each module of this folder holds one output, a function of a `FinishedRun` that is decorated with `register`.
To add a measure or a figure, add a module; the modules are imported automatically.
"""

from pathlib import Path

from static_dynamic.analysis.estimate.bootstrap import estimate_run
from static_dynamic.analysis.outputs.registry import FinishedRun, Options, write_outputs
from static_dynamic.analysis.run.manifest import read_manifest


def conclude(options: Options, folder: Path, stage: str, shown: list[str]) -> None:
    """Estimate all scores of a run whose activations are on disk, and write tables, figures and report.

    `stage` is the stage that files of one stage describe, `shown` are the stages of tables and curves.
    """
    estimate = estimate_run(
        folder,
        options.n_boot,
        options.seed,
        threshold=options.joint_encoding_thresh,
        n_permutations=options.n_permutations,
        progress=True,
    )
    write_outputs(FinishedRun(folder, options, read_manifest(folder), stage, shown, estimate))
    print(f"\nwritten to {folder}: report.html, layers.csv, units.parquet, profile.png, ...")
