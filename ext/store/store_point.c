/* SPDX-License-Identifier: MIT */
/*
** Checkpoints of the state: state_checkpoint, state_restore, state_diff,
** state_checkpoints, state_checkpoint_drop.
**
** Owns three tables, made by the first checkpoint or seed (docs/formats.md,
** "State checkpoints"):
**
**   state_points    a name and its number n; the seeds are `seed`, number 0
**   state_versions  key_name had this level and value from checkpoint `first`
**                   to checkpoint `last` (NULL: it has it still)
**   state_values    the values, each once, by their SHA-256
**
** A checkpoint writes only the keys that changed since the one before, so a
** state that stayed as it was costs one row of state_points. A value is used
** only when its hash is right.
*/
#include "store.h"

#define POINT_SEED "seed"

static const char zPointTables[] =
    "CREATE TABLE ~.state_points(\n"
    "  name TEXT PRIMARY KEY NOT NULL,\n"
    "  n INTEGER NOT NULL,\n"
    "  created_at INTEGER NOT NULL\n) WITHOUT ROWID;"
    "CREATE TABLE ~.state_versions(\n"
    "  key_name TEXT NOT NULL,\n"
    "  first INTEGER NOT NULL,\n"
    "  last INTEGER,\n"
    "  level INTEGER NOT NULL,\n"
    "  hash BLOB NOT NULL,\n"
    "  PRIMARY KEY(key_name, first)\n) WITHOUT ROWID;"
    "CREATE TABLE ~.state_values(\n"
    "  hash BLOB PRIMARY KEY NOT NULL,\n"
    "  value_json TEXT NOT NULL\n) WITHOUT ROWID";

static int pointHave(ChoirConn *pConn, ChoirErr *pErr) {
  return choirExists(pConn, pErr, "table", "state_points");
}

static void pointMake(ChoirConn *pConn, ChoirErr *pErr) {
  if (!pointHave(pConn, pErr)) {
    choirExecText(pConn, pErr, zPointTables);
  }
}

/* The number of a checkpoint; sticky when there is none of that name. */
static i64 pointNumber(ChoirConn *pConn, ChoirErr *pErr, const char *zName) {
  i64 n = -1;
  if (pointHave(pConn, pErr)) {
    sqlite3_stmt *p =
        choirStmt(pConn, pErr, "SELECT n FROM ~.state_points WHERE name=?1");
    choirBindText(pErr, p, 1, zName, -1);
    n = choirStep(pErr, p) ? sqlite3_column_int64(p, 0) : -1;
    choirStmtDone(pConn, p);
  }
  if (n < 0) {
    choirErrSet(pErr, SQLITE_ERROR,
                "no checkpoint '%.100s'; see state_checkpoints", zName);
  }
  return n;
}

/* Are columns 0 and 1 of pStmt a value and its hash, and the value JSON? */
static int pointGood(ChoirConn *pConn, ChoirErr *pErr, sqlite3_stmt *pStmt) {
  const char *z = (const char *)sqlite3_column_text(pStmt, 0);
  i64 n = sqlite3_column_bytes(pStmt, 0);
  const void *aHash = sqlite3_column_blob(pStmt, 1);
  u8 a[32];
  if (z == NULL || sqlite3_column_bytes(pStmt, 1) != 32 || aHash == NULL) {
    return 0;
  }
  choirSha256(z, (u64)n, a);
  return memcmp(a, aHash, 32) == 0 && choirIsJson(pConn, pErr, z);
}

CHOIR_PRIVATE char *choirStorePointValue(ChoirConn *pConn, ChoirErr *pErr,
                                         const char *zKey) {
  char *z = NULL;
  if (pointHave(pConn, pErr)) {
    sqlite3_stmt *p = choirStmt(
        pConn, pErr,
        "SELECT d.value_json, d.hash FROM ~.state_versions AS v"
        " JOIN ~.state_values AS d ON d.hash=v.hash WHERE v.key_name=?1"
        " ORDER BY v.first DESC");
    choirBindText(pErr, p, 1, zKey, -1);
    while (z == NULL && choirStep(pErr, p)) {
      if (pointGood(pConn, pErr, p)) {
        z = choirMprintf(pErr, "%s", sqlite3_column_text(p, 0));
      }
    }
    choirStmtDone(pConn, p);
  }
  if (z == NULL) {
    choirErrSet(pErr, SQLITE_CORRUPT_VTAB,
                "the value of key '%.100s' is not JSON and no checkpoint has"
                " another; put one by select state_set('%.100s', '$', …)",
                zKey, zKey);
  }
  return z;
}

