/* SPDX-License-Identifier: MIT */
/*
** embed: from text to words, chunks and vectors.
**
**   word   folded words of a text            embed_word.c
**   chunk  a text cut at its own seams       embed_chunk.c
**   hash   the built-in model hash-384       embed_hash.c
**   remote models behind a service           embed_remote.c
**   cache  what services have made           embed_cache.c
**   drive  models, and the SQL functions     embed.c
*/
#ifndef CHOIR_EMBED_H
#define CHOIR_EMBED_H

#include "../core/core.h"

typedef struct ChoirChunker ChoirChunker;
typedef struct ChoirEmbedModel ChoirEmbedModel;
typedef struct ChoirWords ChoirWords;

/* --------------------------------------------------------------- word ----
** The words of a text: runs of letters and digits, lower case, without
** diacritics (Latin, Greek, Cyrillic, Armenian; other scripts as they are).
** A run longer than CHOIR_WORD_MAX characters is cut into words of that
** length. Bytes that are not UTF-8 separate words. docs/formats.md has the
** rules; changing them changes every stored vector.
*/
#define CHOIR_WORD_MAX 64

struct ChoirWords {
  const u8 *z; /* text; the caller's */
  i64 n, i;    /* its bytes, the place reached */
  /* The word found by choirWordNext: */
  i64 iStart, iEnd;                /* its bytes in the text */
  int nFold, nChar;                /* bytes and characters of aFold */
  char aFold[8 * CHOIR_WORD_MAX];  /* folded, UTF-8, not terminated */
  u16 aAt[2 * CHOIR_WORD_MAX + 1]; /* byte where each character starts */
};

CHOIR_PRIVATE void choirWordInit(ChoirWords *p, const char *z, i64 n);
/* 1 when there is another word. */
CHOIR_PRIVATE int choirWordNext(ChoirWords *p);
/* The 64-bit hash of hash-384: FNV-1a of cTag and n bytes, then mixed. */
CHOIR_PRIVATE u64 choirWordHash(char cTag, const char *a, int n);

/* -------------------------------------------------------------- chunk ----
** Cuts a text into pieces of at most nMax bytes, one at a time, in linear
** time. A piece ends before a Markdown heading, else at the last paragraph,
** sentence, line or word end that fits, else between two characters. Pieces
** do not start or end with white space, and every other byte is in one.
*/
#define CHOIR_CHUNK_BYTES 1000
#define CHOIR_CHUNK_MIN 64
#define CHOIR_CHUNK_MAX (1 << 20)

struct ChoirChunker {
  const char *z; /* text; the caller's */
  i64 n;         /* its bytes */
  i64 nMax;      /* bytes a piece may have */
  i64 nOverlap;  /* bytes of the piece before to begin with, at most nMax/2 */
  i64 iNext;     /* where the next piece may start */
  i64 iFresh;    /* first byte that no piece has yet */
  u8 bFence;     /* iNext is inside a Markdown code fence */
  /* The piece found by choirChunkNext: */
  i64 iOrd;         /* 0, 1, … */
  i64 iStart, iEnd; /* its bytes */
};

CHOIR_PRIVATE void choirChunkInit(ChoirChunker *p, const char *z, i64 n,
                                  i64 nMax, i64 nOverlap);
/* 1 when there is another piece. */
CHOIR_PRIVATE int choirChunkNext(ChoirChunker *p);

/* -------------------------------------------------------------- drive ----
** A model turns texts into unit vectors of nDim floats. The setting
** embed.provider names it. A model that reaches the network has bLocal 0 and
** is refused on a read-only connection.
*/
enum { CHOIR_EMBED_DOCUMENT, CHOIR_EMBED_QUERY };

struct ChoirEmbedModel {
  const char *zName; /* also what is stored beside the vectors */
  int nDim;
  int bLocal;
  int nBatch;    /* texts that xBatch takes at once */
  int bLexical;  /* a text's vector is the sum of those of its words */
  double rMaybe; /* cosine similarity below which a hit means nothing */
  double rSure;  /* and above which it is hardly ever an accident */
  /* n vectors, L2-normalised (all zero for a text without content), into
  ** aOut[n*nDim]. */
  void (*xBatch)(ChoirConn *, ChoirErr *, const char *const *azText,
                 const i64 *anText, int n, int eRole, float *aOut);
};

CHOIR_PRIVATE const ChoirEmbedModel *choirHashModel(void); /* hash-384 */

#ifndef CHOIR_OMIT_NET
/* Name i of the services, NULL past the last. */
CHOIR_PRIVATE const char *choirRemoteName(int i);
/* "provider/model" as configured, without asking; caller frees. */
CHOIR_PRIVATE char *choirRemoteModelName(ChoirConn *, ChoirErr *,
                                         const char *zProvider);
/* The model itself; see choirEmbedModelFor. */
CHOIR_PRIVATE const ChoirEmbedModel *choirRemoteModel(ChoirConn *, ChoirErr *,
                                                      const char *zProvider,
                                                      const char *const *azText,
                                                      const i64 *anText, int n,
                                                      int eRole);

/* 1 and the vector when it is kept under that key. */
CHOIR_PRIVATE int choirEmbedCacheGet(ChoirConn *, const u8 aKey[32], int nDim,
                                     float *aOut);
CHOIR_PRIVATE void choirEmbedCachePut(ChoirConn *, int n, const u8 (*aKey)[32],
                                      int nDim, const float *a);
/* How long a model's vectors are, 0: not known. */
CHOIR_PRIVATE int choirEmbedCacheDim(ChoirConn *, const char *zModel);
CHOIR_PRIVATE void choirEmbedCacheDimPut(ChoirConn *, const char *zModel,
                                         int nDim);
#endif

/* The configured model, or an error that lists the known ones. */
CHOIR_PRIVATE const ChoirEmbedModel *choirEmbedModel(ChoirConn *, ChoirErr *);
/* The same for texts that are embedded next: from them the length of a service's
** vectors is learnt, the first time, so that nothing else is sent for it. */
CHOIR_PRIVATE const ChoirEmbedModel *
choirEmbedModelFor(ChoirConn *, ChoirErr *, const char *const *azText,
                   const i64 *anText, int n, int eRole);
/* Any number of texts, in batches of the model's size; checks that what comes
** back is finite. */
CHOIR_PRIVATE void choirEmbedBatch(ChoirConn *, ChoirErr *,
                                   const ChoirEmbedModel *,
                                   const char *const *azText, const i64 *anText,
                                   int n, int eRole, float *aOut);

CHOIR_PRIVATE CHOIR_COLD void choirEmbedRegister(ChoirConn *, ChoirErr *);

#endif /* CHOIR_EMBED_H */
