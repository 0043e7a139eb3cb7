/* SPDX-License-Identifier: MIT */
/*
** One table of a merge, three ways: `base` is what both sides descend from,
** `here` this file, `main` the remote's version, into which this side's changes
** go. The three have the same columns by now (sync_graft.c).
**
** By key, where the table has one: what here changed against base is looked up
** in main. Nobody touched it there: it is taken. Both did: column by column,
** columns of a group together; what both set differently stays as it is at the
** remote, and the value here is written down as a conflict. A delete gives way to
** a change. So no row is lost that one side kept or made.
**
** Without a key a table is a bag of rows: those that here has more of than base
** are added, those it has less of are taken away.
**
** What is to be done to a table is collected in work.todo first. Then rows are
** deleted before any is inserted, so that values may change places under a UNIQUE
** index, and what SQLite still refuses is named.
*/
#include "sync.h"

#define THREE_KEY 8       /* columns of a key */
#define THREE_NAMED 5     /* rows that a refusal names */
#define THREE_SHOWN 65536 /* bytes of a value in a conflict */

typedef struct Three {
  ChoirMerge *p;
  const char *zTable;
  const ChoirMergeRule *pRule;
  char **azCol; /* stored columns */
  u8 *abGroup;  /* … that go together */
  int nCol;
  int iDeleted, iHash, iNewest; /* columns of that meaning, -1: none */
  int aKey[THREE_KEY];
  char *azColl[THREE_KEY];
  int nKey;           /* 0: a bag */
  const char *zRowid; /* a name that the rowid has, NULL: none */
  u8 bAlias;          /* the key is the rowid */
} Three;

/* ---------------------------------------------------------------- its shape */

static void threeFree(Three *t) {
  int i;
  for (i = 0; i < t->nCol; i++) {
    sqlite3_free(t->azCol[i]);
  }
  for (i = 0; i < t->nKey; i++) {
    sqlite3_free(t->azColl[i]);
  }
  sqlite3_free(t->azCol);
  sqlite3_free(t->abGroup);
}

/* 1: z is one of the names in zList, which are separated by spaces. */
static int threeIn(const char *zList, const char *z) {
  size_t n = strlen(z);
  const char *zAt = zList;
  while (zAt && (zAt = strstr(zAt, z)) != NULL) {
    if ((zAt == zList || zAt[-1] == ' ') && (zAt[n] == 0 || zAt[n] == ' ')) {
      return 1;
    }
    zAt += n;
  }
  return 0;
}

static void threeColumns(Three *t) {
  static const char *const azRowid[] = {"rowid", "_rowid_", "oid"};
  ChoirErr *pErr = t->p->pErr;
  sqlite3_stmt *p =
      choirMergePrepare(t->p, "PRAGMA main.table_xinfo(\"%w\")", t->zTable);
  int mTaken = 0, i;
  while (choirStep(pErr, p)) {
    const char *z = (const char *)sqlite3_column_text(p, 1);
    char **az;
    u8 *ab;
    if (z == NULL) {
      choirErrNomem(pErr);
      break;
    }
    for (i = 0; i < 3; i++) {
      mTaken |= sqlite3_stricmp(z, azRowid[i]) == 0 ? 1 << i : 0;
    }
    if (sqlite3_column_int(p, 6) != 0) {
      continue; /* generated: it follows from the others */
    }
    az = choirRealloc(pErr, t->azCol, (u64)(t->nCol + 1) * sizeof(*az));
    t->azCol = az ? az : t->azCol;
    ab = choirRealloc(pErr, t->abGroup, (u64)(t->nCol + 1));
    t->abGroup = ab ? ab : t->abGroup;
    if (az && ab) {
      ab[t->nCol] = (u8)threeIn(t->pRule->zGroup, z);
      t->iDeleted =
          strcmp(z, "deleted_at") == 0 && ab[t->nCol] ? t->nCol : t->iDeleted;
      t->iHash = strcmp(z, "hash") == 0 && ab[t->nCol] ? t->nCol : t->iHash;
      t->iNewest =
          t->pRule->bOwn && strcmp(z, "updated_at") == 0 ? t->nCol : t->iNewest;
      az[t->nCol] = choirMprintf(pErr, "%s", z);
      t->nCol += az[t->nCol] != NULL;
    }
  }
  sqlite3_finalize(p);
  for (i = 0; i < 3 && t->zRowid == NULL && pErr->rc == SQLITE_OK; i++) {
    char *z =
        choirMprintf(pErr, "SELECT %s FROM main.\"%w\"", azRowid[i], t->zTable);
    if (z && !(mTaken >> i & 1) &&
        sqlite3_prepare_v2(t->p->db, z, -1, &p, NULL) == SQLITE_OK) {
      t->zRowid = azRowid[i];
      sqlite3_finalize(p);
    }
    sqlite3_free(z);
  }
}

