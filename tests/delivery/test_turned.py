"""The router behind a turned line: what is taken, what the provider shall keep, and what nobody here has."""

import pytest
from twisted.internet.defer import Deferred
from zope.interface.verify import verifyObject

from mailsuite.delivery.router import Router
from mailsuite.delivery.routes import Route, Routes
from mailsuite.delivery.turned import TurnedRouter
from mailsuite.interfaces import DirectoryUnavailable, IRouter, Refused
from mailsuite.mail.address import parse_mailbox
from mailsuite.mail.route import HOLD, MAILDIR, RELAY, Destination, NextHop
from tests.delivery.fakes import FakeDirectory

ROUTES = Routes(
    [
        Route("shed.org", (NextHop("192.0.2.9"),)),
        Route(".sheds.org", (NextHop("192.0.2.9"),)),
        Route("kept.org", hold=True),
        Route("*", (NextHop("smart.provider.net", 587),)),
    ]
)


def resolve(recipient, *, directory=None, routes=ROUTES, trusted=False):
    directory = directory or FakeDirectory(["home.org"], ["alice@home.org"], {"away@home.org": ["bob@far.example"]})
    router = TurnedRouter(Router(directory, routes), routes)
    assert verifyObject(IRouter, router)
    results = []
    resolving = Deferred.fromCoroutine(router.resolve(parse_mailbox(recipient), None, trusted=trusted))
    resolving.addBoth(results.append)
    [result] = results
    return result


@pytest.mark.parametrize(
    ("recipient", "destination"),
    [
        ("alice@home.org", Destination(MAILDIR)),
        ("bob@shed.org", Destination(RELAY, "[192.0.2.9]:25")),  # without relay = true
        ("bob@a.sheds.org", Destination(RELAY, "[192.0.2.9]:25")),
        ("bob@kept.org", Destination(HOLD, "kept.org")),
        ("away@home.org", Destination(RELAY, "[smart.provider.net]:587")),  # an alias may lead anywhere
    ],
)
@pytest.mark.parametrize("trusted", [True, False])
def test_what_is_ours_is_taken(recipient, destination, trusted):
    [target] = resolve(recipient, trusted=trusted)
    assert target.destination == destination


@pytest.mark.parametrize("routes", [ROUTES, Routes()])
@pytest.mark.parametrize("trusted", [True, False])
def test_what_is_not_ours_stays_where_it_is_held(routes, trusted):
    failure = resolve("alice@new.example", routes=routes, trusted=trusted)
    assert failure.check(Refused)
    assert str(failure.value.reply).startswith("450 4.7.1 ")


def test_with_a_new_directory_all_of_it_stays_there():
    failure = resolve("alice@home.org", directory=FakeDirectory())
    assert failure.value.reply.code == 450


def test_a_user_that_we_do_not_have_is_refused_for_good():
    failure = resolve("nobody@home.org")
    assert str(failure.value.reply).startswith("550 5.1.1 ")


def test_a_directory_that_cannot_be_read_is_not_an_empty_one():
    class Unreadable(FakeDirectory):
        def is_local_domain(self, domain):
            raise DirectoryUnavailable("not now")

    assert resolve("alice@home.org", directory=Unreadable()).check(DirectoryUnavailable)
