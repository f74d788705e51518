"""Compare the default stages of networks of five packages with plain forward hooks; print a Markdown table.

    python -m bench.networks [--only PACKAGE_OR_NETWORK,...]

Networks have random weights. `bench.network_rows` says which modules should be read, and how. Each row of
a stage is compared with the mean of what a forward hook sees. For torchvision and timm, preprocessing is
compared with the package's own on frames that need no scaling; tests/models/test_huggingface.py does so for
Hugging Face. The exit status is 1 if stages or numbers of tokens differ, or a value by more than 1e-5. Rows
of packages that are not installed are left out.
"""

import contextlib
import importlib.util
import sys
import tempfile
from collections.abc import Iterator
from fnmatch import fnmatchcase

import numpy as np
import torch
from einops import reduce
from torch import Tensor

from bench.network_rows import ROWS, Row
from static_dynamic.command import Options, command
from static_dynamic.datasets import preprocess
from static_dynamic.models import VideoNetwork, build_model

LARGEST_DIFFERENCE = 1e-5
CLIPS = 2


@contextlib.contextmanager
def built(row: Row) -> Iterator[VideoNetwork]:
    """Build the network of a row with random weights; a Hugging Face network is first saved in a folder."""
    if row.package == "own":
        yield build_model(row.name, **row.options)
    elif row.package != "huggingface":
        yield build_model(row.package, network=row.name, **row.options)
    else:
        import transformers

        with tempfile.TemporaryDirectory() as folder:
            config = getattr(transformers, f"{row.name}Config")(**row.config)
            torch.manual_seed(0)
            getattr(transformers, f"{row.name}Model")(config).save_pretrained(folder)
            side = row.config.get("image_size", row.config.get("crop_size"))
            given = {"frames": 4, "size": side, "crop": side, "mean": [0.5] * 3, "std": [0.5] * 3}
            yield build_model("huggingface", network=folder, checkpoint="pretrained", input=given)


def hooked(net: VideoNetwork, inputs) -> dict:
    """Return path -> output of each module, in the order in which modules end, by plain forward hooks."""
    wrapped = getattr(net, "net", net)
    seen: dict = {}

    def hook_for(path):
        def hook(module, args, output):
            seen.pop(path, None)
            seen[path] = detached(output)

        return hook

    handles = [m.register_forward_hook(hook_for(path)) for path, m in wrapped.named_modules()]
    with torch.inference_mode():
        net(inputs)
    for handle in handles:
        handle.remove()
    return seen


def detached(output):
    """Copy an output, because later modules may change it in place."""
    if isinstance(output, Tensor):
        return output.clone()
    return [detached(part) for part in output] if isinstance(output, list | tuple) else None


def expected_rows(row: Row, seen: dict) -> dict[str, Tensor]:
    """Return stage name -> expected activations (clips, units), from the outputs `seen` of the modules."""
    found = {}
    for path, output in seen.items():
        for pattern, axes, *rest in row.read:
            parts, names = pattern.split("."), path.split(".")
            if len(parts) != len(names) or not all(map(fnmatchcase, names, parts)):
                continue
            index = rest[0] if rest else None
            prefix = rest[1] if len(rest) > 1 else row.prefix
            tensors = [output] if index is None else [output[i] for i in np.atleast_1d(index)]
            skip = sum(prefix.values())
            found[path] = mean(tensors, axes, skip, None)
            start = 0
            for name, number in prefix.items():
                found[f"{path}/{name}"] = mean(tensors, axes, start, start + number)
                start += number
    return found


def mean(tensors: list[Tensor], axes: str, start: int, stop: int | None) -> Tensor:
    """Return the mean (clips, channels) of tensors, for tokens only from `start` to `stop`."""
    if " n " in axes:
        tensors = [tensor[:, start:stop] for tensor in tensors]
    return torch.cat([reduce(t.double(), f"{axes} -> b c", "mean", b=CLIPS) for t in tensors], dim=1)


