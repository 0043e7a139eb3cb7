/* SPDX-License-Identifier: MIT */
/*
** A table of a remote database as a table here:
**
**   CREATE VIRTUAL TABLE temp.notes USING libsql('libsql://host', notes);
**
** Reading asks the server for the columns and rows that the statement needs:
** = < <= > >= IS IN, IS [NOT] NULL, ORDER BY the key, LIMIT and OFFSET are done
** there, and rows are read as they arrive. Text is compared byte by byte on both
** sides (COLLATE BINARY), so what is pushed down changes no result.
**
** Writing keeps the statements until the host's transaction commits (or its
** statement, outside of one) and sends them as one transaction: all or nothing,
** ROLLBACK and SAVEPOINT hold. A read of the table in the same transaction sends
** them before. Rows are told apart by their rowid: a table WITHOUT ROWID and a
** view take no UPDATE or DELETE.
**
** The plan's text is the query: \1 stands for an IN list, \2 for a parameter.
*/
#include "libsql.h"
#ifndef CHOIR_OMIT_NET

typedef struct LibsqlMark {
  int nWrite;
  u64 nByte;
} LibsqlMark;

typedef struct LibsqlTable {
  ChoirTable base;
  char *zWhere; /* as given, or NULL */
  char *zTable;
  const char *zRowid; /* how the rowid is called there */
  ChoirLibsqlColumns cols;
  ChoirBuf writes; /* statements, each with a NUL after it */
  int nWrite;
  LibsqlMark *aMark; /* by savepoint */
  int nMark;
} LibsqlTable;

typedef struct LibsqlCursor {
  ChoirCursor base;
  ChoirHrana stream;
  ChoirHranaRow row; /* rowid, then the columns */
  u8 bOpen;
} LibsqlCursor;

/* ----------------------------------------------------------------- columns */

CHOIR_PRIVATE void choirLibsqlName(ChoirBuf *p, const char *z) {
  char *zQuoted = choirMprintf(p->pErr, "\"%w\"", z);
  choirBufText(p, zQuoted ? zQuoted : "");
  sqlite3_free(zQuoted);
}

CHOIR_PRIVATE void choirLibsqlColumnsFree(ChoirLibsqlColumns *p) {
  int i;
  for (i = 0; i < p->n; i++) {
    sqlite3_free(p->a[i].zName);
    sqlite3_free(p->a[i].zType);
  }
  sqlite3_free(p->a);
  memset(p, 0, sizeof(*p));
}

static void farTableColumn(ChoirErr *pErr, ChoirLibsqlColumns *p,
                           const ChoirHranaRow *pRow) {
  const char *zName = choirHranaText(pRow, 0);
  const char *zType = choirHranaText(pRow, 1);
  ChoirLibsqlColumn *pCol;
  size_t i;
  if (p->n % 16 == 0) {
    void *a = choirRealloc(pErr, p->a, ((u64)p->n + 16) * sizeof(*p->a));
    p->a = a ? a : p->a;
  }
  for (i = 0; zName && zName[i]; i++) {
    if ((u8)zName[i] < 0x20) {
      zName = NULL;
    }
  }
  if (zName == NULL) {
    choirErrSet(pErr, SQLITE_ERROR,
                "column %d has no name that can be used here", p->n + 1);
  }
  if (pErr->rc != SQLITE_OK) {
    return;
  }
  pCol = &p->a[p->n++];
  memset(pCol, 0, sizeof(*pCol));
  if (zType == NULL || zType[strspn(zType, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefgh"
                                           "ijklmnopqrstuvwxyz0123456789_ ()"
                                           ",")]) {
    zType = "";
  }
  pCol->zName = choirMprintf(pErr, "%s", zName);
  pCol->zType = choirMprintf(pErr, "%s", zType);
  pCol->iPk = (int)choirHranaInt(pRow, 2);
  pCol->bGenerated = choirHranaInt(pRow, 3) > 1;
  p->nPk += pCol->iPk > 0;
  if (pCol->iPk == 1 && sqlite3_stricmp(zType, "INTEGER") == 0) {
    p->iKey = p->n - 1;
  }
  p->bNoRowid = choirHranaInt(pRow, 4) != 0;
}

