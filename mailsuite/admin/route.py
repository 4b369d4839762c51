"""`mailsuite route`: where mail for an address goes, and why: rules, answers of the DNS, what TLS must be.

It asks what the server would ask, by the server's own parts, and changes nothing: no message is sent, no file is made.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from random import SystemRandom
from typing import TYPE_CHECKING, Any, Final, Protocol

import click

from mailsuite.admin.output import json_option
from mailsuite.config import Settings

if TYPE_CHECKING:
    from mailsuite.interfaces import ITLSPolicies
    from mailsuite.mail.address import Address
    from mailsuite.mail.route import NextHop, Target
    from mailsuite.service.parts import Parts

_TITLES: Final = {"order": "#", "host": "Host", "port": "Port", "addresses": "Addresses", "tls": "TLS"}
_NULL: Final = ("<>", "")


class HasSettings(Protocol):
    """What is needed of the context's object."""

    @property
    def settings(self) -> Settings:
        """The settings."""


@click.command(short_help="Explain where mail for an address goes.")
@click.argument("address")
@click.option(
    "--sender", metavar="ADDRESS", default="", help="The sender, which routes may look at; by default there is none."
)
@click.option("--no-dns", is_flag=True, help="Look at the configuration and the accounts only, and ask no name server.")
@json_option
@click.pass_obj
def route(context: HasSettings, address: str, *, sender: str, no_dns: bool, as_json: bool) -> None:
    """Explain where mail for ADDRESS goes: which rule chose what, which hosts the DNS names, what TLS must be.

    The exit status is 0 where it goes somewhere; 69 where it would be refused or cannot be delivered; 75 where that
    cannot be told now; 78 where the configuration is wrong.
    """
    from mailsuite.admin.running import Failed, run
    from mailsuite.interfaces import DirectoryUnavailable
    from mailsuite.mail.address import parse_mailbox
    from mailsuite.net.tls import TLSSettingsError
    from mailsuite.service import StartError

    recipient = parse_mailbox(address)
    reverse_path = None if sender in _NULL else parse_mailbox(sender)
    if recipient is None or (reverse_path is None and sender not in _NULL):
        raise click.UsageError(f"{address if recipient is None else sender}: it is not an address; write user@host")
    settings = context.settings

    async def explain(reactor: Any) -> dict[str, Any]:  # noqa: ANN401 - the reactor has many interfaces at once
        with tempfile.TemporaryDirectory(prefix="mailsuite-") as directory:
            explanation = _Explanation(settings, reactor, Path(directory), with_dns=not no_dns)
            return await explanation.of(recipient, reverse_path)

    try:
        said = run(explain)
    except (StartError, TLSSettingsError) as error:
        raise Failed(str(error), os.EX_CONFIG) from None
    except DirectoryUnavailable as error:
        raise Failed(str(error), os.EX_TEMPFAIL) from None
    if as_json:
        click.echo(json.dumps(said, indent=2))
    else:
        _print(said)
    sys.exit(_status(said))


