"""What the tests of mechanisms share: accounts, made-up text, and a client wired to a server."""

from dataclasses import dataclass, field

from hypothesis import assume
from hypothesis import strategies as st

from mailsuite.mail.session import SecretKind
from mailsuite.wire.sasl import (
    Challenge,
    Check,
    NeedSecret,
    PasswordCredential,
    derive_scram_secret,
    prepare_query,
    prepare_stored,
)

SALT = bytes(range(16))
ITERATIONS = 4096

# Names as they come: any script, commas, equals signs, spaces; half of them plain.
_TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc", "Co"]), min_size=1, max_size=20)
_TEXT |= st.text("abc=,2CD3 @.\u00e9\u00bd\u2022", min_size=1, max_size=20)


@st.composite
def names(draw):
    """Return text that SASLprep passes as a name of at most 255 octets."""
    return _fitting(draw(_TEXT), prepare_query)


@st.composite
def passwords(draw):
    """Return text that SASLprep passes as a password."""
    return _fitting(draw(_TEXT), prepare_stored)


def _fitting(text, prepare):
    try:
        prepared = prepare(text)
    except ValueError:
        assume(False)
    assume(len(prepared.encode()) <= 255)
    return text


@dataclass
class Accounts:
    """A directory in memory: prepared name to password."""

    passwords: dict[str, str]
    asked: list[NeedSecret] = field(default_factory=list)

    def secret(self, need):
        self.asked.append(need)
        password = self.passwords.get(need.user)
        if password is None:
            return None
        if need.kind is SecretKind.SHARED:
            return password.encode()
        return derive_scram_secret(password, salt=SALT, iterations=ITERATIONS)

    def accepts(self, credential):
        assert isinstance(credential, PasswordCredential)
        password = self.passwords.get(credential.authcid)
        return password is not None and password.encode() == credential.password


def converse(client, server, accounts, *, withhold=False):
    """Step a client and a server until the server's exchange is over; return the last step and all of them.

    With `withhold` the initial response waits for the empty challenge (RFC 4954 section 4).
    """
    initial = client.initial()
    step = server.begin(None if withhold else initial)
    steps = [step]
    while isinstance(step, (Challenge, NeedSecret)):
        if isinstance(step, NeedSecret):
            step = server.supply(accounts.secret(step))
        elif withhold and initial is not None:
            assert step.data == b""
            step = server.respond(initial)
            withhold = False
        else:
            step = server.respond(client.respond(step.data))
        steps.append(step)
    return step, steps


def accepted(step, accounts):
    """Return whether the last step of an exchange lets the client in."""
    return accounts.accepts(step.credential) if isinstance(step, Check) else type(step).__name__ == "Verified"
