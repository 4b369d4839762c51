"""The addresses and the limit that every server under test is set up for."""

from tests.peers.smtpstone import recipient_names

DOMAIN = "bench.test"
RECIPIENT = f"user@{DOMAIN}"
SENDER = "sender@client.test"
MOST_RECIPIENTS = 10
USERS = tuple(name.partition("@")[0] for name in recipient_names(RECIPIENT, MOST_RECIPIENTS))
MESSAGE_LIMIT = 100 * 2**20
