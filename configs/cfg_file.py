"""The original's json files for video object segmentation (``--cfg_file``), translated to Hydra overrides.

The keys of these files are options on the command line as well (``--crop_size 240,427``).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from static_dynamic.configs import CONFIG_DIR, row, rows
from static_dynamic.configs.grammar import format_value, unquote
from static_dynamic.errors import UserError, nearest

TABLE: dict[str, Any] = OmegaConf.to_container(OmegaConf.load(CONFIG_DIR / "cfg_file.yaml"))
_TARGETS = TABLE["keys"] | {
    k: v for model in TABLE["models"].values() for k, v in model.get("keys", {}).items()
}
# Keys that are options on the command line as well (`dataset` is one without this table), and explanations
OPTIONS: dict[str, str] = {
    **{key: f"sets {', '.join(names)}" for key, names in _TARGETS.items() if key != "dataset"},
    **dict.fromkeys(TABLE["only"], "fixed by the network"),
    **dict.fromkeys(TABLE["without_effect"], "no effect"),
}
KEYS = ["model", "extra_args", "dataset", *OPTIONS]
# What a value has to be, by the type of the key's default
EXPECTED = {
    bool: "true or false",
    int: "a whole number from 1 on",
    str: "a word",
    type(None): "a word or a number",
}


def expand(arguments: Sequence[str]) -> list[str]:
    """Replace ``cfg_file=FILE`` and the original's keys among the overrides by overrides of this project.

    The command line takes precedence over the file, and Hydra's names (``seed=2``) over the original's keys.

    Raises
    ------
    UserError
        No such file, an unknown key or model (the message has the nearest known name), or an invalid value.
    """
    given = dict(word.partition("=")[::2] for word in arguments)
    keys = {key: parse_value(given[key]) for key in OPTIONS if key in given}
    if "cfg_file" not in given and not keys:
        return list(arguments)
    if "cfg_file" in given:
        source = unquote(given["cfg_file"])
        if "model" in given:
            raise UserError(f"cfg_file={source} says the network already: leave model=... out")
        found = TABLE["defaults"] | to_overrides(read_cfg_file(source) | keys, source)
    else:
        model = given.get("model", "")
        names = {about["row"]: name for name, about in TABLE["models"].items()}
        if model not in names:
            raise UserError(
                f"{next(iter(keys))} is an option of networks of images and flow: give it with "
                f"--cfg_file FILE, or with --model {', '.join(names)}"
            )
        found = to_overrides({"model": names[model]} | keys, "the command line")
        del found["model"]  # the arguments hold it already
    # Other kinds of data sets lack `nreps` and `split`: without these overrides, the error is the one about
    # missing optical flow.
    dataset = given.get("dataset", found.get("dataset"))
    if dataset in rows("dataset"):
        known = row("dataset", dataset)
        found = {k: v for k, v in found.items() if k.removeprefix("dataset.") in (k, *known)}
    rest = [word for word in arguments if word.partition("=")[0] not in keys]
    return [*(f"{key}={format_value(value)}" for key, value in found.items() if key not in given), *rest]


def read_cfg_file(name: str | Path) -> dict:
    """Read a json file; a relative path that does not exist is looked up in the folder of this project.

    Raises
    ------
    UserError
        No such file, a file that holds no dict with a model, or one with interpolations (``${...}``).
    """
    path = Path(name).expanduser()
    path = path if path.is_file() else CONFIG_DIR.parent / path
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        known = [str(p.relative_to(CONFIG_DIR.parent)) for p in CONFIG_DIR.glob("**/*.json")]
        raise UserError(f"cfg_file={name} does not exist{nearest(str(name), known)}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"cfg_file={name} is not a json file ({error})") from error
    if not isinstance(content, dict) or "model" not in content:
        raise UserError(f"cfg_file={name} names no model: it is a json dict with model, crop_size, ...")
    if "${" in json.dumps(content):  # a file from elsewhere must not read environment variables
        raise UserError(f"cfg_file={name}: ${{...}} is not filled in here: write the value itself")
    return content


def to_overrides(content: dict, source: str) -> dict:
    """Translate the content of a json file to keys of the configuration and their values.

    Raises
    ------
    UserError
        An unknown key or model, or an invalid value; the message begins with `source`.
    """
    name = content["model"]
    if not isinstance(name, str) or name not in TABLE["models"]:
        known = ", ".join(TABLE["models"])
        raise UserError(
            f"{source}: unknown model {name!r}{nearest(str(name), TABLE['models'])} (known: {known})"
        )
    model = TABLE["models"][name]
    targets = TABLE["keys"] | model.get("keys", {})
    only = TABLE["only"] | model.get("only", {})
    defaults = {"model": row("model", model["row"]), "dataset": row("dataset", TABLE["defaults"]["dataset"])}
    found = {"model": model["row"]}
    for key, value in content.items():
        if key not in KEYS:
            raise UserError(f"{source}: unknown key {key!r}{nearest(key, KEYS)}")
        if key == "crop_size" and not _is_size(value):
            raise UserError(f"{source}: crop_size={value!r}: height and width are expected, as in [480,854]")
        if key in only and value != only[key]:
            raise UserError(f"{source}: {key}={value!r}: model {name} has only {key}={only[key]}")
        for target in targets.get(key, ()):
            require_type(f"{source}: {key}", value, OmegaConf.select(OmegaConf.create(defaults), target))
            found[target] = value
    extra = content.get("extra_args") or {}
    if not isinstance(extra, dict):
        raise UserError(f"{source}: extra_args={extra!r}: a dict of the network's options is expected")
    for key, value in extra.items():
        if key not in model.get("extra_args", ()):
            near = nearest(key, model.get("extra_args", ()))
            raise UserError(f"{source}: extra_args: model {name} has no {key!r}{near}")
        require_type(f"{source}: extra_args: {key}", value, defaults["model"].args[key])
        found[f"model.args.{key}"] = value
    if extra:
        # the original's name of the results
        found["model.original_name"] = "_".join([name, *(f"{key}_{value}" for key, value in extra.items())])
    return found


def require_type(name: str, value: Any, default: Any) -> None:
    """Raise UserError if the value of key `name` has another type than the key's default."""
    fits = {
        bool: type(value) is bool,
        int: type(value) is int and value > 0,
        str: type(value) in (str, int),  # some splits are named by a year
        type(None): value is None or type(value) in (str, int),
    }
    if not fits.get(type(default), True):
        raise UserError(f"{name}={value!r}: {EXPECTED[type(default)]} is expected")


def _is_size(value: Any) -> bool:
    sides = value if isinstance(value, list) else []
    return len(sides) == 2 and all(type(side) is int and side > 0 for side in sides)


def parse_value(value: str) -> Any:
    """Parse a value of the command line as yaml; a value with commas is a list."""
    value = unquote(value)
    try:
        return yaml.safe_load(f"[{value}]" if "," in value and not value.startswith("[") else value)
    except yaml.YAMLError as error:
        raise UserError(f"{value!r} cannot be read as a value") from error