static int threeColumn(const Three *t, const char *z) {
  int i;
  for (i = 0; i < t->nCol && z && sqlite3_stricmp(t->azCol[i], z) != 0; i++) {
  }
  return z && i < t->nCol ? i : -1;
}

/* The columns of a unique index become the key; 0: it has others than stored
** ones, or too many. */
static int threeKeyOf(Three *t, const char *zIndex) {
  ChoirErr *pErr = t->p->pErr;
  sqlite3_stmt *p =
      choirMergePrepare(t->p, "PRAGMA main.index_xinfo(\"%w\")", zIndex);
  int bGood = 1;
  while (choirStep(pErr, p)) {
    const char *zColl = (const char *)sqlite3_column_text(p, 4);
    int i = threeColumn(t, (const char *)sqlite3_column_text(p, 2));
    if (!sqlite3_column_int(p, 5)) {
      continue;
    }
    if (i < 0 || t->nKey == THREE_KEY || zColl == NULL) {
      bGood = 0;
      break;
    }
    t->aKey[t->nKey] = i;
    t->azColl[t->nKey] = choirMprintf(pErr, "%s", zColl);
    t->nKey += t->azColl[t->nKey] != NULL;
  }
  sqlite3_finalize(p);
  while (!bGood && t->nKey > 0) {
    sqlite3_free(t->azColl[--t->nKey]);
  }
  return bGood && t->nKey > 0;
}

/* A NULL is equal to nothing: a table that has one in its key is a bag. */
static int threeNulls(Three *t) {
  static const char *const azSide[] = {"main", "here", "base"};
  int i, j, bNull = 0;
  for (i = 0; i < 3 && !bNull; i++) {
    for (j = 0; j < t->nKey && !bNull; j++) {
      bNull = choirMergeInt(t->p,
                            "SELECT EXISTS(SELECT 1 FROM %s.\"%w\" WHERE"
                            " \"%w\" IS NULL)",
                            azSide[i], t->zTable, t->azCol[t->aKey[j]]) != 0;
    }
  }
  return bNull;
}

/* The key: the declared one, the rowid's column, or a UNIQUE index that covers
** every row. */
static void threeKey(Three *t) {
  ChoirErr *pErr = t->p->pErr;
  sqlite3_stmt *p;
  int iPass, bFound = 0, nPk = 0, iPk = -1;
  for (iPass = 0; iPass < 2 && !bFound; iPass++) {
    p = choirMergePrepare(t->p, "PRAGMA main.index_list(\"%w\")", t->zTable);
    while (!bFound && choirStep(pErr, p)) {
      const char *zName = (const char *)sqlite3_column_text(p, 1);
      const char *zOrigin = (const char *)sqlite3_column_text(p, 3);
      if (zName && zOrigin && sqlite3_column_int(p, 2) &&
          !sqlite3_column_int(p, 4) &&
          (strcmp(zOrigin, "pk") == 0) == (iPass == 0)) {
        bFound = threeKeyOf(t, zName);
      }
    }
    sqlite3_finalize(p);
    if (iPass == 0 && !bFound) {
      p = choirMergePrepare(t->p, "PRAGMA main.table_xinfo(\"%w\")", t->zTable);
      while (choirStep(pErr, p)) {
        if (sqlite3_column_int(p, 5)) {
          nPk++;
          iPk = threeColumn(t, (const char *)sqlite3_column_text(p, 1));
        }
      }
      sqlite3_finalize(p);
      if (nPk == 1 && iPk >= 0) {
        t->aKey[0] = iPk;
        t->azColl[0] = choirMprintf(pErr, "BINARY");
        t->nKey = t->azColl[0] != NULL;
        t->bAlias = 1;
        bFound = 1;
      }
    }
  }
  if (!t->bAlias && t->nKey && threeNulls(t)) {
    while (t->nKey > 0) {
      sqlite3_free(t->azColl[--t->nKey]);
    }
  }
}

static void threeOpen(Three *t, ChoirMerge *p, const char *zTable,
                      const ChoirMergeRule *pRule) {
  memset(t, 0, sizeof(*t));
  t->p = p;
  t->zTable = zTable;
  t->pRule = pRule;
  t->iDeleted = t->iHash = t->iNewest = -1;
  threeColumns(t);
  if (p->pErr->rc == SQLITE_OK) {
    threeKey(t);
  }
}

/* ------------------------------------------------------------------- values */

/* 1: the same type and the same bytes. */
static int threeSame(sqlite3_stmt *a, int i, sqlite3_stmt *b, int j) {
  int e = sqlite3_column_type(a, i);
  double r, s;
  if (e != sqlite3_column_type(b, j)) {
    return 0;
  }
  switch (e) {
  case SQLITE_INTEGER:
    return sqlite3_column_int64(a, i) == sqlite3_column_int64(b, j);
  case SQLITE_FLOAT:
    r = sqlite3_column_double(a, i);
    s = sqlite3_column_double(b, j);
    return memcmp(&r, &s, sizeof(r)) == 0;
  case SQLITE_NULL:
    return 1;
  default: {
    const void *x = sqlite3_column_blob(a, i), *y = sqlite3_column_blob(b, j);
    int n = sqlite3_column_bytes(a, i);
    return n == sqlite3_column_bytes(b, j) &&
           (n == 0 || (x && y && memcmp(x, y, (size_t)n) == 0));
  }
  }
}

