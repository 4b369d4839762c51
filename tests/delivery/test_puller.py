"""The puller: when pulls come by themselves, that there are never two at once, and what is told of each."""

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import formatEvent, globalLogPublisher

from mailsuite.delivery.puller import Puller, PullerSettings, UnknownPull, describe
from mailsuite.delivery.pulls import PullPlan
from mailsuite.interfaces import SpoolError
from mailsuite.mail.history import EventKind
from mailsuite.mail.reply import Reply
from mailsuite.mail.timetable import Timetable
from mailsuite.session.pulling import PullEnd, PullProgress, PullResult, PullStage
from tests.delivery.conftest import START

BERLIN = ZoneInfo("Europe/Berlin")
MAIL = PullEnd(PullStage.RECEIVING, PullResult.MAIL, "all the mail has come", messages=2, octets=640)
NO_MAIL = PullEnd(PullStage.ASKING, PullResult.NO_MAIL, "there is no mail", Reply(453, None, ("no",)))
BROKEN = PullEnd(PullStage.RECEIVING, PullResult.TEMPORARY, "the line broke (receiving)")
DENIED = PullEnd(PullStage.AUTH, PullResult.DENIED, "authentication has failed")
UNREACHED = PullEnd(PullStage.CONNECTING, PullResult.TEMPORARY, "cannot connect")


class FakeLine:
    """Pulls end as `ends` say, or when somebody calls `finish`."""

    def __init__(self, clock, *ends):
        self.clock = clock
        self.ends = list(ends)
        self.pulls = []  # (name, dry_run, seconds since START)
        self.waiting = {}
        self.progress = {}
        self.happened = []

    async def pull(self, plan, *, dry_run=False, progress=None):
        self.pulls.append((plan.name, dry_run, self.clock.seconds() - START))
        self.happened.append("pull")
        self.progress[plan.name] = progress
        if self.ends:
            end = self.ends.pop(0)
        else:
            self.waiting[plan.name] = Deferred()
            end = await self.waiting[plan.name]
        if isinstance(end, Exception):
            raise end
        return end

    def finish(self, name, end):
        self.waiting.pop(name).callback(end)

    async def close(self, grace, clock):
        self.happened.append(f"close {grace}")
        for name in list(self.waiting):
            self.finish(name, BROKEN)

    @property
    def times(self):
        return [seconds for _, _, seconds in self.pulls]


class FakePusher:
    def __init__(self, happened):
        self.happened = happened

    async def push(self, host):
        self.happened.append(f"push {host}")
        return 3


class FakeRecords:
    def __init__(self):
        self.events = []
        self.trouble = None

    async def record(self, events):
        if self.trouble is not None:
            raise self.trouble
        self.events += events


@pytest.fixture
def logged():
    events = []
    globalLogPublisher.addObserver(events.append)
    yield events
    globalLogPublisher.removeObserver(events.append)


def lines_of(events):
    return [formatEvent(event) for event in events if event.get("log_namespace") == "mailsuite.delivery.puller.Puller"]


class House:
    def __init__(self, clock, plans, ends, **settings):
        self.clock = clock
        self.line = FakeLine(clock, *ends)
        self.records = FakeRecords()
        self.puller = Puller(
            plans,
            self.line,
            FakePusher(self.line.happened),
            self.records,
            clock,
            chance=lambda: 0.5,
            settings=PullerSettings(**settings),
        )
        self.puller.startService()

    def pull(self, name="isp", **options):
        results = []
        waiting = Deferred.fromCoroutine(self.puller.pull(name, **options))
        waiting.addBoth(results.append)
        results.append(waiting)
        return results

    def stop(self):
        stopped = self.puller.stopService()
        assert stopped.called


def plan(name="isp", **settings):
    return PullPlan(name, f"{name}.example.net", **settings)


@pytest.fixture
def house(clock):
    houses = []

    def make(*plans, ends=(), **settings):
        houses.append(House(clock, plans, ends, **settings))
        clock.advance(0)
        return houses[-1]

    yield make
    for one in houses:
        if one.puller.running:
            one.stop()
    assert clock.getDelayedCalls() == []


