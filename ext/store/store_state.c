/* SPDX-License-Identifier: MIT */
/*
** Nested state: state_get, state_set, state_delete, state_all, state_tree,
** state_level on the table state_storage, and server_state_get,
** server_state_set on the table server_state.
**
** A value is JSON text; paths are those of SQLite's JSON functions ($.a.b,
** $.list[0], $.list[#]). SQL values become JSON and come back as what they
** were: integer, real, text, NULL; text that is a JSON object or array, or
** that comes from a JSON function, is taken as JSON. Every key has a level:
** what is at level 1 is part of level 2, and that of level 3.
**
** A value that is not JSON any more is read from the newest checkpoint that
** has the key (store_point.c), and the next state_set mends it.
*/
#include "store.h"
#include <stdlib.h>

#define STATE_JSON 'J' /* the subtype of SQLite's JSON functions */
#define STATE_DEPTH 2048

/* A path argument; "$" where there is none. */
static const char *statePath(ChoirCall *p, int i) {
  const char *z = "$";
  if (i < p->nArg && sqlite3_value_type(p->apArg[i]) != SQLITE_NULL) {
    z = choirArgText(&p->err, p->apArg[i], "json_path");
    if (z && z[0] != '$') {
      choirErrSet(&p->err, SQLITE_ERROR,
                  "json_path must begin with $, got '%.60s'; write '$.%.60s'",
                  z, z);
    }
  }
  return z;
}

/* The live value of a key as it stands; NULL when there is no such key. Caller
** frees. */
static char *stateRaw(ChoirConn *pConn, ChoirErr *pErr, const char *zKey) {
  sqlite3_stmt *p =
      choirStmt(pConn, pErr,
                "SELECT coalesce(value_json, 'null') FROM ~.state_storage"
                " WHERE key_name=?1");
  char *z = NULL;
  choirBindText(pErr, p, 1, zKey, -1);
  if (choirStep(pErr, p)) {
    z = choirMprintf(pErr, "%s", (const char *)sqlite3_column_text(p, 0));
  }
  choirStmtDone(pConn, p);
  return z;
}

/* A statement has failed on the value z of a key: when that is because z is
** corrupt, the error is forgotten and z becomes a checkpoint's. */
static int stateMend(ChoirConn *pConn, ChoirErr *pErr, const char *zKey,
                     char **pz) {
  ChoirErr err = {SQLITE_OK, NULL};
  if ((pErr->rc & 0xff) != SQLITE_ERROR || *pz == NULL ||
      choirIsJson(pConn, &err, *pz) || err.rc != SQLITE_OK) {
    choirErrClear(&err);
    return 0;
  }
  choirErrClear(pErr);
  sqlite3_free(*pz);
  *pz = choirStorePointValue(pConn, pErr, zKey);
  return *pz != NULL;
}

CHOIR_PRIVATE char *choirStoreStateValue(ChoirConn *pConn, ChoirErr *pErr,
                                         const char *zKey) {
  char *z = stateRaw(pConn, pErr, zKey);
  if (z && !choirIsJson(pConn, pErr, z) && pErr->rc == SQLITE_OK) {
    sqlite3_free(z);
    z = choirStorePointValue(pConn, pErr, zKey);
  }
  return z;
}

CHOIR_PRIVATE int choirStoreStatePut(ChoirConn *pConn, ChoirErr *pErr,
                                     const char *zKey, const char *zJson,
                                     int iLevel) {
  sqlite3_stmt *p = choirStmt(
      pConn, pErr,
      "INSERT INTO ~.state_storage(key_name, value_json, created_at,"
      " updated_at, level) VALUES(?1, ?2, ?3, ?3, coalesce(?4, 3))"
      " ON CONFLICT(key_name) DO UPDATE SET value_json=?2,"
      " updated_at=max(?3, updated_at + 1), level=coalesce(?4, level)"
      " WHERE value_json IS NOT ?2 OR level IS NOT coalesce(?4, level)");
  choirBindText(pErr, p, 1, zKey, -1);
  choirBindText(pErr, p, 2, zJson, -1);
  choirBindInt(pErr, p, 3, choirNow());
  if (iLevel) {
    choirBindInt(pErr, p, 4, iLevel);
  }
  choirStep(pErr, p);
  choirStmtDone(pConn, p);
  return pErr->rc == SQLITE_OK && sqlite3_changes(pConn->db) > 0;
}

