"""The group `customer`: what it does, prints and refuses; passwords stay out of sight."""

import json
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner

from mailsuite.accounts.reader import DirectoryReader
from mailsuite.admin.command import root
from mailsuite.mail.session import SecretKind
from mailsuite.spool import schema
from mailsuite.spool.opening import database
from tests.admin.test_accounts import expect_refusal, expect_success

CONFIGURATION = """
hostname = "mx.example.org"
data_directory = "data"

[accounts]
default_domain = "example.org"

[[customer]]
name = "home"
domains = ["home.example"]
password = "h0me-p4ss"
hold_time = "7d"
"""


@pytest.fixture
def run(tmp_path):
    """Run a command line under a configuration with one customer; its result has exit_code, stdout and stderr."""
    config = tmp_path / "mailsuite.toml"
    config.write_text(CONFIGURATION)
    (tmp_path / "data").mkdir()

    def run(*arguments, given=None):
        return CliRunner().invoke(root, ["--config", str(config), *arguments], given)

    return run


@pytest.fixture
def furnished(run):
    expect_success(run("domain", "add", "example.org"))
    expect_success(run("customer", "add", "ship", "--domain", "ship.example", "--password-stdin", given="s3cr3t\n"))
    return run


def account_of(tmp_path, name="ship"):
    reader = DirectoryReader(next((tmp_path / "data").glob("*.db")))
    found = reader.account(("", ""), name)
    reader.close()
    return found


def listed(run, name="ship"):
    return next(row for row in json.loads(run("customer", "list", "--json").stdout) if row["name"] == name)


def columns(result):
    return [line.split("  ") for line in result.stdout.splitlines() if line[:1].isalpha()]


# ------------------------------------------------------------------------------------------------------ add


def test_the_first_customer_makes_the_directory(run, tmp_path):
    result = run("customer", "add", "ship", "--domain", "Ship.Example", "--generate")
    assert (result.exit_code, result.stderr) == (0, "added ship, with ship.example\n")
    assert account_of(tmp_path).secrets.shared.decode() == result.stdout.strip()


def test_a_password_is_asked_for_twice_and_never_shown(run, tmp_path):
    result = run("customer", "add", "ship", "--domain", "ship.example", given="s3cr3t\ns3cr3t\n")
    expect_success(result)
    assert "s3cr3t" not in result.output
    assert account_of(tmp_path).secrets.shared == b"s3cr3t"


def test_the_shared_secret_is_kept_unless_told_otherwise(furnished, tmp_path):
    assert account_of(tmp_path).secrets.kinds == frozenset(SecretKind)
    furnished("customer", "add", "x", "--domain", "x.example", "--no-shared-secret", "--generate")
    assert account_of(tmp_path, "x").secrets.kinds == {SecretKind.SCRAM_SHA_256}


def test_a_customer_without_any_login_is_told_of(run):
    result = run("customer", "add", "ship", "--domain", "ship.example", "--no-password")
    assert result.exit_code == 0
    assert "cannot log in yet" in result.stderr
    assert "mailsuite customer passwd ship" in result.stderr
    expect_success(run("customer", "add", "y", "--domain", "y.example", "--no-password", "--certificate", "y.cert"))


