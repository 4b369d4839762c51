"""The settings: what a user can get wrong is told in one sentence, and the files in etc/ and docs/ tell the truth."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from mailsuite.admin.reference import reference
from mailsuite.config import Settings, SettingsError, split_host_port

ROOT = Path(__file__).parent.parent
PULL = {"name": "x", "provider": "odmr.example", "username": "u", "password": "p"}
AGENT = {"name": "x", "type": "discard"}


def parse(**table):
    return Settings.parse(table, "m.toml", Path("/srv"))


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ({"hostnam": "a.example"}, "m.toml: hostnam: there is no such key; did you mean hostname?"),
        ({"zebra": 1}, "m.toml: zebra: there is no such key; take it out."),
        (
            {"listen": [{"endpoint": "tcp:1", "servce": "smtp"}]},
            "m.toml: listen[0].servce: there is no such key; did you mean service?",
        ),
        ({"listen": [{}]}, "m.toml: listen[0].endpoint: it is missing; add it."),
        (
            {"limits": {"message_size": "5 parsecs"}},
            "m.toml: limits.message_size = '5 parsecs': give octets as a number",
        ),
        ({"retry": {"first": "soon"}}, "m.toml: retry.first = 'soon': give seconds as a number"),
        ({"limits": {"errors": 0}}, "m.toml: limits.errors = 0: input should be greater than or equal to 1"),
        (
            {"hostname": "not a host"},
            "m.toml: hostname = 'not a host': it is not a domain name; write it as in example.org.",
        ),
        ({"hostname": 3}, "m.toml: hostname = 3: input should be a valid string"),
        ({"accounts": {"postmaster": "admin"}}, "m.toml: accounts.postmaster = 'admin': it is not an address"),
        ({"route": [{"domain": "*"}]}, "m.toml: route[0]: say either `next_hop`, `agent` or `hold = true`."),
        ({"route": [{"domain": "*", "next_hop": "a:0"}]}, "m.toml: route[0].next_hop = 'a:0': it is not a host"),
        (
            {"route": [{"domain": "*", "next_hop": "a", "username": "u", "tls": "required"}]},
            "m.toml: route[0].username: it needs a password",
        ),
        (
            {"route": [{"domain": "*", "next_hop": "a", "username": "u", "password": "p"}]},
            "m.toml: route[0].tls: credentials go over TLS only",
        ),
        ({"tls": {"key": "k.pem"}}, "m.toml: tls.key: there is no tls.certificate to go with it"),
        (
            {"listen": [{"endpoint": "tcp:1", "service": "submission", "tls": "none"}]},
            "m.toml: listen[0].tls: submission needs TLS",
        ),
        (
            {"route": {"domain": "*", "next_hop": "a"}},
            "m.toml: route: there may be several of it; write its head in double brackets, [[route]].",
        ),
        (
            {"route": [{"domain": "*", "next_hop": "a"}, {"domain": "b.example", "hold": True}]},
            "m.toml: route[1]: it is never reached; put it before the route for '*'.",
        ),
        (
            {"route": [{"domain": "b.example", "next_hop": "a", "hold": True, "relay": True}]},
            "m.toml: route[0]: say either `next_hop`, `agent` or `hold = true`.",
        ),
        (
            {"route": [{"domain": "*", "next_hop": "a", "password": "p"}]},
            "m.toml: route[0].username: there is a password without it",
        ),
        (
            {"listen": [{"endpoint": "tcp:1", "trusted": ["10.0.0.1/8"]}]},
            "m.toml: listen[0].trusted[0] = '10.0.0.1/8': 10.0.0.1/8 has host bits set; write a network as in",
        ),
        ({"relay": {"resolver": "a b"}}, "m.toml: relay.resolver = 'a b': it is not a host"),
        ({"relay": {"resolver": "dns.example"}}, "m.toml: relay.resolver = 'dns.example': it is not an IP address"),
        ({"relay": {"source_address": "eth0"}}, "m.toml: relay.source_address = 'eth0': it is not an IP address"),
        (
            {"customer": [{"name": "x", "domains": ["x.example"], "hold_time": "5d", "warning_time": "6d"}]},
            "m.toml: customer[0].warning_time: it is longer than hold_time; make it shorter than that, or 0",
        ),
        (
            {"customer": [{"name": "x", "domains": ["x.example"], "hold_time": "2d", "contact": "me@x.example"}]},
            "m.toml: customer[0].warning_time: it is longer than hold_time; make it shorter than that, or 0",
        ),
        (
            {"customer": [{"name": "x", "domains": "o.example"}]},
            'm.toml: customer[0].domains: write a list, as in ["o.example"].',
        ),
        ({"pull": [{"name": "x", "provider": "y", "times": 5}]}, "m.toml: pull[0].times: write a list, as in [...]."),
        (
            {"listen": [{"endpoint": "tcp:1", "trusted": "::1"}]},
            'm.toml: listen[0].trusted: write a list, as in ["::1"].',
        ),
        ({"customer": [{"name": "x", "domains": []}]}, "m.toml: customer[0].domains: name at least one."),
        (
            {"customer": [{"name": "x", "domains": ["x.example", "X.example"]}]},
            "m.toml: customer[0].domains: x.example stands there twice; name it once.",
        ),
        (
            {"customer": [{"name": "x", "domains": ["x.example"], "hold_time": "59m"}]},
            "m.toml: customer[0].hold_time = '59m': it is less than an hour, and nobody would get the mail; give more",
        ),
        (
            {"pull": [{**PULL, "domains": ["a.example", "a.example"]}]},
            "m.toml: pull[0].domains: a.example stands there",
        ),
        (
            {"pull": [{**PULL, "password_file": "p"}]},
            "m.toml: pull[0].password: it stands beside password_file; keep one",
        ),
        ({"pull": [{**PULL, "password": ""}]}, "m.toml: pull[0].password: it is empty; write the password there"),
        ({"pull": [{"name": "x", "provider": "y", "username": "u"}]}, "m.toml: pull[0].username: it needs a password"),
        ({"relay": {"rate": "fast"}}, "m.toml: relay.rate = 'fast': give messages and a time, as in"),
        ({"relay": {"rate": "0/s"}}, "m.toml: relay.rate = '0/s': give messages and a time, as in"),
        ({"relay": {"key": "k"}}, "m.toml: relay.key: there is no relay.certificate to go with it"),
        ({"forwarding": {"srs_domain": "not one"}}, "m.toml: forwarding.srs_domain = 'not one': it is not a domain"),
        ({"forwarding": {"srs_secret_file": "f"}}, "m.toml: forwarding.srs_secret_file: senders are rewritten only"),
        ({"agent": [{"name": "relay", "type": "pipe"}]}, "m.toml: agent[0].name: 'relay' is taken; give it another."),
        ({"agent": [AGENT, AGENT]}, "m.toml: agent[1].name: there is another agent 'x'"),
        ({"agent": [{"name": "X y", "type": "pipe"}]}, "m.toml: agent[0].name = 'X y'"),
        ({"route": [{"agent": "y"}], "agent": [AGENT]}, "m.toml: route[0].agent: there is no [[agent]] 'y'"),
        ({"route": [{"agent": "x", "hold": True}], "agent": [AGENT]}, "m.toml: route[0]: say either"),
        ({"route": [{"next_hop": ["a", "mx:b c"]}]}, "m.toml: route[0].next_hop: it is not a domain name"),
        ({"route": [{"next_hop": "mx:a.example", "tls": "implicit"}]}, "m.toml: route[0].tls: hosts of an MX"),
        ({"route": [{"domain": "a.example", "lmtp": True}]}, "m.toml: route[0].lmtp: it is for a next hop of our own"),
        (
            {"route": [{"sender": "@a.example", "tls": "required"}]},
            "m.toml: route[0]: what is said of the hosts of a domain's MX",
        ),
        ({"route": [{"sender": "@a.example", "relay": True}]}, "m.toml: route[0].relay: whoever sends can forge"),
        (
            {"route": [{"sender": "a.example", "hold": True}]},
            "m.toml: route[0].sender = 'a.example': it is not an address",
        ),
        (
            {"route": [{"recipient": "a@*.example", "hold": True}]},
            "m.toml: route[0].recipient = 'a@*.example': it is not",
        ),
        (
            {"route": [{"recipient": "a@b.example", "domain": "b.example", "hold": True}]},
            "m.toml: route[0].domain: `recipient` has its domain already",
        ),
        (
            {"route": [{"sender": "@a.example", "hold": True}, {"sender": "@a.example", "next_hop": "b"}]},
            "m.toml: route[1]: it is never reached; put it before the route for '*'.",
        ),
        (
            {"route": [{"domain": ".b.example", "hold": True}, {"domain": "a.b.example", "next_hop": "b"}]},
            "m.toml: route[1]: it is never reached; put it before the route for '.b.example'.",
        ),
        ({"route": [{"next_hop": "a", "key": "k"}]}, "m.toml: route[0].key: there is no certificate to go with it"),
        ({"route": [{"relay": True}]}, "m.toml: route[0].relay: strangers could send anywhere through us; name"),
        ({"route": [{"relay": True, "next_hop": "a"}]}, "m.toml: route[0].relay: strangers could send anywhere"),
        (
            {"relay": {"tls": "none", "dane": "on"}},
            "m.toml: relay.tls: without TLS no TLSA record is heeded; set it to opportunistic",
        ),
        (
            {"route": [{"domain": "a.example", "hold": True, "tls": "verified"}]},
            "m.toml: route[0].tls: mail that is held waits until it is asked for; take it out",
        ),
        (
            {"route": [{"domain": "a.example", "hold": True, "rate": "1/m"}]},
            "m.toml: route[0].rate: mail that is held waits until it is asked for; take it out",
        ),
        (
            {"route": [{"domain": "a.example", "hold": True, "concurrency": 1}]},
            "m.toml: route[0].concurrency: mail that is held waits until it is asked for; take it out",
        ),
        (
            {"route": [{"domain": "a.example", "hold": True, "schedule": ["5m"]}]},
            "m.toml: route[0].schedule: mail that is held waits until it is asked for; take it out",
        ),
        (
            {"route": [{"domain": "a.example", "hold": True, "expire": "1d"}]},
            "m.toml: route[0].expire: mail that is held waits until it is asked for; take it out",
        ),
        (
            {"route": [{"domain": "a.example", "hold": True, "delay_report": "1h"}]},
            "m.toml: route[0].delay_report: mail that is held waits until it is asked for; take it out",
        ),
        (
            {"route": [{"domain": "a.example", "hold": True, "source_address": "192.0.2.1"}]},
            "m.toml: route[0].source_address: mail that is held waits until it is asked for; take it out",
        ),
        (
            {"route": [{"domain": "a.example", "hold": True, "lmtp": True}]},
            "m.toml: route[0].lmtp: mail that is held waits until it is asked for; take it out",
        ),
        (
            {"route": [{"domain": "a.example", "agent": "x", "tls": "verified"}], "agent": [AGENT]},
            "m.toml: route[0].tls: the agent 'x' speaks to no other server; take it out",
        ),
        (
            {"route": [{"domain": "a.example", "agent": "x", "certificate": "c.pem"}], "agent": [AGENT]},
            "m.toml: route[0].certificate: the agent 'x' speaks to no other server; take it out",
        ),
        (
            {"route": [{"domain": "a.example", "agent": "x", "source_address": "192.0.2.1"}], "agent": [AGENT]},
            "m.toml: route[0].source_address: the agent 'x' speaks to no other server; take it out",
        ),
        (
            {"route": [{"domain": "a.example", "agent": "x", "lmtp": True}], "agent": [AGENT]},
            "m.toml: route[0].lmtp: the agent 'x' speaks to no other server; take it out",
        ),
        (
            {"route": [{"sender": "@shop.example", "next_hop": "a"}, {"sender": "User@Shop.example", "hold": True}]},
            "m.toml: route[1]: it is never reached; put it before the route for '*'.",
        ),
        (
            {
                "route": [
                    {"sender": "user@shop.example", "next_hop": "a"},
                    {"sender": "USER@shop.example", "hold": True},
                ]
            },
            "m.toml: route[1]: it is never reached; put it before the route for '*'.",
        ),
        (
            {
                "route": [
                    {"recipient": "*@shop.example", "next_hop": "a"},
                    {"recipient": "bob@shop.example", "hold": True},
                ]
            },
            "m.toml: route[1]: it is never reached; put it before the route for '*@shop.example'.",
        ),
        (
            {
                "route": [
                    {"recipient": "*-list@shop.example", "next_hop": "a"},
                    {"recipient": "a*-List@Shop.example", "sender": "<>", "hold": True},
                ]
            },
            "m.toml: route[1]: it is never reached; put it before the route for '*-list@shop.example'.",
        ),
        (
            {"route": [{"domain": "*", "next_hop": "a"}, {"recipient": "bob@shop.example", "relay": True}]},
            "m.toml: route[1]: it is never reached; put it before the route for '*'.",
        ),
        ({"retry": {"first": float("inf")}}, "m.toml: retry.first = inf: input should be a finite number"),
    ],
)
def test_a_fault_is_one_sentence_with_file_key_reason_and_cure(table, sentence):
    with pytest.raises(SettingsError) as caught:
        parse(**table)
    assert str(caught.value).startswith(sentence)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "terms", [{"hold_time": "2d"}, {"hold_time": "2d", "contact": "a@b.example", "warning_time": 0}]
)
def test_where_nobody_is_warned_the_time_of_warnings_does_not_matter(terms):
    [customer] = parse(customer=[{"name": "x", "domains": ["x.example"], **terms}]).customer
    assert customer.hold_time == 2 * 86400


def test_routes_may_differ_in_their_conditions_alone():
    routes = [
        {"recipient": "a@here.example", "hold": True},
        {"sender": "@a.example", "next_hop": "a.example"},
        {"sender": "<>", "next_hop": ["b.example", "mx:c.example"]},
        {"domain": "slow.example", "rate": "600/h"},
        {"next_hop": "d.example"},
        {"recipient": "b@here.example", "hold": True},
        {"recipient": "c*@here.example", "hold": True},
        {"recipient": "*c@here.example", "hold": True},
        {"recipient": "d*@here.example", "sender": "d@a.example", "hold": True},
        {"recipient": "d@here.example", "sender": "@a.example", "hold": True},
    ]
    found = parse(route=routes).route
    assert [route.next_hop for route in found[1:3]] == [("a.example",), ("b.example", "mx:c.example")]
    assert found[3].rate == pytest.approx(1 / 6)


def test_every_fault_is_told_at_once():
    with pytest.raises(SettingsError) as caught:
        parse(hostnam="x", limits={"errors": 0})
    assert len(caught.value.sentences) == 2


def test_a_password_is_told_to_nobody():
    settings = parse(route=[{"domain": "*", "next_hop": "a", "username": "u", "password": "s3same", "tls": "verified"}])
    assert "s3same" not in repr(settings)
    with pytest.raises(SettingsError) as caught:
        parse(route=[{"domain": "*", "next_hop": "a", "password": ["s3same"]}])
    assert "s3same" not in str(caught.value)


@pytest.mark.parametrize(
    "table",
    [
        {"route": {"domain": "*", "next_hop": "a", "username": "u", "password": "s3same"}},  # [route]: one bracket
        {"route": [[{"password": "s3same"}]]},
        {"tls": [{"password": "s3same"}]},
    ],
)
def test_a_table_in_the_wrong_place_is_not_shown_with_its_password(table):
    with pytest.raises(SettingsError) as caught:
        parse(**table)
    assert "s3same" not in str(caught.value)


def test_a_missing_file_and_bad_toml_are_sentences(tmp_path):
    with pytest.raises(SettingsError, match="there is no such file"):
        Settings.load(tmp_path / "none.toml")
    bad = tmp_path / "bad.toml"
    bad.write_text("hostname = ")
    with pytest.raises(SettingsError, match="it is not TOML"):
        Settings.load(bad)
    bad.write_bytes(b"hostname = '\xff'")
    with pytest.raises(SettingsError, match="it is not TOML"):
        Settings.load(bad)


def test_relative_paths_begin_at_the_data_directory_and_that_at_the_file(tmp_path):
    file = tmp_path / "mailsuite.toml"
    file.write_text('data_directory = "data"')
    settings = Settings.load(file)
    assert settings.path(settings.spool.directory) == tmp_path / "data" / "spool"


def test_durations_and_sizes_are_read_with_their_units():
    settings = parse(retry={"first": "90s", "longest": "1.5h", "expire": 60}, limits={"message_size": "2 MiB"})
    assert settings.retry.first == 90
    assert settings.retry.longest == 5400
    assert settings.retry.expire == 60
    assert settings.limits.message_size == 2 * 1024 * 1024


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("mx.example", ("mx.example", 25)),
        ("mx.example:26", ("mx.example", 26)),
        ("[::1]:27", ("::1", 27)),
        ("[::1]", ("::1", 25)),
        ("[mx.example]:27", ("mx.example", 27)),  # as Postfix writes it
        ("[mx.example]", ("mx.example", 25)),
    ],
)
def test_a_next_hop_is_a_host_and_perhaps_a_port(text, result):
    assert split_host_port(text, 25) == result


def uncommented(text: str) -> str:
    """The sample with every commented key in force."""
    return re.sub(r"^#(\[\[|\[|[a-z_]+ = |$)", r"\1", text, flags=re.MULTILINE)


def test_the_sample_configuration_is_valid_as_it_stands_and_with_every_key_in_force(tmp_path):
    sample = (ROOT / "etc" / "mailsuite.toml").read_text()
    assert Settings.parse(tomllib.loads(sample), "etc", tmp_path).listen == Settings().listen
    assert Settings.parse(tomllib.loads(uncommented(sample)), "etc", tmp_path).route[0].hold


def keys(model, prefix=""):
    for name, field in model.model_fields.items():
        inner = next(
            (
                part
                for part in (field.annotation, *getattr(field.annotation, "__args__", ()))
                if hasattr(part, "model_fields")
            ),
            None,
        )
        yield from keys(inner, f"{name}.") if inner else [f"{prefix}{name}"]


def test_the_sample_configuration_names_every_key_and_only_true_defaults(tmp_path):
    sample = tomllib.loads(uncommented((ROOT / "etc" / "mailsuite.toml").read_text()))
    named = set()
    for name, value in sample.items():
        for table in value if isinstance(value, list) else [value]:
            named |= {f"{name}.{key}" for key in table} if isinstance(table, dict) else {name}
    expected = set(keys(Settings)) - {f"{table}.password_file" for table in ("customer", "pull", "route")}
    assert expected <= named | {"local.options"}
    defaults, said = Settings(), Settings.parse(sample, "etc", tmp_path)
    for part in ("limits", "receive", "spool", "retry", "reports", "on_demand"):
        assert getattr(said, part) == getattr(defaults, part)


def test_the_reference_page_is_current():
    page = (ROOT / "docs" / "configuration.md").read_text()
    assert page == reference(), "run: python -m mailsuite.admin.reference > docs/configuration.md"


def test_the_check_command_says_what_is_wrong_without_a_traceback(tmp_path):
    file = tmp_path / "m.toml"
    file.write_text(f"hostname = {json.dumps('two words')}")
    command = [sys.executable, "-m", "mailsuite", "check", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"Error: {file}: hostname = 'two words': it is not a domain name")
    assert "Traceback" not in done.stderr
