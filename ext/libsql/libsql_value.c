/* SPDX-License-Identifier: MIT */
/*
** SQL values as Hrana writes them in JSON:
**
**   {"type":"null"}                       {"type":"text","value":"…"}
**   {"type":"integer","value":"-7"}       {"type":"float","value":0.5}
**   {"type":"blob","base64":"…"}          padded or not
**
** They are read by SQLite's json_tree(), one pass over a row. It ends a text at
** the character NUL (\u0000), so a row that has one is refused, not cut.
*/
#include "libsql.h"
#ifndef CHOIR_OMIT_NET
#include <math.h>
#include <stdlib.h>

typedef struct HranaCell {
  int eType; /* SQLITE_INTEGER, … */
  i64 i;
  double r;
  char *z; /* text, or base64 */
  i64 n;
} HranaCell;

/* ----------------------------------------------------------------- reading */

CHOIR_PRIVATE void choirHranaRowInit(ChoirHranaRow *p, ChoirConn *pConn) {
  memset(p, 0, sizeof(*p));
  p->pConn = pConn;
}

static void valueClear(ChoirHranaRow *p) {
  int i;
  for (i = 0; i < p->n; i++) {
    sqlite3_free(p->aCell[i].z);
    p->aCell[i].z = NULL;
  }
  p->n = 0;
}

CHOIR_PRIVATE void choirHranaRowFree(ChoirHranaRow *p) {
  valueClear(p);
  sqlite3_finalize(p->pStmt);
  sqlite3_free(p->aCell);
  choirBufFree(&p->blob);
  p->pStmt = NULL;
  p->aCell = NULL;
  p->nAlloc = 0;
}

static HranaCell *valueNew(ChoirHranaRow *p, ChoirErr *pErr) {
  if (p->n == p->nAlloc) {
    int nNew = p->nAlloc ? 2 * p->nAlloc : 16;
    void *a = choirRealloc(pErr, p->aCell, (u64)nNew * sizeof(*p->aCell));
    if (a == NULL) {
      return NULL;
    }
    p->aCell = a;
    p->nAlloc = nNew;
  }
  memset(&p->aCell[p->n], 0, sizeof(*p->aCell));
  return &p->aCell[p->n++];
}

static int valueType(const char *z) {
  return z == NULL                   ? 0
         : strcmp(z, "integer") == 0 ? SQLITE_INTEGER
         : strcmp(z, "text") == 0    ? SQLITE_TEXT
         : strcmp(z, "null") == 0    ? SQLITE_NULL
         : strcmp(z, "float") == 0   ? SQLITE_FLOAT
         : strcmp(z, "blob") == 0    ? SQLITE_BLOB
                                     : 0;
}

/* Member zKey of a value's object; column 1 of pStmt is what it holds. */
static void valueMember(HranaCell *p, ChoirErr *pErr, const char *zKey,
                        sqlite3_stmt *pStmt) {
  if (strcmp(zKey, "type") == 0) {
    p->eType = valueType((const char *)sqlite3_column_text(pStmt, 1));
  } else if (strcmp(zKey, "value") == 0 || strcmp(zKey, "base64") == 0) {
    p->r = sqlite3_column_double(pStmt, 1);
    if (sqlite3_column_type(pStmt, 1) == SQLITE_TEXT && p->z == NULL) {
      const char *z = (const char *)sqlite3_column_text(pStmt, 1);
      p->n = sqlite3_column_bytes(pStmt, 1);
      p->z = choirRealloc(pErr, NULL, (u64)p->n + 1);
      if (p->z && z) {
        memcpy(p->z, z, (size_t)p->n + 1);
      }
    }
  }
}

