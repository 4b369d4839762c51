"""twisted.cred for accounts: the realm, the checkers, and the authenticator that stands before the portal.

An avatar is an `Identity`, asked for as `IAccount`; its id is the account's main address in UTF-8. Sessions of
ours, which speak SASL, use the `Authenticator`; its `portal` serves any protocol that logs in through cred.

Rules: an account that does not exist, one that is disabled and one whose password was wrong are the same from
outside: `UnauthorizedLogin` after one look into the directory and one argon2id computation. The directory is
read for each login, so what the operator changes is in force at once. A directory that cannot be read raises
`DirectoryUnavailable`.

Proofs by CRAM-MD5 and SCRAM are guesses as well: each `secret` that is handed out counts as one, until
`authorize` tells that it was right.
"""

from __future__ import annotations

from collections.abc import Callable
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

from mailsuite.accounts.directory import DirectoryFile
from mailsuite.accounts.errors import DirectoryError
from mailsuite.accounts.guesses import GuessAllowance, GuessLimit, RecentLogins
from mailsuite.accounts.names import login_key, plain, written
from mailsuite.accounts.passwords import Argon2id, PasswordCost
from mailsuite.accounts.reader import DirectoryReader
from mailsuite.accounts.records import Account
from mailsuite.accounts.threads import InThread, LimitedThreads
from mailsuite.interfaces import IAuthenticator
from mailsuite.mail.address import Address
from mailsuite.mail.session import Identity, ScramSecret, SecretKind

_log = Logger()

_NOBODYS_KEY = ("", "")
_MAX_NAME = 255  # characters of a name that no account has; peers choose its length


class IAccount(Interface):
    """An account that is logged in; the avatar's interface. `mailsuite.mail.session.Identity` provides it."""

    name = Attribute("str: the main address")
    addresses = Attribute("frozenset[str]: what it may send as, see Identity")

    def may_send_as(address: Address) -> bool:  # noqa: N805 - zope.interface declares methods without self
        """Whether the account owns this sender address."""


classImplements(Identity, IAccount)


class IProvenName(ICredentials):
    """Someone has proved to be the account of this login name by other means than a password that we see.

    Whoever makes such credentials vouches for the proof: a SASL mechanism that has run, a certificate that
    was verified.
    """

    username = Attribute("bytes: the login name in UTF-8")


@implementer(IProvenName)
@dataclass(frozen=True, slots=True)
class ProvenName:
    """Credentials that hold no secret."""

    username: bytes


class Accounts:
    """Finds accounts by login name, off the reactor's thread.

    A login name is any address of an account or, with a `default_domain` (a domain key), a bare local part of
    that domain.
    """

    def __init__(self, reader: DirectoryReader, in_thread: InThread, default_domain: str | None = None) -> None:
        self._reader = reader
        self._in_thread = in_thread
        self._default_domain = default_domain

    async def find(self, login: str) -> tuple[str, Account | None]:
        """The account, enabled or not, and its name; where there is none, None and a name to count guesses by.

        Raises `DirectoryUnavailable`.
        """
        key = login_key(login, self._default_domain)
        # Where the name cannot be one the file is asked all the same, for a key that nobody has.
        account: Account | None = await self._in_thread(self._reader.account, key or _NOBODYS_KEY)
        if account is not None:
            return account.name, account
        return (login if key is None else written(key))[:_MAX_NAME], None

    def is_same(self, login: str, identity: Identity) -> bool:
        """Whether a login name is one of an account's."""
        key = login_key(login, self._default_domain)
        return key is not None and plain(key) in identity.addresses


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

    `renew` is called in a thread with an account's name, its hash and the new one.
    """

    credentialInterfaces = (IUsernamePassword,)

    def __init__(
        self,
        accounts: Accounts,
        hashing: Argon2id,
        threads: LimitedThreads,
        guesses: GuessAllowance,
        recent: RecentLogins,
        renew: Callable[[str, str, str], None],
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
        password_hash = account.secrets.password_hash if account is not None and account.enabled else None
        if password_hash is not None and self._recent.knows(name, password_hash, password):
            return name.encode("utf-8")
        self._guesses.take(name)
        right = await self._threads.run(self._verify, name, password_hash, password)
        if not right or password_hash is None:
            raise UnauthorizedLogin
        self._guesses.give_back(name)
        self._recent.remember(name, password_hash, password)
        return name.encode("utf-8")

    def _verify(self, name: str, password_hash: str | None, password: bytes) -> bool:
        right = self._hashing.verify(password_hash, password)
        if right and password_hash is not None:
            renewed = self._hashing.renewed(password_hash, password)
            if renewed is not None:
                try:
                    self._renew(name, password_hash, renewed)
                except DirectoryError as error:
                    _log.warn("the password hash of {name} stays as it was: {reason}", name=name, reason=error)
        return right


@implementer(ICredentialsChecker)
class ProofChecker:
    """Takes someone for who they were proved to be, if that account exists and is enabled."""

    credentialInterfaces = (IProvenName,)

    def __init__(self, accounts: Accounts, guesses: GuessAllowance) -> None:
        self._accounts = accounts
        self._guesses = guesses

    def requestAvatarId(self, credentials: IProvenName) -> Deferred[bytes | tuple[()]]:
        return Deferred.fromCoroutine(self._check(credentials.username))

    async def _check(self, username: bytes) -> bytes:
        name, account = await self._accounts.find(username.decode("utf-8", "replace"))
        if account is None or not account.enabled:
            raise UnauthorizedLogin
        self._guesses.give_back(name)
        return name.encode("utf-8")


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

    async def authorize(self, authcid: str, authzid: str) -> Identity:
        return await self._login(ProvenName(_octets(authcid)), authzid)

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
    cost: PasswordCost | None = None,
    guess_limit: GuessLimit | None = None,
    hashing_threads: int = 2,
) -> Authenticator:
    """The authenticator of a directory, with its portal (`Authenticator.portal`).

    `hashing_threads` is how many passwords are verified at once: each takes a core, and the memory that
    `cost` says.
    """
    accounts = Accounts(reader, in_thread, default_domain)
    guesses = GuessAllowance(clock, guess_limit)

    def renew(name: str, old: str, new: str) -> None:
        with DirectoryFile(reader.path) as directory:
            directory.renew_hash(name, old, new)

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
