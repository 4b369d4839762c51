"""A queue on the disk as a server leaves it, and commands that look into it."""

import time

import pytest
from click.testing import CliRunner

from mailsuite.admin.command import root
from mailsuite.mail.address import Address, parse_mailbox
from mailsuite.mail.envelope import Envelope
from mailsuite.mail.origin import Origin
from mailsuite.mail.queue import Outcome, Result, Settlement
from mailsuite.mail.route import Destination, Target
from mailsuite.mail.session import Peer
from mailsuite.mail.status import EnhancedStatus
from mailsuite.mail.steps import attempt
from mailsuite.spool.sqlite import SqliteSpool
from tests.spool.pump import Pump

SENDER = Address("bob", "example.net")
CONTENT = b"Subject: hello\r\nFrom: bob@example.net\r\nMessage-ID: <1@example.net>\r\n\r\nthe body\r\n"
CONFIGURATION = """
hostname = "mx.example.org"
data_directory = "data"
"""


class Queue:
    """A spool that a test fills, and the command line over it. Times are real ones."""

    def __init__(self, directory):
        self.clock = Pump(time.time())
        self.config = directory / "mailsuite.toml"
        self.config.write_text(CONFIGURATION)
        (directory / "data").mkdir()
        self.spool = SqliteSpool(directory / "data" / "spool", self.clock, spill=1000)
        self.clock.run(self.spool.start())
        self.is_open = True

    def put(self, *recipients, sender=SENDER, content=CONTENT, age=0.0, message_id="<1@example.net>", envelope=None):
        """Queue a message that is so many seconds old; its id."""
        self.clock.rightNow -= age
        draft = self.spool.draft()
        draft.write(content)
        origin = Origin(Peer("192.0.2.7", 4022), "mx.example.net", "ESMTP", "smtp", message_id=message_id)
        targets = [Target(parse_mailbox(one), self.destination(one), rule="MX of the domain") for one in recipients]
        self.clock.run(draft.commit(envelope or Envelope(sender), targets, origin=origin))
        self.clock.rightNow += age
        return draft.queue_id

    @staticmethod
    def destination(recipient):
        domain = recipient.rpartition("@")[2]
        return Destination("hold" if domain == "held.example" else "relay", domain)

    def defer(self, domain, text="no answer in time", wait=600.0, count=1):
        """Have an attempt at a domain deferred."""
        now = self.clock.seconds()
        outcome = Outcome(Result.DEFERRED, EnhancedStatus(4, 4, 1), text, remote="mx.test", next_attempt=now + wait)
        for delivery in self.clock.run(self.spool.claim(Destination("relay", domain), count)):
            outcomes = [outcome] * len(delivery.recipients)
            step = attempt(delivery, outcomes, now, 1.5)
            self.clock.run(self.spool.settle([Settlement(delivery, outcomes, events=[step])]))

    def stop(self):
        """End the server."""
        if self.is_open:
            self.is_open = False
            self.clock.run(self.spool.stop())

    def __call__(self, *arguments, **options):
        return CliRunner().invoke(root, ["--config", str(self.config), *arguments], **options)


@pytest.fixture
def queue(tmp_path):
    one = Queue(tmp_path)
    yield one
    one.stop()
