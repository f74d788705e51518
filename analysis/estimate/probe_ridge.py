"""Cross-validate ridge regressions from the units of a stage to named variables; folds are sets of videos.

For one training fold, with standardised units X (n, p), targets Y (n, k) without their mean, and the singular
value decomposition X = U S V', every penalty l gives the predictions

    test rows:   (T X' U) (S^2 + l)^-1 U' Y          T: the test rows, standardised like X
    residuals:   M Y,  M = I - 11'/n - U S^2 (S^2 + l)^-1 U'

A ridge regression that leaves out the rows g of one video misses them by (M_gg)^-1 (M Y)_g. So one
decomposition gives the inner leave-one-video-out errors of all penalties, of all targets and of all permuted
targets. The decomposition is that of the smaller of X X' (n, n) and X' X (p, p).

Letters in shapes: n rows (views), p units, k columns of a target, B replicates (the target itself, then
permuted targets), m rows of a test fold, r rank, G videos.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .constant import without_rounding

# Penalties, as multiples of the number of units (the mean square of a standardised row).
PENALTIES = (1e-9, 1e-6, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0, 1e4)
# To limit memory, replicates are solved in groups with about this many target columns.
CHUNK = 1024


class Losses(NamedTuple):
    """Losses of held-out predictions, and losses for which the score is 0, summed over each video's views."""

    probe: NDArray  # (B, G)
    constant: NDArray  # (B, G)

    @property
    def score(self) -> NDArray:
        """Fraction of variance explained, or balanced accuracy (classes), of each replicate. Shape: (B,)."""
        return 1 - self.probe.sum(1) / self.constant.sum(1)


class Spectrum(NamedTuple):
    """Singular value decomposition of standardised training rows, and the products T X' U of test rows."""

    basis: NDArray  # (n, r): U
    squares: NDArray  # (r,): S^2
    test: NDArray  # (m, r): T X' U


def standardised(train: NDArray, test: NDArray) -> tuple[NDArray, NDArray]:
    """Standardise units by mean and standard deviation of the training rows; constant units become 0."""
    mean = train.mean(0)
    deviation = np.sqrt(without_rounding(train.var(0), mean))
    scale = np.divide(1, deviation, out=np.zeros_like(deviation), where=deviation > 0)
    return (train - mean) * scale, (test - mean) * scale


def decompose_rows(train: NDArray, test: NDArray) -> Spectrum:
    """Decompose standardised training rows (n, p); leave out directions that hold only rounding error."""
    n, p = train.shape
    squares, vectors = np.linalg.eigh(train @ train.T if n <= p else train.T @ train)
    kept = squares > max(n, p) * np.finfo(float).eps * max(squares[-1], np.finfo(float).tiny)
    squares, vectors = squares[kept], vectors[:, kept]
    if n <= p:
        return Spectrum(vectors, squares, test @ (train.T @ vectors))
    root = np.sqrt(squares)
    return Spectrum(train @ vectors / root, squares, test @ vectors * root)


def groups_of_equal_size(video: NDArray) -> Iterator[NDArray]:
    """Group videos of equally many rows; yield row numbers (videos, rows per video) of each group."""
    order = np.argsort(video, kind="stable")
    rows = np.split(order, np.flatnonzero(np.diff(video[order])) + 1)
    for size in sorted({len(own) for own in rows}):
        yield np.stack([own for own in rows if len(own) == size])


