"""Files that are written whole, or not at all."""

import errno
import os
import signal
from multiprocessing import get_context

import pytest

from static_dynamic.files import atomic_path, remove_leftovers, temporary_folder, write_text


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def _die_in_the_midst(path):
    with atomic_path(path) as temporary:
        temporary.write_text("half of what is longer")
        os.kill(os.getpid(), signal.SIGKILL)


def _die_in_a_temporary_folder(folder):
    with temporary_folder(folder) as temporary:
        (temporary / "new").mkdir()
        (temporary / "new" / "half").touch()
        os.kill(os.getpid(), signal.SIGKILL)


def killed_writer(path, work=_die_in_the_midst):
    writer = get_context("fork").Process(target=work, args=(path,))
    writer.start()
    writer.join()
    assert writer.exitcode == -signal.SIGKILL


def test_what_a_killed_writer_left_is_written_over(tmp_path):
    killed_writer(tmp_path / "a.csv")
    killed_writer(tmp_path / "a.csv")
    assert names(tmp_path) == [".a.part.csv"]  # one at most, whatever happens
    write_text(tmp_path / "a.csv", "whole")
    assert names(tmp_path) == ["a.csv"] and (tmp_path / "a.csv").read_text() == "whole"


def test_what_a_killed_writer_of_a_folder_left_is_removed(tmp_path):
    folder = tmp_path / "below" / "a"
    killed_writer(folder, _die_in_a_temporary_folder)
    killed_writer(folder, _die_in_a_temporary_folder)
    assert names(folder.parent) == [".a.part"]
    with temporary_folder(folder) as temporary, temporary_folder(folder) as another:
        assert names(temporary) == ["lock"] and names(another) == []  # nor do two writers meet
        (temporary / "new").mkdir()
        (temporary / "new").rename(folder)
    assert names(folder.parent) == ["a"]


def test_two_writers_of_one_file_do_not_meet(tmp_path):
    with atomic_path(tmp_path / "a") as first, atomic_path(tmp_path / "a") as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
        remove_leftovers(tmp_path)  # not while they are written
        assert names(tmp_path) == sorted([first.name, second.name])
    assert names(tmp_path) == ["a"] and (tmp_path / "a").read_text() == "first"  # the last to end


def test_leftovers_are_removed_and_nothing_else(tmp_path):
    (tmp_path / "below").mkdir()
    killed_writer(tmp_path / "below" / "a.png")
    others = [".hidden", ".settings.user.yaml", "a.part.csv"]
    for name in others:
        (tmp_path / name).touch()
    remove_leftovers(tmp_path)
    assert names(tmp_path) == sorted([*others, "below"]) and names(tmp_path / "below") == []


def test_an_error_leaves_what_was_there(tmp_path):
    write_text(tmp_path / "a", "before")
    with pytest.raises(ValueError, match="no"), atomic_path(tmp_path / "a") as temporary:
        temporary.write_text("after")
        raise ValueError("no")
    assert names(tmp_path) == ["a"] and (tmp_path / "a").read_text() == "before"


@pytest.mark.parametrize(("number", "name"), [(errno.ENOSPC, "a"), (errno.EDQUOT, "a"), (errno.EIO, None)])
def test_a_full_disk_names_the_file(tmp_path, number, name):
    with pytest.raises(OSError) as caught, atomic_path(tmp_path / "a"):
        raise OSError(number, os.strerror(number))  # as a failed write does
    assert caught.value.errno == number and caught.value.filename == (name and str(tmp_path / name))


def test_a_full_disk_elsewhere_is_named_as_it_is(tmp_path):
    with pytest.raises(OSError) as caught, atomic_path(tmp_path / "a"):
        raise OSError(errno.ENOSPC, "", "/elsewhere/b")
    assert caught.value.filename == "/elsewhere/b"


def test_where_nothing_can_be_locked_files_are_written_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr("static_dynamic.files.fcntl", None)
    write_text(tmp_path / "a", "whole")
    with temporary_folder(tmp_path / "c") as temporary:
        assert names(temporary) == []
    (tmp_path / ".b.part").touch()
    remove_leftovers(tmp_path)
    assert names(tmp_path) == [".b.part", "a"]
