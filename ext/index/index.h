/* SPDX-License-Identifier: MIT */
/*
** index: finding the nearest of many vectors.
**
**   scan   exact top-k over any rows, vec_scan   index_scan.c
*/
#ifndef CHOIR_INDEX_H
#define CHOIR_INDEX_H

#include "../core/core.h"
#include "../vec/vec.h"

/* --------------------------------------------------------------- scan ----
** The k nearest of the rows that are shown to it, in bounded memory:
**
**   ChoirScan scan;
**   choirScanInit(&scan, pConn, &err, VEC_COSINE, VEC_F32, aQuery, nDim, k);
**   choirScanStmt(&scan, &err, pStmt);   (rowid, vector) rows, to their end
**   choirScanSort(&scan);                scan.aHit[0..scan.nHit), nearest first
**   choirScanFree(&scan);
**
** choirScanRow() shows it one vector instead. Equal distances are in the order
** of their rowids. A distance that is not a number (cosine of a vector of
** length 0) comes after all others.
*/
#define CHOIR_SCAN_MAX 1000000 /* largest k */

typedef struct ChoirHit {
  i64 iRowid;
  double rDist;
} ChoirHit;

typedef struct ChoirScan {
  const ChoirKern *pKern;
  int eMetric, eType;
  const void *aQuery; /* nDim elements of eType; stays the caller's */
  i64 nDim, nByte;
  double qq;      /* dot(query, query) for cosine */
  ChoirHit *aHit; /* a heap, the farthest first; after the sort, in order */
  i64 nHit, nAlloc;
  i64 k;
  i64 nRow; /* vectors seen; NULLs are not counted */
} ChoirScan;

CHOIR_PRIVATE void choirScanInit(ChoirScan *, ChoirConn *, ChoirErr *,
                                 int eMetric, int eType, const void *aQuery,
                                 i64 nDim, i64 k);
/* One row: nByte bytes at a. Errors unless they are nDim elements. */
CHOIR_PRIVATE void choirScanRow(ChoirScan *, ChoirErr *, i64 iRowid,
                                const void *a, i64 nByte);
/* Steps pStmt to its end: column 0 a rowid, column 1 a vector (blob or JSON
** text) or NULL, which is skipped. */
CHOIR_PRIVATE void choirScanStmt(ChoirScan *, ChoirErr *, sqlite3_stmt *);
CHOIR_PRIVATE void choirScanSort(ChoirScan *);
CHOIR_PRIVATE void choirScanFree(ChoirScan *);

CHOIR_PRIVATE void choirIndexRegister(ChoirConn *, ChoirErr *);

#endif /* CHOIR_INDEX_H */
