/* SPDX-License-Identifier: MIT */
/*
** The generator of triggers that record every change of one table, in SQL
** that any SQLite from 3.40 runs without choir.
**
** What is recorded, and when:
**
**   insert  AFTER INSERT, one row in action_log
**   update  AFTER UPDATE, when a watched column changed (IS NOT, byte by byte,
**           whatever the column's collation); an update that changes nothing
**           is not recorded
**   delete  AFTER DELETE
**   a changed key is a delete of the old key and an insert of the new one
**
** AFTER, because a BEFORE trigger also runs for rows that OR IGNORE, OR FAIL
** or RAISE(IGNORE) then leave alone. A trigger of the host on the same table
** may run first and change the row again, so each record is guarded: an insert
** or update is recorded only while the row is there, a delete only while it is
** not. Hence the last record of a key always agrees with the table, and every
** key that changed has a record.
**
** REPLACE deletes rows without firing delete triggers (unless
** recursive_triggers is on). The row whose key is written again needs nothing:
** its record is the insert. For rows that another UNIQUE index displaces, a
** BEFORE trigger writes down, as finished log entries in _choir_log_candidate,
** what that index says may go. A delete trigger that does fire crosses its
** candidate out; the AFTER trigger records the candidates whose row is gone.
** Those that stayed (OR IGNORE, UPSERT) do no harm, and only the last 32 are
** kept. Nothing is written while nothing conflicts: that costs one look-up for
** each UNIQUE index beside the key, and nothing where there is none.
**
** No JSON function is used: SQLite 3.40 counts them as unsafe, so that with
** trusted_schema off a trigger that calls one makes its table unwritable.
**
** Limits: keys of at most 8 columns; UNIQUE indexes on expressions are refused;
** rows whose key is NULL are told apart by nothing; a trigger of the host that
** ends a statement half done (RAISE(IGNORE) after the change, a failure under
** OR FAIL) also ends the triggers behind it.
*/
#include "log.h"

#define LOG_KEY_MAX 8

typedef struct LogColumn {
  char *zName;
  char *zSql;  /* the name as SQL writes it: quoted where it must be */
  char *zColl; /* declared collation */
  u8 bTyped;   /* affinity decides the type: IS NOT sees every change */
  u8 bText;    /* affinity leaves text, blob and NULL */
} LogColumn;

typedef struct LogPart { /* one column of an index */
  int iCol;
  char *zColl;
} LogPart;

typedef struct LogIndex {
  LogPart *aPart;
  int nPart;
  char *zWhere; /* of a partial index */
} LogIndex;

typedef struct LogShape {
  const ChoirLogSpec *pSpec;
  char *zTable; /* as SQL writes it */
  LogColumn *aCol;
  int nCol;
  LogIndex *aIdx; /* UNIQUE; the key's own only where it is loose */
  int nIdx;
  LogPart aKey[LOG_KEY_MAX];
  int nKey;
  u8 bRowid;     /* the key is the rowid */
  u8 bGenerated; /* has generated columns: UPDATE OF would miss them */
} LogShape;

static void logIndexFree(LogIndex *p) {
  int i;
  for (i = 0; i < p->nPart; i++) {
    sqlite3_free(p->aPart[i].zColl);
  }
  sqlite3_free(p->aPart);
  sqlite3_free(p->zWhere);
}

