"""Train a style from a few key frames.

    python -m stylize.train --config CFG --data_root DIR --log_interval N --log_folder DIR
    python main.py task=train_style task.data_root=DIR task.minutes=10

``DIR`` holds ``input_filtered`` or ``input`` (frames), ``output`` (the same frames, stylized), ``mask``
(optional) and the folders of the guides. The log folder gets ``model_<step>.safetensors`` and
``validation/<step>/`` at every interval, ``losses.csv``, ``recipe.yaml``, ``state.pt``, and
``model.safetensors`` and ``sheet.jpg`` at the end. The same command goes on where an earlier one stopped,
to the same result.
"""

from __future__ import annotations

import hashlib
import json
import logging
import pickle
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from static_dynamic.command import Options, command
from static_dynamic.datasets.frames import FrameFolder
from static_dynamic.device import choose_device
from static_dynamic.errors import UserError
from static_dynamic.files import atomic_path, write_text
from static_dynamic.stylize.checkpoints import save_generator
from static_dynamic.stylize.features import build_features
from static_dynamic.stylize.networks import MULTIPLE, Generator
from static_dynamic.stylize.patches import (
    RULES,
    FrameSampler,
    KeyFrame,
    PatchSampler,
    load_key_frames,
    read_image,
    to_image,
    to_tensor,
)
from static_dynamic.stylize.pictures import contact_sheet, run_once, write_image
from static_dynamic.stylize.trainer import StyleTrainer
from static_dynamic.stylize.training_config import guides_of, read_recipe

log = logging.getLogger(__name__)

SAVE_EVERY_S = 60
VALIDATION_FRAMES = 8
SHEET_ROWS = 4
# the last part of the budget, over which the learning rate falls to nothing (corrected rules)
COOLDOWN = 0.25
LOSSES = ("generator", "image", "features", "adversarial", "discriminator")


@dataclass(frozen=True)
class Plan:
    """One training. It ends at `steps`, after `minutes`, or after the recipe's epochs, whichever is first."""

    recipe: DictConfig
    data_root: Path
    log_folder: Path
    log_interval: int = 1000
    steps: int | None = None
    minutes: float | None = None
    rules: str = "corrected"
    vgg: str | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    seed: int = 1


def train(plan: Plan) -> Generator:
    """Train, or go on training; return the generator.

    Raises
    ------
    UserError
        Folders or images that do not fit, or a log folder that holds another training.
    """
    rules, settings = RULES[plan.rules], plan.recipe.trainer
    whole = plan.recipe.training_dataset.type == "DatasetFullImages"
    frames = read_key_frames(plan.recipe, plan.data_root, multiple=MULTIPLE if whole else 1)
    sampler = (FrameSampler if whole else PatchSampler)(
        frames, plan.recipe.training_dataset.patch_size, rules, plan.seed
    )
    if whole and settings.batch_size > 1 and len({frame.mask.shape for frame in frames}) > 1:
        raise UserError("key frames of different sizes make no batch: give trainer.batch_size: 1")
    layers = plan.recipe.perception_loss.perception_model.args.feature_layers
    trainer = StyleTrainer(
        plan.recipe,
        build_features(layers, plan.vgg),
        masks_weigh=rules.mask_weighs,
        device=plan.device,
        seed=plan.seed,
    )
    run = _Run(plan, trainer, frames)
    run.resume()
    last = plan.steps or settings.epochs * sampler.items // settings.batch_size
    progress = run.progress(last)
    with tqdm(total=last, initial=run.step, desc="train style", unit="step") as bar:
        while progress < 1:
            begin = time.perf_counter()
            rate = min(1.0, (1 - progress) / COOLDOWN) if rules.mask_weighs else 1.0
            losses = trainer.step(**sampler.batch(run.step, settings.batch_size), rate=rate)
            run.count(losses, time.perf_counter() - begin)
            progress = run.progress(last)
            # the end is where the budget ends, as fast as it goes now
            bar.total = max(run.step, round(run.step / progress))
            bar.update()
            # saved between steps alone: a stop within one would leave one network ahead of the other
            if run.step % plan.log_interval == 0 or progress >= 1:
                bar.set_postfix(run.log())
            elif time.monotonic() - run.saved > SAVE_EVERY_S:
                run.save()
    return run.finish()


