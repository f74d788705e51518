"""Parts of larger models against the models themselves, by plain hooks: ``model.part``."""

import pytest
import torch
from einops import rearrange
from torch import nn

from static_dynamic.errors import UserError
from static_dynamic.models import build_model
from tests.models.toys import Frame, Tokens, clip, custom


@pytest.fixture(scope="module")
def transformers():
    return pytest.importorskip("transformers", reason="transformers is not installed")


VISION = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 24}
VISION |= {"image_size": 32, "patch_size": 8}
TEXT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
TEXT |= {"intermediate_size": 48, "vocab_size": 100, "bos_token_id": 1, "eos_token_id": 2}
ROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}}
QWEN = {"depth": 2, "hidden_size": 32, "num_heads": 2, "intermediate_size": 48, "out_hidden_size": 32}
IDS = {"video_token_id": 90, "image_token_id": 91, "vision_start_token_id": 92, "vision_end_token_id": 93}
LLAVA = {"video_token_index": 90, "image_token_index": 91}
CLIP_TEXT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
# kind of network -> arguments of its config
CONFIGS = {
    "LlavaOnevision": {
        "vision_config": {"model_type": "siglip_vision_model", **VISION},
        "text_config": {"model_type": "qwen2", **TEXT},
        **LLAVA,
    },
    "LlavaNextVideo": {
        "vision_config": {"model_type": "clip_vision_model", **VISION},
        "text_config": {"model_type": "llama", **TEXT},
        **LLAVA,
    },
    "Qwen2_5_VL": {
        "vision_config": QWEN | {"fullatt_block_indexes": [1], "window_size": 56},
        "text_config": TEXT | ROPE,
        **IDS,
    },
    "Qwen3VL": {
        "vision_config": QWEN | {"deepstack_visual_indexes": [0], "num_position_embeddings": 64},
        "text_config": TEXT | ROPE | {"head_dim": 8},
        **IDS,
    },
    "CLIP": {"vision_config": VISION, "text_config": CLIP_TEXT},
    "XCLIP": {
        "vision_config": VISION | {"num_frames": 4, "mit_hidden_size": 16, "mit_num_attention_heads": 2},
        "text_config": CLIP_TEXT,
        "projection_dim": 16,
    },
    "VJEPA2": {
        **{"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "crop_size": 32},
        **{"patch_size": 8, "frames_per_clip": 4, "mlp_ratio": 2, "pred_hidden_size": 24},
        **{"pred_num_attention_heads": 2, "pred_num_hidden_layers": 2},
    },
}
SPEC = {"frames": 4, "mean": [0.5] * 3, "std": [0.2] * 3}


@pytest.fixture(scope="module")
def models(transformers, tmp_path_factory):
    """Kind of network -> a network with random weights and its folder."""
    saved = {}

    def get(kind):
        if kind not in saved:
            torch.manual_seed(0)
            config = getattr(transformers, f"{kind}Config")(**CONFIGS[kind])
            net = getattr(transformers, f"{kind}Model")(config).eval()
            for parameter in net.parameters():
                nn.init.normal_(parameter, std=0.2)
            folder = tmp_path_factory.mktemp(kind)
            net.save_pretrained(folder)
            saved[kind] = net, folder
        return saved[kind]

    return get


def part_of(models, kind, part, **options):
    side = 56 if kind.startswith("Qwen2") else 64 if kind.startswith("Qwen3") else 32
    spec = SPEC | {"size": side, "crop": side}
    given = {"network": str(models(kind)[1]), "checkpoint": "pretrained", "input": spec, "part": part}
    return build_model("huggingface", **given | options)


def hooked(net, run, paths):
    """Outputs of modules during `run()`, by plain hooks."""
    seen = {}
    handles = [
        net.get_submodule(path).register_forward_hook(lambda m, i, o, path=path: seen.update({path: o}))
        for path in paths
    ]
    with torch.inference_mode():
        run()
    for handle in handles:
        handle.remove()
    return {path: one if isinstance(one, torch.Tensor) else one[0] for path, one in seen.items()}


def check_rows(net, x, theirs, run, prefix, skip, fold=None):
    """Compare the rows of all stages with the outputs that the whole model computes in `run()`."""
    stages = net.shown_stages()
    seen = hooked(theirs, run, [prefix + stage for stage in stages])
    rows = net.read(x)
    for stage in stages:
        tokens = seen[prefix + stage]
        tokens = tokens[:, skip:] if tokens.dim() == 3 else tokens[:, None]  # (rows, N, C)
        expected = torch.stack([one.flatten(0, 1).mean(dim=0) for one in tokens.chunk(len(x))])
        torch.testing.assert_close(rows[stage], expected, atol=1e-5, rtol=1e-4)
    return stages


@pytest.mark.parametrize(
    ("kind", "part", "layers", "skip"),
    [
        ("LlavaOnevision", "vision_tower", 3, 0),
        ("LlavaNextVideo", "vision_tower", 3, 1),
        ("CLIP", "vision_model", 3, 1),
    ],
)
def test_image_towers(models, kind, part, layers, skip):
    net, theirs = part_of(models, kind, part), models(kind)[0]
    x = clip(net)
    frames = rearrange(x, "b c t h w -> (b t) c h w")
    run = lambda: theirs.get_submodule(part)(pixel_values=frames)  # noqa: E731
    stages = check_rows(net, x, theirs, run, f"{part}.", skip)
    assert stages == [f"encoder.layers.{k}" for k in range(layers)]
    # only the part is kept, and a checkpoint of the whole model gives it the same weights
    assert set(net.state_dict()) == set(theirs.get_submodule(part).state_dict())
    loaded = part_of(models, kind, part, checkpoint=models(kind)[1] / "model.safetensors")
    for name, weights in net.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weights)


