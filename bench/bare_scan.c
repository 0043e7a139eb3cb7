/* SPDX-License-Identifier: MIT */
/*
** The floor under any scan that goes through SQLite: step, column_blob, the
** distance of that row, the smallest kept. No heap, no checks, no options.
**
**   SELECT bare_scan('SELECT rowid, e FROM docs', query)  -> rowid
**
** Compiled by bench_vec_scan.py together with ext/kern.
*/
#include "../ext/kern/kern.h"
#include "sqlite3ext.h"
#include <math.h>
SQLITE_EXTENSION_INIT1

static void bareScan(sqlite3_context *pCtx, int nArg, sqlite3_value **apArg) {
  sqlite3 *db = sqlite3_context_db_handle(pCtx);
  const ChoirKernOps *p = &choirKernAuto()->a[KERN_F32];
  const void *q = sqlite3_value_blob(apArg[1]);
  size_t n = (size_t)sqlite3_value_bytes(apArg[1]) / 4;
  double qq = p->xDot(q, q, n), best = INFINITY, a[2];
  sqlite3_int64 iBest = 0;
  sqlite3_stmt *pStmt = NULL;
  (void)nArg;
  sqlite3_prepare_v2(db, (const char *)sqlite3_value_text(apArg[0]), -1, &pStmt,
                     NULL);
  while (sqlite3_step(pStmt) == SQLITE_ROW) {
    const void *e = sqlite3_column_blob(pStmt, 1);
    if (sqlite3_column_bytes(pStmt, 1) == (int)n * 4) {
      double r;
      p->xCos(q, e, n, a);
      r = 1.0 - a[0] / (sqrt(qq) * sqrt(a[1]));
      if (r < best) {
        best = r;
        iBest = sqlite3_column_int64(pStmt, 0);
      }
    }
  }
  sqlite3_finalize(pStmt);
  sqlite3_result_int64(pCtx, iBest);
}

int sqlite3_extension_init(sqlite3 *db, char **pz,
                           const sqlite3_api_routines *pApi) {
  (void)pz;
  SQLITE_EXTENSION_INIT2(pApi);
  return sqlite3_create_function(db, "bare_scan", 2, SQLITE_UTF8, NULL,
                                 bareScan, NULL, NULL);
}
