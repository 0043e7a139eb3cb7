/* SPDX-License-Identifier: MIT */
/*
** What agents share: task_add, task_claim, task_done, task_fail on
** agent_tasks; citation_add on citations; persona_activate on personas.
**
** A task is PENDING, RUNNING while one worker has its lease, then COMPLETED or
** FAILED. lease_until says until when nobody else may have it: of a RUNNING
** task the lease, of a PENDING one the time before which it is not tried again.
** A worker that dies loses its lease; the task is then claimed again until it
** has been tried max_attempts times, and is FAILED after that: the dead
** letters are the view tasks_failed.
*/
#include "store.h"

#define AGENT_LEASE_MAX ((i64)30 * 86400000)

/* Text or a number as it is stored; sticky for a blob. */
static void agentPayload(ChoirErr *pErr, sqlite3_value *v, const char *zArg) {
  int eType = sqlite3_value_type(v);
  if (eType == SQLITE_TEXT || eType == SQLITE_BLOB) {
    choirArgText(pErr, v, zArg);
  }
}

/*
** SQL: task_add(type, input[, max_attempts = 3]) -> TEXT
**
** Puts a task into the queue and returns its id.
**
**   type          TEXT, at most 1,000 bytes
**   input         TEXT, JSON or plain, or a number
**   max_attempts  INTEGER, 1 to 1000: how often workers may try it
**
** NULL: type and input must be given; a NULL max_attempts means 3.
** Errors: an input that is a blob.
**
** > WITH t AS MATERIALIZED (SELECT task_add('summarize', '{"path":"/a.md"}') AS id),
** >   c AS MATERIALIZED (SELECT id, task_claim() AS j FROM t)
** > SELECT j ->> 'id' = id, j ->> '$.input.path', j ->> 'attempt' FROM c
** = 1|/a.md|1
*/
static void agentAdd(ChoirCall *p) {
  char zId[37];
  ChoirErr *pErr = &p->err;
  const char *zType = choirStoreArgName(pErr, p->apArg[0], "type");
  i64 nMax = 3;
  sqlite3_stmt *pStmt;
  choirNeedWorkspace(p->pConn, pErr);
  agentPayload(pErr, p->apArg[1], "input");
  if (sqlite3_value_type(p->apArg[1]) == SQLITE_NULL) {
    choirErrSet(pErr, SQLITE_ERROR, "input must be given, got null");
  }
  if (p->nArg > 2 && sqlite3_value_type(p->apArg[2]) != SQLITE_NULL) {
    nMax = choirArgInt(pErr, p->apArg[2], "max_attempts", 1, 1000);
  }
  choirUuid7(zId);
  pStmt = choirStmt(p->pConn, pErr,
                    "INSERT INTO ~.agent_tasks(id, task_type, input,"
                    " created_at, max_attempts) VALUES(?1, ?2, ?3, ?4, ?5)");
  choirBindText(pErr, pStmt, 1, zId, 36);
  choirBindText(pErr, pStmt, 2, zType, -1);
  choirBindValue(pErr, pStmt, 3, p->apArg[1]);
  choirBindInt(pErr, pStmt, 4, choirNow());
  choirBindInt(pErr, pStmt, 5, nMax);
  choirStep(pErr, pStmt);
  choirStmtDone(p->pConn, pStmt);
  choirResultText(p, zId);
}

/* ------------------------------------------------------------------- claim */

#define AGENT_NEXT(zWhere, zOrder)                                             \
  "SELECT id, task_type, input, attempts, max_attempts FROM ~.agent_tasks"     \
  " WHERE status IN ('PENDING', 'RUNNING') AND " zWhere                        \
  " AND (?2 IS NULL OR task_type=?2) ORDER BY " zOrder " LIMIT 1"

