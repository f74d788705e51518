"""Assets: fetched once, checked, and one line of advice where that fails; no network is needed here."""

import hashlib
import subprocess
import zipfile

import pytest
from omegaconf import OmegaConf

from static_dynamic import configs
from static_dynamic.assets import asset_row, fetch
from static_dynamic.errors import UserError
from static_dynamic.files import atomic_path


@pytest.fixture
def tabled(tmp_path, monkeypatch):
    """A table with one asset, whose archive lies in the cache already."""
    monkeypatch.setenv("SD_CACHE", str(tmp_path / "cache"))
    packages = tmp_path / "cache" / "packages"
    packages.mkdir(parents=True)
    archive = packages / "pack-1.0-py3-none-any.whl"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("pack/data.bin", b"content")
    row = {
        "package": "pack==1.0",
        "archive": archive.name,
        "archive_sha256": hashlib.sha256(archive.read_bytes()).hexdigest(),
        "member": "pack/data.bin",
        "sha256": hashlib.sha256(b"content").hexdigest(),
    }
    OmegaConf.save({"thing": row}, tmp_path / "assets.yaml")
    monkeypatch.setattr("static_dynamic.assets.CONFIG_DIR", tmp_path)
    return archive


def test_an_archive_at_hand_is_used_and_dropped(tabled):
    path = fetch("thing")
    assert path.read_bytes() == b"content" and not tabled.exists()
    assert fetch("thing") == path


def test_wrong_bytes_are_refused(tabled, tmp_path):
    fetch("thing").write_bytes(b"other")
    with pytest.raises(UserError, match=r"data.bin has an unexpected SHA-256: delete the file"):
        fetch("thing")
    (tmp_path / "cache" / "assets" / "thing" / "data.bin").unlink()
    tabled.write_bytes(b"not the archive")
    with pytest.raises(UserError, match="pack-1.0-py3-none-any.whl has an unexpected SHA-256"):
        fetch("thing")


def test_no_network_is_one_line_that_says_which_file_to_put_where(tabled, monkeypatch):
    tabled.unlink()
    failed = subprocess.CompletedProcess(
        [], 1, "", "WARNING: x\nERROR: No matching distribution found for pack==1.0\n"
    )
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: failed)
    with pytest.raises(UserError) as error:
        fetch("thing")
    text = str(error.value)
    assert (
        "No matching distribution" in text
        and f"put {tabled.name} into {tabled.parent}" in text
        and "\n" not in text
    )


def test_unknown_asset():
    with pytest.raises(UserError, match="nearest known: i3d_kinetics400"):
        asset_row("i3d_kinetics")


def test_every_asset_says_where_it_is_from():
    for row in OmegaConf.load(configs.CONFIG_DIR / "assets.yaml").values():
        required = {"use", "license", "package", "archive", "archive_sha256", "member", "sha256"}
        assert required == set(row) - {"names"}


def test_an_atomic_file_is_there_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a" / "file.txt"
    with pytest.raises(ZeroDivisionError), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert list(path.parent.iterdir()) == []
    with atomic_path(path) as temporary:
        temporary.write_text("whole")
    assert path.read_text() == "whole" and list(path.parent.iterdir()) == [path]