CHOIR_PRIVATE void choirLibsqlDescribe(ChoirConn *pConn, ChoirErr *pErr,
                                       const char *zWhere, const char *zTable,
                                       ChoirLibsqlColumns *p) {
  ChoirHrana stream;
  ChoirHranaRow row;
  ChoirBuf arg, stmt;
  memset(p, 0, sizeof(*p));
  p->iKey = -1;
  choirBufInit(&arg, pErr, CHOIR_BUF_SQL);
  choirBufInit(&stmt, pErr, CHOIR_BUF_SQL);
  choirHranaRowInit(&row, pConn);
  choirHranaOpen(&stream, pConn, pErr, zWhere);
  choirHranaValueText(&arg, zTable);
  choirHranaStmt(&stmt,
                 "SELECT name, type, pk, hidden, coalesce((SELECT wr OR type ="
                 " 'view' FROM pragma_table_list WHERE schema = 'main' AND name"
                 " = ?1 COLLATE NOCASE), 0) FROM pragma_table_xinfo(?1) WHERE"
                 " hidden <> 1 ORDER BY cid",
                 arg.a, 1);
  choirHranaBegin(&stream, &stmt);
  while (choirHranaNext(&stream, &row)) {
    farTableColumn(pErr, p, &row);
  }
  if (p->nPk != 1 || p->bNoRowid) {
    p->iKey = -1;
  }
  choirHranaClose(&stream);
  choirHranaRowFree(&row);
  choirBufFree(&arg);
  choirBufFree(&stmt);
}

/* -------------------------------------------------------------- open, close */

/* A name of the rowid that no column has. */
static const char *farTableRowid(const ChoirLibsqlColumns *p) {
  static const char *const az[] = {"rowid", "_rowid_", "oid"};
  int i, j;
  for (i = 0; i < 3; i++) {
    for (j = 0; j < p->n && sqlite3_stricmp(p->a[j].zName, az[i]) != 0; j++) {
      /* the next */
    }
    if (j == p->n) {
      return az[i];
    }
  }
  return p->iKey >= 0 ? p->a[p->iKey].zName : NULL;
}

static void farTableOpen(ChoirTable *pTable, ChoirErr *pErr, int nArg,
                         char **azArg, ChoirBuf *pColumns) {
  LibsqlTable *p = (LibsqlTable *)pTable;
  int i;
  if (nArg < 1 || nArg > 2) {
    choirErrSet(pErr, SQLITE_ERROR,
                "takes (url, table) or (table), got %d arguments", nArg);
    return;
  }
  choirBufInit(&p->writes, pErr, CHOIR_HRANA_STEPS);
  p->zWhere = nArg > 1 ? choirMprintf(pErr, "%s", azArg[0]) : NULL;
  p->zTable = choirMprintf(pErr, "%s", azArg[nArg - 1]);
  if (pErr->rc == SQLITE_OK) {
    choirLibsqlDescribe(pTable->pConn, pErr, p->zWhere, p->zTable, &p->cols);
  }
  if (p->cols.n == 0) {
    choirErrSet(pErr, SQLITE_ERROR, "the database has no table '%s'",
                p->zTable);
  }
  p->zRowid = p->cols.bNoRowid ? NULL : farTableRowid(&p->cols);
  for (i = 0; i < p->cols.n; i++) {
    choirBufText(pColumns, i ? ", " : "");
    choirLibsqlName(pColumns, p->cols.a[i].zName);
    choirBufPrintf(pColumns, " %s", p->cols.a[i].zType);
  }
  pTable->nCol = p->cols.n;
}

