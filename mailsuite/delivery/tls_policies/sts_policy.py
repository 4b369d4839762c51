"""MTA-STS as it is written: the TXT record and the policy (RFC 8461 sections 3.1 and 3.2). Pure text, no I/O."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from mailsuite.net.dane import is_named_by

LONGEST: Final = 31557600  # seconds that a policy may be kept (section 3.2)

_MOST_PATTERNS: Final = 1000  # each is compared with each host

_VERSION: Final = re.compile(rb"v=STSv1[ \t]*(?:;|\Z)")
_DELIMITER: Final = re.compile(rb"[ \t]*;[ \t]*")
_FIELD: Final = re.compile(rb"[A-Za-z0-9][A-Za-z0-9_.\-]{0,31}=[\x21-\x3a\x3c\x3e-\x7e]+")
_ID: Final = re.compile(rb"[A-Za-z0-9]{1,32}")
_MAX_AGE: Final = re.compile(r"[0-9]{1,10}")
_PATTERN: Final = re.compile(
    r"(?=.{1,255}\Z)(?:\*\.)?[a-z0-9](?:[a-z0-9_\-]{0,62})(?:\.[a-z0-9_](?:[a-z0-9_\-]{0,62}))*\.?", re.IGNORECASE
)


class PolicyInvalid(Exception):
    """A policy that does not keep to its grammar; the text says how."""


class Mode(StrEnum):
    """What follows when a host does not fit (section 5)."""

    ENFORCE = "enforce"
    TESTING = "testing"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class StsPolicy:
    """A policy. `max_age` is in seconds; `text` are its lines as they came."""

    mode: Mode
    max_age: int
    mx: tuple[str, ...]
    text: tuple[str, ...]

    def allows(self, host: str) -> bool:
        """Whether a host fits one of the patterns (section 4.1)."""
        return any(is_named_by(pattern, host) for pattern in self.mx)


def policy_id(records: Iterable[bytes]) -> str | None:
    """The id in the one TXT record of a domain that has a policy; None where there is none, or no one (section 3.1)."""
    candidates = [record for record in records if _VERSION.match(record)]
    if len(candidates) != 1:
        return None
    fields = _DELIMITER.split(candidates[0])[1:]
    if fields and not fields[-1].strip(b" \t"):
        fields.pop()
    if not fields or not all(map(_FIELD.fullmatch, fields)):
        return None
    # Of a field that is there twice the first counts.
    ids = [field[3:] for field in fields if field.startswith(b"id=")]
    return ids[0].decode("ascii") if ids and _ID.fullmatch(ids[0]) else None


def parse_policy(body: bytes) -> StsPolicy:
    """Read a policy (section 3.2). Unknown fields are left alone; empty lines too. Raises `PolicyInvalid`."""
    try:
        lines = [line.strip(" \t") for line in body.decode("utf-8").replace("\r\n", "\n").split("\n")]
    except UnicodeDecodeError:
        raise PolicyInvalid("it is not UTF-8") from None
    lines = [line for line in lines if line]
    fields, patterns = _fields_of(lines)
    if fields.get("version") != "STSv1":
        raise PolicyInvalid("it has no version that is known")
    mode = fields.get("mode", "")
    if mode not in list(Mode):
        raise PolicyInvalid(f"it has no mode that is known: {mode[:60]!r}")
    max_age = fields.get("max_age", "")
    if _MAX_AGE.fullmatch(max_age) is None:
        raise PolicyInvalid(f"max_age is no number of seconds: {max_age[:60]!r}")
    if not patterns and mode != Mode.NONE:
        raise PolicyInvalid("it names no mx")
    return StsPolicy(Mode(mode), min(int(max_age), LONGEST), patterns, tuple(lines))


def _fields_of(lines: Iterable[str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """The first of each field, and all that stand under mx."""
    fields: dict[str, str] = {}
    patterns: list[str] = []
    for line in lines:
        name, colon, value = line.partition(":")
        value = value.lstrip(" \t")
        if not colon:
            raise PolicyInvalid(f"a line is no field: {line[:60]!r}")
        if name != "mx":
            fields.setdefault(name, value)
        elif _PATTERN.fullmatch(value) is None:
            raise PolicyInvalid(f"mx is no host: {value[:60]!r}")
        else:
            patterns.append(value.rstrip(".").lower())
    if len(patterns) > _MOST_PATTERNS:
        raise PolicyInvalid(f"it names more than {_MOST_PATTERNS} mx")
    return fields, tuple(dict.fromkeys(patterns))