/* The key whose parts are at iFrom + aKey[…] of p, as one value: bound to the
** parameter iBind of pOut; a key of several parts becomes text in b. */
static void threeBindKey(Three *t, sqlite3_stmt *p, int iFrom,
                         sqlite3_stmt *pOut, int iBind, ChoirBuf *b) {
  int i;
  if (t->nKey == 1) {
    choirBindValue(t->p->pErr, pOut, iBind,
                   sqlite3_column_value(p, iFrom + t->aKey[0]));
    return;
  }
  for (i = 0; i < t->nKey; i++) {
    choirBufText(b, i ? "," : "[");
    choirBufColumn(b, p, iFrom + t->aKey[i], -1);
  }
  choirBufText(b, "]");
  choirBindText(t->p->pErr, pOut, iBind, b->a, (i64)b->n);
}

/* A conflict: of the row in p (columns from iFrom on); zColumns is a JSON
** object's inside or NULL. */
static void threeConflict(Three *t, sqlite3_stmt *p, int iFrom,
                          const char *zKind, const char *zColumns) {
  ChoirErr *pErr = t->p->pErr;
  sqlite3_stmt *pOut =
      choirMergePrepare(t->p,
                        "INSERT INTO work.conflict(tbl, pk, kind, payload) "
                        "VALUES(%Q, ?1, %Q, ?2)",
                        t->zTable, zKind);
  ChoirBuf key, b;
  choirBufInit(&key, pErr, CHOIR_BUF_SQL);
  choirBufInit(&b, pErr, CHOIR_BUF_JSON);
  threeBindKey(t, p, iFrom, pOut, 1, &key);
  choirBufPrintf(&b, "{\"kind\":\"%s\"", zKind);
  if (zColumns) {
    choirBufPrintf(&b, ",\"columns\":{%s}", zColumns);
  }
  choirBufText(&b, "}");
  choirBindText(pErr, pOut, 2, b.a, (i64)b.n);
  choirStep(pErr, pOut);
  sqlite3_finalize(pOut);
  choirBufFree(&key);
  choirBufFree(&b);
}

/* -------------------------------------------------------------- statements */

/* zA."c1",zA."c2",… or, zA NULL, "c1","c2",… */
static void threeList(const Three *t, ChoirBuf *b, const char *zA) {
  int i;
  for (i = 0; i < t->nCol; i++) {
    choirBufPrintf(b, "%s%s%s\"%w\"", i ? "," : "", zA ? zA : "", zA ? "." : "",
                   t->azCol[i]);
  }
}

/* l.k = b.k AND … */
static void threeOn(const Three *t, ChoirBuf *b, const char *zA,
                    const char *zB) {
  int i;
  for (i = 0; i < t->nKey; i++) {
    choirBufPrintf(b, "%s%s.\"%w\"=%s.\"%w\" COLLATE \"%w\"", i ? " AND " : "",
                   zA, t->azCol[t->aKey[i]], zB, t->azCol[t->aKey[i]],
                   t->azColl[i]);
  }
}

/* "k"=?1 AND … */
static void threeWhere(const Three *t, ChoirBuf *b) {
  int i;
  for (i = 0; i < t->nKey; i++) {
    choirBufPrintf(b, "%s\"%w\"=?%d COLLATE \"%w\"", i ? " AND " : " WHERE ",
                   t->azCol[t->aKey[i]], i + 1, t->azColl[i]);
  }
}

static sqlite3_stmt *threeTake(const Three *t, ChoirBuf *b) {
  sqlite3_stmt *p = NULL;
  if (t->p->pErr->rc == SQLITE_OK) {
    choirMergeFailed(t->p, sqlite3_prepare_v2(t->p->db, b->a, -1, &p, NULL));
  }
  choirBufFree(b);
  return p;
}

static void threeBindRow(const Three *t, sqlite3_stmt *pTo, sqlite3_stmt *p,
                         int iFrom) {
  int i;
  sqlite3_reset(pTo);
  for (i = 0; i < t->nKey; i++) {
    choirBindValue(t->p->pErr, pTo, i + 1,
                   sqlite3_column_value(p, iFrom + t->aKey[i]));
  }
}

