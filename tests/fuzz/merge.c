/* SPDX-License-Identifier: MIT */
/* A version that a hostile device pushed, merged. The input is what it did to its
** file before, statements with 0xff between them; damage that leaves no database
** is refused before (target pull). The merge is refused and changes nothing here,
** or the file is sound after it: by quick_check, which is what a pull asks for;
** an index that its device made disagree with its table arrives as it is. */
#include "fuzz.h"
#include "../../ext/choir.h"
#include <sys/stat.h>
#include <unistd.h>

typedef struct MergeFile {
  char zFile[128];
  u8 *a;
  u64 n;
} MergeFile;

static MergeFile mergeHere, mergeThere;
static char zMergeUrl[128], zMergeSecond[160];

static void mergeKeep(MergeFile *p) {
  FILE *f = fopen(p->zFile, "rb");
  MUST(f != NULL);
  p->a = sqlite3_malloc64(1 << 20);
  p->n = fread(p->a, 1, 1 << 20, f);
  MUST(p->n > 1000 && p->n < 1 << 20);
  fclose(f);
}

/* The file as it was kept, nothing beside it. */
static void mergeBack(const MergeFile *p) {
  char z[160];
  fuzzWrite(p->zFile, p->a, p->n);
  snprintf(z, sizeof(z), "%s-wal", p->zFile);
  unlink(z);
  snprintf(z, sizeof(z), "%s-shm", p->zFile);
  unlink(z);
}

static void mergeMake(void) {
  static const char *const zChange =
      "UPDATE t SET a=%d WHERE id=%d; INSERT INTO t VALUES(NULL, 0, %d);"
      "SELECT artifact_put('/%d', 'x'), state_set('k', '$.n', %d)";
  sqlite3 *db, *dbThere;
  snprintf(zMergeUrl, sizeof(zMergeUrl), "file://%s/merge/", fuzzDir());
  snprintf(zMergeSecond, sizeof(zMergeSecond), "%s/merge/ltx/0/%016x-%016x.ltx",
           fuzzDir(), 2, 2);
  snprintf(mergeHere.zFile, sizeof(mergeHere.zFile), "%s/m1.db", fuzzDir());
  snprintf(mergeThere.zFile, sizeof(mergeThere.zFile), "%s/m2.db", fuzzDir());
  mkdir(zMergeUrl + strlen("file://"), 0700);
  dbThere = fuzzOpen(mergeThere.zFile);
  fuzzMust(dbThere,
           "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b UNIQUE);"
           "CREATE TABLE c(id TEXT PRIMARY KEY, t REFERENCES t) WITHOUT ROWID;"
           "CREATE TABLE bag(x, y); CREATE INDEX bag_x ON bag(x);"
           "INSERT INTO t VALUES(1, 1, 'one'), (2, 2, 'two'), (3, 3, 'three');"
           "INSERT INTO c VALUES('c', 1); INSERT INTO bag VALUES(1, 2), (1, 2);"
           "SELECT log_track('t'), state_set('k', '$', '{}'), sync_push(%Q)",
           zMergeUrl);
  db = fuzzOpen(mergeHere.zFile);
  fuzzMust(db, "SELECT sync_pull(%Q)", zMergeUrl);
  fuzzMust(db, zChange, 10, 1, 11, 1, 1);
  fuzzMust(db, "INSERT INTO bag VALUES(3, 4); DELETE FROM t WHERE id=3");
  fuzzMust(dbThere, zChange, 20, 2, 22, 2, 2);
  fuzzMust(dbThere,
           "INSERT INTO bag VALUES(5, 6); INSERT INTO c VALUES('d', 3)");
  MUST(sqlite3_close(db) == SQLITE_OK && sqlite3_close(dbThere) == SQLITE_OK);
  mergeKeep(&mergeHere);
  mergeKeep(&mergeThere);
}

