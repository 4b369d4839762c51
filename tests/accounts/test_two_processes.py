"""The command in one process, the server in another, on one file: each sees what the other commits, none waits."""

import json
import subprocess
import sys
import time

import pytest

from mailsuite.accounts.customer_snapshot import Customers
from mailsuite.accounts.directory import DirectoryFile
from mailsuite.accounts.portal import make_authenticator
from mailsuite.accounts.snapshot import Directory
from mailsuite.mail.address import Address
from mailsuite.mail.session import SecretKind
from tests.accounts.conftest import CHEAP, in_real_thread, result_of

# The groups as the root command runs them.
COMMAND = """
import sys
from pathlib import Path
from types import SimpleNamespace
from mailsuite.accounts.configured import Configured
from mailsuite.admin import accounts, customers
from mailsuite.config import Settings
context = SimpleNamespace(
    directory_path=Path(sys.argv[1]),
    subaddress_delimiter="+",
    configured=Configured(),
    settings=Settings(data_directory=Path(sys.argv[1]).parent),
)
group = customers.customer if sys.argv[2] == "customer" else getattr(accounts, sys.argv[2])
group.main(sys.argv[3:], obj=context)
"""

# Adds users as fast as it can.
EDITOR = """
import sys
from pathlib import Path
from mailsuite.accounts.directory import DirectoryFile
with DirectoryFile(Path(sys.argv[1]), create=True) as directory:
    for number in range(int(sys.argv[3])):
        directory.add_user(f"{sys.argv[2]}{number}@example.org", None, further=[f"{sys.argv[2]}{number}b@example.org"])
"""

CREATOR = """
import sys
from pathlib import Path
from mailsuite.accounts.directory import DirectoryFile
with DirectoryFile(Path(sys.argv[1]), create=True) as directory:
    directory.add_domain(sys.argv[2])
"""


# Adds customers as fast as it can, and gives each another domain.
CUSTOMERS = """
import sys
from pathlib import Path
from mailsuite.accounts.customers import CustomersFile
from mailsuite.mail.customer import Customer
with CustomersFile(Path(sys.argv[1])) as customers:
    for number in range(int(sys.argv[3])):
        name = f"{sys.argv[2]}{number}"
        customers.add_customer(Customer(name, (f"{name}.example", f"{name}b.example")), None)
        customers.add_recipients(name, [f"x@{name}.example", f"x@{name}b.example"])
        customers.change_customer(name, {"hold_time": 1.0}, add_domains=[f"{name}c.example"])
"""


def start(source, *arguments):
    return subprocess.Popen([sys.executable, "-c", source, *map(str, arguments)], stderr=subprocess.PIPE, text=True)


def expect_success(process):
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")


def run(path, *arguments, given=""):
    command = [sys.executable, "-c", COMMAND, str(path), *arguments]
    done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout


def test_a_running_server_sees_what_the_command_does(path, reader, clock):
    directory = Directory(reader, clock, in_real_thread)
    authenticator = make_authenticator(reader, clock, in_real_thread)
    directory.startService()
    alice = Address("alice", "example.org")

    run(path, "domain", "add", "example.org")
    run(path, "user", "add", "alice@example.org", "--password-stdin", "--scram", given="secret\n")
    clock.advance(1)
    assert directory.mailbox(alice) == alice
    assert result_of(authenticator.check_password("alice@example.org", "", b"secret")).name == "alice@example.org"
    assert result_of(authenticator.secret("alice@example.org", SecretKind.SCRAM_SHA_256)) is not None

    password = run(path, "user", "passwd", "alice@example.org", "--generate").strip()
    assert result_of(authenticator.check_password("alice@example.org", "", password.encode()))

    run(path, "alias", "add", "info@example.org", "alice@example.org")
    clock.advance(1)
    assert directory.alias(Address("info", "example.org")) == (alice,)

    run(path, "user", "del", "alice@example.org", "--yes")
    clock.advance(1)
    assert directory.mailbox(alice) is None
    assert json.loads(run(path, "user", "list", "--json")) == []
    result_of(directory.stopService())


