"""The one error of a service that cannot be built or started."""

from __future__ import annotations


class StartError(Exception):
    """The service cannot be built or started; one sentence names what is wrong and the cure."""
