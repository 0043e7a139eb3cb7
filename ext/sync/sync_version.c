/* SPDX-License-Identifier: MIT */
/*
** One version of a folder remote, read page by page without fetching the rest:
** the indexes of its files say where each page's newest frame is.
**
** Opening costs a listing and one request a file (a file smaller than
** VERSION_TAIL is fetched whole by it; an index larger than that costs one
** more). A page costs a request unless its frame lies in the block fetched
** last, which begins at a frame and is VERSION_BLOCK long: neighbours come
** along. Frames are checked against their index and unpack to exactly a page;
** the checksum of a file, which needs all of it, is not looked at here.
*/
#include "sync.h"

#define VERSION_TAIL ((u64)1 << 17)
#define VERSION_BLOCK ((u64)1 << 16)

typedef struct VersionPage {
  u64 iOff;
  u32 nByte; /* of the frame, 0: the page is zeros */
  u32 iFile; /* in plan */
} VersionPage;

struct ChoirVersion {
  ChoirRemote *p;
  ChoirFiles plan;
  ChoirLtxHead head;  /* of the last file */
  VersionPage *aPage; /* head.nPage of them */
  ChoirBuf block;     /* bytes of plan.a[iFile] from iOff */
  u32 iFile;
  u64 iOff;
};

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

static void versionTake(void *pArg, ChoirErr *pErr, const void *a, u64 n) {
  (void)pErr;
  choirBufAppend(pArg, a, n);
}

/* Bytes of file iFile into the block. ABSENT when it is gone. */
static int versionBlock(ChoirVersion *v, ChoirErr *pErr, u32 iFile, u64 iOff,
                        u64 nByte) {
  ChoirObjectMeta meta;
  char *zKey = choirFolderKey(pErr, v->p, &v->plan.a[iFile]);
  int e = CHOIR_OBJECT_FAILED;
  choirBufFree(&v->block);
  choirBufInit(&v->block, pErr, (u64)1 << 31);
  if (zKey) {
    e = choirFolderGet(v->p, pErr, zKey, (i64)iOff, (i64)nByte, &meta,
                       versionTake, &v->block);
  }
  v->iFile = iFile;
  v->iOff = iOff;
  sqlite3_free(zKey);
  return e;
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

/* The index of file iFile. 0: it is gone. */
static int versionIndex(ChoirVersion *v, ChoirErr *pErr, u32 iFile) {
  ChoirFile *pFile = &v->plan.a[iFile];
  VersionLoad load = {v, iFile, 0};
  ChoirLtxHead head;
  u64 nTail, nIndex;
  versionSize(v, pErr, pFile);
  load.nFile = pFile->nByte;
  nTail = pFile->nByte < VERSION_TAIL ? pFile->nByte : VERSION_TAIL;
  if (versionBlock(v, pErr, iFile, pFile->nByte - nTail, nTail) !=
      CHOIR_OBJECT_OK) {
    return 0;
  }
  nIndex = choirLtxIndexSize(pErr, (u8 *)v->block.a, v->block.n, pFile->nByte);
  if (nIndex + 24 > nTail && pErr->rc == SQLITE_OK) {
    nTail = nIndex + 24;
    if (versionBlock(v, pErr, iFile, pFile->nByte - nTail, nTail) !=
        CHOIR_OBJECT_OK) {
      return 0;
    }
  }
  if (pErr->rc == SQLITE_OK && v->block.n != nTail) {
    choirErrSet(pErr, SQLITE_CORRUPT, "it ends too early");
  }
  if (v->aPage == NULL && pErr->rc == SQLITE_OK) { /* the newest */
    if (nTail == pFile->nByte) {
      choirLtxHeadRead(pErr, (u8 *)v->block.a, v->block.n, &v->head);
    } else if (choirFolderHead(v->p, pErr, pFile, &v->head, NULL) !=
               CHOIR_OBJECT_OK) {
      return 0;
    }
    v->aPage = choirMalloc(pErr, v->head.nPage * sizeof(VersionPage));
  }
  if (pErr->rc == SQLITE_OK) {
    head = v->head;
    head.nPage = 0xffffffff; /* an older file may be of a larger database */
    choirLtxIndexRead(pErr, (u8 *)v->block.a + nTail - 24 - nIndex, nIndex,
                      &head, versionEntry, &load);
  }
  return pErr->rc == SQLITE_OK;
}

CHOIR_PRIVATE void choirVersionClose(ChoirVersion *v) {
  if (v) {
    choirFilesFree(&v->plan);
    choirBufFree(&v->block);
    sqlite3_free(v->aPage);
    sqlite3_free(v);
  }
}

CHOIR_PRIVATE ChoirVersion *choirVersionOpen(ChoirErr *pErr, ChoirRemote *p,
                                             u64 iTxid) {
  ChoirVersion *v = choirMalloc(pErr, sizeof(*v));
  ChoirFiles files;
  u64 i, iGot = 0, iWant = iTxid;
  if (v == NULL) {
    return NULL;
  }
  v->p = p;
  choirBufInit(&v->block, pErr, (u64)1 << 31);
  choirFolderList(p, pErr, &files);
  for (i = 0; i < files.n && iTxid == 0; i++) {
    iWant = files.a[i].iMax > iWant ? files.a[i].iMax : iWant;
  }
  choirFilesPlan(pErr, &files, 0, iWant, &v->plan, &iGot);
  if (pErr->rc == SQLITE_OK && (iGot != iWant || v->plan.n == 0)) {
    choirErrSet(pErr, SQLITE_ERROR,
                "%s does not hold transaction %llu any more, or not yet; its"
                " nearest is %llu",
                p->zUrl, iWant, iGot);
  }
  for (i = v->plan.n; i > 0 && pErr->rc == SQLITE_OK; i--) {
    if (!versionIndex(v, pErr, (u32)(i - 1))) {
      choirErrSet(pErr, SQLITE_BUSY,
                  "the files of %s are removed while they are read; try again",
                  p->zUrl);
    }
  }
  choirFilesFree(&files);
  if (pErr->rc != SQLITE_OK) {
    choirVersionClose(v);
    v = NULL;
  }
  return v;
}

CHOIR_PRIVATE const ChoirLtxHead *choirVersionHead(const ChoirVersion *v) {
  return &v->head;
}

CHOIR_PRIVATE void choirVersionPage(ChoirVersion *v, ChoirErr *pErr, u32 iPage,
                                    u8 *aOut) {
  const VersionPage *q = &v->aPage[iPage - 1];
  int e = CHOIR_OBJECT_OK;
  if (iPage == 0 || iPage > v->head.nPage || q->nByte == 0) {
    memset(aOut, 0, v->head.szPage); /* the lock page */
    return;
  }
  if (v->block.a == NULL || q->iFile != v->iFile || q->iOff < v->iOff ||
      q->iOff + q->nByte > v->iOff + v->block.n) {
    u64 n = q->nByte > VERSION_BLOCK ? q->nByte : VERSION_BLOCK;
    e = versionBlock(v, pErr, q->iFile, q->iOff, n);
  }
  if (pErr->rc == SQLITE_OK &&
      (e != CHOIR_OBJECT_OK || q->iOff + q->nByte > v->iOff + v->block.n)) {
    choirErrSet(pErr, SQLITE_IOERR,
                "a file of %s was removed or cut while it was read; open it"
                " again",
                v->p->zUrl);
  }
  if (pErr->rc == SQLITE_OK) {
    choirLtxFrameRead(pErr, (u8 *)v->block.a + (q->iOff - v->iOff), q->nByte,
                      iPage, v->head.szPage, aOut);
  }
}
