"""`isthmus version`."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, entry_points
from importlib.metadata import version as version_of
from typing import TYPE_CHECKING

import click

from ..printable import printable
from .options import output_options

if TYPE_CHECKING:
    from .output import Output

PACKAGES = (
    *("anyio", "trio", "uvloop", "cryptography", "h11", "msgpack", "websockets", "zeroconf"),
    *("click", "rich", "platformdirs"),
)
"""What isthmus runs on, besides Python; what cryptography runs on is asked of itself."""

PLUGIN_GROUPS = ("isthmus.commands", "isthmus.transports")
"""Where packages register what becomes a part of the program."""


@click.command()
@output_options
def version(*, output: Output) -> None:
    """Print the versions that matter: of isthmus, of Python, and of what it runs on.

    Include what it prints in a report of an error.

    \b
    Examples:
      isthmus version
      isthmus version --json
    """
    from cryptography.hazmat.backends.openssl.backend import backend

    versions: dict[str, str | None] = {
        "isthmus": _version("isthmus"),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        "libc": " ".join(platform.libc_ver()).strip() or None,
    }
    for package in PACKAGES:
        versions[package] = _version(package)
        if package == "cryptography":
            versions["openssl"] = backend.openssl_version_text()
    plugins = plugin_packages()
    output.result({**versions, "plugins": plugins})
    for name, text in versions.items():
        output.line(f"{name:<13}{text or ('not installed' if name in PACKAGES else 'unknown')}")
    for name, text in plugins.items():
        output.line(f"{'plugin':<13}{printable(name)} {printable(text)}")


def plugin_packages() -> dict[str, str]:
    """Return the version of each other package that adds commands or transports; loads none."""
    found = {
        entry_point.dist.name: entry_point.dist.version
        for group in PLUGIN_GROUPS
        for entry_point in entry_points(group=group)
        if entry_point.dist is not None
    }
    return {name: found[name] for name in sorted(found) if name != "isthmus"}


def _version(package: str) -> str | None:
    try:
        return version_of(package)
    except PackageNotFoundError:
        return None
