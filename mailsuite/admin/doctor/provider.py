"""The provider's chain: customers, listeners, TLS, the DNS, and what is held.

The listeners are visited from here, so a firewall between them and the customers is not seen. A port that systemd hands
over is taken to be the usual one of its service.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cryptography import x509

from mailsuite.admin.doctor.findings import Walk, split
from mailsuite.admin.doctor.judging import Fault, faults_of, last_day
from mailsuite.admin.doctor.network import AsksAround
from mailsuite.admin.doctor.site import IsHere, KnownCustomer
from mailsuite.admin.doctor.visit import Place, Reached, Seen
from mailsuite.config import Listen, Settings
from mailsuite.delivery.on_demand.programs import fault_of
from mailsuite.delivery.retry import span
from mailsuite.interfaces import DirectoryUnavailable, SpoolError
from mailsuite.mail.address import domain_key
from mailsuite.mail.customer import RecipientRule
from mailsuite.net.resolver import NULL_MX, DnsFailure
from mailsuite.service import StartError, preflight
from mailsuite.service.endpoints import place_of

_PORTS: Final = {"smtp": 25, "submission": 587, "odmr": 366}
_IMPLICIT_PORTS: Final = {"submission": 465}
# RFC 6761 section 6 and RFC 6762 section 3: nobody has these in the DNS.
_NOT_IN_DNS: Final = ("example", "test", "invalid", "localhost", "local")


@dataclass(frozen=True, slots=True)
class _Door:
    """A listener, and where to knock; `is_guess` says that its port is not known for sure."""

    listen: Listen
    place: Place
    is_guess: bool

    @property
    def turns(self) -> bool:
        """Whether ATRN is to be had here."""
        return self.listen.service == "odmr" or (self.listen.service == "submission" and self.listen.atrn)


class ProviderWalk:
    """Walks the provider's chain. `source` names the configuration, `now` is a POSIX timestamp."""

    def __init__(
        self, settings: Settings, source: str, walk: Walk, site: IsHere, network: AsksAround, *, now: float
    ) -> None:
        self._settings = settings
        self._source = source
        self._walk = walk
        self._site = site
        self._network = network
        self._now = now

    async def run(self) -> None:
        """Walk to the end. Raises `Wrong` with the first thing that is wrong."""
        self._look_at_configuration()
        customers = self._look_at_customers()
        certificate = await self._visit_doors(self._find_doors())
        if certificate is not None:
            self._judge(certificate)
        await self._ask_dns([domain for one in customers for domain in one.customer.domains])
        self._look_at_held(customers)

    # ------------------------------------------------------------------------------------- what is here

    def _look_at_configuration(self) -> None:
        try:
            preflight(self._settings)
        except StartError as error:
            raise self._walk.wrong("configuration", *split(f"{self._source}: {error}")) from None
        self._walk.ok("configuration", self._source)
        directory = self._settings.data_directory
        if not directory.is_dir():
            raise self._walk.wrong(
                "data", f"{directory} does not exist", "make it for the user who serves, and start the server"
            )
        self._walk.ok("data", str(directory))

    def _look_at_customers(self) -> Sequence[KnownCustomer]:
        step = "customers"
        try:
            customers = self._site.customers()
        except DirectoryUnavailable as error:
            cure = "run this as the user who serves, or as root, and mend what it names"
            raise self._walk.wrong("accounts", *split(str(error), cure)) from None
        if not customers:
            raise self._walk.wrong(step, "there are none", "add one by `mailsuite customer add NAME --domain DOMAIN`")
        for known in customers:
            customer = known.customer
            if customer.recipients is RecipientRule.COMMAND:
                fault = fault_of(customer.recipients_command)
                if fault is not None:
                    raise self._walk.wrong(
                        step, *split(f"{customer.name}: the command that knows its recipients cannot run: {fault}")
                    )
            if known.has_password:
                continue
            cure = (
                "add password_file to its [[customer]] table, and restart the server"
                if known.is_configured
                else f"give it a password by `mailsuite customer passwd {customer.name}`"
            )
            if customer.certificate is None:
                raise self._walk.wrong(
                    step, f"{customer.name} cannot log in: it has neither a password nor a certificate", cure
                )
            if self._settings.tls.client_ca is None:
                raise self._walk.wrong(
                    step,
                    f"{customer.name} logs in by its certificate only, and tls.client_ca does not say whose are taken",
                    f"set that, or {cure}",
                )
        self._walk.ok(step, ", ".join(f"{one.customer.name} ({', '.join(one.customer.domains)})" for one in customers))
        return customers

    # ---------------------------------------------------------------------------------------- listeners

    def _find_doors(self) -> list[_Door]:
        doors = [door for listen in self._settings.listen if (door := self._door(listen)) is not None]
        if not any(door.turns for door in doors):
            raise self._walk.wrong(
                "listeners",
                "none is for on-demand mail relay",
                'add a [[listen]] with endpoint = "tcp6:366" and service = "odmr"',
            )
        if not any(door.listen.service == "smtp" for door in doors):
            self._walk.warn(
                "listeners",
                "none takes mail from other servers, so nothing comes in that could be held",
                'add a [[listen]] with endpoint = "tcp6:25"',
            )
        # What customers turn to first: the certificate that is looked at is theirs.
        return sorted(doors, key=lambda door: not door.turns)

    def _door(self, listen: Listen) -> _Door | None:
        if listen.service == "lmtp" or (listen.service == "submission" and not listen.atrn):
            return None
        where = place_of(listen.endpoint)
        implicit = listen.tls == "implicit"
        tls = "none" if listen.tls == "none" else "required"
        host = self._settings.hostname
        if where.kind == "unix":
            return _Door(listen, Place(host, 0, tls, implicit, address=where.name), is_guess=False)
        address = where.address
        # Whoever listens everywhere listens on the loopback, too.
        if address is None or address.is_unspecified:
            knock = "::1" if where.interface == "::" and where.kind == "tcp6" else "127.0.0.1"
        else:
            knock = where.interface
        is_known = where.kind in ("tcp", "tcp6") and where.name.isdigit() and where.name != "0"
        usual = _IMPLICIT_PORTS.get(listen.service) if implicit else None
        port = int(where.name) if is_known else usual or _PORTS[listen.service]
        return _Door(listen, Place(host, port, tls, implicit, address=knock), is_guess=not is_known)

    async def _visit_doors(self, doors: Sequence[_Door]) -> x509.Certificate | None:
        """Visit them all. Returns the certificate of the first that shows one."""
        certificate = None
        for door in doors:
            seen = await self._network.visit(door.place)
            if seen.reached < Reached.CONNECTED and door.is_guess:
                self._walk.warn(
                    f"{door.listen.service} port",
                    f"{door.listen.endpoint!r} does not tell its port, and nothing answers at {door.place}",
                    "see by `ss -ltn` where the server listens",
                )
                continue
            self._judge_visit(door, seen)
            certificate = certificate or seen.certificate
        return certificate

    def _judge_visit(self, door: _Door, seen: Seen) -> None:
        walk, place, service = self._walk, door.place, door.listen.service
        if seen.reached < Reached.GREETED:
            raise walk.wrong(
                f"{service} port",
                str(seen.trouble) if seen.reached < Reached.CONNECTED else f"{place}: {seen.trouble}",
                f"start the server by `twistd mailsuite --config {self._source}`, or see its log",
            )
        walk.ok(f"{service} port", f"{place}: {seen.greeting}")
        if place.tls != "none" and seen.reached < Reached.SECURED:
            raise walk.wrong(
                f"{service} TLS",
                f"{place}: {seen.trouble or 'there is no TLS'}",
                "see in the server's log why, and whether certificate and key of [tls] belong together",
            )
        if seen.trouble is not None:
            raise walk.wrong(f"{service} EHLO", f"{place}: {seen.trouble}", "see the server's log")
        if door.turns:
            missing = [word for word in ("AUTH", "ATRN") if not seen.offered.offers(word)]
            if missing:
                raise walk.wrong(
                    f"{service} EHLO",
                    f"{place} does not offer {' and '.join(missing)}",
                    "another program has the port, or the server runs with an older configuration: restart it",
                )
            walk.ok(f"{service} EHLO", f"{place} offers AUTH and ATRN")
        if seen.protocol is not None:
            walk.ok(f"{service} TLS", f"{place}: {seen.protocol}")
        else:
            walk.warn(
                f"{service} TLS", f"{place} has none, so customers cannot log in safely", "take `tls` out of its table"
            )

    def _judge(self, certificate: x509.Certificate) -> None:
        step, walk, hostname = "certificate", self._walk, self._settings.hostname
        faults = faults_of(certificate, hostname, self._now)
        is_own = self._settings.tls.certificate is None
        for fault in (Fault.EXPIRED, Fault.NOT_YET, Fault.OTHER_NAME):
            if fault in faults:
                cure = f"get one for {hostname}, name it in [tls], and see that it is renewed"
                if is_own:
                    files = self._settings.data_directory / "self-signed.*"
                    cure = f"remove {files} and restart the server, or name one of an authority in [tls]"
                raise walk.wrong(step, faults[fault], cure)
        if Fault.EXPIRES_SOON in faults:
            walk.warn(step, faults[Fault.EXPIRES_SOON], "renew it")
        elif Fault.SELF_SIGNED in faults:
            walk.warn(
                step,
                f'{faults[Fault.SELF_SIGNED]}, so customers must have tls = "required"',
                f'name one of an authority for {hostname} in [tls]; then they can have "verified"',
            )
        else:
            walk.ok(step, f"for {hostname}, until {last_day(certificate)}")

    # ------------------------------------------------------------------------------------------ the DNS

    async def _ask_dns(self, domains: Sequence[str]) -> None:
        ours = await self._own_addresses()
        for domain in domains:
            await self._ask_mx(domain, ours)

    async def _own_addresses(self) -> set[str]:
        """What leads to us: the addresses of our name, and those that we listen at."""
        listening = (place_of(listen.endpoint).address for listen in self._settings.listen)
        found = {str(address) for address in listening if address is not None and not address.is_unspecified}
        try:
            found.update(await self._network.addresses(self._settings.hostname))
        except DnsFailure:
            return found  # the MX may name us all the same
        return found

    async def _ask_mx(self, domain: str, ours: set[str]) -> None:
        hostname, walk = domain_key(self._settings.hostname), self._walk
        record = f"have its owner add to the DNS: {domain}. MX 10 {hostname}."
        if domain.rpartition(".")[2] in _NOT_IN_DNS:
            walk.warn(
                "MX", f"{domain} is a name for trials, which the DNS does not have", "take a real one for real mail"
            )
            return
        try:
            hosts = [mx.host for mx in await self._network.mx(domain) if mx != NULL_MX]
        except DnsFailure as failure:
            if not failure.temporary:
                raise walk.wrong("MX", str(failure), record) from None
            walk.warn("MX", f"the DNS cannot be asked: {failure}", "see relay.resolver, or /etc/resolv.conf")
            return
        if not hosts:
            raise walk.wrong("MX", f"{domain} says in the DNS that it takes no mail", record)
        for host in hosts:
            if domain_key(host) == hostname or ours & set(await self._addresses_calmly(host)):
                walk.ok("MX", f"{domain} leads here, by {host}")
                return
        raise walk.wrong("MX", f"{domain} leads to {', '.join(hosts)}, and not to {hostname}", record)

    async def _addresses_calmly(self, host: str) -> Sequence[str]:
        try:
            return await self._network.addresses(host)
        except DnsFailure:
            return ()

    # ------------------------------------------------------------------------------------------ the queue

    def _look_at_held(self, customers: Sequence[KnownCustomer]) -> None:
        try:
            held = self._site.held()
        except SpoolError as error:
            raise self._walk.wrong(
                "held mail", str(error), "run this as the user who serves, or as root; see the server's log"
            ) from None
        owners = {domain: known.customer for known in customers for domain in known.customer.domains}
        is_calm = True
        for one in held:
            customer = owners.get(one.domain)
            if customer is None:
                continue
            left = one.oldest + customer.hold_time - self._now
            if left < customer.warning_time:
                is_calm = False
                self._walk.warn(
                    "held mail",
                    f"{customer.name} has not collected {one.domain} for {span(self._now - one.oldest)}, and mail "
                    + (f"expires in {span(left)}" if left > 0 else "expires now"),
                    "ask there why, or raise its hold time",
                )
        if is_calm:
            count = sum(one.messages for one in held if one.domain in owners)
            self._walk.ok("held mail", "1 message" if count == 1 else f"{count} messages")
