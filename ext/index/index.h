/* SPDX-License-Identifier: MIT */
/*
** index: finding the nearest of many vectors.
**
**   scan    exact top-k over any rows, vec_scan       index_scan.c
**   code    vectors as codes of one bit a dimension   index_code.c
**   fine    the same, of one byte, in memory          index_fine.c
**   set     sets of rowids                            index_set.c
**   seek    candidates among blocks of codes          index_seek.c
**   open    an index, its tables, its cache           index_open.c
**   means   k-means                                   index_means.c
**   write   rows into lists, lists into two           index_write.c
**   search  choirIndexSearch                          index_search.c
**   make    create, drop, absorb, info                index_make.c
**   sql     the SQL functions, vec_search, reports    index_sql.c
**   check   choir_check() of them                     index_check.c
*/
#ifndef CHOIR_INDEX_H
#define CHOIR_INDEX_H

#include "../core/core.h"
#include "../vec/vec.h"

typedef int32_t i32;

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

/* The vectors of a table's column are read through here, one by one: SQLite's
** incremental blobs find a row in a third of the time of a statement. */
typedef struct ChoirFetch {
  sqlite3 *db;
  const char *zSchema, *zTable, *zColumn;
  sqlite3_blob *pBlob; /* NULL: not open */
  int eType;
  i64 nByte; /* of every vector */
  u8 *a;     /* the last one read; the caller's */
} ChoirFetch;

/* 1 when the row has a vector, now at p->a; 0 when it has none (no row, NULL).
** An error when it has another length. */
CHOIR_PRIVATE int choirFetchRow(ChoirFetch *, ChoirErr *, i64 iRowid);
CHOIR_PRIVATE void choirFetchEnd(ChoirFetch *);

/* --------------------------------------------------------------- code ---- */
typedef struct ChoirCode {
  const ChoirKern *pKern;
  int eType, eMetric;
  i64 nDim, nVec; /* elements and bytes of a vector */
  size_t nPad;    /* elements of a rotated vector, a multiple of 64 */
  size_t nGroup;  /* nPad / 4 */
  size_t nBlock;  /* bytes of a block of 32 rows */
  float rScale;   /* a power of two that brings distances to about 1 */
  float *aSign;   /* owned */
} ChoirCode;

/* A query, ready to be compared with codes. */
typedef struct ChoirProbe {
  const ChoirCode *pCode;
  ChoirKernProbe kern;
  float rStep;    /* of the table's entries */
  float rErr;     /* kern.rErr, were there no bound */
  float rEpsilon; /* errors that are allowed for */
  int bNear;      /* less of them for near rows */
  double rNorm;   /* |q|^2 */
} ChoirProbe;

CHOIR_PRIVATE void choirCodeInit(ChoirCode *, ChoirErr *, const ChoirKern *,
                                 int eType, int eMetric, i64 nDim, i64 iSeed,
                                 double rScale);
CHOIR_PRIVATE void choirCodeFree(ChoirCode *);
/* nDim floats of a vector of eType. */
CHOIR_PRIVATE void choirCodeFloats(const ChoirCode *, const void *aVec,
                                   float *aOut);
/* nPad floats of a vector of eType: padded, of length 1 under cosine, rotated.
** 0 when it has no direction or is no number. */
CHOIR_PRIVATE int choirCodeRotate(const ChoirCode *, const void *aVec,
                                  float *aOut);
/* Row i of the blocks at a; aRot NULL: a vector that choirCodeRotate refused. */
CHOIR_PRIVATE void choirCodeRow(const ChoirCode *, const float *aRot,
                                const float *aCentre, u8 *a, i64 i, i64 iRowid);
CHOIR_PRIVATE i64 choirCodeRowid(const ChoirCode *, const u8 *a, i64 i);
CHOIR_PRIVATE void choirCodeMove(const ChoirCode *, u8 *aTo, i64 iTo,
                                 const u8 *aFrom, i64 iFrom);
/* Bytes of the blocks of nRow rows. */
CHOIR_PRIVATE i64 choirCodeBytes(const ChoirCode *, i64 nRow);
/* Asks for n bytes early, into the second-level cache: it waits for more of them
** at once than the first. */
CHOIR_PRIVATE void choirCodeFetch(const u8 *a, size_t n);
/* Are these the signs that the vector has? */
CHOIR_PRIVATE int choirCodeSame(const ChoirCode *, const float *aRot,
                                const float *aCentre, const u8 *a, i64 i);
