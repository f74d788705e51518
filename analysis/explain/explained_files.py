"""What `task=saliency` writes and prints of each clip and of all."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from static_dynamic.analysis.estimate.estimator import UNIT_CLASSES
from static_dynamic.analysis.explain.class_feature_pyramids import Pyramid
from static_dynamic.analysis.explain.kernel_classes import KernelClasses, class_shares
from static_dynamic.analysis.explain.pyramid_page import write_page
from static_dynamic.analysis.explain.tubes import draw_tube, level_map, tube_map
from static_dynamic.analysis.show.text import align, with_interval
from static_dynamic.errors import UserError
from static_dynamic.files import atomic_path, file_name, temporary_folder, write_text

log = logging.getLogger(__name__)
# the nested form has an entry for each way through the pyramid; beyond this it is not written
MOST_WAYS = 2_000_000
SUMMARY, NODE_LINK = "summary.json", "node_link.json"
# by these a folder is known as an earlier run's, which may be replaced
OWN = (SUMMARY, NODE_LINK)


def clip_folders(root: Path, clips: Iterable[str]) -> list[Path]:
    """A folder below `root` for each clip, after its name; clips whose names are alike there are numbered.

    Raises
    ------
    UserError
        Where one of them holds anything but what an earlier run wrote.
    """
    folders: dict[Path, None] = {}
    for clip in clips:
        name = file_name(clip)
        if not name.strip("."):  # "..", which leads elsewhere
            name = "clip"
        choices = (root / (f"{name}--{k}" if k > 1 else name) for k in count(1))
        folders[next(folder for folder in choices if folder not in folders)] = None
    for folder in (root, *folders):
        if folder.exists() and not folder.is_dir():
            raise UserError(f"{folder} is a file: give another task.outdir")
    for folder in folders:
        if folder.exists() and any(folder.iterdir()) and not all((folder / name).exists() for name in OWN):
            raise UserError(f"{folder} holds something else: give another task.outdir")
    return list(folders)


@contextmanager
def replaced_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder, which takes the place of `folder` on a clean exit; else that stays."""
    with temporary_folder(folder) as room:
        new, old = room / "new", room / "old"
        new.mkdir()
        try:
            yield new
            if folder.exists():
                folder.rename(old)
            new.rename(folder)
        finally:
            if old.exists() and not folder.exists():  # stopped between the two
                old.rename(folder)


def write_graphs(folder: Path, pyramid: Pyramid, classes: KernelClasses | None = None) -> None:
    """Write the pyramid in the original's nested form, as nodes and links, and as a table of kernels."""
    if pyramid.ways <= MOST_WAYS:
        write_text(folder / "class_dependency_graph.json", json.dumps(pyramid.nested()))
    else:
        log.warning(
            "class_dependency_graph.json is left out: in that form this pyramid has %d entries; "
            "node_link.json has all of it",
            pyramid.ways,
        )
    nodes = pyramid.nodes if classes is None else classes.of(pyramid.nodes)
    with atomic_path(folder / "kernels.csv") as temporary:
        nodes.to_csv(temporary, index=False)
    ids = nodes["level"].astype(str) + ":" + nodes["unit"].astype(str)
    rows = nodes.astype(object).where(nodes.notna(), None).assign(id=ids)
    links = pyramid.links
    links = pd.DataFrame(
        {
            "source": links["level"].astype(str) + ":" + links["parent"].astype(str),
            "target": (links["level"] + 1).astype(str) + ":" + links["child"].astype(str),
            "strength": links["strength"].astype(float),
        }
    )
    graph = {"directed": True, "nodes": rows.to_dict("records"), "links": links.to_dict("records")}
    write_text(folder / NODE_LINK, json.dumps(graph, allow_nan=False))


