/* SPDX-License-Identifier: MIT */
/*
** The schemas of a merge: what this side made, changed or dropped since base is
** done to main, unless the remote did something else to the same object. Then
** every table that both have gets main's definition in `here` and `base` too, so
** that sync_three.c finds the same columns on all sides.
**
** A definition runs on the private connection of the merge alone, which has no
** function of choir's and fires no trigger; it must be one CREATE statement. A
** virtual table is entered without running anything: the tables that keep its
** rows come as the ordinary tables they are.
**
** What is to be done is listed in work.step first, because SQLite drops nothing
** while a statement reads.
*/
#include "sync.h"

/* ------------------------------------------------------------- what differs */

static void graftObjects(ChoirMerge *p) {
  static const char *const azSide[] = {"main", "here", "base"};
  int i;
  choirMergeExec(p, "CREATE TABLE work.obj(side TEXT, type TEXT, name TEXT"
                    " COLLATE NOCASE, tbl TEXT COLLATE NOCASE, sql TEXT,"
                    " PRIMARY KEY(side, type, name));"
                    "CREATE TABLE work.made(name TEXT PRIMARY KEY COLLATE"
                    " NOCASE);"
                    "CREATE TABLE work.aligned(name TEXT COLLATE NOCASE);"
                    "CREATE TABLE work.step(n INTEGER PRIMARY KEY, op TEXT,"
                    " type TEXT, name TEXT, tbl TEXT, sql TEXT)");
  for (i = 0; i < 3; i++) {
    choirMergeExec(p,
                   "INSERT INTO work.obj SELECT %Q, type, name, tbl_name, sql"
                   " FROM %s.sqlite_schema WHERE sql IS NOT NULL AND name NOT"
                   " LIKE 'sqlite\\_%%' ESCAPE '\\'",
                   azSide[i], azSide[i]);
  }
}

/* 1: choir puts it right by itself, so that the remote's may stay. */
static int graftMinor(const char *zType, const char *zName) {
  return strcmp(zType, "table") != 0 &&
         sqlite3_strnicmp(zName, "_choir_", 7) == 0;
}

static void graftStep(ChoirMerge *p, const char *zOp, sqlite3_stmt *pObj) {
  sqlite3_stmt *pOut = choirMergePrepare(
      p,
      "INSERT INTO work.step(op, type, name, tbl, sql) VALUES(%Q, ?1, ?2,"
      " ?3, ?4)",
      zOp);
  int i;
  for (i = 0; i < 4; i++) {
    choirBindValue(p->pErr, pOut, i + 1, sqlite3_column_value(pObj, i));
  }
  choirStep(p->pErr, pOut);
  sqlite3_finalize(pOut);
}

/* What this side dropped. */
static void graftDrops(ChoirMerge *p) {
  sqlite3_stmt *pObj = choirMergePrepare(
      p, "SELECT b.type, b.name, b.tbl, b.sql, m.sql FROM work.obj AS b JOIN"
         " work.obj AS m ON m.side='main' AND m.type=b.type AND m.name=b.name"
         " WHERE b.side='base' AND NOT EXISTS(SELECT 1 FROM work.obj AS h WHERE"
         " h.side='here' AND h.type=b.type AND h.name=b.name)"
         " ORDER BY b.type='table', b.type DESC");
  while (choirStep(p->pErr, pObj)) {
    const char *zType = (const char *)sqlite3_column_text(pObj, 0);
    const char *zName = (const char *)sqlite3_column_text(pObj, 1);
    const char *zWas = (const char *)sqlite3_column_text(pObj, 3);
    const char *zNow = (const char *)sqlite3_column_text(pObj, 4);
    int bDerived;
    if (!zType || !zName || !zWas || !zNow) {
      choirErrNomem(p->pErr);
      break;
    }
    bDerived = choirMergeRuleOf(p, zName)->eRule >= CHOIR_MERGE_WHOLE;
    if (strcmp(zWas, zNow) != 0 && !graftMinor(zType, zName)) {
      choirMergeRefuse(p,
                       "this side dropped %s %s and the remote changed its"
                       " definition",
                       zType, zName);
    } else if (strcmp(zType, "table") == 0 && !bDerived &&
               sqlite3_strnicmp(zNow, "CREATE VIRTUAL", 14) != 0 &&
               !choirMergeAlike(p, "main", "base", zName)) {
      choirMergeRefuse(p,
                       "this side dropped table %s and the remote changed"
                       " rows in it",
                       zName);
    } else {
      graftStep(p, "drop", pObj);
    }
  }
  sqlite3_finalize(pObj);
}

