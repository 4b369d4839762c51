"""`doctor`: both chains in order, and with each link broken once: the first wrong thing ends the walk."""

import json
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography import x509

from mailsuite.admin.command import root
from mailsuite.admin.doctor.customer import CustomerWalk
from mailsuite.admin.doctor.findings import Finding, Verdict, Walk, Wrong, split
from mailsuite.admin.doctor.judging import Fault, faults_of
from mailsuite.admin.doctor.provider import ProviderWalk
from mailsuite.admin.doctor.site import KnownCustomer
from mailsuite.admin.doctor.visit import Reached, Seen
from mailsuite.config import Settings
from mailsuite.interfaces import DirectoryUnavailable, SpoolError
from mailsuite.mail.customer import Customer, RecipientRule
from mailsuite.mail.queue import HeldMail
from mailsuite.mail.reply import Reply
from mailsuite.net.resolver import MX, NULL_MX, DnsFailure
from mailsuite.session.pulling import PullEnd, PullResult, PullStage
from mailsuite.wire.smtp.capabilities import Capabilities
from tests.peers.certificate import self_signed
from tests.session.scripted import finish

HOST = "odmr.provider.net"
NOW = datetime.now(UTC).timestamp()
DAY = 86400.0

PROVIDER = {
    "hostname": HOST,
    "listen": [
        {"endpoint": "tcp:25:interface=192.0.2.25"},
        {"endpoint": "tcp6:366", "service": "odmr"},
        {"endpoint": "tcp:587", "service": "submission"},
    ],
}
PULL = {"name": "main", "provider": HOST, "username": "home", "password": "s3cret", "push": "before"}
ROUTE = {"domain": "*", "next_hop": f"{HOST}:587", "tls": "verified", "username": "home", "password": "s3cret"}
CUSTOMER = {"hostname": "mail.home.org", "pull": [PULL], "route": [ROUTE]}
OFFER = Capabilities.of_reply(Reply(250, None, (HOST, "AUTH CRAM-MD5", "ATRN", "STARTTLS")))


@dataclass
class Site:
    """What lies on the disk; an exception in the place of a value is raised."""

    known: object = field(default_factory=lambda: [known("home", "home.org")])
    local: object = frozenset({"home.org"})
    mail: object = ()

    def customers(self):
        return given(self.known)

    def domains(self):
        return given(self.local)

    def held(self):
        return given(self.mail)


class Network:
    """The world; `seen` is by port, where it is not `good`."""

    def __init__(self, good: Seen, **other) -> None:
        self._good = good
        self.seen = other.get("seen", {})
        self.hosts = {HOST: ["192.0.2.25"], **other.get("hosts", {})}
        self.records = {"home.org": [MX(10, HOST)], **other.get("records", {})}
        self.end = other.get("end", PullEnd(PullStage.ASKING, PullResult.CHECKED, "the login works"))
        self.visited = []

    async def addresses(self, host):
        return given(self.hosts.get(host, DnsFailure(host, "no such domain", temporary=False)))

    async def mx(self, domain):
        return given(self.records.get(domain, DnsFailure(domain, "no such domain", temporary=False)))

    async def visit(self, place):
        self.visited.append(place)
        return self.seen.get(place.port, self._good)

    async def dry_run(self, plan):
        return self.end


def given(value):
    if isinstance(value, Exception):
        raise value
    return value


def known(name, *domains, has_password=True, is_configured=False, **terms):
    return KnownCustomer(Customer(name, domains, **terms), has_password, is_configured)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """One for HOST that an authority might have made, valid for a month."""
    return make_certificate(tmp_path_factory.mktemp("certificate"))


def make_certificate(directory, hostname=HOST, days=30, *, by_itself=False):
    """A certificate as `faults_of` looks at it."""
    made = x509.load_pem_x509_certificate(self_signed(directory, hostname).chain.read_bytes())
    return Shown(made, made.not_valid_after_utc + timedelta(days=days - 1), by_itself=by_itself)


