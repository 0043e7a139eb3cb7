/* SPDX-License-Identifier: MIT */
/*
** Filters: the tenant's, the user's, and WHERE terms.
**
** Every filter that leaves choir is {"must":[tenant, …]} and what a user gives
** is one member of that list: as a condition it can only take points away,
** whatever `should` or `must_not` it has inside.
**
** Terms are sent as a superset (docs/qdrant.md has the table) and SQLite tests
** every row again, so a difference between the two systems can cost time and
** never a row.
*/
#include "qdrant.h"
#include <math.h>

#define FILTER_EXACT 9007199254740992.0 /* 2^53 */
#define FILTER_IN_MAX 1000

/* ----------------------------------------------------------------- tenant */

CHOIR_PRIVATE void choirQdrantFilterOpen(const Qdrant *p, ChoirBuf *pBuf,
                                         const char *zName) {
  choirBufJson(pBuf, zName, -1);
  choirBufText(pBuf, ":{\"must\":[{\"key\":\"user_id\",\"match\":{\"value\":");
  choirBufJson(pBuf, p->zUser ? p->zUser : "", -1);
  choirBufText(pBuf, "}}");
}

CHOIR_PRIVATE char *choirQdrantObject(ChoirConn *pConn, ChoirErr *pErr,
                                      sqlite3_value *v, const char *zArg,
                                      const char *zRemedy) {
  const char *z;
  char *zObject = NULL;
  sqlite3_stmt *pStmt;
  if (v == NULL || sqlite3_value_type(v) == SQLITE_NULL) {
    return NULL;
  }
  z = choirArgText(pErr, v, zArg);
  if (pErr->rc == SQLITE_OK && !choirJsonValid(pConn, pErr, z, -1)) {
    choirErrSet(pErr, SQLITE_ERROR, "%s is not valid JSON: %.60s", zArg, z);
  }
  /* Written anew by SQLite, on the private connection. */
  pStmt = choirJsonStmt(pConn, pErr, "SELECT json_type(?1), json(?1)", z, -1);
  if (choirStep(pErr, pStmt)) {
    const char *zType = (const char *)sqlite3_column_text(pStmt, 0);
    const char *zJson = (const char *)sqlite3_column_text(pStmt, 1);
    if (zType == NULL || zJson == NULL) {
      choirErrNomem(pErr);
    } else if (strcmp(zType, "object") != 0) {
      choirErrSet(pErr, SQLITE_ERROR, "%s must be a JSON object, got %s%s%s",
                  zArg, zType, zRemedy[0] ? "; " : "", zRemedy);
    } else {
      zObject = choirMprintf(pErr, "%s", zJson);
    }
  }
  sqlite3_finalize(pStmt);
  return zObject;
}

CHOIR_PRIVATE void choirQdrantFilterUser(ChoirConn *pConn, ChoirBuf *pBuf,
                                         sqlite3_value *v) {
  char *z = choirQdrantObject(pConn, pBuf->pErr, v, "filter",
                              "qdrant_filter() makes one");
  if (z && strcmp(z, "{}") != 0) {
    choirBufText(pBuf, ",");
    choirBufText(pBuf, z);
  }
  sqlite3_free(z);
}

/* ---------------------------------------------------------------- vectors */

CHOIR_PRIVATE int choirQdrantIsDense(QdrantSpan v) {
  QdrantSpan inside = choirQdrantInside(v), item;
  double r;
  int n = 0;
  if (v.z == NULL || v.z[0] != '[') {
    return 0;
  }
  for (; choirQdrantNext(&inside, NULL, &item); n++) {
    if (!choirQdrantReal(item, &r)) {
      return 0;
    }
  }
  return n > 0;
}

