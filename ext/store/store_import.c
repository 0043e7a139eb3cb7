/* SPDX-License-Identifier: MIT */
/*
** artifact_import: a folder of this machine becomes artifacts.
**
** The walk never leaves the folder: every step is an openat() without
** following links. Names are taken in byte order, so a run can be repeated. All
** of it is one transaction: an interrupted or failed import leaves nothing.
**
** Databases that somebody may have open are not touched, because opening and
** closing them would drop SQLite's locks in this process: the files of every
** database on this connection (by device and inode), and any file that has a
** -wal, -shm or -journal beside it, with those.
*/
#include "store.h"

#if !defined(_WIN32)
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define IMPORT_DEPTH 128 /* folders in folders, one descriptor each */

enum {
  IMPORT_HIDDEN,
  IMPORT_LINK,
  IMPORT_SPECIAL,
  IMPORT_DATABASE,
  IMPORT_NAME,
  IMPORT_SIZE,
  IMPORT_UNREADABLE,
  IMPORT_SKIPS
};
static const char *const azImportSkip[] = {
    "hidden", "link", "special", "database", "name", "size", "unreadable"};

typedef struct ImportRun {
  ChoirConn *pConn;
  ChoirErr *pErr;
  ChoirStoreOwn own;
  ChoirStoreReport report;
  i64 anChange[3]; /* by CHOIR_STORE_SAME, _NEW, _CHANGED */
  i64 anSkip[IMPORT_SKIPS];
  i64 nBinary;
} ImportRun;

/* ---------------------------------------------------------------- report */

CHOIR_PRIVATE void choirStoreReportInit(ChoirStoreReport *p, ChoirErr *pErr,
                                        const char *zAction) {
  memset(p, 0, sizeof(*p));
  choirBufInit(&p->problems, pErr, CHOIR_BUF_JSON);
  p->iStart = p->iShown = choirMonotonic();
  p->zAction = zAction;
}

CHOIR_PRIVATE void choirStoreProblem(ChoirStoreReport *p, const char *zFile,
                                     const char *zProblem) {
  if (p->nProblem++ < CHOIR_STORE_PROBLEMS) {
    choirBufText(&p->problems, p->problems.n ? ",{\"file\":" : "{\"file\":");
    choirBufJson(&p->problems, zFile, -1);
    choirBufText(&p->problems, ",\"problem\":");
    choirBufJson(&p->problems, zProblem, -1);
    choirBufText(&p->problems, "}");
  }
}

CHOIR_PRIVATE void choirStoreProgress(ChoirStoreReport *p, int bEnd) {
  i64 iNow = choirMonotonic();
  int bShown = p->iShown != p->iStart;
  if (bEnd && bShown) {
    fprintf(stderr, "\r\033[K");
  } else if (!bEnd && iNow - p->iStart > 1000 &&
             (!bShown || iNow - p->iShown > 200) && isatty(STDERR_FILENO)) {
    fprintf(stderr, "\r%s: %lld files, %.1f MB", p->zAction,
            (long long)p->nFile, (double)p->nByte / 1e6);
    p->iShown = iNow;
  }
}

CHOIR_PRIVATE void choirStoreReportResult(ChoirStoreReport *p, const char *zKey,
                                          const char *zName,
                                          const char *zCounts,
                                          sqlite3_context *pCtx) {
  ChoirBuf b;
  if (p->problems.pErr->rc == SQLITE_OK) {
    choirBufInit(&b, p->problems.pErr, CHOIR_BUF_JSON);
    choirBufPrintf(&b, "{\"%s\":", zKey);
    choirBufJson(&b, zName, -1);
    choirBufText(&b, ",");
    choirBufText(&b, zCounts);
    choirBufText(&b, ",\"problems\":[");
    choirBufAppend(&b, p->problems.a, p->problems.n);
    choirBufText(&b, "]}");
    choirBufResult(&b, pCtx);
  }
}

/* zProblem and errors that are only about one file. */
static void importSkip(ImportRun *p, int eSkip, const char *zShow,
                       const char *zProblem) {
  p->anSkip[eSkip]++;
  if (zProblem) {
    choirStoreProblem(&p->report, zShow, zProblem);
  }
}

