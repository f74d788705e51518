"""Networks of Hugging Face's ``transformers``: ``model=huggingface``."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch

from static_dynamic.errors import UserError
from static_dynamic.models.adapters.adapt import adapter
from static_dynamic.models.adapters.network import Loaded
from static_dynamic.models.adapters.packages import load_package, package_errors, with_classes

# Names of files that describe the preprocessing of a Hugging Face network.
HUGGINGFACE_INPUT = ("video_preprocessor_config.json", "preprocessor_config.json")
# Class of a Hugging Face network -> additional arguments of ``forward``; V-JEPA 2's predictor is skipped.
HUGGINGFACE_CALL = {"VJEPA2Model": {"skip_predictor": True}}


@adapter("huggingface", "model.name=FOLDER or model.name=facebook/timesformer-base-finetuned-k400")
def load_huggingface(network: str, num_classes: int | None, pretrained: bool, options: Mapping) -> Loaded:
    """Load a ``transformers`` network from a folder or the Hugging Face hub; code stored there never runs."""
    transformers = load_package("huggingface", "transformers")
    with package_errors("huggingface", network):
        config = transformers.AutoConfig.from_pretrained(
            network, trust_remote_code=False, **with_classes("num_labels", num_classes), **options
        )
        has_head = any("ForVideoClassification" in name for name in config.architectures or ())
        auto = transformers.AutoModelForVideoClassification if has_head else transformers.AutoModel
        if pretrained:
            module = from_pretrained(auto, network, config)
        else:
            module = auto.from_config(config, trust_remote_code=False)
    kind = type(module)

    def convert(state: Mapping) -> Mapping:
        # `from_pretrained` translates the keys of checkpoints that older versions of transformers wrote
        own = set(module.state_dict()) == set(state)
        return state if own else from_pretrained(kind, None, config, state_dict=dict(state)).state_dict()

    call = HUGGINGFACE_CALL.get(kind.__name__, {})
    return Loaded(module, huggingface_input(network, config), call, convert)


def from_pretrained(kind, network: str | None, config, **options) -> torch.nn.Module:
    """Load a Hugging Face network in float32; code in pickled weight files never runs.

    Raises UserError if weights are missing or have other shapes. A folder may hold weights that the network
    lacks (such as a decoder's); a state dict may not.
    """
    if network is not None:
        options |= {"trust_remote_code": False, "weights_only": True}
    module, report = kind.from_pretrained(network, config=config, output_loading_info=True, **options)
    wrong = ["missing_keys", "mismatched_keys", *(["unexpected_keys"] if network is None else [])]
    found = [f"{len(report[kind])} {kind} ({min(map(str, report[kind]))})" for kind in wrong if report[kind]]
    if found:
        raise UserError(
            f"model=huggingface: the weights of {network or 'checkpoint='} do not fit "
            f"{type(module).__name__}: {'; '.join(found).replace('_', ' ')}"
        )
    return module.float()


def huggingface_input(network: str, config) -> dict:
    """Return the preprocessing that the config and preprocessor files of a Hugging Face model declare."""
    from transformers.utils import cached_file

    crop = getattr(config, "image_size", None) or getattr(config, "crop_size", None)
    crop = crop if isinstance(crop, int | None) else crop[0]
    frames = getattr(config, "num_frames", None) or getattr(config, "frames_per_clip", None)
    declared = {"frames": frames, "crop": crop, "size": crop}
    for name in HUGGINGFACE_INPUT:
        try:
            path = cached_file(network, name)
        except OSError:
            continue
        preset = json.loads(Path(path).read_text(encoding="utf-8"))
        size = preset.get("size") or {}
        return declared | {
            "size": size.get("shortest_edge", crop) if isinstance(size, Mapping) else size,
            "mean": preset.get("image_mean"),
            "std": preset.get("image_std"),
        }
    return declared
