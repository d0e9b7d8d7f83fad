"""Where a command's results go: lines for people, or one JSON object a line for programs."""

from __future__ import annotations

import json
import logging
import os
import sys
from typing import TYPE_CHECKING, Any

import click

from ..printable import printable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType
    from typing import TypeAlias

    ExceptionInfo: TypeAlias = (
        tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]
    )

MAX_LOG_LINE = 2000
"""Characters of a log line: a dial report of sixteen addresses fits, a flood does not."""


class OutputError(click.ClickException):
    """The standard output takes no more."""


class Output:
    """The standard output of one command, as JSON or for people; and its standard error."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json

    @property
    def is_live(self) -> bool:
        """Say whether a person watches, on a terminal that can draw, so that progress is shown."""
        return not self.as_json and sys.stdout.isatty() and not _is_dumb()

    def result(self, value: Mapping[str, Any]) -> None:
        """Write one object, if programs read; only ASCII, so no text in it steers a terminal."""
        if self.as_json:
            self._write(json.dumps(value).replace("\x7f", "\\u007f"))

    def line(self, text: str = "") -> None:
        """Write one line, if people read; texts of peers must have passed `printable`."""
        if not self.as_json:
            self._write(text)

    def notice(self, text: str) -> None:
        """Write one line to the standard error, whoever reads."""
        click.echo(f"isthmus: {text}", err=True, color=color())

    def _write(self, text: str) -> None:
        try:
            click.echo(text, color=color())
        except OSError as error:
            discard_stdout()
            if isinstance(error, BrokenPipeError):
                raise
            raise OutputError(f"cannot write the output: {error.strerror}") from error


def style(
    text: str, *, fg: str | None = None, bold: bool | None = None, dim: bool | None = None
) -> str:
    """Return `text` with a terminal's colours, which `Output` drops where none are wanted."""
    return click.style(text, fg=fg, bold=bold, dim=dim)


def printable_lines(text: str) -> str:
    """Return several lines, each as `printable` leaves it: a traceback may quote a peer."""
    return "\n".join(printable(line, limit=MAX_LOG_LINE) for line in text.splitlines())


def discard_stdout() -> None:
    """Let what is still buffered go nowhere, since it would fail once more at exit."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)


def log_to_stderr(*, debug: bool) -> None:
    """Write the project's log to the standard error: warnings, or all of it; see `log_from`."""
    handler = logging.StreamHandler()
    handler.setFormatter(_PrintableFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger = logging.getLogger("isthmus")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG if debug else logging.WARNING)


def log_from(level: str) -> None:
    """Write what is of a level, by its name, or graver: debug, info, warning, error."""
    logging.getLogger("isthmus").setLevel(level.upper())


class _PrintableFormatter(logging.Formatter):
    """One line a record, of which no peer chose the control characters; then a traceback."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return printable(super().formatMessage(record), limit=MAX_LOG_LINE)

    def formatException(self, ei: ExceptionInfo) -> str:
        return printable_lines(super().formatException(ei))


def color() -> bool | None:
    """Return False where no colours are wanted, else None: wherever there is a terminal."""
    # https://no-color.org: any value but the empty one. Otherwise click asks whether it is a
    # terminal.
    return False if os.environ.get("NO_COLOR") or _is_dumb() else None


def _is_dumb() -> bool:
    return os.environ.get("TERM", "") in ("dumb", "unknown")
