"""From the settings to routes: what each key means for how other servers are spoken to."""

from pathlib import Path

import pytest
from twisted.internet.task import Clock

from mailsuite.config import Settings
from mailsuite.mail.address import Address
from mailsuite.mail.route import RELAY, Destination
from mailsuite.service.agents import AgentParts, make_agents
from mailsuite.service.errors import StartError
from mailsuite.service.preflight import preflight
from mailsuite.service.routes import make_retry, make_rewriting, make_routes, use_known_srs_secret
from mailsuite.service.state import State

SMART = Destination(RELAY, "us@[smart.example]:587,us@mx:group.example")


def parse(base=Path("/srv"), **table):
    return Settings.parse({"hostname": "mx.here.example", **table}, "m.toml", base)


def routes_of(*routes, **table):
    return make_routes(parse(route=list(routes), **table))


def test_a_route_says_how_its_next_hops_are_spoken_to():
    routes = routes_of(
        {
            "domain": "*",
            "next_hop": ["smart.example:587", "mx:group.example"],
            "tls": "verified",
            "username": "us",
            "password": "p",
            "certificate": "c.pem",
            "source_address": "192.0.2.9",
        },
        relay={"port": 2525, "source_address": "192.0.2.1", "certificate": "own.pem", "key": "own.key"},
    )
    first, second = routes.next_hops(SMART)
    assert (first.host, first.port, first.use_mx, first.tls) == ("smart.example", 587, False, "verified")
    assert (second.host, second.port, second.use_mx, second.tls) == ("group.example", 2525, True, "verified")
    assert first.source_address == second.source_address == "192.0.2.9"
    assert (first.certificate, first.key) == (Path("/srv/mailsuite-data/c.pem"), None)
    plain = routes_of({"domain": "*", "next_hop": "a.example"}, relay={"tls": "required", "certificate": "own.pem"})
    [hop] = plain.next_hops(Destination(RELAY, "[a.example]:25"))
    assert (hop.port, hop.tls, hop.certificate) == (25, "required", Path("/srv/mailsuite-data/own.pem"))


def test_implicit_tls_has_its_port():
    [hop] = routes_of({"next_hop": "a.example", "tls": "implicit"}).next_hops(Destination(RELAY, "[a.example]:465"))
    assert (hop.port, hop.tls) == (465, "implicit")


def test_a_route_without_a_next_hop_is_about_the_hosts_of_the_mx():
    routes = routes_of({"domain": "a.example", "tls": "dane"}, {"domain": "b.example", "rate": "60/m"})
    assert (routes.like("a.example").tls, routes.like("b.example").tls) == ("dane", "opportunistic")
    assert routes.pacing(Destination(RELAY, "b.example")).rate == 1.0
    assert routes.pacing(Destination(RELAY, "a.example")).rate is None


def test_times_and_pace_come_from_the_route_or_from_all():
    routes = routes_of(
        {"domain": "a.example", "schedule": ["1m", "1h"], "expire": "2h", "delay_report": 0, "concurrency": 1},
        retry={"schedule": ["5m"], "delay_report": "1h", "greylisted": "10s"},
        relay={"concurrency": 7, "rate": "10/s"},
    )
    own, other = routes.retry(Destination(RELAY, "a.example")), routes.retry(Destination(RELAY, "b.example"))
    assert (own.waits, own.lifetime, own.delay_report, own.greylisted) == ((60.0, 3600.0), 7200.0, 0.0, 10.0)
    assert own.bounce_lifetime == 7200.0
    assert (other.waits, other.lifetime, other.delay_report) == ((300.0,), 5 * 86400.0, 3600.0)
    assert other == make_retry(parse(retry={"schedule": ["5m"], "delay_report": "1h", "greylisted": "10s"}))
    pace = routes.pacing(Destination(RELAY, "a.example"))
    assert (pace.first, pace.most, pace.rate) == (1, 1, 10.0)
    assert routes.pacing(Destination(RELAY, "b.example")).most == 7


def test_next_hops_with_different_settings_are_told():
    with pytest.raises(StartError, match="two routes lead to"):
        routes_of({"domain": "a.example", "next_hop": "x"}, {"domain": "b.example", "next_hop": "x", "tls": "required"})