class _Explanation:
    """Asks the parts of a server that is not started. What they would write goes into `directory`."""

    def __init__(self, settings: Settings, reactor: Any, directory: Path, *, with_dns: bool) -> None:  # noqa: ANN401
        from mailsuite.service.parts import Parts
        from mailsuite.service.routes import use_known_srs_secret

        accounts = settings.path(settings.accounts.file)
        if not accounts.exists():  # the server would make one, without a domain in it
            elsewhere = settings.accounts.model_copy(update={"file": directory / "accounts.db"})
            settings = settings.model_copy(update={"accounts": elsewhere})
        self._settings = settings
        self._reactor = reactor
        self._directory = directory
        self._with_dns = with_dns
        self._parts: Parts = Parts(settings, reactor, lambda _error: None)
        use_known_srs_secret(settings, self._parts.rewriting)

    async def of(self, recipient: Address, sender: Address | None) -> dict[str, Any]:
        """Everything about an address, as JSON has it."""
        from mailsuite.interfaces import Refused

        parts = self._parts
        await parts.directory.refresh()
        await parts.customers.refresh()
        router = parts.router
        said: dict[str, Any] = {
            "address": str(recipient),
            "sender": "" if sender is None else str(sender),
            "rules": list(router.explain(recipient, sender)),
            "targets": [],
        }
        try:
            targets: Sequence[Target] = await router.resolve(recipient, None, trusted=True, sender=sender)
        except Refused as refused:
            said["refused"] = str(refused.reply)
            said["temporary"] = refused.reply.is_transient
            return said
        policies = self._policies()
        try:
            said["targets"] = [await self._target(target, policies) for target in targets]
        finally:
            await policies.stop()
        return said

    async def _target(self, target: Target, policies: Any) -> dict[str, Any]:  # noqa: ANN401 - the policies
        from mailsuite.delivery.next_hops import Unroutable
        from mailsuite.mail.queue import Result
        from mailsuite.mail.route import RELAY

        said: dict[str, Any] = {
            "address": str(target.address),
            "destination": str(target.destination),
            "rule": target.rule,
            "hosts": [],
            "temporary": None,  # it goes there
        }
        if target.reverse_path is not None:
            said["sender"] = str(target.reverse_path)
        if target.destination.agent != RELAY or not self._with_dns:
            return said
        try:
            hops: Sequence[NextHop] = await self._parts.next_hops.find(target.destination)
        except Unroutable as unroutable:
            outcome = unroutable.outcome
            said["error"] = f"{outcome.status} {outcome.text}"
            said["temporary"] = outcome.result is Result.DEFERRED
            return said
        said["hosts"] = [await self._host(number, hop, policies) for number, hop in enumerate(hops, 1)]
        troubles = [host["temporary"] for host in said["hosts"]]
        if None not in troubles:
            said["temporary"] = any(troubles)
            said["error"] = "none of the hosts can be sent to"
        return said

    async def _host(self, number: int, hop: NextHop, policies: ITLSPolicies) -> dict[str, Any]:
        from mailsuite.interfaces import Barred
        from mailsuite.net.resolver import DnsFailure

        said: dict[str, Any] = {"order": number, "host": hop.host, "port": hop.port, "domain": hop.domain}
        said["temporary"] = None
        try:
            if hop.domain:
                records = await self._parts.resolver.mx(hop.domain)  # what it has just answered
                said["preference"] = next((one.preference for one in records if one.host == hop.host), None)
            said["addresses"] = await self._parts.resolver.addresses(hop.host)
        except DnsFailure as failure:
            said["addresses"] = []
            said["error"] = str(failure)
            # Mail for a host of the configuration waits for whoever mends that.
            said["temporary"] = failure.temporary or not hop.domain
        for name in ("username", "source_address"):
            if getattr(hop, name) is not None:
                said[name] = getattr(hop, name)
        said["lmtp"] = hop.lmtp
        try:
            said["tls"] = await self._tls(hop, policies)
        except Barred as barred:
            said["tls"] = f"nothing may be sent: {barred}"
            said["temporary"] = barred.temporary or bool(said["temporary"])
        return said

    async def _tls(self, hop: NextHop, policies: ITLSPolicies) -> str:
        from mailsuite.mail.tls_policy import PolicySource

        policy = await policies.policy(hop.domain, hop)
        by = {PolicySource.DANE: ", by DANE", PolicySource.MTA_STS: ", by MTA-STS"}.get(policy.source, "")
        return f"{policy.mode}{by}{', testing' if policy.testing else ''}"

    def _policies(self) -> Any:  # noqa: ANN401 - as there
        from mailsuite.service.tls_policies import make_tls_policies, make_validating_resolver

        settings = self._settings
        ca_file = settings.relay.ca_file
        relay = settings.relay.model_copy(update={"ca_file": None if ca_file is None else settings.path(ca_file)})
        elsewhere = settings.model_copy(update={"relay": relay, "data_directory": self._directory})
        parts = self._parts
        return make_tls_policies(
            elsewhere,
            self._reactor,
            make_validating_resolver(settings, self._reactor),
            parts.resolver.addresses,
            parts.in_thread,
            lambda _result: None,
            SystemRandom().random,
        )


def _print(said: dict[str, Any]) -> None:
    from mailsuite.admin.output import plain, print_rows

    for sentence in said["rules"]:
        click.echo(plain(f"{sentence}."))
    if "refused" in said:
        click.echo(plain(f"The recipient is refused: {said['refused']}"))
    for target in said["targets"]:
        if "error" in target:
            click.echo(plain(f"{target['address']}: {target['error']}"))
        if target["hosts"]:
            click.echo(f"\n{plain(target['address'])} goes to:\n")
            rows = [{**host, "addresses": host["addresses"] or [host.get("error", "")]} for host in target["hosts"]]
            print_rows(rows, _TITLES, as_json=False)


def _status(said: dict[str, Any]) -> int:
    if "refused" in said:
        return os.EX_TEMPFAIL if said["temporary"] else os.EX_UNAVAILABLE
    wrong = [target for target in said["targets"] if target["temporary"] is not None]
    if not wrong:
        return 0
    return os.EX_TEMPFAIL if any(target["temporary"] for target in wrong) else os.EX_UNAVAILABLE
