/* SPDX-License-Identifier: MIT */
/*
** sync_pull(…, 'merge'): what was changed here since the last version that both
** have is put into the remote's version.
**
** All of it happens in private files, on a connection that has no trigger, no
** view and no function of choir's: the remote's version is fetched and verified as
** by any pull, the common version is put together from the same folder, this file
** is copied in one read transaction. Only when the merged database is whole does
** sync_pull() put it in the place of this one, in one transaction and unless
** somebody changed this file meanwhile.
**
** The merged file has the remote's history and head, and changes on top that
** were not pushed: the next sync_push() sends them.
*/
#include "sync.h"

/* -------------------------------------------------------------- statements */

static sqlite3_stmt *mergeVprepare(ChoirMerge *p, const char *zFmt,
                                   va_list ap) {
  sqlite3_stmt *pStmt = NULL;
  char *z = choirVmprintf(p->pErr, zFmt, ap);
  if (z && p->pErr->rc == SQLITE_OK) {
    choirMergeFailed(p, sqlite3_prepare_v2(p->db, z, -1, &pStmt, NULL));
  }
  sqlite3_free(z);
  return pStmt;
}

CHOIR_PRIVATE sqlite3_stmt *choirMergePrepare(ChoirMerge *p, const char *zFmt,
                                              ...) {
  sqlite3_stmt *pStmt;
  va_list ap;
  va_start(ap, zFmt);
  pStmt = mergeVprepare(p, zFmt, ap);
  va_end(ap);
  return pStmt;
}

CHOIR_PRIVATE i64 choirMergeInt(ChoirMerge *p, const char *zFmt, ...) {
  sqlite3_stmt *pStmt;
  va_list ap;
  i64 i;
  va_start(ap, zFmt);
  pStmt = mergeVprepare(p, zFmt, ap);
  va_end(ap);
  i = choirStep(p->pErr, pStmt) ? sqlite3_column_int64(pStmt, 0) : 0;
  sqlite3_finalize(pStmt);
  return i;
}

CHOIR_PRIVATE void choirMergeExec(ChoirMerge *p, const char *zFmt, ...) {
  va_list ap;
  char *z;
  va_start(ap, zFmt);
  z = choirVmprintf(p->pErr, zFmt, ap);
  va_end(ap);
  if (z && p->pErr->rc == SQLITE_OK) {
    choirMergeFailed(p, sqlite3_exec(p->db, z, NULL, NULL, NULL));
  }
  sqlite3_free(z);
}

CHOIR_PRIVATE void choirMergeRefuse(ChoirMerge *p, const char *zFmt, ...) {
  ChoirErr err = {0, NULL};
  va_list ap;
  char *z;
  va_start(ap, zFmt);
  z = choirVmprintf(&err, zFmt, ap);
  va_end(ap);
  choirErrSet(p->pErr, SQLITE_CONSTRAINT,
              "cannot merge: %s; nothing was changed here: put it right in this"
              " file and merge again, or sync_pull(…, 'theirs')",
              z ? z : "");
  sqlite3_free(z);
  choirErrClear(&err);
}

CHOIR_PRIVATE void choirMergeFailed(ChoirMerge *p, int rc) {
  static const char *const az[] = {
      "no such collation sequence%", "no such function%", "unknown function%",
      "no such module%", "no query solution"}; /* of an unknown order */
  const char *z = sqlite3_errmsg(p->db);
  int i;
  for (i = 0; rc == SQLITE_ERROR && i < (int)(sizeof(az) / sizeof(az[0]));
       i++) {
    if (sqlite3_strlike(az[i], z, 0) == 0) {
      choirMergeRefuse(p,
                       "a table needs what this program adds to SQLite, and a"
                       " merge runs without it (%s)",
                       z);
    }
  }
  choirErrDb(p->pErr, p->db, rc);
}

