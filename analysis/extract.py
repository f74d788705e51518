"""From views to activations on disk: each view goes through the network once and every stage is read on
the way."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from analysis.store import Store
from configs import UserError
from datasets import ClipList, ViewBatches, loader, to_inputs
from models import VideoNetwork


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
) -> None:
    """Read the stages of `store` for every view that it has not got yet.

    Views are taken in row order in batches that do not depend on where a former run stopped, so that a run
    that goes on ends with the same bytes.

    Parameters
    ----------
    on_error
        ``error`` stops at a clip that cannot be read, ``skip`` leaves its views out and names them in the
        manifest.

    Raises
    ------
    UserError
        A clip that cannot be read, or activations that are not finite; what was read before is kept.
    """
    rows = batches_to_do(len(views), store.to_do(), batch_size)
    net = net.to(device)
    bar = tqdm(total=len(views), initial=store.finished, desc="extract", unit="view", smoothing=0.1)
    try:
        for batch in loader(ViewBatches(clips, views, rows, batch_size), num_workers):
            for decoded in batch:
                if decoded.frames is None:
                    if on_error != "skip":
                        raise UserError(
                            f"{decoded.error}: mend it, or give on_error=skip to leave the clip out"
                        )
                    store.skip(decoded.rows, decoded.clip, decoded.error)
            batch = [decoded for decoded in batch if decoded.frames is not None]
            if batch:
                inputs = to_inputs(batch, net.input_spec, device)
                activations = net.read(inputs if len(inputs) > 1 else inputs[0], list(store.stages))
                numbers = np.concatenate([decoded.rows for decoded in batch])
                arrays = {stage: values.cpu().numpy() for stage, values in activations.items()}
                refuse_not_finite(arrays, numbers, views)
                store.write(numbers, arrays)
            bar.update(store.finished - bar.n)
    finally:
        store.commit()
        bar.close()


def batches_to_do(n_views: int, to_do: np.ndarray, batch_size: int) -> np.ndarray:
    """Row numbers of all batches that hold a view to do: a batch is read whole, since its size may change
    last bits."""
    touched = np.unique(to_do // batch_size)
    rows = (touched[:, None] * batch_size + np.arange(batch_size)).ravel()
    return rows[rows < n_views]


def refuse_not_finite(activations: dict[str, np.ndarray], numbers: np.ndarray, views: pd.DataFrame) -> None:
    """Raise where an activation is NaN or infinite, naming the stage and the view."""
    for stage, rows in activations.items():
        bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
        if len(bad):
            view = views.iloc[numbers[bad[0]]]
            raise UserError(
                f"{stage} yields NaN or infinity for clip {view['clip']}, style {view['style']}, "
                f"{view['order']}: "
                "the checkpoint or the input is broken"
            )
