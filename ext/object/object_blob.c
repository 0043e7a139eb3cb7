/* SPDX-License-Identifier: MIT */
/*
** A store as a table: the functions s3_list(url) and s3_blob(root), and
**
**   CREATE VIRTUAL TABLE temp.name USING s3_blob('s3://bucket/folder/')
**
** which can be written. A row is an object.
**
** What is pushed to the store: key = (one request, none for the listing), key
** between two bounds and key GLOB with a fixed beginning (a listing of just
** that), LIMIT (as the size of the first page) and ORDER BY key. All are tested
** again by SQLite, so a store may give too much, never too little. A listing is
** read page by page as the statement goes on. content is fetched when it is
** read and not before, once for a row.
**
** INSERT puts when there is no such object, INSERT OR REPLACE in any case,
** UPDATE when the object is still the one that was read; a new key is a copy
** and a delete. Every row is written when its turn comes and stays written
** after ROLLBACK.
*/
#include "object.h"

enum { BLOB_KEY, BLOB_SIZE, BLOB_ETAG, BLOB_MODIFIED, BLOB_CONTENT };
enum { BLOB_PAGE = 1000, BLOB_PAGE_MAX = 1 << 16, BLOB_TERMS = 16 };
enum { BLOB_SCAN, BLOB_READS_CONTENT }; /* iPlan */

typedef struct BlobTable {
  ChoirTable base;
  ChoirObject *pStore; /* of a created table */
} BlobTable;

typedef struct BlobRow {
  u64 iKey; /* where it stands in the page's keys */
  ChoirObjectMeta meta;
} BlobRow;

typedef struct BlobCursor {
  ChoirCursor base;
  ChoirObject *pOwn;   /* the function's store */
  ChoirObject *pStore; /* it, or the table's */
  /* What is wanted. */
  char *zPrefix;
  char *zFrom, *zTo;  /* NULL: no bound */
  u8 bAfter, bBefore; /* without the bound itself */
  u8 bNone;           /* no key can do */
  /* The page. */
  ChoirBuf keys; /* each with its NUL */
  BlobRow *aRow;
  int nRow, nAlloc, iRow;
  i64 nPage;        /* keys of the next one */
  u8 bLast;         /* there is no next one */
  ChoirBuf content; /* of the row, once it was read */
  u8 bContent;      /* it was */
} BlobCursor;

/* ------------------------------------------------------------------- plan */

static char blobTerm(const sqlite3_index_info *pInfo, int i) {
  int iOp = pInfo->aConstraint[i].op;
  if (!pInfo->aConstraint[i].usable) {
    return 0;
  }
  if (iOp == SQLITE_INDEX_CONSTRAINT_LIMIT) {
    return 'L';
  }
  if (iOp == SQLITE_INDEX_CONSTRAINT_OFFSET) {
    return 'O';
  }
  if (pInfo->aConstraint[i].iColumn != BLOB_KEY) {
    return 0;
  }
  if (iOp == SQLITE_INDEX_CONSTRAINT_GLOB) {
    return 'G';
  }
  if (sqlite3_stricmp(sqlite3_vtab_collation((sqlite3_index_info *)pInfo, i),
                      "BINARY") != 0) {
    return 0;
  }
  return iOp == SQLITE_INDEX_CONSTRAINT_EQ   ? '='
         : iOp == SQLITE_INDEX_CONSTRAINT_GT ? '>'
         : iOp == SQLITE_INDEX_CONSTRAINT_GE ? ')'
         : iOp == SQLITE_INDEX_CONSTRAINT_LT ? '<'
         : iOp == SQLITE_INDEX_CONSTRAINT_LE ? '('
                                             : 0;
}

