"""The control socket: what commands hear of the running server, and what they are told where there is none."""

import errno
import os
import socket
import stat

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.logger import formatEvent, globalLogPublisher
from twisted.python.failure import Failure

from mailsuite import __version__
from mailsuite.admin.control import Control, ControlClient, ControlError, NotAnswering, NotRunning, connect
from mailsuite.admin.control.language import selection_of
from mailsuite.admin.control.server import MOST_CONNECTIONS
from mailsuite.delivery.active import DestinationStatus
from mailsuite.delivery.puller import UnknownPull
from mailsuite.interfaces import SpoolError
from mailsuite.mail.route import Destination
from mailsuite.mail.selection import EVERYTHING, Managed, QueueAction, QueueState, Selection
from mailsuite.session.pulling import PullEnd, PullProgress, PullResult, PullStage

MAIL = PullEnd(PullStage.RECEIVING, PullResult.MAIL, "all the mail has come", None, 2, 640, 1, (), 1.5)
NO_MAIL = PullEnd(PullStage.ASKING, PullResult.NO_MAIL, "there is no mail")


class FakePulls:
    """Pulls that end when they are told to, or at once."""

    def __init__(self, **ends):
        self.ends = ends
        self.asked = []
        self.cancelled = []

    @property
    def names(self):
        return list(self.ends)

    def network_up(self):
        self.asked += [(name, None) for name in self.names]
        return self.names

    async def pull(self, name, *, dry_run=False, progress=None):
        self.asked.append((name, dry_run))
        if progress is not None:
            progress(PullProgress(PullStage.CONNECTING))
            progress(PullProgress(PullStage.RECEIVING, 1, 100))
            progress(PullProgress(PullStage.RECEIVING, 2, 200))  # too soon to be told
        end = self.ends[name]
        try:
            return await end if isinstance(end, Deferred) else end
        except BaseException:
            self.cancelled.append(name)
            raise


class FakeQueue:
    """Does what it is told to do with the queue, or raises it."""

    def __init__(self, result=None, status=()):
        self.result = result
        self._status = status
        self.asked = []

    async def manage(self, action, selection, *, by):
        self.asked.append((action, selection, by))
        if isinstance(self.result, Exception):
            raise self.result
        return self.result

    def status(self):
        return self._status


@pytest.fixture
def logged():
    events = []
    globalLogPublisher.addObserver(events.append)
    yield lambda: [formatEvent(event) for event in events if "control" in event.get("log_namespace", "")]
    globalLogPublisher.removeObserver(events.append)


class Told(list):
    """What a command has heard."""

    def client(self):
        return ControlClient(
            progress=lambda name, progress: self.append((name, progress)),
            ended=lambda name, end: self.append((name, end)),
        )


@pytest.fixture
def serving(reactor, run, tmp_path):
    """Start the server's end over a directory, and talk to it."""
    started = []

    def serve(pulls, directory=tmp_path, queue=None):
        control = Control(directory, pulls, queue or FakeQueue(), reactor)
        control.startService()
        started.append(control)
        return control

    yield serve
    for control in started:
        if control.running:
            run(control.stopService())


def talk(reactor, run, directory, what, told=None):
    """Connect, do something, leave; the connection has ended when this returns."""
    client = (told if told is not None else Told()).client()
    lost = Deferred()
    tell = client.connectionLost

    def tell_us_too(reason):
        tell(reason)
        lost.callback(None)

    client.connectionLost = tell_us_too

    async def go():
        await connect(reactor, directory, client)
        try:
            return await what(client)
        finally:
            await client.leave()
            await lost
            await deferLater(reactor, 0.01)

    return run(go())


def test_the_server_says_who_it_is(reactor, run, tmp_path, serving):
    serving(FakePulls())
    assert talk(reactor, run, tmp_path, ControlClient.ping) == (__version__, os.getpid())


def test_pulls_are_told_while_they_go_on_and_when_they_have_ended(reactor, run, tmp_path, serving):
    pulls = FakePulls(isp=MAIL, other=NO_MAIL)
    serving(pulls)
    told = Told()
    talk(reactor, run, tmp_path, lambda client: client.pull(["isp"], dry_run=True), told)
    assert pulls.asked == [("isp", True)]
    assert told == [
        ("isp", PullProgress(PullStage.CONNECTING)),
        ("isp", PullProgress(PullStage.RECEIVING, 1, 100)),
        ("isp", MAIL),
    ]
    told.clear()
    talk(reactor, run, tmp_path, lambda client: client.pull([]), told)
    assert [name for name, end in told if isinstance(end, PullEnd)] == ["isp", "other"]


