"""Train a stylization generator on a few key frames (video frames with a stylized version).

    python -m stylize.train --config CFG --data_root DIR --log_interval N --log_folder DIR
    python main.py task=train_style task.data_root=DIR task.minutes=10

``DIR`` holds the folders ``input_filtered`` or ``input`` (frames), ``output`` (the same frames, stylized),
``mask`` (optional), and one folder per guide. The log folder receives ``recipe.yaml`` (the configuration),
``losses.csv``, ``state.pt``, at every interval ``model_<step>.safetensors`` and ``validation/<step>/``, and
at the end ``model.safetensors`` and ``sheet.jpg``. After an interruption the same command resumes and gives
the same result.
"""

import hashlib
import json
import logging
import sys
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from static_dynamic.command import Options, command
from static_dynamic.datasets.frames import FrameFolder, read_image
from static_dynamic.device import DEVICES, choose_device
from static_dynamic.errors import UserError
from static_dynamic.files import atomic_path, write_text
from static_dynamic.pickled import read_pickled
from static_dynamic.spacing import evenly_spaced
from static_dynamic.stylize.checkpoints import save_generator
from static_dynamic.stylize.features import build_features
from static_dynamic.stylize.networks import MULTIPLE, Generator
from static_dynamic.stylize.patches import RULES, FrameSampler, KeyFrame, PatchSampler, load_key_frames
from static_dynamic.stylize.pictures import contact_sheet, run_once, to_image, to_tensor
from static_dynamic.stylize.sequences import write_image
from static_dynamic.stylize.trainer import StyleTrainer
from static_dynamic.stylize.training_config import guides_of, read_training_config

log = logging.getLogger(__name__)

# Value of ``--rules`` in version 0.1 -> value in this version.
OLD_RULES = {"mended": "corrected"}
SAVE_EVERY_S = 60
VALIDATION_FRAMES = 8
SHEET_ROWS = 4
# COOLDOWN: last fraction of the training, in which ``--rules corrected`` lowers the learning rate to 0.
COOLDOWN = 0.25
LOSSES = ("generator", "image", "features", "adversarial", "discriminator")
# COUNTERS: attributes of `_Run` that are saved in state.pt
COUNTERS = ("step", "seconds", "rows", "sums", "counted")


@dataclass(frozen=True)
class Plan:
    """Settings of one training run.

    The training ends after `steps`, `minutes` or the configured epochs, whichever is first. `minutes` include
    the time for reading key frames, for checkpoints and for the contact sheet.
    """

    config: DictConfig
    data_root: Path
    log_folder: Path
    log_interval: int = 1000
    steps: int | None = None
    minutes: float | None = None
    rules: str = "corrected"
    vgg: str | None = None
    device: torch.device = torch.device("cpu")
    seed: int = 1


def train(plan: Plan) -> Generator:
    """Start or resume a training; return the trained generator.

    Raises UserError if folders or images do not fit together, or the log folder holds another training.
    """
    begun = time.monotonic()
    rules, config, settings = RULES[plan.rules], plan.config, plan.config.trainer
    whole = config.training_dataset.type == "DatasetFullImages"
    frames = read_key_frames(config, plan.data_root, multiple=MULTIPLE if whole else 1)
    make_sampler = FrameSampler if whole else PatchSampler
    sampler = make_sampler(frames, config.training_dataset.patch_size, rules, plan.seed)
    if whole and settings.batch_size > 1 and len({frame.mask.shape for frame in frames}) > 1:
        raise UserError("key frames of different sizes cannot form a batch: set trainer.batch_size to 1")
    features = build_features(config.perception_loss.perception_model.args.feature_layers, plan.vgg)
    trainer = StyleTrainer(config, features, rules.mask_weights, plan.device, plan.seed)
    run = _Run(plan, trainer, frames, begun)
    run.resume()
    last = plan.steps or settings.epochs * sampler.items // settings.batch_size
    progress = run.progress(last)
    with tqdm(total=last, initial=run.step, desc="train style", unit="step") as bar:
        while progress < 1:
            rate = min(1.0, (1 - progress) / COOLDOWN) if rules.mask_weights else 1.0
            losses = trainer.step(**sampler.batch(run.step, settings.batch_size), rate=rate)
            run.count(losses)
            progress = run.progress(last)
            # Estimate the total number of steps, which depends on the speed if `minutes` limits the training.
            bar.total = max(run.step, round(run.step / progress))
            bar.update()
            # Save the state only between steps, because a step updates the two networks one after the other.
            if run.step % plan.log_interval == 0 or progress >= 1:
                bar.set_postfix(run.log())
            elif time.monotonic() - run.saved > SAVE_EVERY_S:
                run.save()
    if not run.step:
        raise UserError(
            f"minutes={plan.minutes:g} end before the first step, because reading the key frames and drawing "
            "the contact sheet take longer: give more minutes"
        )
    return run.finish()


