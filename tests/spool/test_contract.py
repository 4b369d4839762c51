"""Both spools keep the contract of ISpool."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mailsuite.spool.memory import MemorySpool
from mailsuite.spool.sqlite import SqliteSpool
from tests.contracts.spool import *  # noqa: F403
from tests.contracts.spool.kit import KEPT, LARGE, Kit
from tests.spool.pump import Pump


@pytest.fixture(params=["memory", "sqlite", "process"])
def kit(request: pytest.FixtureRequest, directory: Path, pump: Pump) -> Iterator[Kit]:
    if request.param == "memory":
        memory = MemorySpool(pump, **KEPT)  # type: ignore[arg-type]

        def begin_memory() -> MemorySpool:
            pump.run(memory.start())
            return memory

        yield Kit(memory, pump, pump.run, begin_memory)
        return

    def begin() -> SqliteSpool:
        spool = SqliteSpool(directory, pump, spill=LARGE, process=request.param == "process", **KEPT)  # type: ignore[arg-type]
        pump.run(spool.start())
        return spool

    kit = Kit(begin(), pump, pump.run, begin)
    yield kit
    pump.run(kit.spool.stop())
