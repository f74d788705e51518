"""Image networks of timm, which take single frames: ``model=timm``."""

from collections.abc import Mapping

from static_dynamic.models.adapters.adapt import adapter
from static_dynamic.models.adapters.network import Loaded
from static_dynamic.models.adapters.packages import check_known, load_package, package_errors, with_classes


@adapter("timm", "model.name=resnet50")
def load_timm(network: str, num_classes: int | None, pretrained: bool, options: Mapping) -> Loaded:
    """Load an image network of ``timm`` and its preprocessing; the network takes single frames."""
    timm = load_package("timm", "timm")
    # skip the check for hf-hub:NAME and local-dir:NAME, which are not in timm's list of networks
    if ":" not in network:
        check_known("timm", network.partition(".")[0], timm.list_models())
    with package_errors("timm", network):
        classes = with_classes("num_classes", num_classes)
        module = timm.create_model(network, pretrained=pretrained, **classes, **options)
    preset = timm.data.resolve_model_data_config(module)
    crop = preset["input_size"][-1]
    size = round(crop / preset["crop_pct"])
    return Loaded(module, {"size": size, "crop": crop, "mean": preset["mean"], "std": preset["std"]})