def write_pictures(
    folder: Path,
    pyramid: Pyramid,
    blank: Pyramid,
    frames: NDArray[np.uint8],
    summary: dict,
    classes: KernelClasses | None,
    kernels: int,
    video: str,
) -> None:
    """Draw the tubes of every level and of its most important kernels, and the page."""
    nodes = pyramid.nodes if classes is None else classes.of(pyramid.nodes)
    ranked = nodes.sort_values(["level", "importance"], ascending=[True, False], kind="stable")
    shown = ranked.groupby("level").head(kernels)
    size = pyramid.clip.size
    seen = frames[: size[0], : size[1], : size[2]]
    name = f"{summary['class']}, {summary['clip']}"
    both = (pyramid, blank)
    jobs = [
        (f"levels/level_{level}", [level_map(p, level) for p in both], f"{name}: level {level}")
        for level in range(1, len(pyramid.steps) + 1)
    ]
    for row in shown[shown["level"] > 0].itertuples():
        title = f"{name}: {row.layer}, kernel {row.channel}"
        path = f"kernels/level_{row.level}_kernel_{row.unit}"
        jobs.append((path, [tube_map(p, row.level, row.unit) for p in both], title))
    for path, maps, title in tqdm(jobs, desc="draw", unit="tube", delay=2):
        draw_tube(folder / path, *maps, seen, title, video)
    page = folder / "pyramid.html"
    write_page(page, pyramid, blank, nodes, shown, seen, page_title(summary), facts(summary))


def page_title(summary: dict) -> str:
    """What a pyramid explains, in a few words."""
    return f"Which kernels of {summary['model']} stand behind “{summary['class']}” in {summary['clip']}"


def facts(summary: dict) -> list[str]:
    """What there is to say of a pyramid, line by line."""
    first, last = min(summary["frames"]), max(summary["frames"])
    lines = [
        f"The network says {summary['prediction_class']} ({summary['prediction_probability']:.3f})"
        + (
            f"; {summary['class']}: {summary['probability']:.3f}"
            if summary["label"] != summary["prediction"]
            else ""
        )
        + f". Frames {first} to {last}, theta {summary['theta']:g}, rules {summary['rules']}.",
    ]
    if summary["profile"]:
        lines.append(
            f"Classes of kernels from the profile {summary['profile']}; kernels whose channel is no channel "
            "of a profiled stage have none."
        )
    return lines


def format_clip(pyramid: Pyramid, summary: dict) -> str:
    """What a clip's pyramid holds, for a terminal."""
    nodes = pyramid.nodes
    rows = []
    for level in range(1, len(pyramid.steps) + 1):
        own = nodes[nodes["level"] == level].sort_values("importance", ascending=False)
        blocks = list(dict.fromkeys(own["layer"]))
        strongest = ", ".join(f"{row.layer}:{row.channel}" for row in own.head(3).itertuples())
        rows.append({"level": level, "kernels": len(own), "layers": len(blocks), "most important": strongest})
    return f"{page_title(summary)}\n{facts(summary)[0]}\n\n{align(rows)}"


def write_shares(root: Path, counts: pd.DataFrame, classes: KernelClasses, n_boot: int, seed: int) -> None:
    """Write how many of the selected kernels are of each class, clip by clip and over all; print these."""
    table = class_shares(counts, classes, n_boot, seed)
    first = ["clip", "cluster", "label"]
    for name, content in (
        ("kernel_counts.csv", counts[first + [c for c in counts if c not in first]]),
        ("kernel_classes.csv", table),
    ):
        with atomic_path(root / name) as temporary:
            content.to_csv(temporary, index=False)
    print(f"\nselected kernels by class of the profile {classes.origin} (%; in brackets 95 % over videos;")
    print("behind the slash: of all kernels of that stage)\n")
    print(format_shares(table) if len(table) else "no selected kernel is a channel of a profiled stage")
    unknown = counts["unknown"].sum()
    if unknown:
        print(
            f"\n{unknown} of {counts['kernels'].sum()} selected kernels are no channels of a profiled stage"
        )


def format_shares(table: pd.DataFrame) -> str:
    """The shares of classes for a terminal."""
    rows = []
    for _, row in table.iterrows():
        cells = {key: row[key] for key in ("label", "level", "stage", "clips", "kernels")}
        for name in UNIT_CLASSES:
            if row[f"stage_share_{name}"]:
                share = with_interval(row, f"share_{name}", 100, 1)
                cells[name] = f"{share} / {100 * row[f'stage_share_{name}']:.1f}"
        rows.append(cells)
    return align(pd.DataFrame(rows).fillna("").to_dict("records"))