static void farTableClose(ChoirTable *pTable) {
  LibsqlTable *p = (LibsqlTable *)pTable;
  choirLibsqlColumnsFree(&p->cols);
  choirBufFree(&p->writes);
  sqlite3_free(p->aMark);
  sqlite3_free(p->zWhere);
  sqlite3_free(p->zTable);
}

/* -------------------------------------------------------------------- plan */

/* The operator of a constraint as SQL, or NULL. */
static const char *farPlanOperator(int op) {
  switch (op) {
  case SQLITE_INDEX_CONSTRAINT_EQ:
    return " = \2";
  case SQLITE_INDEX_CONSTRAINT_GT:
    return " > \2";
  case SQLITE_INDEX_CONSTRAINT_GE:
    return " >= \2";
  case SQLITE_INDEX_CONSTRAINT_LT:
    return " < \2";
  case SQLITE_INDEX_CONSTRAINT_LE:
    return " <= \2";
  case SQLITE_INDEX_CONSTRAINT_IS:
    return " IS \2";
  case SQLITE_INDEX_CONSTRAINT_ISNULL:
    return " IS NULL";
  case SQLITE_INDEX_CONSTRAINT_ISNOTNULL:
    return " IS NOT NULL";
  default:
    return NULL;
  }
}

static void farPlanColumn(const LibsqlTable *p, ChoirBuf *pSql, int iColumn) {
  if (iColumn >= 0 && iColumn < p->cols.n) {
    choirLibsqlName(pSql, p->cols.a[iColumn].zName);
  } else {
    choirBufText(pSql, p->zRowid);
  }
}

static int farPlanIsKey(const LibsqlTable *p, int iColumn) {
  return iColumn < 0 || iColumn == p->cols.iKey;
}

/* WHERE. 1: every constraint is in it; *pbOne: one row at most. */
static int farPlanWhere(const LibsqlTable *p, sqlite3_index_info *pInfo,
                        ChoirBuf *pSql, int *pnValue, int *pnEq, int *pbOne) {
  int i, nTerm = 0, bAll = 1;
  for (i = 0; i < pInfo->nConstraint; i++) {
    const struct sqlite3_index_constraint *pCons = &pInfo->aConstraint[i];
    const char *zOp = farPlanOperator(pCons->op);
    int bIn;
    if (pCons->op == SQLITE_INDEX_CONSTRAINT_LIMIT ||
        pCons->op == SQLITE_INDEX_CONSTRAINT_OFFSET) {
      continue;
    }
    if (!pCons->usable || zOp == NULL ||
        (pCons->iColumn < 0 && p->zRowid == NULL) ||
        sqlite3_stricmp(sqlite3_vtab_collation(pInfo, i), "BINARY") != 0) {
      bAll = 0;
      continue;
    }
    bIn =
        pCons->op == SQLITE_INDEX_CONSTRAINT_EQ && sqlite3_vtab_in(pInfo, i, 1);
    choirBufText(pSql, nTerm++ ? " AND " : " WHERE ");
    farPlanColumn(p, pSql, pCons->iColumn);
    choirBufText(pSql, strchr(zOp, '\2') ? " COLLATE BINARY" : "");
    choirBufText(pSql, bIn ? " IN (\1)" : zOp);
    if (strchr(zOp, '\2')) {
      pInfo->aConstraintUsage[i].argvIndex = ++*pnValue;
    }
    *pnEq += pCons->op == SQLITE_INDEX_CONSTRAINT_EQ;
    *pbOne |= pCons->op == SQLITE_INDEX_CONSTRAINT_EQ && !bIn &&
              farPlanIsKey(p, pCons->iColumn);
  }
  return bAll;
}

