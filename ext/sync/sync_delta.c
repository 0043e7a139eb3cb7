/* SPDX-License-Identifier: MIT */
/*
** sync_push() to a folder: the pages that differ from the version there, as one
** object whose name is the next transaction. That name is free for exactly one
** of any number of pushers.
**
** Order of things: what is there, and is it in this file's history? · does this
** file differ from its head? · commit a new position · capture the pages · put
** the object · remember. Between any two of them the process may die: a
** position that was never stored harms nobody, and an object whose put was not
** heard of is recognised by its version id.
*/
#include "sync.h"
#include <stdlib.h>
#if !defined(_WIN32)
#include <unistd.h>
#endif

#define DELTA_TRIES 3
/* Pruning spares a day; half of one is left for clocks to differ. */
#define DELTA_FRESH ((i64)12 * 3600 * 1000)

typedef struct DeltaPage {
  u32 iPage;
  u32 iSlot; /* place in the capture's file, in pages */
} DeltaPage;

typedef struct Delta {
  ChoirSyncRun *p;
  ChoirCache base;
  ChoirCapture now;
  i64 iUnder; /* when the transaction below was stored, 0: there is none */
  int fd;     /* the packed object */
  u64 nByte;
} Delta;

static int deltaOrder(const void *pA, const void *pB) {
  const DeltaPage *a = pA, *b = pB;
  return a->iPage != b->iPage ? (a->iPage < b->iPage ? -1 : 1)
                              : (a->iSlot < b->iSlot ? -1 : 1);
}

/* What of the captured pages goes into the object, ascending. */
static u64 deltaPages(Delta *d, DeltaPage **paOut) {
  ChoirCapture *c = &d->now;
  u32 iLock = choirLtxLockPage(c->now.szPage);
  u64 i, n = 0, iSeal = c->iSeal / c->now.szPage;
  DeltaPage *a = choirMalloc(d->p->pErr, (c->nKept + 1) * sizeof(*a));
  for (i = 0; a && i < c->nKept; i++) {
    a[i].iPage = c->aPage[i];
    a[i].iSlot = (u32)i;
  }
  if (a) {
    qsort(a, (size_t)c->nKept, sizeof(*a), deltaOrder);
  }
  for (i = 0; a && i < c->nKept; i++) {
    int bLast = i + 1 == c->nKept || a[i + 1].iPage != a[i].iPage;
    if (bLast && a[i].iPage <= c->now.nPage && a[i].iPage != iLock &&
        (a[i].iSlot == iSeal || !d->base.bValid ||
         !choirPagesSame(&c->now, &d->base.pages, a[i].iPage))) {
      a[n++] = a[i];
    }
  }
  *paOut = a;
  return n;
}

static void deltaLineage(const ChoirPosition *pPos, u8 a[4]) {
  char z[9];
  sqlite3_snprintf(sizeof(z), z, "%s", pPos->zLineage);
  choirPut32(a, (u32)strtoul(z, NULL, 16));
}

CHOIR_PRIVATE int choirFolderOurs(const ChoirRemote *p,
                                  const ChoirPosition *pPos) {
  u8 a[4];
  deltaLineage(pPos, a);
  return p->head.bChoir && memcmp(a, p->head.aLineage, 4) == 0;
}

/* The object, complete, in a temporary file. */
static void deltaPack(Delta *d) {
  ChoirSyncRun *p = d->p;
  ChoirCapture *c = &d->now;
  ChoirLtxHead head;
  ChoirLtxWriter *pOut;
  DeltaPage *aPage = NULL;
  u64 i, n = deltaPages(d, &aPage), sz = c->now.szPage;
  u8 *a = choirMalloc(p->pErr, sz);
  memset(&head, 0, sizeof(head));
  head.szPage = c->now.szPage;
  head.nPage = c->now.nPage;
  head.iMin = head.iMax = p->there.iTxid + 1;
  head.iTime = p->here.iTime;
  memcpy(head.aId, p->here.aHead, CHOIR_SYNC_ID);
  deltaLineage(&p->here, head.aLineage);
  d->fd = choirTempAnonymous(p->pErr);
  pOut = choirLtxWriteNew(p->pErr, d->fd, &head);
  for (i = 0; i < n && p->pErr->rc == SQLITE_OK; i++) {
    choirFdRead(p->pErr, c->fd, aPage[i].iSlot * sz, a, sz);
    if (c->iSeal / sz == aPage[i].iSlot && c->iSeal) {
      memcpy(a + c->iSeal % sz, c->aDigest, 32);
    }
    choirLtxWritePage(pOut, p->pErr, aPage[i].iPage, a);
  }
  d->nByte = pOut ? choirLtxWriteEnd(pOut, p->pErr) : 0;
  choirLtxWriteFree(pOut);
  sqlite3_free(aPage);
  sqlite3_free(a);
}

static void deltaSource(void *pArg, ChoirErr *pErr, u64 iOff, void *a, u64 n) {
  choirFdRead(pErr, ((Delta *)pArg)->fd, iOff, a, n);
}

