"""From TOML to dataclasses: what is read, what is refused and how that is said."""

from __future__ import annotations

import enum
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from isthmus import Multiaddr, PeerId
from isthmus.node.configfile import (
    MAX_PROBLEMS,
    MAX_STATEMENT,
    OptionLayer,
    Schema,
    compose,
    find_lines,
    read_toml,
    source_of,
)
from isthmus.node.configtext import explanation, plain_value, write_toml
from isthmus.node.configvalues import MAX_INTEGER, quoted
from isthmus.transports.core.errors import ConfigError, ConfigRefused

BASE = Path("/etc/isthmus")
PEER = "12D3KooWGJAmQyRkvK6Cf7Jr3zhMmtLX2Q8d2hKS9sMLUFWEPTpo"


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True, slots=True, kw_only=True)
class Deep:
    depth: int = 1

    low: int = 0
    """At most `depth`."""

    def __post_init__(self) -> None:
        if self.depth < 1:
            raise ConfigError("deep.depth must be at least 1")
        if self.low > self.depth:
            raise ConfigError("deep.low must be at most deep.depth")
        if self.low == -7 and self.depth == 7:
            raise ConfigError("deep.low and deep.depth cannot both be seven")
        if self.low < -9:
            raise ConfigError("deep.low must be at least -9")


@dataclass(frozen=True, slots=True, kw_only=True)
class Every:
    """One field of each type that a setting can have."""

    whole: int = 1
    """A whole
    number."""

    number: float = 1.5
    flag: bool = False
    maybe: bool | None = None
    text: str = "a"
    path: Path | str | None = None
    paths: tuple[Path, ...] = ()
    texts: tuple[str, ...] | None = None
    numbers: list[int] = field(default_factory=list)
    policy: Literal["all", "some", "none-at-all"] = "all"
    color: Color = Color.RED
    address: Multiaddr | None = None
    addresses: tuple[Multiaddr, ...] = ()
    peers: tuple[PeerId, ...] = ()
    limit: float | None = 2.0
    derived: int = field(init=False, default=7)
    deep: Deep = field(default_factory=Deep)

    def __post_init__(self) -> None:
        if self.whole == self.deep.depth == 13:
            raise ConfigError("home.whole and deep.depth cannot both be 13")


SCHEMA = Schema(Every, home="home", places={"maybe": "other.maybe"})


def parsed(text):
    return compose(SCHEMA, read_toml(SCHEMA, text, name="x.toml", base=BASE))


def problems(text):
    with pytest.raises(ConfigRefused) as caught:
        parsed(text)
    return [str(each) for each in caught.value.problems]


def test_nothing_said_is_the_default():
    assert parsed("") == Every()
    assert parsed("[home]\n[deep]\n") == Every()


