/* SPDX-License-Identifier: MIT */
/*
** log_seal(), log_verify(), log_prove(): the log as evidence.
**
** A seal covers the records since the one before. Its root is the Merkle tree
** hash of RFC 6962 over them: a leaf is SHA-256(0x00 || record), a node
** SHA-256(0x01 || left || right). Its head chains it to the seal before:
** SHA-256("choir seal 1" || previous head || batch || first || last || records
** || time || root). docs/formats.md has the bytes. Whoever keeps a head
** elsewhere can tell later whether anything before it was changed; without one
** kept elsewhere, a file whose every seal was made anew looks whole.
**
** Owns in the file, from the first log_seal() on: _choir_seal.
*/
#include "log.h"

static const char zSealSql[] =
    "CREATE TABLE ~._choir_seal(batch INTEGER PRIMARY KEY, first INTEGER NOT"
    " NULL, last INTEGER NOT NULL, records INTEGER NOT NULL, time INTEGER NOT"
    " NULL, root BLOB NOT NULL, head BLOB NOT NULL)";

static int sealMade(ChoirConn *pConn, ChoirErr *pErr) {
  return choirExists(pConn, pErr, "table", "_choir_seal");
}

/* ---------------------------------------------------------------- hashing */

static void sealBig64(u8 *a, u64 v) {
  int i;
  for (i = 7; i >= 0; i--, v >>= 8) {
    a[i] = (u8)(v & 0xff);
  }
}

/* A value: its type (0 NULL, 1 integer, 2 real, 3 text, 4 blob), then 8 bytes
** of a number, or 8 bytes of length and the bytes. */
CHOIR_PRIVATE void choirLogHashValue(ChoirSha256 *pHash, sqlite3_stmt *p,
                                     int i) {
  u8 a[9];
  const void *pByte = NULL;
  int n = 0;
  double r;
  u64 v = 0;
  switch (sqlite3_column_type(p, i)) {
  case SQLITE_INTEGER:
    a[0] = 1;
    v = (u64)sqlite3_column_int64(p, i);
    break;
  case SQLITE_FLOAT:
    a[0] = 2;
    r = sqlite3_column_double(p, i);
    memcpy(&v, &r, sizeof(v));
    break;
  case SQLITE_TEXT:
    a[0] = 3;
    pByte = sqlite3_column_text(p, i);
    v = (u64)(n = sqlite3_column_bytes(p, i));
    break;
  case SQLITE_BLOB:
    a[0] = 4;
    pByte = sqlite3_column_blob(p, i);
    v = (u64)(n = sqlite3_column_bytes(p, i));
    break;
  default:
    a[0] = 0;
    choirSha256Update(pHash, a, 1);
    return;
  }
  sealBig64(a + 1, v);
  choirSha256Update(pHash, a, 9);
  if (n > 0 && pByte) {
    choirSha256Update(pHash, pByte, (u64)n);
  }
}

#define SEAL_COLUMNS "seq, id, timestamp, action_type, payload, tbl, pk"

static void sealLeaf(sqlite3_stmt *p, u8 aOut[32]) {
  ChoirSha256 hash;
  int i;
  choirSha256Init(&hash);
  choirSha256Update(&hash, "", 1); /* 0x00 */
  for (i = 0; i < 7; i++) {
    choirLogHashValue(&hash, p, i);
  }
  choirSha256Final(&hash, aOut);
}

static void sealNode(const u8 *aLeft, const u8 *aRight, u8 aOut[32]) {
  u8 a[65];
  a[0] = 1;
  memcpy(a + 1, aLeft, 32);
  memcpy(a + 33, aRight, 32);
  choirSha256(a, sizeof(a), aOut);
}

/* A tree that grows leaf by leaf: the roots of its full subtrees, the largest
** first, as the bits of n. With iLeaf it collects the audit path of that leaf:
** a subtree that the leaf is in takes the other one into the path when the two
** are joined. */
typedef struct SealTree {
  u64 n;
  u8 aRoot[64][32];
  int nRoot;
  i64 iLeaf; /* -1: none */
  int iHas;  /* the subtree with the leaf, -1: not there yet */
  u8 aPath[64][32];
  int nPath;
} SealTree;

