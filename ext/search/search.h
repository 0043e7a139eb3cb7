/* SPDX-License-Identifier: MIT */
/*
** search: text and vectors over artifacts, messages and memories.
**
**   store  documents into chunks, vectors and text rows   search_store.c
**   live   documents that are not indexed yet             search_live.c
**   term   a query as words; scores and previews          search_term.c
**   remote what a Qdrant collection finds                 search_remote.c
**   query  choir_search                                   search_query.c
**   index  choir_index and the reports                    search.c
**
** One schema (search_store.c), two places: the workspace, written by
** choir_index() only, and a private database of the connection with what
** changed since. A search asks both by the same code and gives the same answer
** wherever a document is.
*/
#ifndef CHOIR_SEARCH_H
#define CHOIR_SEARCH_H

#include "../core/core.h"
#include "../embed/embed.h"

typedef struct SearchDoc SearchDoc;
typedef struct SearchLive SearchLive;
typedef struct SearchStore SearchStore;
typedef struct SearchTerm SearchTerm;
typedef struct SearchTerms SearchTerms;

/* --------------------------------------------------------------- store ---- */
#define SEARCH_CHUNK_BITS 20 /* chunk id = document id << 20 | number */
#define SEARCH_CHUNK_MOST (((i64)1 << SEARCH_CHUNK_BITS) - 1)
#define SEARCH_BATCH 256
#define SEARCH_INDEX "choir_search" /* the vector index over the chunks … */
#define SEARCH_INDEX_FROM 20000     /* … made when there are so many */

enum { SEARCH_ARTIFACT, SEARCH_MESSAGE, SEARCH_MEMORY, SEARCH_KINDS };

/* The names in results and in action_log.tbl. */
CHOIR_PRIVATE const char *choirSearchKind(int eKind);
CHOIR_PRIVATE int choirSearchKindOf(const char *zTable); /* -1: none */

struct SearchDoc {
  int eKind;
  const char *zId;
  int nId;
  const char *zPath; /* NULL: none */
  int nPath;
  const char *aText; /* content; NULL: none */
  i64 nText;
  const char *zRemote; /* its SHA-256, hexadecimal or empty, when the content
                       ** lies in the object store; else NULL */
};

struct SearchStore {
  ChoirConn *pHost; /* who asks: configuration, interrupts */
  ChoirConn *pConn; /* where the tables are; the same for the workspace */
  const ChoirEmbedModel *pModel;
  int bText;  /* _choir_fts is there and kept up to date */
  i64 nChunk; /* chunks in the store */
  i64 nIndexed, nRemoved, nWritten; /* documents, documents, chunks */
  /* Chunks that wait for their vectors. */
  int nBatch;
  i64 aId[SEARCH_BATCH];
  char *azText[SEARCH_BATCH];
  i64 anText[SEARCH_BATCH];
};

/* Does SQLite have FTS5 on this connection? */
CHOIR_PRIVATE int choirSearchHasFts(ChoirConn *, ChoirErr *);
/* Makes the tables where they are missing; _choir_fts. */
CHOIR_PRIVATE void choirSearchMake(ChoirConn *, ChoirErr *);
CHOIR_PRIVATE void choirSearchMakeFts(ChoirConn *, ChoirErr *);
/* Have the tables been made? */
CHOIR_PRIVATE int choirSearchIsMade(ChoirConn *, ChoirErr *);
/* Makes the store agree with a document: a no-op when it does already. */
CHOIR_PRIVATE void choirSearchPut(SearchStore *, ChoirErr *, const SearchDoc *);
/* Without its chunks; bForget: without a trace. */
CHOIR_PRIVATE void choirSearchDrop(SearchStore *, ChoirErr *, int eKind,
                                   const char *zId, int nId, int bForget);
/* Reads one document of the workspace by id and puts it, or drops it when it
** is gone. */
CHOIR_PRIVATE void choirSearchPull(SearchStore *, ChoirErr *, int eKind,
                                   sqlite3_value *pId, int bForget);
/* Puts every document of the workspace and drops what is gone. xTick, if any,
** is called now and then. */
CHOIR_PRIVATE void choirSearchPullAll(SearchStore *, ChoirErr *,
                                      void (*xTick)(SearchStore *));
/* Pulls what the log says changed after iFrom. */
CHOIR_PRIVATE void choirSearchPullLog(SearchStore *, ChoirErr *, i64 iFrom,
                                      int bForget,
                                      void (*xTick)(SearchStore *));
/* n floats as int8, the largest as 127: cosines stay the same to about 0.001,
** in a quarter of the room. */
CHOIR_PRIVATE void choirSearchQuantize(const float *a, int n, signed char *aTo);
/* Embeds and writes the waiting chunks; on an error it lets go of them. */
CHOIR_PRIVATE void choirSearchFlush(SearchStore *, ChoirErr *);
/* Has a text embedded, in batches, for the embedding cache alone; NULL: what
** is left. */
CHOIR_PRIVATE void choirSearchWarm(SearchStore *, ChoirErr *, const char *z,
                                   i64 n);
