"""The groups `user`, `alias` and `domain`: what they do, print and refuse; passwords stay out of sight."""

import json
from types import SimpleNamespace

import click
import pytest
from click.testing import CliRunner

from mailsuite.accounts.configured import Configured
from mailsuite.accounts.directory import DirectoryFile
from mailsuite.accounts.passwords import Argon2id
from mailsuite.accounts.reader import DirectoryReader
from mailsuite.admin.accounts import alias, domain, user
from mailsuite.mail.session import SecretKind

HASHING = Argon2id()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "accounts.db"


@pytest.fixture
def run(path):
    """Run a command line; its result has exit_code, stdout and stderr."""
    root = click.Group("mailsuite", commands={"user": user, "alias": alias, "domain": domain})

    def run(*arguments, given=None):
        context = SimpleNamespace(directory_path=path, subaddress_delimiter="+", configured=Configured())
        return CliRunner().invoke(root, arguments, given, obj=context)

    return run


@pytest.fixture
def furnished(run):
    run("domain", "add", "example.org")
    run("user", "add", "alice@example.org", "--no-password", "--address", "sales@example.org")
    return run


def expect_success(result, stdout=None):
    assert (result.exit_code, result.stderr) == (0, "")
    if stdout is not None:
        assert result.stdout == stdout


def expect_refusal(result, *parts, status=1):
    """One sentence on stderr, nothing on stdout, no traceback."""
    assert result.exit_code == status
    assert result.stdout == ""
    assert isinstance(result.exception, SystemExit)
    assert "Traceback" not in result.stderr
    last = result.stderr.splitlines()[-1]
    assert last.startswith("Error: ")
    assert all(part in last for part in parts), last
    if status == 1:
        assert result.stderr.count("\n") == 1


def secrets_of(path, local_part="alice"):
    reader = DirectoryReader(path)
    account = reader.account((local_part, "example.org"))
    reader.close()
    return account.secrets


def fits(path, password, local_part="alice"):
    return HASHING.verify(secrets_of(path, local_part).password_hash, password.encode())


# --------------------------------------------------------------------------------------------------- domains


def test_the_first_domain_makes_the_directory(run, path):
    expect_refusal(run("domain", "list"), "no directory of accounts", "mailsuite domain add")
    assert not path.exists()
    expect_success(run("domain", "add", "EXAMPLE.org"), "added example.org\n")
    assert path.stat().st_mode & 0o777 == 0o600


def test_domains_are_listed_for_people_and_for_programs(furnished):
    furnished("alias", "add", "info@example.org", "alice@example.org")
    table = furnished("domain", "list")
    expect_success(table)
    assert [line.split() for line in table.stdout.splitlines() if line[0].isalpha()] == [
        ["Domain", "Accounts", "Aliases"],
        ["example.org", "1", "1"],
    ]
    assert json.loads(furnished("domain", "list", "--json").stdout) == [
        {"domain": "example.org", "users": 1, "aliases": 1}
    ]


def test_a_domain_is_deleted_when_it_is_empty(furnished):
    expect_refusal(furnished("domain", "del", "example.org", "--yes"), "still has accounts", "mailsuite user list")
    furnished("user", "del", "alice@example.org", "--yes")
    expect_success(furnished("domain", "del", "example.org", "--yes"), "deleted example.org\n")
    assert json.loads(furnished("domain", "list", "--json").stdout) == []


# ----------------------------------------------------------------------------------------------------- users


def test_a_password_is_asked_for_twice_and_never_shown(furnished, path):
    result = furnished("user", "add", "bob@example.org", given="s3cr3t\ns3cr3t\n")
    expect_success(result)
    assert result.stdout.splitlines()[-1] == "added bob@example.org"
    assert "s3cr3t" not in result.output
    assert fits(path, "s3cr3t", "bob")


def test_a_password_typed_differently_the_second_time_is_asked_for_again(furnished, path):
    result = furnished("user", "add", "bob@example.org", given="one\ntwo\nthree\nthree\n")
    assert result.exit_code == 0
    assert fits(path, "three", "bob")


