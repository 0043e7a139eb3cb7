/* SPDX-License-Identifier: MIT */
/*
** event_define(), event_policy() and event_emit(): events that are checked and
** applied by triggers, so that a plain INSERT into event_log is an event too.
**
** Owns in the file, from the first event_define() on:
**
**   event_log                  the events, the user's: seq, id, name, payload,
**                              timestamp
**   _choir_event               names and shapes
**   _choir_event_table         the tables that the materializer of a name writes
**   _choir_event_apply         a view: what is inserted into it is applied
**   _choir_event_store         trigger: an event in event_log is recorded in
**                              action_log and applied
**   _choir_event_none          trigger on the view, without which it would take
**                              no INSERT as long as no materializer is there
**   _choir_event_refuse        trigger: names that are not defined, and
**   _choir_event_ignore        another; _choir_meta's event.unknown says which
**   _choir_event_check_<name>  trigger: is the payload of its shape?
**   _choir_event_do_<name>     trigger on the view: the materializer
**   _choir_event_base_<table>  see log_replay.c
**
** No SQL text from the file is executed: a materializer is a trigger, and SQLite
** treats it as one that came with the file. These triggers use JSON functions,
** which SQLite before 3.41 refuses in a schema when trusted_schema is off;
** they are on no table but event_log.
*/
#include "log.h"

#define EVENT_UNKNOWN                                                          \
  " BEFORE INSERT ON event_log WHEN NEW.name NOT IN(SELECT name FROM"          \
  " _choir_event) AND coalesce((SELECT value FROM _choir_meta WHERE"           \
  " key='event.unknown'),'fail')="

CHOIR_PRIVATE int choirLogEventMade(ChoirConn *pConn, ChoirErr *pErr) {
  return choirExists(pConn, pErr, "table", "_choir_event");
}

/* The default of a column of action_log: an id, the time; caller frees. */
static char *eventDefault(ChoirConn *pConn, ChoirErr *pErr,
                          const char *zColumn) {
  char *z = NULL;
  sqlite3_stmt *p =
      choirPrepare(pConn, pErr, "PRAGMA ~.table_info(action_log)");
  while (choirStep(pErr, p)) {
    const char *zName = (const char *)sqlite3_column_text(p, 1);
    if (zName && strcmp(zName, zColumn) == 0 && z == NULL) {
      z = choirMprintf(pErr, "%s", sqlite3_column_text(p, 4));
    }
  }
  sqlite3_finalize(p);
  return z;
}

static void eventMake(ChoirConn *pConn, ChoirErr *pErr) {
  char *zId, *zNow;
  if (choirLogEventMade(pConn, pErr) || pErr->rc != SQLITE_OK) {
    return;
  }
  zId = eventDefault(pConn, pErr, "id");
  zNow = eventDefault(pConn, pErr, "timestamp");
  if (!choirExists(pConn, pErr, NULL, "event_log")) {
    choirExec(pConn, pErr,
              "CREATE TABLE ~.event_log(seq INTEGER PRIMARY KEY AUTOINCREMENT,"
              " id TEXT NOT NULL DEFAULT (%s), name TEXT NOT NULL, payload JSON"
              " NOT NULL, timestamp INTEGER NOT NULL DEFAULT (%s))",
              zId, zNow);
  }
  choirExec(
      pConn, pErr,
      "CREATE TABLE ~._choir_event(name TEXT PRIMARY KEY NOT NULL, shape"
      " TEXT NOT NULL) WITHOUT ROWID;"
      "CREATE TABLE ~._choir_event_table(name TEXT NOT NULL, tbl TEXT NOT"
      " NULL, PRIMARY KEY(name, tbl)) WITHOUT ROWID;"
      "CREATE VIEW ~._choir_event_apply AS SELECT seq, id, name,"
      " payload, timestamp FROM event_log;"
      "CREATE TRIGGER ~._choir_event_none INSTEAD OF INSERT ON"
      " _choir_event_apply WHEN 0 BEGIN SELECT 1; END;"
      "CREATE TRIGGER ~._choir_event_store AFTER INSERT ON event_log"
      " BEGIN INSERT INTO action_log(id, timestamp, action_type, payload,"
      " tbl, pk) VALUES(NEW.id, NEW.timestamp, 'EVENT', CASE WHEN NEW.name"
      " GLOB '*[^A-Za-z0-9_.:-]*' THEN '{}' ELSE '{\"name\":\"' ||"
      " NEW.name || '\"}' END, 'event_log', NEW.seq);"
      " INSERT INTO _choir_event_apply(seq, id, name, payload,"
      " timestamp) VALUES(NEW.seq, NEW.id, NEW.name, NEW.payload,"
      " NEW.timestamp); END;"
      "CREATE TRIGGER ~._choir_event_refuse" EVENT_UNKNOWN "'fail' BEGIN"
      " SELECT RAISE(ABORT,'events of this name are not defined; see"
      " event_define and event_policy'); END;"
      "CREATE TRIGGER ~._choir_event_ignore" EVENT_UNKNOWN "'ignore'"
      " BEGIN SELECT RAISE(IGNORE); END");
  sqlite3_free(zId);
  sqlite3_free(zNow);
}

