/* SPDX-License-Identifier: MIT */
/*
** The SQL surface of the vector index.
**
**   SELECT vec_index_create('docs_by_meaning', 'docs', 'embedding');
**   SELECT d.title, v.distance
**     FROM vec_search('docs_by_meaning', :query, 10) v
**     JOIN docs d ON d.id = v.rowid ORDER BY v.rank;
**   SELECT rowid FROM vec_search('docs_by_meaning', :query, 10)
**    WHERE rowid IN (SELECT id FROM docs WHERE lang = 'de');
**
** How constraints reach vec_search (iPlan): SQL_IN, a set of rowids that alone
** count; SQL_MOST or SQL_LESS, the largest distance; SQL_LIMIT and SQL_OFFSET,
** which together bound k. A plain rowid = x is never taken: in a join SQLite
** may offer it for each row, and k would mean something else.
*/
#include "index.h"
#include <math.h>

/* ---------------------------------------------------------- vec_search */

enum { SQL_IN = 1, SQL_MOST = 2, SQL_LESS = 4, SQL_LIMIT = 8, SQL_OFFSET = 16 };

enum {
  SEARCH_NAME,
  SEARCH_QUERY,
  SEARCH_K,
  SEARCH_EXACT,
  SEARCH_NPROBE,
  SEARCH_RECALL,
  SEARCH_PARTITION
};

typedef struct SearchCursor {
  ChoirCursor base;
  ChoirScan scan;
} SearchCursor;

static void sqlUse(sqlite3_index_info *pInfo, int i, int *pnArgv, int bOmit) {
  pInfo->aConstraintUsage[i].argvIndex = ++*pnArgv;
  pInfo->aConstraintUsage[i].omit = (unsigned char)bOmit;
}

/* The values come in this order: set, distance, limit, offset. */
static void searchPlan(ChoirTable *pTable, ChoirErr *pErr,
                       sqlite3_index_info *pInfo, int *pnArgv, int *piPlan) {
  static const char *const azPlan[] = {
      "nearest",
      "nearest of rowid IN",
      "nearest within a distance",
      "nearest of rowid IN within a distance",
  };
  int i, iIn = -1, iMost = -1, iLimit = -1, iOffset = -1, bOther = 0, m = 0;
  (void)pTable, (void)pErr;
  for (i = 0; i < pInfo->nConstraint; i++) {
    int op = pInfo->aConstraint[i].op, iCol = pInfo->aConstraint[i].iColumn;
    if (op == SQLITE_INDEX_CONSTRAINT_LIMIT) {
      iLimit = pInfo->aConstraint[i].usable ? i : -1;
    } else if (op == SQLITE_INDEX_CONSTRAINT_OFFSET) {
      iOffset = i;
    } else if (iCol >= 3 && op == SQLITE_INDEX_CONSTRAINT_EQ) {
      /* an argument */
    } else if (!pInfo->aConstraint[i].usable) {
      bOther = 1;
    } else if (iIn < 0 && iCol == 0 && op == SQLITE_INDEX_CONSTRAINT_EQ &&
               sqlite3_vtab_in(pInfo, i, -1)) {
      iIn = i;
    } else if (iMost < 0 && iCol == 1 &&
               (op == SQLITE_INDEX_CONSTRAINT_LE ||
                op == SQLITE_INDEX_CONSTRAINT_LT)) {
      iMost = i;
    } else {
      bOther = 1;
    }
  }
  if (pInfo->nOrderBy > 0 && !pInfo->aOrderBy[0].desc &&
      (pInfo->aOrderBy[0].iColumn == 1 || pInfo->aOrderBy[0].iColumn == 2) &&
      (pInfo->nOrderBy == 1 ||
       (pInfo->nOrderBy == 2 && pInfo->aOrderBy[1].iColumn == 0 &&
        !pInfo->aOrderBy[1].desc))) {
    pInfo->orderByConsumed = 1;
  }
  if (iIn >= 0) {
    sqlite3_vtab_in(pInfo, iIn, 1);
    sqlUse(pInfo, iIn, pnArgv, 1);
    m |= SQL_IN;
  }
  if (iMost >= 0) {
    m |= pInfo->aConstraint[iMost].op == SQLITE_INDEX_CONSTRAINT_LT ? SQL_LESS
                                                                    : SQL_MOST;
    sqlUse(pInfo, iMost, pnArgv, 1);
  }
  if (iLimit >= 0 && !bOther &&
      (iOffset < 0 || pInfo->aConstraint[iOffset].usable) &&
      (pInfo->nOrderBy == 0 || pInfo->orderByConsumed)) {
    sqlUse(pInfo, iLimit, pnArgv, 0);
    m |= SQL_LIMIT;
    if (iOffset >= 0) {
      sqlUse(pInfo, iOffset, pnArgv, 0);
      m |= SQL_OFFSET;
    }
  }
  pInfo->idxStr = (char *)(uintptr_t)
      azPlan[(m & SQL_IN ? 1 : 0) + (m & (SQL_MOST | SQL_LESS) ? 2 : 0)];
  pInfo->estimatedCost = 1000.0;
  pInfo->estimatedRows = 10;
  *piPlan = m;
}

