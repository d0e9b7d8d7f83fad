"""What goes wrong in anyone's first ten minutes, and the one sentence that each of it gets."""

from __future__ import annotations

import signal
import socket
import socketserver
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from isthmus.node.keystore import load_or_create

from .processes import LOOPBACK, watched

BACKENDS = ["asyncio", "trio"]
SLOW = pytest.mark.slow
ELSEWHERE = "see --data-dir, --identity and --ephemeral"
USES_THE_KEY = [("id",), ("run", "--listen", LOOPBACK), ("ping", "/ip4/127.0.0.1/tcp/1")]
KEEPS_A_KEY = USES_THE_KEY[:2]


@pytest.fixture
def key(isthmus):
    """The file of a key that was made."""
    file = isthmus.data_dir / "identity.key"
    load_or_create(file)
    return file


@contextmanager
def serving(answer):
    """Serve connections on loopback by `answer(socket)`, each to its end; give the address."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self):
            answer(self.request)

    with socketserver.TCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"/ip4/127.0.0.1/tcp/{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("command", USES_THE_KEY)
def test_a_key_that_others_can_read(isthmus, key, command):
    key.chmod(0o644)
    complaint = isthmus(*command).complaint()
    assert complaint == (
        f"error: {key}: others can read or change this private key; run: chmod 600 {key}"
    )


@pytest.mark.parametrize("command", USES_THE_KEY)
def test_a_key_that_this_account_may_not_read(isthmus, key, command, unprivileged):
    key.chmod(0)
    complaint = isthmus(*command, prefix=unprivileged).complaint()
    assert complaint == (
        f"error: {key}: Permission denied: this account may not use it; {ELSEWHERE}"
    )


@pytest.mark.parametrize(
    ("command", "part"),
    [(USES_THE_KEY[0], b""), (USES_THE_KEY[0], b"garbage")]
    + [(command, b"the first half") for command in USES_THE_KEY]
    + [
        pytest.param(command, part, marks=SLOW)
        for command in USES_THE_KEY[1:]
        for part in (b"", b"garbage")
    ],
)
def test_a_key_that_is_damaged(isthmus, key, command, part):
    whole = key.read_bytes()
    key.write_bytes(whole[: len(whole) // 2] if part == b"the first half" else part)
    complaint = isthmus(*command).complaint()
    assert complaint.startswith(f"error: {key}: not a private key: ")
    assert complaint.endswith("put a copy of it back, or remove the file to be someone new")


@pytest.mark.parametrize("command", USES_THE_KEY)
def test_a_directory_in_the_place_of_the_key(isthmus, key, command):
    key.unlink()
    key.mkdir()
    complaint = isthmus(*command).complaint()
    assert f"{key}: the identity key must be a regular file, and this is a directory" in complaint


@pytest.mark.parametrize("command", KEEPS_A_KEY)
def test_a_data_directory_that_cannot_be_written_to(isthmus, command, unprivileged):
    isthmus.data_dir.mkdir(mode=0o500)
    complaint = isthmus(*command, prefix=unprivileged).complaint()
    assert f"error: {isthmus.data_dir}/" in complaint
    assert complaint.endswith(f": Permission denied: this account may not use it; {ELSEWHERE}")
    assert list(isthmus.data_dir.iterdir()) == []


@pytest.mark.parametrize("command", USES_THE_KEY)
def test_a_data_directory_that_cannot_be_looked_into(isthmus, key, command, unprivileged):
    isthmus.data_dir.chmod(0)
    complaint = isthmus(*command, prefix=unprivileged).complaint()
    isthmus.data_dir.chmod(0o700)
    assert complaint.startswith(f"error: {isthmus.data_dir}/")
    assert complaint.endswith(f": Permission denied: this account may not use it; {ELSEWHERE}")


@pytest.mark.parametrize("command", KEEPS_A_KEY)
def test_a_file_in_the_place_of_the_data_directory(isthmus, command):
    isthmus.data_dir.write_text("")
    complaint = isthmus(*command).complaint()
    assert complaint.endswith(f": a file stands where a directory should be; {ELSEWHERE}")


@pytest.mark.parametrize("command", KEEPS_A_KEY)
def test_a_place_where_no_directory_can_be(isthmus, command):
    if not Path("/proc/self").exists():
        pytest.skip("needs /proc, where nobody makes directories")
    complaint = isthmus(*command, "--data-dir", "/proc/isthmus").complaint()
    assert complaint.endswith(f": no directory can be made there; {ELSEWHERE}")


def test_a_full_disk_is_told_with_what_to_do(isthmus):
    # Without the measuring of the coverage, which would want to write, too.
    full = ("sh", "-c", 'unset COVERAGE_PROCESS_CONFIG; ulimit -f 0; exec "$@"', "sh")
    complaint = isthmus("id", prefix=full).complaint()
    assert complaint.endswith(f"File too large: make room, or {ELSEWHERE}")


def test_a_port_that_is_the_systems(isthmus, unprivileged):
    setting = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
    if not setting.exists() or int(setting.read_text("utf-8")) <= 81:
        pytest.skip("here every account may listen on port 81")
    command = ("run", "--ephemeral", "--listen", "/ip4/127.0.0.1/tcp/81")
    complaint = isthmus(*command, prefix=unprivileged).complaint()
    assert "Permission denied: choose a port above 1023 with --listen" in complaint


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("127.0.0.1:4001", "/ip4/127.0.0.1/tcp/4001"),
        ("[::1]:4001", "/ip6/::1/tcp/4001"),
        ("tcp://peer.example:4001/", "/dns/peer.example/tcp/4001"),
        ("/ipv4/127.0.0.1/tcp/4001", "/ip4/127.0.0.1/tcp/4001"),
        ("/ip4/127.0.0.1/TCP/4001", "/ip4/127.0.0.1/tcp/4001"),
        ("/ip4/127.0.0.1/tpc/4001", "/ip4/127.0.0.1/tcp/4001"),
    ],
)
@pytest.mark.parametrize(
    "command", [("ping",), pytest.param(("run", "--ephemeral", "--listen"), marks=SLOW)]
)
def test_an_address_that_was_meant_otherwise(isthmus, command, typed, meant):
    assert isthmus(*command, typed).complaint().endswith(f"; did you mean {meant}?")


NOBODY_CAN_GUESS = [
    "",
    "192.0.2.7",
    "peer.example",
    "127.0.0.1:99999",
    "/ip4/127.0.0.300/tcp/4001",
    "/ip4/127.0.0.1/tcp",
    "/ip4/127.0.0.1/tcp/http",
    "/ip4/127.0.0.1/tcp/4001/p2p/12D3KooW...",
    "/zzz/1",
]
GUESSED_AT_LISTEN = ("", "/ip4/127.0.0.1/tcp/http")


@pytest.mark.parametrize("typed", NOBODY_CAN_GUESS)
def test_an_address_that_nobody_can_guess(isthmus, typed):
    assert "; an address looks like /ip4/192.0.2.7/tcp/4001" in isthmus("ping", typed).complaint()


@pytest.mark.parametrize(
    "typed",
    [
        each if each in GUESSED_AT_LISTEN else pytest.param(each, marks=SLOW)
        for each in NOBODY_CAN_GUESS
    ],
)
def test_a_place_to_listen_that_nobody_can_guess(isthmus, typed):
    listen = isthmus("run", "--ephemeral", "--listen", typed).complaint()
    assert "; an address looks like /ip4/0.0.0.0/tcp/4001" in listen


@pytest.mark.parametrize("typed", ["/ip4/127.0.0.1", "/ip4/127.0.0.1/udp/4001/quic-v1"])
def test_an_address_that_isthmus_cannot_use(isthmus, typed):
    complaint = isthmus("ping", typed).complaint()
    assert f"no transport of this node can use {typed}; an address that it can use" in complaint


def test_a_name_is_nothing_to_listen_on(isthmus):
    complaint = isthmus("run", "--ephemeral", "--listen", "/dns4/localhost/tcp/0").complaint()
    assert complaint.endswith("; one to listen on looks like /ip4/0.0.0.0/tcp/4001")


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_name_that_nobody_resolves(isthmus, backend, offline):
    address = "/dns4/nowhere.invalid/tcp/4001"
    complaint = isthmus("ping", address, "--backend", backend, prefix=offline).complaint()
    assert f"cannot connect to {address}: nowhere.invalid cannot be resolved: " in complaint
    assert "no name server answers; is this machine on a network?" in complaint


MUTE_NAME_SERVER = """
import os, socket, subprocess, sys, tempfile
with tempfile.NamedTemporaryFile("w", delete=False) as file:
    file.write("nameserver 127.0.0.1\\n")
