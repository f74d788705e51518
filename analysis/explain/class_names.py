"""Read the names of a network's classes from a file or from an entry of ``configs/assets.yaml``."""

import ast
import json
import logging
import re
from pathlib import Path

from static_dynamic.assets import asset_row, fetch
from static_dynamic.errors import UserError, nearest

log = logging.getLogger(__name__)


def class_names(source: str | Path, classes: int) -> list[str]:
    """Read the names of a network's classes from a file or from an entry of ``configs/assets.yaml``.

    A text file holds one name per line; a JSON file holds a list of names, or a mapping of names to numbers.
    Raises UserError if there is no such file, or if the file does not hold `classes` names.
    """
    path = Path(str(source))
    if not path.is_file():
        try:
            asset_row(str(source))
        except UserError as error:
            raise UserError(
                f"task.names={source} is neither a file nor a name in configs/assets.yaml: give a text file "
                "with one name per line, or kinetics400_names"
            ) from error
        path = fetch(str(source))
    readers = {".json": names_of_json, ".py": names_of_source}
    try:
        names = readers.get(path.suffix, names_of_text)(path.read_text(encoding="utf-8"))
    except (ValueError, TypeError, AttributeError, SyntaxError, RecursionError, MemoryError) as error:
        raise UserError(f"{path} holds no class names ({error})") from error
    if len(names) != classes:
        raise UserError(f"{path} holds {len(names)} names, but the network has {classes} classes")
    return names


def names_of_text(text: str) -> list[str]:
    """Return the class names in a text that has one name per line."""
    return [line.strip() for line in text.splitlines() if line.strip()]


def names_of_json(text: str) -> list[str]:
    """Return the class names in a JSON list, or in a JSON mapping of names to class numbers 0, 1, 2 ..."""
    content = json.loads(text)
    if isinstance(content, dict):
        names = {int(number): name for name, number in content.items()}
        if sorted(names) != list(range(len(content))):
            raise ValueError("the numbers of the classes are not 0, 1, 2 and so on")
        return [names[number] for number in range(len(names))]
    return [str(name) for name in content]


def names_of_source(text: str) -> list[str]:
    """Return the longest list in Python code as the class names; the code is parsed, not run."""
    lists = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.List)]
    names = ast.literal_eval(max(lists, key=lambda node: len(node.elts)))
    # Python code may write class names like folder names: hurling_-sport- means hurling (sport).
    return [re.sub(r"-(.+)-$", r"(\1)", name.replace("_", " ")) for name in names]


def names_of_weights(asset: str | None, classes: int) -> list[str] | None:
    """Return the names of the classes of pretrained weights; None if the names are unknown or unreadable."""
    source = asset_row(asset).get("names") if asset else None
    if source is None:
        return None
    try:
        return class_names(source, classes)
    except UserError as error:
        log.warning("classes are shown as numbers: %s", error)
        return None


def find_label(label: str | int | None, names: list[str] | None) -> int | None:
    """Return the class number for `label`, a class number or name; raise UserError for an unknown name."""
    if label is None or isinstance(label, int):
        return label
    if re.fullmatch(r"-?\d+", label.strip()):
        return int(label)
    if names is None:
        raise UserError(
            f"label={label}: give a class number or task.names=FILE (one name per line), because the names "
            "of this network's classes are unknown"
        )
    plain = {_plain(name): number for number, name in enumerate(names)}
    if _plain(label) not in plain:
        raise UserError(f"label={label}: no class has this name{nearest(_plain(label), plain)}")
    return plain[_plain(label)]


def _plain(name: str) -> str:
    """Return a class name in lower case, with spaces for underscores, so that spellings can be compared."""
    return name.strip().lower().replace("_", " ")