/* The value is complete: is it one? */
static void valueCheck(HranaCell *p, ChoirErr *pErr) {
  char *zEnd = p->z;
  if (p->eType == SQLITE_INTEGER) {
    p->i = p->z ? strtoll(p->z, &zEnd, 10) : (i64)p->r;
  }
  if (p->eType == 0 ||
      (p->eType == SQLITE_INTEGER && p->z && (*p->z == 0 || *zEnd)) ||
      ((p->eType == SQLITE_TEXT || p->eType == SQLITE_BLOB) && p->z == NULL)) {
    choirErrSet(pErr, SQLITE_ERROR,
                "the server sent a value that is no Hrana value");
  }
}

/* Is the escape \u0000 in it? (\\u0000 is a backslash and letters.) */
static int valueHasNul(const char *z, i64 n) {
  const char *zAt = z, *zEnd = z + n;
  while (zEnd - zAt >= 6 &&
         (zAt = memchr(zAt, '\\', (size_t)(zEnd - zAt - 5))) != NULL) {
    if (memcmp(zAt, "\\u0000", 6) == 0) {
      return 1;
    }
    zAt += 2;
  }
  return 0;
}

CHOIR_PRIVATE void choirHranaRowRead(ChoirHranaRow *p, ChoirErr *pErr,
                                     const char *z, i64 n, const char *zPath) {
  sqlite3_stmt *pStmt;
  HranaCell *pCell = NULL;
  int bFirst = 1;
  valueClear(p);
  if (p->pStmt == NULL) {
    p->pStmt = choirJsonStmt(
        p->pConn, pErr, "SELECT key, atom, type FROM json_tree(?1, ?2)", "", 0);
  }
  pStmt = p->pStmt;
  choirBindText(pErr, pStmt, 1, z, n);
  choirBindText(pErr, pStmt, 2, zPath, -1);
  if (valueHasNul(z, n)) {
    choirErrSet(pErr, SQLITE_ERROR,
                "a row holds text with the character NUL; select it as a blob:"
                " CAST(… AS BLOB)");
  }
  while (choirStep(pErr, pStmt)) {
    const char *zType = (const char *)sqlite3_column_text(pStmt, 2);
    const char *zKey = (const char *)sqlite3_column_text(pStmt, 0);
    if (bFirst && zType && strcmp(zType, "array") == 0) {
      bFirst = 0; /* the array itself */
    } else if (!bFirst && zType && strcmp(zType, "object") == 0) {
      if (pCell) {
        valueCheck(pCell, pErr);
      }
      pCell = valueNew(p, pErr);
    } else if (pCell && zKey && zType) {
      valueMember(pCell, pErr, zKey, pStmt);
    } else {
      choirErrSet(pErr, SQLITE_ERROR,
                  "the server sent a row that is no array of values");
    }
  }
  if (bFirst) {
    choirErrSet(pErr, SQLITE_ERROR, "the server sent a row without values");
  }
  if (pCell && pErr->rc == SQLITE_OK) {
    valueCheck(pCell, pErr);
  }
  sqlite3_reset(pStmt);
}

/* ------------------------------------------------------------------- using */

/* The bytes of a blob. */
static void valueBlob(ChoirHranaRow *p, ChoirErr *pErr,
                      const HranaCell *pCell) {
  choirBufFree(&p->blob);
  choirBufInit(&p->blob, pErr, (u64)1 << 31);
  choirBufAppend(&p->blob, "", 0);
  if (!choirBufUnbase64(&p->blob, pCell->z, (u64)pCell->n)) {
    choirErrSet(pErr, SQLITE_ERROR, "the server sent a blob that is no base64");
  }
}

CHOIR_PRIVATE void choirHranaResult(ChoirHranaRow *p, ChoirErr *pErr,
                                    sqlite3_context *pCtx, int i) {
  const HranaCell *pCell = i < p->n ? &p->aCell[i] : NULL;
  switch (pCell ? pCell->eType : SQLITE_NULL) {
  case SQLITE_INTEGER:
    sqlite3_result_int64(pCtx, pCell->i);
    break;
  case SQLITE_FLOAT:
    sqlite3_result_double(pCtx, pCell->r);
    break;
  case SQLITE_TEXT:
    sqlite3_result_text64(pCtx, pCell->z, (u64)pCell->n, SQLITE_TRANSIENT,
                          SQLITE_UTF8);
    break;
  case SQLITE_BLOB:
    valueBlob(p, pErr, pCell);
    sqlite3_result_blob64(pCtx, p->blob.a ? p->blob.a : "", p->blob.n,
                          SQLITE_TRANSIENT);
    break;
  default:
    break;
  }
}

