"""Options: each explains itself, errors are one line with the nearest name, run folders keep their names."""

import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from static_dynamic.analysis.run.identity import identity_of, run_folder
from static_dynamic.analysis.run.setup import require_fit
from static_dynamic.configs import CONFIG_DIR, GROUPS, row, rows
from static_dynamic.configs.common import Common
from static_dynamic.configs.grammar import format_value, quote, unquote
from static_dynamic.configs.help import help_text
from static_dynamic.configs.options import check, composed, translate
from static_dynamic.configs.row_options import LAYOUTS
from static_dynamic.configs.schema import options_of
from static_dynamic.configs.tasks import Task, tasks
from static_dynamic.datasets import list_clips
from static_dynamic.errors import UserError
from static_dynamic.models.stage_names import find_stage
from static_dynamic.models.stages import POOLS
from static_dynamic.stylize import quality_report

ALL_OPTIONS = [
    *options_of(Common),
    *(o for task in tasks().values() for o in options_of(type(task), "task.")),
]
BOOKKEEPING = {one.name for one in fields(Task)}


def test_every_option_is_explained():
    for option in ALL_OPTIONS:
        assert option.about, option.name
        if option.default is None and not option.ignored:
            assert "null" in option.about or "required" in option.about, option.name
            assert option.values == "" or option.values.endswith("null"), option.name


def test_every_field_of_a_task_is_an_option():
    for name, task in tasks().items():
        declared = {one.name for one in fields(task)} - BOOKKEEPING
        assert declared == {o.name.removeprefix("task.") for o in options_of(type(task), "task.")}, name
        assert (CONFIG_DIR.parent / "analysis" / "tasks" / f"{name}.py").is_file()
        assert (
            task.run == f"static_dynamic.analysis.tasks.{name}.run" and row("task", name).about == task.about
        )


def test_help_lists_tables_and_options_and_tasks_list_their_own():
    text = help_text()
    for option in options_of(Common):
        assert f"  {option.name}=" in text
    assert (
        "SlowFast: pathway to analyse; cat: both, concatenated [slow, fast or cat]" in text
        and "  gp=null " in text
    )
    assert max(map(len, text.splitlines())) <= 110
    for name in rows("task"):
        text = help_text([f"task={name}"])
        assert all(f"  {o.name}=" in text for o in options_of(type(tasks()[name]), "task."))
        assert row("task", name).about in text and "common options" in text
    assert "half-width of the 95 % intervals of parts and scores [number]" in help_text(["--task", "plan"])
    assert "alpha: 4" in help_text(["model=slowfast_r50_8x8"])
    with pytest.raises(UserError, match="nearest known: plan"):
        help_text(["task=plann"])


@pytest.mark.parametrize("group", GROUPS)
def test_every_row_fits_the_configuration(group):
    config = composed([])
    for name in rows(group):
        config[group] = row(group, name)
        assert OmegaConf.to_container(config, resolve=True)[group], name


