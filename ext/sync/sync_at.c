/* SPDX-License-Identifier: MIT */
/*
** The VFS choir_at: an old version attached beside the live file, read-only,
** from which only the pages that are read are fetched (sync_version.c).
**
**   ATTACH 'file:ws?vfs=choir_at&version=41' AS old;
**   ATTACH 'file:ws?vfs=choir_at&version=2026-11-17T09:00' AS tuesday;
**   ATTACH sync_at('2026-11-17') AS tuesday;
**
** Parameters: version, a transaction or a time as for sync_restore(), left out:
** the newest; remote, left out: choir_config('remote'). The word after file: is
** free.
**
** A VFS belongs to the process and its xOpen is not told which connection asks.
** SQLite tells right after (SQLITE_FCNTL_PDB), so nothing happens in xOpen, and
** at the first read the connection is looked up among those that loaded choir:
** its settings and its secrets are used and nobody else's, and not at all after
** choir_lock(), on a read-only connection, or on one without choir. What was
** attached before choir_lock() stays readable. Reads happen in the midst of the
** host's statements, so they run on a private connection (choirConnAgent) and
** the host's own is left alone. Every file has a name of its own, which keeps
** shared caches from handing it to another connection.
**
** Nobody else changes a version, so locks are granted and there is no journal.
** (To say that the file is immutable would make SQLite ask for its size before
** it says who asks.) Writing is SQLITE_READONLY. SQLite has no room
** for a VFS's texts, so those are kept: the table sync_attached has them.
*/
#include "sync.h"

#define AT_NAME "choir_at"

typedef struct AtFile AtFile;

/* What a connection that loaded choir has attached. */
typedef struct AtHost {
  ChoirConn *pConn;
  struct AtHost *pNext; /* of the process, under atMutex() */
  AtFile *pFile;        /* open ones */
  char *zProblem;       /* of the last that could not be opened, or NULL */
  char *zProblemName;
} AtHost;

struct AtFile {
  sqlite3_file base;
  sqlite3 *db;    /* NULL before SQLITE_FCNTL_PDB */
  char *zName;    /* the word after file: */
  char *zVersion; /* parameters, or NULL */
  char *zRemote;
  AtHost *pHost;   /* NULL before the first read */
  AtFile *pNext;   /* of pHost */
  ChoirConn *pOwn; /* private */
  ChoirRemote there;
  ChoirVersion *pVersion; /* NULL: not open yet */
  u32 iPage;              /* the page in aPage, 0: none */
  u8 *aPage;
  u64 nRead; /* pages */
  char *zProblem;
};

static AtHost *pAtHost; /* all of the process */

static sqlite3_mutex *atMutex(void) {
  return sqlite3_mutex_alloc(SQLITE_MUTEX_STATIC_APP2);
}

static void atHostFree(void *pArg) {
  AtHost *pHost = pArg, **pp;
  AtFile *p;
  sqlite3_mutex_enter(atMutex());
  for (pp = &pAtHost; *pp && *pp != pHost; pp = &(*pp)->pNext) {
  }
  if (*pp) {
    *pp = pHost->pNext;
  }
  sqlite3_mutex_leave(atMutex());
  for (p = pHost->pFile; p; p = p->pNext) {
    p->pHost = NULL;
  }
  sqlite3_free(pHost->zProblem);
  sqlite3_free(pHost->zProblemName);
}

static const ChoirStateType atHostState = {"at", sizeof(AtHost), atHostFree};

/* The connection that asks; it is in a call, so it stays. */
static AtHost *atHostOf(sqlite3 *db) {
  AtHost *p;
  sqlite3_mutex_enter(atMutex());
  for (p = pAtHost; p && p->pConn->db != db; p = p->pNext) {
  }
  sqlite3_mutex_leave(atMutex());
  return p;
}

/* ------------------------------------------------------------------ opening */

/* Keeps what went wrong where sync_attached finds it. */
static int atFailed(AtFile *p, ChoirErr *pErr) {
  int rc = pErr->rc;
  if ((rc & 0xff) == SQLITE_NOMEM) {
    choirErrClear(pErr);
    return SQLITE_IOERR_NOMEM;
  }
  sqlite3_log(rc, AT_NAME ": %s: %s", p->zName, pErr->zMsg ? pErr->zMsg : "");
  sqlite3_free(p->zProblem);
  p->zProblem = pErr->zMsg;
  pErr->zMsg = NULL;
  choirErrClear(pErr);
  return p->pVersion ? SQLITE_IOERR_READ : SQLITE_CANTOPEN;
}

