"""Write the files and print the tables of ``task=saliency``, for each clip and over all clips."""

import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from static_dynamic.analysis.explain.class_feature_pyramids import Pyramid
from static_dynamic.analysis.explain.explainer import Explainer
from static_dynamic.analysis.explain.kernel_classes import (
    BY_CLASS,
    BY_KIND,
    KernelClasses,
    Labels,
    class_shares,
)
from static_dynamic.analysis.explain.pyramid_page import write_page
from static_dynamic.analysis.explain.tubes import draw_tube, level_map, tube_map
from static_dynamic.analysis.run.manifest import to_json
from static_dynamic.analysis.run.tables import write_table
from static_dynamic.analysis.show.parts import ABSENT
from static_dynamic.analysis.show.text import align, with_interval
from static_dynamic.errors import UserError
from static_dynamic.files import file_name, temporary_folder, write_text

log = logging.getLogger(__name__)
# Pyramids with more paths than this get no nested JSON file, because it would be too large.
MOST_PATHS = 2_000_000
SUMMARY, NODE_LINK = "summary.json", "node_link.json"
FAITHFULNESS = "faithfulness.csv"
# A folder that holds these two files was written by task=saliency, so task=saliency may replace the folder.
OWN = (SUMMARY, NODE_LINK)


def clip_folders(root: Path, clips: Iterable[str]) -> list[Path]:
    """Return one folder per clip below `root`, named after the clip; a repeated name gets a number.

    Raises UserError if one of the folders holds something that no earlier run wrote.
    """
    folders: dict[Path, None] = {}
    for clip in clips:
        name = file_name(clip)
        choices = (root / (f"{name}--{k}" if k > 1 else name) for k in count(1))
        folders[next(folder for folder in choices if folder not in folders)] = None
    for folder in (root, *folders):
        if folder.exists() and not folder.is_dir():
            raise UserError(f"the output folder {folder} is a file: give another task.outdir")
    for folder in folders:
        if folder.exists() and any(folder.iterdir()) and not all((folder / name).exists() for name in OWN):
            raise UserError(f"{folder} holds files not written by task=saliency: give another task.outdir")
    return list(folders)


