"""Translate command-line flags (``--stg 5``) to Hydra overrides (``stg=5``), and check the overrides."""

import logging
import types
import typing
from collections.abc import Iterable, Sequence
from dataclasses import MISSING
from itertools import islice, takewhile
from typing import Any, cast

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from static_dynamic import PROGRAM
from static_dynamic.errors import UserError, nearest, reason

from . import CONFIG_DIR, GROUPS, row
from .cfg_file import OPTIONS, expand
from .common import Common
from .grammar import quote
from .row_options import DatasetRow, ModelRow
from .schema import Option, options_of
from .tasks import tasks

log = logging.getLogger(__name__)

# HYDRA_FLAGS maps each command-line flag of Hydra to the number of values that follow the flag.
HYDRA_FLAGS = {
    **dict.fromkeys(("-m", "--multirun", "--hydra-help", "--version", "--resolve", "--info"), 0),
    **dict.fromkeys(("-c", "--cfg", "-p", "--package", "-cn", "--config-name", "-cd", "--config-dir"), 1),
}
FLAGS = cast(dict[str, str], OmegaConf.to_container(OmegaConf.load(CONFIG_DIR / "flags.yaml")))
# OF_SCRIPTS maps flags of Stergiou et al.'s program to the script that accepts these flags.
OF_SCRIPTS = dict.fromkeys(
    ("model_weights", "model_name", "frame_dir", "backprop_depth", "base_output_dir", "only_dep_graph"),
    "run misc/class_feature_pyramids.py",
)
HELP = f"{PROGRAM} --help lists them"
COMMON = {option.name: option for option in options_of(Common)}
ROWS = [*options_of(ModelRow, "model."), *options_of(DatasetRow, "dataset.")]
DECLARED = {option.name for option in ROWS}
GROUPS_OF_ROWS = ("model", "dataset", "style")
# LARGEST: largest absolute value of a number if the option declares no bounds.
LARGEST = 10**12
TOP_LEVEL = [*GROUPS, *dict.fromkeys(name.partition(".")[0] for name in COMMON)]


def translate(arguments: Sequence[str]) -> list[str]:
    """Turn ``--name value`` and ``--name=value``, and the content of ``--cfg_file``, into Hydra overrides.

    Overrides and Hydra's own flags stay unchanged. Raises UserError if a flag is unknown or lacks its value.
    """
    known = [*TOP_LEVEL, *FLAGS, *OPTIONS]
    translated, words = [], iter(arguments)
    for word in words:
        if word in HYDRA_FLAGS or not word.startswith("--"):
            translated += [word, *islice(words, HYDRA_FLAGS.get(word, 0))]
            continue
        name, equals, value = word.removeprefix("--").partition("=")
        if name in OF_SCRIPTS:
            raise UserError(f"--{name} is a flag of another program: {OF_SCRIPTS[name]}")
        if name.partition(".")[0] not in known:
            raise UserError(f"unknown option --{name}{nearest(name, known)} ({HELP})")
        if not equals and (value := next(words, "--")).startswith("--"):
            raise UserError(f"option --{name} needs a value")
        translated.append(f"{FLAGS.get(name, name)}={quote(value)}")
    return expand(translated)


def check(arguments: Sequence[str]) -> None:
    """Check all overrides before Hydra starts, and warn about options that have no effect.

    Raises UserError for an unknown name, with the nearest known name, and for a value that is not allowed.
    """
    overrides = parse(arguments)
    sweep = {"-m", "--multirun"} & set(arguments)
    for override in overrides:
        check_name(override)
        if override.is_sweep_override() and not sweep:
            raise UserError(
                f"{override.input_line} lists several values: give -m for one run per value, or write "
                f"--{override.key_or_group} {','.join(values_of(override))} for a single value with commas"
            )
    of_hydra = [str(o.input_line) for o in overrides if o.key_or_group.startswith("hydra")]
    for combination in combinations_to_check(overrides):
        config = composed(combination)
        try:
            OmegaConf.to_container(config, resolve=True)
            check_values(config)
        except OmegaConfBaseException as error:  # an interpolation ${...} refers to an unknown option
            raise UserError(_one_line(error)) from error
        rows = composed([line for line in combination if line.partition("=")[0] in GROUPS])
        for group in GROUPS_OF_ROWS:
            given, usual = (OmegaConf.to_container(one[group], resolve=False) for one in (config, rows))
            check_kinds(given, usual, group)
    if of_hydra:
        composed(of_hydra, return_hydra_config=True)
    for override in overrides:
        option = COMMON.get(override.key_or_group)
        if option and option.ignored:
            log.warning("%s has no effect: %s", option.name, option.about)


