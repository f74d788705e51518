"""Extraction: pass each view through the network once and write the rows of every stage to the store.

Decoding, the copy to the device, the forward pass and writing overlap in time.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from static_dynamic.analysis.run.forward import Inputs, PendingRows, Reader
from static_dynamic.analysis.run.store import Store
from static_dynamic.datasets import ClipList, on_device
from static_dynamic.datasets.loader import Decoded
from static_dynamic.datasets.workers import CLIP_TIMEOUT, loader
from static_dynamic.errors import UserError, nearest
from static_dynamic.models import VideoNetwork
from static_dynamic.spacing import evenly_spaced

POLICIES = ("error", "skip")
# Number of views, evenly spaced over the run, that bf16 and other kernels are checked on.
SAMPLE_VIEWS = 8


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
    clip_timeout: float = CLIP_TIMEOUT,
    precision: str = "fp32",
    tune: bool = False,
) -> None:
    """Read the stages of `store` for every view that the store does not hold yet.

    Views are read in row order. The batches do not depend on where an earlier process stopped, so a resumed
    run ends with the same bytes as an uninterrupted one.

    Parameters
    ----------
    on_error
        ``error`` stops at a clip that cannot be decoded; ``skip`` leaves its views out and names them in the
        manifest.
    nan
        ``error`` stops at activations that are NaN or infinite; ``skip`` leaves their views out.
    clip_timeout
        Seconds after which a worker gives up decoding a clip.
    precision
        ``fp32``, or ``bf16``, which is used only if a sample of views agrees with fp32: `Reader.try_bf16`.
    tune
        Measure which kernels are fastest for this network on this device, and use them.

    Raises
    ------
    UserError
        A clip that cannot be decoded, or activations that are not finite. Rows read before stay on disk.
    """
    for option, value, known in (
        ("on_error", on_error, POLICIES),
        ("nan", nan, POLICIES),
        ("precision", precision, ("fp32", "bf16")),
    ):
        if value not in known:
            raise UserError(f"{option}={value}{nearest(str(value), known)} (known: {', '.join(known)})")

    def inputs_of(batch: list[Decoded]) -> Inputs:
        return clips.to_inputs(batch, net.input_spec, device)

    reader = Reader(
        net,
        list(store.stages),
        device,
        views_per_pass=store.manifest.get("views_a_pass"),
        record=store.update_manifest,
    )
    if precision == "bf16" or tune:
        choose_kernels(
            reader,
            store,
            lambda: inputs_of(decode_sample(net, clips, views, clip_timeout)),
            precision,
            tune,
        )
    batch_rows = batch_size * clips.rows_per_view
    rows = unfinished_batches(len(views), store.to_do(), batch_rows)
    batches = on_device(
        loader(clips.batches(views, rows, batch_rows, net.input_spec), num_workers, clip_timeout), device
    )
    bar = tqdm(total=len(store.status), initial=store.finished, desc="extract", unit="view", smoothing=0.1)
    pending: deque[tuple[NDArray, PendingRows]] = deque()
    lag = 1 if device.type == "cuda" else 0  # rows of one batch are written while a GPU computes the next

    def write_pending(remaining: int) -> None:
        while len(pending) > remaining:
            numbers, activations = pending.popleft()
            write_finite(store, views, numbers, activations.arrays(), nan)
        bar.update(store.finished - bar.n)

    try:
        for batch in decoded_only(batches, store, on_error):
            numbers = np.concatenate([decoded.rows for decoded in batch])
            pending.append((numbers, PendingRows(reader.read(inputs_of(batch)))))
            write_pending(lag)
        write_pending(0)
    except torch.OutOfMemoryError as error:  # `reader` splits forward passes, but not the frames of a batch
        raise UserError(
            f"the frames of {batch_rows} views do not fit in the memory of {device}: "
            "give a smaller batch_size"
        ) from error
    finally:
        store.commit()
        batches.close()  # stops the copying thread and the workers now, not at garbage collection
        bar.close()


def decoded_only(batches: Iterable[list[Decoded]], store: Store, on_error: str) -> Iterator[list[Decoded]]:
    """Yield the decoded clips of each batch; record each clip that failed as skipped, or raise UserError."""
    for batch in batches:
        for decoded in batch:
            if decoded.frames is None:
                if on_error != "skip":
                    raise UserError(
                        f"{decoded.error}: repair the file, or give on_error=skip to leave the clip out"
                    )
                store.skip(decoded.rows, decoded.clip, decoded.error)
        batch = [decoded for decoded in batch if decoded.frames is not None]
        if batch:
            yield batch


def unfinished_batches(n_views: int, to_do: NDArray, batch_size: int) -> NDArray:
    """Return the row numbers of all batches that hold a view to do.

    A batch is always read whole, because the last bits of its rows may depend on its size.
    """
    batches = np.unique(to_do // batch_size)
    rows = (batches[:, None] * batch_size + np.arange(batch_size)).ravel()
    return rows[rows < n_views]


def write_finite(
    store: Store, views: pd.DataFrame, numbers: NDArray, activations: dict[str, NDArray], nan: str
) -> None:
    """Write rows to the store; a view with NaN or infinity is skipped (``nan=skip``) or stops the run.

    The reason names the first such stage in depth order.
    """
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


def decode_sample(
    net: VideoNetwork, clips: ClipList, views: pd.DataFrame, clip_timeout: float
) -> list[Decoded]:
    """Decode `SAMPLE_VIEWS` views, evenly spaced over the run; those that cannot be decoded are left out."""
    rows = evenly_spaced(SAMPLE_VIEWS, len(views), np.trunc)
    rows = unfinished_batches(len(views), rows, clips.rows_per_view)  # all rows of each view
    (batch,) = loader(clips.batches(views, rows, len(rows), net.input_spec), 1, clip_timeout)
    batch = [decoded for decoded in batch if decoded.frames is not None]
    if not batch:
        raise UserError("none of the views that precision=bf16 and tune=true are checked on can be decoded")
    return batch


def choose_kernels(
    reader: Reader, store: Store, sample_inputs: Callable[[], Inputs], precision: str, tune: bool
) -> None:
    """Choose precision and kernels for `reader`, once per run, and record the choice in the manifest.

    A resumed run uses the kernels of the manifest, so that all its rows are computed alike.
    """
    used = store.manifest.get("computed_with")
    inputs = sample_inputs() if used is None or used["precision"] == "bf16" else None
    if inputs is None or (precision == "bf16" and not reader.try_bf16(inputs)):
        precision = "fp32"
    kernels: list[str] = []
    if used is not None:
        kernels = used["kernels"]
        for name in kernels:
            reader.use(name)
    elif tune and inputs is not None:
        kernels = reader.tune(inputs)
    store.update_manifest(computed_with={"precision": precision, "kernels": kernels})
