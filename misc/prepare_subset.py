"""Choose clips of an annotation file by a seed or by class; the lines are kept as they are, in their order.

    python misc/prepare_subset.py something-something-v2-validation.json ssv2_5k.json --number 5000 --seed 1
    python misc/prepare_subset.py kinetics_val.csv temporal.csv --classes temporal

Reads json lists (SSv2, Diving48), json of videos by id (ActivityNet, official or BMN) and csv lists
(Kinetics).
Which lines are chosen depends on the seed and on the file's ids alone.
"""

import csv
import io
import json
import sys
from pathlib import Path

from static_dynamic import configs
from static_dynamic.command import Options, command, positive
from static_dynamic.datasets.annotations import read_csv, read_json
from static_dynamic.rng import generator
from static_dynamic.errors import UserError, nearest
from static_dynamic.files import write_text

IDS = ("id", "vid_name", "youtube_id")


def choose(ids: list[str], number: int | None, seed: int) -> list[int]:
    """Places of the chosen lines, in order: each id draws a number of its own, and the smallest win."""
    if number is None:
        return list(range(len(ids)))
    draws = [generator(seed, name, "subset").random() for name in ids]
    return sorted(sorted(range(len(ids)), key=lambda i: (draws[i], i))[:number])


def subset_csv(file: Path, classes: set[str] | None, number: int | None, seed: int) -> tuple[str, int, int]:
    """The text of a csv list with the chosen lines, and how many of how many they are."""
    lines = list(read_csv(file, ("label", "youtube_id")))
    broken = [n for n, line in lines if line is None]
    if broken:
        raise UserError(f"{file} line {broken[0]} has not the fields that the first line names: mend it")
    kept = [line for _, line in lines if classes is None or line["label"] in classes]
    kept = [kept[i] for i in choose([line["youtube_id"] for line in kept], number, seed)]
    text = io.StringIO()
    writer = csv.DictWriter(text, lines[0][1] if lines else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(kept)
    return text.getvalue(), len(kept), len(lines)


def subset_json(file: Path, number: int | None, seed: int) -> tuple[str, int, int]:
    """The text of a json file with the chosen clips, and how many of how many they are."""
    content = read_json(file, (list, dict))
    clips = content.get("database", content) if isinstance(content, dict) else content
    if isinstance(clips, dict):
        items = list(clips.items())
        chosen = dict(items[i] for i in choose([key for key, _ in items], number, seed))
        whole = {**content, "database": chosen} if "database" in content else chosen
        return json.dumps(whole) + "\n", len(chosen), len(items)
    ids = [next((str(c[k]) for k in IDS if isinstance(c, dict) and k in c), None) for c in clips]
    if None in ids:
        raise UserError(f"{file} entry {ids.index(None) + 1} has none of {', '.join(IDS)}")
    chosen = [clips[i] for i in choose(ids, number, seed)]
    return "[\n" + ",\n".join(map(json.dumps, chosen)) + "\n]\n", len(chosen), len(clips)


@command
def main() -> None:
    """Write the subset."""
    parser = Options(__doc__)
    parser.add_argument("annotations", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--number", type=positive, help="how many clips (default: all)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--classes", help="classes of a Kinetics subset: temporal, static or random")
    arguments = parser.parse_args()
    subsets = configs.row("dataset", "Kinetics").subsets
    if arguments.classes is not None and arguments.classes not in subsets:
        raise UserError(f"--classes {arguments.classes}{nearest(arguments.classes, subsets)}")
    if not arguments.annotations.is_file():
        raise UserError(f"{arguments.annotations} does not exist")
    if arguments.annotations.suffix.lower() == ".csv":
        classes = set(subsets[arguments.classes]) if arguments.classes else None
        text, kept, whole = subset_csv(arguments.annotations, classes, arguments.number, arguments.seed)
    elif arguments.classes is not None:
        raise UserError(f"--classes {arguments.classes} is for csv lists of Kinetics")
    else:
        text, kept, whole = subset_json(arguments.annotations, arguments.number, arguments.seed)
    write_text(arguments.out, text)
    print(f"{arguments.out}: {kept} of {whole} clips")


if __name__ == "__main__":
    sys.exit(main())
