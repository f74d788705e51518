"""Task ``merge``: shards to runs, and the tables and figures of those."""

from __future__ import annotations

import logging
from collections import defaultdict
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from static_dynamic.analysis import outputs
from static_dynamic.analysis.run.shards import NAME, merge_shards
from static_dynamic.analysis.run.store import locked, read_manifest
from static_dynamic.errors import UserError
from static_dynamic.models import build_from_row

log = logging.getLogger(__name__)


def run(cfg: DictConfig) -> None:
    """Put the shards ``cfg.runs``, or all below ``cfg.save_dir``, together; one run that cannot be merged
    does not stop the others."""
    groups = defaultdict(list)
    for folder in sorted(map(Path, cfg.runs)) or find_shards(Path(cfg.save_dir)):
        found = NAME.fullmatch(folder.name)
        if found is None:
            raise UserError(f"{folder} is no shard: their names end in .K-of-N")
        groups[Path(cfg.run_dir) if cfg.run_dir else folder.with_name(found["run"])].append(folder)
    if not groups:
        raise UserError(f"no shards below {cfg.save_dir}: give save_dir=... or runs=[FOLDER,FOLDER,...]")
    faults = []
    for target, folders in groups.items():
        try:
            merge_shards(target, sorted(folders, key=lambda f: int(NAME.fullmatch(f.name)["index"])))
            conclude(cfg, target)
        except UserError as error:
            log.warning("not merged: %s", error)
            faults.append(str(error))
    if faults:
        raise UserError(f"{len(faults)} of {len(groups)} runs were not merged; the first: {faults[0]}")


def find_shards(folder: Path) -> list[Path]:
    """Folders of shards below a folder."""
    found = {path.parent for path in folder.rglob("manifest.json")}
    return sorted(path for path in found if NAME.fullmatch(path.name))


def conclude(cfg: DictConfig, folder: Path) -> None:
    """Tables and figures of a merged run, as the run itself would have made them."""
    identity = read_manifest(folder)["identity"]
    asked = OmegaConf.to_container(cfg, resolve=False)
    asked |= {key: value for key, value in identity.items() if key in asked}
    asked |= {"dataset": {"name": identity["dataset"]["name"]}}
    asked = OmegaConf.create(asked)
    # weights are not looked at: the network says which stages are shown together
    net = build_from_row(asked.model, checkpoint=None)
    with locked(folder):
        outputs.conclude(asked, folder, net)
