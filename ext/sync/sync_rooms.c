/* SPDX-License-Identifier: MIT */
/*
** What a merge does with each table of choir's: one line in aRoom below. And the
** tables that are not merged row by row: the log and what counts by its numbers,
** consumers' places, images of tracked rows, vector indexes; then references
** between rows.
**
** The log: this side's records since base get numbers after the remote's, in their
** order, so no record has the number of another one and seals of the remote stay
** true; between the two stands SYNC_MERGE. That is done in `here`, before rows are merged, and whatever names such a
** number follows.
*/
#include "sync.h"

#define ROOM_TRACK                                                             \
  "log_untrack() here what was tracked here, merge, and log_track() it again"
#define ROOM_POINT                                                             \
  "state_checkpoint_drop() here what was made here, and merge again"

static const ChoirMergeRule aRoom[] = {
    /* table, rule, columns that go together, updated_at: the later one, conflicts
    ** are not written down, what to do about a refusal */
    {"action_log", CHOIR_MERGE_ROWS, "", 0, 1, NULL},
    {"_choir_cursor", CHOIR_MERGE_REMOTE, "", 0, 1, NULL}, /* roomCursors */
    {"_choir_log_candidate", CHOIR_MERGE_REMOTE, "", 0, 1, NULL},
    {"_choir_seal", CHOIR_MERGE_REMOTE, "", 0, 1, NULL},
    {"_choir_sync_*", CHOIR_MERGE_REMOTE, "", 0, 1, NULL},
    {"_choir_meta", CHOIR_MERGE_ROWS, "", 0, 1, NULL}, /* and roomMeta */
    {"_choir_migration", CHOIR_MERGE_ROWS, "", 0, 1, NULL},
    {"sync_state", CHOIR_MERGE_ROWS, "", 0, 1, NULL}, /* and roomMeta */
    /* Tracked tables: images are roomImages'. */
    {"_choir_track", CHOIR_MERGE_SIDE, "", 0, 1, ROOM_TRACK},
    {"_choir_rowid", CHOIR_MERGE_WHOLE, "", 0, 1, NULL},
    {"_choir_undo_*", CHOIR_MERGE_APART, "", 0, 1, ROOM_TRACK},
    /* Events. */
    {"_choir_event_base_*", CHOIR_MERGE_SIDE, "", 0, 1,
     "event_compact() on one side only"},
    {"_choir_event*", CHOIR_MERGE_ROWS, "", 0, 0, NULL},
    /* Made again by choir_index() from the log and the rows. */
    {"_choir_doc", CHOIR_MERGE_REMOTE, "", 0, 1, NULL},
    {"_choir_chunk", CHOIR_MERGE_REMOTE, "", 0, 1, NULL},
    {"_choir_vector", CHOIR_MERGE_REMOTE, "", 0, 1, NULL},
    {"_choir_fts*", CHOIR_MERGE_REMOTE, "", 0, 1, NULL},
    /* Vector indexes: the remote's, and what is merged waits to be put in. */
    {"_choir_vec", CHOIR_MERGE_WHOLE, "", 0, 1, NULL}, /* and roomVectors */
    {"_choir_vec_*", CHOIR_MERGE_WHOLE, "", 0, 1, NULL},
    /* The store. */
    {"artifacts", CHOIR_MERGE_ROWS, "content s3_key size_bytes hash deleted_at",
     1, 0, NULL},
    {"agent_tasks", CHOIR_MERGE_ROWS,
     "status output started_at completed_at error lease_until attempts", 0, 0,
     NULL},
    {"conversation_history", CHOIR_MERGE_ROWS, "", 1, 0, NULL},
    {"user_settings", CHOIR_MERGE_ROWS, "", 1, 0, NULL},
    {"state_storage", CHOIR_MERGE_ROWS, "", 1, 0, NULL},
    {"server_state", CHOIR_MERGE_ROWS, "", 1, 0, NULL},
    {"personas", CHOIR_MERGE_ROWS, "", 1, 0, NULL}, /* and roomPersonas */
    {"memories", CHOIR_MERGE_ROWS, "", 1, 0, NULL},
    {"server_cache", CHOIR_MERGE_ROWS, "", 0, 1, NULL},
    {"state_points", CHOIR_MERGE_SIDE, "", 0, 1, ROOM_POINT},
    {"state_versions", CHOIR_MERGE_SIDE, "", 0, 1, ROOM_POINT},
    {"state_values", CHOIR_MERGE_ROWS, "", 0, 1, NULL},
};

static const ChoirMergeRule roomUser = {"*", CHOIR_MERGE_ROWS, "", 0, 0, NULL};
static const ChoirMergeRule roomShadow = {
    "*",
    CHOIR_MERGE_SIDE,
    "",
    0,
    0,
    "it keeps the rows of a virtual table: make that anew from its source on "
    "one"
    " side"};

