/* SPDX-License-Identifier: MIT */
/*
** log_track() and log_untrack(): the log follows tables of the host.
**
** Owns in the file, from the first log_track() on:
**
**   _choir_track      a row for each tracked table: its name, the columns that
**                     count (watch) and that are shown (labels), JSON arrays or
**                     NULL; by_rowid 1 when it has no key; undo 1 when its rows
**                     are kept in _choir_undo_<id>; places, a JSON array with
**                     the column whose values are at c1, c2, … there
**   _choir_undo_<id>  see log_image.c
**   _choir_rowid      one row with rowid 2. VACUUM and .dump number the rows of
**                     a table without a key or an index anew, so that this row
**                     gets 1: then rowids of others may have changed as well
**
** A name that ALTER TABLE changed is known again by its place: as long as the
** triggers stand, columns can only have been renamed or added. Where they do
** not, the table was rebuilt: columns are then known by their names. So they are
** where no rows are kept and a column has gone that no trigger names.
*/
#include "log.h"

static const char zTrackSql[] =
    "CREATE TABLE ~._choir_track(id INTEGER PRIMARY KEY, tbl TEXT NOT NULL,"
    " watch TEXT, labels TEXT, by_rowid INTEGER NOT NULL, undo INTEGER NOT"
    " NULL, places TEXT NOT NULL);"
    "CREATE TABLE ~._choir_rowid(v);"
    "INSERT INTO ~._choir_rowid(rowid, v) VALUES(2, NULL)";

static int trackMade(ChoirConn *pConn, ChoirErr *pErr) {
  return choirExists(pConn, pErr, "table", "_choir_track");
}

/* ------------------------------------------------------------- reading it */

static void trackFree(ChoirLogTrack *p) {
  int i;
  for (i = 0; i < p->nOwn; i++) {
    sqlite3_free(p->azOwn[i]);
  }
  for (i = 0; i < p->images.nName; i++) {
    sqlite3_free(p->images.azName[i]);
  }
  sqlite3_free(p->images.azName);
}

CHOIR_PRIVATE void choirLogTracksFree(ChoirLogTracks *p) {
  int i;
  for (i = 0; i < p->n; i++) {
    trackFree(&p->a[i]);
  }
  sqlite3_free(p->a);
  memset(p, 0, sizeof(*p));
}

static char *trackKeep(ChoirLogTrack *p, char *z) {
  if (z) {
    p->azOwn[p->nOwn++] = z;
  }
  return z;
}

/* A label as a payload has it: a JSON string in a string of SQL, no quotes. */
static char *trackLabel(ChoirErr *pErr, const char *z) {
  ChoirBuf b;
  char *zKey;
  choirBufInit(&b, pErr, CHOIR_BUF_SQL);
  choirBufJson(&b, z, -1);
  zKey = pErr->rc == SQLITE_OK
             ? choirMprintf(pErr, "%.*q", (int)b.n - 2, b.a + 1)
             : NULL;
  choirBufFree(&b);
  return zKey;
}

static void trackPlace(ChoirErr *pErr, ChoirLogTrack *p, const char *z) {
  char **az = choirRealloc(pErr, p->images.azName,
                           (u64)(p->images.nName + 1) * sizeof(*az));
  if (az) {
    p->images.azName = az;
    az[p->images.nName++] = z ? choirMprintf(pErr, "%s", z) : NULL;
  }
}

