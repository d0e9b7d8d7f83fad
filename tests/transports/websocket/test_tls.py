"""TLS without sockets, and certificates that change on disk."""

from __future__ import annotations

import logging
import os
import shutil
import ssl

import pytest
from isthmus.transports.core.errors import ConfigError, HandshakeError
from isthmus.transports.core.interfaces import Side
from isthmus.transports.websocket.config import WebSocketConfig
from isthmus.transports.websocket.tls import Certificate, TlsMachine, client_context

from .authority import Authority, Files


def pair(files, *, config, name="localhost"):
    listener = Certificate(files.cert_file, files.key_file).context()
    near = TlsMachine(client_context(config), side=Side.DIALER, server_name=name)
    return near, TlsMachine(listener, side=Side.LISTENER)


def exchange(near, far, size=10**6):
    """Move what each has to send, until neither has."""
    received = {near: b"", far: b""}
    while True:
        moved = False
        for sender, receiver in ((near, far), (far, near)):
            wire = sender.data_to_send()
            moved = moved or bool(wire)
            for at in range(0, len(wire), size):
                received[receiver] += receiver.receive_data(wire[at : at + size])
        if not moved:
            return received


@pytest.mark.parametrize("size", [1, 7, 10**6])
@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "::1"])
def test_a_pair_carries_both_ways(authority, files, size, name):
    near, far = pair(files, config=WebSocketConfig(ca_file=authority.ca_file), name=name)
    exchange(near, far, size)
    assert near.is_open
    assert far.is_open
    near.send(b"there" * 10_000)
    far.send(b"and back")
    assert exchange(near, far, max(size, 7)) == {far: b"there" * 10_000, near: b"and back"}
    near.close()
    near.close()
    exchange(near, far)
    assert far.has_ended
    assert not near.is_open


REASONS = {
    "unknown": ("localhost", {}, None, "local issuer certificate.*setting ca_file"),
    "another name": ("other.example", {}, "ca", "other.example.*/tls/sni/NAME/ws"),
    "another address": ("192.0.2.1", {}, "ca", "192.0.2.1.*/tls/sni/NAME/ws"),
    "expired": ("localhost", {"days": -2}, "ca", "expired.*replaced"),
}


@pytest.mark.parametrize("why", REASONS)
def test_bad_certificates(authority, why):
    name, options, trusted, text = REASONS[why]
    config = WebSocketConfig(ca_file=authority.ca_file if trusted else None)
    near, far = pair(authority.issue(**options), config=config, name=name)
    with pytest.raises(HandshakeError, match=f"certificate is refused: .*{text}") as caught:
        exchange(near, far)
    assert "the setting insecure" in str(caught.value)
    assert isinstance(caught.value.__cause__, ssl.SSLCertVerificationError)
    assert not near.is_open
    with pytest.raises(HandshakeError, match=r"TLS failed: .*alert"):
        far.receive_data(near.data_to_send())


def test_insecure_takes_any(authority):
    near, far = pair(
        authority.issue("other.example", days=-2), config=WebSocketConfig(insecure=True)
    )
    exchange(near, far)
    assert near.is_open


@pytest.mark.parametrize("name", ["a..example", ".example", "ü" * 70])
def test_names_that_no_certificate_can_have(name):
    with pytest.raises(HandshakeError, match="no name for a certificate"):
        TlsMachine(client_context(WebSocketConfig()), side=Side.DIALER, server_name=name)


@pytest.mark.parametrize(
    "wire", [b"GET / HTTP/1.1\r\n\r\n", bytes(100), b"\x16\x03\x01\x00\x05hello"]
)
def test_what_is_no_tls(files, wire):
    far = TlsMachine(Certificate(files.cert_file, files.key_file).context(), side=Side.LISTENER)
    with pytest.raises(HandshakeError, match="TLS failed: "):
        far.receive_data(wire)


def test_a_record_that_does_not_authenticate(authority, files):
    near, far = pair(files, config=WebSocketConfig(ca_file=authority.ca_file))
    exchange(near, far)
    near.send(b"hello")
    wire = bytearray(near.data_to_send())
    wire[-1] ^= 1
    with pytest.raises(HandshakeError, match="TLS failed: "):
        far.receive_data(bytes(wire))
    assert not far.is_open
    assert far.data_to_send()
    far.close()


def test_files_that_cannot_be_used(authority, files, tmp_path):
    empty = tmp_path / "empty"
    empty.write_bytes(b"")
    locked = authority.issue(password=b"secret")
    for cert_file, key_file, why in (
        (tmp_path / "none", files.key_file, "No such file"),
        (empty, files.key_file, "cannot be used"),
        (files.cert_file, authority.issue().key_file, "mismatch"),
        (locked.cert_file, locked.key_file, "password"),
    ):
        with pytest.raises(ConfigError, match=f"websocket.*{why}"):
            Certificate(cert_file, key_file)
    for ca_file in (empty, tmp_path / "none"):
        with pytest.raises(ConfigError, match=r"websocket.ca_file: .* cannot be used"):
            client_context(WebSocketConfig(ca_file=ca_file))


def copy(source: Files, target: Files, when: int) -> None:
    for name in ("cert_file", "key_file"):
        shutil.copy(getattr(source, name), getattr(target, name))
        os.utime(getattr(target, name), (when, when))


def test_a_renewed_certificate_is_shown_and_a_broken_one_is_not(tmp_path, caplog):
    authority = Authority(tmp_path)
    served = Files(tmp_path / "served.pem", tmp_path / "served.key")
    copy(authority.issue("one.example"), served, 1)
    certificate = Certificate(served.cert_file, served.key_file)
    first = certificate.context()
    assert certificate.context() is first
    copy(authority.issue("two.example"), served, 2)
    second = certificate.context()
    assert second is not first
    with caplog.at_level(logging.WARNING):
        served.cert_file.write_bytes(b"half")
        assert certificate.context() is second
        assert certificate.context() is second
        served.cert_file.unlink()
        assert certificate.context() is second
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
    copy(authority.issue("three.example"), served, 3)
    third = certificate.context()
    near = TlsMachine(
        client_context(WebSocketConfig(ca_file=authority.ca_file)),
        side=Side.DIALER,
        server_name="three.example",
    )
    exchange(near, TlsMachine(third, side=Side.LISTENER))
    assert near.is_open
