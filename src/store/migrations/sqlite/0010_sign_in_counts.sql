-- Counters of sign-in regulation: tries that went wrong, and those that nobody has judged yet.
CREATE TABLE sign_in_counts (
    id        TEXT    NOT NULL PRIMARY KEY,        -- a keyed hash of what is counted by: no name, address or device is told by it
    account   TEXT,                                -- the same of the name, where it counts for one
    failures  INTEGER NOT NULL,
    at        INTEGER NOT NULL,                    -- from when it leaks, or when its wait began
    pending   TEXT    NOT NULL,                -- until when those that nobody has judged yet have their place: milliseconds, by commas
    ends_at   INTEGER NOT NULL                     -- says nothing any more from then on
) STRICT, WITHOUT ROWID;
CREATE INDEX sign_in_counts_of_account ON sign_in_counts (account) WHERE account IS NOT NULL;
CREATE INDEX sign_in_counts_by_end ON sign_in_counts (ends_at);

-- Whose e-mail address was typed as a name.
CREATE INDEX users_by_email ON users (lower(email));
