-- As the tables of SQLite, in types that both databases give back alike: numbers and flags are BIGINT, secrets BYTEA. What is compared or
-- sorted is so byte by byte (COLLATE "C"), whatever the language of the database.

-- Users whose source is the database. `folded` is the name as it is compared (ignoring case).
CREATE TABLE users (
    folded        TEXT   COLLATE "C" NOT NULL PRIMARY KEY,
    name          TEXT   NOT NULL,
    display_name  TEXT   NOT NULL,
    email         TEXT,
    groups        TEXT   NOT NULL DEFAULT '[]',   -- JSON list of strings
    disabled      BIGINT NOT NULL DEFAULT 0,
    token_version BIGINT NOT NULL DEFAULT 1,
    password_hash TEXT,
    attributes    TEXT   NOT NULL DEFAULT '{}'    -- what else is known of a user, for expressions in rules: a JSON object
);

-- What the users file said when it was last read, so that a change made while no server ran is noticed too.
CREATE TABLE file_users (
    folded        TEXT   COLLATE "C" NOT NULL PRIMARY KEY,
    fingerprint   BYTEA  NOT NULL,                -- SHA-256 of the entry; empty where it was removed
    token_version BIGINT NOT NULL DEFAULT 1
);

-- Times are milliseconds since 1970. Secrets are stored as SHA-256 alone.
CREATE TABLE sessions (
    id            TEXT   COLLATE "C" NOT NULL PRIMARY KEY,
    folded        TEXT   COLLATE "C" NOT NULL,    -- no foreign key: users may live in a file
    name          TEXT   NOT NULL,
    factor        TEXT   NOT NULL,
    domain        TEXT   NOT NULL,
    gate_hash     BYTEA  NOT NULL UNIQUE,
    portal_hash   BYTEA  NOT NULL,
    remembered    BIGINT NOT NULL,
    created_at    BIGINT NOT NULL,
    signed_in_at  BIGINT NOT NULL,
    last_used_at  BIGINT NOT NULL,
    user_agent    TEXT   NOT NULL,
    address       TEXT
);
CREATE INDEX sessions_of_user ON sessions (folded, created_at);
CREATE INDEX sessions_by_age ON sessions (created_at);
CREATE INDEX sessions_by_use ON sessions (last_used_at);

-- Ed25519 seeds, encrypted under storage.key_file with the kid as associated data.
CREATE TABLE signing_keys (
    kid           TEXT   COLLATE "C" NOT NULL PRIMARY KEY,
    nonce         BYTEA  NOT NULL,
    sealed        BYTEA  NOT NULL,
    created_at    BIGINT NOT NULL
);

-- The log of changes. Its numbers come from the one row of change_counter and not from a sequence: a sequence gives numbers in the order of
-- asking, so that a reader could see 7 before 6 is committed, and never look for 6 again. Whoever takes a number here keeps the row until
-- the end of the transaction: numbers are committed in their order, and one that is rolled back is given again.
CREATE TABLE changes (
    seq           BIGINT NOT NULL PRIMARY KEY,
    kind          TEXT   NOT NULL,                -- session, user, key
    id            TEXT   NOT NULL,
    at            BIGINT NOT NULL
);
CREATE TABLE change_counter (
    id            BIGINT NOT NULL PRIMARY KEY DEFAULT 1 CHECK (id = 1),
    seq           BIGINT NOT NULL
);
INSERT INTO change_counter (seq) VALUES (0);
