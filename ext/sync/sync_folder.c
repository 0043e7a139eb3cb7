/* SPDX-License-Identifier: MIT */
/*
** A folder of LTX files: names, listing, which files make a version, and
** putting them together.
**
** The names are Litestream's: ltx/<level>/ in a folder of a file system,
** <level as 4 hex digits>/ in a bucket. A listing is one request for a thousand
** objects. Where listing is forbidden, names are probed: pushes are numbered
** without a gap, so the newest is found by doubling and halving. There a
** missing key may answer 403, so "forbidden" counts as absent; what is
** forbidden in truth says so when it is written.
*/
#include "sync.h"
#include <stdlib.h>
#if !defined(_WIN32)
#include <errno.h>
#include <unistd.h>
#endif

#define FILES_MAX ((u64)10000000)
#define FILES_RETRY 3 /* plans, while files are pruned under them */

/* ------------------------------------------------------------------ names */

static int filesBucket(const ChoirRemote *p) {
  return strncmp(p->zUrl, "s3:", 3) == 0;
}

CHOIR_PRIVATE char *choirFolderKey(ChoirErr *pErr, const ChoirRemote *p,
                                   const ChoirFile *pFile) {
  return choirMprintf(pErr,
                      filesBucket(p) ? "%04x/%016llx-%016llx.ltx"
                                     : "ltx/%x/%016llx-%016llx.ltx",
                      pFile->iLevel, pFile->iMin, pFile->iMax);
}

static const char *filesHex(const char *z, int nMin, int nMax, u64 *pv) {
  int i;
  *pv = 0;
  for (i = 0; i < nMax; i++) {
    int c = z[i];
    if (c >= '0' && c <= '9') {
      *pv = *pv << 4 | (u64)(c - '0');
    } else if (c >= 'a' && c <= 'f') {
      *pv = *pv << 4 | (u64)(c - 'a' + 10);
    } else {
      break;
    }
  }
  return i >= nMin ? z + i : NULL;
}

CHOIR_PRIVATE int choirFolderFile(const ChoirRemote *p, const char *zKey,
                                  ChoirFile *pOut) {
  int bBucket = filesBucket(p);
  const char *z = zKey;
  u64 iLevel;
  if (!bBucket && strncmp(z, "ltx/", 4) != 0) {
    return 0;
  }
  z = filesHex(z + (bBucket ? 0 : 4), bBucket ? 4 : 1, bBucket ? 4 : 1,
               &iLevel);
  z = z && *z == '/' ? filesHex(z + 1, 16, 16, &pOut->iMin) : NULL;
  z = z && *z == '-' ? filesHex(z + 1, 16, 16, &pOut->iMax) : NULL;
  pOut->iLevel = (int)iLevel;
  return z && strcmp(z, ".ltx") == 0 && iLevel <= CHOIR_LEVEL_SNAPSHOT &&
         pOut->iMin > 0 && pOut->iMin <= pOut->iMax;
}

/* --------------------------------------------------------------- the pair */

CHOIR_PRIVATE int choirFolderGet(ChoirRemote *p, ChoirErr *pErr,
                                 const char *zKey, i64 iOff, i64 nByte,
                                 ChoirObjectMeta *pMeta, ChoirObjectWrite x,
                                 void *pArg) {
  return (p->pCrypt ? choirCryptGet(p, pErr, zKey, iOff, nByte, pMeta, x, pArg)
                    : choirObjectGet(p->pStore, pErr, zKey, iOff, nByte, pMeta,
                                     x, pArg));
}

CHOIR_PRIVATE int choirFolderPut(ChoirRemote *p, ChoirErr *pErr,
                                 const char *zKey,
                                 const ChoirObjectSource *pSource, int eIf,
                                 ChoirObjectMeta *pMeta) {
  return p->pCrypt
             ? choirCryptPut(p, pErr, zKey, pSource, eIf, pMeta)
             : choirObjectPut(p->pStore, pErr, zKey, pSource, eIf, NULL, pMeta);
}

/* ---------------------------------------------------------------- headers */

typedef struct FilesHead {
  u8 a[CHOIR_LTX_HEADER];
  u64 n;
} FilesHead;

