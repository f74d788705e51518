"""The command line: runs from end to end on small data; wrong input gives one line and exit status 2."""

import json
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import main
from static_dynamic.configs import row, rows
from static_dynamic.configs.grammar import quote
from static_dynamic.configs.options import check, translate
from static_dynamic.errors import UserError
from tests.paths import ROOT

SMALL = [
    "model=x3d_xs",
    "model.init=random",
    "model.input.size=40",
    "model.input.crop=32",
    "num_workers=0",
    "n_boot=50",
]


@pytest.fixture
def run(in_process):
    """Run main.py: (status, stdout, stderr)."""
    return partial(in_process, main)


def errors(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("error:")]


def run_folders(folder: Path) -> list[Path]:
    return sorted(p.parent for p in folder.rglob("manifest.json"))


def test_a_run_on_a_folder_gives_tables_figure_and_manifest(run, stylized, tmp_path):
    flags = [
        "--stylized_data_dir",
        stylized,
        "--dataset",
        "folder",
        "--stg",
        "5",
        "--joint_encoding",
        "True",
        "--styles",
        "1,2",
    ]
    status, out, err = run(*SMALL, *flags)
    assert status == 0, err
    assert " >>> Estimated factor dimensionalities: [" in out and "stage5" in out and "stage4" not in out
    assert " >>> Joint encoding at 0.5: dynamic" in out
    (folder,) = run_folders(tmp_path / "dim_outputs")
    layers = pd.read_csv(folder / "layers.csv")
    assert list(layers["stage"]) == [f"stage{k}" for k in range(1, 6)] and list(layers["clips"]) == [4] * 5
    units = pd.read_parquet(folder / "units.parquet")
    assert len(units) == 24 + 24 + 48 + 96 + 192
    assert layers["p_static"].between(1 / 201, 1).all() and layers["permutations"].eq(200).all()
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (
        manifest["identity"]["seed"] == 1
        and manifest["counts"]["views"] == 16
        and manifest["versions"]["torch"]
    )
    assert (folder / "profile.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "variance.png").exists() and "variance of units by source" in out
    report = folder / "report.html"
    first = report.read_bytes()
    assert first.startswith(b"<!DOCTYPE html>") and first.count(b"<img") == 6  # 2 clips: 2 styles, 1 shuffled
    report.unlink()
    status, out, _ = run("task=report", f"runs=[{folder}]")
    assert status == 0 and str(report) in out and report.read_bytes() == first
    assert run("task=report")[0] == 2
    shares = pd.read_csv(folder / "variance_layers.csv").groupby("stage")["share"].sum()
    np.testing.assert_allclose(shares, 1)
    dims, percent = (tmp_path / "dim_outputs" / "x3d_xs_dim_est.csv").read_bytes().decode().split("\r\n")[:2]
    last = layers.iloc[-1]
    assert dims == ",".join(str(last[f"dims_{f}"]) for f in ("dynamic", "static", "residual"))
    assert percent == ",".join(str(last[f"dims_percent_{f}"]) for f in ("dynamic", "static", "residual"))
    assert (tmp_path / "dim_outputs/joint_encode_plots_unique/thresh_0.5_x3d_xs_stg_5_folder.png").exists()


def test_the_same_run_again_reads_nothing_and_writes_the_same(run, stylized, tmp_path):
    arguments = [*SMALL, "--stylized_data_dir", stylized, "--dataset", "folder", "--styles", "1,2"]
    assert run(*arguments)[0] == 0
    (folder,) = run_folders(tmp_path)
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    status, _, err = run(*arguments)
    assert status == 0 and "are on disk" in err
    assert before == {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_seeds_stages_and_data_sets_do_not_overwrite_each_other(run, stylized, tmp_path):
    status, _, err = run(
        "-m", *SMALL, f"stylized_data_dir={stylized}", "dataset=folder", "styles='1,2'", "seed=1,2,3,4"
    )
    assert status == 0, err
    folders = run_folders(tmp_path)
    assert [f.name[:7] for f in folders] == ["seed001", "seed002", "seed003", "seed004"]
    done = subprocess.run(
        [sys.executable, ROOT / "misc/average_runs.py", *folders, "--csv", tmp_path / "mean.csv"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(tmp_path / "mean.csv").set_index("stage")
    values = np.array(
        [pd.read_csv(f / "layers.csv").set_index("stage").loc["stage3", "score_static"] for f in folders]
    )
    assert np.isclose(table.loc["stage3", "score_static"], values.mean())
    spread = 1.96 * np.sqrt(((values - values.mean()) ** 2).mean()) / np.sqrt(4)
    assert np.isclose(table.loc["stage3", "score_static_ci"], spread)


def test_runs_side_by_side(run, stylized, tmp_path):
    data = ["dataset=folder", f"stylized_data_dir={stylized}", "styles='1,2'"]
    assert run("-m", *SMALL, *data, "seed=1,2")[0] == 0
    folders = run_folders(tmp_path)
    status, out, _ = run("task=compare", f"runs=[{folders[0]},{folders[1]}]", "task.formats=[png]")
    assert status == 0
    (compared,) = (tmp_path / "dim_outputs" / "compare").iterdir()
    figures = {path.stem for path in compared.glob("*.png")}
    assert figures == {"parts", "curves", "plane", "classes", "histograms", "sweep"}
    expected = pd.read_csv(folders[1] / "layers.csv").set_index("stage").loc["stage3", "score_static"]
    assert "x3d_xs seed 1" in out and "x3d_xs seed 2" in out and f"{expected:.3f} [" in out
    status, _, err = run("task=compare", f"runs=[{folders[0]}]")
    assert status == 2 and "give runs=[FOLDER,FOLDER,...]" in err
    status, _, err = run("task=compare", f"runs=[{folders[0]},{tmp_path}]")
    assert status == 2 and "is not a run folder" in err


def test_average_of_what_is_no_run(tmp_path):
    command = [sys.executable, ROOT / "misc/average_runs.py", tmp_path, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and len(errors(done.stderr)) == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--bogus", "1"], "unknown option --bogus; nearest known: "),
        (["styles=1,3"], "styles=1,3 lists several values: give -m"),
        (["--joint_encodng", "True"], "nearest known: joint_encoding"),
        (["sead=3"], "unknown option sead; nearest known: seed"),
        (["--model", "i3d_inceptoin"], "nearest known: i3d_inception"),
        (["--dataset", "ssv3"], "nearest known: ssv2"),
        (["--stg"], "option --stg needs a value"),
        (["--stg", "9"], "stg=9: this network has no such stage"),
        (["--joint_encoding", "maybe"], "joint_encoding=maybe (expected: true or false)"),
        (["--n_examples", "many"], "n_examples=many (expected: whole number)"),
        (["--batch_size", "2.5"], "batch_size=2.5 (expected: whole number or auto)"),
        (["--styles", "a,b"], "is not a comma-separated list"),
        (["--n_factors", "4"], "n_factors=4; nearest known: 3"),
        (["--dataset", "folder"], "needs a folder: give stylized_data_dir=DIR"),
        (
            ["--dataset", "folder", "--stylized_data_dir", "nowhere"],
            "stylized_data_dir=nowhere does not exist",
        ),
        (["--stylized_data_dir", "nowhere"], "choose the kind of data set that the folder holds"),
        (["--model", "matnet"], "takes images and optical flow, but dataset=folder has no flow: give"),
        (["--device", "gpu"], "device=gpu is not a device"),
        (["model.bogus=1"], "unknown option model.bogus; nearest known: model."),
        (["task.widht=0.1"], "unknown option task.widht; nearest known: "),
        (["pairs=all"], "pairs=all; nearest known"),
        (["--checkpoint", "nowhere.pyth"], "nowhere.pyth"),
        (["-m", "seed=1,2", "model=x3d_xs,x3d_xx"], "nearest known: x3d_xs"),
    ],
)
def test_bad_input_is_one_line_and_status_2(run, stylized, arguments, says):
    if not {"--dataset", "--stylized_data_dir"} & set(arguments):
        arguments = ["dataset=folder", f"stylized_data_dir={stylized}", *arguments]
    if "--styles" not in arguments:
        arguments = ["--styles", "1,2", *arguments]
    keep = [] if "--checkpoint" in arguments else [SMALL[1]]
    model = [] if any(a.startswith("model=") or a == "--model" for a in arguments) else [SMALL[0]]
    status, out, err = run(*model, *keep, "n_boot=20", "num_workers=0", *arguments)
    assert status == 2, err
    (line,) = errors(err)
    assert says in line and "Traceback" not in err and out == ""


def test_bad_data_is_one_line_and_status_2(run, stylized, tmp_path):
    video = stylized / "style_1" / "clip0"
    shutil.rmtree(video)
    (stylized / "style_1" / "clip0.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + b"\0" * 200)
    arguments = [*SMALL, "--dataset", "folder", "--stylized_data_dir", stylized, "--styles", "1,2"]
    status, _, err = run(*arguments)
    assert status == 2 and len(errors(err)) == 1 and "clip0.mp4 is not a readable video" in err
    status, out, err = run(*arguments, "on_error=skip")
    assert status == 0 and "3 clips" in out and "1 clips were skipped" in err
    for style in (1, 2):
        shutil.rmtree(stylized / f"style_{style}")
        (stylized / f"style_{style}").mkdir()
    status, _, err = run(*arguments)
    assert status == 2 and len(errors(err)) == 1 and "no usable video" in err


def test_one_bad_job_of_a_sweep_does_not_stop_the_others(run, stylized, tmp_path):
    status, _, err = run(
        "-m", *SMALL, "dataset=folder", f"stylized_data_dir={stylized}", "styles='1,9','1,2'"
    )
    assert status == 2 and "has no style_9" in err
    assert len(run_folders(tmp_path)) == 1


def test_random_weights_are_never_a_silent_fallback(run, stylized):
    status, _, err = run(
        "model=x3d_xs", "--dataset", "folder", "--stylized_data_dir", stylized, "--styles", "1,2"
    )
    assert status == 2 and "give checkpoint=FILE, or model.init=random" in err


def test_flags_become_overrides():
    assert translate(["--stg", "5", "--joint_encoding", "False"]) == ["stg=5", "joint_encoding=False"]
    assert translate(["--random_seed=3", "seed=2", "-m", "--cfg", "job"]) == [
        "seed=3",
        "seed=2",
        "-m",
        "--cfg",
        "job",
    ]
    assert translate(["--styles", "1,2", "--save_dir", "my runs/[a]"]) == [
        "styles='1,2'",
        "save_dir='my runs/[a]'",
    ]
    assert translate(["--device", "-1"]) == ["device=-1"]
    assert quote("it's") == "'it\\'s'"
    with pytest.raises(UserError, match="needs a value"):
        translate(["--stg", "--path", "slow"])


@pytest.mark.parametrize("model", ["i3d_inception", "slowfast_r50_8x8"])
def test_every_original_flag_is_known(model):
    words = f"""
        --save_dir out --random_seed 2 --stylized_data_dir d --dataset folder --app_shuffle True
        --use_normal_app False --m_same True --model {model} --stg 5 --path cat --fuse True --gp 1
        --torchscript 1 --stage 5 --trained_on davis --checkpoint f --n_factors 3 --styles 1,2,3,4
        --residual_index 2 --joint_encoding False --joint_encoding_thresh 0.4 --batch_size 2
        --image_size 256 --n_sample_frames 64 --n_examples 3000 --device 0 --num_workers 4
    """
    check(translate(words.split()))


def test_help_lists_every_row(run):
    status, out, _ = run("--help")
    assert status == 0
    for group in ("task", "dataset", "model", "style"):
        for name in rows(group):
            assert f"  {name} " in out, name
    assert "joint_encoding_thresh=0.5" in out
    status, out, _ = run("task=plan", "--help")
    assert status == 0 and "task.width=0.05" in out and "half-width" in out and "joint_encoding" not in out


@pytest.mark.parametrize("group", ["dataset", "model", "style", "task"])
def test_every_row_says_what_it_is(group):
    for name in rows(group):
        config = row(group, name)
        assert config.name == name or group == "model"
        assert 0 < len(config.about) < 130
