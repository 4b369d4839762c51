"""Passwords: preparation, the secrets that are kept, one computation for each verification, nothing in reprs."""

import argon2
import pytest
from argon2 import extract_parameters
from hypothesis import given
from hypothesis import strategies as st

from mailsuite.accounts.errors import DirectoryError
from mailsuite.accounts.passwords import (
    MAX_PASSWORD,
    Argon2id,
    PasswordCost,
    checked,
    generated,
    scram_of,
)
from mailsuite.mail.scram import SALT_LENGTH
from mailsuite.mail.session import SecretKind
from mailsuite.wire import sasl
from tests.accounts.conftest import CHEAP

HASHING = Argon2id(CHEAP)


@pytest.fixture
def computations(monkeypatch):
    """Every argon2 computation of a verification: the parameters of the hash it was made with, and what came of it."""
    made = []
    compute = argon2.PasswordHasher.verify

    def count(hasher, password_hash, password):
        parameters = extract_parameters(password_hash)  # raises as verify does where nothing can be computed
        try:
            right = compute(hasher, password_hash, password)
        except argon2.exceptions.VerifyMismatchError:  # any other error computes nothing
            made.append((parameters, False))
            raise
        made.append((parameters, right))
        return right

    monkeypatch.setattr(argon2.PasswordHasher, "verify", count)
    return made


def test_the_hash_is_argon2id_at_the_cost_that_was_asked_for():
    parameters = extract_parameters(HASHING.secrets("secret").password_hash)
    assert (parameters.type, parameters.time_cost, parameters.memory_cost, parameters.parallelism) == (
        argon2.Type.ID,
        1,
        8,
        1,
    )
    assert (parameters.salt_len, parameters.hash_len) == (16, 32)


def test_the_default_cost_is_sane():
    parameters = extract_parameters(Argon2id().secrets("secret").password_hash)
    assert parameters.memory_cost * parameters.time_cost >= 19 * 1024 * 2


@pytest.mark.parametrize("values", [(0, 8, 1), (1, 7, 1), (1, 8, 2), (1, 8, 0)])
def test_a_cost_below_the_limits_of_argon2_is_refused(values):
    with pytest.raises(ValueError, match="argon2id needs"):
        PasswordCost(*values)


def test_two_hashes_of_one_password_differ():
    assert HASHING.secrets("secret").password_hash != HASHING.secrets("secret").password_hash


def test_the_right_password_is_verified_and_a_wrong_one_is_not():
    password_hash = HASHING.secrets("secret").password_hash
    assert HASHING.verify(password_hash, b"secret")
    for wrong in (b"Secret", b"secret ", b"", b"secret\0", b"\xff\xfe", b"secret" * 1000):
        assert not HASHING.verify(password_hash, wrong)


@pytest.mark.parametrize(
    ("typed", "sent"),
    [
        ("ju\u0308rgen", "j\u00fcrgen"),  # composed or not
        ("a\u00a0b", "a b"),  # RFC 4013 section 2.1: spaces
        ("I\u00adX", "IX"),  # RFC 4013 section 3: soft hyphen
        ("\u2168", "IX"),  # RFC 4013 section 3: Roman numeral nine
    ],
)
def test_a_password_is_the_same_in_each_form_that_keyboards_send(typed, sent):
    assert HASHING.verify(HASHING.secrets(typed).password_hash, sent.encode())
    assert HASHING.verify(HASHING.secrets(sent).password_hash, typed.encode())


@pytest.mark.parametrize(
    ("password", "reason"),
    [
        ("", "is empty"),
        ("\u00ad", "is empty"),
        ("tab\there", "cannot be sent"),
        ("nul\0", "cannot be sent"),
        ("\U0001f600", "cannot be sent"),  # unassigned in Unicode 3.2
        ("\u0627\u0031", "cannot be sent"),  # RFC 4013 section 3
        ("bad\udc80", "not valid UTF-8"),
        ("x" * (MAX_PASSWORD + 1), "is longer than"),
    ],
)
def test_what_cannot_be_a_password_is_refused_without_being_repeated(password, reason):
    with pytest.raises(DirectoryError, match=reason) as raised:
        HASHING.secrets(password)
    assert not password or password not in str(raised.value)


