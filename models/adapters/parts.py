"""Parts of larger models, such as the vision tower of a video language model: ``model.part=vision_tower``.

`RUNS` says, for classes of modules, how a clip runs a module that does not take the clip itself. The module
that runs is the part, or the nearest module around it whose class is listed. If none is listed, the whole
network runs on the clip and only modules of the part are read; if the network does not run on a clip, the
part runs on the clip alone.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from static_dynamic.errors import UserError, nearest

# Function (module, clip (B, 3, T, H, W)) -> output of the module.
Run = Callable[[nn.Module, Tensor], Any]


def run_frames(module: nn.Module, clip: Tensor) -> Any:
    """Run an image tower on single frames (B * T, 3, H, W)."""
    return module(rearrange(clip, "b c t h w -> (b t) c h w"))


def frames_first(clip: Tensor) -> Tensor:
    """Return a clip (B, 3, T, H, W) as (B, T, 3, H, W), contiguous in memory."""
    return clip.transpose(1, 2).contiguous()


def run_patches(module: nn.Module, clip: Tensor) -> Any:
    """Run a vision tower of Qwen2-VL, Qwen2.5-VL or Qwen3-VL on flattened patches and their grid."""
    patches, grid = qwen_patches(clip, module.config)  # type: ignore[arg-type]
    return module(patches, grid_thw=grid)


def qwen_patches(clip: Tensor, config: Any) -> tuple[Tensor, Tensor]:
    """Return patches (B * t * h * w, C * tubelet) and the grid (B, 3) of a clip, as Qwen's processor does.

    A patch spans ``temporal_patch_size`` frames. Patches that the tower merges are consecutive. Raises
    ValueError if the patches do not tile the clip.
    """
    frames, side, merge = config.temporal_patch_size, config.patch_size, config.spatial_merge_size
    _, _, t, h, w = clip.shape
    if t % frames or h % (side * merge) or w % (side * merge):
        raise ValueError(
            f"the tower takes multiples of {frames} frames and of {side * merge} pixels, "
            f"but the clip has {t} x {h} x {w}"
        )
    grid = (t // frames, h // side, w // side)
    patches = rearrange(
        clip,
        "b c (t f) (h m p) (w n q) -> (b t h w m n) (c f p q)",
        f=frames,
        m=merge,
        n=merge,
        p=side,
        q=side,
    )
    # the grid stays on the CPU if the clip is on the meta device, because meta tensors have no values
    return patches, torch.tensor([grid] * len(clip), device=None if clip.is_meta else clip.device)


def run_qwen(module: nn.Module, clip: Tensor) -> Any:
    """Run Qwen2.5-VL or Qwen2-VL on a clip without text: the language model sees only video tokens."""
    config: Any = module.config
    patches, grid = qwen_patches(clip, config.vision_config)
    count = int(grid[0].prod()) // config.vision_config.spatial_merge_size**2
    tokens = torch.full((len(clip), count), config.video_token_id, device=clip.device)
    return module(
        input_ids=tokens,
        pixel_values_videos=patches,
        video_grid_thw=grid,
        mm_token_type_ids=torch.full_like(tokens, 2),
    )


def run_llava(module: Any, clip: Tensor) -> Any:
    """Run LLaVA's tower, projector and language model on a clip without text."""
    features = module.get_video_features(frames_first(clip))
    # (B, N, C)
    features = getattr(features, "pooler_output", features)
    return module.language_model(inputs_embeds=features)


def run_xclip(module: Any, clip: Tensor) -> Any:
    """Run X-CLIP's vision model and its transformer over one token per frame (``mit``)."""
    return module.get_video_features(frames_first(clip))


def run_vjepa(module: nn.Module, clip: Tensor) -> Any:
    """Run V-JEPA 2's encoder and predictor; the predictor sees and predicts all patches of the clip."""
    return module(pixel_values_videos=frames_first(clip))


# Pattern of a Python class -> function that runs a module of this class on a clip.
RUNS: dict[str, Run] = {
    "CLIPVision*": run_frames,
    "Siglip*Vision*": run_frames,
    "XCLIPVision*": run_frames,
    "Qwen2*VisionTransformer*": run_patches,
    "Qwen3VL*VisionModel": run_patches,
    "Qwen2VLModel": run_qwen,
    "Qwen2_5_VLModel": run_qwen,
    "LlavaOnevisionModel": run_llava,
    "LlavaNextVideoModel": run_llava,
    "XCLIPModel": run_xclip,
    "VJEPA2Model": run_vjepa,
}


@dataclass(frozen=True)
class Part:
    """A module that runs on the clip, and the part of this module whose outputs are read.

    ``path`` is the path of the module ``net`` in the whole network. ``inside`` is the path of the part in
    ``net``; it is empty if all of ``net`` is read. ``run`` is None if ``net`` takes the clip in the order of
    axes ``model.feed``.
    """

    net: nn.Module
    path: str = ""
    inside: str = ""
    run: Run | None = None

    def holds(self, path: str) -> bool:
        """Return whether the module at `path` of ``net`` belongs to the part."""
        return not self.inside or path == self.inside or path.startswith(f"{self.inside}.")


def possible_parts(net: nn.Module, part: str | None, label: str) -> Iterator[Part]:
    """Yield the ways to run a part of a network, the best first; a `part` of None is the whole network.

    Raises UserError if the network has no module of this name.
    """
    modules = dict(net.named_modules())
    if part is None:
        yield Part(net)
        return
    if part not in modules:
        raise UserError(f"{label}: model.part={part} is no module{nearest(part, modules)}")
    names = part.split(".")
    for length in range(len(names), -1, -1):
        path = ".".join(names[:length])
        run = run_of(modules[path])
        if run:
            yield Part(modules[path], path, ".".join(names[length:]), run)
            return
    yield Part(net, "", part)
    yield Part(modules[part], part)


def run_of(module: nn.Module) -> Run | None:
    """Return the function of `RUNS` that runs a module on a clip; None if `RUNS` lacks the module's class."""
    name = type(module).__name__
    return next((run for pattern, run in RUNS.items() if fnmatchcase(name, pattern)), None)


def suggestion(net: nn.Module, part: str | None) -> str:
    """Return what the user can do if a network, or its part `part`, does not run on a clip."""
    if part is not None:
        kind = type(net.get_submodule(part)).__name__
        return (
            f"the input of model.part={part} (class {kind}) is unknown: give model.feed, the order of its "
            "axes, or a module around it that takes a clip"
        )
    found: list[str] = []
    for path, module in net.named_modules():
        if path and run_of(module) and not any(path.startswith(f"{other}.") for other in found):
            found.append(path)
    if found:
        return f"if the model also takes text, give the part that sees the video: model.part={found[0]}"
    return "change model.input (clip size) or model.feed (order of the axes)"
