"""A run with attention heads as units, from the command line to the table of heads."""

import json
import shutil
from functools import partial

import numpy as np
import pandas as pd

import main

SMALL = [
    "model=small_transformer",
    "model.init=random",
    "model.args.width=12",
    "model.args.heads=3",
    "--dataset=folder",
    "--styles=1,2",
    "num_workers=0",
    "n_boot=20",
    "n_permutations=20",
]


def test_a_run_with_heads(in_process, stylized, tmp_path):
    run = partial(in_process, main, *SMALL, f"--stylized_data_dir={stylized}", f"run_dir={tmp_path / 'run'}")
    status, out, err = run("units=heads")
    assert status == 0, err
    folder = tmp_path / "run"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["identity"]["units"] == "heads" and "tokens" not in manifest["identity"]
    assert manifest["stages"]["stage1"] == {"units": 12, "stream": "rgb", "heads": 3}
    heads = pd.read_csv(folder / "heads.csv")
    layers, units = pd.read_csv(folder / "layers.csv"), pd.read_parquet(folder / "units.parquet")
    assert list(heads["stage"]) == ["stage1"] * 3 + ["stage2"] * 3 and list(heads["head"]) == [0, 1, 2] * 2
    # a head's part is the mean of its columns, and a layer's part is the mean of its heads
    for (stage, head), row in heads.set_index(["stage", "head"]).iterrows():
        own = units[(units["stage"] == stage) & units["unit"].between(4 * head, 4 * head + 3)]
        for part in ("content", "motion", "appearance", "residual"):
            np.testing.assert_allclose(row[part], own[part].mean(), rtol=1e-6)
            assert row[f"{part}_low"] < row[part] < row[f"{part}_high"]
    means = heads.groupby("stage")["motion"].mean()
    np.testing.assert_allclose(means, layers.set_index("stage")["motion"], rtol=1e-6)
    # the same command again reads nothing; other units or tokens are refused
    rows = np.load(folder / "activations" / "stage1.npy")
    status, _, err = run("units=heads")
    assert status == 0 and "are on disk" in err
    for others in (["units=neurons"], ["units=heads", "tokens=patches"], []):
        status, _, err = run(*others)
        assert status == 2 and "holds a run with other options" in err
    # two shards give the same activations, bit for bit
    shutil.rmtree(folder)
    for shard in range(2):
        status, _, err = run("units=heads", "shards=2", f"shard={shard}")
        assert status == 0, err
    status, _, err = run("task=merge", f"runs=[{folder}.0-of-2,{folder}.1-of-2]")
    assert status == 0, err
    assert np.array_equal(np.load(folder / "activations" / "stage1.npy"), rows)
    assert (folder / "heads.csv").read_text().count("\n") == 7
    status, _, err = run("units=headz")
    assert status == 2 and "unknown value units=headz" in err
