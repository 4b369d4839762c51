"""Why a connection was lost, in our words."""

import pytest
from OpenSSL import SSL
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.python.failure import Failure

from mailsuite.net.losses import describe_loss


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ConnectionLost(), "the line broke"),
        (ConnectionResetError(104, "Connection reset by peer"), "the line broke"),
        (ConnectionDone(), "the peer has closed the connection"),
        (ConnectionAborted(), "the connection was aborted"),
        (SSL.Error([("SSL routines", "", "unexpected eof")]), "the line broke (TLS)"),
        (RuntimeError("something else"), "something else"),
        (RuntimeError(), "the line broke"),
    ],
)
def test_losses_are_told_in_few_words(error, words):
    assert describe_loss(Failure(error)) == words
