"""Whether the program of a command that knows recipients can be run, as far as that can be seen beforehand."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path


def fault_of(command: Sequence[str]) -> str | None:
    """What is wrong with a command's program, and the cure; None where it is there and this user may run it."""
    program = command[0]
    if shutil.which(program) is not None:
        return None
    if not program.count(os.sep):
        return f"there is no program {program!r} on the PATH; write its whole path"
    if not Path(program).exists():
        return f"there is no program {program!r}; put it there, or name another"
    if Path(program).is_dir():
        return f"{program!r} is a directory; name the program in it"
    return f"{program!r} may not be run by this user; see by `ls -l {program}` whether it is executable"
