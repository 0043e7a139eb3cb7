/* SPDX-License-Identifier: MIT */
/*
** The shape of a table, as far as the log must know it: its columns, the key
** that tells its rows apart, and the UNIQUE indexes through which REPLACE may
** displace rows.
*/
#include "log.h"

static void logIndexFree(ChoirLogIndex *p) {
  int i;
  for (i = 0; i < p->nPart; i++) {
    sqlite3_free(p->aPart[i].zColl);
  }
  sqlite3_free(p->aPart);
  sqlite3_free(p->zWhere);
}

CHOIR_PRIVATE void choirLogShapeFree(ChoirLogShape *p) {
  int i;
  for (i = 0; i < p->nCol + p->bPseudo; i++) {
    sqlite3_free(p->aCol[i].zName);
    sqlite3_free(p->aCol[i].zSql);
    sqlite3_free(p->aCol[i].zColl);
  }
  for (i = 0; i < p->nIdx; i++) {
    logIndexFree(&p->aIdx[i]);
  }
  for (i = 0; i < p->nKey; i++) {
    sqlite3_free(p->aKey[i].zColl);
  }
  sqlite3_free(p->aCol);
  sqlite3_free(p->aIdx);
  sqlite3_free(p->zTable);
}

/* ------------------------------------------------------ reading the shape */

/* PRAGMA schema.zPragma(zName): by pragma, for a host's table may have the name
** of the pragma's table-valued function. */
static sqlite3_stmt *logPragma(ChoirConn *pConn, ChoirErr *pErr,
                               const char *zPragma, const char *zName) {
  sqlite3_stmt *p = NULL;
  char *z = choirMprintf(pErr, "PRAGMA \"%w\".%s(\"%w\")", choirSchema(pConn),
                         zPragma, zName);
  if (z) {
    choirErrDb(pErr, pConn->db, sqlite3_prepare_v2(pConn->db, z, -1, &p, NULL));
  }
  sqlite3_free(z);
  return p;
}

static char *logColumnText(ChoirErr *pErr, sqlite3_stmt *p, int i) {
  const char *z = (const char *)sqlite3_column_text(p, i);
  return choirMprintf(pErr, "%s", z ? z : "");
}

static int logIsWord(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
         (c >= '0' && c <= '9') || c == '_' || c == '$' || (c & 0x80);
}

CHOIR_PRIVATE char *choirLogQuote(ChoirErr *pErr, const char *z) {
  size_t i, n = strlen(z);
  for (i = 0; i < n && logIsWord(z[i]) && !(z[i] & 0x80) && z[i] != '$'; i++) {
  }
  if (i < n || n == 0 || (z[0] >= '0' && z[0] <= '9') ||
      sqlite3_keyword_check(z, (int)n)) {
    return choirMprintf(pErr, "\"%w\"", z);
  }
  return choirMprintf(pErr, "%s", z);
}

/* The affinity of a declared type, as far as it matters here. */
static void logAffinity(ChoirLogColumn *p, const char *z) {
  int bInt = sqlite3_strlike("%INT%", z, 0) == 0;
  p->bText = !bInt && (sqlite3_strlike("%CHAR%", z, 0) == 0 ||
                       sqlite3_strlike("%CLOB%", z, 0) == 0 ||
                       sqlite3_strlike("%TEXT%", z, 0) == 0);
  p->bTyped = bInt || p->bText ||
              (z[0] != 0 && sqlite3_stricmp(z, "ANY") != 0 &&
               sqlite3_strlike("%BLOB%", z, 0) != 0);
}

