"""`isthmus run`: what it prints, keeps, refuses, and how it stops."""

from __future__ import annotations

import json
import signal
import socket
import stat
import time
from contextlib import closing

import pytest
from isthmus import Node
from isthmus.node.store.database import Database

from ..transports.websocket.authority import Authority

LOOPBACK = "/ip4/127.0.0.1/tcp/0"
ID = "12D3KooW"


@pytest.mark.parametrize(
    ("backend", "sig"),
    [
        ("asyncio", signal.SIGINT),
        pytest.param("asyncio", signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param("trio", signal.SIGINT, marks=pytest.mark.slow),
        ("trio", signal.SIGTERM),
    ],
)
def test_says_where_it_listens_and_stops_cleanly_on_a_signal(isthmus, backend, sig):
    daemon = isthmus.start("run", "--json", "--listen", LOOPBACK, "--backend", backend)
    first = json.loads(daemon.line())
    assert first["event"] == "listening"
    assert abs(first["time"] - time.time()) < 60
    assert first["peer_id"].startswith(ID)
    (address,) = first["addresses"]
    assert address.startswith("/ip4/127.0.0.1/tcp/")
    assert address.endswith(f"/p2p/{first['peer_id']}")
    done = daemon.stop(sig)
    assert (done.code, done.err) == (0, "")


def test_every_line_is_an_event_and_a_ping_of_another_process_is_seen(isthmus, tmp_path):
    daemon = isthmus.start("run", "--json", "--listen", LOOPBACK)
    address = daemon.address()
    caller = str(tmp_path / "caller.key")
    who = isthmus("id", "--identity", caller, "--json").json()["peer_id"]
    isthmus("ping", address, "--identity", caller, "-c", "1", "--json").json()
    assert daemon.event("connection_opened")["peer"] == who
    assert daemon.event("connection_ended")["peer"] == who
    rest = daemon.stop().out
    for line in [*daemon.lines, *rest.splitlines()]:
        event = json.loads(line)
        assert isinstance(event["event"], str)
        assert isinstance(event["time"], float)


def test_people_are_told_who_where_which_key_and_what_to_paste(isthmus):
    daemon = isthmus.start("run", "--listen", LOOPBACK)
    daemon.line("Ctrl-C")
    text = "\n".join(daemon.lines)
    peer_id = isthmus("id").out.strip()
    assert f"peer id    {peer_id}" in text
    assert f"{isthmus.data_dir / 'identity.key'} (new)" in text
    assert "\x1b" not in text
    (pasted,) = [line.split() for line in daemon.lines if line.startswith("  isthmus ping ")]
    # The same data directory, hence the same key: it must work on the same machine, too.
    done = isthmus(*pasted[1:], "-c", "2")
    assert (done.code, done.err) == (0, "")
    assert "connected to" in done.out
    daemon.line("connection from")
    done = daemon.stop()
    assert (done.code, done.err) == (0, "")
    assert done.out.endswith("stopped\n")


def test_a_second_one_is_refused_and_told_what_to_do(isthmus):
    daemon = isthmus.start("run", "--json", "--listen", LOOPBACK)
    daemon.address()
    complaint = isthmus("run", "--listen", LOOPBACK).complaint()
    assert f"already running as PID {daemon.pid}; use --data-dir or --ephemeral" in complaint
    beside = isthmus.start("run", "--json", "--listen", LOOPBACK, "--ephemeral")
    assert beside.address() != daemon
    assert daemon.stop().code == 0
    after = isthmus.start("run", "--json", "--listen", LOOPBACK)
    after.address()


def test_ephemeral_keeps_nothing(isthmus):
    daemon = isthmus.start("run", "--listen", LOOPBACK, "--ephemeral")
    daemon.line("Ctrl-C")
    assert "key        on no disk: it is gone when this node stops" in daemon.lines
    assert daemon.stop().code == 0
    assert not isthmus.data_dir.exists()


def test_whom_it_has_met_is_kept(isthmus, tmp_path):
    daemon = isthmus.start("run", "--json", "--listen", LOOPBACK)
    address = daemon.address()
    caller = str(tmp_path / "caller.key")
    who = isthmus("id", "--identity", caller, "--json").json()["peer_id"]
    isthmus("ping", address, "--identity", caller, "-c", "1", "--json").json()
    assert daemon.event("connection_ended")["peer"] == who
    assert daemon.stop().code == 0
    path = isthmus.data_dir / "isthmus.sqlite3"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with closing(Database(path)) as database:
        assert [str(each.peer) for each in database.open(0.0).contents.peers] == [who]


def test_a_store_that_cannot_be_used_is_told_and_the_node_goes_on(isthmus, unprivileged):
    daemon = isthmus.start("run", "--json", "--listen", LOOPBACK)
    daemon.address()
    assert daemon.stop().code == 0
    path = isthmus.data_dir / "isthmus.sqlite3"
    path.chmod(0o400)
    daemon = isthmus.start("run", "--json", "--listen", LOOPBACK, prefix=unprivileged)
    address = daemon.address()
    degraded = daemon.event("store_degraded")
    assert degraded["path"] == str(path)
    assert "this account may not write it" in degraded["reason"]
    isthmus("ping", address, "-c", "1", "--json").json()
    done = daemon.stop()
    assert (done.code, done.err) == (0, "")


def test_a_damaged_store_is_told_in_plain_words(isthmus):
    isthmus.data_dir.mkdir()
    path = isthmus.data_dir / "isthmus.sqlite3"
    path.write_bytes(b"nonsense" * 100)
    daemon = isthmus.start("run", "--listen", LOOPBACK)
    line = daemon.line("in memory only")
    assert f"{path}: damaged (file is not a database), and moved to {path}.corrupt-" in line
    daemon.line(f"what is known of peers is kept again: {path}")
    assert daemon.stop().code == 0


def test_the_key_is_its_owners_alone(isthmus):
    made = isthmus("id", "--json").json()
    assert made == {
        "peer_id": made["peer_id"],
        "key_path": str(isthmus.data_dir / "identity.key"),
        "created": True,
    }
    path = isthmus.data_dir / "identity.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert isthmus("id").out == made["peer_id"] + "\n"
    path.chmod(0o640)
    for command in (["run", "--listen", LOOPBACK], ["id"], ["ping", LOOPBACK]):
        assert f"run: chmod 600 {path}" in isthmus(*command).complaint()


def test_another_key_file_can_be_named(isthmus, tmp_path):
    path = tmp_path / "other.key"
    other = isthmus("id", "--identity", str(path)).out.strip()
    daemon = isthmus.start("run", "--json", "--listen", LOOPBACK, "--identity", str(path))
    assert daemon.event("listening")["peer_id"] == other
    assert not (isthmus.data_dir / "identity.key").exists()
    path.write_bytes(b"no key")
    assert f"{path}: not a private key" in isthmus("id", "--identity", str(path)).complaint()


def test_a_busy_port_is_named_with_what_to_do(isthmus):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"/ip4/127.0.0.1/tcp/{taken.getsockname()[1]}"
        complaint = isthmus("run", "--listen", address, "--ephemeral").complaint()
    assert f"cannot listen on {address}" in complaint
    assert "choose another with --listen" in complaint


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("nonsense", "is no multiaddr"),
        ("/ip4/127.0.0.1/udp/4001", "no transport"),
        ("/ip4/198.51.100.1/tcp/0", "no interface of this machine has this address"),
    ],
)
def test_an_address_that_cannot_be_listened_on(isthmus, address, why):
    assert why in isthmus("run", "--ephemeral", "--listen", address).complaint()


