/* SPDX-License-Identifier: MIT */
/*
** Back in time: sync_log, the versions at a folder remote, and sync_restore(),
** one of them in a file.
*/
#include "sync.h"
#include <stdio.h>
#include <stdlib.h>
#if !defined(_WIN32)
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#endif

CHOIR_PRIVATE void choirVersionRemote(ChoirConn *pConn, ChoirErr *pErr,
                                      ChoirRemote *p, const char *zUrl) {
  choirRemoteOpen(pConn, pErr, p, zUrl);
  if (pErr->rc == SQLITE_OK && !p->bFolder) {
    choirErrSet(pErr, SQLITE_ERROR,
                "%s is a plain file, which keeps one version; versions are"
                " kept by a remote that ends in /",
                p->zUrl);
  }
}

/* ---------------------------------------------------------------- sync_log */

typedef struct TimeCursor {
  ChoirCursor base;
  ChoirRemote there;
  ChoirFiles files;  /* one a version, newest first */
  ChoirLtxHead head; /* of files.a[iRow], when iHead is iRow + 1 */
  i64 iHead;
} TimeCursor;

static int timeNewest(const void *pA, const void *pB) {
  const ChoirFile *a = pA, *b = pB;
  return a->iMax != b->iMax       ? (a->iMax > b->iMax ? -1 : 1)
         : a->iLevel != b->iLevel ? (a->iLevel < b->iLevel ? -1 : 1)
                                  : 0;
}

/* The files that end a plan, the smallest of each transaction. */
static void timeVersions(ChoirErr *pErr, ChoirFiles *p) {
  u64 i, n = 0, iGot, iLast = 0;
  ChoirFiles plan;
  ChoirFile *a = choirMalloc(pErr, (p->n + 1) * sizeof(*a));
  if (a == NULL) {
    return;
  }
  if (p->n) {
    qsort(p->a, (size_t)p->n, sizeof(*p->a), timeNewest);
  }
  for (i = 0; i < p->n; i++) {
    if (p->a[i].iMax != iLast) {
      iLast = p->a[i].iMax;
      choirFilesPlan(pErr, p, 0, iLast, &plan, &iGot);
      choirFilesFree(&plan);
      if (iGot == iLast) {
        a[n++] = p->a[i];
      }
    }
  }
  sqlite3_free(p->a);
  p->a = a;
  p->n = n;
  p->nAlloc = p->n + 1;
}

static void timeReset(ChoirCursor *pCur) {
  TimeCursor *p = (TimeCursor *)pCur;
  choirFilesFree(&p->files);
  if (p->there.pStore || p->there.pCrypt) { /* it was opened, in part */
    choirRemoteClose(&p->there);
  }
  p->iHead = 0;
}

/*
** SQL: sync_log([remote]) -> TABLE(txid, time, version, device, pages, bytes,
**   level, stored)
**
** The versions that a folder remote holds, newest first: each can be restored.
** time is when it was made, version its id, device the host that made it as
** far as this file's history knows, pages the size of the database, bytes that
** of the object that ends with it, level 0 for a push, 1 to 3 for a
** compaction, 9 for a snapshot, stored when the remote got it. time, version,
** device and pages cost one small request a row, when they are asked for.
**
**   remote  TEXT, URL of a folder, ending in '/'; default:
**           choir_config('remote')
**
** Errors: the remote is a plain file, which keeps one version; out of reach.
**
** > SELECT count(*) FROM sync_log('file:///tmp/ws.sqlite')
** ! sync_log: file:///tmp/ws.sqlite is a plain file, which keeps one version; versions are kept by a remote that ends in /
*/
static void timeLog(ChoirCursor *pCur) {
  TimeCursor *p = (TimeCursor *)pCur;
  const char *zUrl = choirArgTextOrNull(&pCur->err, pCur->apArg[0], "remote");
  choirVersionRemote(pCur->pConn, &pCur->err, &p->there, zUrl);
  choirFolderList(&p->there, &pCur->err, &p->files);
  timeVersions(&pCur->err, &p->files);
  pCur->bEof = p->files.n == 0;
}

static void timeNext(ChoirCursor *pCur) {
  TimeCursor *p = (TimeCursor *)pCur;
  pCur->bEof = (u64)pCur->iRow >= p->files.n;
}

