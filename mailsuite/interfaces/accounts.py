"""Between sessions and the directory of accounts."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence

from zope.interface import Interface

from mailsuite.mail.address import Address
from mailsuite.mail.session import Identity, ScramSecret, SecretKind


class IAuthenticator(Interface):
    """Proves who a peer is. Sits before a twisted.cred portal."""

    def check_password(authcid: str, authzid: str, password: bytes) -> Awaitable[Identity]:
        """Log in by password (PLAIN, LOGIN). Raises `twisted.cred.error.UnauthorizedLogin`, `DirectoryUnavailable`."""

    def secret(authcid: str, kind: SecretKind) -> Awaitable[bytes | ScramSecret | None]:
        """What is kept of this account for that mechanism; None where the account or the secret does not exist."""

    def authorize(authcid: str, authzid: str, *, external: bool) -> Awaitable[Identity]:
        """Log in someone who has proved to be `authcid`. Raises as `check_password`.

        With `external` that is the name in a verified client certificate (EXTERNAL), without it a login name whose
        secret was proved (CRAM-MD5, SCRAM): a customer's login name in somebody's certificate proves nothing.
        """


class IDirectory(Interface):
    """Local domains, mailboxes and aliases, as they are now. Look-ups answer from memory and never block."""

    def is_local_domain(domain: str) -> bool:
        """Whether we are the final destination for a domain (a domain key: lower case, A-labels)."""

    def mailbox(address: Address) -> Address | None:
        """The canonical address of the mailbox that receives for this address (case and subaddress folded), or None."""

    def alias(address: Address) -> Sequence[Address] | None:
        """What an alias stands for, one step; None where the address is no alias."""
