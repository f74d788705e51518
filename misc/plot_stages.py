"""Draw the dynamic and static percentages of each stage, with one panel per stream.

    python misc/plot_stages.py --in_file final/MODEL/MODEL_final_001.txt --out_plot stages.tex
    python misc/plot_stages.py --in_file final/MODEL --out_plot stages_%s.png --matplot

Writes TikZ code, or a figure with --matplot. For a folder of result files, the mean over seeds is drawn with
error bars of 1.96 * std / sqrt(n), as in Kowal et al.'s code. With few seeds, these are shorter than 95 %
intervals. With %s in --out_plot one file per stream is written.
"""

import logging
import sys
from pathlib import Path

from static_dynamic.analysis.vos.original_reader import average_seeds, read_dimensions
from static_dynamic.analysis.vos.stage_figures import draw_stages, stages_as_tikz
from static_dynamic.command import Options, command
from static_dynamic.errors import UserError
from static_dynamic.files import write_text

log = logging.getLogger(__name__)


@command
def main() -> None:
    """Write the dynamic and static percentages of each stage as TikZ code or as figures."""
    parser = Options(__doc__)
    parser.add_argument("--in_file", type=Path, required=True, help="a result file, or a folder of several")
    parser.add_argument("--out_plot", help="file to write (default: stages.tex, or stages.png)")
    parser.add_argument("--matplot", action="store_true", help="write a figure instead of TikZ")
    parser.add_argument("--streams", default="app_stream,mot_stream", help="comma-separated list")
    parser.add_argument("--title", help="default: the network's name, taken from the file name")
    given = parser.parse_args()
    out = given.out_plot or ("stages.png" if given.matplot else "stages.tex")
    title = given.title or given.in_file.stem.partition("_final_")[0]
    streams = streams_of(given.in_file, given.streams.split(","))
    parts = {out.replace("%s", name): {name: streams[name]} for name in streams}
    for path, part in parts.items() if "%s" in out else [(out, streams)]:
        if given.matplot:
            draw_stages(part, Path(path), title)
        else:
            write_text(Path(path), stages_as_tikz(part, title))
        print(path)


def streams_of(source: Path, names: list[str]) -> dict:
    """Return a table of stages for each requested stream that the result files contain."""
    table = average_seeds(source) if source.is_dir() else read_dimensions(source)
    found = {name: table[table["stream"] == name] for name in names if name in set(table["stream"])}
    if not found:
        present = ", ".join(table["stream"].unique())
        raise UserError(f"{source} has no stage of the streams {','.join(names)}, only of {present}")
    for name in names:
        if name not in found:
            log.warning("%s has no stage of stream %s: the figure has no panel for it", source, name)
    return found


if __name__ == "__main__":
    sys.exit(main())
