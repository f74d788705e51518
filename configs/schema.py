"""How options are declared: as fields of dataclasses, each with its type, default and explanation.

Hydra composes the configuration from these dataclasses, so that an unknown name or a value of the wrong type
is an error. The default None stands for a value that the explanation states. The options that every task has
are in ``common.py``, those of single tasks in ``tasks.py``.
"""

from __future__ import annotations

import copy
import types
import typing
from collections.abc import Iterator
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from typing import Any

Number = int | float
WORDS = {bool: "true or false", float: "number", int: "whole number", str: "text"}


def option(
    default: Any, about: str, *, choices: tuple = (), least: Number | None = None, ignored: bool = False
) -> Any:
    """Declare an option as a dataclass field.

    Parameters
    ----------
    about
        Explanation that ``--help`` prints; states the meaning of null if `default` is None.
    choices
        The allowed values; if the option also takes a number, the allowed words.
    least
        The smallest allowed number.
    ignored
        True if the option has no effect and is accepted only because the original programs have it.
    """
    metadata = {"about": about, "choices": choices, "least": least, "ignored": ignored}
    if isinstance(default, list | dict):
        return field(default_factory=lambda: copy.deepcopy(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Option:
    """An option as the command line knows it; for the other fields see `option`."""

    name: str  # "seed", "cfp.theta", "task.width", ...
    type: Any  # annotation of the field
    default: Any
    about: str
    choices: tuple
    least: Number | None
    ignored: bool

    @property
    def values(self) -> str:
        """Description of the allowed values, e.g. ``whole number or null``; empty if any value is allowed."""
        kinds = typing.get_args(self.type) if isinstance(self.type, types.UnionType) else (self.type,)
        words = []
        for kind, word in WORDS.items():
            if kind in kinds and not (kind is int and float in kinds):
                words += [str(choice) for choice in self.choices if type(choice) is kind] or [word]
        if any(typing.get_origin(kind) is list for kind in kinds):
            words.append("list of " + ", ".join(self.choices) if self.choices else "list")
        words += ["null"] * (types.NoneType in kinds)
        return " or ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def options_of(schema: type, prefix: str = "") -> Iterator[Option]:
    """List the options that a dataclass declares, those of nested dataclasses included."""
    annotations = typing.get_type_hints(schema)
    for one in fields(schema):
        if is_dataclass(annotations[one.name]):
            yield from options_of(annotations[one.name], f"{prefix}{one.name}.")
        elif one.metadata:
            yield Option(prefix + one.name, annotations[one.name], _default(one), **one.metadata)


def _default(one: Field) -> Any:
    return one.default if one.default_factory is MISSING else one.default_factory()