def test_senders_are_rewritten_by_a_secret_that_stays(tmp_path):
    settings = parse(tmp_path, forwarding={"srs_domain": "here.example"})
    bob, known = Address("a", "b.example"), make_rewriting(settings, lambda: 0.0)
    use_known_srs_secret(settings, known)
    assert known.forward(bob) == bob
    made = State.prepare(settings, lambda: 0.0, None).srs_secret
    assert len(made) == 64
    assert State.prepare(settings, lambda: 0.0, None).srs_secret == made
    use_known_srs_secret(settings, known)
    assert (settings.data_directory / "srs.key").stat().st_mode & 0o777 == 0o600
    rewriting = make_rewriting(settings, lambda: 0.0)
    rewriting.use(made)
    assert rewriting.forward(bob).domain == "here.example"
    assert known.forward(bob) == rewriting.forward(bob)


def test_a_secret_of_the_operators_is_read_from_its_file(tmp_path):
    settings = parse(tmp_path, forwarding={"srs_domain": "here.example", "srs_secret_file": "srs.secret"})
    with pytest.raises(StartError, match=r"forwarding\.srs_secret_file"):
        State.prepare(settings, lambda: 0.0, None)
    (settings.data_directory / "srs.secret").write_text("twenty letters of chance\nmore\n")
    assert State.prepare(settings, lambda: 0.0, None).srs_secret == "twenty letters of chance"


@pytest.mark.parametrize("secret", ["x", "nineteen letters ..", ""])
def test_a_secret_that_could_be_found_out_is_refused(tmp_path, secret):
    settings = parse(tmp_path, forwarding={"srs_domain": "here.example", "srs_secret_file": "srs.secret"})
    settings.data_directory.mkdir()
    (settings.data_directory / "srs.secret").write_text(f"{secret}\n")
    for look in (lambda: State.prepare(settings, lambda: 0.0, None), lambda: preflight(settings)):
        with pytest.raises(StartError, match=r"forwarding\.srs_secret_file: "):
            look()
    rewriting = make_rewriting(settings, lambda: 0.0)
    use_known_srs_secret(settings, rewriting)
    assert rewriting.forward(Address("a", "b.example")).domain == "b.example"


def test_a_secret_of_our_own_that_was_lost_is_told(tmp_path):
    settings = parse(tmp_path, forwarding={"srs_domain": "here.example"})
    settings.data_directory.mkdir(exist_ok=True)
    (settings.data_directory / "srs.key").touch()
    with pytest.raises(StartError, match=r"srs\.key: the secret has 0 characters"):
        State.prepare(settings, lambda: 0.0, None)


def test_without_a_domain_nothing_is_rewritten(tmp_path):
    settings = parse(tmp_path)
    assert make_rewriting(settings, lambda: 0.0) is None
    assert State.prepare(settings, lambda: 0.0, None).srs_secret is None


def agents_of(*agents):
    settings = parse(agent=list(agents))
    return make_agents(settings, AgentParts(settings, Clock(), None))


def test_agents_have_the_names_of_their_tables():
    cat = {"command": ["/bin/cat"], "concurrency": 3}
    agents = agents_of(
        {"name": "one", "type": "pipe", "options": cat},
        {"name": "two", "type": "pipe", "options": {"command": ["/bin/true"]}},
        {"name": "nowhere", "type": "discard"},
    )
    assert [agent.name for agent in agents] == ["maildir", "one", "two", "nowhere"]
    assert [agent.concurrency for agent in agents[1:]] == [3, 2, 1]


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        ({"name": "x", "type": "pip"}, r"agent\[0\]\.type = 'pip': there is no such delivery agent"),
        ({"name": "x", "type": "pipe"}, r"agent\[0\]\.options: command: it names no program"),
        ({"name": "x", "type": "discard", "options": {"a": 1}}, "there is no such option; discard knows none"),
    ],
)
def test_a_wrong_agent_is_told(table, complaint):
    with pytest.raises(StartError, match=complaint):
        agents_of(table)
