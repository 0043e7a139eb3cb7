/* SPDX-License-Identifier: MIT */
/*
** Upkeep of a folder remote: sync_compact() merges files, sync_prune() deletes
** what is not needed any more.
**
** Neither needs a lock. A merged file's name follows from what it holds and is
** put only where it is free, so two compactors do the same work twice. Pruning
** deletes only what is older than a day and covered by a snapshot; a reader
** whose plan breaks makes another.
**
** The order in which pushes are pruned is what keeps a freed name from being
** taken for the next free one (sync_delta.c): oldest first, a newer one never
** before an older one, the newest never.
*/
#include "sync.h"
#include <stdlib.h>
#if !defined(_WIN32)
#include <unistd.h>
#endif

#define KEEP_DAY ((i64)24 * 3600 * 1000)
#define KEEP_LEVELS 3

static const i64 aKeepWindow[KEEP_LEVELS + 1] = {0, 30000, 300000, 3600000};

typedef struct KeepRun {
  ChoirErr *pErr;
  ChoirRemote there;
  ChoirFiles files; /* by level, then by transaction */
  i64 nFile;        /* written or deleted */
  u64 nByte;
} KeepRun;

static int keepOrder(const void *pA, const void *pB) {
  const ChoirFile *a = pA, *b = pB;
  return a->iLevel != b->iLevel ? (a->iLevel < b->iLevel ? -1 : 1)
         : a->iMin != b->iMin   ? (a->iMin < b->iMin ? -1 : 1)
         : a->iMax != b->iMax   ? (a->iMax < b->iMax ? -1 : 1)
                                : 0;
}

static void keepList(KeepRun *p) {
  choirFilesFree(&p->files);
  choirFolderList(&p->there, p->pErr, &p->files);
  if (p->files.n) {
    qsort(p->files.a, (size_t)p->files.n, sizeof(*p->files.a), keepOrder);
  }
}

static void keepBegin(KeepRun *p, ChoirCall *pCall, int iArg) {
  const char *zUrl =
      pCall->nArg > iArg
          ? choirArgTextOrNull(&pCall->err, pCall->apArg[iArg], "remote")
          : NULL;
  memset(p, 0, sizeof(*p));
  p->pErr = &pCall->err;
  choirRemoteOpen(pCall->pConn, p->pErr, &p->there, zUrl);
  if (p->pErr->rc == SQLITE_OK && !p->there.bFolder) {
    choirErrSet(p->pErr, SQLITE_ERROR,
                "%s is a plain file, which keeps one version; there is nothing"
                " to do",
                p->there.zUrl);
  }
  keepList(p);
  if (p->pErr->rc == SQLITE_OK && p->there.bProbe) {
    choirErrSet(p->pErr, SQLITE_AUTH, "listing %s is forbidden", p->there.zUrl);
  }
}

static void keepEnd(KeepRun *p, ChoirCall *pCall, const char *zVerb,
                    i64 iStart) {
  ChoirBuf b;
  choirBufInit(&b, p->pErr, CHOIR_BUF_JSON);
  choirBufPrintf(&b, "{\"%s\":%lld,\"bytes\":%llu,\"ms\":%lld}", zVerb,
                 p->nFile, p->nByte, choirMonotonic() - iStart);
  choirBufResult(&b, pCall->pCtx);
  choirFilesFree(&p->files);
  choirRemoteClose(&p->there);
}

/* ----------------------------------------------------------------- merging */

typedef struct KeepMerge {
  int fdPage;    /* pages at their places, with holes */
  int fdOut;     /* the merged file */
  ChoirBuf seen; /* a bit a page */
} KeepMerge;

static void keepPage(void *pArg, ChoirErr *pErr, u32 iPage, const u8 *aPage,
                     u32 szPage) {
  KeepMerge *p = pArg;
  u64 iByte = (iPage - 1) / 8;
  if (iByte >= p->seen.n) {
    u64 n = iByte + 1 - p->seen.n;
    char *a = choirBufSpace(&p->seen, n);
    if (a) {
      memset(a, 0, (size_t)n);
    }
  }
  if (pErr->rc == SQLITE_OK && iByte < p->seen.n) {
    p->seen.a[iByte] |= (char)(1 << (iPage - 1) % 8);
    choirFdWrite(pErr, p->fdPage, (u64)(iPage - 1) * szPage, aPage, szPage);
  }
}

