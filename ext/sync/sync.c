/* SPDX-License-Identifier: MIT */
/*
** What every sync call begins with, sync_status and sync_verify, and sync's
** part of a workspace.
**
** Owns in the file: _choir_sync_history, _choir_sync_seal, the lineage in
** _choir_meta (sql/0004_sync.sql), and the three keys of sync_state.
*/
#include "sync.h"
#include <time.h>

/* -------------------------------------------------------------------- run */

CHOIR_PRIVATE void choirSyncBegin(ChoirSyncRun *p, ChoirCall *pCall,
                                  const char *zMode, const char *zOther) {
  const char *zUrl = NULL;
  memset(p, 0, sizeof(*p));
  p->pConn = pCall->pConn;
  p->pErr = &pCall->err;
  p->iStart = choirMonotonic();
  p->there.fd = -1;
  if (pCall->nArg > 0) {
    zUrl = choirArgTextOrNull(p->pErr, pCall->apArg[0], "remote");
  }
  if (pCall->nArg > 1) {
    p->zMode = choirArgTextOrNull(p->pErr, pCall->apArg[1], "mode");
  }
  if (p->zMode && strcmp(p->zMode, zMode) != 0 &&
      (zOther == NULL || strcmp(p->zMode, zOther) != 0)) {
    choirErrSet(p->pErr, SQLITE_ERROR,
                "mode must be '%s'%s%s%s or left out, got '%s'", zMode,
                zOther ? ", '" : "", zOther ? zOther : "", zOther ? "'" : "",
                p->zMode);
  }
  /* A snapshot, and a pulled file put in place, are refused by SQLite while
  ** this connection reads or writes. */
  choirNeedAlone(p->pConn, p->pErr);
  if (p->pErr->rc == SQLITE_OK) {
    choirPositionRead(p->pErr, p->pConn->db, choirSchema(p->pConn), &p->here);
  }
  if (p->pErr->rc == SQLITE_OK &&
      sqlite3_db_readonly(p->pConn->db, choirSchema(p->pConn)) == 1) {
    choirErrSet(p->pErr, SQLITE_READONLY,
                "the database is read-only and a sync writes its position into"
                " it");
  }
  choirRemoteOpen(p->pConn, p->pErr, &p->there, zUrl);
  p->there.bAnyway = p->zMode && strcmp(p->zMode, zMode) == 0;
  choirRemoteLook(p->pErr, &p->there, &p->here);
}

CHOIR_PRIVATE void choirSyncIdentify(ChoirSyncRun *p, int bForeign) {
  const u8 *aKnown = NULL;
  if (p->pErr->rc != SQLITE_OK || p->there.eHead == CHOIR_OBJECT_ABSENT) {
    return;
  }
  if (p->here.bWorkspace && !bForeign) {
    aKnown = p->there.bFolder ? p->there.head.aId
                              : choirSealKnown(p->here.aSeal, p->there.zUrl,
                                               p->there.meta.zEtag);
  }
  if (aKnown && choirPositionKnows(p->pErr, p->pConn->db, choirSchema(p->pConn),
                                   aKnown)) {
    memcpy(p->aThere, aKnown, CHOIR_SYNC_ID);
    p->bThere = 1;
    return;
  }
  choirRemoteFetch(p->pConn, p->pErr, &p->there, bForeign);
  if (p->pErr->rc == SQLITE_OK && p->there.eHead == CHOIR_OBJECT_OK) {
    memcpy(p->aThere, p->there.pos.aHead, CHOIR_SYNC_ID);
    p->bThere = p->bFetched = 1;
  }
}

CHOIR_PRIVATE void choirSyncEnd(ChoirSyncRun *p) {
  choirRemoteClose(&p->there);
}

CHOIR_PRIVATE int choirSyncChanged(ChoirSyncRun *p) {
  ChoirCache cache;
  ChoirCapture now;
  int bChanged;
  if (!p->here.bHead || !choirSealHasDigest(&p->here)) {
    return 1;
  }
  if (p->pErr->rc != SQLITE_OK || !p->there.bFolder) {
    return choirSnapshotChanged(p->pConn, p->pErr, p->here.aSeal);
  }
  memset(&now, 0, sizeof(now));
  now.fd = -1;
  choirCacheRead(p->pConn, p->pErr, &cache, &p->here, p->there.zUrl);
  choirCapture(p->pConn, p->pErr, &now, &cache);
  bChanged = memcmp(now.aDigest, p->here.aSeal, 32) != 0;
  choirCaptureFree(&now);
  choirCacheFree(&cache);
  return bChanged;
}

