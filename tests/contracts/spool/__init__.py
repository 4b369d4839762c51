"""The contract of ISpool: every spool passes these tests, which a test module takes over with `import *`.

The module gives a fixture `kit`: a `kit.Kit` around a spool that was started. To that spool, contents above
`kit.LARGE` octets are large.
"""

from tests.contracts.spool.arrival import *  # noqa: F403
from tests.contracts.spool.leaving import *  # noqa: F403
