"""Mutants of checkpoints of video networks and of stylization generators."""

import argparse
import io
import json
import pickle
import struct
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn

from static_dynamic.models.checkpoints import load_weights
from static_dynamic.models.stages import VideoNetwork
from static_dynamic.stylize import build_generator, load_generator
from static_dynamic.stylize.checkpoints import save_generator
from tests.fuzz import hostile
from tests.fuzz.mutations import MUTATIONS, NUMBERS
from tests.fuzz.registry import Trial, fuzzer
from tests.paths import GOLDEN

NETWORK = ("network.pt", "network_legacy.pt", "network.pkl", "network.safetensors")
GENERATOR = ("generator.pt", "generator_legacy.pt", "module.pt", "generator.safetensors")
# Files with checksums: a mutation that changes numbers must be noticed.
CHECKED = ("network.pt", "generator.pt", "module.pt", "generator.safetensors")


class TinyNetwork(VideoNetwork):
    """Network of three layers with weights, buffers and a counter."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv3d(3, 4, 2)
        self.norm = nn.BatchNorm3d(4)
        self.head = nn.Linear(4, 5)


@fuzzer
def checkpoints(rng: np.random.Generator, folder: Path) -> tuple[str, Trial]:
    """Mutate one of the formats, or write a hostile file."""
    name = (NETWORK + GENERATOR)[rng.integers(8)]
    data, canary = originals()[name], folder.parent / "canary"
    match rng.integers(10):
        case 0:
            kind, changed = hostile_file(rng, canary)
            what, checked = kind, False
        case 1 if name.endswith(".pt") and "legacy" not in name:
            what, changed, checked = "rewritten zip", hostile.archive(rng, data, canary), False
        case 1 | 2 if name.endswith(".safetensors"):
            what, changed, checked = "safetensors header", header(rng, data), "generator" in name
        case _:
            what = list(MUTATIONS)[rng.integers(len(MUTATIONS))]
            changed = MUTATIONS[what](rng, data)
            start = 8 + int.from_bytes(data[:8], "little")
            only_header = name == "network.safetensors" and changed.endswith(data[start:])
            checked = name in CHECKED or only_header
            # a mutation can hit both the digest's name and the numbers
            checked &= name != "generator.safetensors" or b'"generator":' in changed
    path = folder / name
    path.write_bytes(changed)
    return f"{what}: {name}", lambda: trial(path, canary, checked)


def trial(path: Path, canary: Path, checked: bool) -> str:
    """Load a mutant; compare its numbers with those of the original."""
    if path.name in NETWORK:
        net = TinyNetwork()
        before = {key: value.clone() for key, value in net.state_dict().items()}
        try:
            load_weights(net, path)
        except Exception:
            assert same(net.state_dict(), before), "a refused file has changed the network"
            raise
    else:
        net = load_generator(path)
    assert not canary.exists(), "the file was executed"
    if same(net.state_dict(), weights()[path.name in NETWORK, path.name == "module.pt"]):
        return "same numbers"
    assert not checked, "the numbers differ"
    return "other numbers"


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@cache
def weights() -> dict[tuple[bool, bool], dict[str, Tensor]]:
    """Return the state dicts of the originals: (network or generator, whole module or state dict)."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net, generator = TinyNetwork(), build_generator((4, 8, 8, 8, 8, 6), 1)
        for value in (*net.parameters(), *generator.parameters()):
            nn.init.normal_(value)
    return {
        (True, False): net.state_dict(),
        (False, False): generator.state_dict(),
        (False, True): load_generator(GOLDEN / "fspbt_tiny_whole_module.pth").state_dict(),
    }


@cache
def originals() -> dict[str, bytes]:
    """Return the whole files."""
    net, generator = weights()[True, False], weights()[False, False]
    with torch.random.fork_rng():
        whole = build_generator((4, 8, 8, 8, 8, 6), 1)
    whole.load_state_dict(generator)
    return {
        "network.pt": torch_file({"args": options(), "model_state": net, "epoch": 3, "cfg": "text"}, True),
        "network_legacy.pt": torch_file(
            {"state_dict": {f"module.{k}": v for k, v in net.items()}, "args": options()}, False
        ),
        "network.pkl": pickle.dumps({"blobs": {k: v.numpy() for k, v in net.items()}}, protocol=2),
        "network.safetensors": save(net),
        "generator.pt": torch_file(generator, True),
        "generator_legacy.pt": torch_file({"state_dict": generator}, False),
        "module.pt": (GOLDEN / "fspbt_tiny_whole_module.pth").read_bytes(),
        "generator.safetensors": generator_file(whole),
    }


def options() -> argparse.Namespace:
    """Return an object beside the tensors, which is ignored."""
    return argparse.Namespace(data=Path("data"), rate=0.1, betas=[0.9, 0.999])


def torch_file(content: object, zipped: bool) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream, _use_new_zipfile_serialization=zipped)
    return stream.getvalue()


def generator_file(net: nn.Module) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        save_generator(net, Path(folder) / "g.safetensors")
        return (Path(folder) / "g.safetensors").read_bytes()


def header(rng: np.random.Generator, data: bytes) -> bytes:
    """Change one entry of the header of a safetensors file."""
    size = int.from_bytes(data[:8], "little")
    entries, rest = json.loads(data[8 : 8 + size]), data[8 + size :]
    keys = [key for key in entries if key != "__metadata__"]
    key = keys[rng.integers(len(keys))]
    number = int(NUMBERS[rng.integers(len(NUMBERS))])
    match rng.integers(8):
        case 0:
            entries[key]["dtype"] = ("F16", "BF16", "F64", "I32", "BOOL", "C64", "F8_E4M3", "X")[
                rng.integers(8)
            ]
        case 1:
            entries[key]["shape"] = [number, *entries[key]["shape"][1:]]
        case 2:
            entries[key]["shape"] = entries[key]["shape"][::-1] * int(rng.integers(3))
        case 3:
            entries[key]["data_offsets"][rng.integers(2)] = number
        case 4:
            other = ("\x1b[31m\n", "x" * 10**6, "", keys[0])[rng.integers(4)]
            entries[other] = entries.pop(key)
        case 5:
            texts = ("{", "[" * 10**5, "[]", '{"filters": [999999, 9, 9, 9, 9, 9]}', '{"sha256": "0"}')
            entries["__metadata__"] = {"generator": texts[rng.integers(5)]}
        case 6:
            other = keys[rng.integers(len(keys))]
            entries[key], entries[other] = entries[other], entries[key]
        case _:
            return struct.pack("<Q", number) + data[8:]
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + rest


def hostile_file(rng: np.random.Generator, canary: Path) -> tuple[str, bytes]:
    """Write a random pickle, or a state dict with an object or number that must not be in it."""
    state = dict(weights()[True, False])
    key = list(state)[rng.integers(len(state))]
    match rng.integers(4):
        case 0:
            return "hostile pickle", hostile.program(rng, canary)
        case 1:
            values = hostile.values(rng, canary)
            state[key] = values[list(values)[rng.integers(len(values))]]
        case 2:
            numbers = (torch.nan, torch.inf, -torch.inf)
            state[key] = (
                state[key].float().reshape(-1).index_fill(0, torch.tensor(0), numbers[rng.integers(3)])
            )
            state[key] = state[key].reshape(weights()[True, False][key].shape)
        case _:
            kinds = (torch.complex64, torch.int8, torch.int64, torch.bool, torch.uint8)
            state[key] = state[key].to(kinds[rng.integers(5)])
    return "wrong objects or numbers", hostile.plain(state, rng)
