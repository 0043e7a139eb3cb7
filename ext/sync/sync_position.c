/* SPDX-License-Identifier: MIT */
/*
** Where a file stands in the history of its workspace. All of it is inside the
** file, so a copied, renamed or restored file is as right as the original:
**
**   sync.lineage         in _choir_meta: which workspace this is
**   _choir_sync_history  every version it descends from; the last one is its
**                        head, the version this file is or is becoming
**   _choir_sync_seal     the digest of head, and facts about remotes; these
**                        160 bytes do not count as content
**
** A new position is committed by the host's connection before the snapshot it
** describes is taken, so an uploaded copy describes itself and bookkeeping is
** never a change.
*/
#include "sync.h"
#if !defined(_WIN32)
#include <unistd.h>
#endif

#define POSITION_LAST ((i64)1 << 62) /* so that one more is a number too */

/* ------------------------------------------------------------------ read */

/* One statement on any connection; each %w in the format is the schema, up to
** four times. */
static sqlite3_stmt *positionPrepare(ChoirErr *pErr, sqlite3 *db,
                                     const char *zSchema, const char *zFmt) {
  sqlite3_stmt *pStmt = NULL;
  char *z = choirMprintf(pErr, zFmt, zSchema, zSchema, zSchema, zSchema);
  if (z) {
    choirErrDb(pErr, db, sqlite3_prepare_v2(db, z, -1, &pStmt, NULL));
  }
  sqlite3_free(z);
  return pStmt;
}

/* Copies a blob of exactly n bytes; 0 when it is not one. */
static int positionBlob(sqlite3_stmt *p, int i, u8 *aOut, int n) {
  const void *a = sqlite3_column_blob(p, i);
  if (a == NULL || sqlite3_column_bytes(p, i) != n) {
    return 0;
  }
  memcpy(aOut, a, (size_t)n);
  return 1;
}

static void positionDamaged(ChoirErr *pErr, const char *zWhat) {
  choirErrSet(pErr, SQLITE_CORRUPT_VTAB,
              "%s is not what choir wrote; run select choir_init()", zWhat);
}

CHOIR_PRIVATE void choirPositionRead(ChoirErr *pErr, sqlite3 *db,
                                     const char *zSchema, ChoirPosition *pPos) {
  sqlite3_stmt *p;
  memset(pPos, 0, sizeof(*pPos));
  p = positionPrepare(pErr, db, zSchema,
                      "SELECT (SELECT rootpage FROM \"%w\".sqlite_schema WHERE"
                      " type='table' AND name='_choir_sync_seal')");
  if (choirStep(pErr, p)) {
    pPos->iRoot = (u32)sqlite3_column_int64(p, 0);
    pPos->bWorkspace = pPos->iRoot > 1;
  }
  sqlite3_finalize(p);
  if (!pPos->bWorkspace) {
    return;
  }
  p = positionPrepare(
      pErr, db, zSchema,
      "SELECT m.value, h.push_id, h.txid, h.time,"
      " (SELECT seal FROM \"%w\"._choir_sync_seal WHERE id=1),"
      " (SELECT max(version) FROM \"%w\"._choir_migration)"
      " FROM \"%w\"._choir_meta m LEFT JOIN (SELECT push_id, txid, time"
      "   FROM \"%w\"._choir_sync_history ORDER BY txid DESC LIMIT 1) h"
      " WHERE m.key='sync.lineage'");
  if (choirStep(pErr, p)) {
    const char *z = (const char *)sqlite3_column_text(p, 0);
    if (z == NULL || strspn(z, "0123456789abcdef") != 2 * CHOIR_SYNC_ID ||
        strlen(z) != 2 * CHOIR_SYNC_ID) {
      positionDamaged(pErr, "sync.lineage in _choir_meta");
    } else {
      memcpy(pPos->zLineage, z, sizeof(pPos->zLineage));
    }
    pPos->bHead = sqlite3_column_type(p, 1) != SQLITE_NULL;
    pPos->iTxid = sqlite3_column_int64(p, 2);
    pPos->iTime = sqlite3_column_int64(p, 3);
    pPos->iFormat = sqlite3_column_int(p, 5);
    if (pPos->bHead && (!positionBlob(p, 1, pPos->aHead, CHOIR_SYNC_ID) ||
                        pPos->iTxid < 1 || pPos->iTxid > POSITION_LAST)) {
      positionDamaged(pErr, "the last row of _choir_sync_history");
    }
    if (!positionBlob(p, 4, pPos->aSeal, CHOIR_SYNC_SEAL)) {
      positionDamaged(pErr, "the row of _choir_sync_seal");
    }
  } else {
    positionDamaged(pErr, "sync.lineage in _choir_meta");
  }
  sqlite3_finalize(p);
}

CHOIR_PRIVATE int choirPositionKnows(ChoirErr *pErr, sqlite3 *db,
                                     const char *zSchema, const u8 *aId) {
  sqlite3_stmt *p = positionPrepare(
      pErr, db, zSchema,
      "SELECT 1 FROM \"%w\"._choir_sync_history WHERE push_id=?1");
  int bKnown;
  choirBindBlob(pErr, p, 1, aId, CHOIR_SYNC_ID);
  bKnown = choirStep(pErr, p);
  sqlite3_finalize(p);
  return bKnown;
}

