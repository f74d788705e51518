"""Comparison of runs: the paired bootstrap against a bootstrap of the rows, known differences, files."""

import shutil
import subprocess

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
from scipy.stats import t

from static_dynamic.analysis import estimate_pairs
from static_dynamic.analysis.estimate.comparison import compare_runs
from static_dynamic.analysis.estimate.intervals import FEWEST_CLUSTERS, bootstrap_weights
from static_dynamic.analysis.estimate.paired import MEASURES, PairedBootstrap
from static_dynamic.analysis.run.store import Store
from static_dynamic.analysis.show import comparison_figures as figures
from static_dynamic.analysis.show import comparison_latex as latex
from static_dynamic.analysis.show import comparison_tables as tables
from static_dynamic.analysis.show.comparison_files import write_comparison
from static_dynamic.analysis.show.text import escape_latex
from static_dynamic.errors import UserError
from static_dynamic.models.stage_names import group_by_reading, split_stage
from tests.analysis.finished import finished_run, forget_new_columns

FACTORS = ("dynamic", "static", "residual")


def measured(store, stage, videos):
    """Scores and shares of the pairs of some videos; a video that is named twice counts twice."""
    pairs = store.finished_pairs()
    drawn = pd.concat([pairs[pairs["cluster"] == v] for v in videos])
    rows = store.activations(stage)
    e = estimate_pairs(rows[drawn["a"]], rows[drawn["b"]], drawn["factor"])
    return np.array([*e.scores[:2], *e.shares])


def influences(store, stage, videos, sample, step=1e-5):
    """Influence of each resampled video: numerical derivative of the measures by its weight, at the means of
    the whole sample."""
    pairs = store.finished_pairs()
    rows = store.activations(stage).astype(np.float64)

    def rows_of(names):
        drawn = pd.concat([pairs[pairs["cluster"] == v].assign(k=k) for k, v in enumerate(names)])
        return rows[drawn["a"]], rows[drawn["b"]], drawn["factor"].to_numpy(), drawn["k"].to_numpy()

    za, zb, factor, _ = rows_of(sample)
    grand = np.concatenate([za, zb]).mean(0)
    means = [np.concatenate([za[factor == f], zb[factor == f]]).mean(0) for f in range(2)]
    za, zb, factor, of_video = rows_of(videos)
    squares = (((za - grand) ** 2 + (zb - grand) ** 2) / 2).sum(1)
    products = [((za - m) * (zb - m)).sum(1) for m in means]

    def weighted(weight):
        w = weight[of_video]
        scores = [
            np.average(products[f][factor == f], weights=w[factor == f]) / np.average(squares, weights=w)
            for f in range(2)
        ]
        exponential = np.exp([*scores, 1.0])
        return np.array([*scores, *(exponential / exponential.sum())])

    one = np.ones(len(videos))
    steps = step * np.eye(len(videos))
    return np.array([(weighted(one + e) - weighted(one - e)) / (2 * step) for e in steps])


