"""How the demonstration is shown: as lines, as JSON, or with a table that is drawn anew."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..demo import Measured
from .demo_text import COLUMNS, ROWS, outcome_lines, table_row
from .output import style

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from typing import Self

    from rich.table import Table

    from ..demo import Outcome, Step
    from .output import Output


class Lines:
    """A line before each step and one after it; or, if programs read, one object after it."""

    is_live = False

    def __init__(self, output: Output, steps: Sequence[Step]) -> None:
        self._output = output
        self._numbers = {step.name: number for number, step in enumerate(steps, 1)}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        """Leave the terminal as it was found."""

    def begin(self, step: Step) -> None:
        """Say what comes."""
        number = f"{self._numbers[step.name]}/{len(self._numbers)}"
        self._line(f"{style(number, bold=True)}  {step.text}")

    def measuring(self, step: Step, so_far: Measured) -> None:
        """Say nothing: lines stay, and only the last figures count."""

    def done(self, step: Step, outcome: Outcome) -> None:
        """Say what came of it."""
        self._output.result({"step": step.name, **outcome.to_json()})
        for line in outcome_lines(outcome):
            self._line(f"     {line}")

    def _line(self, text: str) -> None:
        self._output.line(text)


class LiveTable(Lines):
    """The same lines, and below them a table whose figures change while a step measures."""

    is_live = True

    def __init__(self, output: Output, steps: Sequence[Step]) -> None:
        super().__init__(output, steps)
        from rich.console import Console
        from rich.live import Live

        self._measured: dict[str, Measured | None] = {
            step.name: None for step in steps if step.name in ROWS
        }
        self._console = Console(highlight=False)
        # No thread draws it: it would take turns of the interpreter from what is measured.
        self._live = Live(self._table(), console=self._console, auto_refresh=False)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        """Let the table stand where it is."""
        self._live.stop()

    def measuring(self, step: Step, so_far: Measured) -> None:
        """Draw what there is."""
        self._measured[step.name] = so_far
        self._live.update(self._table(), refresh=True)

    def done(self, step: Step, outcome: Outcome) -> None:
        """Draw what came of it."""
        if isinstance(outcome, Measured):
            self.measuring(step, outcome)
        else:
            super().done(step, outcome)

    def _line(self, text: str) -> None:
        from rich.text import Text

        self._console.print(Text.from_ansi(text))

    def _table(self) -> Table:
        from rich import box
        from rich.table import Table

        table = Table(box=box.SIMPLE, pad_edge=False)
        for number, title in enumerate(COLUMNS):
            # As wide from the start as its figures will be.
            table.add_column(
                title, justify="right" if number else "left", no_wrap=True, min_width=9
            )
        for name, measured in self._measured.items():
            table.add_row(*table_row(name, measured))
        return table
