"""The delivery agents that come with mailsuite. What each needs is imported only when it is made."""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IReactorProcess
from twisted.plugin import IPlugin
from zope.interface import implementer

from mailsuite.interfaces import IAgentParts, IDeliveryAgent, IDeliveryAgentMaker

_WANTED = {bool: "true or false", int: "a number", list: "a list of words in quotes", str: "text in quotes"}


@implementer(IPlugin, IDeliveryAgentMaker)
class MaildirAgentMaker:
    """Makes the agent that delivers into maildirs: options `directory`, `layout`, `sync`, `process`."""

    name = "maildir"

    def make(self, options: dict[str, Any], parts: IAgentParts) -> IDeliveryAgent:
        from mailsuite.delivery.agents.maildir import MaildirAgent
        from mailsuite.store.layout import DEFAULT_TEMPLATE
        from mailsuite.store.maildir import MaildirStore
        from mailsuite.store.process import MaildirProcess
        from mailsuite.store.sync import Sync

        defaults = {"directory": "maildirs", "layout": DEFAULT_TEMPLATE, "sync": str(Sync.AUTO), "process": True}
        chosen = _chosen("maildir", options, defaults)
        if chosen["sync"] not in list(Sync):
            raise ValueError(f"sync = {chosen['sync']!r}: say one of {', '.join(repr(str(one)) for one in Sync)}")
        arguments = {
            "root": parts.data_directory / chosen["directory"],
            "hostname": parts.hostname,
            "template": chosen["layout"],
            "sync": Sync(chosen["sync"]),
        }
        store = MaildirStore(**arguments, now=parts.reactor.seconds)
        if chosen["process"] and IReactorProcess.providedBy(parts.reactor):
            return MaildirAgent(store, MaildirProcess(parts.reactor, arguments, parts.in_thread).run)
        return MaildirAgent(store, parts.in_thread)


@implementer(IPlugin, IDeliveryAgentMaker)
class PipeAgentMaker:
    """Makes an agent that hands mail to a program: options `command`, `timeout`, `concurrency`."""

    name = "pipe"

    def make(self, options: dict[str, Any], parts: IAgentParts) -> IDeliveryAgent:
        from mailsuite.delivery.agents.pipe import PipeAgent, PipeSettings
        from mailsuite.delivery.on_demand.programs import fault_of
        from mailsuite.mail.duration import seconds_of

        chosen = _chosen("pipe", options, {"command": [], "timeout": None, "concurrency": 2})
        timeout = seconds_of("10m" if chosen["timeout"] is None else chosen["timeout"])
        if not isinstance(timeout, (int, float)):
            problem = f'timeout = {timeout!r}: it takes seconds, or text as in "5m"'
            raise ValueError(problem)  # noqa: TRY004 - as for every other option
        if not all(isinstance(word, str) for word in chosen["command"]):
            raise ValueError(f"command = {chosen['command']!r}: it takes a list of words in quotes")
        settings = PipeSettings(tuple(chosen["command"]), timeout=timeout, concurrency=chosen["concurrency"])
        fault = fault_of(settings.command)
        if fault is not None:
            raise ValueError(f"command: {fault}")
        return PipeAgent(settings, parts.reactor, parts.reactor)


@implementer(IPlugin, IDeliveryAgentMaker)
class DiscardAgentMaker:
    """Makes the agent that forgets what it gets; it has no options."""

    name = "discard"

    def make(self, options: dict[str, Any], parts: IAgentParts) -> IDeliveryAgent:
        from mailsuite.delivery.agents.discard import DiscardAgent

        del parts
        _chosen("discard", options, {})
        return DiscardAgent()


def _chosen(agent: str, options: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """The defaults, with what the configuration says instead. Raises `ValueError`."""
    for key, value in options.items():
        if key not in defaults:
            raise ValueError(f"{key}: there is no such option; {agent} knows {', '.join(defaults) or 'none'}")
        if defaults[key] is not None and type(value) is not type(defaults[key]):
            raise ValueError(f"{key} = {value!r}: it takes {_WANTED[type(defaults[key])]}")
    return {**defaults, **options}


maildir = MaildirAgentMaker()
pipe = PipeAgentMaker()
discard = DiscardAgentMaker()
