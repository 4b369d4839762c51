"""What TLSA records vouch for (RFC 6698, RFC 7672 section 3)."""

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsuite.mail.tls_policy import TLSA, TLSFailureKind
from mailsuite.net.dane import as_text, is_named_by, judge, key_octets, usable
from tests.net.chains import make, record

HOST = "mx.example.org"
ROOT = make("root", ca=True)
MIDDLE = make("middle", ROOT, ca=True)
LEAF = make(HOST, MIDDLE, names=[HOST])
STRANGER = make("stranger", ca=True)
CHAIN = [LEAF.certificate, MIDDLE.certificate, ROOT.certificate]


@pytest.mark.parametrize("selector", [0, 1])
@pytest.mark.parametrize("matching", [0, 1, 2])
def test_end_entity_is_matched_by_each_selector_and_matching_type(selector, matching):
    assert judge([record(3, selector, matching, LEAF)], [HOST], CHAIN) is None
    other = judge([record(3, selector, matching, STRANGER)], [HOST], CHAIN)
    assert other is not None
    assert other.kind is TLSFailureKind.VALIDATION


@pytest.mark.parametrize("kind", ["ec", "rsa"])
def test_key_is_taken_from_the_certificate_as_it_stands(kind):
    made = make("x", kind=kind)
    assert key_octets(made.certificate.tbs_certificate_bytes) == made.spki


@given(st.binary(max_size=200))
def test_what_is_no_certificate_has_no_key(data):
    try:
        found = key_octets(data)
    except ValueError:
        found = b""
    assert len(found) <= len(data)


def test_end_entity_needs_neither_name_nor_date_nor_chain():
    old = make("whoever.example", names=["whoever.example"], expired=True)
    assert judge([record(3, 1, 1, old)], [HOST], [old.certificate]) is None


def test_end_entity_record_does_not_vouch_for_an_issuer():
    assert judge([record(3, 1, 1, MIDDLE)], [HOST], CHAIN) is not None


@pytest.mark.parametrize("anchor", [ROOT, MIDDLE])
@pytest.mark.parametrize(("selector", "matching"), [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)])
def test_trust_anchor_is_matched_anywhere_above_the_server(anchor, selector, matching):
    assert judge([record(2, selector, matching, anchor)], [HOST], CHAIN) is None


def test_trust_anchor_that_the_server_does_not_show_is_not_known():
    problem = judge([record(2, 0, 1, ROOT)], [HOST], CHAIN[:2])
    assert problem is not None
    assert "no TLSA record matches" in problem.text


def test_trust_anchor_may_stand_whole_in_the_record():
    assert judge([record(2, 0, 0, ROOT)], [HOST], CHAIN[:2]) is None


def test_trust_anchor_does_not_vouch_for_what_it_has_not_signed():
    strange = make(HOST, STRANGER, names=[HOST])
    problem = judge([record(2, 1, 1, ROOT)], [HOST], [strange.certificate, ROOT.certificate])
    assert problem is not None
    assert problem.kind is TLSFailureKind.NOT_TRUSTED


def test_trust_anchor_is_no_end_entity():
    alone = make(HOST, names=[HOST])
    assert judge([record(2, 1, 1, alone)], [HOST], [alone.certificate]) is not None


@pytest.mark.parametrize(
    ("leaf", "chain", "kind"),
    [
        (make(HOST, MIDDLE, names=[HOST], expired=True), [MIDDLE, ROOT], TLSFailureKind.EXPIRED),
        (make(HOST, MIDDLE, names=["other.example"]), [MIDDLE, ROOT], TLSFailureKind.HOST_MISMATCH),
        (make(HOST, MIDDLE, names=[HOST], client=True), [MIDDLE, ROOT], TLSFailureKind.NOT_TRUSTED),
        (make(HOST, plain := make("no authority", ROOT), names=[HOST]), [plain, ROOT], TLSFailureKind.NOT_TRUSTED),
        (make(HOST, late := make("late", ROOT, ca=True, expired=True), names=[HOST]), [late, ROOT], "expired"),
    ],
)
def test_below_a_trust_anchor_pkix_holds(leaf, chain, kind):
    shown = [leaf.certificate, *(made.certificate for made in chain)]
    problem = judge([record(2, 0, 1, ROOT)], [HOST], shown)
    assert problem is not None
    assert problem.kind == (TLSFailureKind.EXPIRED if kind == "expired" else kind)


