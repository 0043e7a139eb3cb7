/* SPDX-License-Identifier: MIT */
/* Paths of artifacts: what is accepted is absolute, without '.' and '..', and
** stays the same when it is given again. */
#include "fuzz.h"
#include "../../ext/store/store.h"

FUZZ(paths) {
  static const char *const azStory[] = {
      "SELECT artifact_put(?1, 'x'); SELECT artifact_get(?1);"
      " SELECT artifact_move(?1, '/fuzz/moved'); SELECT path FROM "
      "artifact_ls()",
      "SELECT path FROM artifact_ls(?1, 1)",
      "SELECT artifact_put('/f', 'x', ?1)",
      "SELECT artifact_put('/f', 'x', NULL, ?1)",
      "SELECT artifact_put('/f', ?2), artifact_put(?1, ?2); SELECT * FROM "
      "files",
      "SELECT artifact_delete(?1); SELECT artifact_move('/f', ?1)",
      "SELECT cache_set(?1, ?2, ?3); SELECT cache_get(?1);"
      " SELECT cache_purge(?1)",
      "SELECT setting_set(?1, ?1); SELECT setting_get(?1)",
      "SELECT server_state_set(?1, ?1, ?2); SELECT server_state_get(?1, ?1)",
      "SELECT message_add(conversation_create(?1), 'user', ?1, ?1);"
      " SELECT * FROM chat; SELECT * FROM timeline",
      "SELECT task_add(?1, ?1, ?3); SELECT task_claim(?1); SELECT task_done(?1,"
      " ?1)",
      "SELECT artifact_put('/c', 'x'); SELECT citation_add('/c', ?1, ?4, ?1)",
      NULL};
  FuzzIn in = {a, n};
  ChoirErr err = {SQLITE_OK, NULL};
  int eKind = fuzzByte(&in) % 3;
  char *zPath = fuzzPart(&in, NULL);
  char *z = choirStorePath(&err, zPath, "path", eKind), *zAgain;
  if (z) {
    MUST(z[0] == '/' && strstr(z, "//") == NULL && strstr(z, "/../") == NULL);
    MUST(strlen(z) <= CHOIR_STORE_PATH_MAX && strstr(z, "/./") == NULL);
    MUST(choirUtf8Valid(z, (i64)strlen(z)) == (i64)strlen(z));
    zAgain = choirStorePath(&err, z, "path", eKind);
    MUST(zAgain && strcmp(z, zAgain) == 0);
    sqlite3_free(zAgain);
    if (eKind == CHOIR_STORE_DIR) {
      zAgain = choirStoreEnd(&err, z);
      MUST(zAgain && strcmp(z, zAgain) < 0);
      sqlite3_free(zAgain);
    }
    MUST(choirStoreName(z) >= z && choirStoreName(z) <= z + strlen(z));
    MUST(choirStoreMime(z, in.a, (i64)in.n) != NULL);
  }
  sqlite3_free(z);
  sqlite3_free(zPath);
  choirErrClear(&err);
  fuzzStory(fuzzDb(), azStory, a, n);
}