class Shown:
    """A certificate with another end and another issuer."""

    def __init__(self, made, until, *, by_itself) -> None:
        self._made = made
        self.not_valid_after_utc = until
        self.subject = made.subject
        self.issuer = made.issuer if by_itself else x509.Name([])

    def __getattr__(self, name):
        return getattr(self._made, name)


@pytest.fixture
def good(certificate):
    """A visit as it should be."""
    return Seen(
        Reached.DONE,
        greeting=f"220 {HOST} ESMTP",
        plain=OFFER,
        secure=OFFER,
        protocol="TLSv1.3",
        certificate=certificate,
    )


@pytest.fixture
def walk(tmp_path, good):
    """Walk a chain to its end; tells the findings, the last of which may be what is wrong."""

    def walk(kind, table, site=None, **other):
        settings = Settings.parse(table, "m.toml", tmp_path)
        settings.data_directory.mkdir(exist_ok=True)
        findings: list[Finding] = []
        network = other.pop("network", None) or Network(good, **other)
        chain = kind(settings, "m.toml", Walk(findings.append), site or Site(), network, now=NOW)
        try:
            finish(chain.run())
        except Wrong as wrong:
            findings.append(wrong.finding)
        assert all(one.verdict is not Verdict.WRONG for one in findings[:-1])
        return findings

    return walk


def expect_wrong(findings, step, *parts):
    """The last finding is what is wrong, in one sentence, with its cure."""
    last = findings[-1]
    assert (last.verdict, last.step) == (Verdict.WRONG, step), findings
    assert last.cure
    assert "\n" not in str(last)
    for part in parts:
        assert part in str(last)


def expect_warning(findings, step, *parts):
    """Nothing is wrong, and this is the one thing that is not as it should be."""
    [warning] = [one for one in findings if one.verdict is not Verdict.OK]
    assert (warning.verdict, warning.step) == (Verdict.WARNING, step)
    assert warning.cure
    for part in parts:
        assert part in str(warning)


def steps(findings):
    return [one.step for one in findings]


# ------------------------------------------------------------------------------------------- the provider


def test_provider_in_order_is_told_step_by_step(walk):
    findings = walk(ProviderWalk, PROVIDER)
    assert {one.verdict for one in findings} == {Verdict.OK}
    assert steps(findings) == [
        "configuration",
        "data",
        "customers",
        "odmr port",
        "odmr EHLO",
        "odmr TLS",
        "smtp port",
        "smtp TLS",
        "certificate",
        "MX",
        "held mail",
    ]


def test_data_directory_that_is_not_there_is_wrong(walk, tmp_path, good):
    settings = Settings.parse({**PROVIDER, "data_directory": "nowhere"}, "m.toml", tmp_path)
    chain = ProviderWalk(settings, "m.toml", Walk(print), Site(), Network(good), now=NOW)
    with pytest.raises(Wrong, match="nowhere does not exist; make it"):
        finish(chain.run())


def test_listeners_are_knocked_at_where_they_can_be_reached(walk, good):
    listen = [
        {"endpoint": "tcp6:366", "service": "odmr"},
        {"endpoint": "tcp:367:interface=0.0.0.0", "service": "odmr", "tls": "implicit"},
        {"endpoint": "tcp:368:interface=192.0.2.7", "service": "submission", "atrn": True},
        {"endpoint": "unix:/run/mail.sock"},
    ]
    network = Network(good)
    walk(ProviderWalk, {**PROVIDER, "listen": listen}, network=network)
    assert [(str(place), place.implicit) for place in network.visited] == [
        ("::1 port 366", False),
        ("127.0.0.1 port 367", True),
        ("192.0.2.7 port 368", False),
        ("/run/mail.sock", False),
    ]


