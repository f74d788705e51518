"""Public faces of packages whose modules are loaded when something of theirs is first asked for."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping


def lazy_face(
    package: str, modules: Mapping[str, str]
) -> tuple[Callable[[str], object], Callable[[], list[str]], list[str]]:
    """Make ``__getattr__``, ``__dir__`` and ``__all__`` of a package (PEP 562).

    Parameters
    ----------
    package
        Its name.
    modules
        Module -> the names that the package shows of it, with blanks between them. None of them may be the
        name of a module of the package: that would hide it.
    """
    module_of = {name: module for module, names in modules.items() for name in names.split()}

    def find(name: str) -> object:
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{module_of[name]}"), name)

    def known() -> list[str]:
        return sorted({*vars(importlib.import_module(package)), *module_of})

    return find, known, sorted(module_of)
