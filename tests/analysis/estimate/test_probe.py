"""Probes of planted variables: exact where exact is possible, at chance where nothing is planted."""

import json

import numpy as np
import pandas as pd
import pytest

from static_dynamic.analysis.estimate.probe import probe_run, probe_stage
from static_dynamic.analysis.estimate.probe_features import Features
from static_dynamic.analysis.estimate.probe_jackknife import left_out_scores
from static_dynamic.analysis.estimate.probe_ridge import PENALTIES, cross_validate, predict, standardised
from static_dynamic.analysis.estimate.probe_targets import Targets, donor_grid, permute
from static_dynamic.analysis.estimate.probe_variables import (
    CIRCLE,
    CLASSES,
    NUMBER,
    Variable,
    targets_of,
    variables_of,
)
from static_dynamic.analysis.run.store import Store
from static_dynamic.datasets.calibrated import write_all
from static_dynamic.errors import UserError
from tests.analysis.manifests import edit_manifest
from tests.analysis.simulated import write_run


def slow_ridge(train, test, y, penalty):
    """Ridge regression by the normal equations, with an intercept that is not penalised."""
    mean, center = train.mean(0), y.mean(0)
    x = train - mean
    weights = np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T @ (y - center))
    return (test - mean) @ weights + center


def slow_prediction(train, test, y, video):
    """Standardise, choose the penalty by leaving out one video after another, and predict."""
    mean, deviation = train.mean(0), train.std(0)
    train, test = (train - mean) / deviation, (test - mean) / deviation
    losses = []
    for factor in PENALTIES:
        loss = 0.0
        for one in set(video):
            held = video == one
            found = slow_ridge(train[~held], train[held], y[~held], factor * train.shape[1])
            loss += ((found - y[held]) ** 2).sum()
        losses.append(loss)
    return slow_ridge(train, test, y, PENALTIES[int(np.argmin(losses))] * train.shape[1])


