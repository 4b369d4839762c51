"""A server's answers to the commands by which a message comes in: MAIL, RCPT, DATA, BDAT and the content.

Content wants no answer while it comes; what goes wrong with it is told at its end. LMTP answers once for each recipient
(RFC 2033 section 4.2); here as there the answer says that the message is in the queue, on stable storage.

MAIL with a TRANSID may resume an interrupted transaction, or find one that is complete (RFC 1845): see `checkpoints`.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from twisted.logger import Logger

from mailsuite.interfaces import Refused, SpoolError
from mailsuite.mail import replies
from mailsuite.mail.envelope import Body, Envelope
from mailsuite.mail.origin import Origin
from mailsuite.mail.partial import Completed, Partial
from mailsuite.mail.reply import Reply
from mailsuite.mail.trace import received_line, with_protocol
from mailsuite.session.reception import Amendments, Reception, Repetition, told
from mailsuite.session.visit import ENDINGS, Visit
from mailsuite.session.wishes import inherited
from mailsuite.wire.smtp.checkpoint import resuming
from mailsuite.wire.smtp.commands import Content, ContentEnd, Data, Ehlo, Mail, Rcpt

_log = Logger()


async def mail(visit: Visit, command: Mail) -> Reply:
    """MAIL opens a transaction."""
    identity, door = visit.identity, visit.door
    visit.forget()
    # RFC 8689 section 2: "the session itself MUST employ TLS", so nobody was offered this here.
    if command.require_tls and visit.conversation.tls is None:
        raise Refused(replies.UNKNOWN_PARAMETER)
    sender = command.reverse_path
    # RFC 6409 section 6.1. On other doors it is mail servers that log in, and what they relay has any sender; but a
    # customer sends for its own domains, wherever it logs in.
    bound = identity if door.submission or (identity is not None and identity.customer is not None) else None
    if bound is not None and sender is not None and not bound.may_send_as(sender):
        raise Refused(replies.NOT_YOUR_ADDRESS)
    envelope = Envelope(
        sender,
        command.body or Body.SEVEN_BIT,
        command.smtputf8,
        None if identity is None else identity.name,
        command.options,
    )
    amendments = Amendments(door.hostname, door.now) if door.submission else None
    if command.transid is not None:
        return await _named(visit, command, envelope, amendments)
    visit.reception = Reception(envelope, amendments, declared=command.size)
    return replies.SENDER_OK


async def _named(visit: Visit, command: Mail, envelope: Envelope, amendments: Amendments | None) -> Reply:
    """MAIL with a TRANSID (RFC 1845 section 3)."""
    assert command.transid is not None
    name = visit.name_of(command.transid)
    checkpoint = await visit.door.checkpoints.claim(name)
    try:
        found: Partial | Completed | None = await visit.door.spool.resume(name)
        reception, answer = _taken_up(visit, found, Reception(envelope, amendments, checkpoint, command.size))
        await _keep_room_again(visit, reception)
    except SpoolError as error:
        checkpoint.release()
        raise Refused(told(error)) from None
    except BaseException:
        checkpoint.release()
        raise
    visit.reception = reception
    checkpoint.ready(partial(_give_way, visit, reception))
    return answer


def _taken_up(visit: Visit, found: Partial | Completed | None, reception: Reception) -> tuple[Reception, Reply]:
    """The transaction to go on with, and what MAIL is answered."""
    envelope = reception.envelope
    if found is None:
        return reception, replies.SENDER_OK
    served = all(visit.door.serves(one.original or one.address) for one in found.targets)
    if not served or _as_said(found.envelope) != envelope:
        if isinstance(found, Partial):
            found.draft.abort()
        return reception, replies.SENDER_OK
    if isinstance(found, Partial):
        reception.resume(found)
    else:
        reception = Repetition(found.envelope, checkpoint=reception.checkpoint)
        reception.repeat(found)
    how = "is resumed at octet" if isinstance(found, Partial) else "is repeated, and was complete with octet"
    visit.door.log(
        f"{reception.queue_id}: from=<{envelope.reverse_path or ''}> of {visit.peer_name}: {how} {found.received}"
    )
    return reception, resuming(found.received)


def _as_said(envelope: Envelope) -> Envelope:
    """An envelope without what the header has added to it."""
    if not envelope.options.tls_optional:
        return envelope
    return replace(envelope, options=replace(envelope.options, tls_optional=False))


async def _keep_room_again(visit: Visit, reception: Reception) -> None:
    """What is resumed has recipients already; where there is no room for it, it stays as it was kept."""
    quota = visit.door.quota
    if quota is None:
        return
    try:
        await reception.keep_room(quota, reception.targets)
    except BaseException:
        visit.keep(reception)
        raise


def _give_way(visit: Visit, reception: Reception) -> None:
    """The transaction goes on in another session; this one has nothing to do with it any more."""
    if visit.conversation.core.content_fault is None:
        visit.keep(reception)
    reception.fail(replies.CONTINUED_ELSEWHERE)


async def rcpt(visit: Visit, command: Rcpt) -> Reply:
    """RCPT asks the router for a route or a refusal."""
    reception, door = visit.reception, visit.door
    assert reception is not None
    if reception.fault is not None:
        raise Refused(reception.fault)
    if reception.knows(command.address):
        return replies.RECIPIENT_OK
    if reception.recipients >= door.max_recipients:
        raise Refused(replies.TOO_MANY_RECIPIENTS)
    if not door.serves(command.address):
        # To a provider 550 is final: it would return what it has held.
        raise Refused(replies.NOT_OUR_DOMAIN if door.peer_name else replies.RELAYING_DENIED)
    # Whoever has asked for the mail of a domain wants it, and may want it at another host of his.
    trusted = visit.trusted or door.domains is not None
    sender = reception.envelope.reverse_path
    targets = await door.router.resolve(command.address, visit.identity, trusted=trusted, sender=sender)
    if door.quota is not None:
        await reception.keep_room(door.quota, targets)
    reception.accept(command.address, inherited(command.options, targets, command.address))
    return replies.RECIPIENT_OK


async def data(visit: Visit, _command: Data) -> Reply:
    """DATA: the content may come."""
    reception = visit.reception
    assert reception is not None
    if reception.fault is not None:
        raise Refused(reception.fault)
    if not reception.begun:
        _begin(visit)
    return replies.START_CONTENT


def begin_chunk(visit: Visit) -> None:
    """BDAT wants no answer: what goes wrong is told at the end of the chunk."""
    reception = visit.reception
    assert reception is not None
    if reception.begun:
        return
    try:
        _begin(visit)
    except Refused as refused:
        reception.fail(refused.reply)
    except Exception:  # noqa: BLE001 - whatever went wrong: a temporary answer loses nothing
        _log.failure("no draft can be begun")
        reception.fail(replies.LOCAL_ERROR)


def _begin(visit: Visit) -> None:
    assert visit.reception is not None
    visit.reception.begin(visit.door.spool, partial(_trace, visit))


async def content(visit: Visit, event: Content) -> None:
    """Some of the content."""
    reception = visit.reception
    assert reception is not None
    try:
        await reception.write(event.data, altered=event.altered)
    except ENDINGS:
        raise
    except Exception:  # noqa: BLE001 - as in `begin_chunk`
        _log.failure("{event} from {host} failed", event=type(event).__name__, host=visit.conversation.peer.host)
        reception.fail(replies.LOCAL_ERROR)


async def content_end(visit: Visit, event: ContentEnd) -> Reply:
    """The end of the content: 250 when the message is on stable storage."""
    reception = visit.reception
    assert reception is not None
    fault = event.fault or reception.fault
    if fault is not None:
        visit.forget()
        return fault
    if not event.last:
        return replies.CHUNK_OK
    queue_id = reception.queue_id
    try:
        size = await reception.commit(partial(_origin, visit))
    finally:
        visit.forget()
    if reception.checkpoint is not None:
        visit.completed.append(reception.checkpoint.name)
    envelope = reception.envelope
    who = f" as {envelope.submitter}" if envelope.submitter else ""
    count = len(reception.targets)
    visit.door.log(
        f"{queue_id}: from=<{envelope.reverse_path or ''}> of {visit.peer_name}{who} "
        f"for {count} recipient{'' if count == 1 else 's'}, {size} octets: "
        f"{'was queued' if isinstance(reception, Repetition) else 'queued'}"
    )
    return replies.QUEUED.saying(f"Queued as {queue_id}")


def _origin(visit: Visit, reception: Reception) -> Origin:
    """Where the message comes from, for the history."""
    conversation, hello, identity = visit.conversation, visit.hello, visit.identity
    assert hello is not None
    return Origin(
        conversation.peer,
        hello.domain,
        reception.protocol or _protocol(visit, reception),
        visit.door.service,
        None if identity is None else identity.name,
        conversation.tls,
        reception.message_id,
    )


def _protocol(visit: Visit, reception: Reception) -> str:
    return with_protocol(
        lmtp=visit.door.offer.lmtp,
        extended=type(visit.hello) is Ehlo,
        tls=visit.conversation.tls is not None,
        authenticated=visit.identity is not None,
        smtputf8=reception.envelope.smtputf8,
    )


def _trace(visit: Visit, queue_id: str) -> bytes:
    """Our Received line (RFC 5321 section 4.4)."""
    conversation, reception, hello, door = visit.conversation, visit.reception, visit.hello, visit.door
    assert reception is not None
    assert hello is not None
    reception.protocol = protocol = _protocol(visit, reception)
    return received_line(
        helo=hello.domain,
        peer=conversation.peer,
        peer_name=door.peer_name,
        hostname=door.hostname,
        protocol=protocol,
        queue_id=queue_id,
        now=door.now(),
        recipient=reception.only_recipient,
        tls=conversation.tls,
        smtputf8=reception.envelope.smtputf8,
    )
