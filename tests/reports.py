"""Reports read back with the standard library's parser, as a mail program would read them."""

import quopri
from dataclasses import dataclass
from email import message_from_bytes
from email.message import EmailMessage
from email.parser import HeaderParser
from email.policy import SMTPUTF8, default


@dataclass(frozen=True)
class ReadReport:
    """The parts of a report: `text` for people, the fields of the message and of each recipient, what came back."""

    message: EmailMessage
    text: str
    of_message: EmailMessage
    recipients: list
    returned_type: str
    returned: bytes

    @property
    def actions(self):
        """What happened to whom, as plain text: the action by the address."""
        return {fields["Final-Recipient"].partition(";")[2].strip(): fields["Action"] for fields in self.recipients}


def read_report(octets):
    """Take a report apart, and check its form: RFC 6522 section 3, RFC 3464 section 2."""
    assert octets.count(b"\n") == octets.count(b"\r\n") == octets.count(b"\r")
    assert all(len(line) <= 998 for line in octets.split(b"\r\n"))
    message = message_from_bytes(octets, policy=default)
    assert not message.defects
    assert message.get_content_type() == "multipart/report"
    text, status, returned = message.iter_parts()
    assert text.get_content_type() == "text/plain"
    assert message.get_param("report-type") == status.get_content_subtype()
    if status.get_content_type() == "message/delivery-status":
        assert status.as_bytes().isascii()
        of_message, *recipients = status.get_payload()
    else:
        assert status.get_content_type() == "message/global-delivery-status"
        of_message, *recipients = _groups(octets)
    return ReadReport(
        message, text.get_content(), of_message, recipients, returned.get_content_type(), _octets(octets, returned)
    )


def _groups(octets):
    """The groups of the UTF-8 form, which the standard library takes for a message."""
    head, _, rest = octets.split(b"Content-Type: message/global-delivery-status\r\n")[1].partition(b"\r\n\r\n")
    body = rest.partition(b"\r\n\r\n--=_")[0]
    if b"quoted-printable" in head:
        body = quopri.decodestring(body)
    return [HeaderParser(policy=SMTPUTF8).parsestr(group) for group in body.decode().rstrip().split("\r\n\r\n")]


def _octets(octets, part):
    """What the third part holds: that of a message as it stands there, others decoded."""
    if part.get_content_type() == "message/rfc822":
        head = octets.index(b"Content-Type: message/rfc822")
        begin = octets.index(b"\r\n\r\n", head) + 4
        return octets[begin : octets.rindex(b"\r\n--")]
    if part.get_content_type() == "message/global":
        return part.get_payload(0).as_bytes()
    return part.get_payload(decode=True)
