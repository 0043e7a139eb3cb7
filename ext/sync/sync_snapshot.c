/* SPDX-License-Identifier: MIT */
/*
** A consistent copy of a live database, made by sqlite3_backup into a spool.
**
** The source is a connection of our own on the same file and VFS. It holds one
** read transaction, so position and pages are of the same state; it never
** checkpoints; its page cache is its own (2 MB) and the host's stays warm.
** A database without a file, and one that the host locks exclusively, is read
** through the host's connection instead. The file itself is never opened
** outside SQLite: closing it would drop SQLite's locks.
**
** Writers wait only in rollback mode, and only while pages are copied.
**
** A capture compares the content with page hashes known from before and keeps
** the pages that differ. While the WAL holds the place where those hashes were
** taken, only its newer frames are read; otherwise all pages are.
*/
#include "sync.h"
#if !defined(_WIN32)
#include <unistd.h>
#endif

#define SNAPSHOT_STEP (64 << 20) /* bytes between looks at interrupts */

typedef struct SnapshotSource {
  sqlite3 *db;
  const char *zSchema;
  u8 bOwn;
} SnapshotSource;

static i64 snapshotPragma(ChoirConn *pConn, ChoirErr *pErr, const char *zSql,
                          int *pbExclusive) {
  sqlite3_stmt *p = choirPrepare(pConn, pErr, zSql);
  i64 v = 0;
  if (choirStep(pErr, p)) {
    v = sqlite3_column_int64(p, 0);
    if (pbExclusive) {
      const char *z = (const char *)sqlite3_column_text(p, 0);
      *pbExclusive = z && strcmp(z, "exclusive") == 0;
    }
  }
  sqlite3_finalize(p);
  return v;
}

CHOIR_PRIVATE unsigned choirDataVersion(sqlite3 *db, const char *zSchema) {
  unsigned v = 0;
  sqlite3_file_control(db, zSchema, SQLITE_FCNTL_DATA_VERSION, &v);
  return v;
}