CHOIR_PRIVATE void choirSyncTime(i64 iTime, char z[32]) {
  time_t t = (time_t)(iTime / 1000);
  struct tm tm;
  z[0] = 0;
  if (iTime > 0 && gmtime_r(&t, &tm)) {
    strftime(z, 32, " of %Y-%m-%dT%H:%M:%SZ", &tm);
  }
}

CHOIR_PRIVATE char *choirSyncWhere(ChoirSyncRun *p) {
  char z[32];
  choirSyncTime(p->there.bFolder ? p->there.head.iTime : p->there.pos.iTime, z);
  if (p->there.bFolder) {
    u64 iHere = 0;
    choirSealFolder(p->here.aSeal, p->there.zUrl, &iHere);
    return choirMprintf(p->pErr,
                        "%s is at version %llu%s and this file at %llu",
                        p->there.zUrl, p->there.iTxid, z, iHere);
  }
  return choirMprintf(p->pErr, "%s is at version %lld%s and this file at %lld",
                      p->there.zUrl, p->there.pos.iTxid, z, p->here.iTxid);
}

CHOIR_PRIVATE const char *choirSyncWays(const ChoirSyncRun *p) {
  return p->there.bFolder
             ? "'merge' puts both together, 'theirs' takes the remote's and"
               " keeps a copy of this file; or sync_push(…, 'fork') begins"
               " another workspace"
             : "'theirs' takes the remote's and keeps a copy of this file; or"
               " sync_push(…, 'fork') begins another workspace";
}

CHOIR_PRIVATE void choirSyncResult(ChoirSyncRun *p, ChoirCall *pCall,
                                   const char *zVerb, int n, u64 nByte,
                                   const char *zMore, const char *zSaved) {
  char zId[2 * CHOIR_SYNC_ID + 1];
  ChoirBuf b;
  choirBufInit(&b, p->pErr, CHOIR_BUF_JSON);
  choirHex(p->here.aHead, CHOIR_SYNC_ID, zId);
  choirBufPrintf(&b, "{\"%s\":%d,\"version\":\"%s\",\"txid\":%lld", zVerb, n,
                 p->here.bHead ? zId : "",
                 p->there.bFolder ? (i64)p->there.iTxid : p->here.iTxid);
  choirBufPrintf(&b, ",\"bytes\":%llu", nByte);
  if (p->there.pCrypt) {
    choirBufText(&b, ",\"encrypted\":1");
  }
  if (zMore) {
    choirBufPrintf(&b, ",%s", zMore);
  }
  if (zSaved) {
    choirBufText(&b, ",\"saved\":");
    choirBufJson(&b, zSaved, -1);
  }
  choirBufPrintf(&b, ",\"ms\":%lld}", choirMonotonic() - p->iStart);
  choirBufResult(&b, pCall->pCtx);
}

/* ------------------------------------------------------------------ empty */

static int syncIsOurs(const char *zName) {
  int i, j;
  for (i = 0; i < choirMigrationCount; i++) {
    const char *const *az = choirMigrations[i].azObject;
    for (j = 0; az[j]; j++) {
      if (sqlite3_stricmp(az[j], zName) == 0) {
        return 1;
      }
    }
  }
  return 0;
}

static int syncHasRows(ChoirConn *pConn, ChoirErr *pErr, const char *zTable) {
  char *z = choirMprintf(pErr, "SELECT 1 FROM ~.\"%w\" LIMIT 1", zTable);
  sqlite3_stmt *p = z ? choirPrepare(pConn, pErr, z) : NULL;
  int bRow = choirStep(pErr, p);
  sqlite3_finalize(p);
  sqlite3_free(z);
  return bRow;
}

