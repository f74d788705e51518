"""Task ``merge``: merge the shards (parts) of runs, and write the tables and figures of the merged runs."""

import logging
from pathlib import Path
from typing import cast

from omegaconf import DictConfig, OmegaConf

from static_dynamic.analysis.outputs import conclude
from static_dynamic.analysis.outputs.registry import PlainOptions
from static_dynamic.analysis.run.feature_files import FEATURES, export_features
from static_dynamic.analysis.run.locks import locked
from static_dynamic.analysis.run.manifest import read_manifest
from static_dynamic.analysis.run.shards import find_shards, group_shards, merge_shards
from static_dynamic.errors import UserError
from static_dynamic.files import file_name
from static_dynamic.models.stage_names import find_stage

log = logging.getLogger(__name__)

# Options that are taken from the manifest of the merged run, with their types.
OF_RUN = {"pairs": str, "seed": int, "app_shuffle": bool, "use_normal_app": bool, "m_same": bool}


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
            manifest = read_manifest(folder)
            if FEATURES in manifest:
                with locked(folder):
                    export_features(folder, manifest[FEATURES]["format"], manifest[FEATURES]["rdm"])
                continue
            options = _options_of_run(cfg, manifest)
            names = list(manifest["stages"])
            shown = [name for name in manifest.get("shown_stages", ()) if name in names] or names
            stage = manifest.get("deepest_stage", names[-1])
            stage = stage if stage in names else names[-1]
            if cfg.stg is not None:
                stage = find_stage(cfg.stg, names, cfg)
            with locked(folder):
                conclude(options, folder, stage, shown)
        except UserError as error:
            log.warning("not merged: %s", error)
            errors.append(str(error))
    if errors:
        raise UserError(f"{len(errors)} of {len(groups)} runs were not merged; the first error: {errors[0]}")


def _options_of_run(cfg: DictConfig, manifest: dict) -> PlainOptions:
    """Return the options of this command, but take the options in `OF_RUN` from the run's manifest.

    A manifest is data of unknown origin: only values of the expected type are taken, texts are never
    interpolated, and neither a network nor an output folder is chosen by the manifest.
    """
    identity = manifest["identity"]
    options = cast(dict, OmegaConf.to_container(cfg, resolve=True))
    options |= {key: identity[key] for key, kind in OF_RUN.items() if type(identity.get(key)) is kind}
    model = {key: str(identity["model"].get(key)) for key in ("name", "init")}
    original_name = manifest.get("original_name") or model["name"]
    options["dataset"] = {"name": str(identity["dataset"]["name"])}
    options["model"] = model | {"original_name": file_name(str(original_name))}
    return PlainOptions(options)
