"""What the harness asks, and of whom.

A question is a list of commands to a fresh pair of processes, on one connection. Everybody gets the
same: first the question cold, then the warm-up, then the question again, warm.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING

from .peers.install import argv_of
from .results import Phase

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

SAME_ENDS = "isthmus-uvloop"
"""The ends of a circuit where they are the same whoever relays."""

AEAD = "aead"
"""The question that is put to the cipher alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """How much is asked of every subject; printed and stored with the results."""

    cold_bytes: int = 200_000_000
    """js-libp2p runs at less than half its speed for about as long, in a cold process."""

    warm_up_bytes: int = 400_000_000
    """Bytes a connection has carried before it counts as warm, the cold ones among them."""

    warm_bytes: int = 400_000_000
    """More than cold, since it takes the fast ones less time."""

    echoes: int = 2000
    """Per phase; warm means that as many came before, besides 50 that no phase counts."""

    streams: int = 1000
    """Per phase, one after the other."""

    dials: int = 100
    """Per phase, one after the other."""

    beside_seconds: float = 3.0
    """For the idle echo, for the bulk alone, and again for both together."""

    beside_interval: float = 0.001
    """Seconds between urgent echoes on loopback: the rate at which a fast mouse reports. Without a
    pause the question would be what thousands of echoes cost, not what one waits for ("flood")."""

    link_seconds: float = 6.0
    """The same on the lab's link, where an echo takes 20 ms: some 200 samples."""

    idle_connections: int = 1000
    """Held at once, besides a first hundred."""

    def as_numbers(self) -> dict[str, float]:
        """Return all of it by name."""
        return {name: float(value) for name, value in asdict(self).items()}


QUICK = Work(
    cold_bytes=20_000_000,
    warm_up_bytes=40_000_000,
    warm_bytes=40_000_000,
    echoes=500,
    streams=100,
    dials=20,
    beside_seconds=0.5,
    idle_connections=100,
    link_seconds=2.0,
)
"""Enough to see that it works, too little to judge by."""