class _Run:
    """State of a running training (step, time, losses), and the files in the log folder."""

    def __init__(self, plan: Plan, trainer: StyleTrainer, frames: list[KeyFrame], begun: float):
        self.plan, self.trainer, self.frames = plan, trainer, frames
        self.step, self.seconds, self.begun, self.saved = 0, 0.0, begun, begun
        self.rows: list[list[float]] = []
        self.sums, self.counted = torch.zeros(len(LOSSES), dtype=torch.float64), 0
        identity = {
            "recipe": OmegaConf.to_container(plan.config),
            # Version 0.1 called the corrected rules "mended", and trainings of version 0.1 must still resume.
            "rules": "mended" if plan.rules == "corrected" else plan.rules,
            "seed": plan.seed,
            "steps": plan.steps,
            "features": type(trainer.features).__name__,
            "frames": _digest(frames),
        }
        self.identity = json.dumps(identity, sort_keys=True)

    def progress(self, last: int) -> float:
        """Return the fraction of the allowed steps or minutes that is used up; 1 ends the training."""
        if not self.plan.minutes:
            return self.step / last
        seconds = self.seconds + time.monotonic() - self.begun + self.seconds_at_end
        return max(self.step / last, seconds / (60 * self.plan.minutes))

    @cached_property
    def seconds_at_end(self) -> float:
        """Estimate, from one stylized frame, the seconds for the last checkpoint and the contact sheet."""
        largest = max(self.frames, key=lambda frame: frame.mask.numel())
        # do not time the first forward pass, which takes longer than later passes
        run_once(self.trainer.generator, largest.pre)
        begin = time.monotonic()
        run_once(self.trainer.generator, largest.pre)
        return 2 * VALIDATION_FRAMES * (time.monotonic() - begin)

    def count(self, losses: dict[str, torch.Tensor]) -> None:
        """Count a training step, and add its losses to the sums since the last log."""
        self.step += 1
        self.counted += 1
        self.sums += torch.stack([losses[name] for name in LOSSES]).double().cpu()

    def resume(self) -> None:
        """Load the state that an interrupted training saved, if there is one."""
        path = self.plan.log_folder / "state.pt"
        if not path.exists():
            write_text(self.plan.log_folder / "recipe.yaml", OmegaConf.to_yaml(self.plan.config))
            return
        try:
            # Load tensors to the CPU, because Adam is slow if its step counters are on a GPU.
            state = read_pickled(path)
            identity = _essential(state["identity"])
        except Exception as error:  # a damaged file can cause any exception while it is read
            raise UserError(f"{path} is damaged: delete this file to restart the training") from error
        if identity != _essential(self.identity):
            raise UserError(
                f"{self.plan.log_folder} holds a training with other frames or settings: "
                "give another --log_folder (task.outdir)"
            )
        self.trainer.load_state_dict(state["trainer"])
        for name in COUNTERS:
            setattr(self, name, state[name])
        log.info("resuming %s at step %d", self.plan.log_folder, self.step)

    def save(self) -> None:
        """Save in ``state.pt`` the state that a resumed training needs."""
        now = time.monotonic()
        self.seconds, self.begun = self.seconds + now - self.begun, now
        state = {name: getattr(self, name) for name in COUNTERS}
        state |= {"identity": self.identity, "trainer": self.trainer.state_dict()}
        with atomic_path(self.plan.log_folder / "state.pt") as temporary:
            torch.save(state, temporary)
        self.saved = time.monotonic()

    def log(self) -> dict[str, str]:
        """Write the generator, mean losses since the last log, validation frames and the state to files."""
        begin = time.monotonic()
        means = (self.sums / max(self.counted, 1)).tolist()
        if self.counted:
            self.rows.append([self.step, *means])
        self.sums, self.counted = torch.zeros_like(self.sums), 0
        lines = [",".join(["step", *LOSSES]), *(",".join(f"{v:.6g}" for v in row) for row in self.rows)]
        write_text(self.plan.log_folder / "losses.csv", "\n".join(lines) + "\n")
        save_generator(self.trainer.generator, self.plan.log_folder / f"model_{self.step:07d}.safetensors")
        folder = self.plan.log_folder / "validation" / f"{self.step:07d}"
        for name, x in validation_inputs(self.plan.config, self.plan.data_root).items():
            write_image(folder / f"{name}.png", run_once(self.trainer.generator, x))
        self.save()
        # Twice the time of this checkpoint: the contact sheet takes about as long as the last checkpoint.
        self.seconds_at_end = 2 * (time.monotonic() - begin)
        return {name: f"{mean:.3f}" for name, mean in zip(LOSSES, means, strict=True)}

    def finish(self) -> Generator:
        """Write the final generator and the contact sheet; return the generator in eval mode."""
        generator = self.trainer.generator.eval()
        save_generator(generator, self.plan.log_folder / "model.safetensors")
        shown = self.frames[:SHEET_ROWS]
        rows = [[to_image(f.pre[:3]), run_once(generator, f.pre), to_image(f.post)] for f in shown]
        unseen = list(validation_inputs(self.plan.config, self.plan.data_root).values())[:SHEET_ROWS]
        rows += [[to_image(x[:3]), run_once(generator, x)] for x in unseen]
        write_image(self.plan.log_folder / "sheet.jpg", contact_sheet(rows))
        return generator


