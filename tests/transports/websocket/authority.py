"""A certificate authority of the tests' own, and the certificates it makes, good and bad."""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from pathlib import Path

DAY = datetime.timedelta(days=1)
NAMES = ("localhost", "node.example", "127.0.0.1", "::1")
SIGNING = {
    "digital_signature": True,
    "content_commitment": False,
    "key_encipherment": False,
    "data_encipherment": False,
    "key_agreement": False,
    "key_cert_sign": True,
    "crl_sign": True,
    "encipher_only": False,
    "decipher_only": False,
}


@dataclass(frozen=True)
class Files:
    """Where a certificate and its key lie."""

    cert_file: Path
    key_file: Path


class Authority:
    """An authority whose certificate is the file `ca_file` of a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._count = 0
        public = self._key.public_key()
        certificate = (
            _builder("authority", public)
            .issuer_name(_name("authority"))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(x509.KeyUsage(**SIGNING), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        self.ca_file = folder / "ca.pem"
        self.ca_file.write_bytes(certificate.public_bytes(Encoding.PEM))

    def issue(
        self,
        *names: str,
        days: int = 30,
        password: bytes | None = None,
        files: Files | None = None,
    ) -> Files:
        """Issue a certificate for names, NAMES by default, into new files or the given ones."""
        self._count += 1
        key = ec.generate_private_key(ec.SECP256R1())
        own = self._key.public_key()
        certificate = (
            _builder(f"node {self._count}", key.public_key(), days)
            .issuer_name(_name("authority"))
            .add_extension(
                x509.SubjectAlternativeName([_alternative(each) for each in names or NAMES]),
                critical=False,
            )
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(own), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        if files is None:
            stem = self._folder / f"{self._count}"
            files = Files(stem.with_suffix(".pem"), stem.with_suffix(".key"))
        protection = BestAvailableEncryption(password) if password else NoEncryption()
        files.cert_file.write_bytes(certificate.public_bytes(Encoding.PEM))
        files.key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, protection))
        return files


def _builder(name: str, public: ec.EllipticCurvePublicKey, days: int = 30):
    now = datetime.datetime.now(datetime.UTC)
    first, last = sorted((now - DAY, now + days * DAY))
    return (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(first)
        .not_valid_after(last)
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