static void logReadColumns(ChoirConn *pConn, ChoirErr *pErr, ChoirLogShape *p) {
  sqlite3_stmt *pStmt = logPragma(pConn, pErr, "table_xinfo", p->pSpec->zTable);
  while (choirStep(pErr, pStmt)) {
    int iKey = sqlite3_column_int(pStmt, 5);
    int eHidden = sqlite3_column_int(pStmt, 6);
    const char *zType = (const char *)sqlite3_column_text(pStmt, 2);
    ChoirLogColumn *a = choirRealloc(
        pErr, p->aCol, (u64)(p->nCol + 1) * sizeof(ChoirLogColumn));
    if (a == NULL) {
      break;
    }
    p->aCol = a;
    a[p->nCol].zName = logColumnText(pErr, pStmt, 1);
    logAffinity(&a[p->nCol], zType ? zType : "");
    a[p->nCol].zSql = NULL;
    a[p->nCol].zColl = NULL;
    if (a[p->nCol].zName) {
      const char *zColl = NULL;
      a[p->nCol].zSql = choirLogQuote(pErr, a[p->nCol].zName);
      sqlite3_table_column_metadata(pConn->db, choirSchema(pConn),
                                    p->pSpec->zTable, a[p->nCol].zName, NULL,
                                    &zColl, NULL, NULL, NULL);
      a[p->nCol].zColl = choirMprintf(pErr, "%s", zColl ? zColl : "");
    }
    a[p->nCol].bGenerated = eHidden >= 2;
    p->bGenerated |= eHidden >= 2;
    if (iKey > CHOIR_LOG_KEY) {
      choirErrSet(pErr, SQLITE_ERROR,
                  "the key of table %s has more than %d columns",
                  p->pSpec->zTable, CHOIR_LOG_KEY);
    } else if (iKey > 0) {
      p->aKey[iKey - 1].iCol = p->nCol;
      p->nKey = p->nKey < iKey ? iKey : p->nKey;
    }
    p->nCol++;
  }
  sqlite3_finalize(pStmt);
}

/* A table without a PRIMARY KEY is followed by its rowid. */
static void logTakeRowid(ChoirErr *pErr, ChoirLogShape *p) {
  ChoirLogColumn *a;
  if (pErr->rc != SQLITE_OK || p->nKey > 0) {
    return;
  }
  if (p->zRowid == NULL) {
    choirErrSet(pErr, SQLITE_ERROR,
                "table %s has no PRIMARY KEY, and columns that hide its rowid,"
                " so that nothing tells its rows apart",
                p->pSpec->zTable);
    return;
  }
  a = choirRealloc(pErr, p->aCol, (u64)(p->nCol + 1) * sizeof(ChoirLogColumn));
  if (a == NULL) {
    return;
  }
  p->aCol = a;
  memset(&a[p->nCol], 0, sizeof(*a));
  p->bPseudo = p->bRowid = 1;
  a[p->nCol].zName = choirMprintf(pErr, "%s", p->zRowid);
  a[p->nCol].zSql = choirMprintf(pErr, "%s", p->zRowid);
  a[p->nCol].bTyped = 1;
  p->aKey[0].iCol = p->nCol;
  p->nKey = 1;
}

/* Is it a table of rows, and what is its rowid called? */
static void logReadKind(ChoirConn *pConn, ChoirErr *pErr, ChoirLogShape *p) {
  static const char *const azRowid[] = {"rowid", "_rowid_", "oid"};
  const char *zKind = NULL;
  int i, j, bWithout = 0;
  sqlite3_stmt *pStmt = logPragma(pConn, pErr, "table_list", p->pSpec->zTable);
  if (choirStep(pErr, pStmt)) {
    zKind = (const char *)sqlite3_column_text(pStmt, 2);
    bWithout = sqlite3_column_int(pStmt, 4);
  }
  if (pErr->rc == SQLITE_OK && (zKind == NULL || strcmp(zKind, "table") != 0)) {
    choirErrSet(pErr, SQLITE_ERROR,
                zKind ? "%s is a %s, not a table" : "table %s does not exist",
                p->pSpec->zTable, zKind);
  }
  sqlite3_finalize(pStmt);
  for (i = 0; i < 3 && !bWithout && p->zRowid == NULL; i++) {
    for (j = 0; j < p->nCol; j++) {
      if (sqlite3_stricmp(p->aCol[j].zName, azRowid[i]) == 0) {
        break;
      }
    }
    p->zRowid = j == p->nCol ? azRowid[i] : NULL;
  }
  logTakeRowid(pErr, p);
}

