"""What commands and the server say to each other, as commands of AMP.

What a pull has to tell while it goes on comes as calls of the server to the command, before the answer.
"""

from __future__ import annotations

from typing import Any, ClassVar

from twisted.protocols import amp

from mailsuite.delivery.puller import UnknownPull

_types: Any = amp  # its types of arguments know no annotations


class Ping(amp.Command):
    """Ask who is there."""

    response: ClassVar[list[tuple[bytes, Any]]] = [(b"version", _types.Unicode()), (b"pid", _types.Integer())]


class Pull(amp.Command):
    """Pull now, all where no name is given; answered when all have ended."""

    arguments: ClassVar[list[tuple[bytes, Any]]] = [
        (b"names", _types.ListOf(_types.Unicode())),
        (b"dry_run", _types.Boolean()),
    ]
    errors: ClassVar[dict[type[Exception], bytes]] = {UnknownPull: b"UNKNOWN_PULL"}


class NetworkUp(amp.Command):
    """The network is there: begin all pulls now, and do not wait for them."""

    response: ClassVar[list[tuple[bytes, Any]]] = [(b"names", _types.ListOf(_types.Unicode()))]


class Progressed(amp.Command):
    """The server tells: a pull is so far."""

    arguments: ClassVar[list[tuple[bytes, Any]]] = [
        (b"name", _types.Unicode()),
        (b"stage", _types.Unicode()),
        (b"messages", _types.Integer()),
        (b"octets", _types.Integer()),
    ]
    requiresAnswer = False


class Ended(amp.Command):
    """The server tells: a pull has ended."""

    arguments: ClassVar[list[tuple[bytes, Any]]] = [
        (b"name", _types.Unicode()),
        (b"stage", _types.Unicode()),
        (b"result", _types.Unicode()),
        (b"text", _types.Unicode()),
        (b"messages", _types.Integer()),
        (b"octets", _types.Integer()),
        (b"refusals", _types.Integer()),
        (b"seconds", _types.Float()),
    ]
    requiresAnswer = False
