"""`mailsuite queue`: what is queued, and what is to be done with it, while the server runs or not.

Looking reads the spool's database from outside. Changing goes through the running server, which knows what is under
way, and through the spool alone where none runs.

    command    the group
    choosing   the options that say which messages are meant
    rows       messages and recipients as JSON has them, and as people read them
    listing    list, show, cat
    changing   flush, hold, release, retry, requeue, expire, delete: the commands
    work       how they are done, there or here
    top        the destinations, live
"""
