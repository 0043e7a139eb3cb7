/* SPDX-License-Identifier: MIT */
/*
** The file:// backend: a folder as an object store, and the private files that
** choir writes anywhere.
**
**   file:///srv/backup/ws.sqlite    root /srv/backup, key ws.sqlite
**   file:///srv/backup/             root /srv/backup
**
** The root is named by the user and must exist: a folder made silently where a
** disk should have been mounted would be a backup in the wrong place. Folders
** below it that a key needs are made (0700). Below the root no symbolic link
** is followed (O_NOFOLLOW for every part), so no key leads out of it.
**
** A put writes `.choir-tmp-<random>` (O_EXCL, 0600) beside its target, fsyncs
** it, then renames it, over what is there or only where nothing is, and fsyncs
** the folder. Compare-and-swap compares and renames under flock on `.choir-lock`
** in the target's folder. That file is empty and stays: the lock is the
** kernel's and dies with its holder, never the file's existence. Writers hold
** flock on their temporary file, so one left by a crash is recognised by being
** lockable, and removed by the next put.
**
** A file of a database that is open on the connection is neither read (closing it
** would drop SQLite's locks) nor replaced nor deleted (SQLite would go on with a
** file that has no name).
**
** The etag is inode, size and modification time in nanoseconds: every write
** makes a new inode.
*/
#include "object.h"
#include "../store/store.h"

#if !defined(_WIN32)

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define FOLDER_TMP ".choir-tmp-"
#define FOLDER_LOCK ".choir-lock"
#define FOLDER_CHUNK ((u64)1 << 18)
#define FOLDER_DIR (O_RDONLY | O_DIRECTORY | O_CLOEXEC)
#define FOLDER_WAIT 10000 /* milliseconds to wait for the lock */
#define FOLDER_DEPTH 64   /* folders below the root that a listing enters */

typedef struct FolderStore {
  ChoirObject base;
  char *zRoot; /* for messages, without a '/' behind */
  int fdRoot;
  u8 bSwept; /* looked for leftovers */
} FolderStore;

CHOIR_PRIVATE void choirErrno(ChoirErr *pErr, int iErrno, const char *zDo,
                              const char *zWhat) {
  int rc = SQLITE_IOERR;
  switch (iErrno) {
  case ENOMEM:
    choirErrNomem(pErr);
    return;
  case ENOSPC:
  case EDQUOT:
  case EFBIG:
    rc = SQLITE_FULL;
    break;
  case EACCES:
  case EPERM:
  case EROFS:
    rc = SQLITE_READONLY;
    break;
  case ENOENT:
  case ENOTDIR:
  case ELOOP:
  case EISDIR:
    rc = SQLITE_CANTOPEN;
    break;
  default:
    break;
  }
  choirErrSet(pErr, rc, "cannot %s%s%s%s: %s", zDo, zWhat ? " '" : "",
              zWhat ? zWhat : "", zWhat ? "'" : "",
              iErrno == ELOOP ? "a symbolic link is not followed here"
                              : strerror(iErrno));
}

/* --------------------------------------------------------- bytes of a fd */

CHOIR_PRIVATE void choirFdWrite(ChoirErr *pErr, int fd, u64 iOff, const void *a,
                                u64 n) {
  choirFileWrite(pErr, fd, NULL, iOff, a, n);
}

CHOIR_PRIVATE void choirFileWrite(ChoirErr *pErr, int fd, const char *zFor,
                                  u64 iOff, const void *a, u64 n) {
  const char *z = a;
  while (n > 0 && pErr->rc == SQLITE_OK) {
    ssize_t m = pwrite(fd, z, (size_t)n, (off_t)iOff);
    if (m < 0 && errno == ENOSPC && zFor == NULL) {
      choirErrSet(pErr, SQLITE_FULL,
                  "cannot write a temporary file: %s; set SQLITE_TMPDIR to a"
                  " folder with more room",
                  strerror(errno));
    } else if (m < 0 && errno != EINTR) {
      choirErrno(pErr, errno, zFor ? "write" : "write a temporary file", zFor);
    } else if (m > 0) {
      z += m;
      n -= (u64)m;
      iOff += (u64)m;
    }
  }
}

CHOIR_PRIVATE void choirFdRead(ChoirErr *pErr, int fd, u64 iOff, void *a,
                               u64 n) {
  char *z = a;
  while (n > 0 && pErr->rc == SQLITE_OK) {
    ssize_t m = pread(fd, z, (size_t)n, (off_t)iOff);
    if (m < 0 && errno != EINTR) {
      choirErrno(pErr, errno, "read a file", NULL);
    } else if (m == 0) {
      choirErrSet(pErr, SQLITE_IOERR,
                  "a file became shorter while it was read");
    } else if (m > 0) {
      z += m;
      n -= (u64)m;
      iOff += (u64)m;
    }
  }
}