@pytest.mark.parametrize(
    ("change", "site", "step", "parts"),
    [
        ({"route": [{**ROUTE, "password": "x"}, {**ROUTE, "domain": "a"}][::-1]}, {}, "configuration", ["two routes"]),
        ({}, {"known": DirectoryUnavailable("accounts.db is locked")}, "accounts", ["accounts.db is locked"]),
        ({}, {"known": []}, "customers", ["there are none", "customer add"]),
        ({}, {"known": [known("a", "a.org", has_password=False)]}, "customers", ["a cannot log in", "passwd a"]),
        (
            {},
            {"known": [known("a", "a.org", has_password=False, is_configured=True)]},
            "customers",
            ["a cannot log in", "password_file"],
        ),
        (
            {},
            {"known": [known("a", "a.org", has_password=False, certificate="mail.a.org")]},
            "customers",
            ["certificate only", "tls.client_ca"],
        ),
        (
            {},
            {"known": [known("a", "a.org", recipients=RecipientRule.COMMAND, recipients_command=("/nowhere/it",))]},
            "customers",
            ["a: the command that knows its recipients cannot run: there is no program '/nowhere/it'"],
        ),
        (
            {},
            {"known": DirectoryUnavailable("two have it; take it from one")},
            "accounts",
            ["two have it; take it from one"],
        ),
        ({"listen": PROVIDER["listen"][:1]}, {}, "listeners", ["on-demand mail relay", "tcp6:366"]),
        ({}, {"mail": SpoolError("queue.db cannot be read")}, "held mail", ["queue.db cannot be read"]),
    ],
)
def test_what_is_wrong_at_the_provider_itself(walk, change, site, step, parts):
    expect_wrong(walk(ProviderWalk, {**PROVIDER, **change}, Site(**site)), step, *parts)


@pytest.mark.parametrize(
    ("seen", "step", "parts"),
    [
        ({"reached": Reached.NOWHERE, "trouble": "::1: connection refused"}, "odmr port", ["refused", "twistd"]),
        ({"reached": Reached.CONNECTED, "trouble": "421 full"}, "odmr port", ["421 full"]),
        ({"reached": Reached.HEARD, "trouble": "the TLS handshake has failed"}, "odmr TLS", ["handshake", "[tls]"]),
        ({"reached": Reached.SECURED, "trouble": "it refuses EHLO: 500"}, "odmr EHLO", ["500"]),
        ({"plain": None, "secure": Capabilities()}, "odmr EHLO", ["AUTH and ATRN", "restart"]),
    ],
)
def test_what_is_wrong_with_a_listener_of_the_provider(walk, good, seen, step, parts):
    expect_wrong(walk(ProviderWalk, PROVIDER, seen={366: replace(good, **seen)}), step, *parts)


def test_listener_for_incoming_mail_is_visited_too(walk, good):
    refused = replace(good, reached=Reached.NOWHERE, trouble="192.0.2.25 port 25: connection refused")
    findings = walk(ProviderWalk, PROVIDER, seen={25: refused})
    expect_wrong(findings, "smtp port", "192.0.2.25 port 25: connection refused")


def test_provider_without_a_listener_for_incoming_mail_is_warned(walk):
    expect_warning(walk(ProviderWalk, {**PROVIDER, "listen": PROVIDER["listen"][1:]}), "listeners", "tcp6:25")


def test_port_of_systemd_is_guessed(walk, good):
    listen = [{"endpoint": "systemd:domain=INET6:index=0", "service": "odmr"}, PROVIDER["listen"][0]]
    settings = {**PROVIDER, "listen": listen}
    assert {one.verdict for one in walk(ProviderWalk, settings)} == {Verdict.OK}
    refused = replace(good, reached=Reached.NOWHERE, trouble="refused")
    expect_warning(walk(ProviderWalk, settings, seen={366: refused}), "odmr port", "127.0.0.1 port 366")


