"""ETRN: who may start which queue, what is answered, and what leaves (RFC 1985)."""

from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import pytest
from twisted.internet.defer import Deferred

from mailsuite.delivery.next_hops import Unroutable
from mailsuite.delivery.on_demand.hops import HeldHops
from mailsuite.delivery.routes import Route, Routes
from mailsuite.interfaces import Refused, SpoolError
from mailsuite.mail.history import EventKind
from mailsuite.mail.route import RELAY, Destination, NextHop
from mailsuite.mail.session import Identity, Peer
from tests.delivery.fakes import DEAD, RELAYED
from tests.delivery.on_demand.conftest import PEER, SHIP, Provider, held, result

FARM = ip_network("198.51.100.0/24")
FARMER = Peer("198.51.100.9")


def etrn(provider, node, identity=SHIP, peer=PEER):
    return result(provider.on_demand.start_queue(node, identity, peer))


def refused(provider, node, identity=SHIP, peer=PEER):
    with pytest.raises(Refused) as caught:
        etrn(provider, node, identity, peer)
    return caught.value.reply


@pytest.fixture
def anybody(clock):
    return Provider(clock, who="any")


def test_held_mail_leaves_over_a_new_connection(provider, clock) -> None:
    for _ in range(3):
        provider.store("captain@ship.example")
    reply = etrn(provider, "Ship.Example")
    assert str(reply) == "253 2.0.0 OK, 3 pending messages for node Ship.Example started"
    clock.turn()
    assert provider.agent.runs[0].destination == held("ship.example")
    assert result(provider.spool.count()) == 0


def test_no_mail_is_251(provider) -> None:
    provider.store("cow@farm.example")
    assert etrn(provider, "ship.example").code == 251
    assert provider.agent.runs == []


def test_a_node_without_mail_may_be_asked_for_again(provider) -> None:
    assert [etrn(provider, "ship.example").code for _ in range(3)] == [251] * 3


def test_where_nobody_is_reached_all_stays_held(provider, clock) -> None:
    async def act(run):
        run.fail(DEAD)

    provider.agent.act = act
    ids = [provider.store("captain@ship.example") for _ in range(3)]
    assert etrn(provider, "ship.example").code == 253
    clock.turn()
    assert provider.waiting() == ids
    [one] = result(provider.spool.claim_held([held("ship.example")], 1))
    assert one.recipients[0].attempts == 0
    end, start = provider.events(EventKind.ETRN)
    assert (start.subject, start.detail["waiting"], start.detail["address"]) == ("ship", 3, PEER.host)
    assert (end.detail["complete"], end.detail["text"]) == (False, DEAD.text)


def test_a_defect_of_the_agent_loses_nothing(provider, clock) -> None:
    async def act(run):
        await run.next()
        raise RuntimeError("a defect")

    provider.agent.act = act
    ids = [provider.store("captain@ship.example") for _ in range(3)]
    etrn(provider, "ship.example")
    assert provider.waiting() == ids
    clock.advance(60)
    assert etrn(provider, "ship.example").code == 253


def test_one_node_at_a_time_and_not_too_often(provider, clock) -> None:
    provider.store("captain@ship.example")
    etrn(provider, "ship.example")
    clock.turn()
    provider.store("captain@ship.example")
    reply = refused(provider, "ship.example")
    assert reply.code == 458
    clock.advance(60)
    assert etrn(provider, "ship.example").code == 253


def test_a_flush_under_way_is_not_begun_twice(provider, clock) -> None:
    async def act(run):
        await Deferred()

    provider.agent.act = act
    provider.store("captain@ship.example")
    etrn(provider, "ship.example")
    clock.advance(3600)
    assert etrn(provider, "ship.example").code == 250
    assert len(provider.agent.runs) == 1
    stopped = provider.on_demand.stopService()
    assert stopped.called
    assert len(provider.waiting()) == 1


