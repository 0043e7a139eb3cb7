/* SPDX-License-Identifier: MIT */
/* Vectors as JSON text: read, written, read again. */
#include "fuzz.h"
#include "../../ext/vec/vec.h"

FUZZ(vec_text) {
  static const int aType[] = {VEC_F32, VEC_I8};
  static sqlite3_stmt *p;
  FuzzIn in = {a, n};
  int eType = aType[fuzzByte(&in) & 1];
  u64 nText;
  char *z = fuzzPart(&in, &nText);
  ChoirErr err = {SQLITE_OK, NULL};
  ChoirVec v;
  memset(&v, 0, sizeof(v));
  choirVecJson(&err, &v, z, (i64)nText, eType, "vector");
  if (err.rc == SQLITE_OK) {
    MUST(v.nDim > 0 && v.nDim <= (i64)nText);
    MUST(choirVecDim(eType, v.nByte) == v.nDim);
  } else {
    MUST(err.zMsg && strncmp(err.zMsg, "vector", 6) == 0);
  }
  choirVecFree(&v);
  choirErrClear(&err);
  if (p == NULL) {
    MUST(sqlite3_prepare_v2(fuzzDb(),
                            "SELECT vec_length(vec_to_json(vec_f32(?1))) IS"
                            " vec_length(vec_f32(?1))",
                            -1, &p, NULL) == SQLITE_OK);
  }
  sqlite3_bind_text64(p, 1, z, nText, SQLITE_STATIC, SQLITE_UTF8);
  MUST(sqlite3_step(p) != SQLITE_ROW || sqlite3_column_int(p, 0) == 1);
  sqlite3_reset(p);
  sqlite3_free(z);
}
