"""How mailsuite is set up to be measured: its settings and its accounts. The one place that knows its keys.

Everything is at its default, save what a measurement needs: a port on the loopback, maildirs where they
are counted, sizes up to `MESSAGE_LIMIT`, and limits on connections that a load from one address passes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bench.names import DOMAIN, MESSAGE_LIMIT, USERS
from tests.peers.process import LOOPBACK


@dataclass(frozen=True, slots=True)
class Command:
    """Arguments for the `mailsuite` command, and what it reads from its stdin."""

    arguments: tuple[str, ...]
    stdin: bytes = b""


def mailsuite_config(directory: Path, maildirs: Path, port: int) -> str:
    """The TOML file for a server with its files in `directory` that listens on `port`."""
    return f"""\
hostname = "mail.{DOMAIN}"
data_directory = "{directory}"
allow_root = true

[limits]
message_size = {MESSAGE_LIMIT}
connections = 10000
connections_per_address = 10000

[[listen]]
endpoint = "tcp:{port}:interface={LOOPBACK}"

[local.options]
directory = "{maildirs}"
"""


def mailsuite_commands(config: Path) -> list[Command]:
    """What is run before the server starts, in this order: the domain, then each user."""
    start = ("--config", str(config))
    password = b"not used: no measurement logs in\n"
    return [
        Command((*start, "domain", "add", DOMAIN)),
        *(Command((*start, "user", "add", f"{user}@{DOMAIN}", "--password-stdin"), password) for user in USERS),
    ]
