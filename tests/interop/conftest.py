"""Peers that others wrote, and the table of what works with them."""

from __future__ import annotations

import pytest

TABLE: dict[tuple[str, str], dict[str, str]] = {}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder, whichever backend it runs on."""
    for item in items:
        if item.path.parent.name == "interop":
            item.add_marker(pytest.mark.interop)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    """Note the outcome of each cell."""
    outcome = yield
    report = outcome.get_result()
    cell = getattr(item, "callspec", None) and item.callspec.params.get("cell")
    if cell is None or (report.when != "call" and not report.failed and not report.skipped):
        return
    row = TABLE.setdefault((cell.program, cell.direction), {})
    backend = item.callspec.params.get("backend", "")
    mark = "ok" if report.passed else "skipped" if report.skipped else "FAILED"
    row[cell.case] = f"{row.get(cell.case, '')} {backend}:{mark}".strip()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print peer x direction x case."""
    if not TABLE:
        return
    cases = list(dict.fromkeys(case for row in TABLE.values() for case in row))
    terminalreporter.section("interop: peer x direction x case")
    columns = list(TABLE)
    heads = [f"{program} {direction}" for program, direction in columns]
    width = max(len(case) for case in cases)
    widths = [
        max(len(head), *(len(TABLE[c].get(k, "-")) for k in cases))
        for c, head in zip(columns, heads, strict=True)
    ]
    line = "  ".join([" " * width, *(h.ljust(w) for h, w in zip(heads, widths, strict=True))])
    terminalreporter.write_line(line)
    for case in cases:
        cells = (TABLE[column].get(case, "-") for column in columns)
        cells = (cell.ljust(w) for cell, w in zip(cells, widths, strict=True))
        terminalreporter.write_line("  ".join([case.ljust(width), *cells]))