/* ------------------------------------------------------------- get and set */

/* The value on pStmt (value, json type) becomes the result. */
static void stateResult(ChoirCall *p, sqlite3_stmt *pStmt) {
  const char *zType = (const char *)sqlite3_column_text(pStmt, 1);
  sqlite3_result_value(p->pCtx, sqlite3_column_value(pStmt, 0));
  if (zType && (zType[0] == 'o' || strcmp(zType, "array") == 0)) {
    sqlite3_result_subtype(p->pCtx, STATE_JSON);
  }
}

/* The same from JSON text. */
static void stateExtract(ChoirCall *p, const char *zJson, const char *zPath) {
  sqlite3_stmt *pStmt = choirStmt(
      p->pConn, &p->err, "SELECT json_extract(?1, ?2), json_type(?1, ?2)");
  choirBindText(&p->err, pStmt, 1, zJson, -1);
  choirBindText(&p->err, pStmt, 2, zPath, -1);
  if (choirStep(&p->err, pStmt)) {
    stateResult(p, pStmt);
  }
  choirStmtDone(p->pConn, pStmt);
}

/*
** SQL: state_get(key[, json_path]) -> any
**
** The value of a key, or what is at a path in it: an integer, real, text or
** NULL as itself, an object or array as JSON text.
**
**   key        TEXT, at most 1,000 bytes
**   json_path  TEXT, $ (the whole value, the default), $.a.b, $.list[0], …
**
** A value that is not JSON any more is read from the newest checkpoint, or the
** seed, that has the key.
**
** NULL: gives NULL where there is nothing; the key must be given.
** Errors: a path that is not one; a corrupt value that no checkpoint has.
**
** > WITH s AS MATERIALIZED (SELECT
** >   state_set('Identity', '$.name.first', 'Nola') AS n)
** > SELECT n, state_get('Identity', '$.name.first'), state_get('Identity')
** > FROM s
** = 1|Nola|{"name":{"first":"Nola"}}
** > SELECT state_get('Identity', 'name')
** ! state_get: json_path must begin with $, got 'name'; write '$.name'
*/
static void stateGet(ChoirCall *p) {
  const char *zKey = choirStoreArgName(&p->err, p->apArg[0], "key");
  const char *zPath = statePath(p, 1);
  char *z = NULL;
  sqlite3_stmt *pStmt;
  choirNeedWorkspace(p->pConn, &p->err);
  pStmt = choirStmt(p->pConn, &p->err,
                    "SELECT json_extract(value_json, ?2), json_type(value_json,"
                    " ?2) FROM ~.state_storage WHERE key_name=?1");
  choirBindText(&p->err, pStmt, 1, zKey, -1);
  choirBindText(&p->err, pStmt, 2, zPath, -1);
  if (choirStep(&p->err, pStmt)) {
    stateResult(p, pStmt);
  }
  choirStmtDone(p->pConn, pStmt);
  if (pStmt && (p->err.rc & 0xff) == SQLITE_ERROR) {
    ChoirErr err = {SQLITE_OK, NULL};
    z = stateRaw(p->pConn, &err, zKey);
    choirErrClear(&err);
    if (stateMend(p->pConn, &p->err, zKey, &z)) {
      stateExtract(p, z, zPath);
    }
  }
  sqlite3_free(z);
}

/* A real with as few digits as tell it from its neighbours. */
static void stateReal(ChoirBuf *pBuf, double r) {
  char z[64];
  sqlite3_snprintf((int)sizeof(z), z, "%!.15g", r);
  if (strtod(z, NULL) != r) {
    sqlite3_snprintf((int)sizeof(z), z, "%!.17g", r);
  }
  choirBufText(pBuf, z);
}

