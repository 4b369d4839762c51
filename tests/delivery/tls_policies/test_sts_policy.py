"""MTA-STS as it is written (RFC 8461 sections 3.1, 3.2 and 4.1)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsuite.delivery.tls_policies.sts_policy import LONGEST, Mode, PolicyInvalid, parse_policy, policy_id
from tests.delivery.tls_policies.fakes import POLICY


@pytest.mark.parametrize(
    ("records", "found"),
    [
        ([b"v=STSv1; id=20160831085700Z;"], "20160831085700Z"),
        ([b"v=STSv1;id=1"], "1"),
        ([b"v=STSv1 ; id=1 ; "], "1"),
        ([b"v=STSv1; ext=x:y; id=1; id=2"], "1"),
        ([b"v=spf1 -all", b"v=STSv1; id=1;"], "1"),
        ([], None),
        ([b"v=STSv1; id=1;", b"v=STSv1; id=2;"], None),
        ([b"v=STSv1"], None),
        ([b"v=STSv1;"], None),
        ([b"v=STSv1; ext=1;"], None),
        ([b"v=STSv2; id=1;"], None),
        ([b"id=1; v=STSv1;"], None),
        ([b"v=STSv1; id=1 2;"], None),
        ([b"v=STSv1; id=" + b"1" * 33], None),
        ([b"v=STSv1; id=;"], None),
        ([b"v=STSv1; id=1; broken;"], None),
        ([b"v=STSv1;; id=1"], None),
        ([b"\xff\xfe"], None),
    ],
)
def test_record_tells_an_id(records, found):
    assert policy_id(records) == found


def test_policy_is_read():
    policy = parse_policy(POLICY)
    assert (policy.mode, policy.max_age) == (Mode.ENFORCE, 604800)
    assert policy.mx == ("mx.example.org", "*.backup.example")
    assert policy.text[0] == "version: STSv1"


@pytest.mark.parametrize(
    ("body", "attribute", "value"),
    [
        (b"version: STSv1\nmode: none\nmax_age: 1\n", "mode", Mode.NONE),
        (b"version:STSv1\nmode:testing \nmx:A.Example.\nmax_age:1", "mx", ("a.example",)),
        (b"mode: enforce\nmode: none\nmx: a.example\nmax_age: 1\nversion: STSv1\n\n", "mode", Mode.ENFORCE),
        (b"version: STSv1\nmode: enforce\nmx: a.example\nmax_age: 9999999999\n", "max_age", LONGEST),
        ("version: STSv1\nmode: none\nmax_age: 1\nnote: grüße\n".encode(), "max_age", 1),
    ],
)
def test_policy_may_be_written_in_several_ways(body, attribute, value):
    assert getattr(parse_policy(body), attribute) == value


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (b"", "version"),
        (b"<html>", "no field"),
        (b"version: STSv2\nmode: none\nmax_age: 1", "version"),
        (b"version: STSv1\nmode: ENFORCE\nmx: a.example\nmax_age: 1", "mode"),
        (b"version: STSv1\nmx: a.example\nmax_age: 1", "mode"),
        (b"version: STSv1\nmode: enforce\nmx: a.example", "max_age"),
        (b"version: STSv1\nmode: enforce\nmx: a.example\nmax_age: -1", "max_age"),
        (b"version: STSv1\nmode: enforce\nmx: a.example\nmax_age: 12345678901", "max_age"),
        (b"version: STSv1\nmode: enforce\nmax_age: 1", "mx"),
        (b"version: STSv1\nmode: enforce\nmx: *\nmax_age: 1", "mx"),
        (b"version: STSv1\nmode: enforce\nmx: a.*.example\nmax_age: 1", "mx"),
        (b"version: STSv1\nmode: enforce\nmx: a b\nmax_age: 1", "mx"),
        (b"\xff", "UTF-8"),
        (b"version: STSv1\nmode: enforce\nmax_age: 1\n" + b"mx: a.example\n" * 1001, "more than"),
    ],
)
def test_policy_that_does_not_keep_to_its_grammar_is_refused(body, complaint):
    with pytest.raises(PolicyInvalid, match=complaint):
        parse_policy(body)


@pytest.mark.parametrize(
    ("host", "fits"),
    [
        ("mx.example.org", True),
        ("MX.example.org.", True),
        ("one.backup.example", True),
        ("backup.example", False),
        ("a.b.backup.example", False),
        ("mx.example.org.evil.example", False),
    ],
)
def test_hosts_fit_patterns(host, fits):
    assert parse_policy(POLICY).allows(host) is fits


@given(st.binary(max_size=300))
def test_whatever_is_served_is_a_policy_or_invalid(body):
    try:
        found = parse_policy(body)
    except PolicyInvalid:
        found = None
    assert found is None or found.max_age >= 0
    assert policy_id([body]) is None or body.startswith(b"v=STSv1")
