"""List the clips of data sets: read annotation files, or make one clip per video of a plain folder.

Each function takes a row of ``configs/dataset``, the data root and the names of the videos on disk. The
function yields one `Annotated` per annotation entry, in file order. An unusable entry is yielded too, with
the reason, so that the run can report every clip that is left out.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from omegaconf import DictConfig

from static_dynamic.errors import UserError, nearest

# importing lists.py registers its annotation readers
from . import lists as lists
from .annotation_files import find_annotation, read_csv, read_json, shorten
from .layouts import LAYOUTS as LAYOUTS
from .layouts import MALFORMED, Annotated, entries_of, layout


@layout
def folder(row: DictConfig, root: Path, names: list[str]) -> Iterator[Annotated]:
    """Make one clip per video on disk; if the video is in a class folder, the folder's name is the class."""
    classes = sorted({name.split("/")[0] for name in names if "/" in name})
    for name in names:
        label = classes.index(name.split("/")[0]) if "/" in name else -1
        yield Annotated(name, (name,), label, cluster=name)


@layout
def activitynet(row: DictConfig, root: Path, names: list[str]) -> Iterator[Annotated]:
    """Read ActivityNet 1.3 from the official json or BMN's files; each clip is a video's first segment."""
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
            broken = f"its entry {shorten(video)} is malformed ({type(error).__name__}: {shorten(error)})"
            clips.append((Annotated(key, broken=broken), None))
    number = {label: i for i, label in enumerate(sorted(classes))}
    yield from (replace(clip, label=-1 if label is None else number[label]) for clip, label in clips)


def _first_segment(
    key: str, video: dict, subset: str | None, limits: DictConfig
) -> tuple[Annotated, str | None]:
    """Return (clip, class name) for a video's first segment; (clip, None) if the clip is excluded."""
    if subset and video["subset"] != subset:
        return Annotated(key, filtered=f"subset {video['subset']}"), None
    if "num_frames" in video:
        count = int(float(video["num_frames"]))
    else:
        count = int(
            limits.fps * float(video["duration_second" if "duration_second" in video else "duration"])
        )
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
    """Read Something-Something v2: each video is one clip; the class is ``template`` without brackets."""
    file = find_annotation(row, root, "list")
    labels = read_json(find_annotation(row, root, "labels"), dict)

    def parse(entry: dict) -> Annotated:
        name, template = str(entry["id"]), entry["template"].replace("[", "").replace("]", "")
        return Annotated(name, (name,), int(labels[template]), cluster=name)

    return entries_of(file, parse)


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

    return entries_of(file, parse)


@layout
def kinetics(row: DictConfig, root: Path, names: list[str]) -> Iterator[Annotated]:
    """Read a Kinetics csv list: the clips of all classes, or of the 32 classes of subset ``row.subset``."""
    wanted, on_disk = None, set(names)
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
    clips_per_file = Counter(file for _, line in lines if line for file in _files_without_times(line))
    for n, line in lines:
        if line is None:
            yield Annotated(f"{file.name} line {n}", broken="its fields differ from the header's")
            continue
        label, youtube = line["label"], line["youtube_id"]
        try:
            times = [whole_seconds(line[key]) for key in ("time_start", "time_end")]
        except ValueError as error:
            yield Annotated(f"{file.name} line {n}", broken=str(error))
            continue
        name = f"{youtube}_{times[0]:06d}_{times[1]:06d}"
        if wanted is not None and label not in wanted:
            yield Annotated(name, (), classes[label], filtered=f"not a class of subset {row.subset}")
            continue
        without = _files_without_times(line)
        paths = (name, *(f"{c}/{name}" for c in (label, label.replace(" ", "_"))), *without)
        # A file name with only the YouTube id is ambiguous if several clips come from that video.
        unclear = {path for path in without if clips_per_file[path] > 1}
        known = next((path for path in paths if path in on_disk), None)
        if known in unclear:
            broken = f"{file.name} lists several clips of {youtube!r}: name the file of each clip like {name}"
            yield Annotated(name, broken=broken)
        else:
            yield Annotated(
                name, tuple(p for p in paths if p not in unclear), classes[label], cluster=youtube
            )


def _files_without_times(line: dict[str, str]) -> tuple[str, ...]:
    """Return possible file names of a clip that contain its YouTube id, but not its start and end time."""
    label, youtube = line["label"], line["youtube_id"]
    return (youtube, *dict.fromkeys(f"{c}/{youtube}" for c in (label, label.replace(" ", "_"))))


def whole_seconds(text: str) -> int:
    """Parse a number of seconds such as ``10`` or ``10.0``; raise ValueError for any other text."""
    try:
        seconds = float(text)
        if seconds == int(seconds) >= 0:
            return int(seconds)
    except (ValueError, OverflowError):
        pass
    raise ValueError(f"the time {text[:20]!r} is not a whole number of seconds")
