/* SPDX-License-Identifier: MIT */
/*
** One version of a folder remote, read page by page without fetching the rest:
** the indexes of its files say where each page's newest frame is.
**
** Opening costs a listing and one request a file; a file larger than
** VERSION_TAIL costs three: its end, its index, its beginning. The beginning
** stays, because page 1 and the pages of the schema tend to be there. A page
** costs a request unless its frame lies in a block that is kept: blocks begin
** at a frame and are VERSION_BLOCK long, twice that after each one that goes on
** where the last one ended, up to VERSION_AHEAD. VERSION_CACHE bytes are kept.
**
** A file that was pruned meanwhile is looked for in another plan: the version
** is the same whatever files hold it. Frames are checked against their index
** and unpack to exactly a page; the checksum of a file, which needs all of it,
** is not looked at here (sync_restore() and sync_verify() do).
*/
#include "sync.h"

#define VERSION_TAIL ((u64)1 << 17)
#define VERSION_BLOCK ((u64)1 << 16)
#define VERSION_AHEAD ((u64)1 << 20)
#define VERSION_CACHE ((u64)16 << 20)
#define VERSION_BLOCKS 256
#define VERSION_TRIES 3
#define VERSION_ENTRY 14 /* bytes of a page in a file: frame and index */

typedef struct VersionPage {
  u64 iOff;
  u32 nByte; /* of the frame, 0: in no file */
  u32 iFile; /* in plan */
} VersionPage;

typedef struct VersionBlock {
  u8 *a; /* bytes of plan.a[iFile] from iOff; NULL: none */
  u64 n;
  u64 iOff;
  u32 iFile;
  u64 iUse; /* when it was used last */
} VersionBlock;

struct ChoirVersion {
  ChoirRemote *p;
  u64 iTxid;
  ChoirFiles plan;
  ChoirLtxHead head;  /* of the last file */
  ChoirLtxHead first; /* the same when it was opened */
  VersionPage *aPage; /* head.nPage of them */
  VersionBlock aBlock[VERSION_BLOCKS];
  u64 nKept; /* bytes in them */
  u64 iUse;
  u32 iNextFile; /* where the last block of pages ended, */
  u64 iNext;
  u64 nNext; /* and how long it was */
  u64 nGet;  /* requests for bytes */
};

/* -------------------------------------------------------------- the blocks */

/* The error of one object, with its name. */
static void versionBlame(ChoirVersion *v, ChoirErr *pErr, ChoirErr *pOne,
                         u32 iFile) {
  if (pOne->rc == SQLITE_CORRUPT && pOne->zMsg) {
    char *zKey = choirFolderKey(pErr, v->p, &v->plan.a[iFile]);
    choirErrSet(pErr, SQLITE_CORRUPT, "the remote %s is damaged: %s: %s",
                v->p->zUrl, zKey ? zKey : "", pOne->zMsg);
    sqlite3_free(zKey);
  } else if (pOne->rc != SQLITE_OK && pErr->rc == SQLITE_OK) {
    *pErr = *pOne;
    memset(pOne, 0, sizeof(*pOne));
  }
  choirErrClear(pOne);
}

/* Bytes of a file, as far as there are any; the caller owns out->a. */
static int versionFetch(ChoirVersion *v, ChoirErr *pErr, u32 iFile, u64 iOff,
                        u64 nByte, VersionBlock *pOut) {
  ChoirObjectMeta meta;
  ChoirBuf b;
  char *zKey = choirFolderKey(pErr, v->p, &v->plan.a[iFile]);
  int e = CHOIR_OBJECT_FAILED;
  memset(pOut, 0, sizeof(*pOut));
  choirBufInit(&b, pErr, nByte);
  v->nGet++;
  if (zKey) {
    e = choirFolderGet(v->p, pErr, zKey, (i64)iOff, (i64)nByte, &meta,
                       choirObjectToBuf, &b);
  }
  if (e == CHOIR_OBJECT_OK && pErr->rc == SQLITE_OK) {
    pOut->iFile = iFile;
    pOut->iOff = iOff;
    pOut->n = b.n;
    pOut->a = (u8 *)choirBufTake(&b);
  }
  choirBufFree(&b);
  sqlite3_free(zKey);
  return pErr->rc == SQLITE_OK ? e : CHOIR_OBJECT_FAILED;
}