/* 1: zName keeps rows of a virtual table of any side. */
static int roomIsShadow(ChoirMerge *p, const char *zName) {
  return choirMergeInt(
             p,
             "SELECT EXISTS(SELECT 1 FROM work.obj WHERE type='table' AND sql"
             " LIKE 'CREATE VIRTUAL %%' AND substr(%Q, 1, length(name) + 1)="
             "name || '_' COLLATE NOCASE)",
             zName) != 0;
}

CHOIR_PRIVATE const ChoirMergeRule *choirMergeRuleOf(ChoirMerge *p,
                                                     const char *zName) {
  int i;
  for (i = 0; i < (int)(sizeof(aRoom) / sizeof(aRoom[0])); i++) {
    if (sqlite3_strglob(aRoom[i].zGlob, zName) == 0) {
      return &aRoom[i];
    }
  }
  return roomIsShadow(p, zName) ? &roomShadow : &roomUser;
}

/* ------------------------------------------------------------------ numbers */

static int roomHas(ChoirMerge *p, const char *zSide, const char *zTable) {
  return choirMergeInt(p,
                       "SELECT count(*) FROM %s.sqlite_schema WHERE"
                       " type='table' AND name=%Q COLLATE NOCASE",
                       zSide, zTable) != 0;
}

/* The numbers given on both sides until now, where a table counts them: a file
** without AUTOINCREMENT has no sqlite_sequence. */
CHOIR_PRIVATE void choirRoomsSequence(ChoirMerge *p) {
  static const char *const azSide[] = {"main", "here"};
  int i;
  choirMergeExec(p, "CREATE TABLE work.sequence(name, seq)");
  for (i = 0; i < 2; i++) {
    if (roomHas(p, azSide[i], "sqlite_sequence")) {
      choirMergeExec(p,
                     "INSERT INTO work.sequence SELECT name, seq FROM"
                     " %s.sqlite_sequence",
                     azSide[i]);
    }
  }
}

/* The last number that a log of a side has ever given. */
static i64 roomLast(ChoirMerge *p, const char *zSide, const char *zLog) {
  i64 iLast = 0, iGiven = 0;
  if (roomHas(p, zSide, zLog)) {
    iLast = choirMergeInt(p, "SELECT coalesce(max(seq), 0) FROM %s.\"%w\"",
                          zSide, zLog);
  }
  if (roomHas(p, zSide, "sqlite_sequence")) {
    iGiven = choirMergeInt(p,
                           "SELECT coalesce((SELECT seq FROM"
                           " %s.sqlite_sequence WHERE name=%Q), 0)",
                           zSide, zLog);
  }
  return iGiven > iLast ? iGiven : iLast;
}

/* Records of here after base's last get numbers after main's and nFree more. */
static i64 roomShift(ChoirMerge *p, const char *zLog, int nFree, i64 *piBase) {
  i64 iThere = roomLast(p, "main", zLog), nUp;
  *piBase = roomLast(p, "base", zLog);
  nUp = (iThere > *piBase ? iThere - *piBase : 0) + nFree;
  if (nUp && roomHas(p, "here", zLog)) {
    choirMergeExec(p,
                   "UPDATE here.\"%w\" SET seq=-(seq + %lld) WHERE seq>%lld;"
                   "UPDATE here.\"%w\" SET seq=-seq WHERE seq<0",
                   zLog, nUp, *piBase, zLog);
  }
  return nUp;
}

