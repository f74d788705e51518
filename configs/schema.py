"""Declare options as dataclass fields, each with type, default value and explanation.

Hydra composes the configuration from these dataclasses, so that an unknown name or a value of the wrong type
is an error. The explanation states what the default None (null) means. The options of all tasks are in
``common.py``, the options of single tasks in ``tasks.py``.
"""

import copy
import types
import typing
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from typing import Any

Number = int | float
WORDS = {bool: "true or false", float: "number", int: "whole number", str: "text"}


def option(
    default: Any,
    about: str,
    *,
    choices: tuple = (),
    least: Number | None = None,
    most: Number | None = None,
    ignored: bool = False,
) -> Any:
    """Declare an option as a dataclass field.

    `about` is the explanation in ``--help``; it states the meaning of null if `default` is None. `choices`
    are the allowed values, or the allowed words of an option that also takes numbers. `least` is the smallest
    number; an option with `least` can also have a largest number, `most`. `ignored` marks an option without
    effect, accepted because Kowal et al.'s code has it.
    """
    metadata = {"about": about, "choices": choices, "least": least, "most": most, "ignored": ignored}
    if isinstance(default, list | dict):
        return field(default_factory=lambda: copy.deepcopy(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Option:
    """Command-line option; the docstring of `option` explains the fields from `default` to `ignored`."""

    # `name` is the full name of the option, e.g. "seed" or "task.width".
    name: str
    # `type` is the type annotation of the dataclass field.
    type: Any
    default: Any
    about: str
    choices: tuple
    least: Number | None
    most: Number | None
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
        words += ["mapping"] * any(typing.get_origin(kind) is dict for kind in kinds)
        words += ["null"] * (types.NoneType in kinds)
        return " or ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def options_of(schema: type, prefix: str = "") -> Iterator[Option]:
    """Yield the options of a dataclass and its nested dataclasses; each option name begins with `prefix`."""
    annotations = typing.get_type_hints(schema)
    for one in fields(schema):
        if is_dataclass(annotations[one.name]):
            yield from options_of(annotations[one.name], f"{prefix}{one.name}.")
        elif one.metadata:
            default = one.default if one.default_factory is MISSING else one.default_factory()
            yield Option(prefix + one.name, annotations[one.name], default, **one.metadata)
