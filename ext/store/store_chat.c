/* SPDX-License-Identifier: MIT */
/*
** Conversations, their messages, and settings: conversation_create,
** conversation_rename, conversation_delete, message_add, setting_get,
** setting_set. Read them with plain SQL or the views conversations and chat.
**
** Owns rows of `conversation_history`, `messages`, `user_settings`. Deleting
** the messages of a deleted conversation and moving its updated_at on with
** each message is done by triggers (store.c), so plain SQL has it too.
*/
#include "store.h"

/*
** SQL: conversation_create(title) -> TEXT
**
** Starts a conversation and returns its id.
**
**   title  TEXT
**
** NULL: a conversation without a title.
** Errors: a title that is not text; no workspace in the schema.
**
** > SELECT length(conversation_create('Plans'))
** = 36
*/
static void chatCreate(ChoirCall *p) {
  char zId[37];
  sqlite3_stmt *pStmt;
  const char *z = choirArgTextOrNull(&p->err, p->apArg[0], "title");
  choirNeedWorkspace(p->pConn, &p->err);
  choirUuid7(zId);
  pStmt = choirStmt(p->pConn, &p->err,
                    "INSERT INTO ~.conversation_history(id, title, created_at,"
                    " updated_at) VALUES(?1, ?2, ?3, ?3)");
  choirBindText(&p->err, pStmt, 1, zId, 36);
  choirBindText(&p->err, pStmt, 2, z, -1);
  choirBindInt(&p->err, pStmt, 3, choirNow());
  choirStep(&p->err, pStmt);
  choirStmtDone(p->pConn, pStmt);
  choirResultText(p, zId);
}

/*
** SQL: conversation_rename(conversation_id, title) -> INTEGER
**
** Gives a conversation another title and returns 1, or 0 when there is none
** with that id.
**
**   conversation_id  TEXT, from conversation_create
**   title            TEXT
**
** NULL: a NULL title removes it; the id must be given.
** Errors: an argument that is not text.
**
** > WITH c AS MATERIALIZED (SELECT conversation_create('Plan') AS id),
** >   r AS MATERIALIZED (SELECT conversation_rename(id, 'Plans') AS n FROM c)
** > SELECT n, title FROM r, conversations
** = 1|Plans
*/
static void chatRename(ChoirCall *p) {
  sqlite3_stmt *pStmt;
  const char *zId = choirArgText(&p->err, p->apArg[0], "conversation_id");
  const char *z = choirArgTextOrNull(&p->err, p->apArg[1], "title");
  choirNeedWorkspace(p->pConn, &p->err);
  pStmt = choirStmt(p->pConn, &p->err,
                    "UPDATE ~.conversation_history SET title=?2,"
                    " updated_at=max(?3, updated_at + 1) WHERE id=?1");
  choirBindText(&p->err, pStmt, 1, zId, -1);
  choirBindText(&p->err, pStmt, 2, z, -1);
  choirBindInt(&p->err, pStmt, 3, choirNow());
  choirStep(&p->err, pStmt);
  choirStmtDone(p->pConn, pStmt);
  sqlite3_result_int(p->pCtx, sqlite3_changes(p->pConn->db) > 0);
}

/*
** SQL: conversation_delete(conversation_id) -> INTEGER
**
** Deletes a conversation with its messages and returns 1, or 0 when there is
** none with that id.
**
**   conversation_id  TEXT, from conversation_create
**
** NULL: the id must be given.
** Errors: an id that is not text.
**
** > WITH c AS MATERIALIZED (SELECT conversation_create('Plans') AS id),
** >   m AS MATERIALIZED (SELECT id, message_add(id, 'user', 'Hi') FROM c),
** >   d AS MATERIALIZED (SELECT conversation_delete(id) AS n FROM m)
** > SELECT n, (SELECT count(*) FROM messages) FROM d
** = 1|0
*/
static void chatDelete(ChoirCall *p) {
  sqlite3_stmt *pStmt;
  const char *zId = choirArgText(&p->err, p->apArg[0], "conversation_id");
  choirNeedWorkspace(p->pConn, &p->err);
  pStmt = choirStmt(p->pConn, &p->err,
                    "DELETE FROM ~.conversation_history WHERE id=?1");
  choirBindText(&p->err, pStmt, 1, zId, -1);
  choirStep(&p->err, pStmt);
  choirStmtDone(p->pConn, pStmt);
  sqlite3_result_int(p->pCtx, sqlite3_changes(p->pConn->db) > 0);
}