static void atMay(AtFile *p, ChoirErr *pErr) {
  if (p->pHost == NULL) {
    choirErrSet(pErr, SQLITE_ERROR,
                "this connection has not loaded choir; load it, then ATTACH");
  } else if (p->pHost->pConn->bReadonly) {
    choirErrSet(pErr, SQLITE_AUTH,
                "choir was loaded read-only here and reaches nothing outside");
  } else if (__atomic_load_n(&p->pHost->pConn->bLocked, __ATOMIC_RELAXED)) {
    choirErrSet(pErr, SQLITE_AUTH, "refused after choir_lock()");
  }
}

/* At the first read: whose it is, the remote, the version. */
static int atReady(AtFile *p) {
  ChoirErr err = {0, NULL};
  u64 iTxid = 0;
  if (p->pVersion) {
    return SQLITE_OK;
  }
  if (p->pHost == NULL) {
    p->pHost = atHostOf(p->db);
    if (p->pHost) {
      p->pNext = p->pHost->pFile;
      p->pHost->pFile = p;
    }
  }
  atMay(p, &err);
  if (err.rc == SQLITE_OK && p->pOwn == NULL) {
    p->pOwn = choirConnAgent(p->pHost->pConn, &err);
  }
  if (err.rc == SQLITE_OK) {
    choirRemoteClose(&p->there);
    choirVersionRemote(p->pOwn, &err, &p->there, p->zRemote);
    iTxid = choirVersionFind(&err, &p->there, p->zVersion);
    p->pVersion = choirVersionOpen(&err, &p->there, iTxid);
  }
  if (p->pVersion) {
    p->aPage = choirMalloc(&err, choirVersionHead(p->pVersion)->szPage);
    if (p->aPage == NULL) {
      choirVersionClose(p->pVersion);
      p->pVersion = NULL;
    }
  }
  return err.rc == SQLITE_OK ? SQLITE_OK : atFailed(p, &err);
}

static int atClose(sqlite3_file *pFile) {
  AtFile *p = (AtFile *)pFile, **pp;
  if (p->pHost) {
    for (pp = &p->pHost->pFile; *pp != p; pp = &(*pp)->pNext) {
    }
    *pp = p->pNext;
  }
  if (p->pHost && p->zProblem && p->pVersion == NULL) {
    sqlite3_free(p->pHost->zProblem);
    sqlite3_free(p->pHost->zProblemName);
    p->pHost->zProblem = p->zProblem;
    p->pHost->zProblemName = p->zName;
    p->zProblem = p->zName = NULL;
  }
  choirVersionClose(p->pVersion);
  choirRemoteClose(&p->there);
  if (p->pOwn) {
    choirConnUnref(p->pOwn);
  }
  sqlite3_free(p->aPage);
  sqlite3_free(p->zName);
  sqlite3_free(p->zVersion);
  sqlite3_free(p->zRemote);
  sqlite3_free(p->zProblem);
  return SQLITE_OK;
}

/* ------------------------------------------------------------------ reading */

/* Page iPage into aPage. Another tool's may be in WAL mode: there is none. */
static int atPage(AtFile *p, u32 iPage) {
  ChoirErr err = {0, NULL};
  if (p->iPage == iPage) {
    return SQLITE_OK;
  }
  p->iPage = 0;
  choirVersionPage(p->pVersion, &err, iPage, p->aPage);
  if (err.rc != SQLITE_OK) {
    return atFailed(p, &err);
  }
  if (iPage == 1) {
    p->aPage[18] = p->aPage[19] = 1;
  }
  p->iPage = iPage;
  p->nRead++;
  return SQLITE_OK;
}

static int atRead(sqlite3_file *pFile, void *pOut, int n, sqlite3_int64 iOff) {
  AtFile *p = (AtFile *)pFile;
  const ChoirLtxHead *pHead;
  u8 *a = pOut;
  int rc;
  if (p->db == NULL) { /* the page size, too early; SQLite asks again */
    memset(a, 0, (size_t)n);
    return SQLITE_IOERR_SHORT_READ;
  }
  rc = atReady(p);
  if (rc != SQLITE_OK) {
    return rc;
  }
  pHead = choirVersionHead(p->pVersion);
  while (n > 0) {
    u64 iPage = (u64)iOff / pHead->szPage + 1;
    int iIn = (int)((u64)iOff % pHead->szPage);
    int nNow = (int)pHead->szPage - iIn < n ? (int)pHead->szPage - iIn : n;
    if (iPage > pHead->nPage) {
      memset(a, 0, (size_t)n);
      return SQLITE_IOERR_SHORT_READ;
    }
    rc = atPage(p, (u32)iPage);
    if (rc != SQLITE_OK) {
      return rc;
    }
    memcpy(a, p->aPage + iIn, (size_t)nNow);
    a += nNow;
    n -= nNow;
    iOff += nNow;
  }
  return SQLITE_OK;
}

