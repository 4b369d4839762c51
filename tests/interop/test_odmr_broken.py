"""Provider and customer, both ours, when things break: the line, either side, either disk.

`MAILSUITE_EVERY_OCTET=1` cuts the line behind every octet of a turn; else behind every thirteenth, from another one on
in each of the two tests.
"""

import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests import disk
from tests.instance import Instance
from tests.interop.conftest import require
from tests.interop.on_demand import HOME, check_exactly_once, content, hand_in, held, home, provider, pull
from tests.peers.certificate import self_signed
from tests.peers.process import Server, wait_until
from tests.peers.proxies import Cut, CuttingProxy, SlowLink

pytestmark = [pytest.mark.interop, pytest.mark.slow]

EVERY_OCTET = bool(os.environ.get("MAILSUITE_EVERY_OCTET"))
STEP = 1 if EVERY_OCTET else 13
KEEPS_PULLING = {"interval": 0.05, "jitter": 0}


class Rig(NamedTuple):
    provider: Instance
    home: Instance
    line: Server


@pytest.fixture
def rigs(tmp_path: Path) -> Iterator[Callable[..., Rig]]:
    """Start a provider, and get a customer that pulls from it through a line which `line` makes of the provider's port.

    The customer is not started yet. `clear`: the line speaks TLS with the customer and sees what is said.
    """
    started: list[Server] = []

    def start(
        line: Callable[..., Server], *, clear: bool = False, settings: dict[str, Any] | None = None, **terms: Any
    ) -> Rig:
        holder = provider(tmp_path, settings=settings, **terms)
        holder.start()
        started.append(holder)
        certificate = self_signed(tmp_path)
        proxy = line(holder.odmr_port, certificate=certificate) if clear else line(holder.odmr_port)
        proxy.start()
        started.append(proxy)
        table = pull(proxy.port, tls="implicit" if clear else "required", **KEEPS_PULLING)
        site = home(tmp_path, table, settings={"relay.ca_file": str(certificate.chain)})
        started.append(site)
        return Rig(holder, site, proxy)

    yield start
    for server in reversed(started):
        server.stop()
    for server in started:
        if isinstance(server, Instance):
            server.check_log()


def wait_until_pulled(rig: Rig, *, timeout: float = 60.0) -> None:
    """Return when the provider holds nothing, and the customer has delivered all that it has."""
    wait_until(lambda: not held(rig.provider), timeout=timeout, why=lambda: rig.provider.log()[-5000:])
    rig.home.wait_until_drained()


def check_nothing_lost(rig: Rig, count: int, most_copies: int) -> None:
    """Verify that each message has come, and no more than so many of them once more."""
    copies = Counter(rig.home.numbers())
    assert sorted(copies) == list(range(count))
    assert copies.total() - count <= most_copies, copies.most_common(5)


# ------------------------------------------------------------------------------------------- the line


def length_of_a_turn(rig: Rig) -> int:
    """The octets of a whole turn with two messages."""
    hand_in(rig.provider, range(2))
    with rig.home:
        wait_until_pulled(rig)
        first = rig.line.connections[0]
        assert first.done.wait(5.0)
    for path in rig.home.messages():
        path.unlink()
    return first.up + first.down


