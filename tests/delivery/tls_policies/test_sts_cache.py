"""MTA-STS policies on the disk, and what becomes of disks."""

import sqlite3

import pytest

from mailsuite.delivery.tls_policies.sts_cache import Stored, StsCache
from mailsuite.delivery.tls_policies.sts_policy import parse_policy
from tests.delivery.tls_policies.fakes import POLICY, in_no_thread, now

STORED = Stored("1", parse_policy(POLICY), POLICY, 1000.0)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "mta-sts.db"


@pytest.fixture
def cache(file):
    return StsCache(file, in_no_thread)


def test_policies_survive_a_restart(file, cache):
    now(cache.store("example.org", STORED, 1000.0))
    assert now(StsCache(file, in_no_thread).load("example.org")) == STORED
    assert now(cache.load("example.net")) is None
    assert file.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("octets", [b"", b"garbage" * 1000, b"SQLite format 3\0" + bytes(5000)])
def test_broken_file_is_made_anew(file, cache, octets):
    file.write_bytes(octets)
    assert now(cache.load("example.org")) is None
    now(cache.store("example.org", STORED, 1000.0))
    assert now(cache.load("example.org")) == STORED


def test_file_that_breaks_later_is_made_anew(file, cache):
    for number in range(60):
        now(cache.store(f"{number}.example", STORED, 1000.0))
    with file.open("r+b") as disk:
        disk.seek(4096)
        disk.write(b"\xff" * (file.stat().st_size - 4096))
    now(cache.due(tried_before=1e9, used_after=0, now=1001.0, limit=10))
    now(cache.store("example.org", STORED, 1000.0))
    assert now(cache.load("example.org")) == STORED


def test_file_of_a_later_version_is_made_anew(file, cache):
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA user_version = 7")
    connection.close()
    now(cache.store("example.org", STORED, 1000.0))
    assert now(cache.load("example.org")) == STORED


def test_lost_file_is_made_anew(file, cache):
    now(cache.store("example.org", STORED, 1000.0))
    file.unlink()
    assert now(cache.load("example.org")) is None
    now(cache.store("example.org", STORED, 1000.0))
    assert now(cache.load("example.org")) == STORED


def test_place_that_cannot_be_written_is_no_obstacle(tmp_path):
    cache = StsCache(tmp_path / "none" / "mta-sts.db", in_no_thread)
    now(cache.store("example.org", STORED, 1000.0))
    assert now(cache.load("example.org")) is None
    assert now(cache.due(tried_before=1e9, used_after=0, now=0, limit=10)) == []


def test_row_that_makes_no_sense_is_no_policy(file, cache):
    now(cache.store("example.org", STORED, 1000.0))
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE policies SET body = 'x'")
    connection.close()
    assert now(cache.load("example.org")) is None


def test_policies_are_due_by_their_last_try_while_they_are_in_use(cache):
    for domain, when in (("c.example", 30.0), ("a.example", 10.0), ("b.example", 20.0)):
        now(cache.store(domain, STORED, when))
    now(cache.note_use("a.example", 500.0))
    assert now(cache.due(tried_before=25.0, used_after=0, now=1001.0, limit=10)) == ["a.example", "b.example"]
    assert now(cache.due(tried_before=25.0, used_after=0, now=1001.0, limit=1)) == ["a.example"]
    assert now(cache.due(tried_before=99.0, used_after=100.0, now=1001.0, limit=9)) == ["a.example"]
    now(cache.note_try("a.example", 99.0))
    assert now(cache.due(tried_before=25.0, used_after=0, now=1001.0, limit=10)) == ["b.example"]
    now(cache.renew("b.example", STORED._replace(id="2"), 60.0))
    assert now(cache.due(tried_before=25.0, used_after=0, now=1001.0, limit=10)) == []
    assert now(cache.load("b.example")).id == "2"


def test_what_has_expired_is_forgotten(cache):
    now(cache.store("example.org", STORED, 1000.0))
    assert now(cache.due(tried_before=1e9, used_after=0, now=STORED.expires + 1, limit=10)) == []
    assert now(cache.load("example.org")) is None
