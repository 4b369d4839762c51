"""Asking where mail that waits goes now, without harm from an answer that does not come."""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger

from mailsuite.mail.address import Address
from mailsuite.mail.plain import plain
from mailsuite.mail.route import Destination

Choose = Callable[[Address, Destination, Address | None], Destination]


class Careful:
    """Asks `choose`, whose defects concern one address alone: it stays where it is. The first one is logged whole."""

    _log = Logger()

    def __init__(self, choose: Choose) -> None:
        self._choose = choose
        self._is_told = False

    def __call__(self, address: Address, present: Destination, sender: Address | None) -> Destination:
        """Where mail for an address goes that waits under `present`."""
        try:
            return self._choose(address, present, sender)
        except Exception:  # noqa: BLE001 - see above
            if not self._is_told:
                self._is_told = True
                self._log.failure(
                    "{address} stays at {present}: where it goes now cannot be told; others may, without a word",
                    address=plain(str(address)),
                    present=str(present),
                )
            return present