def _essential(identity: str) -> dict[str, Any]:
    """Parse a training's settings from JSON; leave out settings that do not affect the trained weights."""
    content = json.loads(identity)
    for key in ("about", "job"):
        content["recipe"].pop(key, None)
    return content


def read_key_frames(config: DictConfig, root: Path, *, multiple: int = 1) -> list[KeyFrame]:
    """Read the key frames from the folders below `root` that the configuration names."""
    data = config.training_dataset
    mask = root / data.dir_mask if data.get("dir_mask") and (root / data.dir_mask).is_dir() else None
    guides = [root / folder for folder in guides_of(config)]
    return load_key_frames(_input_folder(config, root), root / data.dir_post, mask, guides, multiple=multiple)


def validation_inputs(config: DictConfig, root: Path) -> dict[str, torch.Tensor]:
    """Return a dict {file stem: frame concatenated with guide images} of evenly spaced validation frames.

    The frames come from the sibling folder ``..._gen`` if it has an input folder, else from the training's
    own input folder.
    """
    sibling = root.with_name(root.name.removesuffix("_train") + "_gen")
    root = sibling if _input_folder(config, sibling).is_dir() else root
    folder = FrameFolder(_input_folder(config, root))
    inputs = {}
    for i in evenly_spaced(VALIDATION_FRAMES, len(folder)):
        path = folder.path / folder.names[i]
        files = [path, *(root / guide / path.name for guide in guides_of(config))]
        inputs[path.stem] = torch.cat([to_tensor(read_image(file)) for file in files])
    return inputs


def _input_folder(config: DictConfig, root: Path) -> Path:
    given = root / config.training_dataset.dir_pre
    return given if given.is_dir() else root / "input"


def _digest(frames: list[KeyFrame]) -> str:
    tensors = [tensor for frame in frames for tensor in (frame.pre, frame.post, frame.mask)]
    return hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in tensors)).hexdigest()[:16]


@command
def main() -> None:
    """Run the command ``python -m stylize.train``, which accepts the options of Texler et al.'s script."""
    parser = Options(__doc__, prog="python -m stylize.train")
    add = parser.add_argument
    add("--config", default="small", help="YAML file, or light, small (default), reference_P, reference_F")
    add("--data_root", type=Path, required=True, help="folder of the key frames")
    add("--log_interval", type=int, default=1000, help="steps between checkpoints (default: %(default)s)")
    add("--log_folder", type=Path, default=Path("logs_reference_P"), help="folder of the results")
    add("--steps", type=int, help="number of training steps (default: no limit)")
    add("--minutes", type=float, help="training time (default: no limit)")
    rules = "original: masks and image borders exactly as in Texler et al.'s program"
    add("--rules", type=lambda r: OLD_RULES.get(r, r), choices=list(RULES), default="corrected", help=rules)
    add("--vgg", help="file of torchvision's VGG19 weights (default: those in torch's hub cache)")
    add("--device", help=f"{DEVICES} (default: that of --config)")
    add("--seed", type=int, default=1, help="of weights and patches")
    given = vars(parser.parse_args())
    config = read_training_config(given.pop("config"))
    device = choose_device(given.pop("device") or config.job.device)
    train(Plan(config=config, device=device, **given))


if __name__ == "__main__":
    sys.exit(main())
