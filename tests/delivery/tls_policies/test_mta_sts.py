"""How MTA-STS policies are found, kept and fetched anew (RFC 8461 sections 3.3, 5.1 and 10.2)."""

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from mailsuite.delivery.tls_policies import mta_sts
from mailsuite.delivery.tls_policies.mta_sts import MtaSts
from mailsuite.delivery.tls_policies.sts_cache import StsCache
from mailsuite.mail.tls_policy import PolicySource, TLSFailureKind
from mailsuite.net.https import FetchFailed
from tests.delivery.tls_policies.fakes import POLICY, Dns, Web, failing, in_no_thread, insecure, now, page

DOMAIN = "example.org"
RECORD = (f"_mta-sts.{DOMAIN}", "TXT")
WEB = f"mta-sts.{DOMAIN}"
NONE = b"version: STSv1\nmode: none\nmax_age: 86400\n"


class World:
    """A domain with a policy, and we who look for it."""

    def __init__(self, directory):
        self.directory = directory
        self.clock = Clock()
        self.clock.advance(1e9)
        self.dns = Dns({RECORD: insecure(b"v=STSv1; id=1;")})
        self.web = Web()
        self.web.pages[WEB] = page()
        self.noted = []
        self.restart()

    def restart(self):
        cache = StsCache(self.directory / "mta-sts.db", in_no_thread)
        self.sts = MtaSts(self.dns, self.web, cache, self.clock, note=self.noted.append)

    def publish(self, identity, body=POLICY):
        self.dns.table[RECORD] = insecure(b"v=STSv1; id=" + identity)
        self.web.pages[WEB] = page(body)

    def mode(self):
        found = now(self.sts.policy(DOMAIN))
        return None if found is None else str(found.policy.mode)

    def take_away(self):
        self.dns.table[RECORD] = failing()
        del self.web.pages[WEB]

    @property
    def failures(self):
        return [result.failure for result in self.noted]


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def test_policy_is_found_and_kept(world):
    assert world.mode() == "enforce"
    assert world.mode() == "enforce"
    assert world.dns.asked == [RECORD]
    assert world.web.fetched == [WEB]


def test_domain_without_a_record_has_no_policy_and_nothing_is_fetched(world):
    world.dns.table.clear()
    assert world.mode() is None
    assert world.web.fetched == []
    assert world.noted == []


@pytest.mark.parametrize("domain", ["", "localhost", "[192.0.2.1]", "a..b", "x" * 300, "a/b.example", "a.example\n"])
def test_what_is_no_domain_is_not_asked_for(world, domain):
    assert now(world.sts.policy(domain)) is None
    assert world.dns.asked == []


def test_record_is_looked_at_again_and_the_policy_only_when_it_has_changed(world):
    world.mode()
    world.clock.advance(301)
    assert world.mode() == "enforce"
    assert (len(world.dns.asked), len(world.web.fetched)) == (2, 1)
    world.publish(b"2", POLICY.replace(b"enforce", b"testing"))
    assert world.mode() == "enforce"
    world.clock.advance(301)
    assert world.mode() == "testing"


def test_policy_outlives_a_restart_and_an_attacker(world):
    world.mode()
    world.restart()
    world.take_away()
    assert world.mode() == "enforce"
    assert world.failures == [TLSFailureKind.POLICY_FETCH]  # section 6
    assert world.noted[0].policy.source is PolicySource.MTA_STS
    assert world.noted[0].policy.mx_patterns == ("mx.example.org", "*.backup.example")


def test_missing_record_takes_nothing_away(world):
    world.mode()
    world.dns.table.clear()
    world.clock.advance(4000)
    assert world.mode() == "enforce"
    world.restart()
    assert world.mode() == "enforce"


def test_policy_expires(world):
    world.mode()
    world.take_away()
    world.clock.advance(604799)
    assert world.mode() == "enforce"
    world.clock.advance(2)
    assert world.mode() is None
    world.restart()
    assert world.mode() is None