/* What was read, as one file; its size. */
static u64 keepPack(ChoirErr *pErr, KeepMerge *p, const ChoirLtxHead *pHead) {
  ChoirLtxWriter *pOut = choirLtxWriteNew(pErr, p->fdOut, pHead);
  u8 *a = choirMalloc(pErr, pHead->szPage);
  u64 nByte, i;
  for (i = 0; i < pHead->nPage && pErr->rc == SQLITE_OK; i++) {
    if (i / 8 < p->seen.n && p->seen.a[i / 8] & 1 << i % 8) {
      choirFdRead(pErr, p->fdPage, i * pHead->szPage, a, pHead->szPage);
      choirLtxWritePage(pOut, pErr, (u32)i + 1, a);
    }
  }
  nByte = pOut ? choirLtxWriteEnd(pOut, pErr) : 0;
  choirLtxWriteFree(pOut);
  sqlite3_free(a);
  return nByte;
}

static void keepSource(void *pArg, ChoirErr *pErr, u64 iOff, void *a, u64 n) {
  choirFdRead(pErr, ((KeepMerge *)pArg)->fdOut, iOff, a, n);
}

/* Files aIn[0..n), in order, become one at iLevel. Nothing when one of them is
** gone, or somebody else did it. */
static void keepMerge(KeepRun *p, const ChoirFile *aIn, u64 n, int iLevel) {
  ChoirFile out = {aIn[0].iMin, aIn[n - 1].iMax, 0, 0, iLevel};
  KeepMerge merge;
  ChoirLtxHead head;
  ChoirObjectMeta meta;
  ChoirObjectSource source = {0, keepSource, &merge};
  char *zKey = choirFolderKey(p->pErr, &p->there, &out);
  u64 i, nRead = 0;
  int e = CHOIR_OBJECT_OK;
  memset(&head, 0, sizeof(head));
  choirBufInit(&merge.seen, p->pErr, (u64)1 << 29);
  merge.fdPage = choirTempAnonymous(p->pErr);
  merge.fdOut = choirTempAnonymous(p->pErr);
  choirCryptChain(&p->there);
  for (i = 0; i < n && e == CHOIR_OBJECT_OK; i++) {
    e = choirFolderRead(&p->there, p->pErr, &aIn[i], keepPage, &merge, &head,
                        &nRead);
  }
  head.iMin = out.iMin;
  head.iMax = out.iMax; /* time and version stay those of the last */
  if (e == CHOIR_OBJECT_OK && p->pErr->rc == SQLITE_OK) {
    source.nByte = keepPack(p->pErr, &merge, &head);
    e = p->pErr->rc == SQLITE_OK
            ? choirFolderPut(&p->there, p->pErr, zKey, &source, CHOIR_IF_ABSENT,
                             &meta)
            : CHOIR_OBJECT_FAILED;
    if (e == CHOIR_OBJECT_OK) {
      p->nFile++;
      p->nByte += source.nByte;
    }
  }
  if (merge.fdPage >= 0) {
    close(merge.fdPage);
  }
  if (merge.fdOut >= 0) {
    close(merge.fdOut);
  }
  choirBufFree(&merge.seen);
  sqlite3_free(zKey);
}

/* Level iLevel from the files below it, a window at a time, as far as windows
** have ended. */
static void keepLevel(KeepRun *p, int iLevel) {
  i64 nWindow = aKeepWindow[iLevel], iNow = choirNow();
  u64 i, iFirst = 0, nGroup = 0, iDone = 0;
  for (i = 0; i < p->files.n; i++) {
    const ChoirFile *q = &p->files.a[i];
    iDone = q->iLevel == iLevel && q->iMax > iDone ? q->iMax : iDone;
  }
  for (i = 0; i < p->files.n && p->pErr->rc == SQLITE_OK; i++) {
    const ChoirFile *q = &p->files.a[i];
    int bNext = i + 1 < p->files.n;
    if (q->iLevel != iLevel - 1 || q->iMin <= iDone) {
      continue;
    }
    iFirst = nGroup ? iFirst : i;
    nGroup++;
    if (bNext && q[1].iLevel == iLevel - 1 && q[1].iMin == q->iMax + 1 &&
        q[1].iModified / nWindow == q->iModified / nWindow) {
      continue;
    }
    if ((q->iModified / nWindow + 1) * nWindow <= iNow) {
      keepMerge(p, &p->files.a[iFirst], nGroup, iLevel);
    }
    nGroup = 0;
  }
}

