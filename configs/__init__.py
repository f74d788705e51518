"""What a user may ask for: the yaml tables beside this file, and the error that says that a request
cannot be met.

Every other package may lean on this one; it leans on none of them.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

CONFIG_DIR = Path(__file__).parent


class UserError(Exception):
    """Something that the user can put right: ``main.py`` prints it as one line and exits with status 2.

    The text names the file or the option and says the way out.
    """


def nearest(name: str, known: Iterable[str]) -> str:
    """Name the known name nearest to `name`, as the end of an error line."""
    known = list(known)
    # a part of a name ("slowfast") is nearer than its edit distance tells
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6) or [
        k for k in known if name and name in k
    ]
    close = close or difflib.get_close_matches(name, known, n=1, cutoff=0.0)
    return f"; nearest known: {close[0]}" if close else ""


def rows(group: str) -> list[str]:
    """Names of the rows of one table, e.g. ``rows("model")``, sorted."""
    return sorted(path.stem for path in (CONFIG_DIR / group).glob("*.yaml"))


def row(group: str, name: str) -> DictConfig:
    """Read one row of a table, e.g. ``row("model", "i3d_inception")``, without Hydra.

    Raises
    ------
    UserError
        Where the table has no such row, or the row says that it is ``not_available_yet``.
    """
    path = CONFIG_DIR / group / f"{name}.yaml"
    if name not in rows(group):
        raise UserError(
            f"unknown {group} {name!r}{nearest(name, rows(group))} (known: {', '.join(rows(group))})"
        )
    config = OmegaConf.load(path)
    require_available(group, name, config)
    return config


def require_available(group: str, name: str, config: DictConfig) -> None:
    """Refuse a row that is listed but not built yet."""
    if config.get("not_available_yet"):
        raise UserError(f"not available yet: {group} {name!r} ({config.not_available_yet})")
