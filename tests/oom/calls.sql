-- Cases of the allocation-failure sweep beside the examples of the doc blocks:
-- `-- case NAME` (a fresh workspace) or `-- case NAME @empty`, then statements.
-- case init-empty @empty
SELECT choir_init();
SELECT choir_init('main');
-- case init-refused @empty
CREATE TABLE user_settings(mine);
SELECT choir_init();
-- case reports
SELECT count(*) FROM choir_doctor;
SELECT name, value >= 0 FROM choir_metrics;
SELECT name FROM choir_help('sha');
SELECT key, value, source FROM choir_settings;
-- case config
SELECT choir_config('user', 'ada');
SELECT choir_config('schema', 'main'), choir_config('user');
SELECT choir_config('user', NULL);
SELECT choir_config('user', '../x');
-- case uninstall @drops
SELECT choir_uninstall() > 0;
SELECT choir_init() > 0;
-- case vector-aliases
SELECT cosine_distance('[1,0]', '[0,1]'), l2_distance('[1,0]', '[0,1]'),
  vector_dims('[1,0]'), vector_distance_cos('[1,0]', '[0,1]');
SELECT hex(binary_quantize('[1,0,1,0,1,0,1,0]'));
-- case sync
-- A push that fails has moved the file's position: choir_version() makes two
-- calls of it, which may fail after the first has done its work.
INSERT INTO artifacts(path, name, content) VALUES('/a', 'a', 'x');
SELECT sync_push('file:///proc/self/cwd/ws.sqlite') <> choir_version();
SELECT state, changed, txid > 0 FROM sync_status('file:///proc/self/cwd/ws.sqlite');
SELECT json_extract(sync_verify('file:///proc/self/cwd/ws.sqlite'), '$.ok');
INSERT INTO artifacts(path, name, content) VALUES('/b', 'b', 'y');
SELECT json_extract(sync_verify('file:///proc/self/cwd/ws.sqlite'), '$.tables[1].here');
SELECT sync_pull('file:///proc/self/cwd/ws.sqlite', 'theirs') <> choir_version();
SELECT path FROM artifacts;
-- case sync-folder
-- A push that has taken its name moves the file's position too.
INSERT INTO artifacts(path, name, content) VALUES('/a', 'a', 'x');
SELECT sync_push('file:///proc/self/cwd/') <> choir_version();
INSERT INTO artifacts(path, name, content) VALUES('/b', 'b', 'y');
SELECT sync_push('file:///proc/self/cwd/') <> choir_version();
SELECT state, changed FROM sync_status('file:///proc/self/cwd/');
SELECT sync_compact('file:///proc/self/cwd/', 'snapshot') <> choir_version();
SELECT json_extract(sync_verify('file:///proc/self/cwd/', 1), '$.ok');
SELECT max(txid) > 0, count(version) > 0 FROM sync_log('file:///proc/self/cwd/');
SELECT sync_prune(2, 'file:///proc/self/cwd/') <> choir_version();
SELECT sync_pull('file:///proc/self/cwd/', 'theirs') <> choir_version();
SELECT path FROM artifacts;
-- case sync-merge
-- Two devices on one connection: the second has its own schema.
CREATE TABLE t(id INTEGER PRIMARY KEY, a, b);
CREATE TABLE bag(a);
INSERT INTO t VALUES(1, 1, 1), (2, 2, 2);
SELECT log_track('t') <> choir_version();
SELECT sync_push('file:///proc/self/cwd/') <> choir_version();
ATTACH ':memory:' AS other;
SELECT choir_config('schema', 'other');
SELECT sync_pull('file:///proc/self/cwd/') <> choir_version();
UPDATE other.t SET a=3 WHERE id=1;
INSERT INTO other.t VALUES(3, 'theirs', 1);
SELECT sync_push('file:///proc/self/cwd/') <> choir_version();
SELECT choir_config('schema', 'main');
UPDATE main.t SET a=4, b=4 WHERE id=1;
INSERT INTO main.t VALUES(3, 'mine', 1);
INSERT INTO main.bag VALUES(1);
ALTER TABLE main.bag ADD COLUMN more;
SELECT sync_pull('file:///proc/self/cwd/', 'merge') <> choir_version();
SELECT id, a, b FROM main.t ORDER BY id;
-- case sync-encrypted
SELECT choir_secret('k', '{"type":"sync","scope":"file:///","key":"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"}');
INSERT INTO artifacts(path, name, content) VALUES('/a', 'a', 'x');
SELECT sync_push('file:///proc/self/cwd/') <> choir_version();
INSERT INTO artifacts(path, name, content) VALUES('/b', 'b', 'y');
SELECT sync_push('file:///proc/self/cwd/') <> choir_version();
SELECT sync_compact('file:///proc/self/cwd/', 'snapshot') <> choir_version();
SELECT json_extract(sync_verify('file:///proc/self/cwd/', 1), '$.ok');
SELECT max(txid) > 0, count(version) > 0 FROM sync_log('file:///proc/self/cwd/');
SELECT choir_secret('k', '{"type":"sync","scope":"file:///","key":"ff0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"}');
SELECT sync_pull('file:///proc/self/cwd/', 'theirs');
-- case artifact-large
SELECT choir_config('user', 'u1'),
  choir_config('remote.artifacts', 'file:///proc/self/cwd/');
