"""Where a mailbox lies: from an address to a directory below the store's root, and to file names in a maildir.

An address is data from the network. Each placeholder of the template becomes one path component, whatever the
address holds: everything but letters, digits and a few marks of ASCII is written as `%XX`, a leading dot too, and a
component that would grow too long ends in a digest. Different addresses never meet in one directory.
"""

from __future__ import annotations

import re
import string
from functools import lru_cache
from hashlib import sha256

from mailsuite.mail.address import Address
from mailsuite.mail.queue import Message, Recipient

DEFAULT_TEMPLATE = "{domain}/{local}"

_SAFE = frozenset((string.ascii_letters + string.digits + "_-+=@.").encode())
_MAX_COMPONENT = 200  # octets; file systems allow 255
_NOT_IN_NAME = re.compile(r"[^A-Za-z0-9_\-]")
_NOT_IN_HOST = re.compile(r"[/:,\x00-\x20\x7f]")
_MEETING = re.compile(r"\}[^@]*\{")  # a-b and c give the same as a and b-c; a domain has no @
_PLACEHOLDERS = frozenset({"domain", "local"})


def check_template(template: str) -> str:
    """The template itself, where it may be used; raises `ValueError` with one sentence where not.

    It is a relative path with `{local}` and `{domain}` in it; `{domain}` may be left out on a server of one domain.
    """
    try:
        fields = {name for _, name, spec, conversion in string.Formatter().parse(template) if name is not None}
        plain = all(not spec and not conversion for _, _, spec, conversion in string.Formatter().parse(template))
    except ValueError as error:
        raise ValueError(f"the layout {template!r} cannot be read: {error}") from None
    if not plain or not fields <= _PLACEHOLDERS:
        raise ValueError(f"the layout {template!r} may hold {{domain}} and {{local}}, nothing else in braces")
    if "local" not in fields:
        raise ValueError(f"the layout {template!r} lacks {{local}}: all mailboxes would be one")
    parts = template.split("/")
    if any(_MEETING.search(part) for part in parts):
        raise ValueError(
            f"the layout {template!r} must have / or @ between {{domain}} and {{local}}: mailboxes would meet"
        )
    if "\0" in template or any(part in {"", ".", ".."} for part in parts):
        raise ValueError(f"the layout {template!r} must be a relative path without empty parts, . and ..")
    return template


@lru_cache(maxsize=4096)
def mailbox_path(template: str, address: Address) -> str:
    """The mailbox's directory, relative to the root. `template` has passed `check_template`."""
    return template.format(domain=quote(address.domain_key), local=quote(address.local_part))


def quote(text: str) -> str:
    """One path component that stands for this text and for no other."""
    octets = text.encode("utf-8", "surrogatepass")
    parts = [chr(octet) if octet in _SAFE else f"%{octet:02X}" for octet in octets]
    if parts and parts[0] == ".":
        parts[0] = "%2E"  # neither hidden, nor `.` or `..`
    quoted = "".join(parts) or "%-"
    if len(quoted) > _MAX_COMPONENT:
        # `%_` begins no quoted octet, so nothing else is ever written like this.
        quoted = f"{quoted[: _MAX_COMPONENT - 40]}%_{sha256(octets).hexdigest()[:32]}"
    return quoted


def name_stem(message: Message, recipient: Recipient) -> str:
    """What the file name of a delivery begins with, the same in each attempt: a replay is found by it.

    The maildir convention: seconds, a dot, what is unique within the host, and a dot (the host name follows).
    """
    return f"{int(message.arrived)}.Q{_NOT_IN_NAME.sub('_', message.queue_id)}R{recipient.key}."


def host_part(hostname: str) -> str:
    """A host name as it may stand in a file name of a maildir, where slash, colon and comma have a meaning."""
    return _NOT_IN_HOST.sub(lambda match: f"\\{ord(match[0]):03o}", hostname)
