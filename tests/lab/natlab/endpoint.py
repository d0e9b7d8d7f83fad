"""One end of a measurement on plain blocking sockets, as a process of its own.

Run by path, without site packages. The roles, each a line of arguments:
    receive IP TIMEOUT WARM_UP SECONDS      echo IP TIMEOUT
    send IP PORT TIMEOUT CONGESTION         ask IP PORT TIMEOUT SAMPLES SIZE
The first two write their port on the first line. Every wait in the kernel ends after TIMEOUT.
"""

from __future__ import annotations

import json
import socket
import struct
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_CHUNK = 65536
"""Bytes of one send()."""
_RECEIVE = 262144
"""Bytes of one recv()."""


def receive(ip: str, timeout: str, warm_up: str, seconds: str) -> None:
    """Count what arrives in the given seconds after the warm-up, then hang up."""
    buffer = bytearray(_RECEIVE)
    with _accept(ip, float(timeout)) as connection:
        begin = time.monotonic() + float(warm_up)
        while time.monotonic() < begin:
            _receive_some(connection, buffer)
        total, begin, now = 0, time.monotonic(), 0.0
        while (now := time.monotonic()) < begin + float(seconds):
            total += _receive_some(connection, buffer)
        _say({"bytes": total, "seconds": now - begin})


def send(ip: str, port: str, timeout: str, congestion: str) -> None:
    """Send until the other end hangs up, and say which congestion control was used."""
    data = bytes(_CHUNK)
    with _socket(float(timeout)) as connection:
        if congestion:
            option = congestion.encode()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, option)
        connection.connect((ip, int(port)))
        used = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
        with suppress(ConnectionError):
            while True:
                connection.sendall(data)
    _say({"congestion": used.rstrip(b"\0").decode()})


def echo(ip: str, timeout: str) -> None:
    """Send back what comes until the other end hangs up."""
    buffer = bytearray(_RECEIVE)
    view = memoryview(buffer)
    with _accept(ip, float(timeout)) as connection:
        while count := connection.recv_into(buffer):
            connection.sendall(view[:count])


def ask(ip: str, port: str, timeout: str, samples: str, size: str) -> None:
    """Measure round trips one after the other; the first, which also warms up, is left out."""
    question, times = bytes(int(size)), []
    buffer = bytearray(len(question))
    with _socket(float(timeout)) as connection:
        connection.connect((ip, int(port)))
        for _ in range(int(samples) + 1):
            begin = time.perf_counter()
            connection.sendall(question)
            left = len(question)
            while left:
                left -= _receive_some(connection, buffer)
            times.append(time.perf_counter() - begin)
    _say(times[1:])


def _receive_some(connection: socket.socket, buffer: bytearray) -> int:
    count = connection.recv_into(buffer)
    if not count:
        raise EOFError("the other end hung up")
    return count


def _accept(ip: str, timeout: float) -> socket.socket:
    with _socket(timeout) as listener:
        listener.bind((ip, 0))
        listener.listen(1)
        _say(listener.getsockname()[1])
        connection, _ = listener.accept()
    # Not inherited on Linux, unlike the timeouts, which cost nothing to repeat.
    return _configure(connection, timeout)


def _socket(timeout: float) -> socket.socket:
    return _configure(socket.socket(socket.AF_INET, socket.SOCK_STREAM), timeout)


def _configure(connection: socket.socket, timeout: float) -> socket.socket:
    # Not settimeout(): it makes the socket non-blocking and adds a poll() to every call.
    limit = struct.pack("@ll", int(timeout), int(timeout % 1 * 1e6))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _say(what: object) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    roles: dict[str, Callable[..., None]] = {f.__name__: f for f in (receive, send, echo, ask)}
    roles[sys.argv[1]](*sys.argv[2:])