CHOIR_PRIVATE void choirQdrantPutVector(ChoirBuf *p, QdrantSpan name,
                                        QdrantSpan v) {
  QdrantSpan indices = choirQdrantGet(v, "indices");
  QdrantSpan values = choirQdrantGet(v, "values");
  if (choirQdrantIsDense(v)) {
    choirBufAppend(p, v.z, (u64)v.n);
  } else if (choirQdrantIsDense(indices) && choirQdrantIsDense(values)) {
    choirBufText(p, "{\"indices\":");
    choirBufAppend(p, indices.z, (u64)indices.n);
    choirBufText(p, ",\"values\":");
    choirBufAppend(p, values.z, (u64)values.n);
    choirBufText(p, "}");
  } else {
    choirErrSet(p->pErr, SQLITE_ERROR,
                "vector %.*s must be an array of numbers or an object of"
                " indices and values, got %.*s",
                (int)(name.n < 40 ? name.n : 40), name.z ? name.z : "",
                (int)(v.n < 60 ? v.n : 60), v.z ? v.z : "nothing");
  }
}

CHOIR_PRIVATE void choirQdrantKey(ChoirBuf *pBuf, const char *zKey) {
  if (zKey[strspn(zKey, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                        "0123456789_-")] == 0) {
    choirBufJson(pBuf, zKey, -1);
  } else { /* a dot or a bracket would be a path: quoted */
    ChoirBuf b;
    choirBufInit(&b, pBuf->pErr, CHOIR_BUF_SQL);
    choirBufText(&b, "\"");
    choirBufText(&b, zKey);
    choirBufText(&b, "\"");
    choirBufJson(pBuf, b.a ? b.a : "", (i64)b.n);
    choirBufFree(&b);
  }
}

/* ------------------------------------------------------------------ terms */

CHOIR_PRIVATE int choirQdrantMayPush(int eType, int eOp) {
  static const struct {
    int eType;
    const char *zOps;
  } a[] = {{QDRANT_TEXT, "=i!n*"},    {QDRANT_INTEGER, "=i<lg>!n"},
           {QDRANT_REAL, "=i<lg>!n"}, {QDRANT_BOOL, "=!n"},
           {QDRANT_ID, "=i"},         {QDRANT_SCORE, "<lg>"}};
  int i;
  for (i = 0; i < (int)(sizeof(a) / sizeof(a[0])); i++) {
    if (a[i].eType == eType) {
      return strchr(a[i].zOps, eOp) != NULL;
    }
  }
  return 0;
}

/* Text that the server compares as SQLite does. */
static int filterIsText(sqlite3_value *v) {
  const char *z;
  i64 n;
  if (sqlite3_value_type(v) != SQLITE_TEXT) {
    return 0;
  }
  z = (const char *)sqlite3_value_text(v);
  n = sqlite3_value_bytes(v);
  return z && choirUtf8Valid(z, n) == n && memchr(z, 0, (size_t)n) == NULL;
}

static int filterIsNumber(sqlite3_value *v) {
  int e = sqlite3_value_type(v);
  return e == SQLITE_INTEGER ||
         (e == SQLITE_FLOAT && isfinite(sqlite3_value_double(v)));
}

/* Eighteen digits, because SQLite's seventeen do not always give a double back.
**
** The server keeps integers but compares doubles: where these are no longer
** exact the interval is widened to the neighbours and closed. */
static void filterRange(ChoirBuf *p, int eOp, double r) {
  int bWide = fabs(r) >= FILTER_EXACT;
  double rLow = bWide ? nextafter(r, -INFINITY) : r;
  double rHigh = bWide ? nextafter(r, INFINITY) : r;
  choirBufText(p, "\"range\":{");
  if (eOp == QDRANT_EQ) {
    choirBufPrintf(p, "\"gte\":%!.18g,\"lte\":%!.18g", rLow, rHigh);
  } else if (eOp == QDRANT_LT || eOp == QDRANT_LE) {
    choirBufPrintf(p, "\"%s\":%!.18g", eOp == QDRANT_LE || bWide ? "lte" : "lt",
                   rHigh);
  } else {
    choirBufPrintf(p, "\"%s\":%!.18g", eOp == QDRANT_GE || bWide ? "gte" : "gt",
                   rLow);
  }
  choirBufText(p, "}");
}