def test_a_turn_comes_first(provider) -> None:
    provider.store("captain@ship.example")
    turn = provider.begin()
    assert refused(provider, "ship.example").code == 458
    turn.ended(None)
    assert etrn(provider, "ship.example").code == 253


def test_a_customer_may_ask_for_its_own_only(provider) -> None:
    provider.store("cow@farm.example")
    provider.store("captain@ship.example")
    for node in ("farm.example", "@farm.example", "#farm", "#nobody", "backup.example", "@example", "orphan.example"):
        if node != "@example":
            assert refused(provider, node).code == 459
    assert etrn(provider, "#SHIP").code == 253


def test_a_suffix_is_bounded_by_what_is_the_customers(provider, clock) -> None:
    provider.store("captain@ship.example")
    provider.store("cook@crew.ship.example")
    provider.store("cow@farm.example")
    assert "2 pending" in etrn(provider, "@example").text
    clock.turn()
    assert result(provider.spool.count()) == 1
    assert {run.destination.name for run in provider.agent.runs} == {"ship.example", "crew.ship.example"}


def test_customers_are_known_by_their_networks(provider) -> None:
    provider.change("farm", networks=(FARM,))
    provider.store("cow@farm.example")
    assert refused(provider, "farm.example", None, PEER).code == 459
    assert refused(provider, "farm.example", Identity("farm", customer="farm"), PEER).code == 459
    assert etrn(provider, "farm.example", None, FARMER).code == 253


def test_all_for_one_server_goes_over_one_connection(provider, clock) -> None:
    provider.change("ship", next_hop="ship.dyn.example:2525")
    ids = [provider.store("captain@ship.example"), provider.store("cook@crew.ship.example")]
    assert "2 pending" in etrn(provider, "#ship").text
    clock.turn()
    [run] = provider.agent.runs
    assert run.tally.messages == len(ids)


def test_with_etrn_for_nobody_it_is_not_there(clock) -> None:
    provider = Provider(clock, who="none", networks=(FARM,))
    assert refused(provider, "ship.example", peer=FARMER).code == 502


@pytest.mark.parametrize("node", ["", "@", "a..b", "-", "ship example", "@@ship.example"])
def test_what_is_no_domain_is_501(provider, node) -> None:
    assert refused(provider, node).code == 501


def test_a_spool_that_fails_is_458(provider) -> None:
    provider.store("captain@ship.example")

    async def held():
        raise SpoolError("on fire")

    provider.spool.held = held
    assert refused(provider, "ship.example").code == 458


@pytest.mark.parametrize(
    ("settings", "identity", "peer", "code"),
    [
        ({"who": "any"}, None, PEER, 253),
        ({"who": "authenticated"}, Identity("alice"), PEER, 253),
        ({"who": "authenticated"}, None, PEER, 459),
        ({"who": "customers", "networks": (FARM,)}, None, FARMER, 253),
        ({"who": "customers", "networks": (FARM,)}, None, PEER, 459),
    ],
)
def test_who_may_ask_for_any_node(clock, settings, identity, peer, code) -> None:
    provider = Provider(clock, **settings)
    provider.store("captain@ship.example")
    if code == 459:
        assert refused(provider, "ship.example", identity, peer).code == 459
    else:
        assert etrn(provider, "ship.example", identity, peer).code == code


def test_what_was_deferred_for_others_is_due_now(anybody, clock) -> None:
    destination = Destination(RELAY, "backup.example")
    anybody.store("x@backup.example")
    [delivery] = result(anybody.spool.claim(destination, 1))
    anybody.settlements.add(delivery, [DEAD])
    clock.turn()
    assert anybody.queued_elsewhere("backup.example") == []
    assert "1 pending" in etrn(anybody, "backup.example", None).text
    assert anybody.hurried == [destination]
    assert len(anybody.queued_elsewhere("backup.example")) == 1