def test_constraints_of_the_trust_anchor_hold():
    anchor = make("short", ca=True, path_length=0)
    between = make("between", anchor, ca=True)
    leaf = make(HOST, between, names=[HOST])
    problem = judge([record(2, 0, 1, anchor)], [HOST], [m.certificate for m in (leaf, between, anchor)])
    assert problem is not None
    assert problem.kind is TLSFailureKind.NOT_TRUSTED


@pytest.mark.parametrize(
    ("common", "names", "good"),
    [
        (HOST, (), True),  # RFC 7672 section 3.2.3: the common name, where there are no DNS names
        ("*.example.org", (), True),
        (HOST, ("other.example",), False),
        ("x", ("*.example.org",), True),
        ("x", ("*.org",), False),
        ("x", ("EXAMPLE.org",), True),
        ("x", ("example.com",), False),
    ],
)
def test_trust_anchor_demands_one_of_the_names(common, names, good):
    leaf = make(common, ROOT, names=names)
    problem = judge([record(2, 0, 1, ROOT)], [HOST, "example.org"], [leaf.certificate, ROOT.certificate])
    assert (problem is None) is good


def test_one_record_that_fits_is_enough():
    records = [record(3, 1, 1, STRANGER), record(2, 0, 1, STRANGER), record(2, 1, 1, ROOT)]
    assert judge(records, [HOST], CHAIN) is None


def test_nothing_vouches_for_nothing():
    assert judge([record(3, 1, 1, LEAF)], [HOST], []) is not None
    assert judge([], [HOST], CHAIN) is not None


@pytest.mark.parametrize(
    "bad",
    [
        TLSA(0, 1, 1, bytes(32)),
        TLSA(1, 1, 1, bytes(32)),
        TLSA(4, 1, 1, bytes(32)),
        TLSA(3, 2, 1, bytes(32)),
        TLSA(3, 1, 3, bytes(32)),
        TLSA(3, 1, 1, bytes(31)),
        TLSA(3, 1, 2, bytes(32)),
        TLSA(3, 1, 0, b""),
        TLSA(255, 255, 255, b""),
    ],
)
def test_records_that_we_cannot_go_by_are_unusable(bad):
    good = TLSA(3, 1, 1, bytes(32))
    assert usable([bad]) == ()
    assert usable([bad, good, good]) == (good,)


def test_of_several_digests_the_strongest_counts():
    weak, strong, whole = TLSA(3, 1, 1, bytes(32)), TLSA(3, 1, 2, bytes(64)), TLSA(3, 1, 0, b"key")
    other = TLSA(2, 1, 1, bytes(32))
    assert usable([weak, strong, whole, other]) == (strong, whole, other)
    # A weaker digest that fits does not help where a stronger one does not.
    assert judge([record(3, 1, 1, LEAF), record(3, 1, 2, STRANGER)], [HOST], CHAIN) is not None


def test_records_are_shown_as_zones_have_them():
    assert as_text(TLSA(3, 1, 1, sha256(b"").digest())) == f"3 1 1 {sha256(b'').hexdigest()}"


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        ("mail.example.com", "MAIL.example.com.", True),
        ("*.example.com", "mail.example.com", True),
        ("*.example.com", "example.com", False),
        ("*.example.com", "foo.bar.example.com", False),
        ("*.example.com", ".example.com", False),
        ("m*.example.com", "mail.example.com", False),
    ],
)
def test_wildcards_stand_for_one_label(pattern, name, fits):
    assert is_named_by(pattern, name) is fits


@given(st.lists(st.binary(max_size=40), max_size=5))
def test_hostile_records_never_raise(blobs):
    records = [TLSA(2, 0, 0, blob) for blob in blobs] + [TLSA(2, 1, 0, blob) for blob in blobs]
    assert judge(records, [HOST], CHAIN) is not None
