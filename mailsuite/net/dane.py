"""DANE: whether a server's certificate is one that its TLSA records vouch for (RFC 6698, RFC 7672 section 3).

Nothing is asked or dialled here: records that DNSSEC has proved come in, and the chain that a server has shown.

Rules
- Usages 0 and 1 are unusable (RFC 7672 section 3.1.3).
- Usage 3 looks at the server's own certificate alone: neither its names nor its dates matter.
- Usage 2 demands a chain to the anchor, valid by PKIX, and one of the names. The anchor has to be in the chain that the
  server shows, or whole in the record (2 0 0); a bare key in a record (2 1 0) is looked for in the chain only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256, sha512
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from OpenSSL import crypto
from service_identity.cryptography import verify_certificate_hostname

from mailsuite.mail.address import domain_key
from mailsuite.mail.tls_policy import TLSA, TLSFailureKind, TLSProblem
from mailsuite.net.certificates import names_in

# RFC 6698 section 2.1.1
_TRUST_ANCHOR: Final = 2
_END_ENTITY: Final = 3
# RFC 6698 section 2.1.2
_WHOLE: Final = 0
_KEY: Final = 1
# RFC 6698 section 2.1.3: what is hashed, and how long that gets
_EXACT: Final = 0
_DIGESTS: Final = {1: (sha256, 32), 2: (sha512, 64)}
_MOST_ANCHORS: Final = 8  # of a chain are tried; each costs a verification
_EXPIRED: Final = 10  # X509_V_ERR_CERT_HAS_EXPIRED


class _Shown(NamedTuple):
    """A certificate with what records may select of it."""

    certificate: x509.Certificate
    whole: bytes
    key: bytes


def usable(records: Iterable[TLSA]) -> tuple[TLSA, ...]:
    """Those of the records that we can go by (RFC 6698 section 4.1, RFC 7672 sections 3.1 and 5).

    Of several digests for one usage and selector only the strongest counts; what stands there unhashed always does.
    """
    good = [record for record in dict.fromkeys(records) if _is_usable(record)]
    strongest: dict[tuple[int, int], int] = {}
    for record in good:
        group = record.usage, record.selector
        strongest[group] = max(strongest.get(group, _EXACT), record.matching)
    return tuple(record for record in good if record.matching in (_EXACT, strongest[record.usage, record.selector]))


def as_text(record: TLSA) -> str:
    """A record as zone files and reports have it (RFC 6698 section 2.2, RFC 8460 section 4.5)."""
    return f"{record.usage} {record.selector} {record.matching} {record.data.hex()}"


def judge(records: Iterable[TLSA], names: Sequence[str], chain: Sequence[x509.Certificate]) -> TLSProblem | None:
    """What is wrong with a chain, which begins with the server's own certificate; None where a record vouches for it.

    `names` are those that usage 2 takes. Never raises, whatever the chain is made of.
    """
    try:
        return _judge(usable(records), names, chain)
    except Exception as error:  # noqa: BLE001 - of parsers, for what a peer has made up
        return TLSProblem(TLSFailureKind.VALIDATION, f"the certificate cannot be read ({error})")


def _judge(records: Sequence[TLSA], names: Sequence[str], chain: Sequence[x509.Certificate]) -> TLSProblem | None:
    if not chain:
        return TLSProblem(TLSFailureKind.VALIDATION, "the server has shown no certificate")
    leaf = _look_at(chain[0])
    # RFC 7672 section 3.1.1: names and dates do not matter.
    if any(record.usage == _END_ENTITY and _matches(record, leaf) for record in records):
        return None
    anchoring = [record for record in records if record.usage == _TRUST_ANCHOR]
    above = [_look_at(certificate) for certificate in chain[1:]] if anchoring else []
    anchors = [one.certificate for one in above if any(_matches(record, one) for record in anchoring)]
    anchors += _spelled_out(anchoring)
    if not anchors:
        return TLSProblem(TLSFailureKind.VALIDATION, "no TLSA record matches the certificate")
    problem = None
    for anchor in anchors[:_MOST_ANCHORS]:
        problem = _chain_problem(anchor, chain)
        if problem is None:
            return _leaf_problem(chain[0], names)
    return problem


def _is_usable(record: TLSA) -> bool:
    if record.usage not in (_TRUST_ANCHOR, _END_ENTITY) or record.selector not in (_WHOLE, _KEY):
        return False
    if record.matching == _EXACT:
        return bool(record.data)
    digest = _DIGESTS.get(record.matching)
    return digest is not None and len(record.data) == digest[1]


def _matches(record: TLSA, shown: _Shown) -> bool:
    selected = shown.whole if record.selector == _WHOLE else shown.key
    if record.matching == _EXACT:
        return record.data == selected
    return record.data == _DIGESTS[record.matching][0](selected).digest()


def _look_at(certificate: x509.Certificate) -> _Shown:
    whole = crypto.dump_certificate(crypto.FILETYPE_ASN1, crypto.X509.from_cryptography(certificate))
    return _Shown(certificate, whole, key_octets(certificate.tbs_certificate_bytes))


def _spelled_out(records: Sequence[TLSA]) -> list[x509.Certificate]:
    """The anchors that stand whole in the DNS (2 0 0): the server need not show them."""
    found = []
    for record in records:
        if (record.selector, record.matching) == (_WHOLE, _EXACT):
            try:
                found.append(x509.load_der_x509_certificate(record.data))
            except ValueError:
                continue
    return found


# --------------------------------------------------------------------------------------------- PKIX


def _chain_problem(anchor: x509.Certificate, chain: Sequence[x509.Certificate]) -> TLSProblem | None:
    """What is wrong with the way from the server's certificate to the anchor (RFC 7672 section 3.1.2)."""
    store = crypto.X509Store()
    store.add_cert(crypto.X509.from_cryptography(anchor))
    store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)  # an anchor need not be signed by itself
    leaf, *others = (crypto.X509.from_cryptography(certificate) for certificate in chain)
    try:
        crypto.X509StoreContext(store, leaf, others).verify_certificate()
    except crypto.X509StoreContextError as error:
        kind = TLSFailureKind.EXPIRED if error.errors[0] == _EXPIRED else TLSFailureKind.NOT_TRUSTED
        return TLSProblem(kind, f"the certificate does not verify by its TLSA record: {error}")
    return None


