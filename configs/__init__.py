"""Tables of what a user may ask for (tasks, data sets, networks, styles, assets), and what checks options against
them."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from static_dynamic.errors import UserError, nearest

CONFIG_DIR = Path(__file__).parent


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