def test_every_term_is_taken_in_the_notation_of_the_configuration(run):
    expect_success(
        run(
            *("customer", "add", "ship", "--domain", "a.example", "--domain", "b.example", "--no-password"),
            *("--certificate", "ship.cert", "--network", "192.0.2.0/24", "--network", "2001:db8::/32"),
            *("--contact", "admin@example.net", "--hold-time", "14d", "--warning-time", "12h", "--max-messages", "100"),
            *("--max-size", "2 GiB", "--no-pipelining", "--turn-interval", "5m", "--shared-turns"),
            *(
                "--next-hop",
                "mx.ship.example:2525",
                "--recipients",
                "command",
                "--recipients-command",
                "/bin/echo 'a b'",
            ),
        )
    )
    assert listed(run) == {
        "name": "ship",
        "source": "directory",
        "domains": ["a.example", "b.example"],
        "has_password": False,
        "secrets": [],
        "certificate": "ship.cert",
        "networks": ["192.0.2.0/24", "2001:db8::/32"],
        "contact": "admin@example.net",
        "hold_time": 14 * 86400.0,
        "warning_time": 12 * 3600.0,
        "max_messages": 100,
        "max_size": 2 * 1024**3,
        "pipelining": False,
        "turn_interval": 300.0,
        "shared_turns": True,
        "next_hop": "mx.ship.example:2525",
        "recipients": "command",
        "recipients_command": ["/bin/echo", "a b"],
        "listed": 0,
    }


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--hold-time", "soon"], ["--hold-time", '"5d"']),
        (["--max-size", "-1"], ["--max-size", '"50 MiB"']),
        (["--max-messages", "0"], ["--max-messages", "greater than or equal to 1"]),
        (["--max-messages", "many"], ["--max-messages", "valid integer"]),
        (["--network", "192.0.2.1/24"], ["--network", '"192.0.2.0/24"']),
        (["--contact", "nobody"], ["--contact", "admin@example.org"]),
        (["--next-hop", "a b"], ["--next-hop", "mx.example.net:25"]),
        (["--recipients-command", "a 'b"], ["--recipients-command", "quote it"]),
        (["--recipients-command", ""], ["--recipients-command", "name a command"]),
        (["--recipients", "some"], ["--recipients", "'any'"]),
    ],
)
def test_a_term_that_cannot_be_is_refused_with_its_cure(furnished, options, parts):
    new = ["customer", "add", "x", "--domain", "x.example", "--no-password"]
    expect_refusal(furnished(*new, *options), *parts, status=2)
    expect_refusal(furnished("customer", "set", "ship", *options), *parts, status=2)
    assert listed(furnished)["hold_time"] == 21 * 86400.0


@pytest.mark.parametrize(
    ("name", "domain", "parts"),
    [
        ("SHIP", "x.example", ["there is a customer 'ship' already"]),
        ("x", "ship.example", ["held for the customer 'ship'", "--del-domain"]),
        ("x", "example.org", ["a local domain", "mailsuite domain del"]),
        ("Home", "x.example", ["'home' of the configuration"]),
        ("x", "home.example", ["'home' of the configuration"]),
        ("alice", "x.example", ["the account alice@example.org"]),
    ],
)
def test_nobody_is_asked_for_a_password_in_vain(furnished, name, domain, parts):
    furnished("user", "add", "alice@example.org", "--no-password")
    expect_refusal(furnished("customer", "add", name, "--domain", domain, given="x\nx\n"), *parts)


def test_accounts_and_domains_keep_clear_of_customers(furnished):
    expect_refusal(furnished("domain", "add", "ship.example"), "held for the customer 'ship'")
    expect_refusal(furnished("domain", "add", "home.example"), "'home' of the configuration")
    for local_part in ("ship", "home"):
        expect_refusal(
            furnished("user", "add", f"{local_part}@example.org", "--no-password"), f"the customer '{local_part}'"
        )


def test_options_that_exclude_one_another_are_refused(furnished):
    expect_refusal(
        furnished("customer", "add", "x", "--domain", "x.example", "--generate", "--no-password"),
        "exclude one another",
        status=2,
    )


# ------------------------------------------------------------------------------------- set, passwd, del, list


def test_only_what_is_named_changes(furnished, tmp_path):
    before = listed(furnished)
    expect_success(
        furnished("customer", "set", "SHIP", "--hold-time", "1d", "--add-domain", "boat.example"),
        "changed ship: domains: boat.example, ship.example (was: ship.example); held for: 1d (was: 21d)\n",
    )
    assert listed(furnished) == before | {"hold_time": 86400.0, "domains": ["boat.example", "ship.example"]}
    furnished("customer", "set", "ship", "--del-domain", "ship.example")
    assert listed(furnished)["domains"] == ["boat.example"]
    assert account_of(tmp_path).secrets.shared == b"s3cr3t"


def test_a_change_that_changes_nothing_is_told(furnished):
    expect_success(furnished("customer", "set", "ship", "--hold-time", "21d"), "ship is as it was\n")
    changed = furnished("customer", "set", "ship", "--contact", "a@b.example", "--no-pipelining", "--max-messages", "9")
    assert changed.stdout == (
        "changed ship: contact: a@b.example (was: nobody); warned: 3d before mail expires (was: never); "
        "quota: 9 messages (was: none); turns: command by command, one at a time (was: pipelined, one at a time)\n"
    )


