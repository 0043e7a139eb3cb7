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

#define ROOM_PASSES 32 /* rows that come back may refer to others */
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
                       " type='table' AND name=%Q",
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
  /* What log_prune() took away here stays as long as it is at the remote: its
  ** seals are over it. */
  choirMergeExec(p, "INSERT INTO here.action_log SELECT * FROM base.action_log"
                    " WHERE seq NOT IN (SELECT seq FROM here.action_log)");
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
  sqlite3_stmt *pPlace = choirMergePrepare(
      p,
      "SELECT j.key + 1, j.value FROM main._choir_track AS t,"
      " json_each(t.places) AS j WHERE t.tbl=%Q COLLATE NOCASE AND j.value IS"
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
                                 " t, json_each(t.places) AS j WHERE"
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
      "SELECT name FROM pragma_table_info('_choir_undo_%lld', 'main') WHERE"
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

/* Indexes that only this side had before, over a table of both: what the remote
** changed waits too. */
static void roomVectorWait(ChoirMerge *p, const char *zIndex,
                           const char *zTable, const char *zColumn) {
  sqlite3_stmt *pKey = choirMergePrepare(
      p, "SELECT name FROM pragma_table_info(%Q, 'main') WHERE pk", zTable);
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
  pNew = choirMergePrepare(p, "SELECT name, tbl, col FROM main._choir_vec WHERE"
                              " '_choir_vec_' || name || '_seg' IN (SELECT name"
                              " FROM work.made)");
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
      " pragma_foreign_key_list(t.name, 'here') AS f WHERE t.type='table' AND"
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

/* Rows of one table that refer to none. Where a foreign key names columns that
** are no key, SQLite cannot tell, and nothing is counted. */
static void roomOrphansOf(ChoirMerge *p, const char *zTable,
                          sqlite3_stmt *pOut) {
  char *z =
      choirMprintf(p->pErr, "PRAGMA main.foreign_key_check(\"%w\")", zTable);
  sqlite3_stmt *pCheck = NULL;
  int rc = z ? sqlite3_prepare_v2(p->db, z, -1, &pCheck, NULL) : SQLITE_NOMEM;
  sqlite3_free(z);
  while (pCheck && p->pErr->rc == SQLITE_OK &&
         (rc = sqlite3_step(pCheck)) == SQLITE_ROW) {
    choirBindValue(p->pErr, pOut, 1, sqlite3_column_value(pCheck, 0));
    choirBindValue(p->pErr, pOut, 2, sqlite3_column_value(pCheck, 2));
    choirBindValue(p->pErr, pOut, 3, sqlite3_column_value(pCheck, 3));
    choirStep(p->pErr, pOut);
    sqlite3_reset(pOut);
  }
  if ((rc & 0xff) != SQLITE_ERROR) {
    choirErrDb(p->pErr, p->db, rc);
  }
  sqlite3_finalize(pCheck);
}

/* How many rows of each table refer to none, by foreign key. */
static void roomOrphans(ChoirMerge *p, const char *zInto) {
  sqlite3_stmt *pTable, *pOut;
  choirMergeExec(p,
                 "DROP TABLE IF EXISTS work.%s; CREATE TABLE work.%s(tbl,"
                 " parent, fk, n, PRIMARY KEY(tbl, fk))",
                 zInto, zInto);
  pOut = choirMergePrepare(p,
                           "INSERT INTO work.%s VALUES(?1, ?2, ?3, 1) ON"
                           " CONFLICT DO UPDATE SET n=n+1",
                           zInto);
  pTable = choirMergePrepare(
      p, "SELECT name FROM main.sqlite_schema AS t WHERE type='table' AND"
         " rootpage>0 AND EXISTS(SELECT 1 FROM pragma_foreign_key_list(t.name,"
         " 'main'))");
  while (choirStep(p->pErr, pTable)) {
    const char *z = (const char *)sqlite3_column_text(pTable, 0);
    if (z) {
      roomOrphansOf(p, z, pOut);
    }
  }
  sqlite3_finalize(pTable);
  sqlite3_finalize(pOut);
}

CHOIR_PRIVATE void choirRoomsOrphans(ChoirMerge *p) {
  roomOrphans(p, "orphan");
}

/* The rows q of zSide's table that zWhere (freed) is true of, into main. */
static void roomBack(ChoirMerge *p, const char *zSide, const char *zTable,
                     const char *zKey, const char *zCols, char *zWhere) {
  sqlite3_stmt *pIndex = NULL;
  choirMergeExec(
      p,
      "DELETE FROM work.back;"
      "INSERT INTO work.back SELECT q.\"%w\" FROM %s.\"%w\" AS q"
      " WHERE %s;"
      "INSERT INTO work.conflict(tbl, pk, kind, payload) SELECT %Q, k,"
      " 'restored', '{\"kind\":\"restored\"}' FROM work.back;"
      "INSERT OR IGNORE INTO main.\"%w\"(%s) SELECT %s FROM %s.\"%w\""
      " AS q WHERE %s",
      zKey, zSide, zTable, zWhere, zTable, zTable, zCols, zCols, zSide, zTable,
      zWhere);
  sqlite3_free(zWhere);
  p->nRow += choirMergeInt(p, "SELECT count(*) FROM work.back");
  if (roomHas(p, "main", "_choir_vec")) {
    pIndex = choirMergePrepare(p,
                               "SELECT name FROM main._choir_vec WHERE tbl=%Q"
                               " COLLATE NOCASE",
                               zTable);
  }
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
  ChoirBuf on, has, cols;
  char *zTo = NULL;
  sqlite3_stmt *pFk = choirMergePrepare(
      p,
      "SELECT f.\"from\", coalesce(f.\"to\", (SELECT c.name FROM"
      " pragma_table_info(%Q, 'main') AS c WHERE c.pk=f.seq + 1)) FROM"
      " pragma_foreign_key_list(%Q, 'main') AS f WHERE f.id=%lld ORDER BY"
      " f.seq",
      zParent, zChild, iFk);
  choirBufInit(&on, p->pErr, CHOIR_BUF_SQL);
  choirBufInit(&has, p->pErr, CHOIR_BUF_SQL);
  choirBufInit(&cols, p->pErr, CHOIR_BUF_SQL);
  while (choirStep(p->pErr, pFk)) {
    const char *zA = (const char *)sqlite3_column_text(pFk, 0);
    const char *zB = (const char *)sqlite3_column_text(pFk, 1);
    choirBufPrintf(&on, "%sc.\"%w\"=q.\"%w\"", on.n ? " AND " : "", zA, zB);
    choirBufPrintf(&has, "%sm.\"%w\"=q.\"%w\"", has.n ? " AND " : "", zB, zB);
    if (zTo == NULL) {
      zTo = choirMprintf(p->pErr, "%s", zB);
    }
  }
  sqlite3_finalize(pFk);
  pFk = choirMergePrepare(p,
                          "SELECT name FROM pragma_table_xinfo(%Q, 'main')"
                          " WHERE hidden=0",
                          zParent);
  while (choirStep(p->pErr, pFk)) {
    choirBufPrintf(&cols, "%s\"%w\"", cols.n ? "," : "",
                   sqlite3_column_text(pFk, 0));
  }
  sqlite3_finalize(pFk);
  if (p->pErr->rc == SQLITE_OK && on.n && cols.n) {
    roomBack(p, zSide, zParent, zTo, cols.a,
             choirMprintf(p->pErr,
                          "EXISTS(SELECT 1 FROM main.\"%w\" AS c WHERE %s) AND"
                          " NOT EXISTS(SELECT 1 FROM main.\"%w\" AS m WHERE"
                          " %s)",
                          zChild, on.a, zParent, has.a));
  }
  sqlite3_free(zTo);
  choirBufFree(&on);
  choirBufFree(&has);
  choirBufFree(&cols);
}

static const char zRoomLost[] =
    "SELECT a.tbl, a.parent, a.fk, a.n - coalesce(b.n, 0) FROM work.after AS a"
    " LEFT JOIN work.orphan AS b ON b.tbl=a.tbl AND b.fk=a.fk"
    " WHERE a.n>coalesce(b.n, 0) LIMIT 1 OFFSET %d";

/* A row that one side deleted and the other still refers to comes back. */
static void roomRestore(ChoirMerge *p, int i) {
  sqlite3_stmt *pLost = choirMergePrepare(p, zRoomLost, i);
  if (choirStep(p->pErr, pLost)) {
    const char *zChild = (const char *)sqlite3_column_text(pLost, 0);
    const char *zParent = (const char *)sqlite3_column_text(pLost, 1);
    i64 iFk = sqlite3_column_int64(pLost, 2);
    if (zChild && zParent && roomHas(p, "here", zParent)) {
      roomParents(p, "here", zChild, zParent, iFk);
      roomParents(p, "base", zChild, zParent, iFk);
    }
  }
  sqlite3_finalize(pLost);
}

CHOIR_PRIVATE void choirRoomsRestore(ChoirMerge *p) {
  i64 nLost = INT64_MAX, nBefore;
  sqlite3_stmt *pLost;
  int i, nPass = 0;
  do {
    nBefore = nLost;
    roomOrphans(p, "after");
    nLost = choirMergeInt(p, "SELECT count(*) FROM (SELECT 1 FROM work.after AS"
                             " a LEFT JOIN work.orphan AS b ON b.tbl=a.tbl AND"
                             " b.fk=a.fk WHERE a.n>coalesce(b.n, 0))");
    for (i = 0; i < nLost && nLost <= nBefore; i++) {
      roomRestore(p, i);
    }
  } while (nLost && ++nPass < ROOM_PASSES && p->pErr->rc == SQLITE_OK);
  pLost = choirMergePrepare(p, zRoomLost, 0);
  if (nLost && choirStep(p->pErr, pLost)) {
    choirMergeRefuse(p,
                     "%lld rows of %s would refer to rows of %s that are not"
                     " there",
                     sqlite3_column_int64(pLost, 3),
                     sqlite3_column_text(pLost, 0),
                     sqlite3_column_text(pLost, 1));
  }
  sqlite3_finalize(pLost);
}
