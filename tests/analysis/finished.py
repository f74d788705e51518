"""Finished runs without a network: planted activations, with the tables that the main job writes."""

import numpy as np
import pandas as pd

from static_dynamic.analysis import estimate_run, estimate_variance
from static_dynamic.analysis.estimate.tables import write_tables
from static_dynamic.analysis.run.store import Store
from static_dynamic.analysis.run.tables import write_table
from static_dynamic.datasets import Clip, make_views


def finished_run(
    path,
    *,
    model="tiny",
    trained=True,
    dataset=("folder", "videos"),
    videos=range(8),
    stages=("stage1", "stage2"),
    units=6,
    styles=(1, 2),
    pairs="factorial",
    seed=1,
    world=0,
    noise=0.0,
    root="nowhere",
    names=str,
    n_boot=60,
    more=None,
):
    """Write a run on `videos` (numbers) and return its folder.

    What a video shows depends on its number and on `world`, so that networks on the same videos have
    something in common; `noise` is added to what a network says of it. `names` names a video.
    """
    clips = [Clip(names(v), names(v), 0, 8, cluster=names(v)) for v in videos]
    views, table = make_views(clips, styles, {"rgb": 4}, n_sample_frames=8, pairs=pairs, seed=seed)
    manifest = {
        "identity": {
            "model": {"name": model, "init": "checkpoint" if trained else "random"},
            "weights_sha256": "ab" * 32 if trained else None,
            "dataset": {"name": dataset[0], "folder": dataset[1], "listing_sha256": "0"},
            "styles": list(styles),
            "pairs": pairs,
            "seed": seed,
        },
        "stages": {name: {"units": units, "stream": "rgb"} for name in stages},
        "input": {"size": 40, "crop": 32, "pathways": {"rgb": 4}},
        "root": str(root),
        "counts": {
            "clips": len(clips),
            "clusters": len(clips),
            "views": len(views),
            "pairs_dynamic": int((table["factor"] == 0).sum()),
            "pairs_static": int((table["factor"] == 1).sum()),
        },
        "skipped_clips": [],
        "filtered_clips": {},
        "skipped_views": [],
        **(more or {}),
    }
    store = Store.create_or_resume(path, manifest, views, table)
    net = np.random.default_rng([len(model), *map(ord, model), int(trained), seed])
    number = {names(v): v for v in videos}
    rows = {}
    for depth, stage in enumerate(stages):
        mix = net.uniform(0.2, 1.5, (3, units))
        values = net.standard_normal((len(views), units)) * 0.6
        for k, view in enumerate(views.itertuples()):
            scene = np.random.default_rng([world, number[view.clip], depth])
            shown = scene.standard_normal((3, units)) * np.exp(0.5 * scene.standard_normal())
            order = (1, -1)[view.order == "shuffled"]
            values[k] += mix[0] * shown[0] + mix[1] * view.style * shown[1] + order * mix[2] * shown[2]
        values += noise * np.random.default_rng(depth).standard_normal(values.shape)
        values[:, 0] = 0.3  # dead
        rows[stage] = values.astype(np.float32)
    if "logits" in store.names:
        rows["logits"] = np.full_like(store.activations("logits"), np.nan)
    store.write(np.arange(len(views)), rows)
    store.commit()
    write_tables(path, estimate_run(path, n_boot))
    if pairs == "factorial" and len(clips) > 1:
        estimate_variance(path).write(path, "variance_")
    return path


def forget_new_columns(folder):
    """Remove the columns that runs of version 0.1.0 lack from ``layers.csv``."""
    layers = pd.read_csv(folder / "layers.csv")
    bounds = layers.filter(regex="^units_.*_(low|high)$").columns
    parts = "^(content|motion|appearance|residual|kind_.*|bits_(content|motion|appearance))(_|$)"
    new = ["effective_videos", "effective_units", "units_few_videos", "p_motion", "carries_motion", *bounds]
    new += list(layers.filter(regex=parts).columns)
    write_table(folder / "layers.csv", layers.drop(columns=new, errors="ignore"))
