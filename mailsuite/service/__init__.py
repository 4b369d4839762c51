"""The service: builds every part from the settings and joins them. The only room that constructs across rooms.

`makeService(settings)` returns an `IService` for `twistd`, for an `Application` of your own, or to be started by hand.
Ports are bound in `privilegedStartService`, before twistd drops root.

What a user can do wrong is a `StartError`: one sentence that names the file or the key and the cure.

    preflight   what can be seen to be wrong without starting
    doubts      what looks wrong with the pulls
    routes      from settings to what delivery is told: routes, passwords, retries
    agents      the delivery agents
    parts       everything that is built once
    doors       a door for each listener: what it offers, and to whom
    listeners   the listeners, each with its door
    pulls       what pulls our mail from providers
    state       what lies in the data directory from the start
    server      what starts and stops, in order
"""

from mailsuite.service.errors import StartError
from mailsuite.service.preflight import preflight, serving_as_root
from mailsuite.service.server import MailService, makeService

__all__ = ["MailService", "StartError", "makeService", "preflight", "serving_as_root"]
