"""Read checkpoints without running code in the files, translate their keys, and load weights strictly."""

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from static_dynamic.assets import asset_row, cache_dir, fetch
from static_dynamic.errors import MAX_NAME, UserError, checkpoint_errors, one_line, reason
from static_dynamic.files import atomic_path, sha256, write_text
from static_dynamic.models.stages import VideoNetwork
from static_dynamic.pickled import read_pickled
from static_dynamic.weights import check_numbers, hash_lines

log = logging.getLogger(__name__)

# Config value ``pretrained: package``: the package that defines the network loads the pretrained weights.
PACKAGE = "package"
# Keys under which known code bases store the state dict in a checkpoint.
WRAPPERS = ("model_state", "state_dict", "model_state_dict", "model", "blobs")


def read_checkpoint(path: Path) -> Mapping:
    """Read a checkpoint file: safetensors, torch (old or new format), or a pickle of numpy arrays.

    No code in the file runs. Raises UserError if the file is missing or damaged, or refers to any class but
    tensors and arrays.
    """
    if not path.is_file():
        raise UserError(f"checkpoint {path} does not exist")
    with checkpoint_errors(path, allowed="plain tensors and arrays"):
        with path.open("rb") as file:
            head = file.read(12)
        content = load_file(path) if path.suffix == ".safetensors" else read_pickled(path)
    if content is None:
        raise UserError(
            f"checkpoint {path} is neither safetensors nor torch nor a pickle of arrays (first bytes: "
            f"{head!r}): check that the file is not a saved web page"
        )
    return content


def state_dict_of(content: Mapping, path: Path) -> dict:
    """Return the state dict of a checkpoint, without the ``module.`` prefixes of data-parallel training."""
    if not isinstance(content, Mapping):
        raise UserError(f"checkpoint {path} holds a {type(content).__name__}, but must hold a state dict")
    for name in WRAPPERS:
        if isinstance(content.get(name), Mapping):
            content = content[name]
            break
    if not all(isinstance(key, str) for key in content):
        raise UserError(f"checkpoint {path} holds a dict with numbers as keys, but must hold a state dict")
    if content and all(key.startswith("module.") for key in content):
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
        state = converted(net, state_dict_of(content, source), source)
        load_state(net, state, source, drop_head=drop_head)
        return
    stored = asset_weights(net, source)
    load_state(net, read_checkpoint(stored), stored)


def converted(net: VideoNetwork, state: Mapping, source: Path) -> Mapping:
    """Translate a state dict to the keys of `net`; raise UserError if the state dict cannot be translated."""
    try:
        return net.convert(state)
    except UserError:
        raise
    except Exception as error:
        # catch every exception: `convert` can fail in any way if the file lacks keys or has wrong shapes
        name = type(net).__name__
        raise UserError(f"checkpoint {source} does not fit {name}: {reason(error)}") from error


def load_state(net: VideoNetwork, state: Mapping, source: Path, *, drop_head: bool = False) -> None:
    """Load a state dict that has the keys of `net`; `source` is the file that error messages name."""
    own = net.state_dict()
    # add batch norm's num_batches_tracked, which old checkpoints lack and which has no effect in eval mode
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
            f"{len(keys)} {kind} ({one_line(keys[0], MAX_NAME)}{', ...' if len(keys) > 1 else ''})"
            for kind, keys in problems.items()
            if keys
        )
        raise UserError(f"checkpoint {source} does not fit {type(net).__name__}: {found}")
    check_numbers(own, state, source)
    net.load_state_dict(dict(state))


def foreign_head(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[str]:
    """Return the classifier's keys if two state dicts differ only in the number of classes, else []."""
    keys = [k for k, v in own.items() if k in state and state[k].shape != v.shape]
    counts = {(len(own[k]), len(state[k])) for k in keys if own[k].dim() == state[k].dim() > 0}
    alike = all(own[k].shape[1:] == state[k].shape[1:] for k in keys)
    return keys if own.keys() == state.keys() and alike and len(counts) == 1 else []


def asset_weights(net: VideoNetwork, name: str) -> Path:
    """Return a file with the published weights under the keys of `net`; the first call downloads the weights.

    `name` is the name of the asset. The first call writes a safetensors file and its hash; later calls check
    the hash.
    """
    row = asset_row(name)
    path = cache_dir() / "weights" / f"{name}-{row.sha256[:12]}.safetensors"
    digest = path.with_suffix(".sha256")
    if not (path.exists() and digest.exists()):
        original = fetch(name)
        state = converted(net, state_dict_of(read_checkpoint(original), original), original)
        # check the weights before they are stored: load_state raises UserError if they do not fit `net`
        load_state(net, state, original)
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
    """Write the hash of every tensor of `net` to a file in the cache folder; return the file's path."""
    text = hash_lines(net.state_dict())
    path = cache_dir() / "weights" / f"{hashlib.sha256(text.encode()).hexdigest()[:12]}.tensors.txt"
    write_text(path, text)
    return path
