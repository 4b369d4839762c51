"""`python -m mailsuite` is the `mailsuite` command."""

from mailsuite.admin.command import main

main()