# ------------------------------------------------------------------------------------------- schedule


def test_pulls_come_at_the_start_and_by_interval(clock, house):
    one = house(plan(at_start=True, interval=900.0), ends=[NO_MAIL, MAIL, NO_MAIL])
    assert one.line.times == [0]
    assert one.puller.next_times() == {"isp": START + 900}
    clock.pump([100] * 18)
    assert one.line.times == [0, 900, 1800]


def test_without_at_start_the_first_comes_after_the_interval(clock, house):
    one = house(plan(interval=900.0), ends=[NO_MAIL])
    assert one.line.times == []
    clock.advance(900)
    assert one.line.times == [900]


def test_the_interval_begins_when_the_pull_before_has_ended(clock, house):
    one = house(plan(at_start=True, interval=900.0))
    clock.pump([100] * 30)
    assert one.line.times == [0]
    assert one.puller.next_times() == {"isp": None}
    one.line.finish("isp", MAIL)
    clock.pump([100] * 9)
    assert one.line.times == [0, 3900]


def test_times_by_the_clock(clock, house):
    six = datetime(2023, 11, 15, 6, 0, tzinfo=BERLIN).timestamp() - START
    one = house(plan(times=(Timetable.parse("0 6 * * *"),)), ends=[NO_MAIL] * 2, zone=BERLIN)
    clock.pump([400] * 280)
    assert one.line.times == [six, six + 86400]


def test_temporary_failures_are_tried_again_with_growing_waits_until_one_succeeds(clock, house):
    one = house(
        plan(at_start=True, interval=900.0, retry_first=60.0, retry_longest=200.0),
        ends=[UNREACHED, BROKEN, BROKEN, BROKEN, MAIL, BROKEN, NO_MAIL],
    )
    clock.pump([10] * 200)
    assert one.line.times == [0, 60, 180, 380, 580, 1480, 1540]


def test_what_the_provider_refuses_for_good_comes_again_at_its_normal_time(clock, house):
    one = house(plan(at_start=True, interval=900.0), ends=[BROKEN, DENIED, DENIED, NO_MAIL])
    clock.pump([10] * 190)
    assert one.line.times == [0, 60, 960, 1860]


def test_a_defect_is_logged_and_tried_again(clock, house, logged):
    one = house(plan(at_start=True, interval=900.0), ends=[ZeroDivisionError("a defect"), NO_MAIL])
    assert [type(event["log_failure"].value) for event in logged if "log_failure" in event] == [ZeroDivisionError]
    clock.advance(60)
    assert one.line.times == [0, 60]


def test_nothing_comes_by_itself_where_that_is_not_wanted(clock, house):
    one = house(plan(at_start=True, interval=1.0), ends=[MAIL], scheduled=False)
    clock.pump([10] * 10)
    assert one.line.times == []
    assert one.pull()[0].result is PullResult.MAIL
    clock.pump([10] * 10)
    assert one.line.times == [100]


# ------------------------------------------------------------------------------------------- commands


def test_a_command_pulls_at_once_and_the_interval_begins_anew(clock, house):
    one = house(plan(interval=900.0), ends=[MAIL, NO_MAIL])
    clock.advance(800)
    end = one.pull()[0]
    assert (end.result, end.messages) == (PullResult.MAIL, 2)
    clock.pump([100] * 9)
    assert one.line.times == [800, 1700]


def test_who_asks_for_a_pull_that_is_under_way_follows_that_one(clock, house):
    one = house(plan(at_start=True, interval=900.0), plan("other", interval=900.0))
    told, more = [], []
    first = one.pull(progress=told.append)
    one.line.progress["isp"](PullProgress(PullStage.RECEIVING, 1, 100))
    second = one.pull(progress=more.append)
    other = one.pull("other")
    assert [name for name, _, _ in one.line.pulls] == ["isp", "other"]
    one.line.progress["isp"](PullProgress(PullStage.RECEIVING, 2, 200))
    assert [progress.messages for progress in told] == [1, 2]
    assert [progress.messages for progress in more] == [1, 2]
    clock.advance(7)
    one.line.finish("isp", MAIL)
    assert first[1] == second[1]
    assert first[1].seconds == 7
    assert len(other) == 1
    one.line.finish("other", NO_MAIL)
    assert other[1].result is PullResult.NO_MAIL


