-- A fresh session of the agent's that took the place of one it lost is told in words what was said before, with its next
-- prompt. 1 until such a prompt was answered.
ALTER TABLE acp_sessions ADD COLUMN owes_words INTEGER NOT NULL DEFAULT 0;