@pytest.mark.parametrize("kind", ["Qwen2_5_VL", "Qwen3VL"])
def test_towers_of_qwen(models, kind):
    net, theirs = part_of(models, kind, "visual"), models(kind)[0]
    x = clip(net)
    side = theirs.config.vision_config.patch_size
    half = net.input_spec.crop // side
    # the patches in the order of the processor: groups of 2 x 2 patches, rows and columns inside a group
    patches, grid = [], [[2, half, half]] * 2
    for video in x:
        for t in range(2):
            for row in range(0, half, 2):
                for column in range(0, half, 2):
                    for r in (row, row + 1):
                        for c in (column, column + 1):
                            cell = video[:, 2 * t : 2 * t + 2, r * side : (r + 1) * side]
                            patches.append(cell[..., c * side : (c + 1) * side].flatten())
    run = lambda: theirs.visual(torch.stack(patches), torch.tensor(grid))  # noqa: E731
    assert check_rows(net, x, theirs, run, "visual.", 0) == ["blocks.0", "blocks.1"]
    heads = part_of(models, kind, "visual", units="heads")
    assert [(one.units, one.heads) for one in heads.stages.values()] == [(32, 2)] * 2
    with pytest.raises(UserError, match=f"the tower takes multiples of 2 frames and of {2 * side} pixels"):
        part_of(models, kind, "visual", input=SPEC | {"size": 60, "crop": 60})