static void filesHeadTake(void *pArg, ChoirErr *pErr, const void *a, u64 n) {
  FilesHead *p = pArg;
  u64 nRoom = CHOIR_LTX_HEADER - p->n;
  (void)pErr;
  n = n < nRoom ? n : nRoom;
  memcpy(p->a + p->n, a, (size_t)n);
  p->n += n;
}

static void filesDamaged(ChoirErr *pErr, const ChoirRemote *p, const char *zKey,
                         const char *zWhat) {
  choirErrSet(pErr, SQLITE_CORRUPT,
              "the remote %s is damaged: %s: %s; nothing was changed here",
              p->zUrl, zKey, zWhat);
}

/* What may not be read or listed, by somebody whom the store knows. */
static int filesForbidden(const ChoirRemote *p, const ChoirErr *pErr) {
  return pErr->rc == SQLITE_AUTH && p->pStore->bForbidden;
}

/* The error of the reader, with the object's name. */
static void filesRename(ChoirErr *pErr, const ChoirRemote *p, ChoirErr *pOne,
                        const char *zKey) {
  if (pOne->rc == SQLITE_CORRUPT && pOne->zMsg) {
    filesDamaged(pErr, p, zKey, pOne->zMsg);
  } else if (pOne->rc == SQLITE_NOTADB) {
    choirErrSet(pErr, SQLITE_ERROR,
                "the remote %s is encrypted; give its key by choir_secret with"
                " type sync and this scope",
                p->zUrl);
  } else if (pOne->rc != SQLITE_OK && pErr->rc == SQLITE_OK) {
    *pErr = *pOne;
    memset(pOne, 0, sizeof(*pOne));
  }
  choirErrClear(pOne);
}

CHOIR_PRIVATE int choirFolderHead(ChoirRemote *p, ChoirErr *pErr,
                                  const ChoirFile *pFile, ChoirLtxHead *pHead,
                                  ChoirObjectMeta *pMeta) {
  ChoirErr err = {0, NULL};
  ChoirObjectMeta meta;
  FilesHead take = {{0}, 0};
  char *zKey = choirFolderKey(pErr, p, pFile);
  int e;
  if (zKey == NULL || pErr->rc != SQLITE_OK) {
    sqlite3_free(zKey);
    return CHOIR_OBJECT_FAILED;
  }
  memset(&meta, 0, sizeof(meta));
  e = choirFolderGet(p, &err, zKey, 0, CHOIR_LTX_HEADER, &meta, filesHeadTake,
                     &take);
  if (filesForbidden(p, &err)) {
    choirErrClear(&err);
    e = CHOIR_OBJECT_ABSENT;
  }
  if (err.rc == SQLITE_OK && e == CHOIR_OBJECT_OK) {
    choirLtxHeadRead(&err, take.a, take.n, pHead);
    if (err.rc == SQLITE_OK &&
        (pHead->iMin != pFile->iMin || pHead->iMax != pFile->iMax)) {
      choirErrSet(&err, SQLITE_CORRUPT,
                  "it holds transactions %llu to %llu, which is not its name",
                  pHead->iMin, pHead->iMax);
    }
  }
  filesRename(pErr, p, &err, zKey);
  if (pMeta) {
    *pMeta = meta;
  }
  sqlite3_free(zKey);
  return pErr->rc == SQLITE_OK ? e : CHOIR_OBJECT_FAILED;
}

CHOIR_PRIVATE int choirFolderPush(ChoirRemote *p, ChoirErr *pErr, u64 iTxid,
                                  ChoirLtxHead *pHead, ChoirObjectMeta *pMeta) {
  ChoirFile file = {iTxid, iTxid, 0, 0, 0};
  return choirFolderHead(p, pErr, &file, pHead, pMeta);
}

/* ---------------------------------------------------------------- listing */

CHOIR_PRIVATE void choirFilesFree(ChoirFiles *p) {
  sqlite3_free(p->a);
  memset(p, 0, sizeof(*p));
}