static void treeInit(SealTree *p, i64 iLeaf) {
  memset(p, 0, sizeof(*p));
  p->iLeaf = iLeaf;
  p->iHas = -1;
}

/* Joins the last two subtrees. */
static void treeJoin(SealTree *p) {
  u8 *aLeft = p->aRoot[p->nRoot - 2], *aRight = p->aRoot[p->nRoot - 1];
  if (p->iHas >= p->nRoot - 2) {
    memcpy(p->aPath[p->nPath++], p->iHas == p->nRoot - 1 ? aLeft : aRight, 32);
    p->iHas = p->nRoot - 2;
  }
  sealNode(aLeft, aRight, aLeft);
  p->nRoot--;
}

static void treeAdd(SealTree *p, const u8 aLeaf[32]) {
  u64 n;
  memcpy(p->aRoot[p->nRoot], aLeaf, 32);
  if (p->iLeaf == (i64)p->n) {
    p->iHas = p->nRoot;
  }
  p->nRoot++;
  for (n = p->n++; n & 1; n >>= 1) {
    treeJoin(p);
  }
}

/* The root; of no leaves, the hash of nothing. */
static void treeRoot(SealTree *p, u8 aOut[32]) {
  while (p->nRoot > 1) {
    treeJoin(p);
  }
  if (p->nRoot) {
    memcpy(aOut, p->aRoot[0], 32);
  } else {
    choirSha256("", 0, aOut);
  }
}

typedef struct Seal {
  i64 iBatch, iFirst, iLast, nRecord, iTime;
  u8 aRoot[32];
  u8 aHead[32];
} Seal;

static void sealHead(const Seal *p, const u8 aPrev[32], u8 aOut[32]) {
  static const char zTag[] = "choir seal 1";
  u8 a[12 + 32 + 40 + 32];
  memcpy(a, zTag, 12);
  memcpy(a + 12, aPrev, 32);
  sealBig64(a + 44, (u64)p->iBatch);
  sealBig64(a + 52, (u64)p->iFirst);
  sealBig64(a + 60, (u64)p->iLast);
  sealBig64(a + 68, (u64)p->nRecord);
  sealBig64(a + 76, (u64)p->iTime);
  memcpy(a + 84, p->aRoot, 32);
  choirSha256(a, sizeof(a), aOut);
}

/* Hashes the records after seal pPrev up to iTo; *piFirst and *piLast are the
** first and the last. */
static void sealRecords(ChoirConn *pConn, ChoirErr *pErr, SealTree *pTree,
                        const Seal *pPrev, i64 iTo, i64 *piFirst, i64 *piLast) {
  u8 aLeaf[32];
  sqlite3_stmt *p =
      choirStmt(pConn, pErr,
                "SELECT " SEAL_COLUMNS " FROM ~.action_log WHERE seq BETWEEN"
                " ?1 AND ?2 ORDER BY seq");
  choirBindInt(pErr, p, 1, pPrev->iBatch ? pPrev->iLast + 1 : INT64_MIN);
  choirBindInt(pErr, p, 2, iTo);
  *piFirst = *piLast = 0;
  while (choirStep(pErr, p)) {
    *piLast = sqlite3_column_int64(p, 0);
    if (pTree->n == 0) {
      *piFirst = *piLast;
    }
    sealLeaf(p, aLeaf);
    treeAdd(pTree, aLeaf);
    if (sqlite3_errcode(pConn->db) == SQLITE_NOMEM) {
      choirErrNomem(pErr);
    }
  }
  choirStmtDone(pConn, p);
}

