"""Tell which axes of a module's output hold channels, tokens, time and space, from shapes alone."""

from collections.abc import Collection, Iterable, Mapping
from fnmatch import fnmatchcase
from math import prod

from torch import nn

Shape = tuple[int, ...]

# Pattern of the names that code bases give to a parameter (..., n, C) of tokens that precede the patch
# tokens -> name of the stage that reads these tokens. The order is the order of the tokens.
PREFIX_TOKENS = {
    "cls_token*": "cls",
    "class_token": "cls",
    "class_embedding": "cls",
    "dist_token": "dist",
    "distillation_token": "dist",
    "reg_token": "registers",
    "register_tokens": "registers",
    "storage_tokens": "registers",
}
# Python classes of modules without channels of their own, whose output can be an attention matrix.
PASSING = ("Softmax", "Dropout", "Identity")


def batch_axis_of(shape: Shape, doubled: Shape | None) -> int | None:
    """Return the only axis that doubles with the batch size; None if there is no such axis."""
    if doubled is None or len(shape) < 2 or len(shape) != len(doubled):
        return None
    changed = [axis for axis, (one, two) in enumerate(zip(shape, doubled, strict=True)) if one != two]
    return changed[0] if len(changed) == 1 and doubled[changed[0]] == 2 * shape[changed[0]] else None


def batch_first(shape: Shape, axis: int) -> Shape:
    """Return `shape` with the batch axis `axis` moved to the front."""
    return (shape[axis], *shape[:axis], *shape[axis + 1 :])


def layout_of(
    shape: Shape, frame: tuple[int, int], wanted: str | None = None, frames: int = 0, kind: str = ""
) -> str | None:
    """Return the layout (key of `static_dynamic.models.stages.POOLS`) of an output with the batch axis first.

    Parameters
    ----------
    shape
        Shape of the output. With four axes or more, the two axes with the aspect ratio of `frame` are
        spatial: the last two (maps) or the two before the last (channels last). If neither pair has this
        ratio, the layout is None.
    frame
        Height and width of the clip's frames.
    wanted
        Layout that the user gives for outputs with three axes or more; it is returned as it is.
    frames
        Number of frames of the clip; with five axes, an axis 1 that divides this number is time, unless
        axis 2 divides it too. Outputs (N, C) with more rows per clip than frames are tokens.
    kind
        Python class of the module; (B, C, T) is the output of Conv1d and its kin.
    """
    if wanted is not None and len(shape) > 2:
        return wanted
    if len(shape) == 2 and 0 < frames < shape[0]:
        # each row is one token; the tokens of all clips follow one another
        return "tokens"
    if len(shape) < 4:
        return "tokens" if len(shape) == 3 and "1d" not in kind else "maps"
    spatial = {"maps": (shape[-2], shape[-1]), "channels_last": (shape[-3], shape[-2])}
    layout = next((layout for layout, cells in spatial.items() if in_proportion(cells, frame)), None)
    if layout == "maps" and len(shape) == 5 and frames % shape[1] == 0 and frames % shape[2]:
        return "time_first"
    return layout


def in_proportion(cells: tuple[int, int], frame: tuple[int, int]) -> bool:
    """Return whether a grid (rows, columns) and a frame (height, width) have about the same aspect ratio."""
    (rows, columns), (height, width) = cells, frame
    return rows == columns if height == width else abs(rows * width - columns * height) <= height + width


def is_attention(shape: Shape, token_counts: Collection[int]) -> bool:
    """Return whether an output (B, N, N) or (B, heads, N, N) is an attention matrix over N tokens.

    The mean of an attention matrix over positions is constant, so it contains no units.
    """
    return len(shape) in (3, 4) and shape[-1] == shape[-2] and shape[-1] in token_counts


def count_patches(shapes: Iterable[Shape], frame: tuple[int, int]) -> set[int]:
    """Return the numbers of positions of a clip in all feature maps (rows, C, ..., H, W) of a network."""
    maps = ((shape, layout_of(shape, frame)) for shape in shapes if len(shape) > 3)
    return {
        shape[0] * prod(shape[2:] if layout == "maps" else shape[1:-1]) for shape, layout in maps if layout
    }


def prefix_tokens(net: nn.Module) -> dict[str, int]:
    """Count the tokens before the patch tokens; return stage name -> number of tokens, in token order."""
    found: dict[str, int] = {}
    parameters = {name.rpartition(".")[2]: value for name, value in net.named_parameters()}
    for pattern, stage in PREFIX_TOKENS.items():
        for name, value in parameters.items():
            if fnmatchcase(name, pattern):
                found[stage] = max(found.get(stage, 0), value.shape[-2] if value.dim() > 1 else 1)
    return {stage: count for stage, count in found.items() if count}


def given_prefix(number: int) -> dict[str, int]:
    """Return the prefix tokens if the user gives their number: one class token, then registers."""
    counts = {"cls": min(number, 1), "registers": number - 1}
    return {stage: count for stage, count in counts.items() if count > 0}


def count_skipped(shape: Shape, tokens: int, patches: Collection[int]) -> int | None:
    """Return how many prefix tokens an output (rows, N, C) starts with: `tokens`, 0, or None if unknown.

    The output has no prefix tokens if rows * N divides one of the numbers of `patches` of a clip. It has them
    if rows * (N - `tokens`) does. Without feature maps, all outputs have them.
    """
    rows, count = shape[:2]
    if not 0 < tokens < count or any(number % (rows * count) == 0 for number in patches):
        return 0
    if not patches or any(number % (rows * (count - tokens)) == 0 for number in patches):
        return tokens
    return None


def split_prefix(prefix: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    """Convert a dict stage name -> number of tokens to stage name -> (first token, number of tokens)."""
    starts, start = {}, 0
    for name, number in prefix.items():
        starts[name] = (start, number)
        start += number
    return starts
