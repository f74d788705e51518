"""Networks of torchvision: ``model=torchvision``."""

from collections.abc import Mapping

from static_dynamic.models.adapters.adapt import adapter
from static_dynamic.models.adapters.network import Loaded
from static_dynamic.models.adapters.packages import check_known, load_package, package_errors, with_classes


@adapter("torchvision", "model.name=r3d_18")
def load_torchvision(network: str, num_classes: int | None, pretrained: bool, options: Mapping) -> Loaded:
    """Load a network of ``torchvision.models`` and the preprocessing that its newest weights declare."""
    zoo = load_package("torchvision", "torchvision.models")
    check_known("torchvision", network, zoo.list_models())
    with package_errors("torchvision", network):
        weights = zoo.get_model_weights(network).DEFAULT
        classes = len(weights.meta["categories"]) if pretrained else num_classes
        module = zoo.get_model(network, weights=None, **with_classes("num_classes", classes), **options)
        if pretrained:
            # weights_only=True refuses arbitrary pickled objects, which torchvision would accept by default
            module.load_state_dict(weights.get_state_dict(check_hash=True, weights_only=True))
        preset = weights.transforms()
        size, crop = min(preset.resize_size), min(preset.crop_size)
    return Loaded(module, {"size": size, "crop": crop, "mean": preset.mean, "std": preset.std})
