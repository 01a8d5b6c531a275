-- Browsers on which somebody signed in, for whoever is to be told of a new one. The browser holds the value in a cookie.
CREATE TABLE devices (
    folded        TEXT    NOT NULL,                -- the user's name, as in users
    device_hash   BLOB    NOT NULL,
    token_version INTEGER NOT NULL,                -- the user's when it was seen: known no more once that has gone up
    last_seen_at  INTEGER NOT NULL,
    PRIMARY KEY (folded, device_hash)
) STRICT, WITHOUT ROWID;
CREATE INDEX devices_by_age ON devices (last_seen_at);