CHOIR_PRIVATE void choirRoomsNumbers(ChoirMerge *p) {
  i64 iBase, nEvent;
  p->nUp = roomShift(p, "action_log", 1, &p->iBaseSeq);
  p->iThereSeq = p->iBaseSeq + p->nUp - 1; /* the next one is SYNC_MERGE */
  nEvent = roomShift(p, "event_log", 0, &iBase);
  if (nEvent) {
    choirMergeExec(p,
                   "UPDATE here.action_log SET pk=pk + %lld WHERE seq>%lld AND"
                   " tbl='event_log' AND typeof(pk)='integer' AND pk>%lld",
                   nEvent, p->iThereSeq, iBase);
  }
  /* The numbers in a LOG_UNDO's payload. */
  choirMergeExec(
      p,
      "UPDATE here.action_log SET payload=json_set(payload,"
      " '$.from', json_extract(payload, '$.from') + %lld *"
      " (json_extract(payload, '$.from')>%lld),"
      " '$.to', json_extract(payload, '$.to') + %lld *"
      " (json_extract(payload, '$.to')>%lld),"
      " '$.first', json_extract(payload, '$.first') + %lld *"
      " (json_extract(payload, '$.first')>%lld))"
      " WHERE action_type='LOG_UNDO' AND seq>%lld AND json_valid(payload)",
      p->nUp, p->iBaseSeq, p->nUp, p->iBaseSeq, p->nUp, p->iBaseSeq,
      p->iThereSeq);
  /* Records that base has stay as the remote has them, whatever log_prune() or
  ** a DELETE did here: its seals are over them. Only `synced` may change. */
  choirMergeExec(
      p,
      "DELETE FROM here.action_log WHERE seq<=%lld AND EXISTS(SELECT 1 FROM"
      " base.action_log AS b WHERE b.seq=action_log.seq AND (b.id IS NOT"
      " action_log.id OR b.timestamp IS NOT action_log.timestamp OR"
      " b.action_type IS NOT action_log.action_type OR b.payload IS NOT"
      " action_log.payload OR b.tbl IS NOT action_log.tbl OR b.pk IS NOT"
      " action_log.pk));"
      "INSERT INTO here.action_log SELECT * FROM base.action_log WHERE seq NOT"
      " IN (SELECT seq FROM here.action_log)",
      p->iBaseSeq);
  if (roomHas(p, "here", "_choir_seal")) {
    p->nSeal = choirMergeInt(p,
                             "SELECT count(*) FROM here._choir_seal WHERE"
                             " last>%lld",
                             p->iBaseSeq);
  }
}

/* Keys that describe what is the remote's here: as if this side had never
** changed them. */
static void roomMeta(ChoirMerge *p) {
  static const char zKeys[] =
      "(key GLOB 'search.*' OR key GLOB 'qdrant.*' OR key GLOB 'nats.*' OR"
      " key IN ('sync.lineage', 'log.pruned'))";
  static const char zState[] =
      "('lastSyncTimestamp', 'lastLocalVersion', 'lastRemoteVersion')";
  i64 bPruned = choirMergeInt(
      p, "SELECT (SELECT value FROM here._choir_meta WHERE key='log.pruned') IS"
         " NOT (SELECT value FROM base._choir_meta WHERE key='log.pruned')");
  choirMergeExec(p,
                 "DELETE FROM here._choir_meta WHERE %s;"
                 "INSERT INTO here._choir_meta SELECT * FROM base._choir_meta"
                 " WHERE %s;"
                 "DELETE FROM here.sync_state WHERE key IN %s;"
                 "INSERT INTO here.sync_state SELECT * FROM base.sync_state"
                 " WHERE key IN %s",
                 zKeys, zKeys, zState, zState);
  /* Never beyond what both have worked through. The text index and Qdrant's
  ** points are the remote's, and so are their places. */
  choirMergeExec(
      p,
      "UPDATE main._choir_cursor AS m SET seq=min(seq, (SELECT h.seq FROM"
      " here._choir_cursor AS h WHERE h.consumer=m.consumer)) WHERE consumer "
      "NOT"
      " IN ('text', 'qdrant') AND EXISTS(SELECT 1 FROM here._choir_cursor AS h"
      " WHERE h.consumer=m.consumer AND h.seq<=%lld);"
      "INSERT OR IGNORE INTO main._choir_cursor(consumer, seq) SELECT consumer,"
      " min(seq, %lld) FROM here._choir_cursor WHERE consumer NOT IN ('text',"
      " 'qdrant')",
      p->iBaseSeq, p->iBaseSeq);
  if (bPruned) { /* records of what is merged may be gone */
    choirMergeExec(p, "UPDATE main._choir_cursor SET seq=-1");
  }
}

CHOIR_PRIVATE void choirRoomsBefore(ChoirMerge *p) { roomMeta(p); }

/* ------------------------------------------------------------------- images */

/* Columns of images: c1, c2, … of the places that are stored columns. */
static void roomPlaces(ChoirMerge *p, const char *zTable, const char *zAs,
                       ChoirBuf *pInto, ChoirBuf *pFrom) {
  sqlite3_stmt *pPlace =
      choirMergePrepare(p,
                        "SELECT j.key + 1, j.value FROM main._choir_track AS t,"
                        " temp.json_each(t.places) AS j WHERE t.tbl=%Q COLLATE "
                        "NOCASE AND j.value IS"
                        " NOT NULL",
                        zTable);
  while (choirStep(p->pErr, pPlace)) {
    choirBufPrintf(pInto, ",c%d", sqlite3_column_int(pPlace, 0));
    choirBufPrintf(pFrom, ",%s.\"%w\"", zAs, sqlite3_column_text(pPlace, 1));
  }
  sqlite3_finalize(pPlace);
}