/* The names of a JSON array, to where eWhat says: the letters of `watch`,
** `labels` and `places`. */
static void trackNames(ChoirConn *pConn, ChoirErr *pErr, ChoirLogTrack *p,
                       char eWhat, const char *zJson) {
  int n = 0;
  sqlite3_stmt *pStmt =
      zJson ? choirJsonStmt(pConn, pErr, "SELECT value FROM json_each(?1)",
                            zJson, -1)
            : NULL;
  while (choirStep(pErr, pStmt)) {
    const char *z = (const char *)sqlite3_column_text(pStmt, 0);
    if (eWhat == 'p') {
      trackPlace(pErr, p, z);
    } else if (z && eWhat == 'w' && n < CHOIR_LOG_WATCH) {
      p->spec.azWatch[n++] = trackKeep(p, choirMprintf(pErr, "%s", z));
    } else if (z && eWhat == 'l' && n < CHOIR_LOG_FIELDS) {
      ChoirLogField *f = &p->spec.aField[n++];
      f->zColumn = trackKeep(p, choirMprintf(pErr, "%s", z));
      f->zKey = trackKeep(p, trackLabel(pErr, z));
      f->eKind = CHOIR_LOG_TEXT;
    }
  }
  sqlite3_finalize(pStmt);
}

/* What is recorded of the table: as the workspace says of its own, otherwise
** ROW_*. A tracked table may be called anything, and be renamed: its triggers go
** by the number. */
static void trackSpec(ChoirErr *pErr, ChoirLogTrack *p, const char *zTable) {
  const ChoirLogSpec *pOwn = zTable ? choirLogSpecOf(zTable) : NULL;
  if (pOwn) {
    p->spec = *pOwn;
    p->bOwn = 1;
    sqlite3_snprintf(sizeof(p->zTag), p->zTag, "%s", pOwn->zTable);
  } else {
    p->spec.zTable = trackKeep(p, choirMprintf(pErr, "%s", zTable));
    p->spec.zInsert = "'ROW_INSERT'";
    p->spec.zUpdate = "'ROW_UPDATE'";
    p->spec.zDelete = "'ROW_DELETE'";
    sqlite3_snprintf(sizeof(p->zTag), p->zTag, "@%lld", p->id);
  }
}

/* Of a row: id, tbl, watch, labels, by_rowid, undo, places. */
static void trackRead(ChoirConn *pConn, ChoirErr *pErr, ChoirLogTrack *p,
                      sqlite3_stmt *pStmt) {
  p->id = sqlite3_column_int64(pStmt, 0);
  p->images.id = sqlite3_column_int(pStmt, 5) ? p->id : 0;
  p->bByRowid = (u8)sqlite3_column_int(pStmt, 4);
  trackSpec(pErr, p, (const char *)sqlite3_column_text(pStmt, 1));
  trackNames(pConn, pErr, p, 'w', (const char *)sqlite3_column_text(pStmt, 2));
  trackNames(pConn, pErr, p, 'l', (const char *)sqlite3_column_text(pStmt, 3));
  trackNames(pConn, pErr, p, 'p', (const char *)sqlite3_column_text(pStmt, 6));
}

/* ------------------------------------------------------ what has changed */

/* The table that the trigger of this track is on now; caller frees. */
static char *trackTableOf(ChoirConn *pConn, ChoirErr *pErr,
                          const ChoirLogTrack *p) {
  sqlite3_stmt *pStmt =
      choirStmt(pConn, pErr,
                "SELECT tbl_name FROM ~.sqlite_schema WHERE type='trigger' AND"
                " name='_choir_log_' || ?1 || '_delete'");
  char *z = NULL;
  choirBindText(pErr, pStmt, 1, p->zTag, -1);
  if (choirStep(pErr, pStmt)) {
    z = choirMprintf(pErr, "%s", (const char *)sqlite3_column_text(pStmt, 0));
  }
  choirStmtDone(pConn, pStmt);
  return z;
}

/* Replaces the text that *pz points to, which azOwn owns. */
static void trackRename(ChoirErr *pErr, ChoirLogTrack *p, const char **pz,
                        const char *zNew) {
  int i;
  for (i = 0; i < p->nOwn && p->azOwn[i] != *pz; i++) {
  }
  if (i < p->nOwn) {
    char *z = choirMprintf(pErr, "%s", zNew);
    if (z) {
      sqlite3_free(p->azOwn[i]);
      *pz = p->azOwn[i] = z;
    }
  }
}

