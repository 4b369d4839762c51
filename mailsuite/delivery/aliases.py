"""What an alias stands for in the end: aliases behind aliases, lists with an owner, loops.

A list has an owner where `owner-NAME` is there beside the alias NAME: then that is the reverse-path of what the list
sends (RFC 5321 section 3.9.2), and its members' failures are told to whoever reads it, not to who wrote to the list. A
catch-all is nobody's owner.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from twisted.logger import Logger

from mailsuite.interfaces import IDirectory, Refused
from mailsuite.mail import replies
from mailsuite.mail.address import Address
from mailsuite.mail.route import Target

_MAX_TARGETS: Final = 10_000  # of one recipient, aliases expanded
_MAX_DEPTH: Final = 20  # aliases behind aliases
_OWNER: Final = "owner-"


class Leaf(NamedTuple):
    """One alias on the way, with whom it stands for, and its owner if it is a list."""

    alias: Address
    members: Sequence[Address]
    owner: Address | None


class Aliases:
    """Follows the aliases of a directory. `plain` tells what to ask it for an address."""

    _log = Logger()

    def __init__(self, directory: IDirectory, plain: Callable[[Address], Address]) -> None:
        self._directory = directory
        self._plain = plain

    def expand(
        self,
        recipient: Address,
        target_of: Callable[[Address, Address | None], Target | None],
        trail: list[Leaf] | None = None,
    ) -> dict[Address, Target]:
        """Everybody whom a recipient stands for, each once.

        `target_of` is told an address and the owner of the list that it was reached through; it gives None for an
        alias, and for nobody. A branch that leads nowhere, or back into itself, is left out where others lead to
        somebody; else `Refused` is raised. Aliases on the way are added to the `trail`.
        """
        found: dict[Address, Target] = {}
        seen = {recipient}
        # Each address with those that led to it, and the owner of the last list among them.
        level: list[tuple[Address, tuple[Address, ...], Address | None]] = [(recipient, (), None)]
        looped = False
        for _depth in range(_MAX_DEPTH):
            following: list[tuple[Address, tuple[Address, ...], Address | None]] = []
            for address, path, above in level:
                target = target_of(address, above)
                if target is not None:
                    found.setdefault(target.address, target)
                    continue
                members = self._members(address, recipient)
                owner = (self._owner(address) if members else None) or above
                if trail is not None and members:
                    trail.append(Leaf(address, members, owner))
                for member in members:
                    if member not in seen:
                        seen.add(member)
                        following.append((member, (*path, address), owner))
                    elif member == address or member in path:
                        looped = True
            if len(found) + len(following) > _MAX_TARGETS:
                raise Refused(replies.ALIAS_TOO_LARGE)
            level = following
        if not found:
            raise Refused(replies.ALIAS_LOOP if looped or level else replies.NO_SUCH_USER)
        return found

    def _members(self, address: Address, recipient: Address) -> Sequence[Address]:
        members = self._directory.alias(self._plain(address))
        if members is None and address != recipient:
            self._log.warn(
                "alias {alias} names {address}, which nobody has", alias=str(recipient), address=str(address)
            )
        return members or ()

    def _owner(self, alias: Address) -> Address | None:
        """The owner's address, where it is there."""
        if not alias.domain:
            return None  # it would have no domain either, and nobody could answer to it
        owner = Address(_OWNER + alias.local_part, alias.domain)
        found = self._known_as(owner)
        # What any other name leads to as well is a catch-all.
        if found is None or found == self._known_as(Address(_OWNER + owner.local_part, alias.domain)):
            return None
        return owner

    def _known_as(self, address: Address) -> Address | Sequence[Address] | None:
        asked = self._plain(address)
        return self._directory.mailbox(asked) or self._directory.alias(asked)