/* The host that made version aId, from this file's history. */
static void timeDevice(TimeCursor *p, sqlite3_context *pCtx) {
  ChoirErr err = {0, NULL};
  sqlite3_stmt *pStmt =
      choirPrepare(p->base.pConn, &err,
                   "SELECT device FROM ~._choir_sync_history WHERE push_id=?1");
  choirBindBlob(&err, pStmt, 1, p->head.aId, CHOIR_SYNC_ID);
  if (choirStep(&err, pStmt)) {
    sqlite3_result_value(pCtx, sqlite3_column_value(pStmt, 0));
  }
  sqlite3_finalize(pStmt);
  choirErrClear(&err); /* no workspace here: unknown */
}

static void timeColumn(ChoirCursor *pCur, sqlite3_context *pCtx, int iCol) {
  TimeCursor *p = (TimeCursor *)pCur;
  const ChoirFile *q = &p->files.a[pCur->iRow];
  int bHead = iCol >= 1 && iCol <= 4;
  char z[2 * CHOIR_SYNC_ID + 1];
  if (bHead && p->iHead != pCur->iRow + 1) {
    int e = choirFolderHead(&p->there, &pCur->err, q, &p->head, NULL);
    p->iHead = e == CHOIR_OBJECT_OK ? pCur->iRow + 1 : 0;
    if (p->iHead == 0) {
      return; /* pruned since the listing, or an error */
    }
  }
  switch (iCol) {
  case 0:
    sqlite3_result_int64(pCtx, (i64)q->iMax);
    break;
  case 1:
    sqlite3_result_int64(pCtx, p->head.iTime);
    break;
  case 2:
    choirHex(p->head.aId, CHOIR_SYNC_ID, z);
    if (p->head.bChoir) {
      sqlite3_result_text(pCtx, z, -1, SQLITE_TRANSIENT);
    }
    break;
  case 3:
    timeDevice(p, pCtx);
    break;
  case 4:
    sqlite3_result_int64(pCtx, p->head.nPage);
    break;
  case 5:
    sqlite3_result_int64(pCtx, (i64)q->nByte);
    break;
  case 6:
    sqlite3_result_int(pCtx, q->iLevel);
    break;
  default:
    sqlite3_result_int64(pCtx, q->iModified);
    break;
  }
}

/* ------------------------------------------------------------ sync_restore */

/* Unix milliseconds of an ISO 8601 time in UTC, -1: it is none. */
static i64 timeParse(const char *z) {
  struct tm tm;
  int y, mon, d, h = 0, m = 0, nAt = 0;
  double s = 0;
  memset(&tm, 0, sizeof(tm));
  if (sscanf(z, "%4d-%2d-%2d%n", &y, &mon, &d, &nAt) != 3) {
    return -1;
  }
  z += nAt;
  nAt = 0;
  if (*z == 'T' || *z == ' ') {
    if (sscanf(z + 1, "%2d:%2d%n", &h, &m, &nAt) != 2) {
      return -1;
    }
    z += 1 + nAt;
    nAt = 0;
    if (*z == ':') {
      if (sscanf(z + 1, "%6lf%n", &s, &nAt) != 1 || s < 0) {
        return -1;
      }
      z += 1 + nAt;
    }
    z += *z == 'Z';
  }
  tm.tm_year = y - 1900;
  tm.tm_mon = mon - 1;
  tm.tm_mday = d;
  tm.tm_hour = h;
  tm.tm_min = m;
  if (*z || mon < 1 || mon > 12 || d < 1 || d > 31 || h > 23 || m > 59 ||
      s >= 61) {
    return -1;
  }
  return (i64)timegm(&tm) * 1000 + (i64)(s * 1000 + 0.5);
}

