"""`isthmus ping` and `isthmus perf`, against a daemon in another process."""

from __future__ import annotations

import json
import signal
import socket

import pytest

from .processes import EACH_BACKEND, LOOPBACK

STRANGER = "12D3KooWGJAmQyRkvK6Cf7Jr3zhMmtLX2Q8d2hKS9sMLUFWEPTpo"


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_ping_measures_the_connect_and_every_round_trip(isthmus, peer, backend):
    result = isthmus("ping", peer, "-c", "5", "--json", "--backend", backend).json()
    assert set(result) == {"peer_id", "connect_ms", "rtt_ms"}
    assert result["peer_id"] == peer.rpartition("/")[2]
    assert 0 < result["connect_ms"] < 10_000
    assert len(result["rtt_ms"]) == 5
    assert all(0 < each < 10_000 for each in result["rtt_ms"])
    assert not isthmus.data_dir.exists()


def test_ping_needs_no_peer_id_in_the_address_and_writes_for_people(isthmus, peer):
    address, _, peer_id = peer.rpartition("/p2p/")
    done = isthmus("ping", address, "-c", "2", "-i", "0.001")
    assert (done.code, done.err) == (0, "")
    first, *times, last = done.out.splitlines()
    assert first.startswith(f"connected to {peer_id} in ")
    assert [line.split()[0] for line in times] == ["1", "2"]
    assert last.startswith("min / mean / max: ")


def test_a_call_bears_the_key_of_the_data_directory_without_its_lock(isthmus):
    own = isthmus("id").out.strip()
    serving = isthmus.start(
        "run", "--json", "--listen", LOOPBACK, "--data-dir", str(isthmus.data_dir) + "2"
    )
    address = serving.address()
    isthmus.start("run", "--json", "--listen", LOOPBACK).address()
    isthmus("ping", address, "-c", "1", "--json").json()
    assert serving.event("connection_opened")["peer"] == own
    isthmus("ping", address, "-c", "1", "--json", "--ephemeral").json()
    assert serving.event("connection_opened")["peer"] != own


@pytest.mark.parametrize("names_it", [True, False])
def test_the_daemon_of_the_same_data_directory_can_be_called(isthmus, names_it):
    daemon = isthmus.start("run", "--json", "--listen", LOOPBACK)
    address, _, peer_id = daemon.address().rpartition("/p2p/")
    target = f"{address}/p2p/{peer_id}" if names_it else address
    assert isthmus("ping", target, "-c", "1", "--json").json()["peer_id"] == peer_id


def test_an_address_of_another_peer_is_refused(isthmus, peer):
    address, _, actual = peer.rpartition("/p2p/")
    complaint = isthmus("ping", f"{address}/p2p/{STRANGER}", "--json").complaint()
    assert f"expected peer {STRANGER}, but {actual} answered" in complaint


def test_a_port_where_nothing_listens(isthmus):
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"/ip4/127.0.0.1/tcp/{free.getsockname()[1]}"
    for command in ("ping", "perf"):
        complaint = isthmus(command, address, "--json").complaint()
        assert complaint == (
            f"error: cannot connect to {address}: Connection refused: nothing listens there"
        )


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("127.0.0.1:4001", "'127.0.0.1:4001' is no multiaddr; did you mean /ip4/"),
        ("/ip4/127.0.0.1/tcp/99999", "an address looks like /ip4/"),
        ("/ip4/127.0.0.1\x1b[2J/tcp/1", "an address looks like /ip4/"),
        ("/ip4/127.0.0.1/udp/4001", "no transport of this node can use"),
    ],
)
def test_an_address_that_cannot_be_called(isthmus, address, why):
    complaint = isthmus("ping", address).complaint()
    assert why in complaint
    assert "\x1b" not in complaint


def test_an_id_alone_where_there_is_no_lan(isthmus, offline):
    complaint = isthmus("ping", STRANGER, prefix=offline).complaint()
    assert f"nobody on the LAN says that it is {STRANGER}" in complaint