@given(st.text(max_size=20))
def test_whatever_can_be_set_can_be_verified(password):
    try:
        password_hash = HASHING.secrets(password).password_hash
    except DirectoryError:
        assert not HASHING.verify(None, password.encode("utf-8", "replace"))
    else:
        assert HASHING.verify(password_hash, password.encode())


@pytest.mark.parametrize("password", [b"secret", b"wrong", b"", b"\xff", b"\0", "\U0001f600".encode(), b"x" * 5000])
@pytest.mark.parametrize("there", [True, False])
def test_each_verification_costs_one_computation_of_the_same_kind(computations, password, there):
    password_hash = HASHING.secrets("secret").password_hash if there else None
    right = HASHING.verify(password_hash, password)
    assert right is (there and password == b"secret")
    [(parameters, _)] = computations
    assert parameters == extract_parameters(HASHING.secrets("x").password_hash)


@pytest.mark.parametrize(
    "broken",
    ["", "plaintext", "$argon2id$nonsense", "$argon2id$v=19$m=8,t=0,p=1$c29tZXNhbHRzb21lc2FsdA$c29tZWhhc2hzb21laGFzaA"],
)
def test_a_broken_hash_costs_a_computation_and_fits_nothing(computations, broken):
    assert not HASHING.verify(broken, b"plaintext")
    [(parameters, right)] = computations
    assert (parameters.memory_cost, parameters.time_cost, right) == (8, 1, False)


def test_a_hash_is_renewed_when_the_cost_has_changed():
    old = HASHING.secrets("secret").password_hash
    dearer = Argon2id(PasswordCost(time_cost=2, memory_kib=16))
    new = dearer.renewed(old, b"secret")
    assert new is not None
    assert dearer.verify(new, b"secret")
    assert dearer.renewed(new, b"secret") is None
    assert HASHING.renewed(old, b"secret") is None


def test_only_the_secrets_that_are_asked_for_are_kept():
    assert HASHING.secrets("secret").kinds == frozenset()
    both = HASHING.secrets("secret", [SecretKind.SHARED, SecretKind.SCRAM_SHA_256])
    assert both.kinds == frozenset(SecretKind)
    assert both.shared == b"secret"
    assert len(both.scram.salt) == SALT_LENGTH


def test_the_shared_secret_is_what_was_typed():
    assert HASHING.secrets("ju\u0308rgen", [SecretKind.SHARED]).shared == "ju\u0308rgen".encode()


def test_no_secret_is_in_a_repr():
    secrets = HASHING.secrets("s3cr3t", list(SecretKind))
    text = f"{secrets!r} {secrets} {secrets.scram!r}"
    assert "s3cr3t" not in text
    assert secrets.password_hash not in text
    assert repr(secrets.scram.salt) not in text


@pytest.mark.parametrize("password", ["secret", "ju\u0308rgen", "\u2168", "x" * 200])
def test_scram_is_derived_as_the_sasl_core_derives_it(password):
    assert scram_of(password, b"0123456789abcdef") == sasl.derive_scram_secret(
        password, salt=b"0123456789abcdef", iterations=sasl.ServerParameters().decoy_iterations
    )


@pytest.mark.parametrize("password", [b"secret", b"wrong", b"", b"\xff", "\U0001f600".encode(), b"x" * 5000])
def test_a_known_password_is_verified_at_the_same_cost(computations, password):
    assert HASHING.verify_known("secret", password) is (password == b"secret")
    [(parameters, _)] = computations
    assert parameters == extract_parameters(HASHING.secrets("x").password_hash)


def test_a_known_password_is_the_same_in_each_form_that_keyboards_send():
    assert HASHING.verify_known("ju\u0308rgen", "j\u00fcrgen".encode())


def test_generated_passwords_are_long_differ_and_can_be_set():
    made = {generated() for _ in range(50)}
    assert len(made) == 50
    assert all(len(one) == 23 and checked(one) == one for one in made)
