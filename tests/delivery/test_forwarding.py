"""What an alias passes on: under whose name, and how reports come back. And how the router explains itself."""

import pytest
from twisted.internet.defer import Deferred

from mailsuite.delivery.router import Router
from mailsuite.delivery.routes import Route, Routes
from mailsuite.delivery.srs import Rewriting
from mailsuite.delivery.turned import TurnedRouter
from mailsuite.interfaces import Refused
from mailsuite.mail.address import Address, parse_mailbox
from mailsuite.mail.replies import NO_SUCH_USER, NOT_OUR_DOMAIN
from mailsuite.mail.route import HOLD, MAILDIR, REDISTRIBUTED, RELAY, Destination, NextHop
from mailsuite.mail.session import Identity
from tests.delivery.fakes import FakeDirectory

ALIASES = {
    "out@here.example": ["carol@else.example", "alice@here.example"],
    "list@here.example": ["carol@else.example", "alice@here.example", "inner@here.example"],
    "owner-list@here.example": ["alice@here.example"],
    "inner@here.example": ["dave@else.example"],
    "owned@here.example": ["erin@else.example", "list@here.example"],
    "owner-owned@here.example": ["bob@else.example"],
    "tickets@here.example": ["alice@here.example"],
    "to-work@here.example": ["work-tickets@here.example"],
}
SENDER = "sender@there.example"
SMART = NextHop("smart.example", 587)


class CatchAllDirectory(FakeDirectory):
    """Whoever is not known at catch.example is one and the same."""

    def alias(self, address):
        found = super().alias(address)
        if found is None and address.domain_key == "catch.example":
            return (Address("alice", "here.example"),)
        return found


@pytest.fixture
def rewriting():
    rewriting = Rewriting("here.example", lambda: 1_700_000_000.0)
    rewriting.use("a secret that nobody else has")
    return rewriting


@pytest.fixture
def directory():
    aliases = {**ALIASES, "list@catch.example": ["carol@else.example"]}
    return CatchAllDirectory(
        {"here.example", "catch.example", ""}, {"alice@here.example", "sally@here.example"}, aliases
    )


def router_of(directory, *routes, **options):
    return Router(directory, Routes(routes), **options)


def resolve(router, recipient, sender=SENDER, *, trusted=False):
    results = []
    address = None if sender is None else parse_mailbox(sender)
    Deferred.fromCoroutine(
        router.resolve(parse_mailbox(str(recipient)), None, trusted=trusted, sender=address)
    ).addBoth(results.append)
    if not isinstance(results[0], tuple):
        results[0].raiseException()
    return {str(target.address): target for target in results[0]}


def senders(targets):
    return {address: target.reverse_path and str(target.reverse_path) for address, target in targets.items()}


def test_without_srs_and_owners_the_sender_stays(directory) -> None:
    targets = resolve(router_of(directory), "out@here.example")
    assert senders(targets) == {"carol@else.example": None, "alice@here.example": None}
    assert targets["carol@else.example"].rule == "alias out@here.example; MX of the domain"


def test_what_leaves_by_an_alias_has_a_rewritten_sender_and_reports_come_back(directory, rewriting) -> None:
    router = router_of(directory, rewriting=rewriting)
    targets = resolve(router, "out@here.example")
    assert targets["alice@here.example"].reverse_path is None
    rewritten = targets["carol@else.example"].reverse_path
    assert rewritten == rewriting.forward(parse_mailbox(SENDER))
    [back] = resolve(router, rewritten, None).values()
    assert (str(back.address), back.destination) == (SENDER, Destination(RELAY, "there.example"))
    assert back.original == rewritten


def test_a_forged_or_foreign_way_back_is_no_way_to_relay(directory, rewriting) -> None:
    router = router_of(directory, rewriting=rewriting)
    for local in ("SRS0=AAAAAAAA=ZZ=victim.example=bob", "srs1=AAAAAAAA=victim.example==x=y=z=w"):
        with pytest.raises(Refused) as caught:
            resolve(router, Address(local, "here.example"), None)
        assert caught.value.reply == NO_SUCH_USER
    nested = rewriting.forward(parse_mailbox("a@b.example"))
    with pytest.raises(Refused):
        resolve(router, rewriting.forward(nested), None)


