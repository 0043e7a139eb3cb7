/* SPDX-License-Identifier: MIT */
/*
** artifact_export: artifacts become files of this machine.
**
** Nothing is written outside the folder: every path is checked again as if it
** were foreign, every folder is entered by openat() without following links,
** and a file appears by rename() of a temporary one that was written and
** synced beside it. A file that is equal stays untouched; a regular file that
** differs is replaced; anything else in the way is reported and left alone, and
** so are the files of databases that are open on this connection.
*/
#include "store.h"

#if !defined(_WIN32)
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct ExportRun {
  ChoirConn *pConn;
  ChoirErr *pErr;
  ChoirStoreOwn own;
  ChoirStoreReport report;
  i64 nWritten, nSame, nRemote, nEmpty, nRefused;
  int fdRoot;
  int fdDir;      /* folder of the last file, or -1 */
  char *zDirRel;  /* its path below the root, with the last '/' */
  u8 bDirDirty;   /* something was renamed into it */
  char *aCompare; /* CHOIR_STORE_CHUNK bytes of the file */
} ExportRun;

static void exportRefuse(ExportRun *p, const char *zPath, const char *zFmt,
                         const char *zMore) {
  char *z = choirMprintf(p->pErr, zFmt, zMore);
  p->nRefused++;
  if (z) {
    choirStoreProblem(&p->report, zPath, z);
  }
  sqlite3_free(z);
}

/* --------------------------------------------------------------- folders */

static void exportLeaveDir(ExportRun *p) {
  if (p->fdDir >= 0) {
    if (p->bDirDirty && fsync(p->fdDir) != 0 && errno != EINVAL) {
      choirErrSet(p->pErr, SQLITE_ERROR, "cannot sync %s: %s", p->zDirRel,
                  strerror(errno));
    }
    close(p->fdDir);
  }
  p->fdDir = -1;
  p->bDirDirty = 0;
  sqlite3_free(p->zDirRel);
  p->zDirRel = NULL;
}

