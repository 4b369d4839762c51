"""Repeatable measurements of mailsuite beside other mail servers: `python -m bench`. See README.md."""
