"""Why a file cannot be used, and what helps."""

import sqlite3

import pytest

from mailsuite.accounts.errors import unusable


def test_who_is_not_permitted_is_told_who_is(tmp_path):
    path = tmp_path / "accounts.db"
    said = unusable(path, PermissionError(13, "Permission denied"), what="read")
    assert said == f"{path} cannot be read (permission denied); run this as the user who serves, or as root"
    with pytest.raises(sqlite3.OperationalError) as raised:
        sqlite3.connect(f"file:{tmp_path}/nowhere/a?mode=ro", uri=True)
    assert unusable(path, raised.value).endswith("; run this as the user who serves, or as root")
    assert unusable(path, OSError(5, "I/O error")) == f"{path} cannot be used: [Errno 5] I/O error"