/* The rowids of an IN list; what is no integer is nobody's rowid. */
static void searchPick(ChoirErr *pErr, sqlite3_value *pList, ChoirPick *pPick) {
  sqlite3_value *v = NULL;
  int rc = sqlite3_vtab_in_first(pList, &v);
  for (; rc == SQLITE_OK && pErr->rc == SQLITE_OK && v;
       rc = sqlite3_vtab_in_next(pList, &v)) {
    int eType = sqlite3_value_type(v);
    double r = eType == SQLITE_FLOAT ? sqlite3_value_double(v) : 0.0;
    if (eType == SQLITE_INTEGER ||
        (eType == SQLITE_FLOAT && fabs(r) < 9e15 && r == floor(r))) {
      choirPickAdd(pPick, pErr, sqlite3_value_int64(v));
    }
  }
  if (rc != SQLITE_OK && rc != SQLITE_DONE) {
    choirErrSet(pErr, rc, "the list of rowids cannot be read");
  }
  choirPickEnd(pPick, pErr);
}

/* The query as the column's type: a blob or JSON text of it, or float32 for a
** column of halves. */
static void searchQuery(const ChoirIndex *p, ChoirErr *pErr, ChoirVec *pVec,
                        sqlite3_value *v) {
  const ChoirCode *c = &p->code;
  if (sqlite3_value_type(v) == SQLITE_BLOB &&
      (c->eType == VEC_F16 || c->eType == VEC_BF16) &&
      sqlite3_value_bytes(v) == c->nDim * 4) {
    ChoirVec from;
    i64 i;
    choirVecArgAs(pErr, &from, v, VEC_F32, "query");
    choirVecNew(pErr, pVec, c->eType, c->nDim);
    for (i = 0; i < c->nDim && pErr->rc == SQLITE_OK; i++) {
      choirVecPut(pVec, i, choirVecAt(&from, i));
    }
    choirVecFree(&from);
    return;
  }
  choirVecArgAs(pErr, pVec, v, c->eType, "query");
  if (pErr->rc == SQLITE_OK && pVec->nDim != c->nDim) {
    choirErrSet(pErr, SQLITE_ERROR,
                "query has %lld dimensions, index '%s' has %lld", pVec->nDim,
                p->zName, c->nDim);
  }
}

/* What the constraints say. */
static void searchBounds(ChoirCursor *pCur, ChoirSearch *s, ChoirPick *pPick,
                         int bK) {
  sqlite3_value **ap = pCur->apValue;
  int m = pCur->iPlan;
  if (m & SQL_IN) {
    searchPick(&pCur->err, *ap++, pPick);
    s->pOnly = pPick;
  }
  if (m & (SQL_MOST | SQL_LESS)) {
    sqlite3_value *v = *ap++;
    int eType = sqlite3_value_numeric_type(v);
    s->rMost = eType == SQLITE_INTEGER || eType == SQLITE_FLOAT
                   ? sqlite3_value_double(v)
               : eType == SQLITE_NULL ? -INFINITY
                                      : INFINITY; /* numbers before text */
    s->bLess = (m & SQL_LESS) != 0;
  }
  if (m & SQL_LIMIT) {
    i64 nLimit = sqlite3_value_int64(*ap++);
    i64 nOffset = m & SQL_OFFSET ? sqlite3_value_int64(*ap++) : 0;
    nOffset = nOffset < 0 ? 0 : nOffset;
    if (nLimit >= 0 && nLimit < CHOIR_SCAN_MAX && nOffset < CHOIR_SCAN_MAX &&
        (!bK || nLimit + nOffset < s->k)) {
      s->k = nLimit + nOffset;
      s->k = s->k < 1 ? 1 : s->k > CHOIR_SCAN_MAX ? CHOIR_SCAN_MAX : s->k;
    }
  }
}