@contextmanager
def replaced_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder that replaces `folder` on success; after an error, `folder` is unchanged."""
    with temporary_folder(folder) as temporary:
        new, old = temporary / "new", temporary / "old"
        new.mkdir()
        try:
            yield new
            if folder.exists():
                folder.rename(old)
            new.rename(folder)
        finally:
            # new.rename failed, so put the old folder back
            if old.exists() and not folder.exists():
                old.rename(folder)


def write_explanation(
    folder: Path,
    explainer: Explainer,
    pyramid: Pyramid,
    blank: Pyramid | None,
    frames: NDArray[np.uint8],
    summary: dict,
    drawing: dict | None,
    faithfulness: pd.DataFrame | None = None,
) -> None:
    """Write all result files of one clip into `folder`, replacing the files of an earlier run.

    `blank`: result of `Explainer.blank`; only pictures need it.
    `drawing`: the options `kernels` and `video` of `write_pictures`; None: no pictures.
    `faithfulness`: result of `measure_faithfulness`; None: not measured.
    """
    with replaced_folder(folder) as temporary:
        write_graphs(temporary, pyramid, explainer.classes)
        if drawing and blank:
            write_pictures(temporary, explainer.classes, pyramid, blank, frames, summary, **drawing)
        if faithfulness is not None:
            write_table(temporary / FAITHFULNESS, faithfulness)
        write_text(temporary / SUMMARY, to_json(summary))


def write_graphs(folder: Path, pyramid: Pyramid, classes: KernelClasses | None = None) -> None:
    """Write a pyramid as nested JSON (Stergiou et al.'s format), as JSON of nodes and links, and as csv."""
    if pyramid.n_paths <= MOST_PATHS:
        write_text(folder / "class_dependency_graph.json", json.dumps(pyramid.nested()))
    else:
        log.warning(
            "class_dependency_graph.json is not written: in its nested form this pyramid has %d entries; "
            "node_link.json holds the whole pyramid",
            pyramid.n_paths,
        )
    nodes = pyramid.nodes if classes is None else classes.of(pyramid.nodes)
    write_table(folder / "kernels.csv", nodes)
    ids = nodes["level"].astype(str) + ":" + nodes["unit"].astype(str)
    rows = nodes.astype(object).where(nodes.notna(), None).assign(id=ids)
    links = [
        {"source": f"{level}:{parent}", "target": f"{level + 1}:{child}", "strength": float(strength)}
        for level, parent, child, strength in pyramid.links.itertuples(index=False)
    ]
    graph = {"directed": True, "nodes": rows.to_dict("records"), "links": links}
    write_text(folder / NODE_LINK, json.dumps(graph, allow_nan=False))


def write_pictures(
    folder: Path,
    classes: KernelClasses | None,
    pyramid: Pyramid,
    blank: Pyramid,
    frames: NDArray[np.uint8],
    summary: dict,
    kernels: int,
    video: str,
) -> None:
    """Draw saliency tubes of each pyramid level and of the most important kernels; write the HTML page.

    `frames`: the clip as the network sees it, (T, H, W, 3). `kernels`: number of kernels drawn per level.
    `video`: format of the tube videos, mp4, gif or none.
    """
    nodes = pyramid.nodes if classes is None else classes.of(pyramid.nodes)
    ranked = nodes.sort_values(["level", "importance"], ascending=[True, False], kind="stable")
    shown = ranked.groupby("level").head(kernels)
    size = pyramid.clip.size
    frames = frames[: size[0], : size[1], : size[2]]
    name = f"{summary['class']}, {summary['clip']}"
    # One job per picture: (file, saliency tube, saliency tube of a uniform clip, title).
    jobs = []
    for level in range(1, len(pyramid.steps) + 1):
        tubes = level_map(pyramid, level), level_map(blank, level)
        jobs.append((f"levels/level_{level}", *tubes, f"{name}: level {level}"))
    for row in shown[shown["level"] > 0].itertuples():
        tubes = tube_map(pyramid, row.level, row.unit), tube_map(blank, row.level, row.unit)
        title = f"{name}: {row.layer}, kernel {row.channel}"
        jobs.append((f"kernels/level_{row.level}_kernel_{row.unit}", *tubes, title))
    for path, tube, blank_tube, title in tqdm(jobs, desc="draw", unit="tube", delay=2):
        draw_tube(folder / path, tube, blank_tube, frames, title, video)
    page = folder / "pyramid.html"
    write_page(page, pyramid, blank, nodes, shown, frames, page_title(summary), facts(summary))


def page_title(summary: dict) -> str:
    """Return the title of the HTML page of a class feature pyramid."""
    return f"Kernels of {summary['model']} that support “{summary['class']}” in {summary['clip']}"


def facts(summary: dict) -> list[str]:
    """Return sentences about a clip: the prediction, the frames, the options, the ``task=profile`` run."""
    first, last = min(summary["frames"]), max(summary["frames"])
    prediction = f"{summary['prediction_class']} ({summary['prediction_probability']:.3f})"
    if summary["label"] != summary["prediction"]:
        prediction += f"; {summary['class']}: {summary['probability']:.3f}"
    options = f"theta {summary['theta']:g}, rules {summary['rules']}"
    lines = [f"The network predicts {prediction}. Frames {first} to {last}, {options}."]
    if summary["profile"]:
        lines.append(
            f"Kinds and classes of units come from the run {summary['profile']} of task=profile. A kernel "
            "whose channel is no unit of a profiled stage has neither."
        )
    return lines


def format_clip(pyramid: Pyramid, summary: dict) -> str:
    """Return a text table with one row per pyramid level: numbers of kernels and layers, top kernels."""
    nodes = pyramid.nodes
    rows = []
    for level in range(1, len(pyramid.steps) + 1):
        own = nodes[nodes["level"] == level].sort_values("importance", ascending=False)
        blocks = list(dict.fromkeys(own["layer"]))
        strongest = ", ".join(f"{row.layer}:{row.channel}" for row in own.head(3).itertuples())
        rows.append({"level": level, "kernels": len(own), "layers": len(blocks), "most important": strongest})
    return f"{page_title(summary)}\n{facts(summary)[0]}\n\n{align(rows)}"


# Label of kernels (kind, unit class) -> (its printed name, csv file of counts, csv file of shares).
SHARE_FILES = {
    BY_KIND: ("kind", "kernel_kind_counts.csv", "kernel_kinds.csv"),
    BY_CLASS: ("unit class of the paper", "kernel_counts.csv", "kernel_classes.csv"),
}


def write_shares(
    root: Path, counts: Mapping[Labels, pd.DataFrame], classes: KernelClasses, n_boot: int, seed: int
) -> None:
    """Write how many of the selected kernels belong to each kind and to each unit class; print the shares.

    `counts`: labels (kinds, unit classes) -> rows of `count_kernels` of every clip.
    """
    first = ["clip", "cluster", "label"]
    if BY_KIND not in counts:
        print(f"\n{classes.origin}: {ABSENT}")
    for labels, own in counts.items():
        called, count_file, share_file = SHARE_FILES[labels]
        table = class_shares(own, classes, n_boot, seed, labels=labels)
        write_table(root / count_file, own[first + [c for c in own if c not in first]])
        write_table(root / share_file, table)
        print(f"\nselected kernels by {called} (%), from the run {classes.origin} (task=profile)")
        print(
            "in brackets: 95 % intervals over videos; after the slash: share among all kernels of the stage\n"
        )
        print(
            format_shares(table, labels)
            if len(table)
            else "no selected kernel is a channel of a profiled stage"
        )
    unknown = own[labels.other].sum()
    if unknown:
        print(f"\n{unknown} of {own['kernels'].sum()} selected kernels belong to no profiled stage")


def format_shares(table: pd.DataFrame, labels: Labels) -> str:
    """Return, as a text table, the share of each kind (or unit class) among the selected kernels."""
    rows = []
    for _, row in table.iterrows():
        cells = {key: row[key] for key in ("label", "level", "stage", "clips", "kernels")}
        for name in labels.values:
            if row[f"stage_share_{name}"]:
                share = with_interval(row, f"share_{name}", 100, 1)
                cells[name] = f"{share} / {100 * row[f'stage_share_{name}']:.1f}"
        rows.append(cells)
    return align(pd.DataFrame(rows).fillna("").to_dict("records"))
