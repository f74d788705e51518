"""Networks of the user: ``model=custom``."""

import importlib

from static_dynamic.errors import UserError, reason
from static_dynamic.models.adapters.adapt import adapter
from static_dynamic.models.adapters.network import Loaded, Wanted
from static_dynamic.models.adapters.packages import with_classes


@adapter("custom", "model.target=package.module.function")
def load_custom(wanted: Wanted) -> Loaded:
    """Call the user's function or Python class, which returns a network with weights already loaded."""
    network = wanted.network
    module_name, _, name = network.rpartition(".")
    try:
        builder = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"model.target={network} cannot be imported: {reason(error)}") from error
    return Loaded(builder(**with_classes("num_classes", wanted.num_classes), **wanted.options))
