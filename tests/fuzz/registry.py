"""Registry of the kinds of input that are fuzzed."""

import importlib
import pkgutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.fuzz import kinds

# A trial reads the mutant. It returns a word for the outcome if the mutant is accepted, raises UserError if
# the mutant is refused, and raises AssertionError if an accepted mutant has other numbers without a word.
Trial = Callable[[], str]
# A maker writes one mutant into an empty folder; it returns a description of the mutation and the trial. All
# random choices come from the generator, so that a case is repeated by its seed and number.
Maker = Callable[[np.random.Generator, Path], tuple[str, Trial]]
KINDS: dict[str, Maker] = {}


def fuzzer(make: Maker) -> Maker:
    """Decorator: register the maker of mutants of one kind, under its function name."""
    KINDS[make.__name__] = make
    return make


def all_kinds() -> dict[str, Maker]:
    """Import every file in ``tests/fuzz/kinds``; return the makers by name."""
    for module in pkgutil.iter_modules(kinds.__path__):
        importlib.import_module(f"{kinds.__name__}.{module.name}")
    return KINDS
