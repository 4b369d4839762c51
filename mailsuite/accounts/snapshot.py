"""The directory as a running server asks it: `IDirectory`, answered from memory.

Each second the file is asked, in a thread, whether it has changed; when it has, it is read anew and the
snapshot replaced whole. While the file cannot be read the last snapshot goes on answering; before there has
been one every question raises `DirectoryUnavailable`, for "no such user" would be a lie that loses mail.

What an address is, the first that holds: what is written of the address itself; of the address without its
subaddress (`alice+lists@` is `alice@`); of the domain's catch-all; for `postmaster` of a local domain, or of
none, an alias of the postmaster that the configuration names (RFC 5321 section 4.5.1). So it is a mailbox or
an alias, never both.

Known limits: the whole directory lies in memory, some 430 octets for each address.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from mailsuite.accounts.names import CATCH_ALL, POSTMASTER, fold, key_of
from mailsuite.accounts.polling import Polling
from mailsuite.accounts.reader import DirectoryReader, Entry, Snapshot
from mailsuite.accounts.threads import InThread
from mailsuite.interfaces import DirectoryUnavailable, IDirectory
from mailsuite.mail.address import Address
from mailsuite.mail.session import SecretKind

_log = Logger()


@implementer(IDirectory)
class Directory(Polling):
    """Local domains, mailboxes and aliases; a service that keeps up with the file.

    `in_thread` runs a blocking function in a thread. A subaddress begins at the first `delimiter` in a local
    part; an empty one means that there are none. `postmaster` takes the mail of postmasters who have neither
    mailbox nor alias. `interval` is in seconds.

    The methods of `IDirectory` raise `DirectoryUnavailable` until the file has been read once.
    """

    def __init__(
        self,
        reader: DirectoryReader,
        clock: IReactorTime,
        in_thread: InThread,
        *,
        delimiter: str = "+",
        postmaster: Address | None = None,
        interval: float = 1.0,
    ) -> None:
        super().__init__(reader, clock, in_thread, interval, "no address is known")
        self._delimiter = delimiter
        self._postmaster = postmaster
        self._snapshot: Snapshot | None = None
        self._missed_postmaster = False

    # --------------------------------------------------------------------------------------------- IDirectory

    def is_local_domain(self, domain: str) -> bool:
        # RFC 5321 section 4.1.1.3: <postmaster> without a domain is ours.
        return not domain or domain in self._current().domains

    @property
    def domains(self) -> frozenset[str]:
        """All local domains."""
        return self._current().domains

    @property
    def kinds(self) -> frozenset[SecretKind]:
        """The secrets that are kept of some account or customer besides hashes; all, until the file has been read."""
        return frozenset(SecretKind) if self._snapshot is None else self._snapshot.kinds

    def mailbox(self, address: Address) -> Address | None:
        entry = self._find(address)
        return entry if isinstance(entry, Address) else None

    def alias(self, address: Address) -> Sequence[Address] | None:
        entry = self._find(address)
        return entry if isinstance(entry, tuple) else None

    # --------------------------------------------------------------------------------------------- underneath

    def _current(self) -> Snapshot:
        if self._snapshot is None:
            raise DirectoryUnavailable("the directory of accounts has not been read yet")
        return self._snapshot

    def _find(self, address: Address) -> Entry | None:
        snapshot = self._current()
        domain = address.domain_key
        local_parts = self._local_parts(fold(address.local_part))
        if domain in snapshot.domains:
            for local_part in (*local_parts, CATCH_ALL):
                entry = snapshot.entries.get((local_part, domain))
                if entry is not None:
                    return entry
        elif domain:
            return None
        # RFC 5321 section 4.5.1: postmaster is there, in any case of letters, at every local domain and without one.
        if POSTMASTER in local_parts and self._postmaster is not None:
            # One that would lead to itself is none.
            return None if key_of(self._postmaster) == (POSTMASTER, domain) else (self._postmaster,)
        return None

    def _local_parts(self, local_part: str) -> list[str]:
        """What to look for, in turn. An empty local part is nobody's, and is left out here."""
        base = local_part.partition(self._delimiter)[0] if self._delimiter else local_part
        return [one for one in dict.fromkeys((local_part, base)) if one]

    def _read(self) -> Snapshot | None:
        return self._reader.snapshot(None if self._snapshot is None else self._snapshot.version)

    def _take(self, news: Snapshot) -> None:
        self._snapshot = news
        self._look_for_postmaster()

    def _look_for_postmaster(self) -> None:
        """Tell the operator, once, when mail for the postmaster has nowhere to go."""
        address = self._postmaster
        snapshot = self._current()
        local = address is not None and address.domain_key in snapshot.domains
        missed = address is not None and local and self._find(address) is None
        if missed and not self._missed_postmaster:
            _log.warn(
                "the postmaster {address} has no mailbox; add it with `mailsuite user add {address}`", address=address
            )
        self._missed_postmaster = missed
