"""The tables of the queue, and how a database is brought up to date.

A message stands apart from its recipients, and its content apart from both, so that the rows which are read all the
time stay small. A recipient waits (`lease_owner` is NULL), is on hold (`ON_HOLD`), or is under lease to a run of the
spool, a row of `leases`; that row has the time when the leases of all its recipients end, so that renewing them is one
small write. What has been delivered is deleted, and a message goes with its last recipient: a trigger sees to that, so
no statement can forget it. Triggers also keep count of what is held for each domain, so that nobody has to count it.
The journal has the steps of each message, and outlives it.

Limits: the file does not shrink; room that was freed is used again.
"""

from __future__ import annotations

import sqlite3

from mailsuite.interfaces import SpoolError

MIGRATIONS: tuple[str, ...] = (
    # 1: the queue
    """
    CREATE TABLE messages (
        key INTEGER PRIMARY KEY,
        queue_id TEXT NOT NULL UNIQUE,
        reverse_local_part TEXT,           -- both NULL: the null sender
        reverse_domain TEXT,
        body TEXT NOT NULL,                -- 7BIT, 8BITMIME, BINARYMIME
        smtputf8 INTEGER NOT NULL,
        submitter TEXT,
        arrived REAL NOT NULL,
        size INTEGER NOT NULL,
        in_file INTEGER NOT NULL           -- 1: the content is the file contents/<queue_id>
    );

    CREATE TABLE contents (
        message INTEGER PRIMARY KEY REFERENCES messages (key),
        octets BLOB NOT NULL
    );

    -- One row for each run of the spool that holds leases. AUTOINCREMENT: a number is never used again.
    CREATE TABLE leases (
        owner INTEGER PRIMARY KEY AUTOINCREMENT,
        lease_until REAL NOT NULL
    );

    CREATE TABLE recipients (
        key INTEGER PRIMARY KEY,
        message INTEGER NOT NULL REFERENCES messages (key),
        local_part TEXT NOT NULL,
        domain TEXT NOT NULL,
        original_local_part TEXT,          -- both NULL: the address is as the sender gave it
        original_domain TEXT,
        destination TEXT NOT NULL,         -- agent:name
        due REAL NOT NULL,                 -- under hold: when the message arrived
        lease_owner INTEGER,               -- NULL: waits
        replayed INTEGER NOT NULL DEFAULT 0,   -- 1: a lease ended without an outcome
        attempts INTEGER NOT NULL DEFAULT 0,
        last_attempt REAL,
        last_status TEXT,
        last_text TEXT,
        last_remote TEXT
    );
    CREATE INDEX recipients_waiting ON recipients (destination, due, message) WHERE lease_owner IS NULL;
    CREATE INDEX recipients_of_message ON recipients (message);

    CREATE TRIGGER message_goes_with_last_recipient AFTER DELETE ON recipients
    WHEN NOT EXISTS (SELECT 1 FROM recipients WHERE message = OLD.message)
    BEGIN
        DELETE FROM contents WHERE message = OLD.message;
        DELETE FROM messages WHERE key = OLD.message;
    END;
    """,
    # 2: events, parts of messages, a tally of what is held
    """
    CREATE TABLE events (
        key INTEGER PRIMARY KEY,
        time REAL NOT NULL,
        kind TEXT NOT NULL,
        subject TEXT,
        queue_id TEXT,
        detail TEXT NOT NULL               -- a JSON object
    );
    CREATE INDEX events_by_time ON events (time);
    CREATE INDEX events_of_kind ON events (kind, time);
    CREATE INDEX events_of_subject ON events (subject, time) WHERE subject IS NOT NULL;
    CREATE INDEX events_of_message ON events (queue_id, time) WHERE queue_id IS NOT NULL;

    CREATE TABLE partials (
        name TEXT PRIMARY KEY,
        queue_id TEXT NOT NULL,
        reverse_local_part TEXT,           -- both NULL: the null sender
        reverse_domain TEXT,
        body TEXT NOT NULL,
        smtputf8 INTEGER NOT NULL,
        submitter TEXT,
        targets TEXT NOT NULL,             -- JSON: local part, domain, destination, original local part and domain
        received INTEGER NOT NULL,
        kept REAL NOT NULL,
        size INTEGER NOT NULL,
        weight INTEGER NOT NULL,           -- what it counts for in the sum of all
        octets BLOB                        -- NULL: the content is the file contents/<queue_id>
    );
    CREATE INDEX partials_by_age ON partials (kept, weight);

    -- Every recipient that is held, under lease or not.
    CREATE INDEX recipients_held ON recipients (destination, due, message)
        WHERE destination >= 'hold:' AND destination < 'hold;';

    -- Messages are counted once, however many of their recipients are in the domain.
    CREATE TABLE held (
        destination TEXT PRIMARY KEY,
        messages INTEGER NOT NULL,
        octets INTEGER NOT NULL
    ) WITHOUT ROWID;
    INSERT INTO held
        SELECT destination, count(*), sum(size)
        FROM (
            SELECT DISTINCT destination, message FROM recipients WHERE destination >= 'hold:' AND destination < 'hold;'
        ) JOIN messages ON messages.key = message
        GROUP BY destination;

    CREATE TRIGGER held_comes AFTER INSERT ON recipients
    WHEN NEW.destination >= 'hold:' AND NEW.destination < 'hold;'
    BEGIN
        INSERT INTO held
            SELECT NEW.destination, 1, size FROM messages WHERE key = NEW.message AND NOT EXISTS (
                SELECT 1 FROM recipients
                WHERE destination = NEW.destination AND due = NEW.due AND message = NEW.message AND key <> NEW.key
                    AND destination >= 'hold:' AND destination < 'hold;'
            )
            ON CONFLICT (destination) DO UPDATE SET messages = messages + 1, octets = octets + excluded.octets;
    END;

    CREATE TRIGGER held_is_moved_in AFTER UPDATE OF destination ON recipients
    WHEN NEW.destination >= 'hold:' AND NEW.destination < 'hold;' AND NEW.destination <> OLD.destination
    BEGIN
        INSERT INTO held
            SELECT NEW.destination, 1, size FROM messages WHERE key = NEW.message AND NOT EXISTS (
                SELECT 1 FROM recipients
                WHERE destination = NEW.destination AND due = NEW.due AND message = NEW.message AND key <> NEW.key
                    AND destination >= 'hold:' AND destination < 'hold;'
            )
            ON CONFLICT (destination) DO UPDATE SET messages = messages + 1, octets = octets + excluded.octets;
    END;

    CREATE TRIGGER held_is_moved_out AFTER UPDATE OF destination ON recipients
    WHEN OLD.destination >= 'hold:' AND OLD.destination < 'hold;' AND NEW.destination <> OLD.destination
        AND NOT EXISTS (
            SELECT 1 FROM recipients
            WHERE destination = OLD.destination AND due = OLD.due AND message = OLD.message
                AND destination >= 'hold:' AND destination < 'hold;'
        )
    BEGIN
        UPDATE held
            SET messages = messages - 1, octets = octets - (SELECT size FROM messages WHERE key = OLD.message)
            WHERE destination = OLD.destination;
        DELETE FROM held WHERE destination = OLD.destination AND messages = 0;
    END;

    -- Before, for the message may go with the recipient.
    CREATE TRIGGER held_goes BEFORE DELETE ON recipients
    WHEN OLD.destination >= 'hold:' AND OLD.destination < 'hold;' AND NOT EXISTS (
        SELECT 1 FROM recipients
        WHERE destination = OLD.destination AND due = OLD.due AND message = OLD.message AND key <> OLD.key
            AND destination >= 'hold:' AND destination < 'hold;'
    )
    BEGIN
        UPDATE held
            SET messages = messages - 1, octets = octets - (SELECT size FROM messages WHERE key = OLD.message)
            WHERE destination = OLD.destination;
        DELETE FROM held WHERE destination = OLD.destination AND messages = 0;
    END;
    """,
    # 3: transactions with a name that are complete
    """
    CREATE TABLE completed (
        name TEXT PRIMARY KEY,
        queue_id TEXT NOT NULL,
        reverse_local_part TEXT,           -- both NULL: the null sender
        reverse_domain TEXT,
        body TEXT NOT NULL,
        smtputf8 INTEGER NOT NULL,
        submitter TEXT,
        targets TEXT NOT NULL,             -- as in partials
        received INTEGER NOT NULL,
        time REAL NOT NULL
    );
    CREATE INDEX completed_by_age ON completed (time);
    """,
    # 4: what is asked for messages and recipients; priorities; what operators do; the steps of each message
    """
    ALTER TABLE messages ADD COLUMN options TEXT;          -- JSON; NULL: nothing was asked
    ALTER TABLE messages ADD COLUMN rank INTEGER NOT NULL DEFAULT 0;    -- the priority, negated
    ALTER TABLE recipients ADD COLUMN options TEXT;        -- the same
    ALTER TABLE recipients ADD COLUMN reverse_local_part TEXT;          -- both NULL: that of the message
    ALTER TABLE recipients ADD COLUMN reverse_domain TEXT;
    ALTER TABLE recipients ADD COLUMN rank INTEGER NOT NULL DEFAULT 0;  -- the message's; 0 under hold
    ALTER TABLE recipients ADD COLUMN delay_told INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE recipients ADD COLUMN expired INTEGER NOT NULL DEFAULT 0;
        -- 1: an operator said so; 2: it has failed, as last_* say, and its report is missing
    ALTER TABLE partials ADD COLUMN options TEXT;
    ALTER TABLE completed ADD COLUMN options TEXT;

    DROP INDEX recipients_waiting;
    CREATE INDEX recipients_waiting ON recipients (destination, rank, due, message) WHERE lease_owner IS NULL;

    -- Clustered by ids that sort by time. A number is that of the run of the spool, and counted in it.
    CREATE TABLE journal (
        queue_id TEXT NOT NULL,
        number INTEGER NOT NULL,
        time REAL NOT NULL,
        kind TEXT NOT NULL,
        subject TEXT,
        detail TEXT NOT NULL,              -- a JSON object
        PRIMARY KEY (queue_id, number)
    ) WITHOUT ROWID;
    """,
)
VERSION = len(MIGRATIONS)
UNREPORTED = 2  # in `expired`
ON_HOLD = 0  # in place of a lease's number; no run has it

