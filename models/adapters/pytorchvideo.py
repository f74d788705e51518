"""Networks of PyTorchVideo: ``model=pytorchvideo``."""

import sys

import torch

from static_dynamic.models.adapters.adapt import adapter
from static_dynamic.models.adapters.network import Loaded, Wanted
from static_dynamic.models.adapters.packages import check_known, load_package, package_errors, with_classes


@adapter("pytorchvideo", "model.name=slow_r50")
def load_pytorchvideo(wanted: Wanted) -> Loaded:
    """Load a network of ``pytorchvideo.models.hub``, which declares no preprocessing."""
    network = wanted.network
    hub = load_package("pytorchvideo", "pytorchvideo.models.hub")
    check_known("pytorchvideo", network, [name for name, value in vars(hub).items() if callable(value)])
    builder = getattr(hub, network)
    with package_errors("pytorchvideo", network):
        module = builder(
            pretrained=False, **with_classes("model_num_class", wanted.num_classes), **wanted.options
        )
        if wanted.pretrained:
            # weights_only=True refuses arbitrary pickled objects, which PyTorchVideo's own loader accepts
            url = sys.modules[builder.__module__].checkpoint_paths[network]
            state = torch.hub.load_state_dict_from_url(url, map_location="cpu", weights_only=True)
            module.load_state_dict(state["model_state"])
    return Loaded(module)