/* Where the next task comes from: leases that ended, then retries that are due,
** then what waits longest. */
static const char *const azAgentNext[] = {
    AGENT_NEXT("status='RUNNING' AND lease_until<=?1", "lease_until"),
    AGENT_NEXT("status='PENDING' AND lease_until<=?1", "lease_until"),
    AGENT_NEXT("status='PENDING' AND lease_until IS NULL AND ?1",
               "created_at, id"),
};

/* Tried too often, and nobody is left who would say why. */
static void agentBury(ChoirCall *p, const char *zId, i64 nAttempt, i64 iNow) {
  char *z = choirMprintf(&p->err,
                         "the lease ended %lld times, the last attempt"
                         " allowed",
                         nAttempt);
  sqlite3_stmt *pStmt =
      choirStmt(p->pConn, &p->err,
                "UPDATE ~.agent_tasks SET status='FAILED', error=?2,"
                " completed_at=?3, lease_until=NULL WHERE id=?1");
  choirBindText(&p->err, pStmt, 1, zId, -1);
  choirBindText(&p->err, pStmt, 2, z, -1);
  choirBindInt(&p->err, pStmt, 3, iNow);
  choirStep(&p->err, pStmt);
  choirStmtDone(p->pConn, pStmt);
  sqlite3_free(z);
}

/* The next task as a statement on its row, or NULL. */
static sqlite3_stmt *agentNext(ChoirCall *p, const char *zType, i64 iNow) {
  int i = 0;
  while (i < 3 && p->err.rc == SQLITE_OK) {
    sqlite3_stmt *pStmt = choirStmt(p->pConn, &p->err, azAgentNext[i]);
    choirBindInt(&p->err, pStmt, 1, iNow);
    choirBindText(&p->err, pStmt, 2, zType, -1);
    if (choirStep(&p->err, pStmt)) {
      i64 nAttempt = sqlite3_column_int64(pStmt, 3);
      char *zId;
      if (nAttempt < sqlite3_column_int64(pStmt, 4)) {
        return pStmt;
      }
      zId = choirMprintf(&p->err, "%s", sqlite3_column_text(pStmt, 0));
      choirStmtDone(p->pConn, pStmt);
      agentBury(p, zId, nAttempt, iNow);
      sqlite3_free(zId);
    } else {
      choirStmtDone(p->pConn, pStmt);
      i++;
    }
  }
  return NULL;
}

/* The task on pStmt as JSON. */
static void agentJson(ChoirCall *p, sqlite3_stmt *pStmt, i64 iLease) {
  ChoirBuf b;
  const char *zInput = (const char *)sqlite3_column_text(pStmt, 2);
  choirBufInit(&b, &p->err, CHOIR_BUF_JSON);
  choirBufText(&b, "{\"id\":");
  choirBufJson(&b, (const char *)sqlite3_column_text(pStmt, 0), -1);
  choirBufText(&b, ",\"type\":");
  choirBufJson(&b, (const char *)sqlite3_column_text(pStmt, 1), -1);
  choirBufText(&b, ",\"input\":");
  if (zInput && choirIsJson(p->pConn, &p->err, zInput)) {
    choirBufText(&b, zInput);
  } else {
    choirBufJson(&b, zInput ? zInput : "", -1);
  }
  choirBufPrintf(&b, ",\"attempt\":%lld,\"lease_until\":%lld}",
                 sqlite3_column_int64(pStmt, 3) + 1, iLease);
  choirBufResult(&b, p->pCtx);
}