def left_out_errors(
    spectrum: Spectrum, targets: NDArray, video: NDArray, penalties: Sequence[float]
) -> Iterator[NDArray]:
    """Yield, for each penalty, errors (n, c) of ridge regressions that leave out the video of each row.

    `targets` (n, c) have mean 0.
    """
    basis = spectrum.basis
    inner = basis.T @ targets
    # I - S^2 / (S^2 + l) is written as l / (S^2 + l), because the difference loses all digits for small l
    beyond = targets - basis @ inner
    groups = list(groups_of_equal_size(video))
    outside = [np.eye(g.shape[1]) - 1 / len(basis) - basis[g] @ basis[g].transpose(0, 2, 1) for g in groups]
    for penalty in penalties:
        shrunk = basis * (penalty / (spectrum.squares + penalty))
        residual = beyond + shrunk @ inner
        errors = np.empty_like(residual)
        for g, rest in zip(groups, outside, strict=True):
            errors[g] = np.linalg.inv(rest + shrunk[g] @ basis[g].transpose(0, 2, 1)) @ residual[g]
        yield errors


def predict(train: NDArray, test: NDArray, targets: NDArray, video: NDArray, classes: bool) -> NDArray:
    """Predict the targets (n, B, k) of the test rows; return (m, B, k). Each replicate has its own penalty.

    `train` (n, p) and `test` (m, p) are activations, and `video` (n,) is the video of each training row. The
    penalty has the smallest squared error over the training videos, each left out once. If `classes`, the
    largest prediction is that of the nearest class mean, as if all classes were equally frequent: class means
    of the predictions lie at the fraction `reached` of the way from the mean to the one-hot targets.
    """
    spectrum = decompose_rows(*standardised(train, test))
    mean = targets.mean(0)
    replicates, k = targets.shape[1:]
    penalties = train.shape[1] * np.array(PENALTIES)
    found = np.empty((len(test), replicates, k))
    step = max(1, CHUNK // k)
    for start in range(0, replicates, step):
        part = slice(start, start + step)
        own = (targets[:, part] - mean[part]).reshape(len(train), -1)  # (n, replicates * k)
        squares, products = [], []
        for errors in left_out_errors(spectrum, own, video, penalties):
            squares.append(np.einsum("nc,nc->c", errors, errors))
            products.append(np.einsum("nc,nc->c", errors, own))
        by_penalty = np.stack([squares, products]).reshape(2, len(penalties), -1, k).sum(3)
        best = by_penalty[0].argmin(0)
        divided = spectrum.squares[:, None] + np.repeat(penalties[best], k)
        found[:, part] = (spectrum.test @ (spectrum.basis.T @ own / divided)).reshape(len(test), -1, k)
        if classes:
            total = np.einsum("nc,nc->c", own, own).reshape(-1, k).sum(1)
            missed = by_penalty[1, best, np.arange(len(best))]
            reached = np.clip(1 - missed / np.maximum(total, np.finfo(float).tiny), 0, 1)
            found[:, part] += reached[:, None] * mean[part]
    return found if classes else found + mean


def cross_validate(rows: NDArray, targets: NDArray, video: NDArray, fold: NDArray, classes: bool) -> Losses:
    """Predict the targets of the videos of each fold from all other videos, and return the losses.

    `rows` (n, p), `targets` (n, B, k): one-hot if `classes`. `video` (n,) numbers the videos from 0, and
    `fold` (G,) is the fold of each video. The loss is the squared error, beside that of the mean of the
    training rows. For classes, it is the number of errors, beside the number of views; both are divided by
    the number of views of the class, so that all classes have equal weight (balanced accuracy).
    """
    rows = np.asarray(rows, np.float64)
    probe, constant = np.zeros((2, targets.shape[1], len(fold)))
    weight = 1 / np.maximum(targets.sum(0), 1) if classes else None  # (B, k)
    for one in np.unique(fold):
        held = fold[video] == one
        if not held.any():
            continue
        own = targets[held]
        found = predict(rows[~held], rows[held], targets[~held], video[~held], classes)
        if weight is not None:
            base = (own * weight).sum(2)
            loss = base * (found.argmax(2) != own.argmax(2))
        else:
            loss = ((own - found) ** 2).sum(2)
            base = ((own - targets[~held].mean(0)) ** 2).sum(2)
        for sums, values in ((probe, loss), (constant, base)):
            np.add.at(sums.T, video[held], values)
    return Losses(probe, constant)
