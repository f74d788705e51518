"""Sentences about the parts claim no more than intervals and tests show."""

import numpy as np
import pandas as pd

from static_dynamic.analysis.estimate.decomposition import PARTS
from static_dynamic.analysis.show.parts import has_parts, headline, kind_cells, part_cells


def stage(**changes):
    values = {"content": 0.3, "motion": 0.2, "appearance": 0.4, "residual": 0.1, "p_motion": 0.001}
    values |= {f"{part}_{end}": values[part] + d for part in list(values)[:4] for end, d in ENDS.items()}
    values |= {"motion_minus_appearance": -0.2}
    values |= {"motion_minus_appearance_low": -0.3, "motion_minus_appearance_high": -0.1, "units": 12}
    values |= {f"kind_{kind}": n for kind, n in KINDS.items()} | {"carries_motion": 3, "kind_unknown": 1}
    return pd.Series({"stage": "s"} | values | changes, name="s")


ENDS = {"low": -0.05, "high": 0.05}
KINDS = {"content": 4, "motion": 2, "appearance": 1, "mixed": 2, "residual": 1}
ZEROS = {f"kind_{kind}": 0 for kind in KINDS}


def test_the_headline_gives_the_parts_and_what_follows_from_intervals():
    text = headline(stage())
    assert text.startswith(
        "s: content 30 % (25 to 35), motion 20 % (15 to 25), appearance 40 % (35 to 45) and"
    )
    assert "The frame order matters (test of motion: p = 0.001)." in text
    assert (
        "The stage follows appearance more than motion (motion minus appearance: -20 % [-30, -10])." in text
    )


def test_the_intervals_of_the_parts_do_not_decide_but_that_of_their_difference():
    # The intervals of motion and appearance do not overlap, and yet the difference is not certain.
    assert "do not decide" in headline(stage(motion_minus_appearance_high=0.01))
    ends = {"motion_minus_appearance_low": 0.01, "motion_minus_appearance_high": 0.3}
    assert "follows motion more than appearance" in headline(stage(motion_minus_appearance=0.2, **ends))


def test_without_a_test_or_intervals_nothing_is_claimed():
    assert "test of motion" not in headline(stage(p_motion=np.nan))
    assert "finds no dependence on the frame order (p = 0.30)" in headline(stage(p_motion=0.3))
    bare = stage()
    bare[[name for name in bare.index if name.endswith(("_low", "_high"))]] = np.nan
    text = headline(bare)
    assert "content 30 %, motion 20 %" in text and "follows" not in text and "decide" not in text


def test_cells():
    cells = part_cells(stage(motion_any=0.25, motion_direction=np.nan))
    assert cells["motion %"] == "20.0 [15.0, 25.0]" and cells["p (motion)"] == "0.001"
    assert cells["motion_any %"] == "25.0" and cells["motion_direction %"] == "-"
    assert "motion_reshuffled %" not in cells
    assert kind_cells(stage())["dead"] == 1 and kind_cells(stage())["unknown"] == 1
    assert part_cells(stage(p_motion=np.nan))["p (motion)"] == "-"


def test_runs_without_parts():
    table = pd.DataFrame([stage(), stage()])
    assert has_parts(table) and not has_parts(table.drop(columns="content"))
    assert not has_parts(table.assign(content=np.nan))


def test_a_stage_without_parts_hides_no_other_stage():
    """All units of the second stage vary in the clips of one video only."""
    names = [f"{part}{end}" for part in PARTS for end in ("", "_low", "_high")]
    empty = stage(**dict.fromkeys([*names, "p_motion"], np.nan), kind_unknown=12, **ZEROS)
    assert has_parts(pd.DataFrame([stage(), empty])) and not has_parts(empty)
    assert headline(empty) == "s: no parts, because no unit varies in the clips of more than one video."
    assert set(part_cells(empty).values()) == {"s", 12, "-"}
    assert list(part_cells(empty)) == list(part_cells(stage()))  # columns of one table
    assert list(kind_cells(empty)) == list(kind_cells(stage()))