static int atFileSize(sqlite3_file *pFile, sqlite3_int64 *pnByte) {
  AtFile *p = (AtFile *)pFile;
  const ChoirLtxHead *pHead;
  int rc;
  *pnByte = 0;
  rc = p->db ? atReady(p) : SQLITE_OK;
  if (rc == SQLITE_OK && p->pVersion) {
    pHead = choirVersionHead(p->pVersion);
    *pnByte = (sqlite3_int64)pHead->nPage * pHead->szPage;
  }
  return rc;
}

static int atWrite(sqlite3_file *pFile, const void *a, int n,
                   sqlite3_int64 iOff) {
  (void)pFile, (void)a, (void)n, (void)iOff;
  return SQLITE_READONLY;
}

static int atTruncate(sqlite3_file *pFile, sqlite3_int64 nByte) {
  (void)pFile, (void)nByte;
  return SQLITE_READONLY;
}

static int atInt(sqlite3_file *pFile, int v) {
  (void)pFile, (void)v;
  return SQLITE_OK;
}

static int atReserved(sqlite3_file *pFile, int *pb) {
  (void)pFile;
  *pb = 0;
  return SQLITE_OK;
}

static int atControl(sqlite3_file *pFile, int op, void *pArg) {
  AtFile *p = (AtFile *)pFile;
  if (op == SQLITE_FCNTL_PDB) {
    p->db = *(sqlite3 **)pArg;
    return SQLITE_OK;
  }
  return SQLITE_NOTFOUND;
}

static int atSector(sqlite3_file *pFile) {
  (void)pFile;
  return 512;
}

static int atDevice(sqlite3_file *pFile) {
  (void)pFile;
  return 0;
}

static const sqlite3_io_methods atMethods = {
    .iVersion = 1,
    .xClose = atClose,
    .xRead = atRead,
    .xWrite = atWrite,
    .xTruncate = atTruncate,
    .xSync = atInt,
    .xFileSize = atFileSize,
    .xLock = atInt,
    .xUnlock = atInt,
    .xCheckReservedLock = atReserved,
    .xFileControl = atControl,
    .xSectorSize = atSector,
    .xDeviceCharacteristics = atDevice,
};

/* ------------------------------------------------------------------ the VFS
** Temporary files, libraries, clocks: the process's default VFS, pAppData.
*/
static sqlite3_vfs *atUnder(sqlite3_vfs *pVfs) { return pVfs->pAppData; }

static int atOpen(sqlite3_vfs *pVfs, const char *zName, sqlite3_file *pFile,
                  int mFlags, int *pmOut) {
  AtFile *p = (AtFile *)pFile;
  ChoirErr err = {0, NULL};
  const char *zEnd, *zVersion, *zRemote;
  if (!(mFlags & SQLITE_OPEN_MAIN_DB)) {
    return atUnder(pVfs)->xOpen(atUnder(pVfs), zName, pFile, mFlags, pmOut);
  }
  memset(p, 0, sizeof(*p));
  p->there.fd = -1;
  if (zName == NULL) {
    return SQLITE_CANTOPEN;
  }
  zEnd = strrchr(zName, '-'); /* see atPath */
  zVersion = sqlite3_uri_parameter(zName, "version");
  zRemote = sqlite3_uri_parameter(zName, "remote");
  p->zName = choirMprintf(&err, "%.*s", (int)(zEnd ? zEnd - zName : 0), zName);
  p->zVersion = zVersion ? choirMprintf(&err, "%s", zVersion) : NULL;
  p->zRemote = zRemote ? choirMprintf(&err, "%s", zRemote) : NULL;
  p->base.pMethods = &atMethods;
  if (err.rc != SQLITE_OK) {
    atClose(pFile);
    p->base.pMethods = NULL;
    return SQLITE_NOMEM;
  }
  if (pmOut) {
    *pmOut = (mFlags & ~(SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE)) |
             SQLITE_OPEN_READONLY;
  }
  return SQLITE_OK;
}

static int atDelete(sqlite3_vfs *pVfs, const char *zName, int bSync) {
  (void)pVfs, (void)zName, (void)bSync;
  return SQLITE_OK;
}

