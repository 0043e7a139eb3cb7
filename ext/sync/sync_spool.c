/* SPDX-License-Identifier: MIT */
/*
** The spool: a private file behind an SQLite VFS, so that sqlite3_backup can
** write a snapshot into it, and a fetched file can be read as a database
** without ever being opened by name.
**
** As a sink it relies on what sqlite3_backup does on every version tested:
** pages from 2 on arrive once and in ascending order; page 1 may come first,
** last or both, and only it is read. Anything else is an error, not a guess.
** So each page is hashed on the way, page 1 after all others, normalised. The
** page at 1 GiB that SQLite keeps for locks never arrives and is zeros. A sink
** keeps the whole file, or a delta: the pages that are not in a base.
**
** Each spool brings a VFS of its own, listed under a random name only while a
** connection to it is being opened: nobody else can open it, and nothing stays
** behind.
*/
#include "sync.h"

#define SPOOL_BUF ((u64)1 << 20)
#define SPOOL_LOCKPAGE ((u64)0x40000000)
#define SPOOL_PAGE1 65536
#define SPOOL_AHEAD ((u64)1 << 17)

struct ChoirSpool {
  sqlite3_vfs vfs;
  char zName[48];
  int fd;
  const char *zFor; /* in messages, NULL: a temporary file */
  u8 bSink;
  u8 bPage1;  /* page 1 was written */
  u8 bBroken; /* pages came in an order this code does not know */
  int szPage;
  u64 nByte; /* size of the database */
  u64 nOut;  /* bytes of fd, with those in aBuf */
  u64 nBuf;  /* bytes in aBuf, which belong at nOut - nBuf */
  u8 *aBuf;  /* of a sink: SPOOL_BUF, then page 1; else SPOOL_AHEAD */
  u64 iNext; /* of a reader: where the last read ended */
  u32 iRoot; /* root page of the seal, 0: no seal to zero */
  u64 iSeal; /* its offset in fd, 0: not met */
  ChoirPages pages;
  const ChoirPages *pBase; /* of a delta, or NULL */
  u32 *aKept;              /* of a delta: pages in fd */
  u64 nKept, nKeptAlloc;
  /* Of a reader, pages that fd does not hold: */
  ChoirLive *pLive; /* NULL: it holds all */
  const ChoirPages *pOwn, *pNew;
  u32 iSealed;      /* a page that it holds although it is equal in both */
  ChoirConn *pStop; /* whose interrupt ends reading, or NULL */
  ChoirErr err;     /* of writing to fd */
};

typedef struct SpoolFile {
  sqlite3_file base;
  ChoirSpool *pSpool;
} SpoolFile;

static u8 *spoolPage1(ChoirSpool *p) { return p->aBuf + SPOOL_BUF; }

/* ------------------------------------------------------------------ sink */

static void spoolFlush(ChoirSpool *p) {
  if (p->nBuf && p->fd >= 0) {
    choirFileWrite(&p->err, p->fd, p->zFor, p->nOut - p->nBuf, p->aBuf,
                   p->nBuf);
  }
  p->nBuf = 0;
}

static void spoolKept(ChoirSpool *p, u64 iPage) {
  if (p->nKept == p->nKeptAlloc) {
    u64 n = p->nKeptAlloc ? p->nKeptAlloc * 2 : 1024;
    u32 *a = choirRealloc(&p->err, p->aKept, n * sizeof(u32));
    if (a == NULL) {
      return;
    }
    p->aKept = a;
    p->nKeptAlloc = n;
  }
  p->aKept[p->nKept++] = (u32)iPage;
}

/* The page at aBuf + nBuf: its hash, and whether it stays. */
static void spoolTake(ChoirSpool *p, u64 iPage) {
  u8 *a = p->aBuf + p->nBuf;
  int iOff = iPage == p->iRoot ? choirSealFind(a, p->szPage) : 0;
  if (iOff) {
    memset(a + iOff, 0, CHOIR_SYNC_SEAL);
  }
  choirPagesSet(&p->err, &p->pages, iPage, a);
  if (p->pBase && !iOff && choirPagesSame(&p->pages, p->pBase, iPage)) {
    return;
  }
  if (p->pBase) {
    spoolKept(p, iPage);
  }
  p->iSeal = iOff ? p->nOut + (u64)iOff : p->iSeal;
  p->nBuf += (u64)p->szPage;
  p->nOut += (u64)p->szPage;
}

