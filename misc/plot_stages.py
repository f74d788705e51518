"""Draw dynamic and static percentages by stage, a panel a stream: as TikZ, or with --matplot as a figure.

    python misc/plot_stages.py --in_file final/MODEL/MODEL_final_001.txt --out_plot stages.tex
    python misc/plot_stages.py --in_file final/MODEL --out_plot stages_%s.png --matplot

A folder stands for the mean over its seeds, with 95 % bars. With %s in --out_plot each stream has a file of
its own.
"""

import sys
from pathlib import Path

from static_dynamic.analysis.vos.original_files import average_seeds, read_dimensions
from static_dynamic.analysis.vos.stage_figures import draw_stages, stages_as_tikz
from static_dynamic.command import Options, command
from static_dynamic.errors import UserError
from static_dynamic.files import write_text


@command
def main() -> None:
    """Draw."""
    parser = Options(__doc__)
    parser.add_argument("--in_file", type=Path, required=True, help="a result file, or a folder of several")
    parser.add_argument("--out_plot", help="file to write (default: stages.tex, or stages.png)")
    parser.add_argument("--matplot", action="store_true", help="a figure instead of TikZ")
    parser.add_argument(
        "--streams", default="app_stream,mot_stream", help="comma list (default: %(default)s)"
    )
    parser.add_argument("--title", help="default: the network's name, from that of the file")
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
    """Stream -> its stages, for those of `names` that the results have."""
    table = average_seeds(source) if source.is_dir() else read_dimensions(source)
    found = {name: table[table["stream"] == name] for name in names if name in set(table["stream"])}
    if not found:
        raise UserError(
            f"{source} has no stage of {','.join(names)}: it has {', '.join(table['stream'].unique())}"
        )
    return found


if __name__ == "__main__":
    sys.exit(main())