/* The vectors of every chunk anew, by the store's model. */
CHOIR_PRIVATE void choirSearchEmbedAll(SearchStore *, ChoirErr *,
                                       void (*xTick)(SearchStore *));
/* Are the triggers there that tell of every change? */
CHOIR_PRIVATE int choirSearchTrusted(ChoirConn *, ChoirErr *);
/* The place of the text index in the log, -1: look at everything. */
CHOIR_PRIVATE i64 choirSearchCursor(ChoirConn *, ChoirErr *);

/* ---------------------------------------------------------------- live ---- */
struct SearchLive {
  SearchStore store; /* pConn NULL: none yet */
  int bAll;          /* it holds every document: the workspace's are not read */
  char *zFile;       /* schema and file it was read from */
  i64 iCursor;       /* the text index's place then */
  i64 iTail;         /* the last action then, 0: none */
  char *zTail;       /* its id */
  char *zModel;      /* whose vectors are in it */
};

/* Brings the private database up to date with this moment's view of the
** workspace and returns it. */
CHOIR_PRIVATE SearchLive *choirSearchLive(ChoirConn *, ChoirErr *,
                                          const ChoirEmbedModel *);

/* ---------------------------------------------------------------- term ---- */
#define SEARCH_TERM_MAX 32

struct SearchTerm {
  char a[4 * CHOIR_WORD_MAX + 8]; /* folded */
  int n;
  const char *zRaw; /* as it was written, in the query or in zMend */
  int nRaw;
  int bPrefix; /* the last word, perhaps unfinished */
  i64 nDf;     /* chunks that have it */
  double rIdf;
  char *zMend;      /* a word near to this one, or NULL; owned */
  int nMend, iMend; /* its bytes and its distance */
};

struct SearchTerms {
  const char *zQuery;
  i64 nQuery;
  int n;
  SearchTerm a[SEARCH_TERM_MAX];
};

/* The distinct words of a query, at most SEARCH_TERM_MAX. */
CHOIR_PRIVATE void choirSearchTerms(SearchTerms *, const char *z, i64 n);
/* Looks among the words of a text for ones near to terms that no chunk has;
** then puts them in their place: 1 when there were any. */
CHOIR_PRIVATE void choirSearchNear(SearchTerms *, ChoirErr *, const char *z,
                                   i64 n);
CHOIR_PRIVATE int choirSearchMend(SearchTerms *);
CHOIR_PRIVATE void choirSearchTermsFree(SearchTerms *);
/* rIdf of every term, from nDf and the number of chunks. */
CHOIR_PRIVATE void choirSearchWeigh(SearchTerms *, i64 nChunk);
/* How well a chunk's text answers, 0 when no word is in it; *pbAll is set when
** all are. */
CHOIR_PRIVATE double choirSearchScore(const SearchTerms *, const char *z, i64 n,
                                      int *pbAll);
/* An FTS5 expression that is safe for every query: the terms in mTerm joined
** by zJoin; caller frees. */
CHOIR_PRIVATE char *choirSearchMatch(const SearchTerms *, ChoirErr *, u32 mTerm,
                                     const char *zJoin);
/* The most telling passage of a text, about 200 bytes on one line; caller
** frees. */
CHOIR_PRIVATE char *choirSearchPreview(const SearchTerms *, ChoirErr *,
                                       const char *z, i64 n);

/* -------------------------------------------------------------- remote ---- */
typedef struct SearchRemoteHit {
  int eKind;
  char *zId, *zPath, *zPreview; /* owned; the last two may be NULL */
} SearchRemoteHit;

typedef struct SearchRemote {
  SearchRemoteHit *a; /* documents, best first */
  int n;
  char *zFailed; /* why there are none, or NULL */
} SearchRemote;

/* At most nMost documents of the configured collection; zPrefix of their paths,
** or NULL. */
CHOIR_PRIVATE void choirSearchRemote(SearchRemote *, ChoirConn *, ChoirErr *,
                                     sqlite3_value *pQuery, const char *zPrefix,
                                     i64 nMost);
/* Sends what changed there; the JSON object of qdrant_flush() is appended. */
CHOIR_PRIVATE void choirSearchSend(ChoirConn *, ChoirErr *, ChoirBuf *pResult);
/* The rank of a document from 1, 0: not found. */
CHOIR_PRIVATE int choirSearchRemoteFind(const SearchRemote *, const char *zKind,
                                        const char *zId);
CHOIR_PRIVATE void choirSearchRemoteFree(SearchRemote *);

/* --------------------------------------------------------------- query ---- */
CHOIR_PRIVATE CHOIR_COLD void choirSearchQueryRegister(ChoirConn *, ChoirErr *);

CHOIR_PRIVATE CHOIR_COLD void choirSearchRegister(ChoirConn *, ChoirErr *);

#endif /* CHOIR_SEARCH_H */
