"""A whole Postfix on the loopback: receives into maildirs, or relays to a next hop, with TLS or without.

It runs from the scratch root that `tests.peers.install` unpacks, with a queue, a configuration and
a log of its own, on ports that were free. Nothing of it touches /etc/postfix, /var/spool or the syslog.
Postfix starts as root only, and insists on its `postfix` and `postdrop` ids.

Durability is Postfix's own: it syncs the queue file before its 250 and each maildir file before it
settles the recipient. Known limits: it writes as other users, so every directory above its own must
be searchable by everyone; maildirs belong to `nobody`.
"""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path

from tests.peers.certificate import Certificate
from tests.peers.process import (
    LOOPBACK,
    PeerError,
    Server,
    cache_directory,
    free_port,
    run,
    spawn,
    stop,
    wait_for_greeting,
)

ROOT = cache_directory() / "postfix"
OWNER = "postfix"
SETGID_GROUP = "postdrop"
MAILDIR_USER = "nobody"
# Directories of the queue; True where only Postfix's own user may look in.
_QUEUE = {
    "active": True, "bounce": True, "corrupt": True, "defer": True, "deferred": True,
    "flush": True, "hold": True, "incoming": True, "private": True, "saved": True,
    "trace": True, "maildrop": False, "public": False, "pid": False,
}  # fmt: skip
_WAITING = ("maildrop", "incoming", "active", "deferred", "hold")
_SERVICES = """
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
virtual unix - n n - - virtual
lmtp unix - - n - - lmtp
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""


def program(name: str, root: Path = ROOT) -> Path:
    """The path of one of Postfix's commands (`smtp-source`, `postqueue` ...)."""
    return root / "usr/sbin" / name


def environment(root: Path = ROOT) -> dict[str, str]:
    """What a Postfix program needs in its environment to find its libraries under the scratch root."""
    places = [root / "usr/lib/postfix", *root.glob("usr/lib/*-linux-gnu*"), *root.glob("lib/*-linux-gnu*")]
    return {"LD_LIBRARY_PATH": ":".join(map(str, places))}


def why_not_unpacked() -> str | None:
    """Why Postfix's programs cannot be run here, or None."""
    if not program("smtp-source").exists():
        return f"postfix is not in {ROOT} (python -m tests.peers.install)"
    return None


def why_missing() -> str | None:
    """Why a Postfix server cannot be run here, or None."""
    missing = why_not_unpacked()
    if missing:
        return missing
    if os.geteuid() != 0:
        return "postfix starts as root only"
    try:
        pwd.getpwnam(OWNER)
        grp.getgrnam(SETGID_GROUP)
    except KeyError as problem:
        return f"postfix needs an id: {problem} (python -m tests.peers.install)"
    return None