def test_lost_cache_is_no_obstacle(world):
    world.mode()
    (world.directory / "mta-sts.db").write_bytes(b"x" * 9999)
    world.restart()
    assert world.mode() == "enforce"
    assert len(world.web.fetched) == 2


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (FetchFailed("away"), TLSFailureKind.POLICY_FETCH),
        (FetchFailed("who is that", untrusted=True), TLSFailureKind.WEBPKI_INVALID),
        (page(status=301), TLSFailureKind.POLICY_FETCH),
        (page(status=404), TLSFailureKind.POLICY_FETCH),
        (page(media_type="text/html"), TLSFailureKind.POLICY_FETCH),
        (page(media_type=""), TLSFailureKind.POLICY_FETCH),
        (page(b"<html>"), TLSFailureKind.POLICY_INVALID),
        (page(b""), TLSFailureKind.POLICY_INVALID),
    ],
)
def test_policy_that_cannot_be_fetched_is_as_none_and_left_alone_for_a_while(world, answer, kind):
    world.web.pages[WEB] = answer
    assert world.mode() is None
    assert world.failures == [kind]
    world.clock.advance(299)
    world.mode()
    assert len(world.web.fetched) == 1
    world.web.pages[WEB] = page()
    world.clock.advance(2)
    assert world.mode() == "enforce"


def test_policy_that_is_known_holds_where_the_new_one_cannot_be_fetched(world):
    world.mode()
    world.publish(b"2", b"<html>")
    world.clock.advance(301)
    assert world.mode() == "enforce"
    assert world.failures == [TLSFailureKind.POLICY_INVALID]


def test_new_version_is_fetched_at_once_even_after_a_failure(world):
    world.web.pages[WEB] = FetchFailed("away")
    world.mode()
    world.dns.table[RECORD] = insecure(b"v=STSv1; id=2;", ttl=60.0)
    world.web.pages[WEB] = page()
    world.clock.advance(300)
    assert world.mode() == "enforce"


def test_domain_may_opt_out_in_good_order(world):
    world.mode()
    world.publish(b"2", NONE)
    world.clock.advance(301)
    found = now(world.sts.policy(DOMAIN))
    assert not found.is_active
    world.take_away()
    world.clock.advance(301)
    world.mode()
    world.clock.advance(86400)
    now(world.sts.refresh())
    assert world.noted == []  # section 8.3


def test_several_wait_for_one_fetch(world):
    world.web.pages[WEB] = waited = Deferred()
    waiting = [Deferred.fromCoroutine(world.sts.policy(DOMAIN)) for _ in range(3)]
    found = []
    for one in waiting:
        one.addBoth(found.append)
    waiting[0].cancel()
    waited.callback(page())
    assert [getattr(one, "id", None) for one in found] == [None, "1", "1"]
    assert len(world.web.fetched) == 1


def test_one_domain_does_not_wait_for_another(world):
    world.web.pages[WEB] = Deferred()
    slow = Deferred.fromCoroutine(world.sts.policy(DOMAIN))
    assert now(world.sts.policy("example.net")) is None
    assert not slow.called
    world.sts.stop()
    slow.addErrback(lambda _failure: None)


def test_policies_in_use_are_fetched_anew_each_day(world):
    world.mode()
    now(world.sts.refresh())
    assert len(world.web.fetched) == 1
    world.clock.advance(86401)
    now(world.sts.refresh())
    assert len(world.web.fetched) == 2
    world.take_away()
    world.clock.advance(604000)
    assert world.mode() == "enforce"  # counted from the second fetch


def test_fetching_anew_does_not_need_the_record(world):
    world.mode()
    world.dns.table[RECORD] = failing()
    world.web.pages[WEB] = page(POLICY.replace(b"enforce", b"testing"))
    world.clock.advance(86401)
    now(world.sts.refresh())
    assert world.mode() == "testing"


def test_fetching_anew_that_fails_is_told_and_tried_again_in_an_hour(world):
    world.mode()
    world.web.pages[WEB] = FetchFailed("away")
    world.clock.advance(86401)
    for _ in range(2):
        now(world.sts.refresh())
    assert world.failures == [TLSFailureKind.POLICY_FETCH]
    world.clock.advance(3601)
    now(world.sts.refresh())
    assert len(world.failures) == 2
    assert world.mode() == "enforce"


def test_policies_that_nobody_uses_are_left_to_expire(world):
    world.publish(b"1", POLICY.replace(b"604800", b"31557600"))
    world.mode()
    world.clock.advance(31 * 86400)
    now(world.sts.refresh())
    assert len(world.web.fetched) == 1
    world.mode()
    now(world.sts.refresh())
    assert len(world.web.fetched) == 2


def test_memory_is_bounded(world, monkeypatch):
    monkeypatch.setattr(mta_sts, "_MOST_KNOWN", 10)
    for number in range(50):
        now(world.sts.policy(f"{number}.example"))
    assert len(world.sts._known) == 10  # noqa: SLF001 - there is no other way to see it
