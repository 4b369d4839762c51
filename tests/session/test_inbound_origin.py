"""Where a message came from, as the spool is told; and what the router is told of its sender."""

import pytest

from mailsuite.mail.origin import Origin
from mailsuite.mail.session import TLSFacts
from mailsuite.session.inbound import Door
from tests.dialogues import runners
from tests.dialogues.dialogue import parse_dialogue
from tests.dialogues.house import PEER, House, mailbox

HEADER = b"Subject: a\r\nMessage-Id: <1@example.org>\r\n\r\n.\r\n"
TLS = TLSFacts("TLSv1.3", "TLS_AES_128_GCM_SHA256", 128)
FRED = "user: fred secret fred@example.org\n"
LOGIN = b"AUTH PLAIN AGZyZWQAc2VjcmV0\r\n"


def origins(head: str, *packets: bytes, secure: bool = False) -> list[Origin | None]:
    """What the spool was told after these were said."""
    house = House(parse_dialogue("origins", head))
    server = runners.MemoryServer(house, secure=secure)
    for packet in packets:
        server.feed(packet)
    return [message.origin for message in house.spool.messages]


def mail(*recipients: str, sender: str = "fred@example.org", content: bytes = HEADER) -> bytes:
    rcpt = b"".join(f"RCPT TO:<{name}>\r\n".encode() for name in recipients or ("anna@example.net",))
    return f"MAIL FROM:<{sender}>\r\n".encode() + rcpt + b"DATA\r\n" + content


def test_stranger() -> None:
    assert origins("", b"EHLO client.example.org\r\n" + mail()) == [
        Origin(PEER, "client.example.org", "ESMTP", "", None, None, "<1@example.org>")
    ]
    assert origins("", b"HELO old.example.org\r\n" + mail()) == [
        Origin(PEER, "old.example.org", "SMTP", "", None, None, "<1@example.org>")
    ]


def test_account_under_tls() -> None:
    head = f"offer: secure-auth=PLAIN\n{FRED}"
    assert origins(head, b"EHLO a\r\n" + LOGIN + mail("wilma@elsewhere.example"), secure=True) == [
        Origin(PEER, "a", "ESMTPSA", "", "fred", TLS, "<1@example.org>")
    ]


def test_each_message_has_its_own() -> None:
    first, second = origins("offer: lmtp\n", b"LHLO a\r\n" + mail() + mail(content=b"A: b\r\n\r\n.\r\n"))
    assert first is not None
    assert second is not None
    assert (first.protocol, first.message_id) == ("LMTP", "<1@example.org>")
    assert (second.protocol, second.message_id) == ("LMTP", None)


@pytest.mark.parametrize("cut", [1, 7])
def test_header_in_pieces_and_without_an_end(cut: int) -> None:
    said = b"EHLO a\r\n" + mail(content=b"A: b\r\nMessage-ID:\r\n <2@example.org>\r\n.\r\n")
    (origin,) = origins("", *(said[at : at + cut] for at in range(0, len(said), cut)))
    assert origin is not None
    assert origin.message_id == "<2@example.org>"


def test_message_id_that_we_have_added() -> None:
    head = f"offer: secure-auth=PLAIN\ndoor: submission\n{FRED}"
    first, second = origins(head, b"EHLO a\r\n" + LOGIN + mail(content=b"A: b\r\n\r\n.\r\n") + mail(), secure=True)
    assert first is not None
    assert second is not None
    assert first.message_id is not None
    assert first.message_id.endswith("@mx.example.net>")
    assert second.message_id == "<1@example.org>"


def test_resumed_transaction_is_told_too() -> None:
    """What its header has told is not known any more."""
    house = House(parse_dialogue("resumed", "offer: checkpoint\n"))
    server = runners.MemoryServer(house)
    begin = b"EHLO a\r\nMAIL FROM:<fred@example.org> TRANSID=<1@a>\r\nRCPT TO:<anna@example.net>\r\nDATA\r\n"
    server.feed(begin + b"Message-ID: <1@a>\r\n\r\none\r\ntw")
    assert server.lose() == []
    server.connect()
    server.feed(begin + b"two\r\n.\r\n")
    (message,) = house.spool.messages
    assert message.content.endswith(b"\r\none\r\ntwo\r\n")
    assert message.origin == Origin(PEER, "a", "ESMTP", "", None, None, None)


def test_door_has_a_name_and_a_turn_another() -> None:
    house = House(parse_dialogue("names", ""))
    door: Door = house.door
    assert door.service == ""
    assert door.for_turn(frozenset({"example.net"})).service == "turn"


def test_router_is_told_the_sender() -> None:
    house = House(parse_dialogue("sender", ""))
    server = runners.MemoryServer(house)
    server.feed(b"EHLO a\r\n" + mail("anna@example.net", "bob@example.net") + mail(sender=""))
    fred = mailbox("fred@example.org")
    assert house.router.senders == [fred, fred, None]
