"""What all tests share: one Hypothesis profile, and the rule that peers may be demanded."""

import os
from collections.abc import Generator

import pytest
from hypothesis import settings

pytest_plugins = ["tests.realreactor"]

# No deadline: how long an example takes on a busy machine says nothing about the code.
settings.register_profile("mailsuite", deadline=None)
settings.load_profile("mailsuite")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail an interop test that skips where MAILSUITE_PEERS=required (.ci/run) says the peers are there."""
    report = yield
    demanded = os.environ.get("MAILSUITE_PEERS") == "required"
    if demanded and report.skipped and item.get_closest_marker("interop"):
        report.outcome = "failed"
        report.longrepr = f"peers are required in this run, but the test was skipped: {report.longreprtext}"
    return report
