"""Which route is taken, and what is said of the destination that it leads to."""

import pytest

from mailsuite.delivery.pacing import Pacing
from mailsuite.delivery.retry import RetrySchedule
from mailsuite.delivery.routes import Route, Routes, is_configured
from mailsuite.mail.address import Address, parse_mailbox
from mailsuite.mail.route import HOLD, RELAY, Destination, NextHop

SMART = NextHop("smart.example", 587)
OTHER = NextHop("other.example", 587)
SLOW = Pacing(1, 2, 0.5)
OFTEN = RetrySchedule(waits=(60.0,))


def at(text):
    return None if text is None else parse_mailbox(text)


def taken(routes, recipient, sender=None):
    route = Routes(routes).route(at(recipient), at(sender))
    return None if route is None else route.name


ALL = [
    Route(recipient="Tickets-*@Here.example", agent="tickets", name="tickets"),
    Route("news.example", (SMART,), sender="@Lists.example", name="lists"),
    Route("news.example", (SMART,), sender="boss@here.example", name="boss"),
    Route("news.example", hold=True, sender="<>", name="reports"),
    Route("news.example", (OTHER,), name="news"),
    Route(".news.example", (OTHER,), name="below"),
    Route(sender="@lists.example", next_hops=(SMART,), name="all lists"),
]


@pytest.mark.parametrize(
    ("recipient", "sender", "name"),
    [
        ("tickets-1@here.example", None, "tickets"),
        ("TICKETS-@HERE.EXAMPLE", "x@lists.example", "tickets"),
        ("tickets@here.example", None, None),
        ("xtickets-1@here.example", None, None),
        ("tickets-1@there.example", None, None),
        ("x@news.example", "a@lists.example", "lists"),
        ("x@news.example", "a@sub.lists.example", "news"),
        ("x@news.example", "Boss@here.example", "boss"),
        ("x@news.example", "bossy@here.example", "news"),
        ("x@news.example", None, "reports"),
        ("x@NEWS.example", "a@b.example", "news"),
        ("x@a.b.news.example", None, "below"),
        ("x@oldnews.example", None, None),
        ("x@any.example", "a@LISTS.example", "all lists"),
        ("x@any.example", None, None),
    ],
)
def test_the_first_route_of_which_all_conditions_fit_is_taken(recipient, sender, name) -> None:
    assert taken(ALL, recipient, sender) == name


def test_a_wildcard_stands_for_anything_and_everything_else_for_itself() -> None:
    routes = [Route(recipient="a.*+(x)@here.example", agent="a", name="odd")]
    assert Routes(routes).route(Address("a.b\n+(x)", "here.example"))
    assert Routes(routes).route(Address("aab+x", "here.example")) is None


def test_order_counts_whatever_is_more_specific() -> None:
    routes = [Route(".example", (SMART,), name="wide"), Route("a.example", (OTHER,), name="narrow")]
    assert taken(routes, "x@a.example") == "wide"
    assert taken(routes[::-1], "x@a.example") == "narrow"


@pytest.mark.parametrize(
    ("route", "destination"),
    [
        (Route(next_hops=(SMART,)), "relay:[smart.example]:587"),
        (Route(next_hops=(NextHop("smart.example", 587, username="us"),)), "relay:us@[smart.example]:587"),
        (Route(next_hops=(SMART, OTHER)), "relay:[smart.example]:587,[other.example]:587"),
        (Route(next_hops=(NextHop("2001:db8::1"),)), "relay:[2001:db8::1]:25"),
        (Route(next_hops=(NextHop("group.example", use_mx=True),)), "relay:mx:group.example"),
        (Route(agent="tickets"), "tickets:"),
        (Route(hold=True), "hold:any.example"),
        (Route(relay=True), "relay:any.example"),
    ],
)
def test_destinations_keep_their_names(route, destination) -> None:
    routes = Routes([route])
    found = routes.destination(Address("x", "Any.example"))
    assert str(found) == destination
    assert routes.next_hops(found) == (route.next_hops if not route.hold else ())
    assert is_configured(found) == bool(route.next_hops)


def test_a_literal_is_no_configured_next_hop() -> None:
    for name in ("[192.0.2.1]", "[IPv6:2001:db8::1]", "mx.example", "example.mx"):
        assert not is_configured(Destination(RELAY, name))


def test_times_and_pace_belong_to_the_destination() -> None:
    routes = Routes(
        [
            Route("a.example", (SMART,), retry=OFTEN),
            Route("slow.example", pacing=SLOW),
            Route("held.example", hold=True),
            Route("tickets.example", agent="tickets", pacing=SLOW),
            Route("*", (OTHER,), sender="@x.example", pacing=SLOW),
        ],
        retry=RetrySchedule(first=7.0),
        pacing=Pacing(1, 9),
    )
    assert routes.retry(Destination(RELAY, "[smart.example]:587")) == OFTEN
    assert routes.pacing(Destination(RELAY, "[smart.example]:587")) == Pacing(1, 9)
    assert routes.pacing(Destination(RELAY, "slow.example")) == SLOW
    assert routes.pacing(Destination("tickets")) == SLOW
    assert routes.pacing(Destination(RELAY, "[other.example]:587")) == SLOW
    assert routes.pacing(Destination(RELAY, "any.example")) == Pacing(1, 9)
    for other in (Destination(RELAY, "any.example"), Destination(HOLD, "held.example"), Destination("maildir")):
        assert routes.retry(other).first == 7.0
    for local in (Destination(HOLD, "held.example"), Destination("maildir")):
        assert routes.pacing(local) == Pacing()  # what is said in [relay] is not about them


@pytest.mark.parametrize(
    "routes",
    [
        [Route("a.example", (SMART,)), Route("b.example", (NextHop("smart.example", 587, tls="verified"),))],
        [Route("a.example", (SMART,), pacing=SLOW), Route("b.example", (SMART,))],
        [Route("a.example", agent="x", retry=OFTEN), Route("b.example", agent="x")],
    ],
)
def test_what_leads_to_one_destination_must_say_the_same_of_it(routes) -> None:
    with pytest.raises(ValueError, match="two routes lead to"):
        Routes(routes)


def test_an_mx_cannot_be_spoken_to_in_two_ways() -> None:
    with pytest.raises(ValueError, match="holds for all of its mail"):
        Routes([Route("a.example", sender="@x.example", like=NextHop("", use_mx=True, tls="verified"))])


def test_ten_thousand_routes_are_not_looked_through() -> None:
    many = [Route(f"d{number}.example", (SMART,)) for number in range(10_000)]
    routes = Routes([*many, Route(".deep.example", (OTHER,)), Route("*", hold=True)])
    calls = []
    fits = Route.fits
    try:
        Route.fits = lambda self, *args: calls.append(self) or fits(self, *args)
        assert routes.destination(Address("x", "a.b.deep.example")).name == "[other.example]:587"
        assert routes.destination(Address("x", "d9999.example")).name == "[smart.example]:587"
    finally:
        Route.fits = fits
    assert len(calls) <= 4


def test_names_of_domains_and_of_hosts() -> None:
    routes = Routes(
        [Route("a.example", (SMART, OTHER)), Route(recipient="x@b.example", agent="x"), Route("*", (SMART,))]
    )
    assert [routes.names(domain) for domain in ("A.example", "b.example", "c.example")] == [True, True, False]
    assert {str(one) for one in routes.destinations_at("OTHER.example")} == {
        "relay:[smart.example]:587,[other.example]:587"
    }