/* aLut: 16 * nGroup bytes that stay as long as the probe. */
CHOIR_PRIVATE void choirCodeProbe(const ChoirCode *, const float *aRot,
                                  u8 *aLut, ChoirProbe *);
/* At a list: |q - c|^2 and <q, c>. */
CHOIR_PRIVATE void choirCodeAim(ChoirProbe *, double rSquare, double rInner);
/* Nothing above rMax is wanted. */
CHOIR_PRIVATE void choirCodeBound(ChoirProbe *, float rMax);
/* The error of row i of a block, and its estimate, from that of the scan, as the
** distance allows that they tell of. */
CHOIR_PRIVATE float choirCodeError(const ChoirProbe *, const u8 *aBlock, int i,
                                   float *prEst);

/* Heads: shorter blocks, of the first third of the elements, that tell which
** blocks are not worth reading. Codes of them; of 0 elements where there are too
** few. */
CHOIR_PRIVATE void choirHeadInit(const ChoirCode *, ChoirCode *pHead);
/* Of nBlock blocks of a list with this centre. */
CHOIR_PRIVATE void choirHeadMake(const ChoirCode *, const ChoirCode *pHead,
                                 ChoirErr *, const float *aCentre,
                                 const u8 *aBlock, i64 nBlock, u8 *aTo);
/* For them, from a probe that is aimed at the list; aWork: nPad floats. */
CHOIR_PRIVATE void choirHeadProbe(const ChoirProbe *, const ChoirCode *pHead,
                                  const float *aRot, const float *aCentre,
                                  float *aWork, u8 *aLut, ChoirProbe *);

/* ---------------------------------------------------------------- set ---- */
typedef struct ChoirSet { /* of rowids, each with a number */
  i64 *aKey;
  i32 *aValue;
  u8 *aUsed;
  i64 n, nSlot; /* nSlot a power of two, or 0 */
} ChoirSet;

CHOIR_PRIVATE void choirSetPut(ChoirSet *, ChoirErr *, i64 iKey, i32 iValue);
/* The number of iKey, or iNone. */
CHOIR_PRIVATE i32 choirSetGet(const ChoirSet *, i64 iKey, i32 iNone);
CHOIR_PRIVATE void choirSetFree(ChoirSet *);

/* The rowids that a filter lets through: given one by one, usually ascending,
** then asked for as bits, or as a set where they lie far apart. */
typedef struct ChoirPick {
  i64 *a; /* ascending after choirPickEnd, each once */
  i64 n, nAlloc;
  u64 *aBit; /* nBit of them from iFirst, or NULL: sparse has them */
  i64 iFirst;
  u64 nBit;
  ChoirSet sparse;
} ChoirPick;

/* Two i64 in ascending order, for qsort and bsearch. */
CHOIR_PRIVATE int choirRowidOrder(const void *, const void *);
CHOIR_PRIVATE void choirPickAdd(ChoirPick *, ChoirErr *, i64 iRowid);
CHOIR_PRIVATE void choirPickEnd(ChoirPick *, ChoirErr *);
CHOIR_PRIVATE int choirPickHas(const ChoirPick *, i64 iRowid);
CHOIR_PRIVATE void choirPickFree(ChoirPick *);

/* --------------------------------------------------------------- seek ----
** The candidates for the k nearest among blocks of codes: every row whose
** distance may be, within its error, among the k smallest that are certain.
*/
typedef struct ChoirCand {
  float rLow; /* the least it may be, times the scale's square */
  float rEst; /* what it probably is */
  i32 iFrom;  /* the caller's number of the list, -1: pending */
  i32 iAt;    /* the row's place there */
  i64 iRowid;
} ChoirCand;

typedef struct ChoirKept { /* the blocks of a list in memory */
  u8 *aBlock;              /* NULL: not kept; owned */
  u8 *anRow;               /* rows in each of them; owned */
  u8 *aHead;               /* the head of each, or NULL; owned */
  i64 n;
} ChoirKept;

