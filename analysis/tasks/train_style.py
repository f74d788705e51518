"""Task ``train_style``: train a stylization network on a few key frames."""

from pathlib import Path

from omegaconf import DictConfig

from static_dynamic.device import choose_device
from static_dynamic.errors import UserError
from static_dynamic.stylize.train import Plan, train
from static_dynamic.stylize.training_config import read_training_config


def run(cfg: DictConfig) -> None:
    """Train a style on the key frames in ``task.data_root``; print the path of the trained network."""
    task = cfg.task
    if not task.data_root:
        raise UserError("task=train_style needs a folder of key frames: give task.data_root=DIR")
    root = Path(task.data_root).expanduser()
    folder = Path(task.outdir or Path(cfg.save_dir) / "styles" / root.name).expanduser()
    plan = Plan(
        config=read_training_config(task.config),
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
    train(plan)
    print(folder / "model.safetensors")