class Postfix(Server):
    """One instance.

    `domain`: mail for it goes into the maildirs of `users` (local parts), other recipients in it are
    refused; None for a server that only relays. `next_hop`: host and port where all other mail is relayed.
    `certificate`: offers STARTTLS on `port`, and TLS from the first octet on `tls_port`. `settings` are
    lines of main.cf and win over ours. `logged`: keep a log in a file (see `log`); else it goes to the
    syslog, if there is one. `directory` is used and left there; without one a temporary one is made, and
    removed by `stop`. `hosts` (names and addresses) are those that it can relay to by name: its smtp clients
    see a file of hosts with these alone.
    """

    def __init__(
        self,
        *,
        domain: str | None = "peer.test",
        users: Collection[str] = ("user",),
        next_hop: tuple[str, int] | None = None,
        certificate: Certificate | None = None,
        settings: Mapping[str, str] | None = None,
        logged: bool = True,
        directory: Path | None = None,
        hosts: Mapping[str, str] | None = None,
    ) -> None:
        self._hosts = dict(hosts or {})
        self._domain = domain
        self._users = users
        self._next_hop = next_hop
        self._certificate = certificate
        self._settings = dict(settings or {})
        self._logged = logged
        self._scratch: Path | None = None
        if directory is None:
            directory = self._scratch = Path(tempfile.mkdtemp(prefix="mailsuite-postfix-"))
        self._directory = directory
        self._config = directory / "config"
        self._queue = directory / "queue"
        self._mail = directory / "mail"
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        self.tls_port: int | None = free_port() if certificate else None

    @property
    def pid(self) -> int:
        """The process id of `master`, whose children do the work. Raises `PeerError` unless started."""
        if self._process is None:
            raise PeerError("postfix is not running")
        return self._process.pid

    def start(self, timeout: float = 20.0) -> None:
        """Write the configuration, start, and return when it greets. Raises `PeerError`."""
        missing = why_missing()
        if missing:
            raise PeerError(missing)
        self._make_directories()
        self._write_config("main.cf", self._main_cf())
        self._write_config("master.cf", self._master_cf())
        output = self._directory / "output"
        master = ROOT / "usr/lib/postfix/sbin/master"
        self._process = spawn([master, "-c", self._config, "-d"], output=output, environment=environment())
        try:
            wait_for_greeting(self.port, self._process, output=output, timeout=timeout)
        except PeerError as problem:
            log = self.log()
            self.stop()
            raise PeerError(f"postfix: {problem} {log[-2000:]}") from None

    def stop(self) -> None:
        """End all its processes; remove the directory if it was a temporary one."""
        if self._process is not None:
            stop(self._process)
            self._process = None
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)

    def maildir(self, user: str) -> Path:
        """Where mail for a local part goes. It is there after the first delivery."""
        return self._mail / user

    def messages(self, user: str) -> list[Path]:
        """The files delivered to a local part, oldest first."""
        new = self.maildir(user) / "new"
        return sorted(new.iterdir(), key=lambda path: path.stat().st_mtime_ns) if new.exists() else []

    def queued(self) -> int:
        """How many messages are in the queue, waiting or under way."""
        return sum(path.is_file() for name in _WAITING for path in self._queue.joinpath(name).rglob("*"))

    def log(self) -> str:
        """What it has logged so far; empty when not `logged`."""
        log = self._directory / "log"
        return log.read_text("utf-8", "replace") if log.exists() else ""

    def command(self, name: str, *arguments: str, timeout: float = 30.0) -> subprocess.CompletedProcess[str]:
        """Run one of its commands on this instance: `command("postqueue", "-f")` tries the queue again."""
        return run([program(name), "-c", self._config, *arguments], timeout=timeout, environment=environment())

    def _make_directories(self) -> None:
        owner, postdrop = pwd.getpwnam(OWNER), grp.getgrnam(SETGID_GROUP)
        self._directory.mkdir(parents=True, exist_ok=True)
        self._directory.chmod(0o755)
        for parent in self._directory.resolve().parents:
            if not parent.stat().st_mode & 0o001:
                raise PeerError(f"{parent} is closed to others, so postfix could not write below it")
        self._config.mkdir(exist_ok=True)
        self._mail.mkdir(exist_ok=True)
        shutil.chown(self._mail, MAILDIR_USER)
        self._queue.mkdir(exist_ok=True)
        for name, private in _QUEUE.items():
            path = self._queue / name
            path.mkdir(exist_ok=True)
            os.chown(path, 0 if name == "pid" else owner.pw_uid, -1)
            path.chmod(0o700 if private else 0o755)
        for name, mode in (("maildrop", 0o1730), ("public", 0o2710)):
            os.chown(self._queue / name, owner.pw_uid, postdrop.gr_gid)
            (self._queue / name).chmod(mode)
        if self._hosts:
            (self._queue / "etc").mkdir(exist_ok=True)
            lines = (f"{address} {name}\n" for name, address in self._hosts.items())
            (self._queue / "etc/hosts").write_text("".join(lines))
            (self._queue / "etc/nsswitch.conf").write_text("hosts: files\n")
        data = self._directory / "data"
        data.mkdir(exist_ok=True)
        os.chown(data, owner.pw_uid, -1)

    def _main_cf(self) -> str:
        nobody = pwd.getpwnam(MAILDIR_USER)
        values = {
            "compatibility_level": "3.6",
            "queue_directory": str(self._queue),
            "data_directory": str(self._directory / "data"),
            "command_directory": str(ROOT / "usr/sbin"),
            "daemon_directory": str(ROOT / "usr/lib/postfix/sbin"),
            "mail_owner": OWNER,
            "setgid_group": SETGID_GROUP,
            "import_environment": "MAIL_CONFIG MAIL_LOGTAG LD_LIBRARY_PATH TZ LANG=C",
            "myhostname": f"mail.{self._domain or 'relay.test'}",
            "mydestination": "",
            "mynetworks": f"{LOOPBACK}/32",
            "inet_interfaces": LOOPBACK,
            "inet_protocols": "ipv4",
            "local_recipient_maps": "",
            "alias_maps": "",
            "alias_database": "",
            # No peer may ask the world about names.
            "smtp_dns_support_level": "disabled",
            "smtp_host_lookup": "native",
            "smtpd_relay_restrictions": "permit_mynetworks, reject_unauth_destination",
            "smtpd_peername_lookup": "no",
            "message_size_limit": str(100 * 2**20),
            "mailbox_size_limit": "0",
            "virtual_mailbox_limit": "0",
            "virtual_transport": "virtual",
            "virtual_uid_maps": f"static:{nobody.pw_uid}",
            "virtual_gid_maps": f"static:{nobody.pw_gid}",
            "virtual_mailbox_base": str(self._mail),
        }
        if self._logged:
            values["maillog_file"] = str(self._directory / "log")
            values["maillog_file_prefixes"] = str(self._directory)
        if self._domain is not None:
            values["virtual_mailbox_domains"] = self._domain
            # The slash at the end asks for a maildir.
            lines = (f"{user}@{self._domain} {user}/\n" for user in self._users)
            values["virtual_mailbox_maps"] = f"texthash:{self._write_config('mailboxes', ''.join(lines))}"
        if self._next_hop is not None:
            host, port = self._next_hop
            values["relayhost"] = f"[{host}]:{port}"
        else:
            values["default_transport"] = "error:5.7.1 this server relays nothing"
        if self._certificate is not None:
            values["smtpd_tls_security_level"] = "may"
            values["smtpd_tls_cert_file"] = str(self._certificate.chain)
            values["smtpd_tls_key_file"] = str(self._certificate.key)
        return "".join(f"{name} = {value}\n" for name, value in (values | self._settings).items())

    def _master_cf(self) -> str:
        lines = [f"{LOOPBACK}:{self.port} inet n - n - - smtpd"]
        if self.tls_port is not None:
            lines.append(f"{LOOPBACK}:{self.tls_port} inet n - n - - smtpd -o smtpd_tls_wrappermode=yes")
        services = _SERVICES
        if self._hosts:  # its own root is the queue
            services = services.replace("smtp unix - - n - - smtp", "smtp unix - - y - - smtp")
        return "\n".join(lines) + services

    def _write_config(self, name: str, text: str) -> Path:
        path = self._config / name
        path.write_text(text)
        # Postfix waits while a file is so new that someone may still be writing it.
        os.utime(path, (0, 0))
        return path
