"""Cost: published numbers, attention and the rest counted by hand, clips of another size, the script."""

import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from static_dynamic import configs
from static_dynamic.models import build_from_row, build_model
from static_dynamic.models.cost import at_size, measure, multiply_adds
from tests.paths import ROOT

# parameters (M) and GFLOPs of one view, as papers and model zoos publish them; None: parameters alone
PUBLISHED = {
    "c2d": (24.33, None),
    "i3d": (28.04, None),
    "i3d_nln": (35.40, None),
    "slow_r50_8x8": (32.45, 54.52),
    "slowfast_r50_4x16": (34.48, 36.69),
    "slowfast_r50_8x8": (34.57, 65.71),
    "x3d_xs": (3.79, 0.60),
    "x3d_m": (3.79, 4.73),
    "x3d_l": (6.15, 18.37),
    "mvit": (36.60, 70.80),
    "timesformer": (121.57, 196.0),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_numbers(name):
    parameters, gflops = PUBLISHED[name]
    net = build_model(name)
    if gflops is None:
        assert sum(p.numel() for p in net.parameters()) / 1e6 == pytest.approx(parameters, rel=0.01)
        return
    cost = measure(net)
    assert cost.parameters / 1e6 == pytest.approx(parameters, rel=0.01)
    assert cost.multiply_adds / 1e9 == pytest.approx(gflops, rel=0.03)


class Fused(nn.Module):
    def forward(self, inputs):
        return F.scaled_dot_product_attention(*inputs)


class Written(nn.Module):
    def forward(self, inputs):
        q, k, v = inputs
        return (q @ k.transpose(-1, -2)).softmax(dim=-1) @ v


def test_attention_against_a_hand_count():
    q, k, v = torch.randn(2, 3, 5, 8), torch.randn(2, 3, 7, 8), torch.randn(2, 3, 7, 4)
    scores = mixed = 0
    for _ in range(2 * 3 * 5 * 7):  # clips, heads, queries, keys
        scores += 8
        mixed += 4
    assert multiply_adds(Fused(), (q, k, v)) == multiply_adds(Written(), (q, k, v)) == scores + mixed


class Added(nn.Module):
    def forward(self, inputs):
        return torch.baddbmm(*inputs)


def test_products_and_convolutions_against_hand_counts():
    assert multiply_adds(Added(), [torch.zeros(2, 5, 7), torch.zeros(2, 5, 3), torch.zeros(2, 3, 7)]) == 210
    for padding in (1, "same"):
        conv = nn.Conv3d(4, 6, 3, groups=2, padding=padding)
        net = nn.Sequential(conv, nn.BatchNorm3d(6), nn.ReLU()).eval()
        # clips x positions x outputs x inputs of a group x kernel; the norm counts for nothing
        assert multiply_adds(net, torch.zeros(2, 4, 2, 5, 5)) == 2 * 50 * 6 * 2 * 27


def test_what_cannot_be_counted_is_refused():
    with pytest.raises(RuntimeError, match="aten::lstm"):
        multiply_adds(nn.LSTM(3, 4), torch.zeros(5, 1, 3))


def test_clips_of_another_size():
    row = configs.row("model", "slowfast_r50_8x8")
    smaller = at_size(row, frames=16, crop=128)
    assert dict(smaller.input.pathways) == {"slow": 4, "fast": 16} and row.input.frames == 32
    cost = measure(build_from_row(smaller))
    assert (cost.frames, cost.height, cost.width) == (16, 128, 128)
    # an eighth of the positions
    assert cost.multiply_adds == pytest.approx(65.71e9 / 8, rel=0.03)
    assert at_size(configs.row("model", "mvit"), crop=128).args.crop == 128


def test_script():
    def run(*arguments):
        command = [sys.executable, "misc/estimate_flops_params.py", *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    done = run("--model", "x3d_xs")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1].split() == "x3d_xs 4 x 160 x 160 0.61 3.79".split()
    refused = run("--model", "x3d_xxs")
    assert refused.returncode == 2 and refused.stderr.startswith("error: unknown model 'x3d_xxs'")