/* -------------------------------------------------------------- checkpoint */

static void pointHash(const char *z, u8 a[32]) { choirSha256(z, strlen(z), a); }

static void pointKeepValue(ChoirConn *pConn, ChoirErr *pErr, const u8 a[32],
                           const char *zJson) {
  sqlite3_stmt *p =
      choirStmt(pConn, pErr,
                "INSERT INTO ~.state_values(hash, value_json) VALUES(?1, ?2)"
                " ON CONFLICT(hash) DO UPDATE SET value_json=?2"
                " WHERE value_json IS NOT ?2"); /* mends a damaged one */
  choirBindBlob(pErr, p, 1, a, 32);
  choirBindText(pErr, p, 2, zJson, -1);
  choirStep(pErr, p);
  choirStmtDone(pConn, p);
}

static void pointKeepVersion(ChoirConn *pConn, ChoirErr *pErr, const char *zKey,
                             i64 n, int iLevel, const u8 a[32]) {
  sqlite3_stmt *p = choirStmt(
      pConn, pErr,
      "INSERT INTO ~.state_versions(key_name, first, last, level, hash)"
      " VALUES(?1, ?2, CASE ?2 WHEN 0 THEN 0 END, ?3, ?4)"
      " ON CONFLICT(key_name, first) DO UPDATE SET hash=?4");
  choirBindText(pErr, p, 1, zKey, -1);
  choirBindInt(pErr, p, 2, n);
  choirBindInt(pErr, p, 3, iLevel);
  choirBindBlob(pErr, p, 4, a, 32);
  choirStep(pErr, p);
  choirStmtDone(pConn, p);
}

/* One live key at checkpoint n; returns 1 when it changed. */
static int pointKey(ChoirConn *pConn, ChoirErr *pErr, i64 n, const char *zKey,
                    const char *zJson, int iLevel) {
  u8 a[32];
  int bSame, bOpen;
  sqlite3_stmt *p =
      choirStmt(pConn, pErr,
                "SELECT hash=?2 AND level=?3 FROM ~.state_versions"
                " WHERE key_name=?1 AND first>0 AND last IS NULL");
  pointHash(zJson, a);
  choirBindText(pErr, p, 1, zKey, -1);
  choirBindBlob(pErr, p, 2, a, 32);
  choirBindInt(pErr, p, 3, iLevel);
  bOpen = choirStep(pErr, p);
  bSame = bOpen && sqlite3_column_int(p, 0);
  choirStmtDone(pConn, p);
  if (bSame) {
    return 0;
  }
  if (bOpen) {
    p = choirStmt(pConn, pErr,
                  "UPDATE ~.state_versions SET last=?2"
                  " WHERE key_name=?1 AND first>0 AND last IS NULL");
    choirBindText(pErr, p, 1, zKey, -1);
    choirBindInt(pErr, p, 2, n - 1);
    choirStep(pErr, p);
    choirStmtDone(pConn, p);
  }
  pointKeepValue(pConn, pErr, a, zJson);
  pointKeepVersion(pConn, pErr, zKey, n, iLevel, a);
  return 1;
}

/* All live keys at checkpoint n; returns how many changed. */
static i64 pointKeys(ChoirConn *pConn, ChoirErr *pErr, i64 n) {
  i64 nChanged = 0;
  sqlite3_stmt *p =
      choirStmt(pConn, pErr,
                "SELECT key_name, coalesce(value_json, 'null'), level"
                " FROM ~.state_storage");
  while (choirStep(pErr, p)) {
    const char *zKey = (const char *)sqlite3_column_text(p, 0);
    const char *z = (const char *)sqlite3_column_text(p, 1);
    char *zGood = choirIsJson(pConn, pErr, z)
                      ? NULL
                      : choirStorePointValue(pConn, pErr, zKey);
    z = zGood ? zGood : z;
    if (pErr->rc == SQLITE_OK && z) {
      nChanged += pointKey(pConn, pErr, n, zKey, z, sqlite3_column_int(p, 2));
    }
    sqlite3_free(zGood);
  }
  choirStmtDone(pConn, p);
  p = choirStmt(pConn, pErr,
                "UPDATE ~.state_versions SET last=?1 WHERE first>0"
                " AND last IS NULL AND key_name NOT IN"
                " (SELECT key_name FROM ~.state_storage)");
  choirBindInt(pErr, p, 1, n - 1);
  choirStep(pErr, p);
  nChanged += pErr->rc == SQLITE_OK ? sqlite3_changes(pConn->db) : 0;
  choirStmtDone(pConn, p);
  return nChanged;
}

