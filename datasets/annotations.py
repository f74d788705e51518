"""From annotation files to what they say of each clip: one small function for each form.

Each takes a row of ``configs/dataset``, the data root and the names of the videos on disk, and yields one
`Annotated` for every line, in file order. A line that cannot be used is yielded too, with its fault: what is
left out is named.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from omegaconf import DictConfig

from static_dynamic.errors import UserError, nearest


@dataclass(frozen=True)
class Annotated:
    """What an annotation file says of one clip, before the disk is asked.

    ``names``: under which its video may lie on disk. ``frames`` is its number of frames, from the first of
    the video; ``seconds`` the stretch of the video instead; where both are None it is all of the video.
    ``filtered`` says why the data set does not want this clip, ``broken`` why the line cannot be understood.
    """

    id: str
    names: tuple[str, ...] = ()
    label: int = -1
    cluster: str = ""
    frames: int | None = None
    seconds: tuple[float, float] | None = None
    filtered: str = ""
    broken: str = ""


# what a line of another form than it should have runs into
MALFORMED = (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError)
Layout = Callable[[DictConfig, Path, list[str]], Iterable[Annotated]]
LAYOUTS: dict[str, Layout] = {}


def layout(function: Layout) -> Layout:
    """Make an annotation form known to the rows of ``configs/dataset`` under its name."""
    LAYOUTS[function.__name__] = function
    return function


@layout
def folder(row: DictConfig, root: Path, names: list[str]) -> Iterator[Annotated]:
    """No annotation: every video is a clip, over all of its frames; class folders are labels."""
    classes = sorted({name.split("/")[0] for name in names if "/" in name})
    for name in names:
        label = classes.index(name.split("/")[0]) if "/" in name else -1
        yield Annotated(name, (name,), label, cluster=name)


@layout
def activitynet(row: DictConfig, root: Path, names: list[str]) -> Iterator[Annotated]:
    """ActivityNet 1.3: the first segment of each video; the official json, or the json and csv of BMN."""
    file = find_annotation(row, root, "list")
    videos = read_json(file, dict)
    if "database" in videos:
        videos = {f"v_{key}": video for key, video in videos["database"].items()}
    else:
        info = find_annotation(row, root, "info")
        about = {}
        for n, line in read_csv(info, ("video", "subset")):
            if line is None:
                yield Annotated(f"{info.name} line {n}", broken="it has not the fields of the first line")
            else:
                about[line["video"]] = line["subset"]
        videos = {key: {**video, "subset": about.get(key)} for key, video in videos.items()}
    clips = []
    classes: set[str] = set()
    for key, video in videos.items():
        try:
            classes.update(str(segment["label"]) for segment in video["annotations"])
            clips.append(_first_segment(key, video, row.subset, row.filters))
        except MALFORMED as error:
            broken = f"{file.name} says {_short(video)} of it ({type(error).__name__}: {_short(error)})"
            clips.append((Annotated(key, broken=broken), None))
    number = {label: i for i, label in enumerate(sorted(classes))}
    yield from (replace(clip, label=number.get(label, -1)) for clip, label in clips)


def _first_segment(
    key: str, video: dict, subset: str | None, limits: DictConfig
) -> tuple[Annotated, str | None]:
    """The clip of one video, and the class of its first segment."""
    if subset and video["subset"] != subset:
        return Annotated(key, filtered=f"subset {video['subset']}"), None
    duration = video.get("duration_second", video.get("duration"))
    count = int(video["num_frames"]) if "num_frames" in video else int(limits.fps * duration)
    if count < limits.min_frames:
        return Annotated(key, filtered=f"fewer than {limits.min_frames} frames at {limits.fps} fps"), None
    segments = [(float(s["segment"][0]), float(s["segment"][1])) for s in video["annotations"]]
    if not segments:
        return Annotated(key, filtered="no segment"), None
    for start, end in segments:
        if not 0 <= start <= end:
            raise ValueError(f"segment {start}, {end}")
        if int(min(limits.fps * end, count)) - int(limits.fps * start) < limits.min_segment:
            short = f"a segment of fewer than {limits.min_segment} frames at {limits.fps} fps"
            return Annotated(key, filtered=short), None
    start, end = segments[0]
    clip = Annotated(key, (key,), cluster=key, seconds=(start, min(end, count / limits.fps)))
    return clip, str(video["annotations"][0]["label"])


@layout
def ssv2(row: DictConfig, root: Path, names: list[str]) -> Iterator[Annotated]:
    """Something-Something v2: all frames of each video; the class is the template without its brackets."""
    file = find_annotation(row, root, "list")
    labels = read_json(find_annotation(row, root, "labels"), dict)
    for n, line in enumerate(read_json(file, list), start=1):
        try:
            template = line["template"].replace("[", "").replace("]", "")
            yield Annotated(
                str(line["id"]), (str(line["id"]),), int(labels[template]), cluster=str(line["id"])
            )
        except MALFORMED as error:
            yield Annotated(f"{file.name} entry {n}", broken=f"it reads {_short(line)} ({_short(error)})")


@layout
def diving48(row: DictConfig, root: Path, names: list[str]) -> Iterator[Annotated]:
    """Diving48: ``end_frame - start_frame`` frames from the first of each video; files are cut already."""
    file = find_annotation(row, root, "list")
    vocabulary = read_json(find_annotation(row, root, "labels"), list)
    for n, line in enumerate(read_json(file, list), start=1):
        try:
            name, label = str(line["vid_name"]), int(line["label"])
            frames = int(line["end_frame"]) - int(line["start_frame"])
            if not 0 <= label < len(vocabulary):
                raise ValueError(f"class {label} of {len(vocabulary)}")
            least = row.filters.min_frames
            short = f"fewer than {least} frames" if frames < least else ""
            # NAME_00012 is the twelfth dive of broadcast NAME
            yield Annotated(name, (name,), label, name.rpartition("_")[0] or name, frames, filtered=short)
        except MALFORMED as error:
            yield Annotated(f"{file.name} entry {n}", broken=f"it reads {_short(line)} ({_short(error)})")


@layout
def kinetics(row: DictConfig, root: Path, names: list[str]) -> Iterator[Annotated]:
    """Kinetics csv lists, of all classes or of the 32 of a subset."""
    wanted = None
    if row.subset is not None:
        if row.subset not in row.subsets:
            raise UserError(
                f"dataset.subset={row.subset}{nearest(str(row.subset), row.subsets)} "
                f"(known: {', '.join(row.subsets)})"
            )
        wanted = set(row.subsets[row.subset])
    file = find_annotation(row, root, "list")
    lines = list(read_csv(file, ("label", "youtube_id", "time_start", "time_end")))
    classes = {c: i for i, c in enumerate(sorted({line["label"] for _, line in lines if line}))}
    for n, line in lines:
        try:
            label, youtube = line["label"], line["youtube_id"]
            name = f"{youtube}_{int(line['time_start']):06d}_{int(line['time_end']):06d}"
        except (TypeError, ValueError):
            yield Annotated(f"{file.name} line {n}", broken="it has not the fields that the first line names")
            continue
        if wanted is not None and label not in wanted:
            yield Annotated(name, filtered=f"not a class of subset {row.subset}")
            continue
        stems = (name, youtube)
        places = (*stems, *(f"{c}/{s}" for c in (label, label.replace(" ", "_")) for s in stems))
        yield Annotated(name, places, classes[label], cluster=youtube)


def find_annotation(row: DictConfig, root: Path, kind: str) -> Path:
    """The annotation file of that kind: the first of the row's names that is there.

    Raises
    ------
    UserError
        Where there is none of them.
    """
    folder = Path(row.get("annotations_dir") or root).expanduser()
    for name in row.annotations[kind]:
        if (folder / name).is_file():
            return folder / name
    raise UserError(
        f"dataset={row.name} needs its annotations: {folder} has no {' or '.join(row.annotations[kind])} "
        "(dataset.annotations_dir=DIR, where they lie elsewhere)"
    )


def read_json(file: Path, kind: type | tuple[type, ...]):
    """Read a json file that holds a list or a dict.

    Raises
    ------
    UserError
        Where it is damaged or holds anything else.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{file} is not readable json ({_short(error)})") from error
    if not isinstance(content, kind):
        raise UserError(f"{file} holds one {type(content).__name__}: another form is expected")
    return content


def read_csv(file: Path, needed: Iterable[str]) -> Iterator[tuple[int, dict[str, str] | None]]:
    """Lines of a csv file by the names in its first line, each with its number; None for a broken one.

    Raises
    ------
    UserError
        Where the first line lacks a name that is needed.
    """
    with file.open(encoding="utf-8", errors="replace", newline="") as stream:
        reader = csv.reader(stream)
        try:
            header = next(reader, [])
            lacking = [name for name in needed if name not in header]
            if lacking:
                raise UserError(f"{file}: its first line does not name {', '.join(lacking)}")
            for fields in reader:
                if fields:
                    whole = len(fields) == len(header) and all(map(str.isprintable, fields))
                    yield reader.line_num, dict(zip(header, fields, strict=True)) if whole else None
        except csv.Error as error:
            raise UserError(f"{file} line {reader.line_num} is not csv ({error})") from error


def _short(value: object) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 60 else text[:57] + "..."
