"""The report of a run: what stands in it, what it escapes, and how a real browser shows it."""

import base64
import html
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import markupsafe
import numpy as np
import pandas as pd
import pytest

from static_dynamic.analysis.run.manifest import read_manifest
from static_dynamic.analysis.show.parts import LIMITS, OVERLAP, headline
from static_dynamic.analysis.show.report import charts
from static_dynamic.analysis.show.report.page import spread, table_cells, write_report
from static_dynamic.analysis.show.stage_text import stage_notes
from static_dynamic.errors import UserError
from tests.analysis.finished import finished_run, forget_new_columns
from tests.analysis.manifests import edit_manifest
from tests.browser import Browser
from tests.conftest import moving_square, write_frames

VIDEOS = 8
HOSTILE = "<script>alert(1)</script>&\"'"


@pytest.fixture(scope="session")
def videos(tmp_path_factory):
    """The original and two styles of a few short videos."""
    root = tmp_path_factory.mktemp("data")
    for v in range(VIDEOS):
        frames = moving_square(v, n=8)
        for style, shown in ((0, frames), (1, frames // 2), (2, 255 - frames)):
            write_frames(root / f"style_{style}" / str(v), shown)
    return root


@pytest.fixture
def run(tmp_path, videos):
    return finished_run(tmp_path / "run", videos=range(VIDEOS), root=videos)


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    opened = Browser(tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


class Page(HTMLParser):
    """What a page consists of: tags with their attributes, in order, and that they are closed."""

    EMPTY = {"meta", "link", "img", "br"}

    def __init__(self, text):
        super().__init__()
        self.tags, self.open = [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_it_says_what_the_run_found(run):
    text = write_report(run).read_text()
    page = Page(text)
    layers = pd.read_csv(run / "layers.csv")
    for _, row in layers.iterrows():
        assert (
            f"{row['score_static']:.3f} [{row['score_static_low']:.3f}, {row['score_static_high']:.3f}]"
            in text
        )
        joint = f"{row['units_joint']} [{row['units_joint_low']:.0f}, {row['units_joint_high']:.0f}]"
        assert f"<td>{joint}</td>" in text
        percents = [100 * row[f"units_joint{end}"] / row["units"] for end in ("", "_low", "_high")]
        assert "{}: joint {:.1f} ({:.1f} to {:.1f}) %".format(row["stage"], *percents) in text
        assert f"<td>{row['effective_videos']:.1f}</td><td>{row['effective_units']:.1f}</td>" in text
        cells = [f"{100 * row['motion']:.1f} [{100 * row['motion_low']:.1f}, {100 * row['motion_high']:.1f}]"]
        cells += [f"{row['kind_motion']} [{row['kind_motion_low']:.0f}, {row['kind_motion_high']:.0f}]"]
        assert all(f"<td>{cell}</td>" in text for cell in cells)
    for note in stage_notes(layers):
        assert f'<p class="warning">{note}</p>' in text
    for line in (headline(layers.set_index("stage").loc["stage2"]), OVERLAP, LIMITS):
        assert str(markupsafe.escape(line)) in text
    variance = 100 * pd.read_csv(run / "variance_layers.csv").set_index(["stage", "component"])["share"]
    assert f"stage1: video {variance['stage1', 'video']:.1f} %" in text
    assert "tiny on folder" in text and "8 clips of 8 videos, 2 styles" in text
    shown = json.loads(html.unescape(re.search(r"<pre>(.*?)</pre>", text, re.S)[1]))
    manifest = read_manifest(run)
    assert shown == manifest | {"root": Path(manifest["root"]).name}
    pictures = [a["src"] for tag, a in page.tags if tag == "img"]
    assert len(pictures) == 8 and all(p.startswith("data:image/jpeg;base64,") for p in pictures)
    for label in ("original", "style 1", "style 2", "style 1, shuffled"):
        assert f"<figcaption>{label} <" in text
    assert len([tag for tag, a in page.tags if tag == "svg" and "viewBox" in a or "viewbox" in a]) == 8


def test_it_shows_no_absolute_path(tmp_path):
    root = tmp_path / "user name" / "videos"
    reason = f"{root}/style_1/cat.mp4 is damaged; see {Path.home()}/notes"
    more = {"skipped_clips": [{"clip": "cat", "reason": reason}]}
    text = write_report(finished_run(tmp_path / "run", root=root, more=more)).read_text()
    assert "user name" not in text and str(tmp_path) not in text and f"{Path.home()}/" not in text
    assert "videos/style_1/cat.mp4 is damaged; see ~/notes" in text


def test_it_asks_for_nothing_outside(run):
    text = write_report(run).read_text()
    for _, attributes in Page(text).tags:
        for name in ("src", "href", "action", "data", "srcset"):
            assert not attributes.get(name) or attributes[name].startswith(("data:", "#"))
    assert "@import" not in text and "url(" not in text and "default-src 'none'" in text


def test_the_same_run_gives_the_same_bytes(run):
    first = write_report(run).read_bytes()
    assert write_report(run).read_bytes() == first
    assert len(first) < 400_000 and not list(run.glob(".report*"))


def test_hostile_names_are_text(tmp_path, videos):
    for style in (0, 1, 2):
        shutil.copytree(videos / f"style_{style}" / "0", tmp_path / "data" / f"style_{style}" / "<b>0")
    more = {
        "skipped_clips": [{"clip": HOSTILE, "reason": HOSTILE}],
        "filtered_clips": {HOSTILE: [HOSTILE] * 80},
    }
    run = finished_run(
        tmp_path / "run",
        model=HOSTILE,
        dataset=(HOSTILE, HOSTILE),
        videos=range(VIDEOS),
        names=lambda v: f"<b>{v}",
        stages=("stage1", HOSTILE.replace("/", "")),
        root=tmp_path / "data",
        more=more,
    )
    text = write_report(run).read_text()
    page = Page(text)
    assert [tag for tag, _ in page.tags].count("script") == 1 and "b" not in {
        tag for tag, a in page.tags if not a and tag == "b" and "<b>0" in text
    }
    assert "<script>alert" not in text and "<b>0" not in text and "&lt;b&gt;0" in text
    assert "80 filtered" in text and "manifest.json lists all of them" in text
    assert "<b>1 does not exist" not in text and "1 does not exist" not in text  # nor is it looked for
    assert "cannot be read from the folder that the run used" in text


def test_a_video_outside_the_data_is_not_shown(tmp_path, videos):
    write_frames(tmp_path / "secret", moving_square(0))
    run = finished_run(tmp_path / "run", videos=range(2), root=videos, names=lambda v: f"../../secret{v}")
    text = write_report(run).read_text()
    assert "<img" not in text and "points outside" in text


def test_data_that_moved_is_said(tmp_path):
    text = write_report(finished_run(tmp_path / "run", root=tmp_path / "gone")).read_text()
    assert "<img" not in text and text.count("cannot be read from the folder that the run used") == 2


def test_one_video_has_no_intervals(tmp_path):
    text = write_report(finished_run(tmp_path / "run", videos=[1])).read_text()
    assert (
        "there are no intervals" in text
        and "nan" not in text.replace("nan'", "").lower().split("</style>")[1]
    )


@pytest.mark.parametrize("name", ["layers.csv", "units.parquet", "views.parquet", "manifest.json"])
def test_an_unfinished_run_is_refused(run, name):
    (run / name).unlink()
    with pytest.raises(UserError, match=rf"no {name}|{name} is missing"):
        write_report(run)


def test_tables_of_the_run_folder_are_shown_where_they_are(run):
    table = pd.DataFrame({"videos": [4, 8], "score": [0.12345, np.nan], "score_low": [0.1, np.nan]})
    table.assign(score_high=[0.2, np.nan]).to_csv(run / "convergence.csv", index=False)
    text = write_report(run).read_text()
    assert "With fewer videos" in text and "<td>0.123 [0.100, 0.200]</td>" in text and "<td>-</td>" in text
    assert "Information by other measures" not in text and "Units with the highest scores" not in text
    (run / "top_units.jpg").write_bytes(b"picture")
    text = write_report(run).read_text()
    assert "Units with the highest scores" in text and base64.b64encode(b"picture").decode() in text


def test_a_run_of_an_older_version_is_shown_without_the_new_columns(run):
    forget_new_columns(run)
    text = write_report(run).read_text()
    joint = pd.read_csv(run / "layers.csv")["units_joint"].iloc[0]
    assert f"<td>{joint}</td>" in text and 'class="warning"' not in text
    assert "<th>effective videos</th>" not in text and "at threshold 0.5.</p>" in text


def test_a_long_table_becomes_wide():
    table = pd.DataFrame(
        {"stage": ["b", "b", "a"], "part": ["y", "x", "y"], "v": [0.5, 0.25, 1], "v_low": 0.1, "v_high": 2.0}
    )
    assert table_cells(spread(table, ["stage"], "part", "v", scale=100)) == [
        {"stage": "b", "y": "50.0 [10.0, 200.0]", "x": "25.0 [10.0, 200.0]"},
        {"stage": "a", "y": "100 [10, 200]", "x": "-"},
    ]


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ((0.944, 0.0725, 2.17), "0.94 [0.07, 2.17]"),
        ((0.12345, 0.1, 0.15), "0.123 [0.100, 0.150]"),
        ((3e-13, -0.012, 0.0234), "0.0000 [-0.0120, 0.0234]"),
        ((1234.5, 1200.0, 1300.0), "1234 [1200, 1300]"),
        ((0.0, 0.0, 0.0), "0 [0, 0]"),
        ((-0.0001, -0.5, 0.5), "0.000 [-0.500, 0.500]"),
        ((4, 2.0, 5.0), "4.00 [2.00, 5.00]"),
        ((0.5, np.nan, np.nan), "0.5"),
        ((7.0, np.nan, np.nan), "7"),
        ((np.nan, 0.0, 1.0), "-"),
    ],
)
def test_a_number_and_its_interval_have_equally_many_decimals(numbers, text):
    row = dict(zip(("v", "v_low", "v_high"), numbers, strict=True))
    assert table_cells(pd.DataFrame([row])) == [{"v": text}]


def test_bars_stand_on_each_other():
    parts = pd.DataFrame({"x": [60.0, 110.0], "y": [40.0, -10.0]}, index=["a", "b"])
    shapes = charts.stacked_bars(parts, {"x": "red", "y": "blue"}, "", "").shapes
    bars = {s.tip: s.attributes for s in shapes if s.tag == "rect"}
    top, bottom = (float(bars[t]["y"]) for t in ("a: y 40.0 %", "a: x 60.0 %"))
    assert np.isclose(top + float(bars["a: y 40.0 %"]["height"]), bottom, atol=0.11)
    zero = bottom + float(bars["a: x 60.0 %"]["height"])
    assert np.isclose(float(bars["b: y -10.0 %"]["y"]), zero, atol=0.11)  # hangs below zero


@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_shows_it(browser, run, width):
    long = "no_place_to_break_" * 12
    edit_manifest(run, filtered_clips={long: [long] * 3})
    browser.open(write_report(run), width)
    assert browser.of("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded") == []
    asked = [event["request"]["url"].split(":")[0] for event in browser.of("Network.requestWillBeSent")]
    assert set(asked) == {"file", "data"} and asked.count("file") == 1
    assert browser.evaluate("innerWidth") == width
    for part in ("documentElement", "body"):
        assert browser.evaluate(f"document.{part}.scrollWidth") <= width
    # what is wider than the page scrolls in its own box
    assert browser.evaluate(
        "[...document.querySelectorAll('.scroll')].every(e => e.clientWidth <= innerWidth)"
    )
    # a shadow at the edge tells that a table scrolls
    shadows = "getComputedStyle(document.querySelector('.scroll')).backgroundAttachment"
    assert browser.evaluate(shadows) == "local, local, scroll, scroll"
    size = "parseFloat(getComputedStyle(document.querySelector('svg[viewBox] text')).fontSize)"
    scale = "document.querySelector('svg[viewBox]').getBoundingClientRect().width / 350"
    assert browser.evaluate(f"{size} * {scale}") >= 9  # pixels: readable
    assert browser.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 100)")
    spot = browser.evaluate(
        "(() => { const m = document.querySelector('circle'); m.scrollIntoView({block: 'center'});"
        " const b = m.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]; })()"
    )
    browser.settle()
    browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=spot[0], y=spot[1])
    tip = browser.evaluate(
        "(() => { const t = document.getElementById('tip'); return t.hidden ? '' : t.innerText })()"
    )
    assert re.fullmatch(r"stage1: content -?\d+\.\d \(.* to .*\)", tip)


