"""TLS settings: what files are taken, what is said of those that are not, and how changed ones are taken over."""

import os

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator, IOpenSSLServerConnectionCreator
from twisted.internet.task import Clock

from mailsuite.net.tls import ClientTLS, ServerTLS, TLSSettingsError, describe_failure


def shown_by(tls):
    """The certificate that a server shows."""
    return tls.serverConnectionForTLS(None).get_certificate(as_cryptography=True)


def pem_of(path):
    return path.read_bytes()


@pytest.fixture
def files(authority):
    return authority.issue("mx.example.org", file="settings")


def test_settings_are_what_start_tls_takes(files, authority):
    assert IOpenSSLServerConnectionCreator.providedBy(ServerTLS(*files))
    assert IOpenSSLClientConnectionCreator.providedBy(ClientTLS(authority.file).for_host("a.example", "required"))


def test_certificate_chain_and_key_may_stand_in_one_file(files, authority, tmp_path):
    together = tmp_path / "all.pem"
    together.write_bytes(pem_of(files[0]) + pem_of(authority.file) + pem_of(files[1]))
    tls = ServerTLS(together)
    assert shown_by(tls) == shown_by(ServerTLS(*files))


@pytest.mark.parametrize(
    ("certificate", "key", "reason", "cure"),
    [
        ("nothing", "key", "no such file", "give the path"),
        ("certificate", "nothing", "no such file", "give the path"),
        ("directory", "key", "is a directory", "give the path"),
        ("certificate", "other key", "does not belong", "give the key"),
        ("key", "key", "holds no certificate", "BEGIN CERTIFICATE"),
        ("certificate", "certificate", "holds no private key", "PRIVATE KEY-----"),
    ],
)
def test_wrong_files_are_told_in_one_sentence(authority, tmp_path, files, certificate, key, reason, cure):
    places = {"nothing": tmp_path / "none.pem", "directory": tmp_path, "certificate": files[0], "key": files[1]}
    places["other key"] = authority.issue("other.example.org")[1]
    paths = places[certificate], places[key]
    with pytest.raises(TLSSettingsError) as caught:
        ServerTLS(*paths)
    said = str(caught.value)
    assert reason in said
    assert cure in said
    assert any(str(path) in said for path in paths)
    assert "\n" not in said
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_unreadable_key_is_told(files, tmp_path, monkeypatch):
    if os.geteuid() == 0:  # root reads everything: ask as someone who does not
        monkeypatch.setattr("pathlib.Path.read_bytes", refuse_keys)
    else:
        files[1].chmod(0)
    with pytest.raises(TLSSettingsError, match=r"cannot be read: permission denied; let the server's user read it"):
        ServerTLS(*files)
    files[1].chmod(0o600)


def refuse_keys(path):
    if path.suffix == ".key":
        raise PermissionError(13, "Permission denied", str(path))
    with path.open("rb") as file:
        return file.read()


def test_encrypted_key_is_told(files, tmp_path):
    key = load_pem_private_key(pem_of(files[1]), None)
    locked = tmp_path / "locked.key"
    locked.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"word")))
    with pytest.raises(TLSSettingsError, match="without a passphrase"):
        ServerTLS(files[0], locked)


def test_key_of_a_kind_without_use_is_told(files, tmp_path):
    odd = tmp_path / "odd.key"
    key = dsa.generate_private_key(2048)
    odd.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(TLSSettingsError, match="make an RSA or an EC key"):
        ServerTLS(files[0], odd)


def test_certificate_that_openssl_does_not_take_is_told(files, tmp_path, authority):
    broken = tmp_path / "broken.pem"
    broken.write_bytes(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    with pytest.raises(TLSSettingsError, match="holds no certificate"):
        ServerTLS(broken, files[1])
    with pytest.raises(TLSSettingsError, match="holds no authority"):
        ServerTLS(*files, client_ca=files[1])
    with pytest.raises(TLSSettingsError, match="holds no authority"):
        ClientTLS(files[1])


# -------------------------------------------------------------------------------------------- reload


def replace(files, with_files):
    for old, new in zip(files, with_files, strict=True):
        old.write_bytes(new.read_bytes())


def test_changed_files_are_taken_over_by_themselves(authority, files):
    clock = Clock()
    tls = ServerTLS(*files, seconds=clock.seconds, check_every=60)
    before = shown_by(tls)
    replace(files, authority.issue("new.example.org", file="renewed"))
    clock.advance(59)
    assert shown_by(tls) == before
    clock.advance(1)
    assert shown_by(tls) != before


def test_unchanged_files_are_not_read_again(files):
    clock = Clock()
    tls = ServerTLS(*files, seconds=clock.seconds, check_every=60)
    context = tls.serverConnectionForTLS(None).get_context()
    clock.advance(60)
    assert tls.serverConnectionForTLS(None).get_context() is context


def test_reload_takes_over_at_once(authority, files):
    tls = ServerTLS(*files)
    before = shown_by(tls)
    replace(files, authority.issue("new.example.org", file="renewed"))
    assert shown_by(tls) == before
    tls.reload()
    assert shown_by(tls) != before


def test_half_a_change_leaves_what_was_in_use_and_is_looked_at_again(authority, files, logged):
    clock = Clock()
    tls = ServerTLS(*files, seconds=clock.seconds, check_every=60)
    before = shown_by(tls)
    renewed = authority.issue("new.example.org", file="renewed")
    files[0].write_bytes(renewed[0].read_bytes())
    clock.advance(60)
    assert shown_by(tls) == before
    assert any("does not belong" in str(event.get("error", "")) for event in logged)
    with pytest.raises(TLSSettingsError):
        tls.reload()
    files[1].write_bytes(renewed[1].read_bytes())
    clock.advance(60)
    assert shown_by(tls) != before


def test_vanished_files_leave_what_was_in_use(files, logged):
    clock = Clock()
    tls = ServerTLS(*files, seconds=clock.seconds, check_every=60)
    before = shown_by(tls)
    files[0].unlink()
    clock.advance(60)
    assert shown_by(tls) == before
    assert any("no such file" in str(event.get("error", "")) for event in logged)


# -------------------------------------------------------------------------------------------- client


def test_mode_without_tls_is_our_own_mistake():
    with pytest.raises(ValueError, match="'none'"):
        ClientTLS().for_host("mx.example.org", "none")


def test_contexts_are_made_once_for_all_hosts(authority):
    client = ClientTLS(authority.file)
    asked = [("a.example", "verified"), ("b.example", "verified"), ("a.example", "required")]
    connections = [client.for_host(*one).clientConnectionForTLS(None) for one in asked]
    contexts = [connection.get_context() for connection in connections]
    assert contexts[0] is contexts[1]
    assert contexts[2] is not contexts[0]


def test_without_a_file_the_platforms_authorities_are_trusted():
    connection = ClientTLS().for_host("mx.example.org", "verified").clientConnectionForTLS(None)
    assert connection.get_verify_mode() == SSL.VERIFY_PEER


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (SSL.Error([("SSL routines", "", "no shared cipher"), ("", "", "more")]), "no shared cipher, more"),
        (SSL.Error([]), "[]"),
        (ConnectionError(), "the peer has closed the connection"),
        (None, "None"),
    ],
)
def test_failures_are_told_in_words(error, said):
    assert describe_failure(error) == said
