"""The time axis of stages: against plain averages of the modules' outputs, and against what frames change."""

import re
from dataclasses import replace

import pytest
import torch
from einops import rearrange
from omegaconf import open_dict

from static_dynamic.configs import row
from static_dynamic.errors import UserError
from static_dynamic.models import build_from_row, build_model
from static_dynamic.models.stages import Tap
from static_dynamic.models.time_steps import keep_time, with_time
from static_dynamic.models.units import HEADS, LAYERS
from tests.models.test_huggingface import VIDEO, save
from tests.models.toys import Frame, Tokens, clip, custom

TIMESFORMER = {"frames": 8, "crop": 32, "patch": 8, "width": 24, "depth": 2, "heads": 2}
MVIT = {"frames": 8, "crop": 32, "width": 24, "depth": 3, "scale_at": [1], "kv_stride": 4}
TRANSFORMERS = {"timesformer": TIMESFORMER, "mvit": MVIT, "small_transformer": {}}


def small(name, **args):
    """A network with random weights for clips of 8 x 32 x 32; `args` replace the arguments of its
    constructor."""
    config = row("model", name)
    with open_dict(config):
        config.args.update(args)
        config.input.update({"frames": 8, "crop": 32})
    net = build_from_row(config, checkpoint=None)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    return net


def outputs_of(net, video):
    """Module path -> output of the module."""
    found, handles = {}, []
    for path, module in net.named_modules():
        handles.append(module.register_forward_hook(lambda m, i, o, path=path: found.__setitem__(path, o)))
    with torch.inference_mode():
        net(net.prepare(video))
    for handle in handles:
        handle.remove()
    return found


def kept(net, video):
    """Read every stage with the time axis: stage -> (B, steps, units)."""
    keep_time(net, net.stages)
    rows = net.read(net.prepare(video))
    return {name: rows[name].unflatten(1, (stage.steps, -1)) for name, stage in net.stages.items()}


def test_maps_are_averaged_over_space():
    net = build_model("small_cnn", checkpoint=None)
    video, stages = clip(net), dict(net.stages)
    pooled, outputs = net.read(net.prepare(video)), outputs_of(net, video)
    rows = kept(net, video)
    assert [one.shape[1] for one in rows.values()] == [8, 8, 4, 4]
    for name, stage in stages.items():
        expected = outputs[stage.taps[0].module].mean(dim=(3, 4)).transpose(1, 2)
        torch.testing.assert_close(rows[name], expected, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(rows[name].mean(dim=1), pooled[name], rtol=1e-5, atol=1e-6)


def test_pathways_with_other_numbers_of_steps_are_joined_at_the_fewest():
    net = build_model("slowfast_r50_4x16", checkpoint=None)
    net.input_spec = replace(net.input_spec, crop=32)
    video, name = clip(net, batch=1), "stage2/fuse0/cat"
    net.stages = {name: net.stages[name]}
    module = net.stages[name].taps[0].module
    pooled, (slow, fast) = net.read(net.prepare(video)), outputs_of(net, video)[module]
    rows = kept(net, video)[name]
    steps = slow.shape[2]
    assert fast.shape[2] > steps
    for k in range(steps):
        part = fast[:, :, k * fast.shape[2] // steps : (k + 1) * fast.shape[2] // steps]
        expected = torch.cat([slow[:, :, k].mean(dim=(2, 3)), part.mean(dim=(2, 3, 4))], dim=1)
        torch.testing.assert_close(rows[:, k], expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(rows.mean(dim=1), pooled[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_tokens_of_a_step_are_averaged(name):
    net = small(name, **TRANSFORMERS[name])
    video = clip(net)
    taps = {stage: about.taps[0] for stage, about in net.stages.items()}
    outputs, rows = outputs_of(net, video), kept(net, video)
    for stage, tap in taps.items():
        if tap.layout != "tokens":
            continue
        tokens, steps = outputs[tap.module], rows[stage].shape[1]
        assert steps == {"timesformer": 8, "mvit": 4, "small_transformer": 2}[name]
        tokens = tokens[:, tokens.shape[1] % steps :]  # without the class token
        pattern = "b (n t) c -> b t n c" if name == "timesformer" else "b (t n) c -> b t n c"
        expected = rearrange(tokens, pattern, t=steps).mean(dim=2)
        torch.testing.assert_close(rows[stage], expected, rtol=1e-4, atol=1e-5)


def without_attention(net):
    """Set the output projections of attention to zero: then a token depends on its own patch only."""
    found = 0
    with torch.no_grad():
        for path, module in net.named_modules():
            if isinstance(module, torch.nn.Linear) and re.fullmatch(LAYERS[HEADS], path):
                module.weight.zero_()
                module.bias.zero_()
                found += 1
    assert found


def require_steps_follow_frames(net):
    """Assert that a change of the first (last) frame changes the first (last) step alone."""
    without_attention(net)
    video = clip(net, batch=1)
    before = kept(net, video)
    for frame in (0, -1):
        changed = video.clone()
        changed[:, :, frame] += 1
        rows = net.read(net.prepare(changed))
        for name, old in before.items():
            if net.stages[name].steps > 1:
                moved = (rows[name].unflatten(1, old.shape[1:2] + (-1,)) - old).abs().amax(dim=(0, 2)) > 1e-5
                expected = torch.zeros_like(moved)
                expected[frame] = True
                assert moved.equal(expected), name
    assert any(stage.steps > 1 for stage in net.stages.values())


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_a_frame_changes_its_own_step(name):
    require_steps_follow_frames(small(name, **TRANSFORMERS[name]))


@pytest.mark.parametrize("kind", VIDEO)
def test_a_frame_changes_its_own_step_in_networks_of_hugging_face(tmp_path, kind):
    save(tmp_path, kind)
    net = build_model("huggingface", network=str(tmp_path), checkpoint="pretrained")
    require_steps_follow_frames(net)


def test_a_frame_changes_its_own_step_in_torchvisions_mvit():
    pytest.importorskip("torchvision.models", reason="torchvision is not installed", exc_type=ImportError)
    require_steps_follow_frames(build_model("torchvision", network="mvit_v1_b", checkpoint=None))


def test_an_image_network_has_one_step_per_frame():
    net = custom(Frame, feed="(b t) c h w")
    video, tap = clip(net), next(iter(net.stages.values())).taps[0]
    name, outputs = next(iter(net.stages)), outputs_of(net, video)
    expected = outputs[tap.module].mean(dim=(2, 3)).unflatten(0, (2, 4))
    torch.testing.assert_close(kept(net, video)[name], expected, rtol=1e-5, atol=1e-6)


def test_unknown_time_steps_are_refused():
    net = custom(Tokens)
    before = net.stages
    with pytest.raises(UserError, match="time steps of stage .* are unknown.*task.time=false"):
        keep_time(net, net.stages)
    assert net.stages == before


def test_frames_with_rows_of_their_own_have_one_step():
    """Networks with optical flow return two rows per view, one for each of its frames."""
    tap = Tap("module")
    assert with_time(build_model("small_cnn", checkpoint=None), "stage", tap, (2, 64, 8, 8), 2) == tap
