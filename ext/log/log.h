/* SPDX-License-Identifier: MIT */
/*
** log: what happened in a workspace, recorded by triggers in built-in SQL.
**
**   shape    what must be known of a table to follow it    log_shape.c
**   trigger  the generator of triggers for any table       log_trigger.c
**   image    … and of those that keep rows as they were    log_image.c
**   work     the workspace's tables, repair, reports       log_work.c
**   track    log_track, log_untrack: tables of the host    log_track.c
**   rows     rows of a table set to given values           log_rows.c
**   undo     log_undo()                                    log_undo.c
**   record   log_record, log_changes, log_prune            log_record.c
**   seal     log_seal, log_verify, log_prove               log_seal.c
**   plan     which tables a statement reads or writes      log_plan.c
**   event    event_define, event_policy, event_emit        log_event.c
**   replay   event_replay, event_compact                   log_replay.c
**   watch    watch_define, watch_poll, watch_wait          log_watch.c
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
  const char *zKey;    /* in the payload, as it stands between quotes there */
  const char *zColumn; /* in the table */
  int eKind;
} ChoirLogField;

#define CHOIR_LOG_WATCH 64 /* columns that can be watched by name */
#define CHOIR_LOG_FIELDS 6

/* What to record about one table. Types are SQL expressions over the row: @ is
** the row that comes or goes; zUpdate sees OLD and NEW. Arrays end at NULL. */
typedef struct ChoirLogSpec {
  const char *zTable;
  const char *zInsert;
  const char *zUpdate;
  const char *zDelete;
  const char *zUnless; /* updates not to record, over OLD and NEW */
  const char *azWatch[CHOIR_LOG_WATCH + 1]; /* that count; none: every column */
  ChoirLogField aField[CHOIR_LOG_FIELDS + 1];
} ChoirLogSpec;

/* Where rows are kept as they were: _choir_undo_<id>. */
typedef struct ChoirLogImages {
  i64 id;        /* 0: nowhere */
  char **azName; /* the column at each place, NULL: none any more */
  int nName;
} ChoirLogImages;

/* -------------------------------------------------------------- shape ---- */
#define CHOIR_LOG_KEY 8 /* columns of a key, at most */

typedef struct ChoirLogColumn {
  char *zName;
  char *zSql;    /* the name as SQL writes it: quoted where it must be */
  char *zColl;   /* declared collation */
  u8 bTyped;     /* affinity decides the type: IS NOT sees every change */
  u8 bText;      /* affinity leaves text, blob and NULL */
  u8 bGenerated; /* computed, not stored by an INSERT */
} ChoirLogColumn;

typedef struct ChoirLogPart { /* one column of an index */
  int iCol;
  char *zColl;
} ChoirLogPart;

typedef struct ChoirLogIndex {
  ChoirLogPart *aPart;
  int nPart;
  char *zWhere; /* of a partial index */
} ChoirLogIndex;

typedef struct ChoirLogShape {
  const ChoirLogSpec *pSpec;
  const ChoirLogImages *pImages; /* or NULL */
  char *zTable;                  /* as SQL writes it */
  ChoirLogColumn *aCol;          /* one more than nCol where bPseudo */
  int nCol;
  ChoirLogIndex *aIdx; /* UNIQUE; the key's own only where it is loose */
  int nIdx;
  ChoirLogPart aKey[CHOIR_LOG_KEY];
  int nKey;
  const char *zRowid; /* a name that the rowid has; NULL: none */
  u8 bRowid;          /* the key is the rowid */
  u8 bPseudo;         /* … without a column of its own: aCol[nCol] */
  u8 bGenerated;      /* has generated columns: UPDATE OF would miss them */
} ChoirLogShape;

/* *p zeroed. SQLITE_ERROR when the table is not of a shape that the log can
** follow. Free it in any case. */
CHOIR_PRIVATE void choirLogShapeRead(ChoirConn *, ChoirErr *, ChoirLogShape *,
                                     const ChoirLogSpec *);
CHOIR_PRIVATE void choirLogShapeFree(ChoirLogShape *p);
/* A name as SQL writes it; caller frees. */
CHOIR_PRIVATE char *choirLogQuote(ChoirErr *pErr, const char *z);
/* Does equality in the key's index mean the same bytes and type? */
CHOIR_PRIVATE int choirLogKeyExact(const ChoirLogShape *p, int i);
CHOIR_PRIVATE const ChoirLogColumn *choirLogKeyColumn(const ChoirLogShape *p,
                                                      int i);
/* Prepared in the workspace's schema, not kept: %s of zFmt take names that are
** SQL already, `~.` has no meaning. The caller finalizes. */
CHOIR_PRIVATE sqlite3_stmt *choirLogPrepare(ChoirConn *, ChoirErr *,
                                            const char *zFmt, ...);