CHOIR_PRIVATE void choirLogEventNeed(ChoirConn *pConn, ChoirErr *pErr) {
  choirNeedWorkspace(pConn, pErr);
  if (pErr->rc == SQLITE_OK && !choirLogEventMade(pConn, pErr)) {
    choirErrSet(pErr, SQLITE_ERROR,
                "no events are defined; run select event_define(…)");
  }
}

/* ----------------------------------------------------------------- shapes */

static const struct {
  const char *zType;
  const char *zJson; /* what json_type() says of it, as an SQL list */
} aEventType[] = {
    {"text", "'text'"},
    {"integer", "'integer'"},
    {"number", "'integer','real'"},
    {"boolean", "'true','false'"},
    {"object", "'object'"},
    {"array", "'array'"},
    {"any", "'text','integer','real','true','false','object','array','null'"},
};

#define EVENT_TYPES ((int)(sizeof(aEventType) / sizeof(aEventType[0])))

/* One leaf of the shape: a type, with a ? at the end for what may be missing
** or null. */
static void eventLeaf(ChoirErr *pErr, ChoirBuf *b, const char *zName,
                      const char *zPath, const char *zType) {
  size_t n = strlen(zType);
  int i, bMay = n > 0 && zType[n - 1] == '?';
  char *zWhy;
  n -= (size_t)bMay;
  for (i = 0; i < EVENT_TYPES && (strlen(aEventType[i].zType) != n ||
                                  strncmp(aEventType[i].zType, zType, n) != 0);
       i++) {
  }
  if (i == EVENT_TYPES) {
    choirErrSet(pErr, SQLITE_ERROR,
                "%s of the shape must be text, integer, number, boolean,"
                " object, array or any, with ? where it may be missing, got"
                " '%.40s'",
                zPath, zType);
    return;
  }
  zWhy = choirMprintf(pErr, "%s: %s must be %s", zName, zPath, zType);
  choirBufPrintf(b,
                 "SELECT RAISE(ABORT,%Q) WHERE coalesce(json_type(NEW.payload,"
                 "%Q),'%s') NOT IN(%s%s);",
                 zWhy ? zWhy : "", zPath, bMay ? "null" : "missing",
                 aEventType[i].zJson, bMay ? ",'null'" : "");
  sqlite3_free(zWhy);
}