@pytest.mark.parametrize(
    ("made", "parts"),
    [
        ({"hostname": "other.net"}, [f"it is not for {HOST}, but for other.net", "self-signed"]),
        ({"days": -3}, ["it has expired on 2", "self-signed"]),
    ],
)
def test_certificate_that_does_not_do_is_wrong(walk, good, tmp_path, made, parts):
    shown = replace(good, certificate=make_certificate(tmp_path, **made))
    expect_wrong(walk(ProviderWalk, PROVIDER, seen={366: shown}), "certificate", *parts)


@pytest.mark.parametrize(
    ("made", "parts"),
    [({"by_itself": True}, ["signed by itself", '"required"']), ({"days": 5}, ["it expires on", "renew"])],
)
def test_certificate_that_is_not_good_is_a_warning(walk, good, tmp_path, made, parts):
    shown = replace(good, certificate=make_certificate(tmp_path, **made))
    expect_warning(walk(ProviderWalk, PROVIDER, seen={366: shown}), "certificate", *parts)


@pytest.mark.parametrize(
    ("records", "part"),
    [
        ({"home.org": DnsFailure("home.org", "no such domain", temporary=False)}, "home.org: no such domain"),
        ({"home.org": [NULL_MX]}, "takes no mail"),
        ({"home.org": [MX(10, "mx.elsewhere.net")]}, f"leads to mx.elsewhere.net, and not to {HOST}"),
    ],
)
def test_mx_that_leads_elsewhere_is_wrong(walk, records, part):
    expect_wrong(walk(ProviderWalk, PROVIDER, records=records), "MX", part, f"home.org. MX 10 {HOST}.")


@pytest.mark.parametrize("address", ["192.0.2.25", "192.0.2.80"])
def test_mx_by_another_name_may_lead_here(walk, address):
    hosts = {"mx.home.org": [address], HOST: ["192.0.2.80"]}  # by a listener's address, or by that of our name
    findings = walk(ProviderWalk, PROVIDER, hosts=hosts, records={"home.org": [MX(10, "mx.home.org")]})
    assert findings[-2] == Finding("MX", Verdict.OK, "home.org leads here, by mx.home.org")


def test_dns_that_does_not_answer_is_a_warning(walk):
    silent = DnsFailure("home.org", "no answer from the name servers", temporary=True)
    expect_warning(walk(ProviderWalk, PROVIDER, records={"home.org": silent}), "MX", "cannot be asked")


def test_domain_for_trials_is_not_asked_for(walk):
    site = Site([known("home", "home.example")])
    expect_warning(walk(ProviderWalk, PROVIDER, site), "MX", "home.example", "trials")


def test_mail_near_its_end_is_a_warning(walk):
    held = [HeldMail("home.org", 3, 100, NOW - 20 * DAY), HeldMail("nobody.org", 1, 1, 0.0)]
    expect_warning(walk(ProviderWalk, PROVIDER, Site(mail=held)), "held mail", "home", "20 days", "in 1 day")
    fresh = walk(ProviderWalk, PROVIDER, Site(mail=[HeldMail("home.org", 3, 100, NOW - DAY)]))
    assert fresh[-1] == Finding("held mail", Verdict.OK, "3 messages")


# ------------------------------------------------------------------------------------------- the customer


def test_customer_in_order_is_told_step_by_step(walk, good):
    network = Network(good)
    findings = walk(CustomerWalk, CUSTOMER, network=network)
    assert {one.verdict for one in findings} == {Verdict.OK}
    assert steps(findings) == [
        "configuration",
        "passwords",
        "DNS",
        "connection",
        "greeting",
        "EHLO",
        "TLS",
        "certificate",
        "login",
        "ATRN",
        "domains",
        "smarthost",
    ]
    assert [(place.port, place.tls, place.username) for place in network.visited] == [
        (366, "verified", None),
        (587, "verified", "home"),
    ]
    assert "s3cret" not in str(network.visited)