CHOIR_PRIVATE int choirSyncIsEmpty(ChoirConn *pConn, ChoirErr *pErr) {
  sqlite3_stmt *p = choirPrepare(
      pConn, pErr,
      "SELECT type, name FROM ~.sqlite_schema WHERE type IN ('table','view')"
      " AND name NOT LIKE '\\_choir\\_%' ESCAPE '\\'"
      " AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'");
  int bEmpty = 1;
  while (bEmpty && choirStep(pErr, p)) {
    const char *zType = (const char *)sqlite3_column_text(p, 0);
    const char *zName = (const char *)sqlite3_column_text(p, 1);
    if (zType == NULL || zName == NULL) {
      choirErrNomem(pErr);
    } else if (!syncIsOurs(zName) ||
               (zType[0] == 't' && syncHasRows(pConn, pErr, zName))) {
      bEmpty = 0;
    }
  }
  sqlite3_finalize(p);
  return bEmpty && pErr->rc == SQLITE_OK;
}

/* ----------------------------------------------------------------- status */

/* Which version is there; of a folder its header tells. */
static void syncStatusLook(ChoirSyncRun *p) {
  if (!p->there.bFolder) {
    choirSyncIdentify(p, 0);
    return;
  }
  choirFolderNewest(p->pErr, &p->there);
  p->bThere = p->pErr->rc == SQLITE_OK && p->there.eHead == CHOIR_OBJECT_OK;
  memcpy(p->aThere, p->there.head.aId, CHOIR_SYNC_ID);
}

/* What would a push or a pull do? */
static const char *syncState(ChoirSyncRun *p, int bChanged) {
  if (p->there.eHead == CHOIR_OBJECT_ABSENT) {
    return "empty";
  }
  if (p->there.bFolder && !choirFolderOurs(&p->there, &p->here)) {
    return !p->here.bHead && choirSyncIsEmpty(p->pConn, p->pErr)
               ? "pull"
               : "another workspace";
  }
  if (p->bFetched && strcmp(p->there.pos.zLineage, p->here.zLineage) != 0) {
    return !p->here.bHead && choirSyncIsEmpty(p->pConn, p->pErr)
               ? "pull"
               : "another workspace";
  }
  if (memcmp(p->aThere, p->here.aHead, CHOIR_SYNC_ID) == 0) {
    return bChanged ? "push" : "in sync";
  }
  if (choirPositionKnows(p->pErr, p->pConn->db, choirSchema(p->pConn),
                         p->aThere)) {
    return "push";
  }
  if (!bChanged &&
      (p->there.bFolder
           ? p->there.iBase > 0
           : p->bFetched && choirPositionKnows(p->pErr, p->there.db, "main",
                                               p->here.aHead))) {
    return "pull";
  }
  return "conflict";
}

static void syncStatusRow(ChoirCursor *pCur, ChoirSyncRun *p,
                          const char *zState, const char *zDetail,
                          int bChanged) {
  char zId[2 * CHOIR_SYNC_ID + 1];
  int bSame = p->bThere && memcmp(p->aThere, p->here.aHead, 16) == 0;
  u64 iHere = 0;
  if (p->there.bFolder && p->there.zUrl) { /* NULL: it is no URL */
    choirSealFolder(p->here.aSeal, p->there.zUrl, &iHere);
  }
  choirRowText(pCur, p->there.zUrl);
  choirRowText(pCur, zState);
  choirRowText(pCur, zDetail);
  choirRowInt(pCur, bChanged);
  choirRowInt(pCur, p->there.bFolder ? (i64)iHere : p->here.iTxid);
  choirHex(p->here.aHead, CHOIR_SYNC_ID, zId);
  choirRowText(pCur, p->here.bHead ? zId : NULL);
  if (p->there.bFolder && p->bThere) {
    choirRowInt(pCur, (i64)p->there.iTxid);
  } else if (p->bFetched || bSame) {
    choirRowInt(pCur, p->bFetched ? p->there.pos.iTxid : p->here.iTxid);
  } else {
    choirRowText(pCur, NULL);
  }
  choirHex(p->aThere, CHOIR_SYNC_ID, zId);
  choirRowText(pCur, p->bThere ? zId : NULL);
  if (p->here.iTime) {
    choirRowInt(pCur, p->here.iTime);
  } else {
    choirRowText(pCur, NULL);
  }
}