def test_options_need_neither_torch_nor_a_second():
    code = (
        "import sys, static_dynamic.configs.help; sys.exit('torch' in sys.modules or 'pandas' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=CONFIG_DIR.parent).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        # unknown names
        ("task=plan task.widht=0.1", "unknown option task.widht; nearest known: task.width"),
        ("--task plan --task.widht 0.1", "unknown option task.widht; nearest known: task.width"),
        ("cfp.thta=1", "unknown option cfp.thta; nearest known: cfp.theta"),
        ("cfp={thta:1}", "unknown option cfp.thta; nearest known: cfp.theta"),
        ("model.inpt.size=3", "unknown option model.inpt; nearest known: model.input"),
        ("dataset.fsp=5", "unknown option dataset.fsp; nearest known: dataset.fps"),
        ("sead=3", "unknown option sead; nearest known: seed"),
        ("--sead 3", "unknown option --sead; nearest known: seed"),
        ("task=style_quality task.limits.motion.mots=1", "nearest known: task.limits.motion.most"),
        ("-m task=plan,compare task.width=0.1", "unknown option task.width; nearest known: "),
        ("hydra/launcher=joblib hydra.launcher.n_job=2", "nearest known: hydra.launcher.n_jobs"),
        ("task=plann", "unknown task 'plann'; nearest known: plan"),
        # former names
        ("task=stylize task.num_shards=2", "unknown option task.num_shards; nearest known: shards"),
        ("task=stylize task.shard=1", "unknown option task.shard; nearest known: shard"),
        ("task=stylize task.precision=float16", "unknown option task.precision; nearest known: precision"),
        ("task=train_style task.log_folder=x", "unknown option task.log_folder; nearest known: task.outdir"),
        ("task=units task.root=x", "unknown option task.root; nearest known: task.data_root"),
        *((f"task={t} task.stage=5", "nearest known: stg (") for t in ("compare", "plan", "units")),
        # wrong types
        ("task=plan task.width=abc", "task.width=abc (expected: number)"),
        ("n_boot=1.5", "n_boot=1.5 (expected: whole number)"),
        ("n_boot=true", "n_boot=true (expected: whole number)"),
        ("seed=null", "seed=null (expected: whole number)"),
        ("task=saliency task.kernels=[1,2]", "task.kernels=[1,2] (expected: whole number)"),
        ("task=saliency task.pictures=some", "task.pictures=some (expected: true or false or null)"),
        ("runs=FOLDER", "runs=FOLDER (expected: list)"),
        ("stg=[1,2]", "stg=[1,2] (expected: whole number, text or null)"),
        ("-m seed=1,x", "seed=x (expected: whole number)"),
        # unknown and small values
        ("on_error=foo", "on_error=foo; nearest known: error (known: error, skip)"),
        ("pairs=foo", "pairs=foo; nearest known: factorial"),
        ("precision=fp8", "precision=fp8; nearest known: fp32 (known: fp32, fp16, bf16)"),
        ("precision=float16", "precision=float16; nearest known: fp16"),
        ("batch_size=outo", "batch_size=outo; nearest known: auto"),
        ("task=train_style task.rules=mended", "task.rules=mended; nearest known: corrected"),
        (
            "task=compare task.formats=[png,jpg]",
            "task.formats=jpg; nearest known: png (known: png, pdf, svg)",
        ),
        ("shards=0", "shards=0: a number between 1 and 1000000 is expected"),
        ("joint_encoding_thresh=2", "joint_encoding_thresh=2: a number between -1 and 1 is expected"),
        ("joint_encoding_thresh=nan", "joint_encoding_thresh=nan: a number between -1 and 1 is expected"),
    ],
)
def test_a_wrong_option_is_one_line(arguments, message):
    with pytest.raises(UserError) as error:
        check(translate(arguments.split()))
    assert message in str(error.value) and "\n" not in str(error.value) and "append" not in str(error.value)


@pytest.mark.parametrize(
    "arguments",
    [
        "stg=3",
        "stg=stage3/fuse1/fast",
        "--stg layer4,app_stream",
        "batch_size=auto",
        "task=plan task.width=1",
        "task=information task.units={stage3:[17,40]}",
        "task=saliency task.label=5",
        "task=saliency task.label=petting_cat task.pictures=null",
        "task=train_style --data_root D --log_folder L --log_interval 10",
        "+model.options.depth=50 model=custom",
        "-m seed=1,2 shard=0,1 shards=2",
        "device=0",
        "task=plan --cfg job --package task",
        "resample_fps=25",
    ],
)
def test_a_right_option_is_taken(arguments):
    check(translate(arguments.split()))


def test_numbers_are_kept_as_they_are_given():
    config = composed(["resample_fps=25", "joint_encoding_thresh=1", "styles=1", "runs=[2024]"])
    assert repr(config.resample_fps) == "25" and repr(config.joint_encoding_thresh) == "1"
    assert config.styles == "1" and config.runs == ["2024"]


def test_values_survive_the_grammar_of_overrides():
    for value in ("a b", "it's", "[x]", "1,2", "plain/path.mp4"):
        assert unquote(quote(value)) == value
        assert composed([f"save_dir={quote(value)}"]).save_dir == value
    assert format_value([None, True, "a b", 1]) == "[null,true,'a b',1]"


SMALL = ["model=x3d_xs", "model.init=random", "model.input.size=40", "model.input.crop=32"]