/* A point's id as the server writes it: a UUID in lower case, an integer. */
static int filterIsId(sqlite3_value *v) {
  const char *z;
  int i;
  if (sqlite3_value_type(v) == SQLITE_INTEGER) {
    return sqlite3_value_int64(v) >= 0;
  }
  if (!filterIsText(v) || sqlite3_value_bytes(v) != 36) {
    return 0;
  }
  z = (const char *)sqlite3_value_text(v);
  for (i = 0; i < 36; i++) {
    if (i == 8 || i == 13 || i == 18 || i == 23
            ? z[i] != '-'
            : !strchr("0123456789abcdef", z[i])) {
      return 0;
    }
  }
  return 1;
}

static int filterFits(int eType, sqlite3_value *v) {
  return eType == QDRANT_TEXT ? filterIsText(v)
         : eType == QDRANT_ID ? filterIsId(v)
                              : filterIsNumber(v);
}

/* One member of a list of values: a string, an id, or a range condition. */
static void filterItem(ChoirBuf *p, const char *zKey, int eType,
                       sqlite3_value *v) {
  if (eType == QDRANT_INTEGER || eType == QDRANT_REAL) {
    choirBufText(p, "{\"key\":");
    choirQdrantKey(p, zKey);
    choirBufText(p, ",");
    filterRange(p, QDRANT_EQ, sqlite3_value_double(v));
    choirBufText(p, "}");
  } else if (sqlite3_value_type(v) == SQLITE_INTEGER) {
    choirBufPrintf(p, "%lld", sqlite3_value_int64(v));
  } else {
    choirBufJson(p, (const char *)sqlite3_value_text(v),
                 sqlite3_value_bytes(v));
  }
}

/* IN: any of a list. A value that cannot be sent keeps all of it here. */
static int filterIn(ChoirErr *pErr, ChoirBuf *p, const char *zKey, int eType,
                    sqlite3_value *pList) {
  sqlite3_value *v = NULL;
  ChoirBuf b;
  int n = 0, bAll = 1, rc;
  choirBufInit(&b, pErr, CHOIR_BUF_SQL);
  for (rc = sqlite3_vtab_in_first(pList, &v); rc == SQLITE_OK && v;
       rc = sqlite3_vtab_in_next(pList, &v)) {
    if (sqlite3_value_type(v) == SQLITE_NULL) {
      continue;
    }
    if (!filterFits(eType, v) || n == FILTER_IN_MAX) {
      bAll = 0;
      break;
    }
    choirBufText(&b, n++ ? "," : "");
    filterItem(&b, zKey, eType, v);
  }
  if (rc == SQLITE_NOMEM) {
    choirErrNomem(pErr);
  }
  if (bAll && n && pErr->rc == SQLITE_OK) {
    if (eType == QDRANT_ID) {
      choirBufText(p, ",{\"has_id\":[");
      choirBufAppend(p, b.a, b.n);
      choirBufText(p, "]}");
    } else if (eType == QDRANT_TEXT) {
      choirBufText(p, ",{\"key\":");
      choirQdrantKey(p, zKey);
      choirBufText(p, ",\"match\":{\"any\":[");
      choirBufAppend(p, b.a, b.n);
      choirBufText(p, "]}}");
    } else {
      choirBufText(p, ",{\"should\":[");
      choirBufAppend(p, b.a, b.n);
      choirBufText(p, "]}");
    }
  }
  choirBufFree(&b);
  return bAll && n == 0 && rc != SQLITE_NOMEM;
}

/* The literal text that a GLOB pattern starts with, its length. */
static i64 filterPrefix(sqlite3_value *v) {
  return filterIsText(v)
             ? (i64)strcspn((const char *)sqlite3_value_text(v), "*?[")
             : 0;
}

