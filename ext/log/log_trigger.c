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

/* ------------------------------------------------------------ expressions */

CHOIR_PRIVATE void choirLogCollate(ChoirBuf *b, const ChoirLogColumn *pCol,
                                   const char *zColl) {
  if (zColl && pCol->zColl && sqlite3_stricmp(zColl, pCol->zColl) != 0) {
    choirBufPrintf(b, " COLLATE \"%w\"", zColl);
  }
}

/* `zA.col` is `zB.col`, byte by byte and type by type. */
static void logSame(ChoirBuf *b, const ChoirLogColumn *pCol, const char *zA,
                    const char *zB) {
  const char *z = pCol->zSql;
  choirBufPrintf(b, "%s.%s IS %s.%s", zA, z, zB, z);
  choirLogCollate(b, pCol, "BINARY");
  if (!pCol->bTyped) {
    choirBufPrintf(b, " AND typeof(%s.%s)=typeof(%s.%s)", zA, z, zB, z);
  }
}

static void logSameKey(ChoirBuf *b, const ChoirLogShape *p, const char *zA,
                       const char *zB) {
  int i;
  for (i = 0; i < p->nKey; i++) {
    choirBufText(b, i ? " AND " : "");
    logSame(b, choirLogKeyColumn(p, i), zA, zB);
  }
}

/* Part i of the key of zRow: NEW, OLD, or a candidate (NULL). */
static char *logKeyPart(ChoirErr *pErr, const ChoirLogShape *p,
                        const char *zRow, int i) {
  if (zRow) {
    return choirMprintf(pErr, "%s.%s", zRow, choirLogKeyColumn(p, i)->zSql);
  }
  if (p->nKey == 1) {
    return choirMprintf(pErr, "_choir_log_candidate.pk");
  }
  return choirMprintf(pErr, "_choir_log_candidate.k%d", i + 1);
}

static void logSlotPart(ChoirBuf *b, const ChoirLogShape *p, int i,
                        const char *zAlias, const char *zPart) {
  const ChoirLogColumn *pCol = choirLogKeyColumn(p, i);
  choirBufPrintf(b, "%s.%s", zAlias, pCol->zSql);
  choirLogCollate(b, pCol, p->aKey[i].zColl);
  choirBufPrintf(b, "=%s", zPart ? zPart : "");
}

CHOIR_PRIVATE void choirLogSlot(ChoirBuf *b, const ChoirLogShape *p,
                                const char *zAlias, const char *zRow) {
  int i;
  for (i = 0; i < p->nKey; i++) {
    char *zPart =
        choirMprintf(b->pErr, "%s.%s", zRow, choirLogKeyColumn(p, i)->zSql);
    choirBufText(b, i ? " AND " : "");
    logSlotPart(b, p, i, zAlias, zPart);
    sqlite3_free(zPart);
  }
}

