"""What is found before anything starts."""

import os
from pathlib import Path

import pytest

from mailsuite.config import Settings
from mailsuite.service import StartError, preflight


def settings_of(directory: Path, *endpoints: str, data: str = "data") -> Settings:
    listen = [{"endpoint": endpoint} for endpoint in endpoints or ("tcp:0",)]
    table = {"hostname": "mail.example", "data_directory": data, "listen": listen}
    return Settings.parse(table, "m.toml", directory)


def fault_of(settings: Settings) -> str:
    with pytest.raises(StartError) as raised:
        preflight(settings)
    return str(raised.value)


def test_two_listeners_on_one_port(tmp_path) -> None:
    settings = settings_of(tmp_path, "tcp:2525:interface=127.0.0.1", "tcp:2526", "tcp:2525")
    assert fault_of(settings) == (
        "listen: 'tcp:2525' has the port of 'tcp:2525:interface=127.0.0.1'; give one of them another"
    )


@pytest.mark.parametrize("text", [None, "no certificate"])
def test_what_a_route_shows_of_us_must_be_there(tmp_path, text) -> None:
    if text is not None:
        (tmp_path / "own.pem").write_text(text)
    route = {"domain": "a.example", "next_hop": "b.example", "certificate": str(tmp_path / "own.pem")}
    listen = [{"endpoint": "tcp:0"}]
    table = {"hostname": "mail.example", "listen": listen, "route": [{"domain": "c.example", "hold": True}, route]}
    assert fault_of(Settings.parse(table, "m.toml", tmp_path)).startswith("route[1].certificate: ")


def test_the_secret_of_srs_must_be_there_and_long(tmp_path) -> None:
    forwarding = {"srs_domain": "mail.example", "srs_secret_file": str(tmp_path / "secret")}
    table = {"hostname": "mail.example", "listen": [{"endpoint": "tcp:0"}], "forwarding": forwarding}
    settings = Settings.parse(table, "m.toml", tmp_path)
    assert fault_of(settings).startswith("forwarding.srs_secret_file: ")
    (tmp_path / "secret").write_text("short\n")
    assert "the secret has 5 characters" in fault_of(settings)
    (tmp_path / "secret").write_text("long enough for anybody\n")
    preflight(settings)


def test_a_data_directory_below_a_file(tmp_path) -> None:
    (tmp_path / "file").touch()
    assert f"({tmp_path / 'file'} is not a directory)" in fault_of(settings_of(tmp_path, data="file/below/it"))


def test_a_data_directory_that_is_a_dangling_link(tmp_path) -> None:
    (tmp_path / "data").symlink_to(tmp_path / "nowhere")
    assert f"({tmp_path / 'data'} is not a directory)" in fault_of(settings_of(tmp_path))


def test_a_data_directory_where_one_may_not_write(tmp_path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    (tmp_path / "data").mkdir(mode=0o500)
    assert "this user may not write there" in fault_of(settings_of(tmp_path))
    assert "this user may not make it in" in fault_of(settings_of(tmp_path, data="data/below"))


def test_a_data_directory_that_is_not_there_yet_is_left_to_be_made(tmp_path) -> None:
    preflight(settings_of(tmp_path, data="a/b"))
    assert list(tmp_path.iterdir()) == []
