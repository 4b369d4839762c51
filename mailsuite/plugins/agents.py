"""The delivery agents that come with mailsuite. What each needs is imported only when it is made."""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IReactorProcess
from twisted.plugin import IPlugin
from zope.interface import implementer

from mailsuite.interfaces import IAgentParts, IDeliveryAgent, IDeliveryAgentMaker


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


def _chosen(agent: str, options: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """The defaults, with what the configuration says instead. Raises `ValueError`."""
    for key, value in options.items():
        if key not in defaults:
            raise ValueError(f"{key}: there is no such option; {agent} knows {', '.join(defaults)}")
        if type(value) is not type(defaults[key]):
            wanted = "true or false" if isinstance(defaults[key], bool) else "text in quotes"
            raise ValueError(f"{key} = {value!r}: it takes {wanted}")
    return {**defaults, **options}


maildir = MaildirAgentMaker()
