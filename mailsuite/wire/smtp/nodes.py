"""The names in ATRN and ETRN: domains, sub-domains and queues.

Rules: a domain is what RFC 2645 section 5.2.1 calls one, of two labels at least, so a local name is none (RFC 1985
section 7). It is given as a domain key: lower case, A-labels. An internationalized name may come as it is written; one
that has no A-labels is no domain.

Leniency, on purpose: blanks around the commas of ATRN. A domain that is named twice counts once.
"""

from __future__ import annotations

import re

from mailsuite.mail.address import domain_key

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})+")
_BARE = re.compile(_LABEL)
_QUEUE = re.compile(r"[!-~]{1,255}")
_MAX_DOMAIN = 255  # RFC 5321 section 4.5.3.1.2


def parse_domains(text: str) -> tuple[str, ...] | None:
    """The domains of an ATRN command, as domain keys; None where there is anything else (RFC 2645 section 5.2.1)."""
    keys: dict[str, None] = {}
    for word in text.split(","):
        key = _domain(word.strip(" \t"))
        if key is None:
            return None
        keys[key] = None
    return tuple(keys)


def parse_node(text: str) -> str | None:
    """The node of an ETRN command; None where it is none (RFC 1985 sections 5 and 5.3).

    `domain` and `@domain` (its sub-domains too) come as a domain key, `#queue` as it was written.
    """
    if text.startswith("#"):
        return text if _QUEUE.fullmatch(text, 1) else None
    option = "@" if text.startswith("@") else ""
    key = _domain(text.removeprefix("@"))
    return None if key is None else option + key


def is_bare_name(text: str) -> bool:
    """Whether it would be a domain, were there another label."""
    return _BARE.fullmatch(domain_key(text)) is not None


def _domain(text: str) -> str | None:
    if not text or len(text) > _MAX_DOMAIN:
        return None
    key = domain_key(text)
    return key if len(key) <= _MAX_DOMAIN and _DOMAIN.fullmatch(key) else None
