-- Users whose source is the database. `folded` is the name as it is compared (ignoring case).
CREATE TABLE users (
    folded        TEXT    NOT NULL PRIMARY KEY,
    name          TEXT    NOT NULL,
    display_name  TEXT    NOT NULL,
    email         TEXT,
    groups        TEXT    NOT NULL DEFAULT '[]',   -- JSON list of strings
    disabled      INTEGER NOT NULL DEFAULT 0,
    token_version INTEGER NOT NULL DEFAULT 1,
    password_hash TEXT
) STRICT;

-- What the users file said when it was last read, so that a change made while no server ran is noticed too.
CREATE TABLE file_users (
    folded        TEXT    NOT NULL PRIMARY KEY,
    fingerprint   BLOB    NOT NULL,                -- SHA-256 of the entry; empty where it was removed
    token_version INTEGER NOT NULL DEFAULT 1
) STRICT;

-- Times are milliseconds since 1970. Secrets are stored as SHA-256 alone.
CREATE TABLE sessions (
    id            TEXT    NOT NULL PRIMARY KEY,
    folded        TEXT    NOT NULL,                -- no foreign key: users may live in a file
    name          TEXT    NOT NULL,
    factor        TEXT    NOT NULL,
    domain        TEXT    NOT NULL,
    gate_hash     BLOB    NOT NULL UNIQUE,
    portal_hash   BLOB    NOT NULL,
    remembered    INTEGER NOT NULL,
    created_at    INTEGER NOT NULL,
    signed_in_at  INTEGER NOT NULL,
    last_used_at  INTEGER NOT NULL,
    user_agent    TEXT    NOT NULL,
    address       TEXT
) STRICT;
CREATE INDEX sessions_of_user ON sessions (folded, created_at);
CREATE INDEX sessions_by_age ON sessions (created_at);
CREATE INDEX sessions_by_use ON sessions (last_used_at);

-- Ed25519 seeds, encrypted under storage.key_file with the kid as associated data.
CREATE TABLE signing_keys (
    kid           TEXT    NOT NULL PRIMARY KEY,
    nonce         BLOB    NOT NULL,
    sealed        BLOB    NOT NULL,
    created_at    INTEGER NOT NULL
) STRICT;

-- The log of changes. AUTOINCREMENT: a number is never given twice, also after the newest rows were cleaned away.
CREATE TABLE changes (
    seq           INTEGER PRIMARY KEY AUTOINCREMENT,
    kind          TEXT    NOT NULL,                -- session, user, key
    id            TEXT    NOT NULL,
    at            INTEGER NOT NULL
) STRICT;