/* What the remote dropped, unless this side has changed rows in it. */
static void graftGone(ChoirMerge *p) {
  sqlite3_stmt *pObj = choirMergePrepare(
      p,
      "SELECT b.name FROM work.obj AS b JOIN work.obj AS h ON h.side='here'"
      " AND h.type=b.type AND h.name=b.name AND h.sql=b.sql WHERE"
      " b.side='base' AND b.type='table' AND b.sql NOT LIKE 'CREATE VIRTUAL "
      "%%' AND NOT EXISTS("
      "SELECT 1 FROM work.obj AS m WHERE m.side='main' AND m.type='table' AND"
      " m.name=b.name)");
  while (choirStep(p->pErr, pObj)) {
    const char *zName = (const char *)sqlite3_column_text(pObj, 0);
    if (zName && choirMergeRuleOf(p, zName)->eRule < CHOIR_MERGE_WHOLE &&
        !choirMergeAlike(p, "here", "base", zName)) {
      choirMergeRefuse(p,
                       "the remote dropped table %s and this side changed"
                       " rows in it",
                       zName);
    }
  }
  sqlite3_finalize(pObj);
}

static void graftClash(ChoirMerge *p, const char *zType, const char *zName,
                       const char *zTbl, int bThere) {
  const char *zRemedy = choirMergeRuleOf(p, zTbl)->zRemedy;
  if (bThere) {
    choirMergeRefuse(p, "both sides changed the definition of %s %s%s%s%s",
                     zType, zName, zRemedy ? " (" : "", zRemedy ? zRemedy : "",
                     zRemedy ? ")" : "");
  } else {
    choirMergeRefuse(p,
                     "the remote dropped %s %s, whose definition this side"
                     " changed",
                     zType, zName);
  }
}

/* What this side made or changed. */
static void graftChanges(ChoirMerge *p) {
  sqlite3_stmt *pObj = choirMergePrepare(
      p, "SELECT h.type, h.name, h.tbl, h.sql, m.sql, b.sql FROM work.obj AS h"
         " LEFT JOIN work.obj AS m ON m.side='main' AND m.type=h.type AND"
         " m.name=h.name LEFT JOIN work.obj AS b ON b.side='base' AND"
         " b.type=h.type AND b.name=h.name WHERE h.side='here' AND h.sql IS NOT"
         " b.sql AND h.sql IS NOT m.sql"
         " ORDER BY CASE h.type WHEN 'table' THEN 0 WHEN 'index' THEN 1 WHEN"
         " 'view' THEN 2 ELSE 3 END, h.rowid");
  while (choirStep(p->pErr, pObj)) {
    const char *zType = (const char *)sqlite3_column_text(pObj, 0);
    const char *zName = (const char *)sqlite3_column_text(pObj, 1);
    const char *zTbl = (const char *)sqlite3_column_text(pObj, 2);
    const char *zMain = (const char *)sqlite3_column_text(pObj, 4);
    const char *zBase = (const char *)sqlite3_column_text(pObj, 5);
    if (!zType || !zName || !zTbl) {
      choirErrNomem(p->pErr);
      break;
    }
    if (zBase == NULL && zMain == NULL) {
      if (choirMergeRuleOf(p, zTbl)->eRule != CHOIR_MERGE_REMOTE) {
        graftStep(p, "make", pObj);
      }
    } else if (zBase && zMain && strcmp(zBase, zMain) == 0) {
      graftStep(p, strcmp(zType, "table") == 0 ? "rebuild" : "remake", pObj);
    } else if (!graftMinor(zType, zName)) {
      graftClash(p, zType, zName, zTbl, zMain != NULL);
    }
  }
  sqlite3_finalize(pObj);
}