/* Enters the folder zRel ("a/b/", made where missing); 0 when it cannot. */
static int exportEnterDir(ExportRun *p, const char *zRel, int nRel,
                          const char *zPath) {
  const char *z = zRel;
  int fd;
  if (p->fdDir >= 0 && (int)strlen(p->zDirRel) == nRel &&
      memcmp(p->zDirRel, zRel, (size_t)nRel) == 0) {
    return 1;
  }
  exportLeaveDir(p);
  fd = fcntl(p->fdRoot, F_DUPFD_CLOEXEC, 0);
  if (fd < 0) {
    choirErrSet(p->pErr, SQLITE_ERROR, "cannot open the folder again: %s",
                strerror(errno));
  }
  while (fd >= 0 && z < zRel + nRel) {
    int nPart = (int)strcspn(z, "/");
    char *zPart = choirMprintf(p->pErr, "%.*s", nPart, z);
    int fdSub = -1, bMade = zPart && mkdirat(fd, zPart, 0777 & ~0002) == 0;
    if (zPart && (bMade || errno == EEXIST)) {
      fdSub =
          openat(fd, zPart, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    }
    if (fdSub < 0) {
      exportRefuse(p, zPath, "cannot enter or make its folder: %s",
                   strerror(errno));
    } else if (bMade) {
      fsync(fd);
    }
    sqlite3_free(zPart);
    close(fd);
    fd = fdSub;
    z += nPart + 1;
  }
  p->fdDir = fd;
  p->zDirRel = choirMprintf(p->pErr, "%.*s", nRel, zRel);
  return fd >= 0 && p->pErr->rc == SQLITE_OK;
}

/* ----------------------------------------------------------------- files */

/* Does the file hold just these bytes? */
static int exportEqual(ExportRun *p, ChoirStoreContent *pFrom,
                       const char *zName, const char *zPath) {
  ChoirErr one = {SQLITE_OK, NULL};
  struct stat st;
  int fd =
      choirStoreOpen(&one, &p->own, p->fdDir, zName, O_NOFOLLOW, zPath, &st);
  int bEqual = fd >= 0 && st.st_size == pFrom->n;
  i64 i;
  for (i = 0; bEqual && i < pFrom->n; i += CHOIR_STORE_CHUNK) {
    i64 n = pFrom->n - i < CHOIR_STORE_CHUNK ? pFrom->n - i : CHOIR_STORE_CHUNK;
    const char *a = choirStoreContentAt(p->pErr, pFrom, i, n);
    i64 nRead = 0, nNow = 1;
    while (nRead < n && nNow > 0) {
      nNow = pread(fd, p->aCompare + nRead, (size_t)(n - nRead), i + nRead);
      nRead += nNow > 0 ? nNow : 0;
    }
    bEqual = p->pErr->rc == SQLITE_OK && nRead == n &&
             memcmp(a, p->aCompare, (size_t)n) == 0;
  }
  if (fd >= 0) {
    close(fd);
  }
  choirErrClear(&one);
  return bEqual;
}

static void exportBytes(ExportRun *p, ChoirStoreContent *pFrom, int fd,
                        const char *zPath) {
  i64 i = 0;
  while (i < pFrom->n && p->pErr->rc == SQLITE_OK) {
    i64 n = pFrom->n - i < CHOIR_STORE_CHUNK ? pFrom->n - i : CHOIR_STORE_CHUNK;
    const char *a = choirStoreContentAt(p->pErr, pFrom, i, n);
    ssize_t nNow =
        p->pErr->rc == SQLITE_OK ? write(fd, a, (size_t)n) : (ssize_t)0;
    if (nNow < 0 && errno != EINTR) {
      choirErrSet(p->pErr, SQLITE_ERROR, "cannot write %s: %s", zPath,
                  strerror(errno));
    }
    i += nNow > 0 ? nNow : 0;
    if (choirInterrupted(p->pConn)) {
      choirErrSet(p->pErr, SQLITE_INTERRUPT, "interrupted");
    }
  }
}

/* A new file beside the old one, synced, then renamed over it. */
static void exportReplace(ExportRun *p, ChoirStoreContent *pFrom,
                          const char *zName, mode_t mMode, const char *zPath) {
  char zTemp[48];
  u64 aRandom[2];
  int fd;
  sqlite3_randomness(sizeof(aRandom), aRandom);
  sqlite3_snprintf((int)sizeof(zTemp), zTemp, ".choir-%016llx%08llx.tmp",
                   aRandom[0], aRandom[1] & 0xffffffff);
  fd = openat(p->fdDir, zTemp,
              O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
              0666 & ~0002);
  if (fd < 0) {
    choirErrSet(p->pErr, SQLITE_ERROR, "cannot write %s: %s", zPath,
                strerror(errno));
    return;
  }
  exportBytes(p, pFrom, fd, zPath);
  if (p->pErr->rc == SQLITE_OK &&
      ((mMode && fchmod(fd, mMode & 0775) != 0) || fsync(fd) != 0)) {
    choirErrSet(p->pErr, SQLITE_ERROR, "cannot write %s: %s", zPath,
                strerror(errno));
  }
  if (close(fd) != 0 || p->pErr->rc != SQLITE_OK ||
      renameat(p->fdDir, zTemp, p->fdDir, zName) != 0) {
    choirErrSet(p->pErr, SQLITE_ERROR, "cannot write %s: %s", zPath,
                strerror(errno));
    unlinkat(p->fdDir, zTemp, 0);
    return;
  }
  p->bDirDirty = 1;
  p->nWritten++;
  p->report.nByte += pFrom->n;
}

/* What is already in the way of zName, as a reason to refuse, or NULL. */
static const char *exportInTheWay(ExportRun *p, const char *zName,
                                  struct stat *pStat, int *pbThere) {
  struct stat stDir;
  *pbThere = fstatat(p->fdDir, zName, pStat, AT_SYMLINK_NOFOLLOW) == 0;
  if (!*pbThere && errno != ENOENT) {
    return strerror(errno);
  }
  if (fstat(p->fdDir, &stDir) != 0) {
    return strerror(errno);
  }
  if ((*pbThere && choirStoreIsOwn(&p->own, pStat)) ||
      choirStoreIsOwnName(&p->own, &stDir, zName)) {
    return "belongs to a database that is open on this connection";
  }
  if (*pbThere && !S_ISREG(pStat->st_mode)) {
    return S_ISDIR(pStat->st_mode)   ? "a folder is in its place"
           : S_ISLNK(pStat->st_mode) ? "a symbolic link is in its place"
                                     : "a device, pipe or socket is in its"
                                       " place";
  }
  return NULL;
}

/* One artifact: path, typeof(content), s3_key, rowid. */
static void exportArtifact(ExportRun *p, sqlite3_stmt *pRow, int nPrefix) {
  const char *zPath = (const char *)sqlite3_column_text(pRow, 0);
  const char *zType = (const char *)sqlite3_column_text(pRow, 1);
  ChoirErr one = {SQLITE_OK, NULL};
  char *z = choirStorePath(&one, zPath, "path", CHOIR_STORE_FILE);
  const char *zName, *zWhy = NULL;
  ChoirStoreContent content;
  struct stat st;
  int bThere = 0;
  if (zPath == NULL || zType == NULL || one.rc == SQLITE_NOMEM) {
    choirErrNomem(p->pErr);
  } else if (z == NULL || strcmp(z, zPath) != 0 ||
             (int)strlen(zPath) != sqlite3_column_bytes(pRow, 0)) {
    exportRefuse(p, zPath, "%s", one.zMsg ? one.zMsg : "not a plain path");
  } else if (strcmp(zType, "null") == 0) {
    int bRemote = sqlite3_column_type(pRow, 2) != SQLITE_NULL;
    p->nRemote += bRemote;
    p->nEmpty += !bRemote;
    choirStoreProblem(&p->report, zPath,
                      bRemote ? "the content is remote; fetch it by select"
                                " artifact_fetch(path)"
                              : "there is no content");
  } else if (exportEnterDir(p, zPath + nPrefix,
                            (int)(choirStoreName(zPath) - zPath) - nPrefix,
                            zPath)) {
    zName = choirStoreName(zPath);
    zWhy = exportInTheWay(p, zName, &st, &bThere);
    if (zWhy) {
      exportRefuse(p, zPath, "%s", zWhy);
    } else {
      choirStoreContentOpen(p->pConn, p->pErr, &content,
                            sqlite3_column_int64(pRow, 3));
      if (p->pErr->rc != SQLITE_OK) {
        /* nothing to compare */
      } else if (bThere && exportEqual(p, &content, zName, zPath)) {
        p->nSame++;
      } else {
        exportReplace(p, &content, zName, bThere ? st.st_mode : 0, zPath);
      }
      p->report.nFile += p->pErr->rc == SQLITE_OK;
      choirStoreContentClose(&content);
    }
  }
  choirErrClear(&one);
  sqlite3_free(z);
}

static void exportAll(ExportRun *p, const char *zPrefix) {
  char *zEnd = choirStoreEnd(p->pErr, zPrefix);
  sqlite3_stmt *pRow =
      choirStmt(p->pConn, p->pErr,
                "SELECT path, typeof(content), s3_key, rowid"
                " FROM ~.artifacts WHERE path >= ?1 AND path < ?2"
                " AND deleted_at IS NULL ORDER BY path");
  choirBindText(p->pErr, pRow, 1, zPrefix, -1);
  choirBindText(p->pErr, pRow, 2, zEnd, -1);
  while (choirStep(p->pErr, pRow)) {
    exportArtifact(p, pRow, (int)strlen(zPrefix));
    choirStoreProgress(&p->report, 0);
  }
  choirStmtDone(p->pConn, pRow);
  exportLeaveDir(p);
  sqlite3_free(zEnd);
}

static void exportResult(ExportRun *p, const char *zPrefix,
                         sqlite3_context *pCtx) {
  ChoirBuf b;
  if (p->pErr->rc != SQLITE_OK) {
    return;
  }
  choirBufInit(&b, p->pErr, CHOIR_BUF_JSON);
  choirBufText(&b, "{\"prefix\":");
  choirBufJson(&b, zPrefix, -1);
  choirBufPrintf(&b,
                 ",\"files\":%lld,\"written\":%lld,\"unchanged\":%lld,"
                 "\"bytes\":%lld,\"skipped\":{\"remote\":%lld,\"empty\":%lld,"
                 "\"refused\":%lld},\"problems\":[",
                 p->report.nFile, p->nWritten, p->nSame, p->report.nByte,
                 p->nRemote, p->nEmpty, p->nRefused);
  choirBufAppend(&b, p->report.problems.a, p->report.problems.n);
  choirBufText(&b, "]}");
  choirBufResult(&b, pCtx);
}

/*
** SQL: artifact_export(dir[, prefix]) -> TEXT
**
** Writes artifacts as files below a folder, which is made when it is missing,
** and returns a summary. Files that are equal stay untouched, files that
** differ are replaced (by rename, so nobody sees half a file), files that are
** not artifacts stay.
**
**   dir     TEXT, a folder, absolute or relative to the process
**   prefix  TEXT, the directory of artifacts to write, default '/'; '/docs/'
**           writes '/docs/a/b.md' as a/b.md
**
** The summary is a JSON object: prefix; files = written + unchanged; bytes,
** written; skipped, an object of counts; problems, at most 100 objects of file
** and problem. Skipped are: remote (the content is in the object store), empty
** (no content), refused (a stored path that leads elsewhere; a link, folder or
** device in the way, which is never followed or replaced; a file of a database
** that is open on this connection). New files get the mode that the umask
** gives, replaced ones keep theirs, and none may be written by everybody.
**
** NULL: dir must be given; a NULL prefix means '/'.
** Errors: the folder cannot be made or written to (what was written before
** stays); interrupted.
**
** > SELECT artifact_export('/no/such/folder')
** ! artifact_export: cannot open /no/such/folder: No such file or directory
*/
static void exportCall(ChoirCall *p) {
  ChoirErr *pErr = &p->err;
  ExportRun run;
  const char *zDir = choirArgText(pErr, p->apArg[0], "dir");
  const char *z =
      p->nArg > 1 ? choirArgTextOrNull(pErr, p->apArg[1], "prefix") : NULL;
  char *zPrefix = choirStorePath(pErr, z ? z : "/", "prefix", CHOIR_STORE_DIR);
  memset(&run, 0, sizeof(run));
  run.pConn = p->pConn;
  run.pErr = pErr;
  run.fdRoot = run.fdDir = -1;
  choirStoreReportInit(&run.report, pErr, "artifact_export");
  choirNeedWorkspace(p->pConn, pErr);
  choirStoreOwnInit(&run.own, p->pConn, pErr);
  run.aCompare = choirRealloc(pErr, NULL, (u64)CHOIR_STORE_CHUNK);
  if (pErr->rc == SQLITE_OK) {
    if (mkdir(zDir, 0777 & ~0002) == 0 || errno == EEXIST) {
      run.fdRoot = open(zDir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    }
    if (run.fdRoot < 0) {
      choirErrSet(pErr, SQLITE_ERROR, "cannot open %s: %s", zDir,
                  strerror(errno));
    }
  }
  if (pErr->rc == SQLITE_OK) {
    exportAll(&run, zPrefix);
  }
  choirStoreProgress(&run.report, 1);
  exportResult(&run, zPrefix, p->pCtx);
  if (run.fdRoot >= 0) {
    close(run.fdRoot);
  }
  sqlite3_free(run.aCompare);
  choirBufFree(&run.report.problems);
  choirStoreOwnFree(&run.own);
  sqlite3_free(zPrefix);
}

static const ChoirFunc aExportFunc[] = {
    {"artifact_export", 1, 2, CHOIR_EFFECT, 0, exportCall, NULL},
};

CHOIR_PRIVATE void choirStoreExportRegister(ChoirConn *pConn, ChoirErr *pErr) {
  choirFuncs(pConn, pErr, aExportFunc);
}

#else
CHOIR_PRIVATE void choirStoreExportRegister(ChoirConn *pConn, ChoirErr *pErr) {
  (void)pConn, (void)pErr;
}
#endif
