"""An HTTPS server that has the MTA-STS policies of many domains (RFC 8461 section 3.3), in threads of this process.

    with PolicyServer("127.0.0.30", certificate, {"mta-sts.example.test": "version: STSv1\\n..."}) as server:
        ... server.asked ...

It listens on port 443, as those that fetch policies want it: that needs root, or a system that gives it to everybody.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.peers.certificate import Certificate
from tests.peers.process import PeerError, Server

PORT = 443
_PATH = "/.well-known/mta-sts.txt"


def why_missing(address: str) -> str | None:
    """Why the port of HTTPS cannot be had on this address, or None."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, PORT))
        except OSError as error:
            return f"{address}:{PORT}: {error.strerror}"
    return None


class PolicyServer(Server):
    """Serves `policies`, by the names of their hosts; `asked` are the hosts that it was asked for, in order."""

    def __init__(self, address: str, certificate: Certificate, policies: Mapping[str, str]) -> None:
        self.asked: list[str] = []
        self.policies = dict(policies)
        self._address = address
        self._certificate = certificate
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Listen. Raises `PeerError`."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._certificate.chain, self._certificate.key)
        rig = self

        class Policy(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                host = self.headers.get("Host", "")
                rig.asked.append(host)
                body = rig.policies.get(host)
                self.send_response(404 if body is None or self.path != _PATH else 200)
                self.send_header("Content-Type", "text/plain")
                self.send_header("Content-Length", str(len(body or "")))
                self.end_headers()
                self.wfile.write((body or "").encode("ascii"))

            def log_message(self, *_: object) -> None:
                """Says nothing."""

        class Listening(ThreadingHTTPServer):
            daemon_threads = True

            def get_request(self) -> tuple[socket.socket, object]:
                # The handshake belongs to the thread of the request, whatever the other side does.
                connection, address = super().get_request()
                connection.settimeout(10)
                return context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False), address

            def handle_error(self, *_: object) -> None:
                """Whoever breaks off has his reasons."""

        try:
            self._server = Listening((self._address, PORT), Policy)
        except OSError as error:
            raise PeerError(f"{self._address}:{PORT}: {error.strerror}") from None
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def stop(self) -> None:
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()
            self._server = self._thread = None
