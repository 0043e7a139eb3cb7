/* SPDX-License-Identifier: MIT */
/* The log's own tables with rows that nobody wrote: images of rows, places,
** seals, records. Undo, verify and repair answer, and hurt nothing else. */
#include "fuzz.h"

#define USE                                                                    \
  "; SELECT log_undo(1); SELECT log_undo(3, 'preview'); SELECT log_verify();"  \
  " SELECT choir_check(); SELECT choir_init(); INSERT INTO tea(name)"          \
  " VALUES('x'); SELECT log_undo()"
#define SEAL                                                                   \
  "; SELECT log_verify(); SELECT log_prove(1); SELECT log_prove(4);"           \
  " SELECT log_seal(); SELECT log_prune(3); SELECT choir_check()"

FUZZ(log_rows) {
  static const char *const azStory[] = {
      "UPDATE _choir_undo_1 SET k = ?3" USE,
      "UPDATE _choir_undo_1 SET k = ?3 & 7" USE,
      "UPDATE _choir_undo_1 SET k = -(?3 & 7)" USE,
      "UPDATE _choir_undo_1 SET tag = ?3" USE,
      "UPDATE _choir_undo_1 SET r = ?3" USE,
      "UPDATE _choir_undo_1 SET c1 = ?1, c2 = ?2" USE,
      "UPDATE _choir_undo_1 SET c2 = ?4" USE,
      "UPDATE _choir_undo_1 SET n = n + ?3" USE,
      "UPDATE _choir_track SET tbl = ?1" USE,
      "UPDATE _choir_track SET watch = ?1" USE,
      "UPDATE _choir_track SET labels = ?1" USE,
      "UPDATE _choir_track SET places = ?1" USE,
      "UPDATE _choir_track SET id = ?3, undo = ?3, by_rowid = ?3" USE,
      "UPDATE action_log SET payload = ?1" SEAL,
      "UPDATE action_log SET id = ?2, timestamp = ?3, tbl = ?1" SEAL,
      "UPDATE action_log SET seq = seq + ?3" SEAL,
      "UPDATE action_log SET pk = ?2; SELECT * FROM timeline;"
      " SELECT * FROM log_changes(0); SELECT * FROM log_versions('tea', 1);"
      " SELECT log_undo(1)",
      "UPDATE _choir_seal SET root = ?2" SEAL,
      "UPDATE _choir_seal SET head = ?2" SEAL,
      "UPDATE _choir_seal SET first = ?3, last = ?3 + 2" SEAL,
      "UPDATE _choir_seal SET records = ?3" SEAL,
      "UPDATE _choir_seal SET batch = batch + ?3" SEAL,
      "SELECT log_verify(?1); SELECT log_prove(?3); SELECT log_undo(?3);"
      " SELECT log_prune(?3, ?1)",
      "SELECT log_record(?1, ?1); SELECT log_track('tea', ?1);"
      " SELECT log_track(?1); SELECT log_untrack(?1)",
      "SELECT * FROM log_changes(?3, ?1); SELECT log_undo(?3, ?1)",
      "INSERT INTO tea VALUES(?3, ?1); UPDATE tea SET name = ?2;"
      " SELECT log_undo(1); SELECT * FROM tea",
      NULL};
  static sqlite3 *db;
  if (db == NULL) {
    db = fuzzOpen(":memory:");
    fuzzMust(db, "CREATE TABLE tea(id INTEGER PRIMARY KEY, name TEXT);"
                 "SELECT log_track('tea', '{\"undo\":true}');"
                 "INSERT INTO tea VALUES(1, 'green'), (2, 'black');"
                 "UPDATE tea SET name = 'white' WHERE id = 2;"
                 "DELETE FROM tea WHERE id = 1; SELECT log_seal()");
  }
  fuzzStory(db, azStory, a, n);
}
