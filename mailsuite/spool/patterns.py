"""What operators write for addresses, domains and texts, as patterns of SQL's LIKE (with `!` as its escape).

Limit: as with LIKE, only ASCII letters are the same in both cases.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

import idna

from mailsuite.mail.address import parse_mailbox

ESCAPE = "!"
_SPECIAL = re.compile(r"[%_!]")


def address_part(text: str) -> str:
    """For an address that is meant by all of it, by a part of it, or with `*` for anything."""
    return address(text) if "*" in text or text.strip("@").count("@") else contains(text)


def address(text: str) -> str:
    """For an address that is meant by all of it, with `*` for anything."""
    mailbox = parse_mailbox(text)
    return stars(text if mailbox is None else f"{mailbox.local_part}@{mailbox.domain}")


def contains(text: str) -> str:
    """For what has this text in it."""
    return f"%{_literal(text)}%"


def stars(text: str) -> str:
    """For this text, with `*` for anything."""
    return _literal(text).replace("*", "%")


def domains(key: str) -> Sequence[str]:
    """The ways to write a domain of which this is the key, in lower case; with a dot before it, all below it."""
    dot, name = (".", key[1:]) if key.startswith(".") else ("", key)
    try:
        other = idna.decode(name)
    except idna.IDNAError:
        other = name
    return tuple(dict.fromkeys((dot + name, dot + other)))


def fits(pattern: str, text: str) -> bool:
    """Whether LIKE would say so."""
    return _compiled(pattern).fullmatch(text) is not None


@lru_cache(64)
def _compiled(pattern: str) -> re.Pattern[str]:
    pieces: list[str] = []
    characters = iter(pattern)
    for character in characters:
        if character == ESCAPE:
            pieces.append(re.escape(next(characters)))
        elif character in "%_":
            pieces.append(".*" if character == "%" else ".")
        else:
            pieces.append(re.escape(character))
    return re.compile("".join(pieces), re.IGNORECASE | re.ASCII | re.DOTALL)


def _literal(text: str) -> str:
    return _SPECIAL.sub(r"!\g<0>", text)