/* The value argument as JSON text. */
static void stateValue(ChoirCall *p, sqlite3_value *v, ChoirBuf *pBuf) {
  const char *z;
  double r;
  switch (sqlite3_value_type(v)) {
  case SQLITE_NULL:
    choirBufText(pBuf, "null");
    break;
  case SQLITE_INTEGER:
    choirBufPrintf(pBuf, "%lld", sqlite3_value_int64(v));
    break;
  case SQLITE_FLOAT:
    r = sqlite3_value_double(v);
    if (r - r != 0) {
      choirErrSet(&p->err, SQLITE_ERROR, "value must be finite, got %g", r);
    }
    stateReal(pBuf, r);
    break;
  default:
    z = choirArgText(&p->err, v, "value");
    if (z &&
        (sqlite3_value_subtype(v) == STATE_JSON ||
         ((z[0] == '{' || z[0] == '[') && choirIsJson(p->pConn, &p->err, z)))) {
      choirBufText(pBuf, z);
    } else if (z) {
      choirBufJson(pBuf, z, -1);
    }
    break;
  }
}

/* Is there something at zPath? */
static int stateThere(ChoirCall *p, const char *zJson, const char *zPath) {
  sqlite3_stmt *pStmt =
      choirStmt(p->pConn, &p->err, "SELECT json_type(?1, ?2) IS NOT NULL");
  int b;
  choirBindText(&p->err, pStmt, 1, zJson, -1);
  choirBindText(&p->err, pStmt, 2, zPath, -1);
  b = choirStep(&p->err, pStmt) && sqlite3_column_int(pStmt, 0);
  choirStmtDone(p->pConn, pStmt);
  return b;
}

/* zJson with zValue at zPath; NULL and sticky on failure. The result belongs to
** *ppStmt. */
static const char *stateJsonSet(ChoirCall *p, const char *zJson,
                                const char *zPath, const char *zValue,
                                sqlite3_stmt **ppStmt) {
  const char *z = NULL;
  zJson = zJson ? zJson : zPath && zPath[1] == '[' ? "[]" : "{}";
  *ppStmt = choirStmt(p->pConn, &p->err, "SELECT json_set(?1, ?2, json(?3))");
  choirBindText(&p->err, *ppStmt, 1, zJson, -1);
  choirBindText(&p->err, *ppStmt, 2, zPath, -1);
  choirBindText(&p->err, *ppStmt, 3, zValue, -1);
  if (choirStep(&p->err, *ppStmt)) {
    z = (const char *)sqlite3_column_text(*ppStmt, 0);
    if (z == NULL) {
      choirErrNomem(&p->err);
    } else if (strcmp(z, zJson) == 0 && !stateThere(p, z, zPath)) {
      choirErrSet(&p->err, SQLITE_ERROR,
                  "nothing can be put at %.100s; what is above it is not an"
                  " object, or an array that ends earlier",
                  zPath);
    }
  }
  return p->err.rc == SQLITE_OK ? z : NULL;
}

/*
** SQL: state_set(key, json_path, value) -> INTEGER
**
** Puts a value at a path of a key, making the key and the objects on the way
** where they are missing; returns 1 when that changed something, else 0.
**
**   key        TEXT, at most 1,000 bytes
**   json_path  TEXT, $ (the whole value), $.a.b, $.list[0], $.list[#] (at the
**              end)
**   value      INTEGER, REAL, TEXT or NULL (JSON null). Text that is a JSON
**              object or array is put as such, json('…') as the JSON it is,
**              json_quote(x) as a string in any case
**
** NULL: a NULL json_path means $; the key must be given.
** Errors: a blob, Infinity; a path through something that is not an object or
** array; a corrupt value that no checkpoint has.
**
** > WITH s AS MATERIALIZED (SELECT
** >   state_set('Persona', '$.traits', '{"humor":7}') AS a,
** >   state_set('Persona', '$.tags[0]', 'warm') AS b,
** >   state_set('Persona', '$.tags[#]', json('true')) AS c)
** > SELECT a, b, c, state_get('Persona') FROM s
** = 1|1|1|{"traits":{"humor":7},"tags":["warm",true]}
*/
static void stateSet(ChoirCall *p) {
  ChoirBuf b;
  sqlite3_stmt *pStmt = NULL;
  const char *zKey = choirStoreArgName(&p->err, p->apArg[0], "key");
  const char *zPath = statePath(p, 1), *z;
  char *zOld;
  int bChanged = 0;
  choirNeedWorkspace(p->pConn, &p->err);
  choirBufInit(&b, &p->err, CHOIR_BUF_JSON);
  stateValue(p, p->apArg[2], &b);
  if (zPath && zPath[1] == 0) {
    /* The whole value: what was there, corrupt or not, does not matter. */
    zOld = NULL;
  } else {
    zOld = stateRaw(p->pConn, &p->err, zKey);
  }
  z = stateJsonSet(p, zOld, zPath, b.a, &pStmt);
  if (stateMend(p->pConn, &p->err, zKey, &zOld)) {
    choirStmtDone(p->pConn, pStmt);
    z = stateJsonSet(p, zOld, zPath, b.a, &pStmt);
  }
  bChanged = choirStoreStatePut(p->pConn, &p->err, zKey, z, 0);
  choirStmtDone(p->pConn, pStmt);
  sqlite3_free(zOld);
  choirBufFree(&b);
  sqlite3_result_int(p->pCtx, bChanged);
}