@pytest.mark.parametrize(
    ("change", "step", "parts"),
    [
        ({"pull": []}, "configuration", ["no pulls", "[[pull]]"]),
        (
            {
                "pull": [
                    {key: value for key, value in PULL.items() if key != "password"} | {"password_file": "/dev/null"}
                ]
            },
            "passwords",
            ["pull main: the first line of password_file /dev/null is empty"],
        ),
        (
            {"pull": [{key: value for key, value in PULL.items() if key != "password"} | {"password_file": "nowhere"}]},
            "passwords",
            ["nowhere cannot be read", "first line"],
        ),
        ({"route": [{**ROUTE, "password": "x"}, {**ROUTE, "domain": "a"}][::-1]}, "configuration", ["two routes"]),
        ({"pull": [{**PULL, "provider": "odmr.nowhere.net"}]}, "DNS", ["no such domain", "pull main"]),
        ({"pull": [{**PULL, "domains": ["shed.org"]}]}, "domains", ["shed.org", "domain add shed.org"]),
        ({"route": []}, "smarthost", ["pull main pushes", HOST]),
    ],
)
def test_what_is_wrong_at_the_customer_itself(walk, change, step, parts):
    expect_wrong(walk(CustomerWalk, {**CUSTOMER, **change}), step, *parts)


@pytest.mark.parametrize(
    ("site", "step", "part"),
    [
        ({"local": frozenset()}, "domains", "domain add"),
        ({"local": DirectoryUnavailable("accounts.db is locked")}, "accounts", "accounts.db is locked"),
    ],
)
def test_customer_without_domains_is_wrong(walk, site, step, part):
    # The route of all others leads back to the provider: it makes no domain ours.
    expect_wrong(walk(CustomerWalk, CUSTOMER, Site(**site)), step, part)


def test_domain_that_has_a_route_of_its_own_is_here(walk):
    routes = [{"domain": "shed.org", "next_hop": "shed.home.org"}, ROUTE]
    settings = {**CUSTOMER, "pull": [{**PULL, "domains": ["shed.org"]}], "route": routes}
    assert Finding("domains", Verdict.OK, "shed.org") in walk(CustomerWalk, settings)


def test_customer_whose_domains_are_all_routed_is_told_that_none_is_local(walk):
    settings = {**CUSTOMER, "route": [{"domain": "shed.org", "next_hop": "shed.home.org"}, ROUTE]}
    warned = [one for one in walk(CustomerWalk, settings, Site(local=frozenset())) if one.step == "domains"]
    assert [one.verdict for one in warned] == [Verdict.WARNING]
    assert "none is local here" in warned[0].text


def test_mail_is_pushed_to_a_host_of_another_name(walk):
    push = {**PULL, "push_host": "SMTP.provider.net"}
    hosts = {"smtp.provider.net": ["192.0.2.26"]}
    settings = {**CUSTOMER, "pull": [push], "route": [{**ROUTE, "next_hop": "smtp.provider.net:587"}]}
    assert steps(walk(CustomerWalk, settings, hosts=hosts))[-1] == "smarthost"
    expect_wrong(walk(CustomerWalk, {**CUSTOMER, "pull": [push]}), "smarthost", "no [[route]]", "SMTP.provider.net")


def test_dns_that_does_not_answer_stops_the_customer(walk):
    silent = DnsFailure(HOST, "no answer from the name servers", temporary=True)
    expect_wrong(walk(CustomerWalk, CUSTOMER, hosts={HOST: silent}), "DNS", "no answer", "network is up")


