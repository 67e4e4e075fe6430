"""What all tests share: the real data, and the rule that nothing else is skipped in CI."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytest_plugins = ["problems"]
collect_ignore_glob = ["*/conftest.py"]  # for their doctests, of which they have none
NEEDS_DATA = "PARETOBIT_TEST_DATA"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with real data; tests that ask for it are skipped where there is none."""
    folder = os.environ.get(NEEDS_DATA)
    if folder is None or not Path(folder).is_dir():
        pytest.skip(f"{NEEDS_DATA} names no folder with real data")
    return Path(folder)


class _NoSilentSkips:
    """Fails a CI run in which a test was skipped for another reason than absent data."""

    def __init__(self) -> None:
        self.skipped: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped and not hasattr(report, "wasxfail") and NEEDS_DATA not in str(report.longrepr):
            self.skipped.append(report.nodeid)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.skipped and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for test in self.skipped:
            terminalreporter.write_line(f"skipped, which CI does not allow: {test}", red=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first: no worker of pytest-xdist begins one when the others are done."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_configure(config: pytest.Config) -> None:
    if os.environ.get("CI") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(_NoSilentSkips())