@pytest.mark.parametrize(
    ("options", "folder"),
    [
        ([], "seed001-0edeacf8"),
        (["precision=fp32", "batch_size=2", "on_error=skip"], "seed001-0edeacf8"),
        (
            [
                *("seed=2", "pairs=paper", "resample_fps=25", "n_sample_frames=10", "app_shuffle=false"),
                *("precision=bf16", "tune=true", "dataset.fps=25"),
            ],
            "seed002-821dd2ea",
        ),
    ],
)
def test_run_folders_keep_their_names(stylized, options, folder):
    """The expected names are those of version 0.1."""
    data = ["dataset=folder", f"stylized_data_dir={stylized}", "styles='1,2'"]
    cfg = composed([*SMALL, *data, *options])
    clips = list_clips(cfg.dataset, (1, 2), cfg.n_examples, cfg.on_error, cfg.normal_data_root)
    identity = identity_of(cfg, clips, None, cfg.n_sample_frames or 48)
    found = run_folder(cfg, identity, f"seed{cfg.seed:03d}")
    assert found == Path("dim_outputs/x3d_xs/folder") / folder


def test_folders_of_style_quality_keep_their_names():
    cfg = composed(["task=style_quality", "task.min_motion=2", "dataset=folder"])
    listing = SimpleNamespace(
        root=Path("/data/stylized"), normal_root=None, listing_sha256="0" * 64, name="folder"
    )
    assert quality_report.report_folder(cfg, listing) == Path("dim_outputs/style_quality/folder-67e9da17")


def test_fp16_is_for_the_stylizer():
    with pytest.raises(UserError, match="precision=fp16"):
        require_fit(composed(["precision=fp16"]))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["orders=[forward,shuffled,revers]"], "unknown orders=revers; nearest known: reversed"),
        (["orders=[forward,frozen]"], "forward and shuffled are always needed"),
        (["pairs=paper", "orders=[forward,shuffled,frozen]"], "which pairs=paper does not show"),
    ],
)
def test_unusable_orders_are_refused_before_anything_is_built(options, says):
    with pytest.raises(UserError, match=says):
        require_fit(composed(options))


def test_views_that_changed_have_another_identity(stylized):
    """Runs of version 0.1 hold fewer views (pairs=both) or other jitter (flow), and must not be resumed."""

    def identity(*options):
        data = ["dataset=folder", f"stylized_data_dir={stylized}", "styles='1,2'"]
        cfg = composed([*SMALL, *data, *options])
        clips = list_clips(cfg.dataset, (1, 2), cfg.n_examples, cfg.on_error, cfg.normal_data_root)
        return identity_of(cfg, clips, None, 48)

    assert "views" not in identity() and "views" not in identity("pairs=paper")
    assert identity("pairs=both")["views"] == "0.2.0"
    # Networks that see flow have new jitter, except with pairs=paper.
    flow = "+model.input.pathways.Flow=1"
    assert identity(flow)["views"] == identity(flow, "pairs=both")["views"] == "0.2.0"
    assert "views" not in identity(flow, "pairs=paper")
    # Orders are a set: the sequence in the option does not matter, and the default is as good as none.
    assert identity("orders=[shuffled,forward]") == identity() and "orders" not in identity()
    frozen = identity("orders=[frozen,forward,shuffled]")
    assert frozen == identity("orders=[forward,shuffled,frozen]") and frozen != identity()


def test_the_stage_of_a_finished_run():
    slowfast = [f"stage{k}/fuse{fuse}/{path}" for k in (4, 5) for fuse in (0, 1) for path in ("slow", "fast")]
    options = {"path": "slow", "fuse": False}
    assert find_stage(5, slowfast, options) == find_stage("stage5", slowfast, options) == "stage5/fuse0/slow"
    assert find_stage("stage4/fuse1/fast", slowfast, options) == "stage4/fuse1/fast"
    assert find_stage(3, ["stage2", "stage3"], options) == "stage3"
    assert find_stage("layer4,app_stream", ["layer4,app_stream"], options) == "layer4,app_stream"
    with pytest.raises(UserError, match="stg=7: this run has no such stage; nearest known: "):
        find_stage(7, slowfast, options)


def test_scripts_compose_the_configuration_themselves():
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        cfg = compose("config", ["task=saliency", "model=x3d_xs"])
    merged = OmegaConf.merge(cfg, {"task": {"label": "5", "end": 9}, "cfp": {"theta": 1}})
    assert merged.task.label == "5" and merged.task.end == 9 and merged.cfp.theta == 1
    assert cfg.task.run == "static_dynamic.analysis.tasks.saliency.run" and cfg.task.needs_data


def test_layouts_that_users_may_name_are_pooled():
    assert {*LAYOUTS} == {*POOLS}
    with pytest.raises(UserError, match=r"unknown value model\.layout=abc; nearest known: maps"):
        check(["model=custom", "model.layout=abc"])
