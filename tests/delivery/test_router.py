"""Where a recipient's mail goes, and who is refused."""

import pytest
from twisted.internet.defer import Deferred

from mailsuite.delivery.router import Router
from mailsuite.delivery.routes import Route, Routes
from mailsuite.interfaces import Refused
from mailsuite.mail.address import Address, parse_mailbox
from mailsuite.mail.replies import ALIAS_LOOP, ALIAS_TOO_LARGE, NO_SUCH_USER, RELAYING_DENIED
from mailsuite.mail.route import HOLD, MAILDIR, RELAY, Destination, NextHop
from mailsuite.mail.session import Identity
from tests.delivery.fakes import FakeDirectory

LOCAL = Destination(MAILDIR)
SMARTHOST = NextHop("smtp.provider.example", 587, tls="verified", username="us", password="secret")
ALIASES = {
    "team@here.example": ["alice@here.example", "bob@here.example", "carol@else.example"],
    "all@here.example": ["team@here.example", "dave@here.example", "alice@here.example"],
    "loop@here.example": ["loop@here.example"],
    "ring@here.example": ["ring1@here.example"],
    "ring1@here.example": ["ring2@here.example"],
    "ring2@here.example": ["ring1@here.example"],
    "half@here.example": ["half@here.example", "alice@here.example"],
    "gone@here.example": ["nobody@here.example"],
    "some@here.example": ["nobody@here.example", "alice@here.example"],
    "twice@here.example": ["team@here.example", "team@here.example", "Alice+x@here.example"],
    "postmaster@here.example": ["alice@here.example"],
    "postmaster@": ["alice@here.example"],
    "huge@here.example": [f"user{number}@else.example" for number in range(10_001)],
} | {f"deep{number}@here.example": [f"deep{number + 1}@here.example"] for number in range(30)}


@pytest.fixture
def directory():
    mailboxes = {f"{name}@here.example" for name in ("alice", "bob", "dave")}
    return FakeDirectory({"here.example", ""}, mailboxes, ALIASES)


@pytest.fixture
def router(directory):
    routes = [
        Route("held.example", hold=True, relay=True),
        Route("backup.example", relay=True),
        Route("partner.example", (NextHop("mx.partner.example", 2525),)),
        Route(".partner.example", (NextHop("mx.sub.example"),)),
    ]
    return Router(directory, Routes(routes), literals=["[192.0.2.1]", "[IPv6:2001:DB8::1]"])


def resolve(router, address, *, submitter=None, trusted=False):
    if isinstance(address, str):
        address = parse_mailbox(address)
    resolved = Deferred.fromCoroutine(router.resolve(address, submitter, trusted=trusted))
    results = []
    resolved.addBoth(results.append)
    [result] = results
    if isinstance(result, tuple):
        return result
    raise result.value


def refusal(router, address, **who):
    with pytest.raises(Refused) as caught:
        resolve(router, address, **who)
    return caught.value.reply


def names(targets):
    return sorted(str(target.address) for target in targets)


def test_a_mailbox_is_local() -> None:
    directory = FakeDirectory({"here.example"}, {"alice@here.example"})
    [target] = resolve(Router(directory, Routes(), local_agent="lmtp"), "alice@here.example")
    assert (target.address, target.original) == (Address("alice", "here.example"), None)
    assert target.destination == Destination("lmtp")


def test_a_subaddress_is_delivered_to_its_mailbox_and_remembered(router) -> None:
    [target] = resolve(router, "Alice+lists@Here.Example")
    assert target.address == Address("alice", "here.example")
    assert target.original == Address("Alice+lists", "Here.Example")


def test_nobody_is_refused_even_to_those_who_may_relay(router) -> None:
    assert refusal(router, "nobody@here.example") == NO_SUCH_USER
    assert refusal(router, "nobody@here.example", trusted=True) == NO_SUCH_USER


def test_strangers_may_not_relay_and_others_may(router) -> None:
    assert refusal(router, "x@far.example") == RELAYING_DENIED
    for who in ({"trusted": True}, {"submitter": Identity("alice")}):
        [target] = resolve(router, "x@Far.Example", **who)
        assert target.destination == Destination(RELAY, "far.example")
        assert target.address == Address("x", "Far.Example")


@pytest.mark.parametrize(
    ("address", "destination"),
    [
        ("x@held.example", Destination(HOLD, "held.example")),
        ("x@backup.example", Destination(RELAY, "backup.example")),
    ],
)
def test_strangers_may_send_to_the_domains_we_relay_for(router, address, destination) -> None:
    [target] = resolve(router, address)
    assert target.destination == destination


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("x@partner.example", "[mx.partner.example]:2525"),
        ("x@a.b.partner.example", "[mx.sub.example]:25"),
        ("x@notpartner.example", "notpartner.example"),
        ("x@bücher.example", "xn--bcher-kva.example"),
    ],
)
def test_explicit_next_hops_by_domain(router, address, name) -> None:
    [target] = resolve(router, address, trusted=True)
    assert target.destination == Destination(RELAY, name)
    assert router.destination(target.address) == target.destination
    assert refusal(router, address) == RELAYING_DENIED


