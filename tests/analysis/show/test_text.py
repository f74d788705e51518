"""Text tables of a run: intervals of the numbers of units, effective numbers, and notes on few videos."""

import pandas as pd
import pytest

from static_dynamic.analysis.estimate.tables import read_layers
from static_dynamic.analysis.show.stage_text import format_layers, stage_notes
from static_dynamic.analysis.show.text import format_classes
from tests.analysis.finished import finished_run, forget_new_columns


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return finished_run(tmp_path_factory.mktemp("runs") / "run", videos=range(12), units=20)


def test_numbers_of_units_have_intervals_and_effective_numbers(folder):
    layers = read_layers(folder).reset_index()
    text = format_layers(layers, "tiny on folder")
    blocks = text.split("\n\n")
    assert blocks[7].startswith("the paper's classes of units (threshold of the unit score: 0.5)")
    for line, (_, row) in zip(blocks[8].splitlines()[1:], layers.iterrows(), strict=True):
        for name in ("dynamic", "static", "joint", "residual"):
            bounds = f"{row[f'units_{name}_low']:.0f}, {row[f'units_{name}_high']:.0f}"
            assert f" {row[f'units_{name}']} [{bounds}]" in line
        assert line.split()[-3:] == [
            str(row["units_dead"]),
            f"{row['effective_videos']:.1f}",
            f"{row['effective_units']:.1f}",
        ]
    widths = [max(map(len, block.splitlines())) for block in blocks]
    assert widths[8] <= widths[6]  # not wider than the table of scores
    row = layers.iloc[1]
    bounds = f"[{row['units_joint_low']:.0f}, {row['units_joint_high']:.0f}]"
    assert f", joint {row['units_joint']} {bounds}, residual" in format_classes(row)


def test_a_run_of_an_older_version_is_printed_without_the_new_columns(folder, tmp_path):
    run = finished_run(tmp_path / "run", videos=range(12), units=20)
    forget_new_columns(run)
    layers = read_layers(run).reset_index()
    text = format_layers(layers, "tiny on folder")
    assert "effective" not in text and "[" not in text.split("\n\n")[4] and "nan" not in text
    assert "content" not in text.split("There are no parts")[0] and "There are no parts" in text
    assert f", joint {layers['units_joint'][0]}, residual" in format_classes(layers.iloc[0])


def stages(videos, effective, unknown):
    table = {"stage": [f"stage{k}" for k in range(len(effective))], "units": 8, "clusters": videos}
    return pd.DataFrame(table | {"effective_videos": effective, "units_few_videos": unknown})


def test_stages_that_rest_on_few_videos_are_named():
    # Fewer than 10 effective videos are few, and so is less than half of the videos.
    (note,) = stage_notes(stages(16, [9.9, 10.1], 0))
    assert note.startswith("Stages whose scores rest on few of the 16 videos") and note.endswith(
        ": stage0 (9.9)."
    )
    (note,) = stage_notes(stages(100, [51.0, 49.0], 0))
    assert note.endswith(": stage1 (49.0).")
    (note,) = stage_notes(stages(24, [24.0, 20.0], [0, 3]))
    assert note.startswith("Units without interval") and note.endswith(": 3 of 8 in stage1.")
    assert stage_notes(stages(24, [24.0, 20.0], 0)) == []
    assert stage_notes(stages(1, [1.0], 8)) == []  # a single video has no interval at all


def test_long_notes_are_wrapped(folder):
    layers = pd.concat([read_layers(folder).reset_index()] * 20).assign(
        effective_videos=2.0, units_few_videos=1
    )
    text = format_layers(layers, "tiny on folder")
    assert text.count("stage2 (2.0)") == 20
    assert max(map(len, text.split("\n\n")[11].splitlines())) <= 100