@pytest.mark.parametrize(("pairs", "shared"), [("factorial", 9), ("both", 9), ("both", 6)])
def test_a_paired_difference_equals_one_of_drawn_rows(tmp_path, pairs, shared):
    """Runs of different networks, styles and videos that share some videos; below 8 videos, intervals are
    symmetric."""
    a = finished_run(tmp_path / "a", videos=range(shared + 1), pairs=pairs)
    b = finished_run(
        tmp_path / "b", model="other", videos=range(1, shared + 4), styles=(1, 3, 4), pairs=pairs
    )
    stores = [Store.open(a), Store.open(b)]
    n_boot = 40
    found = PairedBootstrap(stores, ["x", "x"], n_boot, 5).difference([(0, "stage1")], [(1, "stage2")])
    assert found.paired and found.videos == (shared, shared)

    common = sorted(map(str, range(1, shared + 1)))
    sides = [(stores[0], "stage1"), (stores[1], "stage2")]
    point = np.subtract(*(measured(*side, common) for side in sides))
    np.testing.assert_allclose(found.value, point, atol=1e-7)
    draws = [np.repeat(common, w.astype(int)) for w in bootstrap_weights(shared, n_boot, 5)]
    replicates = np.array([np.subtract(*(measured(*side, d) for side in sides)) for d in draws])
    mean = replicates.mean(0)

    def error(videos):
        added = np.subtract(*(influences(*side, videos, common) for side in sides))
        return np.sqrt((added**2).sum(0) * shared / (shared - 1))

    quantile = t.ppf(0.975, shared - 1)
    if shared < FEWEST_CLUSTERS:
        half = quantile * np.sqrt(shared / (shared - 1)) * replicates.std(0)
    else:
        farthest = np.quantile(np.abs(replicates - mean) / [error(d) for d in draws], 0.95, axis=0)
        half = np.maximum(farthest, quantile) * error(common)
    # The interval is at least that of the jackknife, whose degrees of freedom fall with few large deviations.
    left_out = [[v for v in common if v != name] for name in common]
    without = np.array([np.subtract(*(measured(*side, videos) for side in sides)) for videos in left_out])
    deviation = np.sqrt((shared - 1) / shared) * (without.mean(0) - without)
    df = 3 * (deviation**2).sum(0) ** 2 / (deviation**4).sum(0) - 1
    own = t.ppf(0.975, np.clip(df, 1, shared - 1)) * np.sqrt((deviation**2).sum(0))
    assert (own > half).any()
    half = np.maximum(half, own)
    np.testing.assert_allclose(found.low, 2 * point - mean - half, atol=1e-6, rtol=1e-4)
    np.testing.assert_allclose(found.high, 2 * point - mean + half, atol=1e-6, rtol=1e-4)


def test_a_run_does_not_differ_from_itself(tmp_path):
    a = finished_run(tmp_path / "a")
    shutil.copytree(a, tmp_path / "b")
    stores = [Store.open(a), Store.open(tmp_path / "b")]
    found = PairedBootstrap(stores, ["x", "x"], 50, 0).difference([(0, "stage1")], [(1, "stage1")])
    for values in (found.value, found.low, found.high):
        np.testing.assert_allclose(values, 0, atol=1e-7)


def test_without_common_videos_runs_are_drawn_independently(tmp_path):
    a = finished_run(tmp_path / "a", videos=range(12))
    b = finished_run(tmp_path / "b", videos=range(12), noise=0.2)  # nearly the same network
    stores, members = [Store.open(a), Store.open(b)], ([(0, "stage1")], [(1, "stage1")])
    paired = PairedBootstrap(stores, ["x", "x"], 400, 0).difference(*members)
    unpaired = PairedBootstrap(stores, ["x", "y"], 400, 0).difference(*members)
    assert paired.paired and not unpaired.paired and unpaired.videos == (12, 12)
    np.testing.assert_allclose(paired.value, unpaired.value, atol=1e-12)
    assert (unpaired.high - unpaired.low > 3 * (paired.high - paired.low)).all()
    alone = [PairedBootstrap(stores, ["x", "x"], 400, 0).mean(m) for m in members]
    width = np.sqrt(sum((m.high - m.low) ** 2 for m in alone))
    np.testing.assert_allclose(unpaired.high - unpaired.low, width, rtol=0.35)


def test_few_common_videos_are_not_enough_to_pair(tmp_path):
    a = finished_run(tmp_path / "a", videos=range(8))
    b = finished_run(tmp_path / "b", videos=range(6, 16))
    boot = PairedBootstrap([Store.open(a), Store.open(b)], ["x", "x"], 30, 0)
    found = boot.difference([(0, "stage1")], [(1, "stage1")])
    assert not found.paired and found.videos == (8, 10)