/* The next page of the file; NULL: zeros. */
static void spoolAppend(ChoirSpool *p, const u8 *a) {
  size_t n = (size_t)p->szPage;
  if (p->nBuf + n > SPOOL_BUF) {
    spoolFlush(p);
  }
  if (a) {
    memcpy(p->aBuf + p->nBuf, a, n);
  } else {
    memset(p->aBuf + p->nBuf, 0, n);
  }
  spoolTake(p, p->nByte / n + 1);
  p->nByte += n;
}

static int spoolWrite(sqlite3_file *pFile, const void *pData, int n,
                      sqlite3_int64 iOff) {
  ChoirSpool *p = ((SpoolFile *)pFile)->pSpool;
  if (p->szPage == 0 && n >= 512 && n <= SPOOL_PAGE1) {
    p->szPage = n;
    p->pages.szPage = (u32)n;
    p->nByte = (u64)n; /* page 1 has its place, whenever it comes */
    p->nOut = p->pBase ? 0 : (u64)n;
  }
  if (n != p->szPage || !p->bSink || p->bBroken) {
    p->bBroken = 1;
  } else if (iOff == 0) {
    memcpy(spoolPage1(p), pData, (size_t)n);
    p->bPage1 = 1;
  } else {
    if (p->nByte == SPOOL_LOCKPAGE && (u64)iOff == p->nByte + (u64)n) {
      spoolAppend(p, NULL);
    }
    if ((u64)iOff == p->nByte) {
      spoolAppend(p, pData);
    } else {
      p->bBroken = 1;
    }
  }
  return p->err.rc == SQLITE_FULL               ? SQLITE_FULL
         : p->err.rc != SQLITE_OK || p->bBroken ? SQLITE_IOERR_WRITE
                                                : SQLITE_OK;
}

static int spoolReadSink(ChoirSpool *p, void *a, int n, i64 iOff) {
  if (p->bPage1 && iOff + n <= p->szPage) {
    memcpy(a, spoolPage1(p) + iOff, (size_t)n);
    return SQLITE_OK;
  }
  memset(a, 0, (size_t)n);
  if (p->bPage1 && (u64)iOff < p->nByte) {
    p->bBroken = 1;
    return SQLITE_IOERR_READ;
  }
  return SQLITE_IOERR_SHORT_READ;
}

static int spoolHolds(const ChoirSpool *p, u32 iPage) {
  return iPage == 1 || iPage == p->iSealed ||
         iPage == choirLtxLockPage(p->pOwn->szPage) ||
         !choirPagesSame(p->pOwn, p->pNew, iPage);
}

CHOIR_PRIVATE void choirSpoolRead(ChoirSpool *p, ChoirErr *pErr, u64 iOff,
                                  void *a, u64 n) {
  u64 i, sz = p->pLive ? p->pOwn->szPage : 0;
  if (p->pLive == NULL || iOff + n <= sz) { /* page 1, or its header */
    choirFdRead(pErr, p->fd, iOff, a, n);
    return;
  }
  choirLiveRead(p->pLive, pErr, iOff, a, n);
  for (i = 0; i < n; i += sz) {
    if (spoolHolds(p, (u32)((iOff + i) / sz) + 1)) {
      choirFdRead(pErr, p->fd, iOff + i, (u8 *)a + i, sz);
    }
  }
}

