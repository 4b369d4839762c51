"""The file: its mode and owner, its pragmas, migrations, and files that are not ours."""

import os
import sqlite3

import pytest

from mailsuite.accounts.directory import DirectoryFile
from mailsuite.accounts.errors import DirectoryError
from mailsuite.accounts.schema import APPLICATION_ID, MIGRATIONS, connect_for_editing, connect_for_reading


def mode_of(path):
    return path.stat().st_mode & 0o777


def test_a_new_file_is_for_its_owner_alone_whatever_the_umask(path):
    before = os.umask(0)
    try:
        db = connect_for_editing(path, create=True)
    finally:
        os.umask(before)
    db.execute("INSERT INTO domains VALUES ('example.org')")
    beside = sorted(path.parent.glob(f"{path.name}*"))
    assert [mode_of(one) for one in beside] == [0o600] * 3  # with -wal and -shm
    db.close()


def test_a_file_that_others_may_read_is_closed_to_them(path):
    connect_for_editing(path, create=True).close()
    path.chmod(0o644)
    connect_for_editing(path, create=False).close()
    assert mode_of(path) == 0o600


def test_a_file_made_by_root_belongs_to_the_owner_of_its_directory(path):
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    os.chown(path.parent, 12345, 23456)
    db = connect_for_editing(path, create=True)
    db.execute("INSERT INTO domains VALUES ('example.org')")
    owners = {(one.stat().st_uid, one.stat().st_gid) for one in path.parent.iterdir()}
    db.close()
    assert owners == {(12345, 23456)}


def test_commits_are_synced_keys_enforced_and_deletes_overwritten(path):
    db = connect_for_editing(path, create=True)
    pragmas = {
        name: db.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("journal_mode", "synchronous", "foreign_keys", "secure_delete", "user_version", "application_id")
    }
    db.close()
    assert pragmas == {
        "journal_mode": "wal",
        "synchronous": 2,  # FULL
        "foreign_keys": 1,
        "secure_delete": 1,
        "user_version": len(MIGRATIONS),
        "application_id": APPLICATION_ID,
    }


def test_what_is_read_only_cannot_be_written(path):
    connect_for_editing(path, create=True).close()
    db = connect_for_reading(path)
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        db.execute("INSERT INTO domains VALUES ('example.org')")
    db.close()


def test_a_file_is_not_made_by_those_who_only_edit(path):
    with pytest.raises(DirectoryError, match=r"no directory of accounts.*mailsuite domain add"):
        DirectoryFile(path)
    assert not path.exists()


def test_a_missing_parent_is_named(tmp_path):
    with pytest.raises(DirectoryError, match=r"nowhere does not exist; make it"):
        DirectoryFile(tmp_path / "nowhere" / "accounts.db", create=True)


def test_an_empty_file_becomes_a_directory(path):
    path.touch()
    with DirectoryFile(path) as directory:
        assert directory.domains() == []


def test_a_database_of_something_else_is_left_alone(path):
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE something (else_ TEXT)")
    other.close()
    before = path.read_bytes()
    with pytest.raises(DirectoryError, match="not a directory of accounts"):
        DirectoryFile(path)
    with pytest.raises(DirectoryError, match="not a directory of accounts"):
        connect_for_reading(path)
    assert path.read_bytes() == before


def test_a_file_that_is_no_database_is_refused_in_a_sentence(path):
    path.write_text("alice:secret\n" * 100)
    with pytest.raises(DirectoryError, match=r"cannot be used: file is not a database"):
        DirectoryFile(path)
    assert path.read_text().startswith("alice:secret")


def test_a_directory_in_the_place_of_the_file_is_refused_in_a_sentence(path):
    path.mkdir()
    with pytest.raises(DirectoryError, match="cannot be used"):
        DirectoryFile(path, create=True)


def test_a_file_of_a_newer_version_is_refused(path):
    db = connect_for_editing(path, create=True)
    db.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    db.close()
    for connect in (DirectoryFile, connect_for_reading):
        with pytest.raises(DirectoryError, match="newer mailsuite; update"):
            connect(path)


def test_a_reader_does_not_bring_a_file_up_to_date(path):
    path.touch()
    with pytest.raises(DirectoryError, match="older mailsuite"):
        connect_for_reading(path)
    assert path.stat().st_size == 0


def test_a_migration_that_fails_leaves_nothing(path, monkeypatch):
    broken = (*MIGRATIONS, ("CREATE TABLE extra (a)", "CREATE TABLE domains (again)"))
    connect_for_editing(path, create=True).close()
    monkeypatch.setattr("mailsuite.accounts.schema.MIGRATIONS", broken)
    with pytest.raises(DirectoryError, match="cannot be used"):
        DirectoryFile(path)
    monkeypatch.undo()
    db = connect_for_reading(path)
    assert db.execute("SELECT count(*) FROM sqlite_master WHERE name = 'extra'").fetchone() == (0,)
    db.close()


def test_names_that_are_special_in_uris_are_plain_here(tmp_path):
    path = tmp_path / "a?mode=memory#b %41.db"
    with DirectoryFile(path, create=True) as directory:
        directory.add_domain("example.org")
    assert path.exists()
    connect_for_reading(path).close()