/* Sticky error unless this file may go on top of what is there. */
static void deltaMay(Delta *d) {
  ChoirSyncRun *p = d->p;
  if (p->pErr->rc != SQLITE_OK || p->there.eHead != CHOIR_OBJECT_OK) {
    return;
  }
  memcpy(p->aThere, p->there.head.aId, CHOIR_SYNC_ID);
  p->bThere = 1;
  if (p->zMode) {
    choirErrSet(p->pErr, SQLITE_ERROR,
                "'fork' makes a new remote and %s exists; choose another name",
                p->there.zUrl);
  } else if (!p->there.head.bChoir) {
    choirErrSet(p->pErr, SQLITE_ERROR,
                "the remote %s is written by another tool; push to another"
                " folder, or pull it into an empty file",
                p->there.zUrl);
  } else if (!choirFolderOurs(&p->there, &p->here)) {
    choirErrSet(p->pErr, SQLITE_ERROR,
                "the remote %s belongs to another workspace; push to another"
                " name, or pull it into an empty file",
                p->there.zUrl);
  } else if (!choirPositionKnows(p->pErr, p->pConn->db, choirSchema(p->pConn),
                                 p->aThere)) {
    choirPushConflict(p);
  }
}

/* What is there now is this file's head. Facts and cache may be lost, so
** failing is no error. */
static void deltaLearn(Delta *d) {
  ChoirSyncRun *p = d->p;
  ChoirErr err = {0, NULL};
  u64 iTxid = 0;
  const u8 *aKnown = choirSealFolder(p->here.aSeal, p->there.zUrl, &iTxid);
  int bKnown = aKnown && iTxid == p->there.iTxid &&
               memcmp(aKnown, p->here.aHead, CHOIR_SYNC_ID) == 0 &&
               memcmp(p->here.aSeal, d->now.aDigest, 32) == 0;
  if (p->pErr->rc != SQLITE_OK) {
    return;
  }
  if (!bKnown) {
    memcpy(p->here.aSeal, d->now.aDigest, 32);
    choirSealLearnFolder(p->here.aSeal, p->there.zUrl, p->there.iTxid,
                         p->here.aHead);
    choirPositionSeal(p->pConn, &err, &p->here);
    choirErrClear(&err);
  }
  if (d->now.bSame) {
    return; /* and the cache is right as it is */
  }
  d->base.mark = d->now.mark;
  memcpy(d->base.aId, p->here.aHead, CHOIR_SYNC_ID);
  memcpy(d->base.aDigest, d->now.aDigest, 32);
  choirCacheWrite(&d->base, &d->now.now);
}

/* Is this file still the content of its head? The pages that differ from the
** base are kept when there is one. */
static int deltaUnchanged(Delta *d) {
  ChoirSyncRun *p = d->p;
  if (!p->here.bHead || !choirSealHasDigest(&p->here) ||
      p->pErr->rc != SQLITE_OK) {
    return 0;
  }
  d->now.fd = d->base.bValid ? choirTempAnonymous(p->pErr) : -1;
  choirCapture(p->pConn, p->pErr, &d->now, &d->base);
  return p->pErr->rc == SQLITE_OK &&
         memcmp(d->now.aDigest, p->here.aSeal, 32) == 0;
}

/* A capture of the head with its pages. bReuse: the content has not changed
** since an earlier push failed, or this is a second remote. */
static void deltaCapture(Delta *d, int bReuse) {
  ChoirSyncRun *p = d->p;
  ChoirErr err = {0, NULL};
  int bAgain = d->now.fd < 0;
  if (!bReuse) {
    choirPositionAdvance(p->pConn, p->pErr, &p->here, p->zMode != NULL);
  }
  if (p->zMode) { /* the cache of the new lineage */
    choirCacheFree(&d->base);
    choirCacheRead(p->pConn, p->pErr, &d->base, &p->here, p->there.zUrl);
    choirCacheForget(&d->base);
  }
  if (bAgain) {
    choirCaptureFree(&d->now);
    memset(&d->now, 0, sizeof(d->now));
    d->now.fd = choirTempAnonymous(p->pErr);
  }
  d->now.bSeal = 1;
  if ((bAgain || !bReuse || d->now.iSeal == 0) && p->pErr->rc == SQLITE_OK) {
    choirCapture(p->pConn, p->pErr, &d->now, &d->base);
  }
  if (p->pErr->rc != SQLITE_OK) {
    return;
  }
  if (memcmp(d->now.pos.aHead, p->here.aHead, CHOIR_SYNC_ID) != 0 ||
      (bReuse && memcmp(d->now.aDigest, p->here.aSeal, 32) != 0)) {
    choirErrSet(p->pErr, SQLITE_BUSY,
                "another connection changed this file while it was copied; try"
                " again");
  } else if (d->now.iSeal == 0) {
    choirErrSet(p->pErr, SQLITE_CORRUPT_VTAB,
                "the row of _choir_sync_seal is missing or not %d bytes; run"
                " select choir_init()",
                CHOIR_SYNC_SEAL);
  } else if (!bReuse) { /* what head's content is, whatever comes next */
    memcpy(p->here.aSeal, d->now.aDigest, 32);
    choirPositionSeal(p->pConn, &err, &p->here);
    choirErrClear(&err);
  }
}

