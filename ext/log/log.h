/* SPDX-License-Identifier: MIT */
/*
** log: what happened in a workspace, recorded by triggers in built-in SQL.
**
**   trigger  the generator of triggers for any table   log_trigger.c
**   work     the workspace's tables, repair, reports   log_work.c
**   record   log_record(), registration                log_record.c
*/
#ifndef CHOIR_LOG_H
#define CHOIR_LOG_H

#include "../core/core.h"

/* How a column's value is written into a payload. Whatever does not fit its
** kind is null there: the row is known by tbl and pk. */
enum {
  CHOIR_LOG_TEXT = 1, /* at most 200 characters, up to the first NUL; null
                      ** when there is a control character in it */
  CHOIR_LOG_ID,       /* the same, null also unless printable ASCII: quicker */
  CHOIR_LOG_INT,
  CHOIR_LOG_REAL, /* finite */
  CHOIR_LOG_FROM  /* text as it was, in updates that changed the column */
};

typedef struct ChoirLogField {
  const char *zKey;    /* in the payload */
  const char *zColumn; /* in the table */
  int eKind;
} ChoirLogField;

/* What to record about one table. Types are SQL expressions over the row: @ is
** the row that comes or goes; zUpdate sees OLD and NEW. Arrays end at NULL. */
typedef struct ChoirLogSpec {
  const char *zTable;
  const char *zInsert;
  const char *zUpdate;
  const char *zDelete;
  const char *zUnless;     /* updates not to record, over OLD and NEW */
  const char *azWatch[12]; /* columns that count; none: every column */
  ChoirLogField aField[6];
} ChoirLogSpec;

typedef struct ChoirLogTrigger {
  char *zName;
  char *zSql; /* what follows CREATE TRIGGER, the name first */
} ChoirLogTrigger;

#define CHOIR_LOG_TRIGGERS 6 /* at most, for one table */

/* The triggers of one table as it is now; returns how many. SQLITE_ERROR when
** the table is not of a shape that the log can follow. */
CHOIR_PRIVATE int choirLogTriggers(ChoirConn *, ChoirErr *,
                                   const ChoirLogSpec *,
                                   ChoirLogTrigger a[CHOIR_LOG_TRIGGERS]);
CHOIR_PRIVATE void choirLogTriggersFree(ChoirLogTrigger *a);

CHOIR_PRIVATE void choirLogRegister(ChoirConn *, ChoirErr *);

#endif /* CHOIR_LOG_H */