static void pointName(ChoirConn *pConn, ChoirErr *pErr, const char *zName,
                      i64 n) {
  sqlite3_stmt *p = choirStmt(
      pConn, pErr,
      "INSERT INTO ~.state_points(name, n, created_at) VALUES(?1, ?2, ?3)"
      " ON CONFLICT(name) DO UPDATE SET created_at=?3");
  choirBindText(pErr, p, 1, zName, -1);
  choirBindInt(pErr, p, 2, n);
  choirBindInt(pErr, p, 3, choirNow());
  choirStep(pErr, p);
  choirStmtDone(pConn, p);
}

/*
** SQL: state_checkpoint(name) -> INTEGER
**
** Remembers the whole state, levels included, under a name and returns how
** many keys changed since the checkpoint before. Keys that did not change take
** no room. state_checkpoints lists them, state_restore goes back.
**
**   name  TEXT, at most 1,000 bytes, not seed (that is state_import's)
**
** NULL: the name must be given.
** Errors: there is a checkpoint of that name.
**
** > WITH s AS MATERIALIZED (SELECT state_set('Mood', '$.now', 'calm') AS a,
** >   state_checkpoint('monday') AS b, state_set('Mood', '$.now', 'cross') AS c,
** >   state_restore('monday') AS d)
** > SELECT b, d, state_get('Mood') FROM s
** = 1|1|{"now":"calm"}
*/
static void pointCheckpoint(ChoirCall *p) {
  ChoirConn *pConn = p->pConn;
  ChoirErr *pErr = &p->err;
  const char *zName = choirStoreArgName(pErr, p->apArg[0], "name");
  sqlite3_stmt *pStmt;
  i64 n, nChanged;
  choirNeedWorkspace(pConn, pErr);
  if (zName && strcmp(zName, POINT_SEED) == 0) {
    choirErrSet(pErr, SQLITE_ERROR,
                "the checkpoint " POINT_SEED
                " is kept by state_import; choose another name");
  }
  pointMake(pConn, pErr);
  pStmt = choirStmt(pConn, pErr, "SELECT 1 FROM ~.state_points WHERE name=?1");
  choirBindText(pErr, pStmt, 1, zName, -1);
  if (choirStep(pErr, pStmt)) {
    choirErrSet(pErr, SQLITE_ERROR,
                "there is a checkpoint '%.100s'; choose another name or drop it"
                " by select state_checkpoint_drop('%.100s')",
                zName, zName);
  }
  choirStmtDone(pConn, pStmt);
  n = 1 + choirQueryInt(pConn, pErr,
                        "SELECT coalesce(max(n), 0) FROM ~.state_points", 0);
  nChanged = pointKeys(pConn, pErr, n);
  pointName(pConn, pErr, zName, n);
  sqlite3_result_int64(p->pCtx, nChanged);
}

CHOIR_PRIVATE int choirStoreSeedPut(ChoirConn *pConn, ChoirErr *pErr,
                                    const char *zKey, const char *zJson) {
  u8 a[32];
  sqlite3_stmt *p;
  int bHad;
  pointMake(pConn, pErr);
  p = choirStmt(pConn, pErr,
                "SELECT hash FROM ~.state_versions"
                " WHERE key_name=?1 AND first=0");
  pointHash(zJson, a);
  choirBindText(pErr, p, 1, zKey, -1);
  bHad = choirStep(pErr, p);
  if (bHad && sqlite3_column_bytes(p, 0) == 32 &&
      memcmp(sqlite3_column_blob(p, 0), a, 32) == 0) {
    choirStmtDone(pConn, p);
    return 0;
  }
  choirStmtDone(pConn, p);
  pointName(pConn, pErr, POINT_SEED, 0);
  pointKeepValue(pConn, pErr, a, zJson);
  pointKeepVersion(pConn, pErr, zKey, 0, 0, a);
  return !bHad;
}

