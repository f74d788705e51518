"""The command line: the original programs' flags (``--stg 5``) beside Hydra overrides (``stg=5``),
checked before anything runs."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import takewhile

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from static_dynamic.configs import CONFIG_DIR, require_available, rows
from static_dynamic.configs.cfg_file import OPTIONS, expand
from static_dynamic.configs.grammar import quoted
from static_dynamic.errors import UserError, nearest

log = logging.getLogger(__name__)

GROUPS = ("task", "dataset", "model", "style")
# Hydra's own flags, and whether a value follows
HYDRA_FLAGS = {
    **dict.fromkeys(("-m", "--multirun", "--hydra-help", "--version", "--resolve", "--info"), False),
    **dict.fromkeys(("-c", "--cfg", "-p", "--package", "-cn", "--config-name", "-cd", "--config-dir"), True),
}


def translate(arguments: Sequence[str]) -> list[str]:
    """Turn ``--name value`` and ``--name=value`` into Hydra overrides, and so what ``--cfg_file`` says; leave
    overrides and Hydra's own flags as they are.

    Raises
    ------
    UserError
        An unknown flag (with the nearest known name), or one without a value.
    """
    aliases = OmegaConf.load(CONFIG_DIR / "flags.yaml").aliases
    known = [*known_keys(), *aliases, *OPTIONS]
    translated, waiting = [], list(arguments)
    while waiting:
        word = waiting.pop(0)
        if word in HYDRA_FLAGS or not word.startswith("--"):
            translated.append(word)
            if HYDRA_FLAGS.get(word) and waiting:
                translated.append(waiting.pop(0))
            continue
        name, equals, value = word.removeprefix("--").partition("=")
        if name not in known:
            raise UserError(
                f"unknown option --{name}{nearest(name, known)} (python main.py --help lists them)"
            )
        if not equals:
            if not waiting or waiting[0].startswith("--"):
                raise UserError(f"option --{name} needs a value")
            value = waiting.pop(0)
        translated.append(f"{aliases.get(name, name)}={quoted(value)}")
    return expand(translated)


@cache
def known_keys() -> list[str]:
    """Top-level keys of the configuration, with the groups."""
    config = OmegaConf.load(CONFIG_DIR / "config.yaml")
    return [*GROUPS, *(key for key in config if key not in ("defaults", "hydra"))]


def check(arguments: Sequence[str]) -> None:
    """Refuse what cannot be composed or is not available yet, before Hydra starts; warn of what has no
    effect.

    Raises
    ------
    UserError
        An unknown key or row (with the nearest known name), or a value of the wrong kind.
    """
    words = [word for word in arguments if not word.startswith("-")]
    try:
        overrides = OverridesParser.create().parse_overrides(words)
    except HydraException as error:
        raise UserError(_one_line(error)) from error
    sweep = {"-m", "--multirun"} & set(arguments)
    for override in overrides:
        check_name(override)
        if override.is_sweep_override() and not sweep:
            raise UserError(
                f"{override.input_line} are several values: give -m to run once for each, or "
                f"--{override.key_or_group} {','.join(choices(override))} "
                "for one value with commas"
            )
    try:
        with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
            for combination in first_of_sweeps(overrides):
                config = compose("config", overrides=combination)
                check_values(config)
            of_hydra = [o.input_line for o in overrides if o.key_or_group.startswith("hydra")]
            compose("config", overrides=of_hydra, return_hydra_config=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(_one_line(error)) from error
    _warn_without_effect(overrides)


def check_name(override: Override) -> None:
    """Refuse an override of a key or a row that is not there."""
    name = override.key_or_group
    if override.is_add() or name.startswith("hydra"):
        return
    if name in GROUPS:
        for choice in choices(override):
            if choice not in rows(name):
                raise UserError(
                    f"unknown {name} {choice!r}{nearest(choice, rows(name))} (known: {', '.join(rows(name))})"
                )
            require_available(name, choice, OmegaConf.load(CONFIG_DIR / name / f"{choice}.yaml"))
    elif re.split(r"[.@/]", name)[0] not in known_keys():
        near = nearest(name, [*known_keys(), *OPTIONS])
        raise UserError(f"unknown option {name}{near} (python main.py --help lists them)")


def choices(override: Override) -> list[str]:
    """Every value of an override, as text: one, or those of a sweep."""
    return (
        [str(v) for v in override.sweep_string_iterator()]
        if override.is_sweep_override()
        else [str(override.value())]
    )


def first_of_sweeps(overrides: Iterable[Override]) -> list[list[str]]:
    """Override lists to try: each sweep at its first value, and each further value of each sweep once."""
    overrides = [o for o in overrides if not o.key_or_group.startswith("hydra")]
    first = [
        f"{o.key_or_group}={choices(o)[0]}" if o.is_sweep_override() else o.input_line for o in overrides
    ]
    combinations = [first]
    for i, override in enumerate(overrides):
        if override.is_sweep_override():
            combinations += [
                [*first[:i], f"{override.key_or_group}={value}", *first[i + 1 :]]
                for value in choices(override)[1:]
            ]
    return combinations


def check_values(config: DictConfig) -> None:
    """Refuse values of another kind than the default's, and those that are not available yet."""
    defaults = OmegaConf.load(CONFIG_DIR / "config.yaml")
    words = OmegaConf.load(CONFIG_DIR / "flags.yaml").words
    for key, default in defaults.items():
        value = config.get(key)
        if value is not None and value == words.get(key):
            continue
        kind = (
            bool if isinstance(default, bool) else (int, float) if isinstance(default, int | float) else None
        )
        if kind and (not isinstance(value, kind) or (kind is not bool and isinstance(value, bool))):
            wanted = "true or false" if kind is bool else "a number"
            raise UserError(f"{key}={value}: {wanted} is expected")
        if isinstance(default, int) and not isinstance(default, bool) and isinstance(value, float):
            raise UserError(f"{key}={value}: a whole number is expected")
    for flag, supported in OmegaConf.load(CONFIG_DIR / "flags.yaml").not_available_yet.items():
        if config[flag] != supported:
            raise UserError(f"not available yet: {flag}={config[flag]} (only {flag}={supported} is)")
    if config.stylized_data_dir is not None and config.dataset.get("prepare"):
        raise UserError(
            f"stylized_data_dir={config.stylized_data_dir} is not read by dataset={config.dataset.name}: "
            "say which data set it holds, e.g. --dataset folder"
        )


