"""Senders that are rewritten, and the way back from them."""

import pytest
import srslib

from mailsuite.delivery.srs import Forged, Rewriting
from mailsuite.mail.address import Address, parse_mailbox, parse_path

DAY = 86400.0


class Time:
    now = 1_700_000_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def time():
    return Time()


@pytest.fixture
def srs(time):
    rewriting = Rewriting("srs.here.example", time)
    rewriting.use("a secret that nobody else has")
    return rewriting


@pytest.mark.parametrize(
    "sender",
    ["bob@there.example", "bob=b+c@there.example", "SRS-like@there.example", '"odd one"@there.example', "=@x.org"],
)
def test_what_was_rewritten_finds_its_way_back(srs, sender) -> None:
    rewritten = srs.forward(parse_mailbox(sender))
    assert rewritten.domain == "srs.here.example"
    assert rewritten.local_part.startswith("SRS0=")
    assert srs.is_rewritten(rewritten)
    assert srs.reverse(rewritten) == parse_mailbox(sender)
    # It survives the wire, and peers who change the case of letters.
    address, rest = parse_path(f"<{rewritten}>")
    assert (address, rest) == (rewritten, "")
    lowered = srs.reverse(parse_mailbox(str(rewritten).lower()))
    assert str(lowered).lower() == sender.lower()


def test_what_somebody_else_has_rewritten_goes_back_to_them(srs) -> None:
    theirs = Address("SRS0=abcd=TT=origin.example=bob", "first.example")
    ours = srs.forward(theirs)
    assert ours.local_part.startswith("SRS1=")
    assert srs.reverse(ours) == theirs
    again = srs.forward(Address(ours.local_part, "second.example"))
    assert again.local_part.startswith("SRS1=")
    assert srs.reverse(again) == theirs


def test_it_holds_for_three_weeks(srs, time) -> None:
    rewritten = srs.forward(Address("bob", "there.example"))
    time.now += 20 * DAY
    assert srs.reverse(rewritten)
    time.now += 2 * DAY
    with pytest.raises(Forged, match="too long ago"):
        srs.reverse(rewritten)


@pytest.mark.parametrize(
    "local",
    [
        "SRS0=AAAAAAAA=ZZ=victim.example=bob",
        "SRS0==ZZ=victim.example=bob",
        "SRS0=x=",
        "SRS0=AAAAAAAA=ZZ=victim.example",
        "SRS1=AAAAAAAA=victim.example==abcd=ZZ=x.example=bob",
        "SRS1=A=b=",
        "SRS0-",
        "SRS0=\u212a=ZZ=victim.example=bob",
    ],
)
def test_what_is_forged_leads_nowhere(srs, local) -> None:
    assert srs.is_rewritten(Address(local, "SRS.here.example"))
    with pytest.raises(Forged):
        srs.reverse(Address(local, "srs.here.example"))


def test_a_short_hash_is_a_forgery_though_the_library_takes_it(srs) -> None:
    library = srslib.SRS("a secret that nobody else has")
    _tag, said, rest = library.forward("bob@there.example", "srs.here.example").split("=", 2)
    assert library.reverse(f"SRS0={said[:1]}={rest}") == "bob@there.example"
    good = srs.forward(Address("bob", "there.example")).local_part
    _tag, said, rest = good.split("=", 2)
    for length in range(1, len(said)):
        with pytest.raises(Forged):
            srs.reverse(Address(f"SRS0={said[:length]}={rest}", "srs.here.example"))


def test_an_address_that_two_hosts_have_rewritten_holds_for_three_weeks_too(srs, time) -> None:
    theirs = Address("SRS0=abcd=TT=origin.example=bob", "first.example")
    rewritten = srs.forward(theirs)
    time.now += 20 * DAY
    assert srs.reverse(rewritten) == theirs
    time.now += 2 * DAY
    with pytest.raises(Forged, match="too long ago"):
        srs.reverse(rewritten)
    time.now += 3650 * DAY
    with pytest.raises(Forged):
        srs.reverse(rewritten)


def test_it_does_not_hold_again_when_the_days_have_come_round(srs, time) -> None:
    rewritten = srs.forward(Address("bob", "there.example"))
    time.now += 1024 * DAY
    assert srs.forward(Address("bob", "there.example")).local_part.split("=")[2] == rewritten.local_part.split("=")[2]
    with pytest.raises(Forged):
        srs.reverse(rewritten)


@pytest.mark.parametrize(
    ("sender", "before", "after"),
    [
        (Address("muser", "victim.co"), "=victim.co=muser", "=victim.com=user"),
        (Address("m=user", "victim.co"), "=victim.co=m=user", "=victim.com=user"),
        (Address("user", "victim.com"), "=victim.com=user", "=victim.co=muser"),
        (Address("SRS0=aa=bb=c.co=mx", "v.co"), "=v.co==aa=bb=c.co=mx", "=v.co=aa=bb=c.co=mx"),
    ],
)
def test_what_stands_between_host_and_local_part_cannot_be_moved(srs, sender, before, after) -> None:
    rewritten = srs.forward(sender).local_part
    assert rewritten.endswith(before)
    with pytest.raises(Forged):
        srs.reverse(Address(rewritten.removesuffix(before) + after, "srs.here.example"))


@pytest.mark.parametrize("separator", "-+")
def test_it_is_read_in_no_other_form_than_it_was_written_in(srs, separator) -> None:
    rewritten = srs.forward(Address("bob", "there.example")).local_part
    with pytest.raises(Forged):
        srs.reverse(Address(rewritten.replace("SRS0=", f"SRS0{separator}", 1), "srs.here.example"))


@pytest.mark.parametrize("local", ['"q"', "a b", 'a"b', "a@b", "a\\b", '"', "SRS0", "SRS0+", "=", "a=b=c"])
def test_a_local_part_comes_back_as_it_was(srs, local) -> None:
    sender = Address(local, "there.example")
    rewritten = srs.forward(sender)
    assert rewritten != sender
    assert srs.reverse(rewritten) == sender


def test_a_local_part_with_a_line_end_is_left_alone(srs) -> None:
    for local in ("SRS0=x\n", "x\ny"):
        assert srs.forward(Address(local, "there.example")) == Address(local, "there.example")


def test_another_secret_is_a_forgery(srs, time) -> None:
    other = Rewriting("srs.here.example", time)
    other.use("another secret, of somebody else")
    with pytest.raises(Forged):
        srs.reverse(other.forward(Address("bob", "there.example")))


@pytest.mark.parametrize(
    "sender", [Address("bob", "[192.0.2.1]"), Address("b\u00f6b", "there.example"), Address("x" * 250, "there.example")]
)
def test_a_sender_that_cannot_be_rewritten_stays(srs, sender) -> None:
    assert srs.forward(sender) == sender


def test_without_a_secret_nothing_is_rewritten_and_nothing_leads_back(time) -> None:
    rewriting = Rewriting("srs.here.example", time)
    bob = Address("bob", "there.example")
    assert rewriting.forward(bob) == bob
    with pytest.raises(Forged):
        rewriting.reverse(Address("SRS0=AAAAAAAA=ZZ=victim.example=bob", "srs.here.example"))
    assert "secret" not in repr(rewriting)
