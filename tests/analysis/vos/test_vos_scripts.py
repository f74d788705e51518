"""The original's scripts on a small tree of results: numbers worked out by hand, figures not blank."""

import argparse
import importlib.util
import pickle
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from torch import nn

from static_dynamic.analysis.vos.original_reader import read_joint_encoding, read_unit_shares
from static_dynamic.errors import UserError
from static_dynamic.models.registry import FAMILIES
from static_dynamic.models.stages import Tap
from static_dynamic.models.twostream import TwoStreamNetwork, declare
from tests.paths import MISC, ROOT

STAGES = [f"{place},{stream}" for stream in ("app_stream", "mot_stream") for place in ("conv1", "layer1")]
STAGES += ["layer1,sensor_fusion", "layer4,sensor_fusion"]


@pytest.fixture
def call(monkeypatch, capsys):
    """Run a script's main with arguments: (status, stdout, stderr)."""

    def run(script, *arguments):
        spec = importlib.util.spec_from_file_location(f"script_{Path(script).stem}", MISC / script)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
        return module.main(), *capsys.readouterr()

    return run


def line(stage, *percent, units=256):
    dims = [round(p * units / 100) for p in percent]
    return f"Stage: {stage} , Dimensions: {dims} {list(percent)}\n"


@pytest.fixture
def tree(tmp_path):
    """Results of a network with six stages and four seeds, as the sweep leaves them."""
    root = tmp_path / "dim_outputs" / "vos_models"
    final = root / "final" / "net_a"
    final.mkdir(parents=True)
    for seed in (1, 2, 3, 4):
        rows = [
            line(stage, 20.0 + k + seed, 30.0 - 0.5 * seed, round(50.0 - k - 0.5 * seed, 1))
            for k, stage in enumerate(STAGES)
        ]
        (final / f"net_a_final_{seed:03d}.txt").write_text("".join(rows))
    rng = np.random.default_rng(0)
    scores, classes = (root / kind / "net_a" for kind in ("idv_scores", "joint_encoding"))
    scores.mkdir(parents=True), classes.mkdir(parents=True)
    for stage in STAGES:
        r = rng.uniform(-0.2, 1, (50, 2))
        r[0] = np.nan
        e = np.exp(np.column_stack([r, np.ones(50)]))
        np.save(scores / f"{stage}.npy", e / e.sum(1, keepdims=True))
        table = pd.DataFrame({"unit": range(50), "dynamic": r[:, 0], "static": r[:, 1], "class": "joint"})
        table.to_parquet(classes / f"{stage}.parquet")
    tables = root / "stats_tables" / "net_a"
    tables.mkdir(parents=True)
    for stage in ("layer1,app_stream", "layer4,sensor_fusion"):
        (tables / f"{stage}_1.csv").write_text("0,0.5,0.2,0.0,0.9\n1,0.7,0.4,0.2,0.9\n")
    return root


def keep(folder, *stages):
    """Delete what other stages have in a folder: each figure takes its time."""
    for file in folder.iterdir():
        if file.stem not in stages:
            file.unlink()


def colours(path):
    """Colours of a picture's pixels that are no grey, as a set; empty where the figure shows nothing."""
    pixels = np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3)
    assert len(pixels) > 10_000
    return {tuple(p) for p in np.unique(pixels[np.ptp(pixels, axis=1) > 60], axis=0)}


ORANGE, BLUE = (213, 94, 0), (0, 114, 178)  # dynamic, static