/* ------------------------------------------------------------------ write */

static void positionState(ChoirConn *pConn, ChoirErr *pErr, const char *zKey,
                          i64 iValue) {
  sqlite3_stmt *p = choirStmt(
      pConn, pErr,
      "INSERT INTO ~.sync_state(key, value) VALUES(?1, CAST(?2 AS TEXT))"
      " ON CONFLICT(key) DO UPDATE SET value=excluded.value");
  choirBindText(pErr, p, 1, zKey, -1);
  choirBindInt(pErr, p, 2, iValue);
  choirStep(pErr, p);
  choirStmtDone(pConn, p);
}

static void positionLog(ChoirConn *pConn, ChoirErr *pErr,
                        const ChoirPosition *pPos) {
  sqlite3_stmt *p =
      choirStmt(pConn, pErr,
                "INSERT INTO ~.action_log(action_type, payload) VALUES"
                "('SYNC_COMPLETE', json_object('version', ?1, 'txid', ?2))");
  char zId[2 * CHOIR_SYNC_ID + 1];
  choirHex(pPos->aHead, CHOIR_SYNC_ID, zId);
  choirBindText(pErr, p, 1, zId, -1);
  choirBindInt(pErr, p, 2, pPos->iTxid);
  choirStep(pErr, p);
  choirStmtDone(pConn, p);
}

static void positionSealRow(ChoirConn *pConn, ChoirErr *pErr,
                            const ChoirPosition *pPos) {
  sqlite3_stmt *p =
      choirStmt(pConn, pErr,
                "UPDATE ~._choir_sync_seal SET seal=?1 WHERE id=1 AND"
                " (SELECT push_id FROM ~._choir_sync_history"
                "   ORDER BY txid DESC LIMIT 1) IS ?2");
  choirBindBlob(pErr, p, 1, pPos->aSeal, CHOIR_SYNC_SEAL);
  choirBindBlob(pErr, p, 2, pPos->aHead, CHOIR_SYNC_ID);
  choirStep(pErr, p);
  choirStmtDone(pConn, p);
}

static void positionRow(ChoirConn *pConn, ChoirErr *pErr,
                        const ChoirPosition *pPos) {
  sqlite3_stmt *p =
      choirStmt(pConn, pErr,
                "INSERT INTO ~._choir_sync_history(txid, push_id, time,"
                " device) VALUES(?1, ?2, ?3, ?4)");
  char zHost[256];
  i64 nHost = gethostname(zHost, sizeof(zHost)) == 0
                  ? (i64)strnlen(zHost, sizeof(zHost))
                  : 0;
  choirBindInt(pErr, p, 1, pPos->iTxid);
  choirBindBlob(pErr, p, 2, pPos->aHead, CHOIR_SYNC_ID);
  choirBindInt(pErr, p, 3, pPos->iTime);
  choirBindText(pErr, p, 4, zHost, choirUtf8Valid(zHost, nHost));
  choirStep(pErr, p);
  choirStmtDone(pConn, p);
}

/* The file leaves its workspace and begins one of its own. */
static void positionFork(ChoirConn *pConn, ChoirErr *pErr,
                         ChoirPosition *pPos) {
  u8 a[CHOIR_SYNC_ID];
  sqlite3_randomness(sizeof(a), a);
  choirHex(a, sizeof(a), pPos->zLineage);
  choirMetaSet(pConn, pErr, "sync.lineage", pPos->zLineage);
  choirExecText(pConn, pErr, "DELETE FROM ~._choir_sync_history");
}

CHOIR_PRIVATE void choirPositionAdvance(ChoirConn *pConn, ChoirErr *pErr,
                                        ChoirPosition *pPos, int bFork) {
  ChoirTxn txn;
  ChoirPosition now;
  choirTxnBegin(&txn, pConn, pErr);
  choirPositionRead(pErr, pConn->db, choirSchema(pConn), &now);
  if (pErr->rc == SQLITE_OK &&
      (now.bHead != pPos->bHead || memcmp(now.aHead, pPos->aHead, 16) != 0 ||
       strcmp(now.zLineage, pPos->zLineage) != 0)) {
    choirErrSet(pErr, SQLITE_BUSY,
                "another connection is syncing this file; try again");
  }
  *pPos = now;
  if (bFork) {
    positionFork(pConn, pErr, pPos);
  }
  sqlite3_randomness(CHOIR_SYNC_ID, pPos->aHead);
  memset(pPos->aSeal, 0, 32);
  pPos->bHead = 1;
  pPos->iTxid++;
  pPos->iTime = choirNow();
  positionRow(pConn, pErr, pPos);
  positionSealRow(pConn, pErr, pPos);
  positionState(pConn, pErr, "lastSyncTimestamp", pPos->iTime);
  positionState(pConn, pErr, "lastLocalVersion", pPos->iTxid);
  positionState(pConn, pErr, "lastRemoteVersion", pPos->iTxid);
  positionLog(pConn, pErr, pPos);
  choirTxnEnd(&txn, pErr);
}

