/* SPDX-License-Identifier: MIT */
/* Where a file stands: the rows and the seal, as bytes of a stranger; the page
** in which a seal is looked for. */
#include "fuzz.h"
#include "../../ext/sync/sync.h"

static void positionSeal(const u8 *a, u64 n) {
  u8 aSeal[CHOIR_SYNC_SEAL] = {0}, aId[CHOIR_SYNC_ID] = {7};
  u64 iTxid = 0;
  const u8 *aKnown;
  memcpy(aSeal, a, n < sizeof(aSeal) ? n : sizeof(aSeal));
  choirSealKnown(aSeal, "file:///a", "e");
  choirSealFolder(aSeal, "file:///a/", &iTxid);
  choirSealLearn(aSeal, "file:///a", "e", aId);
  aKnown = choirSealKnown(aSeal, "file:///a", "e");
  MUST(aKnown && memcmp(aKnown, aId, CHOIR_SYNC_ID) == 0);
  choirSealLearnFolder(aSeal, "file:///b/", 99, aId);
  aKnown = choirSealFolder(aSeal, "file:///b/", &iTxid);
  MUST(aKnown && iTxid == 99 && memcmp(aKnown, aId, CHOIR_SYNC_ID) == 0);
}

FUZZ(position) {
  static const char *const azStory[] = {
      "UPDATE _choir_sync_seal SET seal = ?2; SELECT * FROM sync_status",
      "UPDATE _choir_sync_seal SET id = ?3; SELECT * FROM sync_status",
      "UPDATE _choir_sync_history SET push_id = ?2; SELECT * FROM sync_status",
      "UPDATE _choir_sync_history SET txid = ?3, time = ?3;"
      " SELECT * FROM sync_status; SELECT sync_verify()",
      "UPDATE _choir_meta SET value = ?1 WHERE key = 'sync.lineage';"
      " SELECT * FROM sync_status; SELECT sync_verify()",
      "UPDATE sync_state SET value = ?2; SELECT * FROM sync_health;"
      " SELECT * FROM sync_status",
      "DELETE FROM _choir_meta; SELECT * FROM sync_status;"
      " SELECT choir_check(), choir_init()",
      "UPDATE _choir_meta SET value = ?1; SELECT choir_check(); SELECT"
      " choir_init(); SELECT * FROM choir_doctor",
      "UPDATE _choir_migration SET version = ?3; SELECT choir_init();"
      " SELECT choir_check(); SELECT * FROM sync_status",
      "SELECT sync_schedule(?3), sync_due(), sync_auto(?3, ?1)",
      NULL};
  static const u8 aLeaf[] = {0x0d, 0, 0, 0, 1};
  static sqlite3 *db;
  FuzzIn in = {a, n};
  u8 *aPage = sqlite3_malloc64(4096);
  if (db == NULL) {
    db = fuzzOpen(":memory:");
    fuzzMust(db, "SELECT choir_config('remote', 'file://%q/p.db')", fuzzDir());
    fuzzMust(db, "SELECT sync_push()");
  }
  memset(aPage, 0, 4096);
  memcpy(aPage, aLeaf, sizeof(aLeaf));
  memcpy(aPage + 4096 - (n < 4000 ? n : 4000), a, n < 4000 ? n : 4000);
  aPage[8] = fuzzByte(&in);
  aPage[9] = fuzzByte(&in);
  MUST(choirSealFind(aPage, 4096) <= 4096 - CHOIR_SYNC_SEAL);
  sqlite3_free(aPage);
  positionSeal(a, n);
  fuzzStory(db, azStory, a, n);
}
