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
from static_dynamic.errors import MAX_NAME, UserError, checkpoint_errors, one_line
from static_dynamic.files import atomic_path, sha256, write_text
from static_dynamic.models.checkpoint_keys import converted, find_weights, state_dict_of
from static_dynamic.models.classifier_keys import foreign_head, head_keys
from static_dynamic.models.stages import VideoNetwork
from static_dynamic.pickle_functions import kind
from static_dynamic.pickled import read_pickled
from static_dynamic.weights import check_numbers, hash_lines

log = logging.getLogger(__name__)

# Config value ``pretrained: package``: the package that defines the network loads the pretrained weights.
PACKAGE = "package"


def read_checkpoint(path: Path) -> Mapping:
    """Read a checkpoint file: safetensors, torch (old or new format), or a pickle of numpy arrays.

    No code in the file runs. Objects that are neither tensors, arrays, containers, text nor numbers are
    ignored, and the log names their classes. Raises UserError if the file is missing or damaged, or asks for
    a function or class that is not allowed.
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


def load_weights(
    net: VideoNetwork, source: Path | str, *, drop_head: bool = False, key: str | None = None
) -> None:
    """Load weights into `net`; raise UserError if a key is missing or unexpected, or a shape differs.

    Parameters
    ----------
    source
        Path of a checkpoint file, path of a checkpoint folder (MATNet), or name of an asset.
    drop_head
        Keep the classifier of `net` if the checkpoint has none, or one with another number of classes.
    key
        Entry or key prefix of the weights in the file (option ``checkpoint_key``); None finds the weights.
    """
    if isinstance(source, Path):
        content = net.read_folder(source) if source.is_dir() else read_checkpoint(source)
        state, hint = find_weights(net, content, source, key)
        load_state(net, state, source, drop_head=drop_head, hint=hint)
        return
    stored = asset_weights(net, source)
    load_state(net, read_checkpoint(stored), stored)


def load_state(
    net: VideoNetwork, state: Mapping, source: Path, *, drop_head: bool = False, hint: str = ""
) -> None:
    """Load a state dict that has the keys of `net`; `source` is the file that error messages name.

    `drop_head` keeps the classifier of `net`, see `load_weights`. `hint` is added to the message about
    weights that do not fit.
    """
    own = net.state_dict()
    # add batch norm's num_batches_tracked, which old checkpoints lack and which has no effect in eval mode
    state = {**{k: v for k, v in own.items() if k.endswith("num_batches_tracked")}, **state}
    state = {k: torch.from_numpy(np.array(v)) if isinstance(v, np.ndarray) else v for k, v in state.items()}
    for key in own:
        if not isinstance(state.get(key, own[key]), Tensor):
            raise UserError(
                f"checkpoint {source}: {key} has type {one_line(kind(state[key]), MAX_NAME)}, "
                "but must be a tensor"
            )
    missing = [key for key in own if key not in state]
    if missing and set(missing) <= head_keys(net) and state.keys() <= own.keys():
        if not drop_head:
            raise UserError(
                f"checkpoint {source} has no classifier (missing: {', '.join(missing)}): give drop_head=true "
                "(the classifier stays random)"
            )
        log.warning("%s has no classifier (missing: %s): logits are random", source, ", ".join(missing))
        state |= {key: own[key] for key in missing}
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
        raise UserError(
            f"checkpoint {source} does not fit {type(net).__name__}: {found}{hint and f'; {hint}'}"
        )
    check_numbers(own, state, source)
    net.load_state_dict(dict(state))


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


def weights_file(
    net: VideoNetwork, checkpoint: str | Path | None, pretrained: str | None, key: str | None = None
) -> Path | None:
    """Return the file whose hash identifies the weights in a run's manifest; return None for random weights.

    Weights of a package, of a folder of several files, or of the entry `key` of a file, are identified by a
    file of tensor hashes.
    """
    if checkpoint is None:
        return None
    if checkpoint == "pretrained":
        return asset_weights(net, pretrained) if pretrained and pretrained != PACKAGE else tensor_hashes(net)
    return tensor_hashes(net) if key or Path(checkpoint).is_dir() else Path(checkpoint)


def tensor_hashes(net: VideoNetwork) -> Path:
    """Write the hash of every tensor of `net` to a file in the cache folder; return the file's path."""
    text = hash_lines(net.state_dict())
    path = cache_dir() / "weights" / f"{hashlib.sha256(text.encode()).hexdigest()[:12]}.tensors.txt"
    write_text(path, text)
    return path