static void versionDrop(ChoirVersion *v, VersionBlock *q) {
  v->nKept -= q->n;
  sqlite3_free(q->a);
  memset(q, 0, sizeof(*q));
}

/* Takes the block over; those not used for longest make room. */
static VersionBlock *versionKeep(ChoirVersion *v, VersionBlock *pNew) {
  VersionBlock *pFree, *pOld;
  int i;
  do {
    pFree = pOld = NULL;
    for (i = 0; i < VERSION_BLOCKS; i++) {
      VersionBlock *q = &v->aBlock[i];
      if (q->a == NULL) {
        pFree = q;
      } else if (pOld == NULL || q->iUse < pOld->iUse) {
        pOld = q;
      }
    }
    if (pOld && (pFree == NULL || v->nKept + pNew->n > VERSION_CACHE)) {
      versionDrop(v, pOld);
      pFree = NULL;
    }
  } while (pFree == NULL);
  *pFree = *pNew;
  memset(pNew, 0, sizeof(*pNew));
  pFree->iUse = ++v->iUse;
  v->nKept += pFree->n;
  return pFree;
}

/* The kept block that has all of these bytes, or NULL. */
static VersionBlock *versionHave(ChoirVersion *v, const VersionPage *pPage) {
  int i;
  for (i = 0; i < VERSION_BLOCKS; i++) {
    VersionBlock *q = &v->aBlock[i];
    if (q->a && q->iFile == pPage->iFile && q->iOff <= pPage->iOff &&
        pPage->iOff + pPage->nByte <= q->iOff + q->n) {
      q->iUse = ++v->iUse;
      return q;
    }
  }
  return NULL;
}

/* ------------------------------------------------------------- the indexes */

typedef struct VersionLoad {
  ChoirVersion *v;
  u32 iFile;
  u64 nFile;
} VersionLoad;

static void versionEntry(void *pArg, ChoirErr *pErr, u32 iPage, u64 iOff,
                         u32 nByte) {
  VersionLoad *p = pArg;
  VersionPage *q;
  if (iPage > p->v->head.nPage) {
    return; /* cut off by a later file */
  }
  q = &p->v->aPage[iPage - 1];
  if (iOff + nByte > p->nFile) {
    choirErrSet(pErr, SQLITE_CORRUPT, "its index points behind its end");
  } else if (q->nByte == 0) { /* files are taken from the newest on */
    q->iOff = iOff;
    q->nByte = nByte;
    q->iFile = p->iFile;
  }
}

/* The header of a file in its first bytes: that of its name, and of the same
** workspace as the newest one's. */
static void versionHeader(ChoirVersion *v, ChoirErr *pErr, u32 iFile,
                          const VersionBlock *pFirst) {
  const ChoirFile *pFile = &v->plan.a[iFile];
  ChoirLtxHead head;
  u64 i, nAll = 0;
  choirLtxHeadRead(pErr, pFirst->a, pFirst->n, &head);
  for (i = 0; i < v->plan.n; i++) {
    nAll += v->plan.a[i].nByte;
  }
  if (pErr->rc != SQLITE_OK) {
    return;
  }
  if (head.iMin != pFile->iMin || head.iMax != pFile->iMax) {
    choirErrSet(pErr, SQLITE_CORRUPT,
                "it holds transactions %llu to %llu, which is not its name",
                head.iMin, head.iMax);
  } else if (v->aPage == NULL && head.nPage > nAll / VERSION_ENTRY) {
    choirErrSet(pErr, SQLITE_CORRUPT,
                "its header says %u pages, more than there can be", head.nPage);
  } else if (v->aPage == NULL) { /* the newest */
    v->head = head;
    v->aPage = choirMalloc(pErr, head.nPage * sizeof(VersionPage));
  } else if (head.szPage != v->head.szPage) {
    choirErrSet(pErr, SQLITE_CORRUPT,
                "its pages have %u bytes and later ones %u", head.szPage,
                v->head.szPage);
  } else if (head.bChoir && v->head.bChoir &&
             memcmp(head.aLineage, v->head.aLineage, 4) != 0) {
    choirErrSet(pErr, SQLITE_CORRUPT, "it is of another workspace");
  }
}