static void filterMatch(ChoirBuf *p, const char *zKey, int eType,
                        sqlite3_value *v) {
  choirBufText(p, "{\"key\":");
  choirQdrantKey(p, zKey);
  if (eType == QDRANT_BOOL) {
    choirBufPrintf(p, ",\"match\":{\"value\":%s}",
                   sqlite3_value_int64(v) ? "true" : "false");
  } else if (eType == QDRANT_TEXT) {
    choirBufText(p, ",\"match\":{\"value\":");
    choirBufJson(p, (const char *)sqlite3_value_text(v),
                 sqlite3_value_bytes(v));
    choirBufText(p, "}");
  } else {
    choirBufText(p, ",");
    filterRange(p, QDRANT_EQ, sqlite3_value_double(v));
  }
  choirBufText(p, "}");
}

/* A column of type BOOL holds 0 and 1: other values equal none. */
static int filterIsBool(sqlite3_value *v) {
  return sqlite3_value_type(v) == SQLITE_INTEGER &&
         (u64)sqlite3_value_int64(v) <= 1;
}

CHOIR_PRIVATE int choirQdrantPush(Qdrant *pTo, ChoirErr *pErr, ChoirBuf *p,
                                  const char *zKey, int eType, int eOp,
                                  sqlite3_value *v) {
  if (eOp == QDRANT_IN) {
    return filterIn(pErr, p, zKey, eType, v);
  }
  if (eOp == QDRANT_NOTNULL) {
    choirBufText(p, ",{\"must_not\":[{\"is_empty\":{\"key\":");
    choirQdrantKey(p, zKey);
    choirBufText(p, "}}]}");
    return 0;
  }
  if (sqlite3_value_type(v) == SQLITE_NULL) {
    return 1; /* a comparison with NULL is never true */
  }
  if (eOp == QDRANT_GLOB) {
    i64 n = filterPrefix(v);
    if (n > 0 && choirQdrantVersion(pTo, pErr) >= 1019) {
      choirBufText(p, ",{\"key\":");
      choirQdrantKey(p, zKey);
      choirBufText(p, ",\"match\":{\"prefix\":");
      choirBufJson(p, (const char *)sqlite3_value_text(v), n);
      choirBufText(p, "}}");
    }
    return 0;
  }
  if (eType == QDRANT_BOOL ? !filterIsBool(v) : !filterFits(eType, v)) {
    return 0;
  }
  if (eType == QDRANT_ID) {
    choirBufText(p, ",{\"has_id\":[");
    filterItem(p, zKey, eType, v);
    choirBufText(p, "]}");
  } else if (eOp == QDRANT_EQ) {
    choirBufText(p, ",");
    filterMatch(p, zKey, eType, v);
  } else if (eOp == QDRANT_NE) {
    if (eType == QDRANT_TEXT || eType == QDRANT_BOOL ||
        fabs(sqlite3_value_double(v)) < FILTER_EXACT) {
      choirBufText(p, ",{\"must_not\":[");
      filterMatch(p, zKey, eType, v);
      choirBufText(p, "]}");
    }
  } else {
    choirBufText(p, ",{\"key\":");
    choirQdrantKey(p, zKey);
    choirBufText(p, ",");
    filterRange(p, eOp, sqlite3_value_double(v));
    choirBufText(p, "}");
  }
  return 0;
}

/* ---------------------------------------------------------- qdrant_filter */

static const struct {
  const char *zOp;
  const char *zOpen, *zClose; /* around the value */
  int eWant;                  /* 't' text, 'n' number or ISO time, 's' scalar,
                              ** 'a' array, '0' none */
  int bNot;
} aFilterOp[] = {
    {"=", "\"match\":{\"value\":", "}", 's', 0},
    {"!=", "\"match\":{\"value\":", "}", 's', 1},
    {"in", "\"match\":{\"any\":", "}", 'a', 0},
    {"not in", "\"match\":{\"any\":", "}", 'a', 1},
    {"<", "\"range\":{\"lt\":", "}", 'n', 0},
    {"<=", "\"range\":{\"lte\":", "}", 'n', 0},
    {">", "\"range\":{\"gt\":", "}", 'n', 0},
    {">=", "\"range\":{\"gte\":", "}", 'n', 0},
    {"prefix", "\"match\":{\"prefix\":", "}", 't', 0},
    {"text", "\"match\":{\"text\":", "}", 't', 0},
    {"phrase", "\"match\":{\"phrase\":", "}", 't', 0},
    {"empty", "\"is_empty\":", "", 'b', 0},
};
#define FILTER_OPS ((int)(sizeof(aFilterOp) / sizeof(aFilterOp[0])))

