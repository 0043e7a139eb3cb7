/* SPDX-License-Identifier: MIT */
/*
** log_undo(): rows of tracked tables as they were.
**
** What is undone is a range of records, and with it ranges of images (see
** log_image.c) of every tracked table: those of the range, [nLo, nHi), and those
** that come to be while undoing, from nEnd on. The first image of a row in them
** is what the row is to be again. So nothing depends on the order of changes,
** and what undoing itself sets off (cascades, triggers of the host) is taken
** back like the rest: passes over all rows go on until one finds nothing to do.
** A trigger that would never let that happen (one that stamps each update) is
** switched off for the last pass, together with all others; by then every row
** has its record.
**
** Undoing a part, with records after it, is refused when one of its rows has
** changed again since.
**
** The undo is itself recorded: the triggers record its changes, and LOG_UNDO
** after them says {"from","to"}, the records undone, and "first", its own first
** record. Undoing that record is a redo.
*/
#include "log.h"

#define UNDO_STUCK 3   /* passes without progress */
#define UNDO_NAMED 100 /* rows named in a result */

typedef struct UndoRange {
  i64 iFrom, iTo; /* records */
} UndoRange;

typedef struct UndoRun {
  ChoirConn *pConn;
  ChoirErr *pErr;
  UndoRange range;
  i64 iLast; /* record of the log when it began */
  int iPass;
  i64 nSet;      /* rows set in this pass */
  i64 nRefused;  /* … refused by a constraint or a trigger */
  i64 nRow;      /* rows set in all, or about that */
  ChoirBuf lost; /* JSON objects: rows that could not be restored */
  i64 nLost;
  int bLast; /* this pass names what is refused */
} UndoRun;

/* "No row has a key above pk" images of one range; pk falls as n grows. */
typedef struct UndoAbove {
  struct UndoFloor {
    i64 n, pk;
  } * a;
  int n;
  i64 nFresh; /* the first that says the same of -1; 0: none */
} UndoAbove;

typedef struct UndoTable {
  UndoRun *pRun;
  ChoirLogTrack *pTrack;
  ChoirLogShape shape;
  ChoirLogRows *pRows;
  i64 nLo, nHi, nEnd; /* images */
  i64 iKept;          /* records after it have images */
  i64 pkLimit;        /* above it, keys came after the range */
  char *zKey;         /* columns of the key in images, as the index compares */
  UndoAbove before, since;
} UndoTable;

/* ------------------------------------------------------- naming what stays */

/* One entry; p has the key's values at aKey (NULL: the whole table). */
static void undoName(UndoRun *p, const char *zTable, sqlite3_stmt *pStmt,
                     const int *aKey, int nKey, const char *zWhy) {
  ChoirBuf *b = &p->lost;
  int i;
  if (p->nLost++ >= UNDO_NAMED) {
    return;
  }
  choirBufText(b, b->n ? ",{\"table\":" : "{\"table\":");
  choirBufJson(b, zTable, -1);
  choirBufText(b, ",\"key\":");
  choirBufText(b, nKey == 1 ? "" : nKey ? "[" : "null");
  for (i = 0; i < nKey; i++) {
    choirBufText(b, i ? "," : "");
    choirBufColumn(b, pStmt, aKey[i], -1);
  }
  choirBufText(b, nKey > 1 ? "]" : "");
  if (zWhy) {
    choirBufText(b, ",\"why\":");
    choirBufJson(b, zWhy, -1);
  }
  choirBufText(b, "}");
}

/* Columns of an image are k, r, c1, c2, …: where its key is. */
static int undoKeyAt(const UndoTable *t, int aKey[CHOIR_LOG_KEY]) {
  int i, j;
  for (i = 0; i < t->shape.nKey; i++) {
    aKey[i] = 1;
    for (j = 0; j < t->pTrack->images.nName && !t->shape.bPseudo; j++) {
      const char *z = t->pTrack->images.azName[j];
      if (z &&
          sqlite3_stricmp(z, choirLogKeyColumn(&t->shape, i)->zName) == 0) {
        aKey[i] = 2 + j;
      }
    }
  }
  return t->shape.nKey;
}

static void undoNameRow(UndoTable *t, sqlite3_stmt *pImage, const char *zWhy) {
  int aKey[CHOIR_LOG_KEY];
  int n = undoKeyAt(t, aKey);
  undoName(t->pRun, t->pTrack->spec.zTable, pImage, aKey, n, zWhy);
}

/* ---------------------------------------------------------------- a table */