def test_none_takes_away_what_need_not_be_there(furnished):
    optional = {
        "certificate": "c.example",
        "contact": "a@b.example",
        "max-messages": "1",
        "max-size": "1",
        "next-hop": "h.example",
        "network": "192.0.2.0/24",
    }
    before = listed(furnished)
    furnished(
        "customer", "set", "ship", *(part for option in optional.items() for part in (f"--{option[0]}", option[1]))
    )
    assert not any(listed(furnished)[key] in (None, []) for key in ("certificate", "contact", "max_size", "networks"))
    expect_success(furnished("customer", "set", "ship", *(part for name in optional for part in (f"--{name}", "none"))))
    assert listed(furnished) == before


def test_a_change_of_nothing_is_no_change(furnished):
    expect_refusal(furnished("customer", "set", "ship"), "Name what is to change", status=2)


@pytest.mark.parametrize("command", [["set", "home", "--hold-time", "1d"], ["del", "home", "--yes"]])
def test_a_customer_of_the_configuration_is_changed_there(furnished, command):
    expect_refusal(furnished("customer", *command), "stands in the configuration", "[[customer]]")
    expect_refusal(furnished("customer", "recipients", "home", "add", "a@home.example"), "stands in the configuration")


def test_a_password_is_changed(furnished, tmp_path):
    expect_success(
        furnished("customer", "passwd", "Ship", "--password-stdin", given="another\n"), "changed the password of ship\n"
    )
    assert account_of(tmp_path).secrets.shared == b"another"
    furnished("customer", "passwd", "ship", "--no-shared-secret", "--generate")
    assert account_of(tmp_path).secrets.kinds == {SecretKind.SCRAM_SHA_256}
    furnished("customer", "passwd", "ship", "--generate")
    assert account_of(tmp_path).secrets.kinds == {SecretKind.SCRAM_SHA_256}


def test_a_first_password_serves_every_mechanism(run, tmp_path):
    run("customer", "add", "ship", "--domain", "ship.example", "--no-password")
    run("customer", "passwd", "ship", "--generate")
    assert account_of(tmp_path).secrets.kinds == frozenset(SecretKind)


def test_deleting_asks_first(furnished):
    assert furnished("customer", "del", "ship", given="\n").exit_code == 1
    assert listed(furnished)["name"] == "ship"
    expect_success(furnished("customer", "del", "SHIP", "--yes"), "deleted ship\n")
    expect_refusal(furnished("customer", "del", "ship", "--yes"), "no customer 'ship'", "mailsuite customer list")


@pytest.fixture
def held(furnished, tmp_path):
    """A queue in which two messages are held for ship.example, one for boat.example; both are of one customer."""
    expect_success(furnished("customer", "set", "ship", "--add-domain", "boat.example", "--add-domain", "raft.example"))
    directory = tmp_path / "data" / "spool"
    directory.mkdir()
    path = database(str(directory))
    with closing(schema.connect(path)) as db:
        schema.migrate(db, path)
        for number, domain in enumerate(("ship.example", "ship.example", "boat.example", "other.example")):
            db.execute(
                "INSERT INTO messages (key, queue_id, reverse_local_part, reverse_domain, body, smtputf8, arrived,"
                " size, in_file) VALUES (?, ?, 'bob', 'example.net', '7BIT', 0, 1000, 2048, 0)",
                (number, f"Q{number}"),
            )
            db.execute(
                "INSERT INTO recipients (message, local_part, domain, destination, due) VALUES (?, 'me', ?, ?, 1000)",
                (number, domain, f"hold:{domain}"),
            )
    return path


FATE = "goes back to its senders 21 days after it came, unless the domain is given to a customer before."


def test_who_deletes_a_customer_is_told_what_is_held_for_it(furnished, held):
    told = f"3 messages are held for boat.example, ship.example (6.0 KiB): that stays held, and {FATE}\n"
    refused = furnished("customer", "del", "ship", given="\n")
    assert (refused.exit_code, listed(furnished)["name"]) == (1, "ship")
    assert told in refused.output
    deleted = furnished("customer", "del", "ship", "--yes")
    assert (deleted.exit_code, deleted.stdout, deleted.stderr) == (0, "deleted ship\n", told)


