"""The listeners of the settings, each with its door."""

from __future__ import annotations

from functools import partial

from mailsuite.config import Listen
from mailsuite.net.factory import ConnectionFactory
from mailsuite.net.listener import Listener
from mailsuite.service.doors import make_door
from mailsuite.service.parts import Parts
from mailsuite.service.state import State


def make_listener(listen: Listen, parts: Parts, state: State) -> Listener:
    """One listener, with its own door. Raises `ListenError`."""
    implicit = listen.tls == "implicit"
    factory = ConnectionFactory(
        partial(make_door(listen, parts, state).open, secure=implicit),
        parts.reactor,
        timeouts=parts.timeouts,
        limits=parts.limits,
        tls=state.tls if implicit else None,
    )
    return Listener(parts.reactor, listen.endpoint, factory, grace=parts.settings.stop_time)