/* The newest version not made after iTime; times ascend with transactions. */
static u64 timeFind(ChoirErr *pErr, ChoirRemote *p, i64 iTime, const char *z) {
  ChoirFiles files;
  ChoirLtxHead head;
  u64 iLow = 0, iHigh, iTxid = 0;
  char zOldest[32];
  choirFolderList(p, pErr, &files);
  timeVersions(pErr, &files);
  iHigh = files.n; /* files.a[iHigh] and older are early enough */
  while (iLow < iHigh && pErr->rc == SQLITE_OK) {
    u64 iMid = (iLow + iHigh) / 2;
    memset(&head, 0, sizeof(head));
    if (choirFolderHead(p, pErr, &files.a[iMid], &head, NULL) ==
            CHOIR_OBJECT_OK &&
        head.iTime <= iTime) {
      iHigh = iMid;
    } else {
      iLow = iMid + 1;
    }
  }
  if (pErr->rc == SQLITE_OK && iHigh < files.n) {
    iTxid = files.a[iHigh].iMax;
  } else if (pErr->rc == SQLITE_OK && files.n == 0) {
    choirErrSet(pErr, SQLITE_ERROR, "nothing at %s yet", p->zUrl);
  } else if (pErr->rc == SQLITE_OK) { /* the head read last is the oldest's */
    choirSyncTime(head.iTime, zOldest);
    choirErrSet(pErr, SQLITE_ERROR,
                "%s holds no version as old as %s; the oldest is version"
                " %llu%s",
                p->zUrl, z, files.a[files.n - 1].iMax, zOldest);
  }
  choirFilesFree(&files);
  return iTxid;
}

CHOIR_PRIVATE void choirVersionAbsent(ChoirErr *pErr, const ChoirRemote *p,
                                      ChoirFiles *pFiles, u64 iTxid) {
  u64 i, iBelow = 0, iAbove = 0;
  timeVersions(pErr, pFiles);
  for (i = 0; i < pFiles->n; i++) { /* newest first */
    u64 v = pFiles->a[i].iMax;
    iAbove = v > iTxid ? v : iAbove;
    iBelow = v < iTxid && iBelow == 0 ? v : iBelow;
  }
  if (iBelow && iAbove) {
    choirErrSet(pErr, SQLITE_ERROR,
                "%s does not hold transaction %llu; the nearest are %llu and"
                " %llu",
                p->zUrl, iTxid, iBelow, iAbove);
  } else if (iBelow || iAbove) {
    choirErrSet(pErr, SQLITE_ERROR,
                "%s does not hold transaction %llu; the nearest is %llu",
                p->zUrl, iTxid, iBelow + iAbove);
  } else {
    choirErrSet(pErr, SQLITE_ERROR, "nothing at %s yet", p->zUrl);
  }
}

CHOIR_PRIVATE u64 choirVersionFind(ChoirErr *pErr, ChoirRemote *p,
                                   const char *z) {
  i64 iTime;
  u64 iTxid;
  if (z == NULL || pErr->rc != SQLITE_OK) {
    return 0;
  }
  if (z[0] && strspn(z, "0123456789") == strlen(z) && strlen(z) < 19) {
    iTxid = strtoull(z, NULL, 10);
    if (iTxid == 0) {
      choirErrSet(pErr, SQLITE_ERROR, "version must be 1 or more, got %s", z);
    }
    return iTxid;
  }
  iTime = timeParse(z);
  if (iTime < 0) {
    choirErrSet(pErr, SQLITE_ERROR,
                "version must be a transaction as in sync_log, or a time as"
                " 2026-01-31T12:00:00Z, got '%s'",
                z);
    return 0;
  }
  return timeFind(pErr, p, iTime, z);
}

CHOIR_PRIVATE const char *choirVersionArg(ChoirErr *pErr, sqlite3_value *p) {
  if (sqlite3_value_type(p) != SQLITE_INTEGER) {
    return choirArgText(pErr, p, "version");
  }
  choirArgInt(pErr, p, "version", 1, (i64)1 << 62);
  return pErr->rc == SQLITE_OK ? (const char *)sqlite3_value_text(p) : NULL;
}

/* The fetched version under its name. */
static void timePublish(ChoirErr *pErr, ChoirRemote *p, const char *zFile,
                        u64 nByte) {
  u64 iOff, nChunk = (u64)1 << 18;
  u8 *a = choirMalloc(pErr, nChunk);
  ChoirTemp tmp;
  if (a) {
    choirTempBeside(&tmp, pErr, zFile);
    if (pErr->rc == SQLITE_OK) {
      choirFileNotOwn(pErr, p->pStore->pConn, tmp.fdDir, tmp.zLast, zFile);
    }
    for (iOff = 0; iOff < nByte && pErr->rc == SQLITE_OK; iOff += nChunk) {
      u64 n = nByte - iOff < nChunk ? nByte - iOff : nChunk;
      choirFdRead(pErr, p->fd, iOff, a, n);
      choirFileWrite(pErr, tmp.fd, zFile, iOff, a, n);
    }
    if (choirTempPublish(&tmp, pErr, tmp.zLast, 0) == CHOIR_OBJECT_CHANGED) {
      choirErrSet(pErr, SQLITE_ERROR,
                  "'%s' exists; choose a name that is not taken", zFile);
    }
    choirTempClose(&tmp);
  }
  sqlite3_free(a);
}

