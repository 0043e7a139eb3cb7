/* SPDX-License-Identifier: MIT */
/*
** Which tables a statement reads, or one of its triggers writes: from EXPLAIN,
** whose OpenRead and OpenWrite name root pages. The bodies of triggers follow the
** statement there, each beginning with an Init that names its trigger. Virtual
** tables show a pointer only.
*/
#include "log.h"

/* Text that is not NULL only because memory has run out is an error. */
static const char *planText(ChoirErr *pErr, sqlite3_stmt *p, int i) {
  const char *z = (const char *)sqlite3_column_text(p, i);
  if (z == NULL && sqlite3_column_type(p, i) != SQLITE_NULL) {
    choirErrNomem(pErr);
  }
  return z;
}

/* The place of the workspace's schema in the list of attached databases. */
static int planSchema(ChoirConn *pConn, ChoirErr *pErr) {
  sqlite3_stmt *p = choirPrepare(pConn, pErr, "PRAGMA database_list");
  int i = -1;
  while (choirStep(pErr, p)) {
    const char *z = planText(pErr, p, 1);
    if (z && sqlite3_stricmp(z, choirSchema(pConn)) == 0) {
      i = sqlite3_column_int(p, 0);
    }
  }
  sqlite3_finalize(p);
  return i;
}

static void planAdd(ChoirConn *pConn, ChoirErr *pErr, ChoirLogPlan *pPlan,
                    i64 iRoot) {
  sqlite3_stmt *p = choirStmt(
      pConn, pErr,
      "SELECT tbl_name FROM ~.sqlite_schema WHERE rootpage=?1 LIMIT 1");
  int i;
  choirBindInt(pErr, p, 1, iRoot);
  if (choirStep(pErr, p)) {
    const char *z = planText(pErr, p, 0);
    for (i = 0; i < pPlan->n && z && strcmp(pPlan->az[i], z) != 0; i++) {
    }
    if (z && i == pPlan->n) {
      char **az = choirRealloc(pErr, pPlan->az, (u64)(i + 1) * sizeof(*az));
      if (az) {
        pPlan->az = az;
        az[i] = choirMprintf(pErr, "%s", z);
        pPlan->n += az[i] != NULL;
      }
    }
  }
  choirStmtDone(pConn, p);
}

CHOIR_PRIVATE void choirLogPlanRead(ChoirConn *pConn, ChoirErr *pErr,
                                    ChoirLogPlan *pPlan, const char *zSql,
                                    const char *zTrigger) {
  int iSchema = planSchema(pConn, pErr), bIn = zTrigger == NULL;
  char *zInit = zTrigger ? choirMprintf(pErr, "-- TRIGGER %s", zTrigger) : NULL;
  sqlite3_stmt *p = choirLogPrepare(pConn, pErr, "EXPLAIN %s", zSql);
  memset(pPlan, 0, sizeof(*pPlan));
  while (choirStep(pErr, p)) {
    const char *zOp = planText(pErr, p, 1);
    const char *z4 = planText(pErr, p, 5);
    if (zOp == NULL) {
      continue;
    } else if (strcmp(zOp, "Init") == 0 && zInit) {
      bIn = z4 && strcmp(z4, zInit) == 0;
    } else if (!bIn) {
      continue;
    } else if (strcmp(zOp, zTrigger ? "OpenWrite" : "OpenRead") == 0) {
      if (sqlite3_column_int(p, 4) == iSchema) {
        planAdd(pConn, pErr, pPlan, sqlite3_column_int64(p, 3));
      } else {
        pPlan->bOther = 1;
      }
    } else if (strcmp(zOp, "Clear") == 0 && zTrigger) {
      planAdd(pConn, pErr, pPlan, sqlite3_column_int64(p, 2));
    } else if (strcmp(zOp, "VOpen") == 0 || strcmp(zOp, "VUpdate") == 0) {
      pPlan->bOther = 1;
    }
  }
  sqlite3_finalize(p);
  sqlite3_free(zInit);
}

CHOIR_PRIVATE void choirLogPlanFree(ChoirLogPlan *p) {
  int i;
  for (i = 0; i < p->n; i++) {
    sqlite3_free(p->az[i]);
  }
  sqlite3_free(p->az);
  memset(p, 0, sizeof(*p));
}
