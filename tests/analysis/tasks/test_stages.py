"""The table of modules: every declared stage is in it with its units, for networks of every family."""

import pytest
from omegaconf import OmegaConf

from static_dynamic import configs
from static_dynamic.analysis.show.stage_table import candidate_rows
from static_dynamic.analysis.tasks.stages import run
from static_dynamic.models import build_model

# one of each family
NETWORKS = (
    "i3d_inception",
    "i3d_nln",
    "matnet",
    "mvit",
    "slowfast_r50_4x16",
    "slowfast_ssv2_r50_8x8",
    "timesformer",
    "x3d_xs",
)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_declared_stage_is_in_the_table(name):
    net = build_model(name)
    rows = candidate_rows(net)
    assert [row["depth"] for row in rows] == list(range(len(rows)))
    listed = [stage for row in rows for stage in row["stage"].split(", ") if stage]
    assert sorted(listed) == sorted(net.stages)
    by_module = {row["module"]: row for row in rows}
    for stage in net.stages.values():
        (module,) = {tap.module for tap in stage.taps}
        row = by_module[module]
        # a stage of all that the module returns has all its units; one of a single pathway fewer
        everything = len(row["output of one clip"].split(", ")) == len(stage.taps)
        assert row["units"] == stage.units if everything else row["units"] > stage.units


def test_the_printed_table(capsys):
    model = configs.row("model", "x3d_xs")
    run(OmegaConf.create({"model": model, "seed": 1, "units": "channels", "tokens": None}))
    title, _, header, *lines, _, summary = capsys.readouterr().out.splitlines()
    assert title == "x3d_xs, one clip of 4 x 160 x 160"
    assert header.split() == "depth module kind output of one clip units layout stage".split()
    stages = [line.split() for line in lines if "stage" in line.split()[-1]]
    assert [line[-1] for line in stages] == [f"stage{i}" for i in range(1, 6)]
    assert stages[0][-3:] == ["24", "maps", "stage1"]
    assert summary == f"5 of {len(lines)} modules are read as stages"
