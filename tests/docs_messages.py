"""The messages of the troubleshooting page: who tries each, and how a command comes to say it."""

from __future__ import annotations

import errno

UNTRIED = {
    "error: cannot connect to PEER: nobody on the LAN says that it is PEER": (
        "tests/cli/test_calls.py, where no network is asked"
    ),
    "error: cannot listen on ADDR: Permission denied": "the tests may run as root",
    "isthmus: this machine has no IPv6: listening on IPv4 only": "tests/cli/test_run.py",
    "error: PATH: Permission denied": "tests/cli/test_control.py",
    "error: the isthmus behind this socket is another user's": "tests/hostile/test_control.py",
    "error: N clients are connected already": "tests/hostile/test_control.py",
    "error: the node has ended": "tests/cli/test_control.py",
    "isthmus: the node has stopped": "tests/cli/test_control.py",
    "TEXT for PEER failed: TEXT": "tests/cli/test_texts.py",
    "turned PEER away: TEXT": "tests/cli/test_texts.py",
    "what is known of peers is in memory only: PATH: no room: TEXT": "tests/node/store",
    "what is known of peers is in memory only: PATH: this account may not write it": (
        "tests/cli/test_run.py"
    ),
    "what is known of peers is in memory only: PATH: another program has it open": (
        "tests/node/store"
    ),
    "what is known of peers is in memory only: PATH: damaged (TEXT), and moved to PATH": (
        "tests/cli/test_run.py"
    ),
    "what is known of peers is in memory only: PATH: the file is gone": "tests/node/store",
    "what is known of peers is kept again: PATH": "tests/cli/test_run.py",
    "RuntimeError: Attempted to exit cancel scope in a different task": "tried below",
}
COMMANDS_THAT_FAIL = {
    "error: PATH: already running as PID N": "run --data-dir {daemon} --listen {loopback}",
    "error: cannot listen on ADDR: Address already in use": "run --ephemeral --listen {mute}",
    "error: cannot listen on ADDR: Cannot assign requested address": (
        "run --ephemeral --listen /ip4/198.51.100.1/tcp/0"
    ),
    "error: ADDR is not an address to listen on by TCP": (
        "run --ephemeral --listen /dns4/localhost/tcp/4001"
    ),
    "error: PATH: others can read or change this private key": "run --identity {open}",
    "error: PATH: not a private key": "run --identity {damaged}",
    "error: PATH: not a port number": "run --data-dir {changed}",
    "error: PATH: written by a newer isthmus": "run --data-dir {newer} --listen {loopback}",
    "error: PATH: another program listens there": (
        "run --ephemeral --listen {loopback} --control {daemon}/control.sock"
    ),
    "error: PATH: something else than a socket is there": (
        "run --ephemeral --listen {loopback} --control {damaged}"
    ),
    "error: PATH: no control socket there: TEXT": (
        "run --ephemeral --listen {loopback} --control {damaged}/x.sock"
    ),
    "error: no isthmus runs in PATH": "status --data-dir {own}",
    "error: no isthmus runs with PATH": "peers --control {own}/x.sock",
    "error: PEER is not connected": "disconnect {stranger} --data-dir {daemon}",
    "error: PATH: Not a directory": "run --data-dir {damaged}/data",
    "error: KEY: there is no such setting": "run --config {unknown}",
    "error: KEY: a whole number is needed, not TEXT": "run --config {kind}",
    "error: N settings cannot be used": "run --config {several}",
    "error: this is not TOML: TEXT": "run --config {damaged}",
    "error: PATH: others can change this file, and KEY in it is a path": "run --config {shared}",
    "error: websocket.cert_file and websocket.key_file go together": "run --tls-cert {damaged}",
    "error: cannot connect to ADDR: Connection refused": "ping {free}",
    "error: cannot connect to ADDR: no connection within N s": "ping {mute} --timeout 0.2",
    "error: cannot connect to ADDR: NAME cannot be resolved": "ping /dns4/a..b/tcp/1",
    "error: cannot connect to ADDR: expected peer PEER, but PEER answered": (
        "ping {peer}/p2p/{stranger}"
    ),
    "error: cannot connect to ADDR: what answers there does not speak libp2p": "ping {web}",
    "error: 'TEXT' is no multiaddr": "ping 192.0.2.7:4001",
    "error: 'ADDR': 'TEXT' is not a value of NAME": "ping /ip4/localhost/tcp/4001",
    "error: 'ADDR': unknown protocol 'TEXT'": "ping /ip4/127.0.0.1/tpc/4001",
    "error: cannot listen on ADDR without a certificate": (
        "run --ephemeral --listen {loopback}/tls/ws"
    ),
    "error: cannot connect to ADDR: the certificate is refused: TEXT": "ping {secure}",
    "error: cannot connect to ADDR: the server hung up during the WebSocket handshake": (
        "ping {web}/ws"
    ),
    "error: no transport of this node can use ADDR": "ping /ip4/127.0.0.1/udp/4001/quic-v1",
    "error: PATH: no such key file": "ping {free} --identity {damaged}.missing",
    "error: the peer does not serve /perf/1.0.0": "perf {peer}",
    "error: the stream was reset by the peer": "ping {full}",
}
CONFIGURATIONS = {
    "unknown": "limits.conections = 3",
    "kind": "limits.connections = 'many'",
    "several": "a = 1\nb = 2",
    "shared": "node.identity = 'a.key'",
}
SYSTEM_ERRORS = {
    "error: cannot connect to ADDR: No route to host": errno.EHOSTUNREACH,
    "error: cannot connect to ADDR: Network is unreachable": errno.ENETUNREACH,
}