/* The time of a new message: now, but never before the conversation's last
** one, should the clock go back. */
static i64 chatTime(ChoirCall *p, const char *zId) {
  i64 iNow = choirNow(), iLast = 0;
  sqlite3_stmt *pStmt = choirStmt(
      p->pConn, &p->err,
      "SELECT (SELECT max(timestamp) FROM ~.messages WHERE conversation_id=?1)"
      " FROM ~.conversation_history WHERE id=?1");
  choirBindText(&p->err, pStmt, 1, zId, -1);
  if (choirStep(&p->err, pStmt)) {
    iLast = sqlite3_column_int64(pStmt, 0);
  } else {
    choirErrSet(&p->err, SQLITE_ERROR,
                "no conversation '%.100s'; see conversation_create", zId);
  }
  choirStmtDone(p->pConn, pStmt);
  return iNow > iLast ? iNow : iLast;
}

static void chatRole(ChoirErr *pErr, const char *z) {
  static const char *const azRole[] = {"user", "assistant", "system", "tool"};
  const char *zNear = z ? choirNearest(z, azRole, 4) : NULL;
  int i;
  for (i = 0; i < 4 && z; i++) {
    if (strcmp(z, azRole[i]) == 0) {
      return;
    }
  }
  choirErrSet(pErr, SQLITE_ERROR,
              "role must be user, assistant, system or tool, got '%.60s'%s%s%s",
              z ? z : "", zNear ? "; did you mean '" : "", zNear ? zNear : "",
              zNear ? "'?" : "");
}

/*
** SQL: message_add(conversation_id, role, content[, metadata]) -> TEXT
**
** Adds a message at the end of a conversation and returns the message's id.
** The conversation's updated_at moves to the message's time.
**
**   conversation_id  TEXT, from conversation_create
**   role             TEXT, user, assistant, system or tool
**   content          TEXT
**   metadata         TEXT, any JSON (model, tool calls, tokens, …)
**
** NULL: content may be NULL when metadata is given (a tool call); a NULL
** metadata means none.
** Errors: no conversation with that id; another role; metadata that is not
** JSON.
**
** > WITH c AS MATERIALIZED (SELECT conversation_create('Plans') AS id),
** >   m AS MATERIALIZED (SELECT message_add(id, 'user', 'Hello'),
** >     message_add(id, 'assistant', 'Hi there') FROM c)
** > SELECT conversation, position, role, content FROM m, chat
** = Plans|1|user|Hello
** = Plans|2|assistant|Hi there
** > SELECT message_add('nope', 'user', 'Hello')
** ! message_add: no conversation 'nope'; see conversation_create
*/
static void chatAdd(ChoirCall *p) {
  ChoirErr *pErr = &p->err;
  char zId[37];
  const char *zConv, *zRole, *zContent, *zMeta = NULL;
  i64 iTime;
  sqlite3_stmt *pStmt;
  choirNeedWorkspace(p->pConn, pErr);
  zConv = choirArgText(pErr, p->apArg[0], "conversation_id");
  zRole = choirArgText(pErr, p->apArg[1], "role");
  if (pErr->rc == SQLITE_OK) {
    chatRole(pErr, zRole);
  }
  if (p->nArg > 3 && sqlite3_value_type(p->apArg[3]) != SQLITE_NULL) {
    zMeta = choirArgJson(p->pConn, pErr, p->apArg[3], "metadata");
  }
  zContent = zMeta ? choirArgTextOrNull(pErr, p->apArg[2], "content")
                   : choirArgText(pErr, p->apArg[2], "content");
  iTime = chatTime(p, zConv);
  choirUuid7(zId);
  pStmt = choirStmt(p->pConn, pErr,
                    "INSERT INTO ~.messages(id, conversation_id, role, content,"
                    " timestamp, metadata) VALUES(?1, ?2, ?3, ?4, ?5, ?6)");
  choirBindText(pErr, pStmt, 1, zId, 36);
  choirBindText(pErr, pStmt, 2, zConv, -1);
  choirBindText(pErr, pStmt, 3, zRole, -1);
  choirBindText(pErr, pStmt, 4, zContent, -1);
  choirBindInt(pErr, pStmt, 5, iTime);
  choirBindText(pErr, pStmt, 6, zMeta, -1);
  choirStep(pErr, pStmt);
  choirStmtDone(p->pConn, pStmt);
  choirResultText(p, zId);
}

