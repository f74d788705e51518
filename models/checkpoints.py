"""Read checkpoints without running code in the files, translate their keys, and load weights strictly."""

import hashlib
import logging
import pickle
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from static_dynamic.assets import asset_row, cache_dir, fetch
from static_dynamic.errors import RefusedFile, UserError, checkpoint_errors
from static_dynamic.files import atomic_path, sha256, write_text
from static_dynamic.models.stages import VideoNetwork

log = logging.getLogger(__name__)

# The only functions and classes that a pickle of numpy arrays may call, as old and new numpy name them.
ALLOWED_GLOBALS = {
    *(("numpy", name) for name in ("ndarray", "dtype")),
    *(
        (f"numpy.{core}.multiarray", name)
        for core in ("core", "_core")
        for name in ("_reconstruct", "scalar")
    ),
    *((f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")),
    ("_codecs", "encode"),
    ("collections", "OrderedDict"),
}
# In ``configs/model``, ``pretrained: package`` means that the network's own package loads the weights.
PACKAGE = "package"
# Keys under which known code bases store the state dict in a checkpoint.
WRAPPERS = ("model_state", "state_dict", "model_state_dict", "model", "blobs")
# Torch's old checkpoint format starts with this pickled number.
TORCH_LEGACY_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str):
        if (module, name) not in ALLOWED_GLOBALS:
            raise RefusedFile(f"{module}.{name}")
        return super().find_class(module, name)


def read_checkpoint(path: Path) -> Mapping:
    """Read a checkpoint file: safetensors, torch (old or new format), or a pickle of numpy arrays.

    No code in the file runs. Raises UserError if the file is missing or damaged, or refers to any class but
    tensors and arrays.
    """
    if not path.is_file():
        raise UserError(f"checkpoint {path} does not exist")
    with path.open("rb") as file:
        head = file.read(64)
    with checkpoint_errors(path, allowed="plain tensors and arrays"):
        if path.suffix == ".safetensors":
            return load_file(path)
        if head.startswith(b"PK") or TORCH_LEGACY_MAGIC in head:
            return torch.load(path, map_location="cpu", weights_only=True)
        if head.startswith(b"\x80"):
            with path.open("rb") as file:
                # caffe2 checkpoints were pickled by Python 2, whose byte strings need latin1
                return _ArraysOnly(file, encoding="latin1").load()
    raise UserError(
        f"checkpoint {path} is neither safetensors nor torch nor a pickle of arrays (first bytes: "
        f"{head[:12]!r}): check that the file is not a saved web page"
    )


def state_dict_of(content: Mapping, path: Path) -> dict:
    """Return the state dict of a checkpoint, without the ``module.`` prefixes of data-parallel training."""
    if not isinstance(content, Mapping):
        raise UserError(f"checkpoint {path} holds a {type(content).__name__}, but must hold a state dict")
    for name in WRAPPERS:
        if isinstance(content.get(name), Mapping):
            content = content[name]
            break
    if content and all(isinstance(key, str) and key.startswith("module.") for key in content):
        content = {key.removeprefix("module."): value for key, value in content.items()}
    return dict(content)


def load_weights(net: VideoNetwork, source: Path | str, *, drop_head: bool = False) -> None:
    """Load weights into `net`; raise UserError if a key is missing or unexpected, or a shape differs.

    Parameters
    ----------
    source
        Path of a checkpoint file, path of a checkpoint folder (MATNet), or name of an asset.
    drop_head
        Keep the classifier of `net` if the checkpoint's classifier has another number of classes.
    """
    if isinstance(source, Path):
        content = net.read_folder(source) if source.is_dir() else read_checkpoint(source)
        load_state(net, net.convert(state_dict_of(content, source)), source, drop_head=drop_head)
        return
    stored = asset_weights(net, source)
    load_state(net, read_checkpoint(stored), stored)


def load_state(net: VideoNetwork, state: Mapping, source: Path, *, drop_head: bool = False) -> None:
    """Load a state dict that has the keys of `net`; `source` is the file that error messages name."""
    own = net.state_dict()
    # old checkpoints lack batch norm's num_batches_tracked, which has no effect in eval mode
    state = {**{k: v for k, v in own.items() if k.endswith("num_batches_tracked")}, **state}
    state = {k: torch.from_numpy(np.array(v)) if isinstance(v, np.ndarray) else v for k, v in state.items()}
    for key in own:
        if not isinstance(state.get(key, own[key]), Tensor):
            raise UserError(
                f"checkpoint {source}: {key} has type {type(state[key]).__name__}, but must be a tensor"
            )
    head = foreign_head(own, state)
    if head:
        theirs, ours = (len(values[next(iter(head))]) for values in (state, own))
        if not drop_head:
            raise UserError(
                f"checkpoint {source} has a classifier of {theirs} classes ({', '.join(head)}), but the "
                f"network has {ours}: give model.num_classes={theirs}, or drop_head=true "
                "(the classifier stays random)"
            )
        log.warning("the classifier of %d classes in %s is left out: logits are random", theirs, source)
        state |= {key: own[key] for key in head}
    problems = {
        "missing": [k for k in own if k not in state],
        "unexpected": [k for k in state if k not in own],
        "misshapen": [
            f"{k} {tuple(state[k].shape)} for {tuple(v.shape)}"
            for k, v in own.items()
            if k in state and tuple(state[k].shape) != tuple(v.shape)
        ],
    }
    if any(problems.values()):
        found = "; ".join(
            f"{len(keys)} {kind} ({keys[0]}{', ...' if len(keys) > 1 else ''})"
            for kind, keys in problems.items()
            if keys
        )
        raise UserError(f"checkpoint {source} does not fit {type(net).__name__}: {found}")
    net.load_state_dict(dict(state))


def foreign_head(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[str]:
    """If two state dicts differ only in the number of classes, return the classifier's keys, else []."""
    keys = [k for k, v in own.items() if k in state and state[k].shape != v.shape]
    counts = {(len(own[k]), len(state[k])) for k in keys if own[k].dim() == state[k].dim() > 0}
    alike = all(own[k].shape[1:] == state[k].shape[1:] for k in keys)
    return keys if own.keys() == state.keys() and alike and len(counts) == 1 else []


def asset_weights(net: VideoNetwork, name: str) -> Path:
    """Download published weights once, convert them to the keys of `net`, and return the file's path.

    `name` is the name of the asset. The first call writes a safetensors file and its hash; later calls check
    the hash.
    """
    row = asset_row(name)
    path = cache_dir() / "weights" / f"{name}-{row.sha256[:12]}.safetensors"
    digest = path.with_suffix(".sha256")
    if not (path.exists() and digest.exists()):
        original = fetch(name)
        state = net.convert(state_dict_of(read_checkpoint(original), original))
        load_state(net, state, original)  # raises UserError if the weights do not fit `net`
        with atomic_path(path) as temporary:
            tensors = {k: v.contiguous() for k, v in state.items()}
            save_file(tensors, temporary, metadata={"source_sha256": row.sha256})
        write_text(digest, sha256(path) + "\n")
        original.unlink()
    if sha256(path) != digest.read_text().strip():
        raise UserError(
            f"weights {path} have changed on disk (wrong SHA-256): "
            "delete the file, so that the next run fetches the weights again"
        )
    return path


def weights_file(net: VideoNetwork, checkpoint: str | Path | None, pretrained: str | None) -> Path | None:
    """Return the file whose hash identifies the weights in a run's manifest; return None for random weights.

    Weights of a package, or of a folder of several files, are identified by a file of tensor hashes.
    """
    if checkpoint is None:
        return None
    if checkpoint == "pretrained":
        return asset_weights(net, pretrained) if pretrained and pretrained != PACKAGE else tensor_hashes(net)
    return tensor_hashes(net) if Path(checkpoint).is_dir() else Path(checkpoint)


def tensor_hashes(net: VideoNetwork) -> Path:
    """Write the hash of every tensor of `net` to a file in the cache; return the file's path."""
    lines = []
    for key, tensor in net.state_dict().items():
        data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest = hashlib.sha256(memoryview(data.numpy())).hexdigest()
        lines.append(f"{digest} {tensor.dtype} {tuple(tensor.shape)} {key}\n")
    text = "".join(lines)
    path = cache_dir() / "weights" / f"{hashlib.sha256(text.encode()).hexdigest()[:12]}.tensors.txt"
    write_text(path, text)
    return path