@pytest.mark.parametrize("kind", ["LlavaOnevision", "LlavaNextVideo", "Qwen2_5_VL"])
def test_language_models_over_video_tokens(models, kind):
    net, theirs = part_of(models, kind, "language_model"), models(kind)[0]
    x = clip(net)
    if kind == "Qwen2_5_VL":
        side = net.input_spec.crop // 14
        patches = rearrange(
            x,
            "b c (t f) (h m p) (w n q) -> (b t h w m n) (c f p q)",
            f=2,
            m=2,
            n=2,
            p=14,
            q=14,
        )
        tokens = torch.full((2, 2 * side**2 // 4), 90)
        more = {"video_grid_thw": torch.tensor([[2, side, side]] * 2)}
        more |= {"pixel_values_videos": patches, "mm_token_type_ids": torch.full_like(tokens, 2)}
    else:
        videos = x.transpose(1, 2).contiguous()
        with torch.inference_mode():
            count = theirs.get_video_features(videos).pooler_output.shape[1]
        tokens, more = torch.full((2, count), 90), {"pixel_values_videos": videos}
    run = lambda: theirs(input_ids=tokens, **more)  # noqa: E731
    stages = check_rows(net, x, theirs, run, "", 0)
    assert stages == [f"language_model.layers.{k}" for k in range(2)]


def test_x_clip(models):
    theirs = models("XCLIP")[0]
    net = part_of(models, "XCLIP", "mit", tokens="frames")
    x = clip(net)
    run = lambda: theirs.get_video_features(x.transpose(1, 2))  # noqa: E731
    assert all(stage.startswith("mit.") for stage in check_rows(net, x, theirs, run, "", 0))
    tower = part_of(models, "XCLIP", "vision_model")
    check_rows(tower, x, theirs, run, "vision_model.", 1)


def test_the_predictor_of_v_jepa_2(models):
    net, theirs = part_of(models, "VJEPA2", "predictor"), models("VJEPA2")[0]
    x = clip(net)
    run = lambda: theirs(pixel_values_videos=x.transpose(1, 2))  # noqa: E731
    assert check_rows(net, x, theirs, run, "", 0) == [f"predictor.layer.{k}" for k in range(2)]


def test_models_that_need_text(models):
    for kind, part in (
        ("LlavaOnevision", "vision_tower"),
        ("Qwen2_5_VL", "visual"),
        ("CLIP", "vision_model"),
    ):
        with pytest.raises(UserError, match=f"give the part that sees the video: model.part={part}$"):
            part_of(models, kind, None)
    with pytest.raises(UserError, match="model.part=vision_towr is no module; nearest known: vision_tower"):
        part_of(models, "LlavaOnevision", "vision_towr")


class VideoAndText(nn.Module):
    """A tower for video and a head that also takes text."""

    def __init__(self):
        super().__init__()
        self.tower, self.mixer = Tokens(), nn.Linear(4, 4)

    def forward(self, x, text):
        return self.mixer(self.tower(x)["logits"] + text)


class Two(nn.Module):
    """A classifier of two parts."""

    def __init__(self):
        super().__init__()
        self.tower, self.image = Tokens(), Frame()

    def forward(self, x):
        return self.tower(x)["logits"] + self.image(x[:, :, 0])


def test_parts_of_one_s_own_networks():
    net = custom(VideoAndText, part="tower")
    assert list(net.shown_stages()) == [f"blocks.{k}" for k in range(3)]
    x = clip(net)
    seen = hooked(net.net, lambda: net.net(x), ["blocks.2"])["blocks.2"]
    torch.testing.assert_close(net.read(x)["blocks.2"], seen[:, 1:].mean(dim=1))
    assert custom(Two, part="image").shown_stages() == ["image.conv1", "image.conv2"]
    with pytest.raises(UserError, match=r"model.part=mixer \(class Linear\) is unknown: give model.feed"):
        custom(VideoAndText, part="mixer")
    with pytest.raises(UserError, match="change model.input"):
        custom(VideoAndText)


def test_parts_of_built_in_networks():
    whole = build_model("small_transformer")
    net = build_model("small_transformer", part="blocks.1")
    x = clip(net)
    assert list(net.stages) == ["stage2"]
    assert torch.equal(net.read(x)["stage2"], whole.read(x)["stage2"])
    # a part without declared stages gets the default stages of its modules
    net = build_model("small_cnn", part="blocks.2.0")
    assert [tap.module for stage in net.stages.values() for tap in stage.taps] == ["blocks.2.0"]
    with pytest.raises(UserError, match="model.part=block.1 is no module; nearest known: blocks.1"):
        build_model("small_transformer", part="block.1")