/* Column i. No seal of ours has a number beyond 2^62, but anybody may have written
** one, and none is to overflow: that is brought there, and told. */
static i64 sealNumber(sqlite3_stmt *p, int i, int *pbFits) {
  const i64 iMost = (i64)1 << 62;
  i64 v = sqlite3_column_int64(p, i);
  if (v < -iMost || v > iMost) {
    *pbFits = 0;
    v = v < 0 ? -iMost : iMost;
  }
  return v;
}

/* Row of _choir_seal; 0 when a column is not what it should be. */
static int sealRead(sqlite3_stmt *p, Seal *pSeal) {
  const void *aRoot = sqlite3_column_blob(p, 5);
  const void *aHead = sqlite3_column_blob(p, 6);
  int bFits = 1;
  memset(pSeal, 0, sizeof(*pSeal));
  pSeal->iBatch = sealNumber(p, 0, &bFits);
  pSeal->iFirst = sealNumber(p, 1, &bFits);
  pSeal->iLast = sealNumber(p, 2, &bFits);
  pSeal->nRecord = sealNumber(p, 3, &bFits);
  pSeal->iTime = sqlite3_column_int64(p, 4);
  if (aRoot == NULL || aHead == NULL || sqlite3_column_bytes(p, 5) != 32 ||
      sqlite3_column_bytes(p, 6) != 32 || !bFits || (u64)pSeal->nRecord >> 40) {
    return 0;
  }
  memcpy(pSeal->aRoot, aRoot, 32);
  memcpy(pSeal->aHead, aHead, 32);
  return 1;
}

#define SEAL_SELECT                                                            \
  "SELECT batch, first, last, records, time, root, head FROM ~._choir_seal "

/* The last seal, zeroed where there is none. */
static void sealLast(ChoirConn *pConn, ChoirErr *pErr, Seal *pSeal) {
  sqlite3_stmt *p =
      choirStmt(pConn, pErr, SEAL_SELECT "ORDER BY batch DESC LIMIT 1");
  memset(pSeal, 0, sizeof(*pSeal));
  if (choirStep(pErr, p) && !sealRead(p, pSeal)) {
    choirErrSet(pErr, SQLITE_CORRUPT_VTAB,
                "seal %lld is damaged; select log_verify()",
                sqlite3_column_int64(p, 0));
  }
  choirStmtDone(pConn, p);
}

CHOIR_PRIVATE void choirLogSealHold(ChoirConn *pConn, ChoirErr *pErr,
                                    i64 *piSeq, char **pzWhy) {
  sqlite3_stmt *p;
  i64 iLast;
  if (!sealMade(pConn, pErr)) {
    return;
  }
  p = choirStmt(pConn, pErr,
                "SELECT coalesce(max(last), 0) FROM ~._choir_seal"
                " WHERE last<?1");
  choirBindInt(pErr, p, 1, *piSeq);
  iLast = choirStep(pErr, p) ? sqlite3_column_int64(p, 0) : 0;
  choirStmtDone(pConn, p);
  if (iLast + 1 < *piSeq && pErr->rc == SQLITE_OK) {
    *piSeq = iLast + 1;
    sqlite3_free(*pzWhy);
    *pzWhy = choirMprintf(pErr, "seals: a batch goes as a whole");
  }
}

