"""The quality report: measures against definitions, verdicts against styles with one planted fault each."""

import math

import cv2
import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir

from static_dynamic.analysis.tasks.style_quality import run
from static_dynamic.configs import CONFIG_DIR
from static_dynamic.errors import UserError
from static_dynamic.stylize.exemplars import render
from static_dynamic.stylize.measures import Appearance, Motion, motion_error, residual_motion
from static_dynamic.stylize.quality import spread
from tests.conftest import write_frames
from tests.stylize.moving import texture, translation

WASH = {"rendering": "wash", "smooth": 45, "saturation": 1.9, "outline": 0.8}
INK = {"rendering": "charcoal", "radius": 4.0, "ink": 3.0, "paper": [0.98, 0.93, 0.82]}
COUNT = 10


def clipped(frames: np.ndarray) -> np.ndarray:
    return np.clip(np.round(frames), 0, 255).astype(np.uint8)


# one fault each, made of a good style (frames, generator) -> frames
FAULTS = {
    3: ("motion is not kept", lambda f, rng: f[rng.permutation(len(f))]),
    4: ("motion is not kept", lambda f, rng: np.repeat(f[:1], len(f), axis=0)),  # frozen
    5: ("it looks like style 1", lambda f, rng: clipped(f + 3.0)),
    6: ("it flickers", lambda f, rng: clipped(f + rng.normal(0, 12, f.shape))),
    7: ("it flickers", lambda f, rng: clipped(f + 12.0 * (-1) ** np.arange(len(f))[:, None, None, None])),
    8: ("it is washed out", lambda f, rng: clipped(0.2 * f + 190)),
}


@pytest.fixture(scope="module")
def faulty(tmp_path_factory):
    """A stylized folder: originals, two good styles, one style for each fault, one that is the original."""
    root = tmp_path_factory.mktemp("faulty")
    for k, step in enumerate(((3.0, 1.0), (-2.0, 2.5), (0.0, -3.0))):
        rng = np.random.default_rng(k)
        clip = translation(COUNT, step, seed=10 + k)
        inked = np.stack([render(frame, INK) for frame in clip])
        styles = {0: clip, 1: np.stack([render(frame, WASH) for frame in clip]), 2: inked, 9: clip}
        styles |= {i: fault(styles[1], rng) for i, (_, fault) in FAULTS.items()}
        for style, frames in styles.items():
            write_frames(root / f"style_{style}" / f"clip{k}", frames)
    return root


def config(root, tmp_path, *overrides):
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        base = [
            "task=style_quality",
            "dataset=folder",
            f"stylized_data_dir={root}",
            f"save_dir={tmp_path}/out",
        ]
        return compose("config", overrides=[*base, "num_workers=1", *overrides])


def test_planted_faults_are_named_and_nothing_else_is(faulty, tmp_path, capsys, caplog):
    folder = run(config(faulty, tmp_path, "styles='1,2,3,4,5,6,7,8,9'"))
    styles = pd.read_csv(folder / "styles.csv").set_index("style")
    assert styles.verdict[1] == styles.verdict[2] == "good"
    for style, (fault, _) in FAULTS.items():
        assert fault in styles.verdict[style], (style, styles.verdict[style])
    assert "it looks like the original" in styles.verdict[9]
    assert "washed" not in "".join(styles.verdict.drop([0, 8]).astype(str))
    assert "motion" not in "".join(styles.verdict[[5, 6, 7, 8, 9]])
    assert "looks like" not in styles.verdict[8]
    assert styles.motion[0] == styles.colour[0] == styles.texture[0] == 0 and styles.flicker[0] <= 1
    pairs = pd.read_csv(folder / "pairs.csv")
    assert len(pairs) == 45 and len(pd.read_csv(folder / "clips.csv")) == 3 * 10
    assert cv2.imread(str(folder / "contact_sheet.png")).shape[1] > 1000
    assert "flickers" in capsys.readouterr().out
    assert "style 3: motion is not kept (motion" in caplog.text


def test_the_same_report_has_the_same_bytes(faulty, tmp_path, capsys):
    reports = []
    for name in ("a", "b"):
        folder = run(config(faulty, tmp_path / name, "styles='1,2'", "task.frame_pairs=2"))
        reports.append({p.name: p.read_bytes() for p in folder.iterdir()})
    assert reports[0] == reports[1] and len(reports[0]) == 5
    assert "2 pairs of frames per clip" in capsys.readouterr().out


def test_missing_originals_are_one_line(faulty, tmp_path):
    root = tmp_path / "stylized"
    root.mkdir()
    (root / "style_1").symlink_to(faulty / "style_1")
    with pytest.raises(UserError, match="has no style_0, .* give normal_data_root=DIR") as error:
        run(config(root, tmp_path, "styles=1"))
    assert "\n" not in str(error.value)
    folder = run(config(root, tmp_path, "styles=1", f"normal_data_root={faulty / 'style_0'}"))
    assert pd.read_csv(folder / "styles.csv").verdict[1] == "good"


