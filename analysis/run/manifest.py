"""The manifest of a run folder: what was computed, with which options, on which data.

``manifest.json`` is the last file created in a new run folder, so a folder without it holds no run. Its entry
``sha256`` is the hash of all other entries; a manifest of an earlier version has no such entry.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from static_dynamic.errors import DamagedRun, UserError, one_line, quoted, reason
from static_dynamic.files import write_text

MANIFEST_NAME = "manifest.json"
# Value of ``identity.model.init`` in runs whose activations `import_activations` wrote.
IMPORTED = "imported"
# Name of the class scores in `Store.activations` and in `VideoNetwork.read`.
LOGITS = "logits"
# Ending of the name of a stage's activations per cell, in `Store.activations` and in `VideoNetwork.readable`.
CELLS = ".cells"
REPAIR = "remove the run folder and run again"
# Largest number of characters of an option's value in a message.
VALUE_WIDTH = 200

ANY = object
NUMBER = (int, float)
OPTIONAL_TEXT = (str, type(None))
# Type of each entry of a JSON object. Keys that end in "?" are optional; the key `...` stands for any key.
# [T] stands for a list whose items have type T; (T, U) stands for a value of type T or U.
IDENTITY = {
    "model": {"name": str, "init": OPTIONAL_TEXT},
    "dataset": {"name": str, "folder": str},
    "weights_sha256?": OPTIONAL_TEXT,
    "styles?": [int],
    "pairs?": str,
    "seed?": int,
    "shard?": {"index": int, "of": int, "first": int, "end": int, "batch_size": int},
}
MANIFEST = {
    "identity": IDENTITY,
    "code?": str,
    "versions?": {...: str},
    "network_code?": {...: str},
    "root?": str,
    "sha256?": str,
    "original_name?": OPTIONAL_TEXT,
}
# Entries that only the manifest of a run with activations has, with their types.
OF_ACTIVATIONS = {
    "identity": IDENTITY | {"styles": [int], "pairs": str, "seed": int},
    "stages": {...: {"units": int, "stream": str, "heads?": int, "steps?": int}},
    "cells?": {"grid": ANY, "regions": [str], "stages": {...: {"cells": int, "own": [ANY]}}},
    "features?": {"format": str, "rdm": OPTIONAL_TEXT},
    "counts": dict.fromkeys(("views", "clips", "clusters", "pairs_dynamic", "pairs_static"), int),
    "input": {"pathways": {...: int}, "size?": ANY, "crop?": ANY},
    "skipped_views": [{"clip": str, "views": [int], "reason": str}],
    "skipped_clips?": [{"clip": str, "reason": str}],
    "filtered_clips?": {...: [str]},
    "video_notes?": {...: [str]},
    "frame_rates?": {...: int},
    "deepest_stage?": str,
    "shown_stages?": [str],
    "class_scores?": {"classes?": int, "labelled?": bool, "reason?": str},
    "computed_with?": {"precision": str, "kernels": [str]},
    "files_sha256?": {...: str},
    "batch_size?": int,
    "views_a_pass?": int,
    "until?": {"checks?": [{...: ANY}]},
}
LARGEST_INTEGER = 2**63


def has_run(path: Path) -> bool:
    """Return whether a folder holds a run."""
    return (path / MANIFEST_NAME).exists()


def read_manifest(path: Path) -> dict:
    """Read and check ``manifest.json`` of a run folder; raise UserError if it is missing or damaged."""
    file = path / MANIFEST_NAME
    if not has_run(path):
        raise UserError(f"{path} is not a run folder (there is no {MANIFEST_NAME})")
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DamagedRun(
            f"{file} is damaged ({reason(error)}): remove the run folder and run again"
        ) from error
    if not isinstance(manifest, dict) or "identity" not in manifest:
        raise UserError(f"{path} is not a run folder (another program wrote {MANIFEST_NAME})")
    schema = MANIFEST | (OF_ACTIVATIONS if "stages" in manifest else {})
    for wrong in mismatches(manifest, schema):
        raise DamagedRun(f"{file} is damaged ({wrong}): {REPAIR}")
    written = manifest.pop("sha256", None)
    if written is not None and written != digest_of(manifest):
        raise DamagedRun(
            f"{file} was changed after the run wrote it: restore it, or remove the run folder and run again "
            "(without its entry sha256, the file is read unchecked)"
        )
    return manifest


def write_manifest(path: Path, manifest: dict) -> None:
    """Write ``manifest.json`` of a run folder; its entry ``sha256`` is the hash of all other entries."""
    write_text(path / MANIFEST_NAME, to_json(manifest | {"sha256": digest_of(manifest)}))


def digest_of(manifest: dict) -> str:
    """Return the SHA-256 of the entries of a manifest."""
    return hashlib.sha256(to_json(manifest).encode()).hexdigest()


def mismatches(value: object, schema: object, name: str = "") -> Iterator[str]:
    """Yield a message for each part of a JSON value that does not fit a schema such as `MANIFEST`."""
    if isinstance(schema, dict):
        if not isinstance(value, dict):
            yield f"{name} is no mapping"
        elif ... in schema:
            for key, own in value.items():
                yield from mismatches(own, schema[...], f"{name}.{quoted(key)}".lstrip("."))
        else:
            for key, kind in schema.items():
                own_name = f"{name}.{key}".strip(".?")
                if key.rstrip("?") in value:
                    yield from mismatches(value[key.rstrip("?")], kind, own_name)
                elif not key.endswith("?"):
                    yield f"{own_name} is missing"
    elif isinstance(schema, list):
        if not isinstance(value, list):
            yield f"{name} is no list"
        else:
            for own in value:
                yield from mismatches(own, schema[0], f"an item of {name}")
    elif schema is int:
        if type(value) is not int or not -LARGEST_INTEGER <= value < LARGEST_INTEGER:
            yield f"{name} is {quoted(value)}"
    elif not isinstance(value, schema):  # type: ignore[arg-type]
        yield f"{name} is {quoted(value)}"


def columns_of(manifest: dict) -> dict[str, int]:
    """Return the number of columns of each file of activations.

    A stage has a column per unit, its cells (``STAGE.cells``) have one per cell and unit, and ``logits`` has
    one per class. The columns of the first cell come first.
    """
    classes = manifest.get("class_scores", {}).get("classes")
    units = {stage: about["units"] for stage, about in manifest["stages"].items()}
    cells = {
        f"{stage}{CELLS}": about["cells"] * units[stage]
        for stage, about in manifest.get("cells", {}).get("stages", {}).items()
    }
    return units | cells | ({LOGITS: classes} if classes else {})


def require_same_run(path: Path, identity: dict) -> None:
    """Raise UserError if a folder holds a run with other options or inputs than `identity`."""
    if not has_run(path):
        return
    changed = differences(read_manifest(path)["identity"], identity)
    if changed:
        raise UserError(
            f"{path} holds a run with other options ({'; '.join(changed)}): "
            "give another save_dir, or remove this folder"
        )


def to_json(content: dict) -> str:
    """Return a dict as JSON text; equal dicts give equal texts."""
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def differences(old: dict, new: dict, prefix: str = "") -> list[str]:
    """Return the differences between two nested dicts as texts like ``seed: 1 there, 2 now``."""
    found = []
    for key in dict.fromkeys([*old, *new]):
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found += differences(a, b, f"{prefix}{key}.")
        elif a != b:
            a, b = (one_line(value, VALUE_WIDTH) for value in (a, b))
            found.append(f"{prefix}{key}: {a} there, {b} now")
    return found
