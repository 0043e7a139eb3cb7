/* SPDX-License-Identifier: MIT */
/* Values of a JSON text without copying: of JSON, and of any bytes, they lie in
** the text; of JSON they are what SQLite says. */
#include "fuzz.h"
#include "../../ext/qdrant/qdrant.h"

static int nSpan;

static void spanWalk(ChoirErr *pErr, QdrantSpan all, QdrantSpan v, int nDeep) {
  QdrantSpan in = choirQdrantInside(v), key, value;
  i64 i, nText;
  double r;
  int nFloat;
  char *z = choirQdrantText(pErr, v, &nText);
  float *a = choirQdrantFloats(pErr, v, &nFloat);
  MUST(v.z >= all.z && v.n >= 0 && v.z + v.n <= all.z + all.n);
  MUST(z == NULL || nText <= v.n);
  MUST(a == NULL || nFloat <= v.n);
  choirQdrantInt(v, &i);
  choirQdrantReal(v, &r);
  choirQdrantIs(v, "key");
  choirQdrantGet(v, "a");
  sqlite3_free(z);
  sqlite3_free(a);
  choirErrClear(pErr);
  while (nDeep < 20 && nSpan++ < 5000 && choirQdrantNext(&in, &key, &value)) {
    MUST(in.z >= all.z && in.n >= 0 && in.z + in.n <= all.z + all.n);
    spanWalk(pErr, all, value, nDeep + 1);
  }
}

FUZZ(qdrant_json) {
  static ChoirConn *pConn;
  ChoirErr err = {SQLITE_OK, NULL};
  FuzzIn in = {a, n};
  u64 nText;
  char *z = fuzzPart(&in, &nText), *zMine, *zTheirs;
  QdrantSpan all = {z, (i64)nText};
  i64 nMine = 0;
  pConn = pConn ? pConn : choirConnPrivate(&err, 0);
  nSpan = 0;
  spanWalk(&err, all, all, 0);
  if (strlen(z) == nText && choirJsonValid(pConn, &err, z, (i64)nText)) {
    zMine = choirQdrantText(&err, choirQdrantGet(all, "a"), &nMine);
    zTheirs = choirJsonText(pConn, &err, z, (i64)nText, "$.a");
    MUST(zMine == NULL || choirUtf8Valid(zMine, nMine) < nMine ||
         strstr(z, "\\u") || (zTheirs && strcmp(zMine, zTheirs) == 0) ||
         strchr(z, '\\'));
    sqlite3_free(zMine);
    sqlite3_free(zTheirs);
  }
  choirErrClear(&err);
  sqlite3_free(z);
}
