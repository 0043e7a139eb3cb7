/* SPDX-License-Identifier: MIT */
/*
** qdrant_search, qdrant_similar, qdrant_scroll, and TEMP tables
**
**   CREATE VIRTUAL TABLE temp.docs USING qdrant(collection, path TEXT, …)
**
** One implementation over scans (qdrant_scan.c). A plan is a string: the
** columns in use in hexadecimal, then what each value is, an operator with its
** column (`=3`), an argument (`a0`), or LIMIT and OFFSET (`L`, `O`). Only `k`
** and the ids of the points bound the rows; everything else that is pushed is
** tested again by SQLite.
*/
#include "qdrant.h"
#include <math.h>
#include <stdlib.h>

typedef struct QdrantColumn {
  const char *zName; /* also the payload's member, but for functions */
  const char *zKey;
  int eType;
} QdrantColumn;

/* Arguments, in the order of the hidden columns of a created table. */
enum {
  ARG_QUERY,
  ARG_K,
  ARG_FILTER,
  ARG_VECTOR,
  ARG_EF,
  ARG_EXACT,
  ARG_MMR,
  ARG_FUSION,
  ARG_VECTORS,
  ARG_ORDER,
  ARG_COLLECTION,
  ARG_ARTIFACT,
  ARG_N
};
#define TABLE_ARGS 10             /* of a created table */
#define TABLE_HINT ((i64)1 << 40) /* a larger LIMIT is none */

enum { SCAN_SEARCH, SCAN_SIMILAR, SCAN_SCROLL, SCAN_CREATED };

typedef struct TableKind {
  ChoirModule module;
  int eScan;
  const QdrantColumn *aCol;
  u8 aArg[CHOIR_ARGS];
} TableKind;

typedef struct QdrantTable {
  ChoirTable base;
  char *zCollection; /* of a created table */
  QdrantColumn *aCol;
  int nCol;
} QdrantTable;

typedef struct TableCursor {
  ChoirCursor base;
  QdrantScan scan;
  QdrantHit hit;
  QdrantSpan *aMember; /* of the payload, by column */
  u8 bMember;          /* they are this row's */
} TableCursor;

enum { PLAN_FALLS = 1 }; /* ORDER BY score DESC is left to the scan */

static const QdrantColumn aHitColumn[] = {
    {"rank", NULL, QDRANT_RANK},
    {"score", NULL, QDRANT_SCORE},
    {"id", NULL, QDRANT_ID},
    {"artifact_id", "artifact_id", QDRANT_TEXT},
    {"path", "path", QDRANT_TEXT},
    {"preview", "content_preview", QDRANT_TEXT},
    {"payload", NULL, QDRANT_PAYLOAD},
    {"vector", NULL, QDRANT_VECTOR},
};
#define HIT_COLUMNS 8

static const TableKind *tableKind(const ChoirTable *p) {
  return (const TableKind *)p->pModule;
}

static const QdrantColumn *tableColumns(const ChoirTable *p) {
  return p->bCreated ? ((const QdrantTable *)p)->aCol : tableKind(p)->aCol;
}

/* Which argument hidden column i - nCol is. */
static int tableArg(const ChoirTable *p, int i) {
  return p->bCreated ? i : tableKind(p)->aArg[i];
}

/* ----------------------------------------------------------------- create */

static const struct {
  const char *zType;
  int eType;
} aColumnType[] = {
    {"TEXT", QDRANT_TEXT},   {"INTEGER", QDRANT_INTEGER},
    {"INT", QDRANT_INTEGER}, {"REAL", QDRANT_REAL},
    {"BOOL", QDRANT_BOOL},   {"BOOLEAN", QDRANT_BOOL},
    {"JSON", QDRANT_JSON},
};

static const char *columnSqlType(int eType) {
  return eType == QDRANT_TEXT                              ? "TEXT"
         : eType == QDRANT_INTEGER || eType == QDRANT_BOOL ? "INTEGER"
         : eType == QDRANT_REAL                            ? "REAL"
                                                           : "";
}

