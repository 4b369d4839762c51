"""TCP proxies in user space: one that cuts connections, and one that is slow as a satellite link is.

In tests they run in threads (`with CuttingProxy(port, cuts) as proxy`). `python -m tests.peers.proxies` is the slow
link as a process of its own; it prints the port it listens on, and at SIGTERM what has passed on each connection.

"Up" is from who dials to who listens, "down" the other way.
"""

from __future__ import annotations

import argparse
import asyncio
import select
import signal
import socket
import ssl
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from tests.peers.certificate import Certificate
from tests.peers.lines import reset_on_close
from tests.peers.process import LOOPBACK, PeerError, Server

_CHUNK = 65536
_PACKET = 1448  # octets of data in a segment of an ordinary link


class Cut(NamedTuple):
    """Where a connection ends: behind so many octets up, down, or both counted together; by a reset or by FIN."""

    after: int
    direction: Literal["up", "down", "both"] = "both"
    reset: bool = False


@dataclass(slots=True)
class Passed:
    """What has passed one connection. `cut`: we ended it as `wanted`; `seconds` from its start to its last octet.

    `problem`: a side that ended by itself, as the system tells it.
    """

    wanted: Cut | None = None
    up: int = 0
    down: int = 0
    cut: bool = False
    seconds: float = 0.0
    problem: OSError | None = None
    done: threading.Event = field(default_factory=threading.Event)
    begun: float = field(default_factory=time.monotonic)

    def count(self, direction: str, octets: int) -> None:
        setattr(self, direction, getattr(self, direction) + octets)
        self.seconds = time.monotonic() - self.begun


class CuttingProxy(Server):
    """Forwards to `target` on the loopback, and cuts each connection where the next of `cuts` says.

    None among the cuts is a connection that is left alone; so is every one when they are used up, and `used_up` is
    set then. With a `certificate` the dialling side speaks TLS with the proxy from the first octet, and octets are
    counted in the clear: so a cut can be at each octet of what is said, which TLS's records would hide.
    """

    def __init__(
        self,
        target: int,
        cuts: Iterable[Cut | None] = (),
        *,
        certificate: Certificate | None = None,
        timeout: float = 60.0,
    ) -> None:
        self.target = target
        self.connections: list[Passed] = []
        self._cuts: Iterator[Cut | None] = iter(cuts)
        self.used_up = threading.Event()
        self._timeout = timeout
        self._context: ssl.SSLContext | None = None
        if certificate is not None:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(certificate.chain, certificate.key)
        self._listener = socket.create_server((LOOPBACK, 0))
        self._listener.settimeout(0.05)
        self.port: int = self._listener.getsockname()[1]
        self._ending = threading.Event()
        self._threads: list[threading.Thread] = []

    @property
    def cut(self) -> int:
        """How many connections were cut."""
        return sum(passed.cut for passed in self.connections)

    def missed(self) -> set[Cut]:
        """The cuts that did not come about on any connection, because it ended before."""
        done = {passed.wanted for passed in self.connections if passed.cut}
        return {passed.wanted for passed in self.connections if passed.wanted is not None} - done

    @property
    def octets(self) -> int:
        """What has passed in all, both ways."""
        return sum(passed.up + passed.down for passed in self.connections)

    def cut_next(self, cuts: Iterable[Cut | None]) -> None:
        """From the next connection on, cut as these say."""
        self._cuts = iter(cuts)
        self.used_up.clear()

    def start(self) -> None:
        self._run(self._accept)

    def stop(self) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join(5.0)
        self._listener.close()
        if any(thread.is_alive() for thread in self._threads):
            raise PeerError("the proxy does not end")

    def _run(self, function: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=function, args=arguments, daemon=True)
        self._threads = [other for other in self._threads if other.is_alive()] + [thread]
        thread.start()

    def _accept(self) -> None:
        while not self._ending.is_set():
            with suppress(TimeoutError):
                connection, _ = self._listener.accept()
                try:
                    cut = next(self._cuts)
                except StopIteration:
                    cut = None
                    self.used_up.set()
                passed = Passed(cut)
                self.connections.append(passed)
                self._run(self._serve, connection, passed, cut)

    def _serve(self, connection: socket.socket, passed: Passed, cut: Cut | None) -> None:
        ends = [connection]
        try:
            connection.settimeout(self._timeout)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._context is not None:
                ends[0] = self._context.wrap_socket(connection, server_side=True)
            ends.append(socket.create_connection((LOOPBACK, self.target), timeout=self._timeout))
            ends[1].setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._forward(ends, passed, cut)
        except OSError as problem:  # a side has ended by itself: the other one hears of it
            passed.problem = problem
        finally:
            for end in ends:
                end.close()
            passed.done.set()

    def _forward(self, ends: Sequence[socket.socket], passed: Passed, cut: Cut | None) -> None:
        open_ends = {ends[0]: "up", ends[1]: "down"}
        while open_ends and not self._ending.is_set():
            for end in _readable(list(open_ends)):
                direction = open_ends[end]
                other = ends[direction == "up"]
                octets = end.recv(_CHUNK)
                room = _room(passed, cut, direction)
                if octets:
                    other.sendall(octets[:room])
                    passed.count(direction, len(octets[:room]))
                elif isinstance(other, ssl.SSLSocket):
                    return  # TLS knows no half of a connection
                else:
                    del open_ends[end]
                    other.shutdown(socket.SHUT_WR)
                if cut is not None and _room(passed, cut, cut.direction.replace("both", direction)) == 0:
                    passed.cut = True
                    self._end(ends, reset=cut.reset)
                    return

    def _end(self, ends: Sequence[socket.socket], *, reset: bool) -> None:
        if reset:
            for end in ends:
                reset_on_close(end)
            return
        for end in ends:
            with suppress(OSError):
                socket.socket.shutdown(end, socket.SHUT_WR)  # below TLS: nobody says good-bye
        # What is closed with octets unread sends a reset: they are read first.
        deadline = time.monotonic() + 2.0
        left = set(ends)
        while left and time.monotonic() < deadline:
            for end in select.select(list(left), [], [], 0.05)[0]:
                try:
                    gone = not socket.socket.recv(end, _CHUNK)
                except OSError:
                    gone = True
                if gone:
                    left.discard(end)