def parse(arguments: Sequence[str]) -> list[Override]:
    """Parse the overrides among the arguments; skip Hydra's flags (e.g. --multirun) and the flags' values."""
    words = [
        word
        for before, word in zip(["", *arguments], arguments, strict=False)
        if not word.startswith("-") and not HYDRA_FLAGS.get(before)
    ]
    try:
        return OverridesParser.create().parse_overrides(words)
    except HydraException as error:
        raise UserError(_one_line(error)) from error
    except ValueError as error:  # Python refuses to parse integers with thousands of digits
        raise UserError(f"an option has too many digits ({reason(error)}): give a smaller number") from error


def check_name(override: Override) -> None:
    """Raise UserError for an unknown top-level option, or an unknown task, network, data set or style."""
    name = override.key_or_group
    if override.is_add() or name.startswith("hydra"):
        return
    if name in GROUPS:
        for value in values_of(override):
            row(name, value)
    elif name.partition(".")[0] not in TOP_LEVEL and "@" not in name:
        raise UserError(unknown(name, {n: n for n in [*suggested(TOP_LEVEL), *OPTIONS]} | FLAGS))


def composed(overrides: Sequence[str], return_hydra_config: bool = False) -> DictConfig:
    """Return the configuration that Hydra composes from ``config.yaml`` and the overrides.

    Raises UserError if a name below the top level (``task.width``) is unknown or a value has the wrong type.
    """
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        try:
            return compose("config", list(overrides), return_hydra_config=return_hydra_config)
        except (HydraException, OmegaConfBaseException) as error:
            cause = error.__cause__ or error
            name = str(getattr(cause, "full_key", None) or "")
            if isinstance(cause, ConfigKeyError | ConfigAttributeError) and name:
                tables = [o for o in overrides if (key := o.partition("=")[0]) in GROUPS or "/" in key]
                config = compose("config", tables, return_hydra_config=return_hydra_config)
                raise UserError(unknown(name, siblings(config, name))) from error
            option = options_in(overrides).get(name.partition("[")[0])
            if option is None:
                raise UserError(_one_line(error)) from error
            given = next((line for line in overrides if line.startswith(option.name)), option.name)
            raise UserError(f"invalid value {given} (expected: {option.values})") from error


def options_in(overrides: Sequence[str]) -> dict[str, Option]:
    """Return a dict {name: option} of the common options and of the options of the chosen task."""
    task = {"task": "profile", **dict(line.partition("=")[::2] for line in overrides)}["task"]
    return COMMON | {option.name: option for option in options_of(type(tasks()[task]), "task.")}


def siblings(config: DictConfig, name: str) -> dict[str, str]:
    """Return a dict {last part: full name} of the options that have the same prefix as the unknown `name`.

    For an option of a task, the common options and the flags in ``flags.yaml`` are included.
    """
    path, _, _ = name.rpartition(".")
    node = OmegaConf.select(config, path) if path else config
    found = {key: f"{path}.{key}" for key in map(str, node)} if isinstance(node, DictConfig) else {}
    if path == "task":
        own = {key: full for key, full in found.items() if key not in ("name", "about", "run", "needs_data")}
        flags = {flag: full for flag, full in FLAGS.items() if full in (*own.values(), *COMMON)}
        return {key: key for key in suggested(COMMON)} | flags | own
    return found


def suggested(names: Iterable[str]) -> list[str]:
    """Return `names` without the options that have no effect, which no error message should suggest."""
    return [name for name in names if name not in COMMON or not COMMON[name].ignored]


def unknown(name: str, known: dict[str, str]) -> str:
    """Return the error message for an unknown option; `known` is a dict {last part of a name: full name}."""
    close = nearest(name.rpartition(".")[2], known).rpartition(": ")[2]
    group = name.partition(".")[0]
    where = f"{PROGRAM} {group}=NAME --help lists them" if group in GROUPS else HELP
    return f"unknown option {name}" + (f"; nearest known: {known[close]} ({where})" if close else "")


