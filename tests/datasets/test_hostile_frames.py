"""Frame numbers and frame stores that would take for ever, or all memory."""

import sqlite3
import time

import pytest

from static_dynamic.datasets.discovery import video_info
from static_dynamic.datasets.frames import BadFrames, open_frames
from tests.conftest import moving_square, write_frames


@pytest.mark.parametrize("stray", ["9999999999.jpg", "1700000000123456789.jpg"])
def test_a_stray_number_is_named_at_once(tmp_path, stray):
    write_frames(tmp_path / "v", moving_square(0, n=4))
    first = next((tmp_path / "v").iterdir())
    (tmp_path / "v" / stray).write_bytes(first.read_bytes())
    begin = time.monotonic()
    assert "frame 5 and " in str(video_info(tmp_path / "v").fault)
    assert time.monotonic() - begin < 1


def test_frames_named_by_time_stamps(tmp_path):
    write_frames(tmp_path / "v", moving_square(0, n=3))
    for k, file in enumerate(sorted((tmp_path / "v").iterdir())):
        file.rename(file.with_name(f"{1_700_000_000_000 + 40 * k}.png"))
    assert "is missing" in str(video_info(tmp_path / "v").fault)


ENDLESS = (
    "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT x AS ObjId, x AS frames FROM c"
)
TABLES = {
    "endless view": f"CREATE VIEW Images AS {ENDLESS} WHERE x < 0",
    "view of huge blobs": "CREATE VIEW Images AS SELECT 'v/frame_00001' ObjId, zeroblob(900000000) frames",
    "computed column": "CREATE TABLE Images (ObjId, frames BLOB GENERATED ALWAYS AS (zeroblob(900000000)))",
    "virtual table": "CREATE VIRTUAL TABLE Images USING fts5(ObjId, frames)",
    "no table": "CREATE TABLE Other (ObjId TEXT)",
}


@pytest.mark.parametrize("what", TABLES)
def test_a_store_without_a_plain_table_is_refused(tmp_path, what):
    (tmp_path / "v").mkdir()
    with sqlite3.connect(tmp_path / "v" / "frames.db") as connection:
        connection.execute(TABLES[what])
    with pytest.raises(BadFrames, match="has no ordinary table Images: make the file with"):
        len(open_frames(tmp_path / "v"))


def test_a_huge_blob_is_refused(tmp_path):
    (tmp_path / "v").mkdir()
    with sqlite3.connect(tmp_path / "v" / "frames.db") as connection:
        connection.execute("CREATE TABLE Images (ObjId TEXT, frames BLOB)")
        connection.execute("INSERT INTO Images VALUES ('v/frame_00001', zeroblob(300000000))")
    with pytest.raises(BadFrames, match="is not a readable frame store"):
        open_frames(tmp_path / "v").read([0])
