"""`customer show`: what is held, until when, what the quota leaves, how turns ended; for people and for programs."""

import json
import sqlite3
import time
from contextlib import closing

import pytest
from click.testing import CliRunner

from mailsuite.admin.command import root
from mailsuite.spool import schema
from mailsuite.spool.opening import database
from tests.admin.test_accounts import expect_refusal, expect_success

CONFIGURATION = """
hostname = "mx.example.org"
data_directory = "data"

[[customer]]
name = "Home"
domains = ["home.example", "shed.example"]
password = "h0me-p4ss"
hold_time = "7d"
max_messages = 10
max_size = "64 KiB"
"""
DAY = 86400.0


@pytest.fixture
def run(tmp_path):
    """Run a command line under a configuration with one customer."""
    config = tmp_path / "mailsuite.toml"
    config.write_text(CONFIGURATION)
    (tmp_path / "data").mkdir()
    return lambda *arguments: CliRunner().invoke(root, ["--config", str(config), *arguments])


@pytest.fixture
def spool(tmp_path):
    """A queue as a server leaves it."""
    directory = tmp_path / "data" / "spool"
    directory.mkdir()
    path = database(str(directory))
    with closing(schema.connect(path)) as db:
        schema.migrate(db, path)
        yield db


def hold(db: sqlite3.Connection, number: int, domain: str, arrived: float, size: int) -> None:
    db.execute(
        "INSERT INTO messages (key, queue_id, reverse_local_part, reverse_domain, body, smtputf8, arrived, size,"
        " in_file) VALUES (?, ?, 'bob', 'example.net', '7BIT', 0, ?, ?, 0)",
        (number, f"HOE{number}", arrived, size),
    )
    db.execute(
        "INSERT INTO recipients (message, local_part, domain, destination, due) VALUES (?, 'me', ?, ?, ?)",
        (number, domain, f"hold:{domain}", arrived),
    )


def note(db: sqlite3.Connection, kind: str, at: float, *, subject: str = "Home", queue_id=None, **detail) -> None:
    db.execute(
        "INSERT INTO events (time, kind, subject, queue_id, detail) VALUES (?, ?, ?, ?, ?)",
        (at, kind, subject, queue_id, json.dumps(detail)),
    )


def shown(run, *options):
    result = run("customer", "show", "home", "--json", *options)
    expect_success(result)
    return json.loads(result.stdout)


# ------------------------------------------------------------------------------------------------- held


def test_held_mail_is_told_for_each_domain_and_in_all(run, spool):
    hold(spool, 1, "home.example", 1000.0, 4000)
    hold(spool, 2, "home.example", 2000.0, 500)
    hold(spool, 3, "shed.example", 1500.0, 30)
    hold(spool, 4, "other.example", 10.0, 9999)  # somebody else's
    row = shown(run)
    home, shed = row["domains"]
    expires = 1000.0 + 7 * DAY
    assert home == {"domain": "home.example", "messages": 2, "octets": 4500, "oldest": 1000.0, "expires": expires}
    assert shed == {
        "domain": "shed.example",
        "messages": 1,
        "octets": 30,
        "oldest": 1500.0,
        "expires": 1500.0 + 7 * DAY,
    }
    assert row["held"] == {"messages": 3, "octets": 4530, "oldest": 1000.0, "expires": expires}
    assert row["quota"] == {"max_messages": 10, "max_size": 65536, "messages_left": 7, "octets_left": 61006}


def test_a_quota_that_is_exceeded_leaves_nothing(run, spool):
    hold(spool, 1, "home.example", 1000.0, 70_000)
    assert shown(run)["quota"]["octets_left"] == 0


def test_the_table_has_ages_expiries_and_a_sum(run, spool):
    now = time.time()
    hold(spool, 1, "home.example", now - 2 * DAY, 4096)
    hold(spool, 2, "shed.example", now - 9 * DAY, 100)
    result = run("customer", "show", "home")
    expect_success(result)
    home, shed, total = (line for line in result.stdout.splitlines() if line.startswith(("home", "shed", "in all")))
    assert "4.0 KiB" in home
    assert "(2 days ago)" in home
    assert "(in 5 days)" in home
    assert "100 octets" in shed
    assert "(now)" in shed
    assert total.split()[2] == "2"
    assert "Quota: 8 of 10 messages left, 59.9 KiB of 64.0 KiB left." in result.stdout


# -------------------------------------------------------------------------------------------------- turns


def test_turns_that_broke_at_once_are_told_together(run, spool):
    note(spool, "turn", time.time(), messages=0, octets=0, complete=False, text="the line broke", times=37)
    result = run("customer", "show", "home")
    expect_success(result)
    assert "broke off: the line broke (37 times)" in result.stdout