/* `name TYPE` into pCol; the name is copied. */
static void tableColumn(ChoirErr *pErr, char *z, QdrantColumn *pCol) {
  static const char *const azOwn[] = {
      "id",    "score", "rank",   "payload",     "vector",
      "query", "k",     "filter", "vector_name", "ef",
      "exact", "mmr",   "fusion", "vectors",     "order_by"};
  size_t n = strlen(z);
  const char *zType;
  int i;
  while (n && z[n - 1] != ' ' && z[n - 1] != '\t') {
    n--;
  }
  zType = z + n;
  for (i = 0; i < (int)(sizeof(aColumnType) / sizeof(aColumnType[0])); i++) {
    if (sqlite3_stricmp(aColumnType[i].zType, zType) == 0) {
      pCol->eType = aColumnType[i].eType;
    }
  }
  if (n == 0 || pCol->eType == 0) {
    choirErrSet(pErr, SQLITE_ERROR,
                "a column is `name TYPE` with TEXT, INTEGER, REAL, BOOL or"
                " JSON, got '%.60s'",
                z);
    return;
  }
  z[n - 1] = 0;
  pCol->zName = pCol->zKey = choirMprintf(pErr, "%s", choirUnquote(z));
  for (i = 0; pCol->zName && i < (int)(sizeof(azOwn) / sizeof(azOwn[0])); i++) {
    if (sqlite3_stricmp(azOwn[i], pCol->zName) == 0) {
      choirErrSet(pErr, SQLITE_ERROR,
                  "column '%s' is there already, it means the %s of a point or"
                  " query",
                  azOwn[i], azOwn[i]);
    }
  }
}

static void tableOpen(ChoirTable *pTable, ChoirErr *pErr, int nArg,
                      char **azArg, ChoirBuf *pColumns) {
  static const QdrantColumn aOwn[] = {{"id", NULL, QDRANT_ID},
                                      {"score", NULL, QDRANT_SCORE},
                                      {"rank", NULL, QDRANT_RANK},
                                      {"payload", NULL, QDRANT_PAYLOAD},
                                      {"vector", NULL, QDRANT_VECTOR}};
  QdrantTable *p = (QdrantTable *)pTable;
  int i;
  if (nArg < 1 || azArg[0][0] == 0) {
    choirErrSet(pErr, SQLITE_ERROR,
                "needs a collection: USING qdrant(artifacts, path TEXT, …)");
    return;
  }
  if (nArg > 50) {
    choirErrSet(pErr, SQLITE_ERROR, "takes at most 49 columns, got %d",
                nArg - 1);
    return;
  }
  p->zCollection = choirMprintf(pErr, "%s", azArg[0]);
  p->aCol = choirMalloc(pErr, (u64)(nArg + 5) * sizeof(QdrantColumn));
  for (i = 1; i < nArg && pErr->rc == SQLITE_OK; i++) {
    QdrantColumn *pCol = &p->aCol[p->nCol++];
    tableColumn(pErr, azArg[i], pCol);
    choirBufPrintf(pColumns, "\"%w\" %s, ", pCol->zName,
                   columnSqlType(pCol->eType));
  }
  if (pErr->rc == SQLITE_OK) {
    memcpy(p->aCol + p->nCol, aOwn, sizeof(aOwn));
    p->nCol += 5;
  }
  choirBufText(pColumns, "id, score, rank, payload HIDDEN, vector HIDDEN,"
                         " query HIDDEN, k HIDDEN, filter HIDDEN,"
                         " vector_name HIDDEN, ef HIDDEN, exact HIDDEN,"
                         " mmr HIDDEN, fusion HIDDEN, vectors HIDDEN,"
                         " order_by HIDDEN");
  pTable->nCol = p->nCol;
}

static void tableClose(ChoirTable *pTable) {
  QdrantTable *p = (QdrantTable *)pTable;
  int i;
  for (i = 0; p->aCol && i < p->nCol; i++) {
    if (p->aCol[i].zKey) { /* the user's own columns have one */
      sqlite3_free((char *)p->aCol[i].zKey);
    }
  }
  sqlite3_free(p->aCol);
  sqlite3_free(p->zCollection);
}

/* ------------------------------------------------------------------- plan */

static int planOp(int eOp) {
  switch (eOp) {
  case SQLITE_INDEX_CONSTRAINT_EQ:
    return QDRANT_EQ;
  case SQLITE_INDEX_CONSTRAINT_LT:
    return QDRANT_LT;
  case SQLITE_INDEX_CONSTRAINT_LE:
    return QDRANT_LE;
  case SQLITE_INDEX_CONSTRAINT_GT:
    return QDRANT_GT;
  case SQLITE_INDEX_CONSTRAINT_GE:
    return QDRANT_GE;
  case SQLITE_INDEX_CONSTRAINT_NE:
    return QDRANT_NE;
  case SQLITE_INDEX_CONSTRAINT_ISNOTNULL:
    return QDRANT_NOTNULL;
  case SQLITE_INDEX_CONSTRAINT_GLOB:
    return QDRANT_GLOB;
  default:
    return 0;
  }
}

