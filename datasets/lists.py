"""Read the annotation files of EPIC-Kitchens, UCF101, HMDB51, Jester, Charades and MMAction2."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from omegaconf import DictConfig

from static_dynamic.errors import UserError

from .annotation_files import INVALID, find_annotation, read_csv, read_lines, shorten
from .frames import VIDEO_SUFFIXES
from .layouts import MALFORMED, Annotated, layout

# Folders in which downloads of HMDB51 keep the list files of the splits.
HMDB51_LISTS = (".", "testTrainMulti_7030_splits", "splits")


@layout
def mmaction2(row: DictConfig, root: Path, names: list[str]) -> Iterator[Annotated]:
    """Read an MMAction2 list: ``path label`` per video file, or ``path frames label`` per image folder.

    Paths may hold blanks. Videos may also be stored without the folders in their paths.
    """
    file = find_annotation(row, root, "list")
    parsed = [(n, line, _parse_mmaction2(line)) for n, line in _lines(file)]
    same_name = Counter(PurePosixPath(entry[0]).name for _, _, entry in parsed if entry)
    for n, line, entry in parsed:
        if entry is None:
            broken = f"{shorten(line)!r} is not 'path label' or 'path frames label' with one label"
            yield Annotated(f"{file.name} line {n}", broken=broken)
            continue
        video, frames, label = entry
        name = PurePosixPath(video).name
        paths = (video, name) if same_name[name] == 1 else (video,)
        yield Annotated(video, paths, label, cluster=video, frames=frames)


def _parse_mmaction2(line: str) -> tuple[str, int | None, int] | None:
    """Parse a line to (video, number of frames or None, label); return None for lines of another form."""
    fields = line.rsplit(None if " " in line or "\t" in line else ",", 2)
    label, path, frames = _integer(fields[-1]), " ".join(fields[:-1]), None
    if _without_suffix(path) == path and len(fields) == 3:
        path, frames = fields[0], _integer(fields[1])
        if frames is None:  # a path with a blank
            path = " ".join(fields[:-1])
    video = _without_suffix(path)
    return (video, frames, label) if video and label is not None and INVALID not in line else None


@layout
def ucf101(row: DictConfig, root: Path, names: list[str]) -> Iterator[Annotated]:
    """Read a split of UCF101: a line is ``CLASS/v_CLASS_g01_c01.avi``; each group (g01) is a cluster."""
    file = find_annotation(row, root, "list")
    pairs = [line.split() for _, line in _lines(find_annotation(row, root, "labels"))]
    classes = {pair[-1]: k - 1 for pair in pairs if (k := _integer(pair[0]))}
    for n, line in _lines(file):
        video = _without_suffix(line.split()[0])
        label, _, name = video.rpartition("/")
        if label not in classes:
            broken = f"{shorten(line)!r} names no class of classInd.txt"
            yield Annotated(f"{file.name} line {n}", broken=broken)
        else:
            yield Annotated(video, (video, name), classes[label], cluster=re.sub(r"_c\d+$", "", name))


@layout
def hmdb51(row: DictConfig, root: Path, names: list[str]) -> Iterator[Annotated]:
    """Read a split of HMDB51, which has one list file per class; videos of one film form a cluster."""
    folder = Path(row.get("annotations_dir") or root).expanduser()
    ending = f"_test_split{row.split}.txt"
    files = next((found for f in HMDB51_LISTS if (found := sorted((folder / f).glob(f"*{ending}")))), [])
    if not files:
        raise UserError(
            f"dataset={row.name} needs its list files: {folder} has no CLASS{ending} "
            "(if the files are in another folder, give dataset.annotations_dir=DIR)"
        )
    wanted = {"train": "1", "test": "2"}.get(row.subset)
    for label, file in enumerate(files):
        action = file.name.removesuffix(ending)
        for n, line in _lines(file):
            name, _, use = line.rpartition(" ")
            name, use = _without_suffix(name.strip()), use.strip()
            if use not in ("0", "1", "2") or not name:
                yield Annotated(f"{file.name} line {n}", broken=f"{shorten(line)!r} is not 'VIDEO 0, 1 or 2'")
            elif use != wanted:
                yield Annotated(name, filtered=f"not in the {row.subset} set of split {row.split}")
            else:
                # The name FILM_CLASS_u_nm_np1_ba_goo_0 holds film, class, scene properties and a counter.
                film = name.rpartition(f"_{action}_")[0] or name
                yield Annotated(name, (f"{action}/{name}", name), label, cluster=film)


@layout
def jester(row: DictConfig, root: Path, names: list[str]) -> Iterator[Annotated]:
    """Read Jester: a csv file with ``ID;label`` per line, and a file that lists all labels."""
    file = find_annotation(row, root, "list")
    classes = {line: k for k, (_, line) in enumerate(_lines(find_annotation(row, root, "labels")))}
    for n, line in read_csv(file, header=["id", "label"], separators=";"):
        if line is None or line["label"] not in classes:
            yield Annotated(f"{file.name} line {n}", broken="it is not 'ID;label' with a label of the list")
            continue
        yield Annotated(line["id"], (line["id"],), classes[line["label"]], cluster=line["id"])


@layout
def charades(row: DictConfig, root: Path, names: list[str]) -> Iterator[Annotated]:
    """Read Charades: each clip is a video's first action; the action code (c000 to c156) is the class."""
    file = find_annotation(row, root, "list")
    for n, line in read_csv(file, ("id", "actions")):
        if line is None:
            yield Annotated(f"{file.name} line {n}", broken="its fields differ from the header's")
            continue
        try:
            actions = [action.split() for action in line["actions"].split(";") if action.strip()]
            if not actions:
                yield Annotated(line["id"], filtered="no action")
                continue
            start, end, label = min((_seconds(a), _seconds(b), _class(code[1:])) for code, a, b in actions)
            if not start < end:
                raise ValueError(f"action from {start:g} to {end:g} s")
        except MALFORMED as error:
            yield Annotated(line["id"], broken=f"its actions are malformed ({shorten(error)})")
            continue
        yield Annotated(line["id"], (line["id"],), label, line["id"], seconds=(start, end))


