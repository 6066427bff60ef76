-- Where in the whole log a gap lies: who reads over this position is told of it. 0 for gaps from before.
ALTER TABLE gaps ADD COLUMN log_seq INTEGER NOT NULL DEFAULT 0;
CREATE INDEX gaps_by_log ON gaps (log_seq);