typedef struct Plan {
  ChoirTable *pTable;
  sqlite3_index_info *pInfo;
  ChoirBuf b;
  int nValue;
  int bQuery, bMmr;
  int nTerm; /* terms that the server tests */
} Plan;

/* An argument of a created table; of a function the core has asked for it.
** One that the query states and that is not known yet makes the plan
** impossible. */
static void planArg(Plan *p, ChoirErr *pErr, int i, u32 *pmHave) {
  int iArg = p->pInfo->aConstraint[i].iColumn - p->pTable->nCol;
  if (p->pInfo->aConstraint[i].op != SQLITE_INDEX_CONSTRAINT_EQ) {
    return;
  }
  p->bQuery |= tableArg(p->pTable, iArg) == ARG_QUERY;
  p->bMmr |= tableArg(p->pTable, iArg) == ARG_MMR;
  if (!p->pTable->bCreated) {
    return;
  }
  if (!p->pInfo->aConstraint[i].usable) {
    choirErrSet(pErr, SQLITE_CONSTRAINT, "%s", "");
  } else if ((*pmHave & (1u << iArg)) == 0) {
    *pmHave |= 1u << iArg;
    p->pInfo->aConstraintUsage[i].argvIndex = ++p->nValue;
    p->pInfo->aConstraintUsage[i].omit = 1;
    choirBufPrintf(&p->b, "a%d;", iArg);
  }
}

static void planTerm(Plan *p, int i) {
  const struct sqlite3_index_constraint *c = &p->pInfo->aConstraint[i];
  const QdrantColumn *pCol = &tableColumns(p->pTable)[c->iColumn];
  int eOp = planOp(c->op);
  if (c->usable && eOp == QDRANT_EQ && sqlite3_vtab_in(p->pInfo, i, -1)) {
    eOp = QDRANT_IN;
  }
  if (!c->usable || eOp == 0 || !choirQdrantMayPush(pCol->eType, eOp)) {
    return;
  }
  if (pCol->eType == QDRANT_TEXT &&
      sqlite3_stricmp(sqlite3_vtab_collation(p->pInfo, i), "BINARY") != 0) {
    return;
  }
  if (eOp == QDRANT_IN) {
    sqlite3_vtab_in(p->pInfo, i, 1);
  }
  p->pInfo->aConstraintUsage[i].argvIndex = ++p->nValue;
  choirBufPrintf(&p->b, "%c%d;", eOp, c->iColumn);
  p->nTerm += eOp == QDRANT_EQ || eOp == QDRANT_IN;
}

/* rank ascending and score descending are the order of the hits. */
static int planOrder(Plan *p) {
  const sqlite3_index_info *pInfo = p->pInfo;
  const QdrantColumn *aCol = tableColumns(p->pTable);
  int iCol = pInfo->nOrderBy == 1 ? pInfo->aOrderBy[0].iColumn : -1;
  if (!p->bQuery || iCol < 0 || iCol >= p->pTable->nCol) {
    return 0;
  }
  if (aCol[iCol].eType == QDRANT_RANK && !pInfo->aOrderBy[0].desc) {
    p->pInfo->orderByConsumed = 1;
  } else if (aCol[iCol].eType == QDRANT_SCORE && pInfo->aOrderBy[0].desc &&
             !p->bMmr) {
    p->pInfo->orderByConsumed = 1;
    return PLAN_FALLS;
  }
  return 0;
}

static void tablePlan(ChoirTable *pTable, ChoirErr *pErr,
                      sqlite3_index_info *pInfo, int *pnValue, int *piPlan) {
  Plan plan;
  u32 mHave = 0;
  int i;
  memset(&plan, 0, sizeof(plan));
  plan.pTable = pTable;
  plan.pInfo = pInfo;
  plan.nValue = *pnValue;
  plan.bQuery = !pTable->bCreated && tableKind(pTable)->eScan != SCAN_SCROLL;
  choirBufInit(&plan.b, pErr, CHOIR_BUF_SQL);
  choirBufPrintf(&plan.b, "%llx;", pInfo->colUsed);
  for (i = 0; i < pInfo->nConstraint && pErr->rc == SQLITE_OK; i++) {
    int iCol = pInfo->aConstraint[i].iColumn, eOp = pInfo->aConstraint[i].op;
    if (eOp == SQLITE_INDEX_CONSTRAINT_LIMIT ||
        eOp == SQLITE_INDEX_CONSTRAINT_OFFSET) {
      if (pInfo->aConstraint[i].usable) { /* a hint: SQLite counts itself */
        pInfo->aConstraintUsage[i].argvIndex = ++plan.nValue;
        choirBufText(&plan.b,
                     eOp == SQLITE_INDEX_CONSTRAINT_LIMIT ? "L;" : "O;");
      }
    } else if (iCol >= pTable->nCol) {
      planArg(&plan, pErr, i, &mHave);
    } else if (iCol >= 0) {
      planTerm(&plan, i);
    }
  }
  *piPlan = planOrder(&plan);
  *pnValue = plan.nValue;
  /* A request costs what ten thousand local rows do: outermost, if it can. */
  pInfo->estimatedCost = plan.bQuery ? 10000.0 : 100000.0;
  pInfo->estimatedRows = plan.bQuery ? 100 : 10000;
  for (i = 0; i < plan.nTerm && i < 3; i++) {
    pInfo->estimatedCost *= 0.5;
    pInfo->estimatedRows /= 4;
  }
  if (pErr->rc == SQLITE_OK) {
    pInfo->idxStr = choirBufTake(&plan.b);
    pInfo->needToFreeIdxStr = 1;
  }
  choirBufFree(&plan.b);
}

