"""What commands and the server say to each other, as commands of AMP.

What a pull has to tell while it goes on comes as calls of the server to the command, before the answer. What is more
than words and numbers goes as JSON; a value of AMP has at most 65535 octets.
"""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any, ClassVar

from twisted.protocols import amp

from mailsuite.delivery.puller import UnknownPull
from mailsuite.interfaces import SpoolError
from mailsuite.mail.route import Destination
from mailsuite.mail.selection import QueueState, Selection

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


class Manage(amp.Command):
    """Do something with what is queued: see `mailsuite.delivery.managing.Managing.manage`."""

    arguments: ClassVar[list[tuple[bytes, Any]]] = [
        (b"action", _types.Unicode()),
        (b"selection", _types.Unicode()),  # see `selection_text`
        (b"by", _types.Unicode()),
    ]
    response: ClassVar[list[tuple[bytes, Any]]] = [
        (b"messages", _types.Integer()),
        (b"recipients", _types.Integer()),
        (b"busy", _types.Integer()),
    ]
    errors: ClassVar[dict[type[Exception], bytes]] = {SpoolError: b"SPOOL_ERROR"}


class Status(amp.Command):
    """Ask how the scheduler stands with its destinations, as a list of tables in JSON; not with all, where many."""

    response: ClassVar[list[tuple[bytes, Any]]] = [(b"destinations", _types.Unicode())]


def selection_text(selection: Selection) -> str:
    """A selection as JSON, without the conditions that it does not have."""
    said = {one.name: getattr(selection, one.name) for one in fields(Selection)}
    if selection.destination is not None:
        said["destination"] = str(selection.destination)
    return json.dumps({name: value for name, value in said.items() if value not in (None, ())})


def selection_of(text: str) -> Selection:
    """The reverse of `selection_text`. Raises `ValueError`, `TypeError`: a condition left out would mean more mail."""
    said = json.loads(text)
    if "ids" in said:
        said["ids"] = tuple(said["ids"])
    if "destination" in said:
        said["destination"] = Destination.parse(said["destination"])
    if "state" in said:
        said["state"] = QueueState(said["state"])
    return Selection(**said)
