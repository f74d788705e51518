"""Jackknife of a probe's score over videos, with probes that are trained anew without the left-out videos.

Held-out losses alone say too little: probes that are trained on few videos differ from sample to sample. So
the jackknife leaves out each block of videos from the training as well. No probe is trained again for this:
for a ridge regression with residuals M y (`probe_ridge.py`), leaving out the rows h gives

    M_gg - M_gh (M_hh)^-1 M_hg    and    (M y)_g - M_gh (M_hh)^-1 (M y)_h

in place of M_gg and (M y)_g, from which the errors of a video g that is left out, too, follow as before. All
these probes have one penalty, chosen from all videos, and units that are standardised once.

Letters in shapes: n rows (views), p units, k columns of the target, G videos, J blocks of videos.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .probe_ridge import PENALTIES, decompose_rows, groups_of_equal_size, left_out_errors, standardised

# Largest number of blocks; with more videos, a block holds several videos. Blocks of single videos would give
# too large errors of an accuracy, because the accuracy of few videos changes in steps.
MOST_BLOCKS = 12


class LeftOut(NamedTuple):
    """Leave-one-video-out score of all videos, and the scores without each block of videos."""

    whole: float
    blocks: NDArray  # (J,)


def left_out_scores(rows: NDArray, target: NDArray, video: NDArray, block: NDArray, classes: bool) -> LeftOut:
    """Score leave-one-video-out probes of all videos, and of the videos outside each block.

    `rows` (n, p), `target` (n, k), `video` (n,) from 0 to G - 1, `block` (G,) from 0 to J - 1.
    """
    x = standardised(np.asarray(rows, np.float64), rows[:0])[0]
    spectrum = decompose_rows(x, x[:0])
    basis, n = spectrum.basis, len(x)
    mean = target.mean(0)
    centred = target - mean
    penalties = x.shape[1] * np.array(PENALTIES)
    losses = [(errors**2).sum() for errors in left_out_errors(spectrum, centred, video, penalties)]
    penalty = penalties[int(np.argmin(losses))]
    (errors,) = left_out_errors(spectrum, centred, video, [penalty])
    reached = np.clip(1 - (errors * centred).sum() / (centred**2).sum(), 0, 1)
    weighted = basis * (spectrum.squares / (spectrum.squares + penalty))
    residual = centred - weighted @ (basis.T @ centred)
    groups = list(groups_of_equal_size(video))
    diagonal = [np.eye(g.shape[1]) - 1 / n - weighted[g] @ basis[g].transpose(0, 2, 1) for g in groups]
    sums = np.stack([np.bincount(video, c, len(block)) for c in target.T], axis=1)  # (G, k)
    counts = np.bincount(video, minlength=len(block))
    weight = 1 / np.maximum(target.sum(0), 1)

    def score(out: NDArray) -> float:
        """Return the score of the videos outside `out` (n,), a mask of rows."""
        h = np.flatnonzero(out)
        coupling = -1 / n - weighted @ basis[h].T  # (n, |h|)
        coupling[h, np.arange(len(h))] += 1
        solved = np.linalg.solve(coupling[h], coupling.T)  # (|h|, n)
        left = residual - solved.T @ residual[h]
        errors = np.empty_like(residual)
        for g, own in zip(groups, diagonal, strict=True):
            taken = coupling[g] @ solved.T[g].transpose(0, 2, 1)
            kept = ~out[g[:, 0]]
            errors[g[kept]] = np.linalg.solve(own[kept] - taken[kept], left[g[kept]])
        kept = ~out
        others = (target[kept].sum(0) - sums) / np.maximum(kept.sum() - counts, 1)[:, None]
        prior = others[video[kept]]
        own = target[kept]
        if not classes:
            return 1 - (errors[kept] ** 2).sum() / ((own - prior) ** 2).sum()
        found = own - errors[kept] - (1 - reached) * prior
        base = own @ weight
        return 1 - base[found.argmax(1) != own.argmax(1)].sum() / base.sum()

    whole = score(np.zeros(n, bool))
    return LeftOut(whole, np.array([score(block[video] == j) for j in range(block.max() + 1)]))
