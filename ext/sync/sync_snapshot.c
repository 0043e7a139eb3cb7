/* SPDX-License-Identifier: MIT */
/*
** A consistent copy of a live database, made by sqlite3_backup into a spool.
**
** The source is a connection of our own on the same file and VFS. It holds one
** read transaction, so position and pages are of the same state; it never
** checkpoints; its page cache is its own (2 MB) and the host's stays warm.
** A database without a file, and one that the host locks exclusively, is read
** through the host's connection instead. The file itself is never opened
** outside SQLite: closing it would drop SQLite's locks.
**
** Writers wait only in rollback mode, and only while pages are copied.
*/
#include "sync.h"

#define SNAPSHOT_STEP (64 << 20) /* bytes between looks at interrupts */

typedef struct SnapshotSource {
  sqlite3 *db;
  const char *zSchema;
  u8 bOwn;
} SnapshotSource;

static i64 snapshotPragma(ChoirConn *pConn, ChoirErr *pErr, const char *zSql,
                          int *pbExclusive) {
  sqlite3_stmt *p = choirPrepare(pConn, pErr, zSql);
  i64 v = 0;
  if (choirStep(pErr, p)) {
    v = sqlite3_column_int64(p, 0);
    if (pbExclusive) {
      const char *z = (const char *)sqlite3_column_text(p, 0);
      *pbExclusive = z && strcmp(z, "exclusive") == 0;
    }
  }
  sqlite3_finalize(p);
  return v;
}

static void snapshotSource(ChoirConn *pConn, ChoirErr *pErr,
                           SnapshotSource *pSrc) {
  const char *zSchema = choirSchema(pConn);
  const char *zFile = sqlite3_db_filename(pConn->db, zSchema);
  sqlite3_vfs *pVfs = NULL;
  int rc, nBusy, bExclusive = 0;
  memset(pSrc, 0, sizeof(*pSrc));
  snapshotPragma(pConn, pErr, "PRAGMA ~.locking_mode", &bExclusive);
  nBusy = (int)snapshotPragma(pConn, pErr, "PRAGMA busy_timeout", NULL);
  if (pErr->rc != SQLITE_OK) {
    return;
  }
  if (zFile == NULL || zFile[0] == 0 || bExclusive) {
    pSrc->db = pConn->db;
    pSrc->zSchema = zSchema;
    return;
  }
  pSrc->bOwn = 1;
  pSrc->zSchema = "main";
  sqlite3_file_control(pConn->db, zSchema, SQLITE_FCNTL_VFS_POINTER, &pVfs);
  /* READWRITE: a WAL that only the host has open needs its -shm written. */
  rc = sqlite3_open_v2(zFile, &pSrc->db,
                       sqlite3_db_readonly(pConn->db, zSchema)
                           ? SQLITE_OPEN_READONLY
                           : SQLITE_OPEN_READWRITE,
                       pVfs ? pVfs->zName : NULL);
  if (rc == SQLITE_OK) {
    sqlite3_busy_timeout(pSrc->db, nBusy);
    sqlite3_db_config(pSrc->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    sqlite3_wal_autocheckpoint(pSrc->db, 0);
    rc = sqlite3_exec(pSrc->db, "BEGIN", NULL, NULL, NULL);
  }
  if (rc == SQLITE_NOMEM) {
    choirErrNomem(pErr);
  } else if (rc != SQLITE_OK) {
    choirErrSet(pErr, rc, "cannot open a second connection to %s: %s", zFile,
                pSrc->db ? sqlite3_errmsg(pSrc->db) : sqlite3_errstr(rc));
  }
}

static void snapshotRelease(SnapshotSource *pSrc) {
  if (pSrc->bOwn) {
    sqlite3_close(pSrc->db); /* ends the read transaction */
  }
}

static void snapshotCopy(ChoirConn *pConn, ChoirErr *pErr, sqlite3 *dbTo,
                         const SnapshotSource *pSrc) {
  sqlite3_backup *p = NULL;
  int rc = SQLITE_OK, nStep = pSrc->bOwn ? SNAPSHOT_STEP / 4096 : -1;
  if (pErr->rc == SQLITE_OK) {
    p = sqlite3_backup_init(dbTo, "main", pSrc->db, pSrc->zSchema);
    if (p == NULL) {
      choirErrDb(pErr, dbTo, sqlite3_errcode(dbTo));
    }
  }
  while (p && rc == SQLITE_OK) {
    rc = sqlite3_backup_step(p, nStep);
    if (rc == SQLITE_OK && choirInterrupted(pConn)) {
      choirErrSet(pErr, SQLITE_INTERRUPT, "interrupted");
      rc = SQLITE_INTERRUPT;
    }
  }
  if (p) {
    sqlite3_backup_finish(p);
  }
  if (rc == SQLITE_BUSY || rc == SQLITE_LOCKED) {
    choirErrSet(pErr, rc,
                "the database is being written; try again after the commit");
  } else if (rc == SQLITE_NOMEM) {
    choirErrNomem(pErr);
  } else if (rc != SQLITE_DONE && rc != SQLITE_OK) {
    choirErrSet(pErr, rc, "cannot copy the database: %s", sqlite3_errstr(rc));
  }
}

CHOIR_PRIVATE void choirSnapshot(ChoirConn *pConn, ChoirErr *pErr,
                                 ChoirSpool *pSpool, int eSeal,
                                 ChoirPosition *pPos, u8 aDigest[32]) {
  SnapshotSource src;
  ChoirPosition pos;
  sqlite3 *dbTo;
  memset(&pos, 0, sizeof(pos));
  snapshotSource(pConn, pErr, &src);
  memset(&pos, 0, sizeof(pos));
  if (pErr->rc == SQLITE_OK) {
    choirPositionRead(pErr, src.db, src.zSchema, &pos);
  }
  if (pErr->rc == SQLITE_OK && eSeal == CHOIR_SEAL_ZERO) {
    choirSpoolSealAt(pSpool, pos.iRoot);
  }
  dbTo = choirSpoolOpen(pErr, pSpool, 1);
  snapshotCopy(pConn, pErr, dbTo, &src);
  sqlite3_close(dbTo);
  snapshotRelease(&src);
  choirSpoolFinish(pErr, pSpool, aDigest);
  if (pPos && pErr->rc == SQLITE_OK) {
    *pPos = pos;
  }
}

CHOIR_PRIVATE int choirSnapshotChanged(ChoirConn *pConn, ChoirErr *pErr,
                                       const u8 aDigest[32]) {
  ChoirSpool *pSpool = choirSpoolNew(pErr, -1, 0);
  u8 a[32] = {0};
  if (pSpool) {
    choirSnapshot(pConn, pErr, pSpool, CHOIR_SEAL_ZERO, NULL, a);
    choirSpoolFree(pSpool);
  }
  return pErr->rc == SQLITE_OK && memcmp(a, aDigest, 32) != 0;
}