/* Size of a file found by probing. */
static void versionSize(ChoirVersion *v, ChoirErr *pErr, ChoirFile *pFile) {
  ChoirLtxHead head;
  ChoirObjectMeta meta;
  if (pFile->nByte == 0 &&
      choirFolderHead(v->p, pErr, pFile, &head, &meta) == CHOIR_OBJECT_OK) {
    pFile->nByte = meta.nByte;
  }
}

/* The end of file iFile with its index, and its first bytes, which are kept;
** the outcome. The caller frees pEnd->a. */
static int versionEnds(ChoirVersion *v, ChoirErr *pErr, u32 iFile,
                       VersionBlock *pEnd, VersionBlock **ppFirst,
                       u64 *pnIndex) {
  u64 nFile = v->plan.a[iFile].nByte;
  u64 nTail = nFile < VERSION_TAIL ? nFile : VERSION_TAIL;
  VersionBlock first;
  int e = versionFetch(v, pErr, iFile, nFile - nTail, nTail, pEnd);
  if (e != CHOIR_OBJECT_OK) {
    return e;
  }
  *pnIndex = choirLtxIndexSize(pErr, pEnd->a, pEnd->n, nFile);
  if (*pnIndex + CHOIR_LTX_TRAILER + 8 > nTail && pErr->rc == SQLITE_OK) {
    nTail = *pnIndex + CHOIR_LTX_TRAILER + 8;
    sqlite3_free(pEnd->a);
    e = versionFetch(v, pErr, iFile, nFile - nTail, nTail, pEnd);
  }
  if (e == CHOIR_OBJECT_OK && pEnd->n != nTail) {
    choirErrSet(pErr, SQLITE_CORRUPT, "it ends too early");
  }
  if (e == CHOIR_OBJECT_OK && pErr->rc == SQLITE_OK && nTail == nFile) {
    first = *pEnd; /* all of it: kept, and a copy of the end is enough */
    nTail = *pnIndex + CHOIR_LTX_TRAILER + 8;
    pEnd->a = choirMalloc(pErr, nTail);
    pEnd->n = nTail;
    if (pEnd->a) {
      memcpy(pEnd->a, first.a + first.n - nTail, (size_t)nTail);
    }
    *ppFirst = versionKeep(v, &first);
  } else if (e == CHOIR_OBJECT_OK && pErr->rc == SQLITE_OK) {
    e = versionFetch(v, pErr, iFile, 0, VERSION_BLOCK, &first);
    *ppFirst = e == CHOIR_OBJECT_OK ? versionKeep(v, &first) : NULL;
  }
  return pErr->rc == SQLITE_OK ? e : CHOIR_OBJECT_FAILED;
}

/* The index of file iFile. 0: it is gone. */
static int versionIndex(ChoirVersion *v, ChoirErr *pErr, u32 iFile) {
  ChoirErr err = {0, NULL};
  VersionLoad load = {v, iFile, v->plan.a[iFile].nByte};
  VersionBlock end, *pFirst = NULL;
  u64 nIndex = 0;
  int e;
  memset(&end, 0, sizeof(end));
  e = versionEnds(v, &err, iFile, &end, &pFirst, &nIndex);
  if (e == CHOIR_OBJECT_OK) {
    versionHeader(v, &err, iFile, pFirst);
  }
  if (e == CHOIR_OBJECT_OK && err.rc == SQLITE_OK) {
    ChoirLtxHead any = v->head;
    any.nPage = 0xffffffff; /* an older file may be of a larger database */
    choirLtxIndexRead(&err, end.a + end.n - CHOIR_LTX_TRAILER - 8 - nIndex,
                      nIndex, &any, versionEntry, &load);
  }
  sqlite3_free(end.a);
  if (err.rc == SQLITE_CORRUPT) { /* its head may say better why */
    ChoirLtxHead head;
    choirFolderHead(v->p, pErr, &v->plan.a[iFile], &head, NULL);
  }
  versionBlame(v, pErr, &err, iFile);
  return e != CHOIR_OBJECT_ABSENT;
}