typedef struct ChoirSeek {
  ChoirProbe *pProbe;
  ChoirProbe *pHead; /* for the heads of what is kept, or NULL */
  int nWait, nPause; /* runs of blocks whose heads are left alone */
  i64 k;
  float rBound; /* nothing above it is wanted */
  float rMost;  /* … nor above this, as known from all rows */
  float *aHigh; /* the k least upper ends, a heap, the largest first */
  i64 nHigh;
  ChoirCand *a;
  i64 n, nAlloc;
  i64 nGiven;                         /* by choirSeekNext: the first ones */
  const ChoirSet *pSkip;              /* rows that do not count, or NULL */
  const ChoirPick *pOnly;             /* the only rows that count, or NULL */
  int (*xAccept)(void *, i64 iRowid); /* a last question, or NULL */
  void *pArg;
} ChoirSeek;

CHOIR_PRIVATE void choirSeekInit(ChoirSeek *, ChoirErr *, ChoirProbe *, i64 k);
/* nRow rows at aBlock, from place iAt of the list; the probe is aimed. */
CHOIR_PRIVATE void choirSeekBlocks(ChoirSeek *, ChoirErr *, const u8 *aBlock,
                                   i64 nRow, i32 iFrom, i64 iAt);
/* All that is kept of a list; row j of block i has place 32 * i + j. */
CHOIR_PRIVATE void choirSeekKept(ChoirSeek *, ChoirErr *, const ChoirKept *,
                                 i32 iFrom);
/* The bound is learned anew, from candidates that are known better; it only
** sinks. */
CHOIR_PRIVATE void choirSeekAnew(ChoirSeek *);
CHOIR_PRIVATE void choirSeekKnown(ChoirSeek *, const ChoirCand *);
/* Of the candidates not yet given that may be within rMost, the m that are
** probably the nearest, in the order of their rowids, which is how the table is
** read fastest. Returns how many: the last before a[nGiven]. */
CHOIR_PRIVATE i64 choirSeekNext(ChoirSeek *, float rMost, i64 m);
CHOIR_PRIVATE void choirSeekAgain(ChoirSeek *);
CHOIR_PRIVATE void choirSeekFree(ChoirSeek *);

/* --------------------------------------------------------------- fine ----
** A query that is compared with codes of one byte a dimension, and the means to
** make such codes.
*/
typedef struct ChoirFine {
  const ChoirCode *pCode;
  float *aRest;       /* owned: nDim, and room to work */
  signed char *aCode; /* owned: 2 nDim */
  float arStep[2], rError;
  double rNorm; /* -1: it has no direction */
} ChoirFine;

/* Room for such codes, in pieces of 1 << nShift: a ring, in which the newest
** takes the place of the oldest once there is no memory for another piece. */
typedef struct ChoirShelf {
  u8 **apPiece; /* owned */
  i64 nPiece;
  i64 iNext; /* the place that is written next */
  int nShift;
} ChoirShelf;

CHOIR_PRIVATE void choirFineInit(ChoirFine *, ChoirErr *, const ChoirCode *,
                                 const void *aQuery);
CHOIR_PRIVATE void choirFineFree(ChoirFine *);
/* Makes the code of a row's vector in place a, choirFineBytes long; 0 when it is
** no number or has no direction. */
CHOIR_PRIVATE int choirFineRow(ChoirFine *, i64 iRowid, const void *aVec,
                               u8 *a);
CHOIR_PRIVATE size_t choirFineBytes(const ChoirCode *);
/* Is the code at a, if any, this row's, and not of one that came after it? */
CHOIR_PRIVATE int choirFineIs(const u8 *a, i64 iRowid);
/* The ends of a candidate, where its code knows better. */
CHOIR_PRIVATE void choirFineLook(const ChoirFine *, const u8 *a, ChoirCand *);

/* --------------------------------------------------------------- open ----
** An index as this moment's view of the file has it. What a connection keeps
** of it in memory is checked against the file by random numbers that every
** change leaves behind: one for the index, one for each list, one for each
** pending row.
*/
enum { INDEX_AUTO, INDEX_FLAT, INDEX_LISTS, INDEX_NMODE };
#define INDEX_NMETRIC (VEC_DOT + 1) /* cosine, l2, dot */

