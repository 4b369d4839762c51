"""One suite of tests for each interface that has several implementations."""