/* ----------------------------------------------------------------- filter */

static int argGiven(sqlite3_value *v) {
  return v && sqlite3_value_type(v) != SQLITE_NULL;
}

static void filterArgs(TableCursor *p, sqlite3_value **apArg) {
  QdrantScan *pScan = &p->scan;
  ChoirErr *pErr = &p->base.err;
  if (argGiven(apArg[ARG_K])) {
    pScan->nK = choirArgInt(pErr, apArg[ARG_K], "k", 1, QDRANT_K_MAX);
  }
  if (argGiven(apArg[ARG_EF])) {
    pScan->nEf = choirArgInt(pErr, apArg[ARG_EF], "ef", 1, 65536);
  }
  if (argGiven(apArg[ARG_EXACT])) {
    pScan->bExact = (u8)choirArgInt(pErr, apArg[ARG_EXACT], "exact", 0, 1);
  }
  if (argGiven(apArg[ARG_MMR])) {
    pScan->rMmr = choirArgReal(pErr, apArg[ARG_MMR], "mmr", 0.0, 1.0);
  }
  choirQdrantVector(&pScan->to, pErr,
                    choirArgTextOrNull(pErr, apArg[ARG_VECTOR], "vector_name"));
  choirQdrantScanFuse(pScan, pErr, apArg[ARG_FUSION], apArg[ARG_VECTORS],
                      apArg[ARG_QUERY]);
  choirQdrantScanOrder(pScan, pErr, apArg[ARG_ORDER]);
  if (pScan->zOrder && argGiven(apArg[ARG_QUERY])) {
    choirErrSet(pErr, SQLITE_ERROR,
                "order_by is for a scroll; hits of a query come by their rank");
  }
  choirQdrantFilterUser(p->base.pConn, &pScan->filter, apArg[ARG_FILTER]);
}

/* score >= x is asked of the server with the next float below x, because its
** comparison is strict, and of floats. */
static void filterScore(TableCursor *p, int eOp, sqlite3_value *v) {
  const QdrantInfo *pInfo = choirQdrantInfo(&p->scan.to, &p->base.err);
  int bUp = eOp == QDRANT_GE || eOp == QDRANT_GT;
  int e = sqlite3_value_type(v);
  if (pInfo && !p->scan.eFusion && (e == SQLITE_INTEGER || e == SQLITE_FLOAT) &&
      bUp == !pInfo->bSmaller && pInfo->nDim && p->scan.rMmr < 0.0) {
    float r = (float)sqlite3_value_double(v);
    r = nextafterf(nextafterf(r, bUp ? -INFINITY : INFINITY),
                   bUp ? -INFINITY : INFINITY);
    if (isfinite(r)) {
      p->scan.rThreshold = (double)r;
      p->scan.bThreshold = 1;
    }
  }
}

static void filterTermAt(TableCursor *p, int eOp, int iCol, sqlite3_value *v) {
  const QdrantColumn *pCol =
      &tableColumns((ChoirTable *)p->base.base.pVtab)[iCol];
  if (pCol->eType == QDRANT_SCORE) {
    filterScore(p, eOp, v);
  } else {
    p->scan.bEmpty |=
        (u8)choirQdrantPush(&p->scan.to, &p->base.err, &p->scan.filter,
                            pCol->zKey ? pCol->zKey : "", pCol->eType, eOp, v);
  }
}

