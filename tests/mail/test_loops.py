"""Loops of what aliases pass on."""

import pytest

from mailsuite.mail.address import Address
from mailsuite.mail.loops import passed_on, went_to
from mailsuite.mail.route import HOLD, MAILDIR, RELAY, Destination, Target
from mailsuite.mail.trace import delivered_to_line

LIST = Address("list", "here.example")


def target(agent, *, original=LIST):
    return Target(Address("x", "there.example"), Destination(agent, "there.example"), original)


@pytest.mark.parametrize(
    ("targets", "leaves"),
    [
        ([target(MAILDIR)], False),
        ([target(MAILDIR), target(RELAY)], True),
        ([target(HOLD)], True),
        ([target(RELAY, original=None)], False),
        ([], False),
    ],
)
def test_only_what_an_alias_sends_elsewhere_is_passed_on(targets, leaves) -> None:
    assert passed_on(LIST, targets, smtputf8=False) == (LIST if leaves else None)
    assert passed_on(None, targets, smtputf8=True) is None


def test_an_address_that_the_message_may_not_hold_stays_out() -> None:
    odd = Address("l\u00efst", "here.example")
    assert passed_on(odd, [target(RELAY)], smtputf8=False) is None
    assert passed_on(odd, [target(RELAY)], smtputf8=True) == odd


@pytest.mark.parametrize(
    "header",
    [
        delivered_to_line(LIST) + b"Subject: x\r\n\r\n",
        b"Subject: x\r\nDELIVERED-TO:   List@HERE.example  \r\n\r\n",
        b"Delivered-To: other@here.example\r\nDelivered-To: list@here.example\r\n\r\n",
        b"Delivered-To:list@here.example\n\n",
        b"Delivered-To: a@b.example\r\n" * 1000,
    ],
)
def test_a_message_that_went_there_before_is_known(header) -> None:
    assert went_to(header, LIST)


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"Subject: Delivered-To: list@here.example\r\n\r\n",
        b"X-Delivered-To: list@here.example\r\n\r\n",
        b"Delivered-To: list@here.example.org\r\n\r\n",
        b"Delivered-To: \xff\xfe@here.example\r\n\r\n",
        b"Delivered-To: \r\n list@here.example\r\n\r\n",
    ],
)
def test_another_message_is_not(header) -> None:
    assert not went_to(header, LIST)


def test_an_address_cannot_end_the_line() -> None:
    assert delivered_to_line(Address("a\r\nX: y", "here.example")).count(b"\r\n") == 1