def test_who_waits_no_longer_does_not_end_the_pull(clock, house):
    one = house(plan())
    told = []
    leaving, staying = one.pull(progress=told.append), one.pull()
    leaving[0].cancel()
    assert leaving[1].check(CancelledError)
    one.line.progress["isp"](PullProgress(PullStage.RECEIVING, 1, 100))
    assert told == []
    one.line.finish("isp", MAIL)
    assert staying[1].messages == 2


def test_a_dry_run_waits_for_its_turn_and_leaves_no_event(clock, house):
    one = house(plan(interval=900.0))
    pulling, dry = one.pull(), one.pull(dry_run=True)
    assert one.line.pulls == [("isp", False, 0)]
    one.line.finish("isp", MAIL)
    assert pulling[1].messages == 2
    assert one.line.pulls[1:] == [("isp", True, 0)]
    assert len(one.records.events) == 1
    # One that is due meanwhile waits too.
    clock.advance(900)
    assert len(one.line.pulls) == 2
    one.line.finish("isp", PullEnd(PullStage.ASKING, PullResult.CHECKED, "the login works"))
    assert dry[1].result is PullResult.CHECKED
    assert len(one.records.events) == 1
    clock.advance(900)
    assert one.line.pulls[2:] == [("isp", False, 1800)]


def test_a_failure_of_a_dry_run_changes_no_schedule(clock, house):
    one = house(plan(interval=900.0), ends=[DENIED, BROKEN, NO_MAIL])
    one.pull(dry_run=True)
    one.pull(dry_run=True)
    assert one.puller.next_times() == {"isp": START + 900}


def test_the_network_is_up_begins_all_pulls_and_forgets_failures(clock, house):
    one = house(plan(interval=900.0), plan("other", interval=900.0), ends=[BROKEN, NO_MAIL, BROKEN])
    assert one.puller.network_up() == ["isp", "other"]
    assert [name for name, _, _ in one.line.pulls] == ["isp", "other"]
    assert one.puller.next_times() == {"isp": START + 60, "other": START + 900}
    clock.advance(30)
    one.puller.network_up()  # another failure, and it counts as the first
    assert one.puller.next_times()["isp"] == START + 30 + 60


@pytest.mark.parametrize(
    ("end", "times"), [(BROKEN, [0, 100]), (UNREACHED, [0, 100]), (MAIL, [0, 1000]), (DENIED, [0, 1000])]
)
def test_a_pull_that_hung_on_the_old_line_is_followed_by_another_at_once(clock, house, end, times):
    one = house(plan(at_start=True, interval=900.0, retry_first=60.0))
    waiting = one.pull()
    clock.advance(50)
    one.puller.network_up()
    assert one.line.times == [0]
    clock.advance(50)
    one.line.finish("isp", end)
    assert waiting[1].result is end.result
    clock.pump([0, 900])
    assert one.line.times == times


def test_the_one_that_follows_may_fail_as_any_other(clock, house):
    one = house(plan(at_start=True, interval=900.0, retry_first=60.0))
    one.puller.network_up()
    one.line.ends += [BROKEN, BROKEN, NO_MAIL]
    one.line.finish("isp", BROKEN)
    clock.pump([0, *[10] * 20])
    assert one.line.times == [0, 0, 60, 180]


