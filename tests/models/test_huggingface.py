"""Networks of Hugging Face: stages and preprocessing against the package itself, weights, refusals."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from static_dynamic import configs
from static_dynamic.datasets import preprocess
from static_dynamic.errors import UserError
from static_dynamic.models import build_model
from tests.models.toys import clip

transformers = pytest.importorskip("transformers", reason="transformers is not installed")

SMALL = {
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "num_labels": 5,
}
CLIP = {"image_size": 32, "num_frames": 4}
PREDICTOR = {"pred_hidden_size": 24, "pred_num_attention_heads": 2, "pred_num_hidden_layers": 1}
# kind -> arguments of its config, and whether it has a class token
VIDEO = {
    "Timesformer": (CLIP | {"patch_size": 8}, True),
    "VideoMAE": (CLIP | {"patch_size": 8}, False),
    "Vivit": (CLIP | {"tubelet_size": [2, 8, 8]}, True),
    "VJEPA2": ({"crop_size": 32, "patch_size": 8, "frames_per_clip": 4, "mlp_ratio": 2} | PREDICTOR, False),
}
# kind -> arguments of its config, and its prefix tokens
IMAGE = {
    "ViT": ({}, {"cls": 1}),
    "DeiT": ({}, {"cls": 1, "dist": 1}),
    "Dinov2": ({}, {"cls": 1}),
    "Dinov2WithRegisters": ({"num_register_tokens": 4}, {"cls": 1, "registers": 4}),
    "DINOv3ViT": ({"num_register_tokens": 3}, {"cls": 1, "registers": 3}),
}
PROCESSOR = {
    "size": {"shortest_edge": 40},
    "crop_size": {"height": 32, "width": 32},
    "image_mean": [0.4] * 3,
    "image_std": [0.2] * 3,
}


def save(folder: Path, kind: str, *, head: str = "Model", processor: bool = True, **options) -> nn.Module:
    """A small network with random weights and its processor, saved as the hub has them."""
    config = getattr(transformers, f"{kind}Config")(**SMALL | (VIDEO | IMAGE)[kind][0] | options)
    torch.manual_seed(0)
    net = getattr(transformers, kind + head)(config).eval()
    # random position embeddings, because those of some networks start at zero
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if "embeddings" in name or "token" in name:
                parameter.normal_()
    net.save_pretrained(folder)
    if processor:
        transformers.VideoMAEImageProcessor(**PROCESSOR).save_pretrained(folder)
    return net


@pytest.mark.parametrize("head", ["Model", "ForVideoClassification"])
@pytest.mark.parametrize("kind", VIDEO)
def test_video_networks(tmp_path, kind, head):
    theirs = save(tmp_path, kind, head=head)
    net = build_model("huggingface", network=str(tmp_path), checkpoint="pretrained")
    spec = net.input_spec
    assert (spec.frames, spec.size, spec.crop, spec.mean) == (4, 40, 32, (0.4,) * 3)
    x = clip(net)
    rows = net.read(x, [*net.stages, "logits"])
    with torch.inference_mode():
        outputs = theirs(x.transpose(1, 2), output_hidden_states=True)
    has_class = VIDEO[kind][1]
    # the pooler of V-JEPA 2's classifier has three blocks of its own, behind those of the encoder
    pooler = 3 if (kind, head) == ("VJEPA2", "ForVideoClassification") else 0
    blocks = net.shown_stages()
    assert len(blocks) == 3 + pooler and len(net.stages) == (6 if has_class else 3) + pooler
    # hidden states: the embeddings, then what each block returns (VJEPA2's last is behind the last norm)
    for block, tokens in list(zip(blocks, outputs.hidden_states[1:], strict=False))[:2]:
        torch.testing.assert_close(rows[block], tokens[:, int(has_class) :].mean(dim=1))
        if has_class:
            torch.testing.assert_close(rows[f"{block}/cls"], tokens[:, 0])
    assert net.classes == (None if head == "Model" else outputs.logits.shape[1])
    if head != "Model":
        torch.testing.assert_close(rows["logits"], outputs.logits)
    # the same weights as a file, whose keys may be those of an older version of the package
    from_file = build_model("huggingface", network=str(tmp_path), checkpoint=tmp_path / "model.safetensors")
    assert all(torch.equal(v, from_file.state_dict()[k]) for k, v in net.state_dict().items())
    untrained = build_model("huggingface", network=str(tmp_path), num_classes=7, seed=5)
    key = next(k for k, v in net.state_dict().items() if v.dim() > 1 and v.std() > 0)
    assert not torch.equal(untrained.state_dict()[key], net.state_dict()[key])


@pytest.mark.parametrize("kind", IMAGE)
def test_image_networks_see_frames_and_have_a_stage_for_each_kind_of_prefix_token(tmp_path, kind):
    theirs = save(tmp_path, kind, image_size=32, patch_size=8)
    net = build_model("huggingface", network=str(tmp_path), checkpoint="pretrained")
    assert net.feed == "(b t) c h w" and net.input_spec.frames == 8 and len(net.shown_stages()) == 3
    x = clip(net)
    rows = net.read(x)
    with torch.inference_mode():
        frames = theirs(x.transpose(1, 2).flatten(0, 1), output_hidden_states=True).hidden_states[2]
    tokens = frames.unflatten(0, (2, 8))  # (B, T, N, C)
    sizes = IMAGE[kind][1]
    prefix = sum(sizes.values())
    assert tokens.shape[2] == prefix + 16
    block = net.shown_stages()[1]
    assert [n for n in net.stages if n.startswith(block)] == [block, *(f"{block}/{name}" for name in sizes)]
    torch.testing.assert_close(rows[block], tokens[:, :, prefix:].mean(dim=(1, 2)))
    for name, part in zip(sizes, tokens[:, :, :prefix].split([*sizes.values()], dim=2), strict=True):
        torch.testing.assert_close(rows[f"{block}/{name}"], part.mean(dim=(1, 2)))


# Processor and its settings; side of a frame that the processor does not scale.
PROCESSORS = [
    ("VideoMAEImageProcessor", {}, (224, 224)),
    ("VideoMAEImageProcessor", PROCESSOR, (40, 60)),
    ("VideoMAEImageProcessor", PROCESSOR | {"do_normalize": False}, (40, 60)),
    ("VideoMAEImageProcessor", PROCESSOR | {"do_rescale": False}, (40, 60)),
    ("VideoMAEImageProcessor", PROCESSOR | {"rescale_factor": 0.01}, (40, 60)),
    ("VivitImageProcessor", {}, (256, 300)),
    ("VivitImageProcessor", {"do_normalize": False}, (256, 300)),
    ("VivitImageProcessor", {"offset": False, "rescale_factor": 1 / 255}, (256, 300)),
    ("VivitVideoProcessor", {}, (256, 300)),
    ("VJEPA2VideoProcessor", {}, (292, 400)),
    # of VideoPrism
    ("LlavaOnevisionVideoProcessor", {"size": {"height": 48, "width": 48}}, (48, 48)),
    ("ViTImageProcessor", {}, (224, 224)),
    ("DeiTImageProcessor", {}, (256, 256)),
    ("BitImageProcessor", {}, (224, 300)),
    ("CLIPImageProcessor", {"size": {"shortest_edge": 48}, "crop_size": 40}, (48, 64)),
    ("DINOv3ViTImageProcessor", {}, (224, 224)),
    ("ConvNextImageProcessor", {"size": {"shortest_edge": 224}, "crop_pct": 0.875}, (256, 256)),
    ("ConvNextImageProcessor", {"size": {"shortest_edge": 384}}, (384, 384)),
]


@pytest.mark.parametrize("name, settings, shape", PROCESSORS)
def test_preprocessing_is_the_processor_s(tmp_path, name, settings, shape):
    kind = getattr(transformers, name, None)
    if kind is None or getattr(kind, "is_dummy", False):
        pytest.skip(f"{name} needs torchvision, or a later version of transformers")
    save(tmp_path, "VideoMAE", processor=False)
    processor = kind(**settings)
    processor.save_pretrained(tmp_path)
    spec = build_model("huggingface", network=str(tmp_path), input={"crop": None}).input_spec
    # frames of a size that is not scaled: equal to rounding errors
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (4, *shape, 3), np.uint8)
    ours, theirs = preprocess(torch.from_numpy(frames), spec), processed(processor, frames)
    assert ours.shape == theirs.shape
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    # scaled frames differ by interpolation alone: little where frames are smooth (in grey levels)
    rows, columns = np.mgrid[: 2 * shape[0], : 2 * shape[1]]
    waves = 127 + 60 * np.sin(rows / shape[0] * 4) + 60 * np.sin(columns / shape[1] * 3)
    smooth = np.tile(waves.round().astype(np.uint8)[None, ..., None], (2, 1, 1, 3))
    ours, theirs = preprocess(torch.from_numpy(smooth), spec), processed(processor, smooth)
    levels = (ours - theirs).abs().amax(dim=(1, 2, 3)) * torch.tensor(spec.std) * 255
    assert ours.shape == theirs.shape and levels.max() < 2.5


def processed(processor, frames: np.ndarray) -> torch.Tensor:
    """The clip (3, T, H, W) that a processor makes of frames (T, H, W, 3)."""
    outputs = processor(list(frames), return_tensors="pt")
    tensor = next(value for value in outputs.values() if value.dim() > 3)
    return tensor.flatten(0, -4).transpose(0, 1).float()


def test_the_files_of_processors(tmp_path):
    save(tmp_path, "VideoMAE")
    old = json.loads((tmp_path / "preprocessor_config.json").read_text())

    def mean() -> float:
        return build_model("huggingface", network=str(tmp_path)).input_spec.mean[0]

    assert mean() == 0.4
    # transformers 5 nests processors; video processors come before image processors
    nested = {"image_processor": old | {"image_mean": [0.3] * 3}, "processor_class": "Any"}
    (tmp_path / "processor_config.json").write_text(json.dumps(nested))
    assert mean() == 0.3
    (tmp_path / "video_preprocessor_config.json").write_text(json.dumps(old | {"image_mean": [0.2] * 3}))
    assert mean() == 0.2
    nested["video_processor"] = old | {"image_mean": [0.1] * 3}
    (tmp_path / "processor_config.json").write_text(json.dumps(nested))
    assert mean() == 0.1


@pytest.mark.parametrize(
    "change, line",
    [
        ({"do_pad": True}, "asks for do_pad, which this program cannot do: give model.input.size"),
        ({"do_resize": False}, "does not resize frames"),
        ({"size": {"longest_edge": 40}}, "has a size that this program cannot read"),
        (
            {"image_processor_type": "Unknown", "do_rescale": None},
            "does not say do_rescale, and the defaults of",
        ),
        ({"image_processor_type": "LevitImageProcessor"}, "LevitImageProcessor treats frames in another way"),
    ],
)
def test_refusals_of_preprocessing(tmp_path, change, line):
    save(tmp_path, "VideoMAE")
    path = tmp_path / "preprocessor_config.json"
    settings = json.loads(path.read_text()) | change
    path.write_text(json.dumps({key: value for key, value in settings.items() if value is not None}))
    with pytest.raises(UserError, match=rf"model=huggingface \(.*\): preprocessor_config.json.* {line}"):
        build_model("huggingface", network=str(tmp_path))
    given = {"size": 36, "crop": 32, "mean": [0.5] * 3, "std": [0.2] * 3}
    assert build_model("huggingface", network=str(tmp_path), input=given).input_spec.size == 36


def test_frames_without_a_fixed_size_are_cropped_to_the_network_s(tmp_path):
    save(tmp_path, "VideoMAE", processor=False)
    transformers.VideoMAEImageProcessor(**PROCESSOR | {"do_center_crop": False}).save_pretrained(tmp_path)
    spec = build_model("huggingface", network=str(tmp_path)).input_spec
    assert (spec.size, spec.crop) == (40, 32)


@pytest.mark.parametrize("given", [{"input": {"frames": 8}}, {"options": {"num_frames": 8}}])
def test_timesformer_with_more_frames_repeats_its_time_embeddings(tmp_path, given):
    save(tmp_path, "Timesformer", head="ForVideoClassification")
    net = build_model("huggingface", network=str(tmp_path), checkpoint="pretrained", **given)
    assert net.input_spec.frames == 8
    x = clip(net)
    config = transformers.AutoConfig.from_pretrained(tmp_path, num_frames=8)
    theirs = transformers.TimesformerForVideoClassification(config).eval()
    state = transformers.TimesformerForVideoClassification.from_pretrained(tmp_path).state_dict()
    key = "timesformer.embeddings.time_embeddings"
    state[key] = state[key].repeat_interleave(2, dim=1)
    theirs.load_state_dict(state)
    with torch.inference_mode():
        torch.testing.assert_close(net(x), theirs(x.transpose(1, 2)).logits)


def test_other_numbers_of_frames(tmp_path):
    (tmp_path / "vivit").mkdir(), (tmp_path / "jepa").mkdir()
    save(tmp_path / "vivit", "Vivit")
    given = {"network": str(tmp_path / "vivit"), "input": {"frames": 8}}
    with pytest.raises(UserError, match=r"VivitModel of .* was trained on 4 frames, and its weights .*posi"):
        build_model("huggingface", checkpoint="pretrained", **given)
    assert build_model("huggingface", **given).input_spec.frames == 8
    with pytest.raises(UserError, match="model.input.frames=8, but model.options.num_frames=6"):
        build_model("huggingface", options={"num_frames": 6}, **given)
    # rotary positions: frames and side reach the config, from which positions are computed
    save(tmp_path / "jepa", "VJEPA2")
    given = {"network": str(tmp_path / "jepa"), "input": {"frames": 8, "size": 48, "crop": 48}}
    net = build_model("huggingface", checkpoint="pretrained", **given)
    config = transformers.AutoConfig.from_pretrained(tmp_path / "jepa", frames_per_clip=8, crop_size=48)
    theirs = transformers.VJEPA2Model(config).eval()
    theirs.load_state_dict(net.state_dict())
    x = clip(net)
    with torch.inference_mode():
        expected = theirs(x.transpose(1, 2), skip_predictor=True).last_hidden_state.mean(dim=1)
    torch.testing.assert_close(net(x), expected)


def test_refusals(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match=r"model=huggingface \(.*nowhere\): there is no such folder"):
        build_model("huggingface", network=str(tmp_path / "nowhere"))
    save(tmp_path, "VideoMAE", processor=False)
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


def test_a_checkout_whose_folder_datasets_transformers_finds(tmp_path):
    # where no package datasets is installed; test_user_packages.py covers an installed package
    found = importlib.util.find_spec("datasets").origin
    assert Path(found) == Path(configs.__file__).parents[1] / "datasets" / "__init__.py"
    save(tmp_path, "Timesformer", head="ForVideoClassification")
    assert build_model("huggingface", network=str(tmp_path), checkpoint="pretrained").stages