CHOIR_PRIVATE void choirFilesAdd(ChoirErr *pErr, ChoirFiles *p,
                                 const ChoirFile *pFile) {
  if (pErr->rc == SQLITE_OK && p->n >= FILES_MAX) {
    choirErrSet(pErr, SQLITE_TOOBIG, "more than %llu objects at the remote",
                FILES_MAX);
  }
  if (pErr->rc == SQLITE_OK && p->n == p->nAlloc) {
    u64 n = p->nAlloc ? p->nAlloc * 2 : 64;
    ChoirFile *a = choirRealloc(pErr, p->a, n * sizeof(*a));
    if (a) {
      p->a = a;
      p->nAlloc = n;
    }
  }
  if (pErr->rc == SQLITE_OK) {
    p->a[p->n++] = *pFile;
  }
}

typedef struct FilesList {
  ChoirRemote *p;
  ChoirFiles *pOut;
} FilesList;

static void filesListEach(void *pArg, ChoirErr *pErr, const char *zKey,
                          const ChoirObjectMeta *pMeta) {
  FilesList *pList = pArg;
  ChoirFile file;
  memset(&file, 0, sizeof(file));
  if (choirFolderFile(pList->p, zKey, &file)) {
    file.nByte = pList->p->pCrypt ? choirCryptSize(pMeta->nByte) : pMeta->nByte;
    file.iModified = pMeta->iModified;
    choirFilesAdd(pErr, pList->pOut, &file);
  }
}

/* The last transaction that pruning removed, 0: none. */
static u64 filesHorizon(ChoirErr *pErr, ChoirRemote *p) {
  ChoirErr err = {0, NULL};
  ChoirObjectMeta meta;
  FilesHead take = {{0}, 0};
  u64 v = 0;
  int e = choirFolderGet(p, &err, "choir-horizon", 0, 16, &meta, filesHeadTake,
                         &take);
  if (err.rc == SQLITE_OK && e == CHOIR_OBJECT_OK &&
      filesHex((const char *)take.a, 16, 16, &v) == NULL) {
    v = 0;
  }
  if (filesForbidden(p, &err)) {
    choirErrClear(&err);
  }
  filesRename(pErr, p, &err, "choir-horizon");
  return v;
}

static int filesHas(ChoirErr *pErr, ChoirRemote *p, u64 iTxid) {
  ChoirLtxHead head;
  return choirFolderPush(p, pErr, iTxid, &head, NULL) == CHOIR_OBJECT_OK;
}

/* Names instead of a listing: a snapshot at the horizon, the pushes after it.
 */
static void filesProbe(ChoirRemote *p, ChoirErr *pErr, ChoirFiles *pOut) {
  u64 iHave = filesHorizon(pErr, p), nStep = 1, i;
  ChoirFile file = {1, iHave, 0, 0, CHOIR_LEVEL_SNAPSHOT};
  u64 iFirst = iHave + 1;
  if (iHave) {
    choirFilesAdd(pErr, pOut, &file);
  }
  while (pErr->rc == SQLITE_OK && filesHas(pErr, p, iHave + nStep)) {
    iHave += nStep;
    nStep *= 2;
  }
  for (nStep /= 2; nStep && pErr->rc == SQLITE_OK; nStep /= 2) {
    if (filesHas(pErr, p, iHave + nStep)) {
      iHave += nStep;
    }
  }
  file.iLevel = 0;
  for (i = iFirst; i <= iHave && pErr->rc == SQLITE_OK; i++) {
    file.iMin = file.iMax = i;
    choirFilesAdd(pErr, pOut, &file);
  }
}

CHOIR_PRIVATE void choirFolderList(ChoirRemote *p, ChoirErr *pErr,
                                   ChoirFiles *pOut) {
  ChoirErr err = {0, NULL};
  FilesList list;
  memset(pOut, 0, sizeof(*pOut));
  list.p = p;
  list.pOut = pOut;
  if (pErr->rc != SQLITE_OK) {
    return;
  }
  if (!p->bProbe) {
    choirObjectList(p->pStore, &err, filesBucket(p) ? "00" : "ltx/",
                    filesListEach, &list);
    p->bProbe = (u8)filesForbidden(p, &err);
  }
  if (p->bProbe) {
    choirErrClear(&err);
    pOut->n = 0;
    filesProbe(p, &err, pOut);
  }
  filesRename(pErr, p, &err, "its listing");
}