/* Who reads on gets more than asked for at once; nBuf bytes from nOut on. */
static void spoolReadAhead(ChoirSpool *p, ChoirErr *pErr, u64 iOff, void *a,
                           u64 n) {
  int bHave = iOff >= p->nOut && iOff + n <= p->nOut + p->nBuf;
  if (!bHave && iOff == p->iNext && n <= SPOOL_AHEAD) {
    u64 nLeft = p->nByte - iOff;
    p->nBuf = 0;
    choirSpoolRead(p, pErr, iOff, p->aBuf,
                   nLeft < SPOOL_AHEAD ? nLeft : SPOOL_AHEAD);
    if (pErr->rc == SQLITE_OK) {
      p->nOut = iOff;
      p->nBuf = nLeft < SPOOL_AHEAD ? nLeft : SPOOL_AHEAD;
      bHave = 1;
    }
  }
  if (bHave) {
    memcpy(a, p->aBuf + (iOff - p->nOut), (size_t)n);
  } else {
    choirSpoolRead(p, pErr, iOff, a, n);
  }
  p->iNext = iOff + n;
}

/* ------------------------------------------------------------ the methods */

static int spoolRead(sqlite3_file *pFile, void *a, int n, sqlite3_int64 iOff) {
  ChoirSpool *p = ((SpoolFile *)pFile)->pSpool;
  ChoirErr err = {0, NULL};
  u64 nHave;
  if (p->bSink) {
    return spoolReadSink(p, a, n, iOff);
  }
  if (p->pStop && choirInterrupted(p->pStop)) {
    return SQLITE_INTERRUPT;
  }
  nHave = (u64)iOff >= p->nByte ? 0 : p->nByte - (u64)iOff;
  nHave = nHave < (u64)n ? nHave : (u64)n;
  spoolReadAhead(p, &err, (u64)iOff, a, nHave);
  if (err.rc != SQLITE_OK) {
    choirErrClear(&err);
    return SQLITE_IOERR_READ;
  }
  if (nHave < (u64)n) {
    memset((u8 *)a + nHave, 0, (size_t)((u64)n - nHave));
    return SQLITE_IOERR_SHORT_READ;
  }
  return SQLITE_OK;
}

static int spoolClose(sqlite3_file *pFile) {
  (void)pFile;
  return SQLITE_OK;
}

static int spoolTruncate(sqlite3_file *pFile, sqlite3_int64 nByte) {
  ChoirSpool *p = ((SpoolFile *)pFile)->pSpool;
  p->bBroken |= (u64)nByte < p->nByte;
  return p->bBroken ? SQLITE_IOERR_TRUNCATE : SQLITE_OK;
}

static int spoolSync(sqlite3_file *pFile, int flags) {
  (void)pFile, (void)flags;
  return SQLITE_OK; /* who needs it durable syncs the file itself */
}

static int spoolFileSize(sqlite3_file *pFile, sqlite3_int64 *pnByte) {
  ChoirSpool *p = ((SpoolFile *)pFile)->pSpool;
  *pnByte = (sqlite3_int64)p->nByte;
  return SQLITE_OK;
}

static int spoolLock(sqlite3_file *pFile, int eLock) {
  (void)pFile, (void)eLock;
  return SQLITE_OK; /* private */
}

static int spoolCheckReserved(sqlite3_file *pFile, int *pbReserved) {
  (void)pFile;
  *pbReserved = 0;
  return SQLITE_OK;
}

static int spoolControl(sqlite3_file *pFile, int op, void *pArg) {
  (void)pFile, (void)op, (void)pArg;
  return SQLITE_NOTFOUND;
}

static int spoolSector(sqlite3_file *pFile) {
  (void)pFile;
  return 512;
}

static int spoolDevice(sqlite3_file *pFile) {
  (void)pFile;
  return 0;
}

static const sqlite3_io_methods spoolMethods = {
    .iVersion = 1,
    .xClose = spoolClose,
    .xRead = spoolRead,
    .xWrite = spoolWrite,
    .xTruncate = spoolTruncate,
    .xSync = spoolSync,
    .xFileSize = spoolFileSize,
    .xLock = spoolLock,
    .xUnlock = spoolLock,
    .xCheckReservedLock = spoolCheckReserved,
    .xFileControl = spoolControl,
    .xSectorSize = spoolSector,
    .xDeviceCharacteristics = spoolDevice,
};

