"""Write a class feature pyramid as one HTML page that loads no other file.

Levels are columns, kernels are nodes, and the width of a link shows its strength. The page plays the saliency
tube of the kernel under the pointer.
"""

import base64
import html
import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from static_dynamic.analysis.explain.class_feature_pyramids import Pyramid
from static_dynamic.analysis.explain.tubes import HEAT_COLOURS, scaled, tube_map
from static_dynamic.analysis.show.encoding import jpeg_uri
from static_dynamic.analysis.show.figure_style import COLOURS, MARKERS, PART_COLOURS, PART_LINES
from static_dynamic.files import write_text
from static_dynamic.spacing import evenly_spaced

TEMPLATE = Path(__file__).with_name("pyramid_page.html")
# A saliency tube on the page has at most FRAMES frames, with at most CELLS x CELLS cells each.
FRAMES, CELLS = 16, 28
# Name of the group of all units whose kind is dead or unknown.
DEAD_OR_UNKNOWN = "dead or unknown"
NOT_PROFILED = "not profiled"
# Kind of kernels -> (colour, matplotlib marker). Markers distinguish the kinds in greyscale prints.
KIND_MARKS = {kind: (PART_COLOURS[kind], marker) for kind, (marker, _) in PART_LINES.items()}
KIND_MARKS |= {DEAD_OR_UNKNOWN: (PART_COLOURS[DEAD_OR_UNKNOWN], "x"), NOT_PROFILED: ("#FFFFFF", "o")}
CLASS_MARKS = {name: (colour, MARKERS[name]) for name, colour in COLOURS.items()}
CLASS_MARKS |= {NOT_PROFILED: ("#FFFFFF", "o")}
# Colours of layers on pages without kinds and classes; after the last colour, the first is used again.
LAYER_COLOURS = ("#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#0072B2", "#D55E00")


def write_page(
    path: Path,
    pyramid: Pyramid,
    blank: Pyramid,
    nodes: pd.DataFrame,
    shown: pd.DataFrame,
    frames: NDArray[np.uint8],
    title: str,
    facts: Sequence[str],
) -> None:
    """Write the HTML page of a pyramid; `blank` is this pyramid with the feature maps of a uniform clip.

    `nodes`: table of all kernels, with the columns ``stage``, ``class`` and ``kind`` if they are known.
    `shown`: rows of `nodes` to draw. `frames`: the clip, (T, H, W, 3). `facts`: lines below the title.
    """
    shown = shown.assign(group=groups_of(shown))
    chosen = evenly_spaced(FRAMES, len(frames))
    content = {
        "frames": [jpeg_uri(frames[t]) for t in chosen],
        "size": frames.shape[1:3],
        "levels": level_heads(pyramid, nodes, shown),
        "nodes": [_node(pyramid, blank, row, chosen / len(frames)) for row in shown.to_dict("records")],
        "links": shown_links(pyramid, shown),
        "marks": group_marks(shown),
        "heat": (HEAT_COLOURS(np.linspace(0, 1, 64))[:, :3] * 255).round().astype(int).tolist(),
    }
    page = TEMPLATE.read_text(encoding="utf-8")
    parts = {
        "title": html.escape(title),
        "facts": "".join(f"<li>{html.escape(fact)}</li>" for fact in facts),
        # "<" is escaped, because "</script" in the data would end the script element.
        "content": json.dumps(content, allow_nan=False).replace("<", "\\u003c"),
    }
    write_text(path, re.sub(r"\{\{(\w+)\}\}", lambda mark: parts[mark[1]], page))


def level_heads(pyramid: Pyramid, nodes: pd.DataFrame, shown: pd.DataFrame) -> list[dict]:
    """Return each column's heading as a dict: pyramid level, number of kernels, blocks of the network."""
    heads = []
    for level in range(len(pyramid.steps) + 1):
        own, drawn = (table[table["level"] == level] for table in (nodes, shown))
        text = f"{len(drawn)} of {len(own)} kernels" if level else "class"
        blocks = list(dict.fromkeys(own["layer"].str.split(".").str[0])) if level else []
        heads.append({"title": f"level {level}" if level else "", "text": text, "layers": ", ".join(blocks)})
    return heads


def shown_links(pyramid: Pyramid, shown: pd.DataFrame) -> list[list]:
    """Return the links (parent, child, strength) between the kernels that are drawn on the page."""
    ids = set(zip(shown["level"], shown["unit"], strict=True))
    links = []
    for level, step in enumerate(pyramid.steps):
        for parent, child, strength in zip(*(part.tolist() for part in step), strict=True):
            if (level, parent) in ids and (level + 1, child) in ids:
                links.append([f"{level}:{parent}", f"{level + 1}:{child}", round(strength, 4)])
    return links


def groups_of(shown: pd.DataFrame) -> pd.Series:
    """Return the group of each kernel: its kind if kinds are known, else its unit class, else its layer."""
    if "kind" in shown:
        kinds = shown["kind"].replace(dict.fromkeys(("dead", "unknown"), DEAD_OR_UNKNOWN))
        return kinds.fillna(NOT_PROFILED)
    return shown["class"].fillna(NOT_PROFILED) if "class" in shown else shown["layer"]


def group_marks(shown: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """Return the legend: group of kernels -> colour and marker."""
    groups = list(dict.fromkeys(shown.loc[shown["level"] > 0, "group"]))
    if "class" in shown:
        marks = KIND_MARKS if "kind" in shown else CLASS_MARKS
        return {name: mark for name, mark in marks.items() if name in groups}
    return {layer: (LAYER_COLOURS[k % len(LAYER_COLOURS)], "o") for k, layer in enumerate(groups)}


def description(row: dict) -> str:
    """Return a kernel's kind, unit class and stage as text; empty without a ``task=profile`` run."""
    if "class" not in row:
        return ""
    if pd.isna(row["class"]):
        return NOT_PROFILED
    kind = f"{row['kind']}; " if "kind" in row else ""
    return f"{kind}the paper's class: {row['class']} ({row['stage']})"


def _node(pyramid: Pyramid, blank: Pyramid, row: dict, times: NDArray) -> dict:
    """Return one kernel's data for the page; `times`: times of the frames on the page (0 to 1)."""
    level, unit = row["level"], row["unit"]
    heat = scaled(tube_map(pyramid, level, unit), tube_map(blank, level, unit))
    rows, columns = (
        np.minimum((np.arange(CELLS) + 0.5) * n / CELLS, n - 1).astype(int) if n > CELLS else np.arange(n)
        for n in heat.shape[1:]
    )
    heat = heat[(times * len(heat)).astype(int)][:, rows][:, :, columns]
    last = level == len(pyramid.steps)
    return {
        "id": f"{level}:{unit}",
        "level": level,
        "layer": row["layer"],
        "channel": int(row["channel"]),
        "importance": round(float(row["importance"]), 4),
        "group": row["group"],
        "about": description(row),
        "shows": "own feature map" if last else f"sum of {len(pyramid.children(level, unit))} feature maps",
        "shape": heat.shape,
        "map": base64.b64encode((heat * 255).round().astype(np.uint8).tobytes()).decode(),
    }