/* The values of the plan: arguments of a created table first, then terms. */
static void filterValues(TableCursor *p, int bArgs) {
  ChoirCursor *pCur = &p->base;
  const char *z = strchr(pCur->zPlan, ';');
  i64 nLimit = -1, nOffset = 0;
  int i;
  for (i = 0, z = z ? z + 1 : ""; *z && i < pCur->nValue; i++) {
    char *zEnd;
    int c = *z, iCol = (int)strtol(z + 1, &zEnd, 10);
    sqlite3_value *v = pCur->apValue[i];
    if (bArgs && c == 'a') {
      pCur->apArg[iCol] = sqlite3_value_dup(v);
      if (pCur->apArg[iCol] == NULL) {
        choirErrNomem(&pCur->err);
      }
    } else if (!bArgs && c == 'L') {
      nLimit = sqlite3_value_int64(v);
    } else if (!bArgs && c == 'O') {
      nOffset = sqlite3_value_int64(v);
    } else if (!bArgs && c != 'a' && pCur->err.rc == SQLITE_OK) {
      filterTermAt(p, c, iCol, v);
    }
    z = *zEnd ? zEnd + 1 : zEnd;
  }
  if (nLimit >= 0 && nLimit <= TABLE_HINT && nOffset >= 0 &&
      nOffset <= TABLE_HINT) {
    p->scan.nHint = nLimit + nOffset;
  }
}

/* An argument that is read and was not given is compared with what SQLite knows
** only later (a CROSS JOIN in the wrong order): it did not even ask for a plan
** with it, and every row would fail the comparison. */
static void filterMissing(TableCursor *p) {
  static const char *const azArg[ARG_N] = {
      "query", "k",      "filter",  "vector_name", "ef",         "exact",
      "mmr",   "fusion", "vectors", "order_by",    "collection", "artifact"};
  const ChoirTable *pTable = (ChoirTable *)p->base.base.pVtab;
  u64 mUsed = (u64)strtoull(p->base.zPlan, NULL, 16);
  int i;
  for (i = 0; i < (pTable->bCreated ? TABLE_ARGS : p->base.pTvf->nMax); i++) {
    if (((mUsed >> (pTable->nCol + i)) & 1) && p->base.apArg[i] == NULL) {
      choirErrSet(&p->base.err, SQLITE_ERROR,
                  "'%s' is read and not given; if a joined table gives it, name"
                  " that table first",
                  azArg[tableArg(pTable, i)]);
    }
  }
}

/* Which members of the payload are wanted, and whether the vector is. */
static void filterColumns(TableCursor *p) {
  const ChoirTable *pTable = (ChoirTable *)p->base.base.pVtab;
  const QdrantColumn *aCol = tableColumns(pTable);
  u64 mUsed = (u64)strtoull(p->base.zPlan, NULL, 16);
  ChoirBuf *b = &p->scan.payload;
  int i, bAll = 0;
  choirBufText(b, "[\"user_id\",\"model\"");
  for (i = 0; i < pTable->nCol; i++) {
    int bUsed = (mUsed >> (i < 63 ? i : 63)) & 1;
    bAll |= bUsed && aCol[i].eType == QDRANT_PAYLOAD;
    p->scan.bVector |= (u8)(bUsed && aCol[i].eType == QDRANT_VECTOR);
    if (aCol[i].zKey && (bUsed || (p->scan.bByArtifact &&
                                   strcmp(aCol[i].zKey, "artifact_id") == 0))) {
      choirBufText(b, ",");
      choirQdrantKey(b, aCol[i].zKey);
    }
  }
  choirBufText(b, "]");
  if (bAll) {
    b->n = 0;
  }
}

static void tableNext(ChoirCursor *pCur) {
  TableCursor *p = (TableCursor *)pCur;
  p->bMember = 0;
  pCur->bEof = !choirQdrantScanNext(&p->scan, &pCur->err, &p->hit);
}

static void tableFilter(ChoirCursor *pCur) {
  TableCursor *p = (TableCursor *)pCur;
  ChoirTable *pTable = (ChoirTable *)pCur->base.pVtab;
  int eScan = tableKind(pTable)->eScan, i;
  sqlite3_value *apArg[ARG_N];
  memset(apArg, 0, sizeof(apArg));
  choirQdrantScanInit(&p->scan, &pCur->err);
  filterValues(p, 1);
  filterMissing(p);
  for (i = 0; i < (pTable->bCreated ? TABLE_ARGS : pCur->pTvf->nMax); i++) {
    apArg[tableArg(pTable, i)] = pCur->apArg[i];
  }
  choirQdrantOpen(pCur->pConn, &pCur->err, &p->scan.to,
                  pTable->bCreated
                      ? ((QdrantTable *)pTable)->zCollection
                      : choirArgTextOrNull(&pCur->err, apArg[ARG_COLLECTION],
                                           "collection"));
  filterArgs(p, apArg);
  filterValues(p, 0);
  if (eScan == SCAN_SIMILAR) {
    choirQdrantScanSimilar(&p->scan, &pCur->err, apArg[ARG_ARTIFACT]);
  } else if (eScan == SCAN_SEARCH ||
             (eScan == SCAN_CREATED && apArg[ARG_QUERY])) {
    choirQdrantScanQuery(&p->scan, &pCur->err, apArg[ARG_QUERY], "query");
  }
  filterColumns(p);
  p->scan.bScoreFalls = (u8)(pCur->iPlan & PLAN_FALLS);
  p->aMember = choirMalloc(&pCur->err, (u64)pTable->nCol * sizeof(QdrantSpan));
  tableNext(pCur);
}