def test_originals_of_another_size_are_scaled(faulty, tmp_path):
    for k in range(3):
        files = sorted((faulty / "style_0" / f"clip{k}").iterdir())
        large = np.stack([cv2.resize(cv2.imread(str(f))[..., ::-1], None, fx=2, fy=2) for f in files])
        write_frames(tmp_path / "large" / f"clip{k}", large)
    cfg = config(faulty, tmp_path, "styles=1", f"normal_data_root={tmp_path / 'large'}")
    assert pd.read_csv(run(cfg) / "styles.csv").verdict[1] == "good"


def test_an_unreadable_frame_is_named_or_skipped(faulty, tmp_path, caplog):
    root = tmp_path / "stylized"
    for style in (0, 1):
        for k in range(2):
            frames = translation(4, (2.0, 1.0), seed=k)
            write_frames(root / f"style_{style}" / f"clip{k}", frames if style == 0 else 255 - frames)
    (root / "style_1" / "clip1" / "000002.png").write_bytes(b"not an image")
    with pytest.raises(UserError, match="000002.png is not a readable image"):
        run(config(root, tmp_path, "styles=1"))
    folder = run(config(root, tmp_path, "styles=1", "on_error=skip"))
    assert set(pd.read_csv(folder / "clips.csv")["clip"]) == {"clip0"}
    assert "1 clips were skipped, the first: clip1" in caplog.text


def test_a_still_clip_says_nothing_of_motion(tmp_path):
    still = translation(4, (0.0, 0.0))
    write_frames(tmp_path / "s" / "style_0" / "clip", still)
    write_frames(tmp_path / "s" / "style_1" / "clip", 255 - still)
    styles = pd.read_csv(run(config(tmp_path / "s", tmp_path, "styles=1")) / "styles.csv").set_index("style")
    assert styles.moving_clips[1] == 0 and "no clip moves" in styles.verdict[1]


def test_motion_error_is_that_of_planted_flow():
    first, second = translation(2, (3.0, 0.0))
    motion = Motion.between(first, second)
    where = motion.moving(1.0)
    assert 0.5 < where.mean() < 1
    assert motion_error(motion, motion.forward, where) == 0
    assert motion_error(motion, np.zeros_like(motion.forward), where) == pytest.approx(1)
    assert motion_error(motion, 1.5 * motion.forward, where) == pytest.approx(0.5, abs=1e-5)


def test_residual_motion_is_a_displacement_in_pixels():
    """Along the true flow nothing is left; one pixel off it is about one pixel."""
    frames = translation(3, (1.0, 0.0), height=120, width=160)
    motion = Motion.between(frames[0], frames[1])
    assert residual_motion(motion, frames[0], frames[1]) < 0.2
    off = residual_motion(motion, frames[0], frames[2])  # texture moves on by one pixel to the right alone
    slope = np.abs(np.diff(frames[2].astype(float), axis=1)).mean()
    blurred = cv2.GaussianBlur(frames[2].astype(np.float32), (0, 0), 2)
    soft = (np.abs(np.diff(blurred, axis=0)).mean() + np.abs(np.diff(blurred, axis=1)).mean()) / 2
    assert off == pytest.approx(slope / soft, rel=0.15)


def test_colour_distance_is_that_of_wasserstein():
    """Of two grey pictures: the mean difference of sorted lightness."""
    rng = np.random.default_rng(0)
    a, b = (
        np.repeat(rng.integers(low, high, (64, 64, 1)), 3, axis=2).astype(np.uint8)
        for low, high in ((20, 120), (90, 230))
    )
    lightness = [cv2.cvtColor(p.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[..., 0] for p in (a, b)]
    expected = np.abs(np.sort(lightness[0], axis=None) - np.sort(lightness[1], axis=None)).mean()
    assert Appearance.of([a]).colour_distance(Appearance.of([b])) == pytest.approx(expected, rel=0.02)
    low, high = np.quantile(lightness[0], (0.05, 0.95))
    assert Appearance.of([a]).contrast == pytest.approx(high - low, rel=0.02)


def test_texture_distance_counts_octaves():
    fine = texture(0, 128, 128, blur=1.5).mean(-1) / 2.55
    grey = np.zeros((128, 128, 2), np.float32)
    labs = [np.dstack([lightness, grey]) for lightness in (fine, 0.5 * fine + 25)]
    rgb = [clipped(255 * cv2.cvtColor(lab.astype(np.float32), cv2.COLOR_LAB2RGB)) for lab in labs]
    appearances = [Appearance.of([picture]) for picture in rgb]
    assert appearances[0].texture_distance(appearances[1]) == pytest.approx(1, abs=0.1)  # half as strong
    assert appearances[0].texture_distance(appearances[0]) == 0


def test_clips_are_spread_over_the_list():
    assert spread(range(10), 4) == [0, 3, 6, 9]
    assert spread([7], 4) == [7]
    assert math.isclose(len(spread(range(1000), 48)), 48)