/* A snapshot, or the first push, which is one. Merged alone, that is stored
** again and again, as if it were young: it does not count there. */
static int keepFull(const ChoirFile *p) {
  return p->iMin == 1 && (p->iLevel == CHOIR_LEVEL_SNAPSHOT ||
                          (p->iLevel == 0 && p->iMax == 1));
}

/* A snapshot of the newest transaction, when the last one is a day old. */
static void keepSnapshot(KeepRun *p, int bNow) {
  ChoirFiles plan;
  u64 i, iGot = 0, iFull = 0, iNewest = 0;
  i64 iTime = 0;
  for (i = 0; i < p->files.n; i++) {
    const ChoirFile *q = &p->files.a[i];
    iNewest = q->iMax > iNewest ? q->iMax : iNewest;
    if (keepFull(q) && q->iMax >= iFull) {
      iFull = q->iMax;
      iTime = q->iModified;
    }
  }
  if (iNewest == 0 || iFull == iNewest ||
      (!bNow && choirNow() - iTime < KEEP_DAY)) {
    return;
  }
  choirFilesPlan(p->pErr, &p->files, 0, iNewest, &plan, &iGot);
  if (p->pErr->rc == SQLITE_OK && iGot == iNewest) {
    keepMerge(p, plan.a, plan.n, CHOIR_LEVEL_SNAPSHOT);
  }
  choirFilesFree(&plan);
}

/*
** SQL: sync_compact([remote[, mode]]) -> TEXT
**
** Merges the files of a folder remote, so that restoring an old version reads
** few of them: pushes of half a minute, of five minutes, of an hour (levels 1
** to 3), and a snapshot when the last one is a day old. Nothing is deleted;
** that is sync_prune(). Any number of devices may do it at once. Gives a JSON
** object: compacted (files written), bytes and ms.
**
**   remote  TEXT, URL of a folder, ending in '/'; default:
**           choir_config('remote')
**   mode    TEXT, 'snapshot': make a snapshot of the newest version now
**
** NULL: a NULL remote means the configured one; a NULL mode none.
** Errors: the remote is a plain file; listing is forbidden; damaged.
**
** > SELECT sync_compact('file:///tmp/ws.sqlite')
** ! sync_compact: file:///tmp/ws.sqlite is a plain file, which keeps one version; there is nothing to do
*/
static void keepCompact(ChoirCall *pCall) {
  const char *zMode =
      pCall->nArg > 1 ? choirArgTextOrNull(&pCall->err, pCall->apArg[1], "mode")
                      : NULL;
  i64 iStart = choirMonotonic();
  KeepRun run;
  int i;
  if (zMode && strcmp(zMode, "snapshot") != 0) {
    choirErrSet(&pCall->err, SQLITE_ERROR,
                "mode must be 'snapshot' or left out, got '%s'", zMode);
  }
  keepBegin(&run, pCall, 0);
  for (i = 1; i <= KEEP_LEVELS && pCall->err.rc == SQLITE_OK; i++) {
    keepLevel(&run, i);
    keepList(&run);
  }
  if (pCall->err.rc == SQLITE_OK) {
    keepSnapshot(&run, zMode != NULL);
  }
  keepEnd(&run, pCall, "compacted", iStart);
}

/* ----------------------------------------------------------------- pruning */

static int keepNewestFirst(const void *pA, const void *pB) {
  u64 a = *(const u64 *)pA, b = *(const u64 *)pB;
  return a > b ? -1 : a < b;
}

/* The transaction of the nKeep-th newest file that has every page; 0: there
** are fewer. */
static u64 keepHorizon(KeepRun *p, u64 nKeep) {
  u64 i, n = 0, iHorizon = 0;
  u64 *a = choirMalloc(p->pErr, (p->files.n + 1) * sizeof(u64));
  for (i = 0; a && i < p->files.n; i++) {
    const ChoirFile *q = &p->files.a[i];
    if (keepFull(q)) {
      a[n++] = q->iMax;
    }
  }
  if (n) {
    qsort(a, (size_t)n, sizeof(u64), keepNewestFirst);
  }
  iHorizon = n >= nKeep ? a[nKeep - 1] : 0;
  sqlite3_free(a);
  return iHorizon;
}

static void keepText(void *pArg, ChoirErr *pErr, u64 iOff, void *a, u64 n) {
  (void)pErr;
  memcpy(a, (const char *)pArg + iOff, (size_t)n);
}

