"""Between whoever takes mail in and whoever knows where it goes, and for whom there is room."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence

from zope.interface import Interface

from mailsuite.mail.address import Address
from mailsuite.mail.route import Destination, Target
from mailsuite.mail.session import Identity


class IRouter(Interface):
    """Knows where a recipient's mail goes."""

    def resolve(
        recipient: Address,
        submitter: Identity | None,
        *,
        trusted: bool,
        sender: Address | None = None,
        is_report: bool = False,
    ) -> Awaitable[Sequence[Target]]:
        """The targets of one recipient, aliases expanded.

        `submitter` is the authenticated account, `trusted` says that the peer's address may relay, `sender` is the
        reverse-path (None: the null one), which routes may look at. `is_report`: a report of our own is on its way;
        nobody far away is asked, and no command, whether the recipient exists. Raises
        `Refused` for an unknown local user (550 5.1.1), for relaying by strangers (550 5.7.1), for an alias that
        leads back to itself (550 5.4.6).
        """

    def destination(address: Address, sender: Address | None = None) -> Destination:
        """Where mail for this final address goes by the configuration of now; never refuses."""

    def explain(address: Address, sender: Address | None = None) -> Sequence[str]:
        """Why mail for an address goes where it goes: a sentence for each rule on the way, aliases included."""


class IReservation(Interface):
    """The room that one transaction keeps in the quotas of customers, from its first recipient to its end.

    It counts as one message for each customer, however many of the recipients are theirs.
    """

    def include(targets: Sequence[Target]) -> Awaitable[None]:
        """Keep room for the customers of these targets too; those that `hold` nothing cost nothing.

        Raises `Refused`, and then keeps no more room than before: 452 4.2.2 where there is too little, 451 where that
        cannot be told now.
        """

    def fit(size: int) -> Awaitable[None]:
        """The message is here, and has so many octets. Raises `Refused` as `include`, where nobody had announced them.

        What is within the announced size, but for what we have added to it, has had its answer.
        """

    def release() -> None:
        """Give the room back: there will be no message. May be called at any time; then `include` keeps none."""

    def landed() -> None:
        """The message is in the spool. Its true size counts until the spool's own word on what is held includes it."""


class IQuota(Interface):
    """How much may be held for each customer."""

    def reservation(octets: int) -> IReservation:
        """An `IReservation` for a transaction, of so many octets as MAIL has announced; 0 where it has not.

        It keeps room for nobody yet. Whoever asks for it says `release` or `landed` in the end.
        """