/*
** SQL: vec_search(name, query[, k]) -> TABLE(rowid, distance, rank)
**
** The k rows whose vectors are nearest to the query, nearest first, by the
** vector index of that name. Rows written since the index was brought up to
** date are part of every search.
**
**   name       TEXT, the index; 'schema.name' for another attached database
**   query      TEXT (JSON) or BLOB, as many elements as the column's vectors
**   k          INTEGER, 1 to 1000000; by default the statement's LIMIT, or 10
**   exact      hidden: 1 compares every row, without the index
**   nprobe     hidden: how many lists to look at
**   recall     hidden: the share of the true neighbours wanted, 0 to 1, by
**              default 0.97; lists are looked at as far away as rows of the
**              index needed, more where the query lies between many
**   partition  hidden: only rows whose partition column is this
**
** distance is as vec_distance_cosine, _l2 or _dot give it, always computed
** from the vectors themselves. `rowid IN (SELECT …)` limits the search to those
** rows before k counts, `distance <= x` to near ones. With k such rows there
** are never fewer in the answer. A vector of length 0 under cosine has no
** distance and comes last.
** NULL: rows with NULL in the column are not searched; a NULL name, query or k
** is an error.
** Errors: no such index; a query of another length; a row whose value is no
** vector of that length (its rowid is given); damaged internal rows.
**
** > CREATE TABLE docs(id INTEGER PRIMARY KEY, v BLOB); INSERT INTO docs(v)
** >   VALUES(vec_f32('[1, 0]')), (vec_f32('[0, 1]')), (vec_f32('[1, 1]'));
** > SELECT vec_index_create('near', 'docs', 'v');
** > SELECT rowid, rank FROM vec_search('near', '[2, 0]', 2)
** = 1|1
** = 3|2
** > SELECT rowid FROM vec_search('far', '[2, 0]', 1)
** ! vec_search: no vector index 'far' in schema main; make it by vec_index_create
*/
static void searchFilter(ChoirCursor *pCur) {
  ChoirErr *pErr = &pCur->err;
  sqlite3_value **ap = pCur->apArg;
  const char *zName = choirArgText(pErr, ap[SEARCH_NAME], "name");
  ChoirSearch s = {.k = 10, .rMost = INFINITY};
  sqlite3_stmt *pHold = NULL;
  ChoirIndex *p;
  ChoirPick pick;
  ChoirVec query;
  memset(&pick, 0, sizeof(pick));
  memset(&query, 0, sizeof(query));
  if (ap[SEARCH_K]) {
    s.k = choirArgInt(pErr, ap[SEARCH_K], "k", 1, CHOIR_SCAN_MAX);
  }
  if (ap[SEARCH_EXACT]) {
    s.bExact = choirArgInt(pErr, ap[SEARCH_EXACT], "exact", 0, 1) != 0;
  }
  if (ap[SEARCH_NPROBE]) {
    s.nProbe = choirArgInt(pErr, ap[SEARCH_NPROBE], "nprobe", 1, (i64)1 << 40);
  }
  if (ap[SEARCH_RECALL]) {
    s.rRecall = choirArgReal(pErr, ap[SEARCH_RECALL], "recall", 0.0, 1.0);
  }
  searchBounds(pCur, &s, &pick, ap[SEARCH_K] != NULL);
  p = choirIndexOpen(pCur->pConn, pErr, zName, &pHold);
  if (p) {
    s.pPart = ap[SEARCH_PARTITION];
    if (s.pPart && p->zPart == NULL) {
      choirErrSet(pErr, SQLITE_ERROR,
                  "index '%s' has no partition column; drop it and create it"
                  " with '{\"partition\":\"column\"}'",
                  p->zName);
    }
    searchQuery(p, pErr, &query, ap[SEARCH_QUERY]);
    s.aQuery = query.a;
    if (pErr->rc == SQLITE_OK) {
      choirIndexSearch(p, pErr, &s, &((SearchCursor *)pCur)->scan);
    }
  }
  choirStmtDone(pCur->pConn, pHold);
  choirPickFree(&pick);
  choirVecFree(&query);
  pCur->bEof = ((SearchCursor *)pCur)->scan.nHit == 0;
}

