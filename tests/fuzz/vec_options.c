/* SPDX-License-Identifier: MIT */
/* What names and configures a vector index or a scan: options, tables, columns,
** and vectors of a stranger in the column. */
#include "fuzz.h"

FUZZ(vec_options) {
  static const char *const azStory[] = {
      "SELECT vec_index_create('fuzz', 'vf', 'e', ?1);"
      " SELECT rowid FROM vec_search('fuzz', '[1,2]', 3);"
      " SELECT vec_index_info('fuzz')",
      "SELECT vec_index_create(?1, 'vf', 'e'); SELECT vec_index_info(?1);"
      " SELECT vec_index_drop(?1)",
      "SELECT vec_index_create('fuzz', ?1, 'e')",
      "SELECT vec_index_create('fuzz', 'vf', ?1)",
      "SELECT rowid, distance FROM vec_scan('vf', 'e', ?1, 3)",
      "SELECT rowid, distance FROM vec_scan('vf', 'e', ?2, ?3)",
      "SELECT rowid FROM vec_scan(?1, 'e', '[1,2]', 3)",
      "SELECT rowid FROM vec_scan('vf', ?1, '[1,2]', 3)",
      "SELECT rowid FROM vec_scan('vf', 'e', '[1,2]', 3, ?1)",
      "SELECT rowid FROM vec_scan('vf', 'e', '[1,2]', 3, 'l2', ?1)",
      "INSERT INTO vf(e) VALUES(?2); SELECT rowid, distance FROM vec_scan('vf',"
      " 'e', '[1,2]', 3); SELECT vec_index_create('fuzz', 'vf', 'e');"
      " SELECT choir_check()",
      "SELECT vec_index_create('fuzz', 'vf', 'e'); UPDATE vf SET e = ?2"
      " WHERE id = 2; INSERT INTO vf(e) VALUES(?1); SELECT"
      " vec_index_optimize('fuzz'); SELECT rowid FROM vec_search('fuzz',"
      " '[1,2]', 3); SELECT choir_check()",
      "SELECT vec_index_create('fuzz', 'vf', 'e'); SELECT rowid FROM"
      " vec_search('fuzz', ?2, 3); SELECT rowid FROM vec_search('fuzz', ?1, "
      "?3)",
      "SELECT vec_index_create('fuzz', 'vf', 'e'); SELECT rowid FROM"
      " vec_search('fuzz', '[1,2]', 3) WHERE recall = ?4 AND distance < ?4",
      "SELECT vec_scan_feed(?2, 1, '[1,2]'), vec_scan_feed(?3, 1, ?2)",
      NULL};
  static int bMade;
  if (!bMade) {
    fuzzMust(fuzzDb(),
             "CREATE TABLE vf(id INTEGER PRIMARY KEY, e BLOB, p);"
             "INSERT INTO vf(e, p) VALUES(vec_f32('[1,2]'), 1),"
             "(vec_f32('[3,-4]'), 2), (NULL, 1), (vec_f32('[0,0]'), NULL)");
    bMade = 1;
  }
  fuzzStory(fuzzDb(), azStory, a, n);
}
