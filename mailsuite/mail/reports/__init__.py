"""Delivery status notifications: what a sender hears of his mail (RFC 3461, RFC 3464, RFC 6522, RFC 6533).

Three parts: a text for people (`words`), the same for programs (`status`), and the message or its header (`returned`).
Everything is a function of the arguments: time, Message-ID and host name are handed in, and the boundary follows from
the Message-ID. What a remote host said is quoted, never trusted (`fields`).
"""

from mailsuite.mail.reports.fields import needs_smtputf8
from mailsuite.mail.reports.report import Composed, compose
from mailsuite.mail.reports.returned import HEADER_LIMIT, header_section
from mailsuite.mail.reports.status import EVENTS, Reported

__all__ = ["EVENTS", "HEADER_LIMIT", "Composed", "Reported", "compose", "header_section", "needs_smtputf8"]
