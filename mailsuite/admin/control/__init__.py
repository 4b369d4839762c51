"""The control socket: commands talk to the running server by AMP, over a Unix socket in its data directory.

Whoever may open the socket may command: it is its owner's alone (mode 0600). A server that cannot make its socket
serves all the same, and says so in its log.

    language   what is said
    place      where the socket lies, and what may be there already
    server     the server's end, a service
    client     the command's end
"""

from mailsuite.admin.control.client import ControlClient, connect
from mailsuite.admin.control.place import ControlError, NotAnswering, NotRunning
from mailsuite.admin.control.server import Control

__all__ = ["Control", "ControlClient", "ControlError", "NotAnswering", "NotRunning", "connect"]