/* SQLite tells the rows of the arms of an OR apart by it: the point's own. */
static i64 tableRowid(ChoirCursor *pCur) {
  const TableCursor *p = (TableCursor *)pCur;
  u8 a[32];
  i64 i;
  choirSha256(p->hit.id.z ? p->hit.id.z : "", (u64)p->hit.id.n, a);
  memcpy(&i, a, sizeof(i));
  return i;
}

static void tableReset(ChoirCursor *pCur) {
  TableCursor *p = (TableCursor *)pCur;
  choirQdrantScanFree(&p->scan);
  sqlite3_free(p->aMember);
  p->aMember = NULL;
}

/* ---------------------------------------------------------------- columns */

/* The payload's members, found once for a row. */
static void columnMembers(TableCursor *p) {
  const ChoirTable *pTable = (ChoirTable *)p->base.base.pVtab;
  const QdrantColumn *aCol = tableColumns(pTable);
  QdrantSpan inside = choirQdrantInside(p->hit.payload), key, value;
  int i;
  memset(p->aMember, 0, (size_t)pTable->nCol * sizeof(QdrantSpan));
  while (choirQdrantNext(&inside, &key, &value)) {
    for (i = 0; i < pTable->nCol; i++) {
      if (aCol[i].zKey && choirQdrantIs(key, aCol[i].zKey)) {
        p->aMember[i] = value;
      }
    }
  }
  p->bMember = 1;
}

/* A member of another JSON type than its column's is NULL. */
static void columnMember(TableCursor *p, sqlite3_context *pCtx, int eType,
                         QdrantSpan v) {
  char c = v.z && v.n ? v.z[0] : 'n';
  int bFits = eType == QDRANT_TEXT   ? c == '"'
              : eType == QDRANT_BOOL ? c == 't' || c == 'f'
              : eType == QDRANT_JSON ? 1
                                     : c == '-' || (c >= '0' && c <= '9');
  double r;
  i64 i;
  if (!bFits || c == 'n') {
    return;
  }
  if (eType == QDRANT_JSON) {
    sqlite3_result_text64(pCtx, v.z, (u64)v.n, SQLITE_TRANSIENT, SQLITE_UTF8);
  } else if (eType == QDRANT_REAL && choirQdrantReal(v, &r)) {
    sqlite3_result_double(pCtx, r);
  } else if (eType == QDRANT_INTEGER && !choirQdrantInt(v, &i) &&
             choirQdrantReal(v, &r) && fabs(r) < 9e15 && r == floor(r)) {
    sqlite3_result_int64(pCtx, (i64)r);
  } else {
    choirQdrantResult(&p->base.err, pCtx, v);
  }
}

static void columnVector(TableCursor *p, sqlite3_context *pCtx) {
  QdrantSpan v = p->hit.vector;
  float *a;
  int n;
  if (v.z && v.z[0] == '{') {
    const char *zName = p->scan.to.zVector ? p->scan.to.zVector : "";
    QdrantSpan one = choirQdrantGet(v, zName);
    v = one.z || zName[0] ? one : v;
  }
  if (v.z && v.z[0] == '{') { /* several, or a sparse one: as JSON */
    choirQdrantResult(&p->base.err, pCtx, v);
    return;
  }
  a = choirQdrantFloats(&p->base.err, v, &n);
  if (a) {
    choirLittleEndian(a, (u64)n * sizeof(float), sizeof(float));
    sqlite3_result_blob64(pCtx, a, (u64)n * sizeof(float), sqlite3_free);
    sqlite3_result_subtype(pCtx, 223); /* f32, for the vec_ functions */
  }
}