@pytest.mark.parametrize(
    ("seen", "step", "parts"),
    [
        ({"reached": Reached.NOWHERE, "trouble": "connection refused"}, "connection", ["refused", "firewall"]),
        ({"reached": Reached.CONNECTED, "trouble": "it does not serve us: 554"}, "greeting", ["554"]),
        ({"reached": Reached.GREETED, "trouble": "it refuses EHLO: 500"}, "EHLO", ["500"]),
        ({"plain": Capabilities(), "secure": Capabilities()}, "EHLO", ["does not offer ATRN", "366"]),
        (
            {"reached": Reached.HEARD, "trouble": "the certificate has expired", "secure": None},
            "TLS",
            ["has expired", "clock"],
        ),
        (
            {"reached": Reached.HEARD, "trouble": f"the certificate is not for {HOST}", "secure": None},
            "TLS",
            ["not for", "as its certificate names it"],
        ),
        (
            {"reached": Reached.HEARD, "trouble": "the certificate is signed by itself", "secure": None},
            "TLS",
            ["signed by itself", "relay.ca_file"],
        ),
        (
            {
                "reached": Reached.HEARD,
                "trouble": "it does not offer STARTTLS",
                "plain": Capabilities.of_reply(Reply(250, None, (HOST, "ATRN"))),
            },
            "TLS",
            ["STARTTLS", "implicit"],
        ),
    ],
)
def test_what_is_wrong_with_the_line_to_the_provider(walk, good, seen, step, parts):
    expect_wrong(walk(CustomerWalk, CUSTOMER, seen={366: replace(good, **seen)}), step, *parts)


def test_port_that_speaks_starttls_is_told_of(walk, good):
    settings = {**CUSTOMER, "pull": [{**PULL, "tls": "implicit"}]}
    network = Network(good)
    visit = network.visit

    async def visit_one(place):
        seen = await visit(place)
        return Seen(trouble="wrong version number") if place.implicit else seen

    network.visit = visit_one
    findings = walk(CustomerWalk, settings, network=network)
    expect_wrong(findings, "TLS", "from the first octet", 'the port speaks STARTTLS: set tls = "verified" in pull main')
    assert [(place.implicit, place.tls, place.username) for place in network.visited] == [
        (True, "implicit", None),
        (False, "none", None),
    ]


def test_port_that_waits_for_tls_is_told_of(walk, good):
    network = Network(good)
    visit = network.visit

    async def visit_one(place):
        seen = await visit(place)
        return seen if place.implicit else Seen(Reached.CONNECTED, "the peer is too slow")

    network.visit = visit_one
    findings = walk(CustomerWalk, CUSTOMER, network=network)
    expect_wrong(findings, "greeting", "too slow", 'TLS from the first octet: set tls = "implicit" in pull main')


def test_certificate_under_implicit_tls_is_named(walk, good):
    settings = {**CUSTOMER, "pull": [{**PULL, "tls": "implicit"}]}
    unknown = Seen(trouble="192.0.2.25 port 366: the certificate's issuer is not known")
    expect_wrong(walk(CustomerWalk, settings, seen={366: unknown}), "TLS", "issuer", "relay.ca_file")


def test_certificate_that_nobody_looks_at_is_a_warning(walk, good, tmp_path):
    settings = {**CUSTOMER, "pull": [{**PULL, "tls": "required"}]}
    shown = replace(good, certificate=make_certificate(tmp_path, by_itself=True))
    expect_warning(walk(CustomerWalk, settings, seen={366: shown}), "certificate", "signed by itself", "verified")


@pytest.mark.parametrize(
    ("end", "step", "parts"),
    [
        (
            (PullStage.AUTH, PullResult.DENIED, "our credentials were refused"),
            "login",
            ["refused", "whether home is the customer's name there", "customer passwd NAME"],
        ),
        ((PullStage.AUTH, PullResult.TEMPORARY, "454 later"), "login", ["454", "try again later"]),
        ((PullStage.ASKING, PullResult.UNAVAILABLE, "it does not offer ATRN"), "ATRN", ["ask the provider"]),
    ],
)
def test_what_is_wrong_with_the_login(walk, end, step, parts):
    expect_wrong(walk(CustomerWalk, CUSTOMER, end=PullEnd(*end)), step, *parts)


