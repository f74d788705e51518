"""Ablate every set of units in every clip of a run; store the measures of each finished clip.

    RUN/ablation/HASH/options.json   options and inputs that decide the numbers
    RUN/ablation/HASH/N.npy          (1 + sets, measures) float64 of clip number N; row 0: the whole network

The loop over clips is the outer one, so that each frame is decoded once, and only the outputs of the stage
for one clip are in memory. A stopped command resumes at the next clip.
"""

import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from static_dynamic.analysis.ablation.measures import ClipViews, Measures
from static_dynamic.analysis.ablation.rebuild import RebuiltRun
from static_dynamic.errors import DamagedRun, UserError
from static_dynamic.files import atomic_path, json_sha256, write_text
from static_dynamic.models.ablation import TapOutputs, ablated, tap_outputs
from static_dynamic.models.partial import PartialForward, Recording

log = logging.getLogger(__name__)

# Number of sets that are timed before the program logs how long the whole command will take.
TIMED_SETS = 3


@dataclass(frozen=True)
class Chunk:
    """The views of one forward pass: input, recorded outputs before the stage, values that replace units."""

    inputs: object
    recorded: Recording
    values: Tensor | TapOutputs
    views: int


@dataclass(frozen=True)
class Ablation:
    """Ablations of one stage of a run.

    Attributes
    ----------
    views
        Table as from `kept_views`, of the clips to read.
    donors
        Row number of the donor of each view (`donor_rows`), or None to replace units by `constants`.
    constants
        (units,) numbers that replace the units' maps.
    views_per_pass
        Largest number of views per forward pass.
    """

    run: RebuiltRun
    stage: str
    measures: Measures
    views: pd.DataFrame
    donors: pd.Series | None
    constants: NDArray
    views_per_pass: int
    # Function that returns the true masks of views, given their row numbers.
    masks: Callable[[Sequence[int]], list[NDArray[np.bool_]]] = lambda rows: []

    def measure_clips(self, sets: Sequence[NDArray[np.int64]], folder: Path, identity: dict) -> NDArray:
        """Return an array (clips, 1 + sets, measures); clips with a file in `folder` are read from it.

        Raises UserError if a view cannot be read, or the network is not the one of the run.
        """
        folder = folder / json_sha256(identity)[:8]
        write_text(folder / "options.json", json.dumps(identity, indent=2) + "\n")
        clips = list(self.views.groupby("clip", sort=False))
        shape = (1 + len(sets), len(self.measures.names))
        files = [folder / f"{number:06d}.npy" for number in range(len(clips))]
        left = sum(not file.exists() for file in files)
        network: PartialForward | None = None
        with tqdm(total=len(clips) * shape[0], desc=f"ablate {self.stage}", unit="set", smoothing=0.1) as bar:
            for (_, own), file in zip(clips, files, strict=True):
                if file.exists():
                    bar.update(shape[0])
                    continue
                network = network or self.prepare(own)
                numbers = self.measure_clip(network, own, sets, bar, left)
                # the cost is told once
                left = 0
                with atomic_path(file) as temporary, temporary.open("wb") as opened:
                    np.save(opened, numbers)
        return np.stack([read_numbers(file, shape) for file in files])

    def prepare(self, own: pd.DataFrame) -> PartialForward:
        """Check that the rebuilt network equals the run's network; plan forward passes from the stage on."""
        rows = own.index.to_numpy()[: self.run.clips.rows_per_view]
        inputs, order = self.run.inputs_of(rows)
        self.run.require_same_network(inputs, order, self.stage)
        return PartialForward(self.run.net, self.stage, self.measures.predict, inputs)

    def tell_cost(
        self, network: PartialForward, chunks: list[Chunk], sets: Sequence[NDArray[np.int64]], left: int
    ) -> None:
        """Time the first sets on one clip; log the estimated time of all sets on all remaining clips."""
        begin = time.perf_counter()
        for units in sets[:TIMED_SETS]:
            self.predict(network, chunks, units)
        per_set = (time.perf_counter() - begin) / max(1, len(sets[:TIMED_SETS]))
        views = sum(chunk.views for chunk in chunks)
        log.info(
            "%d clips of %d views x %d sets x %.2g ms per view: about %.0f s "
            "(fewer: task.examples, task.sets, task.doses, task.random)",
            left,
            views,
            len(sets),
            1000 * per_set / views,
            left * per_set * len(sets),
        )

    def chunks_of(self, own: pd.DataFrame) -> list[NDArray[np.int64]]:
        """Divide the rows of a clip into forward passes; all rows of one view stay together."""
        together = self.run.clips.rows_per_view
        size = max(1, self.views_per_pass // together) * together
        rows = own.index.to_numpy()
        return [rows[start : start + size] for start in range(0, len(rows), size)]

    def record(
        self, network: PartialForward, own: pd.DataFrame
    ) -> tuple[list[Chunk], NDArray, NDArray[np.int64]]:
        """Run the whole network on a clip; return chunks, predictions, and row numbers of the predictions."""
        chunks, whole, rows = [], [], []
        constants = torch.from_numpy(self.constants).to(self.run.device)
        for wanted in self.chunks_of(own):
            inputs, order = self.run.inputs_of(wanted)
            prediction, recorded = network.record(inputs)
            values: Tensor | TapOutputs = constants
            if self.donors is not None:
                values = self.donor_outputs(self.donors.loc[order].to_numpy())
            chunks.append(Chunk(inputs, recorded, values, len(order)))
            whole.append(prediction.cpu().numpy())
            rows.append(order)
        return chunks, np.concatenate(whole), np.concatenate(rows)

    def donor_outputs(self, rows: NDArray[np.int64]) -> TapOutputs:
        """Return the outputs of the stage's modules for the views `rows`, in this order."""
        unique, where = np.unique(rows, return_inverse=True)
        together = self.run.clips.rows_per_view
        inputs, order = self.run.inputs_of(unique)
        place = np.argsort(order, kind="stable")[where]
        outputs = tap_outputs(self.run.net, self.stage, inputs)
        count = len(order)

        def reorder(x: Tensor) -> Tensor:
            # One or more rows of the output per view: several if frames are folded into the batch axis.
            if x.dim() and len(x) % count == 0:
                return x.unflatten(0, (count, -1))[place].flatten(0, 1)
            # One row of the output for several views that the network reads together (RTNet).
            if x.dim() and len(x) * together == count:
                return x[place[::together] // together]
            raise UserError(
                f"{self.stage}: the output of its modules has no axis of views, so the activations of "
                "another view cannot be used: give task.replace=mean or task.replace=zero"
            )

        return {
            tap: [torch.utils._pytree.tree_map_only(Tensor, reorder, one) for one in calls]
            for tap, calls in outputs.items()
        }

    @torch.inference_mode()
    def predict(self, network: PartialForward, chunks: list[Chunk], units: NDArray[np.int64]) -> NDArray:
        """Return the predictions of a clip's views with a set of units ablated."""
        found = []
        for chunk in chunks:
            with ablated(self.run.net, self.stage, units.tolist(), chunk.values):
                found.append(network.rest(chunk.inputs, chunk.recorded).cpu().numpy())
        return np.concatenate(found)

    def measure_clip(
        self,
        network: PartialForward,
        own: pd.DataFrame,
        sets: Sequence[NDArray[np.int64]],
        bar: tqdm,
        left: int,
    ) -> NDArray[np.float64]:
        """Return the measures (1 + sets, measures) of one clip; row 0 is the whole network.

        If `left` is not 0, the cost of the sets of `left` clips is logged.
        """
        try:
            chunks, whole, rows = self.record(network, own)
        except torch.OutOfMemoryError as error:
            raise UserError(
                f"{self.views_per_pass} views do not fit in the memory of {self.run.device}: give a smaller "
                "batch_size"
            ) from error
        if left:
            self.tell_cost(network, chunks, sets, left)
        table = own.loc[rows]
        views = ClipViews.of(table, int(table["label"].iloc[0]))
        views = replace(views, masks=self.masks(rows[views.forward].tolist()))
        numbers = [self.measures.measure(whole, whole, views)]
        bar.update()
        for units in sets:
            numbers.append(self.measures.measure(whole, self.predict(network, chunks, units), views))
            bar.update()
        return np.array(numbers, np.float64)


def read_numbers(file: Path, shape: tuple[int, int]) -> NDArray[np.float64]:
    """Read the stored measures of one clip; raise DamagedRun if the file is damaged."""
    try:
        numbers = np.load(file, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise DamagedRun(f"{file} is damaged: remove this file, and give the command again") from error
    if numbers.shape != shape or numbers.dtype != np.float64:
        raise DamagedRun(f"{file} is damaged: remove this file, and give the command again")
    return numbers