@dataclass(frozen=True, slots=True)
class Step:
    """One command; `phase` is None if its answer does not count."""

    command: str
    phase: Phase | None
    arguments: Mapping[str, float | str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked under one name, and which figures of the answers are shown."""

    name: str
    group: str
    """What `--only` calls it."""
    title: str
    steps: Sequence[Step]
    figures: Sequence[str]
    connects: bool = True
    """Whether the pair is connected before the first step."""
    is_pinned: bool = False
    """Whether each of the two processes gets a core of its own (Linux, two cores or more)."""
    is_relayed: bool = False
    """Whether the subject relays between two ends; see stage."""
    ends: str = ""
    """The program at both ends then, or empty for the subject's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """Who is asked; `groups` are the questions it can answer."""

    name: str
    title: str
    program: str = ""
    """The peer program (see peers.install), or empty for a baseline."""
    groups: frozenset[str]
    is_alone: bool = False
    """Whether it is one process that talks to nobody."""
    fewer: Mapping[str, int] = field(default_factory=dict)
    """By group, the part of the count that it is asked for."""

    def command_line(self) -> list[str]:
        """Return how to start it; installs it if need be. Raises PeerUnavailable."""
        if self.program:
            return argv_of(self.program)
        return [sys.executable, "-m", "isthmus.benchmarks.baselines", self.name]


_PEER_GROUPS = frozenset(
    {"throughput", "echo", "streams", "dials", "beside", "flood", "idle", "relay"}
)
_SOCKET_GROUPS = frozenset({"throughput", "echo"})

SUBJECTS = {
    subject.name: subject
    for subject in (
        Subject(name="raw", title="blocking socket", groups=_SOCKET_GROUPS),
        Subject(name="bare", title="encrypt and send", groups=_SOCKET_GROUPS),
        Subject(name="aead", title="AEAD alone", groups=frozenset({AEAD}), is_alone=True),
        Subject(
            name="uvloop",
            title="isthmus, uvloop",
            program="isthmus-uvloop",
            groups=_PEER_GROUPS,
        ),
        Subject(
            name="asyncio",
            title="isthmus, asyncio",
            program="isthmus-asyncio",
            groups=_PEER_GROUPS,
        ),
        Subject(name="trio", title="isthmus, trio", program="isthmus-trio", groups=_PEER_GROUPS),
        Subject(name="js", title="js-libp2p", program="js", groups=_PEER_GROUPS),
        Subject(
            name="py",
            title="py-libp2p",
            program="py",
            # It refuses a second connection of one peer. As a relay it always tells of limits, and
            # nobody moves bulk over a circuit with limits.
            groups=_PEER_GROUPS - {"idle", "relay"},
            # It waits 350 ms in every dial, so the count changes nothing but the time it takes.
            fewer={"dials": 10},
        ),
        Subject(name="go", title="go-libp2p", program="go", groups=_PEER_GROUPS),
        # It always tells of limits, too.
        Subject(name="rust", title="rust-libp2p", program="rust", groups=_PEER_GROUPS - {"relay"}),
    )
}
BASELINES = ("raw", "bare", "aead")
"""Asked in every run, whichever peers are chosen."""
PEERS = tuple(name for name in SUBJECTS if name not in BASELINES)
GROUPS = ("throughput", "echo", "streams", "dials", "beside", "relay", "idle", "link", "flood")


def questions(work: Work) -> list[Question]:
    """Return the questions of a run on loopback, in their order; those of the link are its own."""
    return [
        _aead(work),
        *(
            _throughput(work, direction, streams)
            for streams in (1, 10)
            for direction in ("up", "down")
        ),
        Question(
            name="echo",
            group="echo",
            title="32-byte echo",
            steps=_twice("bench_echo", count=work.echoes, size=32),
            figures=("p50_us", "p99_us"),
            # The kernel puts two blocking sockets on one core or on two as the load falls, which
            # changes their echo by a factor of four.
            is_pinned=True,
        ),
        Question(
            name="streams",
            group="streams",
            title="open stream + 1 B + 1 B",
            steps=_twice("bench_streams", count=work.streams),
            figures=("per_second",),
        ),
        Question(
            name="dials",
            group="dials",
            title="dial + handshake + close",
            steps=_twice("bench_dials", count=work.dials),
            figures=("per_second",),
            connects=False,
        ),
        _beside(work, "beside", "HIGH echo beside LOW bulk", work.beside_interval),
        _beside(work, "flood", "HIGH echo without a pause beside LOW bulk", 0),
        *_relayed(work, ""),
        *_relayed(work, SAME_ENDS),
    ]


def throughput_name(direction: str, streams: int) -> str:
    """Return the name of a throughput question, such as "up-10"."""
    return f"{direction}-{streams}"


def _throughput(work: Work, direction: str, streams: int) -> Question:
    def step(size: int, phase: Phase | None) -> Step:
        return Step(
            "bench_throughput",
            phase,
            {"bytes": size, "direction": direction, "streams": streams},
        )

    plural = "s" if streams > 1 else ""
    return Question(
        name=throughput_name(direction, streams),
        group="throughput",
        title=f"{direction}, {streams} stream{plural}",
        steps=(
            step(work.cold_bytes, Phase.COLD),
            step(max(work.warm_up_bytes - work.cold_bytes, streams), None),
            step(work.warm_bytes, Phase.WARM),
        ),
        figures=("mb_s",),
    )


def relayed_name(what: str, ends: str = "") -> str:
    """Return the name of a question through a relay, such as "relay-up" or "relay-echo-same"."""
    return f"relay-{what}{'-same' if ends else ''}"


def _relayed(work: Work, ends: str) -> Iterator[Question]:
    """Ask for throughput and echoes again, over one circuit."""
    suffix = ", isthmus at both ends" if ends else ""
    for direction in ("up", "down"):
        yield replace(
            _throughput(work, direction, 1),
            name=relayed_name(direction, ends),
            group="relay",
            title=f"through a relay, {direction}{suffix}",
            figures=("mb_s", "rss_mb"),
            is_relayed=True,
            ends=ends,
        )
    yield Question(
        name=relayed_name("echo", ends),
        group="relay",
        title=f"32-byte echo through a relay{suffix}",
        steps=_twice("bench_echo", count=work.echoes, size=32),
        figures=("p50_us", "p99_us"),
        is_relayed=True,
        ends=ends,
    )


def _aead(work: Work) -> Question:
    """Ask the cipher; there is nothing in it that warms up but the processor and the allocator."""
    return Question(
        name=AEAD,
        group=AEAD,
        title="AEAD alone, 64 KiB",
        steps=(
            Step("bench_throughput", None, {"bytes": work.cold_bytes}),
            Step("bench_throughput", Phase.WARM, {"bytes": work.warm_bytes}),
        ),
        figures=("mb_s",),
        connects=False,
    )


def _beside(work: Work, name: str, title: str, interval: float) -> Question:
    """Ask for urgent echoes beside bulk, warm only: a cold bulk alone would flatter the two."""
    warm_up: dict[str, float | str]
    warm_up = {"bytes": work.warm_up_bytes, "direction": "up", "streams": 1}
    return Question(
        name=name,
        group=name,
        title=title,
        steps=(
            Step("bench_throughput", None, warm_up),
            Step(
                "bench_beside",
                Phase.WARM,
                {"seconds": work.beside_seconds, "interval": interval},
            ),
        ),
        figures=("idle_p99_us", "p50_us", "p99_us", "bulk_alone_mb_s", "bulk_mb_s"),
    )


def _twice(command: str, **arguments: float) -> tuple[Step, Step]:
    """Ask the same cold and warm: the cold one is the warm-up of the other."""
    return Step(command, Phase.COLD, arguments), Step(command, Phase.WARM, arguments)
