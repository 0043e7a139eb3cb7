/* SPDX-License-Identifier: MIT */
/* choir_import: files of llm, AgentFS, omni-ai and Nola whose rows hold what
** nobody would write there. */
#include "fuzz.h"
#include <unistd.h>

FUZZ(import) {
  static const char *const azFile[] = {
      "CREATE TABLE conversations(id TEXT, name TEXT, model TEXT);"
      "CREATE TABLE responses(id, model, prompt, system, prompt_json,"
      " options_json, response, response_json, conversation_id, duration_ms,"
      " datetime_utc, input_tokens, output_tokens);"
      "INSERT INTO conversations VALUES(?1, ?2, ?3), ('c', 'n', 'm');"
      "INSERT INTO responses VALUES(?1, ?1, ?1, ?2, ?1, ?1, ?2, ?1, 'c', ?3,"
      " ?1, ?4, ?3)",
      "CREATE TABLE collections(id INTEGER PRIMARY KEY, name, model);"
      "CREATE TABLE embeddings(collection_id, id, embedding, content,"
      " content_blob, content_hash, metadata, updated);"
      "INSERT INTO collections VALUES(1, ?1, ?2);"
      "INSERT INTO embeddings VALUES(1, ?1, ?2, ?1, ?2, ?2, ?1, ?3)",
      "CREATE TABLE fs_config(key, value); CREATE TABLE fs_inode(ino INTEGER"
      " PRIMARY KEY, mode, uid, gid, size, atime, mtime, ctime);"
      "CREATE TABLE fs_dentry(id INTEGER PRIMARY KEY, name, parent_ino, ino);"
      "CREATE TABLE fs_data(ino, chunk_index, data);"
      "CREATE TABLE kv_store(key, value, created_at, updated_at);"
      "CREATE TABLE tool_calls(id, name, parameters, result, error, started_at,"
      " completed_at);"
      "INSERT INTO fs_config VALUES('chunk_size', ?3);"
      "INSERT INTO fs_inode VALUES(1, 16877, 0, 0, 0, 0, 0, 0),"
      " (2, 33188, 0, 0, ?3, 0, 0, 0), (3, 33188, 0, 0, 4, 0, 0, 0);"
      "INSERT INTO fs_dentry VALUES(1, ?1, 1, 2), (2, 'x', 1, 3);"
      "INSERT INTO fs_data VALUES(2, 0, ?2), (3, ?3, ?2);"
      "INSERT INTO kv_store VALUES(?1, ?1, ?3, ?1);"
      "INSERT INTO tool_calls VALUES(?3, ?1, ?1, ?2, ?1, ?3, ?4)",
      "CREATE TABLE conversations(id, title, created_at); CREATE TABLE"
      " messages(id, conversation_id, role, content, metadata);"
      "INSERT INTO conversations VALUES(?1, ?1, ?3), (1, ?2, ?4);"
      "INSERT INTO messages VALUES(?1, ?1, ?1, ?2, ?1), (2, 1, 'user', ?1, ?1)",
      "CREATE TABLE state_storage(key_name, value_json); CREATE TABLE"
      " conversation_history(id, user_id, message, speaker, timestamp);"
      "INSERT INTO state_storage VALUES(?1, ?1), ('k', ?2);"
      "INSERT INTO conversation_history VALUES(?3, ?1, ?2, ?1, ?4)"};
  FuzzIn in = {a, n};
  u8 c = fuzzByte(&in);
  char zFile[128], *z;
  const char *zSql = azFile[c % 5];
  sqlite3 *db = fuzzDb(), *to;
  snprintf(zFile, sizeof(zFile), "%s/import.db", fuzzDir());
  unlink(zFile);
  MUST(sqlite3_open(zFile, &to) == SQLITE_OK);
  fuzzMust(to, "PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; BEGIN");
  while (zSql[0]) { /* a statement sees the tables of those before it */
    const char *zEnd = strchr(zSql, ';');
    z = sqlite3_mprintf("%.*s", zEnd ? (int)(zEnd - zSql) : (int)strlen(zSql),
                        zSql);
    fuzzSql(to, z, in.a, in.n);
    sqlite3_free(z);
    zSql = zEnd ? zEnd + 1 : "";
  }
  fuzzMust(to, "COMMIT");
  MUST(sqlite3_close(to) == SQLITE_OK);
  fuzzMust(db, "SAVEPOINT fuzz");
  z = sqlite3_mprintf("SELECT choir_import('%q'); SELECT choir_import('%q');"
                      " SELECT * FROM chat; SELECT * FROM files",
                      zFile, zFile);
  fuzzSql(db, z, in.a, in.n);
  sqlite3_free(z);
  fuzzMust(db, "ROLLBACK TO fuzz; RELEASE fuzz");
}
