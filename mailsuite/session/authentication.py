"""One AUTH exchange on the server's side (RFC 4954 section 4): a SASL stepper between the peer and the directory."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable

from twisted.cred.error import UnauthorizedLogin
from twisted.logger import Logger

from mailsuite.interfaces import DirectoryUnavailable, IAuthenticator, IConversation, Refused
from mailsuite.mail import replies
from mailsuite.mail.reply import Reply
from mailsuite.mail.session import Identity, RefusedLogin
from mailsuite.wire import sasl
from mailsuite.wire.smtp.commands import Auth, AuthResponse

_log = Logger()


def log_refused(refused: RefusedLogin) -> None:
    """Log a login that failed, without its name: nobody here knows whether it is one."""
    _log.info(
        "authentication failed from {host} by {mechanism}: {code}",
        host=refused.host,
        mechanism=refused.mechanism,
        code=refused.code,
    )


class Authentication:
    """Runs AUTH exchanges for one connection.

    `mechanisms` are those offered now; `admits` says whether an identity may log in from an address. `refused` is told
    of each login that fails. Raises `Refused` with the reply that ends a failed exchange.
    """

    def __init__(
        self,
        authenticator: IAuthenticator,
        parameters: sasl.ServerParameters,
        mechanisms: tuple[bytes, ...],
        admits: Callable[[Identity, str], bool],
        refused: Callable[[RefusedLogin], object],
    ) -> None:
        self._authenticator = authenticator
        self._parameters = parameters
        self._mechanisms = mechanisms
        self._admits = admits
        self._refused = refused
        self._login: str | None = None  # who the peer says that it is

    async def run(self, conversation: IConversation, command: Auth) -> Identity:
        """Hold the exchange that the command begins, up to but without the final 235."""
        if command.mechanism not in self._mechanisms:
            # RFC 4954 section 4: a mechanism that is there, but not without TLS, is told apart.
            known = command.mechanism in sasl.PLAINTEXT_MECHANISMS and conversation.tls is None
            raise Refused(replies.AUTH_NEEDS_TLS if known else replies.AUTH_UNKNOWN_MECHANISM)
        stepper = sasl.SERVER_MECHANISMS[command.mechanism](self._parameters)
        if command.initial is not None and not stepper.client_first:
            raise Refused(replies.AUTH_NO_INITIAL)  # RFC 4954 section 4
        reason = ""
        try:
            identity = await self._step_through(conversation, stepper, stepper.begin(command.initial))
            # The answer is that to a wrong password: from elsewhere nobody learns that it was right.
            if self._admits(identity, conversation.peer.host):
                return identity
            reply, reason = replies.AUTH_REFUSED, "not from one of its networks"
        except UnauthorizedLogin:
            reply = replies.AUTH_REFUSED
        except DirectoryUnavailable as unavailable:
            _log.error("the directory cannot be asked: {reason}", reason=unavailable)
            reply = replies.AUTH_TEMPORARY
        mechanism = command.mechanism.decode("ascii")
        external = self._login is None
        facts = conversation.tls
        login = self._login if self._login is not None else (facts and facts.peer_name) or ""
        self._refused(RefusedLogin(login, conversation.peer.host, mechanism, reply.code, external, reason))
        raise Refused(reply)

    async def _step_through(
        self, conversation: IConversation, stepper: sasl.ServerMechanism, step: sasl.Step
    ) -> Identity:
        while True:
            match step:
                case sasl.Challenge(data):
                    step = stepper.respond(await self._challenge(conversation, data))
                case sasl.NeedSecret(user, kind):
                    self._login = user
                    step = stepper.supply(await self._authenticator.secret(user, kind))
                case sasl.Check(sasl.PasswordCredential(authcid, authzid, password)):
                    self._login = authcid
                    return await self._authenticator.check_password(authcid, authzid, password)
                case sasl.Check(sasl.ExternalCredential(authzid)):
                    return await self._external(conversation, authzid)
                case sasl.Verified(authcid, authzid):
                    return await self._authenticator.authorize(authcid, authzid, external=False)
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
        return await self._authenticator.authorize(facts.peer_name, authzid, external=True)
