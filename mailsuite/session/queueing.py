"""A provider's answers to ATRN, TURN and ETRN: the mail that is held leaves, on this connection or on a new one.

Behind a positive answer to ATRN the roles are reversed (RFC 2645 section 5.3): the connection is handed over to a
client's core and to `TurnedSession`, TLS included. What was negotiated for TLS and who has logged in stay as they are;
neither STARTTLS nor AUTH is said in that direction, whatever the customer offers.

Rules
- A turn that was begun is ended, once: by its session, or here where its session cannot begin any more.
- A refusal is one line: there are customers that read one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mailsuite.interfaces import IConversation, IOnDemand, ITurn, Refused
from mailsuite.mail import replies
from mailsuite.mail.address import domain_key
from mailsuite.mail.customer import Customer
from mailsuite.mail.reply import Reply
from mailsuite.mail.route import NextHop
from mailsuite.mail.session import Identity
from mailsuite.session.handover import Handover
from mailsuite.session.relay import RelaySession, RelaySettings
from mailsuite.session.visit import Visit
from mailsuite.wire.core import ConnectionClosed, PeerTooSlow
from mailsuite.wire.smtp.commands import Atrn, Etrn, Turn

_ONE_LINE = 400  # octets; `Reply` makes several lines of a longer one


class TurnedSession:
    """The provider's side of a connection whose roles have been reversed: sends what the turn has, then quits.

    `settings` are for the customer's server; `relay_settings` makes them. Ends the turn, once it was called, whatever
    comes of the connection.
    """

    def __init__(self, turn: ITurn, settings: RelaySettings) -> None:
        self._turn = turn
        self._relay = RelaySession(turn.run, settings)

    async def __call__(self, conversation: IConversation) -> None:
        """Wait for the customer's greeting, send its mail, take leave."""
        try:
            # Who cannot take a group of commands is fetchmail, and under TLS it cannot take two lines at once.
            conversation.line_by_line = not self._turn.customer.pipelining
            await self._relay(conversation)  # which does not hand over where it is told of no TLS
        finally:
            outcome = self._relay.end.outcome
            self._turn.ended(None if outcome is None else outcome.text)


def relay_settings(hostname: str, customer: Customer, remote: str) -> RelaySettings:
    """How a customer's server is sent its mail; `remote` is how outcomes name it."""
    # RFC 2645 section 5.3 begins with the greeting again, and with nothing below it: the TLS there is stays, and
    # where there is none the customer did not want it.
    return RelaySettings(hostname, NextHop(remote, tls="none"), pipelining=customer.pipelining, breaks_count=False)


async def atrn(visit: Visit, command: Atrn) -> Handover:
    """ATRN (RFC 2645 section 5.2.1)."""
    identity = visit.identity
    if identity is None:
        raise Refused(replies.AUTH_REQUIRED)
    if identity.customer is None:
        raise Refused(replies.ATRN_REFUSED)  # an account "does not provide access" to the domains of a customer
    return await _reverse(visit, identity, command.domains)


async def turn(visit: Visit, _command: Turn) -> Handover:
    """TURN, as ATRN for all domains. RFC 5321 appendix F.1: only where "the server can authenticate the client"."""
    identity = visit.identity
    if not visit.door.turn_allowed or identity is None or identity.customer is None:
        raise Refused(replies.NOT_IMPLEMENTED)  # RFC 821 section 3.8: "To refuse to change roles"
    return await _reverse(visit, identity, ())


async def etrn(visit: Visit, command: Etrn) -> Reply:
    """ETRN (RFC 1985 section 5): who may ask for what is the policy of those who serve it."""
    return await _on_demand(visit).start_queue(command.node, visit.identity, visit.conversation.peer)


async def _reverse(visit: Visit, identity: Identity, domains: Sequence[str]) -> Handover:
    on_demand = _on_demand(visit)
    conversation, hello = visit.conversation, visit.hello
    assert hello is not None
    keys = tuple(dict.fromkeys(map(domain_key, domains)))
    try:
        begun: ITurn = await on_demand.begin_turn(identity, keys, conversation.peer)
    except Refused as refused:
        raise Refused(_in_one_line(refused.reply)) from None
    try:
        settings = relay_settings(visit.door.hostname, begun.customer, hello.domain)
        handover = Handover(settings.core(), TurnedSession(begun, settings))
        conversation.send(replies.TURNING)
        # A connection that was lost meanwhile shows here; its driver would not begin another session on it.
        await conversation.drain()
    except BaseException as error:
        begun.ended("the connection was lost before the turn")
        if isinstance(error, PeerTooSlow):  # which is answered elsewhere, and everything has been said here
            raise ConnectionClosed(str(error)) from error
        raise
    return handover


def _on_demand(visit: Visit) -> IOnDemand:
    if visit.door.on_demand is None:
        raise Refused(replies.NOT_IMPLEMENTED)
    return visit.door.on_demand


def _in_one_line(reply: Reply) -> Reply:
    return replace(reply, lines=(reply.text[:_ONE_LINE],))
