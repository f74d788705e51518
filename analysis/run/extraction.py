"""From views to activations on disk: each view goes through the network once and every stage is read on
the way. Decoding, sending to the device, computing and writing go on at the same time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from static_dynamic.analysis.run.forward import Inputs, OnItsWay, Reader
from static_dynamic.analysis.run.store import Store
from static_dynamic.datasets import (
    ClipList,
    DavisClips,
    FlowBatches,
    ViewBatches,
    flow_inputs,
    on_device,
    to_inputs,
)
from static_dynamic.datasets.loader import Decoded
from static_dynamic.datasets.workers import PATIENCE, loader
from static_dynamic.errors import UserError, nearest
from static_dynamic.models import VideoNetwork

POLICIES = ("error", "skip")
# views that bf16 and other kernels are tried on, evenly spread over the run
SAMPLE = 8


def extract(
    net: VideoNetwork,
    clips: ClipList,
    views: pd.DataFrame,
    store: Store,
    *,
    device: torch.device,
    batch_size: int,
    num_workers: int,
    on_error: str = "error",
    nan: str = "error",
    clip_timeout: float = PATIENCE,
    precision: str = "fp32",
    tune: bool = False,
) -> None:
    """Read the stages of `store` for every view that it has not got yet.

    Views are taken in row order in batches that do not depend on where a former run stopped, so that a run
    that goes on ends with the same bytes.

    Parameters
    ----------
    on_error
        ``error`` stops at a clip that cannot be read, ``skip`` leaves its views out and names them in the
        manifest.
    nan
        The same for activations that are NaN or infinite.
    clip_timeout
        Seconds that a worker may take to decode a clip; then it cannot be read.
    precision
        ``fp32``, or ``bf16``: where a sample of views agrees (see `Reader.try_bf16`).
    tune
        Measure which kernels are fastest for this network here, and use those.

    Raises
    ------
    UserError
        A clip that cannot be read, or activations that are not finite; what was read before is kept.
    """
    for option, value, known in (
        ("on_error", on_error, POLICIES),
        ("nan", nan, POLICIES),
        ("precision", precision, ("fp32", "bf16")),
    ):
        if value not in known:
            raise UserError(f"{option}={value}{nearest(str(value), known)} (known: {', '.join(known)})")

    def inputs_of(batch: list[Decoded]) -> Inputs:
        if isinstance(clips, DavisClips):
            return flow_inputs(batch, net.input_spec, device)
        inputs = to_inputs(batch, net.input_spec, device)
        return inputs if len(inputs) > 1 else inputs[0]

    reader = Reader(
        net,
        store.stages,
        device,
        views_a_pass=store.manifest.get("views_a_pass"),
        note=store.note,
    )
    if precision == "bf16" or tune:
        prepare(reader, store, lambda: inputs_of(sample(net, clips, views, clip_timeout)), precision, tune)
    batch_rows = batch_size * clips.rows_per_view
    rows = batches_to_do(len(views), store.to_do(), batch_rows)
    batches = on_device(
        loader(batches_of(net, clips, views, rows, batch_rows), num_workers, clip_timeout), device
    )
    bar = tqdm(total=len(store.status), initial=store.finished, desc="extract", unit="view", smoothing=0.1)
    on_their_way: deque[tuple[NDArray, OnItsWay]] = deque()
    lag = 1 if device.type == "cuda" else 0  # rows are written while the next ones are computed

    def keep(most: int) -> None:
        while len(on_their_way) > most:
            numbers, activations = on_their_way.popleft()
            keep_finite(store, views, numbers, activations.arrays(), nan)
        bar.update(store.finished - bar.n)

    try:
        for batch in readable(batches, store, on_error):
            numbers = np.concatenate([decoded.rows for decoded in batch])
            on_their_way.append((numbers, OnItsWay(reader.read(inputs_of(batch)))))
            keep(lag)
        keep(0)
    except torch.OutOfMemoryError as error:  # `reader` halves what it computes, not what is sent
        raise UserError(
            f"frames of {batch_rows} views do not fit in the memory of {device}: give a smaller batch_size"
        ) from error
    finally:
        store.commit()
        batches.close()  # here, not when the last reference is gone: a thread and workers are behind it
        bar.close()


def readable(batches: Iterable[list[Decoded]], store: Store, on_error: str) -> Iterable[list[Decoded]]:
    """The clips of each batch that could be read; the others are left out by name, or stop the run."""
    for batch in batches:
        for decoded in batch:
            if decoded.frames is None:
                if on_error != "skip":
                    raise UserError(f"{decoded.error}: mend it, or give on_error=skip to leave the clip out")
                store.skip(decoded.rows, decoded.clip, decoded.error)
        batch = [decoded for decoded in batch if decoded.frames is not None]
        if batch:
            yield batch


def batches_to_do(n_views: int, to_do: np.ndarray, batch_size: int) -> np.ndarray:
    """Row numbers of all batches that hold a view to do: a batch is read whole, since its size may change
    last bits."""
    touched = np.unique(to_do // batch_size)
    rows = (touched[:, None] * batch_size + np.arange(batch_size)).ravel()
    return rows[rows < n_views]


def keep_finite(
    store: Store, views: pd.DataFrame, numbers: NDArray, activations: dict[str, NDArray], nan: str
) -> None:
    """Write rows; a view with NaN or infinity stops the run (``nan=error``) or is left out, named with its
    first such stage."""
    finite = np.ones(len(numbers), bool)
    for stage, rows in activations.items():
        for i in np.flatnonzero(~np.isfinite(rows).all(axis=1) & finite):
            finite[i] = False
            view = views.iloc[numbers[i]]
            reason = (
                f"{stage} yields NaN or infinity for clip {view['clip']}, style {view['style']}, "
                f"{view['order']}"
            )
            if nan != "skip":
                raise UserError(
                    f"{reason}: the checkpoint or the input is broken (nan=skip leaves such views out)"
                )
            store.skip(numbers[i : i + 1], view["clip"], reason)
    store.write(numbers[finite], {stage: rows[finite] for stage, rows in activations.items()})


def batches_of(
    net: VideoNetwork, clips: ClipList, views: pd.DataFrame, rows: NDArray, batch_rows: int
) -> ViewBatches:
    """Batches of the views at `rows`, so many rows each."""
    if isinstance(clips, DavisClips):
        return FlowBatches(clips, views, rows, batch_rows, net.input_spec.shape)
    return ViewBatches(clips, views, rows, batch_rows)


def sample(net: VideoNetwork, clips: ClipList, views: pd.DataFrame, clip_timeout: float) -> list[Decoded]:
    """A few views that can be read, evenly spread over the run."""
    rows = np.linspace(0, len(views) - 1, SAMPLE).astype(int)
    rows = batches_to_do(len(views), rows, clips.rows_per_view)  # whole views
    (batch,) = loader(batches_of(net, clips, views, rows, len(rows)), 1, clip_timeout)
    batch = [decoded for decoded in batch if decoded.frames is not None]
    if not batch:
        raise UserError("none of the views that precision=bf16 and tune=true are tried on can be read")
    return batch


def prepare(reader: Reader, store: Store, inputs, precision: str, tune: bool) -> None:
    """Choose precision and kernels, once for a run: what was used is in its manifest."""
    known = store.manifest.get("computed_with")
    taken = inputs() if known is None or known["precision"] == "bf16" else None
    if taken is None or (precision == "bf16" and not reader.try_bf16(taken)):
        precision = "fp32"
    kernels: Sequence[str] = []
    if known is not None:
        kernels = known["kernels"]
        for name in kernels:
            reader.use(name)
    elif tune:
        kernels = reader.tune(taken)
    store.note(computed_with={"precision": precision, "kernels": list(kernels)})
