"""The values of model.init are checked with the other options, before any data set is made."""

import pytest

from static_dynamic.configs.options import check
from static_dynamic.errors import UserError


@pytest.mark.parametrize("init", ["randm", "null", "[]"])
def test_an_unknown_model_init_is_refused(init):
    # otherwise a mistyped model.init=random would load trained weights
    with pytest.raises(UserError, match=r"(unknown|invalid) value model\.init=.*(nearest known|expected): "):
        check(["model=x3d_xs", f"model.init={init}"])
