"""A zone that DNSSEC vouches for: signed with keys of the test's own, served by nsd, asked through unbound.

    with SignedZone("signed.test", ["mail A 127.0.0.1", "@ MX 10 mail"]) as zone:
        ... zone.resolver ...  # host and port of the validating resolver

Everything is a process of its own on the loopback, with its files in a temporary directory. The resolver knows this
zone and no other: nothing is asked of the world. `broken` records have signatures that do not fit, so that whoever
validates must not believe them; names below `insecure.` are a zone that is not signed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import dns.exception
import dns.flags
import dns.message
import dns.query

from tests.peers.process import LOOPBACK, PeerError, Server, free_ports, run, spawn, stop, wait_until

PROGRAMS = ("nsd", "unbound", "ldns-keygen", "ldns-signzone")
PACKAGES = ("nsd", "unbound", "ldnsutils")
_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
_HEAD = """\
$ORIGIN {zone}.
$TTL 60
@ IN SOA ns.{zone}. postmaster.{zone}. 1 3600 900 604800 60
@ IN NS ns.{zone}.
ns IN A 127.0.0.1
"""


def why_missing() -> str | None:
    """Why there can be no signed zone here, or None."""
    lacking = [name for name in PROGRAMS if shutil.which(name, path=_PATH) is None]
    return f"{', '.join(lacking)}: not installed (python -m tests.peers.install)" if lacking else None


class SignedZone(Server):
    """A zone, its name server and a validating resolver.

    `records` are lines of a zone file, relative to the zone; `insecure` are those of the unsigned zone
    `insecure.<zone>`; `broken` are names (with a type, as in `mail A`) whose signatures are spoilt.
    """

    def __init__(
        self, zone: str, records: Sequence[str], *, insecure: Sequence[str] = (), broken: Sequence[str] = ()
    ) -> None:
        self.zone = zone
        self._records = records
        self._insecure = insecure
        self._broken = broken
        self._directory = Path(tempfile.mkdtemp(prefix="mailsuite-signed-zone-"))
        self._server_port, self._resolver_port = free_ports(2)
        self._processes: list[subprocess.Popen[bytes]] = []

    @property
    def resolver(self) -> tuple[str, int]:
        """Where the validating resolver is."""
        return LOOPBACK, self._resolver_port

    def start(self) -> None:
        """Sign, serve, and return when the resolver answers. Raises `PeerError`."""
        missing = why_missing()
        if missing:
            raise PeerError(missing)
        try:
            anchor = self._sign()
            self._run("nsd", "-d", "-c", self._write("nsd.conf", self._nsd()))
            self._run("unbound", "-d", "-c", self._write("unbound.conf", self._unbound(anchor)))
            wait_until(self._answers, timeout=10.0, why=self._output)
        except (AssertionError, PeerError) as problem:
            self.stop()
            raise PeerError(f"signed zone: {problem}") from None

    def stop(self) -> None:
        """End the processes, remove the files."""
        for process in self._processes:
            stop(process)
        self._processes.clear()
        shutil.rmtree(self._directory, ignore_errors=True)

    # ------------------------------------------------------------------------------------------ signing

    def _sign(self) -> str:
        """Write the signed zone, and return its key as a trust anchor."""
        delegation = f"insecure IN NS ns.{self.zone}.\n" if self._insecure else ""
        lines = "".join(f"{record}\n" for record in self._records)
        plain = self._write("zone", _HEAD.format(zone=self.zone) + delegation + lines)
        self._write(
            "insecure.zone",
            _HEAD.format(zone=f"insecure.{self.zone}") + "".join(f"{record}\n" for record in self._insecure),
        )
        flags = ("-a", "ECDSAP256SHA256", "-r", "/dev/urandom")
        key_signing = self._checked("ldns-keygen", *flags, "-k", self.zone)
        zone_signing = self._checked("ldns-keygen", *flags, self.zone)
        # In the past and the future of any clock near ours.
        self._checked("ldns-signzone", "-n", "-f", "zone.signed", plain.name, key_signing, zone_signing)
        self._spoil(self._directory / "zone.signed")
        return (self._directory / f"{key_signing}.key").read_text().strip()

    def _spoil(self, path: Path) -> None:
        """Turn a letter of each signature that is to be broken."""
        text = path.read_text()
        for place in self._broken:
            name, _, kind = place.partition(" ")
            owner = re.escape(self.zone if name == "@" else f"{name}.{self.zone}")
            pattern = re.compile(rf"(?m)^({owner}\.\s.*\sRRSIG\s+{kind}\s.*\s)(\S)(\S+)$")
            text, count = pattern.subn(lambda found: f"{found[1]}{'B' if found[2] == 'A' else 'A'}{found[3]}", text)
            if not count:
                raise PeerError(f"there is no signature of {place}")
        path.write_text(text)

    def _checked(self, *command: str) -> str:
        finished = run(command, timeout=30.0, cwd=self._directory, environment={"PATH": _PATH})
        if finished.returncode:
            raise PeerError(f"{command[0]}: {finished.stdout.strip()[-500:]}")
        return finished.stdout.strip()

    # ------------------------------------------------------------------------------------- the processes

    def _run(self, program: str, *arguments: str | Path) -> None:
        found = shutil.which(program, path=_PATH)
        assert found is not None
        output = self._directory / f"{program}.output"
        self._processes.append(spawn([found, *arguments], output=output, cwd=self._directory))

    def _write(self, name: str, text: str) -> Path:
        path = self._directory / name
        path.write_text(text)
        return path

    def _nsd(self) -> str:
        zones = [(self.zone, "zone.signed")]
        if self._insecure:
            zones.append((f"insecure.{self.zone}", "insecure.zone"))
        return (
            f'server:\n  ip-address: {LOOPBACK}@{self._server_port}\n  server-count: 1\n  username: ""\n'
            f'  chroot: ""\n  zonesdir: "{self._directory}"\n  database: ""\n  zonelistfile: "zone.list"\n'
            '  xfrdfile: "xfrd.state"\n  pidfile: "nsd.pid"\n  verbosity: 1\n'
            "remote-control:\n  control-enable: no\n"
        ) + "".join(f'zone:\n  name: "{name}"\n  zonefile: "{file}"\n' for name, file in zones)

    def _unbound(self, anchor: str) -> str:
        names = [self.zone, *([f"insecure.{self.zone}"] if self._insecure else [])]
        return (
            f"server:\n  interface: {LOOPBACK}@{self._resolver_port}\n  access-control: 127.0.0.0/8 allow\n"
            f'  do-daemonize: no\n  username: ""\n  chroot: ""\n  directory: "{self._directory}"\n'
            '  pidfile: "unbound.pid"\n  logfile: ""\n  use-syslog: no\n  num-threads: 1\n'
            '  do-not-query-localhost: no\n  module-config: "validator iterator"\n  do-ip6: no\n'
            f'  trust-anchor: "{_one_line(anchor)}"\n  local-zone: "test." nodefault\n'
            "remote-control:\n  control-enable: no\n"
        ) + "".join(f'stub-zone:\n  name: "{name}"\n  stub-addr: {LOOPBACK}@{self._server_port}\n' for name in names)

    def _answers(self) -> bool:
        question = dns.message.make_query(f"ns.{self.zone}", "A", want_dnssec=True)
        try:
            answer = dns.query.udp(question, LOOPBACK, timeout=1.0, port=self._resolver_port)
        except (OSError, dns.exception.DNSException):
            return False
        return bool(answer.flags & dns.flags.AD)

    def _output(self) -> str:
        return " / ".join(path.read_text()[-1000:] for path in self._directory.glob("*.output"))


def _one_line(key: str) -> str:
    return " ".join(key.partition(";")[0].split())
