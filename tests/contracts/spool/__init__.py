"""The contract of ISpool: every spool passes these tests, which a test module takes over with `import *`.

The module gives a fixture `kit`: a `kit.Kit` around a spool that was started. To that spool, contents above
`kit.LARGE` octets are large, and what is kept for a time is kept within the bounds `kit.KEPT`.
"""

from tests.contracts.spool.arrival import *  # noqa: F403
from tests.contracts.spool.asked import *  # noqa: F403
from tests.contracts.spool.completed import *  # noqa: F403
from tests.contracts.spool.held import *  # noqa: F403
from tests.contracts.spool.history import *  # noqa: F403
from tests.contracts.spool.journal import *  # noqa: F403
from tests.contracts.spool.leaving import *  # noqa: F403
from tests.contracts.spool.operators import *  # noqa: F403
from tests.contracts.spool.parts import *  # noqa: F403