static sqlite3_stmt *undoImage(UndoTable *t) {
  ChoirBuf b;
  sqlite3_stmt *p;
  int i;
  choirBufInit(&b, t->pRun->pErr, CHOIR_BUF_SQL);
  for (i = 0; i < t->pTrack->images.nName; i++) {
    choirBufPrintf(&b, ",c%d", i + 1);
  }
  p = choirLogPrepare(t->pRun->pConn, t->pRun->pErr,
                      "SELECT k,r%s FROM \"%w\"._choir_undo_%lld WHERE n=?1",
                      b.n ? b.a : "", choirSchema(t->pRun->pConn),
                      t->pTrack->id);
  choirBufFree(&b);
  return p;
}

/* The first image with a tag of at least iTag. */
static i64 undoFirst(UndoTable *t, i64 iTag) {
  i64 n = 0;
  sqlite3_stmt *p = choirLogPrepare(
      t->pRun->pConn, t->pRun->pErr,
      "SELECT n FROM \"%w\"._choir_undo_%lld WHERE tag<?1 ORDER BY n DESC"
      " LIMIT 1",
      choirSchema(t->pRun->pConn), t->pTrack->id);
  choirBindInt(t->pRun->pErr, p, 1, iTag);
  n = choirStep(t->pRun->pErr, p) ? sqlite3_column_int64(p, 0) : 0;
  sqlite3_finalize(p);
  return n + 1;
}

/* The last record of the log when the first image was made. */
static i64 undoKept(UndoTable *t) {
  i64 iTag = INT64_MAX;
  sqlite3_stmt *p =
      choirLogPrepare(t->pRun->pConn, t->pRun->pErr,
                      "SELECT tag FROM \"%w\"._choir_undo_%lld ORDER BY n"
                      " LIMIT 1",
                      choirSchema(t->pRun->pConn), t->pTrack->id);
  if (choirStep(t->pRun->pErr, p)) {
    iTag = sqlite3_column_int64(p, 0);
  }
  sqlite3_finalize(p);
  return iTag;
}

static void undoReadAbove(UndoTable *t, UndoAbove *p, i64 nFrom, i64 nTo) {
  int aKey[CHOIR_LOG_KEY];
  ChoirErr *pErr = t->pRun->pErr;
  sqlite3_stmt *pStmt;
  sqlite3_free(p->a);
  memset(p, 0, sizeof(*p));
  if (!t->shape.bRowid) {
    return;
  }
  undoKeyAt(t, aKey);
  pStmt = choirLogPrepare(t->pRun->pConn, pErr,
                          "SELECT n,k,%s FROM \"%w\"._choir_undo_%lld WHERE"
                          " n>=?1 AND n<?2 AND k IN(%d,%d) ORDER BY n",
                          t->zKey, choirSchema(t->pRun->pConn), t->pTrack->id,
                          CHOIR_IMAGE_ABOVE, CHOIR_IMAGE_FRESH);
  choirBindInt(pErr, pStmt, 1, nFrom);
  choirBindInt(pErr, pStmt, 2, nTo);
  while (choirStep(pErr, pStmt)) {
    i64 pk = sqlite3_column_int64(pStmt, 2);
    if (p->nFresh == 0 && sqlite3_column_int(pStmt, 1) == CHOIR_IMAGE_FRESH) {
      p->nFresh = sqlite3_column_int64(pStmt, 0);
    }
    if (p->n == 0 || pk < p->a[p->n - 1].pk) {
      void *a = choirRealloc(pErr, p->a, (u64)(p->n + 1) * sizeof(*p->a));
      if (a == NULL) {
        break;
      }
      p->a = a;
      p->a[p->n].n = sqlite3_column_int64(pStmt, 0);
      p->a[p->n++].pk = pk;
    }
  }
  sqlite3_finalize(pStmt);
}

/* Does an image before n say that there was no row pk? */
static int undoIsAbove(const UndoAbove *p, i64 n, i64 pk) {
  int i;
  for (i = 0; i < p->n && p->a[i].n < n; i++) {
    if (pk > p->a[i].pk) {
      return 1;
    }
  }
  return pk == -1 && p->nFresh && p->nFresh < n;
}

static i64 undoFloor(const UndoAbove *p) {
  return p->n ? p->a[p->n - 1].pk : INT64_MAX;
}

static int undoWasMissing(const UndoTable *t, i64 n, i64 pk) {
  return ((n < t->nHi || pk <= t->pkLimit) && undoIsAbove(&t->before, n, pk)) ||
         undoIsAbove(&t->since, n, pk);
}

