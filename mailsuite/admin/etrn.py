"""`mailsuite etrn`: ask a server, once and by hand, to send what it has for us (RFC 1985)."""

from __future__ import annotations

import os
import sys
from random import SystemRandom
from typing import TYPE_CHECKING, Any, Final, Protocol

import click

from mailsuite.admin.output import plain
from mailsuite.config import Settings, split_host_port

if TYPE_CHECKING:
    from mailsuite.delivery.pulls import PullPlan
    from mailsuite.session.pulling import PullEnd

_PORT: Final = 25
_MAX_INPUT: Final = 65_536  # octets


class HasSettings(Protocol):
    """What is needed of the context's object."""

    @property
    def settings(self) -> Settings:
        """The settings."""


@click.command(short_help="Ask a server to send what it has for us.")
@click.argument("server", metavar="HOST[:PORT]")
@click.argument("nodes", metavar="NODE...", nargs=-1, required=True)
@click.option(
    "--tls",
    type=click.Choice(["none", "opportunistic", "required", "verified", "implicit"]),
    help="TLS: never, where it is offered, always, always with a certificate that proves the name, or so from the "
    "first octet. Default: opportunistic; with --user verified.",
)
@click.option("--user", metavar="NAME", help="Log in under this name; TLS is needed.")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input, one line.")
@click.pass_obj
def etrn(
    context: HasSettings,
    server: str,
    nodes: tuple[str, ...],
    *,
    tls: str | None,
    user: str | None,
    password_stdin: bool,
) -> None:
    """Ask the server at HOST to send the mail that waits for each NODE, and print its answers.

    A NODE is a domain, @DOMAIN for its sub-domains too, or #QUEUE. The exit status is 0 where all nodes were taken,
    with mail or without; 75 where it may succeed later; 69 where the server does not do it; 77 where it is refused; 78
    where the configuration is wrong.
    """
    from mailsuite.admin.running import Failed, leave_with, run
    from mailsuite.delivery.pulls import PullPlan
    from mailsuite.net.tls import TLSSettingsError
    from mailsuite.wire.smtp.nodes import parse_node

    try:
        host, port = split_host_port(server, _PORT)
    except ValueError as error:
        raise click.UsageError(f"{server}: {error}") from None
    for node in nodes:
        if parse_node(node) is None:
            raise click.UsageError(f"{node}: it is no node; write a domain, @domain or #queue")
    if user is None and password_stdin:
        raise click.UsageError("--password-stdin needs --user.")
    mode = tls or ("opportunistic" if user is None else "verified")
    if user is not None and mode in ("none", "opportunistic"):
        raise click.UsageError("credentials go over TLS only; say --tls required, verified or implicit.")
    password = None if user is None else _password(password_stdin=password_stdin)
    plan = PullPlan(host, host, port, etrn=True, domains=nodes, tls=mode, username=user, password=password)
    settings = context.settings

    async def ask(reactor: Any) -> PullEnd:  # noqa: ANN401 - the reactor has many interfaces at once
        return await _ask(reactor, settings, plan)

    try:
        end = run(ask)
    except TLSSettingsError as error:
        raise Failed(f"relay.ca_file: {error}", os.EX_CONFIG) from None
    for answer in end.nodes:
        click.echo(plain(f"{answer.node}: {answer.reply}"))
    if not end.result.is_success and (not end.nodes or all(answer.reply.is_positive for answer in end.nodes)):
        click.echo(plain(f"{end.result}: {end.text}"), err=True)
    leave_with([end.result])


async def _ask(reactor: Any, settings: Settings, plan: PullPlan) -> PullEnd:  # noqa: ANN401 - as in `etrn`
    from twisted.internet.threads import deferToThreadPool

    from mailsuite.delivery.provider_line import LineSettings, ProviderLine
    from mailsuite.net.dialer import Dialer
    from mailsuite.net.resolver import Resolver, system_resolver
    from mailsuite.net.tls import ClientTLS
    from mailsuite.service.routes import name_servers, optional_path

    resolver = Resolver(system_resolver(reactor, name_servers(settings)), reactor, SystemRandom())
    line = ProviderLine(
        Dialer(reactor, resolver=resolver),
        ClientTLS(optional_path(settings, settings.relay.ca_file)),
        lambda function, *arguments: deferToThreadPool(reactor, reactor.getThreadPool(), function, *arguments),
        LineSettings(settings.hostname, settings.relay.source_address),
        addresses=resolver.addresses,
        clock=reactor,
    )
    return await line.pull(plan)


def _password(*, password_stdin: bool) -> str:
    """The password, from standard input or from whoever sits there."""
    if not password_stdin:
        return str(click.prompt("Password", hide_input=True, err=True))
    line = sys.stdin.buffer.read(_MAX_INPUT).partition(b"\n")[0].removesuffix(b"\r")
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        raise click.ClickException("the password on standard input is not UTF-8") from None
