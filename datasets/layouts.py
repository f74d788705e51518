"""The annotation of a clip, and the registry of the functions that read annotation files."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from .annotation_files import read_json, shorten


@dataclass(frozen=True)
class Annotated:
    """The annotation of one clip.

    A clip is the first ``frames`` frames of a video, or the range ``seconds`` (start, end) of the video. If
    ``frames`` and ``seconds`` are None, the clip is the whole video. ``images`` is the range (first position,
    position after the last) of the clip in folders of images, and takes precedence there.
    """

    id: str
    # Possible names of the video on disk.
    names: tuple[str, ...] = ()
    label: int = -1
    cluster: str = ""
    frames: int | None = None
    seconds: tuple[float, float] | None = None
    images: tuple[int, int] | None = None
    # Why the data set's rules exclude this clip; empty if the clip is not excluded.
    filtered: str = ""
    # Why the annotation entry cannot be parsed; empty if it can be parsed.
    broken: str = ""


# Parsing an annotation entry of unexpected form raises one of these exceptions.
MALFORMED = (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError)
Layout = Callable[[DictConfig, Path, list[str]], Iterable[Annotated]]
LAYOUTS: dict[str, Layout] = {}


def layout(function: Layout) -> Layout:
    """Register an annotation reader under its function name, the value of ``layout`` in a dataset yaml."""
    LAYOUTS[function.__name__] = function
    return function


def entries_of(file: Path, parse: Callable[[dict], Annotated]) -> Iterator[Annotated]:
    """Yield one `Annotated` per entry of a json list; ``broken`` is set if the entry cannot be parsed."""
    for n, entry in enumerate(read_json(file, list), start=1):
        try:
            yield parse(entry)
        except MALFORMED as error:
            reason = f"{shorten(entry)} is malformed ({shorten(error)})"
            yield Annotated(f"{file.name} entry {n}", broken=reason)
