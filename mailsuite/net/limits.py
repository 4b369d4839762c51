"""How many connections are served at once: in all, and for each address. One object is shared by all listeners."""

from __future__ import annotations

from mailsuite.net.addresses import counting_key


class ConnectionLimits:
    """Counts connections. None stands for no limit; Unix sockets (an empty host) count in `total` only.

    IPv6 addresses are counted by their /64, since one site has all of it.
    """

    def __init__(self, total: int | None = 1000, per_address: int | None = 50) -> None:
        self.total = total
        self.per_address = per_address
        self.count = 0
        self.refused = 0  # since the start, for whoever watches
        self._by_address: dict[str, int] = {}

    def admit(self, host: str) -> bool:
        """Count one more connection from this address; False, and nothing is counted, where that is one too many."""
        key = counting_key(host)
        of_this = self._by_address.get(key, 0)
        if (self.total is not None and self.count >= self.total) or (
            host and self.per_address is not None and of_this >= self.per_address
        ):
            self.refused += 1
            return False
        self.count += 1
        if host:
            self._by_address[key] = of_this + 1
        return True

    def release(self, host: str) -> None:
        """One that was admitted has ended."""
        self.count -= 1
        if not host:
            return
        key = counting_key(host)
        left = self._by_address[key] - 1
        if left:
            self._by_address[key] = left
        else:
            del self._by_address[key]
