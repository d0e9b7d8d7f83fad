"""What the machine allows, as peer programs: blocking sockets, with and without the cipher.

`python -m isthmus.benchmarks.baselines raw|bare|aead`, with the contract of `peers.control` as far
as it makes sense without streams: connect, bench_throughput and bench_echo. `raw` moves bytes over
one TCP connection, `bare` moves them in records of 65 535 bytes under ChaCha20-Poly1305 (its keys
are constants: it has the cost of a secure channel, and is none), `aead` only encrypts, 64 KiB at a
time, in one thread. Nothing here is a network protocol for anybody else.
"""

from __future__ import annotations

import json
import socket
import struct
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Protocol

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from ..transports.sockets import settle_allocator
from .peers.isthmus_bench import WARM_UP_ECHOES, summary

if TYPE_CHECKING:
    from collections.abc import Callable

BLOCK = bytes(65_536)
READ_SIZE = 262_144
TAG = 16
MAX_PLAINTEXT = 65_519
"""What the longest record holds beside its tag, as in libp2p's Noise."""
ORDER = struct.Struct(">cQQ")
"""What the dialer asks next: U, bytes up, bytes down; or E, echoes, bytes of each."""
ANSWER = struct.Struct(">Q")
KEYS = bytes(32), bytes([1]) * 32
"""Of the dialer's direction and of the listener's."""


class Channel(Protocol):
    """Blocking bytes between the two ends."""

    def send(self, data: bytes) -> None:
        """Send all of it."""

    def receive(self, most: int) -> bytes | memoryview:
        """Return at least one byte, and at most so many; raises EOFError at the end."""


