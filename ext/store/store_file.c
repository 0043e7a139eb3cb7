/* SPDX-License-Identifier: MIT */
/*
** Reading real files into artifacts, for artifact_put_file and the import. A
** file of at most 16 MiB is read once into memory and kept as TEXT
** when it is text; a larger one is read twice (hash, then content) through a
** buffer of 1 MiB and kept as a BLOB.
**
** Never opens a file of a database of this connection (see store.h). What may
** fail: the file system, a file that changes while it is read.
*/
#include "store.h"
#if !defined(_WIN32)
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define DISK_WHOLE ((i64)16 << 20) /* read in one piece up to here */

/* ------------------------------------------------------- files of our own */

struct StoreOwnFile {
  int bThere;        /* dev and ino are valid */
  dev_t dev, dirDev; /* of the file, of its folder */
  ino_t ino, dirIno;
  char *zName; /* in its folder */
};

static void diskOwnAdd(ChoirStoreOwn *p, ChoirErr *pErr, const char *zFile) {
  static const char *const azEnd[] = {"", "-wal", "-shm", "-journal"};
  const char *zName = choirStoreName(zFile);
  char *zDir = choirMprintf(pErr, "%.*s", (int)(zName - zFile), zFile);
  struct stat st;
  int i;
  struct StoreOwnFile *a =
      choirRealloc(pErr, p->a, ((u64)p->n + 4) * sizeof(*p->a));
  if (a) {
    p->a = a;
  }
  for (i = 0; i < 4 && a && pErr->rc == SQLITE_OK; i++) {
    struct StoreOwnFile *pNew = &a[p->n];
    char *z = choirMprintf(pErr, "%s%s", zFile, azEnd[i]);
    memset(pNew, 0, sizeof(*pNew));
    pNew->zName = choirMprintf(pErr, "%s%s", zName, azEnd[i]);
    p->n++;
    if (z && stat(z, &st) == 0) {
      pNew->bThere = 1;
      pNew->dev = st.st_dev;
      pNew->ino = st.st_ino;
    }
    if (zDir && stat(zDir[0] ? zDir : ".", &st) == 0) {
      pNew->dirDev = st.st_dev;
      pNew->dirIno = st.st_ino;
    }
    sqlite3_free(z);
  }
  sqlite3_free(zDir);
}

CHOIR_PRIVATE void choirStoreOwnInit(ChoirStoreOwn *p, ChoirConn *pConn,
                                     ChoirErr *pErr) {
  const char *zDb;
  int i;
  memset(p, 0, sizeof(*p));
  for (i = 0; (zDb = sqlite3_db_name(pConn->db, i)) != NULL; i++) {
    const char *zFile = sqlite3_db_filename(pConn->db, zDb);
    if (zFile && zFile[0] && pErr->rc == SQLITE_OK) {
      diskOwnAdd(p, pErr, zFile);
    }
  }
}

CHOIR_PRIVATE void choirStoreOwnFree(ChoirStoreOwn *p) {
  int i;
  for (i = 0; i < p->n; i++) {
    sqlite3_free(p->a[i].zName);
  }
  sqlite3_free(p->a);
  memset(p, 0, sizeof(*p));
}

CHOIR_PRIVATE int choirStoreIsOwn(const ChoirStoreOwn *p,
                                  const struct stat *pStat) {
  int i;
  for (i = 0; i < p->n; i++) {
    if (p->a[i].bThere && p->a[i].dev == pStat->st_dev &&
        p->a[i].ino == pStat->st_ino) {
      return 1;
    }
  }
  return 0;
}

CHOIR_PRIVATE int choirStoreIsOwnName(const ChoirStoreOwn *p,
                                      const struct stat *pDir,
                                      const char *zName) {
  int i;
  for (i = 0; i < p->n; i++) {
    if (p->a[i].zName && p->a[i].dirDev == pDir->st_dev &&
        p->a[i].dirIno == pDir->st_ino && strcmp(p->a[i].zName, zName) == 0) {
      return 1;
    }
  }
  return 0;
}

/* --------------------------------------------------------------- reading */

static const char *diskKind(const struct stat *p) {
  return S_ISDIR(p->st_mode)    ? "a directory"
         : S_ISLNK(p->st_mode)  ? "a symbolic link"
         : S_ISFIFO(p->st_mode) ? "a pipe"
         : S_ISSOCK(p->st_mode) ? "a socket"
                                : "a device";
}

