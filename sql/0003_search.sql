-- What choir_search() looks through, derived from artifacts, messages and
-- memories by choir_index() and rebuilt by choir_index('rebuild').
--
-- A chunk's id is its document's id times 2^20 plus its number: 0 is the path,
-- 1 and up are pieces of the content. Vectors lie apart, so that a scan of them
-- reads nothing else. The text index _choir_fts (FTS5 over _choir_chunk) is
-- made by choir_index(), where SQLite has FTS5.

CREATE TABLE ~._choir_doc(
  id INTEGER PRIMARY KEY,
  kind TEXT NOT NULL,
  doc TEXT NOT NULL,
  path TEXT,
  hash BLOB,
  UNIQUE(kind, doc)
);
CREATE INDEX ~._choir_doc_path ON _choir_doc(path) WHERE path IS NOT NULL;

CREATE TABLE ~._choir_chunk(
  id INTEGER PRIMARY KEY,
  start INTEGER NOT NULL,
  text TEXT NOT NULL
);

CREATE TABLE ~._choir_vector(
  id INTEGER PRIMARY KEY,
  embedding BLOB NOT NULL
);