def test_a_dry_run_under_way_is_followed_by_a_pull_when_the_network_is_up(clock, house):
    one = house(plan(interval=900.0))
    one.pull(dry_run=True)
    one.puller.network_up()
    assert one.line.pulls == [("isp", True, 0)]
    one.line.ends.append(NO_MAIL)
    one.line.finish("isp", PullEnd(PullStage.ASKING, PullResult.CHECKED, "the login works"))
    assert one.line.pulls[1:] == [("isp", False, 0)]


def test_a_name_that_does_not_exist_is_told_with_those_that_do(house):
    one = house(plan(), plan("other"))
    failure = one.pull("what")[0]
    assert failure.check(UnknownPull)
    assert str(failure.value) == "there is no pull 'what'; those in the configuration: isp, other"
    assert one.puller.names == ["isp", "other"]


# ----------------------------------------------------------------------------------------- what is told


def test_each_pull_is_an_event_and_a_line_in_the_log(clock, house, logged):
    one = house(plan(), ends=[MAIL, NO_MAIL])
    one.pull()
    one.pull()
    events = one.records.events
    assert [(event.kind, event.subject, event.time) for event in events] == [(EventKind.PULL, "isp", START)] * 2
    assert events[0].detail == {
        "provider": "isp.example.net",
        "result": "mail",
        "stage": "receiving",
        "code": None,
        "messages": 2,
        "octets": 640,
        "refusals": 0,
        "seconds": 0.0,
        "text": "all the mail has come",
    }
    assert events[1].detail["code"] == 453
    assert lines_of(logged) == [
        "pull isp: all the mail has come; 2 messages, 640 octets in 0.0 s",
        "pull isp: there is no mail",
    ]


def test_a_failure_is_called_by_its_name():
    assert describe(DENIED) == "denied: authentication has failed"


def test_a_spool_that_cannot_write_the_event_down_does_not_stop_the_pulls(clock, house, logged):
    one = house(plan(interval=900.0), ends=[MAIL, MAIL])
    one.records.trouble = SpoolError("the disk is on fire")
    assert one.pull()[0].result is PullResult.MAIL
    assert "not recorded: the disk is on fire" in lines_of(logged)[-1]
    clock.advance(900)
    assert len(one.line.pulls) == 2


# ------------------------------------------------------------------------------------- push, and the stop


@pytest.mark.parametrize(
    ("push", "end", "happened"),
    [
        ("none", MAIL, ["pull"]),
        ("before", MAIL, ["push isp.example.net", "pull"]),
        ("before", UNREACHED, ["push isp.example.net", "pull"]),
        ("after", MAIL, ["pull", "push isp.example.net"]),
        ("after", BROKEN, ["pull", "push isp.example.net"]),
        ("after", UNREACHED, ["pull"]),
    ],
)
def test_what_waits_for_the_provider_is_sent_in_the_same_window(house, push, end, happened):
    one = house(plan(push=push), ends=[end])
    assert one.pull()[0].result is end.result
    assert one.line.happened == happened


def test_another_host_may_be_pushed_to(house):
    one = house(plan(push="after", push_host="smtp.example.net"), ends=[MAIL])
    one.pull()
    assert one.line.happened == ["pull", "push smtp.example.net"]


def test_a_dry_run_pushes_nothing(house):
    one = house(plan(push="before"), ends=[NO_MAIL])
    one.pull(dry_run=True)
    assert one.line.happened == ["pull"]


def test_a_stop_ends_the_lines_and_tells_who_waits(clock, house):
    one = house(plan(interval=900.0, push="after"), grace=7.0)
    waiting = one.pull()
    one.stop()
    assert one.line.happened == ["pull", "close 7.0"]
    assert waiting[1].result is PullResult.TEMPORARY
    assert [event.detail["text"] for event in one.records.events] == ["the line broke (receiving)"]
    assert one.pull()[0].text == "the server is stopping"
    assert clock.getDelayedCalls() == []


def test_a_pull_that_does_not_end_by_itself_is_cancelled_at_a_stop(clock, house):
    one = house(plan())
    waiting = one.pull()
    one.line.waiting.clear()  # what `close` would end
    one.stop()
    assert waiting[1].text == "the server is stopping"
