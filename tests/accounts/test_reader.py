"""The reader: one account, the whole as a snapshot, changes by others, files that come and go."""

import shutil
import threading

import pytest

from mailsuite.accounts.directory import DirectoryFile
from mailsuite.accounts.reader import DirectoryReader
from mailsuite.interfaces import DirectoryUnavailable
from mailsuite.mail.address import Address
from mailsuite.mail.session import SecretKind
from tests.accounts.conftest import CHEAP


def test_a_snapshot_holds_domains_mailboxes_and_aliases(directory, reader):
    directory.add_user("alice@example.org", "secret", further=["sales@example.org", "@example.org"])
    directory.add_alias("info@example.org", ["bob@example.net", "alice@example.org"])
    snapshot = reader.snapshot()
    alice = Address("alice", "example.org")
    assert snapshot.domains == {"example.org"}
    assert snapshot.entries == {
        ("alice", "example.org"): alice,
        ("sales", "example.org"): alice,
        ("", "example.org"): alice,
        ("info", "example.org"): (alice, Address("bob", "example.net")),
    }


def test_a_snapshot_cannot_be_changed(directory, reader):
    snapshot = reader.snapshot()
    with pytest.raises(TypeError):
        snapshot.entries["alice", "example.org"] = Address("mallory", "example.org")


def test_a_snapshot_is_made_only_when_something_has_changed(directory, reader):
    first = reader.snapshot()
    assert reader.snapshot(first.version) is None
    directory.add_user("alice@example.org", None)
    second = reader.snapshot(first.version)
    assert ("alice", "example.org") in second.entries
    assert reader.snapshot(second.version) is None


def test_nothing_secret_is_in_a_snapshot_or_a_repr(directory, reader):
    directory.add_user("alice@example.org", "s3cr3t", keep=list(SecretKind))
    account = reader.account(("alice", "example.org"))
    text = repr(reader.snapshot()) + repr(dict(reader.snapshot().entries)) + repr(account)
    assert "alice" in text
    for secret in ("s3cr3t", "$argon2id$", repr(account.secrets.scram.stored_key)):
        assert secret not in text


def test_nobody_has_a_key_that_is_not_there(directory, reader):
    assert reader.account(("alice", "example.org")) is None
    assert reader.account(("", "")) is None
    assert reader.account(("nul\0", "example.org")) is None


def test_a_missing_file_is_unavailable_until_it_is_made(path, reader):
    for ask in (reader.snapshot, lambda: reader.account(("alice", "example.org"))):
        with pytest.raises(DirectoryUnavailable, match=r"accounts\.db cannot be read"):
            ask()
    reader.prepare()
    assert reader.snapshot().domains == frozenset()


def test_a_file_that_cannot_be_made_is_unavailable(tmp_path):
    with pytest.raises(DirectoryUnavailable, match="does not exist"):
        DirectoryReader(tmp_path / "nowhere" / "accounts.db").prepare()


def test_a_broken_file_is_unavailable_and_a_mended_one_is_read(directory, path, reader, tmp_path):
    directory.add_user("alice@example.org", None)
    directory.close()
    good = tmp_path / "good"
    shutil.copy(path, good)
    version = reader.snapshot().version
    reader.close()
    path.write_bytes(b"not a database " * 500)
    with pytest.raises(DirectoryUnavailable, match="not a database"):
        reader.snapshot(version)
    with pytest.raises(DirectoryUnavailable):
        reader.account(("alice", "example.org"))
    good.rename(path)
    assert ("alice", "example.org") in reader.snapshot(version).entries


def test_a_file_that_takes_the_place_of_the_open_one_is_read(directory, path, reader, tmp_path):
    version = reader.snapshot().version
    other = tmp_path / "restored.db"
    with DirectoryFile(other, create=True, cost=CHEAP) as restored:
        restored.add_domain("example.net")
    directory.close()
    other.rename(path)
    assert reader.snapshot(version).domains == {"example.net"}


def test_a_reader_that_was_closed_opens_again(directory, reader):
    version = reader.snapshot().version
    reader.close()
    reader.close()
    assert reader.snapshot(version).domains == {"example.org"}


def test_readers_do_not_wait_for_a_writer(directory, reader):
    directory._db.execute("BEGIN IMMEDIATE")  # noqa: SLF001 - an editor in the middle of a change
    directory._db.execute("INSERT INTO domains VALUES ('example.net')")  # noqa: SLF001
    assert reader.snapshot().domains == {"example.org"}
    directory._db.execute("COMMIT")  # noqa: SLF001
    assert reader.snapshot().domains == {"example.org", "example.net"}


def test_many_threads_may_ask_at_once(directory, reader):
    directory.add_user("alice@example.org", None)
    seen = []

    def ask():
        for _ in range(50):
            seen.append(reader.account(("alice", "example.org")).name)
            reader.snapshot()

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == ["alice@example.org"] * 200