/* -------------------------------------------------------------- settings */

/*
** SQL: setting_get(name) -> TEXT
**
** The value of a setting of the workspace's user.
**
**   name  TEXT
**
** NULL: gives NULL when the setting is not there; the name must be given.
** Errors: a name that is empty or longer than 1,000 bytes.
**
** > SELECT setting_get('theme') IS NULL
** = 1
*/
static void chatSettingGet(ChoirCall *p) {
  sqlite3_stmt *pStmt;
  const char *z = choirStoreArgName(&p->err, p->apArg[0], "name");
  choirNeedWorkspace(p->pConn, &p->err);
  pStmt = choirStmt(
      p->pConn, &p->err,
      "SELECT setting_value FROM ~.user_settings WHERE setting_name=?1");
  choirBindText(&p->err, pStmt, 1, z, -1);
  if (choirStep(&p->err, pStmt)) {
    sqlite3_result_value(p->pCtx, sqlite3_column_value(pStmt, 0));
  }
  choirStmtDone(p->pConn, pStmt);
}

/*
** SQL: setting_set(name, value) -> INTEGER
**
** Keeps a setting of the workspace's user; returns 1 when that changed
** something, 0 when the setting was so already.
**
**   name   TEXT, at most 1,000 bytes
**   value  TEXT, plain or JSON; a number is kept as its text
**
** NULL: a NULL value removes the setting; the name must be given.
** Errors: a value that is a blob; a name that is empty or too long.
**
** > WITH s AS MATERIALIZED (SELECT setting_set('theme', '{"dark":1}') AS n)
** > SELECT n, setting_get('theme') ->> '$.dark' FROM s
** = 1|1
*/
static void chatSettingSet(ChoirCall *p) {
  ChoirErr *pErr = &p->err;
  const char *z = choirStoreArgName(pErr, p->apArg[0], "name");
  int eType = sqlite3_value_type(p->apArg[1]);
  sqlite3_stmt *pStmt;
  choirNeedWorkspace(p->pConn, pErr);
  if (eType == SQLITE_BLOB || eType == SQLITE_TEXT) {
    choirArgText(pErr, p->apArg[1], "value"); /* refuses blobs, NUL, … */
  }
  if (eType == SQLITE_NULL) {
    pStmt = choirStmt(p->pConn, pErr,
                      "DELETE FROM ~.user_settings WHERE setting_name=?1");
  } else {
    pStmt =
        choirStmt(p->pConn, pErr,
                  "INSERT INTO ~.user_settings(setting_name, setting_value,"
                  " updated_at) VALUES(?1, ?2, ?3)"
                  " ON CONFLICT(setting_name) DO UPDATE SET setting_value=?2,"
                  " updated_at=max(?3, updated_at + 1)"
                  " WHERE setting_value IS NOT CAST(?2 AS TEXT)");
    choirBindValue(pErr, pStmt, 2, p->apArg[1]);
    choirBindInt(pErr, pStmt, 3, choirNow());
  }
  choirBindText(pErr, pStmt, 1, z, -1);
  choirStep(pErr, pStmt);
  choirStmtDone(p->pConn, pStmt);
  sqlite3_result_int(p->pCtx, sqlite3_changes(p->pConn->db) > 0);
}

/* -------------------------------------------------------------- registry */

static const ChoirFunc aChatFunc[] = {
    {"conversation_create", 1, 1, CHOIR_WRITE, 0, chatCreate, NULL},
    {"conversation_rename", 2, 2, CHOIR_WRITE, 0, chatRename, NULL},
    {"conversation_delete", 1, 1, CHOIR_WRITE, 0, chatDelete, NULL},
    {"message_add", 3, 4, CHOIR_WRITE, 0, chatAdd, NULL},
    {"setting_get", 1, 1, CHOIR_READ, 0, chatSettingGet, NULL},
    {"setting_set", 2, 2, CHOIR_WRITE, 0, chatSettingSet, NULL},
};

CHOIR_PRIVATE CHOIR_COLD void choirStoreChatRegister(ChoirConn *pConn,
                                                     ChoirErr *pErr) {
  choirFuncs(pConn, pErr, aChatFunc);
}
