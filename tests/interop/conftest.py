"""Peers that others wrote, and the tables of what works with them."""

from __future__ import annotations

import pytest

DIRECT = "peer x direction x case"
TABLES: dict[str, dict[tuple[str, str], dict[str, str]]] = {}
"""By title: a column for each peer and direction, and what became of each case in it."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder, whichever backend it runs on."""
    for item in items:
        if item.path.parent.name == "interop":
            item.add_marker(pytest.mark.interop)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    """Have the report name the cell that was asked."""
    outcome = yield
    report = outcome.get_result()
    cell = getattr(item, "callspec", None) and item.callspec.params.get("cell")
    if cell is None or (report.when != "call" and not report.failed and not report.skipped):
        return
    params = item.callspec.params
    backend = params.get("backend", params.get("anyio_backend", ""))
    title = getattr(cell, "table", DIRECT)
    place = (title, cell.program, cell.direction, cell.case, backend)
    report.user_properties.append(("cell", place))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Enter the cells in their tables, also those that another process has asked."""
    mark = "ok" if report.passed else "skipped" if report.skipped else "FAILED"
    for name, place in report.user_properties:
        if name == "cell":
            title, program, direction, case, backend = place
            row = TABLES.setdefault(title, {}).setdefault((program, direction), {})
            row[case] = f"{row.get(case, '')} {backend}:{mark}".strip()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print every table."""
    for title, table in TABLES.items():
        terminalreporter.section(f"interop: {title}")
        for line in lines_of(table):
            terminalreporter.write_line(line)


def lines_of(table: dict[tuple[str, str], dict[str, str]]) -> list[str]:
    """Return the lines of a table, the columns' heads first."""
    cases = list(dict.fromkeys(case for row in table.values() for case in row))
    columns = list(table)
    heads = [f"{program} {direction}" for program, direction in columns]
    width = max(len(case) for case in cases)
    widths = [
        max(len(head), *(len(table[c].get(k, "-")) for k in cases))
        for c, head in zip(columns, heads, strict=True)
    ]
    lines = ["  ".join([" " * width, *(h.ljust(w) for h, w in zip(heads, widths, strict=True))])]
    for case in cases:
        found = (table[column].get(case, "-") for column in columns)
        cells = (cell.ljust(w) for cell, w in zip(found, widths, strict=True))
        lines.append("  ".join([case.ljust(width), *cells]))
    return lines
