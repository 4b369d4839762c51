"""Every interface that joins two rooms of the house.

An interface says what one side may ask and the other promises; `tests/contracts/` holds one suite for each that
has several implementations. Methods that return an Awaitable may be coroutines or return Deferreds; they never
block the reactor's thread. Times are POSIX timestamps in seconds, sizes are octets.
"""

from mailsuite.interfaces.accounts import IAuthenticator, IDirectory
from mailsuite.interfaces.conversation import IConversation
from mailsuite.interfaces.delivery import (
    IAgentParts,
    IDeliveryAgent,
    IDeliveryAgentMaker,
    ILingeringRun,
    INextHops,
    IQueueRun,
)
from mailsuite.interfaces.errors import DirectoryUnavailable, Refused, SpoolDown, SpoolError, SpoolFull, SpoolInUse
from mailsuite.interfaces.on_demand import ICustomers, IOnDemand, ITurn
from mailsuite.interfaces.routing import IQuota, IReservation, IRouter
from mailsuite.interfaces.security import Barred, ITLSPolicies
from mailsuite.interfaces.spool import IDraft, IQueueWatcher, ISpool

__all__ = [
    "Barred",
    "DirectoryUnavailable",
    "IAgentParts",
    "IAuthenticator",
    "IConversation",
    "ICustomers",
    "IDeliveryAgent",
    "IDeliveryAgentMaker",
    "IDirectory",
    "IDraft",
    "ILingeringRun",
    "INextHops",
    "IOnDemand",
    "IQueueRun",
    "IQueueWatcher",
    "IQuota",
    "IReservation",
    "IRouter",
    "ISpool",
    "ITLSPolicies",
    "ITurn",
    "Refused",
    "SpoolDown",
    "SpoolError",
    "SpoolFull",
    "SpoolInUse",
]
