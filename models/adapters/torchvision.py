"""Networks of torchvision: ``model=torchvision``."""

from static_dynamic.models.adapters.adapt import adapter
from static_dynamic.models.adapters.network import Loaded, Wanted
from static_dynamic.models.adapters.packages import check_known, load_package, package_errors, with_classes


@adapter("torchvision", "model.name=r3d_18")
def load_torchvision(wanted: Wanted) -> Loaded:
    """Load a network of ``torchvision.models`` and the preprocessing that its newest weights declare."""
    network = wanted.network
    zoo = load_package("torchvision", "torchvision.models")
    check_known("torchvision", network, zoo.list_models())
    with package_errors("torchvision", network):
        weights = zoo.get_model_weights(network).DEFAULT
        classes = len(weights.meta["categories"]) if wanted.pretrained else wanted.num_classes
        module = zoo.get_model(
            network, weights=None, **with_classes("num_classes", classes), **wanted.options
        )
        if wanted.pretrained:
            # weights_only=True refuses arbitrary pickled objects, which torchvision would accept by default
            module.load_state_dict(weights.get_state_dict(check_hash=True, weights_only=True))
        preset = weights.transforms()
    # one number is the short side, two are (height, width)
    size, crop = (
        tuple(sides) if len(sides) > 1 else sides[0] for sides in (preset.resize_size, preset.crop_size)
    )
    crop = crop if isinstance(crop, int) or len(set(crop)) > 1 else crop[0]
    return Loaded(module, {"size": size, "crop": crop, "mean": preset.mean, "std": preset.std})
