/* SPDX-License-Identifier: MIT */
/*
** Tables whose rows live elsewhere (ChoirModule): here in an array, so that
** what the module was asked for can be read. Made in TEMP only, planned by the
** module, written in the host's transaction, and a table-valued function too
** when it says so.
*/
#include "core/core.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

typedef struct Rows {
  ChoirTable base;
  i64 iBase;   /* first argument, the value of row 0 */
  i64 aNew[4]; /* written, not yet sent */
  int nNew;
} Rows;

static char zSeen[256]; /* what the module saw last */
static i64 aSent[16];
static int nSent;

static void rowsOpen(ChoirTable *pTable, ChoirErr *pErr, int nArg, char **azArg,
                     ChoirBuf *pColumns) {
  Rows *p = (Rows *)pTable;
  int i;
  zSeen[0] = 0;
  for (i = 0; i < nArg; i++) {
    strcat(strcat(zSeen, "|"), azArg[i]);
  }
  if (nArg < 1) {
    choirErrSet(pErr, SQLITE_ERROR, "needs the first value");
    return;
  }
  p->iBase = atoi(azArg[0]);
  pTable->nCol = 2;
  choirBufText(pColumns, "v INTEGER, twice INTEGER");
}

static void rowsClose(ChoirTable *pTable) {
  (void)pTable;
  strcpy(zSeen, "closed");
}

static void rowsPlan(ChoirTable *pTable, ChoirErr *pErr,
                     sqlite3_index_info *pInfo, int *pnValue, int *piPlan) {
  int i;
  (void)pTable, (void)pErr;
  for (i = 0; i < pInfo->nConstraint; i++) {
    if (pInfo->aConstraint[i].iColumn == 0 && pInfo->aConstraint[i].usable &&
        pInfo->aConstraint[i].op == SQLITE_INDEX_CONSTRAINT_GE && !*piPlan) {
      pInfo->aConstraintUsage[i].argvIndex = ++*pnValue;
      *piPlan = 1;
    }
  }
}

static i64 rowsFirst(ChoirCursor *pCur) {
  Rows *p = (Rows *)pCur->base.pVtab;
  return p->base.bCreated ? p->iBase : sqlite3_value_int64(pCur->apArg[0]);
}

/* Five rows from the first value on; those below the pushed limit skipped. */
static void rowsFilter(ChoirCursor *pCur) {
  i64 v = rowsFirst(pCur);
  i64 iMin = pCur->iPlan ? sqlite3_value_int64(pCur->apValue[0]) : v;
  int i;
  sprintf(zSeen, "plan %d, %d values", pCur->iPlan, pCur->nValue);
  for (i = 0; i < 5; i++) {
    if (v + i >= iMin) {
      choirRowInt(pCur, v + i);
      choirRowInt(pCur, 2 * (v + i));
    }
  }
}

static i64 rowsRowid(ChoirCursor *pCur) { return 100 + pCur->iRow; }

static void rowsWrite(ChoirTable *pTable, ChoirErr *pErr, int nValue,
                      sqlite3_value **apValue, i64 *piRowid) {
  Rows *p = (Rows *)pTable;
  if (nValue == 1) {
    choirErrSet(pErr, SQLITE_ERROR, "rows cannot be deleted");
    return;
  }
  p->aNew[p->nNew++] = sqlite3_value_int64(apValue[2]);
  *piRowid = p->nNew;
}

static void rowsSync(ChoirTable *pTable, ChoirErr *pErr) {
  Rows *p = (Rows *)pTable;
  (void)pErr;
  while (p->nNew) {
    aSent[nSent++] = p->aNew[--p->nNew];
  }
}

static void rowsRollback(ChoirTable *pTable) { ((Rows *)pTable)->nNew = 0; }