/* Opens everything; 0 when the table cannot be restored at all. */
static int undoOpen(UndoTable *t, UndoRun *pRun, ChoirLogTrack *pTrack) {
  ChoirErr *pErr = pRun->pErr, err = {SQLITE_OK, NULL};
  ChoirBuf b;
  UndoAbove after;
  int i, aKey[CHOIR_LOG_KEY];
  memset(t, 0, sizeof(*t));
  memset(&after, 0, sizeof(after));
  t->pRun = pRun;
  t->pTrack = pTrack;
  choirLogShapeRead(pRun->pConn, &err, &t->shape, &pTrack->spec);
  if (err.rc == SQLITE_ERROR) {
    undoName(pRun, pTrack->spec.zTable, NULL, NULL, 0, err.zMsg);
    choirErrClear(&err);
    return 0;
  }
  if (pErr->rc == SQLITE_OK) {
    *pErr = err;
  }
  choirBufInit(&b, pErr, CHOIR_BUF_SQL);
  undoKeyAt(t, aKey);
  for (i = 0; i < t->shape.nKey; i++) {
    const char *zColl = t->shape.aKey[i].zColl;
    if (t->shape.bPseudo) {
      choirBufText(&b, "r");
    } else {
      choirBufPrintf(&b, "%sc%d", i ? "," : "", aKey[i] - 1);
    }
    if (zColl && sqlite3_stricmp(zColl, "BINARY") != 0) {
      choirBufPrintf(&b, " COLLATE \"%w\"", zColl);
    }
  }
  t->zKey = choirBufTake(&b);
  if (pErr->rc != SQLITE_OK) {
    return 0;
  }
  t->pRows = choirLogRowsOpen(pRun->pConn, pErr, &t->shape,
                              pTrack->images.azName, pTrack->images.nName);
  t->nLo = undoFirst(t, pRun->range.iFrom - 1);
  t->nHi = undoFirst(t, pRun->range.iTo);
  t->nEnd = undoFirst(t, INT64_MAX);
  t->iKept = undoKept(t);
  if (pRun->range.iTo >= pRun->iLast) {
    t->nHi = t->nEnd;
  }
  undoReadAbove(t, &after, t->nHi, t->nEnd);
  t->pkLimit = undoFloor(&after);
  sqlite3_free(after.a);
  return 1;
}

static void undoClose(UndoTable *t) {
  choirLogRowsClose(t->pRows);
  choirLogShapeFree(&t->shape);
  sqlite3_free(t->zKey);
  sqlite3_free(t->before.a);
  sqlite3_free(t->since.a);
}

/* ----------------------------------------------------------------- passes */

/* Sets one row; the image is at columns 1… of p. nPlace: as many places. */
static void undoRow(UndoTable *t, sqlite3_stmt *p, int nPlace) {
  UndoRun *pRun = t->pRun;
  char *zWhy = NULL;
  int e = choirLogRowSet(pRun->pErr, t->pRows, p, 1, nPlace, &zWhy);
  if (e == CHOIR_ROW_REFUSED) {
    pRun->nRefused++;
    if (pRun->bLast) {
      undoNameRow(t, p, zWhy ? zWhy : "refused");
    }
  } else if (e != CHOIR_ROW_SAME) {
    pRun->nSet++;
    if (e == CHOIR_ROW_PUT && nPlace < t->pTrack->images.nName) {
      undoNameRow(t, p, "without columns that were added later");
    }
  }
  sqlite3_free(zWhy);
}

/* Rows that have images: the first of each says what it is to be. */
static void undoImages(UndoTable *t) {
  ChoirErr *pErr = t->pRun->pErr;
  int aKey[CHOIR_LOG_KEY], i, n = undoKeyAt(t, aKey);
  sqlite3_stmt *pImage = undoImage(t);
  sqlite3_stmt *pList = choirLogPrepare(
      t->pRun->pConn, pErr,
      "SELECT min(n) FROM \"%w\"._choir_undo_%lld WHERE k>=0 AND"
      " (n>=?1 AND n<?2 OR n>=?3) GROUP BY %s ORDER BY 1 DESC",
      choirSchema(t->pRun->pConn), t->pTrack->id, t->zKey);
  choirBindInt(pErr, pList, 1, t->nLo);
  choirBindInt(pErr, pList, 2, t->nHi);
  choirBindInt(pErr, pList, 3, t->nEnd);
  while (choirStep(pErr, pList)) {
    i64 iImage = sqlite3_column_int64(pList, 0);
    int nPlace, bNull = 0;
    choirBindInt(pErr, pImage, 1, iImage);
    if (choirStep(pErr, pImage)) {
      nPlace = sqlite3_column_int(pImage, 0);
      for (i = 0; i < n; i++) {
        bNull |= sqlite3_column_type(pImage, aKey[i]) == SQLITE_NULL;
      }
      if (t->shape.bRowid &&
          undoWasMissing(t, iImage, sqlite3_column_int64(pImage, aKey[0]))) {
        nPlace = 0;
      }
      if (bNull && t->pRun->iPass == 0) {
        undoNameRow(t, pImage, "its key is NULL, which tells no row apart");
      } else if (!bNull) {
        undoRow(t, pImage, nPlace);
      }
    }
    sqlite3_reset(pImage);
  }
  sqlite3_finalize(pList);
  sqlite3_finalize(pImage);
}

