/* SPDX-License-Identifier: MIT */
/*
** The pages in which a pulled version differs, put into the live WAL as one
** transaction.
**
** SQLite's API replaces the content of a database that others have open only as
** a whole: sqlite3_backup writes every page, its checkpoint writes them again.
** For a small change frames are appended here in the way SQLite appends them.
** The formats of the WAL and of the wal-index are documented
** (sqlite.org/walformat.html), and processes with different versions of SQLite
** share them, so they do not change. On a private connection:
**
**   1  SQLite commits page 1 as it is. This begins the WAL anew where that may
**      be, and its one frame is the specimen.
**   2  BEGIN IMMEDIATE: SQLite holds the write lock and the newest snapshot.
**   3  The specimen must be, in the WAL and in the wal-index, what this file
**      would have written. Whatever it does not know (a codec, a VFS between,
**      another format) fails here, and the caller uses the backup.
**   4  The frames are written after the specimen, the last one as a commit, and
**      synced.
**   5  The wal-index learns of them: page numbers and hash slots, then its
**      header: second copy, barrier, first copy.
**   6  COMMIT of a transaction in which SQLite has no page to write: it drops
**      the lock.
**
** A crash before the last frame is whole leaves the specimen as the last commit
** that recovery finds, the old content; after it, the new content. Whoever was
** not there before step 5 goes on from the old header: the next writer
** overwrites the frames, and clears what is left of them in the wal-index as it
** would after a writer of SQLite's own. Killed between the two copies of the
** header, they differ, and the next reader recovers.
**
** Nobody else is in the way. Only who holds the write lock writes frames,
** begins the WAL anew or recovers. A reader never looks past the last frame of
** its own header, and the first copy of a new header is stored when all of the
** rest is. A checkpoint copies no frame past the header it read. Each
** connection's next read finds another header and drops its page cache, and
** another schema cookie, so that it reads the schema again.
*/
#include "sync.h"

#define FRAMES_VERSION 3007000 /* of WAL and wal-index, the only one */
#define FRAMES_BLOCK 32768  /* bytes of the wal-index that are mapped at once */
#define FRAMES_ENTRIES 4096 /* frames in a block, */
#define FRAMES_FIRST 4062   /* in the first one, which begins with 136 bytes */
#define FRAMES_SLOTS 8192   /* of the hash table behind them */

/* Header of the wal-index: twice, in native byte order. */
typedef struct FramesHead {
  u32 iVersion, unused;
  u32 iChange; /* one more with each commit */
  u8 isInit, bBig;
  u16 szPage; /* 1 is 65536 */
  u32 mxFrame, nPage;
  u32 aSum[2]; /* of frame mxFrame */
  u8 aSalt[8];
  u32 aCheck[2]; /* over what is above */
} FramesHead;
_Static_assert(sizeof(FramesHead) == 48, "as SQLite lays it out");

typedef struct Frames {
  sqlite3 *db;       /* private connection */
  sqlite3_file *pDb; /* its database, through which the wal-index is mapped */
  ChoirWal wal;
  FramesHead head;     /* as it was found, then as it will be */
  u32 iCount, iCookie; /* page 1: change counter, schema cookie */
  FramesHead *aHead;   /* both copies, mapped */
  u8 *a;               /* a frame */
} Frames;

/* Where a frame is in the wal-index. */
typedef struct FramesPlace {
  volatile u32 *aPage; /* page numbers of the block's frames */
  volatile u16 *aSlot; /* hash table of places in aPage, from 1; 0: empty */
  u32 i;               /* the frame's, from 1 */
  u32 n;               /* places in the block */
} FramesPlace;

/* ---------------------------------------------------------------- specimen */

static int framesExec(Frames *p, const char *zSql) {
  return sqlite3_exec(p->db, zSql, NULL, NULL, NULL);
}