static int filterOp(ChoirErr *pErr, const char *z) {
  const char *azOp[FILTER_OPS];
  const char *zNear;
  int i;
  for (i = 0; z && i < FILTER_OPS; i++) {
    azOp[i] = aFilterOp[i].zOp;
    if (sqlite3_stricmp(z, azOp[i]) == 0) {
      return i;
    }
  }
  zNear = z ? choirNearest(z, azOp, FILTER_OPS) : NULL;
  choirErrSet(
      pErr, SQLITE_ERROR,
      "no operator '%.20s'; use =, !=, in, not in, <, <=, >, >=, prefix,"
      " text, phrase or empty%s%s%s",
      z ? z : "", zNear ? " (did you mean '" : "", zNear ? zNear : "",
      zNear ? "'?)" : "");
  return -1;
}

/* A JSON array of strings or of integers, and not an empty one. */
static void filterList(ChoirCall *p, ChoirBuf *pBuf, sqlite3_value *v) {
  const char *z = choirArgJson(p->pConn, &p->err, v, "value");
  sqlite3_stmt *pStmt = choirJsonStmt(
      p->pConn, &p->err,
      "SELECT count(*), count(DISTINCT type), min(type), json_type(?1),"
      " json(?1) FROM json_each(?1)",
      z ? z : "[]", -1);
  if (choirStep(&p->err, pStmt)) {
    const char *zOne = (const char *)sqlite3_column_text(pStmt, 2);
    const char *zType = (const char *)sqlite3_column_text(pStmt, 3);
    if (zType == NULL || strcmp(zType, "array") != 0 ||
        sqlite3_column_int(pStmt, 1) != 1 || zOne == NULL ||
        (strcmp(zOne, "text") != 0 && strcmp(zOne, "integer") != 0)) {
      choirErrSet(&p->err, SQLITE_ERROR,
                  "value of 'in' must be a JSON array of texts or of integers,"
                  " at least one, got %.60s",
                  z ? z : "");
    } else {
      choirBufText(pBuf, (const char *)sqlite3_column_text(pStmt, 4));
    }
  }
  sqlite3_finalize(pStmt);
}

static void filterValue(ChoirCall *p, ChoirBuf *pBuf, int iOp,
                        sqlite3_value *v) {
  int eWant = aFilterOp[iOp].eWant, e = sqlite3_value_type(v);
  if (eWant == 'a') {
    filterList(p, pBuf, v);
  } else if (eWant == 'b') {
    choirBufText(pBuf,
                 choirArgInt(&p->err, v, "value", 0, 1) ? "true" : "false");
  } else if (e == SQLITE_TEXT) {
    const char *z = choirArgText(&p->err, v, "value");
    choirBufJson(pBuf, z ? z : "", -1);
  } else if (eWant == 't' || !filterIsNumber(v)) {
    choirErrSet(&p->err, SQLITE_ERROR, "value of '%s' must be %s, got %s",
                aFilterOp[iOp].zOp,
                eWant == 't' ? "text" : "text or a finite number",
                choirTypeName(v));
  } else if (e == SQLITE_INTEGER) {
    choirBufPrintf(pBuf, "%lld", sqlite3_value_int64(v));
  } else {
    choirBufPrintf(pBuf, "%!.18g", sqlite3_value_double(v));
  }
}