/*
** SQL: sync_restore(version, file[, remote]) -> TEXT
**
** Writes a version that a folder remote holds into a new file: verified as by
** sync_pull(), complete or not there, never over a file that exists. It is a
** workspace that knows where it stands; this file is not touched. Gives a JSON
** object: txid, version, time, bytes (of the file), fetched (bytes) and ms.
**
**   version  INTEGER, a txid of sync_log; or TEXT, a time in UTC: the newest
**            version not made after it
**   file     TEXT, a path
**   remote   TEXT, URL of a folder, ending in '/'; default:
**            choir_config('remote')
**
** NULL: an error for version and file; a NULL remote means the configured one.
** Errors: no such version there, or no longer; the file exists; damaged.
**
** > SELECT sync_restore('yesterday', '/tmp/old.db', 'file:///tmp/')
** ! sync_restore: version must be a transaction as in sync_log, or a time as 2026-01-31T12:00:00Z, got 'yesterday'
*/
static void timeRestore(ChoirCall *pCall) {
  const char *zFile = choirArgText(&pCall->err, pCall->apArg[1], "file");
  const char *zUrl =
      pCall->nArg > 2
          ? choirArgTextOrNull(&pCall->err, pCall->apArg[2], "remote")
          : NULL;
  i64 iStart = choirMonotonic();
  ChoirRemote there;
  struct stat st;
  char zId[2 * CHOIR_SYNC_ID + 1];
  u64 iTxid, nByte = 0;
  ChoirBuf b;
  choirVersionRemote(pCall->pConn, &pCall->err, &there, zUrl);
  iTxid = choirVersionFind(&pCall->err, &there,
                           choirVersionArg(&pCall->err, pCall->apArg[0]));
  if (pCall->err.rc == SQLITE_OK && zFile[0] == 0) {
    choirErrSet(&pCall->err, SQLITE_ERROR, "file must not be empty");
  }
  if (pCall->err.rc == SQLITE_OK && lstat(zFile, &st) == 0) {
    choirErrSet(&pCall->err, SQLITE_ERROR,
                "'%s' exists; choose a name that is not taken", zFile);
  }
  if (pCall->err.rc == SQLITE_OK) {
    nByte = choirRemoteRestore(&pCall->err, &there, iTxid);
    timePublish(&pCall->err, &there, zFile, nByte);
  }
  choirHex(there.head.aId, CHOIR_SYNC_ID, zId);
  choirBufInit(&b, &pCall->err, CHOIR_BUF_JSON);
  choirBufPrintf(&b,
                 "{\"txid\":%llu,\"version\":\"%s\",\"time\":%lld,"
                 "\"bytes\":%llu,\"fetched\":%llu,\"ms\":%lld}",
                 iTxid, there.head.bChoir ? zId : "", there.head.iTime, nByte,
                 there.meta.nByte, choirMonotonic() - iStart);
  choirBufResult(&b, pCall->pCtx);
  choirRemoteClose(&there);
}

static const ChoirFunc aTimeFunc[] = {
    {"sync_restore", 2, 3, CHOIR_EFFECT, 0, timeRestore, NULL},
};

static const ChoirTvf aTimeTvf[] = {
    {"sync_log",
     "txid, time, version, device, pages, bytes, level, stored, arg_remote"
     " HIDDEN",
     8, 0, 1, CHOIR_EFFECT, 0, sizeof(TimeCursor), timeLog, timeNext,
     timeColumn, timeReset},
};

CHOIR_PRIVATE CHOIR_COLD void choirTimeRegister(ChoirConn *pConn,
                                                ChoirErr *pErr) {
  choirFuncs(pConn, pErr, aTimeFunc);
  choirTvfs(pConn, pErr, aTimeTvf);
}