def test_the_mean_of_seeds_is_drawn_over_their_videos(tmp_path):
    folders = [finished_run(tmp_path / f"s{seed}", seed=seed) for seed in (1, 2, 3)]
    stores = [Store.open(f) for f in folders]
    found = PairedBootstrap(stores, ["x"] * 3, 50, 0).mean([(k, "stage2") for k in range(3)])
    videos = sorted(map(str, range(8)))
    expected = np.mean([measured(store, "stage2", videos) for store in stores], axis=0)
    np.testing.assert_allclose(found.value, expected, atol=1e-7)
    assert (found.low < found.value).all() and (found.value < found.high).all()


def test_one_video_has_a_difference_without_interval(tmp_path):
    folders = [finished_run(tmp_path / name, model=name, videos=[3]) for name in ("a", "b")]
    comparison = compare_runs(folders, n_boot=20)
    row = comparison.differences.iloc[0]
    assert np.isfinite(row["score_static"]) and np.isnan(row["score_static_low"])
    write_comparison(comparison, tmp_path / "out", [])
    assert "nan" not in (tmp_path / "out/table_differences.tex").read_text()


def test_tables_hold_the_runs_and_their_differences(tmp_path):
    trained = finished_run(tmp_path / "a")
    untrained = finished_run(tmp_path / "b", trained=False)
    comparison = compare_runs([trained, untrained], n_boot=40, threshold=0.3)
    assert list(comparison.runs["run"]) == ["tiny trained", "tiny untrained"]
    assert list(comparison.runs["weights"]) == ["sha256 abababab", "random"]
    own = pd.read_csv(untrained / "layers.csv").set_index("stage")
    layers = comparison.layers.set_index(["run", "stage"])
    for column in ("score_static", "score_static_low", "share_dynamic_high"):
        assert layers.loc[("tiny untrained", "stage2"), column] == own.loc["stage2", column]
    units = pd.read_parquet(trained / "units.parquet")
    units = units[units["stage"] == "stage2"]
    joint = (units[["score_dynamic", "score_static"]] > 0.3).all(axis=1).mean()
    assert np.isclose(layers.loc[("tiny trained", "stage2"), "percent_joint"], 100 * joint)
    assert np.isclose(layers.loc[("tiny trained", "stage2"), "percent_dead"], 100 / 6)
    differences = comparison.differences.set_index("stage")
    expected = layers.loc[("tiny trained", "stage1"), "share_static"] - own.loc["stage1", "share_static"]
    assert np.isclose(differences.loc["stage1", "share_static"], expected) and differences["paired"].all()
    sweep = comparison.sweep.filter(like="percent_").sum(axis=1)
    np.testing.assert_allclose(sweep, 100)


def test_percentages_of_units_have_intervals_at_the_threshold_of_the_runs(tmp_path):
    run, old = finished_run(tmp_path / "a"), finished_run(tmp_path / "b", trained=False)
    forget_new_columns(old)
    comparison = compare_runs([run, old], n_boot=20)
    layers = comparison.layers.set_index(["run", "stage"])
    own = pd.read_csv(run / "layers.csv").set_index("stage")
    for end in ("low", "high"):
        expected = 100 * own[f"units_joint_{end}"] / 6
        np.testing.assert_allclose(layers.loc["tiny trained", f"percent_joint_{end}"], expected)
        assert layers.loc["tiny untrained", f"percent_joint_{end}"].isna().all()
    low, high = (layers.loc[("tiny trained", "stage2"), f"percent_joint_{end}"] for end in ("low", "high"))
    assert f" [{low:.1f}, {high:.1f}] |" in tables.as_markdown(comparison)
    others = compare_runs([run, old], n_boot=20, threshold=0.4)
    assert others.layers.filter(regex="percent_.*_(low|high)").isna().all(axis=None)
    grid = tables.grid_of_classes(others.layers)
    assert "interval" not in grid.caption and "[" not in grid.rows[0]["joint %"]