def test_a_report_for_a_local_sender_that_was_rewritten_is_delivered(directory, rewriting) -> None:
    router = router_of(directory, rewriting=rewriting)
    [back] = resolve(router, rewriting.forward(parse_mailbox("sally@here.example")), None).values()
    assert back.destination == Destination(MAILDIR)


@pytest.mark.parametrize("sender", [None, "sally@here.example"])
def test_the_null_sender_and_our_own_are_not_rewritten(directory, rewriting, sender) -> None:
    targets = resolve(router_of(directory, rewriting=rewriting), "out@here.example", sender)
    assert set(senders(targets).values()) == {None}


def test_what_is_relayed_without_an_alias_is_not_rewritten(directory, rewriting) -> None:
    targets = resolve(router_of(directory, rewriting=rewriting), "carol@else.example", trusted=True)
    assert senders(targets) == {"carol@else.example": None}


def test_the_owner_of_a_list_is_its_sender_and_an_inner_list_has_its_own_or_that(directory, rewriting) -> None:
    targets = resolve(router_of(directory, rewriting=rewriting), "list@here.example")
    owner = "owner-list@here.example"
    assert senders(targets) == dict.fromkeys(["carol@else.example", "alice@here.example", "dave@else.example"], owner)
    nested = senders(resolve(router_of(directory), "owned@here.example"))
    assert nested["erin@else.example"] == "owner-owned@here.example"
    assert nested["carol@else.example"] == owner


def test_what_has_no_sender_gets_none_from_a_list(directory) -> None:
    assert set(senders(resolve(router_of(directory), "list@here.example", None)).values()) == {None}


def test_a_catch_all_owns_nothing(directory) -> None:
    assert senders(resolve(router_of(directory), "list@catch.example")) == {"carol@else.example": None}


def test_routes_look_at_the_sender_that_the_mail_leaves_under(directory, rewriting) -> None:
    routes = [Route(sender="@here.example", next_hops=(SMART,))]
    router = router_of(directory, *routes, rewriting=rewriting)
    smart = Destination(RELAY, "[smart.example]:587")
    assert resolve(router, "out@here.example")["carol@else.example"].destination == smart
    assert resolve(router, "x@else.example", trusted=True)["x@else.example"].destination.name == "else.example"
    assert resolve(router, "x@else.example", "a@here.example", trusted=True)["x@else.example"].destination == smart
    # What waits is found there again, by the sender that it was queued under.
    carol = parse_mailbox("carol@else.example")
    assert router.rerouted(carol, smart, rewriting.forward(parse_mailbox(SENDER))) == smart


TICKETS = Route(recipient="*tickets@here.example", agent="tickets", name="route[0]")


def test_a_route_that_names_its_recipient_comes_before_mailboxes_and_aliases(directory) -> None:
    router = router_of(directory, TICKETS, Route("here.example", (SMART,)))
    found = resolve(router, "tickets@here.example")
    assert found["tickets@here.example"].destination == Destination("tickets")
    assert found["tickets@here.example"].rule == "route[0] (to *tickets@here.example)"
    assert resolve(router, "any-tickets@here.example").keys() == {"any-tickets@here.example"}
    [behind] = resolve(router, "to-work@here.example").values()
    assert (behind.destination, str(behind.original)) == (Destination("tickets"), "to-work@here.example")
    # A domain of ours needs no route, and has none.
    assert resolve(router, "alice@here.example")["alice@here.example"].destination == Destination(MAILDIR)
    assert router.destination(parse_mailbox("x-tickets@here.example")) == Destination("tickets")


def test_a_route_to_nowhere_does_not_make_a_local_address_foreign(directory) -> None:
    router = router_of(directory, Route(recipient="nobody@here.example", relay=True))
    with pytest.raises(Refused):
        resolve(router, "nobody@here.example")


def test_what_an_operator_has_given_up_stays_so(directory) -> None:
    expired = Destination("expired", "else.example")
    assert router_of(directory).rerouted(parse_mailbox("x@else.example"), expired) == expired


def test_what_stands_for_a_list_that_has_taken_a_message_over_stays_so(directory) -> None:
    taken = Destination(REDISTRIBUTED, "here.example")
    assert router_of(directory).rerouted(parse_mailbox("list@here.example"), taken) == taken


