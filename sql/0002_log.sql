-- The action log, the places of its consumers, the timeline.
--
-- seq orders the log and is never used twice: the last record never goes, when
-- it is deleted a trigger leaves a LOG_CUT in its place (AUTOINCREMENT writes one
-- page more per record, docs/performance.md). tbl and pk say which row an action
-- is about (pk has no type of its own: it is the row's key as stored,
-- for a composite key a JSON array). Rows are written by the triggers that the
-- log room generates, by log_record(), or by a plain INSERT.

CREATE TABLE ~.action_log(
  id TEXT NOT NULL DEFAULT (~uuid7),
  timestamp INTEGER NOT NULL DEFAULT (~now),
  action_type TEXT NOT NULL,
  payload TEXT NOT NULL DEFAULT '{}',
  synced INTEGER NOT NULL DEFAULT 0,
  seq INTEGER PRIMARY KEY CHECK(seq < 4611686018427387904),
  tbl TEXT,
  pk
);

-- consumer has worked through the log up to and including seq; -1 means that
-- rows it had not seen are gone and it must look at everything again.
CREATE TABLE ~._choir_cursor(
  consumer TEXT PRIMARY KEY NOT NULL,
  seq INTEGER NOT NULL
) WITHOUT ROWID;

-- Rows that REPLACE may be about to displace, as log entries to be: see
-- ext/log/log_trigger.c. k1 to k8 are the parts of a composite key as stored;
-- setting gone makes a row an entry of action_log.
CREATE TABLE ~._choir_log_candidate(
  n INTEGER PRIMARY KEY,
  tbl TEXT NOT NULL,
  pk,
  action_type TEXT NOT NULL,
  payload TEXT NOT NULL,
  gone INTEGER NOT NULL DEFAULT 0,
  k1, k2, k3, k4, k5, k6, k7, k8
);

-- What happened, to be read by people. object and id say which row; label is
-- the first text of the payload or the key, for messages and citations the title or path
-- that what they belong to has now. No JSON function: SQLite 3.40 refuses them
-- in a view when trusted_schema is off.
CREATE VIEW ~.timeline(seq, time, type, object, id, label, payload) AS
SELECT seq, ~iso(timestamp), action_type, tbl, pk,
  coalesce(
    CASE tbl
      WHEN 'messages' THEN (
        SELECT m.role || ' in ' || c.title
        FROM messages AS m JOIN conversation_history AS c
          ON c.id = m.conversation_id WHERE m.id = pk)
      WHEN 'citations' THEN (
        SELECT a.path FROM citations AS c JOIN artifacts AS a
          ON a.id = c.source_artifact_id WHERE c.id = pk)
    END,
    CASE WHEN instr(payload, ':"') THEN substr(payload,
      instr(payload, ':"') + 2,
      instr(substr(payload, instr(payload, ':"') + 2), '"') - 1) END,
    pk, payload),
  payload
FROM action_log;
