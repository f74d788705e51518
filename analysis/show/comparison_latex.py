"""Format a comparison of runs as LaTeX tables (booktabs), figures (pgfplots) and one complete document.

The preamble of the document ``comparison.tex`` lists the packages that the tables and figures need.
"""

import re
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from static_dynamic.analysis.estimate.comparison import Comparison
from static_dynamic.analysis.estimate.decomposition import PARTS
from static_dynamic.analysis.estimate.estimator import MEASURED, UNIT_CLASSES
from static_dynamic.analysis.show.comparison_figures import point_with_errors, shared_places, styles_of
from static_dynamic.analysis.show.comparison_tables import Grid, grids
from static_dynamic.analysis.show.figure_style import COLOURS
from static_dynamic.analysis.show.text import escape_latex

# Name of a marker in matplotlib -> name of the same marker in pgfplots.
MARKS = {
    "o": "*",
    "s": "square*",
    "^": "triangle*",
    "D": "diamond*",
    "v": "triangle*, mark options={rotate=180}",
    "P": "+",
    "X": "x",
    "*": "star",
}
# Font size of a LaTeX table -> largest number of characters per line at this size.
SIZES = {"footnotesize": 118, "scriptsize": 140, "tiny": np.inf}
PREAMBLE = r"""\documentclass{article}
\usepackage[a4paper, margin=1.8cm]{geometry}
\usepackage{booktabs, pgfplots}
\usepgfplotslibrary{groupplots, fillbetween}
\usetikzlibrary{calc}
\pgfplotsset{compat=1.16}
"""


def comparison_files(comparison: Comparison) -> dict[str, str]:
    """Return a dict: file name (``table_*.tex``, ``figure_*.tex``, ``comparison.tex``) -> LaTeX text."""
    files = {f"table_{grid.name}.tex": table(grid) for grid in grids(comparison)}
    figures = {f"figure_{name}.tex": draw(comparison) for name, draw in FIGURES.items()}
    files |= {name: text for name, text in figures.items() if text}
    body = "\n\n".join(f"\\input{{{name}}}" for name in files)
    files["comparison.tex"] = f"{PREAMBLE}\\begin{{document}}\n{body}\n\\end{{document}}\n"
    return files


def table(grid: Grid) -> str:
    """Return a LaTeX table; a row's first cell is left empty if the row above has the same first cell."""
    head = list(grid.rows[0])
    widths = [max(len(name), *(len(str(cells[name])) + 2 for cells in grid.rows)) for name in head]
    size = next(size for size, most in SIZES.items() if sum(widths) <= most)
    lines = [
        rf"\begin{{table}}[htbp]\centering\{size}",
        r"\setlength{\tabcolsep}{4pt}\setlength{\belowcaptionskip}{4pt}",
        rf"\caption{{{escape_latex(grid.caption)}}}",
        rf"\label{{tab:{grid.name}}}",
        rf"\begin{{tabular}}{{@{{}}{'l' * len(head)}@{{}}}}",
        r"\toprule",
        row(head),
        r"\midrule",
    ]
    firsts = [cells[head[0]] for cells in grid.rows]
    grouped, previous = len(set(firsts)) < len(firsts), None
    for first, *others in (cells.values() for cells in grid.rows):
        if grouped and previous not in (None, first):
            lines.append(r"\addlinespace")
        shown = "" if grouped and first == previous else first
        lines.append(row([shown, *others], shrink=size == "footnotesize"))
        previous = first
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])


def row(cells: Iterable[str], shrink: bool = False) -> str:
    """Return one line of a LaTeX table; ``shrink=True`` prints intervals in a smaller font than estimates."""
    interval = r"{\\scriptsize[\1]}" if shrink else r"[\1]"
    escaped = (re.sub(r"\[(.*?)\]", interval, escape_latex(cell)) for cell in cells)
    return " & ".join(escaped) + r" \\"


