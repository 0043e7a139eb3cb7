-- Where this file stands in the history of its workspace. docs/formats.md,
-- "Sync tables", says what each column means and why the seal is of fixed
-- length. The room puts the one seal there, and the lineage into _choir_meta.

-- Every version this file descends from; the last one is its head.
CREATE TABLE ~._choir_sync_history(
  txid INTEGER PRIMARY KEY,
  push_id BLOB NOT NULL,
  time INTEGER NOT NULL,
  device TEXT
);

-- 32 bytes of digest and four facts of 32 bytes, always 160: these bytes are
-- not part of a version's content.
CREATE TABLE ~._choir_sync_seal(
  id INTEGER PRIMARY KEY,
  seal BLOB NOT NULL
);

-- Is what is here also at the remote, as far as this file knows? `changed`
-- means that the action log went on since.
CREATE VIEW ~.sync_health(status, last_sync, last_action, local_version,
  remote_version) AS
SELECT CASE WHEN s.t IS NULL THEN 'never' WHEN a.t > s.t THEN 'changed'
    ELSE 'synced' END,
  ~iso(s.t), ~iso(a.t), v.n, r.n
FROM (SELECT (SELECT CAST(value AS INTEGER) FROM sync_state
    WHERE key = 'lastSyncTimestamp') AS t) AS s,
  (SELECT (SELECT timestamp FROM action_log
    WHERE action_type <> 'SYNC_COMPLETE' ORDER BY seq DESC LIMIT 1) AS t)
    AS a,
  (SELECT (SELECT value FROM sync_state WHERE key = 'lastLocalVersion') AS n)
    AS v,
  (SELECT (SELECT value FROM sync_state WHERE key = 'lastRemoteVersion') AS n)
    AS r;