@layout
def epic_kitchens(row: DictConfig, root: Path, names: list[str]) -> Iterator[Annotated]:
    """Read EPIC-Kitchens: each clip is one action; ``row.label`` chooses its verb or noun as class."""
    file = find_annotation(row, root, "list")
    key = f"{row.label}_class"
    times = ("start_timestamp", "stop_timestamp")
    needed = ("narration_id", "video_id", *times, "start_frame", "stop_frame", key)
    for n, line in read_csv(file, needed):
        try:
            if line is None:
                raise ValueError("its fields differ from the header's")
            start, end = (_seconds(line[time]) for time in times)
            # Frame numbers begin at 1, positions at 0; `stop_frame` is the first frame after the action.
            images = (int(line["start_frame"]) - 1, int(line["stop_frame"]) - 1)
            label = _class(line[key])
            if not start < end:
                raise ValueError(f"action from {start:g} to {end:g} s")
        except ValueError as error:
            yield Annotated(f"{file.name} line {n}", broken=shorten(error))
            continue
        video, person = line["video_id"], line["video_id"].partition("_")[0]
        folders = ("", f"{person}/", *(f"{person}/{kind}/" for kind in ("rgb_frames", "videos")))
        paths = tuple(f"{folder}{video}" for folder in folders)
        yield Annotated(line["narration_id"], paths, label, video, seconds=(start, end), images=images)


def _seconds(text: str) -> float:
    """Parse a time such as ``12.5`` or ``00:01:12.5`` to seconds; raise ValueError for any other text."""
    try:
        seconds = sum(float(part) * 60**k for k, part in enumerate(reversed(text.split(":"))))
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise ValueError(f"{shorten(text)!r} is not a time")
    return seconds


def _integer(text: str) -> int | None:
    """Parse a non-negative integer of at most nine digits; return None for any other text."""
    return int(text) if re.fullmatch(r"\d{1,9}", text) else None


def _class(text: str) -> int:
    """Parse the number of a class; raise ValueError for any other text."""
    if (label := _integer(text)) is None:
        raise ValueError(f"{shorten(text)!r} is not the number of a class")
    return label


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    """Yield (line number, stripped line) for each non-empty line of a file."""
    for n, line in enumerate(read_lines(file), start=1):
        if line.strip():
            yield n, line.strip()


def _without_suffix(path: str) -> str:
    """Remove the suffix of a video file from a path."""
    pure = PurePosixPath(path)
    return str(pure.with_suffix("")) if pure.suffix.lower() in VIDEO_SUFFIXES else path