def test_no_network(isthmus, offline):
    complaint = isthmus("ping", "/ip4/192.0.2.7/tcp/4001", prefix=offline).complaint()
    assert "this machine has no network that leads there" in complaint


def test_a_peer_that_does_not_answer_in_time(isthmus):
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"/ip4/127.0.0.1/tcp/{mute.getsockname()[1]}"
        complaint = isthmus("ping", address, "--timeout", "0.2").complaint()
    assert f"cannot connect to {address}: no connection within 0.2 s" in complaint


def test_a_key_file_that_is_not_there_is_not_made(isthmus, tmp_path):
    path = tmp_path / "none.key"
    complaint = isthmus("ping", LOOPBACK, "--identity", str(path)).complaint()
    assert complaint == (
        f"error: {path}: no such key file; 'isthmus id --identity {path}' makes one"
    )
    assert not path.exists()


@pytest.mark.parametrize("backend", EACH_BACKEND)
def test_a_peer_that_goes_away_meanwhile(isthmus, backend):
    daemon = isthmus.start("run", "--json", "--ephemeral", "--listen", LOOPBACK)
    call = isthmus.start(
        "ping", daemon.address(), "-c", "100000", "-i", "0.001", "--backend", backend
    )
    call.line(" ms")
    call.line(" ms")
    daemon.stop(signal.SIGKILL)
    done = call.finish()
    assert done.code == 1
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1
    assert "Traceback" not in done.err


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_call_is_cut_short_by_ctrl_c(isthmus, peer, backend):
    call = isthmus.start("ping", peer, "-c", "100000", "-i", "0.001", "--backend", backend)
    call.line(" ms")
    call.line(" ms")
    done = call.stop()
    assert (done.code, done.err) == (130, "")


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_perf_measures_both_ways(isthmus, peer, backend):
    options = ("--upload", "3MB", "--download", "2MiB", "--json", "--backend", backend)
    result = isthmus("perf", peer, *options).json()
    assert result["peer_id"] == peer.rpartition("/")[2]
    assert (result["upload_bytes"], result["download_bytes"]) == (3_000_000, 2 * 2**20)
    for way in ("upload", "download"):
        rate = result[f"{way}_bytes"] / 1e6 / result[f"{way}_seconds"]
        assert result[f"{way}_mb_s"] == pytest.approx(rate, rel=0.01)
    assert result["connect_ms"] > 0


def test_perf_measures_one_way(isthmus, peer):
    result = isthmus("perf", peer, "--upload", "0", "--download", "65536", "--json").json()
    assert (result["upload_mb_s"], result["upload_bytes"]) == (None, 0)
    assert result["download_mb_s"] > 0
    complaint = isthmus("perf", peer, "--upload", "0", "--download", "0").complaint(code=2)
    assert "both 0" in complaint


def test_perf_with_a_peer_that_does_not_serve_it(isthmus):
    daemon = isthmus.start("run", "--json", "--ephemeral", "--listen", LOOPBACK, "--no-perf")
    complaint = isthmus("perf", daemon.address(), "--json").complaint()
    assert "the peer does not serve /perf/1.0.0" in complaint
    assert "isthmus run --perf" in complaint


def test_perf_draws_a_bar_only_on_a_terminal(isthmus, peer):
    sizes = ("--upload", "4MB", "--download", "0")
    code, drawn = isthmus.on_terminal("perf", peer, *sizes, TERM="xterm")
    assert code == 0
    assert "4.0/4.0 MB" in drawn
    assert "MB/s" in drawn
    assert "0:00:00" in drawn
    code, drawn = isthmus.on_terminal("perf", peer, *sizes, "--json", TERM="xterm")
    assert code == 0
    assert json.loads(drawn)["upload_bytes"] == 4_000_000
    assert "4.0/4.0 MB" not in isthmus("perf", peer, *sizes).out
