"""`isthmus find`, and what `isthmus run` offers by the DHT."""

from __future__ import annotations

import pytest

from .processes import EACH_BACKEND, LOOPBACK, Program

STRANGER = "12D3KooWGJAmQyRkvK6Cf7Jr3zhMmtLX2Q8d2hKS9sMLUFWEPTpo"


@pytest.fixture(scope="module")
def offering(dht, tmp_path_factory):
    """The address of a node that offers two services."""
    program = Program(tmp_path_factory.mktemp("offering"))
    options = ("--bootstrap", dht, "--provide", "chat", "--provide", "files")
    process = program.start("run", "--json", "--listen", LOOPBACK, *options)
    address = process.address()
    assert {process.event("service_provided")["service"] for _ in range(2)} == {"chat", "files"}
    yield address
    program.close()


@pytest.mark.parametrize("backend", EACH_BACKEND)
def test_a_service_is_found(isthmus, dht, offering, backend):
    options = ("--listen", LOOPBACK, "--backend", backend, "--bootstrap", dht)
    isthmus.start("run", "--json", *options).address()
    found = isthmus("find", "chat", "--json").json()
    peer = offering.rpartition("/")[2]
    assert found == {
        "service": "chat",
        "cid": "bafkreibr4bxx3cp6xgna43ak77qzq5emho2355pdzsjnsxfz5glbs7j7ym",
        "peers": [{"peer": peer, "addresses": [offering]}],
    }
    done = isthmus("find", "files", "-n", "1")
    assert (done.code, done.err) == (0, "")
    assert done.out == f"1 peer said to offer files\n{peer}\n  {offering}\n"
    assert isthmus("find", "nothing").out == "nobody offers nothing\n"
    # What was found can be reached by its id alone.
    assert isthmus("connect", peer).out.startswith(f"connected to {peer} ")


def test_what_a_person_sees(isthmus, dht):
    daemon = isthmus.start("run", "--listen", LOOPBACK, "--bootstrap", dht, "--provide", "chat")
    assert "offers chat: 1 server of the DHT took note" in daemon.line("offers chat")
    assert daemon.stop().code == 0
    gone = f"/ip4/127.0.0.1/tcp/1/p2p/{STRANGER}"
    daemon = isthmus.start("run", "--listen", LOOPBACK, "--bootstrap", gone, "--provide", "chat")
    line = daemon.line("could not tell the DHT")
    assert "that this node offers chat: no server of the DHT answers" in line
    complaint = isthmus("find", "chat").complaint()
    assert complaint.startswith("error: no server of the DHT answers")
    assert "/ip4/127.0.0.1/tcp/1: connect failed" in complaint


def test_without_a_dht(isthmus):
    assert "no isthmus runs" in isthmus("find", "chat").complaint()
    isthmus.start("run", "--json", "--listen", LOOPBACK).address()
    complaint = isthmus("find", "chat").complaint()
    assert "no DHT is configured: name a server of one" in complaint
    assert "--bootstrap" in complaint


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--provide", "chat"), "dht.provide needs dht.bootstrap"),
        (("--bootstrap", "127.0.0.1:4001"), "did you mean /ip4/127.0.0.1/tcp/4001?"),
        (("--bootstrap", LOOPBACK), "dht.bootstrap: each address must end in /p2p/ID"),
        (("--bootstrap", f"{LOOPBACK}/p2p/{STRANGER}", "--provide", ""), "the name of a service"),
    ],
)
def test_what_run_cannot_use(isthmus, options, why):
    assert why in isthmus("run", "--listen", LOOPBACK, *options).complaint()


def test_what_find_cannot_use(isthmus, dht):
    assert "--limit" in isthmus("find", "chat", "--limit", "0").complaint(code=2)
    assert "SERVICE" in isthmus("find").complaint(code=2)
    isthmus.start("run", "--json", "--listen", LOOPBACK, "--bootstrap", dht).address()
    assert "the name of a service" in isthmus("find", "a\nb").complaint()
