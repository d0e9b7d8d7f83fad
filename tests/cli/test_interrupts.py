"""Ctrl-C at any moment: the program ends, says nothing, and leaves nothing behind."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys

import pytest

from .processes import INTERRUPTED, LOOPBACK, has_loaded, until

BACKENDS = ["asyncio", "trio"]
STRANGER = "12D3KooWGJAmQyRkvK6Cf7Jr3zhMmtLX2Q8d2hKS9sMLUFWEPTpo"
ADDRESS = f"/ip4/127.0.0.1/tcp/1/p2p/{STRANGER}"


@pytest.fixture
def mute():
    """A server that accepts and says nothing, with its address."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(15)
        yield server, f"/ip4/127.0.0.1/tcp/{server.getsockname()[1]}"


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux what is loaded")
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "command", [("run", "--listen", LOOPBACK), ("ping", ADDRESS), ("perf", ADDRESS), ("demo",)]
)
def test_while_it_loads(isthmus, command, backend):
    program = isthmus.start(*command, "--backend", backend)
    until(lambda: has_loaded(program.pid, "_cffi_backend") or has_loaded(program.pid, "_rust"))
    done = program.stop()
    assert done.code in (INTERRUPTED if command[0] != "run" else (0, *INTERRUPTED))
    assert "Traceback" not in done.err
    assert done.err.count("\n") <= 1


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("command", ["ping", "perf"])
def test_while_it_connects(isthmus, mute, command, backend):
    server, address = mute
    program = isthmus.start(command, address, "--backend", backend)
    connection, _ = server.accept()
    with connection:
        done = program.stop()
    assert (done.code, done.err, done.out) == (130, "", "")


@pytest.mark.parametrize("backend", BACKENDS)
def test_while_perf_carries(isthmus, peer, backend):
    program = isthmus.start("perf", peer, "--upload", "1TB", "--backend", backend)
    program.line("connected to")
    done = program.stop()
    assert (done.code, done.err, done.out) == (130, "", "")


def test_while_a_bar_is_drawn(isthmus, peer):
    sent = []

    def interrupt(process, drawn):
        if "B/s" in drawn and not sent:
            sent.append(process.pid)
            process.send_signal(signal.SIGINT)

    code, drawn = isthmus.on_terminal(
        "perf", peer, "--upload", "1TB", on_drawn=interrupt, TERM="xterm"
    )
    assert code == 130
    assert "Traceback" not in drawn
    assert drawn.rindex("\x1b[?25h") > drawn.rindex("\x1b[?25l")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("command", ["run", "ping"])
def test_more_than_once(isthmus, peer, command, backend):
    if command == "run":
        program = isthmus.start("run", "--listen", LOOPBACK, "--backend", backend)
        program.line("Ctrl-C stops")
    else:
        program = isthmus.start("ping", peer, "-c", "1000000", "--backend", backend)
        program.line(" ms")
    for _ in range(5):
        program.send_signal(signal.SIGINT)
    done = program.finish()
    assert done.code in (0, *INTERRUPTED)
    assert done.err in ("", "\n")


@pytest.mark.parametrize("command", ["ping", "perf"])
def test_a_polite_kill_is_told_by_the_exit_code(isthmus, mute, command):
    server, address = mute
    program = isthmus.start(command, address)
    connection, _ = server.accept()
    with connection:
        done = program.stop(signal.SIGTERM)
    assert (done.code, done.err) == (128 + signal.SIGTERM, "")


def test_the_handler_of_others_is_left_alone():
    script = (
        "import signal; from isthmus.node.cli.interrupts import end_at_once, "
        "raise_keyboard_interrupt as restore\n"
        "for handler in (signal.SIG_IGN, print):\n"
        "    signal.signal(signal.SIGINT, handler); end_at_once(); restore()\n"
        "    assert signal.getsignal(signal.SIGINT) is handler\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler); end_at_once()\n"
        "assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL; restore()\n"
        "assert signal.getsignal(signal.SIGINT) is signal.default_int_handler\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