/* zPlan has a letter for each value: = > ) [>=] < ( [<=] G [GLOB] L [LIMIT] O
** [OFFSET]. L and O only when they count the very rows that the plan gives. */
static void blobPlan(ChoirTable *pTable, ChoirErr *pErr,
                     sqlite3_index_info *pInfo, int *pnValue, int *piPlan) {
  char zPlan[BLOB_TERMS + 1];
  int i, n = 0, bEqual = 0, bRange = 0, bOther = 0;
  (void)pTable;
  for (i = 0; i < pInfo->nConstraint && n < BLOB_TERMS; i++) {
    char c = blobTerm(pInfo, i);
    bEqual |= c == '=';
    bRange |= c && strchr("><()G", c) != NULL;
    bOther |= c == 0 && pInfo->aConstraintUsage[i].argvIndex == 0;
    if (c) {
      pInfo->aConstraintUsage[i].argvIndex = ++*pnValue;
      zPlan[n++] = c;
    }
  }
  for (i = 0; i < n; i++) {
    if (bOther && (zPlan[i] == 'L' || zPlan[i] == 'O')) {
      zPlan[i] = '.'; /* a value that is not used */
    }
  }
  zPlan[n] = 0;
  if (n) {
    pInfo->idxStr = choirMprintf(pErr, "%s", zPlan);
    pInfo->needToFreeIdxStr = 1;
  }
  if (bEqual) {
    pInfo->idxFlags |= SQLITE_INDEX_SCAN_UNIQUE;
  }
  /* An UPDATE claims to use every column, those too that it only replaces. */
  *piPlan = (pInfo->colUsed >> BLOB_CONTENT & 1) && !(pInfo->colUsed >> 62)
                ? BLOB_READS_CONTENT
                : BLOB_SCAN;
  pInfo->estimatedRows = bEqual ? 1 : bRange ? 1000 : 1000000;
  pInfo->estimatedCost = bEqual ? 10.0 : bRange ? 2000.0 : 2000000.0;
  pInfo->orderByConsumed = pInfo->nOrderBy == 1 &&
                           pInfo->aOrderBy[0].iColumn == BLOB_KEY &&
                           !pInfo->aOrderBy[0].desc;
}

/* -------------------------------------------------------------- the wanted */

static char *blobDup(ChoirErr *pErr, const char *z, size_t n) {
  return choirMprintf(pErr, "%.*s", (int)n, z);
}

/* Only keys that begin with z[0..n). */
static void blobBegins(BlobCursor *p, const char *z, size_t n) {
  size_t nHave = strlen(p->zPrefix ? p->zPrefix : "");
  if (p->zPrefix == NULL ||
      strncmp(p->zPrefix, z, n < nHave ? n : nHave) != 0) {
    p->bNone = 1;
  } else if (n > nHave) {
    sqlite3_free(p->zPrefix);
    p->zPrefix = blobDup(&p->base.err, z, n);
  }
}

static void blobFrom(BlobCursor *p, const char *z, int bAfter) {
  int c = p->zFrom ? strcmp(z, p->zFrom) : 1;
  if (c > 0 || (c == 0 && bAfter)) {
    sqlite3_free(p->zFrom);
    p->zFrom = blobDup(&p->base.err, z, strlen(z));
    p->bAfter = (u8)bAfter;
  }
}

static void blobTo(BlobCursor *p, const char *z, int bBefore) {
  int c = p->zTo ? strcmp(z, p->zTo) : -1;
  if (c < 0 || (c == 0 && bBefore)) {
    sqlite3_free(p->zTo);
    p->zTo = blobDup(&p->base.err, z, strlen(z));
    p->bBefore = (u8)bBefore;
  }
}

/* What every key between the two bounds begins with, in whole characters. */
static void blobBetween(BlobCursor *p) {
  size_t n = 0;
  if (p->zFrom && p->zTo) {
    while (p->zFrom[n] && p->zFrom[n] == p->zTo[n]) {
      n++;
    }
    while (n > 0 && ((u8)p->zFrom[n] & 0xc0) == 0x80) {
      n--;
    }
    blobBegins(p, p->zFrom, n);
    p->bNone |= strcmp(p->zFrom, p->zTo) > 0;
  }
}

