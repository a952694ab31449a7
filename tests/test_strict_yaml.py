"""YAML in a strict subset: scalars without surprises, and one line with a place for everything else."""

from itertools import pairwise

import pytest

from decentral.strict_yaml import MAX_BYTES, RefusedError, decoded, parsed


def refusal(content: str | bytes) -> str:
    with pytest.raises(RefusedError) as caught:
        parsed(decoded(content.encode() if isinstance(content, str) else content))
    line, column = caught.value.place
    return f"{line}:{column}: {caught.value}"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *[(word, word) for word in ("no", "off", "yes", "on", "y", "tRue", "<<", "=", ".", "1_000", "0x1F")],
        *[(word, word) for word in ("1.2.3", "12:30:45", "2001-01-01", "a:b", "e3", "+")],
        *[(word, True) for word in ("true", "True", "TRUE")],
        *[(word, False) for word in ("false", "False", "FALSE")],
        *[(word, None) for word in ("null", "Null", "NULL", "~", "")],
        *[("0", 0), ("-0", 0), ("+4", 4), ("-31", -31), ("'012'", "012"), ("'1'", "1"), ('"no"', "no")],
        *[("1e-3", 1e-3), ("1.", 1.0), (".5", 0.5), ("-1.5E+2", -150.0), ("1e3", 1000.0), ("01.5", 1.5)],
        *[(".inf", float("inf")), ("-.INF", float("-inf")), ("[1, [2]]", [1, [2]]), ("{b: 1, c}", {"b": 1, "c": None})],
    ],
)
def test_scalars_follow_yaml_1_2(text: str, value: object) -> None:
    read = parsed(f"a: {text}\n")[0]["a"]
    assert read == value
    assert type(read) is type(value)


def test_nan_is_a_number() -> None:
    assert str(parsed("a: .nan")[0]["a"]) == "nan"


def test_a_byte_order_mark_is_no_part_of_the_first_key() -> None:
    assert parsed(decoded(b"\xef\xbb\xbfnodes: 8")) == ({"nodes": 8}, {(): (1, 1), ("nodes",): (1, 1)})


BOMB = ["a: &a [x, x]", *[f"{b}: &{b} [*{a}, *{a}, *{a}]" for a, b in pairwise("abcdefghi")]]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("nodes: &n 8", "1:8: anchor &n is not allowed; write the value out where it is used"),
        ("\n".join(BOMB), "1:4: anchor &a is not allowed; write the value out where it is used"),
        ("a: 1\nb: *a", "2:4: alias *a is not allowed; write the value out"),
        ("*a : 1", "1:1: alias *a is not allowed; write the value out"),
        ("a: !!python/object:os.system x", "1:4: tag !!python/object:os.system is not allowed; write plain values"),
        ("a: !!binary aGk=", "1:4: tag !!binary is not allowed; write plain values"),
        ("a: !mine x", "1:4: tag !mine is not allowed; write plain values"),
        ("a: ! x", "1:4: tag ! is not allowed; write plain values"),
        ("a:\n  lr: 1\n  'lr': 2", "3:3: duplicate key 'lr', first on line 2; keep one of them"),
        ("1: x", "1:1: found the key 1; keys must be text"),
        ("a: 1\n~: x", "2:1: found the key null; keys must be text"),
        ("? [a]\n: b", "1:3: found the key ['a']; keys must be text"),
        ("a: 012", "1:4: found 012; drop the leading zero (12), or quote it"),
        ("a: [1, -007]", "1:8: found -007; drop the leading zero (-7), or quote it"),
        ("a: 00", "1:4: found 00; drop the leading zero (0), or quote it"),
        ("a: " + "9" * 5000, "1:4: found an integer of 5000 digits; at most 400 are read"),
        ("a: 1\n---\nb: 2", "2:1: expected a single document in the stream, but found another document"),
        ("a: " + "[" * 20 + "]" * 20, "1:23: nested deeper than 20 levels; an experiment needs fewer"),
        ("[" * 100_000, "1:21: nested deeper than 20 levels; an experiment needs fewer"),
        ("- " * 100_000, "1:41: nested deeper than 20 levels; an experiment needs fewer"),
        ("a: [" + "1," * 400_000 + "1]", "1:39999: more than 20,000 keys and values; an experiment needs fewer"),
        ("#" * (MAX_BYTES + 1), "1:1: the file has more than 1,000,000 bytes; required: an experiment file, not data"),
        (b"a: 1\nb: \xff", "2:4: byte 0xff is not UTF-8; save the file as UTF-8"),
        ("a: 1".encode("utf-16"), "1:1: byte 0xff is not UTF-8; save the file as UTF-8"),
        ("a: 1\nb: \x07", "2:4: character #x0007 is not allowed in YAML; remove it"),
        ('a: "\\0"', "1:4: found text with the character #x0000; required: text without it"),
        ('a: "\\uD800"', "1:4: found text with the character #xd800; required: text without it"),
        ('a: "\\UFFFFFFFF"', "1:7: found a number out of range in an escape or directive"),
        ("a:\n\tb: 1", "2:1: while scanning for the next token, found character '\\t' that cannot start any token"),
        ("a: [1, 2", "1:9: while parsing a flow sequence, expected ',' or ']', but got '<stream end>'"),
        ("a: b: c", "1:5: mapping values are not allowed here"),
    ],
)
def test_whatever_is_outside_the_subset_is_one_located_line(content: str | bytes, expected: str) -> None:
    assert refusal(content) == expected


def test_twenty_levels_are_enough() -> None:
    assert parsed("a: " + "[" * 19 + "]" * 19)[0]["a"]