/* The body of the trigger that checks payloads. */
static void eventShape(ChoirConn *pConn, ChoirErr *pErr, ChoirBuf *b,
                       const char *zName, const char *zShape) {
  sqlite3_stmt *p = choirJsonStmt(
      pConn, pErr,
      "SELECT fullkey, atom, type FROM json_tree(?1) WHERE type<>'object'",
      zShape, -1);
  char *zWhy = choirMprintf(pErr, "%s: payload must be a JSON object", zName);
  choirBufPrintf(b,
                 "SELECT RAISE(ABORT,%Q) WHERE CASE WHEN json_valid("
                 "NEW.payload) OR json_valid(NEW.payload) THEN json_type("
                 "NEW.payload) END IS NOT 'object';",
                 zWhy ? zWhy : "");
  sqlite3_free(zWhy);
  while (choirStep(pErr, p)) {
    const char *zPath = (const char *)sqlite3_column_text(p, 0);
    const char *zType = (const char *)sqlite3_column_text(p, 1);
    const char *zKind = (const char *)sqlite3_column_text(p, 2);
    if (zPath == NULL || zKind == NULL) {
      choirErrNomem(pErr);
    } else if (strcmp(zPath, "$") == 0) {
      choirErrSet(pErr, SQLITE_ERROR, "shape must be a JSON object");
    } else {
      eventLeaf(pErr, b, zName, zPath,
                strcmp(zKind, "text") == 0 && zType ? zType : "no text");
    }
  }
  sqlite3_finalize(p);
}

/* ---------------------------------------------------------------- defining */

/* CREATE TRIGGER "schema".z, exactly one statement. */
static void eventTrigger(ChoirConn *pConn, ChoirErr *pErr, const char *zName,
                         const char *zRest) {
  sqlite3_stmt *p = NULL;
  const char *zTail = NULL;
  char *z = choirMprintf(pErr, "CREATE TRIGGER \"%w\".\"%w\" %s",
                         choirSchema(pConn), zName, zRest);
  if (choirExists(pConn, pErr, "trigger", zName)) {
    choirExec(pConn, pErr, "DROP TRIGGER ~.\"%w\"", zName);
  }
  if (z && pErr->rc == SQLITE_OK) {
    choirErrDb(pErr, pConn->db,
               sqlite3_prepare_v2(pConn->db, z, -1, &p, &zTail));
    if (pErr->rc == SQLITE_OK && zTail && zTail[strspn(zTail, " \t\r\n;")]) {
      choirErrSet(pErr, SQLITE_ERROR,
                  "materializer must be statements of a trigger, and ends"
                  " before '%.40s'",
                  zTail);
    }
    choirStep(pErr, p);
  }
  sqlite3_finalize(p);
  sqlite3_free(z);
}

static void eventDrop(ChoirConn *pConn, ChoirErr *pErr, const char *zPrefix,
                      const char *zName) {
  char *z = choirMprintf(pErr, "%s%s", zPrefix, zName);
  if (z && choirExists(pConn, pErr, "trigger", z)) {
    choirExec(pConn, pErr, "DROP TRIGGER ~.\"%w\"", z);
  }
  sqlite3_free(z);
}

/* A version and a name, so that it is a word in every system. */
static const char *eventName(ChoirErr *pErr, sqlite3_value *v) {
  const char *z = choirArgText(pErr, v, "name");
  size_t n = z ? strspn(z, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvw"
                           "xyz0123456789_.:-")
               : 0;
  if (z && (n == 0 || n > 100 || z[n])) {
    choirErrSet(pErr, SQLITE_ERROR,
                "name must be 1 to 100 of A-Z, a-z, 0-9, _, ., : and -, as"
                " v1.PersonaCreated, got '%.120s'",
                z);
    return NULL;
  }
  return z;
}