/* Is there a row with exactly the key of zRow? Found by the key's index. */
static void logFind(ChoirBuf *b, const ChoirLogShape *p, const char *zRow,
                    int bNot) {
  int i;
  if (p->nKey == 1 && choirLogKeyExact(p, 0) && zRow) {
    const char *z = choirLogKeyColumn(p, 0)->zSql;
    choirBufPrintf(b, "%s.%s %sIN(SELECT %s FROM %s)", zRow, z,
                   bNot ? "NOT " : "", z, p->zTable);
    return;
  }
  choirBufPrintf(b, "%sEXISTS(SELECT 1 FROM %s AS r WHERE ", bNot ? "NOT " : "",
                 p->zTable);
  for (i = 0; i < p->nKey; i++) {
    const ChoirLogColumn *pCol = choirLogKeyColumn(p, i);
    char *zPart = logKeyPart(b->pErr, p, zRow, i);
    choirBufText(b, i ? " AND " : "");
    logSlotPart(b, p, i, "r", zPart);
    if (!choirLogKeyExact(p, i)) {
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
static void logKey(ChoirBuf *b, const ChoirLogShape *p, const char *zRow) {
  int i;
  if (p->nKey == 1) {
    choirBufPrintf(b, "%s.%s", zRow, choirLogKeyColumn(p, 0)->zSql);
    return;
  }
  choirBufText(b, "'['||");
  for (i = 0; i < p->nKey; i++) {
    char *z = logKeyPart(b->pErr, p, zRow, i);
    int bText = choirLogKeyColumn(p, i)->bText;
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

/* The payload of zRow: {}, its first field, all fields; for LOG_CHANGE also what
** a FROM column was, if it changed. Kept short, for a schema is read whenever its
** file is opened. */
static void logPayload(ChoirBuf *b, const ChoirLogShape *p, const char *zRow,
                       int eWhat) {
  const ChoirLogField *f = p->pSpec->aField;
  if (eWhat == LOG_BARE || f->zKey == NULL) {
    choirBufText(b, "'{}'");
    return;
  }
  for (; f->zKey; f++) {
    int bFrom = f->eKind == CHOIR_LOG_FROM;
    char *zName = choirLogQuote(b->pErr, f->zColumn);
    char *z = choirMprintf(b->pErr, "%s.%s", bFrom ? "OLD" : zRow, zName);
    if (bFrom && eWhat == LOG_CHANGE) {
      choirBufPrintf(b, "||CASE WHEN %s IS NEW.%s THEN '' ELSE ',\"%s\":'||", z,
                     zName, f->zKey);
    } else if (!bFrom) {
      choirBufPrintf(b, "%s\"%s\":'||", f == p->pSpec->aField ? "'{" : "||',",
                     f->zKey);
    }
    if (!bFrom || eWhat == LOG_CHANGE) {
      logValue(b, f->eKind, z ? z : "");
      choirBufText(b, bFrom ? " END" : "");
    }
    sqlite3_free(zName);
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
static void logEntry(ChoirBuf *b, const ChoirLogShape *p, const char *zType,
                     const char *zRow, int eWhat) {
  choirBufText(b, "SELECT ");
  logType(b, zType, zRow);
  choirBufText(b, ",");
  logPayload(b, p, zRow, eWhat);
  choirBufPrintf(b, ",%Q,", p->pSpec->zTable);
  logKey(b, p, zRow);
  choirBufText(b, " WHERE ");
}

/* Not the row that is updated itself, nor the one whose key an insert takes. */
CHOIR_PRIVATE void choirLogConflict(ChoirBuf *b, const ChoirLogShape *p,
                                    const ChoirLogIndex *pIdx, int bUpdate) {
  /* The index's own condition may say table.column: hence no alias. */
  int i;
  choirBufPrintf(b, " FROM %s WHERE ", p->zTable);
  for (i = 0; i < pIdx->nPart; i++) {
    const ChoirLogColumn *pCol = &p->aCol[pIdx->aPart[i].iCol];
    choirBufPrintf(b, "%s.%s", p->zTable, pCol->zSql);
    choirLogCollate(b, pCol, pIdx->aPart[i].zColl);
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
static void logNote(ChoirBuf *b, const ChoirLogShape *p,
                    const ChoirLogIndex *pIdx, int bUpdate) {
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
    choirBufPrintf(b, ",%s.%s", p->zTable, choirLogKeyColumn(p, i)->zSql);
  }
  choirLogConflict(b, p, pIdx, bUpdate);
  choirBufText(b, ";");
}

/* Records the candidates that are gone: a trigger on their table does it, and
** takes them away, when gone is set. */
static void logSettle(ChoirBuf *b, const ChoirLogShape *p) {
  choirBufPrintf(b, "UPDATE _choir_log_candidate SET gone=1 WHERE tbl=%Q AND ",
                 p->pSpec->zTable);
  logFind(b, p, NULL, 1);
  choirBufText(b, ";");
}

/* OLD goes in the open: it is no candidate any more. */
static void logCrossOut(ChoirBuf *b, const ChoirLogShape *p) {
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
CHOIR_PRIVATE void choirLogOf(ChoirBuf *b, const ChoirLogShape *p, int mKind) {
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
      choirBufPrintf(b, "%s%s", n++ ? "," : "", azRowid[i]);
    }
  }
}

CHOIR_PRIVATE void choirLogUnchanged(ChoirBuf *b, const ChoirLogShape *p) {
  int i, j;
  logSameKey(b, p, "OLD", "NEW");
  for (i = 0; i < p->nCol; i++) {
    int bIn = p->pSpec->azWatch[0] == NULL;
    for (j = 0; p->pSpec->azWatch[j]; j++) {
      bIn |= sqlite3_stricmp(p->pSpec->azWatch[j], p->aCol[i].zName) == 0;
    }
    for (j = 0; j < p->nKey; j++) {
      bIn &= p->aKey[j].iCol != i; /* said already */
    }
    if (bIn) {
      choirBufText(b, " AND ");
      logSame(b, &p->aCol[i], "OLD", "NEW");
    }
  }
  if (p->pSpec->zUnless) {
    choirBufText(b, " OR ");
    logSameKey(b, p, "OLD", "NEW");
    choirBufPrintf(b, " AND(%s)", p->pSpec->zUnless);
  }
}

static void logInsert(ChoirBuf *b, const ChoirLogShape *p) {
  choirBufPrintf(b, "AFTER INSERT ON %s BEGIN ", p->zTable);
  if (p->nIdx) {
    logSettle(b, p);
  }
  choirBufText(b, LOG_INTO);
  logEntry(b, p, p->pSpec->zInsert, "NEW", LOG_ROW);
  logFind(b, p, "NEW", 0);
  choirBufText(b, ";END");
}

static void logUpdate(ChoirBuf *b, const ChoirLogShape *p) {
  choirBufText(b, "AFTER UPDATE");
  choirLogOf(b, p, 5);
  choirBufPrintf(b, " ON %s WHEN ", p->zTable);
  logSameKey(b, p, "OLD", "NEW");
  choirBufText(b, " AND NOT(");
  choirLogUnchanged(b, p);
  choirBufText(b, ") BEGIN " LOG_INTO);
  logEntry(b, p, p->pSpec->zUpdate, "NEW", LOG_CHANGE);
  logFind(b, p, "NEW", 0);
  choirBufText(b, ";END");
}

/* A changed key: the row of the old one is gone, that of the new one came. */
static void logRekey(ChoirBuf *b, const ChoirLogShape *p) {
  choirBufText(b, "AFTER UPDATE");
  choirLogOf(b, p, 1);
  choirBufPrintf(b, " ON %s WHEN NOT(", p->zTable);
  logSameKey(b, p, "OLD", "NEW");
  choirBufText(b, ") BEGIN ");
  if (p->nIdx) {
    logCrossOut(b, p);
    choirBufText(b, ";");
  }
  choirBufText(b, LOG_INTO);
  logEntry(b, p, p->pSpec->zDelete, "OLD", LOG_BARE);
  logFind(b, p, "OLD", 1);
  choirBufText(b, ";" LOG_INTO);
  logEntry(b, p, p->pSpec->zInsert, "NEW", LOG_CHANGE);
  logFind(b, p, "NEW", 0);
  choirBufText(b, ";END");
}

static void logDelete(ChoirBuf *b, const ChoirLogShape *p) {
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
static void logDisplaced(ChoirBuf *b, const ChoirLogShape *p) {
  choirBufText(b, "AFTER UPDATE");
  choirLogOf(b, p, 3);
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
static void logForesee(ChoirBuf *b, const ChoirLogShape *p, int bUpdate) {
  int i;
  choirBufPrintf(b, "BEFORE %s", bUpdate ? "UPDATE" : "INSERT");
  if (bUpdate) {
    choirLogOf(b, p, 3);
  }
  choirBufPrintf(b, " ON %s WHEN ", p->zTable);
  for (i = 0; i < p->nIdx; i++) {
    choirBufText(b, i ? " OR EXISTS(SELECT 1" : "EXISTS(SELECT 1");
    choirLogConflict(b, p, &p->aIdx[i], bUpdate);
    choirBufText(b, ")");
  }
  choirBufText(b, " BEGIN ");
  for (i = 0; i < p->nIdx; i++) {
    logNote(b, p, &p->aIdx[i], bUpdate);
    choirLogImageConflict(b, p, &p->aIdx[i], bUpdate);
  }
  choirBufText(b, "END");
}

static void logForeseeInsert(ChoirBuf *b, const ChoirLogShape *p) {
  logForesee(b, p, 0);
}

static void logForeseeUpdate(ChoirBuf *b, const ChoirLogShape *p) {
  logForesee(b, p, 1);
}

static void logNeedColumn(ChoirErr *pErr, const ChoirLogShape *p,
                          const char *z) {
  int i;
  for (i = 0; i < p->nCol && sqlite3_stricmp(z, p->aCol[i].zName); i++) {
  }
  if (i == p->nCol && pErr->rc == SQLITE_OK) {
    choirErrSet(pErr, SQLITE_ERROR, "table %s has no column %s",
                p->pSpec->zTable, z);
  }
}

/* Every column that the spec names must be there. */
static void logCheckSpec(ChoirErr *pErr, const ChoirLogShape *p) {
  int i;
  for (i = 0; p->pSpec->azWatch[i]; i++) {
    logNeedColumn(pErr, p, p->pSpec->azWatch[i]);
  }
  for (i = 0; p->pSpec->aField[i].zKey; i++) {
    logNeedColumn(pErr, p, p->pSpec->aField[i].zColumn);
  }
}

/* Some only where rows can be displaced unseen, or are kept. */
enum { LOG_ALWAYS, LOG_CANDIDATES, LOG_IMAGES };

static const struct {
  const char *zEvent;
  void (*x)(ChoirBuf *, const ChoirLogShape *);
  int eWhen;
} aLogEvent[CHOIR_LOG_TRIGGERS] = {
    {"insert", logInsert, LOG_ALWAYS},
    {"update", logUpdate, LOG_ALWAYS},
    {"rekey", logRekey, LOG_ALWAYS},
    {"delete", logDelete, LOG_ALWAYS},
    {"displaced", logDisplaced, LOG_CANDIDATES},
    {"foresee_insert", logForeseeInsert, LOG_CANDIDATES},
    {"foresee_update", logForeseeUpdate, LOG_CANDIDATES},
    {"image_insert", choirLogImageInsert, LOG_IMAGES},
    {"image_update", choirLogImageUpdate, LOG_IMAGES},
    {"image_delete", choirLogImageDelete, LOG_IMAGES},
    {"image_key", choirLogImageKey, LOG_IMAGES},
};

CHOIR_PRIVATE const char *choirLogEvent(int i) { return aLogEvent[i].zEvent; }

CHOIR_PRIVATE int choirLogTriggers(ChoirConn *pConn, ChoirErr *pErr,
                                   const ChoirLogSpec *pSpec,
                                   const ChoirLogImages *pImages,
                                   const char *zTag,
                                   ChoirLogTrigger a[CHOIR_LOG_TRIGGERS]) {
  ChoirLogShape shape;
  int i, n = 0;
  memset(a, 0, CHOIR_LOG_TRIGGERS * sizeof(*a));
  choirLogShapeRead(pConn, pErr, &shape, pSpec);
  shape.pImages = pImages && pImages->id ? pImages : NULL;
  if (pErr->rc == SQLITE_OK) {
    logCheckSpec(pErr, &shape);
  }
  for (i = 0; i < CHOIR_LOG_TRIGGERS && pErr->rc == SQLITE_OK; i++) {
    ChoirBuf b;
    if ((aLogEvent[i].eWhen == LOG_CANDIDATES && shape.nIdx == 0) ||
        (aLogEvent[i].eWhen == LOG_IMAGES && shape.pImages == NULL)) {
      continue;
    }
    choirBufInit(&b, pErr, CHOIR_BUF_SQL);
    a[n].zName =
        choirMprintf(pErr, "_choir_log_%s_%s", zTag, aLogEvent[i].zEvent);
    choirBufPrintf(&b, "\"%w\" ", a[n].zName ? a[n].zName : "");
    aLogEvent[i].x(&b, &shape);
    a[n++].zSql = choirBufTake(&b);
  }
  choirLogShapeFree(&shape);
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
