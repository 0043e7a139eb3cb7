/* SPDX-License-Identifier: MIT */
/* A file of a stranger, opened: bytes of a workspace are replaced, then choir is
** loaded and asked. Tables, schema, indexes may say anything. */
#include "fuzz.h"
#include "../../ext/choir.h"

FUZZ(workspace) {
  static const char zAsk[] =
      "SELECT choir_check(); SELECT * FROM choir_doctor;"
      " SELECT * FROM choir_metrics; SELECT * FROM files; SELECT * FROM chat;"
      " SELECT * FROM timeline; SELECT choir_init();"
      " SELECT artifact_put('/new', 'x'); SELECT * FROM choir_search('tea');"
      " SELECT state_all(); SELECT log_undo(); SELECT log_verify();"
      " SELECT choir_index(); SELECT * FROM sync_status;"
      " SELECT rowid FROM vec_search('i', '[1,2]', 2);"
      " SELECT event_replay(); SELECT * FROM watch_poll(0)";
  static u8 *aBase;
  static sqlite3_int64 nBase;
  FuzzIn in = {a, n};
  sqlite3 *db;
  u8 *aNew;
  const char *z = zAsk;
  if (aBase == NULL) {
    db = fuzzOpen(":memory:");
    fuzzMust(db,
             "SELECT artifact_put('/a', 'green tea'), state_set('k', '$', 1),"
             " state_checkpoint('p'); SELECT message_add(conversation_create("
             "'c'), 'user', 'tea?'); SELECT choir_index(), log_seal();"
             "CREATE TABLE t(id INTEGER PRIMARY KEY, v); INSERT INTO t(v)"
             " VALUES(vec_f32('[1,2]')), (vec_f32('[2,1]'));"
             "SELECT vec_index_create('i', 't', 'v'), log_track('t'),"
             " event_define('e', '{}', ''), watch_define('w', 'SELECT id FROM"
             " t')");
    aBase = sqlite3_serialize(db, "main", &nBase, 0);
    MUST(aBase != NULL);
    sqlite3_close(db);
  }
  aNew = sqlite3_malloc64((u64)nBase);
  memcpy(aNew, aBase, (size_t)nBase);
  while (in.n > 3) {
    u64 iOff = (u64)fuzzByte(&in) << 16 | (u64)fuzzByte(&in) << 8;
    u64 nRun = fuzzByte(&in) % 16 + 1;
    iOff = (iOff | fuzzByte(&in)) % (u64)nBase;
    while (nRun-- && in.n && iOff < (u64)nBase) {
      aNew[iOff++] = fuzzByte(&in);
    }
  }
  MUST(sqlite3_open(":memory:", &db) == SQLITE_OK);
  MUST(sqlite3_deserialize(db, "main", aNew, nBase, nBase,
                           SQLITE_DESERIALIZE_FREEONCLOSE) == SQLITE_OK);
  sqlite3_limit(db, SQLITE_LIMIT_LENGTH, 1 << 22);
  if (sqlite3_choir_init(db, NULL, NULL) == SQLITE_OK) {
    while (z[0]) { /* what does not prepare in this file is passed over */
      sqlite3_stmt *p = NULL;
      int nRow = 0;
      const char *zTail = strchr(z, ';');
      sqlite3_prepare_v2(db, z, zTail ? (int)(zTail - z) : -1, &p, NULL);
      while (sqlite3_step(p) == SQLITE_ROW && nRow++ < 1000) {
        sqlite3_column_text(p, 0);
      }
      sqlite3_finalize(p);
      z = zTail ? zTail + 1 : "";
    }
  }
  MUST(sqlite3_close(db) == SQLITE_OK);
}