CHOIR_PRIVATE int choirMergeAlike(ChoirMerge *p, const char *zA, const char *zB,
                                  const char *zTable) {
  return choirDiffAlike(p->pConn, p->pErr, p->db, zA, zB, zTable);
}

CHOIR_PRIVATE int choirMergeStop(ChoirMerge *p) {
  if (++p->nTick % 4096 == 0 && choirInterrupted(p->pConn)) {
    choirErrSet(p->pErr, SQLITE_INTERRUPT, "interrupted");
  }
  return p->pErr->rc != SQLITE_OK;
}

/* choir_row(…): the values with their types, hashed. */
static void mergeRow(sqlite3_context *pCtx, int nArg, sqlite3_value **ap) {
  ChoirSha256 sha;
  u8 a[32];
  int i;
  if (choirMergeStop(sqlite3_user_data(pCtx))) {
    sqlite3_result_error_code(pCtx, SQLITE_INTERRUPT);
    return;
  }
  choirSha256Init(&sha);
  for (i = 0; i < nArg; i++) {
    int eType = sqlite3_value_type(ap[i]);
    const void *aByte = NULL;
    u64 v = 0;
    if (eType == SQLITE_INTEGER) {
      v = (u64)sqlite3_value_int64(ap[i]);
    } else if (eType == SQLITE_FLOAT) {
      double r = sqlite3_value_double(ap[i]);
      memcpy(&v, &r, 8);
    } else if (eType != SQLITE_NULL) {
      aByte = sqlite3_value_blob(ap[i]);
      v = (u64)sqlite3_value_bytes(ap[i]);
      if (aByte == NULL && v) {
        sqlite3_result_error_nomem(pCtx);
        return;
      }
    }
    choirDiffHash(&sha, eType, v, aByte);
  }
  choirSha256Final(&sha, a);
  sqlite3_result_blob(pCtx, a, 16, SQLITE_TRANSIENT);
}

/* ------------------------------------------------------------------- opening */

static i64 mergeIntOf(ChoirErr *pErr, sqlite3 *db, const char *zSql) {
  sqlite3_stmt *p = NULL;
  i64 v = 0;
  if (pErr->rc == SQLITE_OK) {
    choirErrDb(pErr, db, sqlite3_prepare_v2(db, zSql, -1, &p, NULL));
  }
  if (choirStep(pErr, p)) {
    v = sqlite3_column_int64(p, 0);
  }
  sqlite3_finalize(p);
  return v;
}