/* = 2.5 is a range, since the server matches texts and integers only. */
static void filterTerm(ChoirCall *p, ChoirBuf *pBuf, sqlite3_value **apArg) {
  const char *zKey = choirArgText(&p->err, apArg[0], "key");
  int iOp = filterOp(&p->err, choirArgText(&p->err, apArg[1], "operator"));
  if (p->err.rc != SQLITE_OK) {
    return;
  }
  choirBufText(pBuf, aFilterOp[iOp].bNot ? "{\"must_not\":[" : "");
  choirBufText(pBuf, "{\"key\":");
  choirBufJson(pBuf, zKey, -1);
  choirBufText(pBuf, ",");
  if (aFilterOp[iOp].eWant == 's' &&
      sqlite3_value_type(apArg[2]) == SQLITE_FLOAT &&
      filterIsNumber(apArg[2])) {
    filterRange(pBuf, QDRANT_EQ, sqlite3_value_double(apArg[2]));
  } else {
    choirBufText(pBuf, aFilterOp[iOp].zOpen);
    filterValue(p, pBuf, iOp, apArg[2]);
    choirBufText(pBuf, aFilterOp[iOp].zClose);
  }
  choirBufText(pBuf, aFilterOp[iOp].bNot ? "}]}" : "}");
}

/*
** SQL: qdrant_filter(key, operator, value[, key, operator, value, …]) -> TEXT
**
** A filter in Qdrant's JSON: points for which every term holds. For the
** argument filter of the other qdrant_ functions; what it cannot say (geo,
** nested, min_should) can be written as JSON by hand.
**
**   key       TEXT, a member of the payload; a path such as meta.lang
**   operator  '=', '!=', 'in', 'not in', '<', '<=', '>', '>=', 'prefix' (texts,
**             Qdrant 1.19), 'text' and 'phrase' (full text, by the server's
**             index), 'empty'
**   value     TEXT or number; for 'in' and 'not in' a JSON array; ranges take
**             numbers or times as ISO text; for 'empty' 1 or 0. Booleans are
**             asked for by JSON
**
** Without arguments: every point. The user's own points are all that any filter
** is asked of.
** NULL: an error.
** Errors: arguments that are not triples; an unknown operator; a value of
** another type.
** Source: https://qdrant.tech/documentation/concepts/filtering/
**
** > SELECT qdrant_filter('lang', '=', 'en', 'size', '>', 9)
** = {"must":[{"key":"lang","match":{"value":"en"}},{"key":"size","range":{"gt":9}}]}
** > SELECT qdrant_filter('lang', 'not in', '["en","de"]')
** = {"must":[{"must_not":[{"key":"lang","match":{"any":["en","de"]}}]}]}
** > SELECT qdrant_filter('lang', '==', 'en')
** ! qdrant_filter: no operator '=='; use =, !=, in, not in, <, <=, >, >=, prefix, text, phrase or empty (did you mean '='?)
*/
static void filterFunc(ChoirCall *p) {
  ChoirBuf b;
  int i;
  choirBufInit(&b, &p->err, CHOIR_BUF_SQL);
  if (p->nArg % 3) {
    choirErrSet(&p->err, SQLITE_ERROR,
                "arguments come in threes: key, operator, value; got %d",
                p->nArg);
  }
  choirBufText(&b, p->nArg ? "{\"must\":[" : "{");
  for (i = 0; i + 2 < p->nArg && p->err.rc == SQLITE_OK; i += 3) {
    choirBufText(&b, i ? "," : "");
    filterTerm(p, &b, p->apArg + i);
  }
  choirBufText(&b, p->nArg ? "]}" : "}");
  choirBufResult(&b, p->pCtx);
  choirBufFree(&b);
}

static const ChoirFunc aFilterFunc[] = {
    {"qdrant_filter", 0, -1, CHOIR_PURE, 0, filterFunc, NULL},
};

CHOIR_PRIVATE CHOIR_COLD void choirQdrantFilterRegister(ChoirConn *pConn,
                                                        ChoirErr *pErr) {
  choirFuncs(pConn, pErr, aFilterFunc);
}
