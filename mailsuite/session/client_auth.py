"""One AUTH on the client's side (RFC 4954 section 4): a SASL mechanism between our credentials and the server.

Rules: whoever calls has seen to it that the connection is under TLS; credentials of any mechanism go nowhere else.
Where the server refuses one mechanism for good (504, 534, 535 ...), a second one is tried: servers offer SCRAM to all
and keep what it needs for some. What every server can verify is PLAIN or LOGIN, so these come second where they are
offered. No third: wrong passwords get accounts locked.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Awaitable, Callable
from typing import Any, Final

from mailsuite.interfaces import IConversation
from mailsuite.mail.reply import Reply
from mailsuite.session.exchange import exchange
from mailsuite.wire.sasl import PLAINTEXT_MECHANISMS, ClientCredentials, ClientMechanism, SaslError, choose
from mailsuite.wire.smtp.commands import Auth, AuthResponse

InThread = Callable[..., Awaitable[Any]]
"""Runs a function with its arguments in a thread, and gives what it returns."""

_TRIES: Final = 2
_MAX_COMMAND: Final = 512  # octets, CR LF included: RFC 5321 section 4.5.3.1.4


class NotAuthenticated(Exception):
    """The server did not take us for whom we are; `reply` is what it said, if it came to that."""

    def __init__(self, text: str, reply: Reply | None = None) -> None:
        super().__init__(text)
        self.reply = reply


async def authenticate(conversation: IConversation, credentials: ClientCredentials, in_thread: InThread) -> None:
    """Authenticate with the strongest mechanism that fits. Raises `NotAuthenticated`, and as `exchange`."""
    offered = set(conversation.core.capabilities.mechanisms)
    refusal: Reply | None = None
    for _ in range(_TRIES):
        mechanism = choose(offered, credentials, secure=True)
        if mechanism is None:
            break
        refusal = await _attempt(conversation, mechanism, in_thread)
        if refusal is None:
            return
        if not refusal.is_permanent:
            break
        offered.discard(mechanism.name)
        offered = offered & PLAINTEXT_MECHANISMS or offered
    if refusal is None:
        raise NotAuthenticated("the server offers no mechanism that fits our credentials")
    raise NotAuthenticated(f"our credentials were refused: {refusal.text}", refusal)


async def _attempt(conversation: IConversation, mechanism: ClientMechanism, in_thread: InThread) -> Reply | None:
    """Go through one exchange. Returns the refusal, None for success."""
    withheld: bytes | None = None
    command = Auth(mechanism.name, mechanism.initial())
    if len(command.line()) > _MAX_COMMAND:
        # RFC 4954 section 4: then the response goes without, and answers an empty challenge.
        withheld, command = command.initial, Auth(mechanism.name)
    reply = await exchange(conversation, command)
    while reply.is_intermediate:
        try:
            challenge = b64decode(reply.text, validate=True)
            if withheld is not None:
                response, withheld = withheld, None
            elif mechanism.slow:
                response = await in_thread(mechanism.respond, challenge)
            else:
                response = mechanism.respond(challenge)
        except (SaslError, ValueError) as error:
            # RFC 4954 section 4: what cannot be decoded or answered is cancelled by "*".
            reply = await exchange(conversation, AuthResponse(None))
            raise NotAuthenticated(f"the exchange was cancelled: {error}", reply) from error
        reply = await exchange(conversation, AuthResponse(response))
    if not reply.is_positive:
        return reply
    try:
        mechanism.finish()
    except SaslError as error:
        raise NotAuthenticated(str(error), reply) from error
    return None