/* ------------------------------------------------------------------- plan */

CHOIR_PRIVATE void choirFilesPlan(ChoirErr *pErr, const ChoirFiles *p,
                                  u64 iFrom, u64 iWant, ChoirFiles *pPlan,
                                  u64 *piGot) {
  u64 i, iAt = iFrom;
  memset(pPlan, 0, sizeof(*pPlan));
  while (pErr->rc == SQLITE_OK) {
    const ChoirFile *pBest = NULL;
    for (i = 0; i < p->n; i++) {
      const ChoirFile *q = &p->a[i];
      if ((iAt ? q->iMin <= iAt + 1 : q->iMin == 1) && q->iMax > iAt &&
          (iWant == 0 || q->iMax <= iWant) &&
          (pBest == NULL || q->iMax > pBest->iMax ||
           (q->iMax == pBest->iMax && q->iMin > pBest->iMin && iAt))) {
        pBest = q;
      }
    }
    if (pBest == NULL) {
      break;
    }
    /* A file with every page makes those before it pointless. */
    if (pBest->iMin == 1) {
      pPlan->n = 0;
    }
    choirFilesAdd(pErr, pPlan, pBest);
    iAt = pBest->iMax;
  }
  *piGot = iAt;
}

/* ------------------------------------------------------------------- look */

CHOIR_PRIVATE void choirFolderLook(ChoirErr *pErr, ChoirRemote *p,
                                   const ChoirPosition *pPos) {
  const u8 *aKnown = NULL;
  u64 iTxid = 0;
  int e = CHOIR_OBJECT_ABSENT;
  if (pErr->rc != SQLITE_OK || p->pStore == NULL) {
    return;
  }
  aKnown = choirSealFolder(pPos->aSeal, p->zUrl, &iTxid);
  if (aKnown) {
    e = choirFolderPush(p, pErr, iTxid, &p->head, &p->meta);
    if (e == CHOIR_OBJECT_OK && memcmp(p->head.aId, aKnown, 16) == 0) {
      p->eHead = e;
      p->iTxid = iTxid;
      if (pPos->bHead && memcmp(pPos->aHead, aKnown, CHOIR_SYNC_ID) == 0) {
        p->iBase = iTxid;
      }
      return;
    }
  }
  choirFolderNewest(pErr, p);
  if (aKnown) {
    choirCryptSeen(p, pErr, iTxid, e == CHOIR_OBJECT_OK);
  }
}

CHOIR_PRIVATE void choirFolderNewest(ChoirErr *pErr, ChoirRemote *p) {
  ChoirFiles files;
  const ChoirFile *pBest = NULL;
  ChoirLtxHead head;
  u64 i;
  if (pErr->rc != SQLITE_OK || p->bNewest) {
    return;
  }
  if (p->eHead == CHOIR_OBJECT_OK &&
      choirFolderPush(p, pErr, p->iTxid + 1, &head, NULL) ==
          CHOIR_OBJECT_ABSENT) {
    p->bNewest = 1;
    return;
  }
  choirFolderList(p, pErr, &files);
  for (i = 0; i < files.n; i++) {
    const ChoirFile *q = &files.a[i];
    if (pBest == NULL || q->iMax > pBest->iMax ||
        (q->iMax == pBest->iMax && q->iLevel < pBest->iLevel)) {
      pBest = q;
    }
  }
  if (pErr->rc == SQLITE_OK) {
    p->eHead = CHOIR_OBJECT_ABSENT;
    p->iTxid = 0;
  }
  if (pBest && pErr->rc == SQLITE_OK) {
    p->eHead = choirFolderHead(p, pErr, pBest, &p->head, &p->meta);
    p->iTxid = pBest->iMax;
  }
  p->bNewest = 1;
  choirFilesFree(&files);
}

/* ------------------------------------------------------------------ fetch */

