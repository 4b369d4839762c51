"""How often may be guessed, and which passwords are remembered for a while: bounded tables, by the clock."""

import gc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from mailsuite.accounts.guesses import GuessAllowance, GuessLimit, RecentLogins, TooManyGuesses
from mailsuite.interfaces import DirectoryUnavailable

LIMIT = GuessLimit(burst=3, per_hour=60)


def taken(allowance, name, attempts):
    """How many of some guesses are allowed."""
    allowed = 0
    for _ in range(attempts):
        try:
            allowance.take(name)
        except TooManyGuesses:
            continue
        allowed += 1
    return allowed


def test_some_wrong_passwords_in_a_row_are_allowed_then_some_an_hour(clock):
    allowance = GuessAllowance(clock, LIMIT)
    assert taken(allowance, "alice", 10) == 3
    clock.advance(59)
    assert taken(allowance, "alice", 10) == 0
    clock.advance(1)
    assert taken(allowance, "alice", 10) == 1
    clock.advance(3600)
    assert taken(allowance, "alice", 10) == 3


def test_too_many_guesses_is_a_temporary_failure_that_names_the_account(clock):
    allowance = GuessAllowance(clock, GuessLimit(burst=1, per_hour=1))
    allowance.take("alice@example.org")
    with pytest.raises(DirectoryUnavailable, match=r"too many wrong passwords for one name"):
        allowance.take("alice@example.org")


def test_right_passwords_do_not_count(clock):
    allowance = GuessAllowance(clock, LIMIT)
    for _ in range(100):
        allowance.take("alice")
        allowance.give_back("alice")
    assert taken(allowance, "alice", 10) == 3


def test_nobody_gets_more_back_than_was_taken(clock):
    allowance = GuessAllowance(clock, LIMIT)
    for _ in range(100):
        allowance.give_back("alice")
    assert taken(allowance, "alice", 10) == 3


def test_accounts_are_counted_apart(clock):
    allowance = GuessAllowance(clock, LIMIT)
    assert taken(allowance, "alice", 10) == 3
    assert taken(allowance, "bob", 10) == 3


def test_the_table_is_bounded_and_forgets_the_quietest(clock):
    allowance = GuessAllowance(clock, LIMIT, size=10)
    for number in range(1000):
        taken(allowance, "alice", 1)  # guessed at all the time
        taken(allowance, f"name{number}", 1)
    assert taken(allowance, "alice", 1) == 0
    assert len(allowance._left) == 10  # noqa: SLF001 - the bound itself


@given(st.lists(st.tuples(st.sampled_from(["take", "give_back", "wait"]), st.floats(0, 10_000)), max_size=50))
def test_an_allowance_stays_between_nothing_and_the_burst(steps):
    clock = Clock()
    allowance = GuessAllowance(clock, LIMIT)
    for step, seconds in steps:
        if step == "wait":
            clock.advance(seconds)
        elif step == "take":
            taken(allowance, "alice", 1)
        else:
            allowance.give_back("alice")
    assert taken(allowance, "alice", 10) <= 3


@pytest.mark.parametrize("values", [(0, 1), (1, 0)])
def test_a_limit_that_lets_nobody_in_is_refused(values):
    with pytest.raises(ValueError, match="or more"):
        GuessLimit(*values)


# ------------------------------------------------------------------------------------------- recent logins


def test_a_password_is_known_for_a_while_with_its_account_and_hash_only(clock):
    recent = RecentLogins(clock, lifetime=300)
    recent.remember("alice", "hash", b"secret")
    assert recent.knows("alice", "hash", b"secret")
    assert not recent.knows("alice", "hash", b"Secret")
    assert not recent.knows("alice", "new hash", b"secret")
    assert not recent.knows("bob", "hash", b"secret")
    clock.advance(299)
    assert recent.knows("alice", "hash", b"secret")  # and this does not renew it
    clock.advance(1)
    assert not recent.knows("alice", "hash", b"secret")


def test_the_fields_cannot_run_into_one_another(clock):
    recent = RecentLogins(clock)
    recent.remember("ab", "c", b"d")
    assert not recent.knows("a", "bc", b"d")
    assert not recent.knows("ab", "cd", b"")


def test_no_password_is_kept(clock):
    recent = RecentLogins(clock)
    password = bytes.fromhex("5ec4e7" * 11)
    recent.remember("alice", "hash", password)
    assert not any(password in entry for entry in recent._until)  # noqa: SLF001 - what is kept, octet by octet
    assert all(one is password or password not in one for one in gc.get_objects() if isinstance(one, bytes))


def test_each_process_has_a_key_of_its_own(clock):
    one, other = RecentLogins(clock), RecentLogins(clock)
    one.remember("alice", "hash", b"secret")
    other.remember("alice", "hash", b"secret")
    assert set(one._until).isdisjoint(other._until)  # noqa: SLF001 - what is kept


def test_the_latest_are_remembered_up_to_a_bound(clock):
    recent = RecentLogins(clock, size=10)
    for number in range(100):
        recent.remember(f"user{number}", "hash", b"secret")
    known = [number for number in range(100) if recent.knows(f"user{number}", "hash", b"secret")]
    assert known == list(range(90, 100))
