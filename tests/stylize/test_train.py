"""Training: it learns, goes on as if it had never stopped, reads the original's configurations."""

import json
import logging
import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from static_dynamic.configs import rows
from static_dynamic.datasets.frames import read_image
from static_dynamic.device import choose_device
from static_dynamic.errors import UserError
from static_dynamic.stylize import load_generator
from static_dynamic.stylize import train as train_module
from static_dynamic.stylize.checkpoints import save_generator
from static_dynamic.stylize.pictures import run_once, to_tensor
from static_dynamic.stylize.train import Plan, train
from static_dynamic.stylize.trainer import StyleTrainer
from static_dynamic.stylize.training_config import read_training_config

# in the form of the original's files, with an anchor as YAML allows
ORIGINAL = """
generator:
  type: GeneratorJ
  args:
    use_bias: True
    tanh: True
    append_smoothers: True
    resnet_blocks: 1
    filters: [4, 8, 8, 8, 8, 6]
    input_channels: 3
opt_generator: &opt
  type: Adam
  args: {lr: 0.002, betas: [0.9, 0.999], weight_decay: 0.00001}
discriminator: {type: DiscriminatorN_IN, args: {num_filters: 4, n_layers: 2}}
opt_discriminator: *opt
perception_loss:
  weight: 6.0
  perception_model: {type: PerceptualVGG19, args: {feature_layers: [0, 3, 5], use_normalization: False}}
trainer:
  batch_size: 4
  epochs: 100000
  reconstruction_weight: 4.
  adversarial_weight: 0.5
  use_image_loss: True
  reconstruction_criterion: L1Loss
  adversarial_criterion: MSELoss
training_dataset: {type: TYPE, dir_pre: input_filtered, dir_post: output, dir_mask: mask, patch_size: 16}
job: {num_workers: 1, device: "cuda:0"}
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "reference_test.yaml"
    path.write_text(ORIGINAL.replace("TYPE", "DatasetPatches_M"))
    return path


@pytest.fixture
def root(tmp_path):
    """Two key frames of which the style turns the colours round, and two to look at."""
    rng = np.random.default_rng(0)
    for folder, count in (("pair_train", 2), ("pair_gen", 2)):
        for i in range(count):
            coarse = rng.integers(0, 256, (6, 7, 3), np.uint8)
            image = cv2.resize(coarse, (45, 38), interpolation=cv2.INTER_CUBIC)
            parts = {"input": image, "output": 255 - image[..., ::-1], "mask": np.full_like(image, 255)}
            for part, picture in parts.items() if folder == "pair_train" else [("input", image)]:
                path = tmp_path / folder / part / f"{i:03d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(path), picture)
    return tmp_path / "pair_train"


def plan(root, config, log_folder, **changes):
    return Plan(config=read_training_config(config), data_root=root, log_folder=log_folder, **changes)


def test_training_comes_nearer_to_the_style(root, config, tmp_path):
    generator = train(plan(root, config, tmp_path / "log", steps=120, log_interval=60))
    for stem in ("000", "001"):
        given, style = (read_image(root / part / f"{stem}.png").astype(float) for part in ("input", "output"))
        ours = run_once(generator, to_tensor(given.astype(np.uint8)))
        assert np.abs(ours - style).mean() < 0.6 * np.abs(given - style).mean()
    log = tmp_path / "log"
    assert {p.name for p in log.iterdir()} == {
        "losses.csv",
        "model.safetensors",
        "model_0000060.safetensors",
        "model_0000120.safetensors",
        "recipe.yaml",
        "sheet.jpg",
        "state.pt",
        "validation",
    }
    assert sorted(p.name for p in (log / "validation" / "0000060").iterdir()) == ["000.png", "001.png"]
    assert len((log / "losses.csv").read_text().splitlines()) == 3
    loaded = load_generator(log / "model.safetensors")
    assert all(torch.equal(v, generator.state_dict()[k]) for k, v in loaded.state_dict().items())


@pytest.mark.parametrize("rules", ["corrected", "original"])
@pytest.mark.parametrize("kind", ["DatasetPatches_M", "DatasetFullImages"])
def test_a_stopped_training_goes_on_to_the_same_result(root, config, tmp_path, monkeypatch, rules, kind):
    config.write_text(ORIGINAL.replace("TYPE", kind))
    options = {"steps": 7, "log_interval": 4, "rules": rules}
    whole = train(plan(root, config, tmp_path / "whole", **options))
    step, done = StyleTrainer.step, []

    def stopping(self, *args, **kwargs):
        if len(done) == 5:
            done.append("stopped")
            raise KeyboardInterrupt
        done.append(1)
        return step(self, *args, **kwargs)

    monkeypatch.setattr(StyleTrainer, "step", stopping)
    with pytest.raises(KeyboardInterrupt):
        train(plan(root, config, tmp_path / "parts", **options))
    parts = train(plan(root, config, tmp_path / "parts", **options))
    assert len(done) == 5 + 1 + 3  # from the last save on
    assert all(torch.equal(v, parts.state_dict()[k]) for k, v in whole.state_dict().items())
    for name in ("model.safetensors", "losses.csv"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()


def test_minutes_end_a_training(root, config, tmp_path):
    train(plan(root, config, tmp_path / "log", minutes=0.1))
    assert (tmp_path / "log" / "model.safetensors").exists() and (tmp_path / "log" / "losses.csv").exists()
    with pytest.raises(UserError, match="end before the first step.*give more minutes"):
        train(plan(root, config, tmp_path / "none", minutes=1e-6))
    assert not (tmp_path / "none" / "model.safetensors").exists()


def test_minutes_count_the_time_of_checkpoints(root, config, tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("static_dynamic.stylize.train.time.monotonic", lambda: clock[0])
    step, save = StyleTrainer.step, save_generator

    def step_of_a_second(self, *args, **kwargs):
        clock[0] += 1
        return step(self, *args, **kwargs)

    def save_in_20_seconds(*args):
        clock[0] += 20
        save(*args)

    monkeypatch.setattr(StyleTrainer, "step", step_of_a_second)
    monkeypatch.setattr("static_dynamic.stylize.train.save_generator", save_in_20_seconds)
    train(plan(root, config, tmp_path / "log", minutes=1, log_interval=1))
    assert clock[0] == 62  # two steps with checkpoints, and the final generator


def test_another_training_in_the_same_folder_is_refused(root, config, tmp_path):
    train(plan(root, config, tmp_path / "log", steps=1))
    with pytest.raises(UserError, match="another --log_folder"):
        train(plan(root, config, tmp_path / "log", steps=1, seed=2))
    (tmp_path / "log" / "state.pt").write_bytes(b"PK cut")
    with pytest.raises(UserError, match="state.pt is damaged"):
        train(plan(root, config, tmp_path / "log", steps=1))


def test_a_training_of_version_0_1_resumes(root, config, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    train(plan(root, config, tmp_path / "log", steps=1))
    state = torch.load(tmp_path / "log" / "state.pt", weights_only=True)
    identity = json.loads(state["identity"])
    assert identity["rules"] == "mended"
    identity["recipe"] |= {"about": "other words", "job": {"device": "cuda:0"}}
    torch.save(state | {"identity": json.dumps(identity)}, tmp_path / "log" / "state.pt")
    train(plan(root, config, tmp_path / "log", steps=1))
    assert f"resuming {tmp_path / 'log'} at step 1" in caplog.text


def test_guides_widen_the_input(root, config, tmp_path):
    for folder in (root, root.with_name("pair_gen")):
        (folder / "guide").mkdir()
        for path in (folder / "input").iterdir():
            (folder / "guide" / path.name).write_bytes(path.read_bytes())
    config.write_text(ORIGINAL.replace("TYPE", "DatasetPatches_M, dir_x1: guide"))
    generator = train(plan(root, config, tmp_path / "log", steps=2))
    assert generator.config["input_channels"] == 6


@pytest.mark.parametrize("name", rows("stylizer"))
def test_every_shipped_config_builds(name):
    config = read_training_config(name)
    trainer = StyleTrainer(config, torch.nn.Identity(), mask_weights=True, device=torch.device("cpu"), seed=0)
    published = {"reference_P": 3_270_000, "reference_F": 2_381_251}
    count = sum(p.numel() for p in trainer.generator.parameters())
    assert count == pytest.approx(published.get(name, count), rel=0.01)


def test_the_originals_settings_are_ours():
    config = read_training_config("reference_P")
    assert OmegaConf.select(config, "trainer.batch_size") == 40
    assert read_training_config("reference_F").trainer.batch_size == 1


def test_what_cannot_be_read_is_said(root, config, tmp_path):
    with pytest.raises(UserError, match="config=referenc_P is neither a file.*nearest known: reference_P"):
        read_training_config("referenc_P")
    config.write_text(ORIGINAL.replace("TYPE", "DatasetOther"))
    with pytest.raises(UserError, match="training_dataset.type=DatasetOther is not supported"):
        read_training_config(config)
    text = ORIGINAL.replace("TYPE", "DatasetPatches_M")
    config.write_text(text.replace("resnet_blocks", "resnet_block"))
    with pytest.raises(UserError, match="generator.args.resnet_block is not supported.*resnet_blocks"):
        read_training_config(config)
    config.write_text("trainer: {epochs: '${oc.env:HOME}'}")
    with pytest.raises(UserError, match=r"it contains \$\{\.\.\.\}: write the value itself") as refused:
        read_training_config(config)
    assert os.environ["HOME"] not in str(refused.value).replace(str(config), "")
    config.write_text("a: [")
    with pytest.raises(UserError, match="is not a YAML file with a training configuration"):
        read_training_config(config)
    with pytest.raises(UserError, match="input does not exist"):
        train(plan(root / "input", "small", tmp_path / "log"))


def test_a_gpu_that_is_not_here_is_refused(root, config, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(UserError, match="device=cuda:0: torch finds 0 GPUs on this machine; give cpu"):
        choose_device("cuda:0")
    with pytest.raises(UserError, match="device=gpu is not a device: give cpu .or -1., cuda, cuda:N, or"):
        choose_device("gpu")
    assert choose_device(None) == choose_device("cpu") == torch.device("cpu")
    assert choose_device(-1) == choose_device("-1") == torch.device("cpu")
    # the original's configurations name a GPU, ours do not
    monkeypatch.setattr(sys, "argv", ["train", "--config", str(config), "--data_root", str(root)])
    assert train_module.main() == 2 and "device=cuda:0: torch finds 0" in capsys.readouterr().err
    assert all(read_training_config(name).job.device is None for name in rows("stylizer"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device(1) == choose_device("cuda:1") == torch.device("cuda", 1)


@pytest.mark.parametrize("command", ["-m stylize.train", "-m static_dynamic.stylize.train", "main.py"])
def test_every_command_trains(root, config, tmp_path, command):
    log = tmp_path / "log"
    arguments = {
        "main.py": ["task=train_style", f"task.config={config}", f"task.data_root={root}", "task.steps=2"]
        + [f"task.outdir={log}", "device=cpu"]
    }
    original = ["--config", config, "--data_root", root, "--log_interval", 2, "--log_folder", log]
    further = ["--device", "cpu", "--steps", 2, "--rules", "mended"]
    words = [*command.split(), *arguments.get(command, [*original, *further])]
    done = subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (log / "model.safetensors").exists()