static void farPlanLimit(sqlite3_index_info *pInfo, ChoirBuf *pSql,
                         int *pnValue) {
  int i, iLimit = -1, iOffset = -1, bUsable = 1;
  for (i = 0; i < pInfo->nConstraint; i++) {
    if (pInfo->aConstraint[i].op == SQLITE_INDEX_CONSTRAINT_LIMIT) {
      iLimit = i;
      bUsable &= pInfo->aConstraint[i].usable != 0;
    } else if (pInfo->aConstraint[i].op == SQLITE_INDEX_CONSTRAINT_OFFSET) {
      iOffset = i;
      bUsable &= pInfo->aConstraint[i].usable != 0;
    }
  }
  if (iLimit >= 0 && bUsable) {
    choirBufText(pSql, " LIMIT \2");
    pInfo->aConstraintUsage[iLimit].argvIndex = ++*pnValue;
    if (iOffset >= 0) {
      choirBufText(pSql, " OFFSET \2");
      pInfo->aConstraintUsage[iOffset].argvIndex = ++*pnValue;
      pInfo->aConstraintUsage[iOffset].omit = 1;
    }
  }
}

static void farTablePlan(ChoirTable *pTable, ChoirErr *pErr,
                         sqlite3_index_info *pInfo, int *pnValue, int *piPlan) {
  LibsqlTable *p = (LibsqlTable *)pTable;
  ChoirBuf sql;
  int i, bAll, nEq = 0, bOne = 0, bOrdered;
  (void)piPlan;
  choirBufInit(&sql, pErr, CHOIR_BUF_SQL);
  choirBufPrintf(&sql, "SELECT %s", p->zRowid ? p->zRowid : "NULL");
  for (i = 0; i < p->cols.n; i++) {
    int bUsed = (pInfo->colUsed >> (i < 63 ? i : 63) & 1) != 0;
    choirBufText(&sql, ", ");
    if (bUsed) {
      farPlanColumn(p, &sql, i);
    } else {
      choirBufText(&sql, "NULL");
    }
  }
  choirBufText(&sql, " FROM ");
  choirLibsqlName(&sql, p->zTable);
  bAll = farPlanWhere(p, pInfo, &sql, pnValue, &nEq, &bOne);
  bOrdered = pInfo->nOrderBy == 1 && p->zRowid &&
             farPlanIsKey(p, pInfo->aOrderBy[0].iColumn);
  if (bOrdered) {
    choirBufText(&sql, " ORDER BY ");
    farPlanColumn(p, &sql, pInfo->aOrderBy[0].iColumn);
    choirBufText(&sql, pInfo->aOrderBy[0].desc ? " DESC" : "");
    pInfo->orderByConsumed = 1;
  }
  if (bAll && (pInfo->nOrderBy == 0 || bOrdered)) {
    farPlanLimit(pInfo, &sql, pnValue);
  }
  pInfo->estimatedRows = bOne ? 1 : nEq ? 100 : 100000;
  pInfo->estimatedCost = 1000.0 + (double)pInfo->estimatedRows;
  if (bOne) {
    pInfo->idxFlags = SQLITE_INDEX_SCAN_UNIQUE;
  }
  pInfo->idxStr = choirBufTake(&sql);
  pInfo->needToFreeIdxStr = pInfo->idxStr != NULL;
}

/* -------------------------------------------------------------------- read */

static void farTableReset(ChoirCursor *pCur) {
  LibsqlCursor *p = (LibsqlCursor *)pCur;
  if (p->bOpen) {
    choirHranaClose(&p->stream);
    choirHranaRowFree(&p->row);
    p->bOpen = 0;
  }
}

/* The values of an IN list. */
static void farReadIn(ChoirErr *pErr, sqlite3_value *pList, ChoirBuf *pSql,
                      ChoirBuf *pArgs) {
  sqlite3_value *v = NULL;
  int n = 0, rc = sqlite3_vtab_in_first(pList, &v);
  for (; rc == SQLITE_OK && v; rc = sqlite3_vtab_in_next(pList, &v)) {
    choirBufText(pSql, n++ ? ",?" : "?");
    choirBufText(pArgs, pArgs->n ? "," : "");
    choirHranaValue(pArgs, v);
  }
  if (rc != SQLITE_OK && rc != SQLITE_DONE) {
    choirErrSet(pErr, rc, "cannot read an IN list");
  }
}