/* The data version of the host's connection, once it has looked. */
static unsigned framesHost(ChoirConn *pConn, ChoirErr *pErr) {
  sqlite3_stmt *pStmt = choirPrepare(pConn, pErr, "PRAGMA ~.page_count");
  choirStep(pErr, pStmt);
  sqlite3_finalize(pStmt);
  return choirDataVersion(pConn->db, choirSchema(pConn));
}

/* 1: the database is one that step 1 may be tried on. */
static int framesFits(Frames *p) {
  const sqlite3_io_methods *m;
  sqlite3_vfs *pVfs = NULL;
  sqlite3_file_control(p->db, "main", SQLITE_FCNTL_VFS_POINTER, &pVfs);
  sqlite3_file_control(p->db, "main", SQLITE_FCNTL_FILE_POINTER, &p->pDb);
  m = p->pDb ? p->pDb->pMethods : NULL;
  return pVfs && strcmp(pVfs->zName, "unix") == 0 && /* nothing in between */
         m && m->iVersion >= 2 && m->xShmMap &&      /* shared memory */
         /* else SQLite pads a commit to the sector */
         (m->xDeviceCharacteristics(p->pDb) &
          SQLITE_IOCAP_POWERSAFE_OVERWRITE) &&
         choirPragmaIs(p->db, "PRAGMA journal_mode", "wal") &&
         choirPragmaIs(p->db, "PRAGMA locking_mode", "normal");
}

/* Steps 1 and 2. BUSY_SNAPSHOT: somebody committed since iVersion. */
static int framesBegin(Frames *p, ChoirConn *pConn, ChoirErr *pErr,
                       unsigned iVersion) {
  sqlite3_stmt *pStmt = NULL;
  char z[64] = "";
  unsigned iOwn;
  /* Without a sync: that of step 4 is for both. */
  int rc = framesExec(p, "PRAGMA synchronous=NORMAL; BEGIN IMMEDIATE");
  if (rc == SQLITE_OK && framesHost(pConn, pErr) != iVersion) {
    rc = SQLITE_BUSY_SNAPSHOT;
  }
  if (rc == SQLITE_OK) {
    rc = sqlite3_prepare_v2(p->db, "PRAGMA user_version", -1, &pStmt, NULL);
  }
  if (rc == SQLITE_OK && sqlite3_step(pStmt) == SQLITE_ROW) {
    sqlite3_snprintf(sizeof(z), z, "PRAGMA user_version=%d; COMMIT",
                     sqlite3_column_int(pStmt, 0));
  }
  rc = rc == SQLITE_OK ? sqlite3_finalize(pStmt) : rc;
  rc = rc == SQLITE_OK ? framesExec(p, z) : rc;
  iOwn = choirDataVersion(p->db, "main");
  rc = rc == SQLITE_OK ? framesExec(p, "BEGIN IMMEDIATE") : rc;
  if (rc == SQLITE_OK && choirDataVersion(p->db, "main") != iOwn) {
    rc = SQLITE_BUSY_SNAPSHOT;
  }
  return pErr->rc == SQLITE_OK ? rc : pErr->rc;
}

/* ----------------------------------------------------------- the wal-index */

static int framesPlace(Frames *p, u32 iFrame, FramesPlace *pAt) {
  u32 iBlock = (iFrame + FRAMES_ENTRIES - FRAMES_FIRST - 1) / FRAMES_ENTRIES;
  u32 nHead = iBlock ? 0 : FRAMES_ENTRIES - FRAMES_FIRST;
  void volatile *pBlock = NULL;
  /* 1: it may grow, since the write lock is held. */
  int rc =
      p->pDb->pMethods->xShmMap(p->pDb, (int)iBlock, FRAMES_BLOCK, 1, &pBlock);
  if (rc != SQLITE_OK || pBlock == NULL) {
    return rc != SQLITE_OK ? rc : SQLITE_IOERR_SHMMAP;
  }
  pAt->aPage = (volatile u32 *)pBlock + nHead;
  pAt->aSlot = (volatile u16 *)((volatile u32 *)pBlock + FRAMES_ENTRIES);
  pAt->n = FRAMES_ENTRIES - nHead;
  pAt->i = iFrame - (iBlock ? FRAMES_FIRST + (iBlock - 1) * FRAMES_ENTRIES : 0);
  return SQLITE_OK;
}