def test_the_default_port_is_chosen_once(isthmus):
    daemon = isthmus.start("run", "--json", "--no-lan")
    addresses = daemon.event("listening")["addresses"]
    assert daemon.stop().code == 0
    ports = {address.split("/")[4] for address in addresses}
    assert len(ports) == 1
    assert any(address.startswith("/ip4/127.0.0.1/tcp/") for address in addresses)
    again = isthmus.start("run", "--json", "--no-lan")
    assert again.event("listening")["addresses"] == addresses
    assert again.stop().code == 0
    path = isthmus.data_dir / "port"
    assert path.read_text() == f"{ports.pop()}\n"
    with socket.create_server(("0.0.0.0", int(path.read_text()))):
        assert f"or remove {path} to be given a new one" in isthmus("run", "--no-lan").complaint()
    path.write_text("many\n")
    assert f"{path}: not a port number" in isthmus("run", "--no-lan").complaint()


def test_without_ipv6_it_says_so_and_goes_on(isthmus, offline):
    daemon = isthmus.start("run", "--json", prefix=offline)
    (address,) = daemon.event("listening")["addresses"]
    assert address.startswith("/ip4/127.0.0.1/tcp/")
    done = daemon.stop()
    assert (done.code, done.err) == (
        0,
        "isthmus: this machine has no IPv6: listening on IPv4 only\n",
    )


