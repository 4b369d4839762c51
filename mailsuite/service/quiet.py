"""The log without what Twisted says of each socket, for a server that `twistd` runs; other programs have their own log.

Twisted tells of every port that it opens and closes, and asking one name server is a port: four lines for each question
to the DNS. It can be told to be silent of the half of them only.

Rules: only what is known to be noise is left out, and nothing from `warn` on. An event is emptied, not held back: an
observer that was there before the others sees it first, and none of them writes an event that says nothing.
"""

from __future__ import annotations

import re
from typing import Final

from twisted.logger import ILogObserver, LogEvent, LogLevel, LogPublisher, globalLogPublisher
from zope.interface import implementer

_TALKATIVE: Final = ("twisted.protocols.amp",)
_OF_FACTORIES: Final = ("Starting factory {factory!r}", "Stopping factory {factory!r}")
_LEGACY: Final = "log_legacy"  # the namespace of what Twisted's older parts say
_NOISE: Final = re.compile(
    r"\S+(?: \([^()]*\))? starting on .+|\([^()]*Port .* Closed\)|(?:Starting|Stopping) protocol <.*"
    r"|Resolver added .* to server list",
    re.DOTALL,
)


def silence_twisted(publisher: LogPublisher = globalLogPublisher) -> None:
    """Leave the noise out of what is logged from now on. To be called before anything listens to the publisher."""
    publisher.removeObserver(_empty)  # it is first, and once
    publisher.addObserver(_empty)


@implementer(ILogObserver)
def _empty(event: LogEvent) -> None:
    if is_noise(event):
        event["log_format"] = None
        event["message"] = ()  # what syslog writes
        event.pop("format", None)


def is_noise(event: LogEvent) -> bool:
    """Whether an event tells only that a socket was opened or closed, in Twisted's words."""
    if event.get("log_level") not in (LogLevel.debug, LogLevel.info) or event.get("log_failure") is not None:
        return False
    namespace = event.get("log_namespace", "")
    if namespace == _LEGACY:
        return _NOISE.fullmatch(str(event.get("log_text", ""))) is not None
    return namespace in _TALKATIVE or event.get("log_format") in _OF_FACTORIES
