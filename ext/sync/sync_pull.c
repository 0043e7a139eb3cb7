/* SPDX-License-Identifier: MIT */
/*
** sync_pull(): the remote's version becomes this file.
**
** The remote is fetched and verified before anything here is touched
** (sync_remote.c). It may replace this file when that loses nothing: this file
** is empty, or is an unchanged ancestor of it. What was fetched on top of this
** file's own pages goes into the live WAL as the pages that differ
** (sync_frames.c). Anything else, and whatever that does not understand,
** sqlite3_backup copies into the host's connection. Both are one transaction:
** readers in WAL mode finish on the old state, a kill leaves the old or the new
** one, never a mixture.
**
** "Unchanged" was decided by a scan before the write lock was held (that which
** copied this file's own pages as a beginning, where there was one). Once the
** lock is held, SQLite's data version tells whether anybody committed since the
** scan, and if so nothing is written.
**
** When both sides changed, mode 'merge' makes one version of the two in private
** files (sync_merge.c); that takes this file's place in the same way.
*/
#include "sync.h"

static i64 pullPragma(ChoirSyncRun *p, const char *zSql) {
  sqlite3_stmt *pStmt = choirPrepare(p->pConn, p->pErr, zSql);
  i64 v = choirStep(p->pErr, pStmt) ? sqlite3_column_int64(pStmt, 0) : 0;
  sqlite3_finalize(pStmt);
  return v;
}

/* On a connection of its own, because the host's is running a statement. Where
** that cannot be, the file stays as it is. */
static void pullAside(ChoirSyncRun *p, const char *zSql) {
  ChoirErr err = {0, NULL};
  sqlite3 *db =
      p->pErr->rc == SQLITE_OK ? choirSnapshotOpen(p->pConn, &err) : NULL;
  if (db) {
    sqlite3_exec(db, zSql, NULL, NULL, NULL);
  }
  sqlite3_close(db);
  choirErrClear(&err);
}

/* 1: this file is new and takes the remote's page size. */
static int pullPageSize(ChoirSyncRun *p) {
  sqlite3_stmt *pStmt = NULL;
  i64 szThere = 0, szHere;
  int bNew = pullPragma(p, "PRAGMA ~.page_count") == 0;
  if (p->pErr->rc != SQLITE_OK) {
    return 0;
  }
  choirErrDb(
      p->pErr, p->there.db,
      sqlite3_prepare_v2(p->there.db, "PRAGMA page_size", -1, &pStmt, NULL));
  if (choirStep(p->pErr, pStmt)) {
    szThere = sqlite3_column_int64(pStmt, 0);
  }
  sqlite3_finalize(pStmt);
  if (bNew) {
    char z[80];
    sqlite3_snprintf(sizeof(z), z,
                     "PRAGMA page_size=%lld; PRAGMA user_version=0", szThere);
    pullAside(p, z);
  }
  if (pullPragma(p, "PRAGMA ~.page_count") == 0) {
    return 0; /* an empty memory database takes any */
  }
  szHere = pullPragma(p, "PRAGMA ~.page_size");
  if (szHere != szThere) {
    choirErrSet(p->pErr, SQLITE_ERROR,
                "the remote has pages of %lld bytes and this file of %lld; pull"
                " into an empty file, or run PRAGMA journal_mode=DELETE, PRAGMA"
                " page_size=%lld and VACUUM here first",
                szThere, szHere, szThere);
  }
  return bNew;
}

/* What to do with the fetched version. */
enum { PULL_NOTHING, PULL_TAKE, PULL_TAKE_KEEP, PULL_MERGE };

static int pullMode(const ChoirSyncRun *p, const char *zMode) {
  return p->zMode && strcmp(p->zMode, zMode) == 0;
}

static int pullConflict(ChoirSyncRun *p) {
  char *z;
  if (pullMode(p, "merge") && p->there.bFolder) {
    return PULL_MERGE;
  }
  if (pullMode(p, "merge")) {
    choirErrSet(
        p->pErr, SQLITE_ERROR,
        "%s is a plain file and keeps no earlier version to merge from;"
        " sync_pull('%s', 'theirs') replaces this file and keeps a copy,"
        " and a remote that ends in / keeps versions",
        p->there.zUrl, p->there.zUrl);
    return PULL_NOTHING;
  }
  z = choirSyncWhere(p);
  choirErrSet(p->pErr, SQLITE_BUSY,
              "both sides changed: %s with changes of its own;"
              " sync_pull('%s', mode): %s",
              z ? z : "", p->there.zUrl, choirSyncWays(p));
  sqlite3_free(z);
  return PULL_NOTHING;
}

