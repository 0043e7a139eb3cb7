/* SPDX-License-Identifier: MIT */
/*
** log_record(): what a program wants to remember beside what the triggers see.
*/
#include "log.h"

CHOIR_PRIVATE void choirLogWorkRegister(ChoirConn *pConn);

/* [A-Z0-9_.]{1,64}, so that a type is a word in every system it travels to. */
static const char *logRecordType(ChoirErr *pErr, sqlite3_value *v) {
  const char *z = choirArgText(pErr, v, "type");
  size_t n;
  if (z == NULL) {
    return NULL;
  }
  n = strspn(z, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.");
  if (n == 0 || n > 64 || z[n]) {
    choirErrSet(pErr, SQLITE_ERROR,
                "type must be 1 to 64 of A-Z, 0-9, _ and ., got '%.80s'", z);
    return NULL;
  }
  return z;
}

/*
** SQL: log_record(type, payload) -> TEXT
**
** Adds an action of your own to action_log and returns its id. The log's
** triggers write the workspace's own actions; this is for what happened
** elsewhere: a run, a decision, a visit.
**
**   type     TEXT, 1 to 64 characters of A-Z, 0-9, _ and .
**   payload  TEXT, JSON; its path, title, name, key or label is what the view
**            timeline shows
**
** NULL: an error for either argument.
** Errors: a type of other characters; a payload that is not JSON; no workspace
** in the schema.
**
** > SELECT length(log_record('RUN_START', '{"label":"nightly"}'))
** = 36
** > SELECT log_record('run start', '{}')
** ! log_record: type must be 1 to 64 of A-Z, 0-9, _ and ., got 'run start'
*/
static void logRecordCall(ChoirCall *p) {
  const char *zType = logRecordType(&p->err, p->apArg[0]);
  const char *zPayload =
      choirArgJson(p->pConn, &p->err, p->apArg[1], "payload");
  sqlite3_stmt *pStmt;
  char zId[37];
  choirNeedWorkspace(p->pConn, &p->err);
  choirUuid7(zId);
  pStmt = choirStmt(p->pConn, &p->err,
                    "INSERT INTO ~.action_log(id, timestamp, action_type,"
                    " payload) VALUES(?1, ?2, ?3, ?4)");
  choirBindText(&p->err, pStmt, 1, zId, -1);
  choirBindInt(&p->err, pStmt, 2, choirNow());
  choirBindText(&p->err, pStmt, 3, zType, -1);
  choirBindText(&p->err, pStmt, 4, zPayload, -1);
  choirStep(&p->err, pStmt);
  choirStmtDone(p->pConn, pStmt);
  choirResultText(p, zId);
}

static const ChoirFunc aLogFunc[] = {
    {"log_record", 2, 2, CHOIR_WRITE, 0, logRecordCall, NULL},
};

CHOIR_PRIVATE void choirLogRegister(ChoirConn *pConn, ChoirErr *pErr) {
  choirLogWorkRegister(pConn);
  choirFuncs(pConn, pErr, aLogFunc);
}
