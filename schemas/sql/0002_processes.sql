-- Managed processes. A finished one keeps its row, and its output in the spool folder, until it is deleted or retention
-- takes it. number is the n of proc_<n>. spec is what was asked for as JSON; environment, stdin and script are in it only
-- while a restart policy may need them.
CREATE TABLE processes (
    number          INTEGER PRIMARY KEY,
    spec            TEXT NOT NULL,
    owner           TEXT NOT NULL,
    created_at_ms   INTEGER NOT NULL,
    exited_at_ms    INTEGER,
    exit_code       INTEGER,
    exit_signal     INTEGER,
    exit_reason     TEXT,
    restarts        INTEGER NOT NULL,
    cols            INTEGER,
    rows            INTEGER,
    log_bytes       INTEGER NOT NULL,
    idempotency_key TEXT,
    request_hash    TEXT
) STRICT;
