"""The options and the tables (tasks, data sets, networks, styles) that a user chooses from.

Importing this package registers the dataclasses of the options with Hydra.
"""

from __future__ import annotations

from pathlib import Path

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from static_dynamic.configs.common import Common
from static_dynamic.configs.tasks import tasks
from static_dynamic.errors import UserError, nearest

CONFIG_DIR = Path(__file__).parent
GROUPS = ("task", "dataset", "model", "style")
"""The tables that have a row chosen on the command line: ``model=x3d_m``."""


def rows(group: str) -> list[str]:
    """Names of the rows of one table, e.g. ``rows("model")``, sorted."""
    if group == "task":
        return sorted(tasks())
    return sorted(path.stem for path in (CONFIG_DIR / group).glob("*.yaml"))


def row(group: str, name: str) -> DictConfig:
    """Read one row of a table, e.g. ``row("model", "i3d_inception")``, without Hydra.

    Raises
    ------
    UserError
        If the table has no such row.
    """
    if name not in rows(group):
        raise UserError(
            f"unknown {group} {name!r}{nearest(name, rows(group))} (known: {', '.join(rows(group))})"
        )
    if group == "task":
        return OmegaConf.structured(tasks()[name])
    return OmegaConf.load(CONFIG_DIR / group / f"{name}.yaml")


_store = ConfigStore.instance()
_store.store(name="common", node=Common)
for _name, _task in tasks().items():
    _store.store(group="task", name=_name, node=_task)
