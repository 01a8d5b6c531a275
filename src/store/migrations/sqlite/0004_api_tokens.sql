-- Accounts without a password, for machines. They are what their tokens are: an account ends with the last of them at the administrator's word.
CREATE TABLE service_accounts (
    folded        TEXT    NOT NULL PRIMARY KEY,
    name          TEXT    NOT NULL,
    groups        TEXT    NOT NULL DEFAULT '[]'    -- JSON list of strings
) STRICT;

-- Of tokens only the SHA-256 is stored. `id` is its first 80 bits in hexadecimal.
CREATE TABLE api_tokens (
    id            TEXT    NOT NULL PRIMARY KEY,
    hash          BLOB    NOT NULL UNIQUE,
    kind          TEXT    NOT NULL,                -- user, service
    folded        TEXT    NOT NULL,                -- the owner's name; no foreign key: users may live in a file
    owner         TEXT    NOT NULL,
    name          TEXT    NOT NULL,
    scopes        TEXT    NOT NULL DEFAULT '[]',   -- JSON list of strings; empty: everywhere
    version       INTEGER NOT NULL,                -- the owner's token version when it was made
    created_at    INTEGER NOT NULL,
    expires_at    INTEGER,
    last_used_at  INTEGER,
    created_by    TEXT
) STRICT;
CREATE INDEX api_tokens_of_owner ON api_tokens (kind, folded, created_at);
CREATE INDEX api_tokens_by_end ON api_tokens (expires_at);