CHOIR_PRIVATE int choirFolderRead(ChoirRemote *p, ChoirErr *pErr,
                                  const ChoirFile *pFile, ChoirLtxPage x,
                                  void *pArg, ChoirLtxHead *pHead,
                                  u64 *pnByte) {
  ChoirErr err = {0, NULL};
  ChoirObjectMeta meta;
  ChoirLtxReader *pRead = choirLtxReadNew(pErr, x, pArg);
  char *zKey = choirFolderKey(pErr, p, pFile);
  int e = CHOIR_OBJECT_FAILED;
  memset(&meta, 0, sizeof(meta));
  if (pErr->rc == SQLITE_OK) {
    e = choirFolderGet(p, &err, zKey, 0, -1, &meta, choirLtxReadFeed, pRead);
    if (e == CHOIR_OBJECT_OK) {
      choirLtxReadEnd(pRead, &err);
    }
  }
  if (e == CHOIR_OBJECT_OK && err.rc == SQLITE_OK) {
    *pHead = *choirLtxReadHead(pRead);
    *pnByte += meta.nByte;
    if (pHead->iMin != pFile->iMin || pHead->iMax != pFile->iMax) {
      choirErrSet(&err, SQLITE_CORRUPT,
                  "it holds transactions %llu to %llu, which is not its name",
                  pHead->iMin, pHead->iMax);
    }
  }
  filesRename(pErr, p, &err, zKey ? zKey : "");
  choirLtxReadFree(pRead);
  sqlite3_free(zKey);
  return pErr->rc == SQLITE_OK ? e : CHOIR_OBJECT_FAILED;
}

/* Pages on their way to their places, neighbours in one write, and hashed. */
typedef struct FilesWrite {
  int fd;
  ChoirPages *pPages;
  u64 iOff;
  u64 nBuf; /* bytes in aBuf, which belong at iOff */
  u8 aBuf[1 << 20];
} FilesWrite;

static void filesFlush(FilesWrite *p, ChoirErr *pErr) {
  choirFdWrite(pErr, p->fd, p->iOff, p->aBuf, p->nBuf);
  p->nBuf = 0;
}

static void filesApply(void *pArg, ChoirErr *pErr, u32 iPage, const u8 *aPage,
                       u32 szPage) {
  FilesWrite *p = pArg;
  u64 iOff = (u64)(iPage - 1) * szPage;
  if (iOff != p->iOff + p->nBuf || p->nBuf + szPage > sizeof(p->aBuf)) {
    filesFlush(p, pErr);
    p->iOff = iOff;
  }
  memcpy(p->aBuf + p->nBuf, aPage, szPage);
  p->nBuf += szPage;
  p->pPages->szPage = szPage;
  choirPagesSet(pErr, p->pPages, iPage, aPage);
}

static void filesExtend(ChoirErr *pErr, ChoirRemote *p, u32 nPage, u32 szPage) {
  if (pErr->rc == SQLITE_OK &&
      ftruncate(p->fd, (off_t)((u64)nPage * szPage)) != 0) {
    choirErrno(pErr, errno, "extend a temporary file", NULL);
  }
}

/* The files of a plan into p->fd. The size, 0: one of them is gone. */
static u64 filesAssemble(ChoirErr *pErr, ChoirRemote *p,
                         const ChoirFiles *pPlan, u32 szBase) {
  ChoirLtxHead head;
  FilesWrite *pOut = choirMalloc(pErr, sizeof(*pOut));
  u64 i, nByte = 0;
  if (pOut) {
    pOut->fd = p->fd;
    pOut->pPages = &p->pages;
  }
  memset(&head, 0, sizeof(head));
  head.szPage = szBase;
  for (i = 0; i < pPlan->n && pErr->rc == SQLITE_OK; i++) {
    const ChoirFile *q = &pPlan->a[i];
    u32 szWas = q->iMin == 1 ? 0 : head.szPage;
    if (choirFolderRead(p, pErr, q, filesApply, pOut, &head, &nByte) !=
        CHOIR_OBJECT_OK) {
      sqlite3_free(pOut);
      return 0;
    }
    filesFlush(pOut, pErr);
    choirPagesSize(pErr, &p->pages, head.nPage);
    if (szWas && szWas != head.szPage) {
      choirErrSet(pErr, SQLITE_CORRUPT,
                  "the remote %s is damaged: its page size changes from %u to"
                  " %u bytes; nothing was changed here",
                  p->zUrl, szWas, head.szPage);
    }
    filesExtend(pErr, p, head.nPage, head.szPage);
  }
  sqlite3_free(pOut);
  p->head = head;
  p->meta.nByte = nByte;
  return pErr->rc == SQLITE_OK ? (u64)head.nPage * head.szPage : 0;
}

