"""Rows of `bench.networks`: what the stages of a network should read, written by hand from its code."""

from collections.abc import Mapping
from dataclasses import dataclass, field

# Axes of outputs: clips b, time t, height h, width w, tokens n, channels c; f are frames or positions that a
# network folds into the batch axis.
MAPS, FRAME_MAPS = "b c t h w", "(b f) c h w"
LAST, FRAME_LAST = "b t h w c", "(b f) h w c"
TOKENS, FOLDED = "b n c", "(b f) n c"
NONE: Mapping = {}
# Image networks of torchvision see single frames.
IMAGES = {"feed": "(b t) c h w", "input": {"frames": 4, "sampling_rate": 8}}


@dataclass(frozen=True)
class Row:
    """A network and what its default stages should read.

    ``read`` holds (pattern of module paths, axes of the output, index or indices in an output of several
    tensors, prefix tokens if they differ from those of the row). ``prefix`` holds name -> number of tokens
    before the patch tokens. ``config`` holds arguments of a small Hugging Face config, ``options`` arguments
    of `build_model`.
    """

    package: str
    name: str
    read: tuple[tuple, ...]
    prefix: Mapping[str, int] = field(default_factory=dict)
    options: Mapping = field(default_factory=dict)
    config: Mapping = field(default_factory=dict)


def row(package: str, name: str, *read: tuple, prefix: Mapping = NONE, config: Mapping = NONE, **options):
    """Return a `Row`; `options` are arguments of `build_model`."""
    return Row(package, name, read, prefix, options, config)


CLS, DIST, VIT = {"cls": 1}, {"cls": 1, "dist": 1}, ("blocks.*", FOLDED)
LAYERS = tuple((f"layer{k}", MAPS) for k in range(1, 5))
FRAME_LAYERS = tuple((f"layer{k}", FRAME_MAPS) for k in range(1, 5))
SIZES = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
CLIP = {"image_size": 32, "num_frames": 4}
IMAGE = SIZES | {"image_size": 32, "patch_size": 8}
PYRAMID = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 2, 1], "image_size": 64}

