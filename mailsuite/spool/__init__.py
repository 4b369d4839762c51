"""The relay queue's store: drafts, messages, recipients, leases, times."""

from mailsuite.spool.memory import MemorySpool
from mailsuite.spool.sqlite import SqliteSpool

__all__ = ["MemorySpool", "SqliteSpool"]