static void searchNext(ChoirCursor *pCur) {
  pCur->bEof = pCur->iRow >= ((SearchCursor *)pCur)->scan.nHit;
}

static void searchColumn(ChoirCursor *pCur, sqlite3_context *pCtx, int iCol) {
  const ChoirHit *pHit = &((SearchCursor *)pCur)->scan.aHit[pCur->iRow];
  if (iCol == 1) {
    sqlite3_result_double(pCtx, pHit->rDist);
  } else {
    sqlite3_result_int64(pCtx, iCol == 0 ? pHit->iRowid : pCur->iRow + 1);
  }
}

static void searchReset(ChoirCursor *pCur) {
  choirScanFree(&((SearchCursor *)pCur)->scan);
}

/* --------------------------------------------------------------- options */

/* One of three names. */
static int sqlOneOf(ChoirErr *pErr, const char *zKey, const char *z,
                    const char *(*xName)(int)) {
  int i;
  for (i = 0; i < 3; i++) {
    if (strcmp(z, xName(i)) == 0) {
      return i;
    }
  }
  choirErrSet(pErr, SQLITE_ERROR, "%s must be %s, %s or %s, got '%s'", zKey,
              xName(0), xName(1), xName(2), z);
  return 0;
}

static void sqlOptions(ChoirConn *pConn, ChoirErr *pErr, const char *zJson,
                       ChoirIndexOptions *pOpt, char **pzPart, i64 *pnDim) {
  sqlite3_stmt *pStmt = choirJsonStmt(
      pConn, pErr, "SELECT key, value FROM json_each(?1)", zJson, -1);
  while (choirStep(pErr, pStmt)) {
    const char *zKey = (const char *)sqlite3_column_text(pStmt, 0);
    const char *z = (const char *)sqlite3_column_text(pStmt, 1);
    if (zKey == NULL ||
        (z == NULL && sqlite3_column_type(pStmt, 1) != SQLITE_NULL)) {
      choirErrNomem(pErr);
    }
    zKey = zKey ? zKey : "";
    z = z ? z : "";
    if (strcmp(zKey, "mode") == 0) {
      pOpt->eMode = sqlOneOf(pErr, zKey, z, choirIndexModeName);
    } else if (strcmp(zKey, "metric") == 0) {
      pOpt->eMetric = sqlOneOf(pErr, zKey, z, choirIndexMetricName);
    } else if (strcmp(zKey, "type") == 0) {
      pOpt->eType = choirVecTypeOf(pErr, z);
      if (pErr->rc == SQLITE_OK && pOpt->eType == VEC_BIT) {
        choirErrSet(pErr, SQLITE_ERROR,
                    "a column of bits cannot be indexed; vec_scan compares"
                    " them");
      }
    } else if (strcmp(zKey, "partition") == 0 && *pzPart == NULL) {
      *pzPart = choirMprintf(pErr, "%s", z);
    } else if (strcmp(zKey, "dimensions") == 0) {
      *pnDim = sqlite3_column_int64(pStmt, 1);
    } else {
      choirErrSet(pErr, SQLITE_ERROR,
                  "unknown option '%s'; mode, metric, type, partition,"
                  " dimensions",
                  zKey);
    }
  }
  sqlite3_finalize(pStmt);
  pOpt->zPart = *pzPart;
}

/* ------------------------------------------------------------- functions */

