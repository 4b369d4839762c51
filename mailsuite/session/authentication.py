"""One AUTH exchange on the server's side (RFC 4954 section 4): a SASL stepper between the peer and the directory."""

from __future__ import annotations

from base64 import b64encode

from twisted.cred.error import UnauthorizedLogin
from twisted.logger import Logger

from mailsuite.interfaces import DirectoryUnavailable, IAuthenticator, IConversation, Refused
from mailsuite.mail import replies
from mailsuite.mail.reply import Reply
from mailsuite.mail.session import Identity
from mailsuite.wire import sasl
from mailsuite.wire.smtp.commands import Auth, AuthResponse

_log = Logger()


class Authentication:
    """Runs AUTH exchanges for one connection.

    `mechanisms` are those offered now. Raises `Refused` with the reply that ends a failed exchange.
    """

    def __init__(
        self, authenticator: IAuthenticator, parameters: sasl.ServerParameters, mechanisms: tuple[bytes, ...]
    ) -> None:
        self._authenticator = authenticator
        self._parameters = parameters
        self._mechanisms = mechanisms

    async def run(self, conversation: IConversation, command: Auth) -> Identity:
        """Hold the exchange that the command begins, up to but without the final 235."""
        if command.mechanism not in self._mechanisms:
            # RFC 4954 section 4: a mechanism that is there, but not without TLS, is told apart.
            known = command.mechanism in sasl.PLAINTEXT_MECHANISMS and conversation.tls is None
            raise Refused(replies.AUTH_NEEDS_TLS if known else replies.AUTH_UNKNOWN_MECHANISM)
        stepper = sasl.SERVER_MECHANISMS[command.mechanism](self._parameters)
        if command.initial is not None and not stepper.client_first:
            raise Refused(replies.AUTH_NO_INITIAL)  # RFC 4954 section 4
        try:
            return await self._step_through(conversation, stepper, stepper.begin(command.initial))
        except UnauthorizedLogin:
            reply = replies.AUTH_REFUSED
        except DirectoryUnavailable as unavailable:
            _log.error("the directory cannot be asked: {reason}", reason=unavailable)
            reply = replies.AUTH_TEMPORARY
        _log.info(
            "authentication failed from {host} by {mechanism}: {code}",
            host=conversation.peer.host,
            mechanism=command.mechanism.decode("ascii"),
            code=reply.code,
        )
        raise Refused(reply)

    async def _step_through(
        self, conversation: IConversation, stepper: sasl.ServerMechanism, step: sasl.Step
    ) -> Identity:
        while True:
            match step:
                case sasl.Challenge(data):
                    step = stepper.respond(await self._challenge(conversation, data))
                case sasl.NeedSecret(user, kind):
                    step = stepper.supply(await self._authenticator.secret(user, kind))
                case sasl.Check(sasl.PasswordCredential(authcid, authzid, password)):
                    return await self._authenticator.check_password(authcid, authzid, password)
                case sasl.Check(sasl.ExternalCredential(authzid)):
                    return await self._external(conversation, authzid)
                case sasl.Verified(authcid, authzid):
                    return await self._authenticator.authorize(authcid, authzid)
                case sasl.Refused(malformed):
                    raise Refused(replies.AUTH_MALFORMED) if malformed else UnauthorizedLogin

    async def _challenge(self, conversation: IConversation, data: bytes) -> bytes:
        conversation.send(Reply(334, None, (b64encode(data).decode("ascii"),)))
        answer: AuthResponse = await conversation.receive()
        if answer.fault is not None:
            raise Refused(answer.fault)
        if answer.response is None:
            raise Refused(replies.AUTH_CANCELLED)
        return answer.response

    async def _external(self, conversation: IConversation, authzid: str) -> Identity:
        # RFC 4422 appendix A: the identity that TLS has proved, and no other.
        facts = conversation.tls
        if facts is None or facts.peer_name is None:
            raise UnauthorizedLogin
        return await self._authenticator.authorize(facts.peer_name, authzid)
