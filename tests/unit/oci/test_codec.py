"""Documents decode with the place of every mistake, and encode to what they came from."""

import json

import pytest

from pytest_ocirun.errors import ConfigError
from pytest_ocirun.oci import codec
from pytest_ocirun.oci.codec import Document, decode, dump, encode, field, load, parse, walk


class Leaf(Document):
    """A document in a document."""

    name: str
    number: int | None = None


class Tree(Document, names={"odd_name": "oddNAME"}):
    """One property of each kind."""

    text: str
    flag: bool = False
    maybe: bool | None = None
    count: int | None = None
    zero: int = 0
    odd_name: str = ""
    words: list[str] = field(factory=list)
    leaf: Leaf | None = None
    group: Leaf = field(factory=lambda: Leaf(name=""))
    leaves: list[Leaf] = field(factory=list)
    by_name: dict[str, Leaf] = field(factory=dict)
    texts: dict[str, str] = field(factory=dict)
    rows: list[list[int]] = field(factory=list)


FULL = {
    "text": "ä",
    "flag": True,
    "maybe": False,
    "count": -3,
    "zero": 0,
    "oddNAME": "odd",
    "words": ["a", ""],
    "leaf": {"name": "x", "number": 2**70},
    "group": {"name": "g"},
    "leaves": [{"name": "y"}, {"name": "z", "number": 0}],
    "byName": {"k": {"name": "v"}},
    "texts": {"": "", "a.b": "c"},
    "rows": [[1, 2], []],
}


def test_full_document_survives() -> None:
    """Decoding and encoding is the identity on what is written in full."""
    tree = decode(Tree, FULL)

    assert encode(tree) == FULL
    assert decode(Tree, encode(tree)) == tree
    assert json.loads(dump(tree)) == FULL


def test_attributes_have_python_names() -> None:
    """CamelCase and exceptions from it are told from the class alone."""
    tree = decode(Tree, FULL)

    assert (tree.odd_name, tree.by_name["k"].name, tree.rows[0][1]) == ("odd", "v", 2)


def test_absent_properties() -> None:
    """Absent is empty or None, and is not written again."""
    tree = decode(Tree, {"text": "x"})

    assert (tree.flag, tree.maybe, tree.count, tree.zero, tree.odd_name, tree.words, tree.leaf, tree.texts) == (
        False,
        None,
        None,
        0,
        "",
        [],
        None,
        {},
    )
    assert encode(tree) == {"text": "x", "zero": 0, "group": {"name": ""}}


def test_lists_are_not_shared() -> None:
    """Each document gets its own."""
    first, second = Tree(text="a"), Tree(text="b")
    first.words.append("x")
    first.group.name = "y"

    assert (second.words, second.group.name) == ([], "")


def test_null_is_absent_and_unknown_is_ignored() -> None:
    """As in Go."""
    tree = decode(Tree, {"text": "x", "words": None, "leaf": None, "count": None, "unknown": {"deep": [1]}})

    assert tree == Tree(text="x")


def test_copy_shares_nothing() -> None:
    """Changing the copy leaves the original."""
    tree = decode(Tree, FULL)
    copy = tree.copy()
    copy.leaves[0].name = "changed"
    copy.words.append("more")

    assert encode(tree) == FULL
    assert copy != tree


def test_constructor_refuses_what_is_missing_or_unknown() -> None:
    """A misspelt keyword is an error for those without a type checker too."""
    with pytest.raises(TypeError, match=r"Leaf\(\) needs name="):
        Leaf()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"Leaf\(\) has no nmae"):
        Leaf(name="x", nmae="y")  # type: ignore[call-arg]


def test_repr_shows_what_is_there() -> None:
    """Absent properties are noise."""
    assert repr(Tree(text="x", words=["a"])) == "Tree(text='x', zero=0, words=['a'], group=Leaf())"


