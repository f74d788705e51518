"""The table of the prediction's changes beside the parts of the last stage: file, terminal and report."""

import logging

import numpy as np
import pandas as pd
import pytest

from static_dynamic.analysis import estimate_run
from static_dynamic.analysis.outputs.behaviour import write_behaviour
from static_dynamic.analysis.outputs.registry import FinishedRun
from static_dynamic.analysis.run.manifest import read_manifest
from static_dynamic.analysis.run.store import Store
from static_dynamic.analysis.show.report.page import cell, write_report
from tests.analysis.finished import finished_run
from tests.analysis.manifests import forget_checks


def finished(path, **options):
    """A finished run with random class scores; the second of its two stages is the last."""
    entry = {"classes": 4, "labelled": False}
    finished_run(path, more={"class_scores": entry}, **options)
    forget_checks(path)
    scores = Store(path, "r+").activations("logits")
    scores[:] = np.random.default_rng(0).standard_normal(scores.shape)
    return FinishedRun(
        path, None, read_manifest(path), "stage1", ["stage1", "stage2"], estimate_run(path, 20)
    )


def test_each_change_stands_beside_the_part_that_depends_on_it(tmp_path, capsys):
    run = finished(tmp_path)
    write_behaviour(run)
    table = pd.read_csv(tmp_path / "behaviour.csv").set_index("change")
    last = run.estimate.layers.set_index("stage").loc["stage2"]
    for change, part in (("new style", "appearance"), ("shuffled", "motion")):
        assert table.loc[change, "stage"] == "stage2" and table.loc[change, "part"] == part
        for end in ("", "_low", "_high"):
            assert table.loc[change, f"part_value{end}"] == pytest.approx(last[f"{part}{end}"])
    printed = capsys.readouterr().out
    kept = "{top1_kept:.3f} [{top1_kept_low:.3f}, {top1_kept_high:.3f}]".format(**table.loc["shuffled"])
    assert kept in printed and "part of stage2" in printed and "accuracy" not in printed
    text = write_report(tmp_path).read_text()
    assert "<h2>Prediction</h2>" in text and "<th>new style</th>" in text and "value of the part" in text
    for change in ("new style", "shuffled"):
        row = table.loc[change]
        for number in ("top1_kept", "part_value"):
            shown = cell(*(row[f"{number}{end}"] for end in ("", "_low", "_high")))
            assert f"<td>{shown}</td>" in text


def test_without_parts_the_prediction_is_still_shown(tmp_path, capsys):
    write_behaviour(finished(tmp_path, pairs="paper", videos=range(12)))
    table = pd.read_csv(tmp_path / "behaviour.csv")
    assert table["part_value"].isna().all() and (table["clips"] == 6).all()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[-1] for line in lines[-2:]] == ["-", "-"]


def test_a_run_without_class_scores_gets_one_log_line(tmp_path, capsys, caplog):
    caplog.set_level(logging.INFO)
    run = finished(tmp_path)
    Store(tmp_path, "r+").update_manifest(class_scores={"reason": "the network has no class scores"})
    write_behaviour(run)
    assert caplog.messages == [
        "behaviour.csv is left out, because there are no class scores: the network has no class scores"
    ]
    assert not (tmp_path / "behaviour.csv").exists() and not capsys.readouterr().out
    assert "Prediction" not in write_report(tmp_path).read_text()
