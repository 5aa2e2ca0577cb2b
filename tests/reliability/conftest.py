"""The proofs of docs/reliability.md: each counts what it tried, in a short form by default and in full with --full.

pytest tests/reliability --full     # hours; prints the table of docs/reliability.md at the end
"""

from collections.abc import Callable

import pytest

_LINES = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_LINES] = []


@pytest.fixture
def count(request: pytest.FixtureRequest) -> Callable[..., int]:
    """`count(short=6, full=1000)`: how many times to try."""
    chosen = request.config.getoption("--full")

    def choose(*, short: int, full: int) -> int:
        return full if chosen else short

    return choose


@pytest.fixture
def publish(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """`publish("1 kill -9 of a writing run", "1,000 kills: 0 rows lost, ...")`: a line of the table at the end."""
    lines = request.config.stash[_LINES]
    return lambda what, found: lines.append(f"| {what} | {found} |")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    lines = config.stash[_LINES]
    if lines:
        terminalreporter.section("docs/reliability.md")
        for line in sorted(lines):
            terminalreporter.write_line(line)
