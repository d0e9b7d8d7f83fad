"""Changes of this machine's networks are noticed: by the kernel's word, or by looking."""

from __future__ import annotations

import subprocess
import sys

import anyio
import pytest
from isthmus.node.watch import POLL_INTERVAL, poll_networks
from trio.testing import MockClock

WITHOUT_NETWORK = ("unshare", "--user", "--map-root-user", "--net")

SCRIPT = """
import sys, time
import anyio
from isthmus.node.watch import watch_networks

async def main():
    send, receive = anyio.create_memory_object_stream(100)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch_networks, lambda: send.send_nowait(time.perf_counter()))
        await anyio.wait_all_tasks_blocked()
        for words in ("link set lo up", "address add 10.7.0.1/24 dev lo", "link set lo down"):
            began = time.perf_counter()
            await anyio.run_process(["ip", *words.split()])
            with anyio.fail_after(5):
                while (told := await receive.receive()) < began:
                    pass
            print(told - began, flush=True)
        tasks.cancel_scope.cancel()

anyio.run(main, backend=sys.argv[1])
"""


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_kernel_tells(backend):
    try:
        works = subprocess.run([*WITHOUT_NETWORK, "ip", "link"], capture_output=True, check=False)
    except FileNotFoundError:
        works = None
    if works is None or works.returncode != 0:
        pytest.skip("needs unshare(1), ip(8) and user namespaces")
    argv = [*WITHOUT_NETWORK, sys.executable, "-c", SCRIPT, backend]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 0, done.stderr
    changes = [float(line.split()[-1]) for line in done.stdout.splitlines()]
    assert len(changes) == 3
    assert max(changes) < 2


@pytest.mark.parametrize(
    "anyio_backend", [("trio", {"clock": MockClock(autojump_threshold=0)})], indirect=False
)
async def test_where_it_does_not_the_addresses_are_looked_at(anyio_backend):
    found, changes = ["10.0.0.1"], []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(poll_networks, lambda: changes.append(anyio.current_time()), found.copy)
        await anyio.sleep(POLL_INTERVAL * 3.5)
        assert changes == []
        found.append("10.0.0.2")
        began = anyio.current_time()
        await anyio.sleep(POLL_INTERVAL * 3.5)
        assert len(changes) == 1
        assert changes[0] - began <= POLL_INTERVAL
        tasks.cancel_scope.cancel()
