"""Find and read annotation files (json, csv, text lists), also in the encodings that spreadsheets write."""

import csv
import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from omegaconf import DictConfig

from static_dynamic.errors import UserError

# Characters that separate the fields of csv files.
SEPARATORS = ",;\t"
# Unicode replacement character, which replaces bytes that are not valid in the encoding of a file.
INVALID = "\ufffd"


def find_annotation(row: DictConfig, root: Path, kind: str) -> Path:
    """Find an annotation file of a data set: the first name in ``row.annotations[kind]`` that exists on disk.

    `kind` is "list" (of clips), "info" (about videos) or "labels" (names of the classes). SPLIT and SUBSET in
    the name of a file stand for ``row.split`` and ``row.subset``. Raises UserError if no such file exists.
    """
    folder = Path(row.get("annotations_dir") or root).expanduser()
    names = [str(name) for name in row.annotations[kind]]
    for key in ("split", "subset"):
        names = [name.replace(key.upper(), str(row.get(key))) for name in names]
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise UserError(
        f"dataset={row.name} needs annotation files: {folder} has no {' or '.join(names)} "
        "(if the files are in another folder, give dataset.annotations_dir=DIR)"
    )


def read_json(file: Path, kind: type | tuple[type, ...]):
    """Read a json file; raise UserError if it is damaged or its top-level value is not of type `kind`."""
    try:
        content = json.loads(file.read_bytes())  # finds the encoding
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(
            f"{file} is not readable json ({shorten(error)}): repair the file or download it again"
        ) from error
    if not isinstance(content, kind):
        known = kind if isinstance(kind, tuple) else (kind,)
        expected = " or ".join(each.__name__ for each in known)
        raise UserError(f"{file} holds a json {type(content).__name__}, but a {expected} is expected")
    return content


def read_lines(file: Path) -> list[str]:
    """Read the lines of a text file in UTF-8, UTF-16 or UTF-32; replace invalid bytes by `INVALID`."""
    content = file.read_bytes()
    text = content.decode(json.detect_encoding(content), errors="replace")
    return list(io.StringIO(text, newline=""))


def read_csv(
    file: Path, needed: Iterable[str] = (), header: list[str] | None = None, separators: str = SEPARATORS
) -> Iterator[tuple[int, dict[str, str] | None]]:
    """Yield (line number, dict of column name -> field) per csv line; for a broken line the dict is None.

    The fields are separated by that one of `separators` which is most frequent in the first line; blanks
    around fields are removed. `header` holds the names of the columns if the file does not. Raises UserError
    if the header lacks a needed column, or the file is not csv.
    """
    lines = read_lines(file)
    separator = max(separators, key=lines[0].count) if lines else separators[0]
    reader = csv.reader(lines, delimiter=separator)
    try:
        columns = header or [name.strip() for name in next(reader, [])]
        missing = [name for name in needed if name not in columns]
        if missing:
            raise UserError(f"{file}: the header has no column {', '.join(missing)}")
        for fields in reader:
            if fields:
                fields = [field.strip() for field in fields]
                sound = all(field.isprintable() and INVALID not in field for field in fields)
                whole = sound and len(fields) == len(columns)
                yield reader.line_num, dict(zip(columns, fields, strict=True)) if whole else None
    except csv.Error as error:
        raise UserError(
            f"{file} line {reader.line_num} is not csv ({error}): repair the file or download it again"
        ) from error


def shorten(value: object) -> str:
    """Return the text of a value in one line of at most 60 characters."""
    text = " ".join(str(value).split())
    return text if len(text) <= 60 else text[:57] + "..."
