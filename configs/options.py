"""The command line: the original programs' flags (``--stg 5``) become Hydra overrides (``stg=5``), and every
override is checked before anything runs."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from itertools import takewhile

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from static_dynamic.configs import CONFIG_DIR, GROUPS, row
from static_dynamic.configs.cfg_file import OPTIONS, expand
from static_dynamic.configs.common import Common
from static_dynamic.configs.grammar import quote
from static_dynamic.configs.schema import Option, options_of
from static_dynamic.configs.tasks import tasks
from static_dynamic.errors import UserError, nearest

log = logging.getLogger(__name__)

# Hydra's own flags, and whether a value follows
HYDRA_FLAGS = {
    **dict.fromkeys(("-m", "--multirun", "--hydra-help", "--version", "--resolve", "--info"), False),
    **dict.fromkeys(("-c", "--cfg", "-p", "--package", "-cn", "--config-name", "-cd", "--config-dir"), True),
}
FLAGS: dict[str, str] = OmegaConf.to_container(OmegaConf.load(CONFIG_DIR / "flags.yaml"))
HELP = "python main.py --help lists them"
COMMON = {option.name: option for option in options_of(Common)}
TOP_LEVEL = [*GROUPS, *dict.fromkeys(name.partition(".")[0] for name in COMMON)]


def translate(arguments: Sequence[str]) -> list[str]:
    """Turn ``--name value`` and ``--name=value``, and the content of ``--cfg_file``, into Hydra overrides.

    Overrides and Hydra's own flags stay as they are.

    Raises
    ------
    UserError
        An unknown flag (the message has the nearest known name), or a flag without a value.
    """
    known = [*TOP_LEVEL, *FLAGS, *OPTIONS]
    translated, waiting = [], list(arguments)
    while waiting:
        word = waiting.pop(0)
        if word in HYDRA_FLAGS or not word.startswith("--"):
            translated.append(word)
            if HYDRA_FLAGS.get(word) and waiting:
                translated.append(waiting.pop(0))
            continue
        name, equals, value = word.removeprefix("--").partition("=")
        if name.partition(".")[0] not in known:
            raise UserError(f"unknown option --{name}{nearest(name, known)} ({HELP})")
        if not equals:
            if not waiting or waiting[0].startswith("--"):
                raise UserError(f"option --{name} needs a value")
            value = waiting.pop(0)
        translated.append(f"{FLAGS.get(name, name)}={quote(value)}")
    return expand(translated)


def check(arguments: Sequence[str]) -> None:
    """Check overrides before Hydra starts; warn of options without effect.

    Raises
    ------
    UserError
        An unknown name (the message has the nearest known one), or a value that the option does not take.
    """
    overrides = parse(arguments)
    sweep = {"-m", "--multirun"} & set(arguments)
    for override in overrides:
        check_name(override)
        if override.is_sweep_override() and not sweep:
            raise UserError(
                f"{override.input_line} are several values: give -m to run once for each, or "
                f"--{override.key_or_group} {','.join(values_of(override))} "
                "for one value with commas"
            )
    of_hydra = [o.input_line for o in overrides if o.key_or_group.startswith("hydra")]
    for combination in first_of_sweeps(overrides):
        check_values(composed(combination))
    composed(of_hydra, return_hydra_config=True)
    for override in overrides:
        option = COMMON.get(override.key_or_group)
        if option and option.ignored:
            log.warning("%s has no effect: %s", option.name, option.about)


def parse(arguments: Sequence[str]) -> list[Override]:
    """Parse the overrides among the arguments; Hydra's own flags and their values are skipped."""
    words = [
        word
        for before, word in zip(["", *arguments], arguments, strict=False)
        if not word.startswith("-") and not HYDRA_FLAGS.get(before)
    ]
    try:
        return OverridesParser.create().parse_overrides(words)
    except HydraException as error:
        raise UserError(_one_line(error)) from error


def check_name(override: Override) -> None:
    """Raise UserError if an override names no option at the top level, or no row of a table."""
    name = override.key_or_group
    if override.is_add() or name.startswith("hydra"):
        return
    if name in GROUPS:
        for value in values_of(override):
            row(name, value)
    elif name.partition(".")[0] not in TOP_LEVEL and "@" not in name:
        raise UserError(unknown(name, {n: n for n in [*suggested(TOP_LEVEL), *OPTIONS]} | FLAGS))