/* Takes what is at zPath out of a value. */
static int stateRemove(ChoirCall *p, const char *zKey, const char *zPath) {
  char *zOld = choirStoreStateValue(p->pConn, &p->err, zKey);
  int bChanged = 0;
  if (zOld) {
    sqlite3_stmt *pStmt = choirStmt(
        p->pConn, &p->err, "SELECT json_remove(?1, ?2), json_type(?1, ?2)");
    choirBindText(&p->err, pStmt, 1, zOld, -1);
    choirBindText(&p->err, pStmt, 2, zPath, -1);
    if (choirStep(&p->err, pStmt) &&
        sqlite3_column_type(pStmt, 1) != SQLITE_NULL) {
      bChanged =
          choirStoreStatePut(p->pConn, &p->err, zKey,
                             (const char *)sqlite3_column_text(pStmt, 0), 0);
    }
    choirStmtDone(p->pConn, pStmt);
  }
  sqlite3_free(zOld);
  return bChanged;
}

/*
** SQL: state_delete(key[, json_path]) -> INTEGER
**
** Removes a key, or what is at a path in it, and returns 1, or 0 when there
** was nothing.
**
**   key        TEXT
**   json_path  TEXT, $ (the key itself, the default), $.a.b, $.list[0], …
**
** NULL: a NULL json_path means $; the key must be given.
** Errors: a path that is not one.
**
** > WITH s AS MATERIALIZED (SELECT
** >   state_set('Context', '$', '{"a":1,"b":2}') AS a,
** >   state_delete('Context', '$.a') AS b, state_delete('Context', '$.a') AS c)
** > SELECT a, b, c, state_get('Context') FROM s
** = 1|1|0|{"b":2}
*/
static void stateDelete(ChoirCall *p) {
  const char *zKey = choirStoreArgName(&p->err, p->apArg[0], "key");
  const char *zPath = statePath(p, 1);
  int bChanged = 0;
  choirNeedWorkspace(p->pConn, &p->err);
  if (zPath && zPath[1]) {
    bChanged = stateRemove(p, zKey, zPath);
  } else {
    sqlite3_stmt *pStmt = choirStmt(
        p->pConn, &p->err, "DELETE FROM ~.state_storage WHERE key_name=?1");
    choirBindText(&p->err, pStmt, 1, zKey, -1);
    choirStep(&p->err, pStmt);
    choirStmtDone(p->pConn, pStmt);
    bChanged = sqlite3_changes(p->pConn->db) > 0;
  }
  sqlite3_result_int(p->pCtx, bChanged);
}

/* ------------------------------------------------------------------ levels */

/* 1 to 3, or 'L1' to 'L3'. */
static int stateLevelArg(ChoirErr *pErr, sqlite3_value *v) {
  if (pErr->rc == SQLITE_OK && sqlite3_value_type(v) == SQLITE_TEXT) {
    const char *z = choirArgText(pErr, v, "level");
    if (z && (z[0] == 'L' || z[0] == 'l') && z[1] >= '1' && z[1] <= '3' &&
        z[2] == 0) {
      return z[1] - '0';
    }
    choirErrSet(pErr, SQLITE_ERROR,
                "level must be 1, 2, 3 or L1, L2, L3, got"
                " '%.20s'",
                z ? z : "");
  }
  return (int)choirArgInt(pErr, v, "level", 1, 3);
}