@pytest.mark.parametrize(
    ("recipient", "sender", "sentences"),
    [
        ("alice@here.example", SENDER, ["alice@here.example: the mailbox alice@here.example takes it"]),
        (
            "x@any.example",
            SENDER,
            ["x@any.example: route[1] (*); it goes to [smart.example]:587", "any.example is not"],
        ),
        ("x@held.example", None, ["x@held.example: route[0] (held.example); it is held", "held.example is not ours"]),
        ("nobody@here.example", None, ["nobody@here.example: refused, 550 5.1.1"]),
        (
            "out@here.example",
            SENDER,
            [
                "out@here.example is an alias of carol@else.example, alice@here.example",
                "carol@else.example: route[1] (*); it goes to",
                "carol@else.example gets it under the sender SRS0=",
                "alice@here.example: the mailbox",
            ],
        ),
        (
            "list@here.example",
            SENDER,
            [
                "list@here.example is an alias of",
                "carol@else.example:",
                "carol@else.example gets it under the sender owner-list",
            ],
        ),
        (
            "SRS0=AAAAAAAA=ZZ=victim.example=bob@here.example",
            None,
            ["SRS0=AAAAAAAA=ZZ=victim.example=bob@here.example was"],
        ),
    ],
)
def test_the_router_explains_itself(directory, rewriting, recipient, sender, sentences) -> None:
    routes = [Route("held.example", hold=True, name="route[0]"), Route("*", (SMART,), name="route[1]")]
    router = router_of(directory, *routes, rewriting=rewriting)
    explained = router.explain(parse_mailbox(recipient), sender and parse_mailbox(sender))
    for sentence in sentences:
        assert [one for one in explained if one.startswith(sentence)], explained


def test_the_way_back_is_explained(directory, rewriting) -> None:
    rewritten = rewriting.forward(parse_mailbox("bob@there.example"))
    explained = router_of(directory, rewriting=rewriting).explain(rewritten)
    assert "it stands for bob@there.example" in explained[0]
    assert explained[1].startswith("bob@there.example: MX of the domain; the MX is asked")


@pytest.mark.parametrize(
    ("recipient", "is_ours"),
    [
        ("alice@here.example", True),
        ("tickets@here.example", True),
        ("one@partner.example", True),
        ("other@partner.example", False),
        ("x@held.example", True),
        ("x@any.example", False),
    ],
)
def test_a_provider_relays_nothing_through_us_by_a_route_for_all_others(directory, recipient, is_ours) -> None:
    routes = Routes(
        [
            Route(recipient="one@partner.example", next_hops=(NextHop("partner.example"),)),
            TICKETS,
            Route("held.example", hold=True),
            Route("*", agent="archive"),
        ]
    )
    turned = TurnedRouter(Router(directory, routes), routes)
    if is_ours:
        assert resolve(turned, recipient)
        assert turned.explain(parse_mailbox(recipient))
    else:
        with pytest.raises(Refused) as caught:
            resolve(turned, recipient)
        assert caught.value.reply == NOT_OUR_DOMAIN


def test_held_mail_does_not_leave_for_a_sender_dependent_smarthost(directory) -> None:
    router = router_of(directory, Route(sender="@here.example", next_hops=(SMART,)))
    held = Destination(HOLD, "else.example")
    assert router.rerouted(parse_mailbox("x@else.example"), held, parse_mailbox("a@here.example")) == held


SHOP = NextHop("smart.example", 587, username="shop@smart.example", password="s")
BY_ACCOUNT = Destination(RELAY, "shop@smart.example@[smart.example]:587")
BY_MX = Destination(RELAY, "else.example")


def test_nobody_borrows_our_account_at_a_smarthost_by_a_forged_sender(directory, rewriting) -> None:
    router = router_of(directory, Route(sender="@shop.example", next_hops=(SHOP,)), rewriting=None)
    forged = "forged@shop.example"
    stranger = resolve(router, "out@here.example", forged)["carol@else.example"]
    assert (stranger.destination, stranger.rule) == (BY_MX, "alias out@here.example; MX of the domain")
    known = resolve(router, "out@here.example", forged, trusted=True)["carol@else.example"]
    assert known.destination == BY_ACCOUNT
    results = []
    Deferred.fromCoroutine(
        router.resolve(parse_mailbox("x@else.example"), Identity("shop"), trusted=False, sender=parse_mailbox(forged))
    ).addCallback(results.append)
    [[authenticated]] = results
    assert authenticated.destination == BY_ACCOUNT