/* An explicit 'theirs': keep a copy unless this file is that version. */
static int pullTheirs(ChoirSyncRun *p) {
  int bSame = p->here.bHead &&
              memcmp(p->aThere, p->here.aHead, CHOIR_SYNC_ID) == 0 &&
              !choirSnapshotChanged(p->pConn, p->pErr, p->there.aDigest);
  return bSame ? PULL_NOTHING : PULL_TAKE_KEEP;
}

static int pullDecide(ChoirSyncRun *p) {
  const char *zSchema = choirSchema(p->pConn);
  if (p->pErr->rc != SQLITE_OK) {
    return PULL_NOTHING;
  }
  if (!p->here.bHead && choirSyncIsEmpty(p->pConn, p->pErr)) {
    return PULL_TAKE; /* the first pull of a new device */
  }
  if (!p->here.bWorkspace) {
    choirErrSet(p->pErr, SQLITE_ERROR,
                "schema %s has tables but no workspace; pull into an empty"
                " file",
                zSchema);
    return PULL_NOTHING;
  }
  if (pullMode(p, "theirs")) {
    return pullTheirs(p);
  }
  if (!p->there.bSealed) {
    choirErrSet(p->pErr, SQLITE_ERROR,
                "the remote %s is written by another tool; pull it into an"
                " empty file, or sync_pull('%s', 'theirs') to replace this one"
                " and keep a copy",
                p->there.zUrl, p->there.zUrl);
    return PULL_NOTHING;
  }
  if (strcmp(p->there.pos.zLineage, p->here.zLineage) != 0) {
    choirErrSet(p->pErr, SQLITE_ERROR,
                "the remote %s belongs to another workspace; pull it into an"
                " empty file, or sync_pull('%s', 'theirs') to replace this one"
                " and keep a copy",
                p->there.zUrl, p->there.zUrl);
    return PULL_NOTHING;
  }
  if (choirPositionKnows(p->pErr, p->pConn->db, zSchema, p->aThere)) {
    return PULL_NOTHING; /* the same version, or an older one */
  }
  if (p->here.bHead &&
      choirPositionKnows(p->pErr, p->there.db, "main", p->here.aHead) &&
      (p->there.bOwn || !choirSyncChanged(p))) {
    return PULL_TAKE;
  }
  return pullConflict(p);
}

/* The whole of dbNew, through the host's connection. */
static int pullBackup(ChoirSyncRun *p, sqlite3 *dbNew, unsigned iVersion) {
  sqlite3 *db = p->pConn->db;
  sqlite3_backup *pBackup =
      sqlite3_backup_init(db, choirSchema(p->pConn), dbNew, "main");
  int rc;
  if (pBackup == NULL) {
    choirErrDb(p->pErr, db, sqlite3_errcode(db));
    return p->pErr->rc;
  }
  rc = sqlite3_backup_step(pBackup, 1);
  if (rc == SQLITE_OK) {
    rc = choirDataVersion(db, choirSchema(p->pConn)) != iVersion
             ? SQLITE_BUSY_SNAPSHOT
             : sqlite3_backup_step(pBackup, -1);
  }
  sqlite3_backup_finish(pBackup);
  return rc;
}

/* Puts dbNew in the place of this file, unless that changed since iVersion. */
static void pullApply(ChoirSyncRun *p, sqlite3 *dbNew, unsigned iVersion,
                      ChoirWalMark *pMark) {
  int rc = SQLITE_OK;
  if (p->pErr->rc != SQLITE_OK) {
    return;
  }
  if (p->there.bOwn && dbNew == p->there.db) {
    rc = choirFrames(p->pConn, p->pErr, &p->there, &iVersion, pMark);
  }
  if (rc == SQLITE_OK && p->pErr->rc == SQLITE_OK) {
    rc = pullBackup(p, dbNew, iVersion);
  }
  if (rc == SQLITE_BUSY_SNAPSHOT) {
    choirErrSet(p->pErr, SQLITE_BUSY,
                "another connection changed this file during the pull; try"
                " again");
  } else if ((rc & 0xff) == SQLITE_BUSY || rc == SQLITE_LOCKED) {
    choirErrSet(p->pErr, rc,
                "another connection is using this file; try again when it is"
                " done");
  } else if (rc == SQLITE_NOMEM) {
    choirErrNomem(p->pErr);
  } else if (rc != SQLITE_DONE && rc != SQLITE_OK) {
    choirErrSet(p->pErr, rc, "cannot replace this file's content: %s",
                sqlite3_errstr(rc));
  }
}

