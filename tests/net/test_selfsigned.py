"""The certificate for the first steps."""

import pytest
from cryptography import x509

from mailsuite.net.selfsigned import make_self_signed
from mailsuite.net.tls import ServerTLS, TLSSettingsError


def names_in(path):
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value


def test_certificate_and_key_are_made_and_fit(tmp_path):
    certificate, key = make_self_signed(tmp_path / "tls", "mx.example.org")
    assert ServerTLS(certificate, key)
    assert key.stat().st_mode & 0o777 == 0o600
    assert names_in(certificate).get_values_for_type(x509.DNSName) == ["mx.example.org", "localhost"]
    assert sorted(path.name for path in (tmp_path / "tls").iterdir()) == ["self-signed.key", "self-signed.pem"]


def test_made_once(tmp_path):
    first = [path.read_bytes() for path in make_self_signed(tmp_path, "mx.example.org")]
    assert [path.read_bytes() for path in make_self_signed(tmp_path, "other.example.org")] == first


def test_key_left_by_a_crash_is_used(tmp_path):
    certificate, key = make_self_signed(tmp_path, "mx.example.org")
    before = key.read_bytes()
    certificate.unlink()
    (tmp_path / "self-signed.pem.new").write_bytes(b"half")
    make_self_signed(tmp_path, "mx.example.org")
    assert key.read_bytes() == before
    assert ServerTLS(certificate, key)


def test_certificate_without_its_key_is_told(tmp_path):
    _, key = make_self_signed(tmp_path, "mx.example.org")
    key.unlink()
    with pytest.raises(TLSSettingsError, match="without its key: remove it"):
        make_self_signed(tmp_path, "mx.example.org")
    assert not key.exists()


def test_key_that_is_none_is_told(tmp_path):
    (tmp_path / "self-signed.key").write_bytes(b"rubbish")
    with pytest.raises(TLSSettingsError, match="remove it, and a new one is made"):
        make_self_signed(tmp_path, "mx.example.org")


def test_directory_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(TLSSettingsError, match="a certificate cannot be made in"):
        make_self_signed(tmp_path / "file" / "tls", "mx.example.org")


def test_addresses_and_long_and_foreign_names(tmp_path):
    certificate, _ = make_self_signed(tmp_path / "a", "192.0.2.1")
    addresses = [str(one) for one in names_in(certificate).get_values_for_type(x509.IPAddress)]
    assert addresses == ["192.0.2.1", "127.0.0.1", "::1"]
    long = ".".join(["label" * 4] * 5) + ".example"
    certificate, _ = make_self_signed(tmp_path / "b", long)
    assert names_in(certificate).get_values_for_type(x509.DNSName) == [long, "localhost"]
    certificate, _ = make_self_signed(tmp_path / "c", "bücher.example")
    assert names_in(certificate).get_values_for_type(x509.DNSName) == ["xn--bcher-kva.example", "localhost"]