/*
** SQL: log_seal() -> TEXT
**
** Seals the records since the last seal: their Merkle root, chained by SHA-256
** to the seals before. Gives {"batch","records","head"}: whoever keeps the head
** elsewhere can prove later that nothing before it has changed. With nothing to
** seal, records is 0 and the head that of the last seal (null without one).
** The column synced is not sealed, for publishing changes it.
**
** > SELECT log_record('A', '{}');
** > SELECT log_seal() LIKE '{"batch":1,"records":1,"head":"%'
** = 1
*/
static void sealCall(ChoirCall *p) {
  ChoirConn *pConn = p->pConn;
  ChoirErr *pErr = &p->err;
  SealTree tree;
  Seal last, seal;
  ChoirBuf b;
  char zHead[65];
  choirNeedWorkspace(pConn, pErr);
  if (pErr->rc == SQLITE_OK && !sealMade(pConn, pErr)) {
    choirExecText(pConn, pErr, zSealSql);
  }
  sealLast(pConn, pErr, &last);
  memset(&seal, 0, sizeof(seal));
  treeInit(&tree, -1);
  sealRecords(pConn, pErr, &tree, &last, INT64_MAX, &seal.iFirst, &seal.iLast);
  seal.iBatch = last.iBatch + 1;
  seal.nRecord = (i64)tree.n;
  seal.iTime = choirNow();
  treeRoot(&tree, seal.aRoot);
  sealHead(&seal, last.aHead, seal.aHead);
  if (tree.n && pErr->rc == SQLITE_OK) {
    sqlite3_stmt *pStmt = choirStmt(
        pConn, pErr,
        "INSERT INTO ~._choir_seal(batch, first, last, records, time, root,"
        " head) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7)");
    choirBindInt(pErr, pStmt, 1, seal.iBatch);
    choirBindInt(pErr, pStmt, 2, seal.iFirst);
    choirBindInt(pErr, pStmt, 3, seal.iLast);
    choirBindInt(pErr, pStmt, 4, seal.nRecord);
    choirBindInt(pErr, pStmt, 5, seal.iTime);
    choirBindBlob(pErr, pStmt, 6, seal.aRoot, 32);
    choirBindBlob(pErr, pStmt, 7, seal.aHead, 32);
    choirStep(pErr, pStmt);
    choirStmtDone(pConn, pStmt);
  } else {
    seal = last;
  }
  choirHex(seal.aHead, 32, zHead);
  choirBufInit(&b, pErr, CHOIR_BUF_SQL);
  choirBufPrintf(&b, "{\"batch\":%lld,\"records\":%lld,\"head\":", seal.iBatch,
                 (i64)tree.n);
  choirBufPrintf(&b, seal.iBatch ? "\"%s\"}" : "null}", zHead);
  choirBufResult(&b, p->pCtx);
}

/* ------------------------------------------------------------- log_verify */

typedef struct SealCheck {
  ChoirBuf problems;
  i64 nSealed, nPruned, nBatch;
  int bHead; /* the head asked for is there */
} SealCheck;

static void sealProblem(SealCheck *p, i64 iBatch, const char *zWhat) {
  choirBufPrintf(&p->problems, "%s{\"batch\":%lld,\"problem\":\"%s\"}",
                 p->problems.n ? "," : "", iBatch, zWhat);
}

/* One seal against the records and against the seal before it. */
static void sealVerifyOne(ChoirConn *pConn, ChoirErr *pErr, SealCheck *pCheck,
                          const Seal *pSeal, const Seal *pPrev, i64 iPruned) {
  SealTree tree;
  i64 iFirst, iLast;
  u8 a[32];
  sealHead(pSeal, pPrev->aHead, a);
  if (memcmp(a, pSeal->aHead, 32) != 0) {
    sealProblem(pCheck, pSeal->iBatch, "the chain does not hold");
  }
  if (pSeal->iBatch != pPrev->iBatch + 1) {
    sealProblem(pCheck, pSeal->iBatch, "seals before it are missing");
  }
  if (pSeal->iLast <= iPruned) {
    pCheck->nPruned += pSeal->nRecord;
    return;
  }
  treeInit(&tree, -1);
  sealRecords(pConn, pErr, &tree, pPrev, pSeal->iLast, &iFirst, &iLast);
  treeRoot(&tree, a);
  pCheck->nSealed += (i64)tree.n;
  if ((i64)tree.n != pSeal->nRecord || iFirst != pSeal->iFirst ||
      iLast != pSeal->iLast) {
    sealProblem(pCheck, pSeal->iBatch, "records are missing or were added");
  } else if (memcmp(a, pSeal->aRoot, 32) != 0) {
    sealProblem(pCheck, pSeal->iBatch, "a record was changed");
  }
}

