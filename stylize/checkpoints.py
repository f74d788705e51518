"""Read and save the weights of stylization generators.

Files are read as data; no code in a file is run. Three formats are accepted: safetensors, state dicts, and
whole-module pickles of Texler et al.'s code, in which `_StandIn` objects replace the modules.
"""

import json
import pickle
import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch._utils import _rebuild_parameter, _rebuild_tensor, _rebuild_tensor_v2

from static_dynamic.errors import RefusedFile, UserError, checkpoint_errors
from static_dynamic.files import atomic_path
from static_dynamic.stylize.networks import Generator, build_generator

ROOT_CLASS = "GeneratorJ"
# Texler et al.'s pickles name these Python classes. No class is imported; only pickled states are read.
STAND_INS = {
    "models": {ROOT_CLASS, "UpsamplingLayer"},
    "torch.nn.modules.activation": {"LeakyReLU", "ReLU", "Tanh"},
    "torch.nn.modules.batchnorm": {"BatchNorm2d"},
    "torch.nn.modules.container": {"ModuleList", "Sequential"},
    "torch.nn.modules.conv": {"Conv2d"},
    "torch.nn.modules.upsampling": {"Upsample"},
}
# A pickle may call only these functions and Python classes, which build containers and tensors.
PLAIN = {
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor_v2,
    ("collections", "OrderedDict"): OrderedDict,
    ("builtins", "set"): set,
    ("__builtin__", "set"): set,
}
MAX_DEPTH = 16  # MAX_DEPTH: largest accepted nesting depth of modules; a generator has 4 levels


class _StandIn:
    """Class without methods that replaces the class of a pickled module and holds the module's state."""

    dump_patches = False  # torch reads `dump_patches` if an old file contains source code of Python classes
    _parameters: dict[str, Tensor | None]
    _buffers: dict[str, Tensor | None]
    _modules: dict[str, Any]


class _GeneratorUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str):
        if (module, name) in PLAIN:
            return PLAIN[module, name]
        if name in STAND_INS.get(module, ()):
            return type(name, (_StandIn,), {})
        raise RefusedFile(f"{module}.{name}")


# This substitute for module `pickle` in torch.load refuses every class outside STAND_INS and PLAIN.
_RESTRICTED = SimpleNamespace(
    __name__="restricted_pickle",
    Unpickler=_GeneratorUnpickler,
    load=lambda file, **options: _GeneratorUnpickler(file, **options).load(),
)


def load_generator(path: str | Path) -> Generator:
    """Load a trained generator in eval mode, on the CPU, in float32.

    The file is safetensors, a state dict, or a whole module of Texler et al.'s code. Raises UserError if the
    file is missing or damaged, holds no generator, or asks for a class that is not allowed.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"checkpoint {path} does not exist")
    with checkpoint_errors(path, allowed="the modules of a stylizer's generator"):
        state, config = _read(path)
    state = {key.removeprefix("module."): value for key, value in state.items()}
    try:
        net = build_generator(**{**infer_config(state), **config})
        net.load_state_dict({key: value.float() for key, value in state.items()})
    except KeyError as error:
        raise UserError(f"checkpoint {path} holds no stylization generator: {error} is missing") from error
    except (RuntimeError, TypeError, ValueError, AttributeError) as error:
        line = " ".join(str(error).split())[:200]
        raise UserError(f"checkpoint {path} does not fit the stylization generator: {line}") from error
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
        save_file(state, temporary, metadata={"generator": json.dumps(net.config)})


def _read(path: Path) -> tuple[dict[str, Tensor], dict]:
    """Read a checkpoint; return its state dict and the `build_generator` arguments that the file states."""
    if path.suffix == ".safetensors":
        with safe_open(path, "pt") as file:
            config = json.loads((file.metadata() or {}).get("generator", "{}"))
            return {k: file.get_tensor(k) for k in file.keys()}, config  # noqa: SIM118 (safe_open has no __iter__)
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            # torch.load does not refuse a TorchScript program, so the program is refused here.
            if any(name.endswith("constants.pkl") for name in archive.namelist()):
                raise RefusedFile("a TorchScript program")
    with warnings.catch_warnings():
        # Ignore torch's warning that it cannot compare the source code of the classes in an old file.
        warnings.simplefilter("ignore", UserWarning)
        content = torch.load(path, map_location="cpu", weights_only=False, pickle_module=_RESTRICTED)
    if isinstance(content, Mapping):
        content = content.get("state_dict", content)
        if not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items()):
            raise ValueError("it does not hold only tensors")
        return dict(content), {}
    if type(content).__name__ != ROOT_CLASS:
        raise ValueError(f"it holds a {type(content).__name__}, not a {ROOT_CLASS}")
    return dict(_tensors(content)), {"tanh": len(content._modules["conv_12"]._modules) > 1}


def _tensors(module: _StandIn, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    """Yield the (key, tensor) items of the state dict of a module that was read as `_StandIn` objects."""
    if depth > MAX_DEPTH:
        raise ValueError(f"its modules are nested deeper than {MAX_DEPTH} levels")
    for table in (module._parameters, module._buffers):
        yield from ((prefix + name, value) for name, value in table.items() if isinstance(value, Tensor))
    for name, child in module._modules.items():
        if isinstance(child, _StandIn):
            yield from _tensors(child, f"{prefix}{name}.", depth + 1)
