"""Read the annotation files of data sets, with one function per file format.

Each function takes a row of ``configs/dataset``, the data root and the names of the videos on disk. The
function yields one `Annotated` per annotation entry, in file order. An unusable entry is yielded too, with
the reason, so that the run can report every clip that is left out.
"""

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from omegaconf import DictConfig

from static_dynamic.errors import UserError, nearest


@dataclass(frozen=True)
class Annotated:
    """The annotation of one clip.

    A clip is the first ``frames`` frames of a video, or the range ``seconds`` (start, end) of the video. If
    ``frames`` and ``seconds`` are None, the clip is the whole video.
    """

    id: str
    names: tuple[str, ...] = ()  # possible names of the video on disk
    label: int = -1
    cluster: str = ""
    frames: int | None = None
    seconds: tuple[float, float] | None = None
    filtered: str = ""  # why the rules of the data set exclude this clip; empty if no rule excludes it
    broken: str = ""  # why the annotation entry cannot be parsed; empty if it was parsed


# Parsing an annotation entry of unexpected form raises one of these exceptions.
MALFORMED = (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError)
Layout = Callable[[DictConfig, Path, list[str]], Iterable[Annotated]]
LAYOUTS: dict[str, Layout] = {}


def layout(function: Layout) -> Layout:
    """Register an annotation reader; the key ``layout`` of ``configs/dataset/NAME.yaml`` names the reader."""
    LAYOUTS[function.__name__] = function
    return function


@layout
def folder(row: DictConfig, root: Path, names: list[str]) -> Iterator[Annotated]:
    """Make one clip per video on disk, without annotations; the class is the name of the video's folder."""
    classes = sorted({name.split("/")[0] for name in names if "/" in name})
    for name in names:
        label = classes.index(name.split("/")[0]) if "/" in name else -1
        yield Annotated(name, (name,), label, cluster=name)


@layout
def activitynet(row: DictConfig, root: Path, names: list[str]) -> Iterator[Annotated]:
    """Read ActivityNet 1.3 (the official json, or BMN's json and csv): a clip is a video's first segment."""
    file = find_annotation(row, root, "list")
    videos = read_json(file, dict)
    if isinstance(videos.get("database"), dict):
        videos = {f"v_{key}": video for key, video in videos["database"].items()}
    else:
        info = find_annotation(row, root, "info")
        about = {}
        for n, line in read_csv(info, ("video", "subset")):
            if line is None:
                yield Annotated(f"{info.name} line {n}", broken="its fields differ from the header's")
            else:
                about[line["video"]] = line["subset"]
        videos = {key: {**video, "subset": about.get(key)} for key, video in videos.items()}
    clips: list[tuple[Annotated, str | None]] = []
    classes: set[str] = set()
    for key, video in videos.items():
        try:
            classes.update(str(segment["label"]) for segment in video["annotations"])
            clips.append(_first_segment(key, video, row.subset, row.filters))
        except MALFORMED as error:
            broken = f"its entry {_shorten(video)} is malformed ({type(error).__name__}: {_shorten(error)})"
            clips.append((Annotated(key, broken=broken), None))
    number = {label: i for i, label in enumerate(sorted(classes))}
    yield from (replace(clip, label=-1 if label is None else number[label]) for clip, label in clips)


def _first_segment(
    key: str, video: dict, subset: str | None, limits: DictConfig
) -> tuple[Annotated, str | None]:
    """Return (clip, class name) of a video's first segment; the class name is None for an excluded clip."""
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
    """Read Something-Something v2: a clip is a video; its class is the ``template`` without brackets."""
    file = find_annotation(row, root, "list")
    labels = read_json(find_annotation(row, root, "labels"), dict)

    def parse(entry: dict) -> Annotated:
        name, template = str(entry["id"]), entry["template"].replace("[", "").replace("]", "")
        return Annotated(name, (name,), int(labels[template]), cluster=name)

    return _entries(file, parse)


@layout
def diving48(row: DictConfig, root: Path, names: list[str]) -> Iterator[Annotated]:
    """Read Diving48: a clip is the first ``end_frame - start_frame`` frames of the video of a dive."""
    file = find_annotation(row, root, "list")
    vocabulary = read_json(find_annotation(row, root, "labels"), list)
    least = row.filters.min_frames

    def parse(entry: dict) -> Annotated:
        name, label = str(entry["vid_name"]), int(entry["label"])
        frames = int(entry["end_frame"]) - int(entry["start_frame"])
        if not 0 <= label < len(vocabulary):
            raise ValueError(f"class {label} of {len(vocabulary)}")
        short = f"fewer than {least} frames" if frames < least else ""
        # NAME_00012 is the twelfth dive of the broadcast NAME. All dives of one broadcast form a cluster.
        return Annotated(name, (name,), label, name.rpartition("_")[0] or name, frames, filtered=short)

    return _entries(file, parse)