CHOIR_PRIVATE void choirStoreStateJson(ChoirConn *pConn, ChoirErr *pErr,
                                       ChoirBuf *pBuf, int iLevel) {
  int n = 0;
  sqlite3_stmt *p =
      choirStmt(pConn, pErr,
                "SELECT key_name, coalesce(value_json, 'null')"
                " FROM ~.state_storage WHERE level<=?1 ORDER BY key_name");
  choirBindInt(pErr, p, 1, iLevel);
  choirBufText(pBuf, "{");
  while (choirStep(pErr, p)) {
    const char *zKey = (const char *)sqlite3_column_text(p, 0);
    choirBufText(pBuf, n++ ? "," : "");
    choirBufJson(pBuf, zKey, -1);
    choirBufText(pBuf, ":");
    if (choirIsJson(pConn, pErr, (const char *)sqlite3_column_text(p, 1))) {
      choirBufText(pBuf, (const char *)sqlite3_column_text(p, 1));
    } else {
      char *z = choirStorePointValue(pConn, pErr, zKey);
      choirBufText(pBuf, z ? z : "null");
      sqlite3_free(z);
    }
  }
  choirStmtDone(pConn, p);
  choirBufText(pBuf, "}");
}

/*
** SQL: state_all([level]) -> TEXT
**
** The whole state as one JSON object, key by key, or only what a level may
** see: level 1 is part of level 2, level 2 of level 3.
**
**   level  INTEGER 1, 2, 3, or TEXT L1, L2, L3; default 3: everything
**
** NULL: a NULL level means 3.
** Errors: another level; a corrupt value that no checkpoint has.
**
** > WITH s AS MATERIALIZED (SELECT state_set('Identity', '$.name', 'Nola') AS a,
** >   state_set('Notes', '$', 'long') AS b, state_level('Identity', 1) AS c)
** > SELECT state_all('L1'), state_all() FROM s
** = {"Identity":{"name":"Nola"}}|{"Identity":{"name":"Nola"},"Notes":"long"}
*/
static void stateAll(ChoirCall *p) {
  ChoirBuf b;
  int iLevel = 3;
  choirNeedWorkspace(p->pConn, &p->err);
  if (p->nArg > 0 && sqlite3_value_type(p->apArg[0]) != SQLITE_NULL) {
    iLevel = stateLevelArg(&p->err, p->apArg[0]);
  }
  choirBufInit(&b, &p->err, CHOIR_BUF_JSON);
  choirStoreStateJson(p->pConn, &p->err, &b, iLevel);
  choirBufResult(&b, p->pCtx);
  sqlite3_result_subtype(p->pCtx, STATE_JSON);
}

/*
** SQL: state_level(key, level) -> INTEGER
**
** Gives a key a level and returns 1 when that changed something, else 0. A new
** key has level 3.
**
**   key    TEXT
**   level  INTEGER 1, 2, 3, or TEXT L1, L2, L3
**
** NULL: both must be given.
** Errors: another level; no such key.
**
** > SELECT state_level('nope', 1)
** ! state_level: no key 'nope'; see state_set
*/
static void stateLevel(ChoirCall *p) {
  const char *zKey = choirStoreArgName(&p->err, p->apArg[0], "key");
  int iLevel = stateLevelArg(&p->err, p->apArg[1]), iOld = 0;
  sqlite3_stmt *pStmt;
  choirNeedWorkspace(p->pConn, &p->err);
  pStmt = choirStmt(p->pConn, &p->err,
                    "SELECT level FROM ~.state_storage WHERE key_name=?1");
  choirBindText(&p->err, pStmt, 1, zKey, -1);
  if (choirStep(&p->err, pStmt)) {
    iOld = sqlite3_column_int(pStmt, 0);
  } else {
    choirErrSet(&p->err, SQLITE_ERROR, "no key '%.100s'; see state_set", zKey);
  }
  choirStmtDone(p->pConn, pStmt);
  if (iOld != iLevel) {
    pStmt = choirStmt(p->pConn, &p->err,
                      "UPDATE ~.state_storage SET level=?2,"
                      " updated_at=max(?3, updated_at + 1) WHERE key_name=?1");
    choirBindText(&p->err, pStmt, 1, zKey, -1);
    choirBindInt(&p->err, pStmt, 2, iLevel);
    choirBindInt(&p->err, pStmt, 3, choirNow());
    choirStep(&p->err, pStmt);
    choirStmtDone(p->pConn, pStmt);
  }
  sqlite3_result_int(p->pCtx, iOld != iLevel);
}