@pytest.mark.parametrize("reset", [False, True])
def test_the_line_is_cut_behind_every_octet_of_a_short_turn(rigs: Callable[..., Rig], reset: bool) -> None:
    settings = {"on_demand.turn_messages": 2}
    rig = rigs(lambda *target, **how: CuttingProxy(*target, [], **how), clear=True, settings=settings)
    length = length_of_a_turn(rig)
    first = 1 if EVERY_OCTET else 1 + reset * (STEP // 2)
    cuts = {Cut(after, "both", reset) for after in range(first, length - 2, STEP)}
    count, rounds = 0, 0
    with rig.home:
        while cuts and rounds < 5:  # some turns are shorter: they come before there is mail again
            rig.line.cut_next(sorted(cuts))
            while not rig.line.used_up.is_set():
                if held(rig.provider) < 8:
                    hand_in(rig.provider, range(count, count + 8))
                    count += 8
                time.sleep(0.02)
            cuts, rounds = rig.line.missed(), rounds + 1
        assert not cuts
        wait_until_pulled(rig)
        # One for each cut at the most: what was under way.
        check_nothing_lost(rig, count, rig.line.cut)


def test_the_line_is_cut_at_random_in_a_long_turn(rigs: Callable[..., Rig]) -> None:
    chance = random.Random(8)
    cuts = [Cut(chance.randrange(6_000, 60_000), chance.choice(("up", "down", "both")), chance.random() < 0.5)
            for _ in range(40)]  # fmt: skip
    cuts = [cut._replace(after=cut.after // 20) if cut.direction == "up" else cut for cut in cuts]
    rig = rigs(lambda *target, **how: CuttingProxy(*target, cuts, **how))
    hand_in(rig.provider, range(200), octets=2000)
    with rig.home:
        wait_until_pulled(rig)
        assert rig.line.cut > 10
        check_nothing_lost(rig, 200, rig.line.cut)


def test_a_large_message_resumes_where_the_line_broke(rigs: Callable[..., Rig]) -> None:
    """20 MB over a line that breaks every 3 MB, with CHECKPOINT: less than 25 MB travel."""
    megabyte = 10**6
    cuts = [Cut(3 * megabyte, "both", number % 2 == 0) for number in range(100)]
    rig = rigs(lambda *target, **how: CuttingProxy(*target, cuts, **how))
    hand_in(rig.provider, range(1), octets=20 * megabyte)
    with rig.home:
        wait_until_pulled(rig, timeout=120.0)
        check_exactly_once(rig.home, range(1))
        whole = content(0, 20 * megabyte).replace(b"\r\n", b"\n")
        assert rig.home.messages()[0].read_bytes().endswith(whole.partition(b"\n")[2])
    assert rig.line.octets < 25 * megabyte


# ------------------------------------------------------------------------------------------- either side


def link(target: int) -> SlowLink:
    """A line on which a turn of two hundred messages takes five seconds: time to be seen in the middle of it."""
    return SlowLink(target, delay=0.002, rate=1.4e6)


@pytest.mark.parametrize("provider_dies", [False, True])
def test_a_side_is_killed_in_the_middle_of_a_turn(rigs: Callable[..., Rig], provider_dies: bool) -> None:
    rig = rigs(link)
    hand_in(rig.provider, range(200), octets=4000)
    victim = rig.provider if provider_dies else rig.home
    with rig.home:
        for least in (20, 90):
            wait_until(lambda least=least: len(rig.home.messages()) > least, timeout=30, why=rig.home.log)
            assert held(rig.provider) > 0
            victim.kill()
            time.sleep(0.2)
            victim.start()
        wait_until_pulled(rig)
        check_nothing_lost(rig, 200, 2)


# ------------------------------------------------------------------------------------------- either disk


@pytest.fixture(scope="module")
def needs_disks() -> None:
    require(disk.why_missing())


@pytest.mark.usefixtures("needs_disks")
def test_the_disk_of_the_customer_is_full(rigs: Callable[..., Rig]) -> None:
    rig = rigs(link)
    # The maildirs too lie there: the room is soon gone, and 452 is what is left to say.
    with disk.small_disk(rig.home, 32 * disk.MEBIBYTE) as small:
        small.leave(disk.RESERVE + disk.MEBIBYTE)
        rig.home.add_users(["alice"])
        hand_in(rig.provider, range(60), octets=100_000)
        with rig.home:
            wait_until(lambda: "delayed 4.3.1" in rig.provider.log(), timeout=20, why=rig.provider.log)
            rig.home.wait_until_drained()
            some = len(rig.home.messages())
            assert 0 < some < 60
            assert held(rig.provider) == 60 - some
            small.free()
            wait_until_pulled(rig)
            check_exactly_once(rig.home, range(60))


@pytest.mark.usefixtures("needs_disks")
@pytest.mark.parametrize("free", [disk.RESERVE - disk.MEBIBYTE, 0])
def test_the_disk_of_the_provider_is_full(tmp_path: Path, free: int) -> None:
    holder = provider(tmp_path)
    site = home(tmp_path, pull(holder.odmr_port, **KEEPS_PULLING))
    with disk.small_disk(holder, 8 * disk.MEBIBYTE) as small:
        holder.add_users([])
        with holder:
            hand_in(holder, range(30), octets=4000)
            small.leave(free)
            with site:
                if free:
                    # That is what the reserve is for: what is held leaves.
                    site.wait_for(count=30)
                    wait_until(lambda: not held(holder))
                    check_exactly_once(site, range(30))
                else:
                    time.sleep(2.0)
                    small.free()
                    wait_until(lambda: not held(holder), timeout=20, why=lambda: holder.log()[-3000:])
                    site.wait_until_drained()
                    assert set(site.numbers()) == set(range(30))
        holder.check_log()
    site.check_log()


def test_both_start_in_any_order(tmp_path: Path) -> None:
    """The customer dials a provider that is not there yet, and comes again."""
    holder = provider(tmp_path)
    with home(tmp_path, pull(holder.odmr_port, at_start=True)) as site:
        time.sleep(0.5)
        waking = threading.Thread(target=holder.start)
        waking.start()
        waking.join()
        try:
            hand_in(holder, [0], recipient=f"alice@{HOME}")
            site.wait_for(count=1)
        finally:
            holder.stop()
    site.check_log()
