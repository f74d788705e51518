"""Networks of Hugging Face: stages and preprocessing against the package itself, weights, refusals."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from torch import nn

from static_dynamic import configs
from static_dynamic.errors import UserError
from static_dynamic.models import build_model
from tests.models.toys import clip


@pytest.fixture(scope="module")
def transformers():
    return pytest.importorskip("transformers", reason="transformers is not installed")


SMALL = {
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "num_labels": 5,
}
CLIP = {"image_size": 32, "num_frames": 4}
# kind -> arguments of its config, and whether it has a class token
HUGGINGFACE = {
    "Timesformer": (CLIP | {"patch_size": 8}, True),
    "VideoMAE": (CLIP | {"patch_size": 8}, False),
    "Vivit": (CLIP | {"tubelet_size": [2, 8, 8]}, True),
    "VJEPA2": (
        {"crop_size": 32, "patch_size": 8, "frames_per_clip": 4, "mlp_ratio": 2}
        | {"pred_hidden_size": 24, "pred_num_attention_heads": 2, "pred_num_hidden_layers": 1},
        False,
    ),
}


def save(transformers, folder: Path, kind: str, *, head: bool, preprocessor: bool = True) -> nn.Module:
    """A small network with random weights, saved as the hub has it."""
    config = getattr(transformers, f"{kind}Config")(**SMALL, **HUGGINGFACE[kind][0])
    torch.manual_seed(0)
    suffix = "ForVideoClassification" if head else "Model"
    net = getattr(transformers, kind + suffix)(config).eval()
    net.save_pretrained(folder)
    if preprocessor:
        said = {"image_mean": [0.4] * 3, "image_std": [0.2] * 3, "size": {"shortest_edge": 40}}
        (folder / "preprocessor_config.json").write_text(json.dumps(said))
    return net


@pytest.mark.parametrize("head", [False, True])
@pytest.mark.parametrize("kind", HUGGINGFACE)
def test_huggingface(transformers, tmp_path, kind, head):
    theirs = save(transformers, tmp_path, kind, head=head)
    net = build_model("huggingface", network=str(tmp_path), checkpoint="pretrained")
    spec = net.input_spec
    assert (spec.frames, spec.size, spec.crop, spec.mean) == (4, 40, 32, (0.4,) * 3)
    x = clip(net)
    rows = net.read(x, [*net.stages, "logits"])
    with torch.inference_mode():
        outputs = theirs(x.transpose(1, 2), output_hidden_states=True)
    has_class = HUGGINGFACE[kind][1]
    blocks = net.shown_stages()
    assert len(blocks) == 3 and len(net.stages) == (6 if has_class else 3)
    # hidden states: the embeddings, then what each block returns (VJEPA2's last is behind the last norm)
    for block, tokens in list(zip(blocks, outputs.hidden_states[1:], strict=True))[:2]:
        torch.testing.assert_close(rows[block], tokens[:, int(has_class) :].mean(dim=1))
        if has_class:
            torch.testing.assert_close(rows[f"{block}/cls"], tokens[:, 0])
    assert net.classes == (outputs.logits.shape[1] if head else None)
    if head:
        torch.testing.assert_close(rows["logits"], outputs.logits)
    # the same weights as a file, whose keys may be those of an older version of the package
    from_file = build_model("huggingface", network=str(tmp_path), checkpoint=tmp_path / "model.safetensors")
    assert all(torch.equal(v, from_file.state_dict()[k]) for k, v in net.state_dict().items())
    untrained = build_model("huggingface", network=str(tmp_path), num_classes=7, seed=5)
    key = next(k for k, v in net.state_dict().items() if v.dim() > 1 and v.std() > 0)
    assert not torch.equal(untrained.state_dict()[key], net.state_dict()[key])


def test_huggingface_refusals(transformers, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match=r"model=huggingface \(.*nowhere\)"):
        build_model("huggingface", network=str(tmp_path / "nowhere"))
    save(transformers, tmp_path, "VideoMAE", head=False, preprocessor=False)
    with pytest.raises(UserError, match="does not declare its preprocessing: give model.input.mean"):
        build_model("huggingface", network=str(tmp_path))
    said = {"mean": [0.5] * 3, "std": [0.2] * 3}
    assert build_model("huggingface", network=str(tmp_path), input=said).input_spec.crop == 32
    # the encoder's weights alone do not make a classifier
    config = json.loads((tmp_path / "config.json").read_text())
    config["architectures"] = ["VideoMAEForVideoClassification"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="do not fit VideoMAEForVideoClassification: .* missing keys"):
        build_model("huggingface", network=str(tmp_path), input=said, checkpoint="pretrained")


def test_huggingface_where_no_package_datasets_is_installed(transformers, tmp_path):
    # transformers then finds the checkout's folder; test_user_packages.py covers an installed package
    found = importlib.util.find_spec("datasets").origin
    assert Path(found) == Path(configs.__file__).parents[1] / "datasets" / "__init__.py"
    save(transformers, tmp_path, "Timesformer", head=True)
    assert build_model("huggingface", network=str(tmp_path), checkpoint="pretrained").stages
