"""Views on a new background: their pixels against a slow paste, and their parts against planted effects."""

import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf
from PIL import Image

import main
from static_dynamic.analysis import estimate_run, import_activations
from static_dynamic.datasets import list_clips, make_views
from static_dynamic.datasets.backgrounds import Backgrounds, noise, stripes
from static_dynamic.datasets.masks import open_masks
from static_dynamic.datasets.orders import FORWARD, FROZEN_FOREGROUND, NEW_BACKGROUND, SHUFFLED

SIDE, FRAMES = 24, 10
ORDERS = (FORWARD, SHUFFLED, NEW_BACKGROUND, FROZEN_FOREGROUND)


def shown(video, style, t):
    """A frame: noise of its own for each video, style and frame."""
    rng = np.random.default_rng([int(video[1:]), style, t])
    return rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8)


def mask_of(video, t):
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[t : t + 6, 4 : 12 + int(video[1:])] = 1
    return mask


@pytest.fixture
def data(tmp_path):
    for video in ("v0", "v1", "v2"):
        for style in (1, 2):
            folder = tmp_path / "data" / f"style_{style}" / video
            folder.mkdir(parents=True)
            for t in range(FRAMES):
                Image.fromarray(shown(video, style, t)).save(folder / f"{t:06d}.png")
        (tmp_path / "masks").mkdir(exist_ok=True)
        np.savez(tmp_path / "masks" / f"{video}.npz", np.stack([mask_of(video, t) for t in range(FRAMES)]))
    return tmp_path


def listed(data, kind, seed=1):
    from dataclasses import replace

    row = OmegaConf.create(
        {"name": "folder", "root": str(data / "data"), "layout": "folder", "fps": 25, "annotations": {}}
    )
    clips = list_clips(row, (1, 2), 10, "error", None)
    masks = open_masks(str(data / "masks"), clips)
    return replace(clips, masks=masks, backgrounds=Backgrounds.of(kind, seed, clips))


