"""Build networks by name.

A config file of ``configs/model`` gives a network's family, the family's arguments and the input spec. A
family is a Python class, or a function, that `register` has put into `FAMILIES`.
"""

import importlib
import pkgutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from omegaconf import DictConfig, OmegaConf

from static_dynamic import configs
from static_dynamic.errors import UserError, nearest
from static_dynamic.models.checkpoints import load_weights
from static_dynamic.models.stage_choice import keep_part
from static_dynamic.models.stages import InputSpec, VideoNetwork
from static_dynamic.models.units import choose_units

FAMILIES: dict[str, Callable[..., VideoNetwork]] = {}


def register(name: str):
    """Return a decorator that registers a network class or function for the config entry ``family: NAME``."""

    def add(build):
        FAMILIES[name] = build
        return build

    return add


def list_models() -> dict[str, str]:
    """Return a dict, name -> one-line description, of all networks that `build_model` can build.

    Config files of other packages' networks are left out, because they need the name of a network as well.
    """
    table = {name: configs.row("model", name) for name in configs.rows("model")}
    return {name: row.about for name, row in table.items() if not row.get("adapter")}


def build_model(
    name: str,
    *,
    num_classes: int | None = None,
    checkpoint: str | Path | None = None,
    seed: int = 0,
    drop_head: bool = False,
    checkpoint_key: str | None = None,
    units: str = "channels",
    tokens: str | None = None,
    **options,
) -> VideoNetwork:
    """Build a network by name, in eval mode and on the CPU: ``build_model("slowfast_r50_8x8")``.

    The network is a ``torch.nn.Module`` whose parameters need no gradient. ``net.input_spec`` holds the
    preprocessing and ``net.stages`` what can be read. ``net.read(net.prepare(video))`` reads every stage of a
    normalised clip (B, 3, T, H, W). ``net.state_dict()`` has the key names and shapes of the original
    checkpoints. Raises UserError if the name or an option is unknown, or the checkpoint does not fit.

    Parameters
    ----------
    name
        One of `list_models()`, a config file of ``configs/model``.
    num_classes
        Number of outputs of the classifier; None takes the number in the config file.
    checkpoint
        A checkpoint file, ``"pretrained"`` for published weights, or None for random weights.
    seed
        Seed of the random weights.
    drop_head
        Keep the network's random classifier if the checkpoint has none, or one of other classes.
    checkpoint_key
        Entry or key prefix of the weights in the checkpoint, such as ``"model_ema"``; None finds the weights.
    units
        Units of the stages: ``channels``, or ``heads`` or ``neurons`` of a transformer (`choose_units`).
    tokens
        Tokens that are averaged: ``patches``, ``class`` or ``frames``; None averages the tokens that the
        stages declare, and patches if the units are heads or neurons.
    options
        Arguments of the family; they replace those of the config file.
    """
    row = configs.row("model", name)
    net = build_from_row(
        row,
        num_classes=num_classes,
        checkpoint=checkpoint,
        seed=seed,
        drop_head=drop_head,
        checkpoint_key=checkpoint_key,
        units=units,
        tokens=tokens,
        **options,
    )
    # This access checks the declared stages.
    _ = net.classes
    return net


def build_from_row(
    row: DictConfig,
    *,
    num_classes: int | None = None,
    checkpoint: str | Path | None = None,
    seed: int = 0,
    drop_head: bool = False,
    checkpoint_key: str | None = None,
    units: str = "channels",
    tokens: str | None = None,
    **options,
) -> VideoNetwork:
    """Build a network from the config `row`, a file of ``configs/model`` or a config composed by Hydra.

    Unlike `build_model`, this function does not check the declared stages: a command on a finished run needs
    no check, which takes seconds. The first use of ``net.classes`` checks the stages.
    """
    _import_families()
    if row.family not in FAMILIES:
        raise UserError(f"unknown model.family={row.family}{nearest(str(row.family), FAMILIES)}")
    arguments = {**_plain(row.get("args")), **options}
    part = arguments.pop("part", None) or row.get("part")
    # networks of other packages can run a part alone, so they choose the part while they are built
    if row.get("adapter"):
        arguments["part"] = part
    # networks of other packages load their pretrained weights while they are built
    if row.get("adapter") and checkpoint == "pretrained":
        arguments["pretrained"], checkpoint = True, None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            net = FAMILIES[row.family](num_classes=num_classes or row.num_classes, **arguments)
        except TypeError as error:
            raise UserError(
                f"model {row.name!r}: {error}; the options of this model: {', '.join(arguments) or 'none'}"
            ) from error
    # set the input spec, which `adapt` has already set for networks of other packages
    if not row.get("adapter"):
        net.input_spec = InputSpec(**_plain(row.input))
    net.eval().requires_grad_(False)
    if checkpoint_key and checkpoint in (None, "pretrained"):
        raise UserError(f"checkpoint_key={checkpoint_key} chooses weights in a file: give checkpoint=FILE")
    if part and not row.get("adapter"):
        keep_part(net, part)
    choose_units(net, units, tokens, row.get("layout"), row.get("leading_tokens"))
    if checkpoint == "pretrained":
        if not row.get("pretrained"):
            raise UserError(
                f"model {row.name!r} has no pretrained weights: give checkpoint=FILE, or "
                "model.init=random for random weights (in Python: checkpoint=None)"
            )
        load_weights(net, row.pretrained)
    elif checkpoint is not None:
        load_weights(net, Path(checkpoint), drop_head=drop_head, key=checkpoint_key)
    return net


def _plain(node: DictConfig | None) -> dict[str, Any]:
    return cast(dict, OmegaConf.to_container(node, resolve=True)) if node else {}


def _import_families() -> None:
    for module in pkgutil.walk_packages([str(Path(__file__).parent)], "static_dynamic.models."):
        importlib.import_module(module.name)
