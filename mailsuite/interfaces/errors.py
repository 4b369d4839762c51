"""What goes wrong between rooms, and how whoever is asked says so."""

from __future__ import annotations

from mailsuite.mail.reply import Reply


class Refused(Exception):
    """Something is refused for a reason that the peer should see: the one place that sends replies sends this one."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(str(reply))
        self.reply = reply


class SpoolError(Exception):
    """The spool cannot do what was asked, now. Peers are told 451 4.3.0."""


class SpoolDown(SpoolError):
    """Nothing can be written now, whatever it is: the disk fails, or the database cannot be reached."""


class SpoolFull(SpoolDown):
    """There is no room on the disk. Peers are told 452 4.3.1."""


class SpoolInUse(SpoolError):
    """Another process has the spool."""


class DirectoryUnavailable(Exception):
    """The directory of accounts cannot be read, now. Peers are told 451 or 454."""