CHOIR_PRIVATE void choirHranaBind(ChoirHranaRow *p, ChoirErr *pErr,
                                  sqlite3_stmt *pStmt, int iParam, int i) {
  const HranaCell *pCell = i < p->n ? &p->aCell[i] : NULL;
  switch (pCell ? pCell->eType : SQLITE_NULL) {
  case SQLITE_INTEGER:
    choirBindInt(pErr, pStmt, iParam, pCell->i);
    break;
  case SQLITE_FLOAT:
    choirBindReal(pErr, pStmt, iParam, pCell->r);
    break;
  case SQLITE_TEXT:
    choirBindText(pErr, pStmt, iParam, pCell->z, pCell->n);
    break;
  case SQLITE_BLOB:
    valueBlob(p, pErr, pCell);
    if (pStmt && pErr->rc == SQLITE_OK &&
        sqlite3_bind_blob64(pStmt, iParam, p->blob.a ? p->blob.a : "",
                            p->blob.n, SQLITE_TRANSIENT) != SQLITE_OK) {
      choirErrNomem(pErr);
    }
    break;
  default:
    choirBindText(pErr, pStmt, iParam, NULL, 0);
    break;
  }
}

CHOIR_PRIVATE void choirHranaJson(ChoirHranaRow *p, ChoirBuf *pTo, int i) {
  const HranaCell *pCell = i < p->n ? &p->aCell[i] : NULL;
  switch (pCell ? pCell->eType : SQLITE_NULL) {
  case SQLITE_INTEGER:
    choirBufPrintf(pTo, "%lld", pCell->i);
    break;
  case SQLITE_FLOAT:
    choirBufPrintf(pTo, "%!.17g", pCell->r);
    break;
  case SQLITE_TEXT:
    choirBufJson(pTo, pCell->z, pCell->n);
    break;
  case SQLITE_BLOB:
    choirBufText(pTo, "{\"base64\":");
    choirBufJson(pTo, pCell->z, pCell->n);
    choirBufText(pTo, "}");
    break;
  default:
    choirBufText(pTo, "null");
    break;
  }
}

CHOIR_PRIVATE i64 choirHranaInt(const ChoirHranaRow *p, int i) {
  return i < p->n ? p->aCell[i].i : 0;
}

CHOIR_PRIVATE const char *choirHranaText(const ChoirHranaRow *p, int i) {
  return i < p->n && p->aCell[i].eType == SQLITE_TEXT ? p->aCell[i].z : NULL;
}

/* ----------------------------------------------------------------- writing */

static void valueInt(ChoirBuf *p, i64 v) {
  choirBufPrintf(p, "{\"type\":\"integer\",\"value\":\"%lld\"}", v);
}

static void valueReal(ChoirBuf *p, double r) {
  if (isfinite(r)) {
    choirBufPrintf(p, "{\"type\":\"float\",\"value\":%!.17g}", r);
  } else {
    choirErrSet(p->pErr, SQLITE_ERROR,
                "an infinite number cannot be sent: JSON has none");
  }
}

CHOIR_PRIVATE void choirHranaValueText(ChoirBuf *p, const char *z) {
  choirBufText(p, "{\"type\":\"text\",\"value\":");
  choirBufJson(p, z, -1);
  choirBufText(p, "}");
}

