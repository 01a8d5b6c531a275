-- The session that handed a sign-in over to this one: they end together.
ALTER TABLE sessions ADD COLUMN parent TEXT COLLATE "C";
CREATE INDEX sessions_by_parent ON sessions (parent) WHERE parent IS NOT NULL;

-- Codes by which the portal of one cookie domain hands a sign-in over to another's; gone once redeemed.
CREATE TABLE hand_overs (
    code_hash     BYTEA  NOT NULL PRIMARY KEY,
    session       TEXT   NOT NULL,                -- whose sign-in it is
    domain        TEXT   NOT NULL,                -- of the portal that may accept it
    state         TEXT   NOT NULL,                -- made by that portal, bound to the browser
    rd            TEXT   NOT NULL,
    rm            TEXT   NOT NULL,
    expires_at    BIGINT NOT NULL
);
CREATE INDEX hand_overs_by_age ON hand_overs (expires_at);