CHOIR_PRIVATE sqlite3 *choirSnapshotOpen(ChoirConn *pConn, ChoirErr *pErr) {
  const char *zSchema = choirSchema(pConn);
  const char *zFile = sqlite3_db_filename(pConn->db, zSchema);
  sqlite3_vfs *pVfs = NULL;
  sqlite3 *db = NULL;
  int rc, nBusy, bExclusive = 0;
  snapshotPragma(pConn, pErr, "PRAGMA ~.locking_mode", &bExclusive);
  nBusy = (int)snapshotPragma(pConn, pErr, "PRAGMA busy_timeout", NULL);
  if (pErr->rc != SQLITE_OK || zFile == NULL || zFile[0] == 0 || bExclusive) {
    return NULL;
  }
  sqlite3_file_control(pConn->db, zSchema, SQLITE_FCNTL_VFS_POINTER, &pVfs);
  /* READWRITE: a WAL that only the host has open needs its -shm written. */
  rc = sqlite3_open_v2(zFile, &db,
                       SQLITE_OPEN_PRIVATECACHE |
                           (sqlite3_db_readonly(pConn->db, zSchema)
                                ? SQLITE_OPEN_READONLY
                                : SQLITE_OPEN_READWRITE),
                       pVfs ? pVfs->zName : NULL);
  if (rc == SQLITE_OK) {
    sqlite3_busy_timeout(db, nBusy);
    sqlite3_db_config(db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    sqlite3_wal_autocheckpoint(db, 0);
    return db;
  }
  if (rc == SQLITE_NOMEM) {
    choirErrNomem(pErr);
  } else {
    choirErrSet(pErr, rc, "cannot open a second connection to %s: %s", zFile,
                db ? sqlite3_errmsg(db) : sqlite3_errstr(rc));
  }
  sqlite3_close(db);
  return NULL;
}

static void snapshotSource(ChoirConn *pConn, ChoirErr *pErr,
                           SnapshotSource *pSrc) {
  memset(pSrc, 0, sizeof(*pSrc));
  pSrc->db = choirSnapshotOpen(pConn, pErr);
  pSrc->bOwn = pSrc->db != NULL;
  pSrc->zSchema = pSrc->bOwn ? "main" : choirSchema(pConn);
  if (pSrc->bOwn) {
    choirErrDb(pErr, pSrc->db,
               sqlite3_exec(pSrc->db, "BEGIN", NULL, NULL, NULL));
  } else {
    pSrc->db = pConn->db;
  }
}

static void snapshotRelease(SnapshotSource *pSrc) {
  if (pSrc->bOwn) {
    sqlite3_close(pSrc->db); /* ends the read transaction */
  }
}

static void snapshotCopy(ChoirConn *pConn, ChoirErr *pErr, sqlite3 *dbTo,
                         const char *zTo, const SnapshotSource *pSrc) {
  sqlite3_backup *p = NULL;
  int rc = SQLITE_OK, nStep = pSrc->bOwn ? SNAPSHOT_STEP / 4096 : -1;
  if (pErr->rc == SQLITE_OK) {
    p = sqlite3_backup_init(dbTo, zTo, pSrc->db, pSrc->zSchema);
    if (p == NULL) {
      choirErrDb(pErr, dbTo, sqlite3_errcode(dbTo));
    }
  }
  while (p && rc == SQLITE_OK) {
    rc = sqlite3_backup_step(p, nStep);
    if (rc == SQLITE_OK && choirInterrupted(pConn)) {
      choirErrSet(pErr, SQLITE_INTERRUPT, "interrupted");
      rc = SQLITE_INTERRUPT;
    }
  }
  if (p) {
    sqlite3_backup_finish(p);
  }
  if (rc == SQLITE_BUSY || rc == SQLITE_LOCKED) {
    choirErrSet(pErr, rc,
                "the database is being written; try again after the commit");
  } else if (rc == SQLITE_NOMEM) {
    choirErrNomem(pErr);
  } else if (rc != SQLITE_DONE && rc != SQLITE_OK) {
    choirErrSet(pErr, rc, "cannot copy the database: %s", sqlite3_errstr(rc));
  }
}

CHOIR_PRIVATE void choirSnapshot(ChoirConn *pConn, ChoirErr *pErr,
                                 ChoirSpool *pSpool, int eSeal,
                                 ChoirPosition *pPos, u8 aDigest[32]) {
  SnapshotSource src;
  ChoirPosition pos;
  sqlite3 *dbTo;
  memset(&pos, 0, sizeof(pos));
  snapshotSource(pConn, pErr, &src);
  if (pErr->rc == SQLITE_OK) {
    choirPositionRead(pErr, src.db, src.zSchema, &pos);
  }
  if (pErr->rc == SQLITE_OK && eSeal == CHOIR_SEAL_ZERO) {
    choirSpoolSealAt(pSpool, pos.iRoot);
  }
  dbTo = choirSpoolOpen(pErr, pSpool, 1);
  snapshotCopy(pConn, pErr, dbTo, "main", &src);
  sqlite3_close(dbTo);
  snapshotRelease(&src);
  choirSpoolFinish(pErr, pSpool, aDigest);
  if (pPos && pErr->rc == SQLITE_OK) {
    *pPos = pos;
  }
}

CHOIR_PRIVATE void choirSnapshotInto(ChoirConn *pConn, ChoirErr *pErr,
                                     sqlite3 *dbTo, const char *zTo) {
  SnapshotSource src;
  snapshotSource(pConn, pErr, &src);
  snapshotCopy(pConn, pErr, dbTo, zTo, &src);
  snapshotRelease(&src);
}

CHOIR_PRIVATE int choirSnapshotChanged(ChoirConn *pConn, ChoirErr *pErr,
                                       const u8 aDigest[32]) {
  ChoirSpool *pSpool = choirSpoolNew(pErr, -1, 0);
  u8 a[32] = {0};
  if (pSpool) {
    choirSnapshot(pConn, pErr, pSpool, CHOIR_SEAL_ZERO, NULL, a);
    choirSpoolFree(pSpool);
  }
  return pErr->rc == SQLITE_OK && memcmp(a, aDigest, 32) != 0;
}

/* ---------------------------------------------------------------- capture */

/* Page a of the content now: its hash, and into fd when it differs. */
static void captureTake(ChoirErr *pErr, ChoirCapture *p,
                        const ChoirCache *pBase, u32 iPage, u8 *a) {
  u64 sz = p->now.szPage, iOut;
  int iSeal = iPage == p->pos.iRoot ? choirSealFind(a, (int)sz) : 0;
  u32 *aNew;
  if (iSeal) {
    memset(a + iSeal, 0, CHOIR_SYNC_SEAL);
  }
  if (iPage == 1) {
    choirPageNormalise(a);
  }
  choirPagesSet(pErr, &p->now, iPage, a);
  if (pErr->rc != SQLITE_OK || p->fd < 0 ||
      (!iSeal && choirPagesSame(&p->now, &pBase->pages, iPage))) {
    return;
  }
  aNew = choirRealloc(pErr, p->aPage, (p->nKept + 1) * sizeof(u32));
  if (aNew) {
    iOut = p->nKept * sz;
    p->aPage = aNew;
    p->aPage[p->nKept++] = iPage;
    choirFdWrite(pErr, p->fd, iOut, a, sz);
    p->iSeal = iSeal ? iOut + (u64)iSeal : p->iSeal;
  }
}

/* The frames after p->mark. 0: scan. */
static int captureFrames(ChoirErr *pErr, ChoirCapture *p,
                         const ChoirCache *pBase, const ChoirWal *pWal) {
  ChoirWalPage *aPage = NULL;
  u32 nPage, nWas = p->now.nPage, iLock = choirLtxLockPage(p->now.szPage);
  u64 i, n, nNew = 0;
  u8 *a = choirMalloc(pErr, pWal->szPage);
  int bHold = a && choirWalWalk(pErr, pWal, &p->mark, &aPage, &n, &nPage);
  if (bHold && nPage) {
    choirPagesSize(pErr, &p->now, nPage);
    for (i = 0; i < n && bHold && pErr->rc == SQLITE_OK; i++) {
      if (aPage[i].iPage <= nPage) {
        bHold = choirWalRead(pWal, aPage[i].iFrame, a); /* not cut off since */
        captureTake(pErr, p, pBase, aPage[i].iPage, a);
        nNew += aPage[i].iPage > nWas;
      }
    }
    if (nWas < iLock && iLock <= nPage && pErr->rc == SQLITE_OK) {
      memset(a, 0, pWal->szPage);
      choirPagesSet(pErr, &p->now, iLock, a);
      nNew++;
    }
    /* Pages that grew without being written are SQLite's to say. */
    bHold = bHold && (nPage <= nWas || nNew == nPage - nWas);
  }
  sqlite3_free(a);
  sqlite3_free(aPage);
  return bHold && pErr->rc == SQLITE_OK && choirWalHolds(pWal);
}

/* By the WAL alone. The frames may be newer than the transaction in which the
** position was read, so the position is read again behind them. */
static int captureWal(ChoirErr *pErr, ChoirCapture *p, const ChoirCache *pBase,
                      const SnapshotSource *pSrc, const ChoirWal *pWal) {
  ChoirPosition again;
  u64 iSeal = p->iSeal;
  p->iSeal = 0;
  if (!captureFrames(pErr, p, pBase, pWal)) {
    return 0;
  }
  p->iSeal = p->iSeal ? p->iSeal : iSeal;
  choirErrDb(pErr, pSrc->db,
             sqlite3_exec(pSrc->db, "COMMIT; BEGIN", NULL, NULL, NULL));
  choirPositionRead(pErr, pSrc->db, pSrc->zSchema, &again);
  return pErr->rc == SQLITE_OK &&
         memcmp(again.aHead, p->pos.aHead, CHOIR_SYNC_ID) == 0 &&
         (!p->bSeal || p->iSeal);
}

static void captureScan(ChoirConn *pConn, ChoirErr *pErr, ChoirCapture *p,
                        const ChoirCache *pBase, const SnapshotSource *pSrc) {
  ChoirSpool *pSpool = choirSpoolNew(pErr, p->fd, 0);
  sqlite3 *dbTo;
  if (pSpool == NULL) {
    return;
  }
  choirPagesFree(&p->now);
  sqlite3_free(p->aPage);
  p->aPage = NULL;
  p->nKept = 0;
  choirSpoolSealAt(pSpool, p->pos.iRoot);
  if (p->fd >= 0) {
    choirSpoolDelta(pSpool, &pBase->pages);
  }
  dbTo = choirSpoolOpen(pErr, pSpool, 1);
  snapshotCopy(pConn, pErr, dbTo, "main", pSrc);
  sqlite3_close(dbTo);
  choirSpoolFinish(pErr, pSpool, p->aDigest);
  choirSpoolPages(pSpool, &p->now);
  p->aPage = choirSpoolKept(pSpool, &p->nKept);
  p->iSeal = p->fd >= 0 ? choirSpoolSeal(pSpool) : 0;
  choirSpoolFree(pSpool);
}

/* 1: the WAL has no commit after the base's place in it. */
static int captureSame(ChoirErr *pErr, ChoirCapture *p, const ChoirCache *pBase,
                       const ChoirWal *pWal) {
  ChoirWalMark mark = pBase->mark;
  ChoirWalPage *aPage = NULL;
  u64 n;
  u32 nPage = 1;
  int bSame = pWal->szPage == pBase->szPage &&
              choirWalWalk(pErr, pWal, &mark, &aPage, &n, &nPage) &&
              nPage == 0 && choirWalHolds(pWal);
  sqlite3_free(aPage);
  if (bSame) {
    memcpy(p->aDigest, pBase->aDigest, 32);
  }
  return bSame;
}

CHOIR_PRIVATE void choirCapture(ChoirConn *pConn, ChoirErr *pErr,
                                ChoirCapture *p, ChoirCache *pBase) {
  SnapshotSource src;
  ChoirWal wal;
  int bWal;
  snapshotSource(pConn, pErr, &src);
  memset(&p->pos, 0, sizeof(p->pos));
  if (pErr->rc == SQLITE_OK) {
    choirPositionRead(pErr, src.db, src.zSchema, &p->pos);
  }
  bWal = pErr->rc == SQLITE_OK && src.bOwn && choirWalOpen(src.db, &wal);
  p->bSame = bWal && p->now.nPage == 0 && pBase->bValid &&
             captureSame(pErr, p, pBase, &wal);
  if (p->bSame) {
    snapshotRelease(&src);
    return;
  }
  choirCacheLoad(pErr, pBase);
  if (p->now.nPage == 0 && pBase->bValid) {
    choirPagesCopy(pErr, &p->now, &pBase->pages);
    p->mark = pBase->mark;
  }
  p->bWal = bWal && p->now.nPage && wal.szPage == p->now.szPage &&
            captureWal(pErr, p, pBase, &src, &wal);
  if (!p->bWal && !p->bQuick) {
    memset(&p->mark, 0, sizeof(p->mark));
    if (bWal) { /* from its first frame on; a little is hashed twice */
      memcpy(p->mark.aSalt, wal.aSalt, 8);
    }
    captureScan(pConn, pErr, p, pBase, &src);
  }
  snapshotRelease(&src);
  if (pErr->rc == SQLITE_OK && p->bWal) {
    choirPagesDigest(&p->now, p->aDigest);
  }
}

CHOIR_PRIVATE void choirCaptureFree(ChoirCapture *p) {
  choirPagesFree(&p->now);
  sqlite3_free(p->aPage);
  if (p->fd >= 0) {
    close(p->fd);
  }
}