/*
** SQL: task_claim([type[, lease_ms = 300000]]) -> TEXT
**
** Takes the next task for this worker and returns it as a JSON object (id,
** type, input, attempt, lease_until), or NULL when there is none. No other
** connection or process gets it while the lease lasts; finish it by task_done()
** or task_fail(). First come tasks whose lease has ended, then retries that are
** due, then the oldest.
**
**   type      TEXT, only tasks of this type
**   lease_ms  INTEGER, milliseconds, longer than the work takes; 5 minutes by
**             default, at most 30 days
**
** NULL: a NULL type means any, a NULL lease_ms 5 minutes.
** Errors: a lease_ms below 1; SQLITE_BUSY when others write for longer than the
** connection's busy timeout.
**
** > SELECT task_claim('nothing of this type')
** = NULL
*/
static void agentClaim(ChoirCall *p) {
  ChoirErr *pErr = &p->err;
  const char *zType =
      p->nArg > 0 ? choirArgTextOrNull(pErr, p->apArg[0], "type") : NULL;
  i64 iNow = choirNow(), iLease = iNow + 300000;
  sqlite3_stmt *pNext, *pStmt;
  choirNeedWorkspace(p->pConn, pErr);
  if (p->nArg > 1 && sqlite3_value_type(p->apArg[1]) != SQLITE_NULL) {
    iLease =
        iNow + choirArgInt(pErr, p->apArg[1], "lease_ms", 1, AGENT_LEASE_MAX);
  }
  pNext = agentNext(p, zType, iNow);
  if (pNext) {
    agentJson(p, pNext, iLease);
    pStmt = choirStmt(p->pConn, pErr,
                      "UPDATE ~.agent_tasks SET status='RUNNING',"
                      " attempts=attempts+1, lease_until=?2,"
                      " started_at=max(?3, coalesce(started_at + 1, 0))"
                      " WHERE id=?1");
    choirBindText(pErr, pStmt, 1, (const char *)sqlite3_column_text(pNext, 0),
                  -1);
    choirBindInt(pErr, pStmt, 2, iLease);
    choirBindInt(pErr, pStmt, 3, iNow);
    choirStep(pErr, pStmt);
    choirStmtDone(p->pConn, pStmt);
    choirStmtDone(p->pConn, pNext);
  }
}

/* -------------------------------------------------------------- done, fail */

/*
** SQL: task_done(id, output) -> INTEGER
**
** Completes a task that is RUNNING and returns 1, or 0 when there is none with
** that id, or it is not RUNNING (any more).
**
**   id      TEXT, from task_claim
**   output  TEXT, JSON or plain, or a number
**
** NULL: a NULL output means none; the id must be given.
** Errors: an output that is a blob.
**
** > WITH t AS MATERIALIZED (SELECT task_add('add', '[1,2]') AS id),
** >   c AS MATERIALIZED (SELECT task_claim('add') AS j FROM t),
** >   d AS MATERIALIZED (SELECT task_done(j ->> 'id', 3) AS n FROM c)
** > SELECT n, status, output FROM d, agent_tasks
** = 1|COMPLETED|3
*/
static void agentDone(ChoirCall *p) {
  const char *zId = choirArgText(&p->err, p->apArg[0], "id");
  sqlite3_stmt *pStmt;
  choirNeedWorkspace(p->pConn, &p->err);
  agentPayload(&p->err, p->apArg[1], "output");
  pStmt = choirStmt(p->pConn, &p->err,
                    "UPDATE ~.agent_tasks SET status='COMPLETED', output=?2,"
                    " error=NULL, completed_at=?3, lease_until=NULL"
                    " WHERE id=?1 AND status='RUNNING'");
  choirBindText(&p->err, pStmt, 1, zId, -1);
  choirBindValue(&p->err, pStmt, 2, p->apArg[1]);
  choirBindInt(&p->err, pStmt, 3, choirNow());
  choirStep(&p->err, pStmt);
  choirStmtDone(p->pConn, pStmt);
  sqlite3_result_int(p->pCtx, sqlite3_changes(p->pConn->db) > 0);
}