def _room(passed: Passed, cut: Cut | None, direction: str) -> int:
    """How many octets may still pass this way."""
    if cut is None or cut.direction not in ("both", direction):
        return _CHUNK
    used = passed.up + passed.down if cut.direction == "both" else getattr(passed, direction)
    return max(0, cut.after - used)


def _readable(ends: list[socket.socket]) -> list[socket.socket]:
    pending = [end for end in ends if isinstance(end, ssl.SSLSocket) and end.pending()]
    return pending or select.select(ends, [], [], 0.05)[0]


# ---------------------------------------------------------------------------------------------- the slow link


class SlowLink(Server):
    """A long link: `delay` seconds each way, `rate` bits a second each way, and a queue before each direction.

    A queue holds what the link carries in a round trip (the bandwidth-delay product), as that of a modem that is set up
    well; while it is full nothing is read, as TCP would have it once it has noticed. Setting up a connection takes its
    round trips. No octets are lost, and headers of packets are not counted: what is modelled is time. All connections
    share the link.
    """

    def __init__(self, target: int, *, delay: float = 0.3, rate: float = 1e6, port: int = 0) -> None:
        self.target, self.delay, self.rate = target, delay, rate
        self.connections: list[Passed] = []
        self._queue = max(2 * _PACKET, int(rate / 8 * 2 * delay))
        # Small, for what waits in them is beyond the queue; they are inherited from the listener.
        self._listener = _small(socket.socket())
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind((LOOPBACK, port))
        self._listener.listen()
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._free_at = {"up": 0.0, "down": 0.0}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._main: asyncio.Task[None] | None = None
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    @property
    def up(self) -> int:
        return sum(passed.up for passed in self.connections)

    @property
    def down(self) -> int:
        return sum(passed.down for passed in self.connections)

    def start(self) -> None:
        self._thread.start()
        self._started.wait(10.0)

    def stop(self) -> None:
        if self._loop is not None and self._main is not None:
            with suppress(RuntimeError):  # it has ended
                self._loop.call_soon_threadsafe(self._main.cancel)
        self._thread.join(10.0)
        self._listener.close()

    async def _serve(self) -> None:
        self._loop, self._main = asyncio.get_running_loop(), asyncio.current_task()
        self._started.set()
        with suppress(asyncio.CancelledError):
            async with asyncio.TaskGroup() as tasks:
                while True:
                    connection, _ = await self._loop.sock_accept(self._listener)
                    tasks.create_task(self._carry(connection))

    async def _carry(self, near: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        passed = Passed()
        self.connections.append(passed)
        far = _small(socket.socket())
        try:
            for end in (near, far):
                end.setblocking(False)
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await asyncio.sleep(3 * self.delay)  # SYN, SYN-ACK, ACK
            await loop.sock_connect(far, (LOOPBACK, self.target))
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._one_way(near, far, passed, "up"))
                tasks.create_task(self._one_way(far, near, passed, "down"))
        except* OSError:  # an end is gone: the other hears of it
            pass
        finally:
            near.close()
            far.close()
            passed.done.set()

    async def _one_way(self, source: socket.socket, sink: socket.socket, passed: Passed, direction: str) -> None:
        loop = asyncio.get_running_loop()
        under_way: deque[tuple[float, bytes]] = deque()
        more = asyncio.Event()

        async def deliver() -> None:
            while True:
                while not under_way:
                    more.clear()
                    await more.wait()
                due, octets = under_way.popleft()
                await asyncio.sleep(max(0.0, due - loop.time()))
                if not octets:
                    sink.shutdown(socket.SHUT_WR)
                    return
                await loop.sock_sendall(sink, octets)
                passed.count(direction, len(octets))

        delivery = loop.create_task(deliver())
        try:
            octets = b"-"
            while octets:
                octets = await loop.sock_recv(source, _PACKET)
                start = max(loop.time(), self._free_at[direction])
                self._free_at[direction] = start + len(octets) * 8 / self.rate
                under_way.append((self._free_at[direction] + self.delay, octets))
                more.set()
                # What the link has not begun to carry is the queue.
                too_much = (self._free_at[direction] - loop.time()) * self.rate / 8 - self._queue
                if too_much > 0:
                    await asyncio.sleep(too_much * 8 / self.rate)
            await delivery
        finally:
            delivery.cancel()


def _small(end: socket.socket) -> socket.socket:
    end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
    return end


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.peers.proxies", description=SlowLink.__doc__)
    parser.add_argument("target", type=int, help="the port to forward to")
    parser.add_argument("--port", type=int, default=0, help="the port to listen on")
    parser.add_argument("--delay", type=float, default=0.3, help="seconds each way (%(default)s)")
    parser.add_argument("--rate", type=float, default=1e6, help="bits a second each way (%(default)s)")
    options = parser.parse_args(arguments)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGINT])
    with SlowLink(options.target, delay=options.delay, rate=options.rate, port=options.port) as link:
        print(link.port, flush=True)
        signal.sigwait([signal.SIGTERM, signal.SIGINT])
        for passed in link.connections:
            print(f"up {passed.up} down {passed.down} seconds {passed.seconds:.3f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