/* The plan's query with its values. */
static void farReadStmt(ChoirCursor *pCur, ChoirBuf *pStmt) {
  const char *z = pCur->zPlan;
  ChoirBuf sql, args;
  int iValue = 0;
  choirBufInit(&sql, &pCur->err, CHOIR_BUF_SQL);
  choirBufInit(&args, &pCur->err, CHOIR_HRANA_STEPS);
  while (z && *z && pCur->err.rc == SQLITE_OK) {
    size_t n = strcspn(z, "\1\2");
    choirBufAppend(&sql, z, n);
    z += n;
    if (*z && iValue < pCur->nValue) {
      sqlite3_value *v = pCur->apValue[iValue++];
      if (*z == '\1') {
        farReadIn(&pCur->err, v, &sql, &args);
      } else {
        choirBufText(&sql, "?");
        choirBufText(&args, args.n ? "," : "");
        choirHranaValue(&args, v);
      }
    }
    z += *z != 0;
  }
  choirHranaStmt(pStmt, sql.a ? sql.a : "", args.a, 1);
  choirBufFree(&sql);
  choirBufFree(&args);
}

static void farTableSync(ChoirTable *pTable, ChoirErr *pErr);

static void farTableNext(ChoirCursor *pCur) {
  LibsqlCursor *p = (LibsqlCursor *)pCur;
  pCur->bEof = (u8)!choirHranaNext(&p->stream, &p->row);
}

static void farTableFilter(ChoirCursor *pCur) {
  LibsqlCursor *p = (LibsqlCursor *)pCur;
  LibsqlTable *pTable = (LibsqlTable *)pCur->base.pVtab;
  ChoirErr *pErr = &pCur->err;
  ChoirBuf stmt;
  farTableSync(&pTable->base, pErr);
  choirBufInit(&stmt, pErr, 2 * CHOIR_HRANA_STEPS);
  choirHranaRowInit(&p->row, pCur->pConn);
  choirHranaOpen(&p->stream, pCur->pConn, pErr, pTable->zWhere);
  p->bOpen = 1;
  if (pErr->rc == SQLITE_OK) {
    farReadStmt(pCur, &stmt);
    choirHranaBegin(&p->stream, &stmt);
    farTableNext(pCur);
  }
  choirBufFree(&stmt);
}

static void farTableValue(ChoirCursor *pCur, sqlite3_context *pCtx, int i) {
  LibsqlCursor *p = (LibsqlCursor *)pCur;
  if (!sqlite3_vtab_nochange(pCtx)) {
    choirHranaResult(&p->row, &pCur->err, pCtx, i + 1);
  }
}

static i64 farTableRow(ChoirCursor *pCur) {
  LibsqlTable *pTable = (LibsqlTable *)pCur->base.pVtab;
  return pTable->zRowid ? choirHranaInt(&((LibsqlCursor *)pCur)->row, 0)
                        : pCur->iRow + 1;
}

/* ------------------------------------------------------------------- write */

static void farWriteArg(ChoirBuf *pArgs, sqlite3_value *v) {
  choirBufText(pArgs, pArgs->n ? "," : "");
  choirHranaValue(pArgs, v);
}

/* INSERT: a column that is NULL is left out, so that the remote default counts.
 */