/* Begins from nothing again. */
static void filesOwnForget(ChoirRemote *p) {
  choirPagesFree(&p->pages);
  choirPagesFree(&p->own);
  choirLiveClose(p->pLive);
  p->pLive = NULL;
  p->bOwn = 0;
}

/* The two own pages that are not in the file as they are in a version. */
static void filesOwnMake(ChoirErr *pErr, ChoirRemote *p, const u8 *aSeal) {
  u64 sz = p->own.szPage, iOff = (u64)(p->iOwnRoot - 1) * sz;
  u8 *a = choirMalloc(pErr, sz);
  int iSeal;
  filesExtend(pErr, p, p->own.nPage, p->own.szPage);
  choirLiveRead(p->pLive, pErr, 0, a, sz);
  if (pErr->rc == SQLITE_OK) {
    choirPageNormalise(a);
    choirFdWrite(pErr, p->fd, 0, a, sz);
  }
  choirLiveRead(p->pLive, pErr, iOff, a, sz);
  iSeal = pErr->rc == SQLITE_OK ? choirSealFind(a, (int)sz) : 0;
  if (iSeal == 0) {
    choirErrSet(pErr, SQLITE_CORRUPT, "no seal in page %u", p->iOwnRoot);
  } else {
    memset(a + iSeal, 0, CHOIR_SYNC_SEAL);
    memcpy(a + iSeal, aSeal, 32);
    choirFdWrite(pErr, p->fd, iOff, a, sz);
  }
  sqlite3_free(a);
}

/* This file's own pages where they are, when the cache and the WAL say that it
** still is its head: the size, otherwise 0. That the WAL is begun anew or cut
** while it is read is no error: then a copy is taken. */
static u64 filesOwnLive(ChoirConn *pConn, ChoirErr *pErr, ChoirRemote *p) {
  ChoirErr err = {0, NULL};
  ChoirPosition pos;
  ChoirCache cache;
  ChoirCapture now;
  memset(&now, 0, sizeof(now));
  now.fd = -1;
  now.bQuick = 1;
  choirPositionRead(pErr, pConn->db, choirSchema(pConn), &pos);
  if (pErr->rc != SQLITE_OK) {
    return 0;
  }
  choirCacheRead(pConn, &err, &cache, &pos, p->zUrl);
  if (cache.bValid && memcmp(cache.aId, pos.aHead, CHOIR_SYNC_ID) == 0) {
    choirCapture(pConn, &err, &now, &cache);
  }
  if (now.bSame) {
    choirCacheLoad(&err, &cache);
    now.now = cache.pages;
    memset(&cache.pages, 0, sizeof(cache.pages));
  }
  if (err.rc == SQLITE_OK && (now.bSame || now.bWal) && now.now.nPage &&
      now.pos.iRoot && memcmp(now.aDigest, now.pos.aSeal, 32) == 0) {
    p->own = now.now;
    memset(&now.now, 0, sizeof(now.now));
    p->iOwnRoot = now.pos.iRoot;
    p->pLive = choirLiveOpen(pConn, &err, &p->own, p->iOwnRoot);
  }
  if (p->pLive) {
    choirPagesCopy(&err, &p->pages, &p->own);
    filesOwnMake(&err, p, now.pos.aSeal);
    p->bOwn = 1;
  }
  if (err.rc == SQLITE_NOMEM) {
    choirErrNomem(pErr);
  }
  if (err.rc != SQLITE_OK || p->pLive == NULL) {
    filesOwnForget(p);
  }
  choirErrClear(&err);
  choirCaptureFree(&now);
  choirCacheFree(&cache);
  return p->pLive ? (u64)p->own.nPage * p->own.szPage : 0;
}