/*
** SQL: log_verify([head]) -> TEXT
**
** Hashes the sealed records again and follows the chain of seals. Gives
** {"ok","head","batches","records","pruned","unsealed","problems"}; a problem is
** {"batch","problem"}. Any byte of a sealed record that changed is found
** (synced, which publishing sets, is not sealed).
**
**   head  TEXT, of an earlier log_seal(), kept elsewhere: it must be one of the
**         chain's, or the log was made anew
**
** NULL: a NULL head asks for none.
** Errors: head is not 64 hexadecimal digits.
**
** > SELECT log_record('A', '{}');
** > SELECT log_seal();
** > UPDATE action_log SET payload = '{"a":1}';
** > SELECT json_extract(log_verify(), '$.problems[0].problem')
** = a record was changed
*/
static void verifyCall(ChoirCall *p) {
  ChoirConn *pConn = p->pConn;
  ChoirErr *pErr = &p->err;
  const char *zWant =
      p->nArg ? choirArgTextOrNull(pErr, p->apArg[0], "head") : NULL;
  sqlite3_stmt *pStmt = NULL;
  SealCheck check;
  Seal prev, seal;
  ChoirBuf b;
  char zHead[65];
  i64 iPruned;
  memset(&check, 0, sizeof(check));
  memset(&prev, 0, sizeof(prev));
  choirBufInit(&check.problems, pErr, CHOIR_BUF_JSON);
  if (zWant && (strspn(zWant, "0123456789abcdef") != 64 || zWant[64])) {
    choirErrSet(pErr, SQLITE_ERROR,
                "head must be 64 hexadecimal digits, got '%.80s'", zWant);
  }
  choirNeedWorkspace(pConn, pErr);
  iPruned = choirQueryInt(pConn, pErr,
                          "SELECT CAST(value AS INTEGER) FROM ~._choir_meta"
                          " WHERE key='log.pruned'",
                          0);
  if (sealMade(pConn, pErr)) {
    pStmt = choirStmt(pConn, pErr, SEAL_SELECT "ORDER BY batch");
  }
  choirHex(prev.aHead, 32, zHead);
  check.bHead = zWant == NULL;
  while (choirStep(pErr, pStmt)) {
    if (sealRead(pStmt, &seal)) {
      sealVerifyOne(pConn, pErr, &check, &seal, &prev, iPruned);
    } else {
      sealProblem(&check, sqlite3_column_int64(pStmt, 0),
                  "the seal is damaged");
    }
    check.nBatch++;
    choirHex(seal.aHead, 32, zHead);
    check.bHead |= zWant && strcmp(zHead, zWant) == 0;
    prev = seal;
  }
  choirStmtDone(pConn, pStmt);
  if (!check.bHead) {
    sealProblem(&check, prev.iBatch, "no seal has the head asked for");
  }
  pStmt =
      choirStmt(pConn, pErr, "SELECT count(*) FROM ~.action_log WHERE seq>?1");
  choirBindInt(pErr, pStmt, 1, prev.iLast);
  choirBufInit(&b, pErr, CHOIR_BUF_JSON);
  choirBufPrintf(&b, "{\"ok\":%d,\"head\":", check.problems.n == 0);
  choirBufPrintf(&b, check.nBatch ? "\"%s\"" : "null", zHead);
  choirBufPrintf(&b,
                 ",\"batches\":%lld,\"records\":%lld,\"pruned\":%lld,"
                 "\"unsealed\":%lld,\"problems\":[",
                 check.nBatch, check.nSealed, check.nPruned,
                 choirStep(pErr, pStmt) ? sqlite3_column_int64(pStmt, 0) : 0);
  choirStmtDone(pConn, pStmt);
  choirBufText(&b, check.problems.n ? check.problems.a : "");
  choirBufText(&b, "]}");
  choirBufFree(&check.problems);
  choirBufResult(&b, p->pCtx);
}

/* -------------------------------------------------------------- log_prove */