def test_who_takes_a_domain_away_is_told_and_asked(furnished, held):
    told = f"1 message is held for boat.example (2.0 KiB): that stays held, and {FATE}\n"
    refused = furnished("customer", "set", "ship", "--del-domain", "Boat.Example", given="n\n")
    assert refused.exit_code == 1
    assert told in refused.output
    assert "boat.example" in listed(furnished)["domains"]
    for domain, stderr in (("boat.example", told), ("raft.example", "")):
        taken = furnished("customer", "set", "ship", "--del-domain", domain, *(["--yes"] if stderr else []))
        assert (taken.exit_code, taken.stderr) == (0, stderr)
    assert listed(furnished)["domains"] == ["ship.example"]


def test_a_queue_that_cannot_be_read_is_told(furnished, held):
    Path(held).write_bytes(b"nonsense" * 1000)
    result = furnished("customer", "del", "ship", given="n\n")
    assert result.exit_code == 1
    assert "How much is held cannot be told" in result.output
    assert listed(furnished)["name"] == "ship"


@pytest.mark.parametrize(
    "terms",
    [["--hold-time", "2d", "--warning-time", "50h"], ["--hold-time", "2d", "--contact", "me@example.net"]],
)
def test_a_warning_before_there_is_mail_is_refused(furnished, terms):
    parts = ["warning time", "longer than its hold time", "--warning-time"]
    before = listed(furnished)
    expect_refusal(furnished("customer", "add", "x", "--domain", "x.example", "--no-password", *terms), *parts)
    expect_refusal(furnished("customer", "set", "ship", *terms), *parts)
    assert listed(furnished) == before
    expect_success(furnished("customer", "set", "ship", *terms, "--warning-time", "2d"))


EMPTY = "the list is empty: all mail for {} but the postmaster's is refused until `mailsuite customer recipients {} add"


def test_an_empty_list_of_recipients_is_told_of(furnished):
    result = furnished("customer", "set", "ship", "--recipients", "list")
    assert result.exit_code == 0
    assert result.stderr.startswith(EMPTY.format("ship", "ship"))
    expect_success(furnished("customer", "recipients", "ship", "add", "me@ship.example"))
    expect_success(furnished("customer", "set", "ship", "--recipients", "list"))
    assert furnished("customer", "recipients", "ship", "del", "me@ship.example").stderr.startswith("the list is empty")
    added = furnished("customer", "add", "x", "--domain", "x.example", "--certificate", "x", "--no-password")
    assert "the list" not in added.stderr
    command = ["customer", "add", "y", "--domain", "y.example", "--certificate", "y", "--no-password"]
    assert furnished(*command, "--recipients", "list").stderr.startswith(EMPTY.format("y", "y"))


def test_a_command_that_is_given_counts_and_that_is_told(furnished):
    result = furnished("customer", "set", "ship", "--recipients-command", "/bin/echo x")
    assert result.stderr == "recipients are those for which the command ends with 0 now, as by --recipients command\n"
    assert listed(furnished)["recipients"] == "command"
    expect_success(furnished("customer", "set", "ship", "--recipients", "command", "--recipients-command", "/bin/echo"))


def test_a_command_that_cannot_be_run_is_told_of(furnished):
    result = furnished("customer", "set", "ship", "--recipients", "command", "--recipients-command", "/nowhere/it")
    assert result.exit_code == 0
    assert result.stderr.startswith("there is no program '/nowhere/it'; put it there, or name another: until it can")


@pytest.mark.parametrize(
    ("terms", "parts"),
    [
        (["--hold-time", "59m"], ["--hold-time", "less than an hour", '"21d"']),
        (["--add-domain", "Ship.Example"], ["ship.example is held for 'ship' already; leave it out"]),
    ],
)
def test_what_does_not_do_for_a_customer_is_refused(furnished, terms, parts):
    before = listed(furnished)
    expect_refusal(furnished("customer", "set", "ship", *terms), *parts, status=2 if "--hold-time" in terms else 1)
    assert listed(furnished) == before