def test_the_first_route_that_fits_is_taken_and_a_smarthost_takes_the_rest(directory) -> None:
    routes = Routes([Route("direct.example"), Route("*", (SMARTHOST,)), Route("late.example", hold=True)])
    router = Router(directory, routes)
    assert router.destination(Address("x", "direct.example")) == Destination(RELAY, "direct.example")
    for domain in ("any.example", "late.example"):
        expected = Destination(RELAY, "us@[smtp.provider.example]:587")
        assert router.destination(Address("x", domain)) == expected
    assert router.destination(Address("x", "here.example")) == LOCAL
    assert routes.next_hops(Destination(RELAY, "us@[smtp.provider.example]:587")) == (SMARTHOST,)
    assert "secret" not in repr(routes.next_hops(expected))


def test_two_routes_to_one_host_with_different_settings_are_refused() -> None:
    with pytest.raises(ValueError, match=r"us@\[smtp.provider.example\]:587"):
        Routes(
            [
                Route("a.example", (SMARTHOST,)),
                Route("b.example", (NextHop("smtp.provider.example", 587, username="us"),)),
            ]
        )


def test_an_alias_is_expanded_and_may_lead_to_where_strangers_may_not_send(router) -> None:
    targets = resolve(router, "team@here.example")
    assert names(targets) == ["alice@here.example", "bob@here.example", "carol@else.example"]
    by_name = {target.address.local_part: target for target in targets}
    assert by_name["carol"].destination == Destination(RELAY, "else.example")
    assert by_name["alice"].destination == LOCAL
    assert {target.original for target in targets} == {Address("team", "here.example")}


@pytest.mark.parametrize(
    ("alias", "members"),
    [
        ("all", ["alice@here.example", "bob@here.example", "carol@else.example", "dave@here.example"]),
        ("twice", ["alice@here.example", "bob@here.example", "carol@else.example"]),
        ("some", ["alice@here.example"]),
        ("half", ["alice@here.example"]),
        ("deep15", []),
    ],
)
def test_everybody_behind_an_alias_is_found_once(router, directory, alias, members) -> None:
    directory.aliases["deep30@here.example"] = []
    if members:
        assert names(resolve(router, f"{alias}@here.example")) == members
    else:
        assert refusal(router, f"{alias}@here.example") == NO_SUCH_USER


@pytest.mark.parametrize(
    ("alias", "reply"),
    [
        ("loop", ALIAS_LOOP),
        ("ring", ALIAS_LOOP),
        ("deep0", ALIAS_LOOP),
        ("gone", NO_SUCH_USER),
        ("huge", ALIAS_TOO_LARGE),
    ],
)
def test_an_alias_that_leads_to_nobody_is_refused(router, alias, reply) -> None:
    assert refusal(router, f"{alias}@here.example") == reply


@pytest.mark.parametrize(
    "address",
    [
        Address("postmaster", ""),
        Address("PostMaster", "here.example"),
        Address("postmaster", "[192.0.2.1]"),
        Address("postmaster", "[IPv6:2001:db8::1]"),
    ],
)
def test_the_postmaster_is_always_there(router, address) -> None:
    [target] = resolve(router, address)
    assert target.address == Address("alice", "here.example")
    assert target.original == address


def test_at_our_own_literal_there_is_nobody_else(router) -> None:
    assert refusal(router, "alice@[192.0.2.1]", trusted=True) == NO_SUCH_USER


def test_another_literal_is_relayed_for_those_who_may(router) -> None:
    assert refusal(router, "x@[198.51.100.7]") == RELAYING_DENIED
    [target] = resolve(router, "x@[198.51.100.7]", trusted=True)
    assert target.destination == Destination(RELAY, "[198.51.100.7]")


@pytest.mark.parametrize(
    ("domain", "present", "expected"),
    [
        # Held for nobody any more: no MX, and no smarthost for everything else, gets it.
        ("gone.example", Destination(HOLD, "gone.example"), Destination(HOLD, "gone.example")),
        ("backup.example", Destination(HOLD, "backup.example"), Destination(HOLD, "backup.example")),
        # What the configuration says of the domain counts.
        ("here.example", Destination(HOLD, "here.example"), LOCAL),
        ("held.example", Destination(HOLD, "old.example"), Destination(HOLD, "held.example")),
        ("partner.example", Destination(HOLD, "partner.example"), Destination(RELAY, "[mx.partner.example]:25")),
        ("a.partner.example", Destination(HOLD, "a.partner.example"), Destination(RELAY, "[mx.sub.example]:25")),
        # What is not held goes where it goes.
        ("gone.example", Destination(RELAY, "gone.example"), Destination(RELAY, "us@[smtp.provider.example]:587")),
        ("held.example", Destination(RELAY, "held.example"), Destination(HOLD, "held.example")),
    ],
)
def test_held_mail_leaves_only_for_where_the_configuration_says_of_its_domain(
    directory, domain, present, expected
) -> None:
    routes = Routes(
        [
            Route("held.example", hold=True),
            Route("backup.example", relay=True),
            Route("partner.example", (NextHop("mx.partner.example"),)),
            Route(".partner.example", (NextHop("mx.sub.example"),)),
            Route("*", (SMARTHOST,)),
        ]
    )
    assert Router(directory, routes).rerouted(Address("x", domain), present) == expected