enum {
  INDEX_SQL_CONF,     /* the registry's row */
  INDEX_SQL_SCHEMA,   /* PRAGMA schema_version */
  INDEX_SQL_LISTS,    /* all lists */
  INDEX_SQL_PART,     /* lists of partition ?1 */
  INDEX_SQL_SEGS,     /* segments ?1 to ?2 */
  INDEX_SQL_LAST,     /* the last of them */
  INDEX_SQL_ALL_SEGS, /* all of them */
  INDEX_SQL_SEG_PUT,
  INDEX_SQL_SEG_DEL, /* ?1 to ?2 */
  INDEX_SQL_LIST_PUT,
  INDEX_SQL_LIST_SET,
  INDEX_SQL_LIST_DEL,
  INDEX_SQL_LIST_PART,
  INDEX_SQL_SEG_COUNT, /* segments ?1 to ?2 */
  INDEX_SQL_CONF_PUT,
  INDEX_SQL_TAIL,       /* the last pending row */
  INDEX_SQL_MARK,       /* the mark of pending row ?1 */
  INDEX_SQL_PENDING,    /* pending rows after ?1, with their vectors */
  INDEX_SQL_TABLE,      /* rowid, vector of every row */
  INDEX_SQL_TABLE_PART, /* of partition ?1 */
  INDEX_SQL_IN_PART,    /* 1 when row ?1 is in partition ?2 */
  INDEX_NSQL
};

typedef struct ChoirList {
  i64 iId, iGen, n, nStuck;
  float *aCentre; /* into ChoirIndex.aCentre, or NULL: the mean */
  ChoirKept kept;
  i32 *aiFine; /* 1 + the place of the finer code, for each place; owned */
} ChoirList;

typedef struct ChoirPend { /* pending rows, as codes relative to the mean */
  u8 *aBlock;
  i64 n, nAlloc; /* rows */
  ChoirSet slot; /* rowid to slot, -1: the row has no vector */
  i64 iSeq, iMark;
  int bOver; /* more than the memory allowed: the table is read instead */
} ChoirPend;

typedef struct ChoirIndex {
  struct ChoirIndex *pNext;
  ChoirConn *pConn;
  char *zSchema, *zName;
  char *azSql[INDEX_NSQL]; /* kept as long as the connection */
  char *zSqlOf;            /* the names that they are made of */
  int bKnown;              /* what follows has been read */
  char *zTable, *zColumn, *zPart, *zPk;
  i64 iGen, iSchema, nRow, iTop, iSeed;
  int eMode, bTrusted;
  double rScale;
  char *zProbes; /* how far lists may be for each recall, as calibrated */
  ChoirCode code;
  ChoirCode head; /* of what is kept of lists without a centre */
  float *aMean;
  u8 *aVec; /* choirIndexVector's copy, on big-endian machines */
  i64 nList;
  ChoirList *aList; /* by id */
  float *aCentre;   /* nCentre of them */
  i64 nCentre;
  i32 *aiCentre;           /* whose */
  struct ChoirRank *pRank; /* of them, made when it is needed */
  ChoirPend pend;
  i64 nMost;        /* vec.cache_bytes */
  i64 nCached;      /* bytes of what lists own and of the shelf */
  i64 nFine;        /* of it, of heads and of the shelf */
  ChoirShelf shelf; /* finer codes */
  int bAgain;       /* it has been searched before */
} ChoirIndex;

#define INDEX_SEG_BITS 24
#define INDEX_DIM_MAX 8192
#define INDEX_LIST_FULL 1024 /* rows: a list is split above */
#define INDEX_LIST_THIN 64   /* … and given up below */
#define INDEX_LIST_MEAN 512
#define INDEX_AUTO_ROWS 200000 /* from here choir_index() makes lists */
#define INDEX_AUTO_ASKED 20000 /* … and vec_index_optimize() */
#define INDEX_PROBES 6
#define INDEX_RECALL 0.97 /* unless a search says otherwise */
#define INDEX_REACH 1e6   /* in the registry, distances times scale and this */
/* The i-th recall that an index is calibrated for, ascending. */
CHOIR_PRIVATE double choirIndexRecall(int i);