/*
** SQL: sync_status([remote]) -> TABLE(remote, state, detail, changed, txid,
**   version, remote_txid, remote_version, last_sync)
**
** One row: where this file and the remote stand, changing neither. state says
** what is to do: in sync, push, pull, conflict (both sides changed), empty
** (nothing at the remote yet), another workspace, unreachable (detail says
** why), no remote. detail also has what went wrong with the last push of
** sync_auto() on this connection. changed is 1 when this file differs from the version it was
** last pushed or pulled as.
**
**   remote  TEXT, URL; default: choir_config('remote')
**
** Errors: no workspace in the schema.
**
** > SELECT state, changed, txid FROM sync_status
** = no remote|1|0
*/
static void syncStatus(ChoirCursor *pCur) {
  const char *zUrl = choirArgTextOrNull(&pCur->err, pCur->apArg[0], "remote");
  ChoirErr err = {0, NULL}; /* a remote out of reach is a row, no error */
  ChoirSyncRun run;
  const char *zState = "no remote";
  char *zAuto;
  int bChanged;
  memset(&run, 0, sizeof(run));
  run.pConn = pCur->pConn;
  run.pErr = &pCur->err;
  run.there.fd = -1;
  choirNeedWorkspace(pCur->pConn, &pCur->err);
  if (pCur->err.rc == SQLITE_OK) {
    choirPositionRead(&pCur->err, pCur->pConn->db, choirSchema(pCur->pConn),
                      &run.here);
  }
  if (zUrl || choirConfig(pCur->pConn, "remote")) {
    choirRemoteOpen(pCur->pConn, &err, &run.there, zUrl);
  }
  bChanged = choirSyncChanged(&run);
  if (run.there.pStore && pCur->err.rc == SQLITE_OK) {
    run.pErr = &err;
    choirRemoteLook(&err, &run.there, &run.here);
    syncStatusLook(&run);
  }
  if (zUrl || choirConfig(pCur->pConn, "remote")) {
    zState = err.rc ? "unreachable" : syncState(&run, bChanged);
  }
  if (err.rc == SQLITE_NOMEM) {
    choirErrNomem(&pCur->err);
  }
  zAuto = choirAutoProblem(pCur->pConn, &pCur->err);
  if (err.zMsg == NULL && zAuto) {
    err.zMsg = choirMprintf(&pCur->err, "sync_auto: %s", zAuto);
  }
  sqlite3_free(zAuto);
  if (err.zMsg == NULL && strcmp(zState, "conflict") == 0) {
    err.zMsg =
        choirMprintf(&pCur->err, "both sides changed; sync_pull(…, mode): %s",
                     choirSyncWays(&run));
  }
  if (pCur->err.rc == SQLITE_OK) {
    syncStatusRow(pCur, &run, zState, err.zMsg, bChanged);
  }
  choirErrClear(&err);
  choirSyncEnd(&run);
}

static void syncNothing(void *pArg, ChoirErr *pErr, u32 iPage, const u8 *a,
                        u32 szPage) {
  (void)pArg, (void)pErr, (void)iPage, (void)a, (void)szPage;
}

/* Was an encrypted remote rolled back since this file saw it? */
static void syncSeen(ChoirConn *pConn, ChoirErr *pErr, ChoirRemote *p) {
  ChoirPosition here;
  if (p->pCrypt && pErr->rc == SQLITE_OK) {
    choirPositionRead(pErr, pConn->db, choirSchema(pConn), &here);
    choirRemoteLook(pErr, p, &here);
  }
}

/* Every object of a folder, whether a restore would read it or not. */
static u64 syncReadAll(ChoirErr *pErr, ChoirRemote *p, u64 *pnByte) {
  ChoirFiles files;
  ChoirLtxHead head;
  u64 i, n = 0;
  choirFolderList(p, pErr, &files);
  for (i = 0; i < files.n && pErr->rc == SQLITE_OK; i++) {
    n += choirFolderRead(p, pErr, &files.a[i], syncNothing, NULL, &head,
                         pnByte) == CHOIR_OBJECT_OK;
  }
  choirFilesFree(&files);
  return n;
}

/* Does every index agree with its table? 0: it cannot be told. */
static int syncIndexes(ChoirConn *pConn, ChoirErr *pErr, ChoirRemote *p) {
  char *zProblem = NULL;
  int bTold = choirSpoolIndexes(pConn, pErr, p->pSpool, &zProblem);
  if (zProblem) {
    choirErrSet(pErr, SQLITE_CORRUPT,
                "the remote %s is as it was pushed, and an index in it does not"
                " fit its table: %s; run REINDEX in the file that was pushed,"
                " and push again",
                p->zUrl, zProblem);
  }
  sqlite3_free(zProblem);
  return bTold;
}