def test_every_type_is_read():
    address = "/ip4/192.0.2.7/tcp/4001"
    value = parsed(
        f"""
        deep.depth = 5
        [home]
        whole = -3
        number = 2
        flag = true
        text = "ü\\n"
        path = "keys/node.pem"
        paths = ["/a", "b/../c"]
        texts = []
        numbers = [1, 2]
        policy = "some"
        color = "blue"
        address = "{address}"
        addresses = ["{address}", "/dns4/a.example/tcp/1"]
        peers = ["{PEER}"]
        limit = "none"
        [other]
        maybe = false
        """
    )
    assert value == Every(
        whole=-3,
        number=2.0,
        flag=True,
        maybe=False,
        text="ü\n",
        path=BASE / "keys/node.pem",
        paths=(Path("/a"), BASE / "b/../c"),
        texts=(),
        numbers=[1, 2],
        policy="some",
        color=Color.BLUE,
        address=Multiaddr.parse(address),
        addresses=(Multiaddr.parse(address), Multiaddr.parse("/dns4/a.example/tcp/1")),
        peers=(PeerId.parse(PEER),),
        limit=None,
        deep=Deep(depth=5),
    )
    assert isinstance(value.number, float)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('whole = "many"', 'whole: a whole number is needed, not "many"'),
        ("whole = 1.0", "whole: a whole number is needed, not 1.0"),
        ("whole = true", "whole: a whole number is needed, not true"),
        ("whole = 1979-05-27", "whole: a whole number is needed, not 1979-05-27"),
        ("whole = [1]", "whole: a whole number is needed, not a list"),
        ("whole.a = 1", "whole: a whole number is needed, not a table"),
        (
            f"whole = {MAX_INTEGER + 1}",
            f"whole: a whole number up to {MAX_INTEGER} is needed, not one of that many digits",
        ),
        ("number = false", "number: a number is needed, not false"),
        ("number = nan", "number: a number is needed, not nan"),
        (f"number = 1{400 * '0'}", "number: a number is needed, not one of that many digits"),
        ("flag = 1", "flag: true or false is needed, not 1"),
        ('flag = "yes"', 'flag: true or false is needed, not "yes"'),
        ("text = 1", "text: a text is needed, not 1"),
        (f'whole = "{100 * "x"}"', f'whole: a whole number is needed, not "{56 * "x"}...'),
        (r'whole = "\u001b[2J"', r'whole: a whole number is needed, not "\u001b[2J"'),
        ('path = ""', 'path: a path is needed, not ""'),
        (r'path = "a\u0000"', r'path: a path is needed, not "a\u0000"'),
        ("path = 1", "path: a path is needed, not 1"),
        (
            'path = "~/a"',
            'path: a path is needed in full, since ~ stands for nothing: "~/a"',
        ),
        ('paths = "a"', 'paths: a list is needed: ["a"]'),
        ("paths = 3", "paths: a list is needed, not 3"),
        ("paths = [3]", "paths: a path is needed, not 3"),
        (
            'policy = "sone"',
            'policy: all, some or none-at-all is needed, not "sone"; did you mean some?',
        ),
        ("policy = 1", "policy: all, some or none-at-all is needed, not 1"),
        ('color = "RED"', 'color: red or blue is needed, not "RED"; did you mean red?'),
        (
            "address = 1",
            "address: an address is needed, such as /ip4/0.0.0.0/tcp/4001, not 1",
        ),
        (
            'address = "0.0.0.0:1"',
            "address: an address is needed, such as /ip4/0.0.0.0/tcp/4001, not"
            " \"0.0.0.0:1\": '0.0.0.0:1' is not a multiaddr: it does not start with /",
        ),
        ('peers = ["Bob"]', 'peers: a peer id is needed, such as 12D3KooW..., not "Bob": '),
        ('limit = "no"', 'limit: a number is needed, not "no"'),
    ],
)
def test_a_wrong_type_is_named_with_its_place(line, why):
    (problem,) = problems(f"[home]\n\n{line}\n")
    assert problem.startswith(f"home.{why}")
    assert problem.endswith(" (x.toml, line 3)")
    assert problem.isprintable()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[home]\nwole = 1", "home.wole: there is no such setting; did you mean home.whole?"),
        ("[home]\nWhole = 1", "home.Whole: there is no such setting; did you mean home.whole?"),
        ("[home]\nzzz = 1", "home.zzz: there is no such setting"),
        ("[home]\ndepth = 1", "home.depth: there is no such setting; did you mean deep.depth?"),
        ("\nwhole = 1", "whole: there is no such setting; did you mean home.whole?"),
        ("\n[hme]", "hme: there is no such section; did you mean home?"),
        ("\n[hme]\nwhole = 1", "hme: there is no such section; did you mean home?"),
        ("\n[[deep]]", "deep: a section is needed: [deep]"),
        ("\ndeep = 1", "deep: a section is needed: [deep]"),
        ("[home]\nderived = 1", "home.derived: there is no such setting"),
        ("[home]\nmaybe = true", "home.maybe: there is no such setting; did you mean other.maybe?"),
        ('\n"home.whole" = 1', '"home.whole": there is no such setting; did you mean home.whole?'),
        ('\n"\\u001b[2J\\n" = 1', r'"\u001b[2J\u000a": there is no such setting'),
        ("[home]\n" + 5000 * "w" + " = 1", "home." + 92 * "w" + "...: there is no such setting"),
        ("[home]\n" + 3000 * "w." + "w = 1", "home.w: there is no such section"),
    ],
)
def test_an_unknown_key_is_named_and_the_one_that_was_meant(text, why):
    assert problems(text) == [f"{why} (x.toml, line 2)"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a = ", "this is not TOML: Invalid value"),
        ("[home]\nwhole = 1\nwhole = 2", "this is not TOML: Cannot overwrite a value"),
        ("[home]\n[home]", "this is not TOML: "),
        ("a = " + 20_000 * "[", "this is not TOML: "),
        ("a = " + 5000 * "9", "this is not TOML: "),
        ("a = \x00", "this is not TOML: "),
        ("\ufeff", "this is not TOML: "),
    ],
)
def test_what_is_not_toml(text, why):
    (problem,) = problems(text)
    assert problem.startswith(why)
    assert problem.endswith("(x.toml)")
    assert problem.isprintable()