@pytest.mark.parametrize("sender", ["bob@shop.example", None])
def test_neither_a_way_back_nor_a_provider_lends_our_account(directory, rewriting, sender) -> None:
    routes = Routes(
        [
            Route(sender="@shop.example", next_hops=(SHOP,)),
            Route(sender="<>", next_hops=(SHOP,)),
            Route("else.example", next_hops=(SMART,)),
        ]
    )
    router = Router(directory, routes, rewriting=rewriting)
    smart = Destination(RELAY, "[smart.example]:587")
    back = rewriting.forward(parse_mailbox("carol@else.example"))
    assert resolve(router, back, sender)["carol@else.example"].destination == smart
    turned = TurnedRouter(router, routes)
    assert resolve(turned, "carol@else.example", sender, trusted=True)["carol@else.example"].destination == smart


def test_what_we_name_as_the_sender_ourselves_may_use_our_account(directory, rewriting) -> None:
    router = router_of(directory, Route(sender="@here.example", next_hops=(SHOP,)), rewriting=rewriting)
    for alias in ("out@here.example", "list@here.example"):
        assert resolve(router, alias)["carol@else.example"].destination == BY_ACCOUNT
    # Whoever says to be one of ours is not believed.
    assert resolve(router, "out@here.example", "sally@here.example")["carol@else.example"].destination == BY_MX


def test_a_route_for_a_recipient_lends_no_account_to_forged_senders(directory) -> None:
    route = Route(recipient="alice@here.example", sender="@shop.example", next_hops=(SHOP,))
    router = router_of(directory, route)
    to_alice = resolve(router, "alice@here.example", "forged@shop.example")["alice@here.example"]
    assert to_alice.destination == Destination(MAILDIR)
    trusted = resolve(router, "alice@here.example", "bob@shop.example", trusted=True)["alice@here.example"]
    assert trusted.destination == BY_ACCOUNT


def test_mail_that_waits_goes_by_our_account_only_if_it_did_before(directory, rewriting) -> None:
    router = router_of(directory, Route(sender="@shop.example", next_hops=(SHOP,)), rewriting=rewriting)
    carol, shop = parse_mailbox("carol@else.example"), parse_mailbox("bob@shop.example")
    assert router.rerouted(carol, BY_ACCOUNT, shop) == BY_ACCOUNT
    moved = Destination(RELAY, "shop@smart.example@[old.example]:587")  # the smarthost had another name
    assert router.rerouted(carol, moved, shop) == BY_ACCOUNT
    assert router.rerouted(carol, BY_MX, shop) == BY_MX
    assert router.rerouted(carol, Destination(RELAY, "us@[smart.example]:587"), shop) == BY_MX
    ours = router_of(directory, Route(sender="@here.example", next_hops=(SHOP,)), rewriting=rewriting)
    assert ours.rerouted(carol, BY_MX, rewriting.forward(parse_mailbox(SENDER))) == BY_ACCOUNT
    assert ours.rerouted(carol, BY_MX, parse_mailbox("SRS0=AAAAAAAA=ZZ=x.example=y@here.example")) == BY_MX


def test_an_account_without_a_condition_on_the_sender_is_for_all(directory) -> None:
    router = router_of(directory, Route(next_hops=(SHOP,)))
    assert resolve(router, "out@here.example")["carol@else.example"].destination == BY_ACCOUNT
    assert router.rerouted(parse_mailbox("carol@else.example"), BY_ACCOUNT) == BY_ACCOUNT


def test_it_is_told_whom_an_account_is_for(directory) -> None:
    router = router_of(directory, Route(sender="@shop.example", next_hops=(SHOP,)))
    shop = parse_mailbox("bob@shop.example")
    for recipient in ("x@else.example", "out@here.example"):
        told = router.explain(parse_mailbox(recipient), shop)
        assert any("only for senders who are authenticated or trusted" in sentence for sentence in told)
        assert not any("authenticated" in sentence for sentence in router.explain(parse_mailbox(recipient)))
