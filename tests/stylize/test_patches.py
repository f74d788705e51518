"""Patches: the original's as its golden data, ours by their own rules; the three golden training steps."""

import numpy as np
import pytest
import torch
from PIL import Image

from static_dynamic.errors import UserError
from static_dynamic.stylize.features import VGGFeatures
from static_dynamic.stylize.patches import (
    RULES,
    FrameSampler,
    KeyFrame,
    PatchSampler,
    cut_original,
    cut_within,
    eroded,
    load_key_frames,
)
from static_dynamic.stylize.pictures import to_image, to_tensor
from static_dynamic.stylize.trainer import StyleTrainer
from static_dynamic.stylize.training_config import read_training_config
from tests.keyed import keyed_image, keyed_state_dict
from tests.stylize.test_networks import golden

LOSSES = {
    "discriminator": "discriminator_loss",
    "image": "g_image_loss",
    "features": "g_perc_loss",
    "adversarial": "g_adv_loss",
    "generator": "generator_loss",
}


@pytest.fixture(scope="module")
def data():
    return golden("data_train")


@pytest.fixture
def folders(data, tmp_path):
    """The golden images as a data root with one guide."""
    for name, pixels in data["raw"].items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels.numpy()).save(path)
    return tmp_path


def key_frames(root):
    return load_key_frames(root / "pre", root / "post", root / "mask", [root / "x1"])


def test_eroded_masks_are_the_originals(data, folders):
    sampler = PatchSampler(key_frames(folders), 16, RULES["original"], seed=0)
    for valid, expected in zip(sampler.valid, data["valid_indices"], strict=True):
        assert np.array_equal(valid, expected.numpy())
    assert sampler.items == data["length"]


def test_erosion_against_a_slow_one():
    mask = np.random.default_rng(0).random((30, 25)) < 0.97
    padded = np.pad(mask, 3)
    slow = [[padded[y : y + 7, x : x + 7].all() for x in range(25)] for y in range(30)]
    assert np.array_equal(eroded(mask), slow)


def test_cuts_are_the_originals(data, folders):
    frame = key_frames(folders)[1]
    for case in data["cuts"]:
        for image, midpoint, part in (
            (frame.pre, "midpoint", "pre"),
            (frame.post, "midpoint", "post"),
            (frame.post, "midpoint_r", "already"),
        ):
            assert torch.equal(cut_original(image, case[midpoint], case["size"]), case[part])


def test_a_batch_has_the_originals_shapes(data, folders):
    frames = key_frames(folders)
    item = PatchSampler(frames, 16, RULES["original"], seed=0).item(3)
    assert {part: list(item[part].shape) for part in data["getitem_keys"]} == data["getitem_keys"]
    item = FrameSampler(frames, 16, RULES["original"], seed=0).item(3)
    assert {part: list(tensor.shape) for part, tensor in item.items()} == data["full_item"]


@pytest.mark.parametrize("size", [1, 4, 7])
def test_corrected_cuts_reach_every_pixel_and_stay_within(size):
    image = torch.arange(9.0 * 11).reshape(1, 9, 11)
    seen = set()
    for y in range(9):
        for x in range(11):
            patch = cut_within(image, (y, x), size)
            assert patch.shape == (1, size, size)
            assert image[0, y, x] in patch
            seen |= set(patch.flatten().tolist())
    assert len(seen) == 9 * 11


def frames_of(*masks):
    rng = torch.Generator().manual_seed(0)
    return [
        KeyFrame(
            str(i), torch.rand(3, *m.shape, generator=rng), torch.rand(3, *m.shape, generator=rng), m[None]
        )
        for i, m in enumerate(masks)
    ]


def test_midpoints_are_drawn_without_replacement_and_then_anew():
    masks = torch.zeros(2, 12, 12)
    masks[0, 4:7, 4:7] = 1  # 9 midpoints
    masks[1, 2:4, 2:6] = 1  # 8
    sampler = PatchSampler(frames_of(*masks), 4, RULES["corrected"], seed=5)
    drawn = [sampler.midpoints(i) for i in range(2 * 9 * 3)]
    assert [frame for frame, _, _ in drawn] == [0, 1] * 27
    first = [here for frame, here, _ in drawn if frame == 0]
    turns = [first[i : i + 9] for i in (0, 9, 18)]
    assert all(len(set(turn)) == 9 for turn in turns) and turns[0] != turns[1] != turns[2]
    assert {there for _, here, there in drawn if here != there}
    again = PatchSampler(frames_of(*masks), 4, RULES["corrected"], seed=5)
    assert [again.midpoints(i) for i in (17, 3)] == [drawn[17], drawn[3]]
    assert [
        PatchSampler(frames_of(*masks), 4, RULES["corrected"], seed=6).midpoints(i) for i in range(9)
    ] != drawn[:9]