/* Rows that have none, and whose keys were above all others: they go. */
static void undoInserted(UndoTable *t) {
  ChoirErr *pErr = t->pRun->pErr;
  ChoirBuf b;
  sqlite3_stmt *p;
  const char *zKey;
  int i;
  if (t->before.n == 0 && t->since.n == 0) {
    return;
  }
  zKey = choirLogKeyColumn(&t->shape, 0)->zSql;
  choirBufInit(&b, pErr, CHOIR_BUF_SQL);
  for (i = 0; i < t->pTrack->images.nName; i++) {
    const char *z = t->pTrack->images.azName[i];
    char *zSql = z ? choirLogQuote(pErr, z) : NULL;
    choirBufPrintf(&b, ",%s", zSql ? zSql : "NULL");
    sqlite3_free(zSql);
  }
  p = choirLogPrepare(
      t->pRun->pConn, pErr,
      "SELECT 0,%s%s FROM \"%w\".%s WHERE (%s>?1 AND %s<=?2 OR %s>?3 OR"
      " %s=-1 AND ?4) AND %s NOT IN(SELECT %s FROM \"%w\"._choir_undo_%lld"
      " WHERE k>=0 AND (n>=?5 AND n<?6 OR n>=?7)) ORDER BY +%s DESC",
      t->shape.bPseudo ? zKey : "NULL", b.n ? b.a : "",
      choirSchema(t->pRun->pConn), t->shape.zTable, zKey, zKey, zKey, zKey,
      zKey, t->zKey, choirSchema(t->pRun->pConn), t->pTrack->id, zKey);
  choirBufFree(&b);
  choirBindInt(pErr, p, 1, undoFloor(&t->before));
  choirBindInt(pErr, p, 2, t->pkLimit);
  choirBindInt(pErr, p, 3, undoFloor(&t->since));
  choirBindInt(pErr, p, 4,
               (t->before.nFresh && t->pkLimit >= -1) || t->since.nFresh);
  choirBindInt(pErr, p, 5, t->nLo);
  choirBindInt(pErr, p, 6, t->nHi);
  choirBindInt(pErr, p, 7, t->nEnd);
  while (choirStep(pErr, p)) {
    undoRow(t, p, 0);
  }
  sqlite3_finalize(p);
}

static void undoPass(UndoRun *pRun, UndoTable *a, int n) {
  int i;
  pRun->nSet = pRun->nRefused = 0;
  for (i = 0; i < n && pRun->pErr->rc == SQLITE_OK; i++) {
    undoReadAbove(&a[i], &a[i].before, a[i].nLo, a[i].nHi);
    undoReadAbove(&a[i], &a[i].since, a[i].nEnd, INT64_MAX);
    undoImages(&a[i]);
    undoInserted(&a[i]);
  }
  pRun->iPass++;
}

/* ------------------------------------------------ before anything is done */

/* A row of the range that is no longer what the range left: the whole is
** refused. What it left is the first image after it. */
static void undoConflicts(UndoTable *t) {
  ChoirErr *pErr = t->pRun->pErr;
  int aKey[CHOIR_LOG_KEY];
  sqlite3_stmt *pImage, *pList;
  if (t->nHi >= t->nEnd) {
    return;
  }
  undoKeyAt(t, aKey);
  undoReadAbove(t, &t->before, t->nLo, t->nHi);
  pImage = undoImage(t);
  pList = choirLogPrepare(
      t->pRun->pConn, pErr,
      "SELECT min(CASE WHEN n>=?2 THEN n END), min(n)<?2 FROM"
      " \"%w\"._choir_undo_%lld WHERE k>=0 AND n>=?1 GROUP BY %s"
      " HAVING max(n)>=?2",
      choirSchema(t->pRun->pConn), t->pTrack->id, t->zKey);
  choirBindInt(pErr, pList, 1, t->nLo);
  choirBindInt(pErr, pList, 2, t->nHi);
  while (choirStep(pErr, pList)) {
    int bIn = sqlite3_column_int(pList, 1);
    choirBindInt(pErr, pImage, 1, sqlite3_column_int64(pList, 0));
    if (choirStep(pErr, pImage)) {
      i64 pk = sqlite3_column_int64(pImage, aKey[0]);
      bIn |= t->shape.bRowid && pk <= t->pkLimit &&
             undoIsAbove(&t->before, t->nHi, pk);
      if (bIn && !choirLogRowIs(pErr, t->pRows, pImage, 1,
                                sqlite3_column_int(pImage, 0))) {
        undoNameRow(t, pImage, NULL);
        choirErrSet(pErr, SQLITE_ERROR,
                    "%.200s has changed again since record %lld; undo what came"
                    " later first, or select log_undo(%lld, 'since')",
                    t->pRun->lost.a ? t->pRun->lost.a : "", t->pRun->range.iTo,
                    t->pRun->range.iFrom - 1);
      }
    }
    sqlite3_reset(pImage);
  }
  sqlite3_finalize(pImage);
  sqlite3_finalize(pList);
}

