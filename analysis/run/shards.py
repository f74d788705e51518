"""One run on several machines or GPUs: shards of its views, and how they become one run again.

A shard is a range of whole batches, so that no row depends on the sharding. It is a run folder of its own
beside the run's: ``seed001-HASH.0-of-4``. Under ``torchrun`` each process is a shard, and the first one
merges.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pandas as pd
import torch
import torch.distributed
from omegaconf import DictConfig
from tqdm import tqdm

from static_dynamic.analysis.run.store import Store, differences, locked
from static_dynamic.device import launched
from static_dynamic.errors import UserError

NAME = re.compile(r"(?P<run>.+)\.(?P<index>\d+)-of-(?P<of>\d+)")
FOREVER = timedelta(days=365)


@dataclass(frozen=True)
class Shard:
    """One share of a run's views, ``index`` counted from 0; ``together`` under torchrun."""

    index: int
    of: int
    batch_size: int
    together: bool = False

    def folder(self, run: Path) -> Path:
        """Its folder, beside that of the run."""
        return run.with_name(f"{run.name}.{self.index}-of-{self.of}")

    def manifest(self, manifest: dict) -> dict:
        """The manifest of the run, with which rows are this shard's."""
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
    """The shard that this process is to read; None: everything."""
    if launched():
        if cfg.shards != 1:
            raise UserError(f"shards={cfg.shards}: under torchrun each process is a shard: leave shards out")
        rank, processes = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE"))
        return Shard(rank, processes, batch_size, together=True) if processes > 1 else None
    if not 0 <= cfg.shard < cfg.shards:
        raise UserError(f"shard={cfg.shard}: shards={cfg.shards} are numbered from 0 to {cfg.shards - 1}")
    return Shard(cfg.shard, cfg.shards, batch_size) if cfg.shards > 1 else None


def is_read(run: Path) -> bool:
    """Whether the whole run is on disk: shards that were merged need not be read again."""
    return (run / "manifest.json").exists() and not len(Store.open(run).to_do())


def wait_for_all() -> None:
    """Wait until every process of this torchrun has come here."""
    torch.distributed.init_process_group("gloo", timeout=FOREVER)
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def merge_shards(run: Path, folders: Sequence[Path], *, remove: bool = False) -> None:
    """Put shards together to the run that they are of; the same bytes as one process would have read.

    With `remove` their folders are gone when all of it is on disk.

    Raises
    ------
    UserError
        A shard is missing, has views to be read, or is of another run.
    """
    shards = [Store.open(folder) for folder in folders]
    require_all(run, shards)
    manifest = shards[0].manifest
    for shard in shards[1:]:
        changed = differences(identity_of_run(manifest), identity_of_run(shard.manifest))
        changed += differences(manifest["stages"], shard.manifest["stages"])
        changed += differences(
            *({k: m.get(k) for k in ("computed_with", "batch_size")} for m in (manifest, shard.manifest))
        )
        if changed:
            raise UserError(
                f"{shards[0].path} and {shard.path} are not of one run ({'; '.join(changed)}): "
                "read one of them again"
            )
    skipped = [entry for shard in shards for entry in shard.manifest["skipped_views"]]
    whole = manifest | {"identity": identity_of_run(manifest), "skipped_views": skipped}
    views, pairs = (pd.read_parquet(shards[0].path / f"{name}.parquet") for name in ("views", "pairs"))
    with locked(run):
        store = Store.create_or_resume(run, whole, views, pairs)
        store.note(skipped_views=skipped)
        for shard in tqdm(shards, desc="merge", unit="shard"):
            store.adopt(shard)
    if remove:
        for folder in folders:
            shutil.rmtree(folder)


def require_all(run: Path, shards: Sequence[Store]) -> None:
    """Raise where these are not all shards of a run, finished."""
    for shard in shards:
        if not shard.shard:
            raise UserError(f"{shard.path} is no shard: task=merge puts shards together (shards=N shard=K)")
        if len(shard.to_do()):
            raise UserError(
                f"{shard.path}: {len(shard.to_do())} of {len(shard.status)} views are still to be read: "
                "run the command of that shard again"
            )
    of = shards[0].shard["of"]
    missing = sorted(set(range(of)) - {shard.shard["index"] for shard in shards})
    if missing or len(shards) != of:
        raise UserError(
            f"{run}: {len(shards)} of {of} shards are here"
            + (f", shard={missing[0]} is missing: run it (shards={of} shard={missing[0]})" if missing else "")
        )


def identity_of_run(manifest: dict) -> dict:
    """What a shard's run was asked for, whichever shard it is."""
    return {key: value for key, value in manifest["identity"].items() if key != "shard"}