/* The materializer as a trigger; *pPlan the tables that it writes. */
static void eventMaterializer(ChoirConn *pConn, ChoirErr *pErr,
                              const char *zName, const char *zSql,
                              ChoirLogPlan *pPlan) {
  size_t n = zSql ? strlen(zSql) : 0;
  char *zTrigger = choirMprintf(pErr, "_choir_event_do_%s", zName);
  char *z, *zExplain;
  memset(pPlan, 0, sizeof(*pPlan));
  while (n > 0 && strchr(" \t\r\n;", zSql[n - 1])) {
    n--;
  }
  if (n == 0) {
    eventDrop(pConn, pErr, "_choir_event_do_", zName);
  } else {
    z = choirMprintf(pErr,
                     "INSTEAD OF INSERT ON _choir_event_apply WHEN"
                     " NEW.name=%Q BEGIN %.*s\n; END",
                     zName, (int)n, zSql);
    zExplain = choirMprintf(pErr,
                            "INSERT INTO \"%w\"._choir_event_apply(name)"
                            " VALUES('')",
                            choirSchema(pConn));
    eventTrigger(pConn, pErr, zTrigger ? zTrigger : "", z ? z : "");
    choirLogPlanRead(pConn, pErr, pPlan, zExplain ? zExplain : "",
                     zTrigger ? zTrigger : "");
    if (pPlan->bOther && pErr->rc == SQLITE_OK) {
      choirErrSet(pErr, SQLITE_ERROR,
                  "materializer must write ordinary tables of the workspace's"
                  " schema");
    }
    sqlite3_free(z);
    sqlite3_free(zExplain);
  }
  sqlite3_free(zTrigger);
}

static void eventSave(ChoirConn *pConn, ChoirErr *pErr, const char *zName,
                      const char *zShape, const ChoirLogPlan *pPlan) {
  static const char *const azSql[] = {
      ("INSERT INTO ~._choir_event(name, shape) VALUES(?1, ?2) ON"
       " CONFLICT(name) DO UPDATE SET shape=?2"),
      "DELETE FROM ~._choir_event_table WHERE name=?1 OR ?2 IS NULL",
      "INSERT INTO ~._choir_event_table(name, tbl) VALUES(?1, ?2)"};
  int i;
  for (i = 0; i < pPlan->n + 2; i++) {
    sqlite3_stmt *p = choirStmt(pConn, pErr, azSql[i < 2 ? i : 2]);
    choirBindText(pErr, p, 1, zName, -1);
    choirBindText(pErr, p, 2, i < 2 ? zShape : pPlan->az[i - 2], -1);
    choirStep(pErr, p);
    choirStmtDone(pConn, p);
  }
}