/* What is known from the start to be out of reach. */
static void undoGaps(UndoTable *t) {
  ChoirErr *pErr = t->pRun->pErr;
  sqlite3_stmt *p = choirLogPrepare(
      t->pRun->pConn, pErr,
      "SELECT 1 FROM \"%w\"._choir_undo_%lld WHERE k=%d AND n>=?1 AND n<?2",
      choirSchema(t->pRun->pConn), t->pTrack->id, CHOIR_IMAGE_GAP);
  choirBindInt(pErr, p, 1, t->nLo);
  choirBindInt(pErr, p, 2, t->nHi);
  if (choirStep(pErr, p)) {
    undoName(t->pRun, t->pTrack->spec.zTable, NULL, NULL, 0,
             "its triggers were missing, VACUUM renumbered its rows, or a merge"
             " brought another device's changes: what changed then is not"
             " known");
  }
  sqlite3_finalize(p);
}

/* Why a row that record iSeq changed cannot be what it was before; NULL: it
** can. */
static const char *undoNotKept(const UndoTable *a, int n,
                               const ChoirLogTrack *pTrack, i64 iSeq) {
  int i;
  if (pTrack == NULL || pTrack->images.id == 0) {
    return "its rows are not kept; run select log_track('…')";
  }
  for (i = 0; i < n; i++) {
    if (a[i].pTrack == pTrack && iSeq <= a[i].iKept) {
      return "changed before log_track() kept its rows";
    }
  }
  return NULL;
}

/* Records of rows that were not kept when they changed. */
static void undoUntracked(UndoRun *pRun, const ChoirLogTracks *pTracks,
                          const UndoTable *a, int n) {
  static const int aKey[] = {1};
  sqlite3_stmt *p = choirStmt(
      pRun->pConn, pRun->pErr,
      "SELECT tbl, pk, min(seq) FROM ~.action_log AS l WHERE seq BETWEEN ?1 AND"
      " ?2 AND tbl IN (SELECT name FROM ~.sqlite_schema WHERE type='table')"
      " GROUP BY tbl, pk ORDER BY min(seq)");
  choirBindInt(pRun->pErr, p, 1, pRun->range.iFrom);
  choirBindInt(pRun->pErr, p, 2, pRun->range.iTo);
  while (choirStep(pRun->pErr, p)) {
    const char *z = (const char *)sqlite3_column_text(p, 0);
    const char *zWhy = z ? undoNotKept(a, n, choirLogTrackOf(pTracks, z),
                                       sqlite3_column_int64(p, 2))
                         : NULL;
    if (zWhy) {
      undoName(pRun, z, p, aKey, 1, zWhy);
    }
  }
  choirStmtDone(pRun->pConn, p);
}

/* ------------------------------------------------------------- the whole */

static void undoDefer(ChoirConn *pConn, ChoirErr *pErr, int bDefer) {
  choirExec(pConn, pErr, "PRAGMA defer_foreign_keys=%d", bDefer);
}

static int undoForeign(ChoirConn *pConn) {
  int i = 0, iHigh;
  sqlite3_db_status(pConn->db, SQLITE_DBSTATUS_DEFERRED_FKS, &i, &iHigh, 0);
  return i;
}

