"""A program that writes without end: each transaction touches every table, and is then told."""

from __future__ import annotations

import sys
from pathlib import Path

from isthmus.node.store.database import Database
from isthmus.node.store.records import Batch, KeptPeer, StoredChange, StoredLink, StoredPeer
from isthmus.transports.core.multiaddr import Multiaddr
from isthmus.transports.core.peer_id import PeerId

PEERS = 40
ADDRESS = Multiaddr.parse("/ip4/192.0.2.1/tcp/4001")


def main(path: str, number: int) -> None:
    """Write batches of ever higher numbers to a file."""
    tell(number)
    database = Database(Path(path), max_peers=3 * PEERS)
    database.open(0.0)
    every = [PeerId(b"\x12\x20" + each.to_bytes(32, "big")) for each in range(5 * PEERS)]
    while True:
        number += 1
        start = number * 7 % len(every)
        database.write(
            Batch(
                peers=tuple(
                    StoredPeer(peer, (ADDRESS,), f"x/{number}", number, float(number))
                    for peer in (every + every)[start : start + PEERS]
                ),
                kept=(KeptPeer(every[0], (ADDRESS,), f"{number}", 0.0),),
                links=(StoredLink(every[0], number, (StoredChange("x", "y", float(number)),)),),
            ),
            0.0,
        )
        tell(number)


def tell(number: int) -> None:
    """Write a number to whoever watches."""
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