static int atAccess(sqlite3_vfs *pVfs, const char *zName, int flags,
                    int *pbRes) {
  (void)pVfs, (void)zName, (void)flags;
  *pbRes = 0;
  return SQLITE_OK;
}

static int atPath(sqlite3_vfs *pVfs, const char *zName, int nOut, char *zOut) {
  u32 iRandom;
  (void)pVfs;
  sqlite3_randomness(sizeof(iRandom), &iRandom);
  if (strlen(zName) + 10 > (size_t)nOut) {
    return SQLITE_CANTOPEN;
  }
  sqlite3_snprintf(nOut, zOut, "%s-%08x", zName, iRandom);
  return SQLITE_OK;
}

static void *atDlOpen(sqlite3_vfs *pVfs, const char *zFile) {
  return atUnder(pVfs)->xDlOpen(atUnder(pVfs), zFile);
}

static void atDlError(sqlite3_vfs *pVfs, int n, char *z) {
  atUnder(pVfs)->xDlError(atUnder(pVfs), n, z);
}

static void (*atDlSym(sqlite3_vfs *pVfs, void *p, const char *z))(void) {
  return atUnder(pVfs)->xDlSym(atUnder(pVfs), p, z);
}

static void atDlClose(sqlite3_vfs *pVfs, void *p) {
  atUnder(pVfs)->xDlClose(atUnder(pVfs), p);
}

static int atRandomness(sqlite3_vfs *pVfs, int n, char *z) {
  return atUnder(pVfs)->xRandomness(atUnder(pVfs), n, z);
}

static int atSleep(sqlite3_vfs *pVfs, int nMicro) {
  return atUnder(pVfs)->xSleep(atUnder(pVfs), nMicro);
}

static int atTime(sqlite3_vfs *pVfs, double *prNow) {
  return atUnder(pVfs)->xCurrentTime(atUnder(pVfs), prNow);
}

static int atLastError(sqlite3_vfs *pVfs, int n, char *z) {
  sqlite3_vfs *p = atUnder(pVfs);
  return p->xGetLastError ? p->xGetLastError(p, n, z) : 0;
}

/* choir_at, or choir_at2, … where another copy of choir has that name in this
** process: it knows its own connections only. */
static char zAtName[16] = AT_NAME;
static sqlite3_vfs atVfs = {
    .iVersion = 1,
    .mxPathname = 512,
    .zName = zAtName,
    .xOpen = atOpen,
    .xDelete = atDelete,
    .xAccess = atAccess,
    .xFullPathname = atPath,
    .xDlOpen = atDlOpen,
    .xDlError = atDlError,
    .xDlSym = atDlSym,
    .xDlClose = atDlClose,
    .xRandomness = atRandomness,
    .xSleep = atSleep,
    .xCurrentTime = atTime,
    .xGetLastError = atLastError,
};

CHOIR_PRIVATE int choirAtPublish(void) {
  sqlite3_mutex *pMutex = atMutex();
  int rc = SQLITE_OK;
  sqlite3_mutex_enter(pMutex);
  if (atVfs.pAppData == NULL) { /* a second SQLite in the process has none */
    sqlite3_vfs *pUnder = sqlite3_vfs_find(NULL);
    int i;
    for (i = 2; i < 100 && sqlite3_vfs_find(zAtName); i++) {
      sqlite3_snprintf(sizeof(zAtName), zAtName, AT_NAME "%d", i);
    }
    if (pUnder) {
      atVfs.szOsFile = (int)sizeof(AtFile) > pUnder->szOsFile
                           ? (int)sizeof(AtFile)
                           : pUnder->szOsFile;
      atVfs.pAppData = pUnder;
      rc = sqlite3_vfs_register(&atVfs, 0);
    }
  }
  sqlite3_mutex_leave(pMutex);
  return rc;
}

/* ---------------------------------------------------------------------- SQL */

