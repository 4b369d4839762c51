"""Whose parts of messages go when there are too many."""

import pytest

from mailsuite.spool.allowance import Allowance, Bounds, owner_of, to_go

BOUNDS = Bounds(10, 1000, 60.0, stranger=Allowance(3, 300), known=Allowance(6, 600))


def host(number, transid="1@c"):
    return f"{transid} host 192.0.2.{number} client.example"


def account(name, transid="1@c"):
    return f"{transid} account {name}"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("1@c host 192.0.2.1 a.example", "2@d host 192.0.2.1 b.example", True),
        ("1@c host 192.0.2.1 a.example", "1@c host 192.0.2.2 a.example", False),
        ("1@c host 2001:db8::1 a.example", "1@c host 2001:db8::ffff:1 a.example", True),
        ("1@c host 2001:db8::1 a.example", "1@c host 2001:db8:0:1::1 a.example", False),
        ("1@c host ::ffff:192.0.2.1 a.example", "1@c host ::ffff:192.0.2.2 a.example", False),
        ("1@c host fe80::1%eth0 a.example", "1@c host fe80::2%eth0 a.example", True),
        ("1@c host  a.example", "1@c host  b.example", True),
        ("1@c account fred@example.org", "2@c account fred@example.org", True),
        ("1@c account fred@example.org", "1@c account anna@example.org", False),
        ("1@c account ship", "1@c customer ship", False),
        ("1@c peer mx.example", "1@c host mx.example x", False),
        ("a", "b", True),
    ],
)
def test_owners(one, other, same) -> None:
    assert (owner_of(one) == owner_of(other)) is same


@pytest.mark.parametrize(
    ("name", "allowance"),
    [
        (host(1), BOUNDS.stranger),
        (account("fred"), BOUNDS.known),
        ("1@c customer ship", BOUNDS.known),
        ("1@c peer mx.example", BOUNDS.known),
        ("1@account host 192.0.2.1 account fred", BOUNDS.stranger),
        ("1@c", BOUNDS.stranger),
    ],
)
def test_who_has_logged_in_may_have_more(name, allowance) -> None:
    assert BOUNDS.allowance(owner_of(name)) == allowance


def test_nobody_goes_while_there_is_room() -> None:
    assert to_go([], host(1), 300, BOUNDS) == []
    assert to_go([(host(number), 99) for number in range(9)], host(9), 99, BOUNDS) == []


@pytest.mark.parametrize("octets", [301, 601, 1001])
def test_a_part_beyond_its_owners_allowance_makes_nobody_go(octets) -> None:
    kept = [(host(1), 10), (host(1), 10), (host(1), 10)]
    assert to_go(kept, host(1), octets, BOUNDS) is None


def test_beyond_its_allowance_the_oldest_of_the_owner_go() -> None:
    kept = [(host(2), 10), (host(1), 10), (account("fred"), 10), (host(1), 20), (host(1), 30)]
    assert to_go(kept, host(1), 10, BOUNDS) == [1]
    assert to_go(kept, host(1), 260, BOUNDS) == [1, 3]
    assert to_go(kept, host(1), 300, BOUNDS) == [1, 3, 4]
    assert to_go(kept, account("fred"), 590, BOUNDS) == []


def test_beyond_the_number_in_all_the_oldest_of_the_biggest_goes() -> None:
    kept = [(host(1), 10), (host(2), 10), (host(3), 10), (host(3), 10), (host(3), 10)]
    kept += [(account("fred"), 10)] * 5
    assert to_go(kept, host(4), 10, BOUNDS) == [2]
    assert to_go([(host(number), 10) for number in range(10)], host(11), 10, BOUNDS) == [0]


def test_beyond_the_octets_in_all_the_oldest_of_the_biggest_go() -> None:
    kept = [(host(1), 10), (host(2), 290), (host(3), 250), (account("fred"), 300), (host(4), 100)]
    assert to_go(kept, host(5), 100, BOUNDS) == [1]
    assert to_go(kept, host(4), 190, BOUNDS) == [1]
    # The newcomer itself is the biggest.
    assert to_go(kept, host(5), 300, BOUNDS) is None


def test_a_stranger_with_many_addresses_does_not_move_those_with_few_parts() -> None:
    kept = [(account("fred"), 50), (host(250), 17)]
    bounds = Bounds(40, 10_000, 60.0, stranger=Allowance(5, 1000), known=Allowance(20, 2000))
    for number in range(200):
        new = (host(number % 20, f"{number}@c"), 17)
        places = to_go(kept, *new, bounds)
        assert places is not None
        kept = [part for place, part in enumerate(kept) if place not in places] + [new]
    assert len(kept) == 40
    assert kept[:2] == [(account("fred"), 50), (host(250), 17)]
