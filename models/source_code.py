"""Hashes of the source files that a network was built from."""

import sys
from pathlib import Path

from torch import nn

from static_dynamic.files import sha256


def source_hashes(net: nn.Module) -> dict[str, str]:
    """Return a dict, Python module -> SHA-256 of its file, of all modules that define classes of a network.

    Modules of torch are left out, because the version of torch identifies them.
    """
    names = {parent.__module__ for part in net.modules() for parent in type(part).__mro__}
    names = {name for name in names if name.partition(".")[0] not in ("torch", "builtins")}
    files = {name: getattr(sys.modules.get(name), "__file__", None) for name in sorted(names)}
    return {name: sha256(Path(file)) for name, file in files.items() if file and Path(file).is_file()}