/* The rows of zFrom that zTo has not, or has otherwise (bBoth): the columns of
** zFrom, those of zTo, whether zTo has it. */
static sqlite3_stmt *threeDiff(const Three *t, const char *zFrom,
                               const char *zTo, int bBoth) {
  ChoirBuf b;
  choirBufInit(&b, t->p->pErr, CHOIR_BUF_SQL);
  choirBufText(&b, "SELECT ");
  threeList(t, &b, "f");
  choirBufText(&b, ",");
  threeList(t, &b, "o");
  choirBufPrintf(&b,
                 ",o.\"%w\" IS NOT NULL FROM %s.\"%w\" AS f LEFT JOIN"
                 " %s.\"%w\" AS o ON ",
                 t->azCol[t->aKey[0]], zFrom, t->zTable, zTo, t->zTable);
  threeOn(t, &b, "f", "o");
  if (!bBoth) {
    choirBufPrintf(&b, " WHERE o.\"%w\" IS NULL", t->azCol[t->aKey[0]]);
  }
  if (t->zRowid) {
    choirBufPrintf(&b, " ORDER BY f.%s", t->zRowid);
  }
  return threeTake(t, &b);
}

/* The row of main with a key: its columns, its rowid. */
static sqlite3_stmt *threeMain(const Three *t) {
  ChoirBuf b;
  choirBufInit(&b, t->p->pErr, CHOIR_BUF_SQL);
  choirBufText(&b, "SELECT ");
  threeList(t, &b, NULL);
  choirBufPrintf(&b, ",%s FROM main.\"%w\"", t->zRowid ? t->zRowid : "NULL",
                 t->zTable);
  threeWhere(t, &b);
  return threeTake(t, &b);
}

enum { TODO_DELETE = 0, TODO_REPLACE, TODO_INSERT };

static sqlite3_stmt *threeTodo(const Three *t) {
  ChoirBuf b;
  int i;
  choirMergeExec(t->p, "DROP TABLE IF EXISTS work.todo");
  choirBufInit(&b, t->p->pErr, CHOIR_BUF_SQL);
  choirBufText(&b, "CREATE TABLE work.todo(n INTEGER PRIMARY KEY, op, r");
  for (i = 0; i < t->nCol; i++) {
    choirBufPrintf(&b, ",c%d", i + 1);
  }
  choirBufText(&b, ")");
  choirMergeExec(t->p, "%s", b.a ? b.a : "");
  choirBufFree(&b);
  choirBufInit(&b, t->p->pErr, CHOIR_BUF_SQL);
  choirBufText(&b, "INSERT INTO work.todo VALUES(NULL,?1,?2");
  for (i = 0; i < t->nCol; i++) {
    choirBufPrintf(&b, ",?%d", i + 3);
  }
  choirBufText(&b, ")");
  return threeTake(t, &b);
}

static void threeNote(Three *t, sqlite3_stmt *pTodo, int eOp,
                      sqlite3_stmt *pMain) {
  ChoirErr *pErr = t->p->pErr;
  choirBindInt(pErr, pTodo, 1, eOp);
  if (pMain) {
    choirBindValue(pErr, pTodo, 2, sqlite3_column_value(pMain, t->nCol));
  } else if (pErr->rc == SQLITE_OK) {
    sqlite3_bind_null(pTodo, 2);
  }
  choirStep(pErr, pTodo);
  sqlite3_reset(pTodo);
}

/* ---------------------------------------------------------------- one row */

/* The row here (columns 0…), the one it was (nCol…, when bBase) and the one at
** the remote. */
typedef struct ThreeRow {
  sqlite3_stmt *pHere, *pMain;
  int bBase;
  ChoirBuf lost; /* columns whose value here gives way */
} ThreeRow;

/* Did this side change column i? A row without a base is all new. */
static int threeMine(const Three *t, const ThreeRow *r, int i) {
  return !r->bBase || !threeSame(r->pHere, i, r->pHere, t->nCol + i);
}

static int threeTheirs(const Three *t, const ThreeRow *r, int i) {
  return !r->bBase || !threeSame(r->pMain, i, r->pHere, t->nCol + i);
}

static int threeAny(const Three *t, const ThreeRow *r, int bGroup,
                    int (*x)(const Three *, const ThreeRow *, int)) {
  int i;
  for (i = 0; i < t->nCol; i++) {
    if ((!bGroup || t->abGroup[i]) && i != t->iNewest && x(t, r, i)) {
      return 1;
    }
  }
  return 0;
}

/* Content that only moved to or from the object store is no change: the hash
** tells. */
static int threeMoved(const Three *t, const ThreeRow *r, sqlite3_stmt *p) {
  return r->bBase && t->iHash >= 0 &&
         sqlite3_column_type(p, t->iHash) != SQLITE_NULL &&
         threeSame(p, t->iHash, r->pHere, t->nCol + t->iHash) &&
         (t->iDeleted < 0 ||
          threeSame(p, t->iDeleted, r->pHere, t->nCol + t->iDeleted));
}