/* ----------------------------------------------------------------- opening */

static void versionForget(ChoirVersion *v) {
  int i;
  for (i = 0; i < VERSION_BLOCKS; i++) {
    versionDrop(v, &v->aBlock[i]);
  }
  choirFilesFree(&v->plan);
  sqlite3_free(v->aPage);
  v->aPage = NULL;
  v->iNext = v->nNext = 0;
}

CHOIR_PRIVATE void choirVersionClose(ChoirVersion *v) {
  if (v) {
    versionForget(v);
    sqlite3_free(v);
  }
}

static void versionComplete(ChoirVersion *v, ChoirErr *pErr) {
  u32 i, iLock = choirLtxLockPage(v->head.szPage);
  for (i = 1; i <= v->head.nPage && pErr->rc == SQLITE_OK; i++) {
    if (v->aPage[i - 1].nByte == 0 && i != iLock) {
      choirErrSet(pErr, SQLITE_CORRUPT,
                  "the remote %s is damaged: page %u of transaction %llu is in"
                  " none of its files",
                  v->p->zUrl, i, v->iTxid);
    }
  }
}

CHOIR_PRIVATE u64 choirVersionPlan(ChoirErr *pErr, ChoirRemote *p, u64 iTxid,
                                   ChoirFiles *pPlan) {
  ChoirFiles files;
  u64 i, iGot = 0;
  choirFolderList(p, pErr, &files);
  for (i = 0; i < files.n && iTxid == 0; i++) {
    iGot = files.a[i].iMax > iGot ? files.a[i].iMax : iGot;
  }
  iTxid = iTxid ? iTxid : iGot;
  choirFilesPlan(pErr, &files, 0, iTxid, pPlan, &iGot);
  if (pErr->rc == SQLITE_OK && (iGot != iTxid || pPlan->n == 0)) {
    choirVersionAbsent(pErr, p, &files, iTxid);
  }
  choirFilesFree(&files);
  return iTxid;
}

/* One plan and its indexes. 0: a file of it is gone. */
static int versionPlan(ChoirVersion *v, ChoirErr *pErr) {
  u64 i;
  int bThere = 1;
  versionForget(v);
  v->iTxid = choirVersionPlan(pErr, v->p, v->iTxid, &v->plan);
  for (i = 0; i < v->plan.n && pErr->rc == SQLITE_OK; i++) {
    versionSize(v, pErr, &v->plan.a[i]);
  }
  for (i = v->plan.n; i > 0 && pErr->rc == SQLITE_OK && bThere; i--) {
    bThere = versionIndex(v, pErr, (u32)(i - 1));
  }
  return bThere;
}

static void versionLoad(ChoirVersion *v, ChoirErr *pErr) {
  int i, bThere = 0;
  for (i = 0; i < VERSION_TRIES && !bThere && pErr->rc == SQLITE_OK; i++) {
    bThere = versionPlan(v, pErr);
  }
  if (!bThere) {
    choirErrSet(pErr, SQLITE_BUSY,
                "the files of %s are removed while they are read; try again",
                v->p->zUrl);
  }
  if (pErr->rc == SQLITE_OK) {
    versionComplete(v, pErr);
  }
}