def test_seeds_are_recognised_and_averaged(tmp_path):
    folders = [
        finished_run(tmp_path / f"{model}{seed}", model=model, seed=seed)
        for model in ("a", "b")
        for seed in (1, 2)
    ]
    comparison = compare_runs(folders, n_boot=40, average_seeds=True)
    assert list(comparison.runs["run"]) == ["a", "b"] and list(comparison.runs["seeds"]) == ["1,2", "1,2"]
    own = np.array([pd.read_csv(f / "layers.csv")["score_static"] for f in folders[:2]])
    mean = comparison.layers[comparison.layers["run"] == "a"]
    np.testing.assert_allclose(mean["score_static"], own.mean(0), rtol=1e-7)
    np.testing.assert_allclose(mean["score_static_seeds"], 1.96 * own.std(0) / np.sqrt(2))
    student = 12.7062 * own.std(0, ddof=1) / np.sqrt(2)  # 12.7062: Student's t with 1 degree of freedom
    np.testing.assert_allclose(mean["score_static_seeds_student"], student, rtol=1e-5)
    assert mean.filter(regex="percent_.*_(low|high)").isna().all(axis=None)
    assert len(comparison.differences) == 2 and comparison.differences["paired"].all()
    apart = compare_runs(folders, n_boot=20)
    assert list(apart.runs["run"]) == ["a seed 1", "a seed 2", "b seed 1", "b seed 2"]


def test_networks_without_a_common_stage_are_compared_at_their_deepest(tmp_path):
    a = finished_run(tmp_path / "a", model="cnn")
    slowfast = [f"stage{k}/fuse{f}/{p}" for k in (1, 2, 3) for f in (0, 1) for p in ("slow", "fast")]
    b = finished_run(tmp_path / "b", model="slowfast", stages=slowfast)
    comparison = compare_runs([a, b], n_boot=20)
    stages = comparison.differences[["stage", "minus_stage"]].to_numpy().tolist()
    assert stages == [["stage2", "stage3/fuse1/slow"], ["stage2", "stage3/fuse1/fast"]]
    shown = comparison.layers[comparison.layers["shown"]]
    assert list(shown["curve"]) == ["cnn", "slowfast fuse1/slow", "slowfast fuse1/fast"]
    assert "relative depth" in latex.curves(comparison)
    with pytest.raises(UserError, match="no run has this stage"):
        compare_runs([a, b], n_boot=20, stage="stage9")
    only_b = compare_runs([a, b], n_boot=20, stage="stage3")
    write_comparison(only_b, tmp_path / "out", [])
    assert len(only_b.differences) == 0 and "stage3/fuse1/fast" in tables.as_text(only_b)
    at_one = compare_runs([a, b], n_boot=20, stage="stage1").layers
    assert list(at_one.loc[at_one["shown"], "stage"]) == ["stage1", "stage1/fuse1/slow", "stage1/fuse1/fast"]


def test_blocks_of_one_network_are_not_matched_with_stages_of_another(tmp_path):
    a = finished_run(tmp_path / "a", model="cnn", stages=("stage1", "stage2"))
    b = finished_run(tmp_path / "b", model="transformer", stages=("stage0", "stage1", "stage2", "stage3"))
    stages = compare_runs([a, b], n_boot=20).differences[["stage", "minus_stage"]]
    assert stages.to_numpy().tolist() == [["stage2", "stage3"]]


def test_training_iterations_have_a_figure(tmp_path):
    folders = [finished_run(tmp_path / f"{k}", seed=k, trained=k > 0) for k in range(3)]
    comparison = compare_runs(folders, n_boot=20, iterations=[0, 1000, 2000])
    assert list(comparison.runs["iterations"]) == [0, 1000, 2000]
    assert figures.training(comparison) is not None
    assert figures.training(compare_runs(folders, n_boot=20)) is None  # only one iteration is known: 0


