"""Generators on disk. Files are data: safetensors, tensors alone, or the whole-module pickles of the
original, read with inert stand-ins for the few classes that those hold."""

from __future__ import annotations

import json
import pickle
import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch._utils import _rebuild_parameter, _rebuild_tensor, _rebuild_tensor_v2

from static_dynamic.errors import UserError
from static_dynamic.files import atomic_path
from static_dynamic.stylize.networks import Generator, build_generator

ROOT_CLASS = "GeneratorJ"
# module classes that the original's pickles hold: none of them runs, their state alone is read
STAND_INS = {
    ("models", ROOT_CLASS),
    ("models", "UpsamplingLayer"),
    ("torch.nn.modules.activation", "LeakyReLU"),
    ("torch.nn.modules.activation", "ReLU"),
    ("torch.nn.modules.activation", "Tanh"),
    ("torch.nn.modules.batchnorm", "BatchNorm2d"),
    ("torch.nn.modules.container", "ModuleList"),
    ("torch.nn.modules.container", "Sequential"),
    ("torch.nn.modules.conv", "Conv2d"),
    ("torch.nn.modules.upsampling", "Upsample"),
}
# plain containers and tensors
PLAIN = {
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor_v2,
    ("collections", "OrderedDict"): OrderedDict,
    ("builtins", "set"): set,
    ("__builtin__", "set"): set,
}
MAX_DEPTH = 16  # modules within modules
DAMAGE = (
    RuntimeError,
    OSError,
    EOFError,
    ValueError,
    KeyError,
    IndexError,
    AttributeError,
    TypeError,
    UnicodeError,
    SafetensorError,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
)


class _Refused(Exception):
    """A pickle asked for a class that no generator holds."""


class _StandIn:
    """In place of a module's class: takes the state, does nothing."""

    dump_patches = False  # torch asks for it where an old file carries the source of its classes


class _GeneratorUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str):
        if (module, name) in PLAIN:
            return PLAIN[module, name]
        if (module, name) in STAND_INS:
            return type(name, (_StandIn,), {})
        raise _Refused(f"{module}.{name}")


# what torch.load takes as ``pickle_module``: it subclasses the unpickler, so that `find_class` decides
_RESTRICTED = SimpleNamespace(
    __name__="restricted_pickle",
    Unpickler=_GeneratorUnpickler,
    load=lambda file, **options: _GeneratorUnpickler(file, **options).load(),
)


def load_generator(path: str | Path) -> Generator:
    """Load a generator, in eval mode, on the CPU, in float32.

    Parameters
    ----------
    path
        Safetensors, a state dict, or a whole module as the original saves it.

    Raises
    ------
    UserError
        A missing or damaged file, one that holds no generator, or one that asks for a foreign class; nothing
        of it has run then.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"checkpoint {path} does not exist")
    try:
        state, config = _read(path)
    except _Refused as error:
        raise UserError(
            f"checkpoint {path} was refused: it asks for {error}, which no generator of the stylizer holds"
        ) from error
    except (*DAMAGE, RecursionError) as error:
        line = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise UserError(f"checkpoint {path} is damaged ({line}): fetch it again") from error
    state = {key.removeprefix("module."): value for key, value in state.items()}
    try:
        net = build_generator(**{**infer_config(state), **config})
        net.load_state_dict({key: value.float() for key, value in state.items()})
    except KeyError as error:
        raise UserError(f"checkpoint {path} holds no generator of the stylizer: it lacks {error}") from error
    except (RuntimeError, TypeError, ValueError, AttributeError) as error:
        line = " ".join(str(error).split())[:200]
        raise UserError(f"checkpoint {path} does not fit the generator: {line}") from error
    return net.eval()


def infer_config(state: Mapping[str, Tensor]) -> dict:
    """Arguments of `build_generator`, from the shapes of a state dict.

    Raises
    ------
    KeyError
        A key that every generator has is missing.
    """
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
    """Save a generator as safetensors, its arguments in the metadata; `half` stores two bytes a weight."""
    state = {}
    for key, value in net.state_dict().items():
        value = value.detach().cpu().contiguous()
        state[key] = value.half() if half and value.is_floating_point() else value
    with atomic_path(path) as temporary:
        save_file(state, temporary, metadata={"generator": json.dumps(net.config)})


def _read(path: Path) -> tuple[dict[str, Tensor], dict]:
    """State dict and what is known of the generator's arguments."""
    if path.suffix == ".safetensors":
        with safe_open(path, "pt") as file:
            config = json.loads((file.metadata() or {}).get("generator", "{}"))
            return {key: file.get_tensor(key) for key in file.keys()}, config  # noqa: SIM118 (no iterator)
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            # torch.load would hand such a file to its script loader
            if any(name.endswith("constants.pkl") for name in archive.namelist()):
                raise _Refused("a TorchScript program")
    with warnings.catch_warnings():
        # of old files, that the source of their classes is not here to compare
        warnings.simplefilter("ignore", UserWarning)
        content = torch.load(path, map_location="cpu", weights_only=False, pickle_module=_RESTRICTED)
    if isinstance(content, Mapping):
        content = content.get("state_dict", content)
        if not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items()):
            raise ValueError("more than tensors in it")
        return dict(content), {}
    if type(content).__name__ != ROOT_CLASS:
        raise ValueError(f"a {type(content).__name__} in place of {ROOT_CLASS}")
    return dict(_tensors(content)), {"tanh": len(content._modules["conv_12"]._modules) > 1}


def _tensors(module: _StandIn, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    """Keys and tensors of a module that was read with stand-ins."""
    if depth > MAX_DEPTH:
        raise ValueError("modules too deep within modules")
    for table in (module._parameters, module._buffers):
        yield from ((prefix + name, value) for name, value in table.items() if isinstance(value, Tensor))
    for name, child in module._modules.items():
        if isinstance(child, _StandIn):
            yield from _tensors(child, f"{prefix}{name}.", depth + 1)
