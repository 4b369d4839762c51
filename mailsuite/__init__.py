"""A mail server made of Twisted parts; README.md has the tour, docs/flow.md the way of a message."""

__version__ = "0.1.0.dev0"
