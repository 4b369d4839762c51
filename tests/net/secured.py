"""Sessions that start TLS on their connections, and the eavesdropper who must not hear them."""

from mailsuite.session.handover import Handover
from mailsuite.wire.core import Role
from tests.net.support import LineCore, Side, echo

SECRETS = (b"secret", b"hidden")


def starting(tls, then=echo, core=None):
    """A server's session that hands over to TLS at the first line."""

    async def session(conversation):
        await conversation.receive()
        conversation.send(b"turn\n")
        return Handover(core or LineCore(), then, tls)

    return session


def asking(tls, then):
    """A client's session that asks for TLS and hands over when it may."""

    async def session(conversation):
        conversation.send(b"starttls\n")
        await conversation.receive()
        return Handover(LineCore(Role.CLIENT), then, tls)

    return session


def telling(lines, kept):
    """A client's session that says lines and keeps what comes back."""

    async def session(conversation):
        kept.append(conversation.tls)
        for line in lines:
            conversation.send(line + b"\n")
            event = await conversation.receive()
            kept.append(event.text)

    return session


def pair(server_session, client_session, *, server_options=None, client_options=None):
    server = Side(server_session, **(server_options or {}))
    client = Side(client_session, LineCore(Role.CLIENT), **(client_options or {}))
    return server, client


def check_nothing_in_plaintext(*sides):
    for side in sides:
        for secret in SECRETS:
            assert secret not in side.wire.sent
