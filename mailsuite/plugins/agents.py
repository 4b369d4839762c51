"""The delivery agents that come with mailsuite. Each is imported only when it is made."""

from __future__ import annotations

from typing import Any

from twisted.plugin import IPlugin
from zope.interface import implementer

from mailsuite.interfaces import IAgentParts, IDeliveryAgent, IDeliveryAgentMaker


@implementer(IPlugin, IDeliveryAgentMaker)
class MaildirAgentMaker:
    """Makes the agent that delivers into maildirs."""

    name = "maildir"

    def make(self, options: dict[str, Any], parts: IAgentParts) -> IDeliveryAgent:
        from mailsuite.delivery.agents.maildir import make_maildir_agent

        return make_maildir_agent(options, parts)


maildir = MaildirAgentMaker()