/* Passes until one finds nothing to do. What is refused may only have come too
** early (foreign keys, in an order that passes sort out), so there is another
** pass as long as less is left; then constraints are deferred, then triggers
** switched off. Both make SQLite abort the statement that called us when it opens
** another table after this: hence only when nothing else helps. */
static void undoPasses(UndoRun *pRun, UndoTable *a, int n) {
  ChoirConn *pConn = pRun->pConn;
  i64 nLeft, nBefore = INT64_MAX;
  int nStuck = 0, bDeferred = 0, bTrigger = -1;
  while (pRun->pErr->rc == SQLITE_OK) {
    undoPass(pRun, a, n);
    nLeft = pRun->nSet + pRun->nRefused;
    pRun->nRow = pRun->nRow > pRun->nSet ? pRun->nRow : pRun->nSet;
    if (nLeft == 0 || bTrigger >= 0) {
      break;
    }
    nStuck = nLeft < nBefore ? 0 : nStuck + 1;
    nBefore = nLeft;
    if (pRun->nSet == 0 || nStuck == UNDO_STUCK) {
      if (pRun->nRefused && !bDeferred) {
        undoDefer(pConn, pRun->pErr, 1);
        bDeferred = 1;
      } else if (pRun->nSet) {
        sqlite3_db_config(pConn->db, SQLITE_DBCONFIG_ENABLE_TRIGGER, -1,
                          &bTrigger);
        sqlite3_db_config(pConn->db, SQLITE_DBCONFIG_ENABLE_TRIGGER, 0, NULL);
      } else {
        break;
      }
      nStuck = 0;
    }
  }
  if (pRun->nSet + pRun->nRefused) {
    pRun->bLast = 1;
    undoPass(pRun, a, n);
  }
  if (bTrigger >= 0) {
    sqlite3_db_config(pConn->db, SQLITE_DBCONFIG_ENABLE_TRIGGER, bTrigger,
                      NULL);
  }
}

/* Undoes the range of pRun; its own records follow. */
static void undoRange(UndoRun *pRun, ChoirLogTracks *pTracks) {
  ChoirConn *pConn = pRun->pConn;
  ChoirErr *pErr = pRun->pErr;
  UndoTable *a = choirMalloc(pErr, (u64)(pTracks->n + 1) * sizeof(*a));
  int i, n = 0, bForeign = undoForeign(pConn);
  for (i = 0; i < pTracks->n && pErr->rc == SQLITE_OK; i++) {
    if (pTracks->a[i].images.id) {
      if (undoOpen(&a[n], pRun, &pTracks->a[i])) {
        undoConflicts(&a[n]);
        undoGaps(&a[n++]);
      } else {
        undoClose(&a[n]);
      }
    }
  }
  undoUntracked(pRun, pTracks, a, n);
  if (pErr->rc == SQLITE_OK) {
    undoPasses(pRun, a, n);
  }
  if (!bForeign && undoForeign(pConn) && pErr->rc == SQLITE_OK) {
    choirErrSet(pErr, SQLITE_CONSTRAINT,
                "undone, rows would refer to others that are not there");
  }
  for (i = 0; i < n; i++) {
    undoClose(&a[i]);
  }
  sqlite3_free(a);
}

/* ---------------------------------------------------- what is to be undone */

/* from, to and first of a LOG_UNDO record. */
static int undoReadRecord(ChoirConn *pConn, ChoirErr *pErr, i64 iSeq,
                          UndoRange *pUndone, i64 *piFirst) {
  sqlite3_stmt *p = choirStmt(pConn, pErr,
                              "SELECT payload FROM ~.action_log WHERE seq=?1"
                              " AND action_type='LOG_UNDO'");
  sqlite3_stmt *pJson = NULL;
  int b = 0;
  choirBindInt(pErr, p, 1, iSeq);
  if (choirStep(pErr, p)) {
    pJson = choirJsonReply(
        pConn, pErr,
        "SELECT json_extract(?1, '$.from'), json_extract(?1, '$.to'),"
        " json_extract(?1, '$.first') WHERE ?1 IS NOT NULL",
        (const char *)sqlite3_column_text(p, 0), -1);
    if (choirStep(pErr, pJson)) {
      pUndone->iFrom = sqlite3_column_int64(pJson, 0);
      pUndone->iTo = sqlite3_column_int64(pJson, 1);
      *piFirst = sqlite3_column_int64(pJson, 2);
      b = *piFirst > pUndone->iTo && *piFirst <= iSeq;
    }
  }
  sqlite3_finalize(pJson);
  choirStmtDone(pConn, p);
  return b;
}

