/* SPDX-License-Identifier: MIT */
/*
** qdrant: points of a Qdrant server, for one user, from SQL.
**
**   wire    where the server is, one request, what it refused  qdrant_wire.c
**   json    replies taken apart without copying                qdrant_json.c
**   filter  the tenant's filter; WHERE terms as conditions     qdrant_filter.c
**   scan    a query or a scroll, page by page                  qdrant_scan.c
**   table   functions and TEMP tables over scans               qdrant_table.c
**   sql     groups, facets, collections, count, ping, init     qdrant_sql.c
**   each    many queries in one request                        qdrant_each.c
**   write   points in batches, their ids                       qdrant_write.c
**   flush   the workspace's documents as points                qdrant_flush.c
**
** The user is fixed by the first request of a connection and is part of every
** request that reads or writes points: there is one function that opens a
** filter (choirQdrantFilterOpen) and nothing else writes that word.
*/
#ifndef CHOIR_QDRANT_H
#define CHOIR_QDRANT_H

#include "../core/core.h"
#include "../embed/embed.h"
#include "../http/http.h"

typedef struct Qdrant Qdrant;
typedef struct QdrantHit QdrantHit;
typedef struct QdrantInfo QdrantInfo;
typedef struct QdrantPoints QdrantPoints;
typedef struct QdrantReply QdrantReply;
typedef struct QdrantScan QdrantScan;
typedef struct QdrantSpan QdrantSpan;

enum { QDRANT_RRF = 1, QDRANT_DBSF };

#define QDRANT_K_MAX 1000         /* hits of one query */
#define QDRANT_REQUEST (40 << 20) /* cap of a request's body */

/* --------------------------------------------------------------- json ----
** A value of a JSON text, by its bytes. The text belongs to a reply that
** choirQdrantSend has found to be JSON and UTF-8; on any other text these
** functions give nonsense but stay inside it. z NULL: there is none.
*/
struct QdrantSpan {
  const char *z;
  i64 n;
};

/* The inside of an object or array; nothing when it is neither. */
CHOIR_PRIVATE QdrantSpan choirQdrantInside(QdrantSpan);
/* Takes the next value off *pInside, its key into *pKey (in quotes; none in an
** array; pKey may be NULL); 0 at the end. */
CHOIR_PRIVATE int choirQdrantNext(QdrantSpan *pInside, QdrantSpan *pKey,
                                  QdrantSpan *pValue);
/* Is the string (in quotes) this text? */
CHOIR_PRIVATE int choirQdrantIs(QdrantSpan, const char *z);
/* A member of an object. */
CHOIR_PRIVATE QdrantSpan choirQdrantGet(QdrantSpan, const char *zKey);
/* The text of a string, *pn bytes of it; caller frees. NULL when it is none. */
CHOIR_PRIVATE char *choirQdrantText(ChoirErr *, QdrantSpan, i64 *pn);
/* A number; 0 when it is none. */
CHOIR_PRIVATE int choirQdrantReal(QdrantSpan, double *pr);
/* An integer without fraction or exponent that 64 bits hold. */
CHOIR_PRIVATE int choirQdrantInt(QdrantSpan, i64 *pi);
/* As an SQL value: text, number (an integer too large for 64 bits as text), 0
** or 1, NULL; objects and arrays as JSON. */
CHOIR_PRIVATE void choirQdrantResult(ChoirErr *, sqlite3_context *, QdrantSpan);
/* An array of numbers as floats; *pn of them, caller frees. */
CHOIR_PRIVATE float *choirQdrantFloats(ChoirErr *, QdrantSpan, int *pn);
/* Appends n floats as a JSON array, each by the fewest digits that give it
** back; NaN and infinities are an error. */
CHOIR_PRIVATE void choirQdrantPutFloats(ChoirBuf *, const float *a, int n);

/* --------------------------------------------------------------- wire ---- */
struct Qdrant {
  ChoirConn *pConn;
  char *zUrl; /* without '/' at the end */
  char *zCollection;
  char *zUser;
  char *zVector; /* which vector of a point, NULL: the one without a name */
};

struct QdrantInfo { /* of a collection */
  int nDim;         /* of the vector in question, 0: there is none */
  int bSmaller;     /* smaller scores are better: Euclid, Manhattan */
  char *zModel;     /* that made its vectors, or NULL: not told */
};

