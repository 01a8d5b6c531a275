-- Sessions may be kept in Redis, which forgets, and remembers again. That they ended is kept here, whatever it says.

-- Sessions that ended one by one; what was handed over from them ended with them.
CREATE TABLE ended_sessions (
    id TEXT    PRIMARY KEY,
    at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX ended_sessions_by_age ON ended_sessions (at);

-- All sessions of a user ended, or everybody's (no name), when the number went up: a session counts where it was made at the present one (0 where there is none).
CREATE TABLE session_epochs (
    folded    TEXT    PRIMARY KEY,
    number    INTEGER NOT NULL,
    kept      TEXT    NOT NULL,                    -- the session whose sign-in was spared; empty for none
    kept_from INTEGER NOT NULL                     -- the number at which it had to be made
) STRICT, WITHOUT ROWID;

-- By which name this database's sessions go in a Redis that others use too, and how old a session has to be for its end to be forgotten here. One row.
CREATE TABLE session_space (
    one              INTEGER PRIMARY KEY CHECK (one = 1),
    name             TEXT    NOT NULL,
    forgotten_before INTEGER NOT NULL                 -- in milliseconds: what was made before is over, whatever else is known
) STRICT;