def composed(overrides: Sequence[str], return_hydra_config: bool = False) -> DictConfig:
    """Compose the configuration.

    Raises
    ------
    UserError
        An unknown name below the top level, or a value of the wrong type.
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
            raise UserError(f"{given} (expected: {option.values})") from error


def options_in(overrides: Sequence[str]) -> dict[str, Option]:
    """The common options and those of the task that the overrides choose, by name."""
    task = {"task": "profile", **dict(line.partition("=")[::2] for line in overrides)}["task"]
    return COMMON | {option.name: option for option in options_of(type(tasks()[task]), "task.")}


def siblings(config: DictConfig, name: str) -> dict[str, str]:
    """Names beside an unknown one, without and with the path before them.

    Among the options of a task, the common options and the flags of the original programs count as well.
    """
    path, _, _ = name.rpartition(".")
    node = OmegaConf.select(config, path) if path else config
    found = {str(key): f"{path}.{key}" for key in node} if isinstance(node, DictConfig) else {}
    if path == "task":
        own = {key: full for key, full in found.items() if key not in ("name", "about", "run", "needs_data")}
        flags = {flag: full for flag, full in FLAGS.items() if full in (*own.values(), *COMMON)}
        return {key: key for key in suggested(COMMON)} | flags | own
    return found


def suggested(names: Iterable[str]) -> list[str]:
    """The names of options that have an effect."""
    return [name for name in names if name not in COMMON or not COMMON[name].ignored]


def unknown(name: str, known: dict[str, str]) -> str:
    """Write the message for an unknown option; `known` maps the last part of a name to the whole name."""
    close = nearest(name.rpartition(".")[2], known).rpartition(": ")[2]
    group = name.partition(".")[0]
    where = f"python main.py {group}=NAME --help lists them" if group in GROUPS else HELP
    return f"unknown option {name}" + (f"; nearest known: {known[close]} ({where})" if close else "")


def values_of(override: Override) -> list[str]:
    """Every value of an override, as text: one, or those of a sweep."""
    return (
        [str(v) for v in override.sweep_string_iterator()]
        if override.is_sweep_override()
        else [str(override.value())]
    )


def first_of_sweeps(overrides: Iterable[Override]) -> list[list[str]]:
    """List the overrides to check: each sweep at its first value, and each further value of a sweep once."""
    overrides = [o for o in overrides if not o.key_or_group.startswith("hydra")]
    first = [
        f"{o.key_or_group}={values_of(o)[0]}" if o.is_sweep_override() else o.input_line for o in overrides
    ]
    combinations = [first]
    for i, override in enumerate(overrides):
        if override.is_sweep_override():
            combinations += [
                [*first[:i], f"{override.key_or_group}={value}", *first[i + 1 :]]
                for value in values_of(override)[1:]
            ]
    return combinations


def check_values(config: DictConfig) -> None:
    """Raise UserError if an option has a value that it does not take."""
    for option in options_in([f"task={config.task.name}"]).values():
        value = OmegaConf.select(config, option.name)
        for one in value if isinstance(value, ListConfig) else [value]:
            if option.choices and type(one) is type(option.choices[0]) and one not in option.choices:
                near = nearest(str(one), map(str, option.choices))
                raise UserError(f"{option.name}={one}{near} (known: {', '.join(map(str, option.choices))})")
        if option.least is not None and isinstance(value, int | float) and value < option.least:
            raise UserError(f"{option.name}={value}: a number from {option.least} on is expected")
    if config.stylized_data_dir is not None and config.dataset.get("prepare"):
        raise UserError(
            f"stylized_data_dir={config.stylized_data_dir} is not read by dataset={config.dataset.name}: "
            "say which data set it holds, e.g. --dataset folder"
        )


def _one_line(error: Exception) -> str:
    """Return Hydra's message as one line, without its advice to add a key and its search path."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith("To append to your config")]
    message = "; ".join(lines[:2]) or type(error).__name__
    known = takewhile(lambda line: not line.startswith("Config search path"), lines[2:])
    return f"{message} {', '.join(known)}" if message.endswith(":") else message
