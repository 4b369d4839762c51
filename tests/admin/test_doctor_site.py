"""What the doctor sees on the disk: customers with and without passwords, local domains, and no files at all."""

from pathlib import Path

import pytest

from mailsuite.accounts.customers import CustomersFile
from mailsuite.accounts.directory import DirectoryFile
from mailsuite.admin.doctor.site import Site
from mailsuite.config import Settings
from mailsuite.interfaces import DirectoryUnavailable, SpoolError
from mailsuite.mail.customer import Customer

CONFIGURED = {"customer": [{"name": "home", "domains": ["home.org"], "password": "s3cret"}]}


def site(directory: Path, **table) -> Site:
    return Site(Settings.parse({"data_directory": "data", **table}, "m.toml", directory))


@pytest.fixture
def data(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    return data


def test_without_files_there_is_what_the_configuration_has(tmp_path):
    empty = site(tmp_path, **CONFIGURED)
    [home] = empty.customers()
    assert (home.customer.name, home.has_password, home.is_configured) == ("home", True, True)
    assert empty.domains() == frozenset()
    assert list(empty.held()) == []


def test_customers_of_both_places_come_by_name(tmp_path, data):
    with CustomersFile(data / "accounts.db", create=True) as customers:
        customers.add_customer(Customer("Ship", ("ship.org",)), "s3cret")
        customers.add_customer(Customer("barn", ("barn.org",), certificate="mail.barn.org"), None)
    found = [
        (one.customer.name, one.has_password, one.is_configured) for one in site(tmp_path, **CONFIGURED).customers()
    ]
    assert found == [("barn", False, False), ("home", True, True), ("Ship", True, False)]


def test_local_domains_are_those_of_the_directory(tmp_path, data):
    with DirectoryFile(data / "accounts.db", create=True) as accounts:
        accounts.add_domain("home.org")
    assert site(tmp_path).domains() == {"home.org"}


def test_customer_who_is_in_both_places_is_told(tmp_path, data):
    with CustomersFile(data / "accounts.db", create=True) as customers:
        customers.add_customer(Customer("home", ("other.org",)), "s3cret")
    with pytest.raises(DirectoryUnavailable, match="home"):
        site(tmp_path, **CONFIGURED).customers()


def test_what_is_no_directory_or_queue_is_told(tmp_path, data):
    (data / "accounts.db").write_text("no database " * 100)
    with pytest.raises(DirectoryUnavailable, match=r"accounts\.db"):
        site(tmp_path).domains()
    (data / "spool").mkdir()
    (data / "spool" / "queue.db").write_text("no database " * 100)
    with pytest.raises(SpoolError, match=r"queue\.db"):
        site(tmp_path).held()


def test_what_cannot_be_looked_for_is_told(tmp_path, data):
    # As where the user may not look into the directory, which root always may.
    name = "x" * 300
    blind = site(tmp_path, accounts={"file": name}, spool={"directory": name})
    with pytest.raises(DirectoryUnavailable, match="cannot be read: File name too long"):
        blind.domains()
    with pytest.raises(SpoolError, match="run this as the user who serves"):
        blind.held()