ROWS = [
    row("own", "x3d_xs", *((f"s{k}", MAPS) for k in range(1, 6))),
    row(
        "own",
        "i3d_inception",
        *((name, MAPS) for name in ("Conv3d_2c_3x3", "Mixed_3c", "Mixed_4f", "Mixed_5b", "Mixed_5c")),
    ),
    row("own", "small_cnn", ("blocks.*", MAPS)),
    row("own", "small_transformer", ("embed", MAPS), ("blocks.*", TOKENS)),
    row("own", "timesformer", ("model.blocks.*", TOKENS), width=24, depth=2, heads=2),
    row("torchvision", "r3d_18", ("stem", MAPS), *LAYERS),
    row("torchvision", "mc3_18", ("stem", MAPS), *LAYERS),
    row("torchvision", "r2plus1d_18", ("stem", MAPS), *LAYERS),
    row(
        "torchvision",
        "s3d",
        *((f"features.{k}", MAPS) for k in (0, 2, 3, 5, 6, 8, 9, 10, 11, 12, 14, 15)),
        input={"frames": 16},
    ),
    row("torchvision", "mvit_v2_s", ("blocks.*", TOKENS, 0), prefix=CLS),
    row(
        "torchvision",
        "swin3d_t",
        ("patch_embed", LAST),
        ("features.*", LAST),
        ("norm", LAST),
        input={"frames": 4},
    ),
    row("torchvision", "resnet18", ("conv1", FRAME_MAPS), ("bn1", FRAME_MAPS), *FRAME_LAYERS, **IMAGES),
    row("torchvision", "vit_b_32", ("encoder.layers.*", FOLDED), prefix=CLS, **IMAGES),
    row("torchvision", "convnext_tiny", ("features.*", FRAME_MAPS), **IMAGES),
    row("pytorchvideo", "slow_r50", ("blocks.[0-4]", MAPS)),
    row("pytorchvideo", "slowfast_r50", ("blocks.[0-4]", MAPS, (0, 1))),
    row("pytorchvideo", "x3d_xs", ("blocks.[0-4]", MAPS)),
    row("pytorchvideo", "mvit_base_16x4", ("blocks.*", TOKENS, 0), prefix=CLS),
    row("timm", "resnet18", ("conv1", FRAME_MAPS), ("bn1", FRAME_MAPS), *FRAME_LAYERS),
    row("timm", "convnext_atto", ("stem", FRAME_MAPS), ("stages.*", FRAME_MAPS)),
    row("timm", "vit_tiny_patch16_224", VIT, prefix=CLS),
    row("timm", "deit_tiny_distilled_patch16_224", VIT, prefix=DIST),
    row(
        "timm",
        "vit_small_patch14_reg4_dinov2",
        VIT,
        prefix=CLS | {"registers": 4},
        options={"img_size": 224},
        input={"frames": 8, "sampling_rate": 8, "size": 256, "crop": 224},
    ),
    row("timm", "vit_small_patch16_dinov3", VIT, prefix=CLS | {"registers": 4}),
    row("timm", "vit_base_patch32_siglip_256", VIT),
    row("timm", "eva02_tiny_patch14_224", VIT, prefix=CLS),
    row(
        "timm",
        "swin_tiny_patch4_window7_224",
        ("patch_embed", FRAME_LAST),
        ("layers.*", FRAME_LAST),
        ("norm", FRAME_LAST),
    ),
    row("timm", "twins_svt_small", ("blocks.*.*", FOLDED), ("pos_block.*", FOLDED)),
    row("timm", "crossvit_tiny_240", ("blocks.*", FOLDED, (0, 1)), prefix=CLS),
    row(
        "timm",
        "coat_tiny",
        ("serial_blocks[1-4].*", FOLDED),
        ("parallel_blocks.*", FOLDED, (0, 1, 2, 3)),
        prefix=CLS,
    ),
    row("timm", "xcit_nano_12_p16_224", VIT, ("cls_attn_blocks.*", FOLDED, None, CLS)),
    row("timm", "volo_d1_224", ("network.[0234]", FRAME_LAST), ("post_network.*", FOLDED, None, CLS)),
    row("timm", "mobilevit_xxs", ("stem", FRAME_MAPS), ("stages.*", FRAME_MAPS), ("final_conv", FRAME_MAPS)),
    row("timm", "mixer_s32_224", VIT),
    row("timm", "hiera_tiny_224", VIT),
    row(
        "timm",
        "maxvit_rmlp_pico_rw_256",
        ("stem", FRAME_MAPS),
        ("stages.*", FRAME_MAPS),
        ("norm", FRAME_MAPS),
    ),
    row(
        "timm",
        "samvit_base_patch16",
        ("patch_embed", FRAME_LAST),
        ("blocks.*", FRAME_LAST),
        ("neck", FRAME_MAPS),
        options={"img_size": 224},
        input={"frames": 8, "sampling_rate": 8, "size": 256, "crop": 224},
    ),
    row(
        "huggingface",
        "Timesformer",
        ("encoder.layer.*", TOKENS, 0),
        prefix=CLS,
        config=SIZES | CLIP | {"patch_size": 8},
    ),
    row("huggingface", "VideoMAE", ("encoder.layer.*", TOKENS), config=SIZES | CLIP | {"patch_size": 8}),
    row(
        "huggingface",
        "Vivit",
        ("layers.*", TOKENS),
        prefix=CLS,
        config=SIZES | CLIP | {"tubelet_size": [2, 8, 8]},
    ),
    row(
        "huggingface",
        "VJEPA2",
        ("encoder.layer.*", TOKENS, 0),
        config=SIZES | {"crop_size": 32, "patch_size": 8, "frames_per_clip": 4, "mlp_ratio": 2},
    ),
    row(
        "huggingface",
        "VideoPrismVision",
        ("spatial_layers.*", FOLDED),
        ("temporal_layers.*", FOLDED),
        config=SIZES | CLIP | {"tubelet_size": [1, 8, 8], "num_spatial_layers": 2, "num_temporal_layers": 2},
    ),
    row("huggingface", "ViT", ("layers.*", FOLDED), prefix=CLS, config=IMAGE),
    row("huggingface", "DeiT", ("layers.*", FOLDED), prefix=DIST, config=IMAGE),
    row("huggingface", "Dinov2", ("encoder.layer.*", FOLDED), prefix=CLS, config=IMAGE),
    row(
        "huggingface",
        "Dinov2WithRegisters",
        ("encoder.layer.*", FOLDED),
        prefix=CLS | {"registers": 4},
        config=IMAGE | {"num_register_tokens": 4},
    ),
    row(
        "huggingface",
        "DINOv3ViT",
        ("model.layer.*", FOLDED),
        prefix=CLS | {"registers": 4},
        config=IMAGE | {"num_register_tokens": 4},
    ),
    row("huggingface", "SiglipVision", ("encoder.layers.*", FOLDED), config=IMAGE),
    row("huggingface", "CLIPVision", ("encoder.layers.*", FOLDED), prefix=CLS, config=IMAGE),
    row("huggingface", "Beit", ("layers.*", FOLDED), prefix=CLS, config=IMAGE),
    row(
        "huggingface",
        "ConvNext",
        ("embeddings", FRAME_MAPS),
        ("encoder.stages.*", FRAME_MAPS),
        config=PYRAMID,
    ),
    row(
        "huggingface",
        "Swin",
        ("encoder.layers.*", FOLDED, 0),
        config={
            "image_size": 64,
            "embed_dim": 12,
            "depths": [1, 2, 2],
            "num_heads": [1, 2, 3],
            "window_size": 4,
        },
    ),
    row(
        "huggingface",
        "MobileViT",
        ("conv_stem", FRAME_MAPS),
        ("encoder.layer.*", FRAME_MAPS),
        ("conv_1x1_exp", FRAME_MAPS),
        config={
            "image_size": 64,
            "hidden_sizes": [16, 24, 32],
            "neck_hidden_sizes": [8, 8, 12, 16, 20, 24, 32],
        },
    ),
    row("huggingface", "PvtV2", ("encoder.layers.*.blocks.*", FOLDED, 0), config={"image_size": 64}),
]