/* Past the quoted text, comment or single character at z; *pbComment tells. */
static const char *logSkip(const char *z, int *pbComment) {
  *pbComment = 0;
  if (*z == '\'' || *z == '"' || *z == '`' || *z == '[') {
    char c = *z == '[' ? ']' : *z;
    for (z++; *z && *z != c; z++) {
    }
    return *z ? z + 1 : z; /* a doubled quote is two quoted texts in a row */
  }
  if (z[0] == '-' && z[1] == '-') {
    *pbComment = 1;
    return z + strcspn(z, "\n");
  }
  if (z[0] == '/' && z[1] == '*') {
    const char *zEnd = strstr(z + 2, "*/");
    *pbComment = 1;
    return zEnd ? zEnd + 2 : z + strlen(z);
  }
  return z + 1;
}

/* The condition of CREATE INDEX … WHERE condition, without comments. */
static char *logIndexWhere(ChoirErr *pErr, const char *z) {
  ChoirBuf b;
  int nDepth = 0, bIn = 0, bComment;
  choirBufInit(&b, pErr, CHOIR_BUF_SQL);
  while (*z && pErr->rc == SQLITE_OK) {
    const char *zFrom = z;
    if (logIsWord(*z)) {
      for (z++; logIsWord(*z); z++) {
      }
      if (!bIn && nDepth == 0 && z - zFrom == 5 &&
          sqlite3_strnicmp(zFrom, "WHERE", 5) == 0) {
        bIn = 1;
        continue;
      }
    } else {
      nDepth += (*z == '(') - (*z == ')');
      z = logSkip(z, &bComment);
      if (bComment) {
        if (bIn) {
          choirBufText(&b, " ");
        }
        continue;
      }
    }
    if (bIn) {
      choirBufAppend(&b, zFrom, (u64)(z - zFrom));
    }
  }
  if (!bIn) {
    choirBufFree(&b);
    return NULL;
  }
  return choirBufTake(&b);
}

static void logReadWhere(ChoirConn *pConn, ChoirErr *pErr, ChoirLogIndex *pIdx,
                         const char *zName) {
  sqlite3_stmt *p =
      choirStmt(pConn, pErr,
                "SELECT sql FROM ~.sqlite_schema WHERE type='index' AND"
                " name=?1");
  choirBindText(pErr, p, 1, zName, -1);
  if (choirStep(pErr, p) && sqlite3_column_text(p, 0)) {
    pIdx->zWhere = logIndexWhere(pErr, (const char *)sqlite3_column_text(p, 0));
  }
  choirStmtDone(pConn, p);
}

static void logReadParts(ChoirConn *pConn, ChoirErr *pErr,
                         ChoirLogShape *pShape, ChoirLogIndex *p,
                         const char *zName) {
  sqlite3_stmt *pStmt = logPragma(pConn, pErr, "index_xinfo", zName);
  while (choirStep(pErr, pStmt)) {
    ChoirLogPart *a;
    if (!sqlite3_column_int(pStmt, 5)) {
      continue; /* not part of what is unique */
    }
    if (sqlite3_column_int(pStmt, 1) < 0) {
      choirErrSet(pErr, SQLITE_ERROR,
                  "unique index %s of table %s is on an expression; the log"
                  " cannot tell what REPLACE removes through it",
                  zName, pShape->pSpec->zTable);
      break;
    }
    a = choirRealloc(pErr, p->aPart,
                     (u64)(p->nPart + 1) * sizeof(ChoirLogPart));
    if (a == NULL) {
      break;
    }
    p->aPart = a;
    a[p->nPart].iCol = sqlite3_column_int(pStmt, 1);
    a[p->nPart].zColl = logColumnText(pErr, pStmt, 4);
    p->nPart++;
  }
  sqlite3_finalize(pStmt);
}

