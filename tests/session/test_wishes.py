"""What RCPT has asked for, and to whom of those behind an alias it goes (RFC 3461 section 5.2.7)."""

from mailsuite.mail.options import NO_WISHES, Notify, RecipientOptions
from mailsuite.mail.route import REDISTRIBUTED, Destination, Target
from mailsuite.session.wishes import inherited
from tests.session.scripted import address

MAILDIR = Destination("maildir")
ORCPT = "rfc822;info@example.net"
NAMED = address("info@example.net")


def target(name: str, reverse_path: str = "") -> Target:
    return Target(address(name), MAILDIR, reverse_path=address(reverse_path) if reverse_path else None)


def options_of(wishes: RecipientOptions, *targets: Target) -> list[RecipientOptions]:
    return [one.options for one in inherited(wishes, targets, NAMED)]


def test_nothing_asked_is_nothing_made() -> None:
    targets = [target("a@example.net")]
    assert inherited(NO_WISHES, targets, NAMED) is targets


def test_only_target_has_all() -> None:
    asked = RecipientOptions(Notify.SUCCESS | Notify.DELAY, ORCPT)
    assert options_of(asked, target("a@example.net")) == [asked]


def test_success_is_told_once_and_failures_as_was_asked() -> None:
    asked = RecipientOptions(Notify.SUCCESS | Notify.FAILURE, ORCPT)
    other = RecipientOptions(Notify.FAILURE, ORCPT)
    assert options_of(asked, target("a@example.net"), target("b@example.com"), target("c@example.com")) == [
        asked,
        other,
        other,
    ]
    only = RecipientOptions(Notify.SUCCESS)
    assert options_of(only, target("a@example.net"), target("b@example.net")) == [only, RecipientOptions(Notify(0))]


def test_never_and_nothing_said_are_everybodys() -> None:
    for asked in (RecipientOptions(Notify(0)), RecipientOptions(None, ORCPT)):
        assert options_of(asked, target("a@example.net"), target("b@example.net")) == [asked, asked]


def test_members_of_a_list_inherit_nothing() -> None:
    asked = RecipientOptions(Notify.FAILURE, ORCPT)
    members = target("a@example.net", "owner-list@example.net"), target("b@example.com", "owner-list@example.net")
    assert options_of(asked, *members) == [NO_WISHES, NO_WISHES]


def test_a_list_itself_tells_of_its_success() -> None:
    # RFC 3461 section 5.2.7.1.
    asked = RecipientOptions(Notify.SUCCESS | Notify.FAILURE, ORCPT)
    members = target("a@example.net", "owner-list@example.net"), target("b@example.com", "owner-list@example.net")
    *copies, told = inherited(asked, members, NAMED)
    assert copies == list(members)
    assert (told.address, told.destination, told.reverse_path) == (
        NAMED,
        Destination(REDISTRIBUTED, "example.net"),
        None,
    )
    assert told.options == RecipientOptions(Notify.SUCCESS, ORCPT)


def test_whoever_gets_a_copy_under_the_sender_s_name_tells_for_a_list_beside_him() -> None:
    asked = RecipientOptions(Notify.SUCCESS, ORCPT)
    assert options_of(asked, target("a@example.net", "owner-list@example.net"), target("b@example.net")) == [
        NO_WISHES,
        asked,
    ]


def test_forwarded_with_a_rewritten_sender_it_inherits_all() -> None:
    asked = RecipientOptions(Notify.SUCCESS, ORCPT)
    for reverse_path in ("SRS0=aa=bb=example.org=ann@example.net", "srs1+aa=x==bb=cc=example.org=ann@example.net"):
        assert options_of(asked, target("a@example.com", reverse_path)) == [asked]
