"""Import other packages, and turn their errors into messages of one line."""

import importlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from traceback import walk_tb
from types import ModuleType

import torch

from static_dynamic.errors import UserError, nearest, reason


def load_package(family: str, module: str) -> ModuleType:
    """Import a package that only one family of networks needs.

    Raises UserError if a package is not installed or does not fit this version of torch.
    """
    try:
        return importlib.import_module(module)
    except (ImportError, RuntimeError, AttributeError, OSError) as error:
        missing = getattr(error, "name", None) or ""
        if isinstance(error, ModuleNotFoundError) and "." not in missing:
            raise UserError(f"model={family} needs the package {missing}: pip install {missing}") from error
        raise UserError(
            f"model={family}: {module} cannot be imported with torch {torch.__version__} "
            f"({reason(error)}): install the version of {blamed(error, module)} for this torch"
        ) from error


def blamed(error: BaseException, module: str) -> str:
    """Return the package, other than torch, in whose code the import of `module` failed."""
    roots = [
        frame.f_globals.get("__name__", "").partition(".")[0] for frame, _ in walk_tb(error.__traceback__)
    ]
    packages = [root for root in roots if root not in ("torch", "importlib", "static_dynamic", "")]
    return packages[-1] if packages else module.partition(".")[0]


@contextmanager
def package_errors(family: str, network: str) -> Iterator[None]:
    """Turn a package's exception (unknown name, missing weights, no connection) into a UserError."""
    try:
        yield
    except (OSError, RuntimeError, ValueError, LookupError, AttributeError) as error:
        raise UserError(f"model={family} ({network}): {reason(error)}") from error


def check_known(family: str, network: str, known: Sequence[str]) -> None:
    """Raise UserError if `network` is not in `known`, the package's list of networks."""
    if network not in known:
        raise UserError(f"model={family}: the package has no network {network!r}{nearest(network, known)}")


def with_classes(keyword: str, num_classes: int | None) -> dict[str, int]:
    """Return {keyword: num_classes}, or {} if `num_classes` is None (the package's default)."""
    return {} if num_classes is None else {keyword: num_classes}
