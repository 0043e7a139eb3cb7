/* SPDX-License-Identifier: MIT */
/*
** Which tables differ between this file and a version, and by how many rows.
**
** A row is the SHA-256 of its values with their types (a float by its bits),
** without its rowid unless that is a column. A table's digest is the sum of
** their hashes, as four words modulo 2^64, so neither order nor rowids count
** (docs/formats.md, "Table digests"). Where two differ, the hashes themselves are
** sorted and compared.
**
** Ordinary tables only: a virtual table is what the tables of its own hold, and
** generated columns follow from the others. The schema is compared as a table
** of its own, without root pages. Nothing of the version is run: no view, no
** trigger, no virtual table.
*/
#include "sync.h"
#include <stdlib.h>

#define DIFF_HASH 16
#define DIFF_ROWS ((u64)1 << 23) /* whose hashes are kept: 128 MiB a side */

typedef struct DiffSide {
  sqlite3 *db;
  const char *zSchema;
} DiffSide;

typedef struct DiffSum {
  u8 bThere; /* the table exists */
  u64 nRow;
  u64 aSum[4];
  u8 *aHash; /* DIFF_HASH bytes a row, when asked for */
  u64 nAlloc;
} DiffSum;

static sqlite3_stmt *diffPrepare(ChoirErr *pErr, const DiffSide *pSide,
                                 const char *zSql) {
  sqlite3_stmt *p = NULL;
  if (zSql && pErr->rc == SQLITE_OK) {
    choirErrDb(pErr, pSide->db,
               sqlite3_prepare_v2(pSide->db, zSql, -1, &p, NULL));
  }
  return p;
}

/* Reads the columns that are stored; NULL: there is no such table. */
static sqlite3_stmt *diffRows(ChoirErr *pErr, const DiffSide *pSide,
                              const char *zTable) {
  char *zSql = choirMprintf(pErr, "PRAGMA \"%w\".table_xinfo(\"%w\")",
                            pSide->zSchema, zTable);
  sqlite3_stmt *pInfo = diffPrepare(pErr, pSide, zSql), *p;
  ChoirBuf b;
  choirBufInit(&b, pErr, CHOIR_BUF_SQL);
  while (choirStep(pErr, pInfo)) {
    if (sqlite3_column_int(pInfo, 6) == 0) {
      choirBufPrintf(&b, "%s\"%w\"", b.n ? "," : "SELECT ",
                     sqlite3_column_text(pInfo, 1));
    }
  }
  sqlite3_finalize(pInfo);
  sqlite3_free(zSql);
  if (b.n) {
    choirBufPrintf(&b, " FROM \"%w\".\"%w\"", pSide->zSchema, zTable);
  }
  p = diffPrepare(pErr, pSide, b.a);
  choirBufFree(&b);
  return p;
}

CHOIR_PRIVATE void choirDiffHash(ChoirSha256 *pSha, int eType, u64 v,
                                 const void *aMore) {
  u8 a[9] = {(u8)eType};
  int i;
  for (i = 0; i < 8; i++) {
    a[1 + i] = (u8)(v >> (8 * i));
  }
  choirSha256Update(pSha, a, 9);
  if (aMore) {
    choirSha256Update(pSha, aMore, v);
  }
}

static void diffValue(ChoirSha256 *pSha, sqlite3_stmt *p, int iCol) {
  int eType = sqlite3_column_type(p, iCol);
  const void *aMore = NULL;
  u64 v = 0;
  double r;
  if (eType == SQLITE_INTEGER) {
    v = (u64)sqlite3_column_int64(p, iCol);
  } else if (eType == SQLITE_FLOAT) {
    r = sqlite3_column_double(p, iCol);
    memcpy(&v, &r, 8);
  } else if (eType == SQLITE_TEXT) {
    aMore = sqlite3_column_text(p, iCol);
    v = (u64)sqlite3_column_bytes(p, iCol);
  } else if (eType == SQLITE_BLOB) {
    aMore = sqlite3_column_blob(p, iCol);
    v = (u64)sqlite3_column_bytes(p, iCol);
  }
  choirDiffHash(pSha, eType, v, aMore);
}

