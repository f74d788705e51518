"""Write a subset of an annotation file: clips chosen at random, or the clips of some classes.

    python misc/prepare_subset.py something-something-v2-validation.json ssv2_5k.json --number 5000 --seed 1
    python misc/prepare_subset.py kinetics_val.csv temporal.csv --classes temporal

Reads json lists (SSv2, Diving48), json objects keyed by video id (ActivityNet, official or BMN) and csv lists
(Kinetics). Entries are copied unchanged and stay in order. The choice depends only on seed and clip ids.
"""

import csv
import io
import json
import sys
from pathlib import Path

from static_dynamic import configs
from static_dynamic.command import Options, command, positive
from static_dynamic.datasets.annotations import read_csv, read_json
from static_dynamic.errors import UserError, nearest
from static_dynamic.files import write_text
from static_dynamic.rng import generator

IDS = ("id", "vid_name", "youtube_id")


def choose(ids: list[str], number: int | None, seed: int) -> list[int]:
    """Choose `number` ids at random (all if `number` is None); return the sorted positions of the chosen ids.

    Each id gets a random number from the seed and the id; the ids with the smallest numbers are chosen.
    """
    if number is None:
        return list(range(len(ids)))
    keys = [generator(seed, name, "subset").random() for name in ids]
    return sorted(sorted(range(len(ids)), key=lambda i: (keys[i], i))[:number])


def subset_csv(file: Path, classes: set[str] | None, number: int | None, seed: int) -> tuple[str, int, int]:
    """Choose lines of a csv list; return (their csv text, number of chosen lines, number of all lines)."""
    lines = []
    for n, line in read_csv(file, ("label", "youtube_id")):
        if line is None:
            raise UserError(f"{file} line {n}: the fields do not match the header: repair the line")
        lines.append(line)
    kept = [line for line in lines if classes is None or line["label"] in classes]
    kept = [kept[i] for i in choose([line["youtube_id"] for line in kept], number, seed)]
    text = io.StringIO()
    writer = csv.DictWriter(text, lines[0] if lines else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(kept)
    return text.getvalue(), len(kept), len(lines)


def subset_json(file: Path, number: int | None, seed: int) -> tuple[str, int, int]:
    """Choose clips of a json list; return (their json text, number of chosen clips, number of all clips)."""
    content = read_json(file, (list, dict))
    clips = content.get("database", content) if isinstance(content, dict) else content
    if isinstance(clips, dict):
        items = list(clips.items())
        chosen = dict(items[i] for i in choose([key for key, _ in items], number, seed))
        whole = {**content, "database": chosen} if "database" in content else chosen
        return json.dumps(whole) + "\n", len(chosen), len(items)
    ids = []
    for n, clip in enumerate(clips, start=1):
        key = next((k for k in IDS if isinstance(clip, dict) and k in clip), None)
        if key is None:
            raise UserError(f"{file} entry {n} has none of the keys {', '.join(IDS)}")
        ids.append(str(clip[key]))
    texts = [json.dumps(clips[i]) for i in choose(ids, number, seed)]
    return "[\n" + ",\n".join(texts) + "\n]\n", len(texts), len(clips)


@command
def main() -> None:
    """Write a subset of the annotation file."""
    parser = Options(__doc__)
    parser.add_argument("annotations", type=Path, help="annotation file")
    parser.add_argument("out", type=Path, help="file to write")
    parser.add_argument("--number", type=positive, help="number of clips to choose at random (default: all)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the random choice of clips")
    parser.add_argument("--classes", help="keep the classes of a Kinetics subset: temporal, static or random")
    given = parser.parse_args()
    subsets = configs.row("dataset", "Kinetics").subsets
    if given.classes is not None and given.classes not in subsets:
        raise UserError(f"unknown --classes {given.classes}{nearest(given.classes, subsets)}")
    if not given.annotations.is_file():
        raise UserError(f"{given.annotations} does not exist")
    if given.annotations.suffix.lower() == ".csv":
        classes = set(subsets[given.classes]) if given.classes else None
        text, kept, whole = subset_csv(given.annotations, classes, given.number, given.seed)
    elif given.classes is not None:
        raise UserError(f"--classes {given.classes} applies only to a Kinetics csv list")
    else:
        text, kept, whole = subset_json(given.annotations, given.number, given.seed)
    write_text(given.out, text)
    print(f"{given.out}: {kept} of {whole} clips")


if __name__ == "__main__":
    sys.exit(main())