/* Which side gives the columns of the group? 1: here; *pbBoth: both changed
** them, and neither by a delete. */
static int threeGroup(const Three *t, const ThreeRow *r, int *pbBoth) {
  int bMine = threeAny(t, r, 1, threeMine);
  int bTheirs = threeAny(t, r, 1, threeTheirs);
  int bGoneHere = t->iDeleted >= 0 &&
                  sqlite3_column_type(r->pHere, t->iDeleted) != SQLITE_NULL;
  int bGoneThere = t->iDeleted >= 0 &&
                   sqlite3_column_type(r->pMain, t->iDeleted) != SQLITE_NULL;
  *pbBoth = 0;
  if (bGoneHere != bGoneThere && r->bBase &&
      (bGoneHere ? threeAny(t, r, 0, threeTheirs)
                 : threeAny(t, r, 0, threeMine))) {
    return bGoneThere; /* a delete gives way to a change */
  }
  bMine = bMine && !threeMoved(t, r, r->pHere);
  bTheirs = bTheirs && !threeMoved(t, r, r->pMain);
  *pbBoth = bMine && bTheirs;
  return bMine && !bTheirs;
}

static void threeLose(const Three *t, ThreeRow *r, int i) {
  ChoirBuf *b = &r->lost;
  choirBufText(b, b->n ? "," : "");
  choirBufJson(b, t->azCol[i], -1);
  choirBufText(b, ":{\"here\":");
  choirBufColumn(b, r->pHere, i, THREE_SHOWN);
  choirBufText(b, ",\"there\":");
  choirBufColumn(b, r->pMain, i, THREE_SHOWN);
  choirBufText(b, "}");
}

/* 1: column i comes from here. */
static int threeChoose(const Three *t, ThreeRow *r, int i, int bGroup,
                       int bBoth) {
  if (threeSame(r->pHere, i, r->pMain, i)) {
    return 0;
  }
  if (i == t->iNewest) {
    return sqlite3_column_int64(r->pHere, i) >
           sqlite3_column_int64(r->pMain, i);
  }
  if (t->abGroup[i]) {
    if (bBoth) {
      threeLose(t, r, i);
    }
    return bGroup;
  }
  if (!threeMine(t, r, i)) {
    return 0;
  }
  if (threeTheirs(t, r, i)) {
    threeLose(t, r, i);
    return 0;
  }
  return 1;
}

/* A row that both have: into the list unless it stays as it is there. */
static void threeBoth(Three *t, ThreeRow *r, sqlite3_stmt *pTodo) {
  ChoirErr *pErr = t->p->pErr;
  int i, bBoth = 0, bGroup, nTaken = 0;
  choirBufInit(&r->lost, pErr, CHOIR_BUF_JSON);
  bGroup = t->pRule->zGroup[0] ? threeGroup(t, r, &bBoth) : 0;
  for (i = 0; i < t->nCol; i++) {
    int bHere = threeChoose(t, r, i, bGroup, bBoth);
    nTaken += bHere;
    choirBindValue(pErr, pTodo, i + 3,
                   sqlite3_column_value(bHere ? r->pHere : r->pMain, i));
  }
  if (nTaken) {
    threeNote(t, pTodo, TODO_REPLACE, r->pMain);
  }
  if (r->lost.n && !t->pRule->bQuiet) {
    threeConflict(t, r->pHere, 0, "changed", r->lost.a);
  }
  choirBufFree(&r->lost);
}

/* ------------------------------------------------------------- the changes */

/* What this side inserted and changed. */
static void threePuts(Three *t, sqlite3_stmt *pTodo, sqlite3_stmt *pMain) {
  ChoirErr *pErr = t->p->pErr;
  ThreeRow row = {threeDiff(t, "here", "base", 1), pMain, 0, {0}};
  int i;
  while (!choirMergeStop(t->p) && choirStep(pErr, row.pHere)) {
    row.bBase = sqlite3_column_int(row.pHere, 2 * t->nCol);
    for (i = 0; i < t->nCol && row.bBase && !threeMine(t, &row, i); i++) {
    }
    if (row.bBase && i == t->nCol) {
      continue;
    }
    threeBindRow(t, pMain, row.pHere, 0);
    if (choirStep(pErr, pMain)) {
      threeBoth(t, &row, pTodo);
    } else if (pErr->rc == SQLITE_OK) {
      for (i = 0; i < t->nCol; i++) {
        choirBindValue(pErr, pTodo, i + 3, sqlite3_column_value(row.pHere, i));
      }
      threeNote(t, pTodo, TODO_INSERT, NULL);
      if (row.bBase && !t->pRule->bQuiet) {
        threeConflict(t, row.pHere, 0, "deleted there", NULL);
      }
    }
  }
  sqlite3_finalize(row.pHere);
}

/* What this side deleted, unless the remote changed it. */
static void threeDeletes(Three *t, sqlite3_stmt *pTodo, sqlite3_stmt *pMain) {
  ChoirErr *pErr = t->p->pErr;
  sqlite3_stmt *p = threeDiff(t, "base", "here", 0);
  int i;
  while (!choirMergeStop(t->p) && choirStep(pErr, p)) {
    threeBindRow(t, pMain, p, 0);
    if (!choirStep(pErr, pMain)) {
      continue;
    }
    for (i = 0; i < t->nCol && threeSame(p, i, pMain, i); i++) {
    }
    if (i < t->nCol) {
      if (!t->pRule->bQuiet) {
        threeConflict(t, p, 0, "deleted here", NULL);
      }
      continue;
    }
    for (i = 0; i < t->nCol; i++) {
      choirBindValue(pErr, pTodo, i + 3, sqlite3_column_value(p, i));
    }
    threeNote(t, pTodo, TODO_DELETE, pMain);
  }
  sqlite3_finalize(p);
}