/* ---------------------------------------------------------------- the VFS */

static int spoolVfsOpen(sqlite3_vfs *pVfs, const char *zName,
                        sqlite3_file *pFile, int mFlags, int *pmOut) {
  SpoolFile *p = (SpoolFile *)pFile;
  (void)zName;
  p->base.pMethods = NULL;
  if (!(mFlags & SQLITE_OPEN_MAIN_DB)) {
    return SQLITE_CANTOPEN; /* journals and the like: none */
  }
  p->base.pMethods = &spoolMethods;
  p->pSpool = pVfs->pAppData;
  if (pmOut) {
    *pmOut = mFlags;
  }
  return SQLITE_OK;
}

static int spoolVfsDelete(sqlite3_vfs *pVfs, const char *zName, int bSync) {
  (void)pVfs, (void)zName, (void)bSync;
  return SQLITE_OK;
}

static int spoolVfsAccess(sqlite3_vfs *pVfs, const char *zName, int flags,
                          int *pbRes) {
  (void)pVfs, (void)zName, (void)flags;
  *pbRes = 0;
  return SQLITE_OK;
}

static int spoolVfsPath(sqlite3_vfs *pVfs, const char *zName, int nOut,
                        char *zOut) {
  (void)pVfs;
  sqlite3_snprintf(nOut, zOut, "%s", zName);
  return SQLITE_OK;
}

static int spoolVfsRandom(sqlite3_vfs *pVfs, int n, char *z) {
  (void)pVfs;
  sqlite3_randomness(n, z);
  return n;
}

static int spoolVfsSleep(sqlite3_vfs *pVfs, int nMicro) {
  (void)pVfs;
  return sqlite3_sleep(nMicro / 1000) * 1000;
}

static int spoolVfsTime(sqlite3_vfs *pVfs, double *prNow) {
  (void)pVfs;
  *prNow = 2440587.5 + (double)choirNow() / 86400000.0;
  return SQLITE_OK;
}

static int spoolVfsError(sqlite3_vfs *pVfs, int n, char *z) {
  (void)pVfs, (void)n, (void)z;
  return 0;
}

CHOIR_PRIVATE ChoirSpool *choirSpoolNew(ChoirErr *pErr, int fd, u64 nByte) {
  ChoirSpool *p = choirMalloc(pErr, sizeof(*p));
  u64 iRandom;
  if (p == NULL) {
    return NULL;
  }
  p->fd = fd;
  p->nByte = nByte;
  sqlite3_randomness(sizeof(iRandom), &iRandom);
  sqlite3_snprintf(sizeof(p->zName), p->zName, "choir-spool-%016llx", iRandom);
  p->vfs.iVersion = 1;
  p->vfs.szOsFile = (int)sizeof(SpoolFile);
  p->vfs.mxPathname = 64;
  p->vfs.zName = p->zName;
  p->vfs.pAppData = p;
  p->vfs.xOpen = spoolVfsOpen;
  p->vfs.xDelete = spoolVfsDelete;
  p->vfs.xAccess = spoolVfsAccess;
  p->vfs.xFullPathname = spoolVfsPath;
  p->vfs.xRandomness = spoolVfsRandom;
  p->vfs.xSleep = spoolVfsSleep;
  p->vfs.xCurrentTime = spoolVfsTime;
  p->vfs.xGetLastError = spoolVfsError;
  return p;
}

CHOIR_PRIVATE void choirSpoolFor(ChoirSpool *p, const char *zFile) {
  p->zFor = zFile;
}

CHOIR_PRIVATE void choirSpoolDelta(ChoirSpool *p, const ChoirPages *pBase) {
  p->pBase = pBase;
}

CHOIR_PRIVATE void choirSpoolLive(ChoirSpool *p, ChoirLive *pLive,
                                  const ChoirPages *pOwn,
                                  const ChoirPages *pNew, u32 iSealed) {
  p->pLive = pLive;
  p->pOwn = pOwn;
  p->pNew = pNew;
  p->iSealed = iSealed;
}