/* Four empty databases in temporary files, of the remote's page size and
** encoding. */
static void mergeOpen(ChoirMerge *p, sqlite3 *dbThere) {
  static const char *const azSide[] = {"here", "base", "work"};
  i64 szPage = mergeIntOf(p->pErr, dbThere, "PRAGMA page_size");
  sqlite3_stmt *pEnc = NULL;
  int i, rc;
  if (p->pErr->rc != SQLITE_OK) {
    return;
  }
  rc = sqlite3_open_v2("", &p->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE,
                       NULL);
  if (rc != SQLITE_OK) {
    choirErrSet(p->pErr, rc, "cannot open a temporary database: %s",
                sqlite3_errstr(rc));
    return;
  }
  sqlite3_db_config(p->db, SQLITE_DBCONFIG_ENABLE_TRIGGER, 0, NULL);
  sqlite3_db_config(p->db, SQLITE_DBCONFIG_ENABLE_VIEW, 0, NULL);
  sqlite3_db_config(p->db, SQLITE_DBCONFIG_ENABLE_FKEY, 0, NULL);
  sqlite3_db_config(p->db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
  choirErrDb(p->pErr, p->db,
             sqlite3_create_function_v2(p->db, "choir_row", -1,
                                        SQLITE_UTF8 | SQLITE_DETERMINISTIC, p,
                                        mergeRow, NULL, NULL, NULL));
  choirErrDb(p->pErr, dbThere,
             sqlite3_prepare_v2(dbThere, "PRAGMA encoding", -1, &pEnc, NULL));
  if (choirStep(p->pErr, pEnc)) {
    choirMergeExec(p, "PRAGMA encoding=%Q", sqlite3_column_text(pEnc, 0));
  }
  sqlite3_finalize(pEnc);
  choirMergeExec(p, "PRAGMA page_size=%lld", szPage);
  for (i = 0; i < 3; i++) {
    choirMergeExec(p, "ATTACH '' AS %s; PRAGMA %s.page_size=%lld", azSide[i],
                   azSide[i], szPage);
  }
}

/* All of zFrom's main into one of the four. */
static void mergeCopy(ChoirMerge *p, const char *zTo, sqlite3 *dbFrom) {
  sqlite3_backup *pBackup;
  int rc;
  if (p->pErr->rc != SQLITE_OK) {
    return;
  }
  pBackup = sqlite3_backup_init(p->db, zTo, dbFrom, "main");
  if (pBackup == NULL) {
    choirErrDb(p->pErr, p->db, sqlite3_errcode(p->db));
    return;
  }
  rc = sqlite3_backup_step(pBackup, -1);
  sqlite3_backup_finish(pBackup);
  if (rc == SQLITE_NOMEM) {
    choirErrNomem(p->pErr);
  } else if (rc != SQLITE_DONE) {
    choirErrSet(p->pErr, rc, "cannot copy a version for the merge: %s",
                sqlite3_errstr(rc));
  }
}

/* -------------------------------------------------------------------- base */

/* The newest version that both descend from; 0: there is none. */
static int mergeCommon(ChoirMerge *p, u8 aId[CHOIR_SYNC_ID]) {
  sqlite3_stmt *pStmt = choirMergePrepare(
      p, "SELECT push_id FROM here._choir_sync_history WHERE push_id IN (SELECT"
         " push_id FROM main._choir_sync_history) ORDER BY txid DESC LIMIT 1");
  int bHave = choirStep(p->pErr, pStmt) &&
              sqlite3_column_bytes(pStmt, 0) == CHOIR_SYNC_ID;
  if (bHave) {
    memcpy(aId, sqlite3_column_blob(pStmt, 0), CHOIR_SYNC_ID);
  }
  sqlite3_finalize(pStmt);
  return bHave;
}

/* The transaction at the folder that is that version: one this file knows of, or
** by the headers of what is there. 0: none. */
static u64 mergeTxid(ChoirMerge *p, ChoirRemote *pRemote, const u8 *aSeal,
                     const u8 aId[CHOIR_SYNC_ID]) {
  ChoirFiles files;
  ChoirLtxHead head;
  u64 i, iTxid = 0, iFound = 0;
  const u8 *aKnown = choirSealFolder(aSeal, pRemote->zUrl, &iTxid);
  choirFolderList(pRemote, p->pErr, &files);
  for (i = 0; i < files.n && p->pErr->rc == SQLITE_OK && !iFound; i++) {
    ChoirFile *q = &files.a[i];
    if (aKnown && memcmp(aKnown, aId, CHOIR_SYNC_ID) == 0
            ? q->iMax == iTxid
            : choirFolderHead(pRemote, p->pErr, q, &head, NULL) ==
                      CHOIR_OBJECT_OK &&
                  memcmp(head.aId, aId, CHOIR_SYNC_ID) == 0) {
      iFound = q->iMax;
    }
  }
  choirFilesFree(&files);
  return iFound;
}

/* Fetches the common version into `base`. */
static void mergeBase(ChoirMerge *p, const ChoirSyncRun *pRun) {
  const char *zUrl = pRun->there.zUrl;
  u8 aId[CHOIR_SYNC_ID];
  ChoirRemote base;
  u64 iTxid = 0;
  int bCommon = mergeCommon(p, aId);
  if (p->pErr->rc != SQLITE_OK) {
    return;
  }
  choirRemoteOpen(p->pConn, p->pErr, &base, zUrl);
  if (bCommon) {
    iTxid = mergeTxid(p, &base, pRun->here.aSeal, aId);
  }
  if (p->pErr->rc == SQLITE_OK && iTxid == 0) {
    choirErrSet(p->pErr, SQLITE_ERROR,
                "the version that this file and %s have in common is %s; a"
                " merge needs it: sync_pull('%s', 'theirs') replaces this file"
                " and keeps a copy, sync_push(…, 'fork') begins a workspace of"
                " its own at a new remote",
                zUrl, bCommon ? "no longer there" : "not known", zUrl);
  }
  if (p->pErr->rc == SQLITE_OK) {
    choirRemoteRestore(p->pErr, &base, iTxid);
  }
  if (p->pErr->rc == SQLITE_OK &&
      memcmp(base.pos.aHead, aId, CHOIR_SYNC_ID) != 0) {
    choirErrSet(p->pErr, SQLITE_CORRUPT,
                "transaction %llu of %s is not the version it was", iTxid,
                zUrl);
  }
  mergeCopy(p, "base", base.db);
  choirRemoteClose(&base);
}

/* ------------------------------------------------------------------- tables */

/* Names of the tables that main and here have, _choir_track first: what is
** tracked must be known. The caller frees. */
static char **mergeTables(ChoirMerge *p, int *pn) {
  sqlite3_stmt *pStmt = choirMergePrepare(
      p,
      "SELECT m.name FROM main.sqlite_schema AS m JOIN here.sqlite_schema AS"
      " h ON h.type='table' AND h.rootpage>0 AND h.name=m.name COLLATE NOCASE"
      " WHERE m.type='table' AND m.rootpage>0 AND m.name NOT LIKE"
      " 'sqlite\\_%%' ESCAPE '\\' ORDER BY m.name<>'_choir_track', m.name");
  char **az = NULL;
  *pn = 0;
  while (choirStep(p->pErr, pStmt)) {
    char **azNew = choirRealloc(p->pErr, az, (u64)(*pn + 1) * sizeof(*azNew));
    if (azNew == NULL) {
      break;
    }
    az = azNew;
    az[*pn] = choirMprintf(p->pErr, "%s", sqlite3_column_text(pStmt, 0));
    *pn += az[*pn] != NULL;
  }
  sqlite3_finalize(pStmt);
  return az;
}

/* The whole of the side that changed it. */
static void mergeSide(ChoirMerge *p, const char *zTable,
                      const ChoirMergeRule *pRule) {
  if (choirMergeAlike(p, "here", "base", zTable) ||
      choirMergeAlike(p, "here", "main", zTable)) {
    return;
  }
  if (choirMergeAlike(p, "main", "base", zTable)) {
    choirThreeCopy(p, zTable, pRule);
  } else {
    choirMergeRefuse(p,
                     "both sides changed table %s, which goes only as a"
                     " whole (%s)",
                     zTable, pRule->zRemedy);
  }
}

static void mergeTable(ChoirMerge *p, const char *zTable) {
  const ChoirMergeRule *pRule = choirMergeRuleOf(p, zTable);
  if (p->pErr->rc != SQLITE_OK) {
    return;
  }
  if (pRule->eRule == CHOIR_MERGE_ROWS) {
    choirThreeTable(p, zTable, pRule);
  } else if (pRule->eRule == CHOIR_MERGE_SIDE) {
    mergeSide(p, zTable, pRule);
  } else if (pRule->eRule == CHOIR_MERGE_WHOLE &&
             choirMergeInt(p, "SELECT count(*) FROM work.made WHERE name=%Q",
                           zTable)) {
    choirThreeCopy(p, zTable, pRule);
  }
}

/* Everything between the copies and the whole. */
static void mergeAll(ChoirMerge *p) {
  char **az;
  int i, n;
  choirMergeExec(p, "BEGIN;"
                    "CREATE TABLE work.conflict(tbl TEXT, pk, kind TEXT,"
                    " payload TEXT)");
  choirRoomsSequence(p);
  choirRoomsOrphans(p);
  choirGraft(p);
  choirRoomsNumbers(p);
  az = mergeTables(p, &n);
  for (i = 0; i < n && p->pErr->rc == SQLITE_OK; i++) {
    const ChoirMergeRule *pRule = choirMergeRuleOf(p, az[i]);
    if (pRule->eRule == CHOIR_MERGE_ROWS && !pRule->bQuiet) {
      choirThreeMove(p, az[i], pRule);
    }
  }
  choirRoomsOwnOrphans(p);
  choirRoomsBefore(p);
  for (i = 0; i < n; i++) {
    mergeTable(p, az[i]);
    sqlite3_free(az[i]);
  }
  sqlite3_free(az);
  choirRoomsRestore(p);
  choirRoomsAfter(p);
}

/* -------------------------------------------------------------------- whole */

static void mergeTell(ChoirMerge *p, ChoirBuf *b, int *pbConflict) {
  sqlite3_stmt *pStmt = choirMergePrepare(
      p, "SELECT tbl, kind, count(*) FROM work.conflict GROUP BY 1, 2 ORDER BY"
         " 1, 2");
  choirBufPrintf(b, "\"merged\":%lld,\"seals\":%lld,\"conflicts\":[", p->nRow,
                 p->nSeal);
  while (choirStep(p->pErr, pStmt)) {
    choirBufText(b, *pbConflict ? ",{\"table\":" : "{\"table\":");
    choirBufJson(b, (const char *)sqlite3_column_text(pStmt, 0), -1);
    choirBufPrintf(b, ",\"kind\":\"%s\",\"rows\":%lld}",
                   sqlite3_column_text(pStmt, 1),
                   sqlite3_column_int64(pStmt, 2));
    *pbConflict = 1;
  }
  choirBufText(b, "]");
  sqlite3_finalize(pStmt);
}

static void mergeSeal(ChoirMerge *p, const u8 *aSeal) {
  sqlite3_stmt *pStmt = choirMergePrepare(
      p, "UPDATE main._choir_sync_seal SET seal=?1 WHERE id=1");
  choirBindBlob(p->pErr, pStmt, 1, aSeal, CHOIR_SYNC_SEAL);
  choirStep(p->pErr, pStmt);
  sqlite3_finalize(pStmt);
}

CHOIR_PRIVATE sqlite3 *choirMerge(ChoirSyncRun *pRun, const u8 *aSeal,
                                  ChoirBuf *pTold, int *pbConflict) {
  ChoirMerge merge = {.pConn = pRun->pConn, .pErr = pRun->pErr};
  ChoirMerge *p = &merge;
  char *zProblem;
  mergeOpen(p, pRun->there.db);
  mergeCopy(p, "main", pRun->there.db);
  if (p->pErr->rc == SQLITE_OK) {
    choirSnapshotInto(p->pConn, p->pErr, p->db, "here");
  }
  mergeBase(p, pRun);
  mergeAll(p);
  mergeTell(p, pTold, pbConflict);
  mergeSeal(p, aSeal);
  /* CHECK constraints held when rows went in, and may need the host's functions. */
  choirMergeExec(p, "COMMIT; DETACH here; DETACH base; DETACH work;"
                    "PRAGMA ignore_check_constraints=ON");
  zProblem = choirSpoolProblem(p->pErr, p->db);
  if (zProblem) {
    choirMergeRefuse(p, "the result is not sound: %s", zProblem);
  }
  sqlite3_free(zProblem);
  if (p->pErr->rc != SQLITE_OK) {
    sqlite3_close(p->db);
    p->db = NULL;
  }
  return p->db;
}