_OLDEST_SQLITE = (3, 35, 0)  # RETURNING
_CACHE_KIB = 16 * 1024
_CHECKPOINT_PAGES = 8000  # 32 MB of log; what is delivered by then was never written anywhere else
_LOG_LIMIT = 64 * 1024 * 1024
_BUSY_SECONDS = 10.0  # for an operator's sqlite3 that looks into the queue


def connect(path: str) -> sqlite3.Connection:
    """The connection that writes. Any thread may use it, one at a time. Raises `sqlite3.Error`, `SpoolError`."""
    if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        raise SpoolError(f"The spool needs SQLite 3.35 or later; this Python has {sqlite3.sqlite_version}")
    db = sqlite3.connect(
        path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False, cached_statements=256
    )
    try:
        _configure(db, path)
    except BaseException:
        db.close()
        raise
    return db


def _configure(db: sqlite3.Connection, path: str) -> None:
    # A page is the unit of the log: small ones, because a transaction of few messages writes few.
    db.execute("PRAGMA page_size = 4096")
    mode = db.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        raise SpoolError(f"The file system of {path} cannot hold an SQLite database with a write-ahead log")
    # FULL: each COMMIT returns after the log was synced. A 250 means that.
    db.execute("PRAGMA synchronous = FULL")
    # Debian's SQLite overwrites what is deleted: twice the writes, while the log keeps the mail for a time anyway.
    db.execute("PRAGMA secure_delete = OFF")
    db.execute("PRAGMA temp_store = MEMORY")
    db.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
    db.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
    db.execute(f"PRAGMA journal_size_limit = {_LOG_LIMIT}")