struct QdrantReply {
  ChoirHttp http;
  QdrantSpan result; /* the member of that name, in http.body */
};

/* Fixes the user. zCollection NULL: the configured one. */
CHOIR_PRIVATE void choirQdrantOpen(ChoirConn *, ChoirErr *, Qdrant *,
                                   const char *zCollection);
/* Another vector than the configured one; zVector NULL: no change. */
CHOIR_PRIVATE void choirQdrantVector(Qdrant *, ChoirErr *, const char *zVector);
CHOIR_PRIVATE void choirQdrantClose(Qdrant *);
/* One request: zTail follows /collections/NAME, or the URL when it starts with
** '/'. A status that is not 2xx is an error; bRetry: it may be sent twice. pBody
** NULL: none. Free the reply in any case. */
CHOIR_PRIVATE void choirQdrantSend(Qdrant *, ChoirErr *, QdrantReply *,
                                   const char *zMethod, const char *zTail,
                                   const ChoirBuf *pBody, int bRetry);
/* The same in two steps, so that the server works meanwhile. pBody stays until
** the reply is received. */
CHOIR_PRIVATE void choirQdrantAhead(Qdrant *, ChoirErr *, QdrantReply *,
                                    const char *zMethod, const char *zTail,
                                    const ChoirBuf *pBody, int bRetry);
CHOIR_PRIVATE void choirQdrantReceive(Qdrant *, ChoirErr *, QdrantReply *);
/* Fails when the reply does not say that the change is done. */
CHOIR_PRIVATE void choirQdrantDone(Qdrant *, ChoirErr *, const QdrantReply *);
CHOIR_PRIVATE void choirQdrantReplyFree(QdrantReply *);
/* The server's version as major * 1000 + minor; asked for once. */
CHOIR_PRIVATE int choirQdrantVersion(Qdrant *, ChoirErr *);
/* The collection's facts; asked for once. They stay until choirQdrantForget or
** the next question about another collection or vector. */
CHOIR_PRIVATE const QdrantInfo *choirQdrantInfo(Qdrant *, ChoirErr *);
CHOIR_PRIVATE void choirQdrantForget(ChoirConn *);
/* The model whose vectors the collection takes. An error when it was made for
** another one or another length. */
CHOIR_PRIVATE const ChoirEmbedModel *choirQdrantModel(Qdrant *, ChoirErr *);

/* ------------------------------------------------------------- filter ---- */
/* An argument's JSON object, written anew (caller frees), or NULL when it is
** not given. zRemedy ends the message when it is something else. */
CHOIR_PRIVATE char *choirQdrantObject(ChoirConn *, ChoirErr *, sqlite3_value *,
                                      const char *zArg, const char *zRemedy);
/* Is it an array of numbers, at least one? */
CHOIR_PRIVATE int choirQdrantIsDense(QdrantSpan);
/* Appends a dense or sparse vector, [1,2] or {"indices":[…],"values":[…]}, and
** nothing else: what Qdrant takes in such a place could be another point's id.
*/
CHOIR_PRIVATE void choirQdrantPutVector(ChoirBuf *, QdrantSpan name,
                                        QdrantSpan);
/* `"zName":{"must":[` the tenant's condition. Follow it by conditions, each
** with a comma in front, and close it by `]}`. */
CHOIR_PRIVATE void choirQdrantFilterOpen(const Qdrant *, ChoirBuf *,
                                         const char *zName);
/* A filter of the user's (an SQL value, or NULL) as one nested condition, with
** a comma in front. */
CHOIR_PRIVATE void choirQdrantFilterUser(ChoirConn *, ChoirBuf *,
                                         sqlite3_value *);
/* The path of a payload member by its name, as a JSON string. */
CHOIR_PRIVATE void choirQdrantKey(ChoirBuf *, const char *zKey);

