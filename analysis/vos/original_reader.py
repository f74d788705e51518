"""Read result files in the layout of Kowal et al.'s code for video object segmentation; average over seeds.

    final/MODEL/MODEL_final_SEED.txt     one line per stage: dimensions and percentages
    idv_scores/MODEL/STAGE.npy           (C, 3) shares of each unit
    joint_encoding/MODEL/STAGE.parquet   scores and class of each unit
    stats_tables/MODEL/STAGE_SEED.csv    correlation of each unit for each kind of pair

Kowal et al.'s own files of unit scores are pickles of NumPy arrays, and are read as well: (C, 3) shares in
``idv_scores/MODEL/STAGE.pkl``, and scores (3, C) in ``joint_encoding/MODEL/raw_STAGE.pkl``.

A stage is ``place,stream``, as in ``layer1,app_stream``. If a file or folder is missing, unreadable or
malformed, every function raises UserError with the path.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from static_dynamic.analysis.estimate.estimator import FACTORS, MEASURED, UNIT_CLASSES, classify
from static_dynamic.analysis.estimate.tables import SEED_NOTE, seed_half_widths
from static_dynamic.errors import UserError, reason

FOUR_FACTORS = (*FACTORS, "same")
STAGE_NAME = re.compile(r"(\w+),(\w+)")
STAGE_LINE = re.compile(r"Stage:\s*(\w+),(\w+)\s*,\s*Dimensions:\s*\[([^\]]*)\]\s*\[([^\]]*)\]")
# Prefix of the file names of Kowal et al.'s pickles of unit scores.
RAW_SCORES = "raw_"
SEED_OF_TABLE = re.compile(r"(\w+),(\w+)_(\d+)")
# Columns of unit correlations, named after the factors that the two members of a pair share.
CONDITIONS = ("dynamic", "static", "neither", "both")


def read_dimensions(path: Path, factors: Sequence[str] = FACTORS) -> pd.DataFrame:
    """Read a result file; return one row per stage with place (layer), stream and a percentage per factor."""
    rows = []
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        match = STAGE_LINE.fullmatch(line.strip())
        percent = parse_numbers(match[4]) if match else None
        if match is None or percent is None or len(percent) != len(factors):
            raise UserError(
                f"{path}, line {number}: 'Stage: PLACE,STREAM , Dimensions: [...] [...]' with "
                f"{len(factors)} percentages ({', '.join(factors)}) is expected"
            )
        rows.append({"place": match[1], "stream": match[2], **dict(zip(factors, percent, strict=True))})
    table = pd.DataFrame(rows, columns=["place", "stream", *factors])
    if table.empty:
        raise UserError(f"{path} holds no stage, probably because the run was stopped: repeat the run")
    repeated = table[table.duplicated(["place", "stream"])]
    if len(repeated):
        first = repeated.iloc[0]
        raise UserError(
            f"{path} holds the stage {first['place']},{first['stream']} twice: keep only the lines of one run"
        )
    return table


def read_lines(path: Path) -> list[str]:
    """Return the lines of a text file; raise UserError if the file cannot be read."""
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a readable text file ({error})") from error


def parse_numbers(text: str) -> list[float] | None:
    """Return the numbers in a comma-separated text; None if a word is not a finite number."""
    try:
        values = [float(word) for word in text.split(",")]
    except ValueError:
        return None
    return values if np.isfinite(values).all() else None


def average_seeds(folder: Path, factors: Sequence[str] = FACTORS) -> pd.DataFrame:
    """Average each stage's factor percentages over the result files in `folder`, one file per seed.

    Returns one row per stage with the columns place, stream, runs, FACTOR, FACTOR_ci (as in Kowal et al.'s
    code) and FACTOR_ci_student (Student's 95 % interval), see `SeedHalfWidths`; both are NaN for one file. If
    ``residual`` is the last factor, its average is 100 minus the other factors' averages, without
    an interval. Raises UserError if the stages of the files differ.
    """
    files = files_in(folder, (".txt",), "result file")
    tables = [read_dimensions(file, factors) for file in files]
    names = ["place", "stream"]
    for file, table in zip(files, tables, strict=True):
        if not table[names].equals(tables[0][names]):
            raise UserError(f"{file} and {files[0]} have different stages: average only runs of one network")
    measured = [f for f in factors if f != "residual" or f != factors[-1]]
    values = np.stack([table[measured].to_numpy(float) for table in tables])  # (runs, stages, factors)
    average = tables[0][names].assign(runs=len(files))
    for k, factor in enumerate(measured):
        average[factor] = values[:, :, k].mean(axis=0)
        average[f"{factor}_ci"], average[f"{factor}_ci_student"] = seed_half_widths(values[:, :, k])
    if "residual" not in measured:
        average["residual"] = 100 - average[measured].sum(axis=1)
    return average


def format_average(table: pd.DataFrame) -> str:
    """Return the averages over seeds from `average_seeds` as text, with one table per stream."""
    shown = table.drop(columns=["stream", "runs"]).rename(columns={"place": "stage"})
    blocks = []
    for stream in table["stream"].unique():
        rows = shown[table["stream"] == stream]
        text = rows.to_string(index=False, float_format="{:.1f}".format, na_rep="-", formatters=CI_FORMAT)
        blocks.append(f"{stream}\n{text}")
    title = f"shares of dimensions (%), mean of {table['runs'].iloc[0]} runs"
    return "\n\n".join([title, *blocks, SEED_NOTE])


# Intervals are printed with one digit more than shares, because intervals are often below 0.1 %.
CI_FORMAT = {
    f"{factor}{end}": lambda x: "-" if np.isnan(x) else f"{x:.2f}"
    for factor in FOUR_FACTORS
    for end in ("_ci", "_ci_student")
}


def iteration_of(path: Path) -> int:
    """Return the training iteration in a file name: the last word between "_", or else the third last."""
    words = path.stem.split("_")
    for word in (words[-1], *words[-3:-2]):
        if word.isdecimal():
            return int(word)
    raise UserError(f"{path} has no training iteration in its name: rename the file to NAME_ITERATION.txt")


def read_iterations(folder: Path) -> pd.DataFrame:
    """Read the result files of `folder`, one per training iteration, into a table with column `iteration`."""
    by_iteration: dict[int, Path] = {}
    for file in files_in(folder, (".txt",), "result file"):
        other = by_iteration.setdefault(iteration_of(file), file)
        if other != file:
            raise UserError(f"{file} and {other.name} have the same iteration in their names: remove one")
    tables = [read_dimensions(file).assign(iteration=i) for i, file in sorted(by_iteration.items())]
    return pd.concat(tables, ignore_index=True)


def read_unit_shares(folder: Path) -> dict[str, NDArray[np.float64]]:
    """Return a dict: stage -> the units' shares, an array (units, 3 factors) with NaN for dead units."""
    shares = {}
    for file in files_in(folder, (".npy", ".pkl"), "unit scores"):
        shares[file.stem] = read_numbers(file, f"(units, {len(FACTORS)})")
        if shares[file.stem].shape[1] != len(FACTORS):
            raise UserError(
                f"{file} has {shares[file.stem].shape[1]} columns: {', '.join(FACTORS)} are expected"
            )
    return by_depth(shares, folder)


def read_joint_encoding(folder: Path, threshold: float) -> pd.DataFrame:
    """Count units per unit class (dynamic, static, ...) for a score threshold; return one row per stage."""
    rows = {}
    for file in files_in(folder, (".parquet", ".pkl"), "joint encoding", RAW_SCORES):
        scores = read_unit_scores(file)
        if not len(scores):
            raise UserError(f"{file} holds no units: one row per unit is expected")
        classes = classify(scores[:, 0], scores[:, 1], threshold)
        rows[file.stem.removeprefix(RAW_SCORES)] = np.bincount(classes, minlength=len(UNIT_CLASSES))
    return pd.DataFrame.from_dict(by_depth(rows, folder), orient="index", columns=list(UNIT_CLASSES))


def read_unit_scores(file: Path) -> NDArray[np.float64]:
    """Read a stage's dynamic and static scores, shape (units, 2), from a Parquet file or a pickled array."""
    if file.suffix == ".pkl":
        # In Kowal et al.'s pickles, row 0 holds dynamic scores and row 1 static scores.
        scores = read_numbers(file, "(factors, units)")
        if len(scores) < len(MEASURED):
            raise UserError(
                f"{file} has {len(scores)} row: a row of dynamic and a row of static scores are expected"
            )
        return scores[: len(MEASURED)].T
    try:
        return pd.read_parquet(file, columns=list(MEASURED)).to_numpy(float)
    except (OSError, ValueError, KeyError) as error:  # pyarrow raises OSError, ValueError or KeyError
        raise UserError(
            f"{file} lacks the columns dynamic and static of unit scores ({reason(error)})"
        ) from error


def read_numbers(file: Path, shape: str) -> NDArray[np.float64]:
    """Read a 2D array of floats from a ``.npy`` file or a pickle, without running code in the file."""
    # This import is local, because `pickled` imports torch, which takes seconds.
    from static_dynamic.pickled import read_pickled

    try:
        values = np.load(file, allow_pickle=False) if file.suffix == ".npy" else read_pickled(file)
    except Exception as error:  # for a damaged file, readers can raise any exception
        raise UserError(f"{file} is not a readable NumPy array ({reason(error)})") from error
    if not isinstance(values, np.ndarray) or values.ndim != 2 or values.dtype.kind != "f":
        found = f"an array {values.shape} of {values.dtype}" if isinstance(values, np.ndarray) else "no array"
        raise UserError(f"{file} holds {found}: an array {shape} of floats is expected")
    return values.astype(float)


def read_statistics(path: Path) -> pd.DataFrame:
    """Read a table of unit correlations: one row per unit, one column per kind of pair (`CONDITIONS`)."""
    rows = [parse_numbers(line) for line in read_lines(path)]
    for number, row in enumerate(rows, start=1):
        if row is None or len(row) != 1 + len(CONDITIONS):
            raise UserError(f"{path}, line {number}: a unit and its four correlations are expected")
    if not rows:
        raise UserError(f"{path} holds no units: give a file with lines UNIT,DYNAMIC,STATIC,NEITHER,BOTH")
    return pd.DataFrame(rows, columns=["unit", *CONDITIONS])


def files_in(folder: Path, suffixes: tuple[str, ...], what: str, pickled: str = "") -> list[Path]:
    """Return the sorted files in `folder` whose names end in one of `suffixes`, without hidden files.

    Hidden files are incomplete. A pickle counts only if its name begins with `pickled`. Raises UserError if
    there is no file, or if the files have different suffixes: results of two programs are mixed.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: give the folder with the result files of one network")
    files = sorted(p for p in folder.iterdir() if p.name.endswith(suffixes) and not p.name.startswith("."))
    files = [p for p in files if p.suffix != ".pkl" or p.name.startswith(pickled)]
    found = sorted({p.suffix for p in files})
    if not files:
        shown = " or ".join(f"{pickled if suffix == '.pkl' else ''}*{suffix}" for suffix in suffixes)
        raise UserError(f"{folder} holds no {what} ({shown}): give the result folder of one network")
    if len(found) > 1:
        raise UserError(f"{folder} holds {' and '.join(found)} files: keep the files of one program only")
    return files


def by_depth(stages: dict, folder: Path) -> dict:
    """Sort stages by stream, then by name, which sorts layer1, layer2 ... by depth."""
    for stage in stages:
        if not STAGE_NAME.fullmatch(stage):
            raise UserError(f"{folder}: the file name {stage!r} is not a stage such as layer1,app_stream")
    return dict(sorted(stages.items(), key=lambda item: item[0].split(",")[::-1]))