@pytest.mark.parametrize("units", [5, 70])
def test_predictions_are_those_of_explicit_loops(units):
    rng = np.random.default_rng(units)
    video = np.repeat(np.arange(9), [1, 2, 3, 4, 4, 4, 2, 3, 1])
    x = rng.standard_normal((len(video), units)) * rng.uniform(0.1, 9, units)
    y = x[:, :2] + rng.standard_normal((len(video), 2))
    test = rng.standard_normal((4, units))
    permuted = y[rng.permutation(len(y))]
    found = predict(x, test, np.stack([y, permuted], axis=1), video, classes=False)
    for b, target in enumerate((y, permuted)):
        np.testing.assert_allclose(found[:, b], slow_prediction(x, test, target, video), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("units", [4, 60])
@pytest.mark.parametrize("classes", [False, True])
def test_the_jackknife_is_that_of_probes_trained_anew(units, classes):
    rng = np.random.default_rng(units)
    video = np.repeat(np.arange(8), [2, 3, 3, 2, 4, 4, 1, 2])
    x = rng.standard_normal((len(video), units))
    label = video % 2 if classes else x[:, 0] + rng.standard_normal(len(video))
    y = np.eye(2)[label] if classes else label[:, None]
    x[:, 1] += 2 * y[:, 0]
    block = np.array([0, 1, 2, 3, 0, 1, 2, 3])
    found = left_out_scores(x, y, video, block, classes)
    z = standardised(x, x[:0])[0]

    def left_out(penalty, among):
        return np.concatenate(
            [
                slow_ridge(z[among & (video != v)], z[among & (video == v)], y[among & (video != v)], penalty)
                for v in np.unique(video[among])
            ]
        )

    everything = np.ones(len(video), bool)
    penalties = units * np.array(PENALTIES)
    penalty = penalties[np.argmin([((left_out(p, everything) - y) ** 2).sum() for p in penalties])]
    centred = y - y.mean(0)
    reached = np.clip(1 - ((y - left_out(penalty, everything)) * centred).sum() / (centred**2).sum(), 0, 1)
    for among, score in [
        (everything, found.whole),
        *((block[video] != j, found.blocks[j]) for j in range(4)),
    ]:
        prior = np.concatenate(
            [
                np.repeat(y[among & (video != v)].mean(0)[None], (video == v).sum(), 0)
                for v in np.unique(video[among])
            ]
        )
        prediction = left_out(penalty, among)
        if classes:
            weight = y[among] @ (1 / y.sum(0))
            right = (prediction - (1 - reached) * prior).argmax(1) == y[among].argmax(1)
            expected = (weight * right).sum() / weight.sum()
        else:
            expected = 1 - ((y[among] - prediction) ** 2).sum() / ((y[among] - prior) ** 2).sum()
        assert score == pytest.approx(expected, abs=1e-5)


def planted(views, seed=0, units=7, noise=0.0):
    """Activations whose first units are a direction, a number and a class of the video, without noise."""
    rng = np.random.default_rng(seed)
    number = views["cluster"].str[1:].astype(int).to_numpy()
    truth = truth_of(number.max() + 1)
    rows = rng.standard_normal((len(views), units))
    angle = np.deg2rad(truth["angle"].to_numpy()[number])
    rows[:, 0], rows[:, 1] = np.cos(angle), np.sin(angle)
    rows[:, 2] = truth["amount"].to_numpy()[number]
    rows[:, 3] = truth["kind"].to_numpy()[number] == "b"
    rows[:, 4], rows[:, 5] = views["style"], views["order"] == "shuffled"
    rows[views["order"] == "shuffled", :2] = 0.5
    return rows + noise * rng.standard_normal(rows.shape)


def truth_of(videos):
    rng = np.random.default_rng(7)
    return pd.DataFrame(
        {
            "video": [f"c{i:04d}" for i in range(videos)],
            "angle": rng.uniform(0, 360, videos),
            "amount": rng.standard_normal(videos),
            "kind": ["a" if i % 4 else "b" for i in range(videos)],
        }
    )


@pytest.fixture
def planted_run(tmp_path):
    run = write_run(tmp_path / "run", planted, 20, styles=(1, 2))
    truth_of(20).to_csv(tmp_path / "truth.csv", index=False)
    return run


def test_planted_variables_are_decoded_exactly(planted_run, tmp_path):
    store = Store.open(planted_run)
    variables = variables_of(store, (), tmp_path / "truth.csv", ["angle"])
    assert [v.name for v in variables] == ["style", "order", "angle", "amount", "kind"]
    found = probe_run(planted_run, variables, n_permutations=20)
    whole = found.stages[found.stages["features"] == "all"].set_index("variable")
    for name in ("angle", "amount"):
        assert 1 - 1e-6 <= whole.loc[name, "score"] <= 1
    for name in ("style", "kind", "order"):
        assert whole.loc[name, "score"] == 1 and whole.loc[name, "decodability_low"] < 0.95
    altered = found.stages[found.stages["features"] == "altered order"].set_index("variable")
    assert altered.loc["angle", "decodability_low"] < 0 < altered.loc["angle", "lost_low"]
    assert altered.loc["amount", "score"] >= 1 - 1e-6 and "order" not in altered.index
    by_variable = found.variables.set_index("variable")
    assert (by_variable["first_stage"] == "stage1").all() and (by_variable["p_family"] < 0.05).all()


def test_an_untrained_network_is_compared_on_the_same_views(planted_run, tmp_path):
    rng = np.random.default_rng(3)
    other = write_run(tmp_path / "other", lambda v: rng.standard_normal((len(v), 4)), 20, styles=(1, 2))
    variables = variables_of(Store.open(planted_run), ["amount"], tmp_path / "truth.csv")
    found = probe_run(planted_run, variables, other, n_permutations=20).stages.set_index("features")
    assert found.loc["untrained", "units"] == 4 and found.loc["untrained", "lost_low"] > 0
    fewer = write_run(tmp_path / "fewer", planted, 19, styles=(1, 2))
    with pytest.raises(UserError, match="lacks 4 of the 80 views"):
        probe_run(planted_run, variables, fewer)


@pytest.mark.parametrize("clips_a_video", [1, 3])
def test_permutations_keep_what_the_views_of_a_video_share(tmp_path, clips_a_video):
    run = write_run(tmp_path / "run", planted_noise, 12, clips_a_cluster=clips_a_video, styles=(1, 2, 3))
    views = Store.open(run).views
    views = views.drop(index=[3, 11, 20]).reset_index(drop=True)
    grid, cells = donor_grid(views)
    rng = np.random.default_rng(0)
    for _ in range(5):
        donor = permute(grid, cells, rng)
        to, source = views, views.iloc[donor].reset_index(drop=True)
        # each video gets the targets of one video, and each of its styles those of one style
        assert (source.groupby(to["cluster"])["cluster"].nunique() == 1).all()
        whole = ~to["clip"].isin(views["clip"].value_counts().loc[lambda n: n < 6].index)
        whole &= ~source["clip"].isin(views["clip"].value_counts().loc[lambda n: n < 6].index)
        pairs = [to.loc[whole, "cluster"], to.loc[whole, "style"]]
        assert (source.loc[whole, "style"].groupby(pairs).nunique() == 1).all()


def planted_noise(views):
    return np.random.default_rng(0).standard_normal((len(views), 3))


# Layout: number of videos, clips per video, number of units, number of views that are left out, kind.
LAYOUTS = [
    (12, 1, 40, 0, NUMBER),
    (12, 2, 300, 5, "classes"),
    (24, 1, 120, 0, "classes"),
    (24, 2, 8, 9, CIRCLE),
]


@pytest.mark.parametrize("videos, clips, units, skipped, kind", LAYOUTS)
def test_intervals_contain_chance_without_information(tmp_path, videos, clips, units, skipped, kind):
    """Of 100 runs whose units know nothing of the variable, at least 92 intervals contain 0.

    92 of 100 has a probability of 0.94 if the true coverage is 95 %; small p-values are rare.
    """
    rng = np.random.default_rng(videos + units)
    number = np.repeat(np.arange(videos), clips * 2)
    views = pd.DataFrame(
        {
            "cluster": [f"v{i:03d}" for i in number],
            "clip": [f"c{i:03d}" for i in np.repeat(np.arange(videos * clips), 2)],
            "style": np.tile([1, 2], videos * clips),
            "order": "forward",
        }
    )
    covered, small, runs = 0, 0, 100
    for run in range(runs):
        own = {CLASSES: rng.integers(0, 3, videos), CIRCLE: rng.uniform(0, 360, videos)}
        values = own.get(kind, rng.standard_normal(videos))[number]
        variable = Variable("x", kind, targets_of(values, kind, views["cluster"].to_numpy()))
        targets = Targets.of(variable, views, 5, 39, run)
        rows = rng.standard_normal((len(views), units)) + rng.standard_normal((videos, units))[number]
        row_of = np.arange(len(views))
        row_of[rng.choice(len(views), skipped, replace=False)] = -1
        found = probe_stage(targets, [Features("all", rows, row_of)])["all"]
        half = 2.2 * found.error
        covered += abs(found.decodability) <= half
        small += found.p <= 0.05
    assert covered >= 92 and small <= 10


def test_bad_input_is_named(planted_run, tmp_path):
    store, csv = Store.open(planted_run), tmp_path / "truth.csv"
    with pytest.raises(UserError, match="no variable 'amuont'; nearest known: amount"):
        variables_of(store, ["amuont"], csv)
    with pytest.raises(UserError, match="needs at least two values"):
        variables_of(store, ["label"])
    with pytest.raises(UserError, match="task.circular and task.classes name columns of a csv"):
        variables_of(store, (), None, ["angle"])
    with pytest.raises(UserError, match="column 'kind' of .* is not a column of numbers"):
        variables_of(store, (), csv, ["kind"])
    with pytest.raises(UserError, match="task.classes: .* has no column 'amout'; nearest known: amount"):
        variables_of(store, (), csv, (), ["amout"])
    table = truth_of(20)
    for name, (broken, message) in {
        "missing": (table.iloc[2:], "lacks 2 of the 20 videos of the run: c0000, c0001"),
        "twice": (pd.concat([table, table.iloc[:1]]), "video 'c0000' in several rows"),
        "unnamed": (table.rename(columns={"video": "name"}), "no column video or clip"),
    }.items():
        file = tmp_path / f"{name}.csv"
        broken.to_csv(file, index=False)
        with pytest.raises(UserError, match=message):
            variables_of(store, (), file)
    with pytest.raises(UserError, match="is not a file"):
        variables_of(store, (), tmp_path / "nothing.csv")
    few = table.assign(amount=[1.0, 2.0, 3.0] + [np.nan] * 17)
    few.to_csv(tmp_path / "few.csv", index=False)
    with pytest.raises(UserError, match="known for 3 videos"):
        probe_run(planted_run, variables_of(store, ["amount"], tmp_path / "few.csv"))


def test_variables_of_the_calibrated_data_set(tmp_path):
    root = tmp_path / "calibrated"
    write_all(root, families=["sprites", "layout"], videos=8, size=16, frames=4, seed=0)
    (root / "complete.json").write_text(json.dumps({"settings": {"frames": 4}}))
    truth = pd.read_parquet(root / "truth.parquet")
    names = truth["video"].unique()

    def draw(views):
        return np.random.default_rng(0).standard_normal((len(views), 3))

    run = write_run(tmp_path / "run", draw, 16)
    edit_manifest(run, root=str(root))
    store = Store.open(run)
    number = store.views["cluster"].str[1:].astype(int)
    store.views["cluster"] = names[number]
    found = {v.name: v for v in variables_of(store)}
    assert {"family", "direction", "speed", "place", "wavelength", "colour", "style"} <= set(found)
    still = store.views["cluster"].str.startswith("layout").to_numpy()
    assert np.isnan(found["direction"].targets[still]).all()
    row = truth.merge(store.views.reset_index(), left_on=["video", "style"], right_on=["cluster", "style"])
    angle = np.deg2rad(row["direction"].to_numpy())
    own = found["direction"].targets[row["index"]]
    moving = ~still[row["index"]]
    np.testing.assert_allclose(own[moving], np.stack([np.cos(angle), np.sin(angle)], 1)[moving], atol=1e-12)
    speed = found["speed"].targets[row["index"], 0]
    assert np.corrcoef(speed, row["speed"])[0, 1] == pytest.approx(1)


def test_class_frequencies_do_not_move_the_accuracy_at_chance():
    rng = np.random.default_rng(0)
    video = np.repeat(np.arange(30), 2)
    label = (np.arange(30) < 6)[video].astype(int)
    replicates = np.stack(
        [np.eye(2)[label.reshape(30, 2)[rng.permutation(30)].ravel()] for _ in range(150)], axis=1
    )
    rows = rng.standard_normal((60, 80))
    score = cross_validate(rows, replicates, video, np.arange(30) % 5, classes=True).score
    assert abs(score.mean() - 0.5) < 0.03
    rows[:, 0] += 50 * label
    assert cross_validate(rows[:, :8], np.eye(2)[label][:, None], video, np.arange(30) % 5, True).score == 1
