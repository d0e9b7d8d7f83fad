"""What can go wrong with a foreign peer program.

PeerProgramError
├── PeerUnavailable      it cannot be installed or started here
├── PeerFailed           it ran a command and the command failed
└── PeerDied             the process ended, or broke the contract
"""

from __future__ import annotations


class PeerProgramError(Exception):
    """The root: whatever goes wrong with a peer program rather than with isthmus."""


class PeerUnavailable(PeerProgramError):
    """The program `name` cannot be installed or started on this machine; `why` says what lacks."""

    def __init__(self, name: str, why: str) -> None:
        self.name = name
        self.why = why
        super().__init__(f"the peer {name} is not available: {why}")


class PeerFailed(PeerProgramError):
    """A command failed in the peer: `kind` is its class or code of the error, `text` its words."""

    def __init__(self, command: str, kind: str, text: str) -> None:
        self.command = command
        self.kind = kind
        self.text = text
        super().__init__(f"{command} failed with {kind}: {text}")


class PeerDied(PeerProgramError):
    """The process ended or broke the contract; `stderr` is the end of what it wrote there."""

    def __init__(self, name: str, why: str, stderr: str) -> None:
        self.name = name
        self.why = why
        self.stderr = stderr
        super().__init__(f"the peer {name} {why}" + (f"; stderr:\n{stderr}" if stderr else ""))
