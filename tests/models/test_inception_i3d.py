"""Inception-I3D: layout conversion, TensorFlow's padding, and what the real weights say about real videos."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from static_dynamic.assets import cache_dir
from static_dynamic.datasets import preprocess
from static_dynamic.datasets.frames import open_frames
from static_dynamic.models import build_model
from static_dynamic.models.inception_i3d import JAX_BRANCHES, same_padding

# video -> what an independent implementation says first
ACTIONS = {
    "arm_wrestling.mp4": "arm wrestling",
    "ucf101_v_SoccerJuggling_g23_c01.avi": "juggling soccer ball",
    "hitting_baseball.mp4": "hitting baseball",
    "flipping_a_pancake.mkv": "flipping pancake",
    "archery.avi": "archery",
    "cat.mp4": "petting cat",
}


def test_same_padding_equals_its_definition():
    for n in range(1, 40):
        for k, s in ((7, 2), (3, 1), (3, 2), (2, 2), (1, 1), (1, 2)):
            outputs = -(-n // s)  # TensorFlow: as many outputs as strides fit
            total = max((outputs - 1) * s + k - n, 0)
            assert same_padding(torch.Size([n]), (k,), (s,)) == [total // 2, total - total // 2]


def test_the_jax_layout_becomes_our_keys():
    net = build_model("i3d_inception", seed=3)
    tree = {"params": {}, "batch_stats": {}}
    back = {ours: theirs for theirs, ours in JAX_BRANCHES.items()}
    for key, value in net.state_dict().items():
        *block, layer, leaf = key.split(".")
        if leaf in ("num_batches_tracked",) or (layer, leaf) == ("bn", "weight"):
            continue
        where = [block[0], *(back[b] for b in block[1:])] if block != ["logits"] else ["Logits/Conv3d_0c_1x1"]
        kind = "batch_stats" if leaf.startswith("running") else "params"
        node = tree[kind]
        for name in (*where, "Conv_0" if layer == "conv3d" else "BatchNorm_0"):
            node = node.setdefault(name, {})
        array = value.numpy()
        if layer == "conv3d" and leaf == "weight":
            node["kernel"] = np.moveaxis(array, (0, 1), (4, 3))
        elif layer == "conv3d":
            node["bias"] = array
        else:
            node[leaf.removeprefix("running_")] = array.reshape(1, 1, 1, 1, -1)
    converted = net.convert(tree)
    for key, value in net.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            assert torch.equal(converted[key], value), key


def test_units_compute_convolution_norm_and_relu_with_same_padding():
    net = build_model("i3d_inception")
    unit = net.Conv3d_1a_7x7
    unit.bn.running_mean += 0.1
    x = torch.randn(1, 3, 9, 15, 15, generator=torch.Generator().manual_seed(0))
    w, b = unit.conv3d.weight, unit.bn
    padded = F.pad(x, (3, 3, 3, 3, 3, 3))  # 7 wide, stride 2, odd sides: 3 at either side
    out = (F.conv3d(padded, w, stride=2) - b.running_mean.view(1, -1, 1, 1, 1)) / (
        b.running_var + 1e-3
    ).sqrt().view(1, -1, 1, 1, 1)
    torch.testing.assert_close(unit(x), out.relu(), rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module")
def pretrained():
    return build_model("i3d_inception", checkpoint="pretrained")


@pytest.mark.parametrize("video", ACTIONS)
def test_the_real_weights_name_the_actions(shared_data, pretrained, video):
    labels = (shared_data / "annotations" / "kinetics400_labels.txt").read_text().splitlines()
    source = open_frames(shared_data / "clips" / video)
    frames = torch.from_numpy(source.read(range(min(96, len(source)))))
    clip = preprocess(frames, pretrained.input_spec)[None]
    top = int(pretrained.read(clip, ["logits"])["logits"].argmax())
    assert labels[top] == ACTIONS[video]


def test_stored_weights_that_changed_are_refused(pretrained, tmp_path, monkeypatch):
    stored = next((cache_dir() / "weights").glob("i3d_kinetics400-*.safetensors"))
    monkeypatch.setenv("SD_CACHE", str(tmp_path))
    (tmp_path / "weights").mkdir()
    data = bytearray(stored.read_bytes())
    data[-1] ^= 1
    (tmp_path / "weights" / stored.name).write_bytes(data)
    (tmp_path / "weights" / stored.with_suffix(".sha256").name).write_text(
        stored.with_suffix(".sha256").read_text()
    )
    with pytest.raises(Exception, match="wrong SHA-256.*delete the file"):
        build_model("i3d_inception", checkpoint="pretrained")
