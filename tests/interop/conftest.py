"""The fixtures of `tests.instance`, whole servers, and the rule that a missing peer skips."""

import pytest

from tests.instance import instances, server

__all__ = ["instances", "require", "server"]


def require(*reasons: str | None) -> None:
    """Skip the test with the first reason for which a peer cannot be used, if there is one."""
    for reason in reasons:
        if reason is not None:
            pytest.skip(reason)
