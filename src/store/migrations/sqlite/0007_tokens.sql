-- Times are milliseconds since 1970. What is sealed is an Ed25519 seed, the number of a P-256 key, or PKCS#8 of an RSA key.
ALTER TABLE signing_keys ADD COLUMN algorithm  TEXT    NOT NULL DEFAULT 'EdDSA';
ALTER TABLE signing_keys ADD COLUMN signs_from INTEGER NOT NULL DEFAULT 0;
ALTER TABLE signing_keys ADD COLUMN retires_at INTEGER;                -- when the last token that it signed has expired
ALTER TABLE signing_keys ADD COLUMN token_life INTEGER NOT NULL DEFAULT 0; -- milliseconds that its tokens live at most, as far as was told
UPDATE signing_keys SET signs_from = created_at;

-- Refresh tokens, as SHA-256 alone. A family is the session that they belong to; the row of one that was spent stays, to know it by.
CREATE TABLE refresh_tokens (
    hash          BLOB    NOT NULL PRIMARY KEY,
    session       TEXT    NOT NULL,                -- no foreign key: sessions may live elsewhere
    generation    INTEGER NOT NULL,
    expires_at    INTEGER NOT NULL,
    spent_at      INTEGER,
    used          INTEGER NOT NULL DEFAULT 0,      -- 1: somebody exchanged it; 0 and spent: another took its place unused
    place         BLOB                             -- SHA-256 of the address and browser that exchanged it
) STRICT;
CREATE INDEX refresh_tokens_of_family ON refresh_tokens (session, generation);
CREATE INDEX refresh_tokens_by_end ON refresh_tokens (expires_at);

-- Access tokens that were revoked, until they expire.
CREATE TABLE revoked_tokens (
    jti           TEXT    NOT NULL PRIMARY KEY,
    expires_at    INTEGER NOT NULL
) STRICT;
CREATE INDEX revoked_tokens_by_end ON revoked_tokens (expires_at);
