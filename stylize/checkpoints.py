"""Read and save the weights of stylization generators.

Files are read as data; no code in a file is run. Three formats are accepted: safetensors, state dicts, and
whole-module pickles of Texler et al.'s code, in which `StandIn` objects replace the modules.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from static_dynamic.errors import MAX_NAME, UserError, checkpoint_errors, one_line, reason
from static_dynamic.files import atomic_path
from static_dynamic.pickled import read_pickled
from static_dynamic.stylize.networks import Generator, build_generator
from static_dynamic.unpickler import StandIn
from static_dynamic.weights import check_numbers, digest

ROOT_CLASS = "GeneratorJ"
# DIGEST: key of the tensors' hash in a safetensors file (the format has no checksum)
DIGEST = "sha256"
# MAX_VISITS limits the number of modules read: reading a module that contains itself would never end.
MAX_VISITS = 10_000
# STAND_INS: module -> names of its classes in Texler et al.'s pickles. The classes are not imported;
# `StandIn` objects replace objects of these classes.
STAND_INS = {
    "models": {ROOT_CLASS, "UpsamplingLayer"},
    "torch.nn.modules.activation": {"LeakyReLU", "ReLU", "Tanh"},
    "torch.nn.modules.batchnorm": {"BatchNorm2d"},
    "torch.nn.modules.container": {"ModuleList", "Sequential"},
    "torch.nn.modules.conv": {"Conv2d"},
    "torch.nn.modules.upsampling": {"Upsample"},
}


def load_generator(path: str | Path) -> Generator:
    """Load a trained generator in eval mode, on the CPU, in float32.

    The file is safetensors, a state dict, or a whole module of Texler et al.'s code. Raises UserError if the
    file is missing or damaged, holds no generator, or asks for a class that is not allowed.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"checkpoint {path} does not exist")
    with checkpoint_errors(path, allowed="the modules of a stylizer's generator"):
        state, stated = _read(path)
    state = {key.removeprefix("module."): value for key, value in state.items()}
    try:
        config = {**stated, **infer_config(state)}
        # The device `meta` allocates no memory, even if a damaged file states a huge number of channels.
        with torch.device("meta"):
            expected = {key: value.shape for key, value in build_generator(**config).state_dict().items()}
        shapes = {key: value.shape for key, value in state.items()}
        if shapes != expected:
            raise ValueError(_difference(expected, shapes))
        net = build_generator(**config)
    except KeyError as error:
        raise UserError(
            f"checkpoint {path} holds no stylization generator: {reason(error)} is missing"
        ) from error
    except Exception as error:  # shapes in a damaged file can cause any exception in torch's constructors
        raise UserError(
            f"checkpoint {path} does not fit the stylization generator: {reason(error)}"
        ) from error
    check_numbers(net.state_dict(), state, path)
    net.load_state_dict(state)
    return net.eval()


def infer_config(state: Mapping[str, Tensor]) -> dict:
    """Infer a dict of `build_generator` arguments from a state dict; raise KeyError if a layer is missing."""
    width = {name: len(state[f"{name}.conv.weight"]) for name in ("conv0", "conv1", "conv2")}
    deep = width["conv2"]
    blocks = {found[1] for key in state if (found := re.match(r"resnets\.(\d+)\.", key))}
    return {
        "filters": (*width.values(), deep, len(state["upconv2.1.weight"]), len(state["conv_11.0.weight"])),
        "resnet_blocks": len(blocks),
        "input_channels": state["conv0.conv.weight"].shape[1],
        "use_bias": "conv0.conv.bias" in state,
        "append_smoothers": "conv_11_a.0.weight" in state,
    }


def save_generator(net: Generator, path: Path, *, half: bool = False) -> None:
    """Save a generator's weights and constructor arguments as safetensors; `half` stores float16 weights."""
    state = {}
    for key, value in net.state_dict().items():
        value = value.detach().cpu().contiguous()
        state[key] = value.half() if half and value.is_floating_point() else value
    with atomic_path(path) as temporary:
        # One metadata entry holds arguments and digest: safetensors would write two entries in random order.
        text = json.dumps({**net.config, DIGEST: digest(state)})
        save_file(state, temporary, metadata={"generator": text})


def _read(path: Path) -> tuple[dict[str, Tensor], dict]:
    """Read a checkpoint; return its state dict and the `build_generator` arguments that the file states."""
    if path.suffix == ".safetensors":
        with safe_open(path, "pt") as file:
            config = json.loads((file.metadata() or {}).get("generator", "{}"))
            state = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118 (safe_open has no __iter__)
        if config.pop(DIGEST, None) not in (None, digest(state)):
            raise ValueError("wrong SHA-256 of the tensors")
        return state, config
    content = read_pickled(path, STAND_INS)
    if content is None:
        raise ValueError("it is not a file of torch")
    if isinstance(content, Mapping):
        content = content.get("state_dict", content)
        if not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items()):
            raise ValueError("it does not hold only tensors")
        return dict(content), {}
    if type(content).__name__ != ROOT_CLASS:
        raise ValueError(f"it holds a {type(content).__name__}, not a {ROOT_CLASS}")
    return dict(_tensors(content)), {"tanh": len(content._modules["conv_12"]._modules) > 1}


def _tensors(root: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield the state dict items (key, tensor) of a pickled module that was read as `StandIn` objects."""
    waiting, visits = [("", root)], 0
    while waiting:
        prefix, module = waiting.pop()
        visits += 1
        if visits > MAX_VISITS:
            raise ValueError(f"it holds more than {MAX_VISITS} modules")
        for table in (module._parameters, module._buffers):
            yield from ((prefix + name, value) for name, value in table.items() if isinstance(value, Tensor))
        children = [(f"{prefix}{name}.", child) for name, child in module._modules.items()]
        waiting += [item for item in children if isinstance(item[1], StandIn)]


def _difference(expected: Mapping[str, torch.Size], state: Mapping[str, torch.Size]) -> str:
    """Describe the first tensor that is missing, unexpected or of a wrong shape."""
    key = next(k for k in {**expected, **state} if expected.get(k) != state.get(k))
    ours, theirs = (str(tuple(shapes[key])) if key in shapes else "missing" for shapes in (expected, state))
    return f"{one_line(key, MAX_NAME)} has the shape {theirs}, but the network's is {ours}"