/* Reads what is new; *ppHold is a statement that holds the snapshot until
** choirStmtDone. NULL when there is no such index (an error). */
CHOIR_PRIVATE ChoirIndex *choirIndexOpen(ChoirConn *, ChoirErr *,
                                         const char *zName,
                                         sqlite3_stmt **ppHold);
/* Without an error when there is none. */
CHOIR_PRIVATE ChoirIndex *choirIndexFind(ChoirConn *, ChoirErr *,
                                         const char *zName);
CHOIR_PRIVATE sqlite3_stmt *choirIndexStmt(ChoirIndex *, ChoirErr *, int iSql);
/* The place of list iId in aList, -1: there is none. */
CHOIR_PRIVATE i64 choirIndexListAt(const ChoirIndex *, i64 iId);
/* The pending rows of this snapshot into p->pend. */
CHOIR_PRIVATE void choirIndexPending(ChoirIndex *, ChoirErr *);
CHOIR_PRIVATE void choirIndexForget(ChoirIndex *);
CHOIR_PRIVATE void choirIndexDamaged(const ChoirIndex *, ChoirErr *,
                                     const char *zWhat, i64 iWhich);
/* The blocks of a segment row (id, n, block), checked; NULL and an error when
** they are damaged. */
CHOIR_PRIVATE const u8 *choirIndexSeg(const ChoirIndex *, ChoirErr *,
                                      sqlite3_stmt *, i64 *pnRow);
/* What a mode or a metric is called in SQL. */
CHOIR_PRIVATE const char *choirIndexModeName(int);
CHOIR_PRIVATE const char *choirIndexMetricName(int);
/* What trigger i notes, 0 to 2: insert, update, delete. */
CHOIR_PRIVATE const char *choirIndexEvent(int i);
/* Trigger i as it is to be; caller frees. */
CHOIR_PRIVATE char *choirIndexTrigger(const ChoirIndex *, ChoirErr *, int i);
/* A blob column's value as a vector of the index, or NULL with an error. */
CHOIR_PRIVATE const void *choirIndexVector(const ChoirIndex *, ChoirErr *,
                                           i64 iRowid, sqlite3_value *);
/* Shows the seek every row of list i, from memory or from the file. */
CHOIR_PRIVATE void choirIndexSeekList(ChoirIndex *, ChoirErr *, ChoirSeek *,
                                      i64 i);
/* Where the finer code of a row was put, or NULL, and its making from the
** vector. */
CHOIR_PRIVATE u8 *choirIndexFine(const ChoirIndex *, const ChoirCand *);
CHOIR_PRIVATE void choirIndexRefine(ChoirIndex *, ChoirFine *,
                                    const ChoirCand *, const void *aVec);
/* The one primary key column of an INTEGER PRIMARY KEY table; an error with
** the remedy when it has none. Caller frees. */
CHOIR_PRIVATE char *choirIndexKey(ChoirConn *, ChoirErr *, const char *zSchema,
                                  const char *zTable);
CHOIR_PRIVATE void choirIndexFetch(const ChoirIndex *, ChoirFetch *, u8 *a);

/* The nearest lists. */
typedef struct ChoirNear {
  double rSquare, rInner; /* |q - c|^2, <q, c> */
  i32 iList;
} ChoirNear;
typedef struct ChoirRank ChoirRank;
/* Of n centres of nPad floats each. */
CHOIR_PRIVATE ChoirRank *choirRankNew(ChoirErr *, const ChoirCode *,
                                      const float *aCentre, i64 n,
                                      const float *aMean);
CHOIR_PRIVATE void choirRankFree(ChoirRank *);
/* The m nearest centres to aRot, nearest first; returns how many. */
CHOIR_PRIVATE i64 choirRankNear(ChoirRank *, ChoirErr *, const float *aRot,
                                ChoirNear *a, i64 m);

/* -------------------------------------------------------------- write ----
** n rotated vectors at a into nList centres, by k-means. */
CHOIR_PRIVATE void choirMeans(ChoirConn *, ChoirErr *, const ChoirCode *,
                              const float *a, i64 n, const float *aMean,
                              float *aCentre, i64 nList);