def values_of(override: Override) -> list[str]:
    """Return the values of an override as text: several values for a sweep (``seed=1,2``), else one."""
    if override.is_sweep_override():
        return [str(value) for value in override.sweep_string_iterator()]
    return [str(override.value())]


def combinations_to_check(overrides: Iterable[Override]) -> list[list[str]]:
    """Return combinations of overrides that contain each value of each sweep (``seed=1,2``) at least once."""
    choices = [
        [f"{o.key_or_group}={v}" for v in values_of(o)] if o.is_sweep_override() else [str(o.input_line)]
        for o in overrides
        if not o.key_or_group.startswith("hydra")
    ]
    first = [values[0] for values in choices]
    others = [[*first[:i], v, *first[i + 1 :]] for i, values in enumerate(choices) for v in values[1:]]
    return [first, *others]


def check_values(config: DictConfig) -> None:
    """Raise UserError if a value has the wrong type, is not one of an option's choices or is out of range."""
    for option in options_in([f"task={config.task.name}"]).values():
        check_value(option, OmegaConf.select(config, option.name))
    for option in ROWS:
        value = OmegaConf.select(config, option.name, default=MISSING)
        if value is not MISSING:
            if not fits(value, option.type):
                raise UserError(f"invalid value {option.name}={value} (expected: {option.values})")
            check_value(option, value)
    if config.stylized_data_dir is not None and config.dataset.get("prepare"):
        raise UserError(
            f"stylized_data_dir={config.stylized_data_dir} is not used by dataset={config.dataset.name}: "
            "choose the kind of data set that the folder holds, e.g. --dataset folder"
        )


def check_value(option: Option, value: Any) -> None:
    """Raise UserError if a value is not one of the option's choices, or a number is out of range."""
    for one in value if isinstance(value, ListConfig) else [value]:
        if option.choices and type(one) is type(option.choices[0]) and one not in option.choices:
            near = nearest(str(one), map(str, option.choices))
            raise UserError(
                f"unknown value {option.name}={one}{near} (known: {', '.join(map(str, option.choices))})"
            )
        least = -LARGEST if option.least is None else option.least
        most = LARGEST if option.most is None else option.most
        # `not least <= one <= most` is also true for NaN, because every comparison with NaN is false.
        if isinstance(one, int | float) and not isinstance(one, bool) and not least <= one <= most:
            from_least = option.most is None and option.least is not None
            expected = f"from {least} on" if from_least else f"between {least} and {most}"
            raise UserError(f"{option.name}={one}: a number {expected} is expected")


def fits(value: Any, annotation: Any) -> bool:
    """Return whether a value has the type of an option, e.g. ``int | list[int] | None``."""
    if isinstance(annotation, types.UnionType):
        return any(fits(value, kind) for kind in typing.get_args(annotation))
    if typing.get_origin(annotation) is list:
        (kind,) = typing.get_args(annotation)
        return isinstance(value, ListConfig) and len(value) > 0 and all(fits(one, kind) for one in value)
    if typing.get_origin(annotation) is dict:
        kind = typing.get_args(annotation)[1]
        return isinstance(value, DictConfig) and all(fits(one, kind) for one in value.values())
    if annotation in (int, float) and isinstance(value, bool):
        return False
    return isinstance(value, annotation)


def check_kinds(given: Any, usual: Any, name: str) -> None:
    """Raise UserError if an override changes the type of a value in a network's or data set's yaml file.

    `usual` is the value in the yaml. Options that ``row_options.py`` declares may have several kinds.
    """
    if name in DECLARED or usual is None or given == usual:
        return
    if isinstance(usual, dict) and isinstance(given, dict):
        for key, value in usual.items():
            check_kinds(given.get(key), value, f"{name}.{key}")
    elif isinstance(usual, list) and isinstance(given, list):
        for one in given if usual else ():
            check_kinds(one, usual[0], name)
    elif not (_is_number(usual) and _is_number(given)) and type(usual) is not type(given):
        raise UserError(f"invalid value {name}={given} (expected: a value like {usual})")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _one_line(error: Exception) -> str:
    """Return Hydra's error message as one line, without the search path and the hint about new keys."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith("To append to your config")]
    message = "; ".join(lines[:2]) or type(error).__name__
    known = takewhile(lambda line: not line.startswith("Config search path"), lines[2:])
    return f"{message} {', '.join(known)}" if message.endswith(":") else message