def test_what_makes_no_patch_is_said(folders):
    with pytest.raises(UserError, match="mask of key frame '0': no pixel"):
        PatchSampler(frames_of(torch.zeros(20, 20)), 4, RULES["corrected"], seed=0)
    with pytest.raises(UserError, match="is smaller than patch_size=16"):
        PatchSampler(frames_of(torch.ones(10, 20)), 16, RULES["corrected"], seed=0)
    (folders / "pre" / "002.png").unlink()
    with pytest.raises(UserError, match="002.png has no input image: add an image named 002"):
        key_frames(folders)
    Image.new("RGB", (8, 8)).save(folders / "pre" / "002.png")
    with pytest.raises(UserError, match="images of key frame '002' differ in size"):
        key_frames(folders)


def test_images_come_back_from_tensors():
    image = np.random.default_rng(0).integers(0, 256, (5, 6, 3), np.uint8)
    assert np.abs(to_image(to_tensor(image)).astype(int) - image).max() <= 1  # cut off, as in the original


@pytest.fixture
def trainer():
    config = read_training_config("reference_P")
    config.generator.args = golden("tiny")["args"]
    features = VGGFeatures()
    features.load_state_dict(keyed_state_dict("fspbt_vgg", features.state_dict()))
    trainer = StyleTrainer(config, features, mask_weights=False, device=torch.device("cpu"), seed=0)
    for name, net in (("tiny", trainer.generator), ("discriminator", trainer.discriminator)):
        net.load_state_dict(keyed_state_dict(f"fspbt_{name}", net.state_dict()))
    return trainer


def golden_batch(step):
    parts = ("pre", "post", "already")
    images = {p: keyed_image(f"fspbt_train|{p}|{step}", (2, 3, 32, 32)).clamp(-1, 1) for p in parts}
    return {**images, "mask": torch.ones(2, 1, 32, 32)}


def test_three_training_steps_are_the_originals(data, trainer):
    stored = data["train"]
    for i, expected in enumerate(stored["steps"]):
        done = trainer.step(**golden_batch(i))
        for name, theirs in LOSSES.items():
            assert done[name].item() == pytest.approx(expected[theirs], rel=1e-5), (i, name)
        assert torch.allclose(done["generated"], expected["generated"], atol=1e-4)
        for key, parameter in trainer.generator.named_parameters():
            # the biases before a normalization have a gradient of rounding alone
            norm = expected["grad_norms_G"][key]
            assert parameter.grad.norm().item() == pytest.approx(norm, rel=1e-3, abs=1e-5), (i, key)
    state = trainer.generator.state_dict()
    assert {key: int(state[key]) for key in stored["bn_tracked_after"]} == stored["bn_tracked_after"]
    for key, value in trainer.discriminator.state_dict().items():
        # a bias before a normalization moves by the sign of rounding: 3 steps of 4e-4 at most
        tolerance = 1.3e-3 if key in ("net.conv_1.conv.bias", "net.conv_2.conv.bias") else 1e-6
        assert torch.allclose(value, stored["D_state_after"][key], atol=tolerance), key
    case = golden("tiny")["cases"][0]
    with torch.no_grad():
        after = trainer.generator.eval()(keyed_image(case["input_tag"], case["input_shape"]).clamp(-1, 1))
    assert torch.allclose(after, stored["eval_after_3"], atol=5e-3)


def test_corrected_masks_weigh_the_loss(trainer):
    trainer.mask_weights = True
    batch = golden_batch(0)
    everywhere = trainer.step(**batch)["image"]
    nearly_nowhere = trainer.step(**{**batch, "mask": torch.zeros(2, 1, 32, 32)}, rate=0.0)["image"]
    assert 0 < nearly_nowhere < 0.15 * everywhere