/* ----------------------------------------------------------------- applying */

/* The vector indexes over the table look at these rows again. */
static void threePending(Three *t) {
  sqlite3_stmt *p = t->bAlias ? choirMergeIndexes(t->p, t->zTable) : NULL;
  while (choirStep(t->p->pErr, p)) {
    choirMergeExec(t->p,
                   "INSERT INTO main.\"_choir_vec_%w_pending\"(id, mark)"
                   " SELECT DISTINCT c%d, random() FROM work.todo",
                   sqlite3_column_text(p, 0), t->aKey[0] + 1);
  }
  sqlite3_finalize(p);
}

/* INSERT INTO main.T: the rowid first where it is no column. */
static sqlite3_stmt *threeInsert(const Three *t, int *piRowid) {
  ChoirBuf b;
  int i;
  *piRowid = t->zRowid && !t->bAlias;
  choirBufInit(&b, t->p->pErr, CHOIR_BUF_SQL);
  choirBufPrintf(&b, "INSERT INTO main.\"%w\"(%s%s", t->zTable,
                 *piRowid ? t->zRowid : "", *piRowid ? "," : "");
  threeList(t, &b, NULL);
  choirBufText(&b, ") VALUES(");
  for (i = 0; i < t->nCol + *piRowid; i++) {
    choirBufPrintf(&b, "%s?%d", i ? "," : "", i + 1);
  }
  choirBufText(&b, ")");
  return threeTake(t, &b);
}

/* A constraint refuses the row of work.todo in p: for the error's text. */
static void threeRefused(Three *t, sqlite3_stmt *p, ChoirBuf *pWhy) {
  int i;
  choirBufPrintf(pWhy, "%s%s ", pWhy->n ? "; " : "", t->zTable);
  for (i = 0; i < t->nKey; i++) {
    choirBufText(pWhy, i ? "," : "");
    choirBufColumn(pWhy, p, 3 + t->aKey[i], THREE_SHOWN);
  }
  choirBufPrintf(pWhy, " (%s)", sqlite3_errmsg(t->p->db));
}

/* The rows of work.todo into main, one by one. */
static void threeInserts(Three *t) {
  ChoirErr *pErr = t->p->pErr;
  int i, rc, iRowid;
  i64 nBad = 0;
  sqlite3_stmt *pIns = threeInsert(t, &iRowid);
  sqlite3_stmt *p = choirMergePrepare(
      t->p, "SELECT * FROM work.todo WHERE op<>%d ORDER BY op, n", TODO_DELETE);
  ChoirBuf why;
  choirBufInit(&why, pErr, CHOIR_BUF_SQL);
  while (!choirMergeStop(t->p) && choirStep(pErr, p)) { /* n, op, r, c1, … */
    sqlite3_reset(pIns);
    if (iRowid) {
      choirBindValue(pErr, pIns, 1, sqlite3_column_value(p, 2));
    }
    for (i = 0; i < t->nCol; i++) {
      choirBindValue(pErr, pIns, i + 1 + iRowid,
                     sqlite3_column_value(p, 3 + i));
    }
    rc = pErr->rc == SQLITE_OK ? sqlite3_step(pIns) : SQLITE_DONE;
    if ((rc & 0xff) == SQLITE_CONSTRAINT) {
      if (nBad++ < THREE_NAMED) {
        threeRefused(t, p, &why);
      }
    } else if (rc != SQLITE_DONE) {
      choirMergeFailed(t->p, rc);
    }
  }
  sqlite3_finalize(p);
  sqlite3_finalize(pIns);
  if (nBad) {
    choirMergeRefuse(t->p,
                     "%lld row%s of both sides cannot stand side by side:"
                     " %s",
                     nBad, nBad == 1 ? "" : "s", why.a ? why.a : "");
  }
  choirBufFree(&why);
}

static void threeApply(Three *t) {
  ChoirErr *pErr = t->p->pErr;
  sqlite3_stmt *pDel, *p;
  ChoirBuf b;
  choirBufInit(&b, pErr, CHOIR_BUF_SQL);
  choirBufPrintf(&b, "DELETE FROM main.\"%w\"", t->zTable);
  threeWhere(t, &b);
  pDel = threeTake(t, &b);
  p = choirMergePrepare(t->p, "SELECT * FROM work.todo WHERE op<>%d",
                        TODO_INSERT);
  while (choirStep(pErr, p)) {
    threeBindRow(t, pDel, p, 3);
    choirStep(pErr, pDel);
  }
  sqlite3_finalize(p);
  sqlite3_finalize(pDel);
  threeInserts(t);
}

