"""What is told of pulls that nothing forbids and that bring nothing: at the start, and by `mailsuite check`."""

import os
from pathlib import Path

import pytest

from mailsuite.accounts.directory import DirectoryFile
from mailsuite.config import Settings, SettingsError
from mailsuite.service import StartError, preflight
from mailsuite.service.doubts import doubts, local_domains
from tests.instance import mailsuite

HOST = "odmr.provider.net"
PULL = {"name": "isp", "provider": HOST, "username": "home", "password": "s3cret"}
SMARTHOST = {"domain": "*", "next_hop": f"{HOST}:587"}
NOT_TAKEN = (
    "pull isp: shed.org is asked for, and neither local nor routed here, so its mail is not taken; add it by "
    "`mailsuite domain add shed.org`, or give it a [[route]]"
)
NOTHING_TAKEN = (
    "pull isp: no domain is local or has a [[route]] of its own here, so nothing that comes is taken; add yours by "
    "`mailsuite domain add DOMAIN`"
)


def settings_of(directory: Path, pull, *routes, **table) -> Settings:
    table = {"hostname": "mail.home.org", "pull": [{**PULL, **pull}], "route": list(routes), **table}
    return Settings.parse(table, "m.toml", directory)


def told(directory, pull, *routes, local=frozenset({"home.org"}), **table):
    return list(doubts(settings_of(directory, pull, *routes, **table), local))


def test_domains_that_are_not_here(tmp_path):
    pull = {"domains": ["home.org", "shed.org"]}
    assert told(tmp_path, pull) == [NOT_TAKEN]
    assert told(tmp_path, pull, SMARTHOST) == [NOT_TAKEN]
    assert told(tmp_path, pull, {"domain": "shed.org", "next_hop": "192.0.2.9"}) == []
    assert told(tmp_path, pull, local=frozenset({"home.org", "shed.org"})) == []
    assert told(tmp_path, pull, local=None) == []
    assert told(tmp_path, pull, customer=[{"name": "shed", "domains": ["shed.org"]}]) == []
    assert list(doubts(settings_of(tmp_path, pull), frozenset({"home.org"}), is_held={"shed.org"}.__contains__)) == []


def test_asking_for_all_where_nothing_is_ours(tmp_path):
    assert told(tmp_path, {}, local=frozenset()) == [NOTHING_TAKEN]
    assert told(tmp_path, {}, SMARTHOST, local=frozenset()) == [NOTHING_TAKEN]
    assert told(tmp_path, {}, {"domain": "shed.org", "next_hop": "192.0.2.9"}, local=frozenset()) == []
    assert told(tmp_path, {}) == []


@pytest.mark.parametrize(
    ("pull", "host"),
    [({"push": "before"}, HOST), ({"push": "after", "push_host": "smtp.provider.net"}, "smtp.provider.net")],
)
def test_pushing_where_no_route_leads_to(tmp_path, pull, host):
    [doubt] = told(tmp_path, pull, {"domain": "*", "next_hop": "other.net:587"})
    assert doubt.startswith(
        f"pull isp: it pushes, and no [[route]] leads to {host}, so nothing is ever sent; add one with"
    )
    assert told(tmp_path, pull, {"domain": "*", "next_hop": f"{host.upper()}:587"}) == []
    assert told(tmp_path, {**pull, "push": "none"}) == []


def test_push_host_is_a_host_alone(tmp_path):
    [literal] = settings_of(tmp_path, {"push_host": "[2001:db8::1]"}).pull
    assert literal.push_host == "2001:db8::1"
    for wrong in ("smtp.provider.net:587", "two words"):
        with pytest.raises(SettingsError, match="push_host"):
            settings_of(tmp_path, {"push_host": wrong})


def test_local_domains_are_read_where_that_is_possible(tmp_path):
    settings = settings_of(tmp_path, {})
    assert local_domains(settings) == frozenset()
    path = settings.path(settings.accounts.file)
    path.parent.mkdir(parents=True)
    assert local_domains(settings) == frozenset()
    assert not path.exists()
    with DirectoryFile(path, create=True) as accounts:
        accounts.add_domain("home.org")
    assert local_domains(settings) == {"home.org"}
    path.write_bytes(b"this is no database" * 100)
    assert local_domains(settings) is None


def test_check_tells(tmp_path):
    file = tmp_path / "m.toml"
    file.write_text(
        f'accounts.postmaster = "alice@home.org"\n[[pull]]\nname = "isp"\nprovider = "{HOST}"\n'
        'username = "home"\npassword = "s3cret"\ndomains = ["shed.org"]\npush = "before"\n'
    )
    done = mailsuite("check", file)
    assert done.returncode == 0
    verdict, first, second = done.stdout.splitlines()
    assert verdict == f"{file}: nothing is wrong with it."
    assert first == f"Note: {NOT_TAKEN}."
    assert second.startswith("Note: pull isp: it pushes, and no [[route]] leads to ")


def test_a_password_file_that_is_for_somebody_else(tmp_path, monkeypatch):
    settings = settings_of(tmp_path, {"password": None, "password_file": "provider.password"})
    settings.data_directory.mkdir(parents=True)
    path = settings.path(Path("provider.password"))
    path.write_text("secret")
    path.chmod(0)
    if os.geteuid() == 0:  # who may read everything

        def refuse(_path, **_options):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(StartError) as raised:
        preflight(settings)
    assert str(raised.value) == (
        f"pull isp: password_file {path} cannot be read (Permission denied); run this as the user who serves, and see "
        "that it may read the file"
    )


def of_routes(directory, *routes, **table):
    settings = Settings.parse({"hostname": "mail.home.org", "route": list(routes), **table}, "m.toml", directory)
    return list(doubts(settings, frozenset({"home.org"})))


def test_routes_for_what_is_local(tmp_path):
    [doubt] = of_routes(tmp_path, {"domain": "home.org", "next_hop": "a.example"})
    assert doubt.startswith("route[0]: home.org is local, so its mail does not go by a route")
    assert of_routes(tmp_path, {"recipient": "*@home.org", "next_hop": "a.example"}) == []


def test_senders_that_are_rewritten_to_a_domain_of_nobody(tmp_path):
    [doubt] = of_routes(tmp_path, forwarding={"srs_domain": "srs.home.org"})
    assert doubt.startswith("forwarding: srs.home.org is not local")
    assert of_routes(tmp_path, forwarding={"srs_domain": "home.org"}) == []
