"""What several tests of net share."""

import pytest
from twisted.logger import globalLogPublisher

from mailsuite.net.tls import ClientTLS, ServerTLS
from tests.net.authority import Authority


@pytest.fixture(scope="session")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def stranger(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("stranger"), "Stranger")


@pytest.fixture
def logged():
    """The log's events during the test."""
    events = []
    globalLogPublisher.addObserver(events.append)
    yield events
    globalLogPublisher.removeObserver(events.append)


@pytest.fixture(scope="session")
def server_tls(authority):
    return ServerTLS(*authority.issue("mx.example.org", "192.0.2.25"))


@pytest.fixture(scope="session")
def client_tls(authority):
    return ClientTLS(authority.file)