/* What a device may have done to its file before it pushes. ?1 is text, ?2 a
** blob, ?3 a number. */
static const char *const azMerge[] = {
    "UPDATE t SET a=?1",
    "UPDATE t SET b=?2 WHERE id=1",
    "INSERT INTO t VALUES(?3, ?1, ?2)",
    "DELETE FROM t WHERE id<?3",
    "INSERT INTO c VALUES(?1, ?3)",
    "UPDATE c SET t=?3, id=?2",
    "INSERT INTO bag VALUES(?1, ?2)",
    "DELETE FROM bag WHERE x<?3",
    "ALTER TABLE t ADD COLUMN d DEFAULT 5",
    "ALTER TABLE t DROP COLUMN a",
    "DROP TABLE c",
    "CREATE TABLE IF NOT EXISTS n(a, b, PRIMARY KEY(a, b)) WITHOUT ROWID",
    "INSERT INTO n VALUES(?1, ?2)",
    "CREATE VIEW IF NOT EXISTS v AS SELECT * FROM t",
    "CREATE TRIGGER IF NOT EXISTS r AFTER INSERT ON t BEGIN DELETE FROM t; END",
    "CREATE UNIQUE INDEX IF NOT EXISTS u ON t(lower(a))",
    "SELECT artifact_put(?1, ?2)",
    "SELECT artifact_delete('/1')",
    "SELECT state_set(?1, '$.n', ?3)",
    "SELECT log_untrack('t')",
    "SELECT log_track('bag')",
    "SELECT log_seal()",
    "SELECT log_prune(?3)",
    "INSERT INTO action_log(id, action_type, payload, seq, tbl, pk)"
    " VALUES(?1, ?1, ?1, ?3, 't', ?2)",
    "UPDATE action_log SET seq=?3 WHERE seq=(SELECT max(seq) FROM action_log)",
    "UPDATE action_log SET payload=?1, tbl=?1, pk=?2",
    "DELETE FROM action_log WHERE seq>?3",
    "UPDATE _choir_meta SET value=?1",
    "INSERT INTO _choir_meta VALUES(?1, ?2)",
    "UPDATE _choir_cursor SET seq=?3",
    "INSERT INTO _choir_cursor VALUES(?1, ?3)",
    "UPDATE _choir_track SET tbl=?1",
    "DELETE FROM _choir_track",
    "DELETE FROM _choir_sync_history",
    "UPDATE _choir_sync_history SET push_id=?2",
    "INSERT INTO sync_state VALUES(?1, ?2)",
    "UPDATE sqlite_sequence SET seq=?3",
    "UPDATE sqlite_schema SET sql=sql || ?1 WHERE name='t'",
    "UPDATE sqlite_schema SET sql='CREATE TABLE bag(x, y, z AS (' || ?1 || '))'"
    " WHERE name='bag'",
    "UPDATE sqlite_schema SET sql=?1 WHERE name='bag_x'",
    "PRAGMA writable_schema=OFF",
    "PRAGMA writable_schema=RESET",
    "VACUUM"};

static void mergeRun(sqlite3 *db, FuzzIn *pIn) {
  u64 n, nHead;
  char *z = fuzzPart(pIn, &n);
  sqlite3_stmt *p = NULL;
  nHead = n < 9 ? n : 9; /* which, a number; the rest is text and blob */
  if (n && sqlite3_prepare_v2(
               db, azMerge[(u8)z[0] % (sizeof(azMerge) / sizeof(*azMerge))], -1,
               &p, NULL) == SQLITE_OK) {
    i64 v = 0;
    memcpy(&v, z + 1, nHead - 1);
    sqlite3_bind_text64(p, 1, z + nHead, n - nHead, SQLITE_STATIC, SQLITE_UTF8);
    sqlite3_bind_blob64(p, 2, z + nHead, n - nHead, SQLITE_STATIC);
    sqlite3_bind_int64(p, 3, v);
    while (sqlite3_step(p) == SQLITE_ROW) {
    }
  }
  sqlite3_finalize(p);
  sqlite3_free(z);
}

static void mergePush(FuzzIn *pIn) {
  sqlite3 *db;
  char *z = sqlite3_mprintf("SELECT sync_push(%Q)", zMergeUrl);
  int i;
  mergeBack(&mergeThere);
  db = fuzzOpen(mergeThere.zFile);
  fuzzMust(db, "PRAGMA writable_schema=ON");
  for (i = 0; i < 20 && pIn->n; i++) {
    mergeRun(db, pIn);
  }
  sqlite3_exec(db, z, NULL, NULL, NULL);
  MUST(sqlite3_close(db) == SQLITE_OK);
  sqlite3_free(z);
}

static char *mergeSeen(sqlite3 *db) {
  return fuzzOne(db, "SELECT group_concat(quote(id) || quote(a) || quote(b))"
                     " || (SELECT count(*) FROM action_log) FROM t");
}

FUZZ(merge) {
  FuzzIn in = {a, n};
  sqlite3 *db;
  char *zBefore, *zAfter, *zSql;
  int rc;
  if (mergeHere.a == NULL) {
    mergeMake();
  }
  unlink(zMergeSecond);
  mergePush(&in);
  mergeBack(&mergeHere);
  db = fuzzOpen(mergeHere.zFile);
  zBefore = mergeSeen(db);
  zSql = sqlite3_mprintf("SELECT sync_pull(%Q, 'merge')", zMergeUrl);
  rc = sqlite3_exec(db, zSql, NULL, NULL, NULL);
  sqlite3_free(zSql);
  if (rc != SQLITE_OK) {
    zAfter = mergeSeen(db);
    MUST(strcmp(zBefore, zAfter) == 0);
    sqlite3_free(zAfter);
  }
  zAfter = fuzzOne(db, "SELECT group_concat(quick_check) FROM"
                       " pragma_quick_check");
  MUST(strcmp(zAfter, "ok") == 0);
  sqlite3_free(zAfter);
  sqlite3_free(zBefore);
  MUST(sqlite3_close(db) == SQLITE_OK);
}
