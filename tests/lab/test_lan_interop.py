"""js-libp2p on the same bridge, with @libp2p/mdns: it finds isthmus, and isthmus finds it."""

from __future__ import annotations

import anyio.to_thread
import pytest
from isthmus.benchmarks.peers.control import launch
from isthmus.benchmarks.peers.errors import PeerUnavailable


@pytest.mark.interop
@pytest.mark.timeout(110)
async def test_js(lab, pair, start, anyio_backend_name):
    near, far = pair
    prefix = ("ip", "netns", "exec", far.namespace)
    listen = f"/ip4/{far.ip}/tcp/0"
    try:
        async with launch("js", listen=listen, netns_prefix=prefix, arguments=["--mdns"]) as js:
            ours = await anyio.to_thread.run_sync(
                lambda: start(near, "--backend", anyio_backend_name)
            )

            def connected():
                return ours.event("connection_opened", timeout=15, peer=js.peer_id)

            event = await anyio.to_thread.run_sync(connected)
            assert event["side"] == "dialer"
            assert event["address"] == js.address.partition("/p2p/")[0]
            found = await js.call("discover", peer_id=ours.peer_id, timeout=15)
            port = ours.event("listening")["addresses"][0].split("/")[4]
            assert f"/ip4/{near.ip}/tcp/{port}" in {
                each.partition("/p2p/")[0] for each in found["addresses"]
            }
    except PeerUnavailable as error:
        pytest.skip(str(error))
