/* SPDX-License-Identifier: MIT */
/*
** libsql: remote libSQL and Turso databases, by Hrana over HTTP.
**
**   stream  one conversation with a server        libsql_stream.c
**   value   SQL values as Hrana writes them       libsql_value.c
**   sql     libsql_query, libsql_batch            libsql_sql.c
**   table   CREATE VIRTUAL TABLE … USING libsql   libsql_table.c
**   copy    libsql_pull, libsql_push              libsql_copy.c
**
** Statements whose rows are wanted go to /v3/cursor, which sends them one by
** one; all else to /v3/pipeline. A server that has no v3 gets /v2/pipeline for
** both, whose replies are read whole. No statement is ever sent twice.
**
** https://github.com/tursodatabase/libsql/blob/main/docs/HRANA_3_SPEC.md
*/
#ifndef CHOIR_LIBSQL_H
#define CHOIR_LIBSQL_H

#include "../core/core.h"
#ifndef CHOIR_OMIT_NET
#include "../http/http.h"

#define CHOIR_HRANA_STEPS ((u64)64 << 20) /* cap of a request, bytes */

/* --------------------------------------------------------------- value ---- */
typedef struct ChoirHranaRow {
  ChoirConn *pConn;
  struct HranaCell *aCell;
  int n, nAlloc; /* values in the row */
  sqlite3_stmt *pStmt;
  ChoirBuf blob; /* the last blob asked for */
} ChoirHranaRow;

CHOIR_PRIVATE void choirHranaRowInit(ChoirHranaRow *, ChoirConn *);
/* Reads the array at zPath of a JSON text. */
CHOIR_PRIVATE void choirHranaRowRead(ChoirHranaRow *, ChoirErr *, const char *z,
                                     i64 n, const char *zPath);
CHOIR_PRIVATE void choirHranaRowFree(ChoirHranaRow *);
/* Value i as an SQL function's result, bound to a statement, as plain JSON, as
** an integer. */
CHOIR_PRIVATE void choirHranaResult(ChoirHranaRow *, ChoirErr *,
                                    sqlite3_context *, int i);
CHOIR_PRIVATE void choirHranaBind(ChoirHranaRow *, ChoirErr *, sqlite3_stmt *,
                                  int iParam, int i);
CHOIR_PRIVATE void choirHranaJson(ChoirHranaRow *, ChoirBuf *, int i);
CHOIR_PRIVATE i64 choirHranaInt(const ChoirHranaRow *, int i);
CHOIR_PRIVATE const char *choirHranaText(const ChoirHranaRow *, int i);

/* Appends a value as Hrana writes it. */
CHOIR_PRIVATE void choirHranaValue(ChoirBuf *, sqlite3_value *);
CHOIR_PRIVATE void choirHranaValueText(ChoirBuf *, const char *z);
/* Appends a statement object: zArgs is what stands between the brackets of its
** arguments, NULL: none; bRows: its rows are wanted. */
CHOIR_PRIVATE void choirHranaStmt(ChoirBuf *, const char *zSql,
                                  const char *zArgs, int bRows);
/* Appends a statement object with parameters from a JSON array or object (NULL:
** none); {"base64":"…"} is a blob. */
CHOIR_PRIVATE void choirHranaParams(ChoirConn *, ChoirBuf *, const char *zSql,
                                    const char *zParams);

/* -------------------------------------------------------------- stream ---- */
typedef struct ChoirHrana {
  ChoirConn *pConn;
  ChoirErr *pErr;
  char *zBase;  /* https://host, without a '/' at the end */
  char *zAuth;  /* the value of the Authorization header, or NULL */
  char *zBaton; /* of the stream at the server, or NULL */
  u8 bV2;       /* it has no v3 */

  /* The rows of the statement under way. */
  ChoirHttp http;
  ChoirBuf body; /* of the request */
  u8 bHttp;      /* http is in use */
  u8 bOver;      /* the reply is complete */
  u8 bWhole;     /* rows come from a pipeline's reply, in text */
  ChoirBuf text; /* what was received and not read yet */
  u64 iText;     /* where the next line or row begins */
  char *zCols;   /* JSON array of objects that have a name */
  i64 nAffected, iLast;
  sqlite3_stmt *pRows; /* bWhole */
} ChoirHrana;

/* zWhere: a URL, the name of a secret of type libsql, or NULL for the
** configured database. */
CHOIR_PRIVATE void choirHranaOpen(ChoirHrana *, ChoirConn *, ChoirErr *,
                                  const char *zWhere);
/* Closes the stream at the server if there is one. */
CHOIR_PRIVATE void choirHranaClose(ChoirHrana *);
/* Sends requests ({…},{…}); the reply whole into *pReply. */
CHOIR_PRIVATE void choirHranaPipeline(ChoirHrana *, const ChoirBuf *pRequests,
                                      ChoirBuf *pReply);
/* Begins a statement (an object as above); then its rows, one at a time: 0 when
** there is none left. */
CHOIR_PRIVATE void choirHranaBegin(ChoirHrana *, const ChoirBuf *pStmt);
CHOIR_PRIVATE int choirHranaNext(ChoirHrana *, ChoirHranaRow *);
/* Runs n statements (objects, each with a NUL after it) as one transaction.
** pReply NULL, or gets the result object of the batch; step 0 of it is BEGIN.
** The first is number iFirst of what the caller counts, for messages. */
CHOIR_PRIVATE void choirHranaBatch(ChoirHrana *, const ChoirBuf *pStmts, int n,
                                   i64 iFirst, ChoirBuf *pReply);

/* --------------------------------------------------------------- table ---- */
typedef struct ChoirLibsqlColumn {
  char *zName, *zType; /* zType: fit to stand in a declaration, or "" */
  int iPk;             /* place in the primary key from 1, 0: not in it */
  u8 bGenerated;
} ChoirLibsqlColumn;

typedef struct ChoirLibsqlColumns {
  ChoirLibsqlColumn *a;
  int n, nPk;
  int iKey;    /* the one INTEGER PRIMARY KEY, which is the rowid; or -1 */
  u8 bNoRowid; /* a view, or WITHOUT ROWID */
} ChoirLibsqlColumns;

/* Of a remote table; none: there is no such table. */
CHOIR_PRIVATE void choirLibsqlDescribe(ChoirConn *, ChoirErr *,
                                       const char *zWhere, const char *zTable,
                                       ChoirLibsqlColumns *);
CHOIR_PRIVATE void choirLibsqlColumnsFree(ChoirLibsqlColumns *);
/* Appends z as an identifier. */
CHOIR_PRIVATE void choirLibsqlName(ChoirBuf *, const char *z);

CHOIR_PRIVATE CHOIR_COLD void choirLibsqlTableRegister(ChoirConn *, ChoirErr *);
CHOIR_PRIVATE CHOIR_COLD void choirLibsqlCopyRegister(ChoirConn *, ChoirErr *);
CHOIR_PRIVATE CHOIR_COLD void choirLibsqlRegister(ChoirConn *, ChoirErr *);

#endif /* CHOIR_OMIT_NET */
#endif /* CHOIR_LIBSQL_H */