def test_nobody_is_asked_for_a_password_in_vain(furnished):
    expect_refusal(furnished("user", "add", "alice@example.org", given="x\nx\n"), "address of an account already")
    expect_refusal(furnished("user", "passwd", "bob@example.org", given="x\nx\n"), "no account bob@example.org")


def test_whoever_does_not_answer_adds_nothing(furnished):
    result = furnished("user", "add", "bob@example.org", given="")
    assert result.exit_code == 1
    assert "Aborted!" in result.stderr
    assert "bob" not in furnished("user", "list").stdout


@pytest.mark.parametrize("given", ["s3cr3t\n", "s3cr3t", "s3cr3t\r\n"])
def test_a_password_comes_from_standard_input(furnished, path, given):
    expect_success(
        furnished("user", "add", "bob@example.org", "--password-stdin", given=given), "added bob@example.org\n"
    )
    assert fits(path, "s3cr3t", "bob")
    assert secrets_of(path, "bob").kinds == frozenset()


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (b"", "the password is empty"),
        (b"\n", "the password is empty"),
        (b"one\ntwo\n", "more than one line"),
        (b"\xff\n", "not UTF-8"),
        (b"s3cr3t\x07\n", "cannot be sent"),
        (b"s3cr3t" * 1000, "longer than"),
        (b"s3cr3t" * 100_000, "longer than"),
    ],
)
def test_what_cannot_be_a_password_is_refused(furnished, given, reason):
    result = furnished("user", "add", "bob@example.org", "--password-stdin", given=given)
    expect_refusal(result, reason)
    assert "s3cr3t" not in result.output
    assert "bob" not in furnished("user", "list").stdout


def test_a_generated_password_stands_alone_on_stdout(furnished, path):
    result = furnished("user", "add", "bob@example.org", "--generate")
    assert (result.exit_code, result.stderr) == (0, "added bob@example.org\n")
    assert fits(path, result.stdout.removesuffix("\n"), "bob")
    again = furnished("user", "passwd", "bob@example.org", "--generate")
    assert again.stderr == "changed the password of bob@example.org\n"
    assert again.stdout != result.stdout
    assert fits(path, again.stdout.removesuffix("\n"), "bob")


@pytest.mark.parametrize(
    ("options", "kinds"),
    [
        ([], set()),
        (["--cram"], {SecretKind.SHARED}),
        (["--scram"], {SecretKind.SCRAM_SHA_256}),
        (["--cram", "--scram"], set(SecretKind)),
    ],
)
def test_further_secrets_are_kept_on_demand(furnished, path, options, kinds):
    furnished("user", "add", "bob@example.org", "--password-stdin", *options, given="s3cr3t\n")
    assert secrets_of(path, "bob").kinds == kinds


def test_a_new_password_keeps_what_was_kept_unless_told_otherwise(furnished, path):
    def passwd(*options):
        result = furnished("user", "passwd", "alice@example.org", "--password-stdin", *options, given="n3w\n")
        expect_success(result, "changed the password of alice@example.org\n")
        return secrets_of(path).kinds

    assert passwd() == set()
    assert passwd("--cram") == {SecretKind.SHARED}
    assert passwd("--scram") == set(SecretKind)
    assert passwd() == set(SecretKind)
    assert passwd("--no-cram") == {SecretKind.SCRAM_SHA_256}
    assert fits(path, "n3w")


@pytest.mark.parametrize(
    "options",
    [
        ["--generate", "--password-stdin"],
        ["--generate", "--no-password"],
        ["--no-password", "--cram"],
        ["--no-password", "--scram"],
        ["--password", "s3cr3t"],
        ["s3cr3t"],
    ],
)
def test_a_command_line_that_contradicts_itself_or_shows_a_password_is_a_usage_error(furnished, options):
    expect_refusal(furnished("user", "add", "bob@example.org", *options), status=2)


