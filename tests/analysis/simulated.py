"""Runs on disk with simulated activations, for tests of statistics."""

from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import t

from static_dynamic.analysis.estimate.pairs import pairs_of_factor
from static_dynamic.analysis.run.store import Store
from static_dynamic.datasets import Clip, make_views
from tests.analysis.manifests import small_manifest

STYLES = (1, 2, 3, 4)


def write_run(
    path: Path, draw, clips: int, pairs: str = "factorial", clips_a_cluster: int = 1, styles=STYLES
) -> Path:
    """Write a finished run of `clips` clips with the activations draw(views), (views, units)."""
    listed = [
        Clip(f"c{i:04d}", f"c{i:04d}", 0, 16, cluster=f"v{i // clips_a_cluster:04d}") for i in range(clips)
    ]
    views, table = make_views(listed, styles, {"rgb": 4}, n_sample_frames=16, pairs=pairs)
    rows = draw(views).astype(np.float32)
    manifest = small_manifest({"stage1": {"units": rows.shape[1], "stream": "rgb"}}, views, {"pairs": pairs})
    store = Store.create_or_resume(path, manifest, views, table)
    store.write(np.arange(len(rows)), {"stage1": rows})
    store.commit()
    return path


def pairs_and_rows(tmp_path, draw, clips, f=0, **options):
    store = Store.open(write_run(tmp_path / "run", draw, clips, **options))
    pairs = pairs_of_factor(store.finished_pairs(), f, store.views)
    return pairs, store.activations("stage1").astype(float)


def jackknife_half(statistic, pairs: pd.DataFrame) -> np.ndarray:
    """Return t(df) times the standard error of statistic(pairs), by leaving out one cluster after another."""
    names = sorted(set(pairs["cluster"]))
    k = len(names)
    pseudo = [k * statistic(pairs) - (k - 1) * statistic(pairs[pairs["cluster"] != name]) for name in names]
    deviation = np.array(pseudo) - np.mean(pseudo, axis=0)
    df = 3 * (deviation**2).sum(0) ** 2 / (deviation**4).sum(0) - 1
    return t.ppf(0.975, np.clip(df, 1, k - 1)) * np.sqrt((deviation**2).sum(0) / (k * (k - 1)))


def effects(seed: int, units: int = 12, clip=0.7, style=0.6, order=0.4, noise=0.2, fixed=0.5):
    """Simulate activations with effects of clip, clip x style, clip x order, and style."""

    def draw(views: pd.DataFrame) -> np.ndarray:
        random = np.random.default_rng(seed)

        def one_each(*columns: str) -> np.ndarray:
            group = views.groupby(list(columns)).ngroup().to_numpy()
            return random.standard_normal((group.max() + 1, units))[group]

        of_style = np.random.default_rng(99).standard_normal((10, units))[views["style"]]
        rows = clip * one_each("clip") + style * one_each("clip", "style") + order * one_each("clip", "order")
        return rows + noise * random.standard_normal((len(views), units)) + fixed * of_style

    return draw


def independent(seed: int, units: int = 12):
    """Simulate independent activations: views have nothing in common."""
    return lambda views: np.random.default_rng(seed).standard_normal((len(views), units))