class Raw:
    """A TCP connection as it is."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._buffer = memoryview(bytearray(READ_SIZE))

    def send(self, data: bytes) -> None:
        """Send all of it."""
        self._socket.sendall(data)

    def receive(self, most: int) -> memoryview:
        """Return what has come, in memory that the next call uses again."""
        size = self._socket.recv_into(self._buffer, min(most, READ_SIZE))
        if not size:
            raise EOFError
        return self._buffer[:size]


class Bare:
    """The same with every byte encrypted in one record after the other, and nothing else."""

    def __init__(self, sock: socket.socket, *, is_dialer: bool) -> None:
        self._socket = sock
        sending, receiving = KEYS if is_dialer else KEYS[::-1]
        self._encrypt_into = ChaCha20Poly1305(sending).encrypt_into
        self._record = memoryview(bytearray(2 + MAX_PLAINTEXT + TAG))
        self._decrypt = ChaCha20Poly1305(receiving).decrypt
        self._sent = self._received = 0
        self._buffer = bytearray(READ_SIZE)
        self._start = self._end = 0
        self._plaintext = memoryview(b"")

    def send(self, data: bytes) -> None:
        """Send all of it, in records as long as they may be."""
        view = memoryview(data)
        while view:
            part, view = view[:MAX_PLAINTEXT], view[MAX_PLAINTEXT:]
            end = 2 + len(part) + TAG
            struct.pack_into(">H", self._record, 0, end - 2)
            nonce = struct.pack("<4xQ", self._sent)
            self._encrypt_into(nonce, part, None, self._record[2:end])
            self._sent += 1
            self._socket.sendall(self._record[:end])

    def receive(self, most: int) -> memoryview:
        """Return what is left of the last record, or the next one."""
        if not self._plaintext:
            self._plaintext = memoryview(self._next_record())
        taken, self._plaintext = self._plaintext[:most], self._plaintext[most:]
        return taken

    def _next_record(self) -> bytes:
        self._need(2)
        (length,) = struct.unpack_from(">H", self._buffer, self._start)
        self._need(2 + length)
        start = self._start + 2
        self._start = start + length
        sealed = memoryview(self._buffer)[start : self._start]
        nonce = struct.pack("<4xQ", self._received)
        self._received += 1
        return self._decrypt(nonce, sealed, None)

    def _need(self, size: int) -> None:
        """Read until the buffer holds so many bytes from `start`."""
        if self._end - self._start < size and self._start + size > READ_SIZE:
            left = self._buffer[self._start : self._end]
            self._buffer[: len(left)] = left
            self._start, self._end = 0, len(left)
        while self._end - self._start < size:
            if self._start == self._end:
                self._start = self._end = 0
            got = self._socket.recv_into(memoryview(self._buffer)[self._end :])
            if not got:
                raise EOFError
            self._end += got


def receive_exactly(channel: Channel, size: int) -> bytes:
    """Return so many bytes; raises EOFError if there are fewer."""
    data = bytes(channel.receive(size))
    while len(data) < size:
        data += channel.receive(size - len(data))
    return data


def drain(channel: Channel, size: int) -> None:
    """Receive so many bytes and forget them."""
    while size:
        size -= len(channel.receive(size))


def pour(channel: Channel, size: int) -> None:
    """Send so many zeros."""
    whole, rest = divmod(size, len(BLOCK))
    for _ in range(whole):
        channel.send(BLOCK)
    if rest:
        channel.send(BLOCK[:rest])


def serve(channel: Channel) -> None:
    """Do what the dialer orders, until it ends."""
    while True:
        try:
            order, first, second = ORDER.unpack(receive_exactly(channel, ORDER.size))
        except (EOFError, OSError):
            return
        if order == b"U":
            drain(channel, first)
            channel.send(ANSWER.pack(first))
            pour(channel, second)
        else:
            for _ in range(first):
                channel.send(receive_exactly(channel, second))


class Baseline:
    """The commands; `wrap` makes a channel of a socket, for the dialer or for the listener."""

    def __init__(self, wrap: Callable[[socket.socket, bool], Channel]) -> None:
        self._wrap = wrap
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._channels: dict[str, Channel] = {}

    def listen(self) -> str:
        """Serve connections from now on, and return where."""
        threading.Thread(target=self._accept, daemon=True).start()
        host, port = self._listener.getsockname()
        return f"{host}:{port}"

    def connect(self, address: str) -> dict[str, Any]:
        """Connect, unless that is done."""
        self._channel(address)
        return {"peer_id": address}

    def throughput(
        self, address: str, direction: str = "up", streams: int = 1, **options: int
    ) -> dict[str, Any]:
        """Move bytes one way; `up` ends when the answer to the last byte has come.

        Raises ValueError for more streams than the one a connection is.
        """
        if streams != 1:
            raise ValueError("a TCP connection is one stream")
        channel, size = self._channel(address), options["bytes"]
        up, down = (size, 0) if direction == "up" else (0, size)
        start = time.perf_counter()
        channel.send(ORDER.pack(b"U", up, down))
        pour(channel, up)
        receive_exactly(channel, ANSWER.size)
        drain(channel, down)
        return rate(size, time.perf_counter() - start)

    def echo(self, address: str, count: int = 2000, size: int = 32) -> dict[str, Any]:
        """Measure echoes, one after the other."""
        channel, payload = self._channel(address), bytes([7]) * size
        channel.send(ORDER.pack(b"E", WARM_UP_ECHOES + count, size))
        samples = []
        for _ in range(WARM_UP_ECHOES + count):
            start = time.perf_counter()
            channel.send(payload)
            receive_exactly(channel, size)
            samples.append((time.perf_counter() - start) * 1e6)
        figures = summary(samples[WARM_UP_ECHOES:])
        return {"p50_us": figures["p50"], "p99_us": figures["p99"]}

    @property
    def commands(self) -> dict[str, Callable[..., dict[str, Any]]]:
        """By the names of the contract."""
        return {
            "connect": self.connect,
            "bench_throughput": self.throughput,
            "bench_echo": self.echo,
        }

    def _channel(self, address: str) -> Channel:
        if address not in self._channels:
            host, _, port = address.rpartition(":")
            sock = socket.create_connection((host, int(port)))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._channels[address] = self._wrap(sock, True)  # noqa: FBT003 - is_dialer
        return self._channels[address]

    def _accept(self) -> None:
        while True:
            sock, _ = self._listener.accept()
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            channel = self._wrap(sock, False)  # noqa: FBT003 - is_dialer
            threading.Thread(target=serve, args=(channel,), daemon=True).start()


def encrypt_only(**options: Any) -> dict[str, Any]:  # noqa: ANN401 - the contract's arguments
    """Encrypt 64 KiB at a time, as often as it takes."""
    encrypt = ChaCha20Poly1305(KEYS[0]).encrypt
    count = max(1, options["bytes"] // len(BLOCK))
    start = time.perf_counter()
    for number in range(count):
        encrypt(struct.pack("<4xQ", number), BLOCK, None)
    return rate(count * len(BLOCK), time.perf_counter() - start)


def rate(size: int, seconds: float) -> dict[str, Any]:
    """Return a throughput as the contract has it."""
    return {"mb_s": size / 1e6 / seconds, "seconds": seconds}


def say(message: dict[str, Any]) -> None:
    """Print one line of JSON."""
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def main(kind: str) -> None:
    """Serve until stdin ends."""
    # As isthmus does, so that the yardstick gets the same memory.
    settle_allocator()
    address, commands = "", {"bench_throughput": encrypt_only}
    if kind != "aead":
        baseline = Baseline(
            lambda sock, is_dialer: Bare(sock, is_dialer=is_dialer) if kind == "bare" else Raw(sock)
        )
        address, commands = baseline.listen(), baseline.commands
    say({"event": "listening", "peer_id": kind, "addresses": [address], "version": kind})
    for line in sys.stdin:
        request = json.loads(line)
        number, name = request.pop("id"), request.pop("do")
        try:
            say({"id": number, "ok": True, "result": commands[name](**request)})
        except (OSError, EOFError, ValueError, KeyError) as error:
            say({"id": number, "ok": False, "error": str(error), "kind": type(error).__name__})


if __name__ == "__main__":
    if sys.argv[1:] not in (["raw"], ["bare"], ["aead"]):
        sys.exit(__doc__)
    main(sys.argv[1])