static void logShapeFree(LogShape *p) {
  int i;
  for (i = 0; i < p->nCol; i++) {
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

/* A name as SQL writes it; caller frees. */
static char *logQuote(ChoirErr *pErr, const char *z) {
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
static void logAffinity(LogColumn *p, const char *z) {
  int bInt = sqlite3_strlike("%INT%", z, 0) == 0;
  p->bText = !bInt && (sqlite3_strlike("%CHAR%", z, 0) == 0 ||
                       sqlite3_strlike("%CLOB%", z, 0) == 0 ||
                       sqlite3_strlike("%TEXT%", z, 0) == 0);
  p->bTyped = bInt || p->bText ||
              (z[0] != 0 && sqlite3_stricmp(z, "ANY") != 0 &&
               sqlite3_strlike("%BLOB%", z, 0) != 0);
}

static void logReadColumns(ChoirConn *pConn, ChoirErr *pErr, LogShape *p) {
  sqlite3_stmt *pStmt = logPragma(pConn, pErr, "table_xinfo", p->pSpec->zTable);
  while (choirStep(pErr, pStmt)) {
    int iKey = sqlite3_column_int(pStmt, 5);
    int eHidden = sqlite3_column_int(pStmt, 6);
    const char *zType = (const char *)sqlite3_column_text(pStmt, 2);
    LogColumn *a =
        choirRealloc(pErr, p->aCol, (u64)(p->nCol + 1) * sizeof(LogColumn));
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
      a[p->nCol].zSql = logQuote(pErr, a[p->nCol].zName);
      sqlite3_table_column_metadata(pConn->db, choirSchema(pConn),
                                    p->pSpec->zTable, a[p->nCol].zName, NULL,
                                    &zColl, NULL, NULL, NULL);
      a[p->nCol].zColl = choirMprintf(pErr, "%s", zColl ? zColl : "");
    }
    p->bGenerated |= eHidden >= 2;
    if (iKey > LOG_KEY_MAX) {
      choirErrSet(pErr, SQLITE_ERROR,
                  "the key of table %s has more than %d columns",
                  p->pSpec->zTable, LOG_KEY_MAX);
    } else if (iKey > 0) {
      p->aKey[iKey - 1].iCol = p->nCol;
      p->nKey = p->nKey < iKey ? iKey : p->nKey;
    }
    p->nCol++;
  }
  sqlite3_finalize(pStmt);
  if (pErr->rc == SQLITE_OK && p->nKey == 0) {
    choirErrSet(pErr, SQLITE_ERROR, "table %s %s", p->pSpec->zTable,
                p->nCol ? "has no PRIMARY KEY to tell its rows apart"
                        : "does not exist");
  }
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

static void logReadWhere(ChoirConn *pConn, ChoirErr *pErr, LogIndex *pIdx,
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

static void logReadParts(ChoirConn *pConn, ChoirErr *pErr, LogShape *pShape,
                         LogIndex *p, const char *zName) {
  sqlite3_stmt *pStmt = logPragma(pConn, pErr, "index_xinfo", zName);
  while (choirStep(pErr, pStmt)) {
    LogPart *a;
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
    a = choirRealloc(pErr, p->aPart, (u64)(p->nPart + 1) * sizeof(LogPart));
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

/* Does equality in the key's index mean the same bytes and type? */
static int logKeyExact(const LogShape *p, int i) {
  return p->bRowid || (p->aCol[p->aKey[i].iCol].bTyped && p->aKey[i].zColl &&
                       sqlite3_stricmp(p->aKey[i].zColl, "BINARY") == 0);
}

/* The key's collations are those of its own index. Returns 1 when different
** keys may be equal there, so that REPLACE of one displaces the other. */
static int logTakeKey(ChoirErr *pErr, LogShape *pShape, const LogIndex *p) {
  int i, j, bLoose = 0;
  pShape->bRowid = 0;
  for (i = 0; i < p->nPart; i++) {
    for (j = 0; j < pShape->nKey; j++) {
      if (pShape->aKey[j].iCol == p->aPart[i].iCol &&
          pShape->aKey[j].zColl == NULL) {
        pShape->aKey[j].zColl = choirMprintf(
            pErr, "%s", p->aPart[i].zColl ? p->aPart[i].zColl : "");
        bLoose |= !logKeyExact(pShape, j);
        break;
      }
    }
  }
  return bLoose;
}

static void logReadIndexes(ChoirConn *pConn, ChoirErr *pErr, LogShape *p) {
  sqlite3_stmt *pStmt = logPragma(pConn, pErr, "index_list", p->pSpec->zTable);
  p->bRowid = p->nKey == 1;
  while (choirStep(pErr, pStmt)) {
    const char *zName = (const char *)sqlite3_column_text(pStmt, 1);
    const char *zOrigin = (const char *)sqlite3_column_text(pStmt, 3);
    LogIndex idx = {NULL, 0, NULL};
    LogIndex *a;
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
    a = choirRealloc(pErr, p->aIdx, (u64)(p->nIdx + 1) * sizeof(LogIndex));
    if (a == NULL) {
      logIndexFree(&idx);
      break;
    }
    p->aIdx = a;
    a[p->nIdx++] = idx;
  }
  sqlite3_finalize(pStmt);
}

/* ------------------------------------------------------------ expressions */

static const LogColumn *logKeyColumn(const LogShape *p, int i) {
  return &p->aCol[p->aKey[i].iCol];
}

/* ` COLLATE zColl`, unless the column has it anyway. */
static void logCollate(ChoirBuf *b, const LogColumn *pCol, const char *zColl) {
  if (zColl && pCol->zColl && sqlite3_stricmp(zColl, pCol->zColl) != 0) {
    choirBufPrintf(b, " COLLATE \"%w\"", zColl);
  }
}

/* `zA.col` is `zB.col`, byte by byte and type by type. */
static void logSame(ChoirBuf *b, const LogColumn *pCol, const char *zA,
                    const char *zB) {
  const char *z = pCol->zSql;
  choirBufPrintf(b, "%s.%s IS %s.%s", zA, z, zB, z);
  logCollate(b, pCol, "BINARY");
  if (!pCol->bTyped) {
    choirBufPrintf(b, " AND typeof(%s.%s)=typeof(%s.%s)", zA, z, zB, z);
  }
}

static void logSameKey(ChoirBuf *b, const LogShape *p, const char *zA,
                       const char *zB) {
  int i;
  for (i = 0; i < p->nKey; i++) {
    choirBufText(b, i ? " AND " : "");
    logSame(b, logKeyColumn(p, i), zA, zB);
  }
}

/* Part i of the key of zRow: NEW, OLD, or a candidate (NULL). */
static char *logKeyPart(ChoirErr *pErr, const LogShape *p, const char *zRow,
                        int i) {
  if (zRow) {
    return choirMprintf(pErr, "%s.%s", zRow, logKeyColumn(p, i)->zSql);
  }
  if (p->nKey == 1) {
    return choirMprintf(pErr, "_choir_log_candidate.pk");
  }
  return choirMprintf(pErr, "_choir_log_candidate.k%d", i + 1);
}

/* Is there a row with exactly the key of zRow? Found by the key's index. */
static void logFind(ChoirBuf *b, const LogShape *p, const char *zRow,
                    int bNot) {
  int i;
  if (p->nKey == 1 && logKeyExact(p, 0) && zRow) {
    const char *z = logKeyColumn(p, 0)->zSql;
    choirBufPrintf(b, "%s.%s %sIN(SELECT %s FROM %s)", zRow, z,
                   bNot ? "NOT " : "", z, p->zTable);
    return;
  }
  choirBufPrintf(b, "%sEXISTS(SELECT 1 FROM %s AS r WHERE ", bNot ? "NOT " : "",
                 p->zTable);
  for (i = 0; i < p->nKey; i++) {
    const LogColumn *pCol = logKeyColumn(p, i);
    char *zPart = logKeyPart(b->pErr, p, zRow, i);
    choirBufPrintf(b, "%sr.%s", i ? " AND " : "", pCol->zSql);
    logCollate(b, pCol, p->aKey[i].zColl);
    choirBufPrintf(b, "=%s", zPart);
    if (!logKeyExact(p, i)) {
      choirBufPrintf(b, " AND r.%s IS %s COLLATE BINARY", pCol->zSql, zPart);
    }
    if (!pCol->bTyped) {
      choirBufPrintf(b, " AND typeof(r.%s)=typeof(%s)", pCol->zSql, zPart);
    }
    sqlite3_free(zPart);
  }
  choirBufText(b, ")");
}

/* Text of these characters alone is a JSON string as it is. */
#define LOG_PLAIN "'*[^] !#-[^-~]*'"

/* The key as action_log.pk holds it: as stored, or a JSON array in which what
** JSON cannot say is an object: {"blob":hex}, {"text":hex}, {"real":"Inf"}. */
static void logKey(ChoirBuf *b, const LogShape *p, const char *zRow) {
  int i;
  if (p->nKey == 1) {
    choirBufPrintf(b, "%s.%s", zRow, logKeyColumn(p, 0)->zSql);
    return;
  }
  choirBufText(b, "'['||");
  for (i = 0; i < p->nKey; i++) {
    char *z = logKeyPart(b->pErr, p, zRow, i);
    int bText = logKeyColumn(p, i)->bText;
    choirBufText(b, i ? "||','||" : "");
    if (!bText) {
      choirBufPrintf(b,
                     "CASE typeof(%s) WHEN 'integer' THEN %s WHEN 'real' THEN"
                     " CASE WHEN %s>-9e999 AND %s<9e999 THEN"
                     " printf('%%!.17g',%s) ELSE printf('{\"real\":\"%%g\"}',"
                     "%s) END ELSE ",
                     z, z, z, z, z, z);
    }
    choirBufPrintf(b,
                   "CASE WHEN typeof(%s)<>'text' OR instr(%s,char(0)) OR %s"
                   " GLOB " LOG_PLAIN " THEN '{\"'||typeof(%s)||'\":\"'||"
                   "hex(%s)||'\"}' ELSE '\"'||%s||'\"' END%s",
                   z, z, z, z, z, z, bText ? "" : " END");
    sqlite3_free(z);
  }
  choirBufText(b, "||']'");
}

/* One value of a payload as JSON text; zX is the SQL of the column. */
static void logValue(ChoirBuf *b, int eKind, const char *zX) {
  switch (eKind) {
  case CHOIR_LOG_INT:
    choirBufPrintf(b, "CASE WHEN typeof(%s)='integer' THEN %s ELSE 'null' END",
                   zX, zX);
    break;
  case CHOIR_LOG_REAL:
    choirBufPrintf(b,
                   "CASE WHEN typeof(%s) IN('real','integer') AND %s>-9e999"
                   " AND %s<9e999 THEN printf('%%!.15g',%s) ELSE 'null' END",
                   zX, zX, zX, zX);
    break;
  case CHOIR_LOG_ID:
    choirBufPrintf(b,
                   "CASE WHEN typeof(%s)<>'text' OR %s GLOB " LOG_PLAIN
                   " THEN 'null' ELSE '\"'||substr(%s,1,200)||'\"' END",
                   zX, zX, zX);
    break;
  default: /* a control character would need another escape: null */
    choirBufPrintf(b,
                   "CASE WHEN typeof(%s)<>'text' OR %s GLOB '*['||char(1)||"
                   "'-'||char(31)||']*' THEN 'null' ELSE '\"'||replace("
                   "replace(substr(%s,1,200),'\\','\\\\'),'\"','\\\"')||'\"'"
                   " END",
                   zX, zX, zX);
    break;
  }
}

enum { LOG_BARE, LOG_NAME, LOG_ROW, LOG_CHANGE };

/* The payload of zRow: {}, its first field, all fields; for LOG_CHANGE also what a FROM column was, if it changed. Kept
** short, for a schema is read whenever its file is opened. */
static void logPayload(ChoirBuf *b, const LogShape *p, const char *zRow,
                       int eWhat) {
  const ChoirLogField *f = p->pSpec->aField;
  if (eWhat == LOG_BARE || f->zKey == NULL) {
    choirBufText(b, "'{}'");
    return;
  }
  for (; f->zKey; f++) {
    int bFrom = f->eKind == CHOIR_LOG_FROM;
    char *z = choirMprintf(b->pErr, "%s.%s", bFrom ? "OLD" : zRow, f->zColumn);
    if (bFrom && eWhat == LOG_CHANGE) {
      choirBufPrintf(b, "||CASE WHEN %s IS NEW.%s THEN '' ELSE ',\"%s\":'||", z,
                     f->zColumn, f->zKey);
    } else if (!bFrom) {
      choirBufPrintf(b, "%s\"%s\":'||", f == p->pSpec->aField ? "'{" : "||',",
                     f->zKey);
    }
    if (!bFrom || eWhat == LOG_CHANGE) {
      logValue(b, f->eKind, z ? z : "");
      choirBufText(b, bFrom ? " END" : "");
    }
    sqlite3_free(z);
    if (eWhat == LOG_NAME) {
      break;
    }
  }
  choirBufText(b, "||'}'");
}

/* An expression of the spec with @ as zRow. */
static void logType(ChoirBuf *b, const char *zExpr, const char *zRow) {
  const char *z;
  while ((z = strchr(zExpr, '@')) != NULL) {
    choirBufAppend(b, zExpr, (u64)(z - zExpr));
    choirBufText(b, zRow);
    zExpr = z + 1;
  }
  choirBufText(b, zExpr);
}

/* ------------------------------------------------------------- statements */

#define LOG_INTO "INSERT INTO action_log(action_type,payload,tbl,pk) "

/* SELECT type, payload, tbl, pk WHERE …: the caller appends the condition. */
static void logEntry(ChoirBuf *b, const LogShape *p, const char *zType,
                     const char *zRow, int eWhat) {
  choirBufText(b, "SELECT ");
  logType(b, zType, zRow);
  choirBufText(b, ",");
  logPayload(b, p, zRow, eWhat);
  choirBufPrintf(b, ",%Q,", p->pSpec->zTable);
  logKey(b, p, zRow);
  choirBufText(b, " WHERE ");
}

/* Rows that REPLACE of NEW would displace through a UNIQUE index: not the row
** that is updated itself, and not the one whose key an insert takes. */
static void logConflict(ChoirBuf *b, const LogShape *p, const LogIndex *pIdx,
                        int bUpdate) {
  /* The index's own condition may say table.column: hence no alias. */
  int i;
  choirBufPrintf(b, " FROM %s WHERE ", p->zTable);
  for (i = 0; i < pIdx->nPart; i++) {
    const LogColumn *pCol = &p->aCol[pIdx->aPart[i].iCol];
    choirBufPrintf(b, "%s.%s", p->zTable, pCol->zSql);
    logCollate(b, pCol, pIdx->aPart[i].zColl);
    choirBufPrintf(b, "=NEW.%s AND ", pCol->zSql);
  }
  if (pIdx->zWhere) {
    choirBufPrintf(b, "(%s) AND ", pIdx->zWhere);
  }
  choirBufText(b, "NOT(");
  logSameKey(b, p, p->zTable, bUpdate ? "OLD" : "NEW");
  choirBufText(b, ")");
}

/* Writes them down, as the log entries they would be. */
static void logNote(ChoirBuf *b, const LogShape *p, const LogIndex *pIdx,
                    int bUpdate) {
  int i;
  choirBufText(b, "INSERT INTO _choir_log_candidate(action_type,payload,tbl,"
                  "pk");
  for (i = 0; i < p->nKey && p->nKey > 1; i++) {
    choirBufPrintf(b, ",k%d", i + 1);
  }
  choirBufText(b, ") SELECT ");
  logType(b, p->pSpec->zDelete, p->zTable);
  choirBufText(b, ",");
  logPayload(b, p, p->zTable, LOG_BARE);
  choirBufPrintf(b, ",%Q,", p->pSpec->zTable);
  logKey(b, p, p->zTable);
  for (i = 0; i < p->nKey && p->nKey > 1; i++) {
    choirBufPrintf(b, ",%s.%s", p->zTable, logKeyColumn(p, i)->zSql);
  }
  logConflict(b, p, pIdx, bUpdate);
  choirBufText(b, ";");
}

/* Records the candidates that are gone: a trigger on their table does it, and
** takes them away, when gone is set. */
static void logSettle(ChoirBuf *b, const LogShape *p) {
  choirBufPrintf(b, "UPDATE _choir_log_candidate SET gone=1 WHERE tbl=%Q AND ",
                 p->pSpec->zTable);
  logFind(b, p, NULL, 1);
  choirBufText(b, ";");
}

/* OLD goes in the open: it is no candidate any more. */
static void logCrossOut(ChoirBuf *b, const LogShape *p) {
  choirBufPrintf(b, "DELETE FROM _choir_log_candidate WHERE tbl=%Q AND pk IS ",
                 p->pSpec->zTable);
  logKey(b, p, "OLD");
  choirBufText(b, " COLLATE BINARY");
}

/* --------------------------------------------------------------- triggers */

/* May the condition (NULL: none) name the column? Yes where in doubt. */
static int logIsNamed(ChoirErr *pErr, const char *zWhere, const char *zColumn) {
  char *zLike = zWhere ? choirMprintf(pErr, "%%%s%%", zColumn) : NULL;
  int b = zLike && (strpbrk(zColumn, "\"`]") != NULL ||
                    sqlite3_strlike(zLike, zWhere, 0) == 0);
  sqlite3_free(zLike);
  return b;
}

/* `OF col, …` for the columns of mKey (1: key, 2: unique, 4: watched); left
** out where a generated column could change without being named. */
static void logOf(ChoirBuf *b, const LogShape *p, int mKind) {
  static const char *const azRowid[] = {"rowid", "oid", "_rowid_"};
  int i, j, k, n = 0;
  if (p->bGenerated || ((mKind & 4) && p->pSpec->azWatch[0] == NULL)) {
    return;
  }
  choirBufText(b, " OF ");
  for (i = 0; i < p->nCol; i++) {
    int bIn = 0;
    for (j = 0; j < p->nKey && (mKind & 1); j++) {
      bIn |= p->aKey[j].iCol == i;
    }
    for (j = 0; j < p->nIdx && (mKind & 2); j++) {
      for (k = 0; k < p->aIdx[j].nPart; k++) {
        bIn |= p->aIdx[j].aPart[k].iCol == i;
      }
      bIn |= logIsNamed(b->pErr, p->aIdx[j].zWhere, p->aCol[i].zName);
    }
    for (j = 0; p->pSpec->azWatch[j] && (mKind & 4); j++) {
      bIn |= sqlite3_stricmp(p->pSpec->azWatch[j], p->aCol[i].zName) == 0;
    }
    if (bIn) {
      choirBufPrintf(b, "%s%s", n++ ? "," : "", p->aCol[i].zSql);
    }
  }
  for (i = 0; i < 3 && p->bRowid && (mKind & 1); i++) {
    for (j = 0; j < p->nCol; j++) {
      if (sqlite3_stricmp(p->aCol[j].zName, azRowid[i]) == 0) {
        break;
      }
    }
    if (j == p->nCol) { /* SET rowid=… moves the key as well */
      choirBufPrintf(b, ",%s", azRowid[i]);
    }
  }
}

/* Every watched column is as it was. */
static void logUnchanged(ChoirBuf *b, const LogShape *p) {
  int i, j, n = 0;
  for (i = 0; i < p->nCol; i++) {
    int bIn = p->pSpec->azWatch[0] == NULL;
    for (j = 0; p->pSpec->azWatch[j]; j++) {
      bIn |= sqlite3_stricmp(p->pSpec->azWatch[j], p->aCol[i].zName) == 0;
    }
    if (bIn) {
      choirBufText(b, n++ ? " AND " : "");
      logSame(b, &p->aCol[i], "OLD", "NEW");
    }
  }
}

static void logInsert(ChoirBuf *b, const LogShape *p) {
  choirBufPrintf(b, "AFTER INSERT ON %s BEGIN ", p->zTable);
  if (p->nIdx) {
    logSettle(b, p);
  }
  choirBufText(b, LOG_INTO);
  logEntry(b, p, p->pSpec->zInsert, "NEW", LOG_ROW);
  logFind(b, p, "NEW", 0);
  choirBufText(b, ";END");
}

/* A changed key: the row of the old one is gone, that of the new one came. */
static void logUpdate(ChoirBuf *b, const LogShape *p) {
  ChoirBuf bStay;
  choirBufInit(&bStay, b->pErr, CHOIR_BUF_SQL);
  logSameKey(&bStay, p, "OLD", "NEW");
  choirBufText(b, "AFTER UPDATE");
  logOf(b, p, 5);
  choirBufPrintf(b, " ON %s WHEN NOT(%s AND ", p->zTable, bStay.a);
  logUnchanged(b, p);
  if (p->pSpec->zUnless) {
    choirBufPrintf(b, " OR %s AND(%s)", bStay.a, p->pSpec->zUnless);
  }
  choirBufText(b, ") BEGIN ");
  if (p->nIdx) {
    logCrossOut(b, p);
    choirBufPrintf(b, " AND NOT(%s);", bStay.a);
  }
  choirBufText(b, LOG_INTO);
  logEntry(b, p, p->pSpec->zDelete, "OLD", LOG_BARE);
  logFind(b, p, "OLD", 1);
  choirBufPrintf(b, ";" LOG_INTO "SELECT CASE WHEN %s THEN ", bStay.a);
  logType(b, p->pSpec->zUpdate, "NEW");
  choirBufText(b, " ELSE ");
  logType(b, p->pSpec->zInsert, "NEW");
  choirBufText(b, " END,");
  logPayload(b, p, "NEW", LOG_CHANGE);
  choirBufPrintf(b, ",%Q,", p->pSpec->zTable);
  logKey(b, p, "NEW");
  choirBufText(b, " WHERE ");
  logFind(b, p, "NEW", 0);
  choirBufText(b, ";END");
  choirBufFree(&bStay);
}

static void logDelete(ChoirBuf *b, const LogShape *p) {
  choirBufPrintf(b, "AFTER DELETE ON %s BEGIN ", p->zTable);
  if (p->nIdx) {
    logCrossOut(b, p);
    choirBufText(b, ";");
    logSettle(b, p); /* a cascade may have taken the row that displaced */
  }
  choirBufText(b, LOG_INTO);
  logEntry(b, p, p->pSpec->zDelete, "OLD", LOG_NAME);
  logFind(b, p, "OLD", 1);
  choirBufText(b, ";END");
}

/* After an update: what it displaced. */
static void logDisplaced(ChoirBuf *b, const LogShape *p) {
  choirBufText(b, "AFTER UPDATE");
  logOf(b, p, 3);
  choirBufPrintf(b,
                 " ON %s WHEN EXISTS(SELECT 1 FROM _choir_log_candidate"
                 " WHERE tbl=%Q) BEGIN ",
                 p->zTable, p->pSpec->zTable);
  logCrossOut(b, p);
  choirBufText(b, " AND NOT(");
  logSameKey(b, p, "OLD", "NEW");
  choirBufText(b, ");");
  logSettle(b, p);
  choirBufText(b, "END");
}

/* BEFORE INSERT and BEFORE UPDATE: note what may be displaced. */
static void logForesee(ChoirBuf *b, const LogShape *p, int bUpdate) {
  int i;
  choirBufPrintf(b, "BEFORE %s", bUpdate ? "UPDATE" : "INSERT");
  if (bUpdate) {
    logOf(b, p, 3);
  }
  choirBufPrintf(b, " ON %s WHEN ", p->zTable);
  for (i = 0; i < p->nIdx; i++) {
    choirBufText(b, i ? " OR EXISTS(SELECT 1" : "EXISTS(SELECT 1");
    logConflict(b, p, &p->aIdx[i], bUpdate);
    choirBufText(b, ")");
  }
  choirBufText(b, " BEGIN ");
  for (i = 0; i < p->nIdx; i++) {
    logNote(b, p, &p->aIdx[i], bUpdate);
  }
  choirBufText(b, "END");
}

static void logForeseeInsert(ChoirBuf *b, const LogShape *p) {
  logForesee(b, p, 0);
}

static void logForeseeUpdate(ChoirBuf *b, const LogShape *p) {
  logForesee(b, p, 1);
}

/* Every column that the spec names must be there. */
static void logCheckSpec(ChoirErr *pErr, const LogShape *p) {
  const ChoirLogSpec *s = p->pSpec;
  int i, j;
  for (i = 0; pErr->rc == SQLITE_OK; i++) {
    const char *z = i < 12 ? s->azWatch[i] : s->aField[i - 12].zColumn;
    if (z == NULL) {
      if (i >= 12) {
        break;
      }
      i = 11; /* on to the fields */
      continue;
    }
    for (j = 0; j < p->nCol && sqlite3_stricmp(z, p->aCol[j].zName); j++) {
    }
    if (j == p->nCol) {
      choirErrSet(pErr, SQLITE_ERROR, "table %s has no column %s", s->zTable,
                  z);
    }
  }
}

CHOIR_PRIVATE int choirLogTriggers(ChoirConn *pConn, ChoirErr *pErr,
                                   const ChoirLogSpec *pSpec,
                                   ChoirLogTrigger a[CHOIR_LOG_TRIGGERS]) {
  static const struct {
    const char *zEvent;
    void (*x)(ChoirBuf *, const LogShape *);
    int bCandidates; /* only where rows can be displaced unseen */
  } aEvent[CHOIR_LOG_TRIGGERS] = {
      {"insert", logInsert, 0},
      {"update", logUpdate, 0},

      {"delete", logDelete, 0},
      {"displaced", logDisplaced, 1},
      {"foresee_insert", logForeseeInsert, 1},
      {"foresee_update", logForeseeUpdate, 1},
  };
  LogShape shape;
  int i, n = 0;
  memset(a, 0, CHOIR_LOG_TRIGGERS * sizeof(*a));
  memset(&shape, 0, sizeof(shape));
  shape.pSpec = pSpec;
  shape.zTable = logQuote(pErr, pSpec->zTable);
  logReadColumns(pConn, pErr, &shape);
  logReadIndexes(pConn, pErr, &shape);
  logCheckSpec(pErr, &shape);
  for (i = 0; i < CHOIR_LOG_TRIGGERS && pErr->rc == SQLITE_OK; i++) {
    ChoirBuf b;
    if (aEvent[i].bCandidates && shape.nIdx == 0) {
      continue;
    }
    choirBufInit(&b, pErr, CHOIR_BUF_SQL);
    a[n].zName =
        choirMprintf(pErr, "_choir_log_%s_%s", pSpec->zTable, aEvent[i].zEvent);
    choirBufPrintf(&b, "\"%w\" ", a[n].zName ? a[n].zName : "");
    aEvent[i].x(&b, &shape);
    a[n++].zSql = choirBufTake(&b);
  }
  logShapeFree(&shape);
  return n;
}

CHOIR_PRIVATE void choirLogTriggersFree(ChoirLogTrigger *a) {
  int i;
  for (i = 0; i < CHOIR_LOG_TRIGGERS; i++) {
    sqlite3_free(a[i].zName);
    sqlite3_free(a[i].zSql);
    a[i].zName = a[i].zSql = NULL;
  }
}