/* How a column's values are kept in the payload. */
enum {
  QDRANT_TEXT = 1,
  QDRANT_INTEGER,
  QDRANT_REAL,
  QDRANT_BOOL,
  QDRANT_JSON,
  QDRANT_ID,
  QDRANT_RANK,
  QDRANT_SCORE,
  QDRANT_PAYLOAD,
  QDRANT_VECTOR
};
/* Operators of terms, as letters of a plan. */
enum {
  QDRANT_EQ = '=',
  QDRANT_IN = 'i',
  QDRANT_LT = '<',
  QDRANT_LE = 'l',
  QDRANT_GT = '>',
  QDRANT_GE = 'g',
  QDRANT_NE = '!',
  QDRANT_NOTNULL = 'n',
  QDRANT_GLOB = '*'
};
/* May this be asked of the server, as far as types tell? */
CHOIR_PRIVATE int choirQdrantMayPush(int eType, int eOp);
/* Appends a condition (comma in front) that every point passes for which the
** SQL term `zKey eOp v` is true; nothing where there is no such. 1: no point
** can pass. */
CHOIR_PRIVATE int choirQdrantPush(Qdrant *, ChoirErr *, ChoirBuf *,
                                  const char *zKey, int eType, int eOp,
                                  sqlite3_value *v);
CHOIR_PRIVATE CHOIR_COLD void choirQdrantFilterRegister(ChoirConn *,
                                                        ChoirErr *);

/* --------------------------------------------------------------- scan ----
** The points that a query finds, best first, or that a scroll passes. Pages
** are fetched as they are needed.
*/
struct QdrantHit {
  QdrantSpan id, score, payload, vector, order; /* until the next hit */
};

struct QdrantScan {
  Qdrant to;
  int bQuery;        /* 0: a scroll */
  float *aQuery;     /* its vector; owned */
  int nQuery;        /* its length */
  ChoirBuf filter;   /* conditions beside the tenant's, each after a comma */
  int eFusion;       /* of several lists, 0: there is one */
  char *zWords;      /* points with these words are another list; owned */
  char *zVectors;    /* JSON object of vectors, each one more list; owned */
  char *zOrder;      /* member that a scroll goes by, or NULL; owned */
  i64 nK;            /* hits at most, 0: not told */
  i64 nHint;         /* rows that the host wants, 0: not known */
  i64 nEf;           /* 0: the server's */
  double rMmr;       /* diversity, < 0: none */
  double rThreshold; /* score_threshold */
  u8 bThreshold, bExact, bVector;
  u8 bEmpty;          /* no point can pass */
  u8 bByArtifact;     /* one hit of each artifact */
  u8 bScoreFalls;     /* the host counts on scores that fall */
  u8 bOrderFalls;     /* the scroll goes by zOrder downwards */
  ChoirBuf payload;   /* JSON array of the members wanted, or empty: all */
  const char *zModel; /* model of the query, or NULL */

  /* Private. */
  QdrantReply aReply[2]; /* the page that is read, and the next one */
  int iReply;            /* which is read */
  ChoirBuf ahead;        /* of a scroll: the request for the next one, sent */
  QdrantSpan rest;       /* points of the page that were not given yet */
  QdrantSpan after;      /* of a scroll: where to go on, in the reply */
  i64 nPage, nGiven, nAsked, iOffset;
  int nSeen; /* of a query: ids given so far */
  u8 (*aSeen)[16];
  ChoirBuf orderAt; /* of a scroll by zOrder: the last value, as JSON, */
  ChoirBuf tied;    /* and the ids given that have it, with commas */
  int nTied;
  u8 bLast; /* no page follows */
};

CHOIR_PRIVATE void choirQdrantScanInit(QdrantScan *, ChoirErr *);
/* 1: *pHit is the next one, the user's own. */
CHOIR_PRIVATE int choirQdrantScanNext(QdrantScan *, ChoirErr *, QdrantHit *);
CHOIR_PRIVATE void choirQdrantScanFree(QdrantScan *);
/* The query's vector from text (embedded) or a blob of floats; zArg names it
** in messages. */
CHOIR_PRIVATE void choirQdrantScanQuery(QdrantScan *, ChoirErr *,
                                        sqlite3_value *, const char *zArg);
/* From several lists, fused: fusion (rrf, dbsf) and vectors as SQL gives them,
** either or both; the query is one list. */
CHOIR_PRIVATE void choirQdrantScanFuse(QdrantScan *, ChoirErr *,
                                       sqlite3_value *pFusion,
                                       sqlite3_value *pVectors,
                                       sqlite3_value *pQuery);