def test_turns_and_losses_are_told_latest_first_and_apart(run, spool):
    note(
        spool,
        "turn",
        100.0,
        messages=2,
        octets=10,
        seconds=0.5,
        address="192.0.2.1",
        complete=True,
        text="all was sent",
    )
    note(spool, "expired", 150.0, queue_id="HOE1", domain="home.example", octets=5, text="Held for 7 days")
    note(spool, "etrn", 200.0, node="home.example", messages=1, address="192.0.2.1")
    note(spool, "warned", 250.0, until=1.0, messages=3)
    note(spool, "turn", 300.0, messages=1, octets=5, seconds=9, address="192.0.2.2", complete=False, text="cut")
    note(spool, "turn", 400.0, subject="ship", messages=1)
    note(spool, "pull", 500.0, messages=1)  # a pull may have a customer's name
    row = shown(run)
    assert [(one["kind"], one["time"]) for one in row["turns"]] == [("turn", 300.0), ("etrn", 200.0), ("turn", 100.0)]
    assert row["turns"][0] == {
        "time": 300.0,
        "kind": "turn",
        "queue_id": None,
        "messages": 1,
        "octets": 5,
        "seconds": 9,
        "address": "192.0.2.2",
        "complete": False,
        "text": "cut",
    }
    assert [one["kind"] for one in row["losses"]] == ["warned", "expired"]
    assert [one["time"] for one in shown(run, "--last", "1")["turns"]] == [300.0]


def test_turns_are_a_table_for_people(run, spool):
    ended = {"messages": 3, "octets": 2048, "seconds": 1.25, "address": "192.0.2.1"}
    note(spool, "turn", 100.0, **ended, deferred=2, failed=0, complete=False, text="the line\x1b[2J broke")
    note(spool, "etrn", 90.0, node="@home.example", messages=1, address="192.0.2.7")
    note(spool, "expired", 80.0, queue_id="HOE1", text="Held for 7 days and not collected")
    result = run("customer", "show", "HOME")
    expect_success(result)
    lines = result.stdout.splitlines()
    turn, etrn = (next(line for line in lines if kind in line) for kind in ("ATRN", "ETRN"))
    cells = [cell for cell in turn.split("  ") if cell][1:]
    assert [cell.strip() for cell in cells] == [
        "ATRN",
        "192.0.2.1",
        "3",
        "2.0 KiB",
        "1.2 s",
        "broke off: the line?[2J broke; 2 deferred",
    ]
    assert "asked for @home.example" in etrn
    assert "HOE1: Held for 7 days and not collected" in result.stdout


def test_when_it_was_seen_last_is_told_also_where_there_was_no_mail(run, spool):
    now = time.time()
    note(spool, "turn", now - 7200, messages=1, address="192.0.2.1", complete=True, text="all was sent")
    note(spool, "seen", now - 600, messages=0, address="192.0.2.2", text="no mail")
    note(spool, "login refused", now - 60, address="192.0.2.3", mechanism="PLAIN", code=535, text="wrong\x1b")
    row = shown(run, "--last", "0")
    assert (row["last_seen"]["time"], row["last_seen"]["address"]) == (now - 600, "192.0.2.2")
    assert row["last_refused_login"]["mechanism"] == "PLAIN"
    assert (row["turns"], len(shown(run)["turns"])) == ([], 1)
    lines = run("customer", "show", "home").stdout.splitlines()
    seen, refused = (next(line for line in lines if line.startswith(start)) for start in ("Last seen", "Last refused"))
    assert seen.endswith("(10 minutes ago) from 192.0.2.2, no mail.")
    assert refused.endswith("(60 seconds ago) from 192.0.2.3 by PLAIN, wrong?.")


def test_terms_are_shown(run):
    run(
        *("customer", "add", "ship", "--domain", "ship.example", "--no-password", "--contact", "a@ship.example"),
        *("--network", "192.0.2.0/24", "--next-hop", "mx.ship.example", "--turn-interval", "15m", "--no-pipelining"),
        *("--recipients", "list"),
    )
    lines = run("customer", "show", "ship").stdout.splitlines()
    for line in (
        "Contact: a@ship.example.",
        "Warned: 3d before mail expires.",
        "Logs in from: 192.0.2.0/24.",
        "Turns: command by command, one at a time, 15m apart.",
        "Next hop: mx.ship.example.",
        "Recipients: those on its list.",
        "Last seen: never, as far as the record goes.",
    ):
        assert line in lines
    terms = json.loads(run("customer", "show", "ship", "--json").stdout)["terms"]
    assert (terms["networks"], terms["turn_interval"], terms["pipelining"]) == (["192.0.2.0/24"], 900.0, False)


# ---------------------------------------------------------------------------------------- nothing, and faults


def test_without_a_queue_nothing_is_held(run):
    row = shown(run)
    assert row["held"] == {"messages": 0, "octets": 0, "oldest": None, "expires": None}
    assert (row["turns"], row["losses"]) == ([], [])
    result = run("customer", "show", "home")
    expect_success(result)
    assert "No turn is on record." in result.stdout


def test_a_customer_of_the_directory_is_shown(run):
    added = run("customer", "add", "ship", "--domain", "ship.example", "--generate")
    assert added.exit_code == 0
    result = run("customer", "show", "ship")
    expect_success(result)
    assert "ship.example" in result.stdout
    assert "Quota: none." in result.stdout


def test_an_unknown_customer_is_a_sentence(run):
    run("customer", "add", "ship", "--domain", "ship.example", "--generate")
    expect_refusal(run("customer", "show", "boat"), "there is no customer 'boat'", "mailsuite customer list")


def test_a_queue_that_cannot_be_read_is_a_sentence(run, tmp_path):
    directory = tmp_path / "data" / "spool"
    directory.mkdir()
    (directory / "queue.db").write_text("this is no database, but long enough to be looked at" * 20)
    expect_refusal(run("customer", "show", "home"), "queue.db cannot be read")


def test_the_queue_of_another_version_is_a_sentence(run, spool):
    spool.execute("PRAGMA user_version = 99")
    expect_refusal(run("customer", "show", "home"), "another version")