/* --------------------------------------------------------------- doing it */

/* One CREATE statement; in another schema than main, of a table. */
static void graftCreate(ChoirMerge *p, const char *zSchema, const char *zSql) {
  static const char zTable[] = "CREATE TABLE ";
  size_t n = sizeof(zTable) - 1;
  sqlite3_stmt *pStmt = NULL;
  const char *zTail = "";
  char *z = NULL;
  if (strncmp(zSql, zTable, n) == 0) {
    z = choirMprintf(p->pErr, "CREATE TABLE %s.%s", zSchema, zSql + n);
  } else if (strncmp(zSql, "CREATE ", 7) == 0) {
    z = choirMprintf(p->pErr, "%s", zSql);
  }
  if (z && p->pErr->rc == SQLITE_OK) {
    choirMergeFailed(p, sqlite3_prepare_v2(p->db, z, -1, &pStmt, &zTail));
    if (zTail && zTail[strspn(zTail, " \t\r\n;")]) {
      choirErrSet(p->pErr, SQLITE_CORRUPT,
                  "a definition in the schema is more"
                  " than one statement");
    }
    choirStep(p->pErr, pStmt);
    sqlite3_finalize(pStmt);
  }
  sqlite3_free(z);
}

/* A virtual table without running its module: it has no page of its own. */
static void graftVirtual(ChoirMerge *p, const char *zName, const char *zSql) {
  choirMergeExec(p,
                 "PRAGMA writable_schema=ON; INSERT INTO main.sqlite_schema("
                 "type, name, tbl_name, rootpage, sql) VALUES('table', %Q, %Q,"
                 " 0, %Q); PRAGMA writable_schema=RESET",
                 zName, zName, zSql);
}

/* Stored columns that zA's table has and zB's has not; then their names are
** appended to pMissing. With pCommon: those that both have, as a list. */
static void graftColumns(ChoirMerge *p, const char *zA, const char *zB,
                         const char *zTable, ChoirBuf *pCommon,
                         ChoirBuf *pMissing) {
  sqlite3_stmt *pCol = choirMergePrepare(
      p,
      "SELECT a.name, EXISTS(SELECT 1 FROM temp.pragma_table_xinfo(%Q, %Q) AS b"
      " WHERE b.name=a.name COLLATE NOCASE AND b.hidden=0)"
      " FROM temp.pragma_table_xinfo(%Q, %Q) AS a WHERE a.hidden=0",
      zTable, zB, zTable, zA);
  while (choirStep(p->pErr, pCol)) {
    ChoirBuf *b = sqlite3_column_int(pCol, 1) ? pCommon : pMissing;
    if (b) {
      choirBufPrintf(b, "%s\"%w\"", b->n ? "," : "",
                     sqlite3_column_text(pCol, 0));
    }
  }
  sqlite3_finalize(pCol);
}

static int graftHasRowid(ChoirMerge *p, const char *zSchema,
                         const char *zTable) {
  return choirMergeInt(
             p,
             "SELECT count(*) FROM temp.pragma_table_list(%Q) WHERE"
             " schema=%Q AND NOT wr AND NOT EXISTS(SELECT 1 FROM"
             " temp.pragma_table_xinfo(%Q, %Q) AS c WHERE c.name='_rowid_'"
             " COLLATE NOCASE)",
             zTable, zSchema, zTable, zSchema) != 0;
}

