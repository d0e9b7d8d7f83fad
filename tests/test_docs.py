"""What the pages of docs/ show works as written: programs, tests, commands, messages, names.

A block marked ```python is a program: it runs on both backends, on one of the two only where slow
tests run, and prints exactly what its comments say (`# prints ...`, in any order). `{.fragment}`
marks a part of one, which must compile and import what exists; `{.test}` a file for pytest;
`{.example title="..."}` a file of examples/, word for word.
"""

from __future__ import annotations

import ast
import importlib
import json
import os
import re
import shlex
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import tomllib
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

import anyio
import click
import pytest
from isthmus import LimitsConfig, Multiaddr, Node, NodeConfig, run
from isthmus.node.cli.program import isthmus as program
from isthmus.node.sentences import describe
from isthmus.node.store.database import Database
from isthmus.node.store.schema import MIGRATIONS
from isthmus.node.store.stores import STORE_FILE
from isthmus.transports.core.errors import DialError, FailedAttempt, P2PError, unwrap_group

from .docs_messages import COMMANDS_THAT_FAIL, CONFIGURATIONS, SYSTEM_ERRORS, UNTRIED
from .transports.websocket.authority import Authority

pytestmark = pytest.mark.usefixtures("untraced")

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    file.relative_to(ROOT / "docs").as_posix(): file.read_text("utf-8")
    for file in sorted((ROOT / "docs").rglob("*.md"))
}
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"][
    "optional-dependencies"
]

FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*) *(?P<info>.*)\n(?P<text>(?:.*\n)*?)(?P=indent)```$",
    re.MULTILINE,
)
# As in tests/test_readme.py: `run` takes the backend as an argument, here the one under test.
START = """
import functools, runpy, sys, isthmus
isthmus.run = functools.partial(isthmus.run, backend=sys.argv[2])
runpy.run_path(sys.argv[1], run_name="__main__")
"""
# A name of Python's, from its first dot on: `::: isthmus.Node`, `[x][isthmus.Node.connect]`.
NAMES = re.compile(r"(?:^::: |\]\[)(isthmus(?:\.\w+)+)", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    page: str
    line: int
    language: str
    info: str
    text: str

    def __str__(self):
        return f"{self.page}:{self.line}"

    def is_marked(self, mark):
        return self.info.startswith(f"{{.{mark}")


def blocks(language):
    """Return every block of a language."""
    return [
        Block(page, text.count("\n", 0, found.start()) + 1, language, found["info"], code)
        for page, text in PAGES.items()
        for found in FENCE.finditer(text)
        if found["language"] == language
        for code in [dedent(found["text"])]
    ]


PYTHON = blocks("python")
PROGRAMS = [block for block in PYTHON if not block.info]
FRAGMENTS = [block for block in PYTHON if block.is_marked("fragment")]
TESTS = [block for block in PYTHON if block.is_marked("test")]
EXAMPLES = [block for block in PYTHON if block.is_marked("example")]
COMMANDS = [
    (block, line.removeprefix("$ "))
    for block in blocks("console")
    for line in block.text.splitlines()
    if line.startswith("$ ")
]


def backends(text):
    """Return the backends that a program can run on: the one that it starts itself, or both."""
    own = [name for name in ("asyncio", "trio") if f"{name}.run(" in text]
    return own or ["asyncio", "trio"]


def cases(programs):
    """Return each program on each of its backends; in turn, one of two backends is slow."""
    found = []
    for number, block in enumerate(programs):
        names = backends(block.text)
        for position, name in enumerate(names):
            is_slow = len(names) == 2 and position != number % 2
            found.append(pytest.param(block, name, marks=[pytest.mark.slow] if is_slow else []))
    return found


def execute(*argv, cwd):
    """Run Python with examples/ on its path and warnings as errors."""
    # What this run of pytest was asked for, such as its coverage, is not meant for another one.
    environment = os.environ | {"PYTHONPATH": str(ROOT / "examples"), "PYTEST_ADDOPTS": ""}
    return subprocess.run(
        [sys.executable, "-W", "error", *argv],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=15,
        check=False,
    )


def test_every_block_is_of_a_kind():
    assert len(PROGRAMS) + len(FRAGMENTS) + len(TESTS) + len(EXAMPLES) == len(PYTHON)
    assert all(len(PAGES[name].splitlines()) for name in PAGES)
    assert len(PROGRAMS) > 10


@pytest.mark.parametrize(("block", "backend"), cases(PROGRAMS), ids=str)
def test_program(block, backend, tmp_path):
    file = tmp_path / "program.py"
    file.write_text(block.text, "utf-8")
    done = execute("-c", START, str(file), backend, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == sorted(re.findall(r"# prints (.*)", block.text))
    # What a handler raises is logged; nothing else may be said.
    assert all(line.startswith("the handler of ") for line in done.stderr.splitlines())
    assert list(tmp_path.iterdir()) == [file], "embedding is silent: it leaves no file"


@pytest.mark.parametrize("block", FRAGMENTS, ids=str)
def test_fragment(block):
    compile(block.text, str(block), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    imports = [node for node in ast.walk(ast.parse(block.text)) if isinstance(node, ast.ImportFrom)]
    for node in imports:
        if node.module.partition(".")[0] in {"anyio", "isthmus"}:
            module = importlib.import_module(node.module)
            assert all(hasattr(module, alias.name) for alias in node.names)


@pytest.mark.parametrize("block", TESTS, ids=str)
def test_test(block, tmp_path):
    file = tmp_path / "test_shown.py"
    file.write_text(block.text, "utf-8")
    done = execute("-m", "pytest", "-q", "-p", "no:cacheprovider", str(file), cwd=tmp_path)
    both = 2 * block.text.count("async def test_")
    assert re.search(rf"^{both} passed", done.stdout, re.MULTILINE), done.stdout


@pytest.mark.parametrize("block", EXAMPLES, ids=str)
def test_example(block):
    title = re.search(r'title="(.*?)"', block.info)[1]
    assert block.text == (ROOT / title).read_text("utf-8")


@pytest.mark.parametrize("block", blocks("toml"), ids=str)
def test_toml(block):
    tomllib.loads(block.text)


@pytest.mark.parametrize(("block", "line"), COMMANDS, ids=str)
def test_command(block, line):
    name, *arguments = shlex.split(line, comments=True)
    if name in {"python", "python3"} and arguments[0] == "-m":
        name, arguments = arguments[1], arguments[2:]
    elif name == "python":
        assert (ROOT / arguments[0]).is_file()
    if Path(name).name == "isthmus":
        parse(arguments)
    elif name.startswith("isthmus."):
        importlib.import_module(name)
    elif name == "pip":
        wanted = re.findall(r"\[(.*?)\]", line)
        assert set(wanted) <= set(EXTRAS)


def parse(arguments):
    """Let the program read its arguments, and start nothing."""
    known = {option for parameter in program.params for option in parameter.opts}
    while arguments[0].startswith("-"):
        assert arguments.pop(0) in known
    with click.Context(program, info_name="isthmus") as context:
        command = program.get_command(context, arguments[0])
        assert command is not None, f"no command is called {arguments[0]}"
        command.make_context(arguments[0], arguments[1:], parent=context).close()


@pytest.mark.parametrize("page", [page for page in PAGES if NAMES.search(PAGES[page])])
def test_names(page):
    for name in NAMES.findall(PAGES[page]):
        assert resolve(name) is not None, name


def resolve(name):
    """Return what a dotted name stands for; raises if there is nothing."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        for attribute in parts[count:]:
            found = getattr(found, attribute)
        return found
    raise AssertionError(f"no module for {name}")


def test_the_tree_of_errors_is_the_one_of_the_code():
    from isthmus.transports.core import errors

    (tree,) = [block.text for block in blocks("text") if block.page == "api/errors.md"]
    assert tree in f"{errors.__doc__}"
    shown = set(NAMES.findall(PAGES["api/errors.md"]))
    for name in errors.__all__:
        assert f"isthmus.transports.core.errors.{name}" in shown


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text("utf-8")
    assert set(re.findall(r": (\S+\.md)$", navigation, re.MULTILINE)) == set(PAGES)


# What start.md shows that the commands write.


def shape(text):
    """Return the lines of a transcript without what is different each time."""
    for pattern, shown in (
        (r"12D3KooW[\w.]+", "ID"),
        (r"/tcp/\d+", "/tcp/PORT"),
        (r"^key .*", "key"),
        (r"^\d\d:\d\d:\d\d", "TIME"),
        (r"isthmus/[\w.]+", "VERSION"),
        (r" *\d+\.\d+ (ms|s\b|MB/s)", r" N \1"),
        (r"[\d.]+ / [\d.]+ / ", "N / N / "),
        (r" +\d+ MB in", " SIZE in"),
    ):
        text = re.sub(pattern, shown, text, flags=re.MULTILINE)
    return [line.rstrip() for line in text.splitlines() if line.strip()]


def test_the_transcript_of_start(tmp_path):
    shown = [line for block in blocks("console") for line in shape(block.text)]
    argv = (sys.executable, "-m", "isthmus")
    environment = os.environ | {"ISTHMUS_DATA_DIR": str(tmp_path / "data")}
    node = subprocess.Popen(
        [*argv, "run", "--listen", "/ip4/127.0.0.1/tcp/0"],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    written = []
    while not written or not written[-1].startswith("Ctrl-C"):
        written.append(node.stdout.readline())
    address = next(line.split()[-1] for line in written if "isthmus ping" in line)
    calls = (("ping", address, "-c", "3"), ("perf", address, "--upload=2MB", "--download=2MB"))
    for call in calls:
        done = subprocess.run(
            [*argv, *call], env=environment, capture_output=True, text=True, check=True, timeout=10
        )
        written.append(done.stdout)
    node.send_signal(signal.SIGINT)
    written.append(node.communicate(timeout=10)[0].removesuffix("stopped\n"))
    missing = [line for line in shape("".join(written)) if line not in shown]
    assert missing == []


# The messages of troubleshooting.md: each row is had for real, and begins as the page says.

STRANGER = "12D3KooWGJAmQyRkvK6Cf7Jr3zhMmtLX2Q8d2hKS9sMLUFWEPTpo"
LOOPBACK = "/ip4/127.0.0.1/tcp/0"
NEITHER = (
    "AddressError: '192.0.2.7:4001' is neither a peer id nor an address such as"
    " /ip4/192.0.2.7/tcp/4001: '.' is no digit of base 58"
)


def rows(*titles):
    """Return the messages in the tables below some headings of the page."""
    parts = re.split(r"^## (.*)\n", PAGES["troubleshooting.md"], flags=re.MULTILINE)
    sections = dict(zip(parts[1::2], parts[2::2], strict=True))
    found = [re.findall(r"^\| `(.+?)` \|", sections[title], re.MULTILINE) for title in titles]
    return list(dict.fromkeys(message for section in found for message in section))


def begins(message, line):
    """Say whether a line begins as a message of the page does."""
    pattern = re.sub(r"\b(ADDR|KEY|PATH|PEER|TEXT|NAME|PROTOCOL|N)\b", ".+?", re.escape(message))
    return re.match(pattern, line) is not None


class Web(socketserver.StreamRequestHandler):
    """Something else than libp2p, which hangs up when it does not understand."""

    def handle(self):
        self.request.recv(65_536)


def listen_at(port):
    return f"/ip4/127.0.0.1/tcp/{port}"


def start(*arguments):
    """Start a node in a process of its own; return it and where it listens, each without /p2p."""
    argv = (sys.executable, "-m", "isthmus", "run", "--json", "--listen", LOOPBACK, *arguments)
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    addresses = json.loads(process.stdout.readline())["addresses"]
    return process, *(address.partition("/p2p/")[0] for address in addresses)


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """What the commands are about: nodes, ports, files."""
    folder = tmp_path_factory.mktemp("places")
    for name in ("open", "damaged", "changed/port"):
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("no key, no port")
        path.chmod(0o644 if name == "open" else 0o600)
    names = ("open", "damaged", "changed", "newer", "daemon", "own")
    paths = {name: folder / name for name in names}
    with closing(Database(paths["newer"] / STORE_FILE, migrations=(*MIGRATIONS, ()))) as newer:
        newer.open(0.0)
    for name, text in CONFIGURATIONS.items():
        paths[name] = folder / name
        paths[name].write_text(text)
        paths[name].chmod(0o602 if name == "shared" else 0o600)
    files = Authority(folder).issue()
    tls = ("--tls-cert", str(files.cert_file), "--tls-key", str(files.key_file))
    listen = ("--listen", f"{LOOPBACK}/tls/ws", *tls)
    process, peer, secure = start("--no-perf", "--data-dir", str(paths["daemon"]), *listen)
    with (
        socket.create_server(("127.0.0.1", 0)) as mute,
        socketserver.ThreadingTCPServer(("127.0.0.1", 0), Web) as web,
    ):
        with socket.create_server(("127.0.0.1", 0)) as free:
            ports = {"free": free, "mute": mute, "web": web.socket}
            given = {name: listen_at(each.getsockname()[1]) for name, each in ports.items()}
        threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.01}).start()
        yield (
            paths
            | given
            | {"peer": peer, "secure": secure, "loopback": LOOPBACK, "stranger": STRANGER}
        )
        web.shutdown()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=10)


async def complain(arguments, places):
    """Call a command and return what it writes to the standard error."""
    argv = [sys.executable, "-m", "isthmus", *shlex.split(arguments.format_map(places))]
    environment = os.environ | {"ISTHMUS_DATA_DIR": str(places["own"])}
    with anyio.fail_after(10):
        done = await anyio.run_process(argv, env=environment, check=False)
    return done.stderr.decode()


@pytest.mark.parametrize(
    "message",
    rows(
        "The node does not start",
        "Asking the running node",
        "No connection",
        "Connected, but",
        "Peers are not kept",
    ),
)
def test_message_of_a_command(message, places):
    if message in UNTRIED:
        return
    if message in SYSTEM_ERRORS:
        number = SYSTEM_ERRORS[message]
        address = Multiaddr.parse(listen_at(1))
        cause = DialError(f"cannot connect to {address}: {os.strerror(number)}")
        cause.__cause__ = OSError(number, os.strerror(number))
        attempt = FailedAttempt(address, "connect", 0.1, cause)
        assert begins(message, f"error: {describe(DialError('all failed', [attempt]))}")
        return

    async def call():
        config = NodeConfig(limits=LimitsConfig(connections=1))
        async with Node(listen=LOOPBACK, config=config) as full, Node() as first:
            await first.connect(full.addresses)
            return await complain(COMMANDS_THAT_FAIL[message], places | {"full": full.addresses[0]})

    assert begins(message, run(call))


STREAM_ENDS = (anyio.ClosedResourceError, anyio.EndOfStream)


class Outcomes:
    """What a program does wrong, by the message of the page that it is answered with."""

    def __init__(self, server, client):
        self.server = server
        self.client = client
        self.to = server.addresses
        server.handle("/fail/1.0.0", self.fail)
        server.handle("/long/1.0.0", self.long)
        server.handle("/wait/1.0.0", self.wait)
        self.by_message = {
            "LocalProtocolError: the node is not running": lambda: Node().connect(self.to),
            "LocalProtocolError: a node is entered once": client.__aenter__,
            "AddressError: no address to connect to": lambda: server.connect(client.addresses),
            NEITHER: lambda: client.connect("192.0.2.7:4001"),
            "AddressError: the addresses name N peers": lambda: client.connect(
                [*self.to, f"/memory/1/p2p/{STRANGER}"]
            ),
            "DialError: no address of PEER is known": lambda: client.connect(STRANGER),
            "NoTransport: no transport of this node can use ADDR": lambda: client.connect(
                "/ip4/127.0.0.1/tcp/1"
            ),
            "SelfDial: PEER is this very node": lambda: server.connect(self.to),
            "ConfigError: no transport is called 'TEXT'": self.unknown_transport,
            "ConfigError: PROTOCOL already has a handler": self.twice,
            "ConfigError: a protocol starts with /": self.bad_name,
            "LocalProtocolError: a protocol starts with /": lambda: client.request(self.to, "hash"),
            "NegotiationError: offered PROTOCOL; the peer answered 'na'": lambda: client.request(
                self.to, "/unknown/1.0.0"
            ),
            "StreamReset: the stream was reset by the peer": lambda: client.request(
                self.to, "/fail/1.0.0"
            ),
            "TimeoutError: no complete answer on PROTOCOL within N s": lambda: client.request(
                self.to, "/wait/1.0.0", timeout=0.05
            ),
            "LimitExceeded: the answer's bytes: N is over the limit of N": lambda: client.request(
                self.to, "/long/1.0.0", max_bytes=10
            ),
            "LimitExceeded: connections: N is over the limit of N": self.too_many,
            "LimitExceeded: dials that wait for a place: N is over the limit of N": (
                self.too_many_waiting
            ),
            "ClosedResourceError": self.send_after_the_end,
            "EndOfStream": self.receive_after_the_end,
            "ExceptionGroup": self.in_a_group,
        }

    async def fail(self, stream):
        raise ValueError("a bug")

    async def long(self, stream):
        await stream.send(bytes(100))

    async def wait(self, stream):
        await anyio.sleep_forever()

    async def unknown_transport(self):
        Node(transports=["carrot"])

    async def twice(self):
        self.server.handle("/long/1.0.0", self.long)

    async def bad_name(self):
        self.server.handle("hash", self.long)

    async def too_many(self):
        config = NodeConfig(limits=LimitsConfig(connections=1, dial_wait=0))
        async with Node(transports=["memory"], config=config) as node:
            await node.connect(self.to)
            await node.connect("/memory/99")

    async def too_many_waiting(self):
        config = NodeConfig(limits=LimitsConfig(connections=1, waiting_dials=1))
        async with Node(transports=["memory"], config=config) as node:
            await node.connect(self.to)
            with unwrap_group():
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(node.connect, "/memory/98")
                    await anyio.wait_all_tasks_blocked()
                    await node.connect("/memory/99")

    async def send_after_the_end(self):
        stream = await self.client.open_stream(self.to, "/wait/1.0.0")
        await stream.send_eof()
        await stream.send(b"more")

    async def receive_after_the_end(self):
        stream = await self.client.open_stream(self.to, "/long/1.0.0")
        while True:
            await stream.receive()

    async def in_a_group(self):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.client.connect, STRANGER)


ENTERED_HERE_LEFT_THERE = """
import asyncio
from isthmus import Node

async def main():
    node = Node()
    await asyncio.create_task(node.__aenter__())
    try:
        await asyncio.create_task(node.__aexit__(None, None, None))
    except RuntimeError as error:
        print(f"RuntimeError: {error}")

asyncio.run(main())
"""


def test_message_of_a_node_left_in_another_task(tmp_path):
    done = execute("-c", ENTERED_HERE_LEFT_THERE, cwd=tmp_path)
    assert begins("RuntimeError: Attempted to exit cancel scope in a different task", done.stdout)


@pytest.mark.parametrize("message", rows("In your program"))
async def test_message_in_a_program(message):
    if message in UNTRIED:
        return
    async with (
        Node(listen="/memory/0", transports=["memory"]) as server,
        Node(transports=["memory"]) as client,
    ):
        act = Outcomes(server, client).by_message[message]
        with pytest.raises((P2PError, *STREAM_ENDS, TimeoutError, ExceptionGroup)) as caught:
            await act()
    assert begins(message, f"{type(caught.value).__name__}: {caught.value}")
