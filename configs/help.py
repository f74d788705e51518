"""The text of ``python main.py --help``."""

import textwrap
from collections.abc import Iterable, Sequence

from static_dynamic import PROGRAM

from . import CONFIG_DIR, GROUPS, row, rows
from .cfg_file import OPTIONS
from .common import Common, Pyramid
from .grammar import format_value
from .options import check_name, parse, translate, values_of
from .schema import Option, options_of
from .tasks import tasks

COLUMN, WIDTH = 30, 110
USAGE = """\
Measure how much of what a video network encodes is static, and how much is dynamic.

    python main.py                             first look: pretrained network, downloaded videos
    python main.py --stylized_data_dir DIR --dataset folder --model NAME --checkpoint FILE --stg 5
    python main.py --cfg_file configs/matnet_davis.json   a network of images and optical flow (DAVIS)
    python main.py -m model=a,b seed=1,2,3,4   one run per combination of the values, here 8 runs
    python main.py task=NAME --help            options of a task; also model=NAME, dataset=NAME, style=NAME

Options are given as --name value or name=value."""


def help_text(arguments: Sequence[str] = ()) -> str:
    """Return the help text for the task, network, data set or style that the arguments choose.

    Without such a choice, list all tasks, networks, data sets and styles, and the options of all tasks.
    Raises UserError if an option, or the name after ``task=`` or ``model=``, is unknown.
    """
    overrides = parse(translate(arguments))
    for override in overrides:
        check_name(override)
    chosen = [(o.key_or_group, name) for o in overrides if o.key_or_group in GROUPS for name in values_of(o)]
    return "\n\n".join(describe(*choice) for choice in chosen) if chosen else overview()


def describe(group: str, name: str) -> str:
    """Describe the options of a task, or show the yaml file of a network, data set or style."""
    if group != "task":
        keys = (CONFIG_DIR / group / f"{name}.yaml").read_text(encoding="utf-8").strip()
        return f"{group}={name}: each key of this file is an option, e.g. {group}.name=...\n\n{keys}"
    task = tasks()[name]
    options = format_options(options_of(type(task), "task.")) or "This task has only the common options."
    return f"task={name}\n{task.about}\n\n{options}\n\n{PROGRAM} --help lists the common options"


def overview() -> str:
    """List every task, data set, network and style on one line each, and the common options by section."""
    parts = [USAGE.replace("python main.py", PROGRAM)]
    for group in GROUPS:
        lines = [two_columns(name, row(group, name).about) for name in rows(group)]
        parts.append("\n".join([f"{group}=NAME, where NAME is one of:", *lines]))
    for section, prefix in [*((base, "") for base in reversed(Common.__bases__)), (Pyramid, "cfp.")]:
        parts.append(f"{(section.__doc__ or '').rstrip('.')}:\n{format_options(options_of(section, prefix))}")
    keys = "\n".join(two_columns(*item) for item in OPTIONS.items())
    title = (
        "Keys of the json files of Kowal et al.'s code (--cfg_file), for networks of images and flow only:"
    )
    return "\n\n".join([*parts, f"{title}\n{keys}"])


def format_options(options: Iterable[Option]) -> str:
    """Format each option as one entry: name, default, explanation and allowed values."""
    lines = []
    for option in options:
        values = f" [{option.values}]" if option.values else ""
        text = f"no effect: {option.about}" if option.ignored else f"{option.about}{values}"
        lines.append(two_columns(f"{option.name}={format_value(option.default)}", text))
    return "\n".join(lines)


def two_columns(name: str, text: str) -> str:
    """Format a name and an explanation in two columns, with the explanation wrapped."""
    lines = textwrap.wrap(text, WIDTH - COLUMN - 2, break_on_hyphens=False)
    head = f"  {name:<{COLUMN}}"
    first = [head + lines.pop(0)] if len(head) == COLUMN + 2 else [head]
    return "\n".join([*first, *(" " * (COLUMN + 2) + line for line in lines)])