static void trackRenameColumn(ChoirErr *pErr, ChoirLogTrack *p,
                              const char *zOld, const char *zNew) {
  int i;
  for (i = 0; p->spec.azWatch[i] && !p->bOwn; i++) {
    if (sqlite3_stricmp(p->spec.azWatch[i], zOld) == 0) {
      trackRename(pErr, p, &p->spec.azWatch[i], zNew);
    }
  }
  for (i = 0; p->spec.aField[i].zKey && !p->bOwn; i++) {
    ChoirLogField *f = &p->spec.aField[i];
    if (sqlite3_stricmp(f->zColumn, zOld) == 0) {
      char *zKey = trackLabel(pErr, zNew);
      trackRename(pErr, p, &f->zColumn, zNew);
      trackRename(pErr, p, &f->zKey, zKey ? zKey : "");
      sqlite3_free(zKey);
    }
  }
}

/* The place with this name, or nPlace. */
static int trackPlaceOf(char *const *az, int nPlace, const char *zName) {
  int i;
  for (i = 0; i < nPlace && (!az[i] || sqlite3_stricmp(az[i], zName)); i++) {
  }
  return i;
}

/* Has a column moved to another place? Then one before it was dropped. */
static int trackMoved(const ChoirLogTrack *p, const ChoirLogShape *pShape) {
  int i, iPlace = -1, nPlace = p->images.nName;
  for (i = 0; i < pShape->nCol; i++) {
    if (!pShape->aCol[i].bGenerated) {
      int iOld = trackPlaceOf(p->images.azName, nPlace, pShape->aCol[i].zName);
      for (iPlace++; iPlace < nPlace && !p->images.azName[iPlace]; iPlace++) {
      }
      if (iOld != iPlace && iOld < nPlace) {
        return 1;
      }
    }
  }
  return 0;
}

/* Brings places up to date with the stored columns of the table as it is;
** 1 when something changed. bStands: the triggers are those we made. */
static int trackColumns(ChoirErr *pErr, ChoirLogTrack *p,
                        const ChoirLogShape *pShape, int bStands) {
  char **az = p->images.azName;
  int i, j, iPlace = -1, bChanged = 0, nBefore = p->images.nName;
  bStands = bStands && (p->images.id || !trackMoved(p, pShape));
  for (j = 0; j < nBefore && !bStands; j++) { /* rebuilt: by their names */
    for (i = 0; i < pShape->nCol && az[j]; i++) {
      if (!pShape->aCol[i].bGenerated &&
          sqlite3_stricmp(pShape->aCol[i].zName, az[j]) == 0) {
        break;
      }
    }
    if (az[j] && i == pShape->nCol) {
      sqlite3_free(az[j]);
      az[j] = NULL;
      bChanged = 1;
    }
  }
  for (i = 0; i < pShape->nCol && pErr->rc == SQLITE_OK; i++) {
    const char *z = pShape->aCol[i].zName;
    if (pShape->aCol[i].bGenerated) {
      continue;
    }
    if (bStands) {
      for (iPlace++; iPlace < nBefore && az[iPlace] == NULL; iPlace++) {
      }
    } else {
      iPlace = trackPlaceOf(az, nBefore, z);
    }
    if (iPlace >= nBefore) {
      trackPlace(pErr, p, z);
      az = p->images.azName;
      p->bRenamed |= (u8)bStands;
      bChanged = 1;
    } else if (strcmp(az[iPlace], z) != 0) {
      char *zNew = choirMprintf(pErr, "%s", z);
      trackRenameColumn(pErr, p, az[iPlace], z);
      if (zNew) {
        sqlite3_free(az[iPlace]);
        az[iPlace] = zNew;
      }
      bChanged = 1;
      p->bRenamed = 1;
    }
  }
  return bChanged;
}

