"""Networks with two streams: golden outputs of the original, attention against slow loops, batches, early
stops, checkpoints."""

import lzma
from functools import partial

import pytest
import torch
from torch import nn

from static_dynamic.errors import UserError
from static_dynamic.models import build_model
from static_dynamic.models.checkpoints import load_weights
from static_dynamic.models.matnet import CC_TYPES, CoAttention, GatedFusion, MATNet, read_matnet_checkpoint
from static_dynamic.models.resnet2d import resnet_layers
from static_dynamic.models.rtnet import CHUNK, Pair, RTNet, Scaling, attention, scattering_attention
from static_dynamic.models.twostream import FUSED, STREAMS, ConvexGates, Gate
from tests.keyed import keyed_image, keyed_state_dict
from tests.paths import GOLDEN

# variant -> how it is built, and the size of its weights in millions where SPEC says it
VARIANTS = {
    "fusionseg": ("fusionseg", {}, 112.39),
    "fusionseg_bnorm_os8": ("fusionseg", {"output_stride": 8, "fuse_bnorm": True}, None),
    "fusionseg_late": ("fusionseg", {"fuse_early": False}, None),
    "matnet": ("matnet", {}, 142.69),
    "matnet_cc_coatt_gated": ("matnet", {"cc_type": "coatt_gated"}, None),
    "matnet_cc_coatt_gated_recip": ("matnet", {"cc_type": "coatt_gated_recip"}, None),
    "matnet_cc_coatt_recip": ("matnet", {"cc_type": "coatt_recip"}, None),
    "matnet_convex_gated": ("matnet", {"fusion_type": "convex_gated"}, None),
    "matnet_gated_noglobal": ("matnet", {"fusion_type": "gated", "use_global": False}, None),
    "rtnet": ("rtnet", {}, 277.24),
    "rtnet34": ("rtnet34", {}, 105.55),
}
SMALL = (64, 96)


def relative_error(ours, theirs):
    return float((ours.double() - theirs.double()).norm() / theirs.double().norm())


def on_shapes(name):
    """A variant without weights, built in a second."""
    family, options, _ = VARIANTS[name]
    with torch.device("meta"):
        return build_model(family, **options)


def noise(seed=0):
    return partial(torch.randn, generator=torch.Generator().manual_seed(seed))


def filled(module, seed=0, spread=0.5):
    """Draw all weights, biases and statistics of a small module, so that none is left out unseen."""
    make = noise(seed)
    with torch.no_grad():
        for key, value in module.state_dict().items():
            if value.is_floating_point():
                drawn = spread * make(value.shape)
                value.copy_(drawn.abs() + 0.5 if key.endswith("running_var") else drawn)
    return module.eval().double().requires_grad_(False)


@pytest.fixture(scope="module")
def keys():
    """Variant -> key -> shape, of the original."""
    found = {}
    for line in lzma.decompress((GOLDEN / "vos_keys.txt.xz").read_bytes()).decode().splitlines():
        if line.startswith("# "):
            found[line.removeprefix("# ")] = current = {}
        else:
            key, shape = line.split("\t")
            current[key] = tuple(int(n) for n in shape.strip("()").split(",") if n.strip())
    return found


@pytest.mark.parametrize("name", VARIANTS)
def test_keys_shapes_and_stages_of_every_variant(name, keys):
    net = on_shapes(name)
    order = [f"{place},{stream}" for stream in STREAMS for place in ("conv1", *map("layer{}".format, "1234"))]
    fused = "14" if name.startswith("fusionseg") else "1234"
    assert net.shown_stages() == order + [f"layer{k},{FUSED}" for k in fused]
    assert {stage.stream for stage in net.stages.values()} == {*STREAMS, FUSED}
    assert net.input_spec.shape == (480, 854)
    assert {key: tuple(value.shape) for key, value in net.state_dict().items()} == keys[name]
    millions = VARIANTS[name][2]
    if millions:
        assert round(sum(p.numel() for p in net.parameters()) / 1e6, 2) == millions


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("vos_*.pt")), ids=lambda path: path.stem)
def test_golden_rows_and_segmentation(path):
    golden = torch.load(path, weights_only=True)
    name = golden["name"]
    family, options, _ = VARIANTS[name]
    net = build_model(family, **options)
    net.load_state_dict(keyed_state_dict(name, net.state_dict()))
    assert sum(p.numel() for p in net.parameters()) == golden["n_params"]
    bars, dtype = {}, torch.float32
    if isinstance(net, RTNet):
        # With these weights its softmaxes see values in the hundreds, which multiply rounding errors: the
        # original's float32 rows are 1.4e-5 from the exact ones at the deepest stage. So the exact ones are
        # compared; in float32, one thread or two make 3e-5 or 6e-6 there.
        net, bars, dtype = net.double(), {f"layer4,{FUSED}": 2e-5}, torch.float64
    for case in golden["cases"]:
        inputs = {
            key: keyed_image(tag, case["input_shapes"][key]).to(dtype)
            for key, tag in case["input_tags"].items()
        }
        assert list(net.prepare(inputs)) == ["Image", "Flow"]
        rows = net.read(inputs)
        assert rows.keys() == case["stages"].keys()
        for stage, expected in case["stages"].items():
            assert relative_error(rows[stage], expected) < bars.get(stage, 1e-5), stage
        with torch.inference_mode():
            output = net(inputs)
        maps = output.split(1, dim=1) if isinstance(net, RTNet) else [output]
        step = case["step"]
        for ours, theirs, shape in zip(maps, case["outputs"], case["output_shapes"], strict=True):
            assert list(ours.shape) == shape
            assert relative_error(ours[..., ::step, ::step], theirs) < 1e-5