def figure(name: str, caption: str, body: Sequence[str], colours: dict[str, str]) -> str:
    """Return a LaTeX figure: colour definitions, a tikzpicture with the lines `body`, and a caption."""
    lines = [rf"\definecolor{{{key}}}{{HTML}}{{{value.lstrip('#')}}}" for key, value in colours.items()]
    lines += [r"\begin{figure}[htbp]\centering", r"\begin{tikzpicture}", *body, r"\end{tikzpicture}"]
    lines += [rf"\caption{{{escape_latex(caption)}}}", rf"\label{{fig:{name}}}", r"\end{figure}", ""]
    return "\n".join(lines)


def styles(layers: pd.DataFrame) -> tuple[dict[str, str], dict[str, str]]:
    """Return two dicts: LaTeX colour name -> hex colour, and curve name -> pgfplots options."""
    colours, options = {}, {}
    for k, (curve, style) in enumerate(styles_of(layers["curve"]).items()):
        name = f"run{chr(ord('a') + k % 26)}{k // 26 or ''}"
        colours[name] = style["color"]
        options[curve] = f"{name}, mark={MARKS[style['marker']]}"
    return colours, options


def parts(comparison: Comparison) -> str:
    """Return the LaTeX figure of the variance parts by stage; the text is empty if no run has parts."""
    if comparison.layers["content"].isna().all():
        return ""
    caption = "Parts of the units' variance over depth; bands: 95 % intervals over videos."
    return by_depth(comparison.layers, "parts", {rf"{part} (\%)": part for part in PARTS}, caption, 100)


def curves(comparison: Comparison) -> str:
    """Return the LaTeX figure of the paper's scores by stage."""
    columns = {f"the paper's {factor} score": f"score_{factor}" for factor in MEASURED}
    caption = "The paper's scores over depth; bands: 95 % intervals over videos."
    return by_depth(comparison.layers, "curves", columns, caption)