static void trackBindNames(ChoirErr *pErr, sqlite3_stmt *pStmt, int iBind,
                           ChoirBuf *b, char *const *az, int n) {
  int i;
  for (i = 0; i < n; i++) {
    choirBufText(b, i ? "," : "[");
    if (az[i]) {
      choirBufJson(b, az[i], -1);
    } else {
      choirBufText(b, "null");
    }
  }
  choirBufText(b, n ? "]" : "[]");
  choirBindText(pErr, pStmt, iBind, b->a, (i64)b->n);
}

/* Writes the row anew; images get the columns that are missing there. */
static void trackWrite(ChoirConn *pConn, ChoirErr *pErr, ChoirLogTrack *p,
                       int nBefore) {
  char *azLabel[CHOIR_LOG_FIELDS];
  ChoirBuf aBuf[3];
  sqlite3_stmt *pStmt = choirStmt(
      pConn, pErr,
      "INSERT INTO ~._choir_track(id, tbl, watch, labels, by_rowid, undo,"
      " places) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT(id) DO UPDATE"
      " SET tbl=?2, watch=?3, labels=?4, by_rowid=?5, undo=?6, places=?7");
  int i, nWatch = 0, nLabel = 0;
  for (i = 0; i < 3; i++) {
    choirBufInit(&aBuf[i], pErr, CHOIR_BUF_SQL);
  }
  while (!p->bOwn && p->spec.azWatch[nWatch]) {
    nWatch++;
  }
  for (; !p->bOwn && p->spec.aField[nLabel].zKey; nLabel++) {
    azLabel[nLabel] = (char *)p->spec.aField[nLabel].zColumn;
  }
  choirBindInt(pErr, pStmt, 1, p->id);
  choirBindText(pErr, pStmt, 2, p->spec.zTable, -1);
  if (nWatch) {
    trackBindNames(pErr, pStmt, 3, &aBuf[0], (char *const *)p->spec.azWatch,
                   nWatch);
  }
  if (nLabel) {
    trackBindNames(pErr, pStmt, 4, &aBuf[1], azLabel, nLabel);
  }
  choirBindInt(pErr, pStmt, 5, p->bByRowid);
  choirBindInt(pErr, pStmt, 6, p->images.id != 0);
  trackBindNames(pErr, pStmt, 7, &aBuf[2], p->images.azName, p->images.nName);
  choirStep(pErr, pStmt);
  choirStmtDone(pConn, pStmt);
  for (i = 0; i < 3; i++) {
    choirBufFree(&aBuf[i]);
  }
  for (i = nBefore; i < p->images.nName && p->images.id && nBefore; i++) {
    choirExec(pConn, pErr, "ALTER TABLE ~._choir_undo_%lld ADD COLUMN c%d",
              p->id, i + 1);
  }
}

/* Takes over what was renamed or added since the last look. */
static void trackAdopt(ChoirConn *pConn, ChoirErr *pErr, ChoirLogTrack *p) {
  int nBefore = p->images.nName;
  ChoirErr err = {SQLITE_OK, NULL};
  ChoirLogShape shape;
  char *zOn = trackTableOf(pConn, pErr, p);
  int bHere = choirExists(pConn, pErr, "table", p->spec.zTable);
  int bChanged = 0;
  if (!bHere && zOn && !p->bOwn) {
    trackRename(pErr, p, &p->spec.zTable, zOn);
    bChanged = 1;
    p->bRenamed = 1;
  }
  if (pErr->rc == SQLITE_OK) {
    choirLogShapeRead(pConn, &err, &shape, &p->spec);
    if (err.rc == SQLITE_OK) {
      bChanged |= trackColumns(
          &err, p, &shape, zOn && sqlite3_stricmp(zOn, p->spec.zTable) == 0);
      bChanged |= shape.bPseudo != p->bByRowid;
      p->bByRowid = shape.bPseudo;
    }
    choirLogShapeFree(&shape);
    if (err.rc == SQLITE_ERROR) { /* its triggers are reported, not made */
      choirErrClear(&err);
    } else if (err.rc != SQLITE_OK) {
      *pErr = err;
    } else if (bChanged) {
      trackWrite(pConn, pErr, p, nBefore);
    }
  }
  sqlite3_free(zOn);
}

