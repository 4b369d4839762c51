"""A held run with the session that drains it."""

from mailsuite.delivery.on_demand.held_run import HeldQueue, Returns
from mailsuite.mail.route import NextHop
from mailsuite.session.relay import RelaySession, RelaySettings
from mailsuite.wire.smtp.commands import ContentEnd
from tests.delivery.on_demand.conftest import held, result
from tests.session.scripted import ScriptedConversation

BEGIN = "S: 220 hello\nC: EHLO mx.here.example\nS: 250 ship.example\n"
MAIL = """\
C: MAIL FROM:<sender@here.example>
S: 250 ok
C: RCPT TO:<captain@ship.example>
S: 250 ok
C: DATA
S: 354 go
C: hello
C: .
S: 250 ok
"""
QUIT = "C: QUIT\nS: 221 bye\n"
HELLO = b"hello\r\n"


class Arriving(ScriptedConversation):
    """A conversation in which another message arrives while the first one is said."""

    arrive = None

    def send(self, message):
        super().send(message)
        if isinstance(message, ContentEnd) and self.arrive is not None:
            arrive, self.arrive = self.arrive, None
            arrive()


def test_what_comes_while_the_last_message_is_under_way_is_sent_too(provider, clock) -> None:
    queue = HeldQueue(provider.spool, provider.settlements, clock, Returns(provider.spool, clock))
    run = queue.run([held("ship.example")])
    settings = RelaySettings("mx.here.example", NextHop("ship.example", tls="none"))
    conversation = Arriving(settings.core(), BEGIN + MAIL + MAIL + QUIT)
    conversation.arrive = lambda: provider.store("captain@ship.example", content=HELLO)
    provider.store("captain@ship.example", content=HELLO)
    result(RelaySession(run, settings)(conversation))
    conversation.check()
    clock.turn()
    assert run.tally.messages == 2
    assert result(provider.spool.count()) == 0
