"""Findings, case by case: from facts that are made up to states, words and advice."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from isthmus import Multiaddr, PeerId
from isthmus.node.doctor.diagnosis import data, diagnose
from isthmus.node.doctor.facts import (
    Answer,
    Facts,
    LanFacts,
    MachineFacts,
    Mapping,
    OwnAddress,
    ReachFacts,
    RelayFacts,
    RelaysFacts,
)
from isthmus.node.doctor.findings import Check, Diagnosis, State
from isthmus.node.doctor.words import amount, count, listed, span
from isthmus.node.limits import Fullness
from isthmus.relay.autonat.observed import NatKind
from isthmus.relay.autonat.reachability import Reachability
from isthmus.transports.core.addresses import AddressClass, classify

PEER = PeerId.parse("12D3KooWGJAmQyRkvK6Cf7Jr3zhMmtLX2Q8d2hKS9sMLUFWEPTpo")
OTHER = PeerId.parse("12D3KooWBtg3aaRMjxwedh83aGiUkwSxDwUZkzuJcfaqUmo7R3pq")
NOW = 1_800_000_000.0
PUBLIC, PRIVATE, UNKNOWN = Reachability.PUBLIC, Reachability.PRIVATE, Reachability.UNKNOWN
HELD = RelayFacts(
    relay=PEER,
    state="reserved",
    left=3000.0,
    round_trip=0.0123,
    seconds=120,
    bytes=131_072,
    told_ttl=3600.0,
)


def own(text, **fields):
    address = Multiaddr.parse(text)
    return OwnAddress(address=address, kind=classify(address), **fields)


HOME = own("/ip4/192.168.1.7/tcp/4001")
WEB = own("/ip4/192.168.1.7/tcp/4002/ws")
SERVER = own("/ip4/1.2.3.4/tcp/4001")
LOCAL = own("/ip4/127.0.0.1/tcp/4001")
OUTSIDE = own("/ip4/5.6.7.8/tcp/4001", is_external=True, is_candidate=True)


def facts(*addresses, **fields):
    machine = MachineFacts(versions=(("isthmus", "1"), ("Python", "3")), now=NOW, file_limit=4096)
    return Facts(**{"peer_id": PEER, "machine": machine, "addresses": addresses, **fields})


def reach(**fields):
    return ReachFacts(**fields)


def relays(*known, **fields):
    return RelaysFacts(**{"named": len(known), "known": known, **fields})


def check(name, found):
    return diagnose(found).check(name)


def path(name, found):
    return next(each for each in diagnose(found).paths if each.name == name)


@pytest.mark.parametrize(
    ("found", "state", "finding", "advice"),
    [
        (facts(HOME), State.OK, "by TCP, at 1 address: private IPv4", ""),
        (facts(HOME, WEB), State.OK, "by TCP and WebSocket, at 2 addresses: ", ""),
        (
            facts(SERVER, own("/ip6/2606:4700::1/tcp/1")),
            State.OK,
            "public IPv4 and public IPv6",
            "",
        ),
        (facts(own("/ip4/100.64.1.1/tcp/1")), State.OK, "behind the provider's NAT (CGNAT)", ""),
        (facts(LOCAL), State.NOTE, "on loopback only", "--listen /ip4/0.0.0.0/tcp/4001"),
        (facts(), State.NOTE, "nowhere: it can dial", "node.listen"),
        (facts(relays=relays(HELD)), State.OK, "nowhere: it can dial", ""),
        (
            facts(machine=MachineFacts(networks=0)),
            State.PROBLEM,
            "no network interface",
            "connect this machine",
        ),
    ],
)
def test_listening(found, state, finding, advice):
    seen = check("listening", found)
    assert seen.state is state
    assert finding in seen.finding
    assert advice in seen.advice


REACHED = (Answer(PEER, is_reached=True, age=70.0), Answer(OTHER, is_reached=False, age=5.0))
TRIED = (Answer(PEER, is_reached=False, age=70.0), Answer(OTHER, is_reached=False, age=5.0))


def test_reachable_names_the_address_and_who_has_said_so():
    public = replace(SERVER, is_candidate=True, verdict=PUBLIC, answers=REACHED)
    seen = check("reachable", facts(public, HOME, reach=reach(verdict=PUBLIC)))
    assert seen.state is State.OK
    assert seen.finding == "others can dial it at /ip4/1.2.3.4/tcp/4001, as 1 peer found"
    assert seen.details == (
        "/ip4/1.2.3.4/tcp/4001  can be dialled"
        f" (reached by {PEER} 1 min ago, not reached by {OTHER} 5 s ago)",
    )


@pytest.mark.parametrize(
    ("addresses", "why", "advice"),
    [
        (
            (HOME, OUTSIDE),
            "behind a NAT or a firewall",
            "forward TCP port 4001 on the router to this machine, or name a relay",
        ),
        ((SERVER,), "a firewall is before its public address", "let TCP port 4001 in"),
        (
            (own("/ip4/100.64.1.1/tcp/1"), OUTSIDE),
            "behind the NAT of its provider",
            "no setting of a router of yours helps",
        ),
    ],
)
def test_unreachable_says_what_is_in_the_way(addresses, why, advice):
    tried = [replace(each, verdict=PRIVATE, answers=TRIED) for each in addresses]
    found = facts(*tried, reach=reach(verdict=PRIVATE))
    seen = check("reachable", found)
    assert seen.state is State.PROBLEM
    assert seen.finding.startswith("others cannot dial it, as 2 peers found: ")
    assert why in seen.finding
    assert advice in seen.advice
    assert diagnose(found).state is State.PROBLEM
    # With a relay nothing has to be changed.
    relayed = check("reachable", replace(found, relays=relays(HELD)))
    assert (relayed.state, relayed.advice) == (State.OK, "")
    assert relayed.finding.endswith("; they reach it through a relay")


@pytest.mark.parametrize(
    ("found", "state", "why", "advice"),
    [
        (facts(LOCAL), State.OK, "not asked, since it listens on loopback only", ""),
        (facts(), State.OK, "not asked, since it listens nowhere", ""),
        (facts(HOME, privacy="relay-only"), State.OK, "behind relays only", ""),
        (
            facts(HOME, reach=reach(is_enabled=False)),
            State.UNKNOWN,
            "autonat.enabled is false",
            "set autonat.enabled = true",
        ),
        (facts(HOME, reach=reach(is_asking=True)), State.UNKNOWN, "a peer is trying", "again"),
        (facts(HOME), State.UNKNOWN, "no connected peer outside", "--relay-via"),
        (
            facts(replace(SERVER, answers=TRIED[:1]), reach=reach(servers=1)),
            State.UNKNOWN,
            "2 peers in different networks must agree, and 1 said something",
            "autonat.confidence",
        ),
        (
            facts(HOME, OUTSIDE, reach=reach(servers=2)),
            State.UNKNOWN,
            "the 2 peers asked would not try",
            "elsewhere",
        ),
        (facts(HOME, reach=reach(servers=2)), State.UNKNOWN, "no public address to try", "nat"),
    ],
)
def test_why_it_is_not_known_whether_it_is_reachable(found, state, why, advice):
    seen = check("reachable", found)
    assert seen.state is state
    assert why in seen.finding
    assert advice in seen.advice


def test_a_nat_that_is_none_and_one_that_keeps_an_address():
    assert check("nat", facts(SERVER, reach=reach(nat=NatKind.NONE))).state is State.OK
    kind = NatKind.ENDPOINT_INDEPENDENT
    mapped = Mapping(HOME.address, OUTSIDE.address, 3)
    for verdict, words in (
        (UNKNOWN, "what it lets in is not known"),
        (PUBLIC, "it lets others in there"),
        (PRIVATE, "only what was asked for"),
    ):
        outside = replace(OUTSIDE, verdict=verdict)
        found = facts(HOME, outside, reach=reach(nat=kind, mappings=(mapped,)))
        seen = check("nat", found)
        assert seen.state is State.OK
        assert "holes can be punched" in seen.finding
        assert words in seen.finding
        assert seen.details == (
            "/ip4/192.168.1.7/tcp/4001 is seen at /ip4/5.6.7.8/tcp/4001 by 3 networks",
        )
        assert path("punched", found).works is True


def test_a_symmetric_nat_needs_a_relay():
    found = facts(HOME, reach=reach(nat=NatKind.SYMMETRIC))
    seen = check("nat", found)
    assert seen.state is State.NOTE
    assert "symmetric" in seen.finding
    assert "--relay-via" in seen.advice
    assert path("punched", found).works is False
    relayed = check("nat", replace(found, relays=relays(HELD)))
    assert "forward a TCP port" in relayed.advice


@pytest.mark.parametrize(
    ("found", "why", "advice"),
    [
        (facts(HOME, reach=reach(reuse="never")), "does not dial from the port", ""),
        (
            facts(HOME, reach=reach(mappings=(Mapping(HOME.address, OUTSIDE.address, 1),))),
            "one network alone has said",
            "a second relay",
        ),
        (facts(HOME), "connected to no public peer", "two public peers"),
        (facts(HOME, dialled=2), "has said where it sees it", "connect to other peers"),
    ],
)
def test_why_the_nat_is_not_known(found, why, advice):
    seen = check("nat", found)
    assert seen.state is State.UNKNOWN
    assert seen.finding.startswith("not known, because ")
    assert why in seen.finding
    assert advice in seen.advice
    assert check("nat", facts(LOCAL)).finding == "not looked for, since it listens on loopback only"
    assert check("nat", facts()).finding == "not looked for, since it listens nowhere"


@pytest.mark.parametrize(
    ("found", "state", "finding", "advice"),
    [
        (facts(HOME), State.OK, "it dials public addresses from the port", ""),
        (facts(HOME, reach=reach(reuse="always")), State.OK, "it dials all addresses", ""),
        (
            facts(WEB, reach=reach(reuse="never")),
            State.NOTE,
            "does not listen on TCP",
            "node.listen",
        ),
        (facts(reach=reach(reuse="never")), State.OK, "does not listen on TCP", ""),
        (
            facts(HOME, privacy="relay-only", reach=reach(reuse="never")),
            State.OK,
            "privacy.addresses",
            "",
        ),
        (
            facts(HOME, reach=reach(reuse="never", punches=False)),
            State.NOTE,
            "dcutr.enabled is false",
            "set dcutr.enabled = true",
        ),
    ],
)
def test_port_reuse(found, state, finding, advice):
    seen = check("port reuse", found)
    assert seen.state is state
    assert finding in seen.finding
    assert advice in seen.advice
    if found.reach.reuse == "never":
        assert path("punched", found).works is False


@pytest.mark.parametrize(
    ("found", "state", "finding"),
    [
        (reach(), State.OK, "not tried yet"),
        (reach(punches=False), State.NOTE, "off"),
        (reach(succeeded=3), State.OK, "3 of 3 relayed connections became direct"),
        (
            reach(succeeded=2, failed=1, last_failure="no meeting"),
            State.OK,
            "2 of 3 relayed connections became direct; the last failure: no meeting",
        ),
        (
            reach(failed=1, last_failure="no meeting"),
            State.NOTE,
            "0 of 1 relayed connections became direct; the last failure: no meeting",
        ),
    ],
)
def test_hole_punching(found, state, finding):
    seen = check("hole punching", facts(HOME, reach=found))
    assert seen.state is state
    assert seen.finding.startswith(finding)
    assert bool(seen.advice) is (state is State.NOTE)


WAITING = RelayFacts(relay=OTHER, state="waiting", reason="no answer within 10 s")
REFUSED = RelayFacts(relay=OTHER, state="refused", reason="R: it does not serve this peer")
FULL = RelayFacts(relay=OTHER, state="refused", reason="R: a limit of it is reached")
ASKED = RelayFacts(relay=OTHER, state="connecting")
SPARE = RelayFacts(relay=OTHER, state="resting")
MET = replace(HELD, relay=OTHER, is_configured=False, seconds=None, bytes=0)


@pytest.mark.parametrize(
    ("found", "verdict", "state", "finding"),
    [
        (relays(), UNKNOWN, State.NOTE, "none is named: where nobody can dial"),
        (relays(), PUBLIC, State.OK, "none is named, and none is needed"),
        (relays(discovers=True), UNKNOWN, State.UNKNOWN, "none was met yet"),
        (relays(ASKED), UNKNOWN, State.UNKNOWN, "none yet: being asked"),
        (relays(WAITING), UNKNOWN, State.PROBLEM, "reached through none of 1 relay"),
        (relays(WAITING, FULL), PRIVATE, State.PROBLEM, "reached through none of 2 relays"),
        (relays(WAITING), PUBLIC, State.NOTE, "reached through none of 1 relay"),
        (relays(HELD), UNKNOWN, State.NOTE, "reached through 1 relay: one that is lost"),
        (relays(HELD, wanted=1), UNKNOWN, State.OK, "reached through 1 relay"),
        (relays(HELD, WAITING), UNKNOWN, State.NOTE, "reached through 1 relay of 2"),
        (
            relays(HELD, MET),
            UNKNOWN,
            State.OK,
            "reached through 2 relays, one of which may be lost",
        ),
    ],
)
def test_relays_together(found, verdict, state, finding):
    whole = facts(HOME, relays=found, reach=reach(verdict=verdict))
    seen = check("relays", whole)
    assert seen.state is state
    assert seen.finding.startswith(finding)
    assert bool(seen.advice) is (state is not State.OK)
    held = any(each.state == "reserved" for each in found.known)
    assert path("relay", whole).works is (held or (None if found.known == (ASKED,) else False))


@pytest.mark.parametrize(
    ("relay", "state", "finding", "advice"),
    [
        (
            replace(HELD, relay=OTHER),
            State.OK,
            "in use: you have named it; 12.3 ms away; a circuit carries 128 KiB each way and 2 min;"
            " reserved for 50 min more",
            "",
        ),
        (
            MET,
            State.OK,
            "in use: met by chance, the cheaper of two drawn from 1 relay met; 12.3 ms away;"
            " a circuit has no limit; reserved for 50 min more",
            "",
        ),
        (
            replace(HELD, relay=OTHER, reason="it is away", left=None, round_trip=None),
            State.NOTE,
            "in use: you have named it; a circuit carries 128 KiB each way and 2 min; the last"
            " renewal failed: it is away",
            "",
        ),
        (WAITING, State.NOTE, "not reached: no answer within 10 s; you have named it", "why"),
        (REFUSED, State.NOTE, "refuses: R: it does not serve this peer", f"allow {PEER}"),
        (FULL, State.NOTE, "refuses: R: a limit of it is reached", "name another relay"),
        (replace(FULL, reason=""), State.NOTE, "refuses: it did not say why", "another"),
        (SPARE, State.OK, "in reserve: you have named it", ""),
        (ASKED, State.UNKNOWN, "being asked; you have named it", ""),
        (replace(ASKED, reason="it was lost"), State.UNKNOWN, "being asked, after it was", ""),
    ],
)
def test_each_relay_says_why(relay, state, finding, advice):
    seen = check(f"relay {str(OTHER)[-8:]}", facts(HOME, relays=relays(relay)))
    assert seen.state is state
    assert seen.finding.startswith(finding)
    assert advice in seen.advice
    assert seen.details == (str(OTHER),)


def test_relays_in_use_come_first_and_not_all_are_shown():
    many = [replace(SPARE, relay=PeerId(bytes([0, 1, n]))) for n in range(20)]
    found = diagnose(facts(HOME, relays=relays(*many, HELD)))
    shown = [each for each in found.checks if each.name.startswith("relay ")]
    assert len(shown) == 8
    assert shown[0].finding.startswith("in use")


@pytest.mark.parametrize(
    ("found", "state", "finding", "works"),
    [
        (LanFacts(), State.OK, "not used", False),
        (LanFacts(is_on=True), State.NOTE, "no interface with a private address", False),
        (
            LanFacts(is_on=True, networks=(("eth0", "192.168.1.0/24"),), peers=2),
            State.OK,
            "by multicast on 192.168.1.0/24 (eth0), 2 peers found",
            True,
        ),
        (
            LanFacts(is_on=True, announce="never", networks=(("eth0", "192.168.1.0/24"),)),
            State.OK,
            "by multicast on 192.168.1.0/24 (eth0), 0 peers found; it does not show itself",
            True,
        ),
        (
            LanFacts(is_on=True, networks=(("eth0", "192.168.1.0/24"),), missing=("eth0",)),
            State.PROBLEM,
            "no multicast on eth0",
            False,
        ),
        (
            LanFacts(
                is_on=True,
                networks=(("eth0", "192.168.1.0/24"), ("wlan0", "10.0.0.0/8")),
                missing=("eth0",),
            ),
            State.NOTE,
            "no multicast on eth0",
            True,
        ),
    ],
)
def test_lan(found, state, finding, works):
    seen = check("lan", facts(HOME, lan=found))
    assert seen.state is state
    assert seen.finding.startswith(finding)
    assert bool(seen.advice) is (state is not State.OK)
    assert path("lan", facts(HOME, lan=found)).works is works


@pytest.mark.parametrize(
    ("told", "now", "state", "finding"),
    [
        (3600.0, NOW, State.OK, "as far as relays tell, it fits"),
        (None, NOW, State.OK, "as far as relays tell, it fits"),
        (-7200.0, NOW, State.NOTE, "this machine's clock is ahead of that of "),
        (86_400.0 * 3, NOW, State.NOTE, "this machine's clock is behind that of "),
        (None, 86_400.0, State.PROBLEM, "this machine's clock is years behind"),
    ],
)
def test_clock(told, now, state, finding):
    machine = MachineFacts(now=now)
    found = facts(HOME, machine=machine, relays=relays(replace(HELD, told_ttl=told)))
    seen = check("clock", found)
    assert seen.state is state
    assert seen.finding.startswith(finding)
    assert ("set the clock" in seen.advice) is (state is not State.OK)


@pytest.mark.parametrize(
    ("machine", "state", "finding"),
    [
        (MachineFacts(), State.OK, "in memory"),
        (MachineFacts(data="kept", data_path="/d", free_bytes=2**30), State.OK, "/d is written"),
        (MachineFacts(data="kept", data_path="/d", free_bytes=2**20), State.NOTE, "only 1 MiB"),
        (
            MachineFacts(data="not written", data_path="/d", data_trouble="no room"),
            State.PROBLEM,
            "/d is not written: no room",
        ),
    ],
)
def test_data(machine, state, finding):
    seen = data(machine)
    assert seen.state is state
    assert finding in seen.finding
    assert bool(seen.advice) is (state is not State.OK)


@pytest.mark.parametrize(
    ("limit", "used", "state", "finding"),
    [
        (None, None, State.UNKNOWN, "not known on this system"),
        (4096, None, State.OK, "4096 allowed"),
        (640, 20, State.OK, "20 of 640 allowed"),
        (639, 20, State.NOTE, "20 of 639 allowed: too few for 512 connections"),
    ],
)
def test_open_files(limit, used, state, finding):
    machine = MachineFacts(now=NOW, file_limit=limit, open_files=used)
    seen = check("open files", facts(HOME, machine=machine))
    assert (seen.state, seen.finding) == (state, finding)
    assert ("ulimit -n 640" in seen.advice) is (state is State.NOTE)


def test_limits_that_are_nearly_reached():
    full = Fullness("connections", 470, 512, "limits.connections")
    few = [Fullness("of one peer", 1, 1, "x"), Fullness("dials", 0, 0, "x")]
    assert check("limits", facts(HOME, fullness=tuple(few))).state is State.OK
    seen = check("limits", facts(HOME, fullness=(full, *few)))
    assert seen.state is State.NOTE
    assert seen.finding == "connections: 470 of 512"
    assert seen.advice == "raise limits.connections"


@pytest.mark.parametrize(
    ("found", "works"),
    [
        (facts(SERVER, reach=reach(verdict=PUBLIC)), True),
        (facts(HOME, reach=reach(verdict=PRIVATE)), False),
        (facts(HOME), None),
        (facts(LOCAL), False),
    ],
)
def test_the_way_in(found, works):
    assert path("in", found).works is works
    assert path("out", found).works is True
    assert path("punched", found).works is (True if works else None)


def test_a_diagnosis_as_json():
    found = diagnose(facts(HOME, connections=2, peers=1))
    plain = json.loads(json.dumps(found.to_json()))
    assert (plain["peer_id"], plain["state"], plain["settled"]) == (str(PEER), "note", True)
    first = plain["checks"][0]
    assert first == {
        "check": "listening",
        "state": "ok",
        "finding": "by TCP, at 1 address: private IPv4",
        "advice": None,
        "details": ["/ip4/192.168.1.7/tcp/4001  private IPv4"],
    }
    assert plain["paths"][1] == {
        "path": "out",
        "works": True,
        "why": "it dials whoever can be dialled",
    }
    assert found.check("peers").finding == "2 connections to 1 peer"
    assert found.check("version").finding == "isthmus 1, Python 3"
    with pytest.raises(KeyError):
        found.check("nothing")


def test_the_worst_check_counts_and_one_may_be_replaced():
    order = [State.OK, State.UNKNOWN, State.NOTE, State.PROBLEM]
    for number, state in enumerate(order):
        checks = tuple(Check(str(each), each, "") for each in order[: number + 1])
        assert Diagnosis(PEER, checks, (), is_settled=True).state is state
    nothing = Diagnosis(PEER, (), (), is_settled=True)
    assert nothing.state is State.OK
    better = Diagnosis(PEER, checks, (), is_settled=True).with_check(
        Check(str(State.PROBLEM), State.OK, "better")
    )
    assert better.state is State.NOTE


@pytest.mark.parametrize(
    "found",
    [
        facts(HOME, reach=reach(is_asking=True)),
        facts(HOME, relays=relays(ASKED)),
        facts(HOME, lan=LanFacts(is_on=True, is_proving=True)),
    ],
)
def test_what_is_still_being_found_out(found):
    assert diagnose(found).is_settled is False
    # One that has failed before is tried for ever, and nobody can wait for that.
    lost = facts(HOME, relays=relays(replace(ASKED, reason="it was lost")))
    assert diagnose(lost).is_settled is True


def test_words():
    assert [span(each) for each in (-1, 59, 60, 7200, 90_000)] == [
        "0 s",
        "59 s",
        "1 min",
        "2 h",
        "1 d",
    ]
    assert [amount(each) for each in (5, 2**17, 3 * 2**19)] == ["5 B", "128 KiB", "1.5 MiB"]
    assert [count(each, "peer") for each in (0, 1, 2)] == ["0 peers", "1 peer", "2 peers"]
    assert [listed(each) for each in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == [
        "",
        "a",
        "a and b",
        "a, b and c",
    ]
    assert classify(HOME.address) is AddressClass.PRIVATE
