"""Registry of the outputs of a finished run. An output is a function that writes or prints results."""

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import DictConfig

from static_dynamic.analysis.estimate.tables import RunEstimate
from static_dynamic.datasets.orders import FLOW


class PlainOptions(dict):
    """A dict of options, read like ``options.model.name``; ``${...}`` in a text is never interpolated."""

    def __getattr__(self, name: str) -> Any:
        try:
            value = self[name]
        except KeyError as error:
            raise AttributeError(name) from error
        return PlainOptions(value) if isinstance(value, dict) else value


Options = DictConfig | PlainOptions


@dataclass(frozen=True)
class FinishedRun:
    """Folder, options, manifest, stages to show, and estimated scores of a finished run.

    ``stage`` is the stage that the option ``stg`` names (the deepest by default). ``shown`` are the stages
    that one table or curve shows together.
    """

    folder: Path
    options: Options
    manifest: dict
    stage: str
    shown: list[str]
    estimate: RunEstimate

    @property
    def takes_flow(self) -> bool:
        """True if the network takes optical flow, as networks for video object segmentation do."""
        return FLOW in self.manifest["input"]["pathways"]

    @property
    def name(self) -> str:
        """Title of tables and figures: the names of the network and of the data set."""
        untrained = " (untrained)" if self.options.model.init == "random" else ""
        return f"{self.options.model.name}{untrained} on {self.options.dataset.name}"

    @property
    def layer(self) -> pd.Series:
        """Row of ``layers.csv`` for the stage that the option ``stg`` names: scores, shares, intervals."""
        return self.estimate.layers.set_index("stage").loc[self.stage]


@dataclass(frozen=True)
class Output:
    """Output of a run: ``write(run)`` is called if ``applies(run)`` is true, in increasing ``order``."""

    order: int
    applies: Callable[[FinishedRun], bool]
    write: Callable[[FinishedRun], None]


OUTPUTS: dict[str, Output] = {}


def register(
    name: str, order: int, applies: Callable[[FinishedRun], bool] = lambda run: True
) -> Callable[[Callable[[FinishedRun], None]], Callable[[FinishedRun], None]]:
    """Return a decorator that registers a function in the dict `OUTPUTS` as the writer of one output."""

    def add(write: Callable[[FinishedRun], None]) -> Callable[[FinishedRun], None]:
        OUTPUTS[name] = Output(order, applies, write)
        return write

    return add


def write_outputs(run: FinishedRun) -> None:
    """Import all modules of analysis/outputs, then call every registered output that applies to the run."""
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        importlib.import_module(f"{__package__}.{module.name}")
    for output in sorted(OUTPUTS.values(), key=lambda output: output.order):
        if output.applies(run):
            output.write(run)
