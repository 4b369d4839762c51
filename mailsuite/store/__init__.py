"""Mailboxes: the maildir layout, known here and nowhere else."""