/*
** SQL: sync_at([version[, remote]]) -> TEXT
**
** The name under which ATTACH opens a version of a folder remote, read-only:
** ATTACH sync_at('2026-11-17') AS tuesday. Only the pages that are read are
** fetched. The version is looked for now, so that one which is not there is
** told here. Works where the host has switched on URI names: the shell does,
** Python with uri=True; elsewhere ATTACH takes the text for a file's name, and
** sync_restore() is the way.
**
**   version  INTEGER, a txid of sync_log; or TEXT, a time in UTC: the newest
**            version not made after it; default: the newest
**   remote   TEXT, URL of a folder, ending in '/'; default:
**            choir_config('remote')
**
** NULL: a NULL version means the newest, a NULL remote the configured one.
** Errors: no such version there, or no longer; the remote is a plain file; out
** of reach.
**
** > SELECT sync_at(1, 'file:///tmp/ws.sqlite')
** ! sync_at: file:///tmp/ws.sqlite is a plain file, which keeps one version; versions are kept by a remote that ends in /
*/
static void atUri(ChoirCall *pCall) {
  static const char zPlain[] = "abcdefghijklmnopqrstuvwxyz"
                               "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~/:";
  ChoirErr *pErr = &pCall->err;
  const char *zUrl = NULL, *zVersion = NULL;
  ChoirRemote there;
  ChoirFiles plan;
  ChoirBuf b;
  const char *z;
  u64 iTxid;
  if (pCall->nArg > 0 && sqlite3_value_type(pCall->apArg[0]) != SQLITE_NULL) {
    zVersion = choirVersionArg(pErr, pCall->apArg[0]);
  }
  if (pCall->nArg > 1) {
    zUrl = choirArgTextOrNull(pErr, pCall->apArg[1], "remote");
  }
  choirVersionRemote(pCall->pConn, pErr, &there, zUrl);
  iTxid = choirVersionFind(pErr, &there, zVersion);
  iTxid = choirVersionPlan(pErr, &there, iTxid, &plan);
  choirFilesFree(&plan);
  choirBufInit(&b, pErr, CHOIR_BUF_SQL);
  choirBufPrintf(&b, "file:ws?vfs=%s&version=%llu&remote=", zAtName, iTxid);
  for (z = pErr->rc == SQLITE_OK ? there.zUrl : ""; *z; z++) {
    choirBufPrintf(&b, strchr(zPlain, *z) ? "%c" : "%%%02X", (u8)*z);
  }
  choirBufResult(&b, pCall->pCtx);
  choirRemoteClose(&there);
}

static void atRow(ChoirCursor *pCur, const char *zName, const AtFile *p,
                  const char *zProblem) {
  const ChoirLtxHead *pHead =
      p && p->pVersion ? choirVersionHead(p->pVersion) : NULL;
  choirRowText(pCur, zName);
  choirRowText(pCur, pHead ? p->there.zUrl : NULL);
  if (pHead) {
    choirRowInt(pCur, (i64)pHead->iMax);
    choirRowInt(pCur, pHead->iTime);
    choirRowInt(pCur, pHead->nPage);
    choirRowInt(pCur, (i64)choirVersionGets(p->pVersion));
  } else {
    choirRowText(pCur, NULL);
    choirRowText(pCur, NULL);
    choirRowText(pCur, NULL);
    choirRowText(pCur, NULL);
  }
  choirRowText(pCur, zProblem);
}

/*
** SQL: sync_attached -> TABLE(name, remote, txid, time, pages, requests,
**   problem)
**
** The versions that this connection has attached through sync_at() or the VFS
** choir_at: the word after file:, where it is from, which, when that was made,
** pages of the database, requests so far (without the listing), and what went
** wrong last, for which SQLite itself only has a number. A version that could
** not be attached is a row too, until the next such.
**
** > SELECT count(*) FROM sync_attached
** = 0
*/
static void atAttached(ChoirCursor *pCur) {
  AtHost *pHost = choirState(pCur->pConn, &pCur->err, &atHostState);
  AtFile *p;
  for (p = pHost ? pHost->pFile : NULL; p; p = p->pNext) {
    atRow(pCur, p->zName, p, p->zProblem);
  }
  if (pHost && pHost->zProblem) {
    atRow(pCur, pHost->zProblemName, NULL, pHost->zProblem);
  }
}

static const ChoirFunc aAtFunc[] = {
    {"sync_at", 0, 2, CHOIR_EFFECT, 0, atUri, NULL},
};

static const ChoirTvf aAtTvf[] = {
    {"sync_attached", "name, remote, txid, time, pages, requests, problem", 7,
     0, 0, CHOIR_READ, 0, 0, atAttached, NULL, NULL, NULL},
};

CHOIR_PRIVATE CHOIR_COLD void choirAtRegister(ChoirConn *pConn,
                                              ChoirErr *pErr) {
  AtHost *pHost = choirState(pConn, pErr, &atHostState);
  if (pHost) {
    pHost->pConn = pConn;
    sqlite3_mutex_enter(atMutex());
    pHost->pNext = pAtHost;
    pAtHost = pHost;
    sqlite3_mutex_leave(atMutex());
  }
  choirFuncs(pConn, pErr, aAtFunc);
  choirTvfs(pConn, pErr, aAtTvf);
}
