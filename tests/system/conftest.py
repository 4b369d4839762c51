"""The fixtures of `tests.instance`: whole servers."""

from tests.instance import instances, server

__all__ = ["instances", "server"]
