-- Working trees that were made for sessions. path and repository are bytes. ended_at_ms is when the session was seen to be
-- closed or deleted: then the tree is no longer locked, and goes after a while, unless there is work in it, which kept says.
CREATE TABLE git_worktrees (
    path          BLOB PRIMARY KEY,
    repository    BLOB NOT NULL,
    session_id    TEXT NOT NULL,
    created_at_ms INTEGER NOT NULL,
    ended_at_ms   INTEGER,
    kept          TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX git_worktrees_by_session ON git_worktrees (session_id);