def test_a_long_text_is_cut_and_any_text_can_be_told(reactor, run, tmp_path, serving):
    serving(FakePulls(jörg=PullEnd(PullStage.ASKING, PullResult.DENIED, "ü" * 70_000)))
    told = Told()
    talk(reactor, run, tmp_path, lambda client: client.pull(["jörg"]), told)
    assert told[-1] == ("jörg", PullEnd(PullStage.ASKING, PullResult.DENIED, "ü" * 2000))


def test_a_pull_that_does_not_exist_is_told(reactor, run, tmp_path, serving):
    pulls = FakePulls(isp=MAIL)
    serving(pulls)
    with pytest.raises(UnknownPull, match="has no pull 'what'; those it has: isp; restart it"):
        talk(reactor, run, tmp_path, lambda client: client.pull(["isp", "what"]))
    assert pulls.asked == []


def test_the_network_is_up_waits_for_nothing(reactor, run, tmp_path, serving):
    pulls = FakePulls(isp=Deferred(), other=MAIL)
    serving(pulls)
    assert talk(reactor, run, tmp_path, ControlClient.network_up) == ["isp", "other"]
    assert pulls.asked == [("isp", None), ("other", None)]
    assert pulls.cancelled == []


def test_a_command_that_leaves_ends_its_waits(reactor, run, tmp_path, serving):
    pulls = FakePulls(isp=Deferred(), other=Deferred())
    serving(pulls)

    async def leave_early(client):
        waiting = Deferred.fromCoroutine(client.pull([]))
        waiting.addErrback(lambda failure: failure.trap(ControlError) and None)
        while len(pulls.asked) < 2:
            await deferLater(reactor, 0.01)

    talk(reactor, run, tmp_path, leave_early)
    assert pulls.cancelled == ["isp", "other"]


def test_a_server_that_stops_ends_the_connection_and_takes_its_socket_away(reactor, run, tmp_path, serving):
    pulls = FakePulls(isp=Deferred())
    control = serving(pulls)

    async def stop(client):
        waiting = Deferred.fromCoroutine(client.pull(["isp"]))
        while not pulls.asked:
            await deferLater(reactor, 0.01)
        await control.stopService()
        await waiting

    with pytest.raises(ControlError, match="the server has ended the connection"):
        talk(reactor, run, tmp_path, stop)
    assert list(tmp_path.iterdir()) == []


def test_a_defect_of_the_server_is_a_sentence(reactor, run, tmp_path, serving):
    serving(FakePulls(isp="no end at all"))
    with pytest.raises(ControlError, match="see its log"):
        talk(reactor, run, tmp_path, lambda client: client.pull([]))


def test_connections_that_have_ended_are_forgotten(reactor, run, tmp_path, serving):
    control = serving(FakePulls())
    for _ in range(3):
        talk(reactor, run, tmp_path, ControlClient.ping)
    assert not control.connections


def test_there_are_so_many_connections_at_once_and_no_more(reactor, run, tmp_path, serving, logged):
    control = serving(FakePulls())

    async def crowd(first):
        clients = [first]
        for _ in range(MOST_CONNECTIONS - 1):
            clients.append(ControlClient())
            await connect(reactor, tmp_path, clients[-1])
        for client in clients:
            await client.ping()
        assert len(control.connections) == MOST_CONNECTIONS
        more = ControlClient()
        await connect(reactor, tmp_path, more)
        with pytest.raises(ControlError, match="has ended the connection"):
            await more.ping()
        for client in clients[1:]:
            await client.leave()
        await deferLater(reactor, 0.05)
        await first.ping()

    talk(reactor, run, tmp_path, crowd)
    assert logged() == [f"the control socket has {MOST_CONNECTIONS} connections already"]
    assert talk(reactor, run, tmp_path, ControlClient.ping)[1] == os.getpid()


# ------------------------------------------------------------------------------------------- the queue

SELECTION = Selection(
    ("HOE1", "HOE2"),
    sender="<>",
    recipient="*@jörg.example",
    domain="xn--jrg-sna.example",
    destination=Destination("relay", "[mx.test]:25"),
    state=QueueState.ON_HOLD,
    older_than=1.5,
    younger_than=3.0,
    larger_than=0,
    smaller_than=9,
    error='a "text"',
)


