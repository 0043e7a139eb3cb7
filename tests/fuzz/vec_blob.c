/* SPDX-License-Identifier: MIT */
/* Two blobs of any length as vectors of every type, through every function. */
#include "fuzz.h"

FUZZ(vec_blob) {
  static const char *const azType[] = {"f32", "f16", "bf16", "int8", "bit"};
  static const char *const azFmt[] = {
      "SELECT vec_distance_l2(%s(?1), %s(?2)), vec_distance_cosine(%s(?1),"
      " %s(?2))",
      "SELECT vec_distance_l1(%s(?1), %s(?2)), vec_distance_dot(%s(?1),"
      " %s(?2))",
      "SELECT vec_distance_hamming(%s(?1), %s(?2))",
      "SELECT hex(vec_add(%s(?1), %s(?2))), hex(vec_sub(%s(?1), %s(?2)))",
      "SELECT vec_to_json(%s(?1)), vec_length(%s(?1)), vec_type(%s(?1))",
      "SELECT hex(vec_slice(%s(?1), ?3, ?3 + 8)), hex(subvector(%s(?1), ?3, "
      "2))",
      "SELECT hex(vec_normalize(%s(?1))), hex(vec_quantize_binary(%s(?1)))",
      "SELECT hex(vec_quantize_int8(%s(?1), 'unit')), "
      "hex(l2_normalize(%s(?1)))",
      "SELECT sum(value) FROM vec_each(%s(?1))",
      "SELECT hex(vec_sum(%s(v))), hex(vec_avg(%s(v))) FROM (SELECT ?1 AS v"
      " UNION ALL SELECT ?2)",
  };
  FuzzIn in = {a, n};
  u8 m = fuzzByte(&in);
  i64 i = (signed char)fuzzByte(&in);
  u64 n1, n2;
  char *a1 = fuzzPart(&in, &n1), *a2;
  char zType[16], *zSql;
  sqlite3_stmt *p = NULL;
  a2 = fuzzPart(&in, &n2);
  sqlite3_snprintf(sizeof(zType), zType, "vec_%s", azType[m / 16 % 5]);
  zSql = sqlite3_mprintf(azFmt[m % 16 % 10], zType, zType, zType, zType);
  if (sqlite3_prepare_v2(fuzzDb(), zSql, -1, &p, NULL) == SQLITE_OK) {
    sqlite3_bind_blob64(p, 1, a1, n1, SQLITE_STATIC);
    sqlite3_bind_blob64(p, 2, a2, n2, SQLITE_STATIC);
    sqlite3_bind_int64(p, 3, i);
    while (sqlite3_step(p) == SQLITE_ROW) {
      sqlite3_column_text(p, 0);
    }
  }
  sqlite3_finalize(p);
  sqlite3_free(zSql);
  sqlite3_free(a1);
  sqlite3_free(a2);
}