/* So that the next push knows the pages there, and where they are in the WAL. */
static void pullCache(ChoirSyncRun *p, const ChoirWalMark *pMark) {
  ChoirErr err = {0, NULL};
  ChoirCache cache;
  if (p->there.bFolder && p->there.bSealed) {
    choirCacheRead(p->pConn, &err, &cache, &p->here, p->there.zUrl);
    choirCacheForget(&cache);
    memcpy(cache.aId, p->aThere, CHOIR_SYNC_ID);
    memcpy(cache.aDigest, p->there.aDigest, 32);
    cache.mark = *pMark;
    choirCacheWrite(&cache, &p->there.pages);
    choirCacheFree(&cache);
    choirErrClear(&err);
  }
}

/* What the pulled file says of where it came from. */
static void pullSeal(ChoirSyncRun *p, u8 aSeal[CHOIR_SYNC_SEAL]) {
  memcpy(aSeal, p->here.aSeal, CHOIR_SYNC_SEAL); /* facts stay facts */
  /* When it is not as it was sealed, its content is not its head's. */
  memcpy(aSeal, p->there.pos.aSeal, 32);
  if (p->there.bSealed && p->there.bFolder) {
    choirSealLearnFolder(aSeal, p->there.zUrl, p->there.iTxid, p->aThere);
  } else if (p->there.bSealed) {
    choirSealLearn(aSeal, p->there.zUrl, p->there.meta.zEtag, p->aThere);
  } else {
    memset(aSeal, 0, 32);
  }
}

/* dbNew becomes this file. */
static void pullPut(ChoirSyncRun *p, sqlite3 *dbNew, unsigned iVersion) {
  ChoirWalMark mark;
  memset(&mark, 0, sizeof(mark));
  pullApply(p, dbNew, iVersion, &mark);
  if (p->pErr->rc == SQLITE_OK) {
    p->here = p->there.pos;
    pullCache(p, &mark);
  }
}

/* The fetched file, made to know where it came from, becomes this one. */
static void pullTake(ChoirSyncRun *p, unsigned iVersion) {
  u8 aSeal[CHOIR_SYNC_SEAL];
  pullSeal(p, aSeal);
  choirRemoteReseal(p->pErr, &p->there, aSeal);
  pullPut(p, p->there.db, iVersion);
}

/* Both, made one. Where a value gave way, a copy of this file as it was stays. */
static char *pullMerge(ChoirSyncRun *p, unsigned iVersion, ChoirBuf *pTold) {
  u8 aSeal[CHOIR_SYNC_SEAL];
  char *zSaved = NULL;
  sqlite3 *dbNew;
  int bConflict = 0;
  pullSeal(p, aSeal);
  dbNew = choirMerge(p, aSeal, pTold, &bConflict);
  if (dbNew && bConflict) {
    zSaved = choirBackupKeep(p->pConn, p->pErr, &p->here);
  }
  if (dbNew) {
    pullPut(p, dbNew, iVersion);
    sqlite3_close(dbNew);
  }
  return zSaved;
}