/* Rows of main that the merge is about to change, as they are. */
static void roomImageRows(ChoirMerge *p, i64 id, const ChoirMergeShape *s) {
  ChoirBuf into, from, on;
  int i;
  i64 n = choirMergeInt(p,
                        "SELECT json_array_length(places) FROM"
                        " main._choir_track WHERE id=%lld",
                        id);
  choirBufInit(&into, p->pErr, CHOIR_BUF_SQL);
  choirBufInit(&from, p->pErr, CHOIR_BUF_SQL);
  choirBufInit(&on, p->pErr, CHOIR_BUF_SQL);
  roomPlaces(p, s->zTable, "m", &into, &from);
  for (i = 0; i < s->nKey; i++) {
    choirBufPrintf(&on, "%sm.\"%w\"=t.c%d", i ? " AND " : "",
                   s->azCol[s->aKey[i]], s->aKey[i] + 1);
  }
  choirMergeExec(p,
                 "INSERT INTO main._choir_undo_%lld(tag, k%s%s) SELECT %lld,"
                 " %lld%s%s%s FROM work.todo AS t JOIN main.\"%w\" AS m ON %s"
                 " WHERE t.op<>2 ORDER BY t.n",
                 id, s->bOwnRowid ? ", r" : "", into.a ? into.a : "",
                 p->iThereSeq, n, s->bOwnRowid ? ", m." : "",
                 s->bOwnRowid ? s->zRowid : "", from.a ? from.a : "", s->zTable,
                 on.a ? on.a : "");
  choirBufFree(&into);
  choirBufFree(&from);
  choirBufFree(&on);
}

/* Rows that the merge is about to insert: there was none of that key. */
static void roomImageKeys(ChoirMerge *p, i64 id, const ChoirMergeShape *s) {
  ChoirBuf into, from;
  int i;
  choirBufInit(&into, p->pErr, CHOIR_BUF_SQL);
  choirBufInit(&from, p->pErr, CHOIR_BUF_SQL);
  for (i = 0; i < s->nKey; i++) {
    choirBufPrintf(&into, ",c%lld",
                   choirMergeInt(p,
                                 "SELECT j.key + 1 FROM main._choir_track AS"
                                 " t, temp.json_each(t.places) AS j WHERE"
                                 " t.id=%lld AND j.value=%Q COLLATE NOCASE",
                                 id, s->azCol[s->aKey[i]]));
    choirBufPrintf(&from, ",c%d", s->aKey[i] + 1);
  }
  choirMergeExec(p,
                 "INSERT INTO main._choir_undo_%lld(tag, k%s) SELECT %lld, 0%s"
                 " FROM work.todo WHERE op=2 ORDER BY n",
                 id, into.a ? into.a : "", p->iThereSeq, from.a ? from.a : "");
  choirBufFree(&into);
  choirBufFree(&from);
}

/* Images of this side hold as long as the remote left the table alone; they
** follow main's. */
static void roomImageCopy(ChoirMerge *p, i64 id) {
  ChoirBuf b;
  sqlite3_stmt *pCol = choirMergePrepare(
      p,
      "SELECT name FROM temp.pragma_table_info('_choir_undo_%lld', 'main') "
      "WHERE"
      " name NOT IN ('n', 'tag')",
      id);
  choirBufInit(&b, p->pErr, CHOIR_BUF_SQL);
  while (choirStep(p->pErr, pCol)) {
    choirBufPrintf(&b, ",\"%w\"", sqlite3_column_text(pCol, 0));
  }
  sqlite3_finalize(pCol);
  choirMergeExec(p,
                 "INSERT INTO main._choir_undo_%lld(tag%s) SELECT tag + %lld%s"
                 " FROM here._choir_undo_%lld WHERE n>(SELECT coalesce(max(n),"
                 " 0) FROM base._choir_undo_%lld) ORDER BY n",
                 id, b.a ? b.a : "", p->nUp, b.a ? b.a : "", id, id);
  choirBufFree(&b);
}

CHOIR_PRIVATE void choirMergeImages(ChoirMerge *p, const ChoirMergeShape *s) {
  char zUndo[48];
  i64 id = roomHas(p, "main", "_choir_track")
               ? choirMergeInt(p,
                               "SELECT id FROM main._choir_track WHERE undo"
                               " AND tbl=%Q COLLATE NOCASE",
                               s->zTable)
               : 0;
  if (id == 0 || p->pErr->rc != SQLITE_OK) {
    return;
  }
  sqlite3_snprintf(sizeof(zUndo), zUndo, "_choir_undo_%lld", id);
  if (roomHas(p, "here", zUndo) && s->nKey &&
      choirMergeAlike(p, "main", "base", s->zTable)) {
    roomImageCopy(p, id);
    return;
  }
  if (s->nKey) {
    roomImageRows(p, id, s);
    roomImageKeys(p, id, s);
  }
  /* An undo of a record of this side is refused: its images do not tell what was
  ** at the remote. Without a key, of any record before. */
  choirMergeExec(p,
                 "INSERT INTO main.\"%w\"(tag, k) SELECT seq - 1, -3 FROM"
                 " here.action_log WHERE seq>%lld AND tbl=%Q COLLATE NOCASE"
                 " ORDER BY seq",
                 zUndo, s->nKey ? p->iThereSeq : (i64)-1, s->zTable);
}