SELECT artifact_put('/a.bin', zeroblob(1048577)) <> choir_version();
SELECT json_extract(artifact_flush(), '$.left');
SELECT length(artifact_fetch('/a.bin'));
SELECT artifact_delete('/a.bin');
SELECT json_extract(artifact_sweep(0), '$.forbidden');
-- case objects @alone
SELECT json_extract(s3_put('file:///proc/self/cwd/o1', 'abc'), '$.size');
SELECT key, size, CAST(content AS TEXT) FROM s3_blob('file:///proc/self/cwd/')
  WHERE key BETWEEN 'o1' AND 'o2' AND key GLOB 'o*' ORDER BY key LIMIT 2;
CREATE VIRTUAL TABLE IF NOT EXISTS temp.o USING s3_blob('file:///proc/self/cwd/');
INSERT OR REPLACE INTO o(key, content) VALUES('o2', 'x');
UPDATE o SET content = 'y' WHERE key = 'o2';
SELECT CAST(content AS TEXT) FROM o WHERE key IN ('o2', 'none');
SELECT json_extract(s3_copy('file:///proc/self/cwd/o2', 'file:///proc/self/cwd/o3'), '$.size');
DELETE FROM o WHERE key >= 'o2';
SELECT key FROM s3_list('file:///proc/self/cwd/o');
-- case backup
SELECT choir_backup('copy-' || hex(randomblob(8))) IS NOT NULL;
-- case search-live
SELECT artifact_put('/a.txt', 'alpha words and a licence');
SELECT artifact_put('/b.txt', 'beta words and a warranty');
SELECT path, source FROM choir_search('warrenty licence');
SELECT artifact_put('/b.txt', 'gamma words');
SELECT path, preview FROM choir_search('gamma words');
-- case search-index
SELECT artifact_put('/a.txt', 'alpha words and a licence');
SELECT artifact_put('/b.txt', 'beta words and a warranty');
SELECT choir_index();
SELECT artifact_put('/b.txt', 'gamma words');
SELECT path, preview FROM choir_search('gamma words', 3, 'local', '/b');
SELECT choir_index('rebuild');
SELECT choir_index();
-- case embed-all
SELECT length(embed('one two three', 'query')), embed_model();
SELECT ord, start, "end" FROM embed_chunks('one two. three four', '{"max":64,"overlap":3}');
-- case state-life
SELECT state_import('{"a":{"x":1},"b":[1,2.5,"t",null,true]}');
SELECT state_set('a', '$.y.z', 'text'), state_checkpoint('one');
SELECT state_set('b', '$', 1), state_level('b', 1), state_checkpoint('two');
SELECT * FROM state_diff('one', 'two');
UPDATE state_storage SET value_json = '{' WHERE key_name = 'a';
SELECT state_get('a', '$.x'), state_all();
SELECT state_set('a', '$.q', 2), state_delete('a', '$.x');
SELECT count(*) FROM state_tree('a');
SELECT state_checkpoint_drop('one'), state_restore('two');
-- case cache-life
SELECT choir_config('cache.max_bytes', '200');
SELECT cache_set('a', 'one'), cache_set('b', x'0102', NULL);
SELECT cache_get('a'), cache_get('b', 1000) IS NULL, cache_get('none');
SELECT cache_set('c', printf('%.*c', 150, 'x'));
SELECT cache_set('b', NULL), cache_purge('*');
-- case task-life
SELECT length(task_add('t', '{"a":1}', 1)), length(task_add('u', 'plain'));
SELECT json_extract(task_claim('t', 5000), '$.input.a');
UPDATE agent_tasks SET lease_until = 1 WHERE task_type = 't';
SELECT task_claim('t');
SELECT task_fail(json_extract(task_claim(), '$.id'), 'why', 0);
SELECT task_done(json_extract(task_claim('u'), '$.id'), 'done');
SELECT task_type, status FROM agent_tasks ORDER BY task_type;
-- case foreign
SELECT artifact_put('/d/a.txt', 'text'), state_set('k', '$.a', 1), task_add('t', 1);
WITH n AS MATERIALIZED (SELECT 'agent-' || hex(randomblob(8)) AS f),
  e AS MATERIALIZED (SELECT f, choir_export(f) FROM n)
  SELECT json_extract(choir_import(f), '$.kinds[0]') FROM e;
