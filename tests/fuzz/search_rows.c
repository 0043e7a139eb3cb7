/* SPDX-License-Identifier: MIT */
/* Rows of the text index that nobody wrote, searched, checked, indexed again. */
#include "fuzz.h"

#define USE                                                                    \
  "; SELECT * FROM choir_search('green tea', 5); SELECT choir_check();"        \
  " SELECT choir_index(); SELECT * FROM choir_search('tea steamed')"

FUZZ(search_rows) {
  static const char *const azStory[] = {
      "UPDATE _choir_vector SET embedding = ?2" USE,
      "UPDATE _choir_vector SET id = id + ?3" USE,
      "UPDATE _choir_chunk SET text = ?1" USE,
      "UPDATE _choir_chunk SET text = ?2" USE,
      "UPDATE _choir_chunk SET id = id + ?3" USE,
      "UPDATE _choir_doc SET id = id + ?3" USE,
      "UPDATE _choir_doc SET doc = ?1" USE,
      "UPDATE _choir_doc SET kind = ?1" USE,
      "UPDATE _choir_doc SET hash = ?2" USE,
      "UPDATE _choir_doc SET path = ?2" USE,
      "UPDATE _choir_cursor SET seq = ?3" USE,
      "UPDATE _choir_cursor SET consumer = ?1" USE,
      "UPDATE _choir_meta SET value = ?1 WHERE key LIKE 'search%'" USE,
      "DELETE FROM _choir_chunk WHERE id % 2" USE,
      "UPDATE action_log SET pk = ?2, tbl = 'artifacts'" USE,
      "UPDATE action_log SET tbl = ?1" USE,
      "UPDATE artifacts SET content = ?2" USE,
      "UPDATE artifacts SET s3_key = ?1, content = NULL" USE,
      NULL};
  static sqlite3 *db;
  if (db == NULL) {
    db = fuzzOpen(":memory:");
    fuzzMust(db, "SELECT artifact_put('/tea', 'Green tea is steamed.'),"
                 " artifact_put('/b', 'black tea');"
                 "SELECT message_add(conversation_create('x'), 'user', 'tea?');"
                 "SELECT choir_index()");
  }
  fuzzStory(db, azStory, a, n);
}
