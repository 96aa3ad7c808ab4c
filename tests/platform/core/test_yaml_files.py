"""YAML of users: what it may ask for is limited, and what is wrong with it is one sentence."""

import json
import tracemalloc

import pytest
import yaml

from crossfold.platform.core.errors import UserError
from crossfold.platform.core.yaml_files import MOST_BYTES, MOST_DEPTH, parse_json, parse_yaml, read_yaml

LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{n + 1}: &a{n + 1} [{', '.join([f'*a{n}'] * 9)}]\n" for n in range(9))
HOSTILE = {
    "aliases of aliases": (LAUGHS, "more than 1,000,000 values"),
    "aliases as a mapping": (LAUGHS.replace("[", "{k: [").replace("]", "]}"), "more than 1,000,000 values"),
    "deep lists": ("[" * 100_000 + "]" * 100_000, f"more than {MOST_DEPTH} lists"),
    "deep lists in blocks": ("- " * 100_000 + "x", f"more than {MOST_DEPTH} lists"),
    "deep mappings": ("{a: " * 50_000 + "1" + "}" * 50_000, f"more than {MOST_DEPTH} lists"),
    "unclosed deep lists": ("[" * 100_000, f"more than {MOST_DEPTH} lists"),
    "a list in itself": ("a: &a [1, *a]", "contains itself"),
    "a mapping in itself": ("&a {b: {c: *a}}", "contains itself"),
    "5,000 digits": ("a: " + "7" * 5000, "cannot be read"),
    "5,000 digits in hexadecimal": ("a: !!int '0x" + "zz'", "cannot be read"),
    "a date that is none": ("a: 2024-13-45", "cannot be read"),
    "a time that is none": ("a: 2024-01-01 25:61:61", "cannot be read"),
    "an object of Python": ("a: !!python/object/apply:os.system ['true']", "could not determine a constructor"),
    "a list as a key": ("? [a, b]\n: 1\nb: 2", "unhashable"),
    "a key twice": ("a: 1\na: 2", "given twice"),
    "a tab": ("a:\n\tb: 1", "tab"),
    "an unknown alias": ("a: *b", "undefined alias|is not a value"),
    "too long": ("a: " + "x" * MOST_BYTES, "the most is"),
    "control characters": ("a: \x00", "control characters|cannot be read|not allowed"),
}


@pytest.mark.parametrize("text, rule", HOSTILE.values(), ids=HOSTILE.keys())
def test_yaml_that_asks_for_too_much_is_refused_in_one_sentence(text, rule):
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=rule) as refused:
            parse_yaml(text, "file.yaml", "correct it")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(str(refused.value)) < 400
    assert refused.value.remedy
    assert peak < 200e6


def test_large_but_honest_yaml_is_read_as_pyyaml_reads_it():
    data = {"seeds": list(range(50_000)), "systems": [{"rjca": {"iterations": [1, 2]}}], "lr": 1e-3, "on": True}
    text = yaml.safe_dump(data)
    assert parse_yaml(text, "a", "b") == data == yaml.safe_load(text)


def test_aliases_within_the_limits_work():
    assert parse_yaml("a: &x [1, 2]\nb: *x", "a", "b") == {"a": [1, 2], "b": [1, 2]}


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (b"\xff\xfea\x00", "no text in UTF-8"),
        (b"", "is empty"),
        (b"- 1", "holds a list"),
        (b"word", "one line of text"),
        (b"3", "holds 3"),
        (b"a: [1", "line 1"),
    ],
)
def test_a_file_that_is_no_mapping_is_refused_by_name(tmp_path, content, rule):
    path = tmp_path / "mine.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rule) as refused:
        read_yaml(path, "a sweep", "name: mine")
    assert "mine.yaml" in str(refused.value)


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"\xef\xbb\xbfname: mine")
    assert read_yaml(path, "a sweep", "name: mine") == {"name": "mine"}


def test_a_sparse_file_is_refused_unread(tmp_path):
    path = tmp_path / "mine.yaml"
    with path.open("wb") as file:
        file.truncate(60_000_000_000)
    with pytest.raises(UserError, match="60,000,000,000 bytes"):
        read_yaml(path, "a sweep", "name: mine")


def test_a_path_with_nul_is_refused(tmp_path):
    with pytest.raises(UserError, match="no path"):
        read_yaml(tmp_path / "a\0b.yaml", "a sweep", "name: mine")


@pytest.mark.parametrize(
    "text", ["[" * 10**6, "[" * 10**6 + "]" * 10**6, '{"a":' * 200 + "1" + "}" * 200, "9" * 5000, '["' + "[" * 100, "{"]
)
def test_json_that_would_crash_a_parser_is_refused(text):
    with pytest.raises(ValueError, match=r"in each other|digits|Unterminated|Expecting"):
        parse_json(text)


def test_brackets_in_strings_of_json_are_no_levels():
    value = {"a": ["[" * 500, '\\"[' * 200, "]"]}
    assert parse_json(json.dumps(value)) == value