def test_all_problems_are_told_at_once():
    text = '[home]\nwhole = "a"\nflag = 1\n[deep]\ndepth = 0\nlow = -10\n[nothing]\n'
    assert problems(text) == [
        'home.whole: a whole number is needed, not "a" (x.toml, line 2)',
        "home.flag: true or false is needed, not 1 (x.toml, line 3)",
        "deep.depth must be at least 1 (x.toml, line 5)",
        "deep.low must be at least -9 (x.toml, line 6)",
        "nothing: there is no such section (x.toml, line 7)",
    ]
    with pytest.raises(ConfigRefused, match=r"^5 settings cannot be used: home\.whole: "):
        parsed(text)


def test_settings_that_contradict_each_other_are_blamed_on_their_section():
    assert problems("\n[deep]\ndepth = 7\nlow = -7\n") == [
        "deep.low and deep.depth cannot both be seven (x.toml, line 2)"
    ]
    # By itself it is above the default of the other one, so the line is known.
    assert problems("[deep]\nlow = 5\n") == ["deep.low must be at most deep.depth (x.toml, line 2)"]
    assert problems("[home]\nwhole = 13\n[deep]\ndepth = 13") == [
        "home.whole and deep.depth cannot both be 13 (x.toml, line 2)"
    ]


def test_sections_that_contradict_each_other_without_their_parent():
    @dataclass(frozen=True)
    class Parent:
        one: Deep = field(default_factory=Deep)
        two: Deep = field(default_factory=Deep)

        def __post_init__(self) -> None:
            if self.one.depth > self.two.depth:
                raise ConfigError("one.depth must be at most two.depth")

    schema = Schema(Parent, home="home")
    layer = read_toml(schema, "one.depth = 2", name="x.toml", base=BASE)
    with pytest.raises(ConfigRefused) as caught:
        compose(schema, layer)
    assert [each.why for each in caught.value.problems] == ["one.depth must be at most two.depth"]


def test_no_more_than_twenty_problems_are_told():
    many = "".join(f"x{number} = 1\n" for number in range(MAX_PROBLEMS))
    assert len(problems(many)) == MAX_PROBLEMS
    told = problems(many + "y = 1\nz = 1\n")
    assert len(told) == MAX_PROBLEMS + 1
    assert told[-1] == "and 2 more"


def test_lines_are_those_of_the_statements():
    text = """# a comment with \u2028 in it
a = [
  1,
]

[b] # one
"c.d".e = {f = 1}
x = '''
[no]
y = 1
'''
[[g]]
h = 1
"""
    assert tomllib.loads(text)
    assert find_lines(text) == {
        ("a",): 2,
        ("b",): 6,
        ("b", "c.d"): 7,
        ("b", "c.d", "e"): 7,
        ("b", "c.d", "e", "f"): 7,
        ("b", "x"): 8,
        ("g",): 12,
        ("g", "h"): 13,
    }
    long = "a = [\n" + "1,\n" * MAX_STATEMENT + "]\nb = 1\n"
    assert find_lines(f"c = 1\n{long}") == {("c",): 1}
    assert problems(f"[home]\n{long}") == [
        "home.a: there is no such setting (x.toml)",
        "home.b: there is no such setting (x.toml)",
    ]