/* -------------------------------------------------------------------- a bag */

/* Each row of a side by the hash of its values. */
static void threeHashes(Three *t, const char *zSide) {
  ChoirBuf b;
  choirBufInit(&b, t->p->pErr, CHOIR_BUF_SQL);
  choirBufPrintf(&b,
                 "CREATE TABLE work.\"bag %s\" AS SELECT %s AS r,"
                 " choir_row(",
                 zSide, t->zRowid);
  threeList(t, &b, NULL);
  choirBufPrintf(&b, ") AS h FROM %s.\"%w\"", zSide, t->zTable);
  choirMergeExec(t->p, "DROP TABLE IF EXISTS work.\"bag %s\"", zSide);
  choirMergeExec(t->p, "%s", b.a ? b.a : "");
  choirMergeExec(t->p, "CREATE INDEX work.\"bag %s h\" ON \"bag %s\"(h, r)",
                 zSide, zSide);
  choirBufFree(&b);
}

/* Those with more of them here than in base are added, from the end of theirs;
** as many are taken away as there are fewer. */
static void threeBag(Three *t) {
  ChoirBuf b;
  ChoirErr *pErr = t->p->pErr;
  i64 n;
  threeHashes(t, "here");
  threeHashes(t, "base");
  threeHashes(t, "main");
  choirMergeExec(
      t->p,
      "DROP TABLE IF EXISTS work.less; DROP TABLE IF EXISTS work.more;"
      "CREATE TABLE work.less AS SELECT r FROM (SELECT m.r, row_number() OVER"
      " (PARTITION BY m.h ORDER BY m.r DESC) AS n, d.n AS away"
      " FROM (SELECT h, count(*) - (SELECT count(*) FROM work.\"bag here\" AS l"
      "  WHERE l.h=b.h) AS n FROM work.\"bag base\" AS b GROUP BY h"
      "  HAVING n>0) AS d JOIN work.\"bag main\" AS m ON m.h=d.h)"
      " WHERE n<=away;"
      "CREATE TABLE work.more AS SELECT r FROM (SELECT l.r, row_number() OVER"
      " (PARTITION BY l.h ORDER BY l.r DESC) AS n, d.n AS new"
      " FROM (SELECT h, count(*) - (SELECT count(*) FROM work.\"bag base\" AS b"
      "  WHERE b.h=l.h) AS n FROM work.\"bag here\" AS l GROUP BY h"
      "  HAVING n>0) AS d JOIN work.\"bag here\" AS l ON l.h=d.h)"
      " WHERE n<=new");
  n = choirMergeInt(t->p, "SELECT (SELECT count(*) FROM work.less) +"
                          " (SELECT count(*) FROM work.more)");
  t->p->nRow += n;
  if (n == 0) {
    return;
  }
  choirMergeExec(
      t->p, "DELETE FROM main.\"%w\" WHERE %s IN (SELECT r FROM work.less)",
      t->zTable, t->zRowid);
  choirBufInit(&b, pErr, CHOIR_BUF_SQL);
  choirBufPrintf(&b, "INSERT INTO main.\"%w\"(", t->zTable);
  threeList(t, &b, NULL);
  choirBufText(&b, ") SELECT ");
  threeList(t, &b, NULL);
  choirBufPrintf(&b,
                 " FROM here.\"%w\" WHERE %s IN (SELECT r FROM work.more)"
                 " ORDER BY %s",
                 t->zTable, t->zRowid, t->zRowid);
  choirMergeExec(t->p, "%s", b.a ? b.a : "");
  choirBufFree(&b);
}

/* -------------------------------------------------------------------- whole */

/* All rows of zTo become those of zFrom, with their rowids. */
static void threeCopy(Three *t, const char *zFrom) {
  ChoirBuf b;
  int bRowid = t->zRowid && !t->bAlias;
  choirBufInit(&b, t->p->pErr, CHOIR_BUF_SQL);
  choirBufPrintf(&b, "DELETE FROM main.\"%w\"; INSERT INTO main.\"%w\"(%s%s",
                 t->zTable, t->zTable, bRowid ? t->zRowid : "",
                 bRowid ? "," : "");
  threeList(t, &b, NULL);
  choirBufPrintf(&b, ") SELECT %s%s", bRowid ? t->zRowid : "",
                 bRowid ? "," : "");
  threeList(t, &b, NULL);
  choirBufPrintf(&b, " FROM %s.\"%w\"", zFrom, t->zTable);
  choirMergeExec(t->p, "%s", b.a ? b.a : "");
  choirBufFree(&b);
}

CHOIR_PRIVATE void choirThreeCopy(ChoirMerge *p, const char *zTable,
                                  const ChoirMergeRule *pRule) {
  Three t;
  threeOpen(&t, p, zTable, pRule);
  threeCopy(&t, "here");
  threeFree(&t);
}

/* ------------------------------------------------------------ keys that meet */