static void diskCheck(ChoirErr *pErr, const ChoirStoreOwn *pOwn,
                      const struct stat *pStat, const char *zShow) {
  if (!S_ISREG(pStat->st_mode)) {
    choirErrSet(pErr, SQLITE_ERROR, "%s is %s, not a file", zShow,
                diskKind(pStat));
  } else if (choirStoreIsOwn(pOwn, pStat)) {
    choirErrSet(pErr, SQLITE_ERROR,
                "%s belongs to a database that is open on this connection",
                zShow);
  }
}

CHOIR_PRIVATE int choirStoreOpen(ChoirErr *pErr, const ChoirStoreOwn *pOwn,
                                 int fdDir, const char *zName, int mFlags,
                                 const char *zShow, struct stat *pStat) {
  int fd = -1;
  if (pErr->rc != SQLITE_OK) {
    return -1;
  }
  if (fstatat(fdDir, zName, pStat, mFlags ? AT_SYMLINK_NOFOLLOW : 0) != 0) {
    choirErrSet(pErr, SQLITE_ERROR, "cannot read %s: %s", zShow,
                strerror(errno));
  } else {
    diskCheck(pErr, pOwn, pStat, zShow);
  }
  if (pErr->rc != SQLITE_OK) {
    return -1;
  }
  do {
    fd = openat(fdDir, zName,
                O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | mFlags);
  } while (fd < 0 && errno == EINTR);
  if (fd < 0 || fstat(fd, pStat) != 0) {
    choirErrSet(pErr, SQLITE_ERROR, "cannot read %s: %s", zShow,
                strerror(errno));
  } else { /* somebody may have put another file there in between */
    diskCheck(pErr, pOwn, pStat, zShow);
  }
  if (pErr->rc != SQLITE_OK && fd >= 0) {
    if (!choirStoreIsOwn(pOwn, pStat)) {
      close(fd);
    } /* else left open: closing it would drop SQLite's locks */
    fd = -1;
  }
  return fd;
}

/* Up to n bytes at a, fewer only at the end of the file; -1 on error. */
static i64 diskRead(int fd, char *a, i64 n) {
  i64 nRead = 0;
  while (nRead < n) {
    ssize_t i = read(fd, a + nRead, (size_t)(n - nRead));
    if (i < 0 && errno == EINTR) {
      continue;
    }
    if (i < 0) {
      return -1;
    }
    if (i == 0) {
      break;
    }
    nRead += i;
  }
  return nRead;
}

CHOIR_PRIVATE char *choirStoreReadText(ChoirErr *pErr,
                                       const ChoirStoreOwn *pOwn, int fdDir,
                                       const char *zName, int mFlags,
                                       const char *zShow, i64 nMax) {
  struct stat st;
  int fd = choirStoreOpen(pErr, pOwn, fdDir, zName, mFlags, zShow, &st);
  char *z = NULL;
  i64 n = 0;
  if (fd >= 0 && st.st_size > nMax) {
    choirErrSet(pErr, SQLITE_TOOBIG, "%s has %lld bytes, the limit is %lld",
                zShow, (i64)st.st_size, nMax);
  } else if (fd >= 0) {
    z = choirMalloc(pErr, (u64)st.st_size + 1);
    n = z ? diskRead(fd, z, st.st_size) : 0;
  }
  if (n < 0) {
    choirErrSet(pErr, SQLITE_ERROR, "cannot read %s: %s", zShow,
                strerror(errno));
  } else if (z && (choirUtf8Valid(z, n) < n || (i64)strlen(z) != n)) {
    choirErrSet(pErr, SQLITE_ERROR, "%s is not text in UTF-8", zShow);
  }
  if (fd >= 0) {
    close(fd);
  }
  if (pErr->rc != SQLITE_OK) {
    sqlite3_free(z);
    z = NULL;
  }
  return z;
}

static void diskChanged(ChoirErr *pErr, i64 nRead) {
  if (nRead < 0) {
    choirErrSet(pErr, SQLITE_ERROR, "cannot read the file: %s",
                strerror(errno));
  } else {
    choirErrSet(pErr, SQLITE_ERROR, "the file changed while it was read");
  }
}