def test_a_browser_runs_no_script_but_its_own(browser, run):
    path = write_report(run)
    smuggled = "<script>document.title = 'smuggled'</script><img src='http://example.org/x.png'></main>"
    path.write_text(path.read_text().replace("</main>", smuggled))
    browser.open(path, 800)
    assert browser.evaluate("document.title") == "tiny on folder: static or dynamic?"
    blocked = browser.evaluate("document.images[document.images.length - 1].naturalWidth")
    failed = {e["requestId"]: e.get("blockedReason") for e in browser.of("Network.loadingFailed")}
    outside = [
        e["requestId"] for e in browser.of("Network.requestWillBeSent") if e["request"]["url"][:4] == "http"
    ]
    assert blocked == 0 and [failed.get(request) for request in outside] == ["csp"] * len(outside)


def test_a_browser_prints_it(browser, run):
    browser.open(write_report(run), 1280)
    browser.call("Emulation.setEmulatedMedia", media="print")
    try:
        browser.call(
            "Emulation.setDeviceMetricsOverride", width=720, height=1000, deviceScaleFactor=1, mobile=False
        )
        assert browser.evaluate("document.documentElement.scrollWidth") <= 720
        assert browser.evaluate("getComputedStyle(document.querySelector('.scroll')).overflowX") == "visible"
        assert len(browser.call("Page.printToPDF")["data"]) > 10_000
    finally:
        browser.call("Emulation.setEmulatedMedia", media="")