/* The action that record iSeq belongs to: an undo, or a statement, that is, the
** records around it of the same millisecond. */
static void undoAction(ChoirConn *pConn, ChoirErr *pErr, i64 iSeq,
                       UndoRange *pRange) {
  UndoRange undone;
  sqlite3_stmt *p;
  if (undoReadRecord(pConn, pErr, iSeq, &undone, &pRange->iFrom)) {
    pRange->iTo = iSeq;
    return;
  }
  p = choirStmt(
      pConn, pErr,
      "SELECT coalesce((SELECT seq FROM ~.action_log WHERE seq<?1 AND"
      " (timestamp<>t.timestamp OR tbl IS NULL) ORDER BY seq DESC LIMIT 1), 0)"
      " + 1, coalesce((SELECT seq FROM ~.action_log WHERE seq>?1 AND"
      " (timestamp<>t.timestamp OR tbl IS NULL) ORDER BY seq LIMIT 1) - 1,"
      " (SELECT max(seq) FROM ~.action_log)), tbl, action_type"
      " FROM ~.action_log AS t WHERE seq=?1");
  choirBindInt(pErr, p, 1, iSeq);
  if (choirStep(pErr, p)) {
    pRange->iFrom = sqlite3_column_int64(p, 0);
    pRange->iTo = sqlite3_column_int64(p, 1);
    if (sqlite3_column_type(p, 2) == SQLITE_NULL) {
      choirErrSet(pErr, SQLITE_ERROR,
                  "record %lld (%s) is about no row, so there is nothing to"
                  " undo",
                  iSeq, sqlite3_column_text(p, 3));
    }
  } else {
    choirErrSet(pErr, SQLITE_ERROR, "there is no record %lld in the log", iSeq);
  }
  choirStmtDone(pConn, p);
}

/* The last record of a row that is neither undone nor of an undo; 0: none. */
static i64 undoLast(ChoirConn *pConn, ChoirErr *pErr) {
  UndoRange *aSkip = NULL;
  int i, nSkip = 0;
  i64 iSeq = INT64_MAX, iFound = 0;
  while (iFound == 0 && pErr->rc == SQLITE_OK) {
    UndoRange undone;
    sqlite3_stmt *p = choirStmt(
        pConn, pErr,
        "SELECT seq, tbl IS NULL FROM ~.action_log WHERE seq<?1 AND (tbl IS"
        " NOT NULL OR action_type='LOG_UNDO') ORDER BY seq DESC LIMIT 1");
    i64 iFirst;
    int bUndo;
    choirBindInt(pErr, p, 1, iSeq);
    if (!choirStep(pErr, p)) {
      choirStmtDone(pConn, p);
      break;
    }
    iSeq = sqlite3_column_int64(p, 0);
    bUndo = sqlite3_column_int(p, 1);
    choirStmtDone(pConn, p);
    for (i = 0; i < nSkip; i++) {
      if (iSeq >= aSkip[i].iFrom && iSeq <= aSkip[i].iTo) {
        iSeq = aSkip[i].iFrom;
        break;
      }
    }
    if (i < nSkip) {
      continue;
    }
    if (!bUndo) {
      iFound = iSeq;
    } else if (undoReadRecord(pConn, pErr, iSeq, &undone, &iFirst)) {
      UndoRange *a = choirRealloc(pErr, aSkip, (u64)(nSkip + 1) * sizeof(*a));
      if (a) {
        aSkip = a;
        aSkip[nSkip++] = undone;
        iSeq = iFirst;
      }
    }
  }
  sqlite3_free(aSkip);
  return iFound;
}

static i64 undoRecord(UndoRun *pRun) {
  sqlite3_stmt *p;
  char zId[37];
  char *z = choirMprintf(pRun->pErr,
                         "{\"from\":%lld,\"to\":%lld,\"first\":%lld,"
                         "\"rows\":%lld}",
                         pRun->range.iFrom, pRun->range.iTo, pRun->iLast + 1,
                         pRun->nRow);
  choirUuid7(zId);
  p = choirStmt(pRun->pConn, pRun->pErr,
                "INSERT INTO ~.action_log(id, timestamp, action_type, payload)"
                " VALUES(?1, ?2, 'LOG_UNDO', ?3)");
  choirBindText(pRun->pErr, p, 1, zId, -1);
  choirBindInt(pRun->pErr, p, 2, choirNow());
  choirBindText(pRun->pErr, p, 3, z, -1);
  choirStep(pRun->pErr, p);
  choirStmtDone(pRun->pConn, p);
  sqlite3_free(z);
  return choirQueryInt(pRun->pConn, pRun->pErr,
                       "SELECT max(seq) FROM ~.action_log", 0);
}

/* Records of one millisecond count as one statement: ours are of a later one. */
static void undoTick(ChoirConn *pConn, ChoirErr *pErr) {
  i64 t = choirQueryInt(pConn, pErr,
                        "SELECT timestamp FROM ~.action_log ORDER BY seq DESC"
                        " LIMIT 1",
                        0);
  int i;
  for (i = 0; i < 5 && choirNow() <= t && choirNow() + 5 > t; i++) {
    sqlite3_sleep(1);
  }
}

