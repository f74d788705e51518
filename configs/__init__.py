"""Command-line options, and the config files (``model/*.yaml``, ...) from which the user chooses.

Importing this package registers the dataclasses of the options with Hydra.
"""

from pathlib import Path
from typing import cast

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from static_dynamic.errors import UserError, nearest

from .common import Common
from .tasks import tasks

CONFIG_DIR = Path(__file__).parent
GROUPS = ("task", "dataset", "model", "style")
"""Hydra config groups with one entry chosen on the command line, e.g. ``model=x3d_m``."""


def rows(group: str) -> list[str]:
    """Return the sorted names of all entries of a config group, e.g. of all networks in ``configs/model``."""
    if group == "task":
        return sorted(tasks())
    return sorted(path.stem for path in (CONFIG_DIR / group).glob("*.yaml"))


def row(group: str, name: str) -> DictConfig:
    """Read one entry of a config group without Hydra, e.g. ``row("model", "i3d_inception")``.

    Raises UserError if the config group has no such entry.
    """
    if name not in rows(group):
        known = ", ".join(rows(group))
        raise UserError(f"unknown {group} {name!r}{nearest(name, rows(group))} (known: {known})")
    if group == "task":
        return OmegaConf.structured(tasks()[name])
    return cast(DictConfig, OmegaConf.load(CONFIG_DIR / group / f"{name}.yaml"))


_store = ConfigStore.instance()
_store.store(name="common", node=Common)
for _name, _task in tasks().items():
    _store.store(group="task", name=_name, node=_task)
