"""The original's json files of video object segmentation (``--cfg_file``), as Hydra overrides."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import yaml
from omegaconf import OmegaConf

from static_dynamic.configs import CONFIG_DIR, row, rows
from static_dynamic.configs.grammar import unquoted, written
from static_dynamic.errors import UserError, nearest

TABLE = OmegaConf.to_container(OmegaConf.load(CONFIG_DIR / "cfg_file.yaml"))
# keys that are options on the command line as well; ``dataset`` is one of Hydra's own
OPTIONS = [
    *(key for key in TABLE["keys"] if key != "dataset"),
    *dict.fromkeys(key for model in TABLE["models"].values() for key in model.get("keys", ())),
    *TABLE["only"],
    *TABLE["without_effect"],
]
OTHERS = ("model", "extra_args", "dataset")
# kind of a default in the rows: what a value has to be
KINDS = {
    bool: "true or false",
    int: "a whole number from 1 on",
    str: "a word",
    type(None): "a word or a number",
}


def expand(arguments: Sequence[str]) -> list[str]:
    """Replace what is said in the original's keys, in a json file or on the command line, by overrides.

    The command line wins over the file, and Hydra's own keys (``seed=2``) over both.

    Raises
    ------
    UserError
        No such file, an unknown key or model (with the nearest known name), or a value that there is not.
    """
    given = dict(word.partition("=")[::2] for word in arguments)
    said = {key: parsed(given[key]) for key in OPTIONS if key in given}
    if "cfg_file" not in given and not said:
        return list(arguments)
    if "cfg_file" in given:
        source = unquoted(given["cfg_file"])
        if "model" in given:
            raise UserError(f"cfg_file={source} says the network already: leave model=... out")
        found = TABLE["defaults"] | overrides(read_cfg_file(source) | said, source)
    else:
        model = given.get("model", "")
        names = {about["row"]: name for name, about in TABLE["models"].items()}
        if model not in names:
            raise UserError(
                f"{next(iter(said))} is an option of networks of images and flow: give it with "
                f"--cfg_file FILE, or with --model {', '.join(names)}"
            )
        found = overrides({"model": names[model]} | said, "the command line")
        del found["model"]  # Hydra has it already
    # a data set of another kind has no such keys, and is refused where it is known what it lacks
    dataset = given.get("dataset", found.get("dataset"))
    if dataset in rows("dataset"):
        there = OmegaConf.load(CONFIG_DIR / "dataset" / f"{dataset}.yaml")
        found = {k: v for k, v in found.items() if k.removeprefix("dataset.") in (k, *there)}
    rest = [word for word in arguments if word.partition("=")[0] not in said]
    return [*(f"{key}={written(value)}" for key, value in found.items() if key not in given), *rest]


def read_cfg_file(name: str | Path) -> dict:
    """Content of a json file; a relative path that is not found starts at this project's root.

    Raises
    ------
    UserError
        No such file, or one that holds no dict; one that would have values filled in (``${...}``).
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
    if "${" in json.dumps(content):  # a file from elsewhere reads no environment
        raise UserError(f"cfg_file={name}: ${{...}} is not filled in here: write the value itself")
    return content


def overrides(content: dict, source: str) -> dict:
    """What a json file asks for, as keys of ``config.yaml`` and their values.

    Raises
    ------
    UserError
        An unknown key or model, or a value that there is not.
    """
    name = content["model"]
    if not isinstance(name, str) or name not in TABLE["models"]:
        known = ", ".join(TABLE["models"])
        raise UserError(
            f"{source}: unknown model {name!r}{nearest(str(name), TABLE['models'])} (known: {known})"
        )
    model = TABLE["models"][name]
    known = [*OTHERS, *OPTIONS]
    targets = TABLE["keys"] | model.get("keys", {})
    only = TABLE["only"] | model.get("only", {})
    defaults = {"model": row("model", model["row"]), "dataset": row("dataset", TABLE["defaults"]["dataset"])}
    found = {"model": model["row"]}
    for key, value in content.items():
        if key not in known:
            raise UserError(f"{source}: unknown key {key!r}{nearest(key, known)}")
        if key == "crop_size" and not _is_size(value):
            raise UserError(f"{source}: crop_size={value!r}: height and width are expected, as in [480,854]")
        if key in only and value != only[key]:
            raise UserError(f"{source}: {key}={value!r}: model {name} has only {key}={only[key]}")
        for target in targets.get(key, ()):
            require_kind(f"{source}: {key}", value, OmegaConf.select(OmegaConf.create(defaults), target))
            found[target] = value
    extra = content.get("extra_args") or {}
    if not isinstance(extra, dict):
        raise UserError(f"{source}: extra_args={extra!r}: a dict of the network's options is expected")
    for key, value in extra.items():
        if key not in model.get("extra_args", ()):
            near = nearest(key, model.get("extra_args", ()))
            raise UserError(f"{source}: extra_args: model {name} has no {key!r}{near}")
        require_kind(f"{source}: extra_args: {key}", value, defaults["model"].args[key])
        found[f"model.args.{key}"] = value
    if extra:
        # the original's name of the results
        found["model.original_name"] = "_".join([name, *(f"{key}_{value}" for key, value in extra.items())])
    return found


def require_kind(said: str, value, default) -> None:
    """Raise where a value is of another kind than the default of its key."""
    kind = type(default)
    fits = {
        bool: type(value) is bool,
        int: type(value) is int and value > 0,
        str: type(value) in (str, int),  # there are splits that are called by a year
        type(None): value is None or type(value) in (str, int),
    }
    if not fits.get(kind, True):
        raise UserError(f"{said}={value!r}: {KINDS[kind]} is expected")


def _is_size(value) -> bool:
    sides = value if isinstance(value, list) else []
    return len(sides) == 2 and all(type(side) is int and side > 0 for side in sides)


def parsed(value: str):
    """A value of the command line, as yaml reads it; with commas it is a list."""
    value = unquoted(value)
    try:
        return yaml.safe_load(f"[{value}]" if "," in value and not value.startswith("[") else value)
    except yaml.YAMLError as error:
        raise UserError(f"{value!r} cannot be read as a value") from error