/* One term of the plan. A value that is no text leaves the term to SQLite,
** which compares by type. */
static void blobValue(BlobCursor *p, char cTerm, sqlite3_value *v) {
  const char *z;
  if (sqlite3_value_type(v) == SQLITE_NULL) {
    p->bNone |= strchr("=><()G", cTerm) != NULL;
    return;
  }
  if (cTerm == 'L' || cTerm == 'O') {
    i64 n = sqlite3_value_int64(v);
    p->nPage = n < 0 || n > BLOB_PAGE_MAX ? BLOB_PAGE : p->nPage + n;
    return;
  }
  if (sqlite3_value_type(v) != SQLITE_TEXT || cTerm == '.') {
    return;
  }
  z = (const char *)sqlite3_value_text(v);
  if (z == NULL) {
    choirErrNomem(&p->base.err);
  } else if (strlen(z) != (size_t)sqlite3_value_bytes(v)) {
    p->bNone |= cTerm == '='; /* no key has a NUL */
  } else if (cTerm == '=') {
    blobFrom(p, z, 0);
    blobTo(p, z, 0);
  } else if (cTerm == '>' || cTerm == ')') {
    blobFrom(p, z, cTerm == '>');
  } else if (cTerm == '<' || cTerm == '(') {
    blobTo(p, z, cTerm == '<');
  } else {
    blobBegins(p, z, strcspn(z, "*?["));
  }
}

/* ------------------------------------------------------------------- rows */

static const char *blobKey(const BlobCursor *p, int i) {
  return p->keys.a + p->aRow[i].iKey;
}

static void blobAdd(void *pArg, ChoirErr *pErr, const char *zKey,
                    const ChoirObjectMeta *pMeta) {
  BlobCursor *p = pArg;
  if (p->nRow == p->nAlloc) {
    int n = p->nAlloc ? 2 * p->nAlloc : 16;
    void *a = choirRealloc(pErr, p->aRow, (u64)n * sizeof(*p->aRow));
    if (a == NULL) {
      return;
    }
    p->aRow = a;
    p->nAlloc = n;
  }
  p->aRow[p->nRow].iKey = p->keys.n;
  p->aRow[p->nRow].meta = *pMeta;
  choirBufAppend(&p->keys, zKey, strlen(zKey) + 1);
  p->nRow += pErr->rc == SQLITE_OK;
}

/* The next page, which begins after the last row of this one. */
static void blobPage(BlobCursor *p) {
  ChoirErr *pErr = &p->base.err;
  ChoirObjectRange range = {p->zPrefix, NULL, 0, p->nPage};
  if (p->nRow) {
    sqlite3_free(p->zFrom);
    p->zFrom = choirMprintf(pErr, "%s", blobKey(p, p->nRow - 1));
    p->bAfter = 1;
  }
  range.zFrom = p->zFrom;
  range.bAfter = p->bAfter;
  p->nRow = p->iRow = 0;
  p->keys.n = 0;
  choirObjectListRange(p->pStore, pErr, &range, blobAdd, p);
  p->bLast = p->nRow < p->nPage;
  p->nPage = p->nPage < BLOB_PAGE           ? BLOB_PAGE
             : p->nPage < BLOB_PAGE_MAX / 2 ? 2 * p->nPage
                                            : BLOB_PAGE_MAX;
}

/* The row is there, or there is none. */
static void blobSettle(BlobCursor *p) {
  int c;
  if (p->iRow == p->nRow && !p->bLast) {
    blobPage(p);
  }
  if (p->iRow == p->nRow || p->base.err.rc != SQLITE_OK) {
    p->base.bEof = 1;
  } else if (p->zTo) {
    c = strcmp(blobKey(p, p->iRow), p->zTo);
    p->base.bEof = c > 0 || (c == 0 && p->bBefore);
  }
}

/* Reads the row's content; 0 when the object has gone meanwhile. */
static int blobContent(BlobCursor *p, const char *zKey,
                       ChoirObjectMeta *pMeta) {
  ChoirErr *pErr = &p->base.err;
  int e;
  choirBufFree(&p->content);
  choirBufInit(&p->content, pErr,
               (u64)sqlite3_limit(p->base.pConn->db, SQLITE_LIMIT_LENGTH, -1));
  choirBufText(&p->content, "");
  e = choirObjectGet(p->pStore, pErr, zKey, 0, -1, pMeta, choirObjectToBuf,
                     &p->content);
  p->bContent = 1;
  return e == CHOIR_OBJECT_OK;
}

