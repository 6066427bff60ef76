-- How far what a stream's events were read from had come with the last of them: for `acp/<instance>/out` bytes of the
-- agent's stdout. Written with the events: the next server goes on reading there.
ALTER TABLE streams ADD COLUMN read_to INTEGER NOT NULL DEFAULT 0;