static const ChoirModule rowsModule = {{"unit_rows", "v, twice, first HIDDEN",
                                        2, 1, 1, CHOIR_EFFECT, 0, 0, rowsFilter,
                                        NULL, NULL, NULL},
                                       sizeof(Rows),
                                       0,
                                       rowsOpen,
                                       rowsClose,
                                       rowsPlan,
                                       rowsRowid,
                                       rowsWrite,
                                       rowsSync,
                                       rowsRollback,
                                       NULL};

/* The same, but no table-valued function and not writable. */
static const ChoirModule readModule = {{"unit_read", NULL, 0, 0, 0, CHOIR_READ,
                                        0, 0, rowsFilter, NULL, NULL, NULL},
                                       sizeof(Rows),
                                       0,
                                       rowsOpen,
                                       rowsClose,
                                       NULL,
                                       NULL,
                                       NULL,
                                       NULL,
                                       NULL,
                                       NULL};

typedef struct Fixture {
  sqlite3 *db;
  ChoirConn *pConn;
  char z[512];
} Fixture;

static int setUp(void **pp) {
  Fixture *f = calloc(1, sizeof(*f));
  ChoirErr err = {0, NULL};
  assert_int_equal(sqlite3_open(":memory:", &f->db), SQLITE_OK);
  f->pConn = choirConnNew(f->db, 0);
  choirRegisterModule(f->pConn, &err, &rowsModule);
  choirRegisterModule(f->pConn, &err, &readModule);
  assert_int_equal(err.rc, SQLITE_OK);
  nSent = 0;
  *pp = f;
  return 0;
}

static int tearDown(void **pp) {
  Fixture *f = *pp;
  choirConnUnref(f->pConn);
  assert_int_equal(sqlite3_close(f->db), SQLITE_OK);
  free(f);
  return 0;
}

/* Rows joined by commas, or the error. */
static const char *run(Fixture *f, const char *zSql) {
  sqlite3_stmt *p = NULL;
  int rc = sqlite3_prepare_v2(f->db, zSql, -1, &p, NULL);
  f->z[0] = 0;
  while (rc == SQLITE_OK && sqlite3_step(p) == SQLITE_ROW) {
    sprintf(f->z + strlen(f->z), "%s%s", f->z[0] ? "," : "",
            (const char *)sqlite3_column_text(p, 0));
  }
  if (rc != SQLITE_OK || sqlite3_finalize(p) != SQLITE_OK) {
    snprintf(f->z, sizeof(f->z), "%s", sqlite3_errmsg(f->db));
  }
  return f->z;
}

static void a_table_is_made_in_temp_with_its_arguments_unquoted(void **pp) {
  Fixture *f = *pp;
  run(f, "CREATE VIRTUAL TABLE temp.t USING unit_rows( 7 , 'it''s', \"a, b\")");
  assert_string_equal(zSeen, "|7|it's|a, b");
  assert_string_equal(run(f, "SELECT twice FROM t"), "14,16,18,20,22");
  assert_string_equal(run(f, "SELECT rowid FROM t"), "100,101,102,103,104");
  run(f, "DROP TABLE t");
  assert_string_equal(zSeen, "closed");
}

static void any_other_schema_is_refused(void **pp) {
  Fixture *f = *pp;
  const char *zWant = "unit_rows: cannot be a table of schema main; use CREATE"
                      " VIRTUAL TABLE temp.t USING unit_rows(...)";
  assert_string_equal(run(f, "CREATE VIRTUAL TABLE main.t USING unit_rows(1)"),
                      zWant);
  assert_string_equal(run(f, "CREATE VIRTUAL TABLE t USING unit_rows"), zWant);
  assert_string_equal(run(f, "CREATE VIRTUAL TABLE temp.t USING unit_rows"),
                      "unit_rows: needs the first value");
  assert_string_equal(run(f, "SELECT count(*) FROM sqlite_schema"), "0");
}