/*
** SQL: task_fail(id, error[, retry_ms]) -> INTEGER
**
** Says that a RUNNING task went wrong and returns 1, or 0 when there is none
** with that id, or it is not RUNNING. The task is FAILED; with retry_ms it is
** PENDING again after that time, until it has been tried max_attempts times.
**
**   id        TEXT, from task_claim
**   error     TEXT, why
**   retry_ms  INTEGER, milliseconds until the next attempt
**
** NULL: a NULL error means no reason, a NULL retry_ms no further attempt; the
** id must be given.
** Errors: a negative retry_ms.
**
** > WITH t AS MATERIALIZED (SELECT task_add('fetch', '{}', 2) AS id),
** >   a AS MATERIALIZED (SELECT task_claim() ->> 'id' AS id FROM t),
** >   b AS MATERIALIZED (SELECT task_fail(id, 'timeout', 0) FROM a),
** >   c AS MATERIALIZED (SELECT task_claim() ->> 'id' AS id FROM b),
** >   d AS MATERIALIZED (SELECT task_fail(id, 'timeout', 0) FROM c)
** > SELECT task_type, attempts, error FROM d, tasks_failed
** = fetch|2|timeout
*/
static void agentFail(ChoirCall *p) {
  ChoirErr *pErr = &p->err;
  const char *zId = choirArgText(pErr, p->apArg[0], "id");
  const char *zError = choirArgTextOrNull(pErr, p->apArg[1], "error");
  i64 iNow = choirNow();
  sqlite3_stmt *pStmt;
  choirNeedWorkspace(p->pConn, pErr);
  pStmt = choirStmt(
      p->pConn, pErr,
      "UPDATE ~.agent_tasks SET error=?2,"
      " status=iif(?4 IS NULL OR attempts>=max_attempts, 'FAILED', 'PENDING'),"
      " lease_until=iif(attempts>=max_attempts, NULL, ?4),"
      " completed_at=iif(?4 IS NULL OR attempts>=max_attempts, ?3, NULL)"
      " WHERE id=?1 AND status='RUNNING'");
  choirBindText(pErr, pStmt, 1, zId, -1);
  choirBindText(pErr, pStmt, 2, zError, -1);
  choirBindInt(pErr, pStmt, 3, iNow);
  if (p->nArg > 2 && sqlite3_value_type(p->apArg[2]) != SQLITE_NULL) {
    choirBindInt(
        pErr, pStmt, 4,
        iNow + choirArgInt(pErr, p->apArg[2], "retry_ms", 0, AGENT_LEASE_MAX));
  }
  choirStep(pErr, pStmt);
  choirStmtDone(p->pConn, pStmt);
  sqlite3_result_int(p->pCtx, sqlite3_changes(p->pConn->db) > 0);
}

/* ---------------------------------------------------- citations, personas */

