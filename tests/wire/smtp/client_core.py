"""Client cores in any state, and what they hear."""

from mailsuite.mail.address import Address
from mailsuite.wire.core import NEED_DATA, PAUSED, EndOfFile, Event
from mailsuite.wire.smtp.client import SmtpClientCore
from mailsuite.wire.smtp.client_states import State
from mailsuite.wire.smtp.commands import (
    Atrn,
    Auth,
    AuthResponse,
    Bdat,
    Command,
    Content,
    ContentEnd,
    Data,
    Ehlo,
    Etrn,
    Helo,
    Help,
    Mail,
    Noop,
    Quit,
    Rcpt,
    Rset,
    StartTls,
    Turn,
    Vrfy,
)

ANN = Address("ann", "example.org")
BOB = Address("bob", "example.net")
ALL = (
    "PIPELINING",
    "SIZE",
    "8BITMIME",
    "SMTPUTF8",
    "CHUNKING",
    "BINARYMIME",
    "STARTTLS",
    "AUTH PLAIN",
    "ETRN",
    "ATRN",
    "CHECKPOINT",
    "DSN",
    "REQUIRETLS",
)
EXAMPLES: list[Command] = [
    *(Ehlo("relay.example.org"), Helo("relay.example.org"), Mail(ANN), Rcpt(BOB), Data(), Bdat(3, last=True)),
    *(Rset(), Noop(), Vrfy("bob"), Help(), Quit(), StartTls(), Auth(b"PLAIN", b"x"), AuthResponse(b"x")),
    *(Etrn("example.org"), Atrn(("example.org", "example.com")), Turn()),
]


def hear(core: SmtpClientCore, octets: bytes) -> list[Event]:
    core.receive_data(octets)
    events = []
    while (event := core.next_event()) not in (NEED_DATA, PAUSED):
        events.append(event)
        if isinstance(event, EndOfFile):
            break
    return events


def ready(*keywords: str, lmtp: bool = False) -> SmtpClientCore:
    """A core that has been greeted and has said EHLO."""
    core = SmtpClientCore(lmtp=lmtp)
    hear(core, b"220 mx.example.net\r\n")
    core.send(Ehlo("relay.example.org", lmtp=lmtp))
    lines = ["mx.example.net", *(keywords or ALL)]
    hear(core, b"".join(f"250{'-' if at + 1 < len(lines) else ' '}{w}\r\n".encode() for at, w in enumerate(lines)))
    return core


def in_state(state: State) -> SmtpClientCore:
    """A core to which nothing is owed, in a given state."""
    if state is State.CONNECTED:
        return SmtpClientCore()
    if state is State.INITIAL:
        return SmtpClientCore(greeted=True)
    if state is State.REFUSED:
        core = SmtpClientCore()
        hear(core, b"554 no\r\n")
        return core
    core = ready()
    exchanges: dict[State, list[tuple[Command | Content | ContentEnd, bytes]]] = {
        State.READY: [],
        State.SENDER: [(Mail(ANN), b"250 ok\r\n")],
        State.RECIPIENTS: [(Mail(ANN), b"250 ok\r\n"), (Rcpt(BOB), b"250 ok\r\n")],
        State.AUTH: [(Auth(b"LOGIN"), b"334 \r\n")],
        State.DONE: [(StartTls(), b"220 go\r\n")],
        State.CLOSING: [(Noop(), b"421 bye\r\n")],
    }
    exchanges[State.CONTENT] = [*exchanges[State.RECIPIENTS], (Data(), b"354 go\r\n")]
    chunk: list[tuple[Command | Content | ContentEnd, bytes]] = [(Bdat(1, last=False), b""), (Content(b"x"), b"")]
    exchanges[State.CHUNKS] = [*exchanges[State.RECIPIENTS], *chunk, (ContentEnd(last=False), b"250 ok\r\n")]
    exchanges[State.BROKEN] = [*exchanges[State.RECIPIENTS], *chunk, (ContentEnd(last=False), b"552 no\r\n")]
    for said, answer in exchanges[state]:
        core.send(said)
        hear(core, answer)
    return core