def test_a_snapshot_is_whole_while_others_write(path, directory, reader):
    editors = [start(EDITOR, path, name, 60) for name in ("a", "b")]
    versions, sizes = set(), []
    deadline = time.monotonic() + 60
    while any(one.poll() is None for one in editors) and time.monotonic() < deadline:
        snapshot = reader.snapshot()
        versions.add(snapshot.version)
        sizes.append(len(snapshot.entries))
        # Each user was added with both addresses in one transaction.
        names = {local_part for local_part, _ in snapshot.entries}
        assert {f"{name}b" for name in names if not name.endswith("b")} == {
            name for name in names if name.endswith("b")
        }
    for one in editors:
        expect_success(one)
    assert sizes == sorted(sizes)
    assert len(versions) > 2
    assert len(reader.snapshot().entries) == 240


def test_several_programs_may_make_the_file_at_once(path, reader):
    makers = [start(CREATOR, path, f"example{number}.org") for number in range(4)]
    for one in makers:
        expect_success(one)
    assert reader.snapshot().domains == {f"example{number}.org" for number in range(4)}


def test_customers_are_whole_while_others_edit_them(path, directory, reader, clock):
    editors = [start(CUSTOMERS, path, name, 40) for name in ("a", "b")]
    customers = Customers(reader, clock, in_real_thread)
    deadline = time.monotonic() + 60
    seen = set()
    while any(one.poll() is None for one in editors) and time.monotonic() < deadline:
        result_of(customers.refresh())
        now = customers.customers()
        seen.add(len(now))
        for one in now:
            # Each change is seen whole: the third domain comes with the new time, and the lists with both domains.
            assert (len(one.domains), one.hold_time == 1.0) in {(2, False), (3, True)}
            assert all(customers.customer_of(domain) is one for domain in one.domains)
            on_list = [customers.is_listed(one, Address("x", domain)) for domain in one.domains[:2]]
            assert on_list[0] == on_list[1]
    for one in editors:
        expect_success(one)
    result_of(customers.refresh())
    assert len(customers.customers()) == 80
    assert len(seen) > 2
    result_of(customers.stopService())


def test_a_running_server_sees_customers_that_the_command_edits(path, directory, reader, clock):
    customers = Customers(reader, clock, in_real_thread)
    authenticator = make_authenticator(reader, clock, in_real_thread)
    customers.startService()
    password = run(path, "customer", "add", "ship", "--domain", "ship.example", "--generate").strip()
    clock.advance(1)
    assert customers.customer_of("ship.example").name == "ship"
    assert result_of(authenticator.check_password("ship", "", password.encode())).customer == "ship"
    run(path, "customer", "set", "ship", "--hold-time", "1h")
    clock.advance(1)
    assert customers.customer("ship").hold_time == 3600
    run(path, "customer", "del", "ship", "--yes")
    clock.advance(1)
    assert customers.customers() == ()
    result_of(customers.stopService())


@pytest.mark.parametrize("moment", [0.05, 0.15, 0.3])
def test_an_editor_that_is_killed_leaves_the_directory_whole(path, directory, reader, moment):
    editor = start(EDITOR, path, "x", 100_000)
    before = reader.snapshot().version
    while reader.snapshot(before) is None and editor.poll() is None:
        time.sleep(0.01)
    time.sleep(moment)
    editor.kill()
    editor.communicate()
    names = {local_part for local_part, _ in reader.snapshot().entries}
    assert names
    assert all(f"{name}b" in names for name in names if not name.endswith("b"))
    with DirectoryFile(path, cost=CHEAP) as other:
        other.add_user("alice@example.org", None)
    assert ("alice", "example.org") in reader.snapshot().entries