-- case log-undo
CREATE TABLE oom(a TEXT COLLATE NOCASE, b UNIQUE, c, PRIMARY KEY(a, c));
SELECT length(log_track('oom', '{"labels":["b"],"columns":["b"]}'));
INSERT INTO oom VALUES('a', 1, 2.5), ('b', x'01', NULL);
UPDATE OR REPLACE oom SET b = 1;
ALTER TABLE oom RENAME TO moo;
ALTER TABLE moo ADD COLUMN d;
SELECT json_extract(log_undo(0, 'since'), '$.rows') > 0;
SELECT json_extract(log_undo(), '$.seq') IS NULL;
SELECT log_prune(99999999999999, 'all') IS NOT NULL;
-- case log-seal
SELECT log_record('A', '{}') IS NOT NULL, log_record('B', '{}') IS NOT NULL;
SELECT length(log_seal());
SELECT json_extract(log_verify(), '$.ok'), json_extract(log_prove(2), '$.size');
-- case log-event
SELECT length(event_define('v1.A', '{"a":"text","b":{"c":"integer?"}}', 'INSERT INTO user_settings(setting_name, updated_at) VALUES(NEW.payload->>''$.a'', 1)'));
SELECT event_emit('v1.A', '{"a":"x"}') IS NOT NULL;
INSERT INTO event_log(name, payload) VALUES('v1.A', '{"a":"y"}');
UPDATE user_settings SET setting_name = 'z' WHERE setting_name = 'x';
SELECT event_replay() IS NOT NULL;
SELECT setting_name FROM user_settings;
SELECT event_policy('keep');
-- case log-watch
SELECT length(watch_define('v', 'SELECT setting_name FROM user_settings'));
SELECT label, rows FROM watch_poll;
SELECT setting_set('a', '1') IS NULL;
SELECT label, rows FROM watch_poll(1);
SELECT watch_wait(0, 1), watch_wait(1, 1);
-- case qdrant-down
-- A request is made up and then not allowed.
SELECT choir_config('user', 'ada'), choir_config('http.allow', 'no.test'),
  choir_config('qdrant.url', 'http://127.0.0.1:1');
CREATE VIRTUAL TABLE IF NOT EXISTS temp.d USING qdrant(c, path TEXT, n INTEGER);
SELECT n FROM d WHERE path IN ('a', 'b') AND n BETWEEN 1 AND 2 AND filter =
  qdrant_filter('lang', 'in', '["en"]', 'r', '<', 2.5);
SELECT * FROM qdrant_search(x'0000803f') WHERE score > 0.5 LIMIT 3;
SELECT * FROM qdrant_search('x') WHERE fusion = 'rrf' AND vector_name = 'v';
SELECT * FROM qdrant_search(x'0000803f')
 WHERE vectors = '{"w":{"indices":[1],"values":[2]}}';