/* How many lists n rows become that are in one without a centre; bAll: somebody
** asked for it. */
CHOIR_PRIVATE i64 choirWriteLists(const ChoirIndex *, i64 n, int bAll);
typedef struct ChoirWrite ChoirWrite;
CHOIR_PRIVATE ChoirWrite *choirWriteBegin(ChoirIndex *, ChoirErr *);
/* Encodes the rows of the table with these ids into their lists. */
CHOIR_PRIVATE void choirWriteRows(ChoirWrite *, const i64 *aRowid, i64 n,
                                  sqlite3_value *pPart);
/* The same into nList new lists made for them. */
CHOIR_PRIVATE void choirWriteNew(ChoirWrite *, const i64 *aRowid, i64 n,
                                 sqlite3_value *pPart, i64 nList);
/* Takes rows out wherever they are. */
CHOIR_PRIVATE void choirWriteRemove(ChoirWrite *, const ChoirSet *);
/* Splits what is too full and gives up what is too thin; bAll: looks at every
** list and rewrites the loosely filled. */
CHOIR_PRIVATE void choirWriteBalance(ChoirWrite *, int bAll);
/* Writes what is still in memory, the lists and the registry. */
CHOIR_PRIVATE void choirWriteEnd(ChoirWrite *);

/* ------------------------------------------------------------- search ---- */
typedef struct ChoirSearch {
  const void *aQuery; /* nDim elements of the column's type */
  i64 k;
  int bExact;
  i64 nProbe;             /* lists to look at; 0: by rRecall */
  double rRecall;         /* 0: the default */
  double rMost;           /* distances up to, INFINITY: any */
  int bLess;              /* … and below it */
  const ChoirPick *pOnly; /* rows that count, or NULL: all */
  sqlite3_value *pPart;   /* partition, or NULL: all */
  i64 iBut;               /* with bBut, a row that does not count */
  int bBut;
  int (*xAccept)(void *, i64 iRowid); /* which rows count, or NULL */
  void *pArg;
  float *arFar; /* or NULL: for each hit, how much farther its list is than
                     the nearest list */
  i64 *pnList;  /* or NULL: adds how many lists were looked at */
} ChoirSearch;

/* pScan (freed by the caller) has the hits, sorted. */
CHOIR_PRIVATE void choirIndexSearch(ChoirIndex *, ChoirErr *,
                                    const ChoirSearch *, ChoirScan *pScan);

/* --------------------------------------------------------------- make ---- */
typedef struct ChoirIndexOptions {
  int eMode, eMetric, eType;
  const char *zPart;
} ChoirIndexOptions;

/* Returns the number of rows. */
CHOIR_PRIVATE i64 choirIndexCreate(ChoirConn *, ChoirErr *, const char *zName,
                                   const char *zTable, const char *zColumn,
                                   i64 nDim, const ChoirIndexOptions *);
CHOIR_PRIVATE void choirIndexDrop(ChoirConn *, ChoirErr *, const char *zName);
/* Puts the pending rows where they belong; bAll: and everything in order.
** Returns how many there were. Inside the caller's savepoint. */
CHOIR_PRIVATE i64 choirIndexAbsorb(ChoirConn *, ChoirErr *, const char *zName,
                                   int bAll);
/* Every index of the workspace's schema. */
CHOIR_PRIVATE void choirIndexEach(ChoirConn *, ChoirErr *, void *pArg,
                                  void (*x)(ChoirConn *, ChoirErr *, void *,
                                            const char *zName));
CHOIR_PRIVATE void choirIndexCheck(ChoirConn *, ChoirErr *, ChoirCursor *);
/* What vec_index_info says. */
CHOIR_PRIVATE void choirIndexInfo(ChoirConn *, ChoirErr *, const char *zName,
                                  ChoirBuf *);
/* Absorbs every index of the workspace's schema. */
CHOIR_PRIVATE i64 choirIndexAbsorbAll(ChoirConn *, ChoirErr *);
/* The same before the file is copied: takes the write lock for an index that
** has pending rows, and leaves those that it does not get or that are spoilt. */
CHOIR_PRIVATE void choirIndexSettle(ChoirConn *, ChoirErr *);

CHOIR_PRIVATE CHOIR_COLD void choirIndexSqlRegister(ChoirConn *, ChoirErr *);
CHOIR_PRIVATE CHOIR_COLD void choirIndexRegister(ChoirConn *, ChoirErr *);

#endif /* CHOIR_INDEX_H */
