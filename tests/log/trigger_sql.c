/* SPDX-License-Identifier: MIT */
/*
** An extension for tests only, linked with choir's own objects:
**
**   test_triggers(table)       the CREATE TRIGGER statements that the log's
**                              generator gives for any table, a JSON array;
**                              types are INSERT, UPDATE and DELETE
**   test_db_config(op, value)  sqlite3_db_config() of the connection: defensive
**                              mode, double-quoted strings
*/
#include "../../ext/log/log.h"
#undef SQLITE_EXTENSION_INIT3
SQLITE_EXTENSION_INIT1

static void testTriggers(sqlite3_context *pCtx, int nArg,
                         sqlite3_value **apArg) {
  ChoirConn *pConn = sqlite3_user_data(pCtx);
  ChoirLogTrigger a[CHOIR_LOG_TRIGGERS];
  ChoirErr err = {SQLITE_OK, NULL};
  ChoirLogSpec spec;
  ChoirBuf b;
  int i, n;
  (void)nArg;
  memset(&spec, 0, sizeof(spec));
  spec.zTable = (const char *)sqlite3_value_text(apArg[0]);
  spec.zInsert = "'INSERT'";
  spec.zUpdate = "'UPDATE'";
  spec.zDelete = "'DELETE'";
  n = choirLogTriggers(pConn, &err, &spec, NULL, spec.zTable, a);
  choirBufInit(&b, &err, CHOIR_BUF_JSON);
  for (i = 0; i < n; i++) {
    char *z = choirMprintf(&err, "CREATE TRIGGER %s", a[i].zSql);
    choirBufText(&b, i ? "," : "[");
    if (z) {
      choirBufJson(&b, z, -1);
    }
    sqlite3_free(z);
  }
  choirBufText(&b, "]");
  choirLogTriggersFree(a);
  if (err.rc == SQLITE_OK) {
    choirBufResult(&b, pCtx);
  } else {
    choirBufFree(&b);
  }
  choirErrResult(&err, pCtx, "test_triggers");
}

static void testDbConfig(sqlite3_context *pCtx, int nArg,
                         sqlite3_value **apArg) {
  int iNow = -1;
  (void)nArg;
  sqlite3_db_config(sqlite3_context_db_handle(pCtx),
                    sqlite3_value_int(apArg[0]), sqlite3_value_int(apArg[1]),
                    &iNow);
  sqlite3_result_int(pCtx, iNow);
}

CHOIR_PRIVATE int choirConfigRegister(ChoirConn *pConn, char **pzErr);

__attribute__((visibility("default"))) int
sqlite3_extension_init(sqlite3 *db, char **pzErr,
                       const sqlite3_api_routines *pApi) {
  ChoirConn *pConn;
  (void)pzErr;
  SQLITE_EXTENSION_INIT2(pApi);
  pConn = choirConnNew(db, 0);
  if (pConn == NULL) {
    return SQLITE_NOMEM;
  }
  sqlite3_create_function_v2(db, "test_triggers", 1, SQLITE_UTF8, pConn,
                             testTriggers, NULL, NULL, choirConnUnref);
  return sqlite3_create_function_v2(db, "test_db_config", 2, SQLITE_UTF8, NULL,
                                    testDbConfig, NULL, NULL, NULL);
}