CHOIR_PRIVATE ChoirVersion *choirVersionOpen(ChoirErr *pErr, ChoirRemote *p,
                                             u64 iTxid) {
  ChoirVersion *v = choirMalloc(pErr, sizeof(*v));
  if (v) {
    v->p = p;
    v->iTxid = iTxid;
    versionLoad(v, pErr);
    v->first = v->head;
  }
  if (pErr->rc != SQLITE_OK) {
    choirVersionClose(v);
    v = NULL;
  }
  return v;
}

CHOIR_PRIVATE const ChoirLtxHead *choirVersionHead(const ChoirVersion *v) {
  return &v->head;
}

CHOIR_PRIVATE u64 choirVersionGets(const ChoirVersion *v) { return v->nGet; }

/* The files were pruned: others that make the same version. */
static void versionAgain(ChoirVersion *v, ChoirErr *pErr) {
  versionLoad(v, pErr);
  if (pErr->rc == SQLITE_OK &&
      (memcmp(v->first.aId, v->head.aId, CHOIR_SYNC_ID) != 0 ||
       v->first.nPage != v->head.nPage || v->first.szPage != v->head.szPage)) {
    choirErrSet(pErr, SQLITE_IOERR,
                "transaction %llu of %s is another one now; open it again",
                v->iTxid, v->p->zUrl);
  }
}

/* The block with a page's frame, fetched when none has it. NULL: sticky, or
** the file is gone. */
static const VersionBlock *versionBlock(ChoirVersion *v, ChoirErr *pErr,
                                        const VersionPage *q) {
  VersionBlock *pHave = versionHave(v, q), block;
  u64 n = VERSION_BLOCK;
  if (pHave || pErr->rc != SQLITE_OK) {
    return pHave;
  }
  if (v->nNext && q->iFile == v->iNextFile && q->iOff <= v->iNext &&
      q->iOff + q->nByte > v->iNext) {
    n = v->nNext < VERSION_AHEAD ? v->nNext * 2 : VERSION_AHEAD;
  }
  n = q->nByte > n ? q->nByte : n;
  if (versionFetch(v, pErr, q->iFile, q->iOff, n, &block) != CHOIR_OBJECT_OK) {
    return NULL;
  }
  v->iNextFile = q->iFile;
  v->iNext = q->iOff + block.n;
  v->nNext = n;
  pHave = versionKeep(v, &block);
  if (pHave->n < q->nByte) {
    ChoirErr err = {0, NULL};
    choirErrSet(&err, SQLITE_CORRUPT, "it ends too early");
    versionBlame(v, pErr, &err, q->iFile);
  }
  return pErr->rc == SQLITE_OK ? pHave : NULL;
}

CHOIR_PRIVATE void choirVersionPage(ChoirVersion *v, ChoirErr *pErr, u32 iPage,
                                    u8 *aOut) {
  ChoirErr err = {0, NULL};
  const VersionPage *q;
  const VersionBlock *pBlock;
  if (pErr->rc == SQLITE_OK && v->aPage == NULL) {
    versionAgain(v, pErr); /* the last time it failed */
  }
  if (pErr->rc != SQLITE_OK) {
    return;
  }
  q = iPage && iPage <= v->head.nPage ? &v->aPage[iPage - 1] : NULL;
  if (q == NULL || q->nByte == 0) {
    memset(aOut, 0, v->head.szPage); /* the lock page */
    return;
  }
  pBlock = versionBlock(v, pErr, q);
  if (pBlock == NULL && pErr->rc == SQLITE_OK) {
    versionAgain(v, pErr);
    q = v->aPage ? &v->aPage[iPage - 1] : q;
    pBlock = pErr->rc == SQLITE_OK ? versionBlock(v, pErr, q) : NULL;
  }
  if (pBlock) {
    choirLtxFrameRead(&err, pBlock->a + (q->iOff - pBlock->iOff), q->nByte,
                      iPage, v->head.szPage, aOut);
    versionBlame(v, pErr, &err, q->iFile);
  } else {
    choirErrSet(pErr, SQLITE_IOERR,
                "the files of %s are removed while they are read; try again",
                v->p->zUrl);
  }
}