def test_a_host_for_which_nothing_waits_is_251(anybody) -> None:
    assert etrn(anybody, "backup.example", None).code == 251
    assert etrn(anybody, "here.example", None).code == 251


def test_a_suffix_reaches_everything_below_but_no_top_level(anybody, clock) -> None:
    for domain in ("a.far.example", "far.example", "notfar.example"):
        anybody.store(f"x@{domain}", destination=Destination(RELAY, domain))
    assert "2 pending" in etrn(anybody, "@far.example", None).text
    assert sorted(one.name for one in anybody.hurried) == ["a.far.example", "far.example"]
    assert refused(anybody, "@example", None).code == 459


def test_a_route_that_holds_is_flushed_too(anybody, clock) -> None:
    anybody.store("x@orphan.example")
    assert "1 pending" in etrn(anybody, "orphan.example", None).text
    assert anybody.agent.runs[0].destination == held("orphan.example")


def test_a_queue_that_does_not_exist_cannot_be_started(anybody) -> None:
    assert refused(anybody, "#nobody", None).code == 458


class FakeHops:
    async def find(self, destination):
        if destination.name == "farm.example":
            raise Unroutable(DEAD)
        return (NextHop(f"mx.{destination.name}"),)


@pytest.mark.parametrize(
    ("next_hop", "hop"),
    [
        ("ship.dyn.example", NextHop("ship.dyn.example", 25)),
        ("ship.dyn.example:2525", NextHop("ship.dyn.example", 2525)),
        ("[2001:db8::1]:26", NextHop("2001:db8::1", 26)),
        (None, NextHop("mx.ship.example")),
    ],
)
def test_where_held_mail_goes(provider, next_hop, hop) -> None:
    provider.change("ship", next_hop=next_hop)
    hops = HeldHops(provider.customers, FakeHops(), Routes())
    assert result(hops.find(held("ship.example"))) == (hop,)
    assert result(hops.find(Destination(RELAY, "far.example"))) == (NextHop("mx.far.example"),)
    with pytest.raises(Unroutable):
        result(hops.find(held("farm.example")))


def test_a_customers_own_server_is_spoken_to_as_the_configuration_says_of_all(provider) -> None:
    provider.change("ship", next_hop="ship.dyn.example:2525")
    said = NextHop(
        "", 26, use_mx=True, tls="required", certificate=Path("c"), key=Path("k"), source_address="192.0.2.1"
    )
    own = replace(said, tls="verified")
    for routes, expected in (
        (Routes(default=said), said),
        (Routes([Route("ship.example", like=own)], default=said), own),
    ):
        [hop] = result(HeldHops(provider.customers, FakeHops(), routes).find(held("ship.example")))
        assert hop == replace(expected, host="ship.dyn.example", port=2525, use_mx=False)


def test_a_run_that_is_settled_is_told_in_the_history(provider, clock) -> None:
    provider.store("captain@ship.example")
    etrn(provider, "ship.example")
    clock.turn()
    end, start = provider.events(EventKind.ETRN)
    assert (end.subject, end.detail["messages"], end.detail["complete"]) == ("ship", 1, True)
    assert start.detail["node"] == "ship.example"
    assert RELAYED.text not in str(end)


def test_a_flush_ends_when_its_customer_is_gone(provider, clock) -> None:
    for _ in range(100):
        provider.store("captain@ship.example")

    async def lose_it(run):
        taken = 0
        while (delivery := await run.next()) is not None:
            run.settle(delivery, [RELAYED])
            provider.customers.known.pop("ship", None)
            taken += 1
        assert taken == 32  # what was claimed with the first

    provider.agent.act = lose_it
    etrn(provider, "ship.example")
    clock.turn()
    [end, _] = provider.events(EventKind.ETRN)
    assert (end.detail["messages"], end.detail["text"]) == (32, "the customer is gone")
    assert len(provider.waiting("ship.example")) == 68