def largest_difference(row: Row, net: VideoNetwork) -> float:
    """Return the largest relative difference between stages and hooks; infinity if stage names differ."""
    rng = torch.Generator().manual_seed(0)
    inputs = net.example_input(lambda size: torch.randn(size, generator=rng), CLIPS)
    expected, rows = expected_rows(row, hooked(net, inputs)), net.read(inputs)
    if row.package == "own":
        # the names of these stages are not module paths
        expected = dict(zip(net.stages, expected.values(), strict=False))
    if list(expected) != list(rows):
        print(f"{row.name}: stages {list(rows)}, expected {list(expected)}", file=sys.stderr)
        return float("inf")
    differences = [
        float((rows[name] - values).abs().max() / values.abs().max()) for name, values in expected.items()
    ]
    return max(differences)


def preprocessing_difference(row: Row, net: VideoNetwork) -> float | None:
    """Return the largest difference from the package's own preprocessing of frames that need no scaling."""
    spec = net.input_spec
    size = (spec.size, spec.size + 32) if isinstance(spec.size, int) else spec.size
    frames = np.random.default_rng(0).integers(0, 256, (2, *size, 3), np.uint8)
    ours = preprocess(torch.from_numpy(frames), spec)
    if row.package == "torchvision":
        import torchvision

        transform = torchvision.models.get_model_weights(row.name).DEFAULT.transforms()
        theirs = transform(torch.from_numpy(frames).permute(0, 3, 1, 2))
        theirs = theirs if theirs.shape[0] == 3 else theirs.transpose(0, 1)
    elif row.package == "timm" and "input" not in row.options:
        import timm
        from PIL import Image

        transform = timm.data.create_transform(**timm.data.resolve_model_data_config(net.net))
        theirs = torch.stack([transform(Image.fromarray(frame)) for frame in frames], dim=1)
    else:
        return None
    return float((ours - theirs).abs().max()) if ours.shape == theirs.shape else float("inf")


def table_line(row: Row, net: VideoNetwork, difference: float, own: float | None) -> str:
    """Return one line of the table; differences are shown as powers of ten."""
    units = dict.fromkeys(net.stages[name].units for name in net.stages)
    prefixes = row.prefix or next((part[3] for part in row.read if len(part) > 3), {})
    cells = (
        row.package,
        row.name,
        ", ".join(f"`{part[0]}`" for part in row.read),
        len([name for name in net.stages if name.rpartition("/")[2] not in prefixes]),
        ", ".join(map(str, units)),
        ", ".join(f"{number} {name}" for name, number in prefixes.items()) or "none",
        f"{difference:.0e}",
        "" if own is None else f"{own:.0e}",
    )
    return f"| {' | '.join(map(str, cells))} |"


@command
def main() -> int:
    """Compare the networks of all rows and print the table."""
    parser = Options(__doc__)
    parser.add_argument("--only", default="", help="names of packages or networks, separated by commas")
    given = parser.parse_args()
    modules = {"own": "torch", "huggingface": "transformers"}
    wanted = set(given.only.split(",")) if given.only else {row.package for row in ROWS}
    lines, failed = [], []
    print("| package | network | default stages | number | units | prefix tokens | hooks | preprocessing |")
    print("|---|---|---|---|---|---|---|---|")
    for row in ROWS:
        if not {row.package, row.name} & wanted or not importlib.util.find_spec(
            modules.get(row.package, row.package)
        ):
            continue
        with built(row) as net:
            difference, own = largest_difference(row, net), preprocessing_difference(row, net)
        lines.append(table_line(row, net, difference, own))
        print(lines[-1], flush=True)
        if not max(difference, own or 0) <= LARGEST_DIFFERENCE:
            failed.append(row.name)
    print(f"\n{len(lines)} networks, {len(failed)} differ: {', '.join(failed) or 'none'}")
    return 1 if failed or not lines else 0


if __name__ == "__main__":
    sys.exit(main())