/* Counts and sums the rows of p, which is finalized; keeps hashes if bKeep. */
static void diffSum(ChoirConn *pConn, ChoirErr *pErr, sqlite3_stmt *p,
                    int bKeep, DiffSum *pOut) {
  memset(pOut, 0, sizeof(*pOut));
  pOut->bThere = p != NULL;
  while (choirStep(pErr, p)) {
    ChoirSha256 sha;
    u8 a[32];
    int i, j;
    choirSha256Init(&sha);
    for (i = 0; i < sqlite3_column_count(p); i++) {
      diffValue(&sha, p, i);
    }
    choirSha256Final(&sha, a);
    for (i = 0; i < 4; i++) {
      u64 v = 0;
      for (j = 0; j < 8; j++) {
        v = v << 8 | a[8 * i + j];
      }
      pOut->aSum[i] += v;
    }
    if (bKeep && pOut->nRow == pOut->nAlloc) {
      u64 n = pOut->nAlloc ? 2 * pOut->nAlloc : 256;
      u8 *aNew = choirRealloc(pErr, pOut->aHash, n * DIFF_HASH);
      if (aNew == NULL) {
        break;
      }
      pOut->aHash = aNew;
      pOut->nAlloc = n;
    }
    if (bKeep) {
      memcpy(pOut->aHash + pOut->nRow * DIFF_HASH, a, DIFF_HASH);
    }
    pOut->nRow++;
    if (pOut->nRow % 4096 == 0 && choirInterrupted(pConn)) {
      choirErrSet(pErr, SQLITE_INTERRUPT, "interrupted");
    }
  }
  sqlite3_finalize(p);
}

static int diffOrder(const void *a, const void *b) {
  return memcmp(a, b, DIFF_HASH);
}

/* Rows of a that b does not have, as often as it has them. */
static u64 diffMissing(const DiffSum *a, const DiffSum *b) {
  u64 i = 0, j = 0, n = 0;
  while (i < a->nRow) {
    int c = j < b->nRow
                ? diffOrder(a->aHash + i * DIFF_HASH, b->aHash + j * DIFF_HASH)
                : -1;
    n += c < 0;
    i += c <= 0;
    j += c >= 0;
  }
  return n;
}

static const char zDiffSchema[] =
    "SELECT type, name, tbl_name, sql FROM \"%w\".sqlite_schema";

/* zTable NULL: the schema. */
static sqlite3_stmt *diffOpen(ChoirErr *pErr, const DiffSide *pSide,
                              const char *zTable) {
  char *z;
  sqlite3_stmt *p;
  if (zTable) {
    return diffRows(pErr, pSide, zTable);
  }
  z = choirMprintf(pErr, zDiffSchema, pSide->zSchema);
  p = diffPrepare(pErr, pSide, z);
  sqlite3_free(z);
  return p;
}

static void diffHex(const DiffSum *p, char zOut[65]) {
  u8 a[32];
  int i;
  for (i = 0; i < 32; i++) {
    a[i] = (u8)(p->aSum[i / 8] >> (56 - 8 * (i % 8)));
  }
  choirHex(a, 32, zOut);
}

static void diffDigest(const DiffSum *p, const char *zName, ChoirBuf *pOut) {
  char z[65];
  if (p->bThere) {
    diffHex(p, z);
    choirBufText(pOut, pOut->n ? ",{\"name\":" : "{\"name\":");
    choirBufJson(pOut, zName, -1);
    choirBufPrintf(pOut, ",\"rows\":%llu,\"digest\":\"%s\"}", p->nRow, z);
  }
}