CHOIR_PRIVATE void choirLogTrackGap(ChoirConn *pConn, ChoirErr *pErr,
                                    const ChoirLogTrack *p) {
  if (p->images.id) {
    choirExec(pConn, pErr,
              "INSERT INTO ~._choir_undo_%lld(tag, k) VALUES(coalesce((SELECT"
              " max(seq) FROM ~.action_log), 0), %d)",
              p->id, CHOIR_IMAGE_GAP);
  }
}

/* Rowids of tables without a key may be others than before. */
static int trackRenumbered(ChoirConn *pConn, ChoirErr *pErr) {
  i64 i =
      choirQueryInt(pConn, pErr, "SELECT rowid FROM ~._choir_rowid LIMIT 1", 2);
  if (i != 2) {
    choirExecText(pConn, pErr, "UPDATE ~._choir_rowid SET rowid=2");
  }
  return i != 2;
}

CHOIR_PRIVATE void choirLogTracksRead(ChoirConn *pConn, ChoirErr *pErr,
                                      ChoirLogTracks *p, int bAdopt) {
  sqlite3_stmt *pStmt;
  int i, bRenumbered;
  memset(p, 0, sizeof(*p));
  if (!trackMade(pConn, pErr)) {
    return;
  }
  pStmt = choirStmt(pConn, pErr,
                    "SELECT id, tbl, watch, labels, by_rowid, undo, places"
                    " FROM ~._choir_track ORDER BY id");
  while (choirStep(pErr, pStmt)) {
    ChoirLogTrack *a =
        choirRealloc(pErr, p->a, (u64)(p->n + 1) * sizeof(ChoirLogTrack));
    if (a) {
      p->a = a;
      memset(&a[p->n], 0, sizeof(*a));
      trackRead(pConn, pErr, &a[p->n++], pStmt);
    }
  }
  choirStmtDone(pConn, pStmt);
  bRenumbered = bAdopt && trackRenumbered(pConn, pErr);
  for (i = 0; i < p->n && bAdopt && pErr->rc == SQLITE_OK; i++) {
    trackAdopt(pConn, pErr, &p->a[i]);
    if (bRenumbered && p->a[i].bByRowid) {
      choirLogTrackGap(pConn, pErr, &p->a[i]);
    }
  }
}

CHOIR_PRIVATE ChoirLogTrack *choirLogTrackOf(const ChoirLogTracks *p,
                                             const char *zTable) {
  int i;
  for (i = 0; i < p->n; i++) {
    if (sqlite3_stricmp(p->a[i].spec.zTable, zTable) == 0) {
      return &p->a[i];
    }
  }
  return NULL;
}

/* -------------------------------------------------------------- log_track */

/* The array of names under zKey, checked: at most nMax texts; caller frees. */
static char *trackOption(ChoirConn *pConn, ChoirErr *pErr, const char *zJson,
                         const char *zKey, int nMax) {
  char *zPath = choirMprintf(pErr, "$.%s", zKey);
  sqlite3_stmt *p = choirJsonStmt(
      pConn, pErr,
      "SELECT json_extract(?1, ?2), json_type(?1, ?2),"
      " (SELECT count(*) FROM json_each(?1, ?2)),"
      " (SELECT count(*) FROM json_each(?1, ?2) WHERE type<>'text')",
      zJson, -1);
  char *z = NULL;
  choirBindText(pErr, p, 2, zPath, -1);
  if (choirStep(pErr, p) && sqlite3_column_type(p, 1) != SQLITE_NULL) {
    const char *zType = (const char *)sqlite3_column_text(p, 1);
    int n = sqlite3_column_int(p, 2);
    if (zType == NULL || strcmp(zType, "array") != 0 || n < 1 || n > nMax ||
        sqlite3_column_int(p, 3)) {
      choirErrSet(pErr, SQLITE_ERROR,
                  "%s must be an array of 1 to %d names of columns", zKey,
                  nMax);
    } else {
      z = choirMprintf(pErr, "%s", (const char *)sqlite3_column_text(p, 0));
    }
  }
  sqlite3_finalize(p);
  sqlite3_free(zPath);
  return z;
}