/*
** SQL: vec_index_create(name, table, column[, options]) -> INTEGER
**
** Makes a vector index over a column of one of your tables and fills it. The
** vectors stay where they are; the index keeps one bit a dimension, about 4 %
** of their bytes. Triggers made of plain SQL note every later change, so the
** table can be written by any SQLite. Returns the number of rows in it.
**
**   name     TEXT, letters, digits and '_'; 'schema.name' for another database
**   table    TEXT, with an INTEGER PRIMARY KEY
**   column   TEXT, blobs of one length: 2 to 8192 elements
**   options  TEXT, a JSON object: mode auto (default), flat or lists; metric
**            cosine (default), l2 or dot; type float32 (default), float16,
**            bfloat16 or int8; partition, a column that searches may be limited
**            to one value of; dimensions, where the table is still empty
**
** flat compares the query with all codes. lists looks at the nearest groups of
** rows only; auto goes over to lists from 200,000 rows on, or from 20,000 when
** vec_index_optimize() is called.
** NULL: rows with NULL are not indexed; NULL options are the defaults.
** Errors: no such table or column; no INTEGER PRIMARY KEY; a row that holds no
** vector of the first one's length; a name that is taken.
**
** > CREATE TABLE docs(id INTEGER PRIMARY KEY, v BLOB);
** > INSERT INTO docs(v) VALUES(vec_f32('[1, 0, 0]')), (vec_f32('[0, 1, 0]'));
** > SELECT vec_index_create('near', 'docs', 'v', '{"metric":"l2"}')
** = 2
** > CREATE TABLE docs(name TEXT PRIMARY KEY, v BLOB);
** > SELECT vec_index_create('near', 'docs', 'v')
** ! vec_index_create: table 'docs' has no INTEGER PRIMARY KEY, so VACUUM may renumber its rows; copy it into one with id INTEGER PRIMARY KEY
*/
static void sqlCreate(ChoirCall *p) {
  const char *zName = choirArgText(&p->err, p->apArg[0], "name");
  const char *zTable = choirArgText(&p->err, p->apArg[1], "table");
  const char *zColumn = choirArgText(&p->err, p->apArg[2], "column");
  ChoirIndexOptions opt = {INDEX_AUTO, VEC_COSINE, VEC_F32, NULL};
  char *zPart = NULL;
  i64 nDim = 0, nRow = 0;
  if (p->nArg > 3 && sqlite3_value_type(p->apArg[3]) != SQLITE_NULL) {
    const char *zJson = choirArgJson(p->pConn, &p->err, p->apArg[3], "options");
    sqlOptions(p->pConn, &p->err, zJson, &opt, &zPart, &nDim);
  }
  if (p->err.rc == SQLITE_OK) {
    nRow =
        choirIndexCreate(p->pConn, &p->err, zName, zTable, zColumn, nDim, &opt);
  }
  sqlite3_free(zPart);
  sqlite3_result_int64(p->pCtx, nRow);
}

/*
** SQL: vec_index_drop(name) -> INTEGER
**
** Takes an index and its triggers away; the table stays as it is. Returns 1.
**
** NULL: an error. Errors: no such index.
**
** > CREATE TABLE docs(id INTEGER PRIMARY KEY, v BLOB);
** > INSERT INTO docs(v) VALUES(vec_f32('[1, 0]'));
** > SELECT vec_index_create('near', 'docs', 'v');
** > SELECT vec_index_drop('near')
** = 1
** > SELECT vec_index_drop('near')
** ! vec_index_drop: no vector index 'near'
*/
static void sqlDrop(ChoirCall *p) {
  const char *zName = choirArgText(&p->err, p->apArg[0], "name");
  if (p->err.rc == SQLITE_OK) {
    choirIndexDrop(p->pConn, &p->err, zName);
  }
  sqlite3_result_int(p->pCtx, 1);
}

/*
** SQL: vec_index_optimize(name) -> INTEGER
**
** Puts the rows written since the last call where they belong, makes lists
** from 20,000 rows on, splits lists that grew too long, gives up short ones,
** packs segments that deletes left half empty, and learns again how far lists
** may be that a search has to look at. Returns how many rows were put in their places.
** Searches are right without it; choir_index() does the first part of it.
**
** NULL: an error. Errors: no such index; called inside a statement that writes.
**
** > CREATE TABLE docs(id INTEGER PRIMARY KEY, v BLOB);
** > INSERT INTO docs(v) VALUES(vec_f32('[1, 0]'));
** > SELECT vec_index_create('near', 'docs', 'v');
** > INSERT INTO docs(v) VALUES(vec_f32('[0, 1]'));
** > SELECT vec_index_optimize('near')
** = 1
*/
static void sqlOptimize(ChoirCall *p) {
  const char *zName = choirArgText(&p->err, p->apArg[0], "name");
  i64 n = 0;
  if (p->err.rc == SQLITE_OK) {
    n = choirIndexAbsorb(p->pConn, &p->err, zName, 1);
  }
  sqlite3_result_int64(p->pCtx, n);
}