/*
** SQL: citation_add(artifact, run, weight[, reason]) -> TEXT
**
** Says that a run used an artifact, and how much, and returns the citation's
** id. citation_totals sums up; a cited artifact that is deleted stays as a
** tombstone.
**
**   artifact  TEXT, id or path of a live artifact
**   run       TEXT, who cites: the id of a run, at most 1,000 bytes
**   weight    REAL, 0 to 1
**   reason    TEXT
**
** NULL: a NULL reason means none; the others must be given.
** Errors: no such artifact; a weight outside 0 to 1.
**
** > WITH a AS MATERIALIZED (SELECT artifact_put('/notes.md', 'x') AS id),
** >   c AS MATERIALIZED (SELECT citation_add(id, 'run-1', 0.5),
** >     citation_add('/notes.md', 'run-2', 0.25) FROM a)
** > SELECT path, citations, runs, weight FROM c, citation_totals
** = /notes.md|2|2|0.75
*/
static void agentCite(ChoirCall *p) {
  char zId[37];
  ChoirErr *pErr = &p->err;
  const char *zWhat = choirArgText(pErr, p->apArg[0], "artifact");
  const char *zRun = choirStoreArgName(pErr, p->apArg[1], "run");
  double rWeight = choirArgReal(pErr, p->apArg[2], "weight", 0, 1);
  const char *zReason =
      p->nArg > 3 ? choirArgTextOrNull(pErr, p->apArg[3], "reason") : NULL;
  sqlite3_stmt *pFind, *pStmt;
  choirNeedWorkspace(p->pConn, pErr);
  pFind = zWhat ? choirStoreFind(p->pConn, pErr, zWhat) : NULL;
  if (pFind == NULL) {
    choirErrSet(pErr, SQLITE_ERROR, "no artifact '%.200s'; see artifact_ls",
                zWhat ? zWhat : "");
    return;
  }
  choirUuid7(zId);
  pStmt = choirStmt(p->pConn, pErr,
                    "INSERT INTO ~.citations(id, source_artifact_id,"
                    " citing_run_id, weight, reason, created_at)"
                    " VALUES(?1, ?2, ?3, ?4, ?5, ?6)");
  choirBindText(pErr, pStmt, 1, zId, 36);
  choirBindText(pErr, pStmt, 2, (const char *)sqlite3_column_text(pFind, 0),
                -1);
  choirBindText(pErr, pStmt, 3, zRun, -1);
  choirBindReal(pErr, pStmt, 4, rWeight);
  choirBindText(pErr, pStmt, 5, zReason, -1);
  choirBindInt(pErr, pStmt, 6, choirNow());
  choirStep(pErr, pStmt);
  choirStmtDone(p->pConn, pStmt);
  choirStmtDone(p->pConn, pFind);
  choirResultText(p, zId);
}

/*
** SQL: persona_activate(id) -> INTEGER
**
** Makes a persona the active one, and no other; returns 1 when that changed
** something, 0 when it was so already. The view active_persona shows it,
** persona_memories its memories.
**
**   id  TEXT, of a row in personas
**
** NULL: the id must be given.
** Errors: no persona with that id.
**
** > SELECT persona_activate('ada')
** ! persona_activate: no persona 'ada'; insert one into personas
*/
static void agentActivate(ChoirCall *p) {
  const char *zId = choirArgText(&p->err, p->apArg[0], "id");
  sqlite3_stmt *pStmt;
  int bActive = 0;
  choirNeedWorkspace(p->pConn, &p->err);
  pStmt = choirStmt(p->pConn, &p->err,
                    "SELECT is_active FROM ~.personas WHERE id=?1");
  choirBindText(&p->err, pStmt, 1, zId, -1);
  if (choirStep(&p->err, pStmt)) {
    bActive = sqlite3_column_int(pStmt, 0);
  } else {
    choirErrSet(&p->err, SQLITE_ERROR,
                "no persona '%.100s'; insert one into personas", zId);
  }
  choirStmtDone(p->pConn, pStmt);
  if (!bActive) {
    pStmt = choirStmt(p->pConn, &p->err,
                      "UPDATE ~.personas SET is_active=1 WHERE id=?1");
    choirBindText(&p->err, pStmt, 1, zId, -1);
    choirStep(&p->err, pStmt);
    choirStmtDone(p->pConn, pStmt);
  }
  sqlite3_result_int(p->pCtx, !bActive);
}

static const ChoirFunc aAgentFunc[] = {
    {"task_add", 2, 3, CHOIR_WRITE, 0, agentAdd, NULL},
    {"task_claim", 0, 2, CHOIR_WRITE, 0, agentClaim, NULL},
    {"task_done", 2, 2, CHOIR_WRITE, 0, agentDone, NULL},
    {"task_fail", 2, 3, CHOIR_WRITE, 0, agentFail, NULL},
    {"citation_add", 3, 4, CHOIR_WRITE, 0, agentCite, NULL},
    {"persona_activate", 1, 1, CHOIR_WRITE, 0, agentActivate, NULL},
};

CHOIR_PRIVATE CHOIR_COLD void choirStoreAgentRegister(ChoirConn *pConn,
                                                      ChoirErr *pErr) {
  choirFuncs(pConn, pErr, aAgentFunc);
}
