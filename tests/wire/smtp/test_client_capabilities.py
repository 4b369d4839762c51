"""What an answer to EHLO says."""

from hypothesis import given
from hypothesis import strategies as st

from mailsuite.mail.reply import Reply
from mailsuite.wire.smtp.capabilities import Capabilities


def offered(*lines: str) -> Capabilities:
    return Capabilities.of_reply(Reply(250, None, ("mx.example.net at your service", *lines)))


WORDS = ("pipelining", "size", "eightbitmime", "smtputf8", "chunking", "binarymime", "starttls", "auth")
WORDS += ("enhancedstatuscodes", "dsn", "etrn", "atrn", "checkpoint", "requiretls")


def test_all_that_we_use():
    offers = offered(
        *("PIPELINING", "SIZE 35882577", "8BITMIME", "SMTPUTF8", "CHUNKING", "BINARYMIME", "STARTTLS"),
        *("ENHANCEDSTATUSCODES", "DSN", "AUTH SCRAM-SHA-256 PLAIN", "ATRN", "LIMITS MAILMAX=20 RCPTMAX=100"),
        *("ETRN", "CHECKPOINT", "REQUIRETLS"),
    )
    assert offers.domain == "mx.example.net"
    assert all(getattr(offers, word) for word in WORDS)
    assert offers.max_size == 35882577
    assert offers.mechanisms == (b"SCRAM-SHA-256", b"PLAIN")
    assert offers.offers("ATRN")
    assert not offers.offers("TURN")
    assert offers.keywords["LIMITS"] == ("MAILMAX=20", "RCPTMAX=100")


def test_nothing_is_offered_before_ehlo_and_by_one_line():
    for offers in (Capabilities(), offered()):
        assert not any(getattr(offers, word) for word in WORDS)
        assert (len(offers.keywords), offers.mechanisms, offers.max_size) == (0, (), None)


def test_keywords_know_no_case():
    offers = offered("pipelining", "Size 1000", "StartTls", "auth plain LOGIN")
    assert set(offers.keywords) == {"PIPELINING", "SIZE", "STARTTLS", "AUTH"}
    assert offers.max_size == 1000
    assert offers.mechanisms == (b"PLAIN", b"LOGIN")


def test_both_forms_of_auth_are_joined():
    assert offered("AUTH=LOGIN PLAIN").mechanisms == (b"LOGIN", b"PLAIN")
    assert offered("AUTH=LOGIN", "AUTH PLAIN LOGIN").mechanisms == (b"LOGIN", b"PLAIN")
    assert offered("AUTH").mechanisms == ()
    assert offered("AUTH").auth
    assert offered("AUTH PLAIN <b>what</b> XOAUTH2").mechanisms == (b"PLAIN", b"XOAUTH2")


def test_size_without_a_number_or_with_nonsense_is_no_limit():
    for line in ("SIZE", "SIZE 0", "SIZE lots", "SIZE -1", "SIZE " + "9" * 21, "SIZE 1e3"):
        offers = offered(line)
        assert offers.size
        assert offers.max_size is None


def test_binarymime_needs_chunking():
    assert not offered("BINARYMIME").binarymime


def test_lines_without_sense_are_passed_over():
    offers = offered("", "  ", "*", "-X", "FOO=BAR", "8BITMIME", "8BITMIME again", "\ufffd\ufffd")
    assert set(offers.keywords) == {"8BITMIME"}
    assert offers.keywords["8BITMIME"] == ()


@given(st.lists(st.text(max_size=30), max_size=10))
def test_any_lines_can_be_read(lines):
    offers = offered(*lines)
    assert all(keyword == keyword.upper() and keyword.isascii() for keyword in offers.keywords)
