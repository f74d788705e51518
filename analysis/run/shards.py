"""Shards: divide the views of a run between processes on several GPUs or machines, and merge the results.

A shard is a range of whole batches, so activations do not depend on the number of shards. Each shard has its
own folder next to the run folder: ``seed001-HASH.0-of-4``. Under ``torchrun`` each process computes one
shard, and the first process merges the shards.
"""

import os
import re
import shutil
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
import torch.distributed
from omegaconf import DictConfig
from tqdm import tqdm

from static_dynamic.analysis.run.locks import locked
from static_dynamic.analysis.run.manifest import MANIFEST_NAME, differences, has_run
from static_dynamic.analysis.run.resume import INPUTS_NAME
from static_dynamic.analysis.run.store import Store
from static_dynamic.analysis.run.tables import read_table, write_unlisted
from static_dynamic.datasets.views import frame_columns
from static_dynamic.device import launched
from static_dynamic.errors import UserError

FOLDER_NAME = re.compile(r"(?P<run>.+)\.(?P<index>\d+)-of-(?P<of>\d+)")
# Entries of the manifest, besides the identity, that must be equal in all shards of a run.
COMPARED = ("stages", "computed_with", "batch_size", "code", "versions")
# Manifest entries that must be equal in all shards that contain them; earlier versions wrote none.
COMPARED_IF_THERE = ("network_code", "files_sha256")
# torchrun's barrier must not time out while another process still computes a shard.
BARRIER_TIMEOUT = timedelta(days=365)