def _warn_without_effect(overrides: Iterable[Override]) -> None:
    reasons = OmegaConf.load(CONFIG_DIR / "flags.yaml").without_effect
    for override in overrides:
        if override.key_or_group in reasons:
            log.warning("%s has no effect: %s", override.key_or_group, reasons[override.key_or_group])


def help_text() -> str:
    """Tasks, models and data sets with one line each, and every option with its default and its comment."""
    parts = [
        "How much of what a video network encodes is static, and how much is dynamic?\n",
        "    python main.py                             real video, a real network: a first look",
        "    python main.py --stylized_data_dir DIR --dataset folder --model NAME --checkpoint FILE --stg 5",
        "    python main.py --cfg_file configs/matnet_davis.json   a network of images and flow (DAVIS)",
        "    python main.py -m model=a,b seed=1,2,3,4   every combination",
        "\nOptions are given as --name value or name=value.",
    ]
    for group in GROUPS:
        parts.append(f"\n{group}=")
        for name in rows(group):
            row = OmegaConf.load(CONFIG_DIR / group / f"{name}.yaml")
            later = " (not available yet)" if row.get("not_available_yet") else ""
            parts.append(f"  {name:<30}{row.about}{later}")
    parts.append("\noptions")
    in_defaults = False
    for line in (CONFIG_DIR / "config.yaml").read_text().splitlines():
        in_defaults = line.startswith("defaults:") or (in_defaults and line.startswith(" "))
        if line.startswith("hydra:"):
            break
        found = re.match(r"(\w+): (\S+)\s*(?:# (.*))?$", line)
        if found and not in_defaults:
            parts.append(f"  {found[1] + '=' + found[2]:<30}{found[3] or ''}".rstrip())
    return "\n".join(parts)


def _one_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = "; ".join(lines[:2]) or type(error).__name__
    known = takewhile(lambda line: not line.startswith("Config search path"), lines[2:])
    return f"{said} {', '.join(known)}" if said.endswith(":") else said
