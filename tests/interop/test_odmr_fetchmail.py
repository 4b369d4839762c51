"""Debian's fetchmail: as a customer of our provider by ATRN, plain and under TLS, and as a client of ETRN."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.instance import Instance
from tests.interop.conftest import require
from tests.interop.on_demand import CREDENTIALS, HOME, SECOND, check_held, content, hand_in, held, home, provider
from tests.peers import fetchmail, process
from tests.peers.fetchmail import Fetchmail
from tests.peers.process import LOOPBACK, wait_until

pytestmark = pytest.mark.interop

WAYS = ("plain", "tls", "plugin")


@pytest.fixture(autouse=True, scope="module")
def needs_fetchmail() -> None:
    require(fetchmail.why_missing())


class Rig(NamedTuple):
    """The provider, and the server of the site where fetchmail runs."""

    provider: Instance
    site: Instance
    directory: Path

    def fetchmail(self, way: str, *domains: str, smtp_port: int | None = None, **how: str) -> Fetchmail:
        """fetchmail by a way: plain; with its own TLS; with TLS by OpenSSL's command."""
        return Fetchmail(
            self.directory / "fetchmail",
            self.provider.odmr_port if way == "plain" else self.provider.odmrs_port,
            domains or (HOME,),
            smtp_port or self.site.smtp_port,
            tls=way != "plain",
            plugin=way == "plugin",
            **{**CREDENTIALS, **how},
        )


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    directory = tmp_path_factory.mktemp("fetchmail")
    # What fetchmail needs under TLS: it reads one line at a time.
    holder, site = provider(directory, pipelining=False), home(directory)
    with site.accounts() as accounts:
        accounts.add_domain(SECOND)
        accounts.add_alias(f"alice@{SECOND}", [site.address("alice")])
    with holder, site:
        yield Rig(holder, site, directory)
    for instance in (holder, site):
        instance.check_log()


@pytest.fixture(autouse=True)
def begin_empty(request: pytest.FixtureRequest) -> None:
    """Have nobody's mail in the maildir, and nothing held, when a test begins."""
    if "rig" in request.fixturenames:
        rig: Rig = request.getfixturevalue("rig")
        if held(rig.provider):
            rig.fetchmail("plain", HOME, SECOND).odmr()
            wait_until(lambda: not held(rig.provider))
        rig.site.wait_until_drained()
        for path in rig.site.messages():
            path.unlink()


def check_arrived(rig: Rig, numbers: range) -> None:
    """Verify that alice has got these once, and whole, and that the provider holds nothing any more."""
    wait_until(lambda: len(rig.site.messages()) >= len(numbers), why=rig.site.log)
    rig.site.wait_until_drained()
    assert sorted(rig.site.numbers()) == list(numbers)
    (path,) = [path for path in rig.site.messages() if b"\nSubject: %d\n" % numbers[-1] in path.read_bytes()]
    assert path.read_bytes().endswith(content(numbers[-1]).replace(b"\r\n", b"\n").partition(b"\n")[2])
    check_held(rig.provider, 0)


@pytest.mark.parametrize("way", WAYS)
def test_no_mail(rig: Rig, way: str) -> None:
    done = rig.fetchmail(way).odmr()
    assert done.returncode == fetchmail.OK, done.stdout
    assert "You have no mail" in done.stdout


@pytest.mark.parametrize("way", WAYS)
def test_one_message(rig: Rig, way: str) -> None:
    hand_in(rig.provider, [1])
    done = rig.fetchmail(way).odmr()
    assert done.returncode == fetchmail.OK, done.stdout
    assert "Turnaround now" in done.stdout
    check_arrived(rig, range(1, 2))


@pytest.mark.slow  # some 60 ms for each: it writes line by line, and waits for acknowledgements (Nagle's algorithm)
@pytest.mark.parametrize("way", ["plain", "tls"])
def test_five_hundred_messages(rig: Rig, way: str) -> None:
    hand_in(rig.provider, range(500), octets=2000)
    done = rig.fetchmail(way).odmr()
    assert done.returncode == fetchmail.OK, done.stdout[-3000:]
    wait_until(lambda: len(rig.site.messages()) >= 500, timeout=30, why=rig.site.log)
    rig.site.wait_until_drained()
    assert sorted(rig.site.numbers()) == list(range(500))
    check_held(rig.provider, 0)


@pytest.mark.parametrize("way", ["plain", "tls"])
def test_a_large_message(rig: Rig, way: str) -> None:
    hand_in(rig.provider, [1], octets=500_000)
    done = rig.fetchmail(way).odmr()
    assert done.returncode == fetchmail.OK, done.stdout[-3000:]
    wait_until(rig.site.messages, why=rig.site.log)
    whole = content(1, 500_000).replace(b"\r\n", b"\n")
    assert rig.site.messages()[0].read_bytes().endswith(whole)