static void diskPutWhole(ChoirConn *pConn, ChoirErr *pErr, ChoirStorePut *pPut,
                         int fd, i64 n) {
  char *a = choirRealloc(pErr, NULL, (u64)n + 1);
  i64 nRead = a ? diskRead(fd, a, n) : 0;
  u8 aHash[32];
  if (a && nRead < 0) {
    diskChanged(pErr, nRead);
  } else if (a) { /* what was there is one file, should it be growing */
    n = nRead;
    const char *zMime =
        pPut->zMime ? pPut->zMime : choirStoreMime(pPut->zPath, a, n);
    pPut->a = a;
    pPut->n = n;
    pPut->bText = choirStoreIsText(zMime, a, n);
    choirSha256(a, (u64)n, aHash);
    choirHex(aHash, 32, pPut->zHash);
    choirStorePutRow(pConn, pErr, pPut);
    pPut->a = NULL;
  }
  sqlite3_free(a);
}

/* One pass over the file: hash it and, when pBlob, write it there. */
static void diskPass(ChoirConn *pConn, ChoirErr *pErr, int fd, i64 n, char *a,
                     sqlite3_blob *pBlob, char zHash[65]) {
  ChoirSha256 sha;
  u8 aHash[32];
  i64 i = 0, nRead;
  choirSha256Init(&sha);
  if (lseek(fd, 0, SEEK_SET) != 0) {
    diskChanged(pErr, -1);
  }
  for (; i < n && pErr->rc == SQLITE_OK; i += CHOIR_STORE_CHUNK) {
    i64 nWant = n - i < CHOIR_STORE_CHUNK ? n - i : CHOIR_STORE_CHUNK;
    nRead = diskRead(fd, a, nWant);
    if (nRead != nWant) {
      diskChanged(pErr, nRead);
    } else if (choirInterrupted(pConn)) {
      choirErrSet(pErr, SQLITE_INTERRUPT, "interrupted");
    } else {
      choirSha256Update(&sha, a, (u64)nRead);
      if (pBlob) {
        choirErrDb(pErr, pConn->db,
                   sqlite3_blob_write(pBlob, a, (int)nRead, (int)i));
      }
    }
  }
  choirSha256Final(&sha, aHash);
  choirHex(aHash, 32, zHash);
}

static void diskPutLarge(ChoirConn *pConn, ChoirErr *pErr, ChoirStorePut *pPut,
                         int fd, i64 n) {
  char *a = choirRealloc(pErr, NULL, (u64)CHOIR_STORE_CHUNK);
  sqlite3_blob *pBlob = NULL;
  char zHash[65] = "";
  if (a) {
    diskPass(pConn, pErr, fd, n, a, NULL, pPut->zHash);
  }
  if (pErr->rc == SQLITE_OK) {
    pPut->a = NULL;
    pPut->n = n;
    pPut->bText = 0;
    choirStorePutRow(pConn, pErr, pPut);
  }
  if (pErr->rc == SQLITE_OK && pPut->bStored) {
    sqlite3_stmt *p =
        choirStmt(pConn, pErr, "SELECT rowid FROM ~.artifacts WHERE id=?1");
    i64 iRow;
    choirBindText(pErr, p, 1, pPut->zId, -1);
    iRow = choirStep(pErr, p) ? sqlite3_column_int64(p, 0) : 0;
    choirStmtDone(pConn, p);
    choirErrDb(pErr, pConn->db,
               sqlite3_blob_open(pConn->db, choirSchema(pConn), "artifacts",
                                 "content", iRow, 1, &pBlob));
    if (pErr->rc == SQLITE_OK) {
      diskPass(pConn, pErr, fd, n, a, pBlob, zHash);
    }
    sqlite3_blob_close(pBlob);
    if (pErr->rc == SQLITE_OK && strcmp(zHash, pPut->zHash) != 0) {
      diskChanged(pErr, 0);
    }
  }
  sqlite3_free(a);
}

CHOIR_PRIVATE void choirStorePutFd(ChoirConn *pConn, ChoirErr *pErr,
                                   ChoirStorePut *pPut, int fd, i64 n) {
  i64 nMax = sqlite3_limit(pConn->db, SQLITE_LIMIT_LENGTH, -1);
  if (n >= nMax - 65536) { /* room for the rest of the row */
    choirErrSet(pErr, SQLITE_TOOBIG,
                "the file has %lld bytes, a row holds at most %lld; with the"
                " setting remote.artifacts it goes to an object store",
                n, nMax);
  } else if (n <= DISK_WHOLE) {
    diskPutWhole(pConn, pErr, pPut, fd, n);
  } else {
    diskPutLarge(pConn, pErr, pPut, fd, n);
  }
}
#endif