static void farWriteInsert(LibsqlTable *p, ChoirBuf *pSql, ChoirBuf *pArgs,
                           sqlite3_value **apValue, i64 *piRowid) {
  int eMode = sqlite3_vtab_on_conflict(p->base.pConn->db);
  int i, n = 0;
  int bRowid = sqlite3_value_type(apValue[1]) != SQLITE_NULL && p->zRowid &&
               p->cols.iKey < 0;
  choirBufText(pSql, eMode == SQLITE_REPLACE  ? "INSERT OR REPLACE INTO "
                     : eMode == SQLITE_IGNORE ? "INSERT OR IGNORE INTO "
                                              : "INSERT INTO ");
  choirLibsqlName(pSql, p->zTable);
  if (bRowid) {
    choirBufPrintf(pSql, "(%s", p->zRowid);
    farWriteArg(pArgs, apValue[1]);
    n++;
  }
  for (i = 0; i < p->cols.n; i++) {
    sqlite3_value *v = apValue[2 + i];
    if (sqlite3_value_type(v) != SQLITE_NULL && !p->cols.a[i].bGenerated) {
      choirBufText(pSql, n++ ? "," : "(");
      choirLibsqlName(pSql, p->cols.a[i].zName);
      farWriteArg(pArgs, v);
      if (i == p->cols.iKey) {
        *piRowid = sqlite3_value_int64(v);
      }
    }
  }
  choirBufText(pSql, n ? ") VALUES(" : " DEFAULT VALUES");
  for (i = 0; i < n; i++) {
    choirBufText(pSql, i ? ",?" : "?");
  }
  choirBufText(pSql, n ? ")" : "");
}

/* UPDATE of the columns that the statement names; 0: of none. */
static int farWriteUpdate(LibsqlTable *p, ChoirBuf *pSql, ChoirBuf *pArgs,
                          sqlite3_value **apValue) {
  int i, n = 0;
  choirBufText(pSql, "UPDATE ");
  choirLibsqlName(pSql, p->zTable);
  choirBufText(pSql, " SET ");
  if (p->cols.iKey < 0 &&
      sqlite3_value_int64(apValue[0]) != sqlite3_value_int64(apValue[1])) {
    choirBufPrintf(pSql, "%s=?", p->zRowid);
    farWriteArg(pArgs, apValue[1]);
    n++;
  }
  for (i = 0; i < p->cols.n; i++) {
    if (!sqlite3_value_nochange(apValue[2 + i]) && !p->cols.a[i].bGenerated) {
      choirBufText(pSql, n++ ? "," : "");
      choirLibsqlName(pSql, p->cols.a[i].zName);
      choirBufText(pSql, "=?");
      farWriteArg(pArgs, apValue[2 + i]);
    }
  }
  choirBufPrintf(pSql, " WHERE %s=?", p->zRowid);
  farWriteArg(pArgs, apValue[0]);
  return n;
}

static void farTableWrite(ChoirTable *pTable, ChoirErr *pErr, int nValue,
                          sqlite3_value **apValue, i64 *piRowid) {
  LibsqlTable *p = (LibsqlTable *)pTable;
  ChoirBuf sql, args;
  int bInsert = nValue > 1 && sqlite3_value_type(apValue[0]) == SQLITE_NULL;
  int bDo = 1;
  if (!bInsert && p->zRowid == NULL) {
    choirErrSet(pErr, SQLITE_ERROR,
                "%s has no rowid to tell its rows apart; use libsql_batch",
                p->zTable);
    return;
  }
  choirBufInit(&sql, pErr, CHOIR_BUF_SQL);
  choirBufInit(&args, pErr, CHOIR_HRANA_STEPS);
  if (bInsert) {
    farWriteInsert(p, &sql, &args, apValue, piRowid);
  } else if (nValue > 1) {
    bDo = farWriteUpdate(p, &sql, &args, apValue);
  } else {
    choirBufText(&sql, "DELETE FROM ");
    choirLibsqlName(&sql, p->zTable);
    choirBufPrintf(&sql, " WHERE %s=?", p->zRowid);
    farWriteArg(&args, apValue[0]);
  }
  p->writes.pErr = pErr;
  if (bDo && pErr->rc == SQLITE_OK) {
    choirHranaStmt(&p->writes, sql.a, args.a, 0);
    choirBufAppend(&p->writes, "", 1);
    p->nWrite++;
  }
  choirBufFree(&sql);
  choirBufFree(&args);
}

static void farTableRollback(ChoirTable *pTable) {
  LibsqlTable *p = (LibsqlTable *)pTable;
  choirBufFree(&p->writes);
  p->nWrite = 0;
}