static int trackUndoOption(ChoirConn *pConn, ChoirErr *pErr,
                           const char *zJson) {
  sqlite3_stmt *p = choirJsonStmt(
      pConn, pErr,
      "SELECT coalesce(json_extract(?1, '$.undo'), 1),"
      " json_type(?1, '$.undo') NOT IN ('true', 'false', 'integer', 'null'),"
      " (SELECT key FROM json_each(?1) WHERE key NOT IN ('columns', 'undo',"
      " 'labels')), json_type(?1)<>'object'",
      zJson, -1);
  int b = choirStep(pErr, p) ? sqlite3_column_int(p, 0) : 1;
  if (pErr->rc == SQLITE_OK && sqlite3_column_int(p, 3)) {
    choirErrSet(pErr, SQLITE_ERROR, "options must be a JSON object");
  } else if (pErr->rc == SQLITE_OK && sqlite3_column_int(p, 1)) {
    choirErrSet(pErr, SQLITE_ERROR, "undo must be true or false");
  } else if (pErr->rc == SQLITE_OK && sqlite3_column_text(p, 2)) {
    choirErrSet(pErr, SQLITE_ERROR,
                "no option '%.40s'; there are columns, labels and undo",
                sqlite3_column_text(p, 2));
  }
  sqlite3_finalize(p);
  return b;
}

/* The name as the schema has it; caller frees. */
static char *trackName(ChoirConn *pConn, ChoirErr *pErr, const char *z) {
  char *zName = NULL;
  sqlite3_stmt *p = choirStmt(pConn, pErr,
                              "SELECT name FROM ~.sqlite_schema WHERE name=?1"
                              " COLLATE NOCASE AND type IN ('table','view')");
  if (z && (sqlite3_strnicmp(z, "_choir_", 7) == 0 ||
            sqlite3_strnicmp(z, "sqlite_", 7) == 0 ||
            sqlite3_stricmp(z, "action_log") == 0 ||
            sqlite3_stricmp(z, "sync_state") == 0)) {
    choirErrSet(pErr, SQLITE_ERROR, "%s is bookkeeping and cannot be tracked",
                z);
  }
  choirBindText(pErr, p, 1, z, -1);
  if (choirStep(pErr, p)) {
    zName = choirMprintf(pErr, "%s", (const char *)sqlite3_column_text(p, 0));
  } else if (pErr->rc == SQLITE_OK) {
    choirErrSet(pErr, SQLITE_ERROR, "table %s does not exist", z);
  }
  choirStmtDone(pConn, p);
  return zName;
}

/* The table as it shall be tracked; p->id is known. */
static void trackPlan(ChoirConn *pConn, ChoirErr *pErr, ChoirLogTrack *p,
                      const char *zTable, const char *zOptions) {
  char *zWatch = trackOption(pConn, pErr, zOptions, "columns", CHOIR_LOG_WATCH);
  char *zLabels =
      trackOption(pConn, pErr, zOptions, "labels", CHOIR_LOG_FIELDS);
  trackSpec(pErr, p, zTable);
  if (p->bOwn && (zWatch || zLabels)) {
    choirErrSet(pErr, SQLITE_ERROR,
                "what is recorded of %s is fixed; its only option is undo",
                zTable);
  }
  trackNames(pConn, pErr, p, 'w', zWatch);
  trackNames(pConn, pErr, p, 'l', zLabels);
  sqlite3_free(zWatch);
  sqlite3_free(zLabels);
}