@pytest.mark.parametrize("selection", [SELECTION, EVERYTHING, Selection(older_than=0.0)])
def test_the_queue_is_managed_as_selected(reactor, run, tmp_path, serving, logged, selection):
    queue = FakeQueue(Managed(2, 3, 1))
    serving(FakePulls(), queue=queue)
    done = talk(reactor, run, tmp_path, lambda client: client.manage(QueueAction.HOLD, selection, by="jörg"))
    assert done == Managed(2, 3, 1)
    assert queue.asked == [(QueueAction.HOLD, selection, "jörg")]
    assert logged() == ["queue hold by jörg: 2 messages, 3 recipients"]


def test_many_ids_fit_into_one_call(reactor, run, tmp_path, serving):
    queue = FakeQueue(Managed(0, 0))
    serving(FakePulls(), queue=queue)
    selection = Selection(tuple(f"HOE{number:010}" for number in range(1000)))
    talk(reactor, run, tmp_path, lambda client: client.manage(QueueAction.HOLD, selection, by="me"))
    assert queue.asked[0][1] == selection


def test_a_spool_that_fails_is_told_as_such(reactor, run, tmp_path, serving):
    serving(FakePulls(), queue=FakeQueue(SpoolError("There is no room for it")))
    with pytest.raises(SpoolError, match="There is no room for it"):
        talk(reactor, run, tmp_path, lambda client: client.manage(QueueAction.HOLD, EVERYTHING, by="me"))


@pytest.mark.parametrize("text", ['{"colour": "red"}', "[]", "what?", '{"state": "lost"}'])
def test_a_condition_that_is_not_known_selects_nothing(text):
    with pytest.raises((ValueError, TypeError, AttributeError)):
        selection_of(text)


def test_the_status_of_destinations_is_told_as_much_as_fits(reactor, run, tmp_path, serving):
    busy = DestinationStatus(Destination("relay", "busy.test"), 2, 5, 7, 0, 0.0, None, 3.14159)
    resting = DestinationStatus(Destination("relay", "dead.test"), 0, 1, 0, 3, 1e9, "ü" * 500, 0.0)
    serving(FakePulls(), queue=FakeQueue(status=[resting, busy]))
    told = talk(reactor, run, tmp_path, ControlClient.status)
    assert told == [
        {
            "destination": "relay:busy.test",
            "runs": 2,
            "allowed": 5,
            "ready": 7,
            "failures": 0,
            "up_at": 0.0,
            "rate": 3.142,
            "last_error": None,
        },
        {
            "destination": "relay:dead.test",
            "runs": 0,
            "allowed": 1,
            "ready": 0,
            "failures": 3,
            "up_at": 1e9,
            "rate": 0.0,
            "last_error": "ü" * 200,
        },
    ]


def test_the_status_of_ten_thousand_destinations_is_told_in_part(reactor, run, tmp_path, serving):
    many = [
        DestinationStatus(Destination("relay", f"dead{number}.test"), 0, 1, 0, number, 1e9, "ü" * 500, 0.0)
        for number in range(10_000)
    ]
    serving(FakePulls(), queue=FakeQueue(status=many))
    told = talk(reactor, run, tmp_path, ControlClient.status)
    assert 20 < len(told) < 1000
    assert told[0]["destination"] == "relay:dead9999.test"


# ------------------------------------------------------------------------------------------- the socket


def test_nobody_gets_in_before_the_mode_of_the_socket_is_set_and_no_umask_is_changed(tmp_path, serving, monkeypatch):
    path = tmp_path / "control.sock"
    tried = []
    chmod = os.chmod

    def look_first(name, mode):
        with socket.socket(socket.AF_UNIX) as early, pytest.raises(ConnectionRefusedError):
            early.connect(os.fspath(path))
        tried.append(mode)
        chmod(name, mode)

    monkeypatch.setattr(os, "chmod", look_first)
    monkeypatch.setattr(os, "umask", lambda _mask: pytest.fail("it is the whole process'"))
    serving(FakePulls())
    assert tried == [0o600]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_socket_is_its_owners_alone(tmp_path, serving):
    before = os.umask(0)
    try:
        serving(FakePulls())
        mode = (tmp_path / "control.sock").stat().st_mode
        assert stat.S_ISSOCK(mode)
        assert stat.S_IMODE(mode) == 0o600
    finally:
        os.umask(before)


def leave_a_socket(path):
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))


