"""The transport over Unix sockets of examples/ keeps the contract and serves nodes."""

from __future__ import annotations

import importlib.util
import os
import re
import resource
import socket
import stat
import sys
import tempfile
import tomllib
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest
from isthmus import Multiaddr, Node
from isthmus.transports.core.errors import AddressError, DialError
from isthmus.transports.core.interfaces import RawTransport
from isthmus.transports.registry import GROUP, transports_for
from isthmus.transports.testing.contract import TRANSPORT_CONTRACT, run_check
from isthmus.transports.testing.pair import make_pair
from isthmus.transports.upgrade import Upgraded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from isthmus.transports.testing.pair import TransportPair

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "examples" / "unix_transport.py"
PAGE = (ROOT / "docs" / "write-a-transport.md").read_text("utf-8")
ECHO = "/echo/1.0.0"


def _load():
    spec = importlib.util.spec_from_file_location("unix_transport", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


UnixTransport = _load().UnixTransport


@pytest.fixture
def place() -> Iterator[Path]:
    # Not tmp_path: the path of a Unix socket has at most some hundred bytes.
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@asynccontextmanager
async def unix() -> AsyncIterator[TransportPair]:
    raw = UnixTransport()
    with tempfile.TemporaryDirectory() as folder:
        address = Multiaddr.parse(f"/unix{folder}/socket")
        transports = Upgraded(raw), Upgraded(UnixTransport())
        async with make_pair(*transports, address, intrude=raw.dial_raw) as pair:
            yield pair


@pytest.mark.parametrize("check", TRANSPORT_CONTRACT, ids=lambda each: each.__name__[6:])
async def test_contract(check):
    await run_check(check, unix)


async def echo(stream):
    async for data in stream:
        await stream.send(data)


async def test_nodes_talk_and_leave_no_socket_behind(place):
    path = place / "node"
    async with (
        Node(listen=f"/unix{path}", transports=[UnixTransport()]) as alice,
        Node(transports=["tcp", UnixTransport()]) as bob,
    ):
        assert isinstance(UnixTransport(), RawTransport)
        assert stat.S_ISSOCK(os.stat(path).st_mode)
        assert alice.addresses[0].names == ("unix", "p2p")
        alice.handle(ECHO, echo)
        data = b"x" * 300_000
        assert await bob.request(alice.addresses, ECHO, data) == data
        # As text only without the peer id: a path takes the rest of an address.
        assert await bob.request(str(alice.addresses[0].without_peer()), ECHO, b"a") == b"a"
    assert not path.exists()


async def test_a_socket_left_behind_is_taken_over_and_no_other_file_is(place):
    left, file = place / "left", place / "file"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(left))
    async with Node(listen=f"/unix{left}", transports=[UnixTransport()]):
        with pytest.raises(OSError, match=rf"cannot listen on /unix{left}: somebody does"):
            await UnixTransport().listen_raw(Multiaddr.parse(f"/unix{left}"))
    file.write_text("precious")
    with pytest.raises(OSError, match="Address already in use"):
        await UnixTransport().listen_raw(Multiaddr.parse(f"/unix{file}"))
    assert file.read_text() == "precious"


async def test_what_it_cannot_use_it_says(place):
    transport = UnixTransport()
    for path, why in ((place / "nobody", "No such file"), (place / ("x" * 200), "too long")):
        with pytest.raises(DialError, match=why):
            await transport.dial_raw(Multiaddr.parse(f"/unix{path}"))
    with pytest.raises(OSError, match="too long"):
        await transport.listen_raw(Multiaddr.parse(f"/unix{place / ('x' * 200)}"))
    with pytest.raises(AddressError):
        await transport.listen_raw(Multiaddr.parse("/memory/1"))


@pytest.fixture
def installed(tmp_path, monkeypatch) -> None:
    """Install the package that the page shows, as a package manager would."""
    project = tomllib.loads(re.search(r"```toml\n(.*?)```", PAGE, re.DOTALL)[1])
    name, version = project["project"]["name"], project["project"]["version"]
    for module in project["tool"]["setuptools"]["py-modules"]:
        (tmp_path / f"{module}.py").write_text(FILE.read_text("utf-8"), "utf-8")
    metadata = tmp_path / f"{name.replace('-', '_')}-{version}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    points = project["project"]["entry-points"][GROUP]
    lines = "".join(f"{name} = {value}\n" for name, value in points.items())
    (metadata / "entry_points.txt").write_text(f"[{GROUP}]\n{lines}")
    monkeypatch.syspath_prepend(tmp_path)


async def test_it_is_found_by_its_name(installed, place):
    (found,) = transports_for(["unix"])
    assert isinstance(found, Upgraded)
    assert type(found.raw).__name__ == "UnixTransport"
    async with (
        Node(listen=f"/unix{place}/named", transports=["unix"]) as alice,
        Node(transports=["unix"]) as bob,
    ):
        alice.handle(ECHO, echo)
        assert await bob.request(alice.addresses, ECHO, b"hello") == b"hello"
    sys.modules.pop("unix_transport", None)


async def test_it_survives_the_end_of_file_descriptors(place):
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    address = f"/unix{place}/busy"
    with socket.socket(socket.AF_UNIX) as intruder:
        async with Node(listen=address, transports=[UnixTransport()]) as alice:
            resource.setrlimit(resource.RLIMIT_NOFILE, (intruder.fileno(), limits[1]))
            try:
                intruder.connect(f"{place}/busy")
                for _ in range(20):  # turns of the loop, in which accepting fails
                    await anyio.lowlevel.checkpoint()
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            async with Node(transports=[UnixTransport()]) as bob:
                await bob.connect(alice.addresses)


def test_it_is_short():
    assert len(FILE.read_text("utf-8").splitlines()) < 60
