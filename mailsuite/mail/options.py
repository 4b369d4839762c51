"""What MAIL and RCPT ask for beside the addresses: how to report, when to deliver, how urgently, how safely.

Most mail asks for nothing: then a message has `PLAIN` and a recipient `NO_WISHES`, one value each for all of them.
As text (JSON) they are kept by the spool; an empty text stands for these two.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Flag, StrEnum
from typing import Any


class Return(StrEnum):
    """What a report on a failure returns of the message (RFC 3461 section 4.3)."""

    FULL = "FULL"
    HEADERS = "HDRS"


class Notify(Flag):
    """When the sender wants to hear of a recipient (RFC 3461 section 4.1); `Notify(0)` is NEVER."""

    SUCCESS = 1
    FAILURE = 2
    DELAY = 4


class ByMode(StrEnum):
    """What becomes of a message that was not delivered in time (RFC 2852 section 4)."""

    NOTIFY = "N"
    RETURN = "R"


@dataclass(frozen=True, slots=True)
class MessageOptions:
    """What is asked for a message.

    `envid` (RFC 3461 section 4.4) is decoded. `require_tls`: RFC 8689 section 2; `tls_optional`: the header field
    `TLS-Required: No` (section 3). `priority` goes from -9 to 9, larger ones first (RFC 6710). `deliver_by` and
    `hold_until` are POSIX timestamps (RFC 2852, RFC 4865); `by_trace` asks for a report by each host (RFC 2852 section
    4, the modifier T).
    """

    ret: Return | None = None
    envid: str | None = None
    require_tls: bool = False
    tls_optional: bool = False
    priority: int = 0
    deliver_by: float | None = None
    by_mode: ByMode | None = None
    by_trace: bool = False
    hold_until: float | None = None

    def to_text(self) -> str:
        """As JSON, without what has its default; empty where nothing is asked."""
        return _text(self, PLAIN)

    @classmethod
    def from_text(cls, text: str | None) -> MessageOptions:
        """The reverse of `to_text`; keys that a later mailsuite wrote are left out."""
        if not text:
            return PLAIN
        found = _known(cls, text)
        if "ret" in found:
            found["ret"] = Return(found["ret"])
        if "by_mode" in found:
            found["by_mode"] = ByMode(found["by_mode"])
        return cls(**found)


@dataclass(frozen=True, slots=True)
class RecipientOptions:
    """What is asked for a recipient: `notify` (None: nothing was said) and `orcpt`, RFC 3461 sections 4.1 and 4.2.

    `orcpt` has its address type and the decoded address, as in `rfc822;user@example.org`.
    """

    notify: Notify | None = None
    orcpt: str | None = None

    def wants(self, event: Notify) -> bool:
        """Whether the sender is told of this. Nobody has said so: of failures and delays (RFC 3461 section 4.1)."""
        return event in (Notify.FAILURE | Notify.DELAY if self.notify is None else self.notify)

    def to_text(self) -> str:
        """As JSON, without what has its default; empty where nothing is asked."""
        return _text(self, NO_WISHES)

    @classmethod
    def from_text(cls, text: str | None) -> RecipientOptions:
        """The reverse of `to_text`; keys that a later mailsuite wrote are left out."""
        if not text:
            return NO_WISHES
        found = _known(cls, text)
        if "notify" in found:
            found["notify"] = Notify(found["notify"])
        return cls(**found)


def _text(options: MessageOptions | RecipientOptions, nothing: MessageOptions | RecipientOptions) -> str:
    if options is nothing or options == nothing:
        return ""
    said = {name: getattr(options, name) for name in type(options).__slots__}
    return json.dumps(
        {
            name: value.value if isinstance(value, Flag) else value
            for name, value in said.items()
            if value != getattr(nothing, name)
        },
        separators=(",", ":"),
    )


def _known(kind: type[MessageOptions | RecipientOptions], text: str) -> dict[str, Any]:
    return {name: value for name, value in json.loads(text).items() if name in kind.__slots__}


PLAIN = MessageOptions()
NO_WISHES = RecipientOptions()