CHOIR_PRIVATE void choirHranaValue(ChoirBuf *p, sqlite3_value *v) {
  switch (sqlite3_value_type(v)) {
  case SQLITE_INTEGER:
    valueInt(p, sqlite3_value_int64(v));
    break;
  case SQLITE_FLOAT:
    valueReal(p, sqlite3_value_double(v));
    break;
  case SQLITE_TEXT: {
    const char *z = (const char *)sqlite3_value_text(v);
    i64 n = sqlite3_value_bytes(v);
    if (z == NULL) {
      choirErrNomem(p->pErr);
    } else if (choirUtf8Valid(z, n) != n) {
      choirErrSet(p->pErr, SQLITE_ERROR,
                  "text that is not valid UTF-8 (at byte %lld) cannot be sent;"
                  " send it as a blob",
                  choirUtf8Valid(z, n));
    } else {
      choirBufText(p, "{\"type\":\"text\",\"value\":");
      choirBufJson(p, z, n);
      choirBufText(p, "}");
    }
    break;
  }
  case SQLITE_BLOB:
    choirBufText(p, "{\"type\":\"blob\",\"base64\":\"");
    choirBufBase64(p, sqlite3_value_blob(v), (u64)sqlite3_value_bytes(v), 0);
    choirBufText(p, "\"}");
    break;
  default:
    choirBufText(p, "{\"type\":\"null\"}");
    break;
  }
}

static void valueStmt(ChoirBuf *p, const char *zSql) {
  choirBufText(p, "{\"sql\":");
  choirBufJson(p, zSql, -1);
}

CHOIR_PRIVATE void choirHranaStmt(ChoirBuf *p, const char *zSql,
                                  const char *zArgs, int bRows) {
  valueStmt(p, zSql);
  if (zArgs && zArgs[0]) {
    choirBufText(p, ",\"args\":[");
    choirBufText(p, zArgs);
    choirBufText(p, "]");
  }
  choirBufText(p, bRows ? ",\"want_rows\":true}" : ",\"want_rows\":false}");
}

CHOIR_PRIVATE void choirHranaParams(ChoirConn *pConn, ChoirBuf *p,
                                    const char *zSql, const char *zParams) {
  sqlite3_stmt *pStmt = NULL;
  int n = 0, bNamed = 0;
  valueStmt(p, zSql);
  if (zParams) {
    pStmt = choirJsonStmt(
        pConn, p->pErr,
        "SELECT key, atom, type, iif(type = 'object', value ->> '$.base64',"
        " NULL), json_type(?1)"
        " FROM json_each(?1)",
        zParams, -1);
  }
  while (choirStep(p->pErr, pStmt)) {
    const char *zType = (const char *)sqlite3_column_text(pStmt, 2);
    const char *zTop = (const char *)sqlite3_column_text(pStmt, 4);
    const char *zBlob = (const char *)sqlite3_column_text(pStmt, 3);
    if (zType == NULL || zTop == NULL) {
      choirErrNomem(p->pErr);
      break;
    }
    bNamed = strcmp(zTop, "object") == 0;
    choirBufText(p, n++ ? "," : bNamed ? ",\"named_args\":[" : ",\"args\":[");
    if (bNamed) {
      choirBufText(p, "{\"name\":");
      choirBufJson(p, (const char *)sqlite3_column_text(pStmt, 0), -1);
      choirBufText(p, ",\"value\":");
    }
    if (strcmp(zType, "object") == 0 && zBlob) {
      choirBufText(p, "{\"type\":\"blob\",\"base64\":");
      choirBufJson(p, zBlob, -1);
      choirBufText(p, "}");
    } else if (strcmp(zType, "object") == 0 || strcmp(zType, "array") == 0) {
      choirErrSet(p->pErr, SQLITE_ERROR,
                  "parameter %d is a JSON %s; pass it as text, or a blob as"
                  " {\"base64\":…}",
                  n, zType);
    } else {
      choirHranaValue(p, sqlite3_column_value(pStmt, 1));
    }
    choirBufText(p, bNamed ? "}" : "");
  }
  choirBufText(p, n ? "]" : "");
  choirBufText(p, ",\"want_rows\":true}");
  sqlite3_finalize(pStmt);
}
#endif /* CHOIR_OMIT_NET */