@pytest.mark.parametrize(
    ("options", "echo", "perf"),
    [
        (["--listen", LOOPBACK], True, True),
        (["--listen", LOOPBACK, "--no-echo"], False, True),
        (["--listen", LOOPBACK, "--listen", "/ip4/0.0.0.0/tcp/0", "--no-lan"], False, False),
        (["--listen", "/ip4/0.0.0.0/tcp/0", "--echo", "--perf", "--no-lan"], True, True),
    ],
)
def test_echo_and_perf_are_served_unasked_only_on_loopback(isthmus, options, echo, perf):
    daemon = isthmus.start("run", "--ephemeral", *options)
    served = daemon.line("serves")
    assert ("/echo/1.0.0" in served, "/perf/1.0.0" in served) == (echo, perf)
    assert "/ipfs/ping/1.0.0" in served


async def test_the_echo_answers(peer):
    async with Node() as node:
        assert await node.request(peer, "/echo/1.0.0", b"hello" * 1000) == b"hello" * 1000


def test_a_data_directory_that_cannot_be(isthmus, tmp_path):
    (tmp_path / "file").write_text("")
    path = str(tmp_path / "file" / "data")
    assert "Not a directory" in isthmus("run", "--data-dir", path).complaint()
    assert "Not a directory" in isthmus("id", "--data-dir", path).complaint()


def test_a_disk_that_takes_no_more(isthmus):
    # Without the measuring of the coverage, which would want to write, too.
    full = ("sh", "-c", 'unset COVERAGE_PROCESS_CONFIG; ulimit -f 0; exec "$@"', "sh")
    for command in (["id"], ["run", "--listen", LOOPBACK]):
        complaint = isthmus(*command, prefix=full).complaint()
        assert f"{isthmus.data_dir}/" in complaint
        assert "File too large" in complaint
    assert not (isthmus.data_dir / "identity.key").exists()


def test_it_stops_when_nobody_reads_any_more(isthmus):
    daemon = isthmus.start("run", "--json", "--ephemeral", "--listen", LOOPBACK)
    address = daemon.address()
    daemon.close_stdout()
    isthmus("ping", address, "-c", "1")
    done = daemon.finish()
    assert (done.code, done.err) == (1, "")


def test_listens_on_websocket_with_and_without_a_certificate(isthmus, tmp_path):
    files = Authority(tmp_path).issue()
    tls = ["--tls-cert", str(files.cert_file), "--tls-key", str(files.key_file)]
    listen = ["--listen", f"{LOOPBACK}/ws", "--listen", f"{LOOPBACK}/tls/ws"]
    daemon = isthmus.start("run", "--json", *listen, *tls)
    plain, secure = json.loads(daemon.line())["addresses"]
    assert "/ws/p2p/" in plain
    assert "/tls/ws/p2p/" in secure
    assert isthmus("ping", plain, "-c", "1", "--ephemeral", "--json").code == 0
    complaint = isthmus("ping", secure, "-c", "1", "--ephemeral").complaint()
    assert f"cannot connect to {secure}: the certificate is refused" in complaint
    assert "the setting ca_file" in complaint


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--listen", f"{LOOPBACK}/tls/ws"], "--tls-cert"),
        (["--tls-cert", "node.pem"], "go together"),
        (["--tls-key", "node.key"], "go together"),
        (["--listen", f"{LOOPBACK}/wss", "--tls-cert", "/no.pem", "--tls-key", "/no.key"], "/no"),
    ],
)
def test_certificates_that_are_not_there(isthmus, options, why):
    assert why in isthmus("run", *options).complaint()


@pytest.mark.parametrize(("hard", "files"), [(500, 500), (4096, 768)])
def test_it_has_the_system_allow_as_many_open_files_as_connections_need(isthmus, hard, files):
    script = f'ulimit -Hn 4096; ulimit -Sn 200; ulimit -Hn {hard}; exec "$@"'
    arguments = ("run", "--json", "--ephemeral", "--listen", LOOPBACK)
    daemon = isthmus.start(*arguments, prefix=("sh", "-c", script, "sh"))
    daemon.address()
    resource = pytest.importorskip("resource")
    assert resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE) == (files, hard)
    said = daemon.stop().err
    assert ("limits.connections 512 may need 768" in said) == (hard < 768)
