"""The delivery agents that come with mailsuite. What each needs is imported only when it is made."""

from __future__ import annotations

from typing import Any

from twisted.plugin import IPlugin
from zope.interface import implementer

from mailsuite.interfaces import IAgentParts, IDeliveryAgent, IDeliveryAgentMaker


@implementer(IPlugin, IDeliveryAgentMaker)
class MaildirAgentMaker:
    """Makes the agent that delivers into maildirs: options `directory`, `layout`, `sync`."""

    name = "maildir"

    def make(self, options: dict[str, Any], parts: IAgentParts) -> IDeliveryAgent:
        from mailsuite.delivery.agents.maildir import MaildirAgent
        from mailsuite.store.layout import DEFAULT_TEMPLATE
        from mailsuite.store.maildir import MaildirStore
        from mailsuite.store.sync import Sync

        defaults = {"directory": "maildirs", "layout": DEFAULT_TEMPLATE, "sync": str(Sync.FILES)}
        for key, value in options.items():
            if key not in defaults:
                raise ValueError(f"{key}: there is no such option; maildir knows {', '.join(defaults)}")
            if not isinstance(value, str):
                raise ValueError(f"{key} = {value!r}: it is not text; put it in quotes")  # noqa: TRY004 - it is a value in a file
        chosen = {**defaults, **options}
        if chosen["sync"] not in list(Sync):
            raise ValueError(f"sync = {chosen['sync']!r}: it is neither {' nor '.join(repr(str(one)) for one in Sync)}")
        store = MaildirStore(
            parts.data_directory / chosen["directory"],
            hostname=parts.hostname,
            now=parts.reactor.seconds,
            template=chosen["layout"],
            sync=Sync(chosen["sync"]),
        )
        return MaildirAgent(store, parts.in_thread)


maildir = MaildirAgentMaker()