/*
** SQL: state_checkpoint_drop(name) -> INTEGER
**
** Forgets a checkpoint and what only it had; returns how many values went.
**
**   name  TEXT; seed is what state_import has read
**
** NULL: the name must be given.
** Errors: no checkpoint of that name.
**
** > WITH s AS MATERIALIZED (SELECT state_set('a', '$', 1) AS a,
** >   state_checkpoint('old') AS b, state_set('a', '$', 2) AS c,
** >   state_checkpoint('new') AS d, state_checkpoint_drop('old') AS e)
** > SELECT e, name FROM s, state_checkpoints
** = 1|new
*/
static void pointDrop(ChoirCall *p) {
  static const char zGone[] = "DELETE FROM ~.state_points WHERE n=?1";
  const char *zName = choirStoreArgName(&p->err, p->apArg[0], "name");
  sqlite3_stmt *pStmt;
  i64 n;
  choirNeedWorkspace(p->pConn, &p->err);
  n = pointNumber(p->pConn, &p->err, zName);
  pStmt = choirStmt(p->pConn, &p->err, zGone);
  choirBindInt(&p->err, pStmt, 1, n);
  choirStep(&p->err, pStmt);
  choirStmtDone(p->pConn, pStmt);
  choirExecText(p->pConn, &p->err,
                "DELETE FROM ~.state_versions WHERE NOT EXISTS ("
                "SELECT 1 FROM ~.state_points AS p WHERE p.n >= first"
                " AND (last IS NULL OR p.n <= last));"
                "DELETE FROM ~.state_values WHERE hash NOT IN"
                " (SELECT hash FROM ~.state_versions)");
  sqlite3_result_int(p->pCtx, sqlite3_changes(p->pConn->db));
}

/* ----------------------------------------------------------------- restore */

#define POINT_AT                                                               \
  "FROM ~.state_versions AS v LEFT JOIN ~.state_values AS d"                   \
  " ON d.hash=v.hash WHERE v.first<=?1 AND (v.last IS NULL OR v.last>=?1)"

/* Every value of checkpoint n is there and as it was kept. */
static void pointVerify(ChoirConn *pConn, ChoirErr *pErr, const char *zName,
                        i64 n) {
  sqlite3_stmt *p = choirStmt(
      pConn, pErr, "SELECT d.value_json, v.hash, v.key_name " POINT_AT);
  choirBindInt(pErr, p, 1, n);
  while (choirStep(pErr, p)) {
    if (!pointGood(pConn, pErr, p)) {
      choirErrSet(pErr, SQLITE_CORRUPT_VTAB,
                  "checkpoint '%.100s' has a damaged value for key '%.100s';"
                  " nothing was restored",
                  zName, (const char *)sqlite3_column_text(p, 2));
    }
  }
  choirStmtDone(pConn, p);
}

/*
** SQL: state_restore(name) -> INTEGER
**
** Makes the state what it was at a checkpoint: values, levels and keys. Returns
** how many keys changed. All or nothing, and only after every value has been
** checked by its hash. Make a checkpoint first to be able to come back.
**
**   name  TEXT; seed is what state_import has read
**
** NULL: the name must be given.
** Errors: no checkpoint of that name; a damaged value in it.
**
** > SELECT state_restore('monday')
** ! state_restore: no checkpoint 'monday'; see state_checkpoints
*/
static void pointRestore(ChoirCall *p) {
  ChoirConn *pConn = p->pConn;
  ChoirErr *pErr = &p->err;
  const char *zName = choirStoreArgName(pErr, p->apArg[0], "name");
  sqlite3_stmt *pStmt;
  i64 n, nChanged;
  choirNeedWorkspace(pConn, pErr);
  n = pointNumber(pConn, pErr, zName);
  pointVerify(pConn, pErr, zName, n);
  pStmt = choirStmt(pConn, pErr,
                    "DELETE FROM ~.state_storage WHERE key_name NOT IN"
                    " (SELECT v.key_name " POINT_AT ")");
  choirBindInt(pErr, pStmt, 1, n);
  choirStep(pErr, pStmt);
  nChanged = sqlite3_changes(pConn->db);
  choirStmtDone(pConn, pStmt);
  pStmt = choirStmt(pConn, pErr,
                    "SELECT v.key_name, d.value_json, v.level " POINT_AT);
  choirBindInt(pErr, pStmt, 1, n);
  while (choirStep(pErr, pStmt)) {
    nChanged += choirStoreStatePut(pConn, pErr,
                                   (const char *)sqlite3_column_text(pStmt, 0),
                                   (const char *)sqlite3_column_text(pStmt, 1),
                                   sqlite3_column_int(pStmt, 2));
  }
  choirStmtDone(pConn, pStmt);
  sqlite3_result_int64(p->pCtx, nChanged);
}