SELECT * FROM qdrant_search_each('["a",[1,2]]', NULL, 3);
SELECT * FROM qdrant_search_each('[[1,2],[3,4]]', NULL, 3);
SELECT * FROM qdrant_scroll() WHERE order_by = 'n desc';
SELECT qdrant_set_payload(qdrant_filter('a', '=', 'b'), '{"k":1}');
SELECT qdrant_upsert('a', 0, x'0000803f', NULL, '{"w":[1,2]}');
SELECT qdrant_count(qdrant_filter('a', '=', 'b'));
SELECT qdrant_delete('a'), qdrant_upsert('a', 0, x'0000803f', '{"k\u0041":1}');
SELECT artifact_put('/t.md', 'tea');
SELECT path, length(source) > 20 FROM choir_search('tea', 5, 'all');
SELECT qdrant_flush();
-- case vec-index
CREATE TABLE d(id INTEGER PRIMARY KEY, e BLOB, p);
WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 70)
  INSERT INTO d SELECT i, vec_f32(json_array(i % 7, i % 5, i % 3 + 1)), i % 2 FROM n;
SELECT vec_index_create('near', 'd', 'e', '{"partition":"p","metric":"l2"}');
UPDATE d SET e = vec_f32('[1, 2, 3]') WHERE id < 5;
SELECT rowid FROM vec_search('near', '[1, 2, 3]', 3) WHERE partition = 1;
SELECT rowid FROM vec_search('near', '[1, 2, 3]', 3)
  WHERE rowid IN (SELECT id FROM d WHERE id > 9) AND distance < 9;
DELETE FROM d WHERE id > 60;
SELECT vec_index_optimize('near');
SELECT rowid FROM vec_search('near', '[1, 2, 3]', 3) WHERE exact = 1;
SELECT choir_check() ->> 'ok';
-- case vec-index-lists
CREATE TABLE d(id INTEGER PRIMARY KEY, e BLOB);
WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1100)
  INSERT INTO d SELECT i, vec_f32(json_array(i % 37, i % 29, i % 23)) FROM n;
SELECT vec_index_create('near', 'd', 'e', '{"mode":"lists"}');
SELECT rowid FROM vec_search('near', '[1, 2, 3]', 3);
SELECT rowid FROM vec_search('near', '[1, 2, 3]', 30) WHERE recall = 1.0;
-- case embed-live @net=OOM_EMBED
SELECT choir_config('embed.url', '$OOM_EMBED'), choir_config('embed.model', 'test-model'),
  choir_config('embed.provider', 'openai');
SELECT length(embed('one two'));
SELECT ord, length(embedding) FROM embed_each('["a","b"]');
-- case http-live @net=OOM_EMBED
SELECT response_status_code FROM http_get('$OOM_EMBED');
SELECT response_status_code, length(response_headers) > 0 FROM http_post('$OOM_EMBED/embeddings',
  http_headers('Content-Type', 'application/json'), '{"input":["a"],"model":"test-model"}');
SELECT response_status_code FROM http_do('HEAD', '$OOM_EMBED');
SELECT count(*) >= 0 FROM choir_transfers;
-- case http-live-large @net=OOM_EMBED
-- A body of more than 64 KB, which is not copied.
WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1500)
  SELECT length(response_body) > 65536, substr(response_body, 1, 1)
  FROM (SELECT json_object('input', json_group_array('a'), 'model', 'test-model') AS j FROM n)
  CROSS JOIN http_post('$OOM_EMBED/embeddings', http_headers('Content-Type', 'application/json'), j);
-- case qdrant-live @net=OOM_QDRANT
SELECT choir_config('qdrant.url', '$OOM_QDRANT'), choir_config('user', 'ada'),
  choir_config('qdrant.collection', 'oom'), choir_config('http.attempts', 1);
