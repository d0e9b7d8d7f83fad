"""WebSocket with peers that others wrote, plain and over TLS, in both directions of dial."""

from __future__ import annotations

from pathlib import Path

import pytest
from isthmus.benchmarks.peers.control import launch
from isthmus.benchmarks.peers.errors import PeerUnavailable
from isthmus.benchmarks.peers.install import argv_of

from ..transports.websocket.authority import Authority
from .test_libp2p import (
    BACKENDS,
    DIRECTIONS,
    Cell,
    _unavailable,
    echo_10_mb,
    half_close,
    identify,
    perf_download,
    perf_upload,
    ping,
    reset_by_dialer,
    reset_by_listener,
    slow_reader,
    streams_500,
    wrong_peer_id,
)

PROGRAMS = ("js", "go")
"""Those whose WebSocket the peer program has; py-libp2p's and rust-libp2p's have not."""
PLAIN = (
    identify,
    ping,
    echo_10_mb,
    half_close,
    reset_by_listener,
    reset_by_dialer,
    streams_500,
    slow_reader,
    perf_upload,
    perf_download,
    wrong_peer_id,
)
SECURE = (identify, ping, echo_10_mb, half_close, streams_500, perf_download)
CASES = {"/ws": PLAIN, "/tls/ws": SECURE}
SOON = {"/ws": (identify, echo_10_mb, half_close, perf_download), "/tls/ws": (identify, echo_10_mb)}
"""What is asked in every run: what can differ from TCP; the rest is slow, as it is the muxer's."""
CELLS = [
    pytest.param(
        carrier,
        Cell(program, f"{direction} {carrier}", case),
        marks=() if case in SOON[carrier] else pytest.mark.slow,
        id=f"{carrier}-{program} {direction} {case.__name__}",
    )
    for carrier, cases in CASES.items()
    for program in PROGRAMS
    for direction in DIRECTIONS
    for case in cases
]


@pytest.fixture
def anyio_backend() -> str:
    """The controller's; isthmus runs in a process of its own, on the parameter `backend`."""
    return "asyncio"


@pytest.fixture(scope="module")
def tls_arguments(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What both programs are told of certificates."""
    authority = Authority(Path(tmp_path_factory.mktemp("tls")))
    files = authority.issue()
    return [
        *("--tls-cert", str(files.cert_file)),
        *("--tls-key", str(files.key_file)),
        *("--tls-ca", str(authority.ca_file)),
    ]


@pytest.fixture(autouse=True)
def installed(cell: Cell) -> None:
    """Install the peer before the test's time begins to run."""
    try:
        argv_of(cell.program)
    except PeerUnavailable as missing:
        _unavailable(missing)


@pytest.mark.timeout(180, func_only=True)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("carrier", "cell"), CELLS)
async def test_case(carrier: str, cell: Cell, backend: str, tls_arguments: list[str]) -> None:
    listen = f"/ip4/127.0.0.1/tcp/0{carrier}"
    async with (
        launch(cell.program, listen=listen, arguments=tls_arguments) as theirs,
        launch(f"isthmus-{backend}", listen=listen, arguments=tls_arguments) as us,
    ):
        them = cell.direction.startswith("dials us")
        dialer, listener = (theirs, us) if them else (us, theirs)
        assert carrier in listener.addresses[0]
        await cell.check(dialer, listener.addresses[0])