@pytest.mark.parametrize(
    "change, message",
    [
        ({"text": 1}, "$.text: expected string, got integer 1"),
        ({"text": None}, "$.text: required, but missing"),
        ({"text": "\ud800"}, '$.text: expected string of valid Unicode, got string "\\ud800"'),
        ({"flag": 1}, "$.flag: expected boolean, got integer 1"),
        ({"flag": "true"}, '$.flag: expected boolean, got string "true"'),
        ({"count": True}, "$.count: expected integer, got boolean true"),
        ({"count": 1.0}, "$.count: expected integer, got number 1.0"),
        ({"count": 1e3}, "$.count: expected integer, got number 1000.0"),
        ({"count": "1"}, '$.count: expected integer, got string "1"'),
        ({"words": "a"}, '$.words: expected array, got string "a"'),
        ({"words": {}}, "$.words: expected array, got object"),
        ({"words": ["a", None]}, "$.words[1]: expected string, got null"),
        ({"leaf": []}, "$.leaf: expected object, got array"),
        ({"leaf": {}}, "$.leaf.name: required, but missing"),
        ({"leaves": [{"name": "a"}, {"name": 2}]}, "$.leaves[1].name: expected string, got integer 2"),
        ({"byName": []}, "$.byName: expected object, got array"),
        ({"byName": {"a.b": {"name": 1}}}, '$.byName["a.b"].name: expected string, got integer 1'),
        ({"texts": {'q"': 1}}, '$.texts["q\\""]: expected string, got integer 1'),
        ({"rows": [[1], [2, "x"]]}, '$.rows[1][1]: expected integer, got string "x"'),
        ({"oddNAME": 1}, "$.oddNAME: expected string, got integer 1"),
        ({"text": ["x" * 99]}, "$.text: expected string, got array"),
        ({"count": "x" * 99}, '$.count: expected integer, got string "' + "x" * 60 + '..."'),
        ({"count": "\x1b[31m"}, '$.count: expected integer, got string "\\x1b[31m"'),
    ],
)
def test_mistake_is_named(change: dict[str, object], message: str) -> None:
    """Path, what was expected, and what is there, in printable characters."""
    with pytest.raises(ConfigError) as caught:
        decode(Tree, {**FULL, **change})

    assert str(caught.value) == message


@pytest.mark.parametrize(
    "text, message",
    [
        (b"", "not JSON at line 1, column 1: Expecting value"),
        (b'{"text": "x",\n  "flag" true}', "not JSON at line 2, column 10: Expecting ':' delimiter"),
        (b'{"text": "x"} {', "not JSON at line 1, column 15: Extra data"),
        (b'{"text": "\x01"}', "not JSON at line 1, column 11: Invalid control character at"),
        (b'{"text": "\xff"}', "not UTF-8 at byte 10: invalid start byte"),
        ('{"text": "x"}'.encode("utf-16"), "not UTF-8 at byte 0: invalid start byte"),
        (b'\xef\xbb\xbf{"text": "x"}', "not JSON at line 1, column 1: Unexpected UTF-8 BOM"),
        (b'{"count": NaN}', "not JSON: NaN is no number"),
        (b'{"count": -Infinity}', "not JSON: -Infinity is no number"),
        (b"[" * 100_000, "arrays or objects are nested too deeply"),
        (b'{"text":' * 100_000, "arrays or objects are nested too deeply"),
        (b'{"count": ' + b"1" * 5000 + b"}", "a number is too long: "),
        (b"[]", "$: expected object, got array"),
        (b"null", "$: expected object, got null"),
        (b'"x"', '$: expected object, got string "x"'),
        (b" " * (codec.SIZE_CAP + 1), f"{codec.SIZE_CAP + 1} bytes are more than"),
    ],
)
def test_bad_text_names_the_file(text: bytes, message: str) -> None:
    """Whatever is wrong with a text is one ConfigError."""
    with pytest.raises(ConfigError) as caught:
        load(Tree, text, "some/config.json")

    assert str(caught.value).startswith(f"cannot read some/config.json: {message}")


def test_last_of_equal_keys_wins() -> None:
    """As in Go: two readers of a file must not see two documents."""
    assert load(Tree, b'{"text": "a", "text": "b"}', "x").text == "b"


def test_deep_value_within_the_limit_is_fine() -> None:
    """Unknown properties may nest as far as the parser goes."""
    deep = b'{"text": "x", "unknown": ' + b"[" * 200 + b"]" * 200 + b"}"

    assert load(Tree, deep, "x").text == "x"


def test_parse_returns_plain_values() -> None:
    """For texts that are no documents."""
    assert parse(b'[1, "a", null]') == [1, "a", None]


def test_walk_names_every_scalar() -> None:
    """With the path that messages use."""
    tree = Tree(text="x", words=["a"], leaves=[Leaf(name="n", number=1)], texts={"k": "v"})

    assert list(walk(tree)) == [
        ("$.text", "x"),
        ("$.flag", False),
        ("$.zero", 0),
        ("$.oddNAME", ""),
        ("$.words[0]", "a"),
        ("$.group.name", ""),
        ("$.leaves[0].name", "n"),
        ("$.leaves[0].number", 1),
        ('$.texts["k"]', "k"),
        ('$.texts["k"]', "v"),
    ]


def test_class_is_compiled_once() -> None:
    """The table of properties is the same object each time."""
    assert codec.fields(Tree) is codec.fields(Tree)
