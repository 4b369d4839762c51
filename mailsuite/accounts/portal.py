"""twisted.cred for accounts and customers: realm, checkers, and the authenticator that stands before the portal.

An avatar is an `Identity`, asked for as `IAccount`; its id is the account's main address, or the customer's name, in
UTF-8. Sessions of ours, which speak SASL, use the `Authenticator`; its `portal` serves any protocol that logs in
through cred.

Rules: an account or a customer that does not exist, an account that is disabled and one whose password was wrong are
the same from outside: `UnauthorizedLogin` after one look into the directory and one argon2id computation. The directory
is read for each login, so what the operator changes is in force at once. A directory that cannot be read raises
`DirectoryUnavailable`.

Proofs by CRAM-MD5 and SCRAM are guesses as well: each `secret` that is handed out counts as one, until
`authorize` tells that it was right.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import ICredentials, IUsernamePassword, UsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import IRealm, Portal
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import Attribute, Interface, classImplements, implementer

from mailsuite.accounts.configured import ConfiguredCustomer
from mailsuite.accounts.customers import CustomersFile
from mailsuite.accounts.directory import DirectoryFile
from mailsuite.accounts.errors import DirectoryError
from mailsuite.accounts.guesses import GuessAllowance, GuessLimit, RecentLogins
from mailsuite.accounts.logins import Accounts
from mailsuite.accounts.passwords import Argon2id, PasswordCost
from mailsuite.accounts.reader import DirectoryReader
from mailsuite.accounts.records import Account, Secrets
from mailsuite.accounts.threads import InThread, LimitedThreads
from mailsuite.interfaces import IAuthenticator
from mailsuite.mail.address import Address
from mailsuite.mail.session import Identity, ScramSecret, SecretKind

_log = Logger()


class IAccount(Interface):
    """Who is logged in, an account or a customer; the avatar's interface. `mail.session.Identity` provides it."""

    name = Attribute("str: the main address, or the customer's name")
    addresses = Attribute("frozenset[str]: what it may send as, see Identity")

    def may_send_as(address: Address) -> bool:  # noqa: N805 - zope.interface declares methods without self
        """Whether the account owns this sender address."""


classImplements(Identity, IAccount)


class IProvenName(ICredentials):
    """Someone has proved to be the account of this login name by other means than a password that we see.

    Whoever makes such credentials vouches for the proof: a SASL mechanism that has run, a certificate that
    was verified.
    """

    username = Attribute("bytes: the login name in UTF-8, or the name in the certificate")
    external = Attribute("bool: it is the name in a certificate")


@implementer(IProvenName)
@dataclass(frozen=True, slots=True)
class ProvenName:
    """Credentials that hold no secret."""

    username: bytes
    external: bool = False


@implementer(IRealm)
class Realm:
    """Gives an `Identity` to each account that is enabled."""

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts

    def requestAvatar(
        self, avatarId: bytes | tuple[()], mind: object, *interfaces: type[Interface]
    ) -> Deferred[tuple[type[Interface], object, Callable[[], None]]]:
        return Deferred.fromCoroutine(self._avatar(avatarId, interfaces))

    async def _avatar(
        self, avatar_id: bytes | tuple[()], interfaces: tuple[type[Interface], ...]
    ) -> tuple[type[Interface], object, Callable[[], None]]:
        if IAccount not in interfaces:
            raise LookupError(f"the accounts' realm gives IAccount, not {interfaces}")
        # No anonymous avatar; and an account that went away since its password was checked has none.
        _, account = await self._accounts.find(avatar_id.decode("utf-8")) if avatar_id else ("", None)
        if account is None or not account.enabled:
            raise UnauthorizedLogin
        return IAccount, account.identity, _log_out


@implementer(ICredentialsChecker)
class PasswordChecker:
    """Checks a password against the argon2id hash; renews a hash that was made at another cost than that of now.

    `renew` is called in a thread with the account, its hash and the new one.
    """

    credentialInterfaces = (IUsernamePassword,)

    def __init__(
        self,
        accounts: Accounts,
        hashing: Argon2id,
        threads: LimitedThreads,
        guesses: GuessAllowance,
        recent: RecentLogins,
        renew: Callable[[Account, str, str], None],
    ) -> None:
        self._accounts = accounts
        self._hashing = hashing
        self._threads = threads
        self._guesses = guesses
        self._recent = recent
        self._renew = renew

    def requestAvatarId(self, credentials: IUsernamePassword) -> Deferred[bytes | tuple[()]]:
        return Deferred.fromCoroutine(self._check(credentials.username, credentials.password))

    async def _check(self, username: bytes, password: bytes) -> bytes:
        name, account = await self._accounts.find(username.decode("utf-8", "replace"))
        secrets = account.secrets if account is not None and account.enabled else Secrets()
        hashed = secrets.password_hash
        if account is not None and hashed is not None and self._recent.knows(account.name, hashed, password):
            return account.name.encode("utf-8")
        self._guesses.take(name)
        right = await self._threads.run(self._verify, account, secrets, password)
        if not right or account is None:
            raise UnauthorizedLogin
        self._guesses.give_back(name)
        if hashed is not None:
            self._recent.remember(account.name, hashed, password)
        return account.name.encode("utf-8")

    def _verify(self, account: Account | None, secrets: Secrets, password: bytes) -> bool:
        """Whether the password is right. One computation, whatever there is to compare it with."""
        if secrets.known is not None:
            return self._hashing.verify_known(secrets.known, password)
        hashed = secrets.password_hash
        right = self._hashing.verify(hashed, password)
        if right and account is not None and hashed is not None:
            renewed = self._hashing.renewed(hashed, password)
            if renewed is not None:
                try:
                    self._renew(account, hashed, renewed)
                except DirectoryError as error:
                    _log.warn("the password hash of {name} stays as it was: {reason}", name=account.name, reason=error)
        return right


