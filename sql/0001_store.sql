-- The tables of a workspace: the seeds' columns first, extra ones at the end.
--
-- `~.` stands for the schema the workspace lives in, ~now for the time in Unix
-- milliseconds, ~uuid7 for a new UUIDv7: both are made by SQLite itself, so a
-- plain INSERT without choir gets them too. Triggers are not here: the rooms
-- install them (and choir_init() repairs them).

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
  metadata JSON DEFAULT '{}',
  deleted_at INTEGER
);
CREATE UNIQUE INDEX ~.artifacts_path ON artifacts(path)
  WHERE deleted_at IS NULL;
CREATE INDEX ~.artifacts_updated ON artifacts(updated_at);

CREATE TABLE ~.agent_tasks(
  id TEXT PRIMARY KEY NOT NULL DEFAULT (~uuid7),
  status TEXT NOT NULL DEFAULT 'PENDING'
    CHECK(status IN ('PENDING', 'RUNNING', 'COMPLETED', 'FAILED')),
  task_type TEXT NOT NULL,
  input JSON NOT NULL,
  output JSON,
  created_at INTEGER NOT NULL DEFAULT (~now),
  started_at INTEGER,
  completed_at INTEGER,
  error TEXT,
  lease_until INTEGER
);
CREATE INDEX ~.agent_tasks_open ON agent_tasks(status, created_at)
  WHERE status IN ('PENDING', 'RUNNING');

CREATE TABLE ~.citations(
  id TEXT PRIMARY KEY NOT NULL DEFAULT (~uuid7),
  source_artifact_id TEXT NOT NULL REFERENCES artifacts(id),
  citing_run_id TEXT NOT NULL,
  weight REAL NOT NULL CHECK(typeof(weight) IN ('real', 'integer')
    AND weight BETWEEN 0 AND 1),
  reason TEXT,
  created_at INTEGER NOT NULL DEFAULT (~now)
);
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
);

CREATE TABLE ~.messages(
  id TEXT PRIMARY KEY NOT NULL DEFAULT (~uuid7),
  conversation_id TEXT NOT NULL REFERENCES conversation_history(id),
  role TEXT NOT NULL CHECK(role IN ('user', 'assistant', 'system', 'tool')),
  content TEXT,
  timestamp INTEGER NOT NULL DEFAULT (~now),
  metadata JSON
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
  hits INTEGER NOT NULL DEFAULT 0
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
);

CREATE TABLE ~.personas(
  id TEXT PRIMARY KEY NOT NULL DEFAULT (~uuid7),
  name TEXT NOT NULL,
  personality JSON NOT NULL DEFAULT '{}',
  is_active INTEGER NOT NULL DEFAULT 0 CHECK(is_active IN (0, 1)),
  created_at INTEGER NOT NULL DEFAULT (~now),
  updated_at INTEGER NOT NULL DEFAULT (~now)
);

CREATE TABLE ~.memories(
  id TEXT PRIMARY KEY NOT NULL DEFAULT (~uuid7),
  persona_id TEXT REFERENCES personas(id),
  content TEXT NOT NULL,
  importance REAL NOT NULL DEFAULT 0.5 CHECK(importance BETWEEN 0 AND 1),
  created_at INTEGER NOT NULL DEFAULT (~now),
  updated_at INTEGER NOT NULL DEFAULT (~now),
  metadata JSON
);
CREATE INDEX ~.memories_persona ON memories(persona_id);
