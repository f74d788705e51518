"""Views and activations as a user of `import_activations` gives them."""

import numpy as np
import pandas as pd

COLUMNS = ["video", "clip", "style", "order"]


def views_of(clips=4, styles=(1, 2), orders=("forward", "shuffled")):
    """All views of a few clips, one clip per video."""
    rows = [(f"v{c}", f"c{c}", s, o) for c in range(clips) for s in styles for o in orders]
    return pd.DataFrame(rows, columns=COLUMNS)


def draw(views, units=3, seed=0):
    """Independent activations."""
    return np.random.default_rng(seed).standard_normal((len(views), units)).astype(np.float32)