static u32 framesKey(u32 iPage) { return iPage * 383 & (FRAMES_SLOTS - 1); }

/* What a writer that died has left behind the last frame. */
static void framesClean(FramesPlace *pAt) {
  u32 i;
  for (i = 0; i < FRAMES_SLOTS; i++) {
    if (pAt->aSlot[i] >= pAt->i) {
      __atomic_store_n(&pAt->aSlot[i], 0, __ATOMIC_RELAXED);
    }
  }
  for (i = pAt->i - 1; i < pAt->n; i++) {
    pAt->aPage[i] = 0;
  }
}

static int framesIndex(Frames *p, u32 iFrame, u32 iPage) {
  FramesPlace at;
  u32 iKey = framesKey(iPage), nLeft;
  int rc = framesPlace(p, iFrame, &at);
  if (rc != SQLITE_OK) {
    return rc;
  }
  if (at.i == 1 || at.aPage[at.i - 1]) { /* an old block, or an old entry */
    framesClean(&at);
  }
  for (nLeft = at.i; at.aSlot[iKey]; iKey = (iKey + 1) & (FRAMES_SLOTS - 1)) {
    if (nLeft-- == 0) {
      return SQLITE_CORRUPT; /* more slots than frames */
    }
  }
  at.aPage[at.i - 1] = iPage;
  __atomic_store_n(&at.aSlot[iKey], (u16)at.i, __ATOMIC_RELAXED);
  return SQLITE_OK;
}

static void framesCheck(const FramesHead *p, u32 s[2]) {
  u32 a[sizeof(*p) / sizeof(u32)], i;
  memcpy(a, p, sizeof(*p));
  s[0] = s[1] = 0;
  for (i = 0; i < offsetof(FramesHead, aCheck) / sizeof(u32); i += 2) {
    s[0] += a[i] + s[1];
    s[1] += a[i + 1] + s[0];
  }
}

/* ------------------------------------------------------------------- proof */

/* 1: the wal-index has a header that says what the WAL's says. */
static int framesHead(Frames *p) {
  const sqlite3_io_methods *m = p->pDb->pMethods;
  void volatile *pBlock = NULL;
  FramesHead a[2];
  u32 s[2];
  if (m->xShmMap(p->pDb, 0, FRAMES_BLOCK, 0, &pBlock) != SQLITE_OK ||
      pBlock == NULL) {
    return 0;
  }
  p->aHead = (FramesHead *)pBlock;
  memcpy(a, p->aHead, sizeof(a));
  p->head = a[0];
  framesCheck(a, s);
  return memcmp(&a[0], &a[1], sizeof(a[0])) == 0 &&
         a->iVersion == FRAMES_VERSION && a->isInit == 1 && a->mxFrame > 0 &&
         memcmp(a->aCheck, s, sizeof(s)) == 0 && a->bBig == p->wal.bBig &&
         (u32)(a->szPage & 0xfe00) + ((u32)(a->szPage & 1) << 16) ==
             p->wal.szPage &&
         memcmp(a->aSalt, p->wal.aSalt, sizeof(a->aSalt)) == 0;
}

/* 1: the wal-index leads from page 1 to the last frame. */
static int framesFinds(Frames *p) {
  FramesPlace at;
  u32 iKey = framesKey(1), n = 0;
  if (framesPlace(p, p->head.mxFrame, &at) != SQLITE_OK) {
    return 0;
  }
  while (n++ < at.n && at.aSlot[iKey] && at.aSlot[iKey] != at.i) {
    iKey = (iKey + 1) & (FRAMES_SLOTS - 1);
  }
  return at.aSlot[iKey] == at.i && at.aPage[at.i - 1] == 1;
}

