"""Measure how much of what a video network encodes is static and how much is dynamic, per layer and per unit.

The parts are ``static_dynamic.stylize``, ``.datasets``, ``.models`` and ``.analysis``; ``.configs`` holds the
tables of options. In an installed copy their folders lie inside this package. In a checkout they lie beside
it, and this file adds the checkout's root to the package's search path.
"""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path

import lazy_loader

__version__ = "0.2.0"

_BESIDE = Path(__file__).resolve().parents[1]
CHECKOUT: Path | None = _BESIDE if (_BESIDE / "configs" / "config.yaml").is_file() else None
"""Root of the checkout that this package runs from; None in an installed copy."""

if CHECKOUT and str(CHECKOUT) not in __path__:
    __path__.append(str(CHECKOUT))


def put_checkout_last() -> None:
    """Move the root of the checkout to the end of ``sys.path``, behind the packages of the user.

    ``import models`` then finds a user's package of that name, and ``import datasets`` that of Hugging Face.
    """
    if CHECKOUT:
        others = [entry for entry in sys.path if Path(entry).resolve() != CHECKOUT]
        sys.path[:] = [*others, str(CHECKOUT)]


def lazy_face(name: str, file: str) -> tuple[Callable, Callable, list[str]]:
    """Make ``__getattr__``, ``__dir__`` and ``__all__`` of a part from the stub (.pyi) beside its `file`.

    A public name is imported when it is first used, because torch alone takes seconds to load. Type checkers
    read the same stub. If a script in a checkout imports the part under its short name (``import models``),
    the short name is bound to the same module as ``static_dynamic.models``.
    """
    if not name.startswith(f"{__name__}."):
        sys.modules[name] = importlib.import_module(f"{__name__}.{name}")
    return lazy_loader.attach_stub(name, file)