static void undoFind(ChoirCall *p, UndoRun *pRun) {
  ChoirErr *pErr = &p->err;
  const char *zWhat =
      p->nArg > 1 ? choirArgText(pErr, p->apArg[1], "what") : "only";
  int bNone = p->nArg == 0 || sqlite3_value_type(p->apArg[0]) == SQLITE_NULL;
  i64 iSeq = bNone ? undoLast(p->pConn, pErr)
                   : choirArgInt(pErr, p->apArg[0], "seq", 0, (i64)1 << 60);
  pRun->iLast = choirQueryInt(
      p->pConn, pErr, "SELECT coalesce(max(seq), 0) FROM ~.action_log", 0);
  if (zWhat && strcmp(zWhat, "since") == 0 && bNone) {
    choirErrSet(
        pErr, SQLITE_ERROR,
        "'since' needs the seq of a record, got null; 0 is the beginning");
  } else if (zWhat && strcmp(zWhat, "since") == 0) {
    choirLogNeedSince(p->pConn, pErr, iSeq);
    pRun->range.iFrom = iSeq + 1;
    pRun->range.iTo = pRun->iLast;
  } else if (zWhat && strcmp(zWhat, "only") != 0) {
    choirErrSet(pErr, SQLITE_ERROR, "what must be only or since, got '%.40s'",
                zWhat);
  } else if (iSeq > 0 || !bNone) {
    undoAction(p->pConn, pErr, iSeq, &pRun->range);
  } else {
    pRun->range.iFrom = 1; /* nothing is left to undo */
  }
}

/*
** SQL: log_undo([seq[, what]]) -> TEXT
**
** Undoes changes of tracked tables (see log_track) in one transaction: every
** row is again what it was, bit for bit, whatever triggers and cascades did
** since. Without arguments, the last action that is not undone yet. An action is
** all that one statement did, cascades included; statements of the same
** millisecond count as one. The undo is recorded: log_undo() of the seq in its
** result is a redo.
**
** Gives {"seq": of the undo or null, "from", "to": the records undone, "rows":
** set, "not_restored": [{"table","key","why"}, …]}, at most 100 of these.
**
**   seq   INTEGER, a record of the action; default: the last
**   what  'only' that action (default), or everything 'since' record seq, which
**         itself stays: 0 is the beginning
**
** NULL: a NULL seq is the last action.
** Errors: nothing is tracked with undo; a row of an earlier action has changed
** again since; the records were pruned; rows would refer to missing ones.
**
** > CREATE TABLE tea(id INTEGER PRIMARY KEY, name TEXT);
** > SELECT log_track('tea');
** > INSERT INTO tea(name) VALUES('oolong'), ('sencha');
** > SELECT log_undo();
** > SELECT json_extract(log_undo(5), '$.rows'), (SELECT count(*) FROM tea)
** = 2|2
*/
static void undoCall(ChoirCall *p) {
  ChoirLogTracks tracks;
  UndoRun run;
  ChoirBuf b;
  int i, n = 0;
  i64 iSeq = 0;
  memset(&run, 0, sizeof(run));
  run.pConn = p->pConn;
  run.pErr = &p->err;
  choirBufInit(&run.lost, &p->err, CHOIR_BUF_JSON);
  choirNeedWorkspace(p->pConn, &p->err);
  choirLogInstall(p->pConn, &p->err, NULL); /* what was done without choir */
  choirLogTracksRead(p->pConn, &p->err, &tracks, 0);
  for (i = 0; i < tracks.n; i++) {
    n += tracks.a[i].images.id != 0;
  }
  if (n == 0 && p->err.rc == SQLITE_OK) {
    choirErrSet(&p->err, SQLITE_ERROR,
                "no table keeps its rows; run select log_track('…')");
  }
  undoTick(p->pConn, &p->err);
  undoFind(p, &run);
  if (p->err.rc == SQLITE_OK && run.range.iTo >= run.range.iFrom) {
    undoRange(&run, &tracks);
    iSeq = undoRecord(&run);
  }
  choirBufInit(&b, &p->err, CHOIR_BUF_JSON);
  choirBufPrintf(&b, iSeq ? "{\"seq\":%lld" : "{\"seq\":null", iSeq);
  choirBufPrintf(&b, ",\"from\":%lld,\"to\":%lld,\"rows\":%lld",
                 run.range.iFrom, run.range.iTo, run.nRow);
  choirBufText(&b, ",\"not_restored\":[");
  choirBufText(&b, run.lost.n ? run.lost.a : "");
  choirBufText(&b, "]}");
  choirBufResult(&b, p->pCtx);
  choirBufFree(&run.lost);
  choirLogTracksFree(&tracks);
}

static const ChoirFunc aUndoFunc[] = {
    {"log_undo", 0, 2, CHOIR_WRITE, 0, undoCall, NULL},
};

CHOIR_PRIVATE CHOIR_COLD void choirLogUndoRegister(ChoirConn *pConn,
                                                   ChoirErr *pErr) {
  choirFuncs(pConn, pErr, aUndoFunc);
}
