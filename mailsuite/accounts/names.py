"""Names in the directory: which addresses and domains it takes, and the one form in which each is looked up.

Rules: a local part is folded to lower case (the operator of a domain says what its local parts mean, RFC 5321
section 2.4) and to NFC (RFC 6532 section 3.1); a domain is a domain key: lower case, A-labels. The folded
local part may become the name of a directory on a disk and the name of a login, so an account's address is
narrower than the grammar of addresses: no `/`, no leading dot, nothing invisible, nothing that SASLprep would
change under way (RFC 4013). A customer's name is a login as well, and free otherwise.

What looks up (`key_of`, `login_key`, `customer_key`) never raises; what reads an operator's input raises
`DirectoryError`.
"""

from __future__ import annotations

import unicodedata
from ipaddress import ip_address
from stringprep import in_table_b1
from typing import TypeAlias

from mailsuite.accounts.errors import DirectoryError
from mailsuite.mail.address import Address, domain_key, is_domain, parse_mailbox

Key: TypeAlias = tuple[str, str]
"""A folded local part and a domain key. The local part of a catch-all (`@example.org`) is empty."""

CATCH_ALL = ""
POSTMASTER = "postmaster"

# RFC 5321 section 4.5.3.1.1. Foreign addresses may be longer (mail.address tells why); ours have no reason to.
_MAX_LOCAL_PART = 64
_MAX_LABEL = 63
_MAX_CUSTOMER = 64  # characters
_MAX_LOGIN = 255  # characters; peers choose their length


def fold(local_part: str) -> str:
    """The form of a local part for comparing and for look-ups."""
    return local_part.lower() if local_part.isascii() else unicodedata.normalize("NFC", local_part).lower()


def key_of(address: Address) -> Key:
    """What an address is looked up by."""
    return fold(address.local_part), address.domain_key


def plain(key: Key) -> str:
    """A key as `Identity.addresses` holds it: without quotes, and `@example.org` for a catch-all."""
    return f"{key[0]}@{key[1]}"


def written(key: Key) -> str:
    """A key as people write it, quoted where it must be."""
    local_part, domain = key
    return f"@{domain}" if local_part == CATCH_ALL else str(Address(local_part, domain))


def login_key(login: str, default_domain: str | None) -> Key | None:
    """The address that a login name stands for: a whole address, or a bare local part of the default domain.

    None where it can be neither.
    """
    if not _is_encodable(login):
        return None
    address = parse_mailbox(login)
    if address is None and default_domain is not None:
        address = parse_mailbox(f"{login}@{default_domain}")
    return None if address is None or not address.local_part else key_of(address)


def customer_key(name: str) -> str:
    """What a customer's name, or the name in its certificate, is looked up by; empty where it can be nobody's."""
    if len(name) > _MAX_LOGIN or not _is_encodable(name):
        return ""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def customer_name(text: str) -> str:
    """The name that an operator gives a customer."""
    if not text or len(text) > _MAX_CUSTOMER or text.startswith("-") or not all(map(_is_of_name, text)):
        # Nothing that a shell, a table or a log would take for something else.
        raise DirectoryError(
            f"{text!r} cannot name a customer; take 1 to {_MAX_CUSTOMER} letters, digits and any of . _ - @, as "
            "in ship-1"
        )
    fault = _spelling_fault(text)
    if fault is not None:
        raise DirectoryError(f"the customer's name {text!r} {fault}; choose another")
    return text


def _is_of_name(character: str) -> bool:
    return character.isalnum() or character in "._-@"


def certificate_name(text: str) -> str:
    """The name in a client certificate, as an operator says it."""
    if not text or not text.isprintable() or text != text.strip() or not customer_key(text):
        raise DirectoryError(f"{text!r} is not a name in a certificate; write one like ship-1.example.org")
    return text


def recipient_key(text: str) -> Key:
    """The key of a recipient on a customer's list; `@example.org` stands for everybody in a domain."""
    if text.startswith("@"):
        return CATCH_ALL, domain_name(text[1:])
    address = target_address(text)
    return key_of(address)


def domain_name(text: str) -> str:
    """The domain key of a domain that an operator names."""
    key = domain_key(text) if _is_encodable(text) and is_domain(text) else ""
    if not key.isascii() or not is_domain(key) or max(map(len, key.split("."))) > _MAX_LABEL:
        raise DirectoryError(f"{text!r} is not a domain name; write one like example.org")
    if _is_ip_address(key):
        raise DirectoryError(f"{key} is an IP address; a local domain has a name like example.org")
    return key


def account_address(text: str) -> Key:
    """The key of an address that an account or an alias is to have."""
    address = parse_mailbox(text) if _is_encodable(text) else None
    if address is None or not address.local_part or address.domain.startswith("["):
        raise DirectoryError(f"{text!r} is not an address; write one like alice@example.org")
    key = fold(address.local_part), domain_name(address.domain)
    fault = _local_part_fault(key[0])
    if fault is not None:
        raise DirectoryError(f"the local part of {text!r} {fault}; choose another")
    return key


def account_address_or_catch_all(text: str) -> Key:
    """The same, where `@example.org` may stand for every address of a domain that is not there by itself."""
    return (CATCH_ALL, domain_name(text[1:])) if text.startswith("@") else account_address(text)


def target_address(text: str) -> Address:
    """An address, ours or foreign, that an alias leads to. The case of its local part is kept."""
    address = parse_mailbox(text) if text.isprintable() else None  # lone surrogates are not printable either
    if address is None or not address.local_part:
        raise DirectoryError(f"{text!r} is not an address that mail can be sent to; write one like bob@example.net")
    domain = address.domain if address.domain.startswith("[") else domain_name(address.domain)
    return Address(address.local_part, domain)


def _local_part_fault(local_part: str) -> str | None:
    if "/" in local_part:
        return 'contains "/", which cannot stand in the name of a directory'
    if local_part.startswith("."):
        return "begins with a dot, which would make a hidden directory"
    fault = _spelling_fault(local_part)
    if fault is not None:
        return fault
    if len(local_part.encode("utf-8")) > _MAX_LOCAL_PART:
        return f"is longer than {_MAX_LOCAL_PART} octets"
    return None


def _spelling_fault(login: str) -> str | None:
    """Why what is written here cannot be what a login says."""
    if not login.isprintable() or login != login.strip():
        return "contains characters that cannot be seen"
    if any(map(in_table_b1, login)) or unicodedata.normalize("NFKC", login) != login:
        # RFC 4616 section 2: a login name is prepared on its way to us, so this one would never be found.
        return "contains characters that mail clients send in another form (SASLprep)"
    return None


def _is_encodable(text: str) -> bool:
    """Whether it can be said in UTF-8; an argument of a command that was not comes with lone surrogates."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _is_ip_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
