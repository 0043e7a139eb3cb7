-- Where this file stands in the history of its workspace. docs/formats.md,
-- "Sync tables", says what each column means and why the seal is of fixed
-- length.

CREATE TABLE ~._choir_sync(
  id INTEGER PRIMARY KEY CHECK(id = 1),
  lineage BLOB NOT NULL,
  head BLOB,
  txid INTEGER NOT NULL DEFAULT 0
);
INSERT INTO ~._choir_sync(id, lineage) VALUES(1, randomblob(16));

-- Every version this file descends from, itself included.
CREATE TABLE ~._choir_sync_history(
  txid INTEGER PRIMARY KEY,
  push_id BLOB NOT NULL,
  time INTEGER NOT NULL
);

-- 32 bytes of digest and four facts of 32 bytes, always 160: these bytes are
-- not part of a version's content.
CREATE TABLE ~._choir_sync_seal(
  id INTEGER PRIMARY KEY,
  seal BLOB NOT NULL
);
INSERT INTO ~._choir_sync_seal(id, seal) VALUES(1, zeroblob(160));