/* Every column named must be there; places for those that are stored. */
static void trackFit(ChoirConn *pConn, ChoirErr *pErr, ChoirLogTrack *p,
                     int bStands) {
  ChoirLogTrigger a[CHOIR_LOG_TRIGGERS];
  ChoirLogShape shape;
  choirLogShapeRead(pConn, pErr, &shape, &p->spec);
  if (pErr->rc == SQLITE_OK) {
    p->bByRowid = shape.bPseudo;
    trackColumns(pErr, p, &shape, bStands);
  }
  choirLogShapeFree(&shape);
  choirLogTriggers(pConn, pErr, &p->spec, &p->images, p->zTag, a);
  choirLogTriggersFree(a);
}

static void trackMakeImages(ChoirConn *pConn, ChoirErr *pErr,
                            const ChoirLogTrack *p) {
  ChoirBuf b;
  int i;
  choirBufInit(&b, pErr, CHOIR_BUF_SQL);
  choirBufPrintf(&b,
                 "CREATE TABLE ~._choir_undo_%lld(n INTEGER PRIMARY KEY,"
                 " tag INTEGER NOT NULL, k INTEGER NOT NULL, r",
                 p->id);
  for (i = 0; i < p->images.nName; i++) {
    choirBufPrintf(&b, ", c%d", i + 1);
  }
  choirBufText(&b, ")");
  if (pErr->rc == SQLITE_OK) {
    choirExecText(pConn, pErr, b.a);
  }
  choirBufFree(&b);
}

static void trackStart(ChoirConn *pConn, ChoirErr *pErr, const char *zTable,
                       const char *zOptions, int bUndo) {
  ChoirLogTracks tracks;
  ChoirLogTrack *pOld, track;
  int i, bHad;
  memset(&track, 0, sizeof(track));
  choirLogInstall(pConn, pErr, NULL); /* what happened before is known */
  if (!trackMade(pConn, pErr)) {
    choirExecText(pConn, pErr, zTrackSql);
  }
  choirLogTracksRead(pConn, pErr, &tracks, 0);
  pOld = choirLogTrackOf(&tracks, zTable);
  bHad = pOld && pOld->images.id;
  track.id = pOld ? pOld->id
                  : choirQueryInt(pConn, pErr,
                                  "SELECT coalesce(max(id), 0) + 1 FROM"
                                  " ~._choir_track",
                                  1);
  track.images.id = bUndo ? track.id : 0;
  trackPlan(pConn, pErr, &track, zTable, zOptions);
  for (i = 0; pOld && i < pOld->images.nName; i++) {
    trackPlace(pErr, &track, pOld->images.azName[i]);
  }
  trackFit(pConn, pErr, &track, 0);
  if (bHad && !bUndo) {
    choirExec(pConn, pErr, "DROP TABLE ~._choir_undo_%lld", track.id);
  } else if (bUndo && !bHad) {
    trackMakeImages(pConn, pErr, &track);
  }
  trackWrite(pConn, pErr, &track, bHad ? pOld->images.nName : 0);
  choirLogInstall(pConn, pErr, zTable);
  trackFree(&track);
  choirLogTracksFree(&tracks);
}

