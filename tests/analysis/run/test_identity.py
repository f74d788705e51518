"""What a run's identity tells of a network that lies in a folder."""

from pathlib import Path
from types import SimpleNamespace

from omegaconf import OmegaConf

from static_dynamic import configs
from static_dynamic.analysis.run.identity import run_folder, subject_of


def test_a_folder_with_a_network_is_named_without_its_path(tmp_path, monkeypatch):
    network = tmp_path / "private" / "vit"
    network.mkdir(parents=True)
    weights = tmp_path / "weights"
    weights.write_text("hash")
    monkeypatch.chdir(network)
    clips = SimpleNamespace(name="folder", listing_sha256="0")
    found = []
    for name in (str(network), ".", "facebook/vit"):
        row = configs.row("model", "huggingface")
        row.name = name
        cfg = OmegaConf.create({"model": row, "run_dir": None, "save_dir": "save"})
        found.append(subject_of(cfg, clips, Path("data"), weights))
        assert "private" not in str(found[-1]) and found[-1]["weights_sha256"]
    assert found[0] == found[1] and found[0]["model"]["name"] == found[0]["model"]["args"]["network"] == "vit"
    assert found[2]["model"]["name"] == "facebook/vit"
    assert run_folder(cfg, found[0], "run").parts[:3] == ("save", "vit", "folder")