/* Rows that both sides inserted under one number, each its own: those of here
** get numbers that are free, and what refers to them follows. */
static void threeMoves(Three *t) {
  ChoirErr *pErr = t->p->pErr;
  const char *zKey = t->azCol[t->aKey[0]];
  ChoirBuf b;
  choirMergeExec(t->p, "DROP TABLE IF EXISTS work.moved");
  choirBufInit(&b, pErr, CHOIR_BUF_SQL);
  choirBufPrintf(&b,
                 "CREATE TABLE work.moved AS SELECT l.\"%w\" AS old,"
                 " row_number() OVER (ORDER BY l.\"%w\") + max("
                 "coalesce((SELECT max(\"%w\") FROM main.\"%w\"), 0),"
                 "coalesce((SELECT max(\"%w\") FROM here.\"%w\"), 0),"
                 "coalesce((SELECT max(\"%w\") FROM base.\"%w\"), 0)) AS new"
                 " FROM here.\"%w\" AS l JOIN main.\"%w\" AS m"
                 " ON m.\"%w\"=l.\"%w\" WHERE l.\"%w\" NOT IN (SELECT \"%w\""
                 " FROM base.\"%w\") AND choir_row(",
                 zKey, zKey, zKey, t->zTable, zKey, t->zTable, zKey, t->zTable,
                 t->zTable, t->zTable, zKey, zKey, zKey, zKey, t->zTable);
  threeList(t, &b, "l");
  choirBufText(&b, ")<>choir_row(");
  threeList(t, &b, "m");
  choirBufText(&b, ")");
  choirMergeExec(t->p, "%s", b.a ? b.a : "");
  choirBufFree(&b);
  if (choirMergeInt(t->p, "SELECT count(*) FROM work.moved") == 0) {
    return;
  }
  if (choirMergeInt(t->p, "SELECT count(*) FROM work.moved WHERE"
                          " typeof(new)<>'integer'")) {
    choirMergeRefuse(t->p,
                     "both sides inserted other rows of one key into %s,"
                     " and no number is free above %lld",
                     t->zTable, (i64)INT64_MAX);
  }
  choirMergeExec(t->p,
                 "UPDATE here.\"%w\" SET \"%w\"=(SELECT new FROM work.moved"
                 " WHERE old=\"%w\") WHERE \"%w\" IN (SELECT old FROM"
                 " work.moved);"
                 "UPDATE here.action_log SET pk=(SELECT new FROM work.moved"
                 " WHERE old=pk) WHERE seq>%lld AND tbl=%Q AND pk IN (SELECT"
                 " old FROM work.moved);"
                 "INSERT INTO work.conflict(tbl, pk, kind, payload) SELECT %Q,"
                 " new, 'moved', '{\"kind\":\"moved\",\"from\":' || old || '}'"
                 " FROM work.moved ORDER BY new",
                 t->zTable, zKey, zKey, zKey, t->p->iThereSeq, t->zTable,
                 t->zTable);
  choirMergeFollow(t->p, t->zTable, zKey);
}

CHOIR_PRIVATE void choirThreeMove(ChoirMerge *p, const char *zTable,
                                  const ChoirMergeRule *pRule) {
  Three t;
  threeOpen(&t, p, zTable, pRule);
  if (t.bAlias && p->pErr->rc == SQLITE_OK) {
    threeMoves(&t);
  }
  threeFree(&t);
}

static void threeImages(Three *t) {
  ChoirMergeShape shape = {t->zTable, t->azCol,  t->aKey,
                           t->nKey,   t->zRowid, t->zRowid && !t->bAlias};
  choirMergeImages(t->p, &shape);
}

CHOIR_PRIVATE void choirThreeTable(ChoirMerge *p, const char *zTable,
                                   const ChoirMergeRule *pRule) {
  Three t;
  sqlite3_stmt *pTodo, *pMain;
  i64 n;
  threeOpen(&t, p, zTable, pRule);
  if (p->pErr->rc == SQLITE_OK && t.nKey) {
    pTodo = threeTodo(&t);
    pMain = threeMain(&t);
    threePuts(&t, pTodo, pMain);
    threeDeletes(&t, pTodo, pMain);
    sqlite3_finalize(pTodo);
    sqlite3_finalize(pMain);
    threeImages(&t);
    n = choirMergeInt(p, "SELECT count(*) FROM work.todo");
    if (n) { /* else it may need what is not there: see choirMergeFailed */
      threeApply(&t);
      threePending(&t);
    }
    p->nRow += pRule->bQuiet ? 0 : n;
  } else if (p->pErr->rc == SQLITE_OK && t.zRowid) {
    threeBag(&t);
    threeImages(&t);
  } else if (!choirMergeAlike(p, "here", "base", zTable) &&
             !choirMergeAlike(p, "here", "main", zTable)) {
    choirMergeRefuse(p,
                     "nothing tells the rows of %s apart; give it a PRIMARY"
                     " KEY",
                     zTable);
  }
  threeFree(&t);
}
