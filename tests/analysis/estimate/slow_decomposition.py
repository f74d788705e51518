"""A slow decomposition of the variance of one unit, with loops over clips, styles and orders (DESIGN 6)."""

from itertools import combinations, product

import numpy as np
from scipy.stats import t as student


def kept_cells(cells: dict) -> dict:
    """Keep (clip, style) with both orders, and clips of two styles; keys: (clip, style, order)."""
    both = {(k, s) for k, s, _ in cells if (k, s, 0) in cells and (k, s, 1) in cells}
    styles = {k: [s for clip, s in both if clip == k] for k, _ in both}
    return {key: y for key, y in cells.items() if key[:2] in both and len(styles[key[0]]) > 1}


def without_means(cells: dict) -> dict:
    groups: dict = {}
    for (_, s, o), y in cells.items():
        groups.setdefault((s, o), []).append(y)
    return {(k, s, o): y - np.mean(groups[s, o]) for (k, s, o), y in cells.items()}


def products(cells: dict) -> tuple[float, float, float, float]:
    """Return d, t, b and v of the cells of one unit."""
    z = without_means(cells)
    found: dict = {"d": [], "t": [], "b": []}
    for clip in {k for k, _, _ in z}:
        own = sorted(key for key in z if key[0] == clip)
        for one, other in combinations(own, 2):
            same_style, same_order = one[1] == other[1], one[2] == other[2]
            name = "t" if same_style else "d" if same_order else "b"
            found[name].append(z[one] * z[other])
    d, t, b = (np.mean(found[name]) for name in "dtb")
    return d, t, b, np.mean([value**2 for value in z.values()])


def parts_of(cells: dict) -> np.ndarray:
    d, t, b, v = products(cells)
    if not v > 1e-14 * np.mean([y**2 for y in cells.values()]):
        return np.full(4, np.nan)
    content, motion, appearance = b / v, (d - b) / v, (t - b) / v
    return np.array([content, motion, appearance, 1 - content - motion - appearance])


def jackknife_parts(cells: list[dict], video_of: dict, level: float = 0.95):
    """Return estimates and bounds of the parts: of the units (4, C), and of the layer (4,)."""
    videos = sorted({video_of[k] for k, _, _ in cells[0]})
    whole = np.stack([parts_of(unit) for unit in cells], axis=1)  # (4, C)
    left_out = np.array(
        [
            np.stack(
                [parts_of({key: y for key, y in unit.items() if video_of[key[0]] != g}) for unit in cells], 1
            )
            for g in videos
        ]
    )
    live = np.isfinite(whole).all(0) & np.isfinite(left_out).all((0, 1))
    n, found = len(videos), []
    for statistic, without in (
        (np.where(live, whole, np.nan), left_out),
        (whole[:, live].mean(1), left_out[:, :, live].mean(2)),
    ):
        pseudo = n * statistic - (n - 1) * without
        estimate, error = pseudo.mean(0), pseudo.std(0, ddof=1) / np.sqrt(n)
        half = student.ppf((1 + level) / 2, n - 1) * error
        found.append((estimate, estimate - half, estimate + half))
    return found


def motion_statistics(cells: list[dict], video_of: dict, sign_of) -> tuple[float, np.ndarray]:
    """Return the statistics of the layer and of each unit; D has the sign `sign_of`(video, style)."""
    layer, units = [], []
    for unit in cells:
        d, _, _, v = products(unit)
        differences = {(k, s): unit[k, s, 0] - unit[k, s, 1] for k, s, o in unit if o == 0}
        means = {
            style: np.mean([x for (_, s), x in differences.items() if s == style])
            for style in {s for _, s in differences}
        }
        q: dict = {}
        for (k, s), (clip, t) in product(differences, differences):
            if k == clip and s < t:
                sign = sign_of(video_of[k], s) * sign_of(video_of[k], t)
                value = (differences[k, s] - means[s]) * (differences[k, t] - means[t])
                q[video_of[k]] = q.get(video_of[k], 0) + sign * value
        values = np.array(list(q.values()))
        scale = np.sqrt((values**2).sum())
        units.append(values.sum() / scale if scale > 0 else 0.0)
        if v > 0:
            layer.append(values.sum() / v)
    return float(np.mean(layer)), np.array(units)
