"""The order in which what is ready is taken."""

from dataclasses import replace

from mailsuite.delivery.ready import Bounds, Load, Ready
from mailsuite.mail.options import MessageOptions
from tests.delivery.fakes import relay


def test_what_is_urgent_is_taken_first_and_its_like_as_it_came(spool) -> None:
    def make(priority):
        one = spool.make(relay("here.example"))
        options = MessageOptions(priority=priority)
        return replace(one, message=replace(one.message, envelope=replace(one.message.envelope, options=options)))

    came = [make(priority) for priority in (0, -3, 0, 6, 3, 6, 0, -3)]
    load = Load(Bounds())
    ready = Ready(load)
    ready.add(came[:3])
    ready.add(came[3:])
    taken = ready.take(100)
    assert taken == [came[3], came[5], came[4], came[0], came[2], came[6], came[1], came[7]]
    assert (load.count, load.octets) == (0, 0)


def test_what_is_given_back_goes_before_the_others(spool) -> None:
    first, second, third = (spool.make(relay("here.example")) for _ in range(3))
    ready = Ready(Load(Bounds()))
    ready.add([third])
    ready.add([first, second], first=True)
    assert ready.take(3) == [first, second, third]