/* ------------------------------------------------------------------ vectors */

/* Names of the vector indexes over a table: its triggers say so, also after it was
** renamed. The caller finalizes; NULL: there are none. */
CHOIR_PRIVATE sqlite3_stmt *choirMergeIndexes(ChoirMerge *p,
                                              const char *zTable) {
  if (!roomHas(p, "main", "_choir_vec")) {
    return NULL;
  }
  return choirMergePrepare(p,
                           "SELECT v.name FROM main._choir_vec AS v JOIN"
                           " main.sqlite_schema AS s ON s.type='trigger' AND"
                           " s.name='_choir_vec_' || v.name || '_insert' WHERE"
                           " s.tbl_name=%Q COLLATE NOCASE",
                           zTable);
}

/* Indexes that only this side had before, over a table of both: what the remote
** changed waits too. */
static void roomVectorWait(ChoirMerge *p, const char *zIndex,
                           const char *zTable, const char *zColumn) {
  sqlite3_stmt *pKey = choirMergePrepare(
      p, "SELECT name FROM temp.pragma_table_info(%Q, 'main') WHERE pk",
      zTable);
  char *zKey = choirStep(p->pErr, pKey)
                   ? choirMprintf(p->pErr, "%s", sqlite3_column_text(pKey, 0))
                   : NULL;
  sqlite3_finalize(pKey);
  if (zKey) {
    choirMergeExec(
        p,
        "INSERT INTO main.\"_choir_vec_%w_pending\"(id, mark) SELECT id,"
        " random() FROM (SELECT id FROM (SELECT \"%w\" AS id, \"%w\" FROM"
        " main.\"%w\" EXCEPT SELECT \"%w\", \"%w\" FROM here.\"%w\") UNION"
        " SELECT id FROM (SELECT \"%w\" AS id, \"%w\" FROM here.\"%w\" EXCEPT"
        " SELECT \"%w\", \"%w\" FROM main.\"%w\"))",
        zIndex, zKey, zColumn, zTable, zKey, zColumn, zTable, zKey, zColumn,
        zTable, zKey, zColumn, zTable);
  }
  sqlite3_free(zKey);
}

static void roomVectors(ChoirMerge *p) {
  sqlite3_stmt *pNew;
  if (!roomHas(p, "here", "_choir_vec")) {
    return;
  }
  if (roomHas(p, "base", "_choir_vec")) { /* rows made and dropped here */
    choirMergeExec(p,
                   "INSERT OR IGNORE INTO main._choir_vec SELECT * FROM"
                   " here._choir_vec WHERE name NOT IN (SELECT name FROM"
                   " base._choir_vec) AND '_choir_vec_' || name || '_seg' IN"
                   " (SELECT name FROM work.made);"
                   "DELETE FROM main._choir_vec WHERE name IN (SELECT name FROM"
                   " base._choir_vec) AND name NOT IN (SELECT name FROM"
                   " here._choir_vec)");
  }
  pNew = choirMergePrepare(
      p, "SELECT v.name, s.tbl_name, v.col FROM main._choir_vec AS v JOIN"
         " main.sqlite_schema AS s ON s.type='trigger' AND s.name='_choir_vec_'"
         " || v.name || '_insert' WHERE '_choir_vec_' || v.name || '_seg' IN"
         " (SELECT name FROM work.made)");
  while (choirStep(p->pErr, pNew)) {
    const char *zIndex = (const char *)sqlite3_column_text(pNew, 0);
    const char *zTable = (const char *)sqlite3_column_text(pNew, 1);
    const char *zColumn = (const char *)sqlite3_column_text(pNew, 2);
    if (zIndex && zTable && zColumn && roomHas(p, "here", zTable)) {
      roomVectorWait(p, zIndex, zTable, zColumn);
    }
  }
  sqlite3_finalize(pNew);
}

