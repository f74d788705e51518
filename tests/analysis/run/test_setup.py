"""What a run needs is checked before anything is computed."""

import pytest
from omegaconf import OmegaConf

from static_dynamic.analysis.run.setup import build_network
from static_dynamic.errors import UserError


@pytest.mark.parametrize("init", ["randm", None, []])
def test_an_unknown_model_init_is_refused(init):
    # otherwise a mistyped model.init=random would load trained weights
    options = OmegaConf.create({"checkpoint": None, "model": {"name": "x3d_xs", "init": init}})
    with pytest.raises(UserError, match=r"unknown value model\.init=.*; nearest known: "):
        build_network(options)
