"""A file, or a folder, is replaced whole, or left as it was."""

import os
import sys
from pathlib import Path

import pytest

from sculpt import files
from sculpt.files import check_file, replacing, replacing_folder


def write(path, content, *, die=False):
    with replacing(path) as part:
        assert part.parent == path.parent  # a rename across disks is none
        part.write_bytes(content)
        if die:
            _ = 1 / 0


def write_folder(path, *names, die=False):
    with replacing_folder(path) as part:
        assert part.parent == path.resolve().parent
        for name in names:
            (part / name).write_text(name)
        if die:
            _ = 1 / 0


def test_only_a_file_that_ends_is_read(tmp_path):
    (tmp_path / "file").write_bytes(b"four")
    os.mkfifo(tmp_path / "pipe")
    check_file(tmp_path / "file")
    check_file(str(tmp_path / "file"), 4)
    faults = {
        tmp_path: "directory",
        tmp_path / "none": "No such file",
        tmp_path / "pipe": "pipe",
        "/dev/zero": "device",
        tmp_path / "a\0b": "NUL",
    }
    for path, reason in faults.items():
        with pytest.raises(OSError, match=reason):
            check_file(path)
    with pytest.raises(OSError, match="more than 3 bytes"):
        check_file(tmp_path / "file", 3)


def test_a_file_is_made_with_its_folder_and_then_replaced(tmp_path):
    path = tmp_path / "deep" / "file"
    for content in (b"before", b"after"):
        write(path, content)
        assert path.read_bytes() == content
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]


@pytest.mark.parametrize("when", ["writing", "flushing"])
def test_whoever_dies_leaves_it_as_it_was(tmp_path, monkeypatch, when):
    path = tmp_path / "file"
    write(path, b"before")
    if when == "flushing":
        monkeypatch.setattr(os, "fsync", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write(path, b"half", die=when == "writing")
    assert path.read_bytes() == b"before"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("exchanged", [True, False])
def test_a_folder_is_made_and_then_replaced(tmp_path, monkeypatch, exchanged):
    if not exchanged:  # as on systems that cannot
        monkeypatch.setattr(files, "_exchange", lambda one, other: False)
    path = tmp_path / "deep" / "folder"
    for names in (["one", "two"], ["two", "three"], ["four"]):
        write_folder(path, *names)
        assert sorted(file.name for file in path.iterdir()) == sorted(names)
        assert [entry.name for entry in path.parent.iterdir()] == ["folder"]


@pytest.mark.skipif(sys.platform != "linux", reason="two names are exchanged at once on Linux")
def test_a_folder_is_in_its_place_at_every_moment(tmp_path, monkeypatch):
    path = tmp_path / "folder"
    write_folder(path, "one")
    monkeypatch.setattr(Path, "rename", lambda *_: pytest.fail("it was gone for a moment"))
    write_folder(path, "two")
    assert [file.name for file in path.iterdir()] == ["two"]


@pytest.mark.parametrize("when", ["writing", "flushing", "renaming"])
def test_whoever_dies_leaves_the_folder_as_it_was(tmp_path, monkeypatch, when):
    path = tmp_path / "folder"
    write_folder(path, "before")
    if when == "flushing":
        monkeypatch.setattr(os, "fsync", lambda _: 1 / 0)
    if when == "renaming":
        rename = Path.rename
        monkeypatch.setattr(files, "_exchange", lambda one, other: False)
        monkeypatch.setattr(
            Path, "rename", lambda p, to: 1 / 0 if p.suffix == ".part" else rename(p, to)
        )
    with pytest.raises(ZeroDivisionError):
        write_folder(path, "half", die=when == "writing")
    assert [file.name for file in path.iterdir()] == ["before"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder"]


def test_behind_a_link_is_the_folder_that_is_replaced(tmp_path):
    write_folder(tmp_path / "real", "one")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write_folder(tmp_path / "link", "two")
    assert [file.name for file in (tmp_path / "real").iterdir()] == ["two"]
    assert (tmp_path / "link").is_symlink()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["link", "real"]


def test_a_name_may_be_as_long_as_names_are(tmp_path):
    long = tmp_path / ("x" * 250)
    write(long, b"content")
    assert long.read_bytes() == b"content"
    long.unlink()
    write_folder(long, "one")
    assert (long / "one").exists()


def test_this_folder_is_a_folder(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    write_folder(Path(), "one")
    assert [file.name for file in (tmp_path / "here").iterdir()] == ["one"]