def by_depth(layers: pd.DataFrame, name: str, columns: dict[str, str], caption: str, scale: float = 1) -> str:
    """Return a LaTeX figure with one panel per result column: curves over the stages, with interval bands.

    `columns`: title of a panel -> column of `layers`, whose values are multiplied by `scale`.
    """
    colours, options = styles(layers)
    shared = shared_places(layers)
    ticks = "xlabel={relative depth}"
    if shared:
        positions, names = ",".join(map(str, range(len(shared)))), ",".join(map(escape_latex, shared))
        ticks = f"xtick={{{positions}}}, xticklabels={{{names}}}, xticklabel style={{rotate=45, anchor=east}}"
    body = [
        rf"\begin{{groupplot}}[group style={{group size=2 by {len(columns) // 2}, horizontal sep=1.5cm,",
        rf"  vertical sep=2cm}}, {PANEL}, {ticks}]",
    ]
    for panel, (title, column) in enumerate(columns.items()):
        legend = f"legend{name}{'abcd'[panel]}"
        body.append(rf"\nextgroupplot[title={{{title}}}, legend to name={legend}, {LEGEND}]")
        for k, (curve, option) in enumerate(options.items()):
            part = layers[layers["curve"] == curve]
            if part[column].isna().all():
                # skip this curve: pgfplots has no legend entry for a curve without points
                continue
            x = np.arange(len(part)) if shared else part["depth"]
            path = f"{name}{panel}{k}"
            colour = option.partition(",")[0]
            for end in ("low", "high"):
                points = coordinates(x, scale * part[f"{column}_{end}"])
                hidden = f"draw=none, forget plot, name path={path}{end}"
                body.append(rf"\addplot[{hidden}] coordinates {{{points}}};")
            if part[f"{column}_low"].notna().all():
                between = f"fill between[of={path}low and {path}high]"
                body.append(rf"\addplot[{colour}, opacity=0.2, forget plot] {between};")
            body.append(rf"\addplot[{option}] coordinates {{{coordinates(x, scale * part[column])}}};")
            body.append(rf"\addlegendentry{{{escape_latex(curve)}}}")
    body += [r"\end{groupplot}", below(f"legend{name}a", rows=len(columns) // 2)]
    return figure(name, caption, body, colours)


def plane(comparison: Comparison) -> str:
    """Return the LaTeX figure of dynamic against static shares and scores, with one point per run."""
    shown = comparison.layers[comparison.layers["shown"]]
    colours, options = styles(comparison.layers)
    body = [rf"\begin{{groupplot}}[group style={{group size=2 by 1, horizontal sep=1.8cm}}, {PANEL},"]
    body.append("  enlarge x limits=0.08]")
    for kind, scale, unit in (("share", 100, r" (\%)"), ("score", 1, "")):
        labels = f"xlabel={{static {kind}{unit}}}, ylabel={{dynamic {kind}{unit}}}"
        body.append(rf"\nextgroupplot[{labels}, legend to name=legend{kind}, {LEGEND}]")
        for curve, option in options.items():
            for _, stage in shown[shown["curve"] == curve].iterrows():
                (x, y), errors = point_with_errors(stage, kind, scale)
                (left, right), (down, up) = np.nan_to_num(errors[..., 0])
                body.append(
                    rf"\addplot[only marks, {option}, error bars/.cd, x dir=both, y dir=both, x explicit, "
                    rf"y explicit] coordinates {{({x:.4f},{y:.4f}) += ({right:.4f},{up:.4f}) "
                    rf"-= ({left:.4f},{down:.4f})}};"
                )
                body.append(rf"\addlegendentry{{{escape_latex(curve)}}}")
    body += [r"\end{groupplot}", below("legendshare")]
    stages = ", ".join(dict.fromkeys(shown["stage"]))
    caption = f"The paper's static-dynamic plane ({stages}); bars: 95 % intervals over videos."
    return figure("plane", caption, body, colours)


def classes(comparison: Comparison) -> str:
    """Return the LaTeX figure of units per unit class (dynamic, static, ...), one stacked bar per run."""
    shown = comparison.layers[comparison.layers["shown"]].reset_index(drop=True)
    labels = shown["curve"] + ", " + shown["stage"]
    longest = labels.str.len().max() - len(", ")
    # `width`: width of the bars as a fraction of the text width
    width = max(0.3, 0.9 - 0.0105 * longest)
    names = ",".join(f"{{{escape_latex(label)}}}" for label in labels)
    body = [
        rf"\begin{{axis}}[xbar stacked, bar width=10pt, xmin=0, xmax=100, width={width:.2f}\textwidth,",
        rf"  height={2.4 + 0.8 * len(shown):.1f}cm, y dir=reverse, enlarge y limits={{abs=0.6}},",
        r"  xlabel={units (\%)},",
        f"  ytick={{{','.join(map(str, range(len(shown))))}}}, yticklabels={{{names}}},",
        r"  legend style={at={(0.5,1.05)}, anchor=south, draw=none, legend columns=-1}]",
    ]
    for name in UNIT_CLASSES:
        points = " ".join(f"({x:.2f},{k})" for k, x in enumerate(shown[f"percent_{name}"]))
        body.append(rf"\addplot[fill=unit{name}, draw=none] coordinates {{{points}}};")
        body.append(rf"\addlegendentry{{{name}}}")
    body.append(r"\end{axis}")
    colours = {f"unit{name}": COLOURS[name] for name in UNIT_CLASSES}
    caption = f"The paper's classes of units (threshold {shown['threshold'].iloc[0]:g})."
    return figure("classes", caption, body, colours)


FIGURES = {f.__name__: f for f in (parts, curves, plane, classes)}
PANEL = (
    r"width=0.48\textwidth, height=6cm, axis lines=left, enlarge y limits=0.08, "
    r"every axis plot/.append style={mark size=2pt}"
)
LEGEND = "legend style={draw=none, legend columns=2, /tikz/every even column/.append style={column sep=8pt}}"


def below(name: str, rows: int = 1) -> str:
    """Return a TikZ node that places the legend `name` below the last two panels of a figure."""
    middle = f"$(group c1r{rows}.outer south)!0.5!(group c2r{rows}.outer south)$"
    return rf"\node[anchor=north] at ({middle}) {{\ref{{{name}}}}};"


def coordinates(x: Iterable[float], y: Iterable[float]) -> str:
    """Return points in the notation of pgfplots; points whose y value is not finite are left out."""
    return " ".join(f"({a:.4f},{b:.5f})" for a, b in zip(x, y, strict=True) if np.isfinite(b))