/* key = z: one request. */
static void blobOne(BlobCursor *p) {
  char *zKey = p->zFrom;
  ChoirObjectMeta meta;
  int bThere;
  p->bLast = 1;
  if (strncmp(zKey, p->zPrefix, strlen(p->zPrefix)) != 0) {
    return;
  }
  bThere = p->base.iPlan == BLOB_READS_CONTENT
               ? blobContent(p, zKey, &meta)
               : choirObjectHead(p->pStore, &p->base.err, zKey, &meta) ==
                     CHOIR_OBJECT_OK;
  if (bThere) {
    blobAdd(p, &p->base.err, zKey, &meta);
  }
}

static void blobFilter(ChoirCursor *pCur) {
  BlobCursor *p = (BlobCursor *)pCur;
  const ChoirTable *pTable = (ChoirTable *)pCur->base.pVtab;
  int i;
  choirBufInit(&p->keys, &pCur->err, CHOIR_BUF_JSON);
  if (pTable->bCreated) {
    p->pStore = ((BlobTable *)pTable)->pStore;
  } else {
    const char *zUrl = choirArgText(
        &pCur->err, pCur->apArg[0],
        strcmp(pCur->pTvf->zName, "s3_list") == 0 ? "url" : "root");
    p->pOwn = zUrl ? choirObjectOpen(pCur->pConn, &pCur->err, zUrl) : NULL;
    p->pStore = p->pOwn;
  }
  if (p->pStore) {
    p->zPrefix = choirMprintf(&pCur->err, "%s", p->pStore->zKey);
  }
  for (i = 0; i < pCur->nValue && pCur->err.rc == SQLITE_OK; i++) {
    blobValue(p, pCur->zPlan[i], pCur->apValue[i]);
  }
  blobBetween(p);
  p->nPage = p->nPage > 0 ? p->nPage : BLOB_PAGE;
  p->bLast = p->bNone;
  if (p->zPrefix && !p->bNone && pCur->err.rc == SQLITE_OK && p->zFrom &&
      p->zTo && strcmp(p->zFrom, p->zTo) == 0) {
    blobOne(p);
  } else if (p->zFrom && p->zPrefix && !p->bAfter &&
             strcmp(p->zFrom, p->zPrefix) <= 0) {
    sqlite3_free(p->zFrom); /* the beginning says it already */
    p->zFrom = NULL;
  }
  blobSettle(p);
}

static void blobNext(ChoirCursor *pCur) {
  BlobCursor *p = (BlobCursor *)pCur;
  p->bContent = 0;
  p->iRow++;
  blobSettle(p);
}

static void blobColumn(ChoirCursor *pCur, sqlite3_context *pCtx, int i) {
  BlobCursor *p = (BlobCursor *)pCur;
  BlobRow *pRow = &p->aRow[p->iRow];
  switch (i) {
  case BLOB_KEY:
    sqlite3_result_text(pCtx, blobKey(p, p->iRow), -1, SQLITE_TRANSIENT);
    return;
  case BLOB_ETAG:
    sqlite3_result_text(pCtx, pRow->meta.zEtag, -1, SQLITE_TRANSIENT);
    return;
  default:
    break;
  }
  if (sqlite3_vtab_nochange(pCtx)) {
    return; /* an UPDATE that leaves it as it is */
  }
  if (i == BLOB_SIZE) {
    sqlite3_result_int64(pCtx, (i64)pRow->meta.nByte);
  } else if (i == BLOB_MODIFIED) {
    sqlite3_result_int64(pCtx, pRow->meta.iModified);
  } else if (p->bContent || blobContent(p, blobKey(p, p->iRow), &pRow->meta)) {
    sqlite3_result_blob64(pCtx, p->content.a, p->content.n, SQLITE_TRANSIENT);
  }
}

/* SQLite takes rows of one rowid for one row (in an OR, for example), whichever
** cursor they come from. */
static i64 blobRowid(ChoirCursor *pCur) {
  BlobCursor *p = (BlobCursor *)pCur;
  const char *zKey = blobKey(p, p->iRow);
  u8 aHash[32];
  i64 v;
  choirSha256(zKey, strlen(zKey), aHash);
  memcpy(&v, aHash, sizeof(v));
  return v;
}