/* zSchema's table by another definition; a column it does not have is gone, a
** new one has its default. */
static void graftRebuild(ChoirMerge *p, const char *zSchema, const char *zTable,
                         const char *zSql) {
  ChoirBuf b;
  int bRowid = graftHasRowid(p, zSchema, zTable);
  choirMergeExec(p,
                 "CREATE TABLE work.\"%w\" AS SELECT *%s FROM %s.\"%w\";"
                 "DROP TABLE %s.\"%w\"",
                 zTable, bRowid ? ", _rowid_ AS \"choir rowid\"" : "", zSchema,
                 zTable, zSchema, zTable);
  graftCreate(p, zSchema, zSql);
  bRowid = bRowid && graftHasRowid(p, zSchema, zTable);
  choirBufInit(&b, p->pErr, CHOIR_BUF_SQL);
  graftColumns(p, zSchema, "work", zTable, &b, NULL);
  choirMergeExec(p,
                 "INSERT INTO %s.\"%w\"(%s%s) SELECT %s%s FROM work.\"%w\";"
                 "DROP TABLE work.\"%w\"",
                 zSchema, zTable, bRowid ? "_rowid_," : "", b.a ? b.a : "",
                 bRowid ? "\"choir rowid\"," : "", b.a ? b.a : "", zTable,
                 zTable);
  choirBufFree(&b);
}

/* Rows of zSide changed since base in a table that loses columns: refused. */
static void graftLoss(ChoirMerge *p, const char *zSide, const char *zOther,
                      const char *zTable) {
  ChoirBuf b;
  choirBufInit(&b, p->pErr, CHOIR_BUF_SQL);
  graftColumns(p, zSide, zOther, zTable, NULL, &b);
  if (b.n && !choirMergeAlike(p, zSide, "base", zTable)) {
    choirMergeRefuse(p,
                     "%s changed rows of table %s and %s removed its column"
                     " %s",
                     zSide[0] == 'm' ? "the remote" : "this side", zTable,
                     zSide[0] == 'm' ? "this side" : "the remote", b.a);
  }
  choirBufFree(&b);
}

/* The table as this side defines it, with what the remote keeps beside it. */
static void graftTable(ChoirMerge *p, const char *zTable, const char *zSql) {
  if (sqlite3_strnicmp(zSql, "CREATE VIRTUAL", 14) == 0) {
    choirMergeRefuse(p, "this side made virtual table %s anew", zTable);
    return;
  }
  graftLoss(p, "main", "here", zTable);
  if (p->pErr->rc == SQLITE_OK) {
    choirMergeExec(
        p,
        "INSERT INTO work.step(op, type, name, tbl, sql) SELECT"
        " 'back', type, name, tbl, sql FROM work.obj AS m WHERE"
        " side='main' AND type IN ('index','trigger') AND tbl=%Q AND"
        " (EXISTS(SELECT 1 FROM work.obj AS h WHERE h.side='here' AND"
        " h.type=m.type AND h.name=m.name AND h.sql=m.sql) OR NOT"
        " EXISTS(SELECT 1 FROM work.obj AS b WHERE b.side='base' AND"
        " b.type=m.type AND b.name=m.name))",
        zTable);
    graftRebuild(p, "main", zTable, zSql);
  }
}

static void graftDo(ChoirMerge *p, char **az) {
  const char *zOp = az[0], *zType = az[1], *zName = az[2], *zSql = az[4];
  if (strcmp(zOp, "drop") == 0 || strcmp(zOp, "remake") == 0) {
    choirMergeExec(p, "DROP %s IF EXISTS main.\"%w\"", zType, zName);
  }
  if (strcmp(zOp, "rebuild") == 0) {
    graftTable(p, zName, zSql);
  } else if (strcmp(zOp, "drop") != 0) {
    if (sqlite3_strnicmp(zSql, "CREATE VIRTUAL", 14) == 0) {
      graftVirtual(p, zName, zSql);
    } else {
      graftCreate(p, "main", zSql);
    }
    if (strcmp(zType, "table") == 0) {
      choirMergeExec(p, "INSERT OR IGNORE INTO work.made VALUES(%Q)", zName);
    }
  }
}