static void tableColumnAt(ChoirCursor *pCur, sqlite3_context *pCtx, int i) {
  TableCursor *p = (TableCursor *)pCur;
  const QdrantColumn *pCol = &tableColumns((ChoirTable *)pCur->base.pVtab)[i];
  double r;
  switch (pCol->eType) {
  case QDRANT_RANK:
    if (p->scan.bQuery) {
      sqlite3_result_int64(pCtx, p->scan.nGiven);
    }
    break;
  case QDRANT_SCORE:
    if (p->scan.bQuery && choirQdrantReal(p->hit.score, &r)) {
      sqlite3_result_double(pCtx, r);
    }
    break;
  case QDRANT_ID:
    choirQdrantResult(&pCur->err, pCtx, p->hit.id);
    break;
  case QDRANT_PAYLOAD:
    choirQdrantResult(&pCur->err, pCtx, p->hit.payload);
    break;
  case QDRANT_VECTOR:
    columnVector(p, pCtx);
    break;
  default:
    if (!p->bMember) {
      columnMembers(p);
    }
    columnMember(p, pCtx, pCol->eType, p->aMember[i]);
    break;
  }
}

/*
** SQL: qdrant_search(query[, collection[, k[, filter[, vector_name[, ef[,
**   exact[, mmr[, fusion[, vectors]]]]]]]]]) -> TABLE(rank, score, id,
**   artifact_id, path, preview, payload, vector)
**
** The user's points of a Qdrant collection that are nearest to a query, best
** first. Arguments can be given as columns: WHERE k = 20 AND filter = …. Terms
** on path and artifact_id (=, IN, <>, GLOB 'x*') and bounds on score are tested
** by the server too. Without k as many are fetched as are read: say LIMIT.
**
**   query        TEXT, embedded by the configured model, or a BLOB of 32-bit
**                floats
**   collection   TEXT, default the setting qdrant.collection
**   k            INTEGER 1 to 1000, hits at most
**   filter       TEXT, from qdrant_filter() or Qdrant's JSON; it can only take
**                points away
**   vector_name  TEXT, where points have several; default the setting
**                qdrant.vector
**   ef           INTEGER, the accuracy of the server's index
**   exact        1: without the index
**   mmr          REAL 0 to 1: diverse hits
**   fusion       TEXT: one ranking out of several lists, by rrf (reciprocal
**                ranks, 1/(60 + rank)) or dbsf (scores brought to one scale).
**                The query's list is one; the other is of those of its hits
**                whose content_preview has all of its words
**   vectors      TEXT, a JSON object of other vectors of a point, name: [1, 2]
**                or name: {"indices":[7],"values":[0.5]}. Each is a list, in
**                place of the words'; fusion is rrf if not said
**
** What is fused is the 100 best of each list, or twice k.
** score is the server's: larger is better for Cosine and Dot, smaller for
** Euclid and Manhattan; rank counts from 1 in either case. vector is fetched
** only when it is read.
** NULL: a NULL query is an error; other arguments NULL are as not given.
** Errors: no user; no server; its refusals; a collection of another model or
** dimension; over 1000 hits read; a point of another user in the reply; fusion
** of something that has one list only.
** Source: https://api.qdrant.tech/api-reference/search/query-points
**
** > SELECT path FROM qdrant_search('quarterly plan') LIMIT 5
** ! qdrant_search: no user is set and every point belongs to one; set CHOIR_USER or run select choir_config('user', …)
*/

/*
** SQL: qdrant_similar(artifact[, collection[, k[, filter[, vector_name]]]])
**   -> TABLE(rank, score, id, artifact_id, path, preview, payload, vector)
**
** The user's artifacts that are nearest to one of them, each with its best
** point: a search by the mean of the artifact's vectors, which are read through
** the user's filter.
**
**   artifact  TEXT, an artifact's id, or its path, which starts with '/'
**
** The other arguments and columns are those of qdrant_search.
** NULL: a NULL artifact is an error.
** Errors: no points of that artifact; those of qdrant_search.
**
** > SELECT path FROM qdrant_similar('a1') LIMIT 5
** ! qdrant_similar: no user is set and every point belongs to one; set CHOIR_USER or run select choir_config('user', …)
*/

/*
** SQL: qdrant_scroll([collection[, filter[, order_by[, vector_name]]]])
**   -> TABLE(id, artifact_id, path, preview, payload, vector)
**
** All of the user's points of a collection, in order of their ids, fetched by
** and by as they are read. Terms on id, artifact_id and path are tested by the
** server too.
**
**   collection   TEXT, default the setting qdrant.collection
**   filter       TEXT, from qdrant_filter() or Qdrant's JSON
**   order_by     TEXT, a member of the payload, or `member desc`: rows come in
**                that order. Points without a number or time there are left
**                out, those with several come once for each. The server needs
**                an index on it
**   vector_name  TEXT, which one the column vector shows
**
** Errors: no user; no server; its refusals; a point of another user in the
** reply.
** Source: https://api.qdrant.tech/api-reference/points/scroll-points
**
** > SELECT count(*) FROM qdrant_scroll()
** ! qdrant_scroll: no user is set and every point belongs to one; set CHOIR_USER or run select choir_config('user', …)
*/