def connect_reader(path: str) -> sqlite3.Connection:
    """A connection that only reads. Any thread may use it, one at a time. Raises `sqlite3.Error`."""
    uri = "file:" + path.replace("%", "%25").replace("?", "%3f").replace("#", "%23") + "?mode=ro"
    return sqlite3.connect(uri, uri=True, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)


def version(db: sqlite3.Connection) -> int:
    """Which of the migrations the database has seen; 0 for a new one."""
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def migrate(db: sqlite3.Connection, path: str) -> None:
    """Run the migrations that are missing, each in a transaction. Raises `sqlite3.Error`, `SpoolError`."""
    at = version(db)
    if at > VERSION:
        raise SpoolError(f"{path} was written by a later mailsuite (version {at} of the schema, known is {VERSION})")
    for number, script in enumerate(MIGRATIONS[at:], at + 1):
        try:
            db.executescript(f"BEGIN IMMEDIATE; {script} PRAGMA user_version = {number}; COMMIT;")
        except sqlite3.Error:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise


def check(db: sqlite3.Connection, path: str) -> None:
    """Look for damage in what a start must be able to rely on. Raises as `migrate`.

    Contents and journals are most of the file (a second for a gigabyte in cache), and are not looked at: damage there
    shows where they are read, or where what is damaged is to go. Then it fails what was to be done with that message,
    and `Settlements` puts the message on hold, so that no other waits for it.
    """
    tables = db.execute("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'").fetchall()
    for (table,) in tables:
        if table in {"contents", "journal"}:
            continue
        found = db.execute(f"PRAGMA quick_check({table})").fetchone()[0]
        if found != "ok":
            raise SpoolError(f"{path} is damaged: {found}")