SELECT qdrant_init() IS NOT NULL;
SELECT qdrant_upsert('a', 0, 'zebra stripes', '{"lang":"en"}');
SELECT count(score) > 0 FROM qdrant_search('zebra');
CREATE VIRTUAL TABLE temp.d USING qdrant(oom, path TEXT, lang TEXT);
SELECT path, lang FROM d WHERE lang = 'en';
SELECT count(path) > 0 FROM qdrant_scroll();
DROP TABLE d;
SELECT count(*) > 0 FROM qdrant_collections;
SELECT count(path) > 0 FROM qdrant_groups('zebra');
SELECT count(value) >= 0 FROM qdrant_facet('path');
SELECT count(path) >= 0 FROM qdrant_similar('a');
SELECT qdrant_count(qdrant_filter('lang', '=', 'en'));
SELECT artifact_put('/t.md', 'tea') IS NOT NULL;
SELECT qdrant_flush() IS NOT NULL;
SELECT qdrant_delete('a');
-- case nats-live @net=OOM_NATS
SELECT choir_config('nats.url', '$OOM_NATS'), choir_config('user', 'ada');
SELECT nats_ping() >= 0, nats_publish('oom.a', 'x');
SELECT nats_stream_create('OOM', '["oom.>"]') IS NOT NULL;
SELECT json_extract(nats_js_publish('oom.b', 'y', 'id-1'), '$.stream');
SELECT count(nats_ack(ack)) >= 0 FROM nats_fetch('OOM', 'c', 2, 0);
SELECT count(*) FROM nats_streams WHERE stream = 'OOM';
SELECT log_record('A', '{"a":1}') IS NOT NULL;
SELECT nats_stream_create('CHOIROS', '["choiros.>"]') IS NOT NULL;
SELECT nats_flush() IS NOT NULL;
-- case nats-websocket @net=OOM_NATS_WS
SELECT choir_config('nats.url', '$OOM_NATS_WS');
SELECT nats_ping() >= 0, nats_publish('oom.a', zeroblob(70000));
-- case libsql-live @net=OOM_LIBSQL
SELECT choir_secret('remote', '{"type":"libsql","url":"$OOM_LIBSQL","scope":"$OOM_LIBSQL"}');
SELECT libsql_batch('remote', '["CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, name TEXT)",
  "DELETE FROM t", "INSERT INTO t VALUES(1, ''a'')"]') IS NOT NULL;
SELECT c0, c1 FROM libsql_query('remote', 'SELECT id, name FROM t WHERE id = ?', '[1]');
CREATE VIRTUAL TABLE temp.far USING libsql(remote, t);
SELECT name FROM far WHERE id > 0 ORDER BY id LIMIT 3;
INSERT OR REPLACE INTO far(id, name) VALUES(2, 'b'), (3, 'c');
SAVEPOINT one;
UPDATE far SET name = 'd' WHERE id = 2;
SAVEPOINT two;
DELETE FROM far WHERE id = 3;
ROLLBACK TO two;
RELEASE one;
SELECT name FROM far ORDER BY id;
BEGIN;
DELETE FROM far;
ROLLBACK;
DROP TABLE far;
SELECT libsql_pull('remote', 't', 'near') IS NOT NULL;
SELECT libsql_push('remote', 'near', 't') IS NOT NULL;
-- case s3-live @net=OOM_S3
SELECT choir_secret('s', '{"type":"s3","access_key":"AKIAVERSITY00001","secret_key":"versity-secret/+=","region":"eu-test-1","endpoint":"$OOM_S3"}');
SELECT json_extract(s3_put('s3://bucket/oom/a', 'abc'), '$.size');
SELECT CAST(s3_get('s3://bucket/oom/a', 1, 1) AS TEXT), json_extract(s3_head('s3://bucket/oom/a'), '$.size');
SELECT key, size FROM s3_list('s3://bucket/oom/');
CREATE VIRTUAL TABLE temp.o USING s3_blob('s3://bucket/oom/');
INSERT OR REPLACE INTO o(key, content) VALUES('b', 'x');
SELECT CAST(content AS TEXT) FROM o WHERE key = 'b';
DELETE FROM o WHERE key = 'b';
DROP TABLE o;
SELECT s3_delete('s3://bucket/oom/a');
-- case s3-live-copy @net=OOM_S3
SELECT choir_secret('s', '{"type":"s3","access_key":"AKIAVERSITY00001","secret_key":"versity-secret/+=","region":"eu-test-1","endpoint":"$OOM_S3"}');
SELECT json_extract(s3_put('s3://bucket/oom-copy/c', 'abc'), '$.size');
SELECT choir_config('s3.copy_bytes', '0');
SELECT json_extract(s3_copy('s3://bucket/oom-copy/c', 's3://bucket/oom-copy/d'), '$.size');
SELECT CAST(s3_get('s3://bucket/oom-copy/d') AS TEXT);