/*
** SQL: event_define(name, json_shape, materializer_sql) -> TEXT
**
** Defines events of a name: which payload they have and what they do. From then
** on event_emit(), and every INSERT into event_log by any program, checks the
** payload and applies the event, in one transaction. Versions stand side by side
** (v1.PersonaCreated, v2.PersonaCreated). Gives {"name","tables"}: those that the
** materializer writes, to be rebuilt by event_replay(). Rows that such a table
** has already are kept as the state before all events. Defining a name again
** replaces what it was.
**
**   name              TEXT, 1 to 100 of A-Z, a-z, 0-9, _, ., : and -
**   json_shape        JSON object: for each key text, integer, number, boolean,
**                     object, array or any, with ? at the end where it may be
**                     missing or null, or an object of the same kind
**   materializer_sql  TEXT, statements of a trigger over NEW.seq, NEW.id,
**                     NEW.payload and NEW.timestamp; '' for none
**
** NULL: a NULL materializer is none.
** Errors: SQL that is no trigger's; a write to a virtual table or action_log.
**
** > SELECT event_define('v1.PersonaCreated', '{"id":"text","name":"text","personality":"object?"}', 'INSERT INTO personas(id, name, personality) VALUES(NEW.payload->>''$.id'', NEW.payload->>''$.name'', coalesce(NEW.payload->''$.personality'', ''{}''))');
** > SELECT length(event_emit('v1.PersonaCreated', '{"id":"p1","name":"Ada"}'));
** > SELECT id, name, personality FROM personas
** = p1|Ada|{}
** > SELECT event_define('v1.Tea', '{"grams":"float"}', '')
** ! event_define: $.grams of the shape must be text, integer, number, boolean, object, array or any, with ? where it may be missing, got 'float'
*/
static void eventDefineCall(ChoirCall *p) {
  ChoirConn *pConn = p->pConn;
  ChoirErr *pErr = &p->err;
  const char *zName = eventName(pErr, p->apArg[0]);
  const char *zShape = choirArgJson(pConn, pErr, p->apArg[1], "json_shape");
  const char *zSql = choirArgTextOrNull(pErr, p->apArg[2], "materializer_sql");
  ChoirLogPlan plan = {NULL, 0, 0};
  ChoirBuf b;
  char *zTrigger;
  int i;
  choirNeedWorkspace(pConn, pErr);
  if (pErr->rc != SQLITE_OK) {
    return;
  }
  eventMake(pConn, pErr);
  choirBufInit(&b, pErr, CHOIR_BUF_SQL);
  choirBufPrintf(&b, "BEFORE INSERT ON event_log WHEN NEW.name=%Q BEGIN ",
                 zName);
  eventShape(pConn, pErr, &b, zName, zShape);
  choirBufText(&b, "END");
  zTrigger = choirMprintf(pErr, "_choir_event_check_%s", zName);
  eventTrigger(pConn, pErr, zTrigger ? zTrigger : "", b.a ? b.a : "");
  sqlite3_free(zTrigger);
  choirBufFree(&b);
  eventMaterializer(pConn, pErr, zName, zSql, &plan);
  for (i = 0; i < plan.n && pErr->rc == SQLITE_OK; i++) {
    choirLogReplayBase(pConn, pErr, plan.az[i]);
  }
  eventSave(pConn, pErr, zName, zShape, &plan);
  choirBufInit(&b, pErr, CHOIR_BUF_SQL);
  choirBufPrintf(&b, "{\"name\":\"%s\",\"tables\":[", zName);
  for (i = 0; i < plan.n; i++) {
    choirBufText(&b, i ? "," : "");
    choirBufJson(&b, plan.az[i], -1);
  }
  choirBufText(&b, "]}");
  choirBufResult(&b, p->pCtx);
  choirLogPlanFree(&plan);
}

/*
** SQL: event_policy([unknown]) -> TEXT
**
** What happens to events whose name (a version, perhaps of a newer program) is not
** defined here, and returns it: 'fail' refuses them (the default), 'keep' stores
** them, to be applied by event_replay() once they are defined, 'ignore' drops
** them. It is part of the file and holds for plain SQL too.
**
**   unknown  'fail', 'keep' or 'ignore'; left out: only asks
**
** NULL: only asks.
**
** > SELECT event_policy('keep');
** > INSERT INTO event_log(name, payload) VALUES('v9.New', '{}');
** > SELECT event_policy(), (SELECT count(*) FROM event_log)
** = keep|1
*/
static void eventPolicyCall(ChoirCall *p) {
  static const char *const azPolicy[] = {"fail", "keep", "ignore"};
  ChoirErr *pErr = &p->err;
  const char *z =
      p->nArg ? choirArgTextOrNull(pErr, p->apArg[0], "unknown") : NULL;
  char *zIs = NULL;
  int i;
  choirNeedWorkspace(p->pConn, pErr);
  if (z && pErr->rc == SQLITE_OK) {
    for (i = 0; i < 3 && strcmp(azPolicy[i], z) != 0; i++) {
    }
    if (i == 3) {
      choirErrSet(pErr, SQLITE_ERROR,
                  "unknown must be fail, keep or ignore, got '%.40s'", z);
    }
    eventMake(p->pConn, pErr);
    choirMetaSet(p->pConn, pErr, "event.unknown", z);
  } else {
    zIs = choirMetaGet(p->pConn, pErr, "event.unknown");
  }
  choirResultText(p, z ? z : zIs ? zIs : azPolicy[0]);
  sqlite3_free(zIs);
}