/*
** SQL: log_prove(seq) -> TEXT
**
** Proves that a record is in a sealed batch: {"batch","index","size","root",
** "path"}, the audit path of RFC 6962 with hashes in base64 (the path's one after
** the other), less than 1 KB for a million records. tools/check_proof.py checks
** it without choir, from the record and the proof alone.
**
**   seq  INTEGER, of a sealed record
**
** NULL: an error.
** Errors: no such record; not sealed yet; the batch no longer matches its seal.
**
** > SELECT log_record('A', '{}');
** > SELECT log_seal();
** > SELECT json_extract(log_prove(1), '$.size'), json_extract(log_prove(1), '$.path')
** = 1|
*/
static void proveCall(ChoirCall *p) {
  ChoirConn *pConn = p->pConn;
  ChoirErr *pErr = &p->err;
  i64 iSeq = choirArgInt(pErr, p->apArg[0], "seq", 1, INT64_MAX);
  i64 iFirst, iLast, iIndex = 0, bHere = 0;
  sqlite3_stmt *pStmt = NULL;
  SealTree tree;
  Seal seal, prev;
  ChoirBuf b;
  u8 aRoot[32];
  memset(&seal, 0, sizeof(seal));
  choirNeedWorkspace(pConn, pErr);
  if (sealMade(pConn, pErr)) {
    pStmt = choirStmt(pConn, pErr, SEAL_SELECT "WHERE first<=?1 AND last>=?1");
  }
  choirBindInt(pErr, pStmt, 1, iSeq);
  if (pErr->rc == SQLITE_OK &&
      (!choirStep(pErr, pStmt) || !sealRead(pStmt, &seal))) {
    choirErrSet(pErr, SQLITE_ERROR, "record %lld is not sealed", iSeq);
  }
  choirStmtDone(pConn, pStmt);
  pStmt = choirStmt(pConn, pErr,
                    "SELECT count(*), max(seq)=?2 FROM ~.action_log WHERE seq"
                    " BETWEEN ?1 AND ?2");
  choirBindInt(pErr, pStmt, 1, seal.iFirst);
  choirBindInt(pErr, pStmt, 2, iSeq);
  if (choirStep(pErr, pStmt)) {
    iIndex = sqlite3_column_int64(pStmt, 0) - 1;
    bHere = sqlite3_column_int(pStmt, 1);
  }
  choirStmtDone(pConn, pStmt);
  if (!bHere) {
    choirErrSet(pErr, SQLITE_ERROR, "there is no record %lld in the log", iSeq);
  }
  treeInit(&tree, iIndex);
  prev = seal;
  prev.iLast = seal.iFirst - 1;
  sealRecords(pConn, pErr, &tree, &prev, seal.iLast, &iFirst, &iLast);
  treeRoot(&tree, aRoot);
  if (memcmp(aRoot, seal.aRoot, 32) != 0) {
    choirErrSet(pErr, SQLITE_CORRUPT_VTAB,
                "batch %lld no longer matches its seal; select log_verify()",
                seal.iBatch);
  }
  choirBufInit(&b, pErr, CHOIR_BUF_SQL);
  choirBufPrintf(&b, "{\"batch\":%lld,\"index\":%lld,\"size\":%lld,\"root\":\"",
                 seal.iBatch, iIndex, (i64)tree.n);
  choirBufBase64(&b, aRoot, 32, 0);
  choirBufText(&b, "\",\"path\":\"");
  choirBufBase64(&b, tree.aPath[0], (u64)tree.nPath * 32, 0);
  choirBufText(&b, "\"}");
  choirBufResult(&b, p->pCtx);
}

static const ChoirFunc aSealFunc[] = {
    {"log_seal", 0, 0, CHOIR_WRITE, 0, sealCall, NULL},
    {"log_verify", 0, 1, CHOIR_READ, 0, verifyCall, NULL},
    {"log_prove", 1, 1, CHOIR_READ, 0, proveCall, NULL},
};

CHOIR_PRIVATE CHOIR_COLD void choirLogSealRegister(ChoirConn *pConn,
                                                   ChoirErr *pErr) {
  choirFuncs(pConn, pErr, aSealFunc);
}
