"""Image networks of timm, which take single frames: ``model=timm``."""

from math import floor

from static_dynamic.errors import UserError
from static_dynamic.models.adapters.adapt import adapter
from static_dynamic.models.adapters.network import Loaded, Wanted
from static_dynamic.models.adapters.packages import check_known, load_package, package_errors, with_classes


@adapter("timm", "model.name=resnet50")
def load_timm(wanted: Wanted) -> Loaded:
    """Load an image network of ``timm`` and its preprocessing; the network takes single frames."""
    network = wanted.network
    timm = load_package("timm", "timm")
    # skip the check for hf-hub:NAME and local-dir:NAME, which are not in timm's list of networks
    if ":" not in network:
        check_known("timm", network.partition(".")[0], timm.list_models())
    with package_errors("timm", network):
        classes = with_classes("num_classes", wanted.num_classes)
        module = timm.create_model(network, pretrained=wanted.pretrained, **classes, **wanted.options)
    preset = timm.data.resolve_model_data_config(module)
    if preset["crop_mode"] not in ("center", "squash"):
        raise UserError(
            f"model=timm ({network}): this program cannot do crop_mode={preset['crop_mode']}: give "
            "model.input.size, model.input.crop, model.input.mean and model.input.std"
        )
    crop = tuple(preset["input_size"][1:])
    scaled = tuple(floor(side / preset["crop_pct"]) for side in crop)
    size = scaled if preset["crop_mode"] == "squash" or len(set(crop)) > 1 else scaled[0]
    crop = crop if len(set(crop)) > 1 else crop[0]
    return Loaded(module, {"size": size, "crop": crop, "mean": preset["mean"], "std": preset["std"]})