/* The steps in order; those that a step adds come last. */
static void graftSteps(ChoirMerge *p) {
  i64 n = 0;
  while (p->pErr->rc == SQLITE_OK) {
    sqlite3_stmt *pStep = choirMergePrepare(
        p,
        "SELECT n, op, type, name, tbl, sql FROM work.step WHERE n>%lld"
        " ORDER BY n LIMIT 1",
        n);
    char *az[5] = {0};
    int i, bRow = choirStep(p->pErr, pStep);
    n = bRow ? sqlite3_column_int64(pStep, 0) : n;
    for (i = 0; i < 5 && bRow; i++) {
      az[i] = choirMprintf(p->pErr, "%s", sqlite3_column_text(pStep, i + 1));
    }
    sqlite3_finalize(pStep);
    if (bRow && p->pErr->rc == SQLITE_OK) {
      graftDo(p, az);
    }
    for (i = 0; i < 5; i++) {
      sqlite3_free(az[i]);
    }
    if (!bRow) {
      break;
    }
  }
}

/* One table of main gets its definition on the other sides. */
static void graftAlign(ChoirMerge *p, const char *zTable, const char *zMain,
                       const char *zHere, const char *zBase) {
  choirMergeExec(p, "INSERT INTO work.aligned VALUES(%Q)", zTable);
  if (zHere && strcmp(zHere, zMain) != 0) {
    graftLoss(p, "here", "main", zTable);
    graftRebuild(p, "here", zTable, zMain);
  }
  if (zBase == NULL && p->pErr->rc == SQLITE_OK) {
    graftCreate(p, "base", zMain);
  } else if (zBase && strcmp(zBase, zMain) != 0) {
    graftRebuild(p, "base", zTable, zMain);
  }
}

static const char zGraftAlign[] =
    "SELECT m.name, m.sql, h.sql, b.sql FROM main.sqlite_schema AS m JOIN"
    " here.sqlite_schema AS h ON h.type='table' AND h.name=m.name COLLATE "
    "NOCASE"
    " LEFT JOIN base.sqlite_schema AS b ON b.type='table' AND b.name=m.name"
    " COLLATE NOCASE AND b.rootpage>0 WHERE m.type='table' AND m.rootpage>0 AND"
    " h.rootpage>0 AND m.name NOT LIKE 'sqlite\\_%%' ESCAPE '\\'"
    " AND (h.sql IS NOT m.sql OR b.sql IS NOT m.sql) AND m.name NOT IN (SELECT"
    " name FROM work.aligned) LIMIT 1";

CHOIR_PRIVATE void choirGraft(ChoirMerge *p) {
  graftObjects(p);
  graftGone(p);
  graftDrops(p);
  graftChanges(p);
  graftSteps(p);
  while (p->pErr->rc == SQLITE_OK) {
    sqlite3_stmt *pStmt = choirMergePrepare(p, zGraftAlign);
    char *az[4] = {0};
    int i, bRow = choirStep(p->pErr, pStmt);
    for (i = 0; i < 4 && bRow; i++) {
      const char *z = (const char *)sqlite3_column_text(pStmt, i);
      az[i] = z ? choirMprintf(p->pErr, "%s", z) : NULL;
    }
    sqlite3_finalize(pStmt);
    if (bRow && p->pErr->rc == SQLITE_OK) {
      graftAlign(p, az[0], az[1], az[2], az[3]);
    }
    for (i = 0; i < 4; i++) {
      sqlite3_free(az[i]);
    }
    if (!bRow) {
      break;
    }
  }
}
