"""The table of networks: a row of ``configs/model`` names a family and its arguments; a family is a
decorated class."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf

from static_dynamic import configs
from static_dynamic.errors import UserError
from static_dynamic.models.checkpoints import load_weights
from static_dynamic.models.stages import InputSpec, VideoNetwork, check_stages

FAMILIES: dict[str, Callable[..., VideoNetwork]] = {}


def register(name: str):
    """Class decorator: make a family known to the rows of ``configs/model`` under `name`."""

    def add(cls):
        FAMILIES[name] = cls
        return cls

    return add


def list_models() -> dict[str, str]:
    """Every network that can be built -> one line about it."""
    table = {
        name: OmegaConf.load(configs.CONFIG_DIR / "model" / f"{name}.yaml") for name in configs.rows("model")
    }
    return {
        name: row.about
        for name, row in table.items()
        # adapters are no networks before one is named, and need packages that may not be here
        if not row.get("not_available_yet") and not row.get("adapter")
    }


def build_model(
    name: str,
    *,
    num_classes: int | None = None,
    checkpoint: str | Path | None = None,
    seed: int = 0,
    drop_head: bool = False,
    **options,
) -> VideoNetwork:
    """Build a network of the table, in eval mode, on the CPU.

    Parameters
    ----------
    name
        A row of ``configs/model``.
    num_classes
        Width of the classifier; None takes the row's.
    checkpoint
        A file, ``"pretrained"`` (an asset, where one exists) or None for random weights drawn from `seed`.
    drop_head
        Leave out a classifier of other classes that the checkpoint has.
    options
        Arguments of the family that replace those of the row.

    Raises
    ------
    UserError
        Unknown name or option, or a checkpoint that does not fit.
    """
    return build_from_row(
        configs.row("model", name),
        num_classes=num_classes,
        checkpoint=checkpoint,
        seed=seed,
        drop_head=drop_head,
        **options,
    )


def build_from_row(
    row: DictConfig,
    *,
    num_classes: int | None = None,
    checkpoint: str | Path | None = None,
    seed: int = 0,
    drop_head: bool = False,
    **options,
) -> VideoNetwork:
    """Build the network that a row of ``configs/model`` (or one composed by Hydra) describes; see
    `build_model`."""
    _import_families()
    arguments = {**OmegaConf.to_container(row.get("args") or OmegaConf.create({}), resolve=True), **options}
    if row.get("adapter") and checkpoint == "pretrained":  # weights that its package loads itself
        arguments["pretrained"], checkpoint = True, None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            net = FAMILIES[row.family](num_classes=num_classes or row.num_classes, **arguments)
        except TypeError as error:
            raise UserError(
                f"model {row.name!r}: {error}; its options: {', '.join(arguments) or 'none'}"
            ) from error
    if not row.get("adapter"):  # adapters know the input that their package means
        net.input_spec = InputSpec(**OmegaConf.to_container(row.input, resolve=True))
    net.eval().requires_grad_(False)
    check_stages(net)
    if checkpoint == "pretrained":
        if not row.get("pretrained"):
            raise UserError(
                f"model {row.name!r} has no pretrained weights of its own: give checkpoint=FILE, or "
                "checkpoint=None (model.init=random) for random weights"
            )
        load_weights(net, row.pretrained)
    elif checkpoint is not None:
        load_weights(net, Path(checkpoint), drop_head=drop_head)
    return net


def _import_families() -> None:
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        importlib.import_module(f"static_dynamic.models.{module.name}")