/*
** SQL: sync_pull([remote[, mode]]) -> TEXT
**
** Makes this file the remote's version, when nothing is lost by it: this file
** is new and empty, or unchanged since a version the remote descends from.
** The remote is verified to its last byte before anything here is touched; the
** change is one transaction, so others who have this file open see the old or
** the new version. In WAL mode it writes the pages that differ, otherwise the
** whole file. Gives a JSON object: pulled (1, or 0 when the remote has
** nothing newer), version, txid, bytes, ms, and saved with mode 'theirs'.
**
** Call it alone, outside a transaction: SELECT sync_pull(…). It works on a new
** empty file without choir_init().
**
** When both sides changed since the version they have in common, mode 'merge' puts
** what was changed here into the remote's version, row by row, from a remote that
** ends in / and still has that version. A row that one side changed is taken;
** where both changed it, each column that one side changed; where both changed the
** same column, the remote's value stays. A row deleted on one side and changed on
** the other stays. Rows that both inserted under one INTEGER PRIMARY KEY are both
** kept, this file's under a new number, which foreign keys follow. Records of the
** log made here come after the remote's. Every conflict is a record of type
** SYNC_CONFLICT with both values. No trigger runs. What cannot be put together (a
** UNIQUE index, both sides changed one table's definition) is refused by name, and
** nothing changes. sync_push() sends the result. More in docs/recipes.md.
**
**   remote  TEXT, URL of a folder, ending in '/', or of a plain file, ending in
**           .sqlite or .db; default: choir_config('remote')
**   mode    TEXT, 'theirs': replace this file whatever it holds; a copy of it
**           is kept first in $XDG_STATE_HOME/choir, and saved is its path;
**           'merge': when both sides changed, see above; the result has merged
**           (rows put or deleted), conflicts (an array of table, kind, rows), seals
**           (of log_seal() made here since, to be made again) and, with conflicts,
**           saved
**
** NULL: a NULL remote means the configured one; a NULL mode none.
** Errors: both sides changed (the message names both versions and the way
** out); nothing at the remote; it is damaged, belongs to another workspace or
** needs a newer choir; page sizes differ; somebody else uses this file. After
** an error this file is unchanged.
**
** > SELECT sync_pull('file:///tmp/ws.sqlite', 'mine')
** ! sync_pull: mode must be 'theirs', 'merge' or left out, got 'mine'
*/
static void pullFunc(ChoirCall *pCall) {
  ChoirSyncRun run;
  ChoirBuf told;
  char *zSaved = NULL;
  int eDo = PULL_NOTHING, bNew = 0;
  unsigned iVersion;
  choirBufInit(&told, &pCall->err, CHOIR_BUF_JSON);
  choirSyncBegin(&run, pCall, "theirs", "merge");
  if (run.there.bFolder) {
    choirFolderNewest(run.pErr, &run.there);
  }
  choirSyncIdentify(&run, pullMode(&run, "theirs"));
  if (pCall->err.rc == SQLITE_OK && !run.bThere && run.there.bProbe) {
    choirErrSet(&pCall->err, SQLITE_AUTH,
                "nothing at %s may be read, and listing it is forbidden; check"
                " the credentials",
                run.there.zUrl);
  }
  if (pCall->err.rc == SQLITE_OK && !run.bThere) {
    choirErrSet(&pCall->err, SQLITE_ERROR,
                "nothing at %s yet; run sync_push() on the device that has the"
                " workspace",
                run.there.zUrl);
  }
  if (run.bFetched) {
    bNew = pullPageSize(&run);
    /* From here on (with this file's own pages: since they were read) nobody
    ** else may commit: checked in pullApply. */
    if (pCall->err.rc == SQLITE_OK) {
      choirPositionRead(run.pErr, run.pConn->db, choirSchema(run.pConn),
                        &run.here);
    }
    iVersion = run.there.bOwn
                   ? run.there.iOwn
                   : choirDataVersion(run.pConn->db, choirSchema(run.pConn));
    eDo = pullDecide(&run);
    if (eDo == PULL_TAKE_KEEP) {
      zSaved = choirBackupKeep(run.pConn, run.pErr, &run.here);
    }
    if (eDo == PULL_MERGE) {
      zSaved = pullMerge(&run, iVersion, &told);
    } else if (eDo != PULL_NOTHING) {
      pullTake(&run, iVersion);
    }
    if (bNew && eDo != PULL_NOTHING) {
      /* As choir_init() does; only now, so that its pages are written once. */
      pullAside(&run, "PRAGMA journal_mode=WAL");
    }
  }
  choirSyncResult(&run, pCall, "pulled", eDo != PULL_NOTHING,
                  eDo != PULL_NOTHING ? run.there.meta.nByte : 0,
                  told.n ? told.a : NULL, zSaved);
  choirBufFree(&told);
  sqlite3_free(zSaved);
  choirSyncEnd(&run);
}

static const ChoirFunc aPullFunc[] = {
    {"sync_pull", 0, 2, CHOIR_EFFECT, 0, pullFunc, NULL},
};

CHOIR_PRIVATE CHOIR_COLD void choirPullRegister(ChoirConn *pConn,
                                                ChoirErr *pErr) {
  choirFuncs(pConn, pErr, aPullFunc);
}
