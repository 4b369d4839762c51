"""What is done with each input to the SMTP server: several offers, whole and octet by octet; then core and session.

The first octet of an input, taken as a number, chooses among the session's answers.
"""

from pathlib import Path

from mailsuite.wire.smtp.content import LineEndRule
from mailsuite.wire.smtp.offer import Offer
from tests.dialogues.dialogue import parse_dialogue
from tests.dialogues.house import House
from tests.dialogues.runners import MemoryServer
from tests.wire.smtp.server_trace import Trace, converse

CORPUS = Path(__file__).parent / "corpus" / "server"

OFFERS = [
    Offer("mx.example.net", max_size=1000, max_line=200, max_response=100),
    Offer("mx.example.net", mechanisms=(b"PLAIN",), smtputf8=False, line_ends=LineEndRule.REJECT, max_errors=3),
    Offer("mx.example.net", lmtp=True, max_size=20),
    Offer("mx.example.net", require_auth=True, mechanisms=(b"PLAIN", b"LOGIN"), chunking=False),
    Offer("mx.example.net", starttls=True, require_tls=True, max_line=40),
    Offer("mx.example.net", etrn=True, atrn=True, turn=True, checkpoint=True, mechanisms=(b"PLAIN",), max_size=1000),
    Offer("mx.example.net", odmr=True, mechanisms=(b"PLAIN",)),
]
CUSTOMER = """\
user: fred secret fred@example.org
customer: fred example.org,example.com
held: ann@example.net fred@example.org <> fred@example.com
atrn: 450
etrn: 459
"""
HEADS = [
    "offer: auth=PLAIN,LOGIN,CRAM-MD5,SCRAM-SHA-256,EXTERNAL max-size=1000\nuser: fred secret fred@example.org\n",
    "offer: lmtp line-ends=reject\n",
    "offer: require-auth auth=PLAIN\ndoor: submission max-recipients=2\nuser: fred secret fred@example.org\n",
    "offer: starttls\nspool: full-at=write\n",
    "offer: etrn atrn turn auth=PLAIN\ndoor: turn\n" + CUSTOMER,
    "offer: odmr auth=PLAIN,CRAM-MD5\n" + CUSTOMER,
]


def run_core(octets: bytes) -> None:
    """Assert that a core takes this as it must take everything (see `tests.wire.smtp.server_trace`)."""
    choices = [octets[0] if octets else 0, 1, 0]
    for offer in OFFERS:
        traces: list[Trace] = [
            converse(offer, [octets] if octets else [], choices),
            converse(offer, [octets[at : at + 1] for at in range(len(octets))], choices),
        ]
        # What stands behind STARTTLS depends on the packet, by its nature.
        assert offer.starttls or traces[0] == traces[1]


def run_session(octets: bytes) -> None:
    """Assert that a session behind a core survives this and leaves nothing."""
    for head in HEADS:
        server = MemoryServer(House(parse_dialogue("fuzz", head)))
        server.feed(octets or b"\r\n")
        assert server.lose() == []
