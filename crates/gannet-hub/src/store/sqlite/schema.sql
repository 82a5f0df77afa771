-- Version 1 of the hub's database. Later versions are further files, applied in order.

CREATE TABLE meta (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE channel (
    id   INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    last INTEGER NOT NULL,         -- offset of the newest message
    time INTEGER NOT NULL          -- when that was, in ms since 1970
);
CREATE INDEX channel_time ON channel (time);

CREATE TABLE message (
    channel INTEGER NOT NULL REFERENCES channel (id),
    offset  INTEGER NOT NULL,
    id      TEXT NOT NULL,         -- ULID
    sender  TEXT,                  -- NULL: the application
    event   TEXT NOT NULL,
    data    TEXT NOT NULL,         -- JSON
    time    INTEGER NOT NULL,      -- ms since 1970
    key     TEXT,
    PRIMARY KEY (channel, offset)
) WITHOUT ROWID;

-- Outlives the message, so that a late repeat finds it.
CREATE TABLE message_key (
    origin  TEXT NOT NULL,         -- user and device, or empty for the application
    key     TEXT NOT NULL,
    address TEXT NOT NULL,
    offset  INTEGER,               -- NULL: to a user
    id      TEXT NOT NULL,
    time    INTEGER NOT NULL,
    PRIMARY KEY (origin, key)
) WITHOUT ROWID;
CREATE INDEX message_key_time ON message_key (time);

PRAGMA user_version = 1;
