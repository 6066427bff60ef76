-- Sessions that last: an ACP session with its turns, requests and spans. Everything that no query looks for is in doc, a
-- JSON object that only the sessions room reads. Each session's events are the stream 'session/<id>'.
CREATE TABLE sessions (
    id              TEXT PRIMARY KEY,
    server_id       TEXT NOT NULL,
    acp_session_id  TEXT NOT NULL,
    agent           TEXT NOT NULL,
    cwd             TEXT NOT NULL,
    title           TEXT,
    created_at_ms   INTEGER NOT NULL,
    updated_at_ms   INTEGER NOT NULL,
    closed_at_ms    INTEGER,
    idempotency_key TEXT UNIQUE,
    request_hash    TEXT,
    doc             TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX sessions_by_acp ON sessions (acp_session_id, server_id);
CREATE INDEX sessions_by_update ON sessions (updated_at_ms, id);

-- number orders the turns of a session; state is 'queued', 'running' or 'ended'.
CREATE TABLE turns (
    id              TEXT PRIMARY KEY,
    session_id      TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    number          INTEGER NOT NULL,
    state           TEXT NOT NULL,
    idempotency_key TEXT,
    request_hash    TEXT,
    doc             TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX turns_by_number ON turns (session_id, number);
CREATE UNIQUE INDEX turns_by_key ON turns (session_id, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX turns_unfinished ON turns (session_id, number) WHERE state <> 'ended';

-- What waits, or waited, for a decision from outside. state is 'pending' or 'resolved'.
CREATE TABLE requests (
    id             TEXT PRIMARY KEY,
    session_id     TEXT REFERENCES sessions (id) ON DELETE CASCADE,
    server_id      TEXT NOT NULL,
    kind           TEXT NOT NULL,
    state          TEXT NOT NULL,
    created_at_ms  INTEGER NOT NULL,
    resolved_at_ms INTEGER,
    doc            TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX requests_by_session ON requests (session_id, id);
CREATE INDEX requests_pending ON requests (id) WHERE state = 'pending';

-- Rules that decide instead of a person, in order; origin is 'policy' (set as a whole) or 'remembered' (an "always").
CREATE TABLE permission_rules (
    id            TEXT PRIMARY KEY,
    position      INTEGER NOT NULL,
    origin        TEXT NOT NULL,
    created_at_ms INTEGER NOT NULL,
    doc           TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- What took how long. Ids are those of OpenTelemetry: 32 and 16 hex digits.
CREATE TABLE spans (
    span_id        TEXT PRIMARY KEY,
    trace_id       TEXT NOT NULL,
    parent_span_id TEXT,
    session_id     TEXT REFERENCES sessions (id) ON DELETE CASCADE,
    turn_id        TEXT,
    kind           TEXT NOT NULL,
    name           TEXT NOT NULL,
    started_at_ms  INTEGER NOT NULL,
    ended_at_ms    INTEGER,
    outcome        TEXT,
    doc            TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX spans_by_session ON spans (session_id, started_at_ms);
CREATE INDEX spans_by_trace ON spans (trace_id);
CREATE INDEX spans_by_start ON spans (started_at_ms, span_id);

-- What the agent answered to initialize, so that it is known before the agent runs again.
ALTER TABLE acp_servers ADD COLUMN initialized TEXT;