/* Those pages, copied and hashed. */
static u64 filesOwnPages(ChoirConn *pConn, ChoirErr *pErr, ChoirRemote *p,
                         u32 *pszPage) {
  ChoirPosition pos;
  u8 aDigest[32];
  u64 nByte = 0;
  ChoirSpool *pSpool = choirSpoolNew(pErr, p->fd, 0);
  if (pSpool) {
    choirSnapshot(pConn, pErr, pSpool, CHOIR_SEAL_ZERO, &pos, aDigest);
    if (pErr->rc == SQLITE_OK && memcmp(aDigest, pos.aSeal, 32) == 0) {
      *pszPage = (u32)choirSpoolPageSize(pSpool);
      nByte = choirSpoolSize(pSpool);
      choirFdWrite(pErr, p->fd, choirSpoolSeal(pSpool), pos.aSeal, 32);
      choirPagesFree(&p->pages);
      choirSpoolPages(pSpool, &p->pages);
      choirPagesFree(&p->own);
      choirPagesCopy(pErr, &p->own, &p->pages);
      p->iOwnRoot = pos.iRoot;
      p->bOwn = 1;
    }
    choirSpoolFree(pSpool);
  }
  return nByte;
}

CHOIR_PRIVATE u64 choirFolderFetch(ChoirConn *pConn, ChoirErr *pErr,
                                   ChoirRemote *p, u64 iWant) {
  u64 nByte = 0, nOwn = 0, iGot = 0, iFrom = 0;
  u32 szBase = 0;
  int i;
  if (pErr->rc == SQLITE_OK && pConn && p->iBase && iWant == 0) {
    p->iOwn = choirDataVersion(pConn->db, choirSchema(pConn));
    nOwn = p->bCopy ? 0 : filesOwnLive(pConn, pErr, p);
    szBase = p->own.szPage;
    if (nOwn == 0) {
      nOwn = filesOwnPages(pConn, pErr, p, &szBase);
    }
    iFrom = nOwn ? p->iBase : 0;
  }
  for (i = 0; i < FILES_RETRY && nByte == 0 && pErr->rc == SQLITE_OK; i++) {
    ChoirFiles files, plan;
    u64 k, iNewest = 0;
    choirFolderList(p, pErr, &files);
    for (k = 0; k < files.n; k++) {
      iNewest = files.a[k].iMax > iNewest ? files.a[k].iMax : iNewest;
    }
    choirFilesPlan(pErr, &files, iFrom, iWant, &plan, &iGot);
    if (pErr->rc == SQLITE_OK && files.n == 0) {
      p->eHead = CHOIR_OBJECT_ABSENT;
      i = FILES_RETRY;
    } else if (pErr->rc == SQLITE_OK && iWant && iGot != iWant) {
      choirVersionAbsent(pErr, p, &files, iWant);
    } else if (pErr->rc == SQLITE_OK && !iWant && iGot != iNewest) {
      choirErrSet(pErr, SQLITE_CORRUPT,
                  "the remote %s is damaged: of %llu transactions only %llu can"
                  " be put together; nothing was changed here",
                  p->zUrl, iNewest, iGot);
    } else if (iFrom && iGot == iFrom) {
      nByte = nOwn; /* nothing newer */
    } else if (plan.n) {
      if (iFrom == 0) {
        filesOwnForget(p);
      }
      nByte = filesAssemble(pErr, p, &plan, szBase);
      szBase = 0;
      iFrom = 0; /* another plan begins from nothing */
    }
    choirFilesFree(&files);
    choirFilesFree(&plan);
  }
  if (nByte) {
    p->eHead = CHOIR_OBJECT_OK;
    p->iTxid = iGot;
    p->bNewest = iWant == 0;
  } else if (pErr->rc == SQLITE_OK && p->eHead == CHOIR_OBJECT_OK) {
    choirErrSet(pErr, SQLITE_BUSY,
                "the files of %s are removed while they are read; try again",
                p->zUrl);
  }
  return nByte;
}