/* What waits is sent. */
static void farTableSync(ChoirTable *pTable, ChoirErr *pErr) {
  LibsqlTable *p = (LibsqlTable *)pTable;
  ChoirHrana stream;
  if (p->nWrite == 0 || pErr->rc != SQLITE_OK) {
    return;
  }
  choirHranaOpen(&stream, pTable->pConn, pErr, p->zWhere);
  if (pErr->rc == SQLITE_OK) {
    choirHranaBatch(&stream, &p->writes, p->nWrite, 1, NULL);
  }
  choirHranaClose(&stream);
  farTableRollback(pTable); /* sent, or refused as a whole */
}

static void farTableSavepoint(ChoirTable *pTable, ChoirErr *pErr,
                              int iSavepoint, int bBack) {
  LibsqlTable *p = (LibsqlTable *)pTable;
  if (iSavepoint < 0) {
    return;
  }
  if (!bBack && iSavepoint >= p->nMark) {
    u64 n = ((u64)iSavepoint + 16) * sizeof(LibsqlMark);
    LibsqlMark *a = choirRealloc(pErr, p->aMark, n);
    if (a == NULL) {
      return;
    }
    memset(a + p->nMark, 0,
           ((size_t)iSavepoint + 16 - (size_t)p->nMark) * sizeof(*a));
    p->aMark = a;
    p->nMark = iSavepoint + 16;
  }
  if (!bBack) {
    p->aMark[iSavepoint].nWrite = p->nWrite;
    p->aMark[iSavepoint].nByte = p->writes.n;
  } else if (iSavepoint < p->nMark && p->aMark[iSavepoint].nWrite < p->nWrite) {
    p->nWrite = p->aMark[iSavepoint].nWrite;
    p->writes.n = p->aMark[iSavepoint].nByte;
  }
}

/*
** SQL: module libsql([url, ]table) -> TABLE(...)
**
** A table or view of a remote libSQL or Turso database as a temporary table:
** CREATE VIRTUAL TABLE temp.notes USING libsql('libsql://host', notes). Its
** columns and their types are those of the remote one.
**
** Comparisons (= < <= > >= IS IN, IS NULL), ORDER BY the rowid or INTEGER
** PRIMARY KEY, LIMIT and OFFSET are done there; only columns that are read are
** sent, and rows come as they are read.
**
** INSERT, UPDATE and DELETE are sent when the transaction commits, as one
** transaction there: all or nothing. A read of the table in the same transaction
** sends what waits before it; that part is not undone by ROLLBACK any more. NULL
** in an INSERT means the remote default.
**
**   url    as for libsql_query; left out: the configured database
**   table  the table's name
**
** Errors: another schema than temp; no such table; UPDATE and DELETE of a view or
** a table WITHOUT ROWID; more than 64 MiB of writes in one transaction; the
** server's, with the number of the statement.
**
** > CREATE VIRTUAL TABLE temp.notes USING libsql(nowhere, notes)
** ! libsql: 'nowhere' is no database; write libsql://host, https://host, http://host:port or the name of a choir_secret of type libsql
*/
static const ChoirModule libsqlModule = {
    .tvf = {"libsql", NULL, 0, 0, 0, CHOIR_EFFECT, 0, sizeof(LibsqlCursor),
            farTableFilter, farTableNext, farTableValue, farTableReset},
    .nTable = (int)sizeof(LibsqlTable),
    .xOpen = farTableOpen,
    .xClose = farTableClose,
    .xPlan = farTablePlan,
    .xRowid = farTableRow,
    .xWrite = farTableWrite,
    .xSync = farTableSync,
    .xRollback = farTableRollback,
    .xSavepoint = farTableSavepoint,
};

CHOIR_PRIVATE CHOIR_COLD void choirLibsqlTableRegister(ChoirConn *pConn,
                                                       ChoirErr *pErr) {
  choirRegisterModule(pConn, pErr, &libsqlModule);
}
#endif /* CHOIR_OMIT_NET */
