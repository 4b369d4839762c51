"""A spool in memory, for tests of everything that stands on one."""

from mailsuite.spool.memory.draft import MemoryDraft
from mailsuite.spool.memory.spool import MemorySpool

__all__ = ["MemoryDraft", "MemorySpool"]