@dataclass(frozen=True)
class Shard:
    """Shard number ``index`` (from 0) of a run with ``of`` shards; ``torchrun`` is True in a torchrun job."""

    index: int
    of: int
    batch_size: int
    torchrun: bool = False

    def folder(self, run: Path) -> Path:
        """Return the folder of this shard, next to the run folder `run`."""
        return run.with_name(f"{run.name}.{self.index}-of-{self.of}")

    def all_folders(self, run: Path) -> list[Path]:
        """Return the folders of all shards of the run."""
        return [replace(self, index=k).folder(run) for k in range(self.of)]

    def manifest(self, manifest: dict) -> dict:
        """Return the shard's manifest: the run's manifest, plus the range of views of this shard."""
        n_views = manifest["counts"]["views"]
        batches = -(-n_views // self.batch_size)
        first, end = (
            min(n_views, k * batches // self.of * self.batch_size) for k in (self.index, self.index + 1)
        )
        shard = {
            "index": self.index,
            "of": self.of,
            "first": first,
            "end": end,
            "batch_size": self.batch_size,
        }
        return manifest | {"identity": manifest["identity"] | {"shard": shard}}


def shard_of(cfg: DictConfig, batch_size: int) -> Shard | None:
    """Return the shard that this process computes; None if the process computes the whole run."""
    if launched():
        if cfg.shards != 1:
            raise UserError(f"omit shards={cfg.shards}: under torchrun each process computes one shard")
        rank, processes = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE"))
        return Shard(rank, processes, batch_size, torchrun=True) if processes > 1 else None
    if not 0 <= cfg.shard < cfg.shards:
        raise UserError(
            f"shard={cfg.shard} does not exist: with shards={cfg.shards}, give shard=0 to {cfg.shards - 1}"
        )
    return Shard(cfg.shard, cfg.shards, batch_size) if cfg.shards > 1 else None


def is_complete(run: Path) -> bool:
    """Return whether a folder holds a run in which every view is computed or skipped."""
    return has_run(run) and not len(Store.open(run).to_do())


def wait_for_all() -> None:
    """Wait until every process of this torchrun job has called this function."""
    torch.distributed.init_process_group("gloo", timeout=BARRIER_TIMEOUT)
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def group_shards(folders: Sequence[Path], run_dir: str | None) -> dict[Path, list[Path]]:
    """Return a dict from each run folder to the folders of its shards, sorted by shard number.

    Raises UserError for a folder that is not named like a shard.
    """
    groups = defaultdict(list)
    for folder in sorted(folders):
        name = FOLDER_NAME.fullmatch(folder.name)
        if name is None:
            raise UserError(f"{folder} is not the folder of a shard: names of shard folders end in .K-of-N")
        groups[Path(run_dir) if run_dir else folder.with_name(name["run"])].append(
            (int(name["index"]), folder)
        )
    return {run: [folder for _, folder in sorted(shards)] for run, shards in groups.items()}


def find_shards(folder: Path) -> list[Path]:
    """Return the folders of all shards below a folder."""
    found = {path.parent for path in folder.rglob(MANIFEST_NAME)}
    return [path for path in found if FOLDER_NAME.fullmatch(path.name)]


def merge_shards(run: Path, folders: Sequence[Path], *, remove: bool = False) -> None:
    """Merge shards into the run folder `run`, whose files equal those of a run without shards.

    With `remove`, the folders of the shards are removed once the run is on disk. Raises UserError if a shard
    is missing, is not finished, or belongs to another run.
    """
    shards = [Store.open(folder) for folder in folders]
    require_all(run, shards)
    manifest = shards[0].manifest
    for shard in shards[1:]:
        there = [key for key in COMPARED_IF_THERE if key in manifest and key in shard.manifest]
        changed = differences(comparable(manifest, there), comparable(shard.manifest, there))
        if changed:
            raise UserError(
                f"{shards[0].path} and {shard.path} do not belong to the same run ({'; '.join(changed)}): "
                "compute one of these shards again, with the options of the other"
            )
    require_same_data(shards)
    skipped = [entry for shard in shards for entry in shard.manifest["skipped_views"]]
    whole = manifest | {"identity": identity_of_run(manifest), "skipped_views": skipped}
    # Older versions of the program stored no class scores: then the merged run has none, either.
    if any("class_scores" not in shard.manifest for shard in shards):
        whole.pop("class_scores", None)
    views, pairs = shards[0].views, shards[0].pairs
    with locked(run):
        store = Store.create_or_resume(run, whole, views, pairs)
        store.update_manifest(skipped_views=skipped)
        for shard in tqdm(shards, desc="merge", unit="shard"):
            store.copy_shard(shard)
        if (shards[0].path / INPUTS_NAME).exists():
            write_unlisted(run / INPUTS_NAME, read_table(shards[0].path / INPUTS_NAME))
    if remove:
        for folder in folders:
            shutil.rmtree(folder)


def require_same_data(shards: Sequence[Store]) -> None:
    """Raise UserError if two shards read different sizes of one file, or different pixels of one video."""
    listed = {shard.path: shard.path / INPUTS_NAME for shard in shards}
    sizes = {path: read_table(file).drop(columns="time") for path, file in listed.items() if file.exists()}
    for path, table in sizes.items():
        first, other = next(iter(sizes.items()))
        if not table.equals(other):
            both = table.merge(other, how="outer", indicator=True)
            video = both.loc[both["_merge"] != "both", "video"].iloc[0]
            raise UserError(
                f"{first} and {path} read different files of video {video}: compute one of these shards "
                "again, on the data of the other"
            )
    views = shards[0].views
    if "jitter" in views:
        # with optical flow, no two views share pixels that could be compared
        return
    frames = [views[name].tolist() for name in frame_columns(views)]
    keys = [
        (video, style, np.unique(np.concatenate(shown)).tobytes())
        for video, style, *shown in zip(views["video"], views["style"], *frames, strict=True)
    ]
    seen: dict[tuple, tuple[int, Path]] = {}
    for shard in shards:
        if shard.pixels is None:
            continue
        for row in shard.done():
            digest = int(shard.pixels[row - shard.first])
            before, path = seen.setdefault(keys[row], (digest, shard.path))
            if digest != before:
                video, style, _ = keys[row]
                raise UserError(
                    f"{path} and {shard.path} read different pixels of video {video}, style {style}: "
                    "compute one of these shards again, on the data of the other"
                )


def require_all(run: Path, shards: Sequence[Store]) -> None:
    """Raise UserError if a shard of the run is missing, or has views that are not computed yet."""
    for shard in shards:
        if not shard.shard:
            raise UserError(f"{shard.path} is not a shard: task=merge needs runs with shards=N shard=K")
        if len(shard.to_do()):
            raise UserError(
                f"{len(shard.to_do())} of {len(shard.status)} views of {shard.path} are not computed yet: "
                "run the command of this shard again"
            )
    parts = [shard.manifest["identity"]["shard"] for shard in shards]
    of = parts[0]["of"]
    missing = sorted(set(range(of)) - {part["index"] for part in parts})
    if missing or len(shards) != of:
        raise UserError(
            f"cannot merge {run}: found {len(shards)} of {of} shards"
            + (f"; run the command with shards={of} shard={missing[0]}" if missing else "")
        )


def identity_of_run(manifest: dict) -> dict:
    """Return the identity of the run that a shard belongs to (the shard's identity without key ``shard``)."""
    return {key: value for key, value in manifest["identity"].items() if key != "shard"}


def comparable(manifest: dict, further: Sequence[str] = ()) -> dict:
    """Return all entries of a shard's manifest that must be equal in all shards of a run."""
    computed = {key: manifest.get(key) for key in (*COMPARED, *further)}
    return identity_of_run(manifest) | computed
