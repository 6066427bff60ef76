-- Append-only: a migration that was released is never edited. STRICT tables, times are Unix milliseconds.

-- Facts about this file. 'store_id' marks the processes this store started (see docs/OPERATIONS.md, "Cookies").
CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- One row per stream of the log. How far it reaches is what events and gaps hold of it. orphaned_at_ms is set once the
-- ACP server that wrote it is deleted: the streams orphaned longest ago are removed beyond a bound.
CREATE TABLE streams (
    id             INTEGER PRIMARY KEY,
    name           TEXT NOT NULL UNIQUE,
    created_at_ms  INTEGER NOT NULL,
    orphaned_at_ms INTEGER
) STRICT;
CREATE INDEX streams_orphaned ON streams (orphaned_at_ms) WHERE orphaned_at_ms IS NOT NULL;

-- The log (rule 1). seq orders everything; stream_seq counts from 1 within one stream and is what SSE shows as id.
CREATE TABLE events (
    seq        INTEGER PRIMARY KEY,
    stream_id  INTEGER NOT NULL REFERENCES streams (id),
    stream_seq INTEGER NOT NULL,
    time_ms    INTEGER NOT NULL,
    type       TEXT NOT NULL,
    payload    BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX events_by_stream ON events (stream_id, stream_seq);

-- Ranges of a stream that are not in the log, and why: 'retention' or 'not_kept' (the disk refused them).
CREATE TABLE gaps (
    stream_id INTEGER NOT NULL REFERENCES streams (id),
    from_seq  INTEGER NOT NULL,
    to_seq    INTEGER NOT NULL,
    reason    TEXT NOT NULL,
    PRIMARY KEY (stream_id, from_seq)
) STRICT, WITHOUT ROWID;

-- ACP servers: one agent connection addressed by a client-chosen id. A deleted server keeps its streams, not its row.
CREATE TABLE acp_servers (
    server_id      TEXT PRIMARY KEY,
    agent          TEXT NOT NULL,
    instance       TEXT NOT NULL,
    created_at_ms  INTEGER NOT NULL,
    initialize     TEXT,
    authenticate   TEXT
) STRICT, WITHOUT ROWID;

-- What a new agent process must be told about a session: what session/new, session/load or session/resume were given,
-- and the settings since then (a JSON object: key to [method, params]). agent_session_id differs from session_id once
-- the agent could not restore the session and opened a fresh one in its place.
CREATE TABLE acp_sessions (
    server_id        TEXT NOT NULL REFERENCES acp_servers (server_id) ON DELETE CASCADE,
    session_id       TEXT NOT NULL,
    agent_session_id TEXT NOT NULL,
    params           TEXT NOT NULL,
    settings         TEXT NOT NULL,
    PRIMARY KEY (server_id, session_id)
) STRICT;