@pytest.mark.parametrize("kind", ["stripes", "noise", "clip"])
def test_the_network_sees_the_foreground_on_the_new_background(data, kind):
    clips = listed(data, kind)
    views, _ = make_views(
        clips.clips, (1, 2), {"slow": 2, "fast": 4}, n_sample_frames=8, orders=ORDERS, pairs="factorial"
    )
    batches = clips.batches(views, np.arange(len(views)), 7, None)
    seen = {}
    for batch in map(batches.__getitem__, range(len(batches))):
        for decoded in batch:
            for row, pathways in zip(decoded.rows, decoded.positions, strict=True):
                seen[row] = [decoded.frames[torch_index].numpy() for torch_index in pathways]
                for position, frame in zip(pathways[1], views.loc[row, "frames_fast"], strict=True):
                    assert np.array_equal(decoded.masks[position], mask_of(decoded.clip, frame))
    assert len(seen) == len(views) == 3 * 2 * 4
    backgrounds = {}
    for row, view in views.iterrows():
        for frames, pathway in zip(seen[row], ("frames_slow", "frames_fast"), strict=True):
            for frame, t in zip(frames, view[pathway], strict=True):
                truth, inside = shown(view["video"], view["style"], t), mask_of(view["video"], t) == 1
                if view["order"] in (FORWARD, SHUFFLED):
                    assert np.array_equal(frame, truth)
                    continue
                assert np.array_equal(frame[inside], truth[inside])
                held = backgrounds.setdefault((view["clip"], view["style"]), {})
                for y, x in np.argwhere(~inside):
                    assert held.setdefault((y, x), tuple(frame[y, x])) == tuple(frame[y, x])
        if view["order"] == FROZEN_FOREGROUND:
            assert all(np.array_equal(frame, seen[row][0][0]) for frames in seen[row] for frame in frames)
    images = {key: np.array([held[yx] for yx in sorted(held)]) for key, held in backgrounds.items()}
    for clip in ("v0", "v1", "v2"):
        if kind == "clip":
            others = [shown(v, 1, FRAMES // 2) for v in ("v0", "v1", "v2") if v != clip]
            places = sorted(backgrounds[clip, 1])
            assert any(np.array_equal([o[yx] for yx in places], images[clip, 1]) for o in others)
            assert not np.array_equal(images[clip, 1], images[clip, 2])
        else:
            assert np.array_equal(images[clip, 1], images[clip, 2])
    if kind != "clip":
        assert not np.array_equal(images["v0", 1][:50], images["v1", 1][:50])


def test_drawn_backgrounds_are_images():
    for draw in (stripes, noise):
        image = draw(np.random.default_rng(0), 37, 53)
        assert image.shape == (37, 53, 3) and image.dtype == np.uint8 and image.std() > 5


def planted(views, rng, background=1.0, foreground=1.0, motion=1.0, units=40):
    """Activations with a background, a foreground, its motion, and noise, each of a known variance."""
    codes = views["clip"].astype("category").cat.codes.to_numpy()
    clips, order = codes.max() + 1, views["order"].to_numpy()
    effects = {
        name: rng.standard_normal((clips, units)) for name in "background foreground motion new".split()
    }
    swapped = np.isin(order, (NEW_BACKGROUND, FROZEN_FOREGROUND))[:, None]
    frozen = (order == FROZEN_FOREGROUND)[:, None]
    rows = np.sqrt(foreground) * effects["foreground"][codes]
    rows = rows + np.sqrt(background) * np.where(swapped, effects["new"][codes], effects["background"][codes])
    rows = rows + np.sqrt(motion) * np.where(frozen, 0, effects["motion"][codes])
    return rows + 0.5 * rng.standard_normal(rows.shape)


@pytest.mark.parametrize(("background", "motion"), [(1.0, 1.0), (0.0, 1.0), (2.0, 0.0)])
def test_planted_backgrounds_and_motion_come_back(tmp_path, background, motion):
    clips = [f"c{k:03d}" for k in range(150)]
    index = [(c, c, s, o) for c in clips for s in (1, 2) for o in ORDERS]
    views = pd.DataFrame(index, columns=["video", "clip", "style", "order"])
    rows = planted(views, np.random.default_rng(0), background, 1.0, motion)
    result = estimate_run(
        import_activations(tmp_path / "run", {"s": rows.astype(np.float32)}, views),
        n_boot=20,
        n_permutations=99,
    )
    layer = result.layers.iloc[0]
    whole = background + 1 + motion + 0.25
    assert layer["background"] == pytest.approx(background / whole, abs=0.05)
    # Half of the variance of the frozen and the moving views is that of the motion.
    of_foreground = motion / 2 / (background + 1 + motion / 2 + 0.25)
    assert layer["foreground_motion"] == pytest.approx(of_foreground, abs=0.05)
    for name, effect in (("background", background), ("foreground_motion", motion)):
        assert layer[f"{name}_low"] <= layer[name] <= layer[f"{name}_high"]
        assert (layer[f"p_{name}"] <= 0.05) == (effect > 0)


def test_the_main_job_says_what_depends_on_the_background(in_process, data, tmp_path, monkeypatch):
    options = [
        *("model=small_cnn", "model.init=random", "dataset=folder", f"dataset.root={data / 'data'}"),
        *("styles='1,2'", "num_workers=2", "n_boot=20", "n_permutations=20", "model.input.frames=4"),
        *("model.input.sampling_rate=2", "orders=[forward,shuffled,new_background,frozen_foreground]"),
    ]
    status, out, err = in_process(main, *options, f"run_dir={tmp_path / 'run'}", f"masks={data / 'masks'}")
    assert status == 0, err
    layers = pd.read_csv(tmp_path / "run" / "layers.csv")
    assert {"background", "background_low", "foreground_motion", "p_background"} <= set(layers)
    assert "background %" in out and "new_background" in out
    behaviour = pd.read_csv(tmp_path / "run" / "behaviour.csv")
    assert {"new_background", "frozen_foreground"} <= set(behaviour["change"])
    # resumed, nothing is read again; another background is another run
    status, _, err = in_process(main, *options, f"run_dir={tmp_path / 'run'}", f"masks={data / 'masks'}")
    assert status == 0 and "are on disk" in err
    status, _, err = in_process(
        main, *options, f"run_dir={tmp_path / 'run'}", f"masks={data / 'masks'}", "backgrounds=noise"
    )
    assert status == 2 and "holds a run with other options" in err
    status, _, err = in_process(main, *options, f"run_dir={tmp_path / 'other'}")
    assert status == 2 and "need masks" in err