/* --------------------------------------------------------- private files */

static i64 folderNanos(const struct stat *p) {
#if defined(__APPLE__)
  return (i64)p->st_mtimespec.tv_sec * 1000000000 + p->st_mtimespec.tv_nsec;
#else
  return (i64)p->st_mtim.tv_sec * 1000000000 + p->st_mtim.tv_nsec;
#endif
}

CHOIR_PRIVATE void choirFileNotOwn(ChoirErr *pErr, ChoirConn *pConn, int fdDir,
                                   const char *zName, const char *zShow) {
  ChoirStoreOwn own;
  struct stat st;
  choirStoreOwnInit(&own, pConn, pErr);
  if ((fstat(fdDir, &st) == 0 && choirStoreIsOwnName(&own, &st, zName)) ||
      (fstatat(fdDir, zName, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
       choirStoreIsOwn(&own, &st))) {
    choirErrSet(pErr, SQLITE_ERROR,
                "'%s' belongs to a database that is open on this connection",
                zShow);
  }
  choirStoreOwnFree(&own);
}

/* Removes temporary files that nobody writes any more, of iBefore or older; how
** many. */
static i64 folderSweep(int fdDir, i64 iBefore) {
  int fd = openat(fdDir, ".", FOLDER_DIR);
  DIR *pDir = fd >= 0 ? fdopendir(fd) : NULL;
  struct dirent *pEnt;
  i64 n = 0;
  if (pDir == NULL) {
    if (fd >= 0) {
      close(fd);
    }
    return 0;
  }
  while ((pEnt = readdir(pDir)) != NULL) {
    struct stat st;
    if (strncmp(pEnt->d_name, FOLDER_TMP, sizeof(FOLDER_TMP) - 1) != 0) {
      continue;
    }
    fd = openat(fdDir, pEnt->d_name,
                O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0) {
      continue;
    }
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) &&
        folderNanos(&st) / 1000000 <= iBefore &&
        flock(fd, LOCK_EX | LOCK_NB) == 0) {
      n += unlinkat(fdDir, pEnt->d_name, 0) == 0;
    }
    close(fd);
  }
  closedir(pDir);
  return n;
}

