/* SPDX-License-Identifier: MIT */
/*
** choir_backup(file), and the copy that sync_pull(…, 'theirs') keeps of what it
** replaces.
**
** A copy is written under a private name in the target's folder, checked there
** (PRAGMA quick_check through the spool, without opening it by name), synced
** and linked to its name: it is complete or not there, and never replaces a
** file. It is in rollback mode, so it opens on read-only media too; its seal
** is kept, so it knows what it had pushed.
*/
#include "sync.h"
#include <stdlib.h>
#if !defined(_WIN32)
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#endif

static void backupCheck(ChoirErr *pErr, int fd, u64 nByte) {
  ChoirSpool *pSpool = choirSpoolNew(pErr, fd, nByte);
  sqlite3 *db = choirSpoolOpen(pErr, pSpool, 0);
  char *z = choirSpoolProblem(pErr, db);
  if (z) {
    choirErrSet(pErr, SQLITE_CORRUPT,
                "the database is damaged: %s; no copy was made", z);
  }
  sqlite3_free(z);
  sqlite3_close(db);
  choirSpoolFree(pSpool);
}

/* SHA-256 of the file, as sha256sum gives it. */
static void backupHash(ChoirErr *pErr, int fd, u64 nByte, char zOut[65]) {
  u64 iOff, nChunk = (u64)1 << 18;
  u8 *a = choirMalloc(pErr, nChunk);
  ChoirSha256 sha;
  u8 aDigest[32];
  choirSha256Init(&sha);
  for (iOff = 0; a && iOff < nByte && pErr->rc == SQLITE_OK; iOff += nChunk) {
    u64 n = nByte - iOff < nChunk ? nByte - iOff : nChunk;
    choirFdRead(pErr, fd, iOff, a, n);
    choirSha256Update(&sha, a, n);
  }
  choirSha256Final(&sha, aDigest);
  choirHex(aDigest, 32, zOut);
  sqlite3_free(a);
}

static void backupWrite(ChoirConn *pConn, ChoirErr *pErr, ChoirTemp *pTmp,
                        const char *zFile, ChoirBackup *pOut) {
  ChoirSpool *pSpool = choirSpoolNew(pErr, pTmp->fd, 0);
  u8 aDigest[32];
  if (pSpool == NULL) {
    return;
  }
  choirSpoolFor(pSpool, zFile);
  choirSnapshot(pConn, pErr, pSpool, CHOIR_SEAL_KEEP, NULL, aDigest);
  if (pErr->rc == SQLITE_OK) {
    pOut->nByte = choirSpoolSize(pSpool);
    pOut->nPage = (i64)(pOut->nByte / (u64)choirSpoolPageSize(pSpool));
    backupHash(pErr, pTmp->fd, pOut->nByte, pOut->zSha256);
    backupCheck(pErr, pTmp->fd, pOut->nByte);
  }
  choirSpoolFree(pSpool);
  if (choirTempPublish(pTmp, pErr, pTmp->zLast, 0) == CHOIR_OBJECT_CHANGED) {
    choirErrSet(pErr, SQLITE_ERROR,
                "'%s' exists; choose a name that is not taken", zFile);
  }
}

CHOIR_PRIVATE void choirBackupTo(ChoirConn *pConn, ChoirErr *pErr,
                                 const char *zFile, ChoirBackup *pOut) {
  struct stat st;
  ChoirTemp tmp;
  memset(pOut, 0, sizeof(*pOut));
  choirTempBeside(&tmp, pErr, zFile);
  if (pErr->rc == SQLITE_OK &&
      fstatat(tmp.fdDir, tmp.zLast, &st, AT_SYMLINK_NOFOLLOW) == 0) {
    choirErrSet(pErr, SQLITE_ERROR,
                "'%s' exists; choose a name that is not taken", zFile);
  }
  if (pErr->rc == SQLITE_OK) {
    choirFileNotOwn(pErr, pConn, tmp.fdDir, tmp.zLast, zFile);
    backupWrite(pConn, pErr, &tmp, zFile, pOut);
  }
  choirTempClose(&tmp);
}

CHOIR_PRIVATE char *choirBackupKeep(ChoirConn *pConn, ChoirErr *pErr,
                                    const ChoirPosition *pPos) {
  char *zState = choirStateDir(pErr);
  char *zFile = NULL;
  char zTime[32];
  time_t t = (time_t)(choirNow() / 1000);
  ChoirBackup out;
  struct tm tm;
  u32 iRandom;
  sqlite3_randomness(sizeof(iRandom), &iRandom);
  gmtime_r(&t, &tm);
  strftime(zTime, sizeof(zTime), "%Y%m%dT%H%M%SZ", &tm);
  zFile = choirMprintf(pErr, "%s/%s/replaced-%s-%08x.sqlite", zState,
                       pPos->zLineage, zTime, iRandom);
  if (zFile) {
    choirStateFolder(pErr, zFile);
  }
  if (pErr->rc == SQLITE_OK) {
    choirBackupTo(pConn, pErr, zFile, &out);
  }
  if (pErr->rc != SQLITE_OK) {
    sqlite3_free(zFile);
    zFile = NULL;
  }
  sqlite3_free(zState);
  return zFile;
}

/*
** SQL: choir_backup(file) -> TEXT
**
** Copies the workspace's database into a new file, consistent although others
** read and write meanwhile, checks the copy, and returns a JSON object:
** bytes, pages, sha256 (of the file, as sha256sum gives it) and ms. The copy is
** in rollback mode; a file that exists is never replaced. Works in memory
** databases and without a workspace too.
**
**   file  TEXT, a path
**
** NULL: an error.
** Errors: the file exists; its folder does not; the disk is full; the database
** is damaged; this connection is inside a transaction that has written.
**
** > SELECT json_extract(choir_backup(NULL), '$.bytes')
** ! choir_backup: file must be text, got null
*/
static void backupFunc(ChoirCall *p) {
  const char *zFile = choirArgText(&p->err, p->apArg[0], "file");
  const char *zSchema = choirSchema(p->pConn);
  i64 iStart = choirMonotonic();
  ChoirBackup out;
  ChoirBuf b;
  if (zFile && zFile[0] == 0) {
    choirErrSet(&p->err, SQLITE_ERROR, "file must not be empty");
  }
  if (p->err.rc == SQLITE_OK &&
      sqlite3_txn_state(p->pConn->db, zSchema) == SQLITE_TXN_WRITE) {
    choirErrSet(&p->err, SQLITE_BUSY,
                "this connection has uncommitted changes; commit first");
  }
  if (p->err.rc != SQLITE_OK) {
    return;
  }
  choirBackupTo(p->pConn, &p->err, zFile, &out);
  choirBufInit(&b, &p->err, CHOIR_BUF_JSON);
  choirBufPrintf(
      &b, "{\"bytes\":%llu,\"pages\":%lld,\"sha256\":\"%s\",\"ms\":%lld}",
      out.nByte, out.nPage, out.zSha256, choirMonotonic() - iStart);
  choirBufResult(&b, p->pCtx);
}

static const ChoirFunc aBackupFunc[] = {
    {"choir_backup", 1, 1, CHOIR_EFFECT, 0, backupFunc, NULL},
};

CHOIR_PRIVATE CHOIR_COLD void choirBackupRegister(ChoirConn *pConn,
                                                  ChoirErr *pErr) {
  choirFuncs(pConn, pErr, aBackupFunc);
}