def test_users_are_listed_for_people_and_for_programs(furnished):
    furnished("user", "add", "bob@example.org", "--password-stdin", "--cram", given="s3cr3t\n")
    furnished("user", "disable", "bob@example.org")
    result = furnished("user", "list")
    expect_success(result)
    rows = [line.split() for line in result.stdout.splitlines()]
    assert rows[0] == ["Account", "Further", "addresses", "Enabled", "Password", "Kept", "for"]
    assert rows[2:] == [
        ["alice@example.org", "sales@example.org", "yes", "no"],
        ["bob@example.org", "no", "yes", "CRAM-MD5"],
    ]
    assert json.loads(furnished("user", "list", "--json").stdout) == [
        {
            "address": "alice@example.org",
            "addresses": ["sales@example.org"],
            "enabled": True,
            "has_password": False,
            "secrets": [],
        },
        {
            "address": "bob@example.org",
            "addresses": [],
            "enabled": False,
            "has_password": True,
            "secrets": ["CRAM-MD5"],
        },
    ]


def test_no_listing_holds_a_secret(furnished, path):
    furnished("user", "passwd", "alice@example.org", "--password-stdin", "--cram", "--scram", given="s3cr3t\n")
    shown = furnished("user", "list").output + furnished("user", "list", "--json").output
    assert "s3cr3t" not in shown
    assert "argon2id" not in shown


def test_users_of_one_domain_are_listed(furnished):
    furnished("domain", "add", "example.net")
    furnished("user", "add", "zoe@example.net", "--no-password")
    listed = json.loads(furnished("user", "list", "example.net", "--json").stdout)
    assert [one["address"] for one in listed] == ["zoe@example.net"]
    expect_refusal(furnished("user", "list", "example.com"), "mailsuite domain add example.com")


def test_users_are_disabled_and_enabled(furnished):
    expect_success(furnished("user", "disable", "Alice@example.org"), "disabled alice@example.org\n")
    assert not json.loads(furnished("user", "list", "--json").stdout)[0]["enabled"]
    expect_success(furnished("user", "enable", "alice@example.org"), "enabled alice@example.org\n")
    assert json.loads(furnished("user", "list", "--json").stdout)[0]["enabled"]


def test_addresses_are_given_and_taken(furnished):
    result = furnished(
        "user",
        "address",
        "alice@example.org",
        "--add",
        "a@example.org",
        "--add",
        "@example.org",
        "--del",
        "sales@example.org",
    )
    expect_success(result, "alice@example.org has now: @example.org, a@example.org\n")
    result = furnished("user", "address", "alice@example.org", "--del", "a@example.org", "--del", "@example.org")
    expect_success(result, "alice@example.org has now: no further address\n")
    expect_refusal(furnished("user", "address", "alice@example.org"), "--add or --del", status=2)


def test_deleting_a_user_asks_first(furnished):
    result = furnished("user", "del", "alice@example.org", given="n\n")
    assert result.exit_code == 1
    assert "Delete the account alice@example.org?" in result.stdout
    assert "alice" in furnished("user", "list").stdout
    assert furnished("user", "del", "alice@example.org", given="y\n").exit_code == 0
    assert "alice" not in furnished("user", "list").stdout


def test_deleting_a_user_tells_which_aliases_still_lead_there(furnished):
    furnished("alias", "add", "info@example.org", "alice@example.org")
    result = furnished("user", "del", "alice@example.org", "--yes")
    assert (result.exit_code, result.stdout) == (0, "deleted alice@example.org\n")
    assert result.stderr == "the alias info@example.org still leads to it\n"


@pytest.mark.parametrize(
    "command",
    [["passwd", "--generate"], ["del", "--yes"], ["disable"], ["enable"], ["address", "--del", "x@example.org"]],
)
def test_a_user_who_is_not_there_is_named(furnished, command):
    expect_refusal(
        furnished("user", command[0], "bob@example.org", *command[1:]), "no account bob@example.org", "user list"
    )


# --------------------------------------------------------------------------------------------------- aliases


