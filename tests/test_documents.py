"""YAML documents: numbers are numbers, every key counts, and faults are named."""

import pytest

from sculpt.documents import assign, lookup, parse_value, read_yaml
from sculpt.errors import ConfigError

FLOATS = ["1e-4", "5e-4", "1E5", "-2e3", "+2e+3", "1.e5", "1.5e-3", ".5e4", "-.5e4", "0.1", ".inf"]


@pytest.mark.parametrize("text", FLOATS)
def test_floats(text):
    number = float(text.replace(".inf", "inf"))
    value = parse_value(text)
    assert isinstance(value, float)
    assert value == number
    assert parse_value(f"[{text}]") == [number]
    assert parse_value(f"key: {text}") == {"key": number}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("true", True),
        ("null", None),
        ("", None),
        ("step", "step"),
        ("'1e-4'", "1e-4"),
        ("1e", "1e"),
        ("e5", "e5"),
        ("1e5x", "1e5x"),
        ("1.2.3e4", "1.2.3e4"),
        ("[1, 2e0, x]", [1, 2.0, "x"]),
        ("{name: ldi, gain: 1e0}", {"name": "ldi", "gain": 1.0}),
        ("a: {name: x}\nb: {name: y}", {"a": {"name": "x"}, "b": {"name": "y"}}),  # each once
    ],
)
def test_other_values(text, value):
    found = parse_value(text)
    assert found == value
    assert type(found) is type(value)


NO_YAML = ["{", "[1, 2", "a: b: c", "'open", "\t- x", "!!python/name:os.system", "\x00", "*nobody"]
# Over these the YAML reader itself trips, and not with an error of its own.
NO_YAML += ["2024-13-45", "0x_", "0b_", "!!int three", "9" * 5000]


@pytest.mark.parametrize("text", NO_YAML, ids=lambda text: text[:20])
def test_what_is_not_yaml(text):
    with pytest.raises(ConfigError) as caught:
        parse_value(text)
    assert str(caught.value).startswith(f"a value must be YAML, but got {text!r}"[:60])


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("budget: 1\nstudy: x\nbudget: 2", "'budget'"),
        ("model: {widening: 1, blocks: 2, widening: 3}", "'widening'"),
        ("list:\n  - a: 1\n    a: 1", "'a'"),
        ("'quoted': 1\nquoted: 2", "'quoted'"),
        ("1: a\n1: b", "1"),
    ],
)
def test_a_key_given_twice_is_named(tmp_path, text, key):
    path = tmp_path / "study.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_yaml(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: must be YAML")
    assert f"a key must be given once, but got {key} again" in message
    assert "line" in message


def test_merged_sections():
    """`<<` takes over another section, whose keys may then be given again."""
    text = "base: &base {epochs: 3, momentum: 9e-1}\nlong:\n  <<: *base\n  epochs: 30"
    assert parse_value(text)["long"] == {"epochs": 30, "momentum": 0.9}
    with pytest.raises(ConfigError, match="'epochs' again"):
        parse_value(text + "\n  epochs: 31")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "must be a readable YAML file, but is not (No such file or directory)"),
        (b"\xff\xfe\xff", "must be a readable YAML file, but is not (not UTF-8 text)"),
        (b"a: [1", "must be YAML, but is not: "),
        (b"a: 2024-13-45", "must be YAML, but is not: month must be in 1..12"),
        (b"", "must hold a mapping of keys to values, but holds NoneType"),
        (b"- a\n- b\n", "must hold a mapping of keys to values, but holds list"),
        (b"word", "must hold a mapping of keys to values, but holds str"),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path, content, reason):
    path = tmp_path / "study.yaml"
    if content is not None:
        path.write_bytes("# größer\nstudy: größer".encode())
        assert read_yaml(path) == {"study": "größer"}
        path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_yaml(path)
    assert str(caught.value).startswith(f"{path}: {reason}")
    with pytest.raises(ConfigError, match="must be a readable YAML file"):
        read_yaml(tmp_path)  # a folder


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("training", {"epochs": 3, "flip": None}),
        ("training.epochs", 3),
        ("training.flip", None),
        ("training.missing", None),
        ("training.epochs.deeper", None),
        ("missing", None),
        ("missing.deeper.still", None),
        ("", None),
    ],
)
def test_lookup(key, value):
    document = {"training": {"epochs": 3, "flip": None}, "study": "x"}
    assert lookup(document, key) == value
    assert document == {"training": {"epochs": 3, "flip": None}, "study": "x"}


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("study", {"study": 9, "training": {"epochs": 3}}),
        ("training.epochs", {"study": "x", "training": {"epochs": 9}}),
        ("training.flip", {"study": "x", "training": {"epochs": 3, "flip": 9}}),
        ("training", {"study": "x", "training": 9}),
        ("a.b.c", {"study": "x", "training": {"epochs": 3}, "a": {"b": {"c": 9}}}),
    ],
)
def test_assign(key, expected):
    document = {"study": "x", "training": {"epochs": 3}}
    assign(document, key, 9)
    assert document == expected
    assert lookup(document, key) == 9


@pytest.mark.parametrize(
    ("key", "blocks"),
    [
        ("blocks.0", [9, 2, [3, {"name": 4}]]),
        ("blocks.2", [1, 2, 9]),
        ("blocks.2.1", [1, 2, [3, 9]]),
        ("blocks.2.1.name", [1, 2, [3, {"name": 9}]]),
    ],
)
def test_an_element_of_a_list_is_set_in_a_copy_of_it(key, blocks):
    shared = [1, 2, [3, {"name": 4}]]
    document = {"blocks": shared}
    assign(document, key, 9)
    assert document == {"blocks": blocks}
    assert shared == [1, 2, [3, {"name": 4}]]


LENGTH = "must be addressed by a whole number below 3, its length, but got"


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("study.name", "section or a list, but study is 'x'"),
        ("training.epochs.first", "section or a list, but training.epochs is 3"),
        ("training.epochs.first.second", "section or a list, but training.epochs is 3"),
        ("list.0.first", "section or a list, but list.0 is 1"),
        *((f"list.{p}", f"list {LENGTH} {p!r}") for p in ["3", "-1", "first", "1,5", "", "²"]),
    ],
)
def test_what_cannot_be_assigned_to_is_refused(key, message):
    document = {"study": "x", "training": {"epochs": 3}, "list": [1, 2, 3]}
    with pytest.raises(ConfigError) as caught:
        assign(document, key, 9)
    assert str(caught.value).startswith(f"{key}: ")
    assert str(caught.value).endswith(message)
    assert document == {"study": "x", "training": {"epochs": 3}, "list": [1, 2, 3]}