/* One table on both sides: its digest there, and when it differs how. */
static void diffCompare(ChoirConn *pConn, ChoirErr *pErr,
                        const DiffSide aSide[2], const char *zTable, int bHere,
                        ChoirBuf *pOut, ChoirBuf *pDigest) {
  const char *zName = zTable ? zTable : "sqlite_schema";
  char zHere[65];
  DiffSum aSum[2];
  int i, bKeep;
  memset(aSum, 0, sizeof(aSum));
  for (i = !bHere; i < 2; i++) {
    diffSum(pConn, pErr, diffOpen(pErr, &aSide[i], zTable), 0, &aSum[i]);
  }
  diffDigest(&aSum[1], zName, pDigest);
  if (pErr->rc != SQLITE_OK || !bHere ||
      (aSum[0].bThere == aSum[1].bThere && aSum[0].nRow == aSum[1].nRow &&
       memcmp(aSum[0].aSum, aSum[1].aSum, sizeof(aSum[0].aSum)) == 0)) {
    return;
  }
  bKeep = aSum[0].nRow <= DIFF_ROWS && aSum[1].nRow <= DIFF_ROWS;
  choirBufText(pOut, pOut->n ? ",{\"name\":" : "{\"name\":");
  choirBufJson(pOut, zName, -1);
  choirBufPrintf(pOut, ",\"here\":%llu,\"there\":%llu", aSum[0].nRow,
                 aSum[1].nRow);
  if (aSum[0].bThere) {
    diffHex(&aSum[0], zHere);
    choirBufPrintf(pOut, ",\"digest\":\"%s\"", zHere);
  }
  for (i = 0; i < 2 && bKeep; i++) {
    diffSum(pConn, pErr, diffOpen(pErr, &aSide[i], zTable), 1, &aSum[i]);
    if (aSum[i].nRow) {
      qsort(aSum[i].aHash, (size_t)aSum[i].nRow, DIFF_HASH, diffOrder);
    }
  }
  if (bKeep && pErr->rc == SQLITE_OK) {
    choirBufPrintf(pOut, ",\"only_here\":%llu,\"only_there\":%llu",
                   diffMissing(&aSum[0], &aSum[1]),
                   diffMissing(&aSum[1], &aSum[0]));
  }
  choirBufText(pOut, "}");
  for (i = 0; i < 2 && bKeep; i++) {
    sqlite3_free(aSum[i].aHash);
  }
}

CHOIR_PRIVATE int choirDiffAlike(ChoirConn *pConn, ChoirErr *pErr, sqlite3 *db,
                                 const char *zA, const char *zB,
                                 const char *zTable) {
  DiffSide aSide[2] = {{db, zA}, {db, zB}};
  DiffSum aSum[2];
  int i;
  for (i = 0; i < 2; i++) {
    diffSum(pConn, pErr, diffRows(pErr, &aSide[i], zTable), 0, &aSum[i]);
  }
  return aSum[0].bThere == aSum[1].bThere && aSum[0].nRow == aSum[1].nRow &&
         memcmp(aSum[0].aSum, aSum[1].aSum, sizeof(aSum[0].aSum)) == 0;
}

static const char zDiffList[] =
    "SELECT name FROM \"%w\".sqlite_schema WHERE type='table' AND rootpage>0"
    " AND name<>'_choir_sync_seal' ORDER BY name";

static int diffExists(ChoirErr *pErr, const DiffSide *pSide,
                      const char *zTable) {
  char *z = choirMprintf(pErr,
                         "SELECT 1 FROM \"%w\".sqlite_schema WHERE type='table'"
                         " AND rootpage>0 AND name=%Q COLLATE NOCASE",
                         pSide->zSchema, zTable);
  sqlite3_stmt *p = diffPrepare(pErr, pSide, z);
  int b = choirStep(pErr, p);
  sqlite3_finalize(p);
  sqlite3_free(z);
  return b;
}

/* The list is read while the tables are, so this file is read in one state. */
CHOIR_PRIVATE void choirDiffTables(ChoirConn *pConn, ChoirErr *pErr,
                                   sqlite3 *dbThere, int bHere, ChoirBuf *pOut,
                                   ChoirBuf *pDigest) {
  DiffSide aSide[2] = {{pConn->db, choirSchema(pConn)}, {dbThere, "main"}};
  sqlite3_stmt *ap[2] = {NULL, NULL};
  int i;
  for (i = !bHere; i < 2; i++) {
    char *z = choirMprintf(pErr, zDiffList, aSide[i].zSchema);
    ap[i] = diffPrepare(pErr, &aSide[i], z);
    sqlite3_free(z);
  }
  for (i = !bHere; i < 2; i++) {
    while (choirStep(pErr, ap[i])) {
      const char *z = (const char *)sqlite3_column_text(ap[i], 0);
      if (z && (i == 0 || !bHere || !diffExists(pErr, &aSide[0], z))) {
        diffCompare(pConn, pErr, aSide, z, bHere, pOut, pDigest);
      }
    }
  }
  diffCompare(pConn, pErr, aSide, NULL, bHere, pOut, pDigest);
  sqlite3_finalize(ap[0]);
  sqlite3_finalize(ap[1]);
}