/*
** SQL: log_track(table[, options]) -> TEXT
**
** From now on every change of the table is a record of action_log, and can be
** undone. Works for any table of rows, also while programs without choir write
** it; a table that has no PRIMARY KEY is followed by its rowid. Gives
** {"table","undo"}. Called again, it changes the options. Tables of the
** workspace are recorded anyway: for them it makes log_undo() possible.
**
**   table    TEXT, a table of the workspace's schema
**   options  JSON object: columns, the ones whose changes count (default: all);
**            labels, up to 6 columns whose text the payload shows; undo, false
**            to keep no rows as they were, which costs less (default: true)
**
** NULL: an error for table; a NULL options has no effect.
** Errors: no such table or column; a UNIQUE index on an expression; a key of
** more than 8 columns.
**
** > CREATE TABLE tea(id INTEGER PRIMARY KEY, name TEXT);
** > SELECT log_track('tea', '{"labels":["name"]}');
** > INSERT INTO tea(name) VALUES('oolong');
** > SELECT type, object, id, label FROM timeline
** = ROW_INSERT|tea|1|oolong
** > SELECT log_track('coffee')
** ! log_track: table coffee does not exist
*/
static void trackCall(ChoirCall *p) {
  const char *zTable = choirArgText(&p->err, p->apArg[0], "table");
  const char *zOptions =
      p->nArg > 1 && sqlite3_value_type(p->apArg[1]) != SQLITE_NULL
          ? choirArgJson(p->pConn, &p->err, p->apArg[1], "options")
          : "{}";
  int bUndo;
  char *zName;
  ChoirBuf b;
  choirNeedWorkspace(p->pConn, &p->err);
  zName = trackName(p->pConn, &p->err, zTable);
  bUndo =
      p->err.rc == SQLITE_OK ? trackUndoOption(p->pConn, &p->err, zOptions) : 0;
  if (p->err.rc == SQLITE_OK) {
    trackStart(p->pConn, &p->err, zName, zOptions, bUndo);
  }
  choirBufInit(&b, &p->err, CHOIR_BUF_SQL);
  choirBufText(&b, "{\"table\":");
  choirBufJson(&b, zName ? zName : "", -1);
  choirBufPrintf(&b, ",\"undo\":%d}", bUndo != 0);
  choirBufResult(&b, p->pCtx);
  sqlite3_free(zName);
}

/*
** SQL: log_untrack(table) -> INTEGER
**
** The log no longer follows the table; its records stay, its changes can no
** longer be undone. Returns 1, or 0 when it was not tracked. A column of a
** tracked table can only be dropped after this.
**
** NULL: an error.
**
** > CREATE TABLE tea(id INTEGER PRIMARY KEY, name TEXT);
** > SELECT log_track('tea'), log_untrack('tea'), log_untrack('tea')
** = {"table":"tea","undo":1}|1|0
*/
static void untrackCall(ChoirCall *p) {
  const char *zTable = choirArgText(&p->err, p->apArg[0], "table");
  ChoirLogTracks tracks;
  ChoirLogTrack *pTrack;
  choirNeedWorkspace(p->pConn, &p->err);
  choirLogInstall(p->pConn, &p->err, NULL); /* knows a renamed one */
  choirLogTracksRead(p->pConn, &p->err, &tracks, 0);
  pTrack = zTable ? choirLogTrackOf(&tracks, zTable) : NULL;
  if (pTrack && pTrack->images.id) {
    choirExec(p->pConn, &p->err, "DROP TABLE ~._choir_undo_%lld", pTrack->id);
  }
  if (pTrack) {
    choirExec(p->pConn, &p->err, "DELETE FROM ~._choir_track WHERE id=%lld",
              pTrack->id);
    choirLogInstall(p->pConn, &p->err, zTable);
  }
  sqlite3_result_int(p->pCtx, pTrack != NULL);
  choirLogTracksFree(&tracks);
}

static const ChoirFunc aTrackFunc[] = {
    {"log_track", 1, 2, CHOIR_WRITE, 0, trackCall, NULL},
    {"log_untrack", 1, 1, CHOIR_WRITE, 0, untrackCall, NULL},
};

CHOIR_PRIVATE CHOIR_COLD void choirLogTrackRegister(ChoirConn *pConn,
                                                    ChoirErr *pErr) {
  choirFuncs(pConn, pErr, aTrackFunc);
}