def _leaf_problem(leaf: x509.Certificate, names: Sequence[str]) -> TLSProblem | None:
    try:
        purposes = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        pass
    else:
        # RFC 5280 section 4.2.1.12
        if not {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE} & set(purposes):
            return TLSProblem(TLSFailureKind.NOT_TRUSTED, "the certificate is not for a server")
    if any(_is_for(leaf, name) for name in names):
        return None
    wanted = " or ".join(names)
    return TLSProblem(TLSFailureKind.HOST_MISMATCH, f"the certificate is not for {wanted}, but for {names_in(leaf)}")


def _is_for(leaf: x509.Certificate, name: str) -> bool:
    """RFC 7672 section 3.2.3: DNS-IDs where there are any, else the common name."""
    try:
        presented = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        has_names = bool(presented.get_values_for_type(x509.DNSName))
    except x509.ExtensionNotFound:
        has_names = False
    if has_names:
        try:
            verify_certificate_hostname(leaf, name)
        except Exception:  # noqa: BLE001 - a malformed name in it is not this one either
            return False
        return True
    common = leaf.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return any(is_named_by(str(attribute.value), name) for attribute in common)


def is_named_by(pattern: str, name: str) -> bool:
    """Whether a name is the pattern, or the pattern is `*.` and what follows its first label.

    RFC 7672 section 3.2.3 and RFC 8461 section 4.1 both say so of wildcards.
    """
    pattern, name = domain_key(pattern.rstrip(".")), domain_key(name.rstrip("."))
    if pattern.startswith("*."):
        first, dot, rest = name.partition(".")
        return bool(first and dot) and rest == pattern[2:]
    return pattern == name


# ---------------------------------------------------------------------------------------------- DER


def key_octets(tbs_certificate: bytes) -> bytes:
    """The SubjectPublicKeyInfo just as it stands in a TBSCertificate (RFC 5280 section 4.1).

    Written anew it might differ from what was hashed, and there are kinds of keys that no library here could read.
    Raises `ValueError` for what is no such thing.
    """
    begin, _end = _element(tbs_certificate, 0)[1:]
    position = begin
    if tbs_certificate[position : position + 1] == b"\xa0":  # [0] version
        position = _element(tbs_certificate, position)[2]
    for _ in ("serialNumber", "signature", "issuer", "validity", "subject"):
        position = _element(tbs_certificate, position)[2]
    return tbs_certificate[position : _element(tbs_certificate, position)[2]]


def _element(data: bytes, position: int) -> tuple[int, int, int]:
    """The tag at a position, where its content begins, and where it ends."""
    if position + 2 > len(data):
        raise ValueError("DER ends too soon")
    tag, length, begin = data[position], data[position + 1], position + 2
    if length & 0x80:
        octets = length & 0x7F
        length = int.from_bytes(data[begin : begin + octets], "big")
        begin += octets
    if begin + length > len(data):
        raise ValueError("DER ends too soon")
    return tag, begin, begin + length
