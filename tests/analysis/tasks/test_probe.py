"""The task ``probe`` as a user calls it, and what the report and ``task=compare`` show of it."""

import pandas as pd
import pytest
from omegaconf import OmegaConf

from static_dynamic.analysis.estimate.comparison import compare_runs
from static_dynamic.analysis.run.tables import read_table
from static_dynamic.analysis.show.comparison_files import write_comparison
from static_dynamic.analysis.show.report.page import write_report
from static_dynamic.analysis.tasks import probe
from static_dynamic.errors import UserError
from tests.analysis.finished import finished_run


def options(*runs, **given):
    task = {"variables": [], "csv": None, "circular": [], "classes": [], "untrained": None, "folds": 4}
    common = {"runs": [str(run) for run in runs], "n_permutations": 19, "n_boot": 50, "seed": 1}
    return OmegaConf.create(common | {"task": task | given})


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    made = finished_run(folder / "a"), finished_run(folder / "b", trained=False)
    probe.run(options(*made))
    return made


def test_tables_and_figure_are_written(runs, capsys):
    probe.run(options(runs[0], untrained=str(runs[1])))
    shown = capsys.readouterr().out
    assert "decodability of variables" in shown and "untrained network" in shown
    table = read_table(runs[0] / "probe.csv")
    kinds = {"all", "altered order", "untrained", "content units", "motion units", "appearance units"}
    assert set(table["features"]) == kinds
    assert set(table["stage"]) == {"stage1", "stage2"} and set(table["variable"]) == {"style", "order"}
    whole = table[table["features"] == "all"]
    assert ((whole["decodability"] - (whole["score"] - whole["chance"]) / (1 - whole["chance"])) < 1e-9).all()
    first = read_table(runs[0] / "probe_variables.csv").set_index("variable")
    best = whole.groupby("variable")["decodability"].max()
    assert first["decodability"].to_dict() == pytest.approx(best.to_dict())
    assert (runs[0] / "probe.png").read_bytes().startswith(b"\x89PNG")


def test_the_same_command_gives_the_same_bytes(runs):
    probe.run(options(runs[0]))
    before = {
        name: (runs[0] / name).read_bytes() for name in ("probe.csv", "probe_variables.csv", "probe.png")
    }
    probe.run(options(runs[0]))
    assert before == {name: (runs[0] / name).read_bytes() for name in before}


def test_report_and_comparison_show_probes(runs, tmp_path):
    page = write_report(runs[0]).read_text()
    assert "Decoded variables by stage" in page and page.count('<img class="wide"') == 1
    comparison = compare_runs(runs, n_boot=20)
    assert len(comparison.probes) == 2 * 2 * 2
    write_comparison(comparison, tmp_path, ["png"])
    assert "| order | tiny untrained |" in (tmp_path / "comparison.md").read_text()
    assert (tmp_path / "probes.png").exists() and len(pd.read_csv(tmp_path / "probes.csv")) == 8


def test_the_untrained_network_belongs_to_one_run(runs):
    with pytest.raises(UserError, match="task.untrained belongs to one run"):
        probe.run(options(*runs, untrained=str(runs[1])))
