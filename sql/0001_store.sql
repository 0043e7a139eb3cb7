-- The tables of a workspace: the seeds' columns first, extra ones at the end,
-- and the views that show them to people.
--
-- `~.` stands for the schema the workspace lives in, ~now for the time in Unix
-- milliseconds, ~uuid7 for a new UUIDv7, ~iso(x) for milliseconds x as ISO
-- 8601 text: all made by SQLite itself, so a plain INSERT without choir gets
-- them too. Triggers are not here: the rooms install them (and choir_init()
-- repairs them). Tables whose rows are small have no rowid.

-- A deleted artifact stays as a tombstone (deleted_at set, content NULL) for
-- those who cite it. A live one without content and with an s3_key has its
-- content in the object store.
CREATE TABLE ~.artifacts(
  id TEXT PRIMARY KEY NOT NULL DEFAULT (~uuid7),
  path TEXT NOT NULL,
  name TEXT NOT NULL,
  mime_type TEXT,
  content BLOB,
  s3_key TEXT,
  size_bytes INTEGER CHECK(size_bytes >= 0),
  hash TEXT,
  created_at INTEGER NOT NULL DEFAULT (~now),
  updated_at INTEGER NOT NULL DEFAULT (~now),
  metadata TEXT DEFAULT '{}',
  deleted_at INTEGER
);
CREATE UNIQUE INDEX ~.artifacts_path ON artifacts(path)
  WHERE deleted_at IS NULL;
CREATE INDEX ~.artifacts_updated ON artifacts(updated_at)
  WHERE deleted_at IS NULL;
-- What a listing shows lies behind the content in the row: this index answers
-- it without walking through every file, and finds the tombstones.
CREATE INDEX ~.artifacts_list ON artifacts(deleted_at, path, size_bytes,
  mime_type, s3_key, updated_at, id);

CREATE TABLE ~.agent_tasks(
  id TEXT PRIMARY KEY NOT NULL DEFAULT (~uuid7),
  status TEXT NOT NULL DEFAULT 'PENDING'
    CHECK(status IN ('PENDING', 'RUNNING', 'COMPLETED', 'FAILED')),
  task_type TEXT NOT NULL,
  input TEXT NOT NULL,
  output TEXT,
  created_at INTEGER NOT NULL DEFAULT (~now),
  started_at INTEGER,
  completed_at INTEGER,
  error TEXT,
  lease_until INTEGER,
  attempts INTEGER NOT NULL DEFAULT 0,
  max_attempts INTEGER NOT NULL DEFAULT 3 CHECK(max_attempts > 0)
) WITHOUT ROWID;
-- task_claim() finds leases that ended, retries that are due and, where
-- lease_until is NULL, what waits longest.
CREATE INDEX ~.agent_tasks_open ON agent_tasks(status, lease_until, created_at,
  id, task_type) WHERE status IN ('PENDING', 'RUNNING');

CREATE TABLE ~.citations(
  id TEXT PRIMARY KEY NOT NULL DEFAULT (~uuid7),
  source_artifact_id TEXT NOT NULL REFERENCES artifacts(id),
  citing_run_id TEXT NOT NULL,
  weight REAL NOT NULL CHECK(typeof(weight) IN ('real', 'integer')
    AND weight BETWEEN 0 AND 1),
  reason TEXT,
  created_at INTEGER NOT NULL DEFAULT (~now)
) WITHOUT ROWID;
CREATE INDEX ~.citations_source ON citations(source_artifact_id);

CREATE TABLE ~.sync_state(
  key TEXT PRIMARY KEY NOT NULL,
  value TEXT
) WITHOUT ROWID;

CREATE TABLE ~.conversation_history(
  id TEXT PRIMARY KEY NOT NULL DEFAULT (~uuid7),
  title TEXT,
  created_at INTEGER NOT NULL DEFAULT (~now),
  updated_at INTEGER NOT NULL DEFAULT (~now)
) WITHOUT ROWID;

-- Messages of one millisecond keep the order they were added in: the rowid.
CREATE TABLE ~.messages(
  id TEXT PRIMARY KEY NOT NULL DEFAULT (~uuid7),
  conversation_id TEXT NOT NULL REFERENCES conversation_history(id),
  role TEXT NOT NULL CHECK(role IN ('user', 'assistant', 'system', 'tool')),
  content TEXT,
  timestamp INTEGER NOT NULL DEFAULT (~now),
  metadata TEXT
);
CREATE INDEX ~.messages_conversation ON messages(conversation_id, timestamp);

CREATE TABLE ~.user_settings(
  setting_name TEXT PRIMARY KEY NOT NULL,
  setting_value TEXT,
  updated_at INTEGER NOT NULL DEFAULT (~now)
) WITHOUT ROWID;

CREATE TABLE ~.server_cache(
  key TEXT PRIMARY KEY NOT NULL,
  value BLOB,
  timestamp INTEGER NOT NULL DEFAULT (~now),
  expires_at INTEGER,
  hits INTEGER NOT NULL DEFAULT 0,
  used_at INTEGER
);

CREATE TABLE ~.server_state(
  server TEXT NOT NULL,
  key TEXT NOT NULL,
  value BLOB,
  updated_at INTEGER NOT NULL DEFAULT (~now),
  PRIMARY KEY(server, key)
) WITHOUT ROWID;

CREATE TABLE ~.state_storage(
  key_name TEXT PRIMARY KEY NOT NULL,
  value_json TEXT,
  created_at INTEGER NOT NULL DEFAULT (~now),
  updated_at INTEGER NOT NULL DEFAULT (~now),
  level INTEGER NOT NULL DEFAULT 3 CHECK(level IN (1, 2, 3))
) WITHOUT ROWID;

