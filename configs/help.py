"""The text of ``python main.py --help``."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

from omegaconf import OmegaConf

from static_dynamic.configs import CONFIG_DIR, GROUPS, row, rows
from static_dynamic.configs.cfg_file import OPTIONS
from static_dynamic.configs.common import Common, Pyramid
from static_dynamic.configs.grammar import format_value
from static_dynamic.configs.options import check_name, parse, translate, values_of
from static_dynamic.configs.schema import Option, options_of

COLUMN, WIDTH = 30, 110
USAGE = """\
Measure how much of what a video network encodes is static, and how much is dynamic.

    python main.py                             real video, a real network: a first look
    python main.py --stylized_data_dir DIR --dataset folder --model NAME --checkpoint FILE --stg 5
    python main.py --cfg_file configs/matnet_davis.json   a network of images and optical flow (DAVIS)
    python main.py -m model=a,b seed=1,2,3,4   every combination
    python main.py task=NAME --help            options of a task; also model=NAME, dataset=NAME, style=NAME

Options are given as --name value or name=value."""


def help_text(arguments: Sequence[str] = ()) -> str:
    """Describe the rows that the arguments choose: the options of a task, the keys of a network or data set.

    Without a choice, list every row of every table, and every common option.

    Raises
    ------
    UserError
        An unknown option or row.
    """
    overrides = parse(translate(arguments))
    for override in overrides:
        check_name(override)
    chosen = [(o.key_or_group, name) for o in overrides if o.key_or_group in GROUPS for name in values_of(o)]
    return "\n\n".join(describe(*choice) for choice in chosen) if chosen else overview()


def describe(group: str, name: str) -> str:
    """Describe one row of a table: the options of a task, or the row as yaml."""
    if group != "task":
        keys = (CONFIG_DIR / group / f"{name}.yaml").read_text(encoding="utf-8").strip()
        return f"{group}={name}, whose keys are options such as {group}.name=...\n\n{keys}"
    task = row("task", name)
    options = format_options(options_of(OmegaConf.get_type(task), "task."))
    about = f"task={name}\n{task.about}\n\n"
    return f"{about}{options or 'no options of its own'}\n\npython main.py --help lists the common options"


def overview() -> str:
    """List the rows of each table, with one line each, and the common options in their sections."""
    parts = [USAGE]
    for group in GROUPS:
        lines = [entry(name, row(group, name).about) for name in rows(group)]
        parts.append("\n".join([f"{group}=", *lines]))
    for section, prefix in [*((base, "") for base in reversed(Common.__bases__)), (Pyramid, "cfp.")]:
        parts.append(f"{section.__doc__.rstrip('.')}:\n{format_options(options_of(section, prefix))}")
    keys = [entry(*item) for item in OPTIONS.items()]
    parts.append(
        "\n".join(["Keys of the original's json files (--cfg_file) for networks of images and flow:", *keys])
    )
    return "\n\n".join(parts)


def format_options(options: Iterable[Option]) -> str:
    """Format options, one entry each: name, default, explanation and allowed values."""
    lines = []
    for option in options:
        values = f" [{option.values}]" if option.values else ""
        text = f"no effect: {option.about}" if option.ignored else f"{option.about}{values}"
        lines.append(entry(f"{option.name}={format_value(option.default)}", text))
    return "\n".join(lines)


def entry(name: str, text: str) -> str:
    """Format a name and its explanation in two columns."""
    lines = textwrap.wrap(text, WIDTH - COLUMN - 2, break_on_hyphens=False)
    head = f"  {name:<{COLUMN}}"
    first = [head + lines.pop(0)] if len(head) == COLUMN + 2 else [head]
    return "\n".join([*first, *(" " * (COLUMN + 2) + line for line in lines)])
