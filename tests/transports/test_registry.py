"""From names, raw transports and None to transports, and from addresses to one of them."""

from __future__ import annotations

import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from isthmus.transports.core.errors import ConfigError, NoTransport
from isthmus.transports.core.interfaces import RawTransport, Transport
from isthmus.transports.core.multiaddr import Multiaddr
from isthmus.transports.memory.plain import PlainMemoryTransport
from isthmus.transports.memory.stream import MemoryTransport
from isthmus.transports.registry import GROUP, Registry, transports_for
from isthmus.transports.tcp import TcpTransport
from isthmus.transports.testing.pair import TestHost
from isthmus.transports.upgrade import UpgradeConfig, Upgraded
from isthmus.transports.websocket.transport import WebSocketTransport

MEMORY = Multiaddr.parse("/memory/1")
TCP = Multiaddr.parse("/ip4/127.0.0.1/tcp/1")


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Install a plugin as a package manager would: a module, and metadata with entry points."""
    (tmp_path / "carrier_plugin.py").write_text(
        "from isthmus.transports.memory.plain import PlainMemoryTransport as whole\n"
        "from isthmus.transports.memory.stream import MemoryTransport as raw\n"
        "nothing, number = object, 7\n"
    )
    metadata = tmp_path / "carrier_plugin-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: carrier-plugin\nVersion: 1.0\n"
    )
    names = {
        "whole": "carrier_plugin:whole",
        "raw": "carrier_plugin:raw",
        "nothing": "carrier_plugin:nothing",
        "number": "carrier_plugin:number",
        "moved": "carrier_plugin:elsewhere",
        "gone": "carrier_plugin_gone:any",
    }
    lines = "".join(f"{name} = {value}\n" for name, value in names.items())
    (metadata / "entry_points.txt").write_text(f"[{GROUP}]\n{lines}")
    monkeypatch.syspath_prepend(tmp_path)


def test_default_is_tcp_and_websocket():
    transports = transports_for(None)
    assert all(isinstance(each, Upgraded) for each in transports)
    kinds = [type(each.raw) for each in transports]
    assert kinds == [TcpTransport, WebSocketTransport]
    assert transports[0].budget is transports[1].budget


def test_objects_pass_and_raw_ones_are_upgraded():
    whole, raw, config = PlainMemoryTransport(), MemoryTransport(), UpgradeConfig(dial_timeout=3)
    first, second = transports_for([whole, raw], upgrade=config)
    assert first is whole
    assert isinstance(second, Upgraded)
    assert second.raw is raw
    assert second.config is config
    assert transports_for([]) == []


def test_names_are_looked_up(installed):
    whole, raw = transports_for(["whole", "raw"])
    assert isinstance(whole, PlainMemoryTransport)
    assert isinstance(raw, Upgraded)
    assert isinstance(raw.raw, MemoryTransport)


def test_unknown_name_says_what_is_installed(installed):
    with pytest.raises(ConfigError, match=r"'carrot'.*installed are: .*raw, .*whole"):
        transports_for(["carrot"])


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("moved", "has no attribute"),
        ("gone", "No module named"),
        ("number", "cannot be called"),
        ("nothing", "neither `dial` nor `dial_raw`"),
    ],
)
def test_plugins_that_fail_are_named(installed, name, why):
    with pytest.raises(ConfigError, match=why) as caught:
        transports_for([name])
    assert repr(name) in str(caught.value)


def test_objects_that_are_no_transports_are_refused():
    with pytest.raises(ConfigError, match="no transport"):
        transports_for([object()])


def test_own_entry_points_are_transports():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))
    own = project["project"]["entry-points"][GROUP]
    assert {"memory", "tcp"} <= set(own)
    for name, value in own.items():
        made = EntryPoint(name, value, GROUP).load()()
        assert isinstance(made, Transport | RawTransport)
        assert name in made.protocols


class TestRegistry:
    def test_addresses_choose(self):
        tcp, memory = transports_for([TcpTransport(), PlainMemoryTransport()])
        registry = Registry([tcp, memory])
        peer = TestHost().peer_id
        for addr, transport in ((TCP, tcp), (MEMORY, memory)):
            assert registry.for_dial(addr) is transport
            assert registry.for_dial(addr.with_peer(peer)) is transport
            assert registry.for_listen(addr) is transport

    @pytest.mark.parametrize("text", ["/ip4/127.0.0.1/udp/1/quic-v1", "/ip4/127.0.0.1/udp/1"])
    def test_nobodys_addresses_are_refused(self, text):
        registry = Registry(transports_for([TcpTransport(), PlainMemoryTransport()]))
        addr = Multiaddr.parse(text)
        for choose in (registry.for_dial, registry.for_listen):
            with pytest.raises(NoTransport) as caught:
                choose(addr)
            assert caught.value.address == addr

    def test_claiming_is_not_enough_to_dial(self):
        registry = Registry(transports_for(None))
        addr = Multiaddr.parse("/ip4/127.0.0.1/udp/1/tcp/2")
        with pytest.raises(NoTransport):
            registry.for_dial(addr)
        registry.for_listen(addr)

    def test_the_first_of_two_wins(self):
        first, second = PlainMemoryTransport(), PlainMemoryTransport()
        assert Registry([first, second]).for_dial(MEMORY) is first

    def test_attach_reaches_all(self):
        host, transports = TestHost(), [PlainMemoryTransport(), PlainMemoryTransport()]
        Registry(transports).attach(host)
        assert [each.peer_id for each in transports] == [host.peer_id] * 2