def test_average_over_seeds(call, tree, tmp_path):
    status, out, _ = call("mean_var_analysis.py", tree / "final/net_a", "--csv", tmp_path / "table.csv")
    assert status == 0
    table = pd.read_csv(tmp_path / "table.csv").set_index(["place", "stream"])
    assert len(table) == 6 and (table["runs"] == 4).all()
    row = table.loc[("conv1", "app_stream")]
    # 21, 22, 23, 24: mean 22.5, deviation sqrt(5 / 4); static goes in half the steps
    assert row["dynamic"] == pytest.approx(22.5) and row["static"] == pytest.approx(28.75)
    assert row["dynamic_ci"] == pytest.approx(1.96 * np.sqrt(1.25) / 2)
    assert row["static_ci"] == pytest.approx(1.96 * np.sqrt(1.25) / 4)
    assert row["dynamic_ci_student"] == pytest.approx(3.182446 * np.sqrt(5 / 3) / 2)  # t(3), ddof 1
    assert row["residual"] == pytest.approx(100 - 22.5 - 28.75)
    assert "app_stream" in out and "sensor_fusion" in out
    assert re.search(r"conv1\s+22\.5\s+1\.10\s+2\.05\s+28\.8\s+0\.55\s+1\.03\s+48\.8", out)


def test_average_of_one_seed_has_no_interval(call, tree, tmp_path):
    shutil.copytree(tree / "final/net_a", tmp_path / "one")
    for seed in (2, 3, 4):
        (tmp_path / "one" / f"net_a_final_{seed:03d}.txt").unlink()
    status, out, _ = call("mean_var_analysis.py", tmp_path / "one")
    assert status == 0 and re.search(r"conv1\s+21\.0\s+-\s+-\s+29\.5\s+-\s+-\s+49\.5", out)


def test_average_of_four_factors(call, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "four"
    folder.mkdir()
    for seed, same in ((1, 24.0), (2, 26.0)):
        (folder / f"m_final_{seed:03d}.txt").write_text(line("layer1,mot_stream", 20.0, 25.0, 30.0, same))
    # as a user calls it, from a folder of his own: the script leans on its sibling
    script = str(MISC / "mean_var_analysis_4factors.py")
    for name in ("misc", "misc.mean_var_analysis"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if Path(p).resolve() != ROOT])
    monkeypatch.setattr(sys, "argv", [script, str(folder)])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(script, run_name="__main__")
    out = capsys.readouterr().out
    assert stop.value.code == 0
    cells = "layer1 20.0 0.00 0.00 25.0 0.00 0.00 30.0 0.00 0.00 25.0 1.39 12.71"
    assert cells in " ".join(out.split())
    status, _, err = call("mean_var_analysis.py", folder)
    assert status == 2 and "line 1" in err and "3 percentages" in err


