"""`mailsuite check`: what it notes of a configuration that nothing is wrong with."""

from pathlib import Path
from time import time

import pytest
from click.testing import CliRunner

from mailsuite.accounts.directory import DirectoryFile
from mailsuite.admin.command import root
from mailsuite.admin.notes import notes
from mailsuite.config import Settings
from tests.peers.certificate import self_signed

ODMR = {"endpoint": "tcp:0", "service": "odmr"}
PULL = {"name": "main", "provider": "odmr.example", "username": "u", "password": "p", "push": "none"}
SERVER = {"hostname": "mail.example", "listen": [{"endpoint": "tcp:0"}], "accounts": {"postmaster": "me@mail.example"}}
DAY = 86400.0


def noted(directory, local=frozenset(), now=0.0, **table):
    settings = Settings.parse({**SERVER, **table}, "m.toml", directory)
    return list(notes(settings, local, now or time()))


def test_a_good_configuration_has_no_notes(tmp_path):
    home = {"name": "home", "domains": ["home.example"], "password": "p"}
    by_certificate = {"name": "ship", "domains": ["ship.example"], "certificate": "ship.example"}
    assert noted(tmp_path, customer=[home, by_certificate], pull=[PULL]) == []


@pytest.mark.parametrize(
    ("table", "local", "is_missed"),
    [
        ({}, frozenset(), True),
        ({"listen": [ODMR]}, frozenset(), False),
        ({"customer": [{"name": "x", "domains": ["x.example"], "password": "p"}]}, frozenset(), False),
        ({"listen": [ODMR]}, frozenset({"mail.example"}), True),
        ({"listen": [ODMR]}, None, True),
    ],
)
def test_the_postmaster_is_missed_where_there_may_be_domains(tmp_path, table, local, is_missed):
    found = noted(tmp_path, local, accounts={}, **table)
    assert [one.partition(" ")[0] for one in found] == (["accounts.postmaster"] if is_missed else [])


def test_a_customer_that_cannot_log_in_is_noted(tmp_path):
    [note] = noted(tmp_path, customer=[{"name": "home", "domains": ["home.example"]}])
    assert note.startswith("customer home: it cannot log in: it has neither a password nor a certificate; add ")


@pytest.mark.parametrize(
    ("terms", "is_noted"),
    [
        ({"interval": 0, "at_start": False}, True),
        ({"interval": 0, "at_start": False, "times": ["30 6 * * *"]}, False),
        ({"interval": 0}, False),
        ({"at_start": False}, False),
    ],
)
def test_a_pull_that_never_begins_is_noted(tmp_path, terms, is_noted):
    assert ["never begins by itself" in note for note in noted(tmp_path, pull=[{**PULL, **terms}])] == [True] * is_noted


@pytest.mark.parametrize(
    ("hostname", "later", "part"),
    [
        ("mail.example", 0, None),
        ("mail.example", 40000 * DAY, "it has expired on"),
        ("mail.example", -400 * DAY, "it is not valid before"),
        ("other.example", 0, "it is not for other.example, but for mail.example"),
    ],
)
def test_a_certificate_that_does_not_do_is_noted(tmp_path, hostname, later, part):
    made = self_signed(tmp_path, "mail.example")
    tls = {"certificate": str(made.chain), "key": str(made.key)}
    found = noted(tmp_path, now=time() + later, hostname=hostname, tls=tls)
    # Those of tests are valid for some days only, so they expire soon.
    found = [note for note in found if "it expires on" not in note]
    assert len(found) == (part is not None)
    assert all(part in note and note.startswith(f"tls.certificate: {made.chain}") for note in found)


def check(directory: Path, text: str):
    config = directory / "m.toml"
    config.write_text(f'hostname = "mail.example"\ndata_directory = "data"\n{text}')
    return CliRunner().invoke(root, ["check", str(config)])


def test_notes_go_to_stderr_and_faults_end_with_status_1(tmp_path):
    customer = '[[customer]]\nname = "home"\ndomains = ["home.example"]\n'
    result = check(tmp_path, customer)
    assert (result.exit_code, result.stdout) == (0, f"{tmp_path / 'm.toml'}: nothing is wrong with it.\n")
    assert result.stderr.startswith("Note: customer home: it cannot log in")
    (tmp_path / "data").mkdir()
    with DirectoryFile(tmp_path / "data" / "accounts.db", create=True) as accounts:
        accounts.add_domain("home.example")
    result = check(tmp_path, customer)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "home.example is held for 'home' in the configuration, and a local domain as well; take" in result.stderr
