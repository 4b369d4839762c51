"""The fixtures of `tests.servers`: whole servers."""

from tests.servers import instances, server

__all__ = ["instances", "server"]