def _entries(file: Path, parse: Callable[[dict], Annotated]) -> Iterator[Annotated]:
    """Yield one `Annotated` per entry of a json list; its ``broken`` says why an entry cannot be parsed."""
    for n, entry in enumerate(read_json(file, list), start=1):
        try:
            yield parse(entry)
        except MALFORMED as error:
            reason = f"{_shorten(entry)} is malformed ({_shorten(error)})"
            yield Annotated(f"{file.name} entry {n}", broken=reason)


@layout
def kinetics(row: DictConfig, root: Path, names: list[str]) -> Iterator[Annotated]:
    """Read a Kinetics csv list: the clips of all classes, or of the 32 classes that ``row.subset`` names."""
    wanted = None
    if row.subset is not None:
        if row.subset not in row.subsets:
            raise UserError(
                f"unknown dataset.subset={row.subset}{nearest(str(row.subset), row.subsets)} "
                f"(known: {', '.join(row.subsets)})"
            )
        wanted = set(row.subsets[row.subset])
    file = find_annotation(row, root, "list")
    lines = list(read_csv(file, ("label", "youtube_id", "time_start", "time_end")))
    classes = {c: i for i, c in enumerate(sorted({line["label"] for _, line in lines if line}))}
    for n, line in lines:
        try:
            if line is None:
                raise ValueError
            label, youtube = line["label"], line["youtube_id"]
            name = f"{youtube}_{int(line['time_start']):06d}_{int(line['time_end']):06d}"
        except ValueError:
            yield Annotated(f"{file.name} line {n}", broken="its fields differ from the header's")
            continue
        if wanted is not None and label not in wanted:
            yield Annotated(name, (), classes[label], filtered=f"not a class of subset {row.subset}")
            continue
        stems = (name, youtube)
        paths = (*stems, *(f"{c}/{s}" for c in (label, label.replace(" ", "_")) for s in stems))
        yield Annotated(name, paths, classes[label], cluster=youtube)


def find_annotation(row: DictConfig, root: Path, kind: str) -> Path:
    """Return the first file of ``row.annotations[kind]`` that exists; `kind` is "list", "info" or "labels".

    Raises UserError if no such file exists.
    """
    folder = Path(row.get("annotations_dir") or root).expanduser()
    for name in row.annotations[kind]:
        if (folder / name).is_file():
            return folder / name
    raise UserError(
        f"dataset={row.name} needs annotation files: {folder} has no {' or '.join(row.annotations[kind])} "
        "(if the files are in another folder, give dataset.annotations_dir=DIR)"
    )


def read_json(file: Path, kind: type | tuple[type, ...]):
    """Read a json file; raise UserError if the file is damaged or its top-level value is not a `kind`."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{file} is not readable json ({_shorten(error)})") from error
    if not isinstance(content, kind):
        known = kind if isinstance(kind, tuple) else (kind,)
        expected = " or ".join(each.__name__ for each in known)
        raise UserError(f"{file} holds a {type(content).__name__}, but a {expected} is expected")
    return content


def read_csv(file: Path, needed: Iterable[str]) -> Iterator[tuple[int, dict[str, str] | None]]:
    """Yield (line number, fields by column name) per csv line; the fields of a broken line are None.

    Raises UserError if the header lacks a needed column, or the file is not csv.
    """
    with file.open(encoding="utf-8", errors="replace", newline="") as stream:
        reader = csv.reader(stream)
        try:
            header = next(reader, [])
            missing = [name for name in needed if name not in header]
            if missing:
                raise UserError(f"{file}: the header has no column {', '.join(missing)}")
            for fields in reader:
                if fields:
                    whole = len(fields) == len(header) and all(map(str.isprintable, fields))
                    yield reader.line_num, dict(zip(header, fields, strict=True)) if whole else None
        except csv.Error as error:
            raise UserError(f"{file} line {reader.line_num} is not csv ({error})") from error


def _shorten(value: object) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 60 else text[:57] + "..."
