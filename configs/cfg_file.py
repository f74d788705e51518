"""Translate Kowal et al.'s json files for two-stream networks (``--cfg_file``) to Hydra overrides.

The keys of these json files are also options on the command line (``--crop_size 240,427``).
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import yaml
from omegaconf import OmegaConf

from static_dynamic.errors import UserError, nearest, quoted, reason

from . import CONFIG_DIR, row, rows
from .grammar import format_value, unquote

TABLE = cast(dict[str, Any], OmegaConf.to_container(OmegaConf.load(CONFIG_DIR / "cfg_file.yaml")))
_TARGETS = TABLE["keys"] | {
    k: v for model in TABLE["models"].values() for k, v in model.get("keys", {}).items()
}
# OPTIONS maps each json key that is also a command-line option to its explanation in --help.
# OPTIONS has no key `dataset`, because --help explains data sets in a separate section.
OPTIONS: dict[str, str] = {
    **{key: f"sets {', '.join(names)}" for key, names in _TARGETS.items() if key != "dataset"},
    **dict.fromkeys(TABLE["only"], "accepted only with the value that the network was trained with"),
    **dict.fromkeys(TABLE["without_effect"], "no effect"),
}
KEYS = ["model", "extra_args", "dataset", *TABLE["common"], *OPTIONS]
# ACCEPTED maps the type of a key's default value to (description, test function) of the allowed values.
ACCEPTED = {
    bool: ("true or false", lambda value: type(value) is bool),
    int: ("a whole number from 1 on", lambda value: type(value) is int and value > 0),
    # An option with a text as default also accepts an int, because some DAVIS splits are named by a year.
    str: ("a word", lambda value: type(value) in (str, int)),
    type(None): ("a word or a number", lambda value: value is None or type(value) in (str, int)),
}


def expand(arguments: Sequence[str]) -> list[str]:
    """Replace ``cfg_file=FILE`` and json keys such as ``crop_size=...`` by this project's Hydra overrides.

    The command line takes precedence over the json file, and option names (``seed=2``) over json keys.
    Raises UserError if the file does not exist, a key or the model is unknown, or a value is invalid.
    """
    given = dict(word.partition("=")[::2] for word in arguments)
    keys = {key: parse_value(given[key]) for key in OPTIONS if key in given}
    if "cfg_file" not in given and not keys:
        return list(arguments)
    if "cfg_file" in given:
        source = unquote(given["cfg_file"])
        if "model" in given:
            raise UserError(f"cfg_file={source} already names the network: leave out model=...")
        found = TABLE["defaults"] | to_overrides(read_cfg_file(source) | keys, source)
    else:
        model = given.get("model", "")
        names = {about["row"]: name for name, about in TABLE["models"].items()}
        if model not in names:
            raise UserError(
                f"{next(iter(keys))} is an option of networks that take images and flow: add --cfg_file FILE,"
                f" or choose one of these networks with --model: {', '.join(names)}"
            )
        found = to_overrides({"model": names[model]} | keys, "the command line")
        # Leave out the override model=..., because it is already one of the arguments.
        del found["model"]
    # Drop options that the data set lacks, so that the user gets the later error about missing optical flow
    # instead of an error about an unknown option.
    dataset = given.get("dataset", found.get("dataset"))
    if dataset in rows("dataset"):
        known = row("dataset", dataset)
        found = {k: v for k, v in found.items() if k.removeprefix("dataset.") in (k, *known)}
    rest = [word for word in arguments if word.partition("=")[0] not in keys]
    return [*(f"{key}={format_value(value)}" for key, value in found.items() if key not in given), *rest]


def read_cfg_file(name: str | Path) -> dict:
    """Read a json file of Kowal et al.'s code; the path may be relative to the root folder of this project.

    Raises UserError if the file does not exist, is not a json dict with a model, or holds ``${...}``.
    """
    path = Path(name).expanduser()
    path = path if path.is_file() else CONFIG_DIR.parent / path
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        known = [str(p.relative_to(CONFIG_DIR.parent)) for p in CONFIG_DIR.glob("**/*.json")]
        raise UserError(f"cfg_file={name} does not exist{nearest(str(name), known)}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"cfg_file={name} is not a json file ({reason(error)})") from error
    if not isinstance(content, dict) or "model" not in content:
        raise UserError(
            f"cfg_file={name} has no key model: a json object with model, crop_size, ... is expected"
        )
    # Refuse ${...}: OmegaConf would resolve it, and a downloaded file could read environment variables.
    if "${" in json.dumps(content):
        raise UserError(f"cfg_file={name} contains ${{...}}, which is not allowed: write the value itself")
    return content


def to_overrides(content: dict, source: str) -> dict:
    """Translate a json file's content to a dict {option name, such as ``model.input.crop``: value}.

    Raises UserError if a key or the model is unknown or a value is invalid. The message begins with `source`.
    """
    name = content["model"]
    if isinstance(name, str) and name in TABLE["absent"]:
        raise UserError(f"{source}: the network {name} is not part of this program: {TABLE['absent'][name]}")
    if not isinstance(name, str) or name not in TABLE["models"]:
        near, known = nearest(str(name), TABLE["models"]), ", ".join(TABLE["models"])
        raise UserError(f"{source}: unknown model {quoted(name)}{near} (known: {known})")
    model = TABLE["models"][name]
    targets = TABLE["keys"] | model.get("keys", {})
    only = TABLE["only"] | model.get("only", {})
    defaults = {"model": row("model", model["row"]), "dataset": row("dataset", TABLE["defaults"]["dataset"])}
    found = {"model": model["row"]}
    for key, value in content.items():
        if key not in KEYS:
            raise UserError(f"{source}: unknown key {quoted(key)}{nearest(key, KEYS)}")
        size = isinstance(value, list) and [type(side) for side in value] == [int, int] and min(value) > 0
        if key == "crop_size" and not size:
            raise UserError(
                f"{source}: crop_size={quoted(value)}: height and width are expected, as in [480,854]"
            )
        if key in only and value != only[key]:
            raise UserError(
                f"{source}: {key}={quoted(value)} is invalid: {name} accepts only {key}={only[key]}"
            )
        if key in TABLE["common"]:
            require_type(f"{source}: {key}", value, "")
            found[key] = value
        for target in targets.get(key, ()):
            require_type(f"{source}: {key}", value, OmegaConf.select(OmegaConf.create(defaults), target))
            found[target] = value
    extra = content.get("extra_args") or {}
    if not isinstance(extra, dict):
        raise UserError(f"{source}: extra_args={quoted(extra)}: a dict of the network's options is expected")
    for key, value in extra.items():
        if key not in model.get("extra_args", ()):
            near = nearest(key, model.get("extra_args", ()))
            raise UserError(f"{source}: extra_args: model {name} has no option {quoted(key)}{near}")
        require_type(f"{source}: extra_args: {key}", value, defaults["model"].args[key])
        found[f"model.args.{key}"] = value
    if extra:
        # As in Kowal et al.'s code, the names of result files consist of the model's name and extra_args.
        found["model.original_name"] = "_".join([name, *(f"{key}_{value}" for key, value in extra.items())])
    return found


def require_type(name: str, value: Any, default: Any) -> None:
    """Raise UserError if the value of the key `name` differs in type from the key's default value."""
    expected, accepts = ACCEPTED.get(type(default), ("any value", lambda value: True))
    if not accepts(value):
        raise UserError(f"{name}={quoted(value)}: {expected} is expected")


def parse_value(value: str) -> Any:
    """Parse a command-line value as yaml text; a value with commas becomes a list."""
    value = unquote(value)
    try:
        return yaml.safe_load(f"[{value}]" if "," in value and not value.startswith("[") else value)
    except yaml.YAMLError as error:
        raise UserError(f"{quoted(value)} cannot be parsed as a yaml value") from error