/* -------------------------------------------------------------------- tree */

/* The atom on pStmt as a cell. */
static void stateAtom(ChoirCursor *p, sqlite3_stmt *pStmt, int i) {
  switch (sqlite3_column_type(pStmt, i)) {
  case SQLITE_INTEGER:
    choirRowInt(p, sqlite3_column_int64(pStmt, i));
    break;
  case SQLITE_FLOAT:
    choirRowReal(p, sqlite3_column_double(pStmt, i));
    break;
  default:
    choirRowText(p, (const char *)sqlite3_column_text(pStmt, i));
    break;
  }
}

/*
** SQL: state_tree(key) -> TABLE(path, parent, depth, name, type, value)
**
** Every node of a key's value, from the root down and in order, to be shown as
** a tree. name is the last part of the path (a member's name, an element's
** number, NULL at the root); type is object, array, text, integer, real, true,
** false or null; value is NULL for objects and arrays.
**
**   key  TEXT
**
** NULL: the key must be given; no rows when there is none.
** Errors: a corrupt value that no checkpoint has.
**
** > WITH s AS MATERIALIZED (SELECT
** >   state_set('Persona', '$.mood.now', 'calm') AS n)
** > SELECT depth, path, name, type, value FROM s, state_tree('Persona')
** = 0|$|NULL|object|NULL
** = 1|$.mood|mood|object|NULL
** = 2|$.mood.now|now|text|calm
*/
static void stateTree(ChoirCursor *p) {
  const char *zKey = choirStoreArgName(&p->err, p->apArg[0], "key");
  i64 *aId = choirMalloc(&p->err, STATE_DEPTH * sizeof(i64));
  int nId = 0;
  sqlite3_stmt *pStmt = NULL;
  char *z;
  choirNeedWorkspace(p->pConn, &p->err);
  z = choirStoreStateValue(p->pConn, &p->err, zKey);
  if (z) { /* a table of the host may be called json_tree */
    pStmt = choirJsonStmt(p->pConn, &p->err,
                          "SELECT fullkey, path, key, type, atom, id, parent"
                          " FROM json_tree(?1)",
                          z, -1);
  }
  while (choirStep(&p->err, pStmt)) {
    i64 iParent = sqlite3_column_int64(pStmt, 6);
    int bRoot = sqlite3_column_type(pStmt, 6) == SQLITE_NULL;
    while (nId > 0 && (bRoot || aId[nId - 1] != iParent)) {
      nId--;
    }
    choirRowText(p, (const char *)sqlite3_column_text(pStmt, 0));
    choirRowText(p, bRoot ? NULL : (const char *)sqlite3_column_text(pStmt, 1));
    choirRowInt(p, nId);
    stateAtom(p, pStmt, 2);
    choirRowText(p, (const char *)sqlite3_column_text(pStmt, 3));
    stateAtom(p, pStmt, 4);
    if (nId < STATE_DEPTH) {
      aId[nId++] = sqlite3_column_int64(pStmt, 5);
    }
  }
  sqlite3_finalize(pStmt);
  sqlite3_free(z);
  sqlite3_free(aId);
}

/* ------------------------------------------------------------ server state */

/*
** SQL: server_state_get(server, key) -> any
**
** What a server keeps under a key, with the type it was put with.
**
**   server  TEXT, e.g. experience
**   key     TEXT, e.g. last_sync_time (Unix milliseconds of its last sync)
**
** NULL: gives NULL where there is nothing; both must be given.
** Errors: a name that is empty or longer than 1,000 bytes.
**
** > WITH s AS MATERIALIZED (SELECT
** >   server_state_set('experience', 'last_sync_time', 1700000000000) AS n)
** > SELECT n, server_state_get('experience', 'last_sync_time') FROM s
** = 1|1700000000000
*/
static void stateServerGet(ChoirCall *p) {
  const char *zServer = choirStoreArgName(&p->err, p->apArg[0], "server");
  const char *zKey = choirStoreArgName(&p->err, p->apArg[1], "key");
  sqlite3_stmt *pStmt;
  choirNeedWorkspace(p->pConn, &p->err);
  pStmt =
      choirStmt(p->pConn, &p->err,
                "SELECT value FROM ~.server_state WHERE server=?1 AND key=?2");
  choirBindText(&p->err, pStmt, 1, zServer, -1);
  choirBindText(&p->err, pStmt, 2, zKey, -1);
  if (choirStep(&p->err, pStmt)) {
    sqlite3_result_value(p->pCtx, sqlite3_column_value(pStmt, 0));
  }
  choirStmtDone(p->pConn, pStmt);
}

