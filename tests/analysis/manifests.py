"""Manifests of small runs, with every entry that a run folder must have."""

import pandas as pd

from static_dynamic.analysis.run.arrays import CHECKSUMS_NAME, PIXELS_NAME
from static_dynamic.analysis.run.manifest import read_manifest, write_manifest
from static_dynamic.analysis.run.resume import INPUTS_NAME
from static_dynamic.analysis.run.tables import SUMS_NAME

IDENTITY = {
    "model": {"name": "tiny", "init": "random"},
    "dataset": {"name": "folder", "folder": "videos"},
    "styles": [1, 2],
    "pairs": "factorial",
    "seed": 1,
}


def small_manifest(stages, views: pd.DataFrame, identity=None, **more):
    """Return a manifest for planted or tiny runs; `identity` and further entries replace the defaults."""
    return {
        "identity": IDENTITY | (identity or {}),
        "stages": stages,
        "input": {"pathways": {}},
        "counts": {
            "clips": int(views["clip"].nunique()),
            "clusters": int(views["cluster"].nunique()),
            "views": len(views),
            "pairs_dynamic": 0,
            "pairs_static": 0,
        },
        "skipped_views": [],
        **more,
    }


def edit_manifest(folder, **entries):
    """Set entries of the manifest of a run, or remove them with the value None, as if the run wrote it so."""
    manifest = read_manifest(folder) | entries
    write_manifest(folder, {key: value for key, value in manifest.items() if value is not None})


def forget_checks(folder):
    """Make a run one of an earlier version, which wrote no checksums."""
    for name in (CHECKSUMS_NAME, PIXELS_NAME, INPUTS_NAME, SUMS_NAME):
        (folder / name).unlink(missing_ok=True)
    edit_manifest(folder, files_sha256=None, network_code=None)
