"""The registry of outputs: what a finished run writes and prints, one decorated function per output."""

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from omegaconf import DictConfig

from static_dynamic.analysis.estimate.tables import RunEstimate
from static_dynamic.datasets.views import FLOW


@dataclass(frozen=True)
class FinishedRun:
    """A run that is on disk, with its estimate.

    ``stage`` is the stage that the options name (the deepest by default); ``shown`` are the stages that one
    table or curve shows together.
    """

    folder: Path
    options: DictConfig
    manifest: dict
    stage: str
    shown: list[str]
    estimate: RunEstimate

    @property
    def takes_flow(self) -> bool:
        """Whether the network takes optical flow (video object segmentation)."""
        return FLOW in self.manifest["input"]["pathways"]

    @property
    def name(self) -> str:
        """Network and data set, for titles."""
        untrained = " (untrained)" if self.options.model.init == "random" else ""
        return f"{self.options.model.name}{untrained} on {self.options.dataset.name}"

    @property
    def layer(self) -> pd.Series:
        """The estimates of `stage`: one row of ``layers.csv``."""
        return self.estimate.layers.set_index("stage").loc[self.stage]


@dataclass(frozen=True)
class Output:
    """One output of a finished run: ``write`` is called, by rising ``order``, where ``applies`` is true."""

    order: int
    applies: Callable[[FinishedRun], bool]
    write: Callable[[FinishedRun], None]


OUTPUTS: dict[str, Output] = {}


def register(
    name: str, order: int, applies: Callable[[FinishedRun], bool] = lambda run: True
) -> Callable[[Callable[[FinishedRun], None]], Callable[[FinishedRun], None]]:
    """Decorate a function that writes an output: register it in `OUTPUTS` under `name`."""

    def add(write: Callable[[FinishedRun], None]) -> Callable[[FinishedRun], None]:
        OUTPUTS[name] = Output(order, applies, write)
        return write

    return add


def write_outputs(run: FinishedRun) -> None:
    """Write every output of the registry that applies to a run."""
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        importlib.import_module(f"{__package__}.{module.name}")
    for output in sorted(OUTPUTS.values(), key=lambda output: output.order):
        if output.applies(run):
            output.write(run)
