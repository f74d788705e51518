"""Measure how much of what a video network encodes is static and how much is dynamic, per layer and per unit.

The subpackages are ``static_dynamic.stylize``, ``.datasets``, ``.models`` and ``.analysis``; ``.configs``
holds the config files. In an installed copy the subpackages lie inside this package. In a checkout they lie
beside this folder, and this file adds the checkout's root to the package's search path.
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
PROGRAM = "python main.py" if CHECKOUT else "static-dynamic"
"""The command that starts this program, as help texts and messages show it."""

if CHECKOUT and str(CHECKOUT) not in __path__:
    __path__.append(str(CHECKOUT))


def put_checkout_last() -> None:
    """Move this checkout to the end of ``sys.path``, so that packages of the user are found first.

    ``import models`` then finds a user's package of that name, and ``import datasets`` that of Hugging Face.
    """
    if CHECKOUT:
        others = [entry for entry in sys.path if Path(entry).resolve() != CHECKOUT]
        sys.path[:] = [*others, str(CHECKOUT)]


def lazy_exports(name: str, file: str) -> tuple[Callable, Callable, list[str]]:
    """Return the tuple (``__getattr__``, ``__dir__``, ``__all__``) that makes a package import names lazily.

    The stub (.pyi) beside `file` lists the public names. Imports are lazy because torch alone takes seconds
    to load. If a script in a checkout imports the subpackage under its short name (``import models``), the
    short name is bound to the same module as ``static_dynamic.models``.
    """
    if not name.startswith(f"{__name__}."):
        sys.modules[name] = importlib.import_module(f"{__name__}.{name}")
    return lazy_loader.attach_stub(name, file)