/* Says up to where names are gone, before they are; the server's time then. */
static i64 keepMark(KeepRun *p, u64 iHorizon) {
  char z[18];
  ChoirObjectSource source = {17, keepText, z};
  ChoirObjectMeta meta;
  memset(&meta, 0, sizeof(meta));
  sqlite3_snprintf(sizeof(z), z, "%016llx\n", iHorizon);
  choirFolderPut(&p->there, p->pErr, "choir-horizon", &source, CHOIR_IF_ANY,
                 &meta);
  if (p->pErr->rc == SQLITE_OK) {
    choirObjectHead(p->there.pStore, p->pErr, "choir-horizon", &meta);
  }
  return meta.iModified;
}

static void keepDelete(KeepRun *p, const ChoirFile *pFile) {
  char *zKey = choirFolderKey(p->pErr, &p->there, pFile);
  if (zKey && choirObjectDelete(p->there.pStore, p->pErr, zKey, NULL) ==
                  CHOIR_OBJECT_OK) {
    p->nFile++;
    p->nByte += pFile->nByte;
  }
  sqlite3_free(zKey);
}

/* Files before the horizon, level by level, each from the oldest on. */
static void keepPrune(KeepRun *p, u64 iHorizon, i64 iNow) {
  u64 i, iNewest = 0;
  int iStop = -1; /* the level in which something young was met */
  for (i = 0; i < p->files.n; i++) {
    iNewest = p->files.a[i].iMax > iNewest ? p->files.a[i].iMax : iNewest;
  }
  for (i = 0; i < p->files.n && p->pErr->rc == SQLITE_OK; i++) {
    const ChoirFile *q = &p->files.a[i];
    int bFull = q->iLevel == CHOIR_LEVEL_SNAPSHOT;
    if ((bFull ? q->iMax >= iHorizon : q->iMax > iHorizon) ||
        (q->iLevel == 0 && q->iMax == iNewest) || q->iLevel == iStop) {
      continue;
    }
    if (iNow - q->iModified < KEEP_DAY) {
      iStop = q->iLevel;
    } else {
      keepDelete(p, q);
    }
  }
}

/*
** SQL: sync_prune([keep[, remote]]) -> TEXT
**
** Deletes from a folder remote what lies before the oldest of the newest keep
** snapshots: those versions can no longer be restored. Never fewer than two
** snapshots stay, nothing younger than a day by the server's clock is deleted,
** and never the newest push. Gives a JSON object: pruned (files deleted), bytes
** and ms.
**
**   keep    INTEGER, snapshots that stay, 2 or more; default 7
**   remote  TEXT, URL of a folder, ending in '/'; default:
**           choir_config('remote')
**
** NULL: a NULL keep means 7; a NULL remote the configured one.
** Errors: the remote is a plain file; listing or deleting is forbidden.
**
** > SELECT sync_prune(1, 'file:///tmp/')
** ! sync_prune: keep must be 2 to 1000000, got 1
*/
static void keepPruneFunc(ChoirCall *pCall) {
  i64 iStart = choirMonotonic(), nKeep = 7;
  u64 iHorizon = 0;
  KeepRun run;
  if (pCall->nArg > 0 && sqlite3_value_type(pCall->apArg[0]) != SQLITE_NULL) {
    nKeep = choirArgInt(&pCall->err, pCall->apArg[0], "keep", 2, 1000000);
  }
  keepBegin(&run, pCall, 1);
  if (pCall->err.rc == SQLITE_OK) {
    iHorizon = keepHorizon(&run, (u64)nKeep);
  }
  if (iHorizon > 1 && pCall->err.rc == SQLITE_OK) {
    i64 iNow = keepMark(&run, iHorizon);
    if (pCall->err.rc == SQLITE_OK) {
      keepPrune(&run, iHorizon, iNow);
    }
  }
  keepEnd(&run, pCall, "pruned", iStart);
}

static const ChoirFunc aKeepFunc[] = {
    {"sync_compact", 0, 2, CHOIR_EFFECT, 0, keepCompact, NULL},
    {"sync_prune", 0, 2, CHOIR_EFFECT, 0, keepPruneFunc, NULL},
};

CHOIR_PRIVATE CHOIR_COLD void choirKeepRegister(ChoirConn *pConn,
                                                ChoirErr *pErr) {
  choirFuncs(pConn, pErr, aKeepFunc);
}
