-- The demo, to be read. `make demo` runs every statement in the stock sqlite3
-- shell, with choir loaded, and shows it with its result (tools/demo/run.py).
--
--   --- device: title   begins a chapter; each device has its own file, and
--                       loads choir unless it says `without choir`
--   -- text             is told to the reader
--   --= text            the first row of the result has a cell beginning so
--   --! text            the statement must be refused, with text in the message
--   --? own | default   up to the empty line: for make demo DIR=… only, or not
--
-- ${…} is filled in by the runner.

--- laptop: A folder of documents becomes a workspace
-- A workspace is one SQLite file. This makes one, and tells its format.
SELECT choir_init();

--? default
-- Import real documents: this project's pages, and the licence texts that come
-- with the system.
SELECT artifact_import('docs', '/docs') ->> 'files' AS files;
SELECT artifact_import('/usr/share/common-licenses', '/licences')
  ->> 'files' AS files;

--? own
SELECT artifact_import('${dir}', '/documents');

-- They are rows of an ordinary table now. Look at them as a folder …
SELECT path, kind FROM artifact_ls('/');
-- … or by a view.
SELECT path, size, mime_type FROM files
ORDER BY size_bytes DESC LIMIT 4;

--- laptop: Search, by words and by pieces of words
--? default
-- Nothing has to be set up: the first search works.
SELECT rank, path, preview
FROM choir_search('waiving copyright and neighbouring rights', 2);
--= /licences/CC0-1.0
-- Vectors forgive what words do not. Most of this is misspelt:
SELECT rank, path, preview
FROM choir_search('invarient sectoins, cover textes', 2);
--= /licences/GFDL-1
-- The project's own pages are in there too.
SELECT rank, path, preview
FROM choir_search('may a CHECK of a foreign file call a function', 2);
--= /docs/architecture.md

--? own
SELECT rank, path, preview FROM choir_search('${words}', 2);

-- Now build the index. Answers stay the same, large workspaces answer quickly.
SELECT choir_index();

--- laptop: A conversation, and the log that writes itself
SELECT conversation_create('A licence');
SELECT message_add(id, 'user', 'Which one asks for nothing in return?')
  AS message FROM conversations;
SELECT message_add(id, 'assistant', 'CC0-1.0: it waives all it can.')
  AS message FROM conversations;
SELECT position, role, content FROM chat;

--? default
-- Messages are searched like documents.
SELECT rank, kind, preview
FROM choir_search('asks for nothing in return', 1);
--= message

-- Every change so far is in the log.
SELECT time, type, label FROM timeline ORDER BY seq DESC LIMIT 4;
--= 20

--- laptop without choir: The file is yours
-- A SQLite that has never heard of choir uses the same file. It is recorded all
-- the same, because the triggers are plain SQL.
INSERT INTO user_settings(setting_name, setting_value)
VALUES('theme', 'dark');
SELECT type, label FROM timeline ORDER BY seq DESC LIMIT 2;
--= SETTING_SET

--- laptop: Push
SELECT artifact_put('/notes/plan.md', 'Find a licence.');

-- A remote is a folder on a disk or a share, or a bucket. This one is named by
-- CHOIR_REMOTE in the environment.
SELECT sync_push();
--= {"pushed":1

--- phone: The second device pulls, and has it all
-- Its file does not exist yet.
SELECT sync_pull();
--= {"pulled":1

--? default
-- The same question, the same answer.
SELECT rank, path, preview
FROM choir_search('invarient sectoins, cover textes', 2);
--= /licences/GFDL-1

--? own
SELECT rank, path, preview FROM choir_search('${words}', 2);

--- phone: Both devices write …
SELECT artifact_put('/notes/plan.md', 'Publish under MIT.');
SELECT artifact_put('/notes/call.md', 'Call Ada on Monday.');

--- laptop: … and the laptop pushes first
SELECT artifact_put('/notes/plan.md', 'Publish under CC0.');
-- Only the pages that changed are sent.
SELECT sync_push();
--= {"pushed":1

--- phone: Nobody's work is overwritten
-- The phone's push would undo the laptop's. It is refused …
SELECT sync_push();
--! the remote has moved
-- … and a pull would undo the phone's own. It is refused as well, and says what
-- can be done.
SELECT sync_pull();
--! both sides changed

-- Put both together, row by row.
SELECT sync_pull(NULL, 'merge') ->> 'conflicts' AS conflicts;
--= [{"table":"artifacts"

-- Where both changed the same thing, the one who pushed first keeps it …
SELECT path, artifact_get(path) AS content FROM artifact_ls('/notes');
--= /notes/call.md
-- … and what gave way is in the log.
SELECT payload ->> '$.columns.content.here' AS gave_way
FROM action_log WHERE action_type = 'SYNC_CONFLICT';
--= Publish under MIT.
SELECT sync_push();
--= {"pushed":1
