"""Extraction: pass each view (clip, style, frame order) through the network once; store the activations.

Decoding, the copy to the device, the forward pass and writing overlap in time.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from static_dynamic.analysis.run.forward import Inputs, MaskedInputs, PendingRows, Reader
from static_dynamic.analysis.run.resume import require_same_files, require_unchanged
from static_dynamic.analysis.run.store import Store
from static_dynamic.datasets import ClipList, on_device
from static_dynamic.datasets.loader import Decoded
from static_dynamic.datasets.workers import CLIP_TIMEOUT, loader
from static_dynamic.errors import UserError, nearest
from static_dynamic.models import VideoNetwork
from static_dynamic.models.cells import uses_masks
from static_dynamic.spacing import evenly_spaced

POLICIES = ("error", "skip")
# bf16 and faster kernels are compared with fp32 on this number of views, evenly spaced over the run.
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
    end: int | None = None,
) -> None:
    """Compute the activations of all stages of `store`, for every view that the store does not hold yet.

    The batches do not depend on where an earlier process stopped, so a resumed run ends with the same bytes
    as an uninterrupted run. Raises UserError for a clip that cannot be decoded and for activations that are
    not finite; activations computed before stay on disk.

    Parameters
    ----------
    on_error
        ``error`` stops at a clip that cannot be decoded; ``skip`` leaves the clip out and lists it in the
        manifest.
    nan
        ``error`` stops at activations that are NaN or infinite; ``skip`` leaves such views out.
    clip_timeout
        Seconds after which a worker gives up decoding a clip.
    precision
        ``fp32`` or ``bf16``. bf16 is used only if it agrees with fp32 on a sample: `Reader.try_bf16`.
    tune
        Measure which kernels are fastest for this network on this device, and use them.
    end
        Only the views before this row number, and those of their batches, are computed (None: all views).
    """
    for option, value, known in (
        ("on_error", on_error, POLICIES),
        ("nan", nan, POLICIES),
        ("precision", precision, ("fp32", "bf16")),
    ):
        if value not in known:
            raise UserError(
                f"unknown {option}={value}{nearest(str(value), known)} (known: {', '.join(known)})"
            )

    def inputs_of(batch: list[Decoded]) -> Inputs:
        inputs = clips.to_inputs(batch, net.input_spec, device)
        if clips.masks is None or not uses_masks(net):
            return inputs
        return MaskedInputs(inputs, clips.to_masks(batch, net.input_spec, device))

    reader = Reader(
        net,
        store.names,
        device,
        views_per_pass=store.manifest.get("views_a_pass"),
        record=store.update_manifest,
    )
    if precision == "bf16" or tune:
        choose_kernels(
            reader,
            store,
            lambda: inputs_of(require_sample(decode_sample(net, clips, views, clip_timeout))),
            precision,
            tune,
        )
    batch_rows = batch_size * clips.rows_per_view
    if store.fresh:
        require_same_files(clips, views, store, net.input_spec, clip_timeout, num_workers)
    if store.fresh and len(store.done()):
        require_unchanged(reader, clips, views, store, inputs_of, batch_rows, clip_timeout, num_workers)
    store.fresh = False
    to_do = store.to_do()
    rows = unfinished_batches(len(views), to_do if end is None else to_do[to_do < end], batch_rows)
    batches = on_device(
        loader(clips.batches(views, rows, batch_rows, net.input_spec), num_workers, clip_timeout), device
    )
    bar = tqdm(
        total=len(store.status),
        initial=store.finished,
        desc="extract",
        unit="view",
        smoothing=0.1,
        # if nested below another progress bar, remove this bar at the end
        leave=None,
    )
    pending: deque[tuple[NDArray, NDArray, PendingRows]] = deque()
    # write one batch to disk while the GPU computes the next batch
    lag = 1 if device.type == "cuda" else 0

    def write_pending(remaining: int) -> None:
        while len(pending) > remaining:
            numbers, pixels, activations = pending.popleft()
            write_finite(store, views, numbers, pixels, activations.arrays(), nan)
        bar.update(store.finished - bar.n)

    try:
        for batch in decoded_only(batches, store, on_error):
            numbers = np.concatenate([decoded.rows for decoded in batch])
            pixels = np.concatenate([decoded.digests for decoded in batch])
            pending.append((numbers, pixels, PendingRows(reader.read(inputs_of(batch)))))
            write_pending(lag)
        write_pending(0)
    except torch.OutOfMemoryError as error:  # the input frames alone exceed the memory
        raise UserError(
            f"the frames of {batch_rows} views do not fit in the memory of {device}: "
            "give a smaller batch_size"
        ) from error
    finally:
        store.commit()
        # stop the decoding workers now, not at garbage collection
        batches.close()
        bar.close()


def decoded_only(batches: Iterable[list[Decoded]], store: Store, on_error: str) -> Iterator[list[Decoded]]:
    """Yield each batch's decoded clips; skip unreadable clips if ``on_error=skip``, else raise UserError."""
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
    """Return the row numbers of all views in batches that contain an unfinished view.

    A batch is always computed whole, because the last bits of activations may depend on the batch size.
    """
    batches = np.unique(to_do // batch_size)
    rows = (batches[:, None] * batch_size + np.arange(batch_size)).ravel()
    return rows[rows < n_views]


def write_finite(
    store: Store,
    views: pd.DataFrame,
    numbers: NDArray,
    pixels: NDArray,
    activations: dict[str, NDArray],
    nan: str,
) -> None:
    """Write activations and frame checksums (`pixels`) to the store, except for views with NaN or infinity.

    A view with NaN or infinity is skipped if ``nan=skip``, else UserError is raised.

    The message names the shallowest stage with such a value. Class scores may be infinite.
    """
    finite = np.ones(len(numbers), bool)
    for stage in store.stages:
        rows = activations[stage]
        for i in np.flatnonzero(~np.isfinite(rows).all(axis=1) & finite):
            finite[i] = False
            view = views.iloc[numbers[i]]
            reason = (
                f"{stage} yields NaN or infinity for clip {view['clip']}, style {view['style']}, "
                f"{view['order']}"
            )
            if nan != "skip":
                raise UserError(
                    f"{reason}: check the checkpoint and the input, or give nan=skip to leave such views out"
                )
            store.skip(numbers[i : i + 1], view["clip"], reason)
    finite_rows = {stage: rows[finite] for stage, rows in activations.items()}
    store.write(numbers[finite], finite_rows, pixels[finite])


def decode_sample(
    net: VideoNetwork, clips: ClipList, views: pd.DataFrame, clip_timeout: float
) -> list[Decoded]:
    """Decode `SAMPLE_VIEWS` views, evenly spaced over the run; leave out views that cannot be decoded."""
    rows = evenly_spaced(SAMPLE_VIEWS, len(views), np.trunc)
    rows = unfinished_batches(len(views), rows, clips.rows_per_view)  # all rows of each view
    (batch,) = loader(clips.batches(views, rows, len(rows), net.input_spec), 1, clip_timeout)
    return [decoded for decoded in batch if decoded.frames is not None]


def require_sample(sample: list[Decoded]) -> list[Decoded]:
    """Return the sample on which bf16 and kernels are tested; raise UserError if it is empty."""
    if not sample:
        raise UserError(
            "precision=bf16 and tune=true are tested on sampled views, but all sampled videos are "
            "unreadable: repair the videos, or give precision=fp32 and tune=false"
        )
    return sample


def choose_kernels(
    reader: Reader, store: Store, sample_inputs: Callable[[], Inputs], precision: str, tune: bool
) -> None:
    """Choose precision, memory layout and compilation once per run, and record them in the manifest.

    A resumed run uses the choice in the manifest, so that all activations are computed alike.
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