CHOIR_PRIVATE int choirLogKeyExact(const ChoirLogShape *p, int i) {
  return p->bRowid || (p->aCol[p->aKey[i].iCol].bTyped && p->aKey[i].zColl &&
                       sqlite3_stricmp(p->aKey[i].zColl, "BINARY") == 0);
}

/* The key's collations are those of its own index. Returns 1 when different
** keys may be equal there, so that REPLACE of one displaces the other. */
static int logTakeKey(ChoirErr *pErr, ChoirLogShape *pShape,
                      const ChoirLogIndex *p) {
  int i, j, bLoose = 0;
  pShape->bRowid = 0;
  for (i = 0; i < p->nPart; i++) {
    for (j = 0; j < pShape->nKey; j++) {
      if (pShape->aKey[j].iCol == p->aPart[i].iCol &&
          pShape->aKey[j].zColl == NULL) {
        pShape->aKey[j].zColl = choirMprintf(
            pErr, "%s", p->aPart[i].zColl ? p->aPart[i].zColl : "");
        bLoose |= !choirLogKeyExact(pShape, j);
        break;
      }
    }
  }
  return bLoose;
}

static void logReadIndexes(ChoirConn *pConn, ChoirErr *pErr, ChoirLogShape *p) {
  sqlite3_stmt *pStmt = logPragma(pConn, pErr, "index_list", p->pSpec->zTable);
  p->bRowid |= p->nKey == 1;
  while (choirStep(pErr, pStmt)) {
    const char *zName = (const char *)sqlite3_column_text(pStmt, 1);
    const char *zOrigin = (const char *)sqlite3_column_text(pStmt, 3);
    ChoirLogIndex idx = {NULL, 0, NULL};
    ChoirLogIndex *a;
    if (!sqlite3_column_int(pStmt, 2) || zName == NULL || zOrigin == NULL) {
      continue;
    }
    logReadParts(pConn, pErr, p, &idx, zName);
    if (sqlite3_column_int(pStmt, 4)) {
      logReadWhere(pConn, pErr, &idx, zName);
    }
    if (strcmp(zOrigin, "pk") == 0 && !logTakeKey(pErr, p, &idx)) {
      logIndexFree(&idx);
      continue;
    }
    a = choirRealloc(pErr, p->aIdx, (u64)(p->nIdx + 1) * sizeof(ChoirLogIndex));
    if (a == NULL) {
      logIndexFree(&idx);
      break;
    }
    p->aIdx = a;
    a[p->nIdx++] = idx;
  }
  sqlite3_finalize(pStmt);
}

CHOIR_PRIVATE void choirLogShapeRead(ChoirConn *pConn, ChoirErr *pErr,
                                     ChoirLogShape *p,
                                     const ChoirLogSpec *pSpec) {
  memset(p, 0, sizeof(*p));
  p->pSpec = pSpec;
  if (pErr->rc != SQLITE_OK) {
    return;
  }
  p->zTable = choirLogQuote(pErr, pSpec->zTable);
  logReadColumns(pConn, pErr, p);
  logReadKind(pConn, pErr, p);
  logReadIndexes(pConn, pErr, p);
}

CHOIR_PRIVATE const ChoirLogColumn *choirLogKeyColumn(const ChoirLogShape *p,
                                                      int i) {
  return &p->aCol[p->aKey[i].iCol];
}

CHOIR_PRIVATE sqlite3_stmt *choirLogPrepare(ChoirConn *pConn, ChoirErr *pErr,
                                            const char *zFmt, ...) {
  sqlite3_stmt *p = NULL;
  va_list ap;
  char *z;
  va_start(ap, zFmt);
  z = choirVmprintf(pErr, zFmt, ap);
  va_end(ap);
  if (z) {
    choirErrDb(pErr, pConn->db, sqlite3_prepare_v2(pConn->db, z, -1, &p, NULL));
  }
  sqlite3_free(z);
  return p;
}