/* 1: the last frame is a commit of page 1, which is the page 1 that pWas has
** the hash of. It stays in p->a. */
static int framesSpecimen(Frames *p, const ChoirPages *pWas) {
  u8 *aPage = p->a + CHOIR_WAL_FRAME;
  u32 s[2];
  if (!choirWalFrame(&p->wal, p->head.mxFrame, p->a, s)) {
    return 0;
  }
  p->iCount = choirGet32(aPage + 24);
  p->iCookie = choirGet32(aPage + 40);
  choirPageNormalise(aPage);
  return choirPagesHas(pWas, 1, aPage) && choirGet32(p->a) == 1 &&
         choirGet32(p->a + 4) == p->head.nPage &&
         choirGet32(aPage + 28) == p->head.nPage &&
         p->head.nPage == pWas->nPage &&
         memcmp(s, p->head.aSum, sizeof(s)) == 0;
}

/* Step 3. */
static int framesProof(Frames *p, const ChoirPages *pWas) {
  return choirWalOpen(p->db, &p->wal) && p->wal.szPage == pWas->szPage &&
         framesHead(p) && framesFinds(p) && framesSpecimen(p, pWas);
}

/* ------------------------------------------------------------------ frames */

/* A page number that may have other bytes here than in pNew. What is equal in
** both but the seal has equal hashes too. */
static int framesDiffers(const ChoirRemote *pNew, u32 iPage) {
  return iPage != choirLtxLockPage(pNew->own.szPage) &&
         (iPage == 1 || iPage == pNew->pos.iRoot || iPage == pNew->iOwnRoot ||
          !choirPagesSame(&pNew->own, &pNew->pages, iPage));
}

/* As sqlite3_backup and the commit after it would have made page 1. */
static void framesPageOne(const Frames *p, u8 *a) {
  a[18] = a[19] = 2; /* the file is in WAL mode */
  choirPut32(a + 24, p->iCount + 1);
  choirPut32(a + 92, p->iCount + 1);
  choirPut32(a + 40, p->iCookie + 1); /* never the one a connection knows */
  choirPut32(a + 96, (u32)sqlite3_libversion_number());
}

/* The next frame, on disk and in the wal-index. nPage: of a commit, else 0. */
static int framesAppend(Frames *p, ChoirErr *pErr, int fd, u32 iPage,
                        u32 nPage) {
  sqlite3_file *pFile = p->wal.pFile;
  u32 sz = p->wal.szPage, *s = p->head.aSum;
  u8 *a = p->a, *aPage = a + CHOIR_WAL_FRAME;
  int rc;
  choirFdRead(pErr, fd, (u64)(iPage - 1) * sz, aPage, sz);
  if (iPage == 1) {
    framesPageOne(p, aPage);
  }
  choirPut32(a, iPage);
  choirPut32(a + 4, nPage);
  memcpy(a + 8, p->head.aSalt, 8);
  choirWalSum(p->wal.bBig, a, 8, s);
  choirWalSum(p->wal.bBig, aPage, sz, s);
  choirPut32(a + 16, s[0]);
  choirPut32(a + 20, s[1]);
  p->head.mxFrame++;
  rc = pErr->rc != SQLITE_OK
           ? pErr->rc
           : pFile->pMethods->xWrite(
                 pFile, a, (int)(CHOIR_WAL_FRAME + sz),
                 (sqlite3_int64)choirWalOffset(&p->wal, p->head.mxFrame));
  return rc == SQLITE_OK ? framesIndex(p, p->head.mxFrame, iPage) : rc;
}

