"""A browser's js-libp2p reaches a node over WebSocket: a real page in a headless Chromium."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import subprocess
import threading
from contextlib import contextmanager
from queue import Queue
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import pytest
from isthmus import Node
from isthmus.benchmarks.peers.errors import PeerUnavailable
from isthmus.benchmarks.peers.install import browser_script

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.browser

PATIENCE = 60.0
"""Seconds for a browser to start and to do all it is asked for, on a busy machine."""
PAGE = b'<!doctype html><meta charset="utf-8"><script type="module" src="/page.js"></script>'
OPTIONS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")


@pytest.fixture(scope="module")
def chromium() -> str:
    """The browser's program."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        _unavailable("chromium is not installed")
    return found


@pytest.fixture(scope="module")
def script() -> bytes:
    """js-libp2p and the page's program, in one file."""
    try:
        return browser_script().read_bytes()
    except PeerUnavailable as missing:
        _unavailable(str(missing))


@contextmanager
def site(script: bytes) -> Iterator[tuple[str, Queue[bytes]]]:
    """Serve the page, and collect what it posts."""
    results: Queue[bytes] = Queue()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            is_script = self.path == "/page.js"
            self._answer(script if is_script else PAGE, "javascript" if is_script else "html")

        def do_POST(self) -> None:
            results.put(self.rfile.read(int(self.headers["Content-Length"])))
            self._answer(b"", "plain")

        def _answer(self, body: bytes, kind: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", f"text/{kind}")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/", results
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def browsing(chromium: str, url: str, profile: Path) -> Iterator[None]:
    """Run a browser on the page."""
    command = [chromium, *OPTIONS, f"--user-data-dir={profile}", url]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.kill()
        process.wait()


async def echo(stream) -> None:
    async for data in stream:
        await stream.send(data)


@pytest.mark.timeout(120, func_only=True)
async def test_a_page_dials_pings_and_is_echoed(chromium, script, tmp_path):
    async with Node(listen="/ip4/127.0.0.1/tcp/0/ws") as node:
        node.handle("/echo/1.0.0", echo)
        with (
            site(script) as (url, results),
            browsing(chromium, f"{url}#{node.addresses[0]}", tmp_path / "profile"),
        ):
            answer = await anyio.to_thread.run_sync(lambda: results.get(timeout=PATIENCE))
        told = json.loads(answer)
        assert "error" not in told, told["error"]
        assert told["peer_id"] == str(node.peer_id)
        assert told["matches"] is True
        assert told["bytes"] == 1 << 20


def _unavailable(why: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(f"{why} (CI=true forbids to skip it)")
    pytest.skip(why)