/* The transaction below may have been pruned long ago, and the name that was
** free with it. A young one cannot have been. */
static void deltaStillThere(Delta *d, const char *zKey) {
  ChoirSyncRun *p = d->p;
  ChoirLtxHead head;
  u64 iTxid = p->there.iTxid;
  if (p->pErr->rc != SQLITE_OK || d->iUnder == 0 ||
      choirNow() - d->iUnder < DELTA_FRESH ||
      choirFolderPush(&p->there, p->pErr, iTxid, &head, NULL) !=
          CHOIR_OBJECT_ABSENT) {
    return;
  }
  p->there.bNewest = 0;
  p->there.eHead = CHOIR_OBJECT_ABSENT;
  choirFolderNewest(p->pErr, &p->there);
  if (p->pErr->rc == SQLITE_OK && p->there.iTxid > iTxid + 1) {
    choirObjectDelete(p->there.pStore, p->pErr, zKey, NULL);
    choirPushConflict(p);
  }
  p->there.iTxid = iTxid;
}

/* 1: stored, or found stored. 0: an earlier push of this file, whose reply was
** lost, is there; look again. */
static int deltaSend(Delta *d) {
  ChoirSyncRun *p = d->p;
  ChoirObjectSource source = {d->nByte, deltaSource, d};
  ChoirFile file = {p->there.iTxid + 1, p->there.iTxid + 1, 0, 0, 0};
  ChoirObjectMeta meta;
  ChoirLtxHead head;
  char *zKey = choirFolderKey(p->pErr, &p->there, &file);
  int e = CHOIR_OBJECT_FAILED, bOwn = 1;
  choirCryptLineage(&p->there, p->pErr, p->here.zLineage);
  if (p->pErr->rc == SQLITE_OK) {
    e = choirFolderPut(&p->there, p->pErr, zKey, &source, CHOIR_IF_ABSENT,
                       &meta);
  }
  if (e == CHOIR_OBJECT_CHANGED &&
      choirFolderHead(&p->there, p->pErr, &file, &head, NULL) ==
          CHOIR_OBJECT_OK &&
      memcmp(head.aId, p->here.aHead, CHOIR_SYNC_ID) != 0) {
    bOwn = 0;
    if (!choirPositionKnows(p->pErr, p->pConn->db, choirSchema(p->pConn),
                            head.aId)) {
      p->there.iTxid = file.iMin;
      p->there.head = head;
      choirPushConflict(p);
    }
  }
  if (bOwn) {
    deltaStillThere(d, zKey);
  }
  if (bOwn && p->pErr->rc == SQLITE_OK) {
    p->there.iTxid = file.iMin;
  }
  sqlite3_free(zKey);
  return bOwn;
}

static void deltaFree(Delta *d) {
  choirCaptureFree(&d->now);
  choirCacheFree(&d->base);
  if (d->fd >= 0) {
    close(d->fd);
  }
}

/* One attempt. 1: done, or failed for good. */
static int deltaOnce(Delta *d) {
  ChoirSyncRun *p = d->p;
  int bUnchanged, bDone;
  deltaMay(d);
  d->iUnder = p->bThere ? p->there.meta.iModified : 0;
  if (p->pErr->rc == SQLITE_OK) {
    choirCacheRead(p->pConn, p->pErr, &d->base, &p->here, p->there.zUrl);
  }
  if (!p->bThere || memcmp(d->base.aId, p->aThere, CHOIR_SYNC_ID) != 0) {
    choirCacheForget(&d->base);
  }
  bUnchanged = deltaUnchanged(d);
  if (bUnchanged && p->bThere &&
      memcmp(p->aThere, p->here.aHead, CHOIR_SYNC_ID) == 0) {
    deltaLearn(d);
    return 1;
  }
  deltaCapture(d, bUnchanged && !p->zMode);
  if (p->pErr->rc == SQLITE_OK) {
    deltaPack(d);
  }
  bDone = p->pErr->rc != SQLITE_OK || deltaSend(d);
  if (bDone) {
    deltaLearn(d);
  }
  return bDone;
}

CHOIR_PRIVATE u64 choirDeltaPush(ChoirSyncRun *p) {
  u64 nByte = 0;
  int i, bDone = 0;
  for (i = 0; i < DELTA_TRIES && !bDone && p->pErr->rc == SQLITE_OK; i++) {
    Delta d;
    memset(&d, 0, sizeof(d));
    d.p = p;
    d.fd = d.now.fd = -1;
    if (i > 0) {
      p->there.bNewest = 0;
      p->there.eHead = CHOIR_OBJECT_ABSENT;
      choirFolderNewest(p->pErr, &p->there);
    }
    bDone = deltaOnce(&d);
    nByte = d.nByte;
    deltaFree(&d);
  }
  if (!bDone && p->pErr->rc == SQLITE_OK) {
    choirErrSet(p->pErr, SQLITE_BUSY,
                "another connection is syncing this file; try again");
  }
  return p->pErr->rc == SQLITE_OK ? nByte : 0;
}
