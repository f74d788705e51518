"""Find a network's weights in a checkpoint: in which entry they are, and which prefix their keys have.

Training programs put a state dict into an entry of a dict (``{"model": ...}``), beside moving averages of the
weights ("EMA"), and wrap the network, which adds a prefix to all keys. `find_weights` tries every entry and
every prefix, and accepts a choice only if all keys fit.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from static_dynamic.errors import MAX_NAME, UserError, one_line, quoted, reason
from static_dynamic.models import mmaction2_names
from static_dynamic.models.checkpoint_search import WRAPPERS, Fit, Search, find_entries, unwrapped
from static_dynamic.models.stages import VideoNetwork
from static_dynamic.pickle_functions import kind

log = logging.getLogger(__name__)


def state_dict_of(content: Any, path: Path) -> dict:
    """Return the state dict in the entry with the most usual name, without the prefixes of wrappers."""
    if not isinstance(content, Mapping):
        raise UserError(f"checkpoint {path} holds a {kind(content)}, but must hold a state dict")
    for name in WRAPPERS:
        if isinstance(content.get(name), Mapping):
            content = content[name]
            break
    if not all(isinstance(key, str) for key in content):
        raise UserError(f"checkpoint {path} holds a dict with numbers as keys, but must hold a state dict")
    return unwrapped(content)


def find_weights(
    net: VideoNetwork, content: Any, source: Path, wanted: str | None = None
) -> tuple[Mapping, str]:
    """Return the state dict in a checkpoint that fits `net`, with the keys of `net`; log what was chosen.

    Keys may be missing only if they belong to the classifier. If the usual entry does not fit, its state dict
    is translated and returned. The second value says, for the error message, what nearly fits.

    Parameters
    ----------
    content
        What the file `source` holds.
    wanted
        Entry or prefix of the weights to take (option ``checkpoint_key``); None takes what fits.

    Raises
    ------
    UserError
        The content is no dict, or several different state dicts fit, or the one that `wanted` names does not.
    """
    search = Search(net)
    entries = search.eligible(find_entries(content))
    fits = [fit for entry, state in entries for fit in search.fits(entry, state)]
    usual = [fit for fit in fits if fit.from_usual_entry]
    if wanted:
        names = ", ".join(one_line(f.name, MAX_NAME) for f in fits if f.name) or "none"
        # the user may name the entry, the prefix, or both
        fits = [f for f in fits if wanted in (f.name, ".".join(f.entry), f.prefix.removesuffix("."))]
        if not fits:
            raise UserError(
                f"checkpoint {source} holds no weights at checkpoint_key={wanted} that fit "
                f"{type(net).__name__}: give another checkpoint_key (entries and prefixes that fit: {names})"
            )
    elif not fits or (not usual and search.has_usual_entry(entries)):
        # if an entry with a usual name does not fit, another entry is taken only if the user asks for it
        base = state_dict_of(content, source)
        state = search.known(converted(net, base, source))
        return state, _hint(search, state, base, fits)
    fit = _choose(fits, source)
    if not wanted:
        _tell(fit, fits, source)
    mmaction2_names.check_settings(net, fit.source, source)
    return fit.state, mmaction2_names.HINT if mmaction2_names.is_mmaction2(fit.source) else ""


def _hint(search: Search, state: Mapping, base: Mapping, fits: list[Fit]) -> str:
    """Return a hint for the user if the state dict `base`, translated to `state`, does not fit."""
    if fits:
        return f"the weights {quoted(fits[0].name)} would fit: give {_option(fits[0])}"
    return mmaction2_names.HINT if mmaction2_names.is_mmaction2(base) else search.nearly(state)


def _option(fit: Fit) -> str:
    return f"checkpoint_key={one_line(fit.name, MAX_NAME)}"


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


def _choose(fits: list[Fit], source: Path) -> Fit:
    """Choose one of several state dicts: plain weights before averages, usual entries before others."""
    plain = [fit for fit in fits if not fit.averaged] or fits
    best = [fit for fit in plain if fit.from_usual_entry and not fit.rest] or plain
    if any(not _same(best[0].state, fit.state) for fit in best[1:]):
        names = " or ".join(_option(fit) for fit in best if fit.name)
        raise UserError(f"checkpoint {source} holds {len(best)} different sets of weights: give {names}")
    return best[0]


def _same(a: Mapping, b: Mapping) -> bool:
    return a.keys() == b.keys() and all(
        np.array_equal(a[key], b[key]) if isinstance(a[key], np.ndarray) else _equal(a[key], b[key])
        for key in a
    )


def _equal(a: Any, b: Any) -> bool:
    return isinstance(a, Tensor) and isinstance(b, Tensor) and torch.equal(a, b)


def _tell(fit: Fit, fits: list[Fit], source: Path) -> None:
    """Log which prefix was removed, which keys are left out, and which other weights the file holds."""
    others = [f for f in fits if f is not fit and f.name]
    said = []
    if others or fit.averaged or not fit.from_usual_entry:
        said.append(
            f"the weights {quoted(fit.name)} are taken" if fit.name else "the plain weights are taken"
        )
    if others:
        kinds = "averaged weights (EMA)" if any(f.averaged for f in others) else "other weights"
        keys = " or ".join(map(_option, others))
        said.append(f"the file also holds {kinds}, which {keys} chooses")
    if fit.prefix:
        said.append(f"all {len(fit.state)} keys fit with the prefix {quoted(fit.prefix)} removed")
    if fit.rest:
        said.append(f"{len(fit.rest)} other keys are left out ({one_line(fit.rest[0], MAX_NAME)}, ...)")
    if said:
        log.info("checkpoint %s: %s", source, "; ".join(said))