/* ------------------------------------------------------------ trigger ---- */
typedef struct ChoirLogTrigger {
  char *zName;
  char *zSql; /* what follows CREATE TRIGGER, the name first */
} ChoirLogTrigger;

#define CHOIR_LOG_TRIGGERS 11 /* at most, for one table */
/* The last part of the name of the i-th kind of trigger. */
CHOIR_PRIVATE const char *choirLogEvent(int i);

/* The triggers of one table as it is now, zTag in their names; returns how many.
** SQLITE_ERROR when the table is not of a shape that the log can follow. */
CHOIR_PRIVATE int choirLogTriggers(ChoirConn *, ChoirErr *,
                                   const ChoirLogSpec *, const ChoirLogImages *,
                                   const char *zTag,
                                   ChoirLogTrigger a[CHOIR_LOG_TRIGGERS]);
CHOIR_PRIVATE void choirLogTriggersFree(ChoirLogTrigger *a);

/* Parts of triggers, shared by the two files that make them. */
/* ` COLLATE zColl`, unless the column has it anyway. */
CHOIR_PRIVATE void choirLogCollate(ChoirBuf *, const ChoirLogColumn *,
                                   const char *zColl);
/* The row has, for the index, the key of zRow (NEW, OLD, :1). */
CHOIR_PRIVATE void choirLogSlot(ChoirBuf *, const ChoirLogShape *,
                                const char *zAlias, const char *zRow);
/* FROM … WHERE: rows that REPLACE of NEW would displace through an index. */
CHOIR_PRIVATE void choirLogConflict(ChoirBuf *, const ChoirLogShape *,
                                    const ChoirLogIndex *, int bUpdate);
/* The key and every column that counts are as they were, or the spec says that
** the update is not one to record. */
CHOIR_PRIVATE void choirLogUnchanged(ChoirBuf *, const ChoirLogShape *);
CHOIR_PRIVATE void choirLogOf(ChoirBuf *, const ChoirLogShape *, int mKind);

/* -------------------------------------------------------------- image ---- */
/* `k` of an image: how many columns it has, or */
enum {
  CHOIR_IMAGE_MISSING = 0, /* there was no such row */
  CHOIR_IMAGE_ABOVE = -1,  /* no row with a greater key */
  CHOIR_IMAGE_FRESH = -2,  /* … nor with the key -1 */
  CHOIR_IMAGE_GAP = -3     /* before this, changes went unrecorded */
};

CHOIR_PRIVATE void choirLogImageInsert(ChoirBuf *, const ChoirLogShape *);
CHOIR_PRIVATE void choirLogImageUpdate(ChoirBuf *, const ChoirLogShape *);
CHOIR_PRIVATE void choirLogImageDelete(ChoirBuf *, const ChoirLogShape *);
CHOIR_PRIVATE void choirLogImageKey(ChoirBuf *, const ChoirLogShape *);
/* A statement: keeps the rows that an index would displace. */
CHOIR_PRIVATE void choirLogImageConflict(ChoirBuf *, const ChoirLogShape *,
                                         const ChoirLogIndex *, int bUpdate);

/* --------------------------------------------------------------- work ---- */
/* What the workspace records about a table of its own, or NULL. */
CHOIR_PRIVATE const ChoirLogSpec *choirLogSpecOf(const char *zTable);
/* Makes or repairs every trigger. A table that lost one may have changed unseen:
** that is logged. zFresh: a table that is tracked otherwise from now on, or
** NULL. */
CHOIR_PRIVATE void choirLogInstall(ChoirConn *, ChoirErr *, const char *zFresh);

/* -------------------------------------------------------------- track ---- */
typedef struct ChoirLogTrack {
  ChoirLogSpec spec; /* its texts belong to azOwn */
  ChoirLogImages images;
  i64 id;
  u8 bOwn;     /* a table of the workspace */
  u8 bByRowid; /* has no key */
  u8 bRenamed; /* it or a column has a new name, or a column is new */
  char zTag[24];
  char *azOwn[CHOIR_LOG_WATCH + 2 * CHOIR_LOG_FIELDS + 2];
  int nOwn;
} ChoirLogTrack;

typedef struct ChoirLogTracks {
  ChoirLogTrack *a;
  int n;
} ChoirLogTracks;

/* Every tracked table; with bAdopt what was renamed or added since the last look
** is taken over first. Free it in any case. */
CHOIR_PRIVATE void choirLogTracksRead(ChoirConn *, ChoirErr *, ChoirLogTracks *,
                                      int bAdopt);
CHOIR_PRIVATE void choirLogTracksFree(ChoirLogTracks *);
CHOIR_PRIVATE ChoirLogTrack *choirLogTrackOf(const ChoirLogTracks *,
                                             const char *zTable);
/* Up to now, changes of the table went unrecorded. */
CHOIR_PRIVATE void choirLogTrackGap(ChoirConn *, ChoirErr *,
                                    const ChoirLogTrack *);
