"""A file is replaced whole, or left as it was."""

import os

import pytest

from sculpt.files import replacing


def write(path, content):
    with replacing(path) as part:
        assert part.parent == path.parent  # a rename across disks is none
        part.write_bytes(content)


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
        write_and_die(path, when)
    assert path.read_bytes() == b"before"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def write_and_die(path, when):
    with replacing(path) as part:
        part.write_bytes(b"half")
        if when == "writing":
            _ = 1 / 0