/* Of two personas that became active, the remote's stays so. */
static void roomPersonas(ChoirMerge *p) {
  choirMergeExec(p, "UPDATE main.personas SET is_active=0 WHERE is_active=1 AND"
                    " (SELECT count(*) FROM main.personas WHERE is_active=1)>1"
                    " AND id IN (SELECT id FROM here.personas WHERE is_active=1"
                    " AND id NOT IN (SELECT id FROM base.personas WHERE"
                    " is_active=1))");
}

CHOIR_PRIVATE void choirRoomsAfter(ChoirMerge *p) {
  roomVectors(p);
  roomPersonas(p);
  choirMergeExec(p,
                 "INSERT INTO main.action_log(seq, action_type, payload) SELECT"
                 " %lld, 'SYNC_MERGE', '{\"rows\":%lld,\"conflicts\":' ||"
                 " count(*) || '}' FROM work.conflict;"
                 "INSERT INTO main.action_log(action_type, payload, tbl, pk)"
                 " SELECT 'SYNC_CONFLICT', payload, tbl, pk FROM work.conflict"
                 " ORDER BY rowid",
                 p->iThereSeq + 1, p->nRow);
  if (roomHas(p, "main", "sqlite_sequence")) {
    choirMergeExec(p, "UPDATE main.sqlite_sequence AS m SET seq=max(seq,"
                      " coalesce((SELECT max(seq) FROM work.sequence AS w WHERE"
                      " w.name=m.name), 0))");
  }
}

/* --------------------------------------------------------------- references */

/* Columns of here that refer to rows of zTable by zKey follow work.moved. */
CHOIR_PRIVATE void choirMergeFollow(ChoirMerge *p, const char *zTable,
                                    const char *zKey) {
  sqlite3_stmt *pRef = choirMergePrepare(
      p,
      "SELECT t.name, f.\"from\" FROM here.sqlite_schema AS t,"
      " temp.pragma_foreign_key_list(t.name, 'here') AS f WHERE t.type='table' "
      "AND"
      " t.rootpage>0 AND f.\"table\"=%Q COLLATE NOCASE AND coalesce(f.\"to\","
      " %Q)=%Q COLLATE NOCASE",
      zTable, zKey, zKey);
  while (choirStep(p->pErr, pRef)) {
    const char *zChild = (const char *)sqlite3_column_text(pRef, 0);
    const char *zFrom = (const char *)sqlite3_column_text(pRef, 1);
    if (zChild && zFrom) {
      choirMergeExec(p,
                     "UPDATE here.\"%w\" SET \"%w\"=(SELECT new FROM work.moved"
                     " WHERE old=\"%w\") WHERE \"%w\" IN (SELECT old FROM"
                     " work.moved)",
                     zChild, zFrom, zFrom, zFrom);
    }
  }
  sqlite3_finalize(pRef);
}

/* One foreign key, as SQL over the rows c that refer, the rows m or q referred to,
** and a row a of work.lost, which has the key in k1, k2, …. */
typedef struct RoomRef {
  ChoirBuf from, set, has, on;
  char *zTo; /* the first column referred to */
  int n;
} RoomRef;

#define ROOM_KEY                                                               \
  8 /* columns of a foreign key; of longer ones nothing is known */

static void roomRefFree(RoomRef *r) {
  choirBufFree(&r->from);
  choirBufFree(&r->set);
  choirBufFree(&r->has);
  choirBufFree(&r->on);
  sqlite3_free(r->zTo);
}

static void roomRefRead(ChoirMerge *p, RoomRef *r, const char *zChild,
                        const char *zParent, i64 iFk) {
  sqlite3_stmt *pCol = choirMergePrepare(
      p,
      "SELECT f.\"from\", coalesce(f.\"to\", (SELECT c.name FROM"
      " temp.pragma_table_info(%Q, 'main') AS c WHERE c.pk=f.seq + 1), '') FROM"
      " temp.pragma_foreign_key_list(%Q, 'main') AS f WHERE f.id=%lld ORDER BY"
      " f.seq",
      zParent, zChild, iFk);
  memset(r, 0, sizeof(*r));
  choirBufInit(&r->from, p->pErr, CHOIR_BUF_SQL);
  choirBufInit(&r->set, p->pErr, CHOIR_BUF_SQL);
  choirBufInit(&r->has, p->pErr, CHOIR_BUF_SQL);
  choirBufInit(&r->on, p->pErr, CHOIR_BUF_SQL);
  while (choirStep(p->pErr, pCol)) {
    const char *zFrom = (const char *)sqlite3_column_text(pCol, 0);
    const char *zTo = (const char *)sqlite3_column_text(pCol, 1);
    const char *zAnd = r->n++ ? " AND " : "";
    choirBufPrintf(&r->from, ",c.\"%w\"", zFrom);
    choirBufPrintf(&r->set, "%sc.\"%w\" IS NOT NULL", zAnd, zFrom);
    choirBufPrintf(&r->has, "%sm.\"%w\"=c.\"%w\"", zAnd, zTo, zFrom);
    choirBufPrintf(&r->on, "%sq.\"%w\"=a.k%d", zAnd, zTo, r->n);
    if (r->zTo == NULL) {
      r->zTo = choirMprintf(p->pErr, "%s", zTo);
    }
  }
  sqlite3_finalize(pCol);
}

