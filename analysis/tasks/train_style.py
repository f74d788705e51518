"""Task ``train_style``."""

from __future__ import annotations

import logging
from pathlib import Path

from omegaconf import DictConfig

from static_dynamic.device import choose_device
from static_dynamic.errors import UserError
from static_dynamic.stylize.train import Plan, train
from static_dynamic.stylize.training_config import read_recipe

log = logging.getLogger(__name__)


def run(cfg: DictConfig) -> None:
    """``task=train_style``."""
    task = cfg.task
    if not task.data_root:
        raise UserError("task=train_style needs a folder of key frames: give task.data_root=DIR")
    root = Path(task.data_root).expanduser()
    folder = Path(task.outdir or Path(cfg.save_dir) / "styles" / root.name).expanduser()
    train(
        Plan(
            recipe=read_recipe(task.config),
            data_root=root,
            log_folder=folder,
            log_interval=task.log_interval,
            steps=task.steps,
            minutes=task.minutes,
            rules=task.rules,
            vgg=task.vgg,
            device=choose_device(cfg.device),
            seed=cfg.seed,
        )
    )
    print(folder / "model.safetensors")
