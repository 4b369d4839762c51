"""Rigs that run other people's mail programs, for interoperability tests and for measurements.

One module for each peer. Each has `why_missing()`, which returns a sentence for `pytest.skip` when the
peer cannot be used on this machine, or None. `python -m tests.peers.install` puts the peers there.

Rules: a peer listens on, and talks to, 127.0.0.1 only; every call has a time limit; a rig ends the
processes that it started and no others.
"""
