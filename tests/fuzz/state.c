/* SPDX-License-Identifier: MIT */
/* JSON by key and path, its checkpoints and its seeds, also when what is stored
** is none. */
#include "fuzz.h"

FUZZ(state) {
  static const char *const azStory[] = {
      "SELECT state_set('k', ?1, 1), state_get('k')",
      "SELECT state_set('k', '$.a', ?1), state_get('k', ?1)",
      "SELECT state_set(?1, '$', ?2); SELECT state_get(?1)",
      "SELECT state_import(?1); SELECT state_all(), state_all(?3)",
      "SELECT state_import(?1, ?1)",
      "UPDATE state_storage SET value_json = ?1; SELECT state_get('k');"
      " SELECT * FROM state_tree('k'); SELECT state_all();"
      " SELECT * FROM state_leaves; SELECT choir_check()",
      "UPDATE state_storage SET value_json = ?2; SELECT state_set('k', '$.x',"
      " 1); SELECT state_delete('k', '$.a'); SELECT choir_check()",
      "UPDATE state_values SET value_json = ?1; SELECT"
      " state_restore('p'); SELECT * FROM state_diff('p', NULL);"
      " SELECT choir_check()",
      "UPDATE state_values SET hash = ?2; SELECT state_restore('p');"
      " SELECT choir_check()",
      "UPDATE state_versions SET first = ?3, last = ?3 + 1, level = ?3;"
      " SELECT state_restore('p'), state_checkpoint('q'); SELECT choir_check()",
      "UPDATE state_versions SET hash = ?2; SELECT state_restore('p');"
      " SELECT * FROM state_diff('p', NULL)",
      "UPDATE state_points SET name = ?1, n = ?3; SELECT state_restore(?1)",
      "SELECT * FROM state_diff('p', ?1); SELECT * FROM state_diff(?1, 'p')",
      "SELECT state_level('k', ?3), state_delete('k', ?1), state_get('k', ?1)",
      "INSERT INTO state_storage(key_name, value_json) VALUES(?1, ?1);"
      " SELECT state_get(?1); SELECT * FROM state_tree(?1)",
      "SELECT state_checkpoint(?1), state_checkpoint_drop(?1)",
      NULL};
  static sqlite3 *db;
  if (db == NULL) {
    db = fuzzOpen(":memory:");
    fuzzMust(db, "SELECT state_set('k', '$', json('{\"a\":[1,{\"b\":null}]}')),"
                 " state_checkpoint('p'), state_set('k', '$.a[0]', 2)");
  }
  fuzzStory(db, azStory, a, n);
}
