/* SPDX-License-Identifier: MIT */
/* Shapes, materializers and payloads of events; events that lie in the file;
** queries to watch, whose plan is read. */
#include "fuzz.h"

FUZZ(events) {
  static const char *const azStory[] = {
      "SELECT event_define('f', ?1, ''); SELECT event_emit('f', '{\"a\":1}')",
      "SELECT event_define('f', '{\"a\":\"text\"}', ?1);"
      " SELECT event_emit('f', '{\"a\":\"x\"}'); SELECT event_replay()",
      "SELECT event_define(?1, '{}', ''), event_emit(?1, '{}')",
      "SELECT event_emit('v1.Tea', ?1)",
      "SELECT event_emit('v1.Tea', json_object('name', ?1, 'n', ?3))",
      "SELECT event_emit(?1, '{}'), event_policy(?1), event_replay(?1)",
      "UPDATE event_log SET payload = ?1; SELECT event_replay();"
      " SELECT choir_check(); SELECT event_compact()",
      "UPDATE event_log SET name = ?1; SELECT event_replay();"
      " SELECT choir_check()",
      "UPDATE event_log SET seq = seq + ?3; SELECT event_replay()",
      "UPDATE _choir_event SET shape = ?1; SELECT event_emit('v1.Tea',"
      " '{\"name\":\"x\",\"n\":1}'); SELECT choir_check(); SELECT choir_init()",
      "UPDATE _choir_event SET name = ?1; SELECT event_replay();"
      " SELECT choir_check()",
      "UPDATE _choir_event_table SET tbl = ?1; SELECT event_replay();"
      " SELECT choir_check(); SELECT event_compact()",
      "INSERT INTO event_log(name, payload) VALUES('v1.Tea', ?1)",
      "INSERT INTO event_log(name, payload) VALUES(?1, ?2)",
      "SELECT watch_define('w', ?1); SELECT * FROM watch_poll(0);"
      " SELECT * FROM watch_poll(0)",
      "SELECT watch_define(?1, 'SELECT 1'); SELECT * FROM watch_poll(0)",
      "SELECT watch_define('w', 'SELECT ' || ?1 || ' FROM teas');"
      " INSERT INTO teas VALUES(?1, ?3); SELECT * FROM watch_poll(0)",
      NULL};
  static sqlite3 *db;
  if (db == NULL) {
    db = fuzzOpen(":memory:");
    fuzzMust(db, "CREATE TABLE teas(name TEXT, n INTEGER);"
                 "SELECT event_define('v1.Tea', '{\"name\":\"text\",\"n\":"
                 "\"integer?\"}', 'INSERT INTO teas VALUES(json_extract("
                 "NEW.payload, ''$.name''), json_extract(NEW.payload,"
                 " ''$.n''))');"
                 "SELECT event_emit('v1.Tea', '{\"name\":\"green\",\"n\":3}')");
  }
  sqlite3_limit(db, SQLITE_LIMIT_VDBE_OP, 25000);
  fuzzStory(db, azStory, a, n);
}