/* Step 4. What fails is no frame any more, not even one that recovery would
** take because only the sync failed. */
static int framesWrite(Frames *p, ChoirErr *pErr, const ChoirRemote *pNew) {
  sqlite3_file *pFile = p->wal.pFile;
  u64 iFirst = choirWalOffset(&p->wal, p->head.mxFrame + 1);
  u32 i, iLast = pNew->pages.nPage;
  int rc = SQLITE_OK;
  while (!framesDiffers(pNew, iLast)) {
    iLast--;
  }
  for (i = 1; i <= iLast && rc == SQLITE_OK; i++) {
    if (framesDiffers(pNew, i)) {
      rc = framesAppend(p, pErr, pNew->fd, i,
                        i == iLast ? pNew->pages.nPage : 0);
    }
  }
  rc = rc == SQLITE_OK ? pFile->pMethods->xSync(pFile, SQLITE_SYNC_NORMAL) : rc;
  if (rc != SQLITE_OK) {
    memset(p->a, 0, CHOIR_WAL_FRAME);
    pFile->pMethods->xWrite(pFile, p->a, CHOIR_WAL_FRAME,
                            (sqlite3_int64)iFirst);
  }
  return rc;
}

/* Step 5: from here on it is committed. */
static void framesPublish(Frames *p, u32 nPage) {
  p->head.iChange++;
  p->head.nPage = nPage;
  framesCheck(&p->head, p->head.aCheck);
  memcpy(&p->aHead[1], &p->head, sizeof(p->head));
  p->pDb->pMethods->xShmBarrier(p->pDb);
  memcpy(&p->aHead[0], &p->head, sizeof(p->head));
}

/* As SQLite does after a commit on the host's connection. */
static void framesCheckpoint(Frames *p, ChoirConn *pConn, ChoirErr *pErr) {
  sqlite3_stmt *pStmt = choirPrepare(pConn, pErr, "PRAGMA wal_autocheckpoint");
  u32 n = choirStep(pErr, pStmt) ? (u32)sqlite3_column_int(pStmt, 0) : 0;
  sqlite3_finalize(pStmt);
  if (n && p->head.mxFrame >= n) {
    sqlite3_wal_checkpoint_v2(p->db, "main", SQLITE_CHECKPOINT_PASSIVE, NULL,
                              NULL);
  }
}

/* Steps 4 to 6. */
static int framesCommit(Frames *p, ChoirConn *pConn, ChoirErr *pErr,
                        const ChoirRemote *pNew, ChoirWalMark *pMark) {
  ChoirErr err = {0, NULL}; /* what happens after a commit is no error of it */
  int rc = framesWrite(p, pErr, pNew);
  if (rc != SQLITE_OK) {
    return rc;
  }
  framesPublish(p, pNew->pages.nPage);
  framesExec(p, "COMMIT");
  memcpy(pMark->aSalt, p->head.aSalt, sizeof(pMark->aSalt));
  pMark->nFrame = p->head.mxFrame;
  choirPut32(pMark->aSum, p->head.aSum[0]);
  choirPut32(pMark->aSum + 4, p->head.aSum[1]);
  framesCheckpoint(p, pConn, &err);
  choirErrClear(&err);
  return SQLITE_DONE;
}

CHOIR_PRIVATE int choirFrames(ChoirConn *pConn, ChoirErr *pErr,
                              ChoirRemote *pNew, unsigned *piVersion,
                              ChoirWalMark *pMark) {
  Frames f;
  int rc = SQLITE_OK;
  memset(&f, 0, sizeof(f));
  f.db = choirSnapshotOpen(pConn, pErr);
  if (f.db && framesFits(&f)) {
    rc = framesBegin(&f, pConn, pErr, *piVersion);
    f.a = choirMalloc(pErr, CHOIR_WAL_FRAME + pNew->own.szPage);
  }
  if (f.a && rc == SQLITE_OK && framesProof(&f, &pNew->own)) {
    choirRemoteLetGo(pNew); /* no reader of ours keeps the checkpoint back */
    rc = framesCommit(&f, pConn, pErr, pNew, pMark);
  } else if (f.a && rc == SQLITE_OK) { /* what step 1 committed was ours */
    *piVersion = framesHost(pConn, pErr);
  }
  sqlite3_free(f.a);
  sqlite3_close(f.db); /* rolls back what did not come to step 6 */
  return pErr->rc != SQLITE_OK ? pErr->rc : rc;
}
