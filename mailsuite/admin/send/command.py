"""`mailsuite send`: send a test message, and tell each step of its way."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any, Final

import click

from mailsuite.admin.output import json_option
from mailsuite.admin.reading import HasSettings
from mailsuite.config import split_host_port
from mailsuite.mail.address import Address, parse_mailbox

_SUBMISSIONS: Final = 465  # RFC 8314 section 3.3: TLS from the first octet
_LARGEST: Final = 100 * 1024 * 1024  # octets
_MODES: Final = ("none", "opportunistic", "required", "verified", "dane", "implicit")


@click.command(short_help="Send a test message, and tell each step of its way.")
@click.argument("recipient", metavar="ADDRESS")
@click.option("--from", "sender", metavar="ADDRESS", help='The sender; "<>" for none. Default: postmaster here.')
@click.option("--subject", default="A test message", show_default=True, help="The subject of the message made here.")
@click.option(
    "--message", "file", type=click.File("rb"), metavar="FILE", help="Send this message, header and body; - for stdin."
)
@click.option("--server", metavar="HOST[:PORT]", help="Speak to this server, whatever the routes say.")
@click.option("--tls", type=click.Choice(_MODES), help="TLS to --server. Default: opportunistic; implicit on port 465.")
@click.option("--lmtp", is_flag=True, help="Speak LMTP to --server.")
@click.option("--require-tls", is_flag=True, help="Ask for TLS on the whole way (REQUIRETLS).")
@click.option("--notify", metavar="WHEN", help="Ask for reports: never, or some of success,failure,delay (DSN).")
@click.option("--dry-run", is_flag=True, help="Name the recipient to the server, and send nothing.")
@json_option
@click.pass_obj
def send(  # noqa: PLR0913 - its options
    context: HasSettings,
    recipient: str,
    *,
    sender: str | None,
    subject: str,
    file: Any,  # noqa: ANN401 - a binary file
    server: str | None,
    tls: str | None,
    lmtp: bool,
    require_tls: bool,
    notify: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Send a test message to ADDRESS, from here and past the queue, and tell each step of its way.

    Routes, MX and addresses, TLS policies (DANE, MTA-STS), connections, certificates, and every reply: all by the parts
    that relay the server's own mail, and by its configuration. Credentials are not shown. What cannot be sent now is
    told, and not tried again.

    The exit status is 0 where it was taken, 75 where a queued message would be tried again, 69 where it would go back,
    and 78 where the configuration is wrong.
    """
    from mailsuite.admin.queue.work import become_owner
    from mailsuite.admin.running import Failed, run
    from mailsuite.admin.send.steps import Teller, print_step
    from mailsuite.admin.send.way import Way
    from mailsuite.interfaces import DirectoryUnavailable
    from mailsuite.mail.options import NO_WISHES, PLAIN, MessageOptions, RecipientOptions
    from mailsuite.mail.queue import Result
    from mailsuite.net.tls import TLSSettingsError
    from mailsuite.service import StartError

    if server is None and (tls is not None or lmtp):
        raise click.UsageError("--tls and --lmtp are for --server; routes have their own.")
    settings = context.settings
    reverse_path = Address("postmaster", settings.hostname) if sender is None else _sender(sender)
    errand = _errand(
        reverse_path,
        _mailbox(recipient),
        _octets(file, reverse_path, _mailbox(recipient), subject, settings.hostname),
        options=MessageOptions(require_tls=True) if require_tls else PLAIN,
        wishes=NO_WISHES if notify is None else RecipientOptions(_notify(notify)),
        server=None if server is None else _server(server, tls, lmtp=lmtp),
        dry_run=dry_run,
    )
    teller = Teller(time.monotonic, (lambda _step: None) if as_json else print_step)

    async def work(reactor: Any) -> Result:  # noqa: ANN401 - the reactor has many interfaces at once
        way = Way(reactor, settings, teller)
        try:
            return (await way.send(errand)).result
        finally:
            await way.close()

    become_owner(settings)  # what it writes, as the policies of others, is the server's
    try:
        result = run(work)
    except TLSSettingsError as error:
        raise Failed(f"relay.ca_file: {error}", os.EX_CONFIG) from None
    except (StartError, DirectoryUnavailable) as error:
        raise Failed(str(error), os.EX_CONFIG) from None
    if as_json:
        click.echo(json.dumps({"result": result.value, "steps": teller.rows()}, indent=2))
    statuses = {Result.DEFERRED: os.EX_TEMPFAIL, Result.HELD: os.EX_TEMPFAIL, Result.FAILED: os.EX_UNAVAILABLE}
    sys.exit(statuses.get(result, 0))


def _errand(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - what `Errand` takes
    from mailsuite.admin.send.way import Errand

    return Errand(*arguments, **options)


def _octets(file: Any, sender: Address | None, recipient: Address, subject: str, hostname: str) -> bytes:  # noqa: ANN401
    from mailsuite.admin.send.message import compose, with_line_ends

    if file is None:
        return compose(sender, recipient, subject, hostname, time.time())
    octets: bytes = file.read(_LARGEST + 1)
    if len(octets) > _LARGEST:
        raise click.ClickException(f"{file.name}: it has more than {_LARGEST} octets")
    if not octets:
        raise click.ClickException(f"{file.name}: it is empty; a message has a header at least")
    return with_line_ends(octets)


def _sender(text: str) -> Address | None:
    return None if text == "<>" else _mailbox(text)


def _mailbox(text: str) -> Address:
    address = parse_mailbox(text.removeprefix("<").removesuffix(">"))
    if address is None:
        raise click.UsageError(f"{text!r} is not an address; write it as in user@example.org.")
    return address


def _server(text: str, tls: str | None, *, lmtp: bool) -> Any:  # noqa: ANN401 - a NextHop
    from mailsuite.mail.route import NextHop

    if text.startswith("/"):
        return NextHop(text, tls=tls or "none", lmtp=lmtp)
    try:
        host, port = split_host_port(text, _SUBMISSIONS if tls == "implicit" else 25)
    except ValueError as error:
        raise click.UsageError(f"--server {text}: {error}.") from None
    return NextHop(host, port, tls=tls or ("implicit" if port == _SUBMISSIONS else "opportunistic"), lmtp=lmtp)


def _notify(text: str) -> Any:  # noqa: ANN401 - a Notify
    from mailsuite.mail.options import Notify

    words = [word.strip().lower() for word in text.split(",")]
    if words == ["never"]:
        return Notify(0)
    known = {str(one.name).lower(): one for one in Notify}
    chosen = Notify(0)
    for word in words:
        if word not in known:
            raise click.UsageError(f"--notify {text}: write never, or some of success,failure,delay.")
        chosen |= known[word]
    return chosen