/* Is the content here that of the digest? 0 without a workspace. */
static int syncSame(ChoirConn *pConn, ChoirErr *pErr, const u8 aDigest[32]) {
  return choirHasWorkspace(pConn, pErr) && pErr->rc == SQLITE_OK &&
         !choirSnapshotChanged(pConn, pErr, aDigest) && pErr->rc == SQLITE_OK;
}

static void syncTables(ChoirConn *pConn, ChoirErr *pErr, ChoirRemote *p,
                       int bSame, ChoirBuf *pOut) {
  ChoirBuf differ, digest;
  int bHere = !bSame && pErr->rc == SQLITE_OK && choirHasWorkspace(pConn, pErr);
  choirBufInit(&differ, pErr, CHOIR_BUF_JSON);
  choirBufInit(&digest, pErr, CHOIR_BUF_JSON);
  if (pErr->rc == SQLITE_OK) {
    choirDiffTables(pConn, pErr, p->db, bHere, &differ, &digest);
  }
  if (bHere) {
    choirBufPrintf(pOut, "\"tables\":[%s],", differ.n ? differ.a : "");
  }
  choirBufPrintf(pOut, "\"digests\":[%s],", digest.n ? digest.a : "");
  choirBufFree(&differ);
  choirBufFree(&digest);
}

/*
** SQL: sync_verify([remote[, read_data]]) -> TEXT
**
** Puts the newest version of the remote together and proves that it is whole
** and undamaged: every checksum on the way, its digest (SHA-256 over all pages)
** and PRAGMA quick_check. Changes nothing. Gives a JSON object: ok, version,
** txid, bytes (read), sha256 (the digest), same (1 when this file has the same
** content), ms, and with read_data objects (how many were read) and indexes (1:
** each has just the rows of its table; 0: one needs a collation or a function that
** the host has registered, so that it cannot be told). digests is an
** array of all its tables: name, rows, digest (over the rows with their types,
** whatever their order; docs/formats.md, "Table digests"). When this file's
** content differs, tables is an array of the tables whose rows do: name, here
** and there (rows), digest (of this file's), only_here and only_there (rows the
** other side does not have, value for value; a changed row counts on both).
** Virtual tables are compared by the tables they keep, the schema as
** sqlite_schema.
**
**   remote     TEXT, URL; default: choir_config('remote')
**   read_data  INTEGER, 1: read every object of a folder, also those that the
**              newest version does not need, and compare every index with its
**              table (PRAGMA integrity_check), which neither a pull does nor 0
**
** NULL: a NULL remote means the configured one, a NULL read_data 0.
** Errors: nothing there; damaged, and how; an index that does not fit its table;
** not a workspace.
**
** > SELECT sync_verify('ws.sqlite')
** ! sync_verify: 'ws.sqlite' is not a URL; write s3://bucket/folder/name or file:///folder/name
*/
static void syncVerify(ChoirCall *pCall) {
  const char *zUrl =
      pCall->nArg ? choirArgTextOrNull(&pCall->err, pCall->apArg[0], "remote")
                  : NULL;
  ChoirRemote there;
  char zSha[65], zId[2 * CHOIR_SYNC_ID + 1];
  i64 iStart = choirMonotonic(), bAll = 0;
  u64 n = 0;
  int bSame, bIndexes = 0;
  ChoirBuf b;
  if (pCall->nArg > 1 && sqlite3_value_type(pCall->apArg[1]) != SQLITE_NULL) {
    bAll = choirArgInt(&pCall->err, pCall->apArg[1], "read_data", 0, 1);
  }
  choirRemoteOpen(pCall->pConn, &pCall->err, &there, zUrl);
  syncSeen(pCall->pConn, &pCall->err, &there);
  choirRemoteFetch(NULL, &pCall->err, &there, 0);
  if (pCall->err.rc == SQLITE_OK && there.eHead == CHOIR_OBJECT_ABSENT) {
    choirErrSet(&pCall->err, SQLITE_ERROR, "nothing at %s", there.zUrl);
  }
  if (bAll && there.bFolder) {
    n = syncReadAll(&pCall->err, &there, &there.meta.nByte);
  }
  if (bAll) {
    bIndexes = syncIndexes(pCall->pConn, &pCall->err, &there);
  }
  bSame = pCall->err.rc == SQLITE_OK &&
          syncSame(pCall->pConn, &pCall->err, there.aDigest);
  choirHex(there.pos.aHead, CHOIR_SYNC_ID, zId);
  choirHex(there.aDigest, 32, zSha);
  choirBufInit(&b, &pCall->err, CHOIR_BUF_JSON);
  choirBufPrintf(&b,
                 "{\"ok\":1,\"version\":\"%s\",\"txid\":%lld,\"bytes\":%llu,"
                 "\"sha256\":\"%s\",\"same\":%d,",
                 zId, there.bFolder ? (i64)there.iTxid : there.pos.iTxid,
                 there.meta.nByte, zSha, bSame);
  if (bAll) {
    choirBufPrintf(&b, "\"objects\":%llu,\"indexes\":%d,",
                   there.bFolder ? n : 1, bIndexes);
  }
  syncTables(pCall->pConn, &pCall->err, &there, bSame, &b);
  choirBufPrintf(&b, "\"ms\":%lld}", choirMonotonic() - iStart);
  choirBufResult(&b, pCall->pCtx);
  choirRemoteClose(&there);
}

