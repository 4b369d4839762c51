"""The fixtures of `tests.servers`, whole servers, and the rule that a missing peer skips."""

import pytest

from tests.servers import instances, server

__all__ = ["instances", "require", "server"]


def require(*reasons: str | None) -> None:
    """Skip the test with the first reason for which a peer cannot be used, if there is one."""
    for reason in reasons:
        if reason is not None:
            pytest.skip(reason)