subprocess.run(["mount", "--bind", file.name, "/etc/resolv.conf"], check=True)
os.unlink(file.name)
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.1", 53))
server.set_inheritable(True)
os.execvp(sys.argv[1], sys.argv[1:])
"""
"""Starts a program where the name server takes questions and never answers."""


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_name_server_that_is_silent_holds_nobody(isthmus, backend, offline):
    prefix = (*offline, "unshare", "--mount", sys.executable, "-c", MUTE_NAME_SERVER)
    began = time.monotonic()
    done = isthmus(
        "ping", "/dns4/peer.example/tcp/1", "--timeout", "0.5", "--backend", backend, prefix=prefix
    )
    assert "no connection within 0.5 s" in done.complaint()
    # The system's own patience is ten seconds.
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_name_that_is_none(isthmus, backend):
    complaint = isthmus("ping", "/dns4/no..where/tcp/4001", "--backend", backend).complaint()
    assert "no..where cannot be resolved: " in complaint
    # uvloop asks the system, which knows of no such name, before it looks at what it is.
    assert complaint.endswith((": it is no name", ": is it spelled right?"))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_machine_without_ipv6_calls_one(isthmus, backend, offline):
    address = "/ip6/2001:db8::1/tcp/4001"
    complaint = isthmus("ping", address, "--backend", backend, prefix=offline).complaint()
    assert complaint.startswith(f"error: cannot connect to {address}: ")
    assert ": this machine has no " in complaint


def test_a_machine_without_ipv6_listens_on_it(isthmus, offline):
    listen = ("run", "--ephemeral", "--listen", "/ip6/::1/tcp/0")
    complaint = isthmus(*listen, prefix=offline).complaint()
    assert "cannot listen on /ip6/::1/tcp/0: " in complaint
    assert complaint.endswith("; see --listen")


@pytest.mark.parametrize("backend", BACKENDS)
def test_whoever_answers_is_no_node(isthmus, backend):
    def web(connection):
        connection.recv(1024)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with serving(web) as address:
        complaint = isthmus("ping", address, "--backend", backend).complaint()
    assert f"cannot connect to {address}: what answers there does not speak libp2p" in complaint


@pytest.mark.parametrize("backend", BACKENDS)
def test_whoever_answers_hangs_up(isthmus, backend):
    def hang_up(connection):
        # So that the system says it at once, whatever has come in.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    with serving(hang_up) as address:
        complaint = isthmus("ping", address, "--backend", backend).complaint()
    assert f"error: cannot connect to {address}: " in complaint
    # It may be met while it connects, writes or reads; whichever it is, this is what to look at.
    no_node = "is it a libp2p node that listens there?", "what answers there does not speak libp2p"
    assert any(advice in complaint for advice in no_node)


@pytest.mark.parametrize(
    ("sizes", "backend"),
    [
        (("--upload", "1TB"), "asyncio"),
        pytest.param(("--upload", "1TB"), "trio", marks=SLOW),
        pytest.param(("--upload", "0", "--download", "1TB"), "asyncio", marks=SLOW),
        (("--upload", "0", "--download", "1TB"), "trio"),
    ],
)
def test_a_peer_that_goes_away_in_the_middle_of_perf(isthmus, sizes, backend):
    daemon = isthmus.start("run", "--json", "--ephemeral", "--listen", LOOPBACK)
    perf = isthmus.start("perf", daemon.address(), *sizes, "--backend", backend)
    perf.line("connected to")
    daemon.event("connection_opened")
    daemon.stop(signal.SIGKILL)
    complaint = perf.finish().complaint()
    assert "reset" in complaint or "closed" in complaint or "broke" in complaint


@pytest.mark.parametrize(
    "command", [("run", "--ephemeral", "--listen", LOOPBACK), ("demo",), ("completion", "fish")]
)
def test_an_output_that_takes_no_more(isthmus, command):
    full = ("sh", "-c", 'exec "$@" > /dev/full', "sh")
    complaint = isthmus(*command, prefix=full).complaint()
    assert complaint == "error: cannot write the output: No space left on device"


def test_a_second_one_of_the_same_account(isthmus):
    first = isthmus.start("run", "--json", "--listen", LOOPBACK)
    first.address()
    complaint = isthmus("run", "--listen", LOOPBACK).complaint()
    assert complaint == (
        f"error: {isthmus.data_dir}: already running as PID {first.pid};"
        " use --data-dir or --ephemeral"
    )
    # The lock goes with the process, however that ends.
    with watched(first.pid) as ended:
        first.stop(signal.SIGKILL)
        ended()
    isthmus.start("run", "--json", "--listen", LOOPBACK).address()