def test_a_name_of_several_words_is_refused(furnished):
    refused = furnished("customer", "add", "my ship", "--domain", "x.example", "--no-password")
    expect_refusal(refused, "'my ship' cannot name a customer", "letters, digits and any of . _ - @")


def test_who_may_not_see_the_directory_is_told_so(run, tmp_path, monkeypatch):
    def no_entry(path, **_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "exists", no_entry)  # root may look everywhere
    result = run("customer", "list")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "cannot be read (Permission denied); run this as the user who serves, or as root" in result.stderr


def test_customers_of_both_sources_are_listed(furnished):
    furnished("customer", "set", "ship", "--recipients", "list", "--certificate", "ship.cert", "--hold-time", "90m")
    result = furnished("customer", "list")
    expect_success(result)
    rows = [[cell.strip() for cell in row if cell.strip()] for row in columns(result)]
    assert rows == [
        ["Customer", "Domains", "Logs in by", "Held for", "Recipients", "Kept in"],
        ["home", "home.example", "PLAIN", "7d", "any", "configuration"],
        ["ship", "ship.example", "PLAIN", "90m", "list of 0", "directory"],
    ]
    assert "certificate ship.cert" in result.stdout
    assert [row["source"] for row in json.loads(furnished("customer", "list", "--json").stdout)] == [
        "configuration",
        "directory",
    ]
    for text in (result.output, furnished("customer", "list", "--json").output):
        assert "s3cr3t" not in text
        assert "h0me-p4ss" not in text


def test_customers_of_the_configuration_are_listed_without_a_directory(run):
    assert [row["name"] for row in json.loads(run("customer", "list", "--json").stdout)] == ["home"]


# ----------------------------------------------------------------------------------------------- recipients


def test_recipients_are_added_listed_and_deleted(furnished):
    furnished("customer", "set", "ship", "--recipients", "list")
    expect_success(
        furnished("customer", "recipients", "ship", "add", "Cook@ship.example", "@ship.example"),
        "added 2; the list of ship has 2 now\n",
    )
    expect_success(furnished("customer", "recipients", "ship", "del", "@ship.example"), "deleted @ship.example\n")
    assert json.loads(furnished("customer", "recipients", "ship", "list", "--json").stdout) == [
        {"recipient": "cook@ship.example"}
    ]


def test_a_list_that_does_not_count_is_told_of(furnished):
    result = furnished("customer", "recipients", "ship", "add", "cook@ship.example")
    assert result.exit_code == 0
    assert "mailsuite customer set ship --recipients list" in result.stderr


def test_a_file_is_imported_or_takes_the_place_of_the_list(furnished, tmp_path):
    furnished("customer", "set", "ship", "--recipients", "list")
    furnished("customer", "recipients", "ship", "add", "old@ship.example")
    file = tmp_path / "list"
    file.write_text("\ufeff# crew\ncook@ship.example\n\nmate@ship.example # the first\n")
    expect_success(
        furnished("customer", "recipients", "ship", "import", str(file)),
        "added 2; the list of ship has 3 now\n",
    )
    expect_success(
        furnished("customer", "recipients", "ship", "import", "-", "--replace", given="cook@ship.example\n"),
        "added 0; the list of ship has 1 now\n",
    )


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (b"cook@ship.example\nno address\n", ["line 2", "not an address"]),
        (b"cook@else.example\n", ["in no domain of 'ship'", "--add-domain else.example"]),
        (b"\xff\xfe\n", ["cannot be read", "UTF-8"]),
        (None, ["cannot be read", "UTF-8"]),
    ],
)
def test_a_file_with_a_fault_changes_nothing(furnished, tmp_path, content, parts):
    file = tmp_path / "list"
    if content is not None:
        file.write_bytes(content)
    expect_refusal(furnished("customer", "recipients", "ship", "import", str(file), "--replace"), *parts)
    assert json.loads(furnished("customer", "recipients", "ship", "list", "--json").stdout) == []


def test_recipients_of_nobody_are_refused(furnished):
    expect_refusal(furnished("customer", "recipients", "nobody", "list"), "there is no customer 'nobody'")
