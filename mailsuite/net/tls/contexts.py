"""OpenSSL's contexts: what all connections of one kind have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from cryptography import x509
from OpenSSL import SSL, crypto

from mailsuite.net.tls.files import TLSSettingsError, read_certificates, read_key

# RFC 9325 section 4.2: forward secrecy, authenticated encryption first. The suites of TLS 1.3 are OpenSSL's own.
_CIPHERS: Final = b"ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:DHE+CHACHA20:ECDHE+AES:!aNULL:!eNULL:!aPSK:!MD5"
_OPTIONS: Final = (
    SSL.OP_NO_COMPRESSION
    | SSL.OP_NO_RENEGOTIATION
    | SSL.OP_CIPHER_SERVER_PREFERENCE
    | SSL.OP_SINGLE_ECDH_USE
    | SSL.OP_SINGLE_DH_USE
)


def new_context() -> SSL.Context:
    """A context for either side; `seal` it when all is set."""
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_options(_OPTIONS)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)  # idle connections are many
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    return context


def seal(context: SSL.Context) -> SSL.Context:
    """The last setting: pyOpenSSL tries the ciphers with a connection, and allows no change after the first one."""
    context.set_cipher_list(_CIPHERS)
    return context


def show(context: SSL.Context, certificate: Path, key: Path) -> None:
    """Identify ourselves by this certificate, with its chain. Raises `TLSSettingsError`."""
    chain = read_certificates("certificate", certificate)
    private = read_key(key)
    if chain[0].public_key() != private.public_key():
        raise TLSSettingsError(
            f"the key in {key} does not belong to the first certificate in {certificate}: "
            "give the key that the certificate was made for, and put one's own certificate before its chain"
        )
    try:
        context.use_certificate(chain[0])
        for issuer in chain[1:]:
            context.add_extra_chain_cert(issuer)
        context.use_privatekey(private)
    except (SSL.Error, ValueError) as error:
        raise TLSSettingsError(f"OpenSSL does not take the certificate in {certificate}: {error}") from None


def trust(context: SSL.Context, authorities: list[x509.Certificate]) -> None:
    """Take these authorities' word for the peer."""
    store = context.get_cert_store()
    assert store is not None
    for authority in authorities:
        store.add_cert(crypto.X509.from_cryptography(authority))