static void blobReset(ChoirCursor *pCur) {
  BlobCursor *p = (BlobCursor *)pCur;
  ChoirCursor base = p->base;
  sqlite3_free(p->aRow);
  choirBufFree(&p->keys);
  sqlite3_free(p->zPrefix);
  sqlite3_free(p->zFrom);
  sqlite3_free(p->zTo);
  choirBufFree(&p->content);
  choirObjectClose(p->pOwn);
  memset(p, 0, sizeof(*p));
  p->base = base;
}

/* ---------------------------------------------------------------- writing */

static void blobOpen(ChoirTable *pTable, ChoirErr *pErr, int nArg, char **azArg,
                     ChoirBuf *pColumns) {
  BlobTable *p = (BlobTable *)pTable;
  if (nArg != 1) {
    choirErrSet(pErr, SQLITE_ERROR,
                "takes one argument, the root, got %d; for example"
                " s3_blob('s3://bucket/folder/')",
                nArg);
    return;
  }
  if (sqlite3_strnicmp(azArg[0], "root", 4) == 0 &&
      azArg[0][4 + strspn(azArg[0] + 4, " ")] == '=') {
    azArg[0] = choirUnquote(strchr(azArg[0], '=') + 1);
  }
  p->pStore = choirObjectOpen(pTable->pConn, pErr, azArg[0]);
  if (p->pStore && p->pStore->zKey[0]) {
    choirErrSet(pErr, SQLITE_ERROR, "the root '%s' must end in '/'",
                p->pStore->zUrl);
  }
  pTable->nCol = 5;
  choirBufText(pColumns, "key TEXT NOT NULL PRIMARY KEY, size INTEGER, etag"
                         " TEXT, modified INTEGER, content BLOB");
}

static void blobClose(ChoirTable *pTable) {
  choirObjectClose(((BlobTable *)pTable)->pStore);
}

static void blobInsert(BlobTable *p, ChoirErr *pErr, const char *zKey,
                       sqlite3_value **apColumn) {
  ChoirObjectSource source = choirObjectOfValue(pErr, apColumn[BLOB_CONTENT]);
  int bReplace = sqlite3_vtab_on_conflict(p->base.pConn->db) == SQLITE_REPLACE;
  ChoirObjectMeta meta;
  if (pErr->rc == SQLITE_OK &&
      choirObjectPut(p->pStore, pErr, zKey, &source,
                     bReplace ? CHOIR_IF_ANY : CHOIR_IF_ABSENT, NULL,
                     &meta) == CHOIR_OBJECT_CHANGED) {
    choirErrSet(pErr, SQLITE_CONSTRAINT, "there is an object '%s' already",
                zKey);
  }
}

/* Under another key: first the new object, then the old one goes. */
static void blobMove(BlobTable *p, ChoirErr *pErr, const char *zOld,
                     const char *zEtag, const char *zKey) {
  ChoirObjectMeta meta;
  int e = choirObjectCopy(p->pStore, pErr, zOld, p->pStore, zKey,
                          CHOIR_IF_ABSENT, &meta);
  if (e == CHOIR_OBJECT_CHANGED) {
    choirErrSet(pErr, SQLITE_CONSTRAINT, "there is an object '%s' already",
                zKey);
  } else if (e == CHOIR_OBJECT_ABSENT ||
             choirObjectDelete(p->pStore, pErr, zOld, zEtag) ==
                 CHOIR_OBJECT_CHANGED) {
    choirErrSet(pErr, SQLITE_BUSY, "'%s' was changed meanwhile", zOld);
  }
}

static void blobUpdate(BlobTable *p, ChoirErr *pErr, const char *zOld,
                       const char *zKey, sqlite3_value **apColumn) {
  const char *zEtag = choirArgText(pErr, apColumn[BLOB_ETAG], "etag");
  sqlite3_value *pContent = apColumn[BLOB_CONTENT];
  ChoirObjectMeta meta;
  int bMove = strcmp(zOld, zKey) != 0;
  if (!sqlite3_value_nochange(apColumn[BLOB_SIZE]) ||
      !sqlite3_value_nochange(apColumn[BLOB_MODIFIED])) {
    choirErrSet(pErr, SQLITE_READONLY,
                "size, etag and modified are the store's to say");
  }
  if (!sqlite3_value_nochange(pContent)) {
    ChoirObjectSource source = choirObjectOfValue(pErr, pContent);
    if (bMove) {
      choirErrSet(pErr, SQLITE_ERROR,
                  "key and content cannot be set at once; set one, then the"
                  " other");
    } else if (choirObjectPut(p->pStore, pErr, zOld, &source, CHOIR_IF_MATCH,
                              zEtag, &meta) == CHOIR_OBJECT_CHANGED) {
      choirErrSet(pErr, SQLITE_BUSY, "'%s' was changed meanwhile", zOld);
    }
  } else if (bMove) {
    blobMove(p, pErr, zOld, zEtag, zKey);
  }
}

