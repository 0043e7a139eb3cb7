-- The action log and the places of its consumers.
--
-- seq orders the log and is never used twice; tbl and pk say which row an
-- action is about (pk has no type of its own: it is the row's key as stored,
-- for a composite key a JSON array). Rows are written by the triggers that the
-- log room generates, by log_record(), or by a plain INSERT.

CREATE TABLE ~.action_log(
  id TEXT NOT NULL DEFAULT (~uuid7),
  timestamp INTEGER NOT NULL DEFAULT (~now),
  action_type TEXT NOT NULL,
  payload JSON NOT NULL DEFAULT '{}',
  synced INTEGER NOT NULL DEFAULT 0,
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  tbl TEXT,
  pk
);
CREATE INDEX ~.action_log_unsynced ON action_log(seq) WHERE synced = 0;

-- consumer has worked through the log up to and including seq; -1 means that
-- rows it had not seen are gone and it must look at everything again.
CREATE TABLE ~._choir_cursor(
  consumer TEXT PRIMARY KEY NOT NULL,
  seq INTEGER NOT NULL
) WITHOUT ROWID;
