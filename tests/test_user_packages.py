"""A user's packages named ``models`` and ``datasets`` keep their names while ``python main.py`` runs."""

import os
import subprocess
import sys

from tests.paths import ROOT

NETWORK = """
import datasets
from torch import nn


def build(width):
    print("datasets is", datasets.ORIGIN)
    return nn.Sequential(
        nn.Conv3d(3, width, 3, stride=4), nn.ReLU(), nn.Conv3d(width, width, 1), nn.AdaptiveAvgPool3d(1),
        nn.Flatten(), nn.Linear(width, 5),
    )
"""


def test_a_network_in_a_package_models_that_imports_a_package_datasets(stylized, tmp_path):
    user = tmp_path / "user"
    (user / "models").mkdir(parents=True)
    (user / "models" / "__init__.py").touch()
    (user / "models" / "mynet.py").write_text(NETWORK)
    (user / "datasets").mkdir()
    (user / "datasets" / "__init__.py").write_text("ORIGIN = 'installed'\n")
    options = [
        *("model=custom", "model.target=models.mynet.build", "+model.options.width=4"),
        *("model.input.frames=4", "model.input.size=40", "model.input.crop=32"),
        *("dataset=folder", f"dataset.root={stylized}", "styles='1,2'", "n_examples=2"),
        *("num_workers=0", "n_boot=20", f"save_dir={tmp_path / 'out'}"),
    ]
    done = subprocess.run(
        [sys.executable, str(ROOT / "main.py"), *options],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(user)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "datasets is installed" in done.stdout
    (layers,) = (tmp_path / "out").rglob("layers.csv")
    assert len(layers.read_text().splitlines()) == 3  # the header and two convolutions
