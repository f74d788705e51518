"""The original's json files of video object segmentation (``--cfg_file``), as Hydra overrides."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import yaml
from omegaconf import OmegaConf

from configs import CONFIG_DIR, UserError, nearest, rows
from configs.grammar import unquoted, written

TABLE = OmegaConf.to_container(OmegaConf.load(CONFIG_DIR / "cfg_file.yaml"))
# keys that are options on the command line as well; ``dataset`` is one of Hydra's own
OPTIONS = [
    *(key for key in TABLE["keys"] if key != "dataset"),
    *dict.fromkeys(key for model in TABLE["models"].values() for key in model.get("keys", ())),
    *TABLE["only"],
    *TABLE["without_effect"],
]
OTHERS = ("model", "extra_args", "dataset")


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
        names = [name for name, about in TABLE["models"].items() if about["row"] == model]
        found = overrides({"model": names[0] if names else model} | said, "the command line")
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
        No such file, or one that holds no dict.
    """
    path = Path(name).expanduser()
    path = path if path.is_file() else CONFIG_DIR.parent / path
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        known = [str(p.relative_to(CONFIG_DIR.parent)) for p in CONFIG_DIR.glob("**/*.json")]
        raise UserError(f"cfg_file={name} does not exist{nearest(str(name), known)}") from error
    except ValueError as error:
        raise UserError(f"cfg_file={name} is not a json file ({error})") from error
    if not isinstance(content, dict) or "model" not in content:
        raise UserError(f"cfg_file={name} names no model: it is a json dict with model, crop_size, ...")
    return content


def overrides(content: dict, source: str) -> dict:
    """What a json file asks for, as keys of ``config.yaml`` and their values.

    Raises
    ------
    UserError
        An unknown key or model, or a value that there is not.
    """
    name = content["model"]
    if name not in TABLE["models"]:
        known = ", ".join(TABLE["models"])
        raise UserError(
            f"{source}: unknown model {name!r}{nearest(str(name), TABLE['models'])} (known: {known})"
        )
    model = TABLE["models"][name]
    known = [*OTHERS, *OPTIONS]
    targets = TABLE["keys"] | model.get("keys", {})
    only = TABLE["only"] | model.get("only", {})
    found = {"model": model["row"]}
    for key, value in content.items():
        if key not in known:
            raise UserError(f"{source}: unknown key {key!r}{nearest(key, known)}")
        if key == "crop_size" and not _is_size(value):
            raise UserError(f"{source}: crop_size={value}: height and width are expected, as in [480,854]")
        if key in only and value != only[key]:
            raise UserError(f"{source}: {key}={value}: model {name} has only {key}={only[key]}")
        found |= dict.fromkeys(targets.get(key, ()), value)
    extra = content.get("extra_args") or {}
    for key, value in extra.items():
        if key not in model.get("extra_args", ()):
            near = nearest(key, model.get("extra_args", ()))
            raise UserError(f"{source}: extra_args: model {name} has no {key!r}{near}")
        found[f"model.args.{key}"] = value
    if extra:
        # the original's name of the results
        found["model.original_name"] = "_".join([name, *(f"{key}_{value}" for key, value in extra.items())])
    return found


def _is_size(value) -> bool:
    sides = value if isinstance(value, list) else []
    return len(sides) == 2 and all(isinstance(side, int) and side > 0 for side in sides)


def parsed(value: str):
    """A value of the command line, as yaml reads it; with commas it is a list."""
    value = unquoted(value)
    try:
        return yaml.safe_load(f"[{value}]" if "," in value and not value.startswith("[") else value)
    except yaml.YAMLError as error:
        raise UserError(f"{value!r} cannot be read as a value") from error