/*
** SQL: server_state_set(server, key, value) -> INTEGER
**
** Keeps a value of a server and returns 1 when that changed something, else 0.
** Each server has keys of its own.
**
**   server  TEXT, at most 1,000 bytes
**   key     TEXT, at most 1,000 bytes; last_sync_time is the one that servers
**           share by agreement: INTEGER, Unix milliseconds
**   value   any; its type is kept
**
** NULL: a NULL value removes the key; the others must be given.
** Errors: a name that is empty or longer than 1,000 bytes.
**
** > WITH s AS MATERIALIZED (SELECT
** >   server_state_set('action', 'etag', x'00ff') AS n)
** > SELECT n, typeof(server_state_get('action', 'etag')) FROM s
** = 1|blob
*/
static void stateServerSet(ChoirCall *p) {
  const char *zServer = choirStoreArgName(&p->err, p->apArg[0], "server");
  const char *zKey = choirStoreArgName(&p->err, p->apArg[1], "key");
  sqlite3_stmt *pStmt;
  choirNeedWorkspace(p->pConn, &p->err);
  if (sqlite3_value_type(p->apArg[2]) == SQLITE_NULL) {
    pStmt = choirStmt(p->pConn, &p->err,
                      "DELETE FROM ~.server_state WHERE server=?1 AND key=?2");
  } else {
    pStmt =
        choirStmt(p->pConn, &p->err,
                  "INSERT INTO ~.server_state(server, key, value, updated_at)"
                  " VALUES(?1, ?2, ?3, ?4) ON CONFLICT(server, key) DO UPDATE"
                  " SET value=?3, updated_at=max(?4, updated_at + 1)"
                  " WHERE value IS NOT ?3 OR typeof(value) IS NOT typeof(?3)");
    choirBindValue(&p->err, pStmt, 3, p->apArg[2]);
    choirBindInt(&p->err, pStmt, 4, choirNow());
  }
  choirBindText(&p->err, pStmt, 1, zServer, -1);
  choirBindText(&p->err, pStmt, 2, zKey, -1);
  choirStep(&p->err, pStmt);
  choirStmtDone(p->pConn, pStmt);
  sqlite3_result_int(p->pCtx, sqlite3_changes(p->pConn->db) > 0);
}

/* ---------------------------------------------------------------- registry */

static const ChoirFunc aStateFunc[] = {
    {"state_get", 1, 2, CHOIR_READ, CHOIR_SUBTYPE, stateGet, NULL},
    {"state_set", 3, 3, CHOIR_WRITE, CHOIR_SUBTYPE, stateSet, NULL},
    {"state_delete", 1, 2, CHOIR_WRITE, 0, stateDelete, NULL},
    {"state_all", 0, 1, CHOIR_READ, CHOIR_SUBTYPE, stateAll, NULL},
    {"state_level", 2, 2, CHOIR_WRITE, 0, stateLevel, NULL},
    {"server_state_get", 2, 2, CHOIR_READ, 0, stateServerGet, NULL},
    {"server_state_set", 3, 3, CHOIR_WRITE, 0, stateServerSet, NULL},
};

static const ChoirTvf aStateTvf[] = {
    {"state_tree", "path, parent, depth, name, type, value, \"key\" HIDDEN", 6,
     1, 1, CHOIR_READ, 0, 0, stateTree, NULL, NULL, NULL},
};

CHOIR_PRIVATE CHOIR_COLD void choirStoreStateRegister(ChoirConn *pConn,
                                                      ChoirErr *pErr) {
  choirFuncs(pConn, pErr, aStateFunc);
  choirTvfs(pConn, pErr, aStateTvf);
}