/* A scroll by `member` or `member desc`. */
CHOIR_PRIVATE void choirQdrantScanOrder(QdrantScan *, ChoirErr *,
                                        sqlite3_value *);
/* Appends what makes a request a query: each member after a comma. */
CHOIR_PRIVATE void choirQdrantScanBody(QdrantScan *, ChoirBuf *);
/* From the mean of an artifact's vectors; that artifact is not found. */
CHOIR_PRIVATE void choirQdrantScanSimilar(QdrantScan *, ChoirErr *,
                                          sqlite3_value *);
/* Fails when the payload is not this user's, or of another model. */
CHOIR_PRIVATE void choirQdrantOwn(const Qdrant *, ChoirErr *, QdrantSpan id,
                                  QdrantSpan payload, const char *zModel);

CHOIR_PRIVATE CHOIR_COLD void choirQdrantTableRegister(ChoirConn *, ChoirErr *);

/* -------------------------------------------------------------- write ----
** Points on their way: sent when there are 64 of them or 8 MiB.
*/
#define QDRANT_BATCH 64
#define QDRANT_BATCH_BYTES (8 << 20)

typedef struct QdrantPoint {
  char *zArtifact; /* owned */
  i64 iChunk;
  char *zText; /* to be embedded, or NULL; owned */
  i64 nText;
  float *aVector; /* or NULL; owned */
  char *zPayload; /* members after those that choir writes, or ""; owned */
  char *zVectors; /* members beside the vector, each after a comma; owned */
} QdrantPoint;

struct QdrantPoints {
  Qdrant *pTo;
  const ChoirEmbedModel *pModel; /* NULL: vectors are given */
  int nDim;                      /* of the collection, 0: not known yet */
  i64 nByte, nSent;
  int n;
  QdrantPoint a[QDRANT_BATCH];
};

/* Takes the point's allocations over, also when it fails. */
CHOIR_PRIVATE void choirQdrantPut(QdrantPoints *, ChoirErr *, QdrantPoint *);
CHOIR_PRIVATE void choirQdrantPutEnd(QdrantPoints *, ChoirErr *);
CHOIR_PRIVATE void choirQdrantPointsFree(QdrantPoints *);
CHOIR_PRIVATE void choirQdrantPointFree(QdrantPoint *);
/* Deletes by filter: the points of each artifact in a JSON array of conditions
** on payloads. */
CHOIR_PRIVATE void choirQdrantDelete(Qdrant *, ChoirErr *,
                                     const ChoirBuf *pConditions);
/* UUIDv5 of user, artifact and chunk. */
CHOIR_PRIVATE void choirQdrantId(ChoirErr *, const char *zUser,
                                 const char *zArtifact, i64 iChunk, char z[37]);
CHOIR_PRIVATE CHOIR_COLD void choirQdrantWriteRegister(ChoirConn *, ChoirErr *);

/* -------------------------------------------------------------- flush ---- */
#define CHOIR_QDRANT_FLUSH 10000 /* documents of one call, unless it says */

/* What qdrant_flush() does; its JSON object is appended. */
CHOIR_PRIVATE void choirQdrantFlush(ChoirConn *, ChoirErr *, i64 nMax,
                                    ChoirBuf *pResult);
CHOIR_PRIVATE CHOIR_COLD void choirQdrantFlushRegister(ChoirConn *, ChoirErr *);
/* rank, score, id, artifact_id, path, preview and payload of a hit as cells,
** once it is found to be the user's own. */
CHOIR_PRIVATE void choirQdrantHitRow(ChoirCursor *, const QdrantScan *,
                                     QdrantSpan hit, i64 iRank);
/* How many points of the user a filter (an SQL value, or NULL) finds. */
CHOIR_PRIVATE i64 choirQdrantCount(Qdrant *, ChoirErr *, sqlite3_value *);
CHOIR_PRIVATE CHOIR_COLD void choirQdrantSqlRegister(ChoirConn *, ChoirErr *);
CHOIR_PRIVATE CHOIR_COLD void choirQdrantEachRegister(ChoirConn *, ChoirErr *);
CHOIR_PRIVATE CHOIR_COLD void choirQdrantRegister(ChoirConn *, ChoirErr *);

#endif /* CHOIR_QDRANT_H */