/* -------------------------------------------------------------- list, diff */

/*
** SQL: state_checkpoints -> TABLE(name, created, keys)
**
** The checkpoints, oldest first, with the time as ISO 8601 text and how many
** keys each has. seed is what state_import has read.
**
** > WITH s AS MATERIALIZED (SELECT state_set('a', '$', 1) AS a,
** >   state_checkpoint('monday') AS b)
** > SELECT name, keys FROM s, state_checkpoints
** = monday|1
*/
static void pointList(ChoirCursor *p) {
  choirNeedWorkspace(p->pConn, &p->err);
  if (pointHave(p->pConn, &p->err)) {
    p->pStmt = choirStmt(
        p->pConn, &p->err,
        "SELECT name, strftime('%Y-%m-%dT%H:%M:%S', created_at / 1000,"
        " 'unixepoch') || printf('.%03dZ', created_at % 1000),"
        " (SELECT count(*) FROM ~.state_versions AS v WHERE v.first<=p.n"
        " AND (v.last IS NULL OR v.last>=p.n))"
        " FROM ~.state_points AS p ORDER BY n");
  }
}

/* ?1 and ?2 are numbers of checkpoints, or NULL for the live state. */
static const char zPointDiff[] =
    "WITH s(side, n) AS (VALUES(1, ?1), (2, ?2)),"
    " x(side, k, v, l) AS MATERIALIZED ("
    "SELECT s.side, v.key_name, d.value_json, v.level FROM s"
    " JOIN ~.state_versions AS v ON v.first<=s.n"
    " AND (v.last IS NULL OR v.last>=s.n)"
    " JOIN ~.state_values AS d ON d.hash=v.hash"
    " UNION ALL SELECT s.side, key_name, coalesce(value_json, 'null'), level"
    " FROM s JOIN ~.state_storage WHERE s.n IS NULL),"
    " c(side, k, v) AS MATERIALIZED (SELECT x.side, x.k, x.v FROM x"
    " LEFT JOIN x AS y ON y.k=x.k AND y.side=3-x.side"
    " WHERE y.v IS NOT x.v),"
    " leaf(side, k, p, t, a) AS MATERIALIZED ("
    "SELECT c.side, c.k, j.fullkey, j.type, CASE WHEN j.type IN"
    " ('object', 'array') THEN j.value ELSE j.atom END"
    " FROM c JOIN temp.json_tree(c.v) AS j WHERE j.type NOT IN ('object', "
    "'array')"
    " OR j.value IN ('{}', '[]'))"
    " SELECT a.k, a.p, iif(b.k IS NULL, 'removed', 'changed'), a.a, b.a"
    " FROM leaf AS a LEFT JOIN leaf AS b"
    " ON b.side=2 AND b.k=a.k AND b.p=a.p"
    " WHERE a.side=1 AND (b.k IS NULL OR b.t<>a.t OR b.a IS NOT a.a)"
    " UNION ALL SELECT b.k, b.p, 'added', NULL, b.a"
    " FROM leaf AS b LEFT JOIN leaf AS a"
    " ON a.side=1 AND a.k=b.k AND a.p=b.p WHERE b.side=2 AND a.k IS NULL"
    " UNION ALL SELECT a.k, NULL, 'level', a.l, b.l FROM x AS a"
    " JOIN x AS b ON b.side=2 AND b.k=a.k"
    " WHERE a.side=1 AND a.l<>b.l AND a.l>0 AND b.l>0"
    " ORDER BY 1, 2";