static void importSkipErr(ImportRun *p, int eSkip, const char *zShow,
                          ChoirErr *pOne) {
  if (pOne->rc == SQLITE_NOMEM) {
    choirErrNomem(p->pErr);
  } else {
    importSkip(p, eSkip, zShow, pOne->zMsg);
  }
  choirErrClear(pOne);
}

/* ----------------------------------------------------------------- names */

CHOIR_PRIVATE void choirStoreNamesFree(ChoirStoreNames *p) {
  int i;
  for (i = 0; i < p->n; i++) {
    sqlite3_free(p->az[i]);
  }
  sqlite3_free(p->az);
}

static int importCompare(const void *pA, const void *pB) {
  return strcmp(*(char *const *)pA, *(char *const *)pB);
}

CHOIR_PRIVATE int choirStoreNamesRead(ChoirStoreNames *p, ChoirErr *pErr,
                                      int fdDir) {
  int fd = openat(fdDir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR *pDir = fd >= 0 ? fdopendir(fd) : NULL;
  struct dirent *pEntry;
  int bAll;
  memset(p, 0, sizeof(*p));
  if (pDir == NULL) {
    if (fd >= 0) {
      close(fd);
    }
    return 0;
  }
  while (errno = 0, pErr->rc == SQLITE_OK && (pEntry = readdir(pDir)) != NULL) {
    const char *z = pEntry->d_name;
    if (strcmp(z, ".") == 0 || strcmp(z, "..") == 0) {
      continue;
    }
    if (p->n == p->nAlloc) {
      int nNew = p->nAlloc ? p->nAlloc * 2 : 64;
      char **az = choirRealloc(pErr, p->az, (u64)nNew * sizeof(*az));
      if (az == NULL) {
        break;
      }
      p->az = az;
      p->nAlloc = nNew;
    }
    p->az[p->n] = choirMprintf(pErr, "%s", z);
    p->n += p->az[p->n] != NULL;
  }
  bAll = pErr->rc != SQLITE_OK || errno == 0;
  closedir(pDir);
  if (p->n) {
    qsort(p->az, (size_t)p->n, sizeof(*p->az), importCompare);
  }
  return bAll;
}

/* Is there a file zName (nName bytes) zEnd? */
static int importNamesHave(const ChoirStoreNames *p, ChoirErr *pErr,
                           const char *zName, int nName, const char *zEnd) {
  char *z = choirMprintf(pErr, "%.*s%s", nName, zName, zEnd);
  int bHave = z && bsearch(&z, p->az, (size_t)p->n, sizeof(*p->az),
                           importCompare) != NULL;
  sqlite3_free(z);
  return bHave;
}

/* A database that may be open, or one of the files beside it. */
static int importIsLive(const ChoirStoreNames *p, ChoirErr *pErr,
                        const char *z) {
  static const char *const azEnd[] = {"-wal", "-shm", "-journal"};
  int i, n = (int)strlen(z), bLive = 0;
  for (i = 0; i < 3 && !bLive; i++) {
    int nEnd = (int)strlen(azEnd[i]);
    bLive = importNamesHave(p, pErr, z, n, azEnd[i]) ||
            (n > nEnd && strcmp(z + n - nEnd, azEnd[i]) == 0 &&
             importNamesHave(p, pErr, z, n - nEnd, ""));
  }
  return bLive;
}

/* ------------------------------------------------------------------ walk */

static void importFile(ImportRun *p, int fdDir, const char *zName,
                       const char *zShow, const char *zPath) {
  ChoirErr one = {SQLITE_OK, NULL};
  ChoirStorePut put;
  struct stat st;
  int fd = choirStoreOpen(&one, &p->own, fdDir, zName, O_NOFOLLOW, zShow, &st);
  i64 nMax = sqlite3_limit(p->pConn->db, SQLITE_LIMIT_LENGTH, -1);
  memset(&put, 0, sizeof(put));
  put.zPath = zPath;
  if (fd < 0) {
    importSkipErr(p, IMPORT_UNREADABLE, zShow, &one);
  } else if (st.st_size >= nMax - 65536) {
    importSkip(p, IMPORT_SIZE, zShow, "larger than a row of SQLite can be");
  } else {
    choirStorePutFd(p->pConn, &one, &put, fd, st.st_size);
    if (one.rc == SQLITE_NOMEM) {
      choirErrNomem(p->pErr);
    } else if (one.rc != SQLITE_OK) {
      choirErrSet(p->pErr, one.rc, "%s: %s", zShow, one.zMsg);
    } else {
      p->anChange[put.eChange]++;
      p->nBinary += !put.bText;
      p->report.nFile++;
      p->report.nByte += put.n;
    }
    choirErrClear(&one);
  }
  if (fd >= 0) {
    close(fd);
  }
  sqlite3_free(put.zId);
}

static void importDir(ImportRun *p, int fd, const char *zShow,
                      const char *zPath, int iDepth);

/* One name of a folder: zShow is the folder on disk, zDir its path, both
** ending in '/'. */
static void importEntry(ImportRun *p, int fdDir, const ChoirStoreNames *pNames,
                        const char *zName, const char *zShow, const char *zDir,
                        int iDepth) {
  ChoirErr one = {SQLITE_OK, NULL};
  char *zFile = choirMprintf(p->pErr, "%s%s", zShow, zName);
  char *z = choirMprintf(p->pErr, "%s%s", zDir, zName);
  i64 nName = (i64)strlen(zName);
  char *zPath = NULL;
  struct stat st;
  if (choirUtf8Valid(zName, nName) < nName) {
    choirErrSet(&one, SQLITE_ERROR, "the name is not valid UTF-8");
  }
  zPath = choirStorePath(&one, z, "the name", CHOIR_STORE_FILE);
  if (p->pErr->rc != SQLITE_OK) {
    /* nothing more */
  } else if (zName[0] == '.') {
    importSkip(p, IMPORT_HIDDEN, zFile, NULL);
  } else if (fstatat(fdDir, zName, &st, AT_SYMLINK_NOFOLLOW) != 0) {
    importSkip(p, IMPORT_UNREADABLE, zFile, strerror(errno));
  } else if (S_ISLNK(st.st_mode)) {
    importSkip(p, IMPORT_LINK, zFile, NULL);
  } else if (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode)) {
    importSkip(p, IMPORT_SPECIAL, zFile, NULL);
  } else if (one.rc != SQLITE_OK) {
    importSkipErr(p, IMPORT_NAME, zFile, &one);
  } else if (S_ISREG(st.st_mode)) {
    if (choirStoreIsOwn(&p->own, &st) || importIsLive(pNames, p->pErr, zName)) {
      importSkip(p, IMPORT_DATABASE, zFile, NULL);
    } else {
      importFile(p, fdDir, zName, zFile, zPath);
    }
  } else if (iDepth == IMPORT_DEPTH) {
    importSkip(p, IMPORT_UNREADABLE, zFile, "more than 128 folders deep");
  } else {
    int fd =
        openat(fdDir, zName, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    char *zSub = choirMprintf(p->pErr, "%s/", zFile);
    char *zSubDir = choirMprintf(p->pErr, "%s/", zPath);
    if (fd < 0) {
      importSkip(p, IMPORT_UNREADABLE, zFile, strerror(errno));
    } else {
      importDir(p, fd, zSub, zSubDir, iDepth + 1);
    }
    sqlite3_free(zSub);
    sqlite3_free(zSubDir);
  }
  choirErrClear(&one);
  sqlite3_free(zFile);
  sqlite3_free(z);
  sqlite3_free(zPath);
}

/* The folder fd, which is closed. */
static void importDir(ImportRun *p, int fd, const char *zShow,
                      const char *zPath, int iDepth) {
  ChoirStoreNames names;
  int i;
  if (!choirStoreNamesRead(&names, p->pErr, fd)) {
    importSkip(p, IMPORT_UNREADABLE, zShow, strerror(errno));
  }
  for (i = 0; i < names.n && p->pErr->rc == SQLITE_OK; i++) {
    if (choirInterrupted(p->pConn)) {
      choirErrSet(p->pErr, SQLITE_INTERRUPT, "interrupted");
    } else {
      importEntry(p, fd, &names, names.az[i], zShow, zPath, iDepth);
      choirStoreProgress(&p->report, 0);
    }
  }
  choirStoreNamesFree(&names);
  close(fd);
}

static void importResult(ImportRun *p, const char *zPrefix,
                         sqlite3_context *pCtx) {
  ChoirBuf b;
  int i;
  choirBufInit(&b, p->pErr, CHOIR_BUF_SQL);
  choirBufPrintf(&b,
                 "\"files\":%lld,\"new\":%lld,\"changed\":%lld,"
                 "\"unchanged\":%lld,\"bytes\":%lld,\"binary\":%lld,"
                 "\"skipped\":{",
                 p->report.nFile, p->anChange[CHOIR_STORE_NEW],
                 p->anChange[CHOIR_STORE_CHANGED],
                 p->anChange[CHOIR_STORE_SAME], p->report.nByte, p->nBinary);
  for (i = 0; i < IMPORT_SKIPS; i++) {
    choirBufPrintf(&b, "%s\"%s\":%lld", i ? "," : "", azImportSkip[i],
                   p->anSkip[i]);
  }
  choirBufText(&b, "}");
  choirStoreReportResult(&p->report, "prefix", zPrefix, b.a, pCtx);
  choirBufFree(&b);
}

/*
** SQL: artifact_import(dir[, prefix]) -> TEXT
**
** Puts every file of a folder and its sub-folders under a path and returns a
** summary. Files that are there already with the same content are not written;
** nothing is deleted. One transaction: an error or an interrupt leaves nothing.
**
**   dir     TEXT, a folder, absolute or relative to the process
**   prefix  TEXT, the directory to put them in, default '/'
**
** The summary is a JSON object: prefix; files = new + changed + unchanged;
** bytes; binary, how many of the files are not text; skipped, an object of
** counts; problems, at most 100 objects of file and problem. Skipped are:
** hidden (names that begin with a dot, with all that is in them), link
** (symbolic links), special (sockets, pipes, devices), database (files of
** databases that are or may be open), name (not UTF-8, control characters, too
** long), size (larger than a row of SQLite, 1 GB by default), unreadable.
** Text (by name and valid UTF-8) is kept as TEXT, all else as a BLOB. On a
** terminal, progress is shown on stderr after a second.
**
** NULL: dir must be given; a NULL prefix means '/'.
** Errors: dir is not a folder that can be read; a file that changes while it
** is read; interrupted.
**
** > SELECT artifact_import('/no/such/folder')
** ! artifact_import: cannot open /no/such/folder: No such file or directory
*/
static void importCall(ChoirCall *p) {
  ImportRun run;
  ChoirTxn txn;
  ChoirErr *pErr = &p->err;
  const char *zDir = choirArgText(pErr, p->apArg[0], "dir");
  const char *z =
      p->nArg > 1 ? choirArgTextOrNull(pErr, p->apArg[1], "prefix") : NULL;
  char *zPrefix = choirStorePath(pErr, z ? z : "/", "prefix", CHOIR_STORE_DIR);
  char *zShow = NULL;
  int fd = -1;
  memset(&run, 0, sizeof(run));
  run.pConn = p->pConn;
  run.pErr = pErr;
  choirStoreReportInit(&run.report, pErr, "artifact_import");
  choirNeedWorkspace(p->pConn, pErr);
  choirStoreOwnInit(&run.own, p->pConn, pErr);
  if (pErr->rc == SQLITE_OK) {
    fd = open(zDir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
      choirErrSet(pErr, SQLITE_ERROR, "cannot open %s: %s", zDir,
                  strerror(errno));
    }
    zShow = choirMprintf(pErr, "%s%s", zDir,
                         zDir[0] && zDir[strlen(zDir) - 1] == '/' ? "" : "/");
  }
  choirTxnBegin(&txn, p->pConn, pErr);
  if (pErr->rc == SQLITE_OK) {
    importDir(&run, fd, zShow, zPrefix, 0);
    fd = -1;
  }
  choirTxnEnd(&txn, pErr);
  choirStoreProgress(&run.report, 1);
  importResult(&run, zPrefix, p->pCtx);
  if (fd >= 0) {
    close(fd);
  }
  choirBufFree(&run.report.problems);
  choirStoreOwnFree(&run.own);
  sqlite3_free(zShow);
  sqlite3_free(zPrefix);
}

static const ChoirFunc aImportFunc[] = {
    {"artifact_import", 1, 2, CHOIR_EFFECT, 0, importCall, NULL},
};

CHOIR_PRIVATE CHOIR_COLD void choirStoreImportRegister(ChoirConn *pConn,
                                                       ChoirErr *pErr) {
  choirFuncs(pConn, pErr, aImportFunc);
}

#else
CHOIR_PRIVATE CHOIR_COLD void choirStoreImportRegister(ChoirConn *pConn,
                                                       ChoirErr *pErr) {
  (void)pConn, (void)pErr;
}
#endif