/* --------------------------------------------------------------- the part */

static void syncInstall(ChoirConn *pConn, ChoirErr *pErr) {
  choirExecText(pConn, pErr,
                "INSERT OR IGNORE INTO ~._choir_meta(key, value)"
                " VALUES('sync.lineage', lower(hex(randomblob(16))));"
                "DELETE FROM ~._choir_sync_seal WHERE id<>1 OR"
                " typeof(seal)<>'blob' OR length(seal)<>160;"
                "INSERT OR IGNORE INTO ~._choir_sync_seal(id, seal)"
                " VALUES(1, zeroblob(160))");
}

static void syncCheck(ChoirConn *pConn, ChoirErr *pErr, ChoirCursor *pCur) {
  ChoirErr err = {0, NULL};
  ChoirPosition pos;
  choirPositionRead(&err, pConn->db, choirSchema(pConn), &pos);
  if (err.rc == SQLITE_NOMEM) {
    choirErrNomem(pErr);
  } else if (err.rc != SQLITE_OK || !pos.bWorkspace) {
    choirRowText(pCur, "sync");
    choirRowText(pCur, err.rc ? err.zMsg : "the sync tables are missing");
  }
  choirErrClear(&err);
}

static void syncMetrics(ChoirConn *pConn, ChoirErr *pErr, ChoirCursor *pCur) {
  choirRowText(pCur, "sync.versions");
  choirRowInt(pCur,
              choirQueryInt(pConn, pErr,
                            "SELECT count(*) FROM ~._choir_sync_history", 0));
  choirRowText(pCur, "versions");
}

static const ChoirPart syncPart = {.zName = "sync",
                                   .xInstall = syncInstall,
                                   .xCheck = syncCheck,
                                   .xMetrics = syncMetrics};

static const ChoirFunc aSyncFunc[] = {
    {"sync_verify", 0, 2, CHOIR_EFFECT, 0, syncVerify, NULL},
};

static const ChoirTvf aSyncTvf[] = {
    {"sync_status",
     "remote, state, detail, changed, txid, version, remote_txid,"
     " remote_version, last_sync, arg_remote HIDDEN",
     9, 0, 1, CHOIR_EFFECT, 0, 0, syncStatus, NULL, NULL, NULL},
};

CHOIR_PRIVATE CHOIR_COLD void choirSyncRegister(ChoirConn *pConn,
                                                ChoirErr *pErr) {
  choirPartAdd(pConn, &syncPart);
  choirFuncs(pConn, pErr, aSyncFunc);
  choirTvfs(pConn, pErr, aSyncTvf);
  choirPushRegister(pConn, pErr);
  choirAutoRegister(pConn, pErr);
  choirPullRegister(pConn, pErr);
  choirTimeRegister(pConn, pErr);
  choirAtRegister(pConn, pErr);
  choirKeepRegister(pConn, pErr);
  choirBackupRegister(pConn, pErr);
}