def test_later_layers_come_before_earlier_ones():
    file = read_toml(SCHEMA, "[home]\nwhole = 2\nnumber = 3\n", name="x.toml", base=BASE)
    line = OptionLayer("command line")
    line.set(SCHEMA.key("home.whole"), 9, name="--whole")
    assert compose(SCHEMA, file, line) == Every(whole=9, number=3.0)
    assert compose(SCHEMA, line, file) == Every(whole=2, number=3.0)
    assert source_of(SCHEMA.key("home.whole"), (file, line)) is line
    assert source_of(SCHEMA.key("home.number"), (file, line)) is file
    assert source_of(SCHEMA.key("home.text"), (file, line)) is None


def test_an_option_that_is_refused_is_named():
    line = OptionLayer("command line")
    line.set(SCHEMA.key("deep.depth"), 0, name="--depth")
    with pytest.raises(ConfigRefused, match=r"at least 1 \(command line: --depth\)$"):
        compose(SCHEMA, line)
    line.set(SCHEMA.key("deep.depth"), 7, name="--depth")
    line.set(SCHEMA.key("deep.low"), -7, name="--low")
    with pytest.raises(ConfigRefused, match=r"be seven \(command line: --depth, --low\)$"):
        compose(SCHEMA, line)


def test_what_an_option_corrects_in_a_section_is_no_problem():
    file = read_toml(SCHEMA, "[deep]\nlow = 4\n", name="x.toml", base=BASE)
    line = OptionLayer("command line")
    line.set(SCHEMA.key("deep.depth"), 4, name="--depth")
    assert compose(SCHEMA, file, line).deep == Deep(depth=4, low=4)


@pytest.mark.parametrize(
    "hint", [dict, "int | str", "tuple[int, int]", "dict[str, int]", "Deep | None"]
)
def test_a_type_that_no_file_can_carry_is_a_bug(hint):
    kind = type("Kind", (), {"__annotations__": {"field": hint}, "field": None})
    kind.__module__ = __name__
    with pytest.raises(TypeError, match="a setting cannot be of the type"):
        Schema(dataclass(kind), home="home")


def test_a_place_taken_twice_is_a_bug():
    with pytest.raises(TypeError, match=r"two settings are called home\.text"):
        Schema(Every, home="home", places={"whole": "home.text"})
    with pytest.raises(TypeError, match="both settings and sections"):
        Schema(Every, home="home", places={"whole": "deep.low.er"})


def test_each_setting_is_explained_in_the_words_of_its_dataclass():
    assert explanation(SCHEMA.key("home.whole")) == "A whole number."
    assert explanation(SCHEMA.key("home.number")) == ""
    assert explanation(SCHEMA.key("deep.low")) == "At most `depth`."


def test_a_setting_without_a_source_is_not_explained():
    made = {}
    exec("from dataclasses import dataclass\n@dataclass\nclass A:\n  b: int = 1\n  'text'", made)
    schema = Schema(made["A"], home="home")
    assert explanation(schema.key("home.b")) == ""


def test_what_is_written_says_where_it_comes_from():
    text = write_toml(
        SCHEMA, Every(paths=(Path("a"),)), base=BASE, origin=lambda key: f"from\n{key.text}"
    )
    assert text.startswith("[home]\n\n# A whole number.\nwhole = 1  # from home.whole\n")
    assert "\n# path is not set  # from home.path\n" in text
    assert '\npaths = ["/etc/isthmus/a"]  # from home.paths\n' in text
    assert "\n[deep]\n" in text
    assert parsed(text) == Every(paths=(BASE / "a",))


