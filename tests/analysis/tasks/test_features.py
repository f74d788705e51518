"""Files of features: against the main job, in every format, with frame times, in shards, resumed; RDMs."""

import pickle
import sys

import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir

from static_dynamic.analysis import estimate_run, import_activations, read_features
from static_dynamic.analysis.run import feature_files
from static_dynamic.analysis.run.feature_files import feature_file, read_parquet, steps_of
from static_dynamic.analysis.run.features import PlannedFeatures, times_of
from static_dynamic.analysis.run.locks import writing
from static_dynamic.analysis.run.planned import PlannedRun
from static_dynamic.analysis.run.progress import progress_of
from static_dynamic.analysis.run.rdms import MEASURES
from static_dynamic.analysis.run.store import Store
from static_dynamic.analysis.tasks import features, merge
from static_dynamic.configs import CONFIG_DIR
from static_dynamic.datasets import Clip
from static_dynamic.errors import UserError
from tests.analysis.run.test_extraction import contents
from tests.conftest import moving_square, write_frames

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = [
    *("model=small_cnn", "model.init=random", "model.num_classes=8", "dataset=folder", "dataset.fps=10"),
    *("num_workers=0", "device=cpu", "batch_size=3", "styles='1,2'"),
]
FORMATS = ("npz", "h5", "parquet")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder of five clips of 20 frames, unstylized and in two styles."""
    root = tmp_path_factory.mktemp("data")
    for k in range(5):
        frames = moving_square(k, n=20, side=36)
        for style, shown in enumerate((frames, frames[..., ::-1], 255 - frames)):
            write_frames(root / f"style_{style}" / f"clip{k}", shown)
    return root


def options(data, *arguments, task="features"):
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        given = [*SMALL, f"stylized_data_dir={data}", f"task={task}", *map(str, arguments)]
        return compose("config", overrides=given)


@pytest.fixture
def export(data, tmp_path, capsys):
    """Run the task; return the folder."""

    def call(*arguments, folder="features"):
        path = tmp_path / folder
        features.run(options(data, f"run_dir={path}", *arguments))
        return path

    return call


def skip_without(form):
    if form == "h5":
        pytest.importorskip("h5py", reason="h5py is not installed")


@pytest.mark.parametrize("form", FORMATS)
def test_imported_features_give_the_tables_of_the_main_job(data, export, tmp_path, form):
    skip_without(form)
    planned = PlannedRun.of(options(data, f"run_dir={tmp_path / 'main'}", task="profile"))
    with writing(planned.folder):
        planned.read(planned.open(planned.folder))
    found, views = read_features(export("task.views=all", f"task.format={form}"))
    found.pop("logits")
    run = import_activations(tmp_path / "imported", found, views, model="small_cnn")
    got, expected = (estimate_run(path, n_boot=20, n_permutations=9) for path in (run, planned.folder))
    pd.testing.assert_frame_equal(got.layers, expected.layers, rtol=1e-6, atol=1e-9)
    pd.testing.assert_frame_equal(got.units, expected.units, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("time", [False, True])
@pytest.mark.parametrize("form", FORMATS)
def test_every_format_holds_the_same_arrays_also_in_small_blocks(export, monkeypatch, form, time):
    skip_without(form)
    whole = export(f"task.time={time}")
    monkeypatch.setattr(feature_files, "NUMBERS_AT_A_TIME", 100)
    folder = export(f"task.time={time}", f"task.format={form}", folder="other")
    store = Store.open(folder)
    for stage in store.names:
        got = feature_files.READERS[form](feature_file(folder, stage, form))
        expected = dict(np.load(feature_file(whole, stage, "npz")))
        assert got.keys() == expected.keys()
        for name, column in expected.items():
            np.testing.assert_array_equal(got[name], column)
            assert got[name].shape == column.shape and got[name].dtype.kind == column.dtype.kind, name
        np.testing.assert_array_equal(got["features"].reshape(5, -1), store.activations(stage))


def test_the_default_is_each_clip_unstylized_in_order(export):
    found, views = read_features(export())
    assert list(views["clip"]) == [f"clip{k}" for k in range(5)]
    assert set(views["style"]) == {0} and set(views["order"]) == {"forward"}
    assert {name: rows.shape for name, rows in found.items()} == {
        **{f"stage{k}": (5, units) for k, units in enumerate((12, 24, 32, 48), start=1)},
        "logits": (5, 8),
    }


def test_views_in_every_style(export):
    _, views = read_features(export("task.views=forward"))
    assert len(views) == 10 and set(views["style"]) == {1, 2} and set(views["order"]) == {"forward"}


def test_the_time_axis_and_the_times_of_the_steps(export):
    pooled, _ = read_features(export())
    folder = export("task.time=true", folder="time")
    found, _ = read_features(folder)
    assert [rows.shape[:2] for rows in found.values()] == [(5, 8), (5, 8), (5, 4), (5, 4), (5, 1)]
    for stage, rows in found.items():
        np.testing.assert_allclose(rows.mean(axis=1), pooled[stage], rtol=1e-5, atol=1e-6)
    views = Store.open(folder).views
    for stage, steps in (("stage1", 8), ("stage3", 4), ("logits", 1)):
        file = np.load(feature_file(folder, stage, "npz"))
        for row, frames in enumerate(views["frames_rgb"]):
            for step, own in enumerate(np.split(frames, steps)):
                assert (
                    file["first_frame"][row, step] == own.min() and file["last_frame"][row, step] == own.max()
                )
                assert file["seconds"][row, step] == pytest.approx(own.mean() / 10)


def test_steps_that_do_not_divide_the_frames_overlap():
    views = pd.DataFrame({"frames_rgb": [np.arange(10, 15)], "seconds": [np.arange(5) / 2]})
    got = steps_of(views, 3)
    assert got["first_frame"].tolist() == [[10, 11, 13]] and got["last_frame"].tolist() == [[11, 13, 14]]
    assert got["seconds"].tolist() == [[0.25, 1.0, 1.75]]


def test_times_of_frames():
    frames = np.array([5, 7])
    assert times_of(Clip("c", "v", 5, 4, fps=4.0), frames).tolist() == [0, 0.5]
    assert times_of(Clip("c", "v", 5, 4, fps=4.0, times=(0.0, 0.2, 0.9, 1.0)), frames).tolist() == [0, 0.9]
    assert np.isnan(times_of(Clip("c", "v", 5, 4), frames)).all()


def test_chosen_stages_and_class_scores(export):
    assert list(read_features(export("task.stages=[4,stage2]"))[0]) == ["stage2", "stage4"]
    assert list(read_features(export("task.stages=[1,logits]", folder="logits"))[0]) == ["stage1", "logits"]


def files_of(folder):
    return {name: data for name, data in contents(folder).items() if name != "timing.json"}


def test_a_stopped_task_resumes_with_the_same_bytes(data, export, tmp_path, monkeypatch):
    arguments = ("task.time=true", "task.rdm=correlation")
    expected = files_of(export(*arguments))
    planned = PlannedFeatures.of(options(data, f"run_dir={tmp_path / 'stopped'}", *arguments))
    with writing(planned.folder):
        planned.read(planned.open(planned.folder), end=3)
    assert progress_of(planned.folder)["left"] == 2 and progress_of(planned.folder)["state"] == "stopped"
    assert files_of(export(*arguments, folder="stopped")) == expected
    assert progress_of(planned.folder)["state"] == "done"


def test_merged_shards_are_the_whole(data, export, tmp_path, capsys):
    arguments = ("task.time=true", "task.format=parquet", "task.rdm=euclidean")
    expected = files_of(export(*arguments))
    parts = [
        options(data, f"save_dir={tmp_path / 'parts'}", *arguments, "shards=2", f"shard={k}") for k in (0, 1)
    ]
    for part in parts:
        features.run(part)
    merge.run(options(data, f"save_dir={tmp_path / 'parts'}", task="merge"))
    (folder,) = {file.parent for file in (tmp_path / "parts").rglob("features.csv")}
    assert files_of(folder) == expected


def test_unreadable_clips_are_left_out(data, export, tmp_path):
    broken = tmp_path / "broken"
    for k in range(3):
        write_frames(broken / "style_0" / f"clip{k}", moving_square(k, n=20, side=36))
    image = sorted((broken / "style_0" / "clip1").iterdir())[4]
    image.write_bytes(image.read_bytes()[:60])
    folder = export(f"stylized_data_dir={broken}", "on_error=skip", "task.rdm=correlation")
    found, views = read_features(folder)
    assert list(views["clip"]) == ["clip0", "clip2"] and np.isfinite(found["stage4"]).all()
    rdm = pickle.loads((folder / "features" / "rdm.pkl").read_bytes())
    assert rdm["dissimilarities"].shape == (4, 1) and rdm["pattern_descriptors"]["clip"] == ["clip0", "clip2"]


def slow_rdm(rows, measure):
    """Dissimilarities of all pairs of rows, one by one."""
    found = []
    for i, a in enumerate(rows):
        for b in rows[i + 1 :]:
            if measure == "correlation":
                found.append(1 - np.corrcoef(a, b)[0, 1])
            else:
                found.append(sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) / len(a))
    return np.array(found)


@pytest.mark.parametrize("form", ["npz", "h5"])
@pytest.mark.parametrize("measure", MEASURES)
def test_dissimilarities_are_those_of_a_plain_computation_and_of_rsatoolbox(export, measure, form):
    skip_without(form)
    folder = export("task.views=forward", f"task.rdm={measure}", f"task.format={form}")
    found, views = read_features(folder)
    file = folder / "features" / ("rdm.h5" if form == "h5" else "rdm.pkl")
    stages = [f"stage{k}" for k in (1, 2, 3, 4)]
    expected = np.stack([slow_rdm(found[stage].astype(float), measure) for stage in stages])
    if form == "npz":
        content = pickle.loads(file.read_bytes())
        np.testing.assert_allclose(content["dissimilarities"], expected, rtol=1e-9, atol=1e-12)
        assert content["rdm_descriptors"]["stage"] == stages
    toolbox = pytest.importorskip("rsatoolbox", reason="rsatoolbox is not installed")
    loaded = toolbox.rdm.load_rdm(str(file))
    np.testing.assert_allclose(loaded.dissimilarities, expected, rtol=1e-9, atol=1e-12)
    assert loaded.n_rdm == 4 and loaded.n_cond == 10
    assert list(map(str, loaded.rdm_descriptors["stage"])) == stages
    assert list(map(str, loaded.pattern_descriptors["clip"])) == views["clip"].tolist()
    for k, stage in enumerate(stages):
        dataset = toolbox.data.Dataset(found[stage].astype(float))
        theirs = toolbox.rdm.calc_rdm(dataset, method=measure)
        assert theirs.dissimilarity_measure == loaded.dissimilarity_measure
        np.testing.assert_allclose(loaded.dissimilarities[k], theirs.dissimilarities[0], rtol=1e-6, atol=1e-9)


def test_one_folder_of_unstylized_videos_is_enough(data, export):
    folder = export("stylized_data_dir=null", f"normal_data_root={data / 'style_0'}")
    assert len(read_features(folder)[1]) == 5


def test_parquet_has_one_row_per_view_and_step(export):
    file = feature_file(export("task.time=true", "task.format=parquet"), "stage3", "parquet")
    table = pd.read_parquet(file)
    assert len(table) == 20 and table["step"].tolist() == [0, 1, 2, 3] * 5
    np.testing.assert_array_equal(
        np.stack(table["features"]).reshape(5, 4, 32), read_parquet(file)["features"]
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["task.stages=[stage9]"], "no such stage"),
        (["task.stages=[logits]"], "give at least one stage"),
        (["until=0.1"], "until=WIDTH belongs to task=profile"),
        (["n_examples=1", "task.rdm=euclidean"], "0 dissimilarities of 1 views"),
    ],
)
def test_wrong_options_are_one_line(export, arguments, message):
    with pytest.raises(UserError, match=message):
        export(*arguments)


def test_hdf5_without_its_package_is_one_line_before_anything_is_computed(export, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(UserError, match="need the package h5py: pip install h5py"):
        export("task.format=h5")
    assert not (tmp_path / "features").exists()


def test_what_holds_no_features_is_one_line(export, tmp_path):
    with pytest.raises(UserError, match="holds no features"):
        read_features(tmp_path)
    folder = export()
    with pytest.raises(UserError, match="has no stage 'stage7'"):
        read_features(folder, ["stage7"])
    file = feature_file(folder, "stage1", "npz")
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(UserError, match="stage1.npz is damaged"):
        read_features(folder)


def test_a_run_without_pairs_has_no_estimate(export):
    with pytest.raises(UserError, match="pair"):
        estimate_run(export(), n_boot=10)
