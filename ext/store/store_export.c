/* SPDX-License-Identifier: MIT */
/*
** artifact_export, state_export: artifacts, and the keys of the state, become
** files of this machine.
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
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
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

/* Removes new files that a killed export has left in this folder: whoever
** still writes one has it locked. */
static void exportSweep(ExportRun *p) {
  int fd = openat(p->fdDir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR *pDir = fd >= 0 ? fdopendir(fd) : NULL;
  struct dirent *pEnt;
  if (pDir == NULL && fd >= 0) {
    close(fd);
  }
  while (pDir && (pEnt = readdir(pDir)) != NULL) {
    if (sqlite3_strglob(".choir-????????????????????????.tmp", pEnt->d_name)) {
      continue;
    }
    fd = openat(p->fdDir, pEnt->d_name,
                O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd >= 0) {
      if (flock(fd, LOCK_EX | LOCK_NB) == 0) {
        unlinkat(p->fdDir, pEnt->d_name, 0);
      }
      close(fd);
    }
  }
  if (pDir) {
    closedir(pDir);
  }
}

/* A new file beside the old one, synced, then renamed over it. */
static void exportReplace(ExportRun *p, ChoirStoreContent *pFrom,
                          const char *zName, mode_t mMode, const char *zPath) {
  char zTemp[48];
  u64 aRandom[2];
  int fd;
  if (!p->bDirDirty) {
    exportSweep(p);
  }
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
  (void)flock(fd, LOCK_EX | LOCK_NB); /* see exportSweep */
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

/* Content becomes the file of zPath, below the root by what follows nPrefix
** bytes of it. */
static void exportFile(ExportRun *p, const char *zPath, int nPrefix,
                       ChoirStoreContent *pFrom) {
  const char *zName = choirStoreName(zPath), *zWhy;
  struct stat st;
  int bThere = 0;
  if (p->pErr->rc != SQLITE_OK ||
      !exportEnterDir(p, zPath + nPrefix, (int)(zName - zPath) - nPrefix,
                      zPath)) {
    return;
  }
  zWhy = exportInTheWay(p, zName, &st, &bThere);
  if (zWhy) {
    exportRefuse(p, zPath, "%s", zWhy);
    return;
  }
  if (bThere && exportEqual(p, pFrom, zName, zPath)) {
    p->nSame++;
  } else if (p->pErr->rc == SQLITE_OK) {
    exportReplace(p, pFrom, zName, bThere ? st.st_mode : 0, zPath);
  }
  p->report.nFile += p->pErr->rc == SQLITE_OK;
}

/* One artifact: path, typeof(content), s3_key, rowid. */
static void exportArtifact(ExportRun *p, sqlite3_stmt *pRow, int nPrefix) {
  const char *zPath = (const char *)sqlite3_column_text(pRow, 0);
  const char *zType = (const char *)sqlite3_column_text(pRow, 1);
  ChoirErr one = {SQLITE_OK, NULL};
  char *z = choirStorePath(&one, zPath, "path", CHOIR_STORE_FILE);
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
  } else {
    ChoirStoreContent content;
    choirStoreContentOpen(p->pConn, p->pErr, &content,
                          sqlite3_column_int64(pRow, 3));
    exportFile(p, zPath, nPrefix, &content);
    choirStoreContentClose(&content);
  }
  choirErrClear(&one);
  sqlite3_free(z);
}

static void exportAll(ExportRun *p, const char *zPrefix) {
  char *zEnd = choirStoreEnd(p->pErr, zPrefix);
  sqlite3_stmt *pRow =
      choirStmt(p->pConn, p->pErr,
                "SELECT path, typeof(content), s3_key, rowid"
                " FROM ~.artifacts WHERE " CHOIR_STORE_BELOW(
                    "path") " AND deleted_at IS NULL ORDER BY path");
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

/* Every key of the state as <key>.json. */
static void exportState(ExportRun *p) {
  sqlite3_stmt *pRow = choirStmt(
      p->pConn, p->pErr, "SELECT key_name FROM ~.state_storage ORDER BY 1");
  while (choirStep(p->pErr, pRow)) {
    const char *zKey = (const char *)sqlite3_column_text(pRow, 0);
    char *zJson = choirStoreStateValue(p->pConn, p->pErr, zKey);
    char *zFile = choirMprintf(p->pErr, "%s.json", zKey);
    char *zText = choirMprintf(p->pErr, "%s\n", zJson);
    ChoirErr one = {SQLITE_OK, NULL};
    char *zPath = choirStorePath(&one, zFile, "key", CHOIR_STORE_FILE);
    ChoirStoreContent content;
    memset(&content, 0, sizeof(content));
    content.a = zText;
    content.n = zText ? (i64)strlen(zText) : 0;
    if (one.rc == SQLITE_NOMEM) {
      choirErrNomem(p->pErr);
    } else if (zPath == NULL || (zFile && strcmp(zPath + 1, zFile) != 0)) {
      exportRefuse(p, zKey, "%s", "no file can have this key as its name");
    } else if (zText) {
      exportFile(p, zPath, 1, &content);
    }
    choirErrClear(&one);
    sqlite3_free(zPath);
    sqlite3_free(zText);
    sqlite3_free(zFile);
    sqlite3_free(zJson);
  }
  choirStmtDone(p->pConn, pRow);
  exportLeaveDir(p);
}

static void exportStart(ExportRun *p, ChoirCall *pCall, const char *zDir) {
  memset(p, 0, sizeof(*p));
  p->pConn = pCall->pConn;
  p->pErr = &pCall->err;
  p->fdRoot = p->fdDir = -1;
  choirStoreReportInit(&p->report, p->pErr, pCall->pFunc->zName);
  choirNeedWorkspace(p->pConn, p->pErr);
  choirStoreOwnInit(&p->own, p->pConn, p->pErr);
  p->aCompare = choirRealloc(p->pErr, NULL, (u64)CHOIR_STORE_CHUNK);
  if (p->pErr->rc == SQLITE_OK) {
    if (mkdir(zDir, 0777 & ~0002) == 0 || errno == EEXIST) {
      p->fdRoot = open(zDir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    }
    if (p->fdRoot < 0) {
      choirErrSet(p->pErr, SQLITE_ERROR, "cannot open %s: %s", zDir,
                  strerror(errno));
    }
  }
}

static void exportEnd(ExportRun *p, const char *zKey, const char *zName,
                      const char *zMore, sqlite3_context *pCtx) {
  char *z = choirMprintf(p->pErr,
                         "\"files\":%lld,\"written\":%lld,\"unchanged\":%lld,"
                         "\"bytes\":%lld,\"skipped\":{%s\"refused\":%lld}",
                         p->report.nFile, p->nWritten, p->nSame,
                         p->report.nByte, zMore, p->nRefused);
  choirStoreProgress(&p->report, 1);
  choirStoreReportResult(&p->report, zKey, zName, z, pCtx);
  if (p->fdRoot >= 0) {
    close(p->fdRoot);
  }
  sqlite3_free(p->aCompare);
  choirBufFree(&p->report.problems);
  choirStoreOwnFree(&p->own);
  sqlite3_free(z);
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
  char *zMore;
  exportStart(&run, p, zDir);
  if (pErr->rc == SQLITE_OK) {
    exportAll(&run, zPrefix);
  }
  zMore = choirMprintf(pErr, "\"remote\":%lld,\"empty\":%lld,", run.nRemote,
                       run.nEmpty);
  exportEnd(&run, "prefix", zPrefix, zMore, p->pCtx);
  sqlite3_free(zMore);
  sqlite3_free(zPrefix);
}

/*
** SQL: state_export([dir]) -> TEXT
**
** The whole state as one JSON object that state_import() reads, or, with a
** folder, every key as a file <key>.json in it; then a summary is returned.
** Files that are equal stay untouched, others are replaced by rename. Levels
** are not part of it: the table state_storage has them, and checkpoints.
**
**   dir  TEXT, a folder, made when it is missing; a/b becomes a/b.json in it
**
** The summary is a JSON object: dir; files = written + unchanged; bytes,
** written; skipped.refused (a key that no file can have as its name; something
** in the way); problems, at most 100 objects of file and problem.
**
** NULL: a NULL dir means none.
** Errors: the folder cannot be made or written to; a corrupt value that no
** checkpoint has.
**
** > WITH s AS MATERIALIZED (SELECT state_set('Mood', '$.now', 'calm') AS n)
** > SELECT state_export() FROM s
** = {"Mood":{"now":"calm"}}
*/
static void exportStateCall(ChoirCall *p) {
  const char *zDir =
      p->nArg > 0 ? choirArgTextOrNull(&p->err, p->apArg[0], "dir") : NULL;
  if (zDir) {
    ExportRun run;
    exportStart(&run, p, zDir);
    if (p->err.rc == SQLITE_OK) {
      exportState(&run);
    }
    exportEnd(&run, "dir", zDir, "", p->pCtx);
  } else {
    ChoirBuf b;
    choirNeedWorkspace(p->pConn, &p->err);
    choirBufInit(&b, &p->err, CHOIR_BUF_JSON);
    choirStoreStateJson(p->pConn, &p->err, &b, 3);
    choirBufResult(&b, p->pCtx);
  }
}

static const ChoirFunc aExportFunc[] = {
    {"artifact_export", 1, 2, CHOIR_EFFECT, 0, exportCall, NULL},
    {"state_export", 0, 1, CHOIR_EFFECT, 0, exportStateCall, NULL},
};

CHOIR_PRIVATE CHOIR_COLD void choirStoreExportRegister(ChoirConn *pConn,
                                                       ChoirErr *pErr) {
  choirFuncs(pConn, pErr, aExportFunc);
}

#else
CHOIR_PRIVATE CHOIR_COLD void choirStoreExportRegister(ChoirConn *pConn,
                                                       ChoirErr *pErr) {
  (void)pConn, (void)pErr;
}
#endif