/* apValue: the key before (NULL: INSERT), the key after, the columns; the
** first alone: DELETE. */
static void blobWrite(ChoirTable *pTable, ChoirErr *pErr, int nValue,
                      sqlite3_value **apValue, i64 *piRowid) {
  BlobTable *p = (BlobTable *)pTable;
  const char *zOld = choirArgTextOrNull(pErr, apValue[0], "key");
  const char *zKey =
      nValue > 1 ? choirArgText(pErr, apValue[2 + BLOB_KEY], "key") : NULL;
  (void)piRowid;
  if (pErr->rc != SQLITE_OK) {
    return;
  }
  if (nValue == 1) {
    choirObjectDelete(p->pStore, pErr, zOld, NULL);
  } else if (zOld == NULL) {
    blobInsert(p, pErr, zKey, apValue + 2);
  } else {
    blobUpdate(p, pErr, zOld, zKey, apValue + 2);
  }
}

/* ----------------------------------------------------------- registration */

/*
** SQL: s3_list(url) -> TABLE(key, size, etag, modified)
**
** The objects whose names begin with url, in byte order. key is what follows
** url's last '/', so that this folder and key make a URL again. Conditions on
** key (=, <, >, BETWEEN, GLOB), ORDER BY key and LIMIT are the store's work;
** pages are read as the statement goes on.
**
**   url  TEXT, s3:// or file://; `s3://bucket/folder/` or
**        `s3://bucket/folder/begin`
**
** Errors: no access.
**
** > SELECT count(*) FROM s3_list('file:///tmp/no-such-beginning')
** = 0
*/
static const ChoirModule blobList = {
    {"s3_list", "key, size, etag, modified, url HIDDEN", 4, 1, 1, CHOIR_EFFECT,
     0, sizeof(BlobCursor), blobFilter, blobNext, blobColumn, blobReset},
    0,
    0,
    NULL,
    NULL,
    blobPlan,
    NULL,
    NULL,
    NULL,
    NULL,
    NULL};

/*
** SQL: s3_blob(root) -> TABLE(key, size, etag, modified, content)
**
** A store as a table; as s3_list, with content, which is fetched when it is
** read, once for a row. NULL content: the object went between the listing and
** the read.
**
** `CREATE VIRTUAL TABLE temp.t USING s3_blob('s3://bucket/folder/')` makes a
** table that can be written: INSERT (key, content) only when there is no such
** object, INSERT OR REPLACE in any case, whatever they say of size, etag and
** modified; UPDATE of content only when the object
** is still the one that was read; UPDATE of key copies and deletes; DELETE. A
** row is written when its turn comes: ROLLBACK does not undo it.
**
**   root  TEXT, s3:// or file://; a written table's ends in '/'
**
** Errors: no access; CONSTRAINT when there is an object already; BUSY when it
** was changed meanwhile.
**
** > SELECT count(*) FROM s3_blob('file:///tmp/') WHERE key = 'no-such-object'
** = 0
*/
static const ChoirModule blobModule = {
    {"s3_blob", "key, size, etag, modified, content, root HIDDEN", 5, 1, 1,
     CHOIR_EFFECT, 0, sizeof(BlobCursor), blobFilter, blobNext, blobColumn,
     blobReset},
    sizeof(BlobTable),
    1,
    blobOpen,
    blobClose,
    blobPlan,
    blobRowid,
    blobWrite,
    NULL,
    NULL,
    NULL};

CHOIR_PRIVATE CHOIR_COLD void choirObjectBlobRegister(ChoirConn *pConn,
                                                      ChoirErr *pErr) {
  choirRegisterModule(pConn, pErr, &blobList);
  choirRegisterModule(pConn, pErr, &blobModule);
}