/*
** SQL: state_diff(a, b) -> TABLE(key, path, change, before, after)
**
** What differs between two checkpoints, leaf by leaf: change is added, removed
** or changed, or level (path is NULL then, before and after are levels).
**
**   a  TEXT, a checkpoint; NULL: the state as it is now
**   b  TEXT, the same
**
** NULL: means the state as it is now.
** Errors: no checkpoint of that name.
**
** > WITH s AS MATERIALIZED (SELECT state_set('Mood', '$.now', 'calm') AS a,
** >   state_checkpoint('monday') AS b, state_set('Mood', '$.now', 'cross') AS c,
** >   state_set('Mood', '$.since', 9) AS d)
** > SELECT key, path, change, before, after FROM s, state_diff('monday', NULL)
** = Mood|$.now|changed|calm|cross
** = Mood|$.since|added|NULL|9
*/
static void pointDiff(ChoirCursor *p) {
  ChoirErr *pErr = &p->err;
  const char *az[2];
  i64 an[2];
  int i;
  choirNeedWorkspace(p->pConn, pErr);
  for (i = 0; i < 2; i++) {
    az[i] = choirArgTextOrNull(pErr, p->apArg[i], i ? "b" : "a");
    an[i] = az[i] ? pointNumber(p->pConn, pErr, az[i]) : -1;
  }
  if ((az[0] || az[1]) && pErr->rc == SQLITE_OK) {
    p->pStmt = choirStmt(p->pConn, pErr, zPointDiff);
    for (i = 0; i < 2; i++) {
      if (az[i]) {
        choirBindInt(pErr, p->pStmt, i + 1, an[i]);
      }
    }
  }
}

/* ------------------------------------------------------------------- check */

CHOIR_PRIVATE void choirStoreStateCheck(ChoirConn *pConn, ChoirCursor *pCur) {
  int n = 0;
  sqlite3_stmt *p =
      choirStmt(pConn, &pCur->err,
                "SELECT 'the value of state key ' || key_name || ' is not JSON'"
                " FROM ~.state_storage WHERE value_json IS NOT NULL"
                " AND NOT (json_valid(value_json) OR json_valid(value_json))");
  while (n++ < 100 && choirStep(&pCur->err, p)) {
    choirRowText(pCur, "store");
    choirRowText(pCur, (const char *)sqlite3_column_text(p, 0));
  }
  choirStmtDone(pConn, p);
  if (!pointHave(pConn, &pCur->err)) {
    return;
  }
  p = choirStmt(pConn, &pCur->err,
                "SELECT d.value_json, v.hash, 'checkpoints have a damaged value"
                " for state key ' || v.key_name FROM ~.state_versions AS v"
                " LEFT JOIN ~.state_values AS d ON d.hash=v.hash");
  while (n < 200 && choirStep(&pCur->err, p)) {
    if (!pointGood(pConn, &pCur->err, p)) {
      choirRowText(pCur, "store");
      choirRowText(pCur, (const char *)sqlite3_column_text(p, 2));
      n++;
    }
  }
  choirStmtDone(pConn, p);
}

static const ChoirFunc aPointFunc[] = {
    {"state_checkpoint", 1, 1, CHOIR_WRITE, 0, pointCheckpoint, NULL},
    {"state_checkpoint_drop", 1, 1, CHOIR_WRITE, 0, pointDrop, NULL},
    {"state_restore", 1, 1, CHOIR_WRITE, 0, pointRestore, NULL},
};

static const ChoirTvf aPointTvf[] = {
    {"state_checkpoints", "name, created, keys", 3, 0, 0, CHOIR_READ, 0, 0,
     pointList, NULL, NULL, NULL},
    {"state_diff", "\"key\", path, change, before, after, a HIDDEN, b HIDDEN",
     5, 2, 2, CHOIR_READ, 0, 0, pointDiff, NULL, NULL, NULL},
};

CHOIR_PRIVATE CHOIR_COLD void choirStorePointRegister(ChoirConn *pConn,
                                                      ChoirErr *pErr) {
  choirFuncs(pConn, pErr, aPointFunc);
  choirTvfs(pConn, pErr, aPointTvf);
}
