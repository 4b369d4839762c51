"""`mailsuite doctor provider|customer`: the command."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import click

from mailsuite.admin.output import json_option, plain
from mailsuite.config import Settings

if TYPE_CHECKING:
    from mailsuite.admin.doctor.findings import Finding, Walk
    from mailsuite.admin.doctor.network import AsksAround
    from mailsuite.admin.doctor.site import IsHere

_STEP_WIDTH = 16
_COLORS = {"ok": "green", "warning": "yellow", "wrong": "red"}


class HasSettings(Protocol):
    """What is needed of the context's object."""

    @property
    def file(self) -> Path | None:
        """The configuration; None for the built-in defaults."""

    @property
    def settings(self) -> Settings:
        """The settings."""


class IsWalk(Protocol):
    """A chain that can be walked along."""

    def __init__(
        self, settings: Settings, source: str, walk: Walk, site: IsHere, network: AsksAround, *, now: float
    ) -> None:
        """See `mailsuite.admin.doctor.provider.ProviderWalk`."""

    def run(self) -> Awaitable[None]:
        """Walk to the end. Raises `Wrong`."""


@click.group()
def doctor() -> None:
    """Find out what is wrong with on-demand relay.

    The whole chain is walked in order, a line for each step. It ends at the first thing that is wrong, with status 1.
    """


@doctor.command("provider", short_help="Look at what holds mail for customers.")
@json_option
@click.pass_obj
def doctor_provider(context: HasSettings, *, as_json: bool) -> None:
    """Look at the provider's side, on its machine and while it runs.

    Customers and their credentials, listeners, EHLO, TLS and certificate, the MX of each held domain, what is held.
    """
    from mailsuite.admin.doctor.provider import ProviderWalk

    _walk(context, ProviderWalk, as_json=as_json)


@doctor.command("customer", short_help="Look at what pulls mail from a provider.")
@json_option
@click.pass_obj
def doctor_customer(context: HasSettings, *, as_json: bool) -> None:
    """Look at the customer's side, on its machine; its server may run or not.

    For each [[pull]]: the provider's name, the connection, EHLO, TLS and certificate, the login up to where ATRN would
    be said, whether the domains exist here, and the smarthost where something is pushed.
    """
    from mailsuite.admin.doctor.customer import CustomerWalk

    _walk(context, CustomerWalk, as_json=as_json)


def _walk(context: HasSettings, kind: type[IsWalk], *, as_json: bool) -> None:
    from mailsuite.admin.doctor.findings import Finding, Verdict, Walk, Wrong, split

    findings: list[Finding] = []

    def tell(finding: Finding) -> None:
        findings.append(finding)
        if not as_json:
            _print(finding)

    source = "the built-in defaults" if context.file is None else str(context.file)
    try:
        settings = context.settings
    except click.ClickException as error:
        # Several faults are several sentences: the first one is what is wrong first.
        tell(Finding("configuration", Verdict.WRONG, *split(error.message.partition("\n")[0])))
    else:
        try:
            _run(settings, source, kind, Walk(tell))
        except Wrong as wrong:
            tell(wrong.finding)
    if as_json:
        click.echo(json.dumps([_row(one) for one in findings], indent=2))
    if any(one.verdict is Verdict.WRONG for one in findings):
        sys.exit(1)


def _run(settings: Settings, source: str, kind: type[IsWalk], walk: Walk) -> None:
    from mailsuite.admin.doctor.network import Network
    from mailsuite.admin.doctor.site import Site
    from mailsuite.admin.running import run
    from mailsuite.net.tls import TLSSettingsError

    async def work(reactor: Any) -> None:  # noqa: ANN401 - the reactor has many interfaces at once
        try:
            network = Network(reactor, settings)
        except TLSSettingsError as error:
            raise walk.wrong("configuration", f"{source}: relay.ca_file: {error}", "name another file") from None
        await kind(settings, source, walk, Site(settings), network, now=time.time()).run()

    run(work)


def _row(finding: Finding) -> dict[str, str | None]:
    return {
        "step": finding.step,
        "verdict": finding.verdict.value,
        "text": finding.text,
        "cure": finding.cure,
    }


def _print(finding: Finding) -> None:
    mark = click.style(f"{finding.verdict.value:<8}", fg=_COLORS[finding.verdict.value])
    # A peer may have had a hand in the text.
    click.echo(f"{mark} {finding.step:<{_STEP_WIDTH}} {plain(str(finding))}")