def test_a_socket_that_a_dead_process_has_left_is_replaced(reactor, run, tmp_path, serving, logged):
    leave_a_socket(tmp_path / "control.sock")
    serving(FakePulls())
    assert talk(reactor, run, tmp_path, ControlClient.ping)[1] == os.getpid()
    assert logged() == []


def test_what_is_no_socket_is_left_alone(tmp_path, serving, logged):
    file = tmp_path / "control.sock"
    file.write_text("precious")
    serving(FakePulls())
    assert file.read_text() == "precious"
    assert logged() == [f"{file}: it is no socket, and stands where the control socket should be; take it away"]


def test_a_socket_that_is_answered_at_is_left_alone(reactor, run, tmp_path, serving, logged):
    first = serving(FakePulls())
    second = serving(FakePulls())
    assert "another server answers there" in logged()[0]
    run(second.stopService())
    assert talk(reactor, run, tmp_path, ControlClient.ping)[1] == os.getpid()
    run(first.stopService())


def test_a_socket_that_cannot_be_made_is_a_sentence_in_the_log(tmp_path, serving, logged):
    serving(FakePulls(), tmp_path / "missing")
    [line] = logged()
    assert "the control socket cannot be made" in line
    assert "No such file or directory" in line


def test_a_socket_that_somebody_has_removed_does_not_hinder_the_stop(run, tmp_path, serving, logged):
    control = serving(FakePulls())
    (tmp_path / "control.sock").unlink()
    run(control.stopService())
    assert logged() == []
    assert list(tmp_path.iterdir()) == []


def test_a_path_may_be_longer_than_a_socket_can_have(reactor, run, tmp_path, serving, logged):
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    control = serving(FakePulls(), deep)
    assert logged() == []
    assert talk(reactor, run, deep, ControlClient.ping)[1] == os.getpid()
    run(control.stopService())
    assert list(deep.iterdir()) == []


@pytest.mark.parametrize("there", ["nothing", "a dead socket", "no directory"])
def test_without_a_server_a_sentence_says_so(reactor, run, tmp_path, there):
    directory = tmp_path / "data"
    if there != "no directory":
        directory.mkdir()
    if there == "a dead socket":
        leave_a_socket(directory / "control.sock")
    with pytest.raises(NotRunning, match=f"no server is running over {directory}; start it"):
        run(connect(reactor, directory, Told().client()))


def test_a_socket_of_somebody_else_is_told(run, tmp_path):
    class Forbidding:
        """A reactor whose sockets may not be connected to."""

        def connectUNIX(self, address, factory, timeout=30, checkPID=0):
            connector = type("Connector", (), {"stopConnecting": lambda _self: None})()
            factory.clientConnectionFailed(connector, Failure(ConnectError(errno.EACCES, "Permission denied")))

    with pytest.raises(ControlError, match="it is not for you; run the command as the user who serves"):
        run(connect(Forbidding(), tmp_path, Told().client()))


def test_a_server_that_hangs_up_is_told(reactor, run, tmp_path):
    class Silent(Protocol):
        def connectionMade(self):
            self.transport.loseConnection()

    factory = Factory.forProtocol(Silent)
    factory.noisy = False
    port = reactor.listenUNIX(str(tmp_path / "control.sock"), factory)
    try:
        with pytest.raises(ControlError):
            talk(reactor, run, tmp_path, ControlClient.ping)
    finally:
        run(port.stopListening())


def test_a_server_that_does_not_answer_is_told_as_that(reactor, run, tmp_path):
    factory = Factory.forProtocol(Protocol)
    factory.noisy = False
    port = reactor.listenUNIX(str(tmp_path / "control.sock"), factory)

    async def go():
        client = ControlClient(answer_time=0.05)
        await connect(reactor, tmp_path, client)
        await client.manage(QueueAction.RETRY, EVERYTHING, by="root")

    try:
        with pytest.raises(NotAnswering, match=r"is there, but has not answered for 0\.05 seconds"):
            run(go())
    finally:
        run(port.stopListening())


def test_work_may_take_longer_than_the_answer(reactor, run, tmp_path, serving):
    class Slow(FakeQueue):
        async def manage(self, action, selection, *, by):
            await deferLater(reactor, 0.3)
            return Managed(1, 1)

    serving(FakePulls(), queue=Slow())

    async def go():
        client = ControlClient(answer_time=0.15)
        await connect(reactor, tmp_path, client)
        managed = await client.manage(QueueAction.RETRY, EVERYTHING, by="root")
        await client.leave()
        await deferLater(reactor, 0.05)
        return managed

    assert run(go()) == Managed(1, 1)