class _Run:
    """A training's files: what was reached, how it looks."""

    def __init__(self, plan: Plan, trainer: StyleTrainer, frames: list[KeyFrame]):
        self.plan, self.trainer, self.frames = plan, trainer, frames
        self.step, self.seconds, self.saved = 0, 0.0, time.monotonic()
        self.rows: list[list[float]] = []
        self.sums, self.counted = torch.zeros(len(LOSSES), dtype=torch.float64), 0
        self.identity = json.dumps(
            {
                "recipe": OmegaConf.to_container(plan.recipe),
                "rules": "mended" if plan.rules == "corrected" else plan.rules,  # as in states of version 0.1
                "seed": plan.seed,
                "steps": plan.steps,
                "features": type(trainer.features).__name__,
                "frames": _digest(frames),
            },
            sort_keys=True,
        )

    def progress(self, last: int) -> float:
        """The part of the budget that is used up: 1 at the end."""
        spent = self.seconds / (60 * self.plan.minutes) if self.plan.minutes else 0.0
        return max(self.step / last, spent)

    def count(self, losses: dict[str, torch.Tensor], seconds: float) -> None:
        """Add one step."""
        self.step += 1
        self.seconds += seconds
        self.counted += 1
        self.sums += torch.stack([losses[name] for name in LOSSES]).double().cpu()

    def resume(self) -> None:
        """Take up what an earlier run left."""
        path = self.plan.log_folder / "state.pt"
        if not path.exists():
            write_text(self.plan.log_folder / "recipe.yaml", OmegaConf.to_yaml(self.plan.recipe))
            return
        try:
            # to the CPU, where Adam counts its steps: on a GPU each would be waited for
            state = torch.load(path, map_location="cpu", weights_only=True)
        except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
            raise UserError(f"{path} is damaged: delete it to train anew") from error
        if state["identity"] != self.identity:
            raise UserError(
                f"{self.plan.log_folder} holds a training of other frames or settings: "
                "give another log_folder"
            )
        self.trainer.load_state_dict(state["trainer"])
        self.step, self.seconds, self.rows = state["step"], state["seconds"], state["rows"]
        self.sums, self.counted = state["sums"], state["counted"]
        log.info("goes on at step %d of %s", self.step, self.plan.log_folder)

    def save(self) -> None:
        """Keep all that going on needs."""
        names = ("identity", "step", "seconds", "rows", "sums", "counted")
        state = {name: getattr(self, name) for name in names} | {"trainer": self.trainer.state_dict()}
        with atomic_path(self.plan.log_folder / "state.pt") as temporary:
            torch.save(state, temporary)
        self.saved = time.monotonic()

    def log(self) -> dict[str, str]:
        """Write the mean losses since the last time, the generator, the validation frames and the state."""
        means = (self.sums / max(self.counted, 1)).tolist()
        if self.counted:
            self.rows.append([self.step, *means])
        self.sums, self.counted = torch.zeros_like(self.sums), 0
        lines = [",".join(["step", *LOSSES]), *(",".join(f"{v:.6g}" for v in row) for row in self.rows)]
        write_text(self.plan.log_folder / "losses.csv", "\n".join(lines) + "\n")
        save_generator(self.trainer.generator, self.plan.log_folder / f"model_{self.step:07d}.safetensors")
        for name, image in zip(*self._validate(), strict=True):
            write_image(self.plan.log_folder / "validation" / f"{self.step:07d}" / f"{name}.png", image)
        self.save()
        return {name: f"{mean:.3f}" for name, mean in zip(LOSSES, means, strict=True)}

    def _validate(self) -> tuple[list[str], list[np.ndarray]]:
        pairs = validation_inputs(self.plan.recipe, self.plan.data_root)
        outputs = [run_once(self.trainer.generator, x) for x in pairs.values()]
        return list(pairs), outputs

    def finish(self) -> Generator:
        """Write the end result; return the generator, in eval mode."""
        generator = self.trainer.generator.eval()
        save_generator(generator, self.plan.log_folder / "model.safetensors")
        rows = [
            [to_image(frame.pre[:3]), run_once(generator, frame.pre), to_image(frame.post)]
            for frame in self.frames[:SHEET_ROWS]
        ]
        unseen = validation_inputs(self.plan.recipe, self.plan.data_root)
        rows += [[to_image(x[:3]), run_once(generator, x)] for x in list(unseen.values())[:SHEET_ROWS]]
        write_image(self.plan.log_folder / "sheet.jpg", contact_sheet(rows))
        return generator


def read_key_frames(recipe: DictConfig, root: Path, *, multiple: int = 1) -> list[KeyFrame]:
    """The key frames below a data root."""
    data = recipe.training_dataset
    mask = root / data.dir_mask if data.get("dir_mask") and (root / data.dir_mask).is_dir() else None
    guides = [root / folder for folder in guides_of(recipe)]
    return load_key_frames(_input_folder(recipe, root), root / data.dir_post, mask, guides, multiple=multiple)


def validation_inputs(recipe: DictConfig, root: Path) -> dict[str, torch.Tensor]:
    """A few frames to look at, with their guides: of the sibling folder ``..._gen`` where there is one, else
    of the training's input folder; spread over the sequence."""
    sibling = root.with_name(root.name.removesuffix("_train") + "_gen")
    # a sibling that was made for something else has no input folder
    root = sibling if _input_folder(recipe, sibling).is_dir() else root
    folder = FrameFolder(_input_folder(recipe, root))
    if not len(folder):
        return {}
    chosen = np.unique(np.linspace(0, len(folder) - 1, VALIDATION_FRAMES).round().astype(int))
    inputs = {}
    for path in (folder.path / folder.names[i] for i in chosen):
        files = [path, *(root / guide / path.name for guide in guides_of(recipe))]
        inputs[path.stem] = torch.cat([to_tensor(read_image(file)) for file in files])
    return inputs


def _input_folder(recipe: DictConfig, root: Path) -> Path:
    given = root / recipe.training_dataset.dir_pre
    return given if given.is_dir() else root / "input"


def _digest(frames: list[KeyFrame]) -> str:
    digest = hashlib.sha256()
    for frame in frames:
        for tensor in (frame.pre, frame.post, frame.mask):
            digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()[:16]


@command
def main() -> None:
    """Run from the command line, with the original's options and ours."""
    parser = Options(__doc__, prog="python -m stylize.train")
    parser.add_argument(
        "--config", default="small", help="YAML file, or light, small, reference_P, reference_F"
    )
    parser.add_argument("--data_root", type=Path, required=True)
    parser.add_argument("--log_interval", type=int, default=1000)
    parser.add_argument("--log_folder", type=Path, default=Path("logs_reference_P"))
    parser.add_argument("--steps", type=int)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--rules", choices=sorted(RULES), default="corrected")
    parser.add_argument("--vgg", help="file of VGG19 weights")
    parser.add_argument("--device", help="cpu, cuda:0; else the config's")
    parser.add_argument("--seed", type=int, default=1)
    given = vars(parser.parse_args())
    recipe = read_recipe(given.pop("config"))
    device = choose_device(given.pop("device") or recipe.job.device)
    train(Plan(recipe=recipe, device=device, **given))


if __name__ == "__main__":
    sys.exit(main())