CHOIR_PRIVATE void choirTempOpen(ChoirTemp *p, ChoirErr *pErr, int fdDir,
                                 const char *zFor) {
  int nTry;
  p->fdDir = fdDir;
  p->fd = -1;
  p->zLast = NULL;
  for (nTry = 0; nTry < 8 && p->fd < 0 && pErr->rc == SQLITE_OK; nTry++) {
    struct stat st;
    u64 iRandom;
    sqlite3_randomness(sizeof(iRandom), &iRandom);
    sqlite3_snprintf(sizeof(p->zName), p->zName, FOLDER_TMP "%016llx", iRandom);
    p->fd = openat(fdDir, p->zName,
                   O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (p->fd < 0) {
      if (errno != EEXIST) {
        choirErrno(pErr, errno, "write", zFor);
      }
      continue;
    }
    /* The lock says that somebody is writing. A sweep that came in between
    ** holds it or has removed the name: then another name is taken. */
    (void)fchmod(p->fd, 0600);
    if ((flock(p->fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) ||
        fstat(p->fd, &st) != 0 || st.st_nlink == 0) {
      close(p->fd);
      p->fd = -1;
    }
  }
  if (p->fd < 0) {
    choirErrSet(pErr, SQLITE_IOERR, "cannot write '%s'", zFor);
  }
}

CHOIR_PRIVATE void choirTempBeside(ChoirTemp *p, ChoirErr *pErr,
                                   const char *zFile) {
  const char *zSlash = strrchr(zFile, '/');
  const char *zLast = zSlash ? zSlash + 1 : zFile;
  char *zDir = choirMprintf(pErr, "%.*s", zSlash ? (int)(zSlash - zFile) : 1,
                            zSlash ? zFile : ".");
  int fdDir = -1;
  memset(p, 0, sizeof(*p));
  p->fd = -1;
  if (zDir && zLast[0] == 0) {
    choirErrSet(pErr, SQLITE_ERROR, "'%s' is a folder; name a file in it",
                zFile);
  } else if (zDir) {
    fdDir = open(zDir[0] ? zDir : "/", FOLDER_DIR);
    if (fdDir < 0) {
      choirErrno(pErr, errno, "open the folder", zDir);
    }
  }
  if (fdDir >= 0) {
    (void)folderSweep(fdDir, INT64_MAX);
    choirTempOpen(p, pErr, fdDir, zFile);
    p->zLast = zLast;
  }
  sqlite3_free(zDir);
}

CHOIR_PRIVATE void choirTempClose(ChoirTemp *p) {
  if (p->fd >= 0) {
    if (p->zName[0]) {
      (void)unlinkat(p->fdDir, p->zName, 0);
    }
    close(p->fd);
    p->fd = -1;
  }
  if (p->zLast) {
    close(p->fdDir);
    p->zLast = NULL;
  }
}

static void folderSyncDir(ChoirErr *pErr, int fdDir) {
  /* Some file systems cannot sync a folder and say EINVAL. */
  if (fsync(fdDir) != 0 && errno != EINVAL) {
    choirErrno(pErr, errno, "sync a folder", NULL);
  }
}

/* rename that fails with EEXIST where zTo is: in one step, or, on a file system
** or a libc that cannot, by a link and the removal of the old name. */
static int folderRenameNew(int fdDir, const char *zFrom, const char *zTo) {
  int rc;
#if defined(__GLIBC__) /* another libc has no such macro to ask */
#if __GLIBC_PREREQ(2, 28)
  extern int renameat2(int, const char *, int, const char *, unsigned);
  rc = renameat2(fdDir, zFrom, fdDir, zTo, 1 /* RENAME_NOREPLACE */);
  if (rc == 0 || (errno != EINVAL && errno != ENOSYS)) {
    return rc;
  }
#endif
#endif
  rc = linkat(fdDir, zFrom, fdDir, zTo, 0);
  if (rc == 0) {
    (void)unlinkat(fdDir, zFrom, 0);
  }
  return rc;
}

CHOIR_PRIVATE int choirTempPublish(ChoirTemp *p, ChoirErr *pErr,
                                   const char *zName, int bReplace) {
  if (pErr->rc == SQLITE_OK && fsync(p->fd) != 0) {
    choirErrno(pErr, errno, "sync", zName);
  }
  if (pErr->rc != SQLITE_OK) {
    return CHOIR_OBJECT_FAILED;
  }
  if ((bReplace ? renameat(p->fdDir, p->zName, p->fdDir, zName)
                : folderRenameNew(p->fdDir, p->zName, zName)) == 0) {
    p->zName[0] = 0;
  } else if (errno == EEXIST && !bReplace) {
    return CHOIR_OBJECT_CHANGED;
  } else {
    choirErrno(pErr, errno, bReplace ? "replace" : "create", zName);
  }
  folderSyncDir(pErr, p->fdDir);
  return pErr->rc == SQLITE_OK ? CHOIR_OBJECT_OK : CHOIR_OBJECT_FAILED;
}

CHOIR_PRIVATE int choirTempAnonymous(ChoirErr *pErr) {
  const char *azDir[4];
  int i, iErrno = 0;
  azDir[0] = getenv("SQLITE_TMPDIR");
  azDir[1] = getenv("TMPDIR");
  azDir[2] = "/var/tmp";
  azDir[3] = "/tmp";
  for (i = 0; i < 4 && pErr->rc == SQLITE_OK; i++) {
    ChoirErr err = {0, NULL};
    ChoirTemp tmp;
    int fdDir, fd = -1;
    if (azDir[i] == NULL || azDir[i][0] != '/') {
      continue;
    }
    fdDir = open(azDir[i], FOLDER_DIR);
    if (fdDir < 0) {
      iErrno = errno;
      continue;
    }
#if defined(__O_TMPFILE) /* O_TMPFILE of Linux: it never has a name */
    fd = openat(fdDir, ".", __O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
#endif
    if (fd < 0) {
      choirTempOpen(&tmp, &err, fdDir, azDir[i]);
      if (err.rc == SQLITE_OK) {
        (void)unlinkat(fdDir, tmp.zName, 0);
        fd = tmp.fd;
      }
    }
    close(fdDir);
    choirErrClear(&err);
    if (fd >= 0) {
      return fd;
    }
  }
  choirErrSet(pErr, SQLITE_CANTOPEN,
              "no folder for temporary files%s%s; set SQLITE_TMPDIR",
              iErrno ? ": " : "", iErrno ? strerror(iErrno) : "");
  return -1;
}

/* ------------------------------------------------------------------ paths */

/* Where an object is: its folder, opened, and its name there. */
typedef struct FolderPlace {
  int fd; /* -1: there is no such folder */
  const char *zName;
  char *zShow; /* the path, for messages */
} FolderPlace;

static void folderLeave(FolderPlace *p) {
  if (p->fd >= 0) {
    close(p->fd);
  }
  sqlite3_free(p->zShow);
}

/* The next folder on the way to zKey, whose path is zKey[0..n) below the root;
** -1: there is none (not an error), or sticky. */
static int folderStep(const FolderStore *p, ChoirErr *pErr, int fdDir,
                      const char *zPart, const char *zKey, size_t n,
                      int bCreate) {
  char *zShow = choirMprintf(pErr, "%s/%.*s", p->zRoot, (int)n, zKey);
  int fd, iMake = 0;
  if (bCreate && mkdirat(fdDir, zPart, 0700) == 0) {
    folderSyncDir(pErr, fdDir);
  } else if (bCreate) {
    iMake = errno;
  }
  fd = openat(fdDir, zPart, FOLDER_DIR | O_NOFOLLOW);
  if (fd < 0 && errno == ENOENT && bCreate) {
    choirErrno(pErr, iMake, "make the folder", zShow);
  } else if (fd < 0 && errno != ENOENT) {
    struct stat st; /* a link that O_DIRECTORY sees first is ENOTDIR */
    int iErrno = errno;
    int bLink = fstatat(fdDir, zPart, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
                S_ISLNK(st.st_mode);
    choirErrno(pErr, bLink ? ELOOP : iErrno, "enter", zShow);
  }
  sqlite3_free(zShow);
  return fd;
}

/* 1: the folder of zKey is there, or was made. folderLeave() in any case. */
static int folderEnter(FolderStore *p, ChoirErr *pErr, const char *zKey,
                       int bCreate, FolderPlace *pAt) {
  const char *zSlash;
  char zPart[256];
  pAt->zName = zKey;
  pAt->zShow = choirMprintf(pErr, "%s/%s", p->zRoot, zKey);
  pAt->fd = fcntl(p->fdRoot, F_DUPFD_CLOEXEC, 0);
  if (pAt->fd < 0) {
    choirErrno(pErr, errno, "open", p->zRoot);
  }
  while (pAt->fd >= 0 && (zSlash = strchr(pAt->zName, '/')) != NULL) {
    int fd;
    sqlite3_snprintf(sizeof(zPart), zPart, "%.*s", (int)(zSlash - pAt->zName),
                     pAt->zName);
    fd = folderStep(p, pErr, pAt->fd, zPart, zKey, (size_t)(zSlash - zKey),
                    bCreate);
    close(pAt->fd);
    pAt->fd = fd;
    pAt->zName = zSlash + 1;
  }
  return pAt->fd >= 0 && pErr->rc == SQLITE_OK;
}

static void folderMeta(const struct stat *pStat, ChoirObjectMeta *pMeta) {
  pMeta->nByte = (u64)pStat->st_size;
  pMeta->iModified = folderNanos(pStat) / 1000000;
  sqlite3_snprintf(sizeof(pMeta->zEtag), pMeta->zEtag, "%llx-%llx-%llx",
                   (u64)pStat->st_ino, (u64)pStat->st_size,
                   (u64)folderNanos(pStat));
}

/* What is zName, whose path is zShow? */
static int folderStat(ChoirErr *pErr, int fdDir, const char *zName,
                      const char *zShow, ChoirObjectMeta *pMeta) {
  struct stat st;
  if (fstatat(fdDir, zName, &st, AT_SYMLINK_NOFOLLOW) != 0) {
    if (errno == ENOENT) {
      return CHOIR_OBJECT_ABSENT;
    }
    choirErrno(pErr, errno, "look at", zShow);
  } else if (S_ISLNK(st.st_mode)) {
    choirErrno(pErr, ELOOP, "use", zShow);
  } else if (!S_ISREG(st.st_mode)) {
    choirErrSet(pErr, SQLITE_CANTOPEN, "'%s' is not a file", zShow);
  } else {
    folderMeta(&st, pMeta);
  }
  return CHOIR_OBJECT_OK;
}

/* ---------------------------------------------------------------- methods */

static int folderHead(ChoirObject *pObj, ChoirErr *pErr, const char *zKey,
                      ChoirObjectMeta *pMeta) {
  FolderPlace at;
  int e = CHOIR_OBJECT_ABSENT;
  if (folderEnter((FolderStore *)pObj, pErr, zKey, 0, &at)) {
    e = folderStat(pErr, at.fd, at.zName, at.zShow, pMeta);
  }
  folderLeave(&at);
  return e;
}

static void folderSend(ChoirErr *pErr, ChoirConn *pConn, int fd, u64 iOff,
                       u64 n, ChoirObjectWrite x, void *pArg) {
  char *a = choirMalloc(pErr, FOLDER_CHUNK);
  while (a && n > 0 && pErr->rc == SQLITE_OK) {
    u64 m = n < FOLDER_CHUNK ? n : FOLDER_CHUNK;
    choirFdRead(pErr, fd, iOff, a, m);
    if (pErr->rc == SQLITE_OK) {
      x(pArg, pErr, a, m);
    }
    iOff += m;
    n -= m;
    if (choirInterrupted(pConn)) {
      choirErrSet(pErr, SQLITE_INTERRUPT, "interrupted");
    }
  }
  sqlite3_free(a);
}

static int folderGet(ChoirObject *pObj, ChoirErr *pErr, const char *zKey,
                     i64 iOff, i64 nByte, ChoirObjectMeta *pMeta,
                     ChoirObjectWrite x, void *pArg) {
  FolderPlace at;
  int e = CHOIR_OBJECT_ABSENT;
  if (folderEnter((FolderStore *)pObj, pErr, zKey, 0, &at)) {
    choirFileNotOwn(pErr, pObj->pConn, at.fd, at.zName, at.zShow);
    e = folderStat(pErr, at.fd, at.zName, at.zShow, pMeta);
  }
  if (e == CHOIR_OBJECT_OK && pErr->rc == SQLITE_OK) {
    struct stat st;
    int fd =
        openat(at.fd, at.zName, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0 && errno == ENOENT) {
      e = CHOIR_OBJECT_ABSENT;
    } else if (fd < 0 || fstat(fd, &st) != 0) {
      choirErrno(pErr, errno, "open", at.zShow);
    } else {
      u64 n, iFrom = iOff < 0 ? 0 : (u64)iOff;
      folderMeta(&st, pMeta); /* of the bytes that are read */
      iFrom = iFrom < pMeta->nByte ? iFrom : pMeta->nByte;
      n = pMeta->nByte - iFrom;
      n = nByte >= 0 && (u64)nByte < n ? (u64)nByte : n;
      folderSend(pErr, pObj->pConn, fd, iFrom, n, x, pArg);
    }
    if (fd >= 0) {
      close(fd);
    }
  }
  folderLeave(&at);
  return e;
}

/* The lock of the folder that pAt is in; -1 and sticky when it cannot be had in
** time. */
static int folderLock(ChoirConn *pConn, ChoirErr *pErr,
                      const FolderPlace *pAt) {
  i64 iEnd = choirMonotonic() + FOLDER_WAIT;
  int fd = -1;
  char *zShow =
      choirMprintf(pErr, "%.*s" FOLDER_LOCK,
                   (int)(strlen(pAt->zShow) - strlen(pAt->zName)), pAt->zShow);
  if (pErr->rc == SQLITE_OK) {
    fd = openat(pAt->fd, FOLDER_LOCK, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW,
                0600);
    if (fd < 0) {
      choirErrno(pErr, errno, "open the lock file", zShow);
    }
  }
  while (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK && errno != EINTR) {
      choirErrno(pErr, errno, "lock", zShow);
    } else if (choirInterrupted(pConn)) {
      choirErrSet(pErr, SQLITE_INTERRUPT, "interrupted");
    } else if (choirMonotonic() > iEnd) {
      choirErrSet(pErr, SQLITE_BUSY,
                  "somebody else has held the lock '%s' for %d seconds; try"
                  " again",
                  zShow, FOLDER_WAIT / 1000);
    }
    if (pErr->rc != SQLITE_OK) {
      close(fd);
      fd = -1;
    } else {
      sqlite3_sleep(5);
    }
  }
  sqlite3_free(zShow);
  return fd;
}

static void folderFill(ChoirErr *pErr, ChoirConn *pConn, int fd,
                       const char *zShow, const ChoirObjectSource *pSource) {
  char *a = choirMalloc(pErr, FOLDER_CHUNK);
  u64 iOff = 0;
  while (a && iOff < pSource->nByte && pErr->rc == SQLITE_OK) {
    u64 n = pSource->nByte - iOff;
    n = n < FOLDER_CHUNK ? n : FOLDER_CHUNK;
    pSource->xRead(pSource->pArg, pErr, iOff, a, n);
    choirFileWrite(pErr, fd, zShow, iOff, a, n);
    iOff += n;
    if (choirInterrupted(pConn)) {
      choirErrSet(pErr, SQLITE_INTERRUPT, "interrupted");
    }
  }
  sqlite3_free(a);
}

/* Compare and rename, under the folder's lock. */
static int folderSwap(ChoirConn *pConn, ChoirErr *pErr, ChoirTemp *pTmp,
                      const FolderPlace *pAt, const char *zEtag) {
  ChoirObjectMeta now;
  int fdLock = folderLock(pConn, pErr, pAt);
  int e = CHOIR_OBJECT_FAILED;
  if (fdLock < 0) {
    return e;
  }
  e = folderStat(pErr, pAt->fd, pAt->zName, pAt->zShow, &now);
  if (pErr->rc == SQLITE_OK && zEtag &&
      (e == CHOIR_OBJECT_ABSENT || strcmp(now.zEtag, zEtag) != 0)) {
    e = CHOIR_OBJECT_CHANGED;
  } else {
    e = choirTempPublish(pTmp, pErr, pAt->zName, 1);
  }
  close(fdLock);
  return e;
}

static int folderPut(ChoirObject *pObj, ChoirErr *pErr, const char *zKey,
                     const ChoirObjectSource *pSource, int eIf,
                     const char *zEtag, ChoirObjectMeta *pNew) {
  FolderStore *p = (FolderStore *)pObj;
  FolderPlace at;
  ChoirTemp tmp = {-1, -1, NULL, ""};
  struct stat st;
  int e = CHOIR_OBJECT_FAILED;
  if (folderEnter(p, pErr, zKey, 1, &at)) {
    choirFileNotOwn(pErr, pObj->pConn, at.fd, at.zName, at.zShow);
    if (!p->bSwept) {
      p->bSwept = 1;
      (void)folderSweep(at.fd, INT64_MAX);
    }
    choirTempOpen(&tmp, pErr, at.fd, at.zShow);
  }
  if (tmp.fd >= 0) {
    folderFill(pErr, pObj->pConn, tmp.fd, at.zShow, pSource);
    if (pErr->rc == SQLITE_OK && fsync(tmp.fd) != 0) {
      choirErrno(pErr, errno, "sync", at.zShow); /* before the lock is taken */
    }
    if (pErr->rc == SQLITE_OK && fstat(tmp.fd, &st) == 0) {
      folderMeta(&st, pNew);
    }
    if (pErr->rc == SQLITE_OK) {
      e = eIf == CHOIR_IF_ABSENT
              ? choirTempPublish(&tmp, pErr, at.zName, 0)
              : folderSwap(pObj->pConn, pErr, &tmp, &at,
                           eIf == CHOIR_IF_MATCH ? zEtag : NULL);
    }
    choirTempClose(&tmp);
  }
  folderLeave(&at);
  return e;
}

static int folderDelete(ChoirObject *pObj, ChoirErr *pErr, const char *zKey,
                        const char *zEtag) {
  FolderPlace at;
  ChoirObjectMeta now;
  int e = CHOIR_OBJECT_ABSENT, fdLock = -1;
  if (folderEnter((FolderStore *)pObj, pErr, zKey, 0, &at)) {
    choirFileNotOwn(pErr, pObj->pConn, at.fd, at.zName, at.zShow);
    fdLock = folderLock(pObj->pConn, pErr, &at);
  }
  if (fdLock >= 0) {
    e = folderStat(pErr, at.fd, at.zName, at.zShow, &now);
    if (e == CHOIR_OBJECT_OK && pErr->rc == SQLITE_OK && zEtag &&
        strcmp(now.zEtag, zEtag) != 0) {
      e = CHOIR_OBJECT_CHANGED;
    } else if (e == CHOIR_OBJECT_OK && pErr->rc == SQLITE_OK) {
      if (unlinkat(at.fd, at.zName, 0) != 0) {
        choirErrno(pErr, errno, "delete", at.zShow);
      }
      folderSyncDir(pErr, at.fd);
    }
    close(fdLock);
  }
  folderLeave(&at);
  return e;
}

/* ---------------------------------------------------------------- listing */

typedef struct FolderList {
  const ChoirObjectRange *pRange;
  i64 nLeft; /* keys still wanted */
  ChoirObjectEach xEach;
  void *pArg;
} FolderList;

static int folderNameCmp(const void *pA, const void *pB) {
  return strcmp(*(char *const *)pA, *(char *const *)pB);
}

/* The names in a folder, folders with a '/' behind: then the order of names
** is the order of keys. Count, or -1; the caller frees names and array. */
static int folderNames(ChoirErr *pErr, int fdDir, char ***pazName) {
  int fd = openat(fdDir, ".", FOLDER_DIR);
  DIR *pDir = fd >= 0 ? fdopendir(fd) : NULL;
  struct dirent *pEnt;
  char **az = NULL;
  int n = 0, nAlloc = 0;
  if (pDir == NULL) {
    choirErrno(pErr, errno, "list a folder", NULL);
    if (fd >= 0) {
      close(fd);
    }
    return 0;
  }
  while (errno = 0, pErr->rc == SQLITE_OK && (pEnt = readdir(pDir)) != NULL) {
    const char *z = pEnt->d_name;
    struct stat st;
    if (strcmp(z, ".") == 0 || strcmp(z, "..") == 0 ||
        strncmp(z, ".choir-", 7) == 0 ||
        fstatat(fdDir, z, &st, AT_SYMLINK_NOFOLLOW) != 0 ||
        !(S_ISREG(st.st_mode) || S_ISDIR(st.st_mode))) {
      continue;
    }
    if (n == nAlloc) {
      char **azNew;
      nAlloc = nAlloc ? nAlloc * 2 : 64;
      azNew = choirRealloc(pErr, az, (u64)nAlloc * sizeof(char *));
      if (azNew == NULL) {
        break;
      }
      az = azNew;
    }
    az[n] = choirMprintf(pErr, "%s%s", z, S_ISDIR(st.st_mode) ? "/" : "");
    n += az[n] != NULL;
  }
  if (pErr->rc == SQLITE_OK && errno != 0) {
    choirErrno(pErr, errno, "list a folder", NULL);
  }
  closedir(pDir);
  if (n) {
    qsort(az, (size_t)n, sizeof(char *), folderNameCmp);
  }
  *pazName = az;
  return n;
}

/* Is zKey, or may be what is below the folder zKey, in the range? */
static int folderMeets(const char *zKey, int bDir, const ChoirObjectRange *p) {
  size_t nKey = strlen(zKey), nPrefix = strlen(p->zPrefix);
  if (strncmp(zKey, p->zPrefix, bDir && nKey < nPrefix ? nKey : nPrefix) != 0) {
    return 0;
  }
  return p->zFrom == NULL || strcmp(zKey, p->zFrom) >= (p->bAfter ? 1 : 0) ||
         (bDir && strncmp(zKey, p->zFrom, nKey) == 0);
}

static void folderWalk(FolderList *p, ChoirErr *pErr, int fdDir,
                       const char *zDir, int iDepth) {
  char **azName = NULL;
  int i, n = folderNames(pErr, fdDir, &azName);
  for (i = 0; i < n; i++) {
    size_t nName = strlen(azName[i]);
    int bDir = azName[i][nName - 1] == '/';
    char *zKey = choirMprintf(pErr, "%s%s", zDir, azName[i]);
    ChoirObjectMeta meta;
    if (zKey == NULL || p->nLeft == 0 || !folderMeets(zKey, bDir, p->pRange)) {
      /* not asked for */
    } else if (bDir) {
      int fd;
      azName[i][nName - 1] = 0;
      fd = iDepth < FOLDER_DEPTH
               ? openat(fdDir, azName[i], FOLDER_DIR | O_NOFOLLOW)
               : -1;
      if (fd >= 0) {
        folderWalk(p, pErr, fd, zKey, iDepth + 1);
        close(fd);
      }
    } else if (folderStat(pErr, fdDir, azName[i], zKey, &meta) ==
                   CHOIR_OBJECT_OK &&
               pErr->rc == SQLITE_OK) {
      p->xEach(p->pArg, pErr, zKey, &meta);
      p->nLeft--;
    }
    sqlite3_free(zKey);
    sqlite3_free(azName[i]);
  }
  sqlite3_free(azName);
}

static int folderList(ChoirObject *pObj, ChoirErr *pErr,
                      const ChoirObjectRange *pRange, ChoirObjectEach x,
                      void *pArg) {
  FolderList list;
  list.pRange = pRange;
  list.nLeft = pRange->nMax > 0 ? pRange->nMax : INT64_MAX;
  list.xEach = x;
  list.pArg = pArg;
  folderWalk(&list, pErr, ((FolderStore *)pObj)->fdRoot, "", 0);
  return CHOIR_OBJECT_OK;
}

/* In the folder zDir ("" or "folder/") and those below it. */
static i64 folderSweepTree(ChoirErr *pErr, int fdDir, const char *zDir,
                           const ChoirObjectRange *pRange, i64 iBefore,
                           int iDepth) {
  char **azName = NULL;
  int i, n = folderNames(pErr, fdDir, &azName);
  i64 nSwept = folderMeets(zDir, 0, pRange) ? folderSweep(fdDir, iBefore) : 0;
  for (i = 0; i < n; i++) {
    size_t nName = strlen(azName[i]);
    char *zKey = azName[i][nName - 1] == '/' && iDepth < FOLDER_DEPTH
                     ? choirMprintf(pErr, "%s%s", zDir, azName[i])
                     : NULL;
    if (zKey && folderMeets(zKey, 1, pRange)) {
      int fd;
      azName[i][nName - 1] = 0;
      fd = openat(fdDir, azName[i], FOLDER_DIR | O_NOFOLLOW);
      if (fd >= 0) {
        nSwept += folderSweepTree(pErr, fd, zKey, pRange, iBefore, iDepth + 1);
        close(fd);
      }
    }
    sqlite3_free(zKey);
    sqlite3_free(azName[i]);
  }
  sqlite3_free(azName);
  return nSwept;
}

static i64 folderSweepAll(ChoirObject *pObj, ChoirErr *pErr,
                          const char *zPrefix, i64 iBefore) {
  ChoirObjectRange range = {zPrefix, NULL, 0, 0};
  return folderSweepTree(pErr, ((FolderStore *)pObj)->fdRoot, "", &range,
                         iBefore, 0);
}

/* ---------------------------------------------------------------- opening */

static void folderClose(ChoirObject *pObj) {
  FolderStore *p = (FolderStore *)pObj;
  if (p->fdRoot >= 0) {
    close(p->fdRoot);
  }
  sqlite3_free(pObj->zUrl);
  sqlite3_free(pObj->zKey);
  sqlite3_free(p->zRoot);
  sqlite3_free(pObj);
}

static const ChoirObjectMethods folderMethods = {
    folderHead, folderGet,      folderPut, folderDelete,
    folderList, folderSweepAll, NULL,      folderClose,
};

/* The path of a file: URL, percent-decoded once; caller frees. */
static char *folderPath(ChoirErr *pErr, const char *zUrl) {
  const char *z = zUrl + 5;
  char *zPath, *zOut;
  if (strncmp(z, "//", 2) == 0) {
    z += 2;
    if (strncmp(z, "localhost/", 10) == 0) {
      z += 9;
    }
  }
  if (z[0] != '/') {
    choirErrSet(pErr, SQLITE_ERROR,
                "'%s' does not name an absolute path on this machine; write"
                " file:///folder/name",
                zUrl);
  }
  zPath = zOut = choirMalloc(pErr, strlen(z) + 1);
  for (; zOut && *z && pErr->rc == SQLITE_OK; z++) {
    char c = *z;
    if (c == '?' || c == '#') {
      choirErrSet(pErr, SQLITE_ERROR,
                  "'%s' has a '%c'; a name with that character is written %s",
                  zUrl, c, c == '?' ? "%3F" : "%23");
    } else if (c == '%') {
      int iHi = choirHexDigit(z[1]);
      int iLo = iHi < 0 ? -1 : choirHexDigit(z[2]);
      c = (char)(iHi * 16 + iLo);
      if (iLo < 0 || c == 0 || c == '/') {
        choirErrSet(pErr, SQLITE_ERROR,
                    "'%s' has '%.3s', which does not stand for a character of"
                    " a name%s",
                    zUrl, z, iLo < 0 ? "; a '%' is written %25" : "");
      }
      z += 2;
    }
    *zOut++ = c;
  }
  if (pErr->rc != SQLITE_OK) {
    sqlite3_free(zPath);
    zPath = NULL;
  }
  return zPath;
}

CHOIR_PRIVATE ChoirObject *choirFileOpen(ChoirConn *pConn, ChoirErr *pErr,
                                         const char *zUrl) {
  char *zPath = folderPath(pErr, zUrl);
  char *zSlash = zPath ? strrchr(zPath, '/') : NULL;
  FolderStore *p = zSlash ? choirMalloc(pErr, sizeof(*p)) : NULL;
  const char *zRoot;
  if (p == NULL) {
    sqlite3_free(zPath);
    return NULL;
  }
  p->base.pMethods = &folderMethods;
  p->base.pConn = pConn;
  p->fdRoot = -1;
  p->base.zUrl = choirMprintf(pErr, "%s", zUrl);
  p->base.zKey = choirMprintf(pErr, "%s", zSlash + 1);
  *zSlash = 0;
  zRoot = zPath[0] ? zPath : "/";
  p->zRoot = choirMprintf(pErr, "%s", zPath);
  if (strstr(zPath, "/../") ||
      (zSlash - zPath >= 3 && strcmp(zSlash - 3, "/..") == 0)) {
    choirErrSet(pErr, SQLITE_ERROR, "'%s' has a part '..'", zUrl);
  }
  if (pErr->rc == SQLITE_OK) {
    p->fdRoot = open(zRoot, FOLDER_DIR);
    if (p->fdRoot < 0 && errno == ENOENT) {
      choirErrSet(pErr, SQLITE_CANTOPEN,
                  "the folder %s does not exist; create it first (or mount its"
                  " disk)",
                  zRoot);
    } else if (p->fdRoot < 0) {
      choirErrno(pErr, errno, "open the folder", zRoot);
    }
  }
  if (p->base.zKey && p->base.zKey[0]) {
    choirObjectKeyCheck(pErr, p->base.zKey);
  }
  sqlite3_free(zPath);
  if (pErr->rc != SQLITE_OK) {
    folderClose(&p->base);
    return NULL;
  }
  return &p->base;
}

#endif /* !_WIN32 */
