-- What else is known of a user, for expressions in rules: a JSON object.
ALTER TABLE users ADD COLUMN attributes TEXT NOT NULL DEFAULT '{}';
