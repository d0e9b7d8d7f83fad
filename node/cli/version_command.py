"""`isthmus version`."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of
from typing import TYPE_CHECKING

import click

from .options import output_options

if TYPE_CHECKING:
    from .output import Output

PACKAGES = ("anyio", "cryptography", "uvloop", "trio")


@click.command()
@output_options
def version(*, output: Output) -> None:
    """Print the versions that matter: of isthmus, of Python, and of what it runs on.

    \b
    Example:
      isthmus version --json
    """
    from cryptography.hazmat.backends.openssl.backend import backend

    versions: dict[str, str | None] = {
        "isthmus": _version("isthmus"),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
    }
    for package in PACKAGES:
        versions[package] = _version(package)
    versions["openssl"] = backend.openssl_version_text()
    output.result(versions)
    for name, text in versions.items():
        output.line(f"{name:<13}{text or 'not installed'}")


def _version(package: str) -> str | None:
    try:
        return version_of(package)
    except PackageNotFoundError:
        return None
