"""SCRAM secrets, held against the RFC's example and against the bounds."""

import base64
import hashlib
import hmac

import pytest

from mailsuite.mail.scram import derive_scram


def test_scram_keys_fit_the_example_of_rfc_7677():
    # Section 3: user "user", password "pencil".
    nonce = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
    salt = "W22ZaJ0SNY7soEsUEjb6gQ=="
    message = f"n=user,r=rOprNGfwEbeRWgbNEkqO,r={nonce},s={salt},i=4096,c=biws,r={nonce}".encode()
    proof = base64.b64decode("dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")
    verifier = base64.b64decode("6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")
    secret = derive_scram("pencil", salt=base64.b64decode(salt), iterations=4096)
    client_signature = hmac.digest(secret.stored_key, message, "sha256")
    client_key = bytes(a ^ b for a, b in zip(proof, client_signature, strict=True))
    assert hashlib.sha256(client_key).digest() == secret.stored_key
    assert hmac.digest(secret.server_key, message, "sha256") == verifier


@pytest.mark.parametrize(("salt", "iterations"), [(b"x" * 11, 4096), (b"x" * 16, 4095)])
def test_what_is_too_weak_is_refused(salt, iterations):
    with pytest.raises(ValueError, match="12 octets of salt"):
        derive_scram("pencil", salt=salt, iterations=iterations)
