-- Changes of files that the server made or was told of. path and from_path are bytes: names need not be UTF-8. status is
-- 'proposed', 'accepted', 'rejected', 'applied' or 'reverted'. doc and kept are JSON objects that only the files room reads: what is
-- shown, and, as given, what it is taken back with: what was there before and after, and what a proposal asks for.
CREATE TABLE fs_edits (
    number     INTEGER PRIMARY KEY,
    id         TEXT NOT NULL UNIQUE,
    status     TEXT NOT NULL,
    op         TEXT NOT NULL,
    path       BLOB NOT NULL,
    from_path  BLOB,
    time_ms    INTEGER NOT NULL,
    session_id TEXT,
    turn_id    TEXT,
    doc        TEXT NOT NULL,
    diff       TEXT,
    kept       TEXT NOT NULL
) STRICT;
CREATE INDEX fs_edits_by_path ON fs_edits (path, id);
CREATE INDEX fs_edits_by_origin ON fs_edits (from_path, id) WHERE from_path IS NOT NULL;
CREATE INDEX fs_edits_by_session ON fs_edits (session_id, id) WHERE session_id IS NOT NULL;
CREATE INDEX fs_edits_by_time ON fs_edits (time_ms);

-- Contents that were replaced or removed, each once. used_at_ms is when it was last replaced: the oldest go first.
CREATE TABLE fs_blobs (
    sha256     TEXT PRIMARY KEY,
    size       INTEGER NOT NULL,
    used_at_ms INTEGER NOT NULL,
    content    BLOB NOT NULL
) STRICT;
CREATE INDEX fs_blobs_by_use ON fs_blobs (used_at_ms, size);

-- What each session last saw of a file: the hash of its content.
CREATE TABLE fs_seen (
    session_id TEXT NOT NULL,
    path       BLOB NOT NULL,
    sha256     TEXT NOT NULL,
    op         TEXT NOT NULL,
    seen_at_ms INTEGER NOT NULL,
    PRIMARY KEY (session_id, path)
) STRICT, WITHOUT ROWID;
CREATE INDEX fs_seen_by_path ON fs_seen (path);
CREATE INDEX fs_seen_by_time ON fs_seen (seen_at_ms);