@pytest.mark.parametrize("way", ["plain", "tls"])
def test_several_domains(rig: Rig, way: str) -> None:
    hand_in(rig.provider, [0])
    hand_in(rig.provider, [1], recipient=f"alice@{SECOND}")
    only_second = rig.fetchmail(way, SECOND).odmr()
    assert only_second.returncode == fetchmail.OK, only_second.stdout
    wait_until(lambda: rig.site.numbers() == [1], why=rig.site.log)
    check_held(rig.provider, 1)
    hand_in(rig.provider, [2], recipient=f"alice@{SECOND}")
    both = rig.fetchmail(way, HOME, SECOND).odmr()
    assert both.returncode == fetchmail.OK, both.stdout
    check_arrived(rig, range(3))


def test_a_foreign_domain(rig: Rig) -> None:
    hand_in(rig.provider, [0])
    done = rig.fetchmail("plain", HOME, "foreign.test").odmr()
    assert done.returncode == fetchmail.REFUSED, done.stdout
    assert "ATRN request refused" in done.stdout
    check_held(rig.provider, 1)


def test_a_wrong_password(rig: Rig) -> None:
    hand_in(rig.provider, [0])
    done = rig.fetchmail("plain", password="wrong").odmr()
    assert done.returncode not in (fetchmail.OK, fetchmail.NO_MAIL), done.stdout
    assert "535" in done.stdout
    check_held(rig.provider, 1)


@pytest.mark.parametrize("way", ["plain", "tls"])
def test_its_server_is_down(rig: Rig, way: str) -> None:
    """fetchmail closes right after the 250: nothing is lost, and nothing is counted."""
    hand_in(rig.provider, range(3))
    for _ in range(3):
        done = rig.fetchmail(way, smtp_port=process.free_port()).odmr()
        assert done.returncode == fetchmail.NO_CONNECTION, done.stdout
        check_held(rig.provider, 3)
    done = rig.fetchmail(way).odmr()
    assert done.returncode == fetchmail.OK, done.stdout
    check_arrived(rig, range(3))


def test_its_server_refuses_a_recipient(rig: Rig) -> None:
    with rig.provider.client() as client:
        client.sendmail("alice@provider.test", [f"nobody@{HOME}"], content(0))
    done = rig.fetchmail("plain").odmr()
    assert done.returncode == fetchmail.OK, done.stdout
    report = rig.provider.find("Your message could not be delivered")
    assert "550 5.1.1" in report.as_string()
    check_held(rig.provider, 0)


# ------------------------------------------------------------------------------------------------- ETRN


@pytest.fixture
def etrn(tmp_path: Path) -> Iterator[Rig]:
    """A provider that knows its customer's server and where it asks from."""
    site = home(tmp_path)
    terms = {"next_hop": f"{LOOPBACK}:{site.smtp_port}", "networks": [f"{LOOPBACK}/32"]}
    holder = provider(tmp_path, settings={"on_demand.etrn_interval": 0}, **terms)
    with holder, site:
        yield Rig(holder, site, tmp_path)
    for instance in (holder, site):
        instance.check_log()


def ask(rig: Rig, *domains: str) -> str:
    """Ask for domains by ETRN; returns what was said."""
    done = Fetchmail(rig.directory / "fetchmail", rig.provider.smtp_port, domains, **CREDENTIALS).etrn()
    return f"{done.returncode} {done.stdout}"


def test_etrn_brings_what_is_held(etrn: Rig) -> None:
    hand_in(etrn.provider, range(5))
    check_held(etrn.provider, 5)
    said = ask(etrn, HOME)
    assert "ETRN< 253 " in said, said
    assert "5 pending messages" in said
    check_arrived(etrn, range(5))


def test_etrn_without_mail(etrn: Rig) -> None:
    said = ask(etrn, HOME)
    assert "ETRN< 251 " in said, said
    assert said.startswith(f"{fetchmail.OK} "), said


def test_etrn_for_several_domains(etrn: Rig) -> None:
    # The first one has mail: after a 251 it would ask for nothing more.
    hand_in(etrn.provider, [0])
    with etrn.site.accounts() as accounts:
        accounts.add_domain(SECOND)
        accounts.add_alias(f"alice@{SECOND}", [etrn.site.address("alice")])
    hand_in(etrn.provider, [1], recipient=f"alice@{SECOND}")
    wait_until(lambda: etrn.site.takes(f"alice@{SECOND}"))
    said = ask(etrn, HOME, SECOND)
    assert "ETRN boat.test" in said
    check_arrived(etrn, range(2))


def test_etrn_for_a_foreign_node(etrn: Rig) -> None:
    hand_in(etrn.provider, [0])
    said = ask(etrn, "foreign.test")
    assert "ETRN< 459 " in said, said
    assert said.startswith(f"{fetchmail.NO_LOGIN} "), said
    check_held(etrn.provider, 1)
