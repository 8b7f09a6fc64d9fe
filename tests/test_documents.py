"""YAML documents: numbers are numbers, every key counts, and faults are named."""

import os
from pathlib import Path

import pytest

from sculpt.documents import assign, lookup, parse_value, read_yaml
from sculpt.errors import ConfigError

FLOATS = ["1e-4", "5e-4", "1E5", "-2e3", "+2e+3", "1.e5", "1.5e-3", ".5e4", "-.5e4", "0.1", ".inf"]
FLOATS += ["1_000.5", "00.5", "-.INF"]


@pytest.mark.parametrize("text", FLOATS)
def test_floats(text):
    number = float(text.lower().replace(".inf", "inf"))
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
        # People group digits by three; what else YAML 1.1 took for a number, a switch or a date is
        # text, which no schema takes for another number.
        ("1_500_000_000", 1_500_000_000),
        *((text, text) for text in ("1:30", "0x1F", "0o17", "0b1", "1_0", "12_34.5", "1 000")),
        *((text, text) for text in ("yes", "no", "on", "Off", "y", "2024-01-31", "2024-13-45")),
        *((text, text) for text in ("=", "0x_", "nan", "07:30")),
        ("-0", 0),
        ("\ufeffa: 1", {"a": 1}),
        ("no: 1", {"no": 1}),
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
NO_YAML += ["!!int three", "9" * 5000]
# Of two meanings, of several documents, of types that no study has.
NO_YAML += ["010", "-08", "0_1", "a: 1\n---\nb: 2", "!!binary aGk=", "!!set {a}", "a:\tb"]
# Keys that are no text, text that no file name may hold, and what grows without bounds.
NO_YAML += ["1: a", "null: a", "? [a]\n: b", '"a\\0b"', '"\\ud800"', "&a [*a]", "&a {x: *a}"]
NO_YAML += ["[" * 300 + "]" * 300, "{a: " * 300 + "1" + "}" * 300, "[" * 100_000]


def repeated(times: int, levels: int) -> str:
    """Return lists in lists, each of which holds the one before so many times by its alias."""
    lines = ["a0: &a0 [x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * times)}]" for i in range(1, levels)]
    return "\n".join(lines)


NO_YAML += [repeated(10, 9), repeated(1, 300)]


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


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("epochs: 010", "a number must not begin with 0"),
        ("{1: a}", "a key must be text, but got 1; put it in quotes"),
        ("a: &a [*a]", "a document must not hold itself"),
        ("a: " + "[" * 51 + "]" * 51, "a document must have at most 50 levels"),
        (repeated(1, 300), "a document must have at most 50 levels"),
        (repeated(10, 9), "a document must have at most 100000 values"),
        ('a: "x\\0"', "text must be Unicode without NUL"),
        ("a: 1\n--- b", "expected a single document"),
    ],
)
def test_a_fault_of_yaml_is_one_rule_with_its_line(tmp_path, text, rule):
    path = tmp_path / "study.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_yaml(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: must be YAML")
    assert rule in message
    assert "line" in message


def test_repeated_sections_are_read_up_to_the_bound():
    assert parse_value(repeated(2, 12))["a11"] == [parse_value(repeated(2, 11))["a10"]] * 2


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
        ("study: größer".encode("utf-16"), "must be a readable YAML file, but is not (not UTF-8"),
        ("study: größer".encode("latin-1"), "must be a readable YAML file, but is not (not UTF-8"),
        (b"#" * 2**20 + b"#", "must be a readable YAML file, but is not (more than 1048576 bytes"),
        (b"a: [1", "must be YAML, but is not: "),
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


@pytest.mark.parametrize("kind", ["folder", "pipe", "device", "NUL", "long"])
def test_what_has_no_end_is_not_read(tmp_path, kind):
    paths = {"folder": tmp_path, "pipe": tmp_path / "pipe", "device": Path("/dev/zero")}
    paths |= {"NUL": tmp_path / "a\0b", "long": tmp_path / ("a" * 300)}
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="must be a readable YAML file, but is not"):
        read_yaml(paths[kind])


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


def test_a_section_that_stands_twice_is_changed_once():
    document = parse_value("data: &d {name: digits, seed: 1}\npruning: {data: *d}")
    assign(document, "data.seed", 2)
    assert document == {
        "data": {"name": "digits", "seed": 2},
        "pruning": {"data": {"name": "digits", "seed": 1}},
    }


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