@implementer(ICredentialsChecker)
class ProofChecker:
    """Takes someone for who they were proved to be, if that account exists and is enabled, or that customer exists.

    A customer is known by the name in a client certificate where that is its `Customer.certificate`, and by that alone.
    """

    credentialInterfaces = (IProvenName,)

    def __init__(self, accounts: Accounts, guesses: GuessAllowance) -> None:
        self._accounts = accounts
        self._guesses = guesses

    def requestAvatarId(self, credentials: IProvenName) -> Deferred[bytes | tuple[()]]:
        return Deferred.fromCoroutine(self._check(credentials.username, credentials.external))

    async def _check(self, username: bytes, external: bool) -> bytes:  # noqa: FBT001 - from one place
        name, account = await self._accounts.find(username.decode("utf-8", "replace"), external=external)
        if account is None or not account.enabled:
            raise UnauthorizedLogin
        self._guesses.give_back(name)
        return account.name.encode("utf-8")


@implementer(IAuthenticator)
class Authenticator:
    """Says who a SASL peer is, by a portal that takes `IUsernamePassword` and `IProvenName` and gives `IAccount`.

    An authorization identity may be empty or another name of the same account (RFC 4422 section 3.4.1);
    nobody acts for another account.
    """

    def __init__(self, portal: Portal, accounts: Accounts, guesses: GuessAllowance) -> None:
        self.portal = portal
        self._accounts = accounts
        self._guesses = guesses

    async def check_password(self, authcid: str, authzid: str, password: bytes) -> Identity:
        return await self._login(UsernamePassword(_octets(authcid), password), authzid)

    async def secret(self, authcid: str, kind: SecretKind) -> bytes | ScramSecret | None:
        name, account = await self._accounts.find(authcid)
        self._guesses.take(name)
        if account is None or not account.enabled:
            return None
        return account.secrets.shared if kind is SecretKind.SHARED else account.secrets.scram

    async def authorize(self, authcid: str, authzid: str, *, external: bool) -> Identity:
        return await self._login(ProvenName(_octets(authcid), external), authzid)

    async def find(self, login: str, *, external: bool = False) -> Identity | None:
        """Who logs in by this name, or where it is `external` by a certificate in which it stands, enabled or not.

        It proves nothing; it is for logs. Raises `DirectoryUnavailable`.
        """
        _, account = await self._accounts.find(login, external=external)
        return None if account is None else account.identity

    async def _login(self, credentials: ICredentials, authzid: str) -> Identity:
        _, avatar, _ = await self.portal.login(credentials, None, IAccount)
        identity = cast("Identity", avatar)
        if authzid and not self._accounts.is_same(authzid, identity):
            raise UnauthorizedLogin
        return identity


def make_authenticator(
    reader: DirectoryReader,
    clock: IReactorTime,
    in_thread: InThread,
    *,
    default_domain: str | None = None,
    customers: Sequence[ConfiguredCustomer] = (),
    cost: PasswordCost | None = None,
    guess_limit: GuessLimit | None = None,
    hashing_threads: int = 2,
) -> Authenticator:
    """The authenticator of a directory, with its portal (`Authenticator.portal`).

    `customers` are those of the configuration; those of the directory are found there. Where a customer may log in from
    is not asked here: that takes the peer, which the session knows. `hashing_threads` is how many passwords are
    verified at once: each takes a core, and the memory that `cost` says.
    """
    accounts = Accounts(reader, in_thread, default_domain, customers)
    guesses = GuessAllowance(clock, guess_limit)

    def renew(account: Account, old: str, new: str) -> None:
        editor = DirectoryFile if account.identity.customer is None else CustomersFile
        with editor(reader.path) as directory:
            directory.renew_hash(account.name, old, new)

    checkers = (
        PasswordChecker(
            accounts,
            Argon2id(cost),
            LimitedThreads(in_thread, hashing_threads),
            guesses,
            RecentLogins(clock),
            renew,
        ),
        ProofChecker(accounts, guesses),
    )
    return Authenticator(Portal(Realm(accounts), checkers), accounts, guesses)


def _octets(name: str) -> bytes:
    return name.encode("utf-8", "replace")


def _log_out() -> None:
    """An identity holds nothing that would have to be given back."""