/* The keys that rows of a side's zChild refer to and that are not there. */
static void roomLostOf(ChoirMerge *p, const char *zInto, const char *zSide,
                       const char *zChild, const char *zParent, i64 iFk) {
  RoomRef ref;
  int i;
  roomRefRead(p, &ref, zChild, zParent, iFk);
  for (i = ref.n; i < ROOM_KEY; i++) {
    choirBufText(&ref.from, ",NULL");
  }
  if (roomHas(p, zSide, zParent)) {
    choirBufPrintf(&ref.set,
                   " AND NOT EXISTS(SELECT 1 FROM %s.\"%w\" AS m WHERE %s)",
                   zSide, zParent, ref.has.a ? ref.has.a : "");
  }
  if (p->pErr->rc == SQLITE_OK && ref.n <= ROOM_KEY) {
    choirMergeExec(p,
                   "INSERT INTO work.%s SELECT DISTINCT %Q, %Q, %lld%s FROM"
                   " %s.\"%w\" AS c WHERE %s",
                   zInto, zChild, zParent, iFk, ref.from.a, zSide, zChild,
                   ref.set.a);
  }
  roomRefFree(&ref);
}

/* 1: every foreign key of the table names a key, so that SQLite could check. */
static int roomCheckable(ChoirMerge *p, const char *zTable) {
  char *z =
      choirMprintf(p->pErr, "PRAGMA main.foreign_key_check(\"%w\")", zTable);
  sqlite3_stmt *pCheck = NULL;
  int rc = z ? sqlite3_prepare_v2(p->db, z, -1, &pCheck, NULL) : SQLITE_NOMEM;
  if ((rc & 0xff) != SQLITE_ERROR) {
    choirErrDb(p->pErr, p->db, rc);
  }
  sqlite3_finalize(pCheck);
  sqlite3_free(z);
  return rc == SQLITE_OK;
}

/* What is referred to and not there, of all tables of a side. */
static void roomLost(ChoirMerge *p, const char *zInto, const char *zSide) {
  sqlite3_stmt *pFk = choirMergePrepare(
      p, "SELECT t.name, f.\"table\", f.id FROM main.sqlite_schema AS t,"
         " temp.pragma_foreign_key_list(t.name, 'main') AS f WHERE "
         "t.type='table' AND"
         " t.rootpage>0 AND f.seq=0");
  while (choirStep(p->pErr, pFk)) {
    const char *zChild = (const char *)sqlite3_column_text(pFk, 0);
    const char *zParent = (const char *)sqlite3_column_text(pFk, 1);
    if (zChild && zParent && roomHas(p, zSide, zChild) &&
        roomCheckable(p, zChild)) {
      roomLostOf(p, zInto, zSide, zChild, zParent,
                 sqlite3_column_int64(pFk, 2));
    }
  }
  sqlite3_finalize(pFk);
}

CHOIR_PRIVATE void choirRoomsOrphans(ChoirMerge *p) {
  choirMergeExec(p,
                 "CREATE TABLE work.orphan(tbl, parent, fk, k1, k2, k3, k4,"
                 " k5, k6, k7, k8);"
                 "CREATE INDEX work.orphan_key ON orphan(tbl, fk, k1);"
                 "CREATE TABLE work.lost(tbl, parent, fk, k1, k2, k3, k4, k5,"
                 " k6, k7, k8);"
                 "CREATE TABLE work.back(k)");
  roomLost(p, "orphan", "main");
}

CHOIR_PRIVATE void choirRoomsOwnOrphans(ChoirMerge *p) {
  roomLost(p, "orphan", "here");
}

/* Rows that came back into zTable, by the column referred to, in work.back. */
static void roomBack(ChoirMerge *p, const char *zTable) {
  sqlite3_stmt *pIndex = choirMergeIndexes(p, zTable);
  choirMergeExec(p,
                 "INSERT INTO work.conflict(tbl, pk, kind, payload) SELECT %Q,"
                 " k, 'restored', '{\"kind\":\"restored\"}' FROM work.back",
                 zTable);
  while (choirStep(p->pErr, pIndex)) {
    choirMergeExec(p,
                   "INSERT INTO main.\"_choir_vec_%w_pending\"(id, mark) SELECT"
                   " k, random() FROM work.back WHERE typeof(k)='integer'",
                   sqlite3_column_text(pIndex, 0));
  }
  sqlite3_finalize(pIndex);
}