/*
** SQL: event_emit(name, payload) -> TEXT
**
** Stores an event and applies it, both or neither, and returns its id; NULL when
** the policy is to ignore names that are not defined. The same as an INSERT into
** event_log(name, payload).
**
**   name     TEXT, as defined by event_define()
**   payload  TEXT, a JSON object of the shape that was defined
**
** NULL: an error for either argument.
** Errors: what the shape, the policy or the materializer refuses.
**
** > SELECT event_define('v1.Tea', '{"grams":"number"}', '');
** > SELECT event_emit('v1.Tea', '{"grams":"five"}')
** ! event_emit: v1.Tea: $.grams must be number
*/
static void eventEmitCall(ChoirCall *p) {
  const char *zName = eventName(&p->err, p->apArg[0]);
  const char *zPayload =
      choirArgJson(p->pConn, &p->err, p->apArg[1], "payload");
  char zId[37];
  choirUuid7(zId);
  if (choirLogEmit(p->pConn, &p->err, zName, zPayload, -1, zId)) {
    choirResultText(p, zId);
  }
}

CHOIR_PRIVATE int choirLogEmit(ChoirConn *pConn, ChoirErr *pErr,
                               const char *zName, const char *zPayload,
                               i64 nPayload, const char *zId) {
  sqlite3_stmt *p;
  char zNew[37];
  int n;
  choirLogEventNeed(pConn, pErr);
  choirUuid7(zNew);
  p = choirStmt(pConn, pErr,
                "INSERT INTO ~.event_log(id, name, payload, timestamp)"
                " VALUES(?1, ?2, ?3, ?4)");
  choirBindText(pErr, p, 1, zId ? zId : zNew, -1);
  choirBindText(pErr, p, 2, zName, -1);
  choirBindText(pErr, p, 3, zPayload, nPayload);
  choirBindInt(pErr, p, 4, choirNow());
  choirStep(pErr, p);
  n = pErr->rc == SQLITE_OK ? sqlite3_changes(pConn->db) : 0;
  choirStmtDone(pConn, p);
  return n > 0;
}

/* ------------------------------------------------------------------ report */

CHOIR_PRIVATE void choirLogEventCheck(ChoirConn *pConn, ChoirErr *pErr,
                                      ChoirCursor *pCur) {
  sqlite3_stmt *p;
  if (!choirLogEventMade(pConn, pErr)) {
    return;
  }
  p = choirStmt(
      pConn, pErr,
      "SELECT name FROM ~._choir_event AS e WHERE NOT EXISTS(SELECT 1 FROM"
      " ~.sqlite_schema WHERE type='trigger' AND name='_choir_event_check_' ||"
      " e.name) OR EXISTS(SELECT 1 FROM"
      " ~._choir_event_table WHERE name=e.name) AND NOT EXISTS(SELECT 1 FROM "
      "~.sqlite_schema"
      " WHERE type='trigger' AND name='_choir_event_do_' || e.name) UNION ALL"
      " SELECT 'all' WHERE NOT EXISTS(SELECT 1 FROM ~.sqlite_schema WHERE"
      " type='trigger' AND name='_choir_event_store')");
  while (choirStep(pErr, p)) {
    char *z = choirMprintf(pErr,
                           "a trigger of events %s is missing; define them"
                           " again by event_define()",
                           sqlite3_column_text(p, 0));
    choirRowText(pCur, "log");
    choirRowText(pCur, z);
    sqlite3_free(z);
  }
  choirStmtDone(pConn, p);
}

static const ChoirFunc aEventFunc[] = {
    {"event_define", 3, 3, CHOIR_WRITE, 0, eventDefineCall, NULL},
    {"event_policy", 0, 1, CHOIR_WRITE, 0, eventPolicyCall, NULL},
    {"event_emit", 2, 2, CHOIR_WRITE, 0, eventEmitCall, NULL},
};

CHOIR_PRIVATE CHOIR_COLD void choirLogEventRegister(ChoirConn *pConn,
                                                    ChoirErr *pErr) {
  choirFuncs(pConn, pErr, aEventFunc);
}