def test_aliases_are_added_listed_and_deleted(furnished):
    result = furnished("alias", "add", "Info@example.org", "alice@example.org", "Bob@example.net")
    expect_success(result, "info@example.org leads to Bob@example.net, alice@example.org\n")
    expect_success(furnished("alias", "add", "@example.org", "rest@example.net"))
    assert json.loads(furnished("alias", "list", "--json").stdout) == [
        {"address": "@example.org", "targets": ["rest@example.net"]},
        {"address": "info@example.org", "targets": ["Bob@example.net", "alice@example.org"]},
    ]
    lines = [line.split() for line in furnished("alias", "list", "example.org").stdout.splitlines()]
    assert lines[2:] == [
        ["@example.org", "rest@example.net"],
        ["info@example.org", "Bob@example.net"],
        ["alice@example.org"],
    ]
    expect_success(
        furnished("alias", "del", "info@example.org", "alice@example.org", "--yes"),
        "deleted alice@example.org from the alias info@example.org\n",
    )
    expect_success(furnished("alias", "del", "info@example.org", "--yes"), "deleted the alias info@example.org\n")
    assert "info" not in furnished("alias", "list").stdout


@pytest.mark.parametrize("target", ["nobody@example.org", "nobody+x@example.org", "alice-x@example.org"])
def test_an_alias_to_an_address_that_nobody_has_is_added_with_a_warning(furnished, target):
    result = furnished("alias", "add", "info@example.org", "alice@example.org", target)
    assert result.exit_code == 0
    assert result.stdout == f"info@example.org leads to alice@example.org, {target}\n"
    assert result.stderr == f"nobody has {target}: nothing arrives there until somebody does\n"


@pytest.mark.parametrize(
    "target", ["ALICE@example.org", "alice+x@example.org", "sales@example.org", "postmaster@example.org", "x@else.test"]
)
def test_an_alias_to_an_address_that_somebody_has_or_may_have_is_added_without(furnished, target):
    expect_success(furnished("alias", "add", "info@example.org", target))


def test_an_alias_to_an_alias_or_a_catch_all_is_added_without_a_warning(furnished):
    furnished("alias", "add", "info@example.org", "alice@example.org")
    expect_success(furnished("alias", "add", "help@example.org", "info@example.org"))
    furnished("alias", "add", "@example.org", "alice@example.org")
    expect_success(furnished("alias", "add", "desk@example.org", "anybody@example.org"))


def test_deleting_an_alias_asks_first(furnished):
    furnished("alias", "add", "info@example.org", "alice@example.org")
    assert furnished("alias", "del", "info@example.org", given="\n").exit_code == 1
    assert "info@example.org" in furnished("alias", "list").stdout


def test_an_alias_needs_a_target_that_can_be_sent_to(furnished):
    expect_refusal(furnished("alias", "add", "info@example.org"), "TARGET", status=2)
    expect_refusal(furnished("alias", "add", "info@example.org", "nonsense"), "'nonsense' is not an address")
    expect_refusal(furnished("alias", "add", "sales@example.org", "a@example.net"), "the address of an account")


# ------------------------------------------------------------------------------------------------ the whole


@pytest.mark.parametrize("group", [user, alias, domain])
def test_every_command_and_option_is_explained(group):
    assert group.help
    for command in group.commands.values():
        assert command.help
        assert all(option.help for option in command.params if isinstance(option, click.Option))


@pytest.mark.parametrize("arguments", [["user", "--help"], ["alias", "add", "--help"], ["domain", "list", "--help"]])
def test_help_needs_no_directory(run, path, arguments):
    expect_success(run(*arguments))
    assert not path.exists()


def test_a_file_that_is_no_directory_is_a_sentence(run, path):
    path.write_text("no database" * 100)
    expect_refusal(run("user", "list"), str(path), "not a database")


def test_a_directory_made_elsewhere_is_edited(run, path):
    with DirectoryFile(path, create=True) as directory:
        directory.add_domain("example.org")
    expect_success(run("user", "add", "alice@example.org", "--no-password"), "added alice@example.org\n")