static void what_the_module_plans_for_is_pushed_down(void **pp) {
  Fixture *f = *pp;
  run(f, "CREATE VIRTUAL TABLE temp.t USING unit_rows(1)");
  assert_string_equal(run(f, "SELECT v FROM t WHERE v >= 4"), "4,5");
  assert_string_equal(zSeen, "plan 1, 1 values");
  assert_string_equal(run(f, "SELECT v FROM t WHERE v > 4"), "5");
  assert_string_equal(zSeen, "plan 0, 0 values");
  assert_string_equal(run(f, "SELECT v FROM unit_rows(1) WHERE v >= 4"), "4,5");
  assert_string_equal(zSeen, "plan 1, 1 values");
  assert_string_equal(
      run(f, "SELECT b.v FROM t a, unit_rows(a.v) b WHERE b.v >= 9"), "9");
}

static void writes_go_out_when_the_transaction_commits(void **pp) {
  Fixture *f = *pp;
  run(f, "CREATE VIRTUAL TABLE temp.t USING unit_rows(1)");
  run(f, "BEGIN");
  run(f, "INSERT INTO t(v) VALUES(50), (51)");
  assert_int_equal(nSent, 0);
  run(f, "COMMIT");
  assert_int_equal(nSent, 2);
  run(f, "BEGIN");
  run(f, "INSERT INTO t(v) VALUES(52)");
  run(f, "ROLLBACK");
  run(f, "INSERT INTO t(v) VALUES(53)");
  assert_int_equal(nSent, 3);
  assert_int_equal(aSent[2], 53);
  assert_string_equal(run(f, "DELETE FROM t WHERE v=1"),
                      "unit_rows: rows cannot be deleted");
}

static void functions_and_read_only_modules_are_not_written(void **pp) {
  Fixture *f = *pp;
  assert_string_equal(run(f, "INSERT INTO unit_rows(v) VALUES(1)"),
                      "unit_rows: a table-valued function cannot be written;"
                      " use CREATE VIRTUAL TABLE temp.name USING"
                      " unit_rows(...)");
  run(f, "CREATE VIRTUAL TABLE temp.r USING unit_read(3)");
  assert_string_equal(run(f, "SELECT v FROM r"), "3,4,5,6,7");
  assert_string_equal(run(f, "INSERT INTO r(v) VALUES(1)"),
                      "table r may not be modified");
  assert_string_equal(run(f, "SELECT * FROM unit_read"),
                      "no such table: unit_read");
}

static void a_locked_connection_reads_and_writes_nothing_elsewhere(void **pp) {
  Fixture *f = *pp;
  run(f, "CREATE VIRTUAL TABLE temp.t USING unit_rows(1)");
  f->pConn->bLocked = 1;
  assert_non_null(strstr(run(f, "SELECT * FROM t"), "locked"));
  assert_non_null(strstr(run(f, "INSERT INTO t(v) VALUES(1)"), "locked"));
  assert_int_equal(nSent, 0);
}

static void quotes_are_stripped_once(void **pp) {
  char a[][16] = {" 'a' ", "\"b\"\"c\"", "[d]", "`e`", "f g", "'", "''", ""};
  const char *az[] = {"a", "b\"c", "d", "e", "f g", "'", "", ""};
  int i;
  (void)pp;
  for (i = 0; i < 8; i++) {
    assert_string_equal(choirUnquote(a[i]), az[i]);
  }
}

int main(void) {
#define CASE(x) cmocka_unit_test_setup_teardown(x, setUp, tearDown)
  const struct CMUnitTest aTest[] = {
      CASE(a_table_is_made_in_temp_with_its_arguments_unquoted),
      CASE(any_other_schema_is_refused),
      CASE(what_the_module_plans_for_is_pushed_down),
      CASE(writes_go_out_when_the_transaction_commits),
      CASE(functions_and_read_only_modules_are_not_written),
      CASE(a_locked_connection_reads_and_writes_nothing_elsewhere),
      CASE(quotes_are_stripped_once),
  };
  return cmocka_run_group_tests_name("core_vtab", aTest, NULL, NULL);
}
