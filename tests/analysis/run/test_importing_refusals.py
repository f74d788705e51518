"""Import of activations: views, activations, stage names and options that are refused, in one line each."""

import numpy as np
import pandas as pd
import pytest
import torch

from static_dynamic.analysis import import_activations
from static_dynamic.analysis.run import importing
from static_dynamic.errors import UserError
from tests.analysis.run.imported import draw, views_of


def changed(name, values):
    """Views with other values in one column."""
    return views_of().assign(**{name: values})


def with_value(value, dtype=np.float64):
    """Activations with one other value, in row 9 and unit 2."""
    rows = draw(views_of()).astype(dtype)
    rows[9, 2] = value
    return rows


def with_cell(name, row, value):
    views = views_of().astype({name: object})
    views.loc[row, name] = value
    return views


BAD_VIEWS = {
    "not a pandas DataFrame: give the columns video": views_of().to_dict(),
    "lacks the columns style, order: give": views_of().drop(columns=["style", "order"]),
    "unknown columns frames, 3: give": views_of().assign(frames=1, **{"3": 2}),
    "repeats the columns clip: give": pd.concat([views_of(), views_of()[["clip"]]], axis=1),
    "row 3 of views has no clip: give": with_cell("clip", 3, None),
    "row 2 of views has no style: give": with_cell("style", 2, np.nan),
    "row 0 of views has the style 1.0: give integers": changed("style", views_of()["style"].astype(float)),
    "row 2 of views has the style '2': give integers": with_cell("style", 2, "2"),
    "row 5 of views has the style True: give integers": with_cell("style", 5, True),
    "row 0 of views has the label 'run': give integers": changed("label", "run"),
    "row 8 of views repeats clip c1, style 1, forward: give each view": with_cell("clip", 8, "c1").assign(
        video=lambda t: t["clip"]
    ),
    "clip c1 to the videos v1 and v2: give clips of different": with_cell("video", 7, "v2"),
    "the orders forward, backward, shuffled: give forward and shuffled, and": with_cell(
        "order", 1, "backward"
    ),
    "the orders forward, reversed, frozen: give forward and shuffled": views_of(
        orders=("forward", "reversed", "frozen")
    ),
    "the orders forward: give forward and shuffled": changed("order", "forward").drop_duplicates(),
    "the orders Forward, shuffled: give": changed("order", ["Forward", "shuffled"] * 8),
    "the orders none: give": views_of()[:0],
    "no dynamic pair: give a clip in two styles": views_of(styles=(1,)),
    "no static pair: give a clip in one style in both": views_of()[
        lambda t: (t["order"] == "forward") == (t["clip"] > "c1")
    ],
}


@pytest.mark.parametrize("message", BAD_VIEWS)
def test_views_that_cannot_be_used_are_refused(tmp_path, message):
    views = BAD_VIEWS[message]
    refused(tmp_path, message, {"a": draw(views)}, views)


def refused(tmp_path, message, activations, views, **options):
    """Assert that an import fails with one line and writes nothing."""
    with pytest.raises(UserError) as error:
        import_activations(tmp_path / "run", activations, views, **options)
    assert message in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


BAD_ACTIVATIONS = {
    "there are no activations: give a dict": {},
    "no activations: give a dict that maps": draw(views_of()),
    "the activations of a have 15 rows, but views has 16": {"a": draw(views_of())[1:]},
    "a have the shape (16,): give": {"a": draw(views_of())[:, 0]},
    "a have the shape (16, 3, 1): give": {"a": draw(views_of())[..., None]},
    "a have the shape (16, 0): give": {"a": draw(views_of())[:, :0]},
    "b hold nan in row 9, unit 2: leave": {"a": draw(views_of()), "b": with_value(np.nan)},
    "a hold -inf in row 9, unit 2: leave": {"a": with_value(-np.inf)},
    "a hold inf in row 9, unit 2: leave": {"a": with_value(np.inf, np.float16)},
    "a hold 1e+39 in row 9, unit 2, too large for float32: scale": {"a": with_value(1e39)},
    "a are of type complex64: give": {"a": draw(views_of()).astype(np.complex64)},
    "a are of type object: give": {"a": draw(views_of()).astype(object)},
    "a are of type bool: give": {"a": draw(views_of()) > 0},
    "a are of type <U32: give": {"a": draw(views_of()).astype(str)},
    "a are not an array (setting an array element": {"a": [[1.0, 2.0], [1.0]]},
    "a are not an array (Can't call numpy() on Tensor that": {"a": torch.ones(16, 2, requires_grad=True)},
    "hold nan in row 1, unit 0": {"a": np.ma.masked_array(np.ones((16, 2)), np.eye(16, 2, -1) > 0)},
    "the stage name '' cannot be the name of a file": {"": draw(views_of())},
    "the stage name 12 cannot": {12: draw(views_of())},
    "the stage name '..' cannot": {"..": draw(views_of())},
    "the stage name 'a\\nb' cannot": {"a\nb": draw(views_of())},
    "the stage name 'a\\\\b' cannot": {"a\\b": draw(views_of())},
    "the stage name 'xxx": {"x" * 201: draw(views_of())},
    "the stages a/b and a--b would share the file a--b.npy": {n: draw(views_of()) for n in ("a/b", "a--b")},
}


@pytest.mark.parametrize("message", BAD_ACTIVATIONS)
def test_activations_that_cannot_be_used_are_refused(tmp_path, message):
    refused(tmp_path, message, BAD_ACTIVATIONS[message], views_of())


def test_a_value_in_a_later_block_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(importing, "NUMBERS_AT_A_TIME", 6)  # two rows
    refused(tmp_path, "a hold nan in row 9, unit 2", {"a": with_value(np.nan)}, views_of())


def test_an_unknown_value_of_pairs_is_refused(tmp_path):
    refused(tmp_path, "pairs=bot; nearest known: both", {"a": draw(views_of())}, views_of(), pairs="bot")