CHOIR_PRIVATE void choirSpoolFree(ChoirSpool *p) {
  if (p) {
    choirErrClear(&p->err);
    choirPagesFree(&p->pages);
    sqlite3_free(p->aKept);
    sqlite3_free(p->aBuf);
    sqlite3_free(p);
  }
}

CHOIR_PRIVATE void choirSpoolSealAt(ChoirSpool *p, u32 iRoot) {
  p->iRoot = iRoot;
}

CHOIR_PRIVATE sqlite3 *choirSpoolOpen(ChoirErr *pErr, ChoirSpool *p,
                                      int bSink) {
  sqlite3 *db = NULL;
  int rc;
  if (p && p->aBuf == NULL) {
    p->aBuf = choirMalloc(pErr, bSink ? SPOOL_BUF + SPOOL_PAGE1 : SPOOL_AHEAD);
  }
  if (p == NULL || pErr->rc != SQLITE_OK) {
    return NULL;
  }
  p->bSink = (u8)bSink;
  rc = sqlite3_vfs_register(&p->vfs, 0);
  if (rc == SQLITE_OK) {
    rc = sqlite3_open_v2("spool", &db,
                         bSink ? SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE
                               : SQLITE_OPEN_READONLY,
                         p->zName);
    sqlite3_vfs_unregister(&p->vfs);
  }
  if (rc == SQLITE_OK && bSink) {
    rc = sqlite3_exec(db,
                      "PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;"
                      " PRAGMA locking_mode=EXCLUSIVE",
                      NULL, NULL, NULL);
  }
  if (rc == SQLITE_OK && !bSink) { /* it can do nothing but be read */
    sqlite3_db_config(db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    sqlite3_db_config(db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
    sqlite3_db_config(db, SQLITE_DBCONFIG_ENABLE_TRIGGER, 0, NULL);
    sqlite3_db_config(db, SQLITE_DBCONFIG_ENABLE_VIEW, 0, NULL);
  }
  if (rc == SQLITE_NOMEM) {
    choirErrNomem(pErr);
  } else if (rc != SQLITE_OK) {
    choirErrSet(pErr, rc, "cannot open the snapshot: %s",
                db ? sqlite3_errmsg(db) : sqlite3_errstr(rc));
  }
  if (rc != SQLITE_OK) {
    sqlite3_close(db);
    db = NULL;
  }
  return db;
}

/* Stands for a collation of the host, which the private connection has not: a
** quick check walks indexes without comparing what is in them. */
static int spoolCompare(void *pArg, int n1, const void *a, int n2,
                        const void *b) {
  int c = memcmp(a, b, (size_t)(n1 < n2 ? n1 : n2));
  (void)pArg;
  return c ? c : n1 - n2;
}

static void spoolCollation(void *pArg, sqlite3 *db, int eText,
                           const char *zName) {
  (void)eText;
  *(int *)pArg = 1;
  sqlite3_create_collation(db, zName, SQLITE_UTF8, NULL, spoolCompare);
}

/* The first problem that a check finds, caller frees. *pbForeign: it had to do
** without a collation of the host's. */
static char *spoolCheck(ChoirErr *pErr, sqlite3 *db, const char *zSql,
                        int *pbForeign) {
  sqlite3_stmt *p = NULL;
  const char *z = NULL;
  char *zProblem = NULL;
  int rc;
  if (pErr->rc != SQLITE_OK) {
    return NULL;
  }
  sqlite3_collation_needed(db, pbForeign, spoolCollation);
  rc = sqlite3_prepare_v2(db, zSql, -1, &p, NULL);
  rc = rc == SQLITE_OK ? sqlite3_step(p) : rc;
  if (rc == SQLITE_ROW) {
    z = (const char *)sqlite3_column_text(p, 0);
    rc = z ? SQLITE_OK : SQLITE_NOMEM;
    if (z && strstr(z, "error code=7")) {
      rc = SQLITE_NOMEM; /* SQLite 3.40 reports it as if it were damage */
    }
  } else {
    z = sqlite3_errmsg(db);
  }
  if ((rc & 0xff) == SQLITE_NOMEM) {
    choirErrNomem(pErr);
  } else if (rc != SQLITE_OK || strcmp(z, "ok") != 0) {
    zProblem = choirMprintf(pErr, "%s", z);
  }
  sqlite3_finalize(p);
  sqlite3_collation_needed(db, NULL, NULL);
  return zProblem;
}

CHOIR_PRIVATE char *choirSpoolProblem(ChoirErr *pErr, sqlite3 *db) {
  int bForeign = 0;
  return spoolCheck(pErr, db, "PRAGMA quick_check(1)", &bForeign);
}

CHOIR_PRIVATE int choirSpoolIndexes(ChoirConn *pConn, ChoirErr *pErr,
                                    ChoirSpool *pSpool, char **pzProblem) {
  static const char zFunction[] = "unknown function", zNone[] = "no such ";
  sqlite3 *db = choirSpoolOpen(pErr, pSpool, 0); /* without substitutes yet */
  int bForeign = 0;
  char *z = NULL;
  if (db) {
    pSpool->pStop = pConn;
    z = spoolCheck(pErr, db, "PRAGMA integrity_check(1)", &bForeign);
    pSpool->pStop = NULL;
    sqlite3_close(db);
  }
  if (z && choirInterrupted(pConn)) {
    choirErrSet(pErr, SQLITE_INTERRUPT, "interrupted");
  }
  if (z && (bForeign || strncmp(z, zFunction, sizeof(zFunction) - 1) == 0 ||
            strncmp(z, zNone, sizeof(zNone) - 1) == 0)) {
    sqlite3_free(z);
    z = NULL;
    bForeign = 1;
  }
  *pzProblem = z;
  return !bForeign && pErr->rc == SQLITE_OK;
}

CHOIR_PRIVATE void choirSpoolFinish(ChoirErr *pErr, ChoirSpool *p,
                                    u8 aDigest[32]) {
  if (p->err.rc != SQLITE_OK) {
    /* What went wrong below SQLite says more than SQLite's own message. */
    choirErrClear(pErr);
    *pErr = p->err;
    memset(&p->err, 0, sizeof(p->err));
  }
  if (pErr->rc != SQLITE_OK) {
    return;
  }
  if (p->bBroken || !p->bPage1) {
    choirErrSet(pErr, SQLITE_ERROR,
                "SQLite %s copied pages in an order choir does not know",
                sqlite3_libversion());
    return;
  }
  if (p->iRoot && p->iSeal == 0) {
    choirErrSet(pErr, SQLITE_CORRUPT_VTAB,
                "the row of _choir_sync_seal is missing or not %d bytes; run"
                " select choir_init()",
                CHOIR_SYNC_SEAL);
  }
  spoolFlush(p);
  memcpy(p->aBuf, spoolPage1(p), (size_t)p->szPage);
  choirPageNormalise(p->aBuf);
  if (p->pBase == NULL) {
    p->nOut = 0;
  }
  spoolTake(p, 1);
  spoolFlush(p);
  choirPagesDigest(&p->pages, aDigest);
  if (pErr->rc == SQLITE_OK && p->err.rc != SQLITE_OK) {
    *pErr = p->err;
    memset(&p->err, 0, sizeof(p->err));
  }
}

CHOIR_PRIVATE void choirSpoolPages(ChoirSpool *p, ChoirPages *pOut) {
  *pOut = p->pages;
  memset(&p->pages, 0, sizeof(p->pages));
}

CHOIR_PRIVATE u32 *choirSpoolKept(ChoirSpool *p, u64 *pn) {
  u32 *a = p->aKept;
  *pn = p->nKept;
  p->aKept = NULL;
  p->nKept = p->nKeptAlloc = 0;
  return a;
}

CHOIR_PRIVATE u64 choirSpoolSize(const ChoirSpool *p) { return p->nByte; }
CHOIR_PRIVATE int choirSpoolPageSize(const ChoirSpool *p) { return p->szPage; }
CHOIR_PRIVATE u64 choirSpoolSeal(const ChoirSpool *p) { return p->iSeal; }
