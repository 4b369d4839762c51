"""The `mailsuite` command."""