def test_values_for_json():
    value = Every(number=float("inf"), limit=None, texts=("a",), path="b", color=Color.BLUE)

    def plain(name):
        return plain_value(SCHEMA.key(f"home.{name}"), value, BASE)

    assert [plain("number"), plain("limit"), plain("texts")] == ["inf", "none", ["a"]]
    assert [plain("path"), plain("color"), plain("address")] == ["/etc/isthmus/b", "blue", None]


def test_a_path_that_is_not_utf8_cannot_be_written():
    with pytest.raises(ConfigError, match="not UTF-8"):
        write_toml(SCHEMA, Every(path=Path("a\udc80")), base=BASE)


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_survives_and_is_printable(text):
    assert tomllib.loads(f"a = {quoted(text)}") == {"a": text}
    assert quoted(text).isprintable()


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
PATHS = TEXTS.filter(lambda text: "\0" not in text).map(lambda text: BASE / text)
ADDRESSES = st.builds(
    lambda ip, port: Multiaddr.parse(f"/ip{ip.version}/{ip}/tcp/{port}"),
    st.ip_addresses(),
    st.integers(0, 65_535),
)
WHOLE = st.integers(-MAX_INTEGER, MAX_INTEGER)
EVERY = st.builds(
    Every,
    whole=WHOLE,
    number=st.floats(allow_nan=False),
    flag=st.booleans(),
    maybe=st.none() | st.booleans(),
    text=TEXTS,
    path=st.none() | PATHS,
    paths=st.lists(PATHS, max_size=3).map(tuple),
    texts=st.none() | st.lists(TEXTS, max_size=3).map(tuple),
    numbers=st.lists(WHOLE, max_size=3),
    policy=st.sampled_from(["all", "some", "none-at-all"]),
    color=st.sampled_from(Color),
    address=st.none() | ADDRESSES,
    addresses=st.lists(ADDRESSES, max_size=3).map(tuple),
    peers=st.lists(st.just(PeerId.parse(PEER)), max_size=2).map(tuple),
    limit=st.none() | st.floats(allow_nan=False),
    deep=st.builds(Deep, depth=st.integers(5, MAX_INTEGER), low=st.integers(0, 5)),
)


@given(EVERY)
def test_any_configuration_survives_being_written_and_read(value):
    assert parsed(write_toml(SCHEMA, value, base=BASE)) == value


NAMES = st.sampled_from(sorted({name for place in SCHEMA.keys for name in place})) | TEXTS
SCALARS = (
    st.booleans().map(lambda value: str(value).lower())
    | st.integers().map(str)
    | st.floats().map(repr)
    | TEXTS.map(quoted)
    | st.datetimes().map(lambda value: value.isoformat())
    | st.sampled_from(["all", "red", "none", "/ip4/1.2.3.4/tcp/1", PEER]).map(quoted)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]")
        | st.dictionaries(NAMES.map(quoted), inner, max_size=3).map(
            lambda items: f"{{{', '.join(f'{key} = {value}' for key, value in items.items())}}}"
        )
    ),
    max_leaves=5,
)
LINES = (
    st.tuples(NAMES, VALUES).map(lambda pair: f"{quoted(pair[0])} = {pair[1]}")
    | st.tuples(NAMES, NAMES, VALUES).map(lambda row: ".".join(map(quoted, row[:2])) + f"={row[2]}")
    | st.sampled_from(["[home]", "[deep]", "[other]", "[[deep]]", "[home.deep]", "# a", "", '"""'])
    | st.text(max_size=30)
)


@given(st.lists(LINES, max_size=8).map("\n".join))
def test_a_random_text_is_read_or_refused(text):
    try:
        outcome = parsed(text)
    except ConfigRefused as error:
        outcome = error
    if isinstance(outcome, ConfigRefused):
        assert 0 < len(outcome.problems) <= MAX_PROBLEMS + 1
        assert str(outcome).isprintable()
    else:
        assert isinstance(outcome, Every)
