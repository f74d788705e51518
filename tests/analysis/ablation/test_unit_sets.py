"""Sets of units by label, rank and list; random sets of matched variance; how often random labels alarm."""

import numpy as np
import pandas as pd
import pytest

from static_dynamic.analysis.ablation.effects import effect_columns, estimate_effects, p_value
from static_dynamic.analysis.ablation.unit_sets import UnitSet, choose_sets, matched_sets
from static_dynamic.analysis.estimate.comparison import compare_runs
from static_dynamic.analysis.run.tables import write_table
from static_dynamic.analysis.show.comparison_files import write_comparison
from static_dynamic.errors import UserError
from tests.analysis.finished import finished_run

KINDS = ["motion", "content", "appearance", "content", "dead", "mixed"]


def units_table(**columns):
    table = {
        "stage": "s",
        "unit": range(6),
        "kind": KINDS,
        "class": ["dynamic", "static", "static", "joint", "dead", "residual"],
        "motion": [0.9, 0.1, 0.0, 0.2, np.nan, 0.3],
    }
    return pd.DataFrame(table | columns)


LIVE = np.array([True, True, True, True, False, True])


def chosen(wanted, doses=(20, 60), listed=(), table=None):
    table = units_table() if table is None else table
    return {
        (one.name, one.dose): one.units.tolist() for one in choose_sets(table, LIVE, wanted, doses, listed)
    }


def test_sets_by_label_rank_and_list():
    assert chosen(["kind"]) == {
        ("kind content", 40.0): [1, 3],
        ("kind motion", 20.0): [0],
        ("kind appearance", 20.0): [2],
        ("kind mixed", 20.0): [5],
    }
    assert chosen(["class"])[("class static", 40.0)] == [1, 2]
    assert chosen(["motion"]) == {("most motion", 20.0): [0], ("most motion", 60.0): [0, 3, 5]}
    assert chosen(["motion"], doses=(100, 1, 5)) == {
        ("most motion", 1.0): [0],
        ("most motion", 100.0): [0, 1, 2, 3, 5],
    }, "dead units are in no set; 1 % and 5 % of five units are the same unit"
    assert chosen(["listed"], listed=[5, 0, 5]) == {("listed", 40.0): [0, 5]}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"wanted": ["listed"]}, "give for example task.units"),
        ({"wanted": ["listed"], "listed": [6]}, "no unit 6"),
        ({"wanted": ["listed"], "listed": [4]}, "unit 4 of s does not vary"),
        ({"wanted": ["content"]}, "no content of units"),
        ({"wanted": ["kind"], "table": units_table(kind=["dead"] * 6)}, "no unit of the sets kind"),
    ],
)
def test_what_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        chosen(**options)


def test_random_sets_match_size_and_variance():
    rng = np.random.default_rng(0)
    variance = np.exp(2 * rng.standard_normal(200))
    variance[7] = 0
    loud = np.argsort(variance)[-30:]
    sets = matched_sets(loud, variance, 50, rng)
    assert all(len(set(units)) == 30 and 7 not in units for units in sets)
    shares = [variance[units].sum() / variance[loud].sum() for units in sets]
    assert 0.5 < np.mean(shares) <= 1, "a random set of any variance has about a tenth"
    assert len({tuple(units) for units in sets}) > 40
    few = matched_sets(np.array([2]), np.arange(1.0, 6.0), 40, rng)
    assert {int(units[0]) for units in few} == set(range(5)), "few units are one stratum"


def test_p_values_count_the_set_itself():
    assert p_value(np.array([9.0, *np.zeros(99)])) == 0.01
    assert p_value(np.zeros(100)) == 1
    assert p_value(np.array([-3.0, 0, 1, 2, 1, 3])) == pytest.approx(1 / 6)
    assert p_value(np.array([1.0, 1, 1, 5])) == 1


def test_effects_against_a_slow_computation():
    rng = np.random.default_rng(1)
    clusters = np.array(["a", "a", "b", "c", "d"])
    whole, values = rng.random(5), rng.random((5, 21))
    found = effect_columns(whole, values, clusters, 0.95)
    assert found["ablated"] - found["whole"] == pytest.approx(found["effect"])
    assert found["excess"] == pytest.approx(found["effect"] - found["random"])
    difference = values[:, 0] - whole
    # jackknife over videos: the mean without each video
    left_out = np.array([difference[clusters != name].mean() for name in "abcd"])
    pseudo = 4 * difference.mean() - 3 * left_out
    error = pseudo.std(ddof=1) / 2
    half = (found["effect_high"] - found["effect_low"]) / 2
    assert 3.18 * error <= half * 1.001, "Student's t with at most 3 degrees of freedom"
    assert found["videos"] == 4 and found["clips"] == 5
    one = effect_columns(whole, values, np.array(["a"] * 5), 0.95)
    assert np.isnan(one["effect_low"]) and one["p"] == found["p"]


def test_measures_without_values_are_left_out():
    numbers = np.random.default_rng(0).random((3, 1 + 4, 2))
    numbers[:, :, 1] = np.nan
    sets = [UnitSet("listed", 50.0, np.array([0, 1]))]
    randoms = [[np.array([0, 2]), np.array([1, 3]), np.array([2, 3])]]
    table = estimate_effects(sets, randoms, numbers, ("a", "b"), np.arange(3), np.ones(4))
    assert table["measure"].tolist() == ["a"] and table["variance"].tolist() == [0.5]
    assert table["q"].tolist() == table["p"].tolist()


def test_random_labels_alarm_in_at_most_one_of_twenty_plants():
    """Labels that have nothing to do with the effect, in networks whose loud units matter more."""
    alarms = 0
    plants = 400
    for seed in range(plants):
        rng = np.random.default_rng(seed)
        variance = np.exp(rng.standard_normal(60))
        weight = rng.standard_normal((60, 5)) * np.sqrt(variance)[:, None]
        labelled = rng.choice(60, 8, replace=False)
        sets = [labelled, *matched_sets(labelled, variance, 99, rng)]
        # change of the scores when the units are removed, in 6 clips
        scores = rng.standard_normal((6, 60))
        effects = [np.linalg.norm(scores[:, units] @ weight[units], axis=1).mean() for units in sets]
        alarms += p_value(np.array(effects)) <= 0.05
    # expected 20 (5 %), standard deviation 4.4
    assert 5 < alarms < 20 + 2 * 4.4


def test_compare_shows_the_ablations_of_every_run(tmp_path):
    folders = [finished_run(tmp_path / name, model=name) for name in ("a", "b", "c")]
    for k, folder in enumerate(folders[:2]):
        row = {
            "stage": "stage2",
            "replace": "mean",
            "set": "kind motion",
            "dose": 25.0,
            "measure": "divergence",
        }
        row |= {"excess": 0.1 + k, "excess_low": 0.0, "excess_high": 2.0, "p": 0.02}
        write_table(folder / "ablation.csv", pd.DataFrame([row]))
    comparison = compare_runs(folders, n_boot=20)
    assert comparison.ablation[["run", "excess"]].values.tolist() == [["a", 0.1], ["b", 1.1]]
    write_comparison(comparison, tmp_path / "out", ["png"])
    text = (tmp_path / "out" / "comparison.md").read_text()
    assert "1.100 [0.000, 2.000] (p 0.020)" in text and "25 %" in text
    assert len(pd.read_csv(tmp_path / "out" / "ablation.csv")) == 2
    assert (tmp_path / "out" / "table_ablations.tex").exists()
