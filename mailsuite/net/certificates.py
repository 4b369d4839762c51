"""What a certificate says of itself, for people."""

from __future__ import annotations

from cryptography import x509

_MOST_NAMES = 3
_LONGEST = 64  # characters; a peer has chosen them


def names_in(certificate: x509.Certificate) -> str:
    """Whom a certificate is for, in words: its first DNS names and addresses, or the common name of old ones."""
    names: list[str] = []
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names += extension.get_values_for_type(x509.DNSName)
        names += map(str, extension.get_values_for_type(x509.IPAddress))
    except (x509.ExtensionNotFound, ValueError):
        common = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        names += [str(one.value) for one in common]
    shown = ["".join(c if c.isascii() and c.isprintable() else "?" for c in name[:_LONGEST]) for name in names]
    if not shown:
        return "nobody by name"
    return ", ".join(shown[:_MOST_NAMES]) + (" and others" if len(shown) > _MOST_NAMES else "")