CREATE TABLE ~.personas(
  id TEXT PRIMARY KEY NOT NULL DEFAULT (~uuid7),
  name TEXT NOT NULL,
  personality TEXT NOT NULL DEFAULT '{}',
  is_active INTEGER NOT NULL DEFAULT 0 CHECK(is_active IN (0, 1)),
  created_at INTEGER NOT NULL DEFAULT (~now),
  updated_at INTEGER NOT NULL DEFAULT (~now)
) WITHOUT ROWID;

CREATE TABLE ~.memories(
  id TEXT PRIMARY KEY NOT NULL DEFAULT (~uuid7),
  persona_id TEXT REFERENCES personas(id),
  content TEXT NOT NULL,
  importance REAL NOT NULL DEFAULT 0.5 CHECK(importance BETWEEN 0 AND 1),
  created_at INTEGER NOT NULL DEFAULT (~now),
  updated_at INTEGER NOT NULL DEFAULT (~now),
  metadata TEXT
);
CREATE INDEX ~.memories_persona ON memories(persona_id);

-- ------------------------------------------------------------------ views

CREATE VIEW ~.files(path, depth, size, size_bytes, mime_type, stored, updated,
  id) AS
SELECT path, length(path) - length(replace(path, '/', '')),
  CASE
    WHEN size_bytes IS NULL THEN NULL
    WHEN size_bytes < 1000 THEN size_bytes || ' B'
    WHEN size_bytes < 999950 THEN printf('%.1f kB', size_bytes / 1e3)
    WHEN size_bytes < 999950000 THEN printf('%.1f MB', size_bytes / 1e6)
    ELSE printf('%.1f GB', size_bytes / 1e9)
  END,
  size_bytes, mime_type, CASE WHEN s3_key IS NULL THEN 'here' ELSE s3_key END,
  ~iso(updated_at), id
FROM artifacts WHERE deleted_at IS NULL ORDER BY path;

CREATE VIEW ~.conversations(id, title, messages, created, updated) AS
SELECT id, title,
  (SELECT count(*) FROM messages WHERE conversation_id = c.id),
  ~iso(created_at), ~iso(updated_at)
FROM conversation_history AS c ORDER BY updated_at DESC, id DESC;

CREATE VIEW ~.chat(conversation_id, conversation, position, role, content,
  time, message_id) AS
SELECT m.conversation_id, c.title,
  row_number() OVER (PARTITION BY m.conversation_id
    ORDER BY m.timestamp, m.rowid),
  m.role, m.content, ~iso(m.timestamp), m.id
FROM messages AS m LEFT JOIN conversation_history AS c
  ON c.id = m.conversation_id;

CREATE VIEW ~.tasks_open(id, status, task_type, input, created, started,
  lease_until) AS
SELECT id, status, task_type, input, ~iso(created_at), ~iso(started_at),
  ~iso(lease_until)
FROM agent_tasks WHERE status IN ('PENDING', 'RUNNING') ORDER BY created_at, id;

CREATE VIEW ~.tasks_failed(id, task_type, input, error, attempts, created,
  failed) AS
SELECT id, task_type, input, error, attempts, ~iso(created_at),
  ~iso(completed_at)
FROM agent_tasks WHERE status = 'FAILED' ORDER BY completed_at DESC, id;

CREATE VIEW ~.citation_totals(artifact_id, path, deleted, citations, runs,
  weight, last_cited) AS
SELECT c.source_artifact_id, a.path, a.deleted_at IS NOT NULL, count(*),
  count(DISTINCT c.citing_run_id), total(c.weight), ~iso(max(c.created_at))
FROM citations AS c LEFT JOIN artifacts AS a ON a.id = c.source_artifact_id
GROUP BY c.source_artifact_id ORDER BY 6 DESC, 1;

-- One row for each value in the state that has no further parts. json_tree is
-- one of SQLite's own and stands in a view of any trust; a key whose text is
-- not JSON is an error when the rows come to it.
CREATE VIEW ~.state_leaves(key, path, value, type, level, updated) AS
SELECT s.key_name, j.fullkey, j.atom, j.type, s.level, ~iso(s.updated_at)
FROM state_storage AS s JOIN json_tree(s.value_json) AS j
WHERE j.type NOT IN ('object', 'array');

CREATE VIEW ~.active_persona(id, name, personality, memories, updated) AS
SELECT id, name, personality,
  (SELECT count(*) FROM memories WHERE persona_id = p.id), ~iso(updated_at)
FROM personas AS p WHERE is_active = 1;

CREATE VIEW ~.persona_memories(persona_id, persona, memory_id, content,
  importance, created, updated) AS
SELECT m.persona_id, p.name, m.id, m.content, m.importance, ~iso(m.created_at),
  ~iso(m.updated_at)
FROM memories AS m LEFT JOIN personas AS p ON p.id = m.persona_id;

-- The messages as rows of the conversation table that others keep, one message
-- a row: a conversation that choir_import() made of such a table has the id
-- `nola:` and the user's.
CREATE VIEW ~.nola_conversation_history(id, user_id, message, speaker,
  timestamp) AS
SELECT m.rowid,
  CASE WHEN substr(m.conversation_id, 1, 5) = 'nola:'
    THEN substr(m.conversation_id, 6) ELSE m.conversation_id END,
  m.content,
  coalesce((SELECT j.atom FROM json_each(m.metadata) AS j
    WHERE j.key = 'speaker'), m.role),
  strftime('%Y-%m-%d %H:%M:%S', m.timestamp / 1000, 'unixepoch')
FROM messages AS m;
