/* SPDX-License-Identifier: MIT */
/*
** A live database as a file of pages, without a copy: what a pull did not
** change is read where it is.
**
** A private connection holds a read transaction, so no checkpoint overwrites
** what that sees. A page is the last frame in the WAL that has it, else it is in
** the database file; both are read through the files that SQLite itself has
** open. That this is how the database is stored is proven: page 1 and every
** page found in the WAL must have the hash that is known of it, which under a
** codec it has not. When everything was checkpointed, a writer may begin the WAL
** anew under this transaction: what is read then is a mixture, fails its checks and
** is fetched another way (sync_remote.c), and the commit fails the pull.
*/
#include "sync.h"

struct ChoirLive {
  sqlite3 *db;       /* private, in a read transaction */
  sqlite3_file *pDb; /* its database file */
  ChoirWal wal;
  ChoirWalPage *aPage; /* what is in the WAL, ascending */
  u64 nPage;
  u32 szPage;
  unsigned iVersion; /* data version */
};

static int liveBegin(sqlite3 *db, const char *zSql) {
  return sqlite3_exec(db, zSql, NULL, NULL, NULL) == SQLITE_OK &&
         sqlite3_txn_state(db, "main") == SQLITE_TXN_READ;
}

/* 1: a new transaction sees what the one before saw. */
static int liveAgain(ChoirLive *p) {
  return liveBegin(p->db, "COMMIT; BEGIN; PRAGMA main.page_count") &&
         choirDataVersion(p->db, "main") == p->iVersion;
}

/* The frames of the WAL up to this transaction, and nothing committed since. */
static int liveFrames(ChoirErr *pErr, ChoirLive *p) {
  ChoirWalMark mark;
  u32 n;
  memset(&mark, 0, sizeof(mark));
  if (!liveBegin(p->db, "BEGIN; PRAGMA main.page_count") ||
      !choirWalOpen(p->db, &p->wal) || p->wal.szPage != p->szPage) {
    return 0;
  }
  p->iVersion = choirDataVersion(p->db, "main");
  memcpy(mark.aSalt, p->wal.aSalt, sizeof(mark.aSalt));
  return choirWalWalk(pErr, &p->wal, &mark, &p->aPage, &p->nPage, &n) &&
         liveAgain(p);
}

/* Is page iPage, as it is at a, the one that pOwn knows? */
static int liveSame(const ChoirPages *pOwn, u32 iPage, u32 iRoot, u8 *a) {
  int iSeal = iPage == iRoot ? choirSealFind(a, (int)pOwn->szPage) : 0;
  if (iSeal) {
    memset(a + iSeal, 0, CHOIR_SYNC_SEAL);
  }
  if (iPage == 1) {
    choirPageNormalise(a);
  }
  return choirPagesHas(pOwn, iPage, a);
}

static int liveProof(ChoirErr *pErr, ChoirLive *p, const ChoirPages *pOwn,
                     u32 iRoot) {
  u8 *a = choirMalloc(pErr, p->szPage);
  u64 i;
  int bSame;
  choirLiveRead(p, pErr, 0, a, p->szPage);
  bSame = pErr->rc == SQLITE_OK && liveSame(pOwn, 1, iRoot, a);
  for (i = 0; i < p->nPage && bSame; i++) {
    u32 iPage = p->aPage[i].iPage;
    if (iPage <= pOwn->nPage) { /* else from before it shrank */
      bSame = choirWalRead(&p->wal, p->aPage[i].iFrame, a) &&
              liveSame(pOwn, iPage, iRoot, a);
    }
  }
  sqlite3_free(a);
  return bSame;
}

CHOIR_PRIVATE ChoirLive *choirLiveOpen(ChoirConn *pConn, ChoirErr *pErr,
                                       const ChoirPages *pOwn, u32 iRoot) {
  ChoirLive *p = choirMalloc(pErr, sizeof(*p));
  if (p == NULL) {
    return NULL;
  }
  p->szPage = pOwn->szPage;
  p->db = choirSnapshotOpen(pConn, pErr);
  if (p->db) {
    sqlite3_file_control(p->db, "main", SQLITE_FCNTL_FILE_POINTER, &p->pDb);
  }
  if (p->pDb == NULL || p->pDb->pMethods == NULL || !liveFrames(pErr, p) ||
      !liveProof(pErr, p, pOwn, iRoot)) {
    choirLiveClose(p);
    return NULL;
  }
  return p;
}

CHOIR_PRIVATE void choirLiveClose(ChoirLive *p) {
  if (p) {
    sqlite3_close(p->db);
    sqlite3_free(p->aPage);
    sqlite3_free(p);
  }
}

CHOIR_PRIVATE void choirLiveRead(ChoirLive *p, ChoirErr *pErr, u64 iOff, u8 *a,
                                 u64 n) {
  u64 sz = p->szPage, lo = 0, hi = p->nPage;
  u32 iFirst = (u32)(iOff / sz) + 1;
  int rc;
  if (pErr->rc != SQLITE_OK) {
    return;
  }
  rc = p->pDb->pMethods->xRead(p->pDb, a, (int)n, (sqlite3_int64)iOff);
  if (rc != SQLITE_OK && rc != SQLITE_IOERR_SHORT_READ) { /* the rest: zeros */
    choirErrSet(pErr, rc, "cannot read the database: %s", sqlite3_errstr(rc));
  }
  while (lo < hi) { /* the first page in the WAL from iFirst on */
    u64 m = lo + (hi - lo) / 2;
    if (p->aPage[m].iPage < iFirst) {
      lo = m + 1;
    } else {
      hi = m;
    }
  }
  for (; lo < p->nPage && (p->aPage[lo].iPage - iFirst) * sz < n; lo++) {
    if (!choirWalRead(&p->wal, p->aPage[lo].iFrame,
                      a + (p->aPage[lo].iPage - iFirst) * sz)) {
      choirErrSet(pErr, SQLITE_IOERR, "cannot read the write-ahead log");
    }
  }
}