/* Rows of zSide that rows of zChild refer to and main has not, put there. */
static void roomParents(ChoirMerge *p, const char *zSide, const char *zChild,
                        const char *zParent, i64 iFk) {
  RoomRef ref;
  ChoirBuf cols;
  int n;
  sqlite3_stmt *pCol = choirMergePrepare(
      p, "SELECT name FROM temp.pragma_table_xinfo(%Q, 'main') WHERE hidden=0",
      zParent);
  choirBufInit(&cols, p->pErr, CHOIR_BUF_SQL);
  while (choirStep(p->pErr, pCol)) {
    choirBufPrintf(&cols, "%s\"%w\"", cols.n ? "," : "",
                   sqlite3_column_text(pCol, 0));
  }
  sqlite3_finalize(pCol);
  roomRefRead(p, &ref, zChild, zParent, iFk);
  if (p->pErr->rc == SQLITE_OK && cols.n) {
    choirMergeExec(
        p,
        "DELETE FROM work.back;"
        "INSERT INTO work.back SELECT q.\"%w\" FROM work.lost AS a"
        " JOIN %s.\"%w\" AS q ON %s WHERE a.tbl=%Q AND a.fk=%lld;"
        "INSERT OR IGNORE INTO main.\"%w\"(%s) SELECT %s FROM"
        " work.lost AS a JOIN %s.\"%w\" AS q ON %s WHERE a.tbl=%Q AND"
        " a.fk=%lld",
        ref.zTo, zSide, zParent, ref.on.a, zChild, iFk, zParent, cols.a, cols.a,
        zSide, zParent, ref.on.a, zChild, iFk);
    n = sqlite3_changes(p->db); /* none where a UNIQUE index is in the way */
    p->nRow += n;
    if (n) {
      roomBack(p, zParent);
    }
  }
  roomRefFree(&ref);
  choirBufFree(&cols);
}

/* A row that one side deleted and the other still refers to comes back. */
static void roomRestore(ChoirMerge *p, const char *zSide) {
  sqlite3_stmt *pLost =
      choirMergePrepare(p, "SELECT DISTINCT tbl, parent, fk FROM work.lost");
  while (choirStep(p->pErr, pLost)) {
    const char *zChild = (const char *)sqlite3_column_text(pLost, 0);
    const char *zParent = (const char *)sqlite3_column_text(pLost, 1);
    if (zChild && zParent && roomHas(p, zSide, zParent) &&
        roomHas(p, "main", zParent)) {
      roomParents(p, zSide, zChild, zParent, sqlite3_column_int64(pLost, 2));
    }
  }
  sqlite3_finalize(pLost);
}

/* What the merge has torn from its row: work.lost, without what either side had
** torn before. */
static i64 roomTorn(ChoirMerge *p) {
  choirMergeExec(p, "DELETE FROM work.lost");
  roomLost(p, "lost", "main");
  choirMergeExec(p,
                 "DELETE FROM work.lost WHERE EXISTS(SELECT 1 FROM work.orphan"
                 " AS o WHERE o.tbl=lost.tbl AND o.fk=lost.fk AND o.k1 IS"
                 " lost.k1 AND o.k2 IS lost.k2 AND o.k3 IS lost.k3 AND o.k4 IS"
                 " lost.k4 AND o.k5 IS lost.k5 AND o.k6 IS lost.k6 AND o.k7 IS"
                 " lost.k7 AND o.k8 IS lost.k8)");
  return choirMergeInt(p, "SELECT count(*) FROM work.lost");
}

CHOIR_PRIVATE void choirRoomsRestore(ChoirMerge *p) {
  sqlite3_stmt *pLost;
  i64 nLost, nBefore;
  do {
    nBefore = p->nRow;
    nLost = roomTorn(p);
    if (nLost) {
      roomRestore(p, "here");
      nLost = roomTorn(p);
    }
    if (nLost) {
      roomRestore(p, "base");
    }
  } while (nLost && p->nRow > nBefore && p->pErr->rc == SQLITE_OK);
  pLost =
      choirMergePrepare(p, "SELECT count(*), tbl, parent FROM work.lost GROUP"
                           " BY 2, 3 LIMIT 1");
  if (nLost && choirStep(p->pErr, pLost)) {
    choirMergeRefuse(
        p, "rows of %s would refer to %lld of %s that are not there",
        sqlite3_column_text(pLost, 1), sqlite3_column_int64(pLost, 0),
        sqlite3_column_text(pLost, 2));
  }
  sqlite3_finalize(pLost);
}