@pytest.mark.parametrize("name", ["fusionseg", "fusionseg_late", "matnet", "matnet_convex_gated", "rtnet34"])
def test_a_batch_of_three_equals_three_of_one(name):
    family, options, _ = VARIANTS[name]
    check_batch(build_model(family, **options))


def test_a_batch_of_three_equals_three_of_one_in_rtnet():
    check_batch(build_model("rtnet"))
    net = build_model("rtnet")
    spatial = net.example_input(noise(1), size=SMALL)
    rows = net.read(spatial)
    swapped = net.read({key: value.flip(1) for key, value in spatial.items()})
    # the second frame is transformed by the first as it has become, so the two do not just change places
    assert relative_error(rows["conv1,app_stream"].flip(0), swapped["conv1,app_stream"]) < 1e-5
    assert relative_error(rows["layer1,app_stream"].flip(0), swapped["layer1,app_stream"]) > 1e-4


def check_batch(net):
    # In float32, the kernels of one clip and of three clips round differently, on some processors above 1e-5.
    net.double()
    inputs = {key: value.double() for key, value in net.example_input(noise(), batch=3, size=SMALL).items()}
    together = net.read(inputs, [*net.stages, "logits"])
    alone = [
        net.read({key: value[i : i + 1] for key, value in inputs.items()}, [*net.stages, "logits"])
        for i in range(3)
    ]
    for stage, rows in together.items():
        stacked = torch.cat([one[stage] for one in alone])
        assert relative_error(rows, stacked) < 1e-5, stage
        # nor is it for lack of differences between the items, which untrained layers make small
        other = stacked.roll(len(stacked) // 3, 0)
        assert relative_error(rows, stacked) < 0.05 * relative_error(other, stacked), stage
    probability = net.foreground(inputs)
    assert probability.shape == (len(together["logits"]), *SMALL)
    assert 0 <= probability.min() and probability.max() <= 1


# what is never to run while only the encoder's stages are read
DECODERS = {"fusionseg": "classifier.aspp", "matnet": "decoder.GC", "rtnet34": "spatial_net.decoder4"}


@pytest.mark.parametrize("name", DECODERS)
def test_early_stop(name):
    net = build_model(name)
    ran = []
    for path in (DECODERS[name], *(["temporal_net.dilation1"] if name == "rtnet34" else [])):
        net.get_submodule(path).register_forward_hook(lambda *_, path=path: ran.append(path))
    inputs = net.example_input(noise(), size=SMALL)
    everything = net.read(inputs)
    assert (DECODERS[name] in ran) == (name != "fusionseg"), "of FusionSeg all stages are in the encoder"
    assert "temporal_net.dilation1" not in ran
    ran.clear()
    encoder = [stage for stage in net.stages if stage.partition(",")[2] in STREAMS]
    assert len(encoder) == 10
    rows = net.read(inputs, encoder)
    assert not ran and all(torch.equal(rows[stage], everything[stage]) for stage in encoder)


def test_a_fused_stage_stops_before_the_next_layer():
    net = build_model("matnet")
    ran = []
    net.encoder.res3_1.register_forward_hook(lambda *_: ran.append(1))
    net.read(net.example_input(noise(), size=SMALL), [f"layer1,{FUSED}"])
    assert not ran


def pointwise(conv, vector):
    """A 1x1 convolution at one place."""
    return conv.weight[:, :, 0, 0] @ vector + conv.bias


def doubles(seed, *shape):
    return noise(seed)(shape, dtype=torch.float64)


def cascade_by_loops(module, norm_fn, image, flow):
    """`CoAttention.cascade` for one item, (C, H, W) each: for each place, what is added to both streams."""
    height, width = image.shape[1:]
    streams = []
    for maps, proj in ((image, module.proj1), (flow, module.proj2)):
        vectors = [maps[:, y, x] for y in range(height) for x in range(width)]
        weights = torch.cat([pointwise(proj, v) for v in vectors]).softmax(0)
        streams.append([v * w for v, w in zip(vectors, weights, strict=True)])
    image, flow = streams
    low_image, low_flow = (
        [pointwise(p, v) for v in vectors]
        for p, vectors in zip((module.proja, module.projb), streams, strict=True)
    )
    affinity = torch.stack([torch.stack([f @ i for i in low_image]) for f in low_flow])  # flow's x image's
    over_image = affinity.tanh() if norm_fn == "tanh" else affinity.softmax(1)
    over_flow = affinity.tanh() if norm_fn == "tanh" else affinity.softmax(0)
    added = []
    for i in range(height * width):
        of_image = sum(v * over_flow[i, j] for j, v in enumerate(image))
        of_flow = sum(v * over_image[j, i] for j, v in enumerate(flow))
        to_image = of_image / of_image.norm()
        to_flow = of_flow / of_flow.norm() if module.kind.mutual else flow[i]
        if module.kind.gated:
            opened = torch.sigmoid(pointwise(module.rgating.conv[0], torch.cat([image[i], flow[i]])))
            to_image = to_image + image[i] * (1 + opened[0])
            if module.kind.mutual:
                to_flow = to_flow + flow[i] * (1 + opened[1])
        added.append((to_image, to_flow))
    return added


@pytest.mark.parametrize("norm_fn", ["tanh", "softmax"])
@pytest.mark.parametrize("cc_type", CC_TYPES)
def test_co_attention_cascade_against_loops(cc_type, norm_fn):
    maps = [doubles(seed, 2, 32, 2, 3) for seed in (1, 2)]
    module = filled(CoAttention(32, CC_TYPES[cc_type], norm_fn), spread=0.2)
    ours = module.cascade(*maps)
    for b in range(2):
        for i, added in enumerate(cascade_by_loops(module, norm_fn, *(x[b] for x in maps))):
            for mine, theirs in zip(ours, added, strict=True):
                assert relative_error(mine[b].flatten(1)[:, i], theirs) < 1e-12


@pytest.mark.parametrize("cc_type", CC_TYPES)
def test_co_attention_is_five_cascades(cc_type):
    image, flow = (doubles(seed, 1, 32, 2, 3) for seed in (1, 2))
    module = filled(CoAttention(32, CC_TYPES[cc_type], "tanh"), spread=0.2)
    a, b = image, flow
    for _ in range(4):
        to_a, to_b = module.cascade(a, b)
        a, b = (a + to_a).clamp(min=0), (b + to_b).clamp(min=0)
    to_a, to_b = module.cascade(a, b)
    ours = module(image, flow)
    assert torch.allclose(ours[0], (image + to_a + (flow if cc_type == "coatt_add" else 0)).clamp(min=0))
    assert torch.allclose(ours[1], (flow + to_b).clamp(min=0))


@pytest.mark.parametrize("use_global", [False, True])
def test_gated_fusion_against_loops(use_global):
    image, flow = (doubles(seed, 1, 32, 8, 9) for seed in (1, 2))
    module = filled(GatedFusion(32, use_global))
    both = torch.cat([image, flow], dim=1)[0]
    first, second, last = (m[0] for m in (module.excitation_1, module.excitation_2, module.global_attention))
    squeezed = (first.weight @ torch.stack([channel.mean() for channel in both]) + first.bias).clamp(min=0)
    channels = torch.sigmoid(second.weight @ squeezed + second.bias)
    weighed = torch.stack([x * w for x, w in zip(both, channels, strict=True)])
    whole = torch.sigmoid(last.weight[0] @ squeezed + last.bias) if use_global else 1.0
    highest, norm = nn.functional.pad(weighed.max(0).values, (3, 3, 3, 3)), module.spatial.bn
    ours = module(image, flow)[0]
    for y in range(8):
        for x in range(9):
            seen = (highest[y : y + 7, x : x + 7] * module.spatial.conv.weight[0, 0]).sum()
            place = (seen - norm.running_mean) / (norm.running_var + norm.eps).sqrt()
            place = place * norm.weight + norm.bias
            expected = both[:, y, x] + whole * place * weighed[:, y, x]
            assert relative_error(ours[:, y, x], expected) < 1e-12


@pytest.mark.parametrize("joint", [False, True])
def test_convex_gates_against_loops(joint):
    image, flow = (doubles(seed, 1, 32, 8, 9) for seed in (1, 2))
    module = filled(ConvexGates(32, 4, joint_maximum=joint))
    ours = module.weighted(image, flow)
    means = torch.cat([image, flow], dim=1)[0].flatten(1).mean(1)
    hidden = pointwise(module.channel.fc1, means).clamp(min=0)
    share = torch.sigmoid(pointwise(module.channel.fc2, hidden))[:, None, None]
    a, b = image[0] * share, flow[0] * (1 - share)
    if joint:
        seen, conv1 = torch.cat([a, b]).max(0).values[None], module.spatial.conv1["conv"]
    else:
        seen, conv1 = (
            torch.stack([a.mean(0), a.max(0).values, b.mean(0), b.max(0).values]),
            module.spatial.conv1,
        )
    padded = nn.functional.pad(seen, (3, 3, 3, 3))
    for y in range(8):
        for x in range(9):
            place = torch.sigmoid((padded[:, y : y + 7, x : x + 7] * conv1.weight[0]).sum())
            assert relative_error(ours[0][0, :, y, x], a[:, y, x] * place) < 1e-12
            assert relative_error(ours[1][0, :, y, x], b[:, y, x] * (1 - place)) < 1e-12


def test_attention_of_rtnet_against_loops():
    query, key, value = (doubles(seed, 1, 2, 4, 6) for seed in (1, 2, 3))  # 2 heads, 4 channels, 6 places
    received, gathered = scattering_attention(query, key, value), attention(query, key, value)
    for head in range(2):
        q, k, v = (x[0, head] for x in (query, key, value))
        logits = [torch.stack([q[:, i] @ k[:, j] / 4**0.5 for j in range(6)]) for i in range(6)]
        weights = torch.stack([row.exp() / row.exp().sum() for row in logits])  # each row sums to one
        for place in range(6):
            sent = sum(v[:, i] * weights[i, place] for i in range(6))  # down a column: the original's slip
            seen = sum(v[:, j] * weights[place, j] for j in range(6))
            assert relative_error(received[0, head, :, place], sent) < 1e-12
            assert relative_error(gathered[0, head, :, place], seen) < 1e-12


def test_scattering_in_parts_is_scattering_at_once():
    query, key, value = (doubles(seed, 1, 1, 3, CHUNK + 7) for seed in (1, 2, 3))
    weights = (query.transpose(2, 3) @ key / 3**0.5).softmax(dim=-1)
    assert torch.allclose(scattering_attention(query, key, value), value @ weights)


@pytest.mark.parametrize("thinned", [False, True])
@pytest.mark.parametrize("alike", [False, True])
def test_pair_of_rtnet_in_turn(alike, thinned):
    x, y = (doubles(seed, 1, 8, 5, 6) for seed in (1, 2))
    pair = filled(Pair(8, 2, alike=alike, thinned=thinned, scattering=True))
    a, b = pair.scaling(x, y)
    first = transformed(pair.transformation1, a, b, thinned)
    second = transformed(pair.transformation1 if alike else pair.transformation2, b, first, thinned)
    for mine, theirs in zip(pair(x, y), pair.gating(first, second), strict=True):
        assert torch.allclose(mine, theirs)


def transformed(module, seeker, source, thinned):
    size = seeker.shape[2:]
    if thinned:
        seeker, source = (nn.MaxPool2d(3, 2, 1)(x) for x in (seeker, source))
    heads = [
        scattering_attention(*(x[:, None] for x in head))[:, 0]
        for head in zip(
            *(
                projection(x).flatten(2).chunk(module.heads, dim=1)
                for projection, x in ((module.query, seeker), (module.key, source), (module.value, source))
            ),
            strict=True,
        )
    ]
    maps = torch.cat(heads, dim=1).view_as(seeker)
    return nn.UpsamplingBilinear2d(size)(maps) if thinned else maps


def test_gates_and_scales_strengthen():
    maps = [doubles(seed, 1, 4, 3, 3) for seed in (1, 2)]
    for count in (1, 2):
        for module, axis in ((Gate(4, count), "place"), (Scaling(4, count, 2), "channel")):
            for mine, x in zip(filled(module)(*maps[:count]), maps, strict=False):
                factor = mine / x  # one factor per position, or one per channel
                one = factor[:, :1] if axis == "place" else factor[..., :1, :1]
                assert torch.allclose(factor, one.expand_as(factor))
                assert 1 < factor.min() < factor.max() < 2


def test_dilated_layers_keep_the_map():
    x = torch.empty(1, 64, 32, 32, device="meta")
    for output_stride, sides in {32: (32, 16, 8, 4), 16: (32, 16, 8, 8), 8: (32, 16, 16, 16)}.items():
        maps, seen = x, []
        for layer in resnet_layers("resnet101", output_stride):
            maps = layer.to("meta")(maps)
            seen.append(maps.shape[2])
        assert tuple(seen) == sides
        first, second = (block.conv2.dilation[0] for block in layer[:2])
        assert (first, second) == {32: (1, 1), 16: (1, 2), 8: (2, 4)}[output_stride]


def state_of(net, prefix="", value=1.0):
    """A state dict of the right keys and shapes that takes no room on disk."""
    return {
        prefix + k: torch.full((), value).to(v.dtype).expand(v.shape) for k, v in net.state_dict().items()
    }


@pytest.mark.parametrize("name", ["fusionseg", "rtnet34"])
def test_original_checkpoint_layouts(name, tmp_path):
    state = state_of(on_shapes(name))
    wrapped = {
        "fusionseg": {"model_state": state, "cur_itrs": 5},
        "rtnet34": {"state_dict": {f"module.{key}": value for key, value in state.items()}, "epoch": 1},
    }
    torch.save(wrapped[name], tmp_path / "weights.pth")
    net = build_model(name, checkpoint=tmp_path / "weights.pth")
    assert all((value == 1).all() for value in net.state_dict().values())
    torch.save(state_of(on_shapes("matnet")), tmp_path / "others.pth")
    with pytest.raises(UserError, match=f"does not fit {type(net).__name__}: .* missing"):
        load_weights(net, tmp_path / "others.pth")
    with pytest.raises(UserError, match="is a folder: give a file in the folder"):
        load_weights(net, tmp_path)


def test_matnet_folder_of_the_highest_epoch(tmp_path):
    net = on_shapes("matnet")
    for epoch, value in {"3": 3.0, "12": 12.0, "best": 0.0}.items():
        for part in ("encoder", "decoder"):
            prefix = "module." if epoch == "12" else ""
            torch.save(state_of(net.get_submodule(part), prefix, value), tmp_path / f"{part}_{epoch}.pt")
    loaded = build_model("matnet", checkpoint=tmp_path)
    assert isinstance(loaded, MATNet) and all((value == 12).all() for value in loaded.state_dict().values())

    torch.save({"x": torch.zeros(1)}, tmp_path / "encoder_12.pt")
    with pytest.raises(UserError, match=r"does not fit MATNet: .* missing .*; 1 unexpected \(encoder.x\)"):
        build_model("matnet", checkpoint=tmp_path)


def test_matnet_folder_by_name(tmp_path):
    with pytest.raises(UserError, match="holds no encoder_<epoch>.pt"):
        read_matnet_checkpoint(tmp_path)
    torch.save({"w": torch.ones(1)}, tmp_path / "encoder_best.pt")
    with pytest.raises(UserError, match="decoder_best.pt does not exist"):
        read_matnet_checkpoint(tmp_path)
    torch.save({"module.w": torch.ones(1)}, tmp_path / "decoder_best.pt")
    assert sorted(read_matnet_checkpoint(tmp_path)) == ["decoder.w", "encoder.w"]


@pytest.mark.parametrize(
    "name, options, said",
    [
        ("fusionseg", {"output_stride": 32}, "FusionSeg takes 8 or 16"),
        ("fusionseg", {"fuse_early": False, "fuse_bnorm": True}, "needs fuse_early=True"),
        ("matnet", {"cc_type": "coat"}, "nearest known: coatt"),
        ("matnet", {"fusion_type": "none"}, "MATNet takes gated, convex_gated"),
        ("matnet", {"cc_type": "coatt_gated_recip", "norm_fn": "softmax"}, "needs norm_fn=tanh"),
        ("matnet", {"num_classes": 2}, "num_classes=2"),
        ("rtnet", {"num_classes": 2}, "RTNet needs num_classes=1"),
        ("rtnet", {"trunk": "resnet101"}, "resnext50 or resnet34"),
    ],
)
def test_what_cannot_be_built_is_said(name, options, said):
    with pytest.raises(UserError, match=said):
        build_model(name, **options)