/*
** SQL: vec_index_info(name) -> TEXT
**
** What an index is and how well it does, as a JSON object: table, column,
** partition, dimensions, type, metric, mode (flat or lists), rows, lists,
** pending (changes not yet absorbed), bytes, recall (the share of the ten
** nearest rows that searches for up to 20 of its own rows find, themselves
** excluded), nprobe (lists that these looked at, on average), trusted (0: the
** triggers are gone and every search reads the table).
**
** NULL: an error. Errors: no such index.
**
** > CREATE TABLE docs(id INTEGER PRIMARY KEY, v BLOB); INSERT INTO docs(v)
** >   VALUES(vec_f32('[1, 0]')), (vec_f32('[0, 1]'));
** > SELECT vec_index_create('near', 'docs', 'v');
** > SELECT vec_index_info('near') ->> 'mode', vec_index_info('near') ->> 'recall'
** = flat|1.0
*/
static void sqlInfo(ChoirCall *p) {
  const char *zName = choirArgText(&p->err, p->apArg[0], "name");
  ChoirBuf b;
  choirBufInit(&b, &p->err, CHOIR_BUF_JSON);
  if (p->err.rc == SQLITE_OK) {
    choirIndexInfo(p->pConn, &p->err, zName, &b);
  }
  choirBufResult(&b, p->pCtx);
}

/* --------------------------------------------------------------- reports */

static void sqlUninstallOne(ChoirConn *pConn, ChoirErr *pErr, void *pArg,
                            const char *zName) {
  (void)pArg;
  choirIndexDrop(pConn, pErr, zName);
}

static void sqlUninstall(ChoirConn *pConn, ChoirErr *pErr) {
  choirIndexEach(pConn, pErr, NULL, sqlUninstallOne);
  choirExec(pConn, pErr, "DROP TABLE IF EXISTS ~._choir_vec");
}

static void sqlMetricsOne(ChoirConn *pConn, ChoirErr *pErr, void *pArg,
                          const char *zName) {
  ChoirCursor *pCur = pArg;
  sqlite3_stmt *pHold;
  ChoirIndex *p = choirIndexOpen(pConn, pErr, zName, &pHold);
  char *z = p ? choirMprintf(pErr, "vec_index.%s.rows", p->zName) : NULL;
  if (z) {
    choirRowText(pCur, z);
    choirRowInt(pCur, p->nRow);
    choirRowText(pCur, "rows");
  }
  sqlite3_free(z);
  choirStmtDone(pConn, pHold);
}

static void sqlMetrics(ChoirConn *pConn, ChoirErr *pErr, ChoirCursor *pCur) {
  choirIndexEach(pConn, pErr, pCur, sqlMetricsOne);
}

static const ChoirPart sqlPart = {
    .zName = "vec_index",
    .xUninstall = sqlUninstall,
    .xCheck = choirIndexCheck,
    .xMetrics = sqlMetrics,
    .xSettle = choirIndexSettle,
};

static const ChoirModule searchModule = {
    .tvf = {"vec_search",
            "rowid, distance, rank, name HIDDEN, query HIDDEN, k HIDDEN,"
            " exact HIDDEN, nprobe HIDDEN, recall HIDDEN, partition HIDDEN",
            3, 2, 7, CHOIR_READ, CHOIR_SUBTYPE, sizeof(SearchCursor),
            searchFilter, searchNext, searchColumn, searchReset},
    .xPlan = searchPlan,
};

static const ChoirFunc aVecIndexFunc[] = {
    {"vec_index_create", 3, 4, CHOIR_WRITE, 0, sqlCreate, NULL},
    {"vec_index_drop", 1, 1, CHOIR_WRITE, 0, sqlDrop, NULL},
    {"vec_index_optimize", 1, 1, CHOIR_WRITE, 0, sqlOptimize, NULL},
    {"vec_index_info", 1, 1, CHOIR_READ, 0, sqlInfo, NULL},
};

CHOIR_PRIVATE CHOIR_COLD void choirIndexSqlRegister(ChoirConn *pConn,
                                                    ChoirErr *pErr) {
  choirFuncs(pConn, pErr, aVecIndexFunc);
  choirRegisterModule(pConn, pErr, &searchModule);
  choirPartAdd(pConn, &sqlPart);
}
