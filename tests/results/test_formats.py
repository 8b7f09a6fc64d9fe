"""Tables as files: what is written is read back, and nothing is left half-written."""

import csv
import io
import json

import pandas as pd
import pytest
from rigged import add_trial, attributes, results_of, rigged_store

from sculpt.cli.options import show_table
from sculpt.errors import InputError
from sculpt.results import formats
from sculpt.results.formats import flat_frame, to_csv, to_parquet


@pytest.fixture
def trials(tmp_path):
    """A study's table with what makes it hard: words beside numbers, lists, dictionaries, gaps."""
    store = rigged_store(tmp_path / "study")
    add_trial(store.base, attributes([0.25, 0.5], "base"))
    for widening, extra in ((2, {"3": 0.5}), (3, {"3": 0.75, "9": 0.5})):
        found = attributes([0.125, 0.25], test_errors=[0.5, None]) | {"rungs": extra}
        add_trial(store.candidates, found, {"widening": widening})
    table = results_of(store).trials
    # As Optuna keeps sampled lists, and choices of several types: as they come.
    mixed = table.assign(
        **{"params.blocks": pd.Series(["[1, 2]", 2, None], dtype=object)},
        **{"params.repair": pd.Series([None, True, False], dtype=object)},
        nested=pd.Series([[{"a": 1}], [], None], dtype=object),
        uneven=pd.Series([[1, "a"], [2], None], dtype=object),
    )
    assert {"trial", "val_errors", "test_errors", "rungs", "latency"} <= set(mixed)
    return mixed


def test_parquet_reads_back(trials, tmp_path):
    path = tmp_path / "deep" / "trials.parquet"
    to_parquet(trials, path)
    read = pd.read_parquet(path)
    assert read.columns.tolist() == trials.columns.tolist()
    assert read["trial"].tolist() == ["base", "0", "1"]
    assert [list(errors) for errors in read["val_errors"]] == trials["val_errors"].tolist()
    assert [list(map(pd.isna, errors)) for errors in read["test_errors"]] == [
        [True, True],
        [False, True],
        [False, True],
    ]
    assert read["test_errors"][1][0] == 0.5
    assert pd.isna(read["rungs"][0])
    assert [json.loads(text) for text in read["rungs"][1:]] == trials["rungs"][1:].tolist()
    assert read["params.blocks"].tolist()[:2] == ["[1, 2]", "2"]
    assert pd.isna(read["params.blocks"][2])
    assert read["params.repair"].tolist()[1:] == [True, False]
    assert [json.loads(text) for text in read["nested"][:2]] == [[{"a": 1}], []]
    assert [json.loads(text) for text in read["uneven"][:2]] == [[1, "a"], [2]]
    plain = [name for name in trials if trials[name].dtype != object]
    assert {"kept_macs", "val_error_n", "params.widening"} <= set(plain)
    assert read["study"].tolist() == trials["study"].tolist()  # objects in pandas 2, text in 3
    pd.testing.assert_frame_equal(read[plain], trials[plain])


def test_csv_reads_back(trials):
    rows = list(csv.DictReader(io.StringIO(to_csv(trials))))
    assert list(rows[0]) == trials.columns.tolist()
    assert [row["trial"] for row in rows] == ["base", "0", "1"]
    assert [json.loads(row["val_errors"]) for row in rows] == trials["val_errors"].tolist()
    assert json.loads(rows[0]["test_errors"]) == [None, None]
    assert [row["rungs"] for row in rows] == ["", '{"3": 0.5}', '{"3": 0.75, "9": 0.5}']
    assert [float(row["kept_macs"]) for row in rows] == trials["kept_macs"].tolist()


@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_a_table_without_rows(format, tmp_path):
    path = tmp_path / "empty"
    show_table(pd.DataFrame(columns=["trial", "val_error"]), format, path)
    read = pd.read_csv(path) if format == "csv" else pd.read_parquet(path)
    assert (len(read), read.columns.tolist()) == (0, ["trial", "val_error"])


def test_nested_rows_become_flat():
    rows = [
        {"trial": "base", "params": {}, "difference": None, "errors": [1, 2]},
        {"trial": 0, "params": {"k": 2, "a.b": {"c": 1}}, "difference": {"low": 0.5}, "errors": []},
    ]
    frame = flat_frame(rows)
    names = ["trial", "errors", "params.k", "params.a.b.c", "difference.low"]
    assert frame.columns.tolist() == names
    assert frame["errors"].tolist() == [[1, 2], []]
    assert to_csv(frame).splitlines()[1:] == ['base,"[1, 2]",,,', "0,[],2.0,1.0,0.5"]
    # What is never a dictionary is a column, empty or not.
    assert flat_frame([{"a": None}, {"a": None}]).columns.tolist() == ["a"]
    assert flat_frame([{"a": 1}, {"a": {"b": 2}}]).columns.tolist() == ["a", "a.b"]
    assert flat_frame([]).empty


def test_csv_goes_to_stdout_or_a_file(tmp_path, capsys):
    frame = pd.DataFrame({"a": [1, 2], "b": ["ä", None]})
    show_table(frame, "csv", None)
    assert capsys.readouterr().out == "a,b\n1,ä\n2,\n"
    show_table(frame, "csv", tmp_path / "table.csv")
    assert capsys.readouterr().out == ""
    assert (tmp_path / "table.csv").read_bytes() == "a,b\n1,ä\n2,\n".encode()


def test_what_cannot_be_written(tmp_path):
    frame = pd.DataFrame({"a": [1, 2]})
    with pytest.raises(InputError, match="must go to a file, but got none; give --output FILE"):
        show_table(frame, "parquet", None)
    (tmp_path / "file").write_text("before")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file" / "table", tmp_path / "folder"):
        for format in ("csv", "parquet"):
            with pytest.raises(InputError, match="must be a file that can be written, but got /"):
                show_table(frame, format, path)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "folder"]
    assert (tmp_path / "file").read_text() == "before"


def test_parquet_without_pyarrow(tmp_path, monkeypatch):
    def absent(name: str) -> None:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(formats, "import_module", absent)
    with pytest.raises(InputError, match=r"pip install 'sculpt\[parquet\]', or take csv"):
        to_parquet(pd.DataFrame({"a": [1]}), tmp_path / "table.parquet")
    assert list(tmp_path.iterdir()) == []
