"""Write tables of a run folder (Parquet, csv), and read them with a check for damage.

The manifest holds the hashes of the tables that a run is created with. ``SHA256SUMS`` holds those of the
results, in the format of ``sha256sum -c``. Runs of earlier versions have neither, and are read unchecked.
"""

import re
from collections.abc import Collection
from pathlib import Path

import pandas as pd

from static_dynamic.analysis.run.manifest import has_run
from static_dynamic.csv_files import write_csv
from static_dynamic.errors import DamagedRun, quoted, reason
from static_dynamic.files import atomic_path, sha256, write_text

TABLES = ("views.parquet", "pairs.parquet")
SUMS_NAME = "SHA256SUMS"
LINE_OF_SUMS = re.compile(r"([0-9a-f]{64})  (\S+)")


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table without the index, as Parquet if `path` ends in .parquet, else as csv.

    In a run folder, ``SHA256SUMS`` gets the hash of the file. The old hash is removed first, so a process
    killed between the two leaves a table without a hash.
    """
    recorded = has_run(path.parent)
    sums = _read_sums(path.parent) if recorded else {}
    if sums.pop(path.name, None):
        _write_sums(path.parent, sums)
    write_unlisted(path, table)
    if recorded:
        _write_sums(path.parent, sums | {path.name: sha256(path)})


def write_unlisted(path: Path, table: pd.DataFrame) -> None:
    """Write a table like `write_table`, but do not list its hash in ``SHA256SUMS``."""
    if path.suffix != ".parquet":
        write_csv(path, table)
        return
    with atomic_path(path) as temporary:
        table.to_parquet(temporary, index=False)


def read_table(
    file: Path, columns: Collection[str] = (), expected: str | None = None, text: Collection[str] = ()
) -> pd.DataFrame:
    """Read a table of a run folder; raise DamagedRun if it is damaged, changed, or lacks one of `columns`.

    `expected` is the SHA-256 of the file; by default the one in ``SHA256SUMS``, if it is listed. The columns
    `text` of a csv are read as texts.
    """
    expected = expected or _read_sums(file.parent).get(file.name)
    if not file.is_file():
        raise DamagedRun(f"{file} is missing: give the command that wrote it again")
    if expected is not None and sha256(file) != expected:
        raise DamagedRun(
            f"{file} is damaged or was changed after the program wrote it: restore the file, or give the "
            "command that wrote it again"
        )
    try:
        if file.suffix == ".parquet":
            table = pd.read_parquet(file)
        else:
            table = pd.read_csv(file, dtype=dict.fromkeys(text, str))
    except Exception as error:  # for a damaged file, pandas can raise any exception
        raise DamagedRun(
            f"{file} is damaged ({reason(error)}): give the command that wrote it again"
        ) from error
    for name in columns:
        if name not in table:
            raise DamagedRun(
                f"{file} has no column {quoted(name)}: give the command that wrote the file again"
            )
    return table


def sha256_of_tables(path: Path) -> dict[str, str]:
    """Return the hashes of the tables that the run in folder `path` was created with."""
    return {name: sha256(path / name) for name in TABLES}


def _read_sums(folder: Path) -> dict[str, str]:
    """Read ``SHA256SUMS`` as a dict: file name -> hash; raise DamagedRun if a line is damaged."""
    file = folder / SUMS_NAME
    if not file.exists():
        return {}
    sums = {}
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        found = LINE_OF_SUMS.fullmatch(line)
        if found is None:
            raise DamagedRun(f"{file} is damaged: remove this file, and the run is read unchecked")
        sums[found[2]] = found[1]
    return sums


def _write_sums(folder: Path, sums: dict[str, str]) -> None:
    write_text(folder / SUMS_NAME, "".join(f"{sums[name]}  {name}\n" for name in sorted(sums)))