/*
** SQL: module qdrant(collection[, name TYPE, …]) -> TABLE(name, …, id, score, rank)
**
** A collection as a temporary table: CREATE VIRTUAL TABLE temp.docs USING
** qdrant(…). Columns are members of the payload; terms on them are tested by
** the server too. With WHERE query = … it is a search, else a scroll; k, filter,
** vector_name, ef, exact, mmr, fusion and vectors are hidden columns as in
** qdrant_search, order_by as in qdrant_scroll, and so are payload and vector.
** Read-only.
**
**   collection  the collection's name
**   name TYPE   a member of the payload as TEXT, INTEGER, REAL, BOOL or JSON; one
**               of another type is NULL
**
** Errors: another schema than temp; a column without a type or with a name that
** is there already; those of qdrant_search.
**
** > CREATE VIRTUAL TABLE temp.docs USING qdrant(artifacts, path TEXT);
** > SELECT path FROM docs WHERE query = 'plan' AND path GLOB '/docs/x*' LIMIT 5
** ! qdrant: no user is set and every point belongs to one; set CHOIR_USER or run select choir_config('user', …)
*/
#define TABLE_HIT "rank, score, id, artifact_id, path, preview, payload, vector"
#define TABLE_METHODS                                                          \
  CHOIR_SUBTYPE, sizeof(TableCursor), tableFilter, tableNext, tableColumnAt,   \
      tableReset

static const TableKind aTableKind[] = {
    {{{"qdrant_search",
       TABLE_HIT ", query HIDDEN, collection HIDDEN, k HIDDEN, filter HIDDEN,"
                 " vector_name HIDDEN, ef HIDDEN, exact HIDDEN, mmr HIDDEN,"
                 " fusion HIDDEN, vectors HIDDEN",
       HIT_COLUMNS, 1, 10, CHOIR_EFFECT, TABLE_METHODS},
      .xPlan = tablePlan,
      .xRowid = tableRowid},
     SCAN_SEARCH,
     aHitColumn,
     {ARG_QUERY, ARG_COLLECTION, ARG_K, ARG_FILTER, ARG_VECTOR, ARG_EF,
      ARG_EXACT, ARG_MMR, ARG_FUSION, ARG_VECTORS}},
    {{{"qdrant_similar",
       TABLE_HIT ", artifact HIDDEN, collection HIDDEN, k HIDDEN,"
                 " filter HIDDEN, vector_name HIDDEN",
       HIT_COLUMNS, 1, 5, CHOIR_EFFECT, TABLE_METHODS},
      .xPlan = tablePlan,
      .xRowid = tableRowid},
     SCAN_SIMILAR,
     aHitColumn,
     {ARG_ARTIFACT, ARG_COLLECTION, ARG_K, ARG_FILTER, ARG_VECTOR}},
    {{{"qdrant_scroll",
       "id, artifact_id, path, preview, payload, vector, collection HIDDEN,"
       " filter HIDDEN, order_by HIDDEN, vector_name HIDDEN",
       HIT_COLUMNS - 2, 0, 4, CHOIR_EFFECT, TABLE_METHODS},
      .xPlan = tablePlan,
      .xRowid = tableRowid},
     SCAN_SCROLL,
     aHitColumn + 2,
     {ARG_COLLECTION, ARG_FILTER, ARG_ORDER, ARG_VECTOR}},
    {{{"qdrant", NULL, 0, 0, 0, CHOIR_EFFECT, TABLE_METHODS},
      .nTable = sizeof(QdrantTable),
      .xOpen = tableOpen,
      .xClose = tableClose,
      .xPlan = tablePlan,
      .xRowid = tableRowid},
     SCAN_CREATED,
     NULL,
     {0}},
};

CHOIR_PRIVATE CHOIR_COLD void choirQdrantTableRegister(ChoirConn *pConn,
                                                       ChoirErr *pErr) {
  int i;
  for (i = 0; i < (int)(sizeof(aTableKind) / sizeof(aTableKind[0])); i++) {
    choirRegisterModule(pConn, pErr, &aTableKind[i].module);
  }
}