FAULTS = {
    "no such line": ("Stage: layer1 Dimensions [1]", "line 2: 'Stage: PLACE,STREAM , Dimensions: "),
    "words": (line("layer2,app_stream", 20.0, 30.0, 50.0).replace("30.0", "x"), "line 2: 'Stage"),
    "nan": (line("layer2,app_stream", 20.0, 30.0, 50.0).replace("30.0", "nan"), "line 2: 'Stage"),
    "twice": (line("conv1,app_stream", 20.0, 30.0, 50.0), "holds the stage conv1,app_stream twice"),
    "another network": (line("layer2,app_stream", 20.0, 30.0, 50.0), "have different stages"),
    "no text": (b"\xff\xfe\x00", "is not a readable text file"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_result_files_that_cannot_be_averaged(fault, call, tmp_path):
    text, message = FAULTS[fault]
    first = line("conv1,app_stream", 20.0, 30.0, 50.0)
    (tmp_path / "m_final_001.txt").write_text(first)
    written = text if isinstance(text, bytes) else (first + text).encode()
    (tmp_path / "m_final_002.txt").write_bytes(written)
    status, out, err = call("mean_var_analysis.py", tmp_path)
    assert status == 2 and not out and err.startswith("error: ") and err.count("\n") == 1
    assert message in err and "m_final_002.txt" in err


SCRIPTS = {
    "mean_var_analysis.py": ("{}",),
    "plot_jointencoding.py": ("{}",),
    "plot_histogram.py": ("{}",),
    "plot_stages.py": ("--in_file", "{}"),
    "plot_iterations.py": ("--in_dir", "{}"),
    "plot_stats_fromtable.py": ("--in_dir", "{}"),
    "estimate_dataset_centerbias.py": ("--root", "{}"),
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_folders_that_are_missing_or_empty(script, call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    for folder in ("nowhere", "empty"):
        status, out, err = call(script, *(word.format(folder) for word in SCRIPTS[script]))
        assert status == 2 and not out, folder
        assert err.startswith("error: ") and err.count("\n") == 1 and folder in err
    if script not in ("plot_stages.py", "plot_iterations.py"):
        assert call(script)[0] == 2, "the original's own folder is the default, and is not here"
    with pytest.raises(SystemExit) as stop:
        call(script, "--help")
    assert stop.value.code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["empty"], "nothing is written"


def test_stages_as_figures(call, tree, tmp_path):
    file = tree / "final/net_a/net_a_final_001.txt"
    status, out, _ = call("plot_stages.py", "--in_file", file, "--out_plot", tmp_path / "%s.png", "--matplot")
    assert status == 0
    assert out.split() == [str(tmp_path / f"{stream}.png") for stream in ("app_stream", "mot_stream")]
    for path in out.split():
        assert {ORANGE, BLUE} <= colours(path)
    one = tmp_path / "all.png"
    streams = "app_stream,mot_stream,sensor_fusion"
    arguments = ("--in_file", file.parent, "--out_plot", one, "--matplot", "--streams", streams)
    assert call("plot_stages.py", *arguments)[0] == 0
    assert Image.open(one).width > 2 * Image.open(out.split()[0]).width and {ORANGE, BLUE} <= colours(one)
    status, _, err = call("plot_stages.py", "--in_file", file, "--streams", "sound")
    message = "no stage of the streams sound, only of app_stream, mot_stream, sensor_fusion"
    assert status == 2 and message in err


def test_stages_as_tikz(call, tree, tmp_path):
    out = tmp_path / "stages.tex"
    out.write_text("of before")
    for _ in range(2):  # written anew, not appended to
        assert call("plot_stages.py", "--in_file", tree / "final/net_a", "--out_plot", out)[0] == 0
    text = out.read_text()
    for what, count in (("figure", 1), ("tikzpicture", 2), ("axis", 2)):
        assert text.count(f"\\begin{{{what}}}") == text.count(f"\\end{{{what}}}") == count
    assert "of before" not in text and text.count("\\addplot") == 4
    assert "\\caption{net\\_a: " in text, "an underscore is none of TeX's"
    assert "title={\\textbf{appearance stream}}" in text and "title={\\textbf{motion stream}}" in text
    # conv1 and layer1 of the appearance stream: dynamic, then static
    assert "coordinates {(1, 22.50) +- (0, 1.10) (2, 23.50) +- (0, 1.10)};" in text
    assert "coordinates {(1, 28.75) +- (0, 0.55) (2, 28.75) +- (0, 0.55)};" in text
    for word in ("xmin=0.5, xmax=5.5, ymin=10, ymax=50", "width=6.5cm, height=5cm", "target_legend3"):
        assert word in text
    assert text.count("{") == text.count("}")
    assert "ytick={10, 15, 20, 25, 30, 35, 40, 45, 50}" in text
    arguments = ("--in_file", tree / "final/net_a", "--out_plot", out, "--title", "\\input{x}")
    assert call("plot_stages.py", *arguments)[0] == 0
    assert "\\input" not in out.read_text(), "a name is text, not TeX"


def test_panels_share_one_axis_and_name_what_is_missing(call, tmp_path, caplog):
    """Error bars of 1.96 SD / sqrt(n) from 1 and 99 % reach beyond 0 and 100 %: the axis does not."""
    for seed, (low, high) in enumerate([(1.0, 98.0), (9.0, 90.0), (1.0, 99.0)], start=1):
        rows = line("layer1,app_stream", low, high, round(100 - low - high, 1))
        rows += line("conv1,mot_stream", 40.0, 30.0, 30.0)
        (tmp_path / f"net_final_{seed:03d}.txt").write_text(rows)
    streams = "app_stream,mot_stream,sensor_fusion"
    out = tmp_path / "out.tex"
    assert call("plot_stages.py", "--in_file", tmp_path, "--out_plot", out, "--streams", streams)[0] == 0
    assert "no stage of stream sensor_fusion: the figure has no panel for it" in caplog.text
    text = out.read_text()
    assert text.count("ymin=0, ymax=100,") == 2
    assert "No results: appearance stream, conv1, layer2, layer3, layer4." in text
    assert "No results: motion stream, layer1, layer2, layer3, layer4." in text


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="needs LaTeX with pgfplots (apt: texlive-pictures)")
def test_the_tikz_figure_compiles(call, tree, tmp_path):
    assert call("plot_stages.py", "--in_file", tree / "final/net_a", "--out_plot", tmp_path / "s.tex")[0] == 0
    head = "\\documentclass{article}\\usepackage{pgfplots}\\begin{document}\\input{s}\\end{document}"
    (tmp_path / "all.tex").write_text(head)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "all"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    if "pgfplots.sty' not found" in done.stdout:
        pytest.skip("LaTeX is here without pgfplots")
    assert done.returncode == 0, done.stdout[-2000:]


def test_a_stage_without_a_position(call, tmp_path):
    file = tmp_path / "m_final_001.txt"
    file.write_text(line("layerf,app_stream", 20.0, 30.0, 50.0))
    status, _, err = call("plot_stages.py", "--in_file", file, "--out_plot", tmp_path / "x.tex")
    assert status == 2 and "'layerf' is unknown" in err and not (tmp_path / "x.tex").exists()


def test_iterations(call, tmp_path):
    folder = tmp_path / "training"
    folder.mkdir()
    for iteration, name in ((500, "net_500.txt"), (10_000, "net_10000_final_x.txt"), (2000, "net_2000.txt")):
        text = line("layer1,sensor_fusion", 20 + iteration / 1000, 30.0, 45.0)
        text += line("layer1,app_stream", 90.0, 5.0, 5.0) + line("layer4,sensor_fusion", 25.0, 35.0, 40.0)
        (folder / name).write_text(text)
    status, out, _ = call("plot_iterations.py", "--in_dir", folder, "--out_plot", tmp_path / "i_%s.png")
    assert status == 0
    assert [Path(p).name for p in out.split()] == [f"i_sensor_fusion_layer{k}.png" for k in (1, 4)]
    assert all({ORANGE, BLUE} <= colours(p) for p in out.split())
    assert call("plot_iterations.py", "--in_dir", folder, "--out_plot", tmp_path / "one.png")[0] == 0
    assert {ORANGE, BLUE} <= colours(tmp_path / "one.png")
    from static_dynamic.analysis.vos.original_reader import read_iterations

    table = read_iterations(folder)
    fused = table[(table["place"] == "layer1") & (table["stream"] == "sensor_fusion")]
    assert fused[["iteration", "dynamic"]].to_numpy().tolist() == [[500, 20.5], [2000, 22.0], [10_000, 30.0]]
    shutil.copy(folder / "net_500.txt", folder / "other_500.txt")
    status, _, err = call("plot_iterations.py", "--in_dir", folder)
    assert status == 2 and "other_500.txt and net_500.txt have the same iteration" in err
    (folder / "other_500.txt").rename(folder / "other.txt")
    status, _, err = call("plot_iterations.py", "--in_dir", folder)
    assert status == 2 and "other.txt has no training iteration in its name" in err
    status, _, err = call("plot_iterations.py", "--in_dir", folder, "--stream", "sound")
    assert status == 2


def test_joint_encoding(call, tree):
    folder = tree / "joint_encoding/net_a"
    keep(folder, "conv1,app_stream", "layer1,sensor_fusion", "layer4,sensor_fusion")
    r = pd.DataFrame({"dynamic": [0.9, 0.9, 0.1, 0.1, 0.5, np.nan], "static": [0.9, 0.1, 0.9, 0.1, 0.5, 0.9]})
    r.to_parquet(folder / "layer4,sensor_fusion.parquet")
    status, out, _ = call("plot_jointencoding.py", folder)
    plots = tree / "joint_encoding_plots/net_a"
    # a tie is not above the threshold; the last unit is dead
    assert status == 0 and re.search(r"layer4,sensor_fusion\s+16\.7\s+16\.7\s+16\.7\s+33\.3\s+16\.7", out), (
        out
    )
    assert sorted(p.name for p in plots.iterdir()) == [
        "layer1,sensor_fusion.png",
        "layer4,sensor_fusion.png",
        "stages.png",
    ]
    assert all({ORANGE, BLUE} <= colours(p) for p in plots.iterdir())
    status, out, _ = call("plot_jointencoding.py", f"{folder}/", "--threshold", 0.4, "--stream", "all")
    assert status == 0 and len(list(plots.iterdir())) == 4
    assert re.search(r"layer4,sensor_fusion\s+16\.7\s+16\.7\s+33\.3\s+16\.7\s+16\.7", out), out
    r[["dynamic"]].to_parquet(folder / "layer4,sensor_fusion.parquet")
    status, _, err = call("plot_jointencoding.py", folder)
    assert status == 2 and err.count("\n") == 1 and "lacks the columns dynamic and static" in err
    (folder / "layer4,sensor_fusion.parquet").write_bytes(b"")
    assert call("plot_jointencoding.py", folder)[0] == 2


def test_histograms(call, tree):
    shown = ("conv1,app_stream", "layer1,sensor_fusion")
    keep(tree / "idv_scores/net_a", *shown)
    status, _, _ = call("plot_histogram.py", tree / "idv_scores/net_a")
    plots = tree / "idv_scores_plots/net_a"
    names = [f"{stage}_{factor}_hist.png" for stage in shown for factor in ("mot", "app")]
    assert status == 0 and sorted(p.name for p in plots.iterdir()) == sorted([*names, "stages.png"])
    # bars are translucent: orange ones are redder than blue, blue ones the reverse
    for stage in shown:
        dynamic, static = (colours(plots / f"{stage}_{factor}_hist.png") for factor in ("mot", "app"))
        assert dynamic and all(r > b for r, _, b in dynamic) and static and all(b > r for r, _, b in static)
    assert colours(plots / "stages.png")
    np.save(tree / "idv_scores/net_a/layer4,sensor_fusion.npy", np.zeros((5, 4)))
    status, _, err = call("plot_histogram.py", tree / "idv_scores/net_a")
    assert status == 2 and "has 4 columns" in err
    np.save(tree / "idv_scores/net_a/layer4,sensor_fusion.npy", np.array([{}]), allow_pickle=True)
    status, _, err = call("plot_histogram.py", tree / "idv_scores/net_a")
    assert status == 2 and "is not a readable NumPy array" in err


class Spy:
    """Object whose pickle calls a function when an ordinary reader reads it."""

    def __reduce__(self):
        return (Path("ran").touch, ())


def test_pickles_of_the_original_are_read_and_run_no_code(call, tree, tmp_path, monkeypatch):
    """The same numbers as arrays and tables give the same results (SPEC.md: raw_*.pkl have a row of ones)."""
    monkeypatch.chdir(tmp_path)
    joint, shares = tree / "joint_encoding/net_a", tree / "idv_scores/net_a"
    own = read_joint_encoding(joint, 0.5), read_unit_shares(shares)
    for file in sorted(joint.iterdir()):
        scores = pd.read_parquet(file)[["dynamic", "static"]].to_numpy().T
        raw = np.vstack([scores, np.ones(scores.shape[1])])
        (joint / f"raw_{file.stem}.pkl").write_bytes(pickle.dumps(raw))
        (joint / f"{file.stem}.pkl").write_bytes(pickle.dumps({"0": [1], "1": [], "2": [], "3": []}))
        with pytest.raises(UserError, match=r"holds \.parquet and \.pkl files"):
            read_joint_encoding(joint, 0.5)
    for file in [*joint.glob("*.parquet"), *shares.glob("*.npy")]:
        if file.suffix == ".npy":
            file.with_suffix(".pkl").write_bytes(pickle.dumps(np.load(file)))
        file.unlink()
    original = read_joint_encoding(joint, 0.5), read_unit_shares(shares)
    assert original[0].equals(own[0]) and original[1].keys() == own[1].keys()
    assert all(np.array_equal(original[1][k], own[1][k], equal_nan=True) for k in own[1])
    assert call("plot_jointencoding.py", joint)[0] == 0
    for content in (Spy(), np.zeros((1, 3)), np.zeros(3), {"0": [1]}):
        (joint / "raw_layer1,app_stream.pkl").write_bytes(pickle.dumps(content))
        status, _, err = call("plot_jointencoding.py", joint)
        assert status == 2 and "raw_layer1,app_stream.pkl" in err and err.count("\n") == 1
    assert not Path("ran").exists()


def test_statistics_tables(call, tree, tmp_path):
    out = tmp_path / "plots"
    (tree / "stats_tables/net_a/.layer2,app_stream_1.part.csv").touch()  # half-written
    status, said, _ = call("plot_stats_fromtable.py", "--in_dir", tree / "stats_tables", "--out_dir", out)
    assert status == 0 and "2 figures" in said
    assert sorted(p.name for p in out.iterdir()) == [
        "net_a_app_stream_layer1_1.png",
        "net_a_sensor_fusion_layer4_1.png",
    ]
    # the colour is that of the factor beside the axis: dynamics for the appearance stream
    assert ORANGE in colours(out / "net_a_app_stream_layer1_1.png")
    assert BLUE in colours(out / "net_a_sensor_fusion_layer4_1.png")
    table = tree / "stats_tables/net_a/layer1,app_stream_1.csv"
    for text, message in (("0,1,2,3\n", "line 1: a unit and its four correlations"), ("", "holds no units")):
        table.write_text(text)
        status, _, err = call("plot_stats_fromtable.py", "--in_dir", tree / "stats_tables", "--out_dir", out)
        assert status == 2 and message in err
    table.rename(table.with_name("layer1.csv"))
    status, _, err = call("plot_stats_fromtable.py", "--in_dir", tree / "stats_tables", "--out_dir", out)
    assert status == 2 and "must have the form PLACE,STREAM_SEED.csv" in err


def test_bars_of_conditions_are_the_right_columns(monkeypatch, tmp_path):
    from matplotlib.axes import Axes

    from static_dynamic.analysis.vos import stage_figures

    drawn = {}
    bar = Axes.bar

    def spy(self, x, height, *arguments, label, **options):
        drawn[label] = list(height)
        return bar(self, x, height, *arguments, label=label, **options)

    monkeypatch.setattr(Axes, "bar", spy)
    table = pd.DataFrame({"dynamic": [0.6], "static": [0.3], "neither": [0.1], "both": [0.9]})
    stage_figures.draw_conditions(table, "dynamic", tmp_path / "a.png", "motion")
    # dynamics not shared, then shared
    assert drawn == {"appearance shared": [0.3, 0.9], "appearance not shared": [0.1, 0.6]}
    drawn.clear()
    stage_figures.draw_conditions(table, "static", tmp_path / "a.png", "appearance")
    assert drawn == {"dynamics shared": [0.6, 0.9], "dynamics not shared": [0.1, 0.3]}


def test_centre_bias(call, tmp_path):
    masks = tmp_path / "masks"
    (masks / "a").mkdir(parents=True)
    left = np.zeros((48, 85), np.uint8)
    left[12:36, :17] = 255  # half the height, a fifth of the width
    cv2.imwrite(str(masks / "a" / "00000.png"), left)
    cv2.imwrite(str(masks / "a" / "00001.png"), np.zeros_like(left))
    (masks / "a" / ".00003.part.png").write_bytes(b"half")
    arguments = ("--root", masks, "--dataset", "mine", "--out_dir", tmp_path)
    status, out, _ = call("estimate_dataset_centerbias.py", *arguments)
    assert status == 0 and "2 masks; objects cover 5.0 % of the image" in out
    assert "mean centre: 10.0 % from the left, 50.0 % from the top" in out
    assert len(colours(tmp_path / "saliency_prior_mine.png")) > 10
    (masks / "a" / "00002.png").write_bytes(b"no picture")
    status, _, err = call("estimate_dataset_centerbias.py", *arguments)
    assert status == 2 and "00002.png is not a readable image" in err


class TwoConvolutions(TwoStreamNetwork):
    """In place of a real network, which takes long to build and to count."""

    channels, clip = {"Image": 3, "Flow": 6}, (2,)

    def __init__(self, num_classes, trunk):
        super().__init__()
        self.image, self.flow = (nn.Conv2d(width, 200, 5, padding=2) for width in self.channels.values())
        self.stages = declare(
            {"conv1,app_stream": (200, Tap("image")), "conv1,mot_stream": (200, Tap("flow"))}
        )

    def forward(self, inputs):
        return self.image(inputs["Image"].flatten(0, 1)) + self.flow(inputs["Flow"].flatten(0, 1))


def test_cost_of_the_network_of_a_json_file(call, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)  # the original's paths start there
    importlib.import_module(
        "static_dynamic.models.rtnet"
    )  # which would register itself over the stand-in later
    monkeypatch.setitem(FAMILIES, "rtnet", TwoConvolutions)
    script = "estimate_flops_params.py"
    status, out, err = call(script, "--cfg_file", "configs/rtnet_davis.json", "--random_seed", 1)
    assert status == 0, err
    name, frames, _, height, _, width, gflops, millions = out.splitlines()[1].split()
    assert (name, frames, height, width) == ("rtnet", "2", "240", "427")
    one = 2 * 240 * 427 * 200 * 5 * 5 * (3 + 6) / 1e9  # frames, places, kernels, their size
    assert float(gflops) == pytest.approx(one, abs=0.005) and one > 9
    assert millions == f"{(200 * 5 * 5 * (3 + 6) + 2 * 200) / 1e6:.2f}"
    two = re.search(r"batch of 2, as in the paper.s program: ([\d.]+) GFLOPs", out)[1]
    assert float(two) == pytest.approx(2 * one, abs=0.005)

    (tmp_path / "bad.json").write_text("{}")
    for arguments, message in {
        ("--cfg_file", "configs/rtnet_davis.jsn"): "nearest known: configs/rtnet_davis.json",
        ("--cfg_file", tmp_path / "bad.json"): "has no key model",
        ("--checkpoint", "x.pth"): "give --model or --cfg_file",
        ("--model", "x3d_xs", "--checkpoint", "nowhere.pth"): "nowhere.pth",
    }.items():
        status, _, err = call(script, *arguments)
        assert status == 2 and message in err and err.count("\n") == 1, err


def test_original_size_and_options_of_json_files(monkeypatch):
    monkeypatch.chdir(ROOT)
    spec = importlib.util.spec_from_file_location("flops", MISC / "estimate_flops_params.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for file in sorted(Path("configs").rglob("*.json")):
        given = argparse.Namespace(cfg_file=str(file), model=None, name=None, frames=None, crop=None)
        (row,) = module.rows(given)
        assert list(row.input.crop) == list(row.input.size) == [240, 427], file
    given.cfg_file = "configs/cc_types/matnet_davis_bidir_gated.json"
    assert module.rows(given)[0].args.cc_type == "coatt_gated_recip"