/* --------------------------------------------------------------- rows ---- */
typedef struct ChoirLogRows ChoirLogRows;

/* To set rows of one table to given values; azPlace names the stored column at
** each place of those (NULL: none), places count from 1. */
CHOIR_PRIVATE ChoirLogRows *choirLogRowsOpen(ChoirConn *, ChoirErr *,
                                             const ChoirLogShape *,
                                             char *const *azPlace, int nPlace);
/* Is the row of the key as it is in pFrom (see below)? */
CHOIR_PRIVATE int choirLogRowIs(ChoirErr *, ChoirLogRows *, sqlite3_stmt *pFrom,
                                int iFrom, int n);
CHOIR_PRIVATE void choirLogRowsClose(ChoirLogRows *);

enum { CHOIR_ROW_SAME = 0, CHOIR_ROW_SET, CHOIR_ROW_PUT, CHOIR_ROW_REFUSED };

/* The row of p's key (columns iFrom… of p: rowid, places 1 to n) is to be as it
** is there, or away where n is 0: SAME already, SET, PUT where there was none,
** or REFUSED by a constraint or a trigger, *pzWhy (sqlite3_free) says by which. */
CHOIR_PRIVATE int choirLogRowSet(ChoirErr *, ChoirLogRows *,
                                 sqlite3_stmt *pFrom, int iFrom, int n,
                                 char **pzWhy);

/* ------------------------------------------------------------ record ---- */
/* Fails when records after iSince were pruned. */
CHOIR_PRIVATE void choirLogNeedSince(ChoirConn *, ChoirErr *, i64 iSince);

/* --------------------------------------------------------------- seal ---- */
/* Once the log is sealed, records before *piSeq may only go in whole batches:
** lowers *piSeq to the end of one, *pzWhy (sqlite3_free) says so then. */
CHOIR_PRIVATE void choirLogSealHold(ChoirConn *, ChoirErr *, i64 *piSeq,
                                    char **pzWhy);

/* A value into a hash: its type, and its bytes (docs/formats.md, Seals). */
CHOIR_PRIVATE void choirLogHashValue(ChoirSha256 *, sqlite3_stmt *, int iCol);

/* --------------------------------------------------------------- plan ---- */
typedef struct ChoirLogPlan {
  char **az; /* tables of the workspace's schema */
  int n;
  int bOther; /* and others: virtual ones, or of other schemas */
} ChoirLogPlan;

/* The tables that zSql reads, or that one of its triggers writes by itself.
** Free it in any case. */
CHOIR_PRIVATE void choirLogPlanRead(ChoirConn *, ChoirErr *, ChoirLogPlan *,
                                    const char *zSql, const char *zTrigger);
CHOIR_PRIVATE void choirLogPlanFree(ChoirLogPlan *);

/* -------------------------------------------------------------- event ---- */
/* Are there events at all? */
CHOIR_PRIVATE int choirLogEventMade(ChoirConn *, ChoirErr *);
/* Fails when there is no workspace, or no event was ever defined. */
CHOIR_PRIVATE void choirLogEventNeed(ChoirConn *, ChoirErr *);
/* Stores an event in the caller's savepoint, checked and applied by triggers; zId
** NULL: a new id. 0 when the policy is to ignore its name. Its record in
** action_log has action_type EVENT, the same id, tbl event_log, pk its seq there
** (where name and payload are), and the payload {"name":…}. */
CHOIR_PRIVATE int choirLogEmit(ChoirConn *, ChoirErr *, const char *zName,
                               const char *zPayload, i64 nPayload,
                               const char *zId);
CHOIR_PRIVATE void choirLogEventCheck(ChoirConn *, ChoirErr *, ChoirCursor *);
/* A table that a materializer is going to write: keeps the rows that it has. */
CHOIR_PRIVATE void choirLogReplayBase(ChoirConn *, ChoirErr *,
                                      const char *zTable);

CHOIR_PRIVATE CHOIR_COLD void choirLogWorkRegister(ChoirConn *);
CHOIR_PRIVATE CHOIR_COLD void choirLogTrackRegister(ChoirConn *, ChoirErr *);
CHOIR_PRIVATE CHOIR_COLD void choirLogSealRegister(ChoirConn *, ChoirErr *);
CHOIR_PRIVATE CHOIR_COLD void choirLogUndoRegister(ChoirConn *, ChoirErr *);
CHOIR_PRIVATE CHOIR_COLD void choirLogEventRegister(ChoirConn *, ChoirErr *);
CHOIR_PRIVATE CHOIR_COLD void choirLogReplayRegister(ChoirConn *, ChoirErr *);
CHOIR_PRIVATE CHOIR_COLD void choirLogWatchRegister(ChoirConn *, ChoirErr *);
CHOIR_PRIVATE CHOIR_COLD void choirLogRegister(ChoirConn *, ChoirErr *);

#endif /* CHOIR_LOG_H */