def test_the_same_comparison_gives_the_same_bytes(tmp_path, monkeypatch):
    drawn = {name: figures.FIGURES[name] for name in ("plane", "sweep")}
    monkeypatch.setattr(figures, "FIGURES", drawn)  # drawing all of them takes long
    folders = [finished_run(tmp_path / "a"), finished_run(tmp_path / "b", trained=False)]
    for out in ("one", "two"):
        write_comparison(compare_runs(folders, n_boot=30), tmp_path / out, ["png", "pdf", "svg"])
    first, second = ({p.name: p.read_bytes() for p in (tmp_path / out).iterdir()} for out in ("one", "two"))
    assert first == second
    assert {"sweep.png", "plane.pdf", "sweep.svg", "comparison.md", "comparison.tex"} <= set(first)
    assert not any(b"Date" in content for name, content in first.items() if name.endswith((".pdf", ".svg")))
    for name in first:
        if name.endswith(".png"):  # the picture is not blank
            assert matplotlib.image.imread(tmp_path / "one" / name).std() > 0.02


def test_latex_compiles(tmp_path):
    if shutil.which("pdflatex") is None:
        pytest.skip("no pdflatex here (Debian: texlive-latex-extra, texlive-pictures)")
    folders = [
        finished_run(tmp_path / "a", model="a_b%c #{1} \\x ~^ & <é> 視"),
        finished_run(tmp_path / "b", videos=[1]),
        finished_run(
            tmp_path / "c", model="other", dataset=("ssv2", "x"), stages=("stage1", "layer_2,mot_stream")
        ),
    ]
    write_comparison(compare_runs(folders, n_boot=20), tmp_path / "out", [])
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "comparison.tex"]
    for _ in range(2):
        done = subprocess.run(command, cwd=tmp_path / "out", capture_output=True, timeout=120)
        assert done.returncode == 0, done.stdout.decode(errors="replace")[-1500:]
    assert (tmp_path / "out/comparison.pdf").read_bytes().startswith(b"%PDF")


def test_names_cannot_command_latex():
    assert escape_latex(r"\input{/etc/passwd}") == r"\textbackslash{}input\{/etc/passwd\}"
    assert escape_latex("-0.5 [-1.0, x-1]") == "$-$0.5 [$-$1.0, x-1]"


def test_stage_names_are_taken_apart():
    assert split_stage("stage3/fuse1/cat") == ("stage3", "fuse1/cat")
    assert split_stage("layer3,mot_stream") == ("layer3", "mot_stream") and split_stage("a.b") == ("a.b", "")
    names = ["stage1/fuse0/fast", "stage1/fuse1/fast", "stage2/fuse0/fast", "stage2/fuse1/fast"]
    assert group_by_reading(names) == {"fuse1/fast": names[1::2]} and group_by_reading(names, fuse=False) == {
        "fuse0/fast": names[::2]
    }
    assert group_by_reading(names[::2]) == {"fuse0/fast": names[::2]}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda a, b: [a], "needs at least two runs"),
        (lambda a, b: [a, a], "names a folder twice"),
        (lambda a, b: [a, a.parent], "is not a run folder"),
        (lambda a, b: (b / "units.parquet").unlink() or [a, b], "holds no units.parquet"),
        (lambda a, b: (b / "layers.csv").unlink() or [a, b], "holds no layers.csv"),
    ],
)
def test_bad_runs_are_refused(tmp_path, change, says):
    a, b = finished_run(tmp_path / "a"), finished_run(tmp_path / "b", model="b")
    with pytest.raises(UserError, match=says):
        compare_runs(change(a, b), n_boot=10)


def test_bad_options_are_refused(tmp_path):
    folders = [finished_run(tmp_path / name, model=name) for name in ("a", "b")]
    with pytest.raises(UserError, match="task.iterations has 3 numbers: give 2"):
        compare_runs(folders, iterations=[1, 2, 3])
    seeds = [folders[0], finished_run(tmp_path / "seed", model="a", seed=2)]
    with pytest.raises(UserError, match="leaves one run"):
        compare_runs(seeds, average_seeds=True)


def test_measures_are_in_their_order():
    assert MEASURES == (*(f"score_{f}" for f in FACTORS[:2]), *(f"share_{f}" for f in FACTORS))