@pytest.mark.parametrize(
    ("seen", "parts"),
    [
        (Seen(trouble="connection refused"), ["connection refused", "next_hop"]),
        (Seen(Reached.HEARD, "the certificate has expired"), ["expired", "clock"]),
        (Seen(Reached.SECURED, "refused", Reply.make(535, "5.7.8", "no")), ["refused", "password of the [[route]]"]),
        (Seen(Reached.CONNECTED, "it does not serve us: 421"), ["421", "try again later"]),
    ],
)
def test_what_is_wrong_with_the_smarthost(walk, seen, parts):
    expect_wrong(walk(CustomerWalk, CUSTOMER, seen={587: seen}), "smarthost", *parts)


def test_smarthost_is_left_alone_where_nothing_is_pushed(walk):
    settings = {**CUSTOMER, "pull": [{**PULL, "push": "none"}], "route": []}
    assert steps(walk(CustomerWalk, settings))[-1] == "domains"


def test_etrn_needs_a_listener(walk, good):
    offer = Capabilities.of_reply(Reply(250, None, (HOST, "ETRN", "STARTTLS")))
    etrn = {"name": "main", "provider": HOST, "method": "etrn", "domains": ["home.org"]}
    seen = {25: replace(good, plain=offer, secure=offer)}
    settings = {**CUSTOMER, "pull": [etrn], "listen": [{"endpoint": "tcp:587", "service": "submission"}]}
    expect_wrong(walk(CustomerWalk, settings, seen=seen), "listeners", "ETRN", "tcp6:25")
    settings["listen"] = [{"endpoint": "tcp6:25"}]
    assert "ETRN" in steps(walk(CustomerWalk, settings, seen=seen))


# ------------------------------------------------------------------------------------------- small parts


@pytest.mark.parametrize(
    ("made", "host", "faults"),
    [
        ({}, HOST, []),
        ({}, "127.0.0.1", []),
        ({}, "127.0.0.2", [Fault.OTHER_NAME]),
        ({"days": -2, "by_itself": True}, "a.net", [Fault.EXPIRED, Fault.OTHER_NAME, Fault.SELF_SIGNED]),
    ],
)
def test_faults_of_a_certificate_come_worst_first(tmp_path, made, host, faults):
    assert list(faults_of(make_certificate(tmp_path, **made), host, NOW)) == faults


def test_certificate_of_tomorrow_is_not_valid_yet(tmp_path):
    assert Fault.NOT_YET in faults_of(make_certificate(tmp_path), HOST, NOW - DAY)


def test_sentence_with_its_own_cure_gets_no_other(walk):
    site = Site(DirectoryUnavailable("two have it; take it from one"))
    assert walk(ProviderWalk, PROVIDER, site)[-1].cure == "take it from one"
    site = Site(DirectoryUnavailable("accounts.db cannot be read"))
    assert "run this as the user who serves" in walk(ProviderWalk, PROVIDER, site)[-1].cure


def test_defaults_have_no_pulls(walk):
    [finding] = walk(CustomerWalk, {})
    assert str(finding).startswith("there are no pulls in m.toml; add a [[pull]] table for each provider, or name")


def test_sentence_is_split_at_its_cure():
    assert split("a is wrong; b helps; do c") == ("a is wrong; b helps", "do c")
    assert split("a is wrong")[0] == "a is wrong"


# --------------------------------------------------------------------------------------------- the command


def doctor(config: Path, *arguments):
    return CliRunner().invoke(root, ["--config", str(config), "doctor", *arguments])


@pytest.mark.parametrize("side", ["provider", "customer"])
def test_wrong_configuration_is_the_first_finding(tmp_path, side):
    config = tmp_path / "m.toml"
    config.write_text('hostname = "two words"\nzebra = 1\n')
    result = doctor(config, side, "--json")
    assert result.exit_code == 1
    [finding] = json.loads(result.stdout)
    assert (finding["step"], finding["verdict"]) == ("configuration", "wrong")
    assert finding["text"].startswith(f"{config}: hostname = 'two words'")
    result = doctor(config, side)
    assert result.exit_code == 1
    assert result.stdout.startswith(f"wrong    configuration    {config}: hostname")
    assert result.stdout.count("\n") == 1
