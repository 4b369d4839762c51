"""The customer's chain: each pull up to where it would ask for mail, its domains, and the way of outgoing mail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from mailsuite.admin.doctor.findings import Walk, split
from mailsuite.admin.doctor.judging import Fault, faults_of, last_day
from mailsuite.admin.doctor.network import AsksAround
from mailsuite.admin.doctor.site import IsHere
from mailsuite.admin.doctor.visit import Place, Reached, Seen
from mailsuite.config import Settings
from mailsuite.delivery.pulls import PullPlan
from mailsuite.delivery.routes import Routes
from mailsuite.interfaces import DirectoryUnavailable
from mailsuite.mail.address import domain_key
from mailsuite.mail.route import NextHop
from mailsuite.net.resolver import DnsFailure
from mailsuite.service import StartError, preflight
from mailsuite.service.pulls import make_plans
from mailsuite.service.routes import make_routes
from mailsuite.session.pulling import PullResult, PullStage

_LATER: Final = "try again later; if it stays so, ask the provider"


class CustomerWalk:
    """Walks the customer's chain. `source` names the configuration, `now` is a POSIX timestamp."""

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
        plans = self._look_at_configuration()
        routes = make_routes(self._settings)
        for plan in plans:
            await self._reach(plan)
            await self._log_in(plan)
            self._look_at_domains(plan, routes)
            if plan.push != "none":
                await self._look_at_push(plan, routes)

    def _look_at_configuration(self) -> Sequence[PullPlan]:
        walk = self._walk
        if not self._settings.pull:
            cure = "add a [[pull]] table for each provider, or name another configuration with --config"
            raise walk.wrong("configuration", f"there are no pulls in {self._source}", cure)
        step = "passwords"
        try:
            plans = make_plans(self._settings)
            step = "configuration"
            preflight(self._settings)
        except StartError as error:
            raise walk.wrong(step, *split(str(error))) from None
        walk.ok("configuration", self._source)
        walk.ok("passwords", f"there for {', '.join(plan.name for plan in plans)}")
        return plans

    # -------------------------------------------------------------------------------------- the provider

    async def _reach(self, plan: PullPlan) -> None:
        """From its name to TLS."""
        walk, host = self._walk, plan.host
        try:
            addresses = await self._network.addresses(host)
        except DnsFailure as failure:
            cure = "see relay.resolver, or /etc/resolv.conf, and whether the network is up"
            if not failure.temporary:
                cure = f"mend `provider` of pull {plan.name}"
            raise walk.wrong("DNS", str(failure), cure) from None
        walk.ok("DNS", f"{host}: {', '.join(addresses)}" if list(addresses) != [host] else f"{host} is an address")
        place = Place(host, plan.port, plan.tls, plan.tls == "implicit")
        seen = await self._network.visit(place)
        await self._judge_line(plan, place, seen)
        self._judge_offer(plan, place, seen)
        if plan.tls != "none":
            self._judge_tls(plan, place, seen)

    async def _judge_line(self, plan: PullPlan, place: Place, seen: Seen) -> None:
        walk = self._walk
        if seen.reached < Reached.CONNECTED:
            if plan.tls == "implicit" and _is_of_certificate(seen.trouble):
                raise walk.wrong("TLS", f"{place}: {seen.trouble}", self._cure_of_certificate(seen.trouble))
            if plan.tls == "implicit" and await self._is_other_way(place):
                raise walk.wrong(
                    "TLS",
                    f"{place}: TLS from the first octet has failed",
                    f'the port speaks STARTTLS: set tls = "verified" in pull {plan.name}, or give the right port',
                )
            raise walk.wrong(
                "connection",
                f"cannot connect to {plan.host}: {seen.trouble}",
                "see whether the provider's server runs, the port is right, and no firewall is between",
            )
        walk.ok("connection", str(place))
        if seen.reached < Reached.GREETED:
            cure = _LATER
            if seen.reply is None and plan.tls != "implicit" and await self._is_other_way(place):
                cure = f'the port speaks TLS from the first octet: set tls = "implicit" in pull {plan.name}'
            raise walk.wrong("greeting", f"{place}: {seen.trouble}", cure)
        walk.ok("greeting", seen.greeting)
        if seen.reached < Reached.HEARD:
            raise walk.wrong("EHLO", f"{place}: {seen.trouble}", "see whether the port is that of a mail server")

    async def _is_other_way(self, place: Place) -> bool:
        """Whether the port speaks plainly where TLS was begun at once, or the other way round."""
        other = replace(place, tls="required" if not place.implicit else "none", implicit=not place.implicit)
        seen = await self._network.visit(other)
        return seen.plain is not None and (other.implicit or seen.plain.starttls)

    def _judge_offer(self, plan: PullPlan, place: Place, seen: Seen) -> None:
        keyword = "ETRN" if plan.etrn else "ATRN"
        has_it = any(offer.offers(keyword) for offer in (seen.plain, seen.secure) if offer is not None)
        # Some offer it only to whom they know: then the login tells.
        if not has_it and (plan.username is None or not seen.offered.auth) and seen.trouble is None:
            raise self._walk.wrong(
                "EHLO",
                f"{place} does not offer {keyword}",
                f"give pull {plan.name} the right port (ATRN has 366), or ask the provider",
            )
        self._walk.ok("EHLO", f"it offers {keyword}" if has_it else "it answers")

    def _judge_tls(self, plan: PullPlan, place: Place, seen: Seen) -> None:
        walk, step = self._walk, "TLS"
        if seen.reached < Reached.SECURED:
            trouble = seen.trouble or "it has none"
            cure = _LATER
            if _is_of_certificate(trouble):
                cure = self._cure_of_certificate(trouble)
            elif seen.plain is not None and not seen.plain.starttls:
                cure = f'ask the provider, or set tls = "implicit" in pull {plan.name} where its port is for that'
            raise walk.wrong(step, f"{place}: {trouble}", cure)
        walk.ok(step, str(seen.protocol))
        if seen.trouble is not None:
            raise walk.wrong("EHLO", f"{place}: {seen.trouble}", _LATER)
        if seen.certificate is None:
            return
        faults = faults_of(seen.certificate, plan.host, self._now)
        if plan.tls == "required" and faults:
            # It asks for encryption only: whoever is between could be the provider.
            worst = next(iter(faults.values()))
            walk.warn(
                "certificate",
                f"{worst}, and not looked at",
                f'have the provider get one from an authority for {plan.host}, then set tls = "verified"',
            )
        elif Fault.EXPIRES_SOON in faults:
            walk.warn("certificate", faults[Fault.EXPIRES_SOON], "tell the provider")
        else:
            walk.ok("certificate", f"for {plan.host}, until {last_day(seen.certificate)}")

    def _cure_of_certificate(self, trouble: str | None) -> str:
        said = trouble or ""
        if "not for" in said:
            return "write the provider's host as its certificate names it"
        if "expired" in said or "not valid yet" in said:
            return "tell the provider, and see whether the clock here is right"
        return 'name its authority in relay.ca_file, or set tls = "required" if encryption without proof is enough'

    async def _log_in(self, plan: PullPlan) -> None:
        walk = self._walk
        keyword = "ETRN" if plan.etrn else "ATRN"
        end = await self._network.dry_run(plan)
        if end.result is not PullResult.CHECKED:
            if end.result is PullResult.TEMPORARY:
                cure = _LATER
            elif end.stage is PullStage.AUTH:
                cure = (
                    f"see whether {plan.username} is the customer's name there (the provider: `mailsuite customer "
                    f"list`) and the password of pull {plan.name} its own (a new one: `mailsuite customer passwd NAME`)"
                )
            else:
                cure = "ask the provider"
            raise walk.wrong("login" if end.stage is PullStage.AUTH else keyword, end.text, cure)
        if plan.username is not None:
            walk.ok("login", f"as {plan.username}")
        walk.ok(keyword, f"would be said for {', '.join(plan.domains) or 'all domains'}")

    # ----------------------------------------------------------------------------------------- our side

    def _look_at_domains(self, plan: PullPlan, routes: Routes) -> None:
        walk, step = self._walk, "domains"
        try:
            local = self._site.domains()
        except DirectoryUnavailable as error:
            cure = "run this as the user who serves, or as root, and mend what it names"
            raise walk.wrong("accounts", *split(str(error), cure)) from None
        if not plan.domains and not local and not any(route.domain != "*" for route in self._settings.route):
            raise walk.wrong(
                step, "there are none here, so all that comes is refused", "add yours by `mailsuite domain add DOMAIN`"
            )
        for domain in plan.domains:
            if domain not in local and not routes.names(domain):
                raise walk.wrong(
                    step,
                    f"{domain} is asked for in pull {plan.name}, and neither local nor routed here",
                    f"add it by `mailsuite domain add {domain}`, or give it a [[route]]",
                )
        if not plan.domains and not local:
            walk.warn(
                step, "none is local here: only what has a [[route]] of its own is taken", "see whether that is all"
            )
        else:
            walk.ok(step, ", ".join(plan.domains or sorted(local)))
        if plan.etrn and not any(listen.service == "smtp" for listen in self._settings.listen):
            raise walk.wrong(
                "listeners",
                "no listener takes the mail that ETRN has the provider send",
                'add a [[listen]] with endpoint = "tcp6:25"',
            )

    async def _look_at_push(self, plan: PullPlan, routes: Routes) -> None:
        walk, step = self._walk, "smarthost"
        destinations = routes.destinations_at(plan.smarthost)
        if not destinations:
            raise walk.wrong(
                step,
                f"pull {plan.name} pushes, and no [[route]] leads to {plan.smarthost}",
                f'add one with domain = "*" and next_hop = "{plan.smarthost}:587", or name the host of yours in '
                "push_host, or take `push` out",
            )
        for destination in destinations:
            for hop in routes.next_hops(destination):
                if not hop.lmtp and domain_key(hop.host) == domain_key(plan.smarthost):  # LMTP greets in its own way
                    await self._visit_hop(hop)

    async def _visit_hop(self, hop: NextHop) -> None:
        walk, step = self._walk, "smarthost"
        place = Place(hop.host, hop.port, hop.tls, hop.tls == "implicit", None, hop.username, hop.password)
        seen = await self._network.visit(place)
        if seen.reached is Reached.DONE:
            walk.ok(step, f"{place} takes our login" if hop.username is not None else f"{place} answers")
            return
        cure = _LATER
        if seen.reached < Reached.CONNECTED and not _is_of_certificate(seen.trouble):
            cure = "see whether the server runs there, and that next_hop of the [[route]] is right"
        elif seen.reached is Reached.SECURED and seen.reply is not None and seen.reply.is_permanent:
            cure = "see username and password of the [[route]]"
        elif _is_of_certificate(seen.trouble):
            cure = self._cure_of_certificate(seen.trouble)
        raise walk.wrong(step, f"{place}: {seen.trouble}", cure)


def _is_of_certificate(trouble: str | None) -> bool:
    return trouble is not None and "certificate" in trouble
