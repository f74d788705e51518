"""Task ``merge``: merge the shards (parts) of runs, and write the tables and figures of the merged runs."""

import logging
from pathlib import Path
from typing import cast

from omegaconf import DictConfig, OmegaConf

from static_dynamic.analysis.outputs import conclude
from static_dynamic.analysis.run.locks import locked
from static_dynamic.analysis.run.shards import find_shards, group_shards, merge_shards
from static_dynamic.analysis.run.store import read_manifest
from static_dynamic.errors import UserError
from static_dynamic.models import build_from_row

log = logging.getLogger(__name__)


def run(cfg: DictConfig) -> None:
    """Merge the shard folders ``cfg.runs``, or all shards below ``cfg.save_dir`` if ``runs`` is empty.

    A run that cannot be merged does not stop the merge of the other runs.
    """
    groups = group_shards(
        [Path(folder) for folder in cfg.runs] or find_shards(Path(cfg.save_dir)), cfg.run_dir
    )
    if not groups:
        raise UserError(f"no shards below {cfg.save_dir}: give save_dir=FOLDER or runs=[SHARD,SHARD,...]")
    errors = []
    for folder, shards in groups.items():
        try:
            merge_shards(folder, shards)
            options = _options_of_run(cfg, folder)
            # No weights are loaded, because the network object only supplies the names of stages.
            net = build_from_row(options.model, checkpoint=None)
            with locked(folder):
                conclude(options, folder, net)
        except UserError as error:
            log.warning("not merged: %s", error)
            errors.append(str(error))
    if errors:
        raise UserError(f"{len(errors)} of {len(groups)} runs were not merged; the first error: {errors[0]}")


def _options_of_run(cfg: DictConfig, folder: Path) -> DictConfig:
    """Return the options in a run's manifest; options that are not in the manifest are taken from `cfg`."""
    manifest = read_manifest(folder)
    identity = manifest["identity"]
    options = cast(dict, OmegaConf.to_container(cfg, resolve=False))
    options |= {key: value for key, value in identity.items() if key in options}
    options["dataset"] = {"name": identity["dataset"]["name"]}
    names = {"original_name": manifest.get("original_name") or identity["model"]["name"]}
    options["model"] = names | identity["model"]
    return OmegaConf.create(options)