CHOIR_PRIVATE void choirPositionSeal(ChoirConn *pConn, ChoirErr *pErr,
                                     const ChoirPosition *pPos) {
  ChoirTxn txn;
  choirTxnBegin(&txn, pConn, pErr);
  positionSealRow(pConn, pErr, pPos);
  choirTxnEnd(&txn, pErr);
}

/* ------------------------------------------------------------------- seal */

CHOIR_PRIVATE int choirSealHasDigest(const ChoirPosition *pPos) {
  static const u8 aZero[32];
  return memcmp(pPos->aSeal, aZero, 32) != 0;
}

static void sealKey(const char *zUrl, const char *zEtag, u8 aKey[16]) {
  ChoirSha256 sha;
  u8 a[32];
  choirSha256Init(&sha);
  choirSha256Update(&sha, zUrl, strlen(zUrl) + 1);
  choirSha256Update(&sha, zEtag, strlen(zEtag));
  choirSha256Final(&sha, a);
  memcpy(aKey, a, 16);
}

CHOIR_PRIVATE const u8 *choirSealKnown(const u8 *aSeal, const char *zUrl,
                                       const char *zEtag) {
  u8 aKey[16];
  int i;
  sealKey(zUrl, zEtag, aKey);
  for (i = 0; i < CHOIR_SYNC_FACTS; i++) {
    if (memcmp(aSeal + 32 + 32 * i, aKey, 16) == 0) {
      return aSeal + 32 + 32 * i + 16;
    }
  }
  return NULL;
}

/* A fact to the front; the one that begins with the same nSame bytes falls out,
** or the oldest. */
static void sealFront(u8 *aSeal, const u8 aFact[32], size_t nSame) {
  int i = 0;
  while (i < CHOIR_SYNC_FACTS - 1 &&
         memcmp(aSeal + 32 + 32 * i, aFact, nSame) != 0) {
    i++;
  }
  memmove(aSeal + 64, aSeal + 32, (size_t)(32 * i));
  memcpy(aSeal + 32, aFact, 32);
}

CHOIR_PRIVATE void choirSealLearn(u8 *aSeal, const char *zUrl,
                                  const char *zEtag, const u8 *aId) {
  u8 aFact[32];
  if (choirSealKnown(aSeal, zUrl, zEtag) == NULL) {
    sealKey(zUrl, zEtag, aFact);
    memcpy(aFact + 16, aId, CHOIR_SYNC_ID);
    sealFront(aSeal, aFact, 16);
  }
}

CHOIR_PRIVATE const u8 *choirSealFolder(const u8 *aSeal, const char *zUrl,
                                        u64 *piTxid) {
  u8 aKey[16];
  int i;
  sealKey(zUrl, "", aKey);
  for (i = 0; i < CHOIR_SYNC_FACTS; i++) {
    const u8 *a = aSeal + 32 + 32 * i;
    if (memcmp(a, aKey, 8) == 0) {
      *piTxid = choirGet64(a + 8);
      return a + 16;
    }
  }
  return NULL;
}

/* One fact a folder. */
CHOIR_PRIVATE void choirSealLearnFolder(u8 *aSeal, const char *zUrl, u64 iTxid,
                                        const u8 *aId) {
  u8 aFact[32];
  sealKey(zUrl, "", aFact);
  choirPut64(aFact + 8, iTxid);
  memcpy(aFact + 16, aId, CHOIR_SYNC_ID);
  sealFront(aSeal, aFact, 8);
}

static int sealVarint(const u8 *a, const u8 *aEnd, u32 *pv) {
  u32 v = 0;
  int i;
  for (i = 0; i < 4 && a + i < aEnd; i++) {
    v = v << 7 | (a[i] & 0x7f);
    if (a[i] < 0x80) {
      *pv = v;
      return i + 1;
    }
  }
  return 0;
}

/* The page must be a table leaf with one cell that holds one record: NULL (the
** rowid's alias) and a blob of CHOIR_SYNC_SEAL bytes. */
CHOIR_PRIVATE int choirSealFind(const u8 *aPage, int szPage) {
  const u8 *aEnd = aPage + szPage;
  const u8 *a;
  u32 aV[5]; /* payload, rowid, header, type of id, type of seal */
  int i, n, iOff = 0;
  if (aPage[0] != 0x0d || aPage[3] != 0 || aPage[4] != 1) {
    return 0;
  }
  a = aPage + ((int)aPage[8] << 8 | aPage[9]);
  for (i = 0; i < 5; i++) {
    n = sealVarint(a, aEnd, &aV[i]);
    if (n == 0) {
      return 0;
    }
    a += n;
  }
  if (aV[1] == 1 && aV[2] == 4 && aV[3] == 0 &&
      aV[4] == 12 + 2 * CHOIR_SYNC_SEAL && aV[0] == 4 + CHOIR_SYNC_SEAL &&
      aEnd - a >= CHOIR_SYNC_SEAL) {
    iOff = (int)(a - aPage);
  }
  return iOff;
}
