/* SPDX-License-Identifier: MIT */
/*
** Models and the SQL functions of embed: embed, embed_model, embed_chunks,
** embed_each, embed_all.
**
** A vector is a blob of little-endian 32-bit floats with subtype 223, so that
** the vec_ functions take it for what it is. Nothing is stored here; rooms
** that store vectors keep the model's name beside them.
*/
#include "embed.h"

#define EMBED_SUBTYPE 223 /* f32, as sqlite-vec marks its vectors */

/* Is it the name of a service? Without the network there is none. */
static int embedIsRemote(const char *zName) {
#ifndef CHOIR_OMIT_NET
  const char *z;
  int i;
  for (i = 0; (z = choirRemoteName(i)) != NULL; i++) {
    if (strcmp(z, zName) == 0) {
      return 1;
    }
  }
#endif
  (void)zName;
  return 0;
}

/* The value of embed.provider, checked, and not refused on a read-only
** connection; NULL and the error otherwise. */
static const char *embedProvider(ChoirConn *pConn, ChoirErr *pErr,
                                 const char *zName) {
  const char *zHash = choirHashModel()->zName;
  int bRemote = embedIsRemote(zName);
  if (pErr->rc == SQLITE_OK && !bRemote && strcmp(zName, zHash) != 0) {
    ChoirBuf b;
    choirBufInit(&b, pErr, CHOIR_BUF_SQL);
    choirBufText(&b, zHash);
#ifndef CHOIR_OMIT_NET
    {
      const char *z;
      int i;
      for (i = 0; (z = choirRemoteName(i)) != NULL; i++) {
        choirBufPrintf(&b, ", %s", z);
      }
    }
#endif
    choirErrSet(pErr, SQLITE_ERROR,
                "embed.provider is '%s' and choir knows %s; run select"
                " choir_config('embed.provider', '%s')",
                zName, b.a ? b.a : "", zHash);
    choirBufFree(&b);
  } else if (bRemote && pConn->bReadonly) {
    choirErrSet(pErr, SQLITE_AUTH,
                "embed.provider %s reaches the network and this connection is"
                " read-only; choose %s",
                zName, zHash);
  }
  return pErr->rc == SQLITE_OK ? zName : NULL;
}

CHOIR_PRIVATE const ChoirEmbedModel *
choirEmbedModelFor(ChoirConn *pConn, ChoirErr *pErr, const char *const *azText,
                   const i64 *anText, int n, int eRole) {
  const char *z =
      embedProvider(pConn, pErr, choirConfig(pConn, "embed.provider"));
#ifndef CHOIR_OMIT_NET
  if (z && embedIsRemote(z)) {
    return choirRemoteModel(pConn, pErr, z, azText, anText, n, eRole);
  }
#else
  (void)azText, (void)anText, (void)n, (void)eRole;
#endif
  return z ? choirHashModel() : NULL;
}

CHOIR_PRIVATE const ChoirEmbedModel *choirEmbedModel(ChoirConn *pConn,
                                                     ChoirErr *pErr) {
  return choirEmbedModelFor(pConn, pErr, NULL, NULL, 0, CHOIR_EMBED_DOCUMENT);
}

/* embed.provider is checked when it is set, not only when it is used. */
static void embedConfig(ChoirConn *pConn, ChoirErr *pErr, const char *zValue) {
  if (zValue) {
    embedProvider(pConn, pErr, zValue);
  }
}

static int embedIsFinite(const float *a, i64 n) {
  i64 i;
  for (i = 0; i < n; i++) {
    if (!(a[i] - a[i] == 0.0f)) {
      return 0;
    }
  }
  return 1;
}

CHOIR_PRIVATE void choirEmbedBatch(ChoirConn *pConn, ChoirErr *pErr,
                                   const ChoirEmbedModel *pModel,
                                   const char *const *azText, const i64 *anText,
                                   int n, int eRole, float *aOut) {
  int i;
  for (i = 0; i < n && pErr->rc == SQLITE_OK; i += pModel->nBatch) {
    int nNow = n - i < pModel->nBatch ? n - i : pModel->nBatch;
    float *a = aOut + (i64)i * pModel->nDim;
    pModel->xBatch(pConn, pErr, azText + i, anText + i, nNow, eRole, a);
    if (pErr->rc == SQLITE_OK && !embedIsFinite(a, (i64)nNow * pModel->nDim)) {
      choirErrSet(pErr, SQLITE_ERROR,
                  "%s gave a vector with NaN or an infinity", pModel->zName);
    }
  }
}

static void embedResult(sqlite3_context *pCtx, float *a, int nDim) {
  choirLittleEndian(a, (u64)nDim * sizeof(float), sizeof(float));
  sqlite3_result_blob64(pCtx, a, (u64)nDim * sizeof(float), sqlite3_free);
  sqlite3_result_subtype(pCtx, EMBED_SUBTYPE);
}

static int embedRole(ChoirErr *pErr, sqlite3_value *v) {
  const char *z = choirArgTextOrNull(pErr, v, "role");
  if (z == NULL || strcmp(z, "document") == 0) {
    return CHOIR_EMBED_DOCUMENT;
  }
  if (strcmp(z, "query") != 0) {
    choirErrSet(pErr, SQLITE_ERROR, "role must be document or query, got '%s'",
                z);
  }
  return CHOIR_EMBED_QUERY;
}

/*
** SQL: embed(text[, role]) -> BLOB
**
** The vector of a text by the configured model, as little-endian 32-bit floats
** of length 1, ready for the vec_ functions. The built-in model hash-384 is
** lexical: it brings together the same words, their other forms and their
** misspellings, not meanings. With embed.provider openai, ollama or tei the
** text goes to that service, unless its vector is kept from before; for many
** texts use embed_each() or embed_all(), which send batches.
**
**   text  TEXT
**   role  'document' (default) or 'query', for models that tell them apart
**
** NULL: a NULL text gives NULL. A text without letters or digits (for a
** service: of white space alone) gives the zero vector.
** Errors: document is not text, not valid UTF-8 or has a NUL character; unknown
** role; unknown embed.provider.
**
** > SELECT length(embed('patent licence')), embed_model()
** = 1536|hash-384
** > SELECT embed('patent', 'answer')
** ! embed: role must be document or query, got 'answer'
*/
static void embedFunc(ChoirCall *p) {
  const ChoirEmbedModel *pModel;
  const char *z;
  float *a;
  i64 n;
  int eRole = p->nArg > 1 ? embedRole(&p->err, p->apArg[1]) : 0;
  if (sqlite3_value_type(p->apArg[0]) == SQLITE_NULL) {
    return;
  }
  z = choirArgText(&p->err, p->apArg[0], "text");
  n = sqlite3_value_bytes(p->apArg[0]);
  pModel = choirEmbedModelFor(p->pConn, &p->err, &z, &n, z != NULL, eRole);
  if (pModel == NULL) {
    return;
  }
  a = choirMalloc(&p->err, (u64)pModel->nDim * sizeof(float));
  if (a) {
    choirEmbedBatch(p->pConn, &p->err, pModel, &z, &n, 1, eRole, a);
    if (p->err.rc == SQLITE_OK) {
      embedResult(p->pCtx, a, pModel->nDim);
      return;
    }
  }
  sqlite3_free(a);
}

/*
** SQL: embed_model() -> TEXT
**
** The name of the configured embedding model, `provider/model` for one behind a
** service; stored beside the vectors it makes, because vectors of two models
** cannot be compared.
**
** Errors: unknown embed.provider; tei without embed.model.
**
** > SELECT embed_model()
** = hash-384
*/
static void embedModelFunc(ChoirCall *p) {
  const char *z =
      embedProvider(p->pConn, &p->err, choirConfig(p->pConn, "embed.provider"));
#ifndef CHOIR_OMIT_NET
  if (z && embedIsRemote(z)) { /* without asking the service */
    char *zName = choirRemoteModelName(p->pConn, &p->err, z);
    choirResultText(p, zName);
    sqlite3_free(zName);
    return;
  }
#endif
  if (z) {
    choirResultText(p, choirHashModel()->zName);
  }
}

/* ---------------------------------------------------------- embed_chunks */

typedef struct EmbedChunks {
  ChoirCursor base;
  ChoirChunker chunker;
  i64 iChar;    /* characters before byte iByte */
  i64 iByte;    /* at most the start of the current piece */
  i64 iCharEnd; /* characters before its end */
} EmbedChunks;

/* The options max and overlap; a NULL or absent one keeps its default. */
static void embedOptions(ChoirCursor *p, i64 *pnMax, i64 *pnOverlap) {
  ChoirErr *pErr = &p->err;
  const char *z;
  sqlite3_stmt *pStmt;
  if (p->apArg[1] == NULL || sqlite3_value_type(p->apArg[1]) == SQLITE_NULL) {
    return;
  }
  z = choirArgJson(p->pConn, pErr, p->apArg[1], "options");
  pStmt = choirStmt(p->pConn, pErr,
                    "SELECT json_type(?1), json_extract(?1, '$.max'),"
                    " json_extract(?1, '$.overlap'),"
                    " json_remove(?1, '$.max', '$.overlap')");
  choirBindText(pErr, pStmt, 1, z, -1);
  if (choirStep(pErr, pStmt)) {
    const char *zType = (const char *)sqlite3_column_text(pStmt, 0);
    const char *zRest = (const char *)sqlite3_column_text(pStmt, 3);
    if (zType == NULL || strcmp(zType, "object") != 0) {
      choirErrSet(pErr, SQLITE_ERROR, "options must be a JSON object, got %s",
                  zType ? zType : "null");
    } else if (zRest && strcmp(zRest, "{}") != 0) {
      choirErrSet(pErr, SQLITE_ERROR, "options are max and overlap, not %.100s",
                  zRest);
    }
    if (sqlite3_column_type(pStmt, 1) != SQLITE_NULL) {
      *pnMax = choirArgInt(pErr, sqlite3_column_value(pStmt, 1), "max",
                           CHOIR_CHUNK_MIN, CHOIR_CHUNK_MAX);
    }
    if (sqlite3_column_type(pStmt, 2) != SQLITE_NULL) {
      *pnOverlap = choirArgInt(pErr, sqlite3_column_value(pStmt, 2), "overlap",
                               0, *pnMax / 2);
    }
  }
  choirStmtDone(p->pConn, pStmt);
}

/* Characters among the bytes [iFrom, iTo). */
static i64 embedChars(const char *z, i64 iFrom, i64 iTo) {
  i64 n = 0;
  for (; iFrom < iTo; iFrom++) {
    n += ((u8)z[iFrom] & 0xc0) != 0x80;
  }
  return n;
}

static void embedChunksNext(ChoirCursor *pCur) {
  EmbedChunks *p = (EmbedChunks *)pCur;
  pCur->bEof = (u8)!choirChunkNext(&p->chunker);
  if (!pCur->bEof) {
    p->iChar += embedChars(p->chunker.z, p->iByte, p->chunker.iStart);
    p->iByte = p->chunker.iStart;
    p->iCharEnd =
        p->iChar + embedChars(p->chunker.z, p->iByte, p->chunker.iEnd);
  }
}

/*
** SQL: embed_chunks(document[, options]) -> TABLE(ord, start, "end", text,
**   char_start, char_end)
**
** A text cut at its own seams into pieces that a model can embed: before
** Markdown headings, else at blank lines, sentence ends, line ends, white
** space, and only then inside a word, never inside a character. Pieces do not
** start or end with white space; every other byte is in one. Offsets count
** from 0, the end is the first one after: start and "end" in bytes of the
** UTF-8 text, char_start and char_end in characters, so that
** substr(document, char_start + 1, char_end - char_start) is the piece.
**
**   document TEXT
**   options  JSON object: max, bytes in a piece, 64 to 1048576, default 1000;
**            overlap, bytes to repeat from the piece before, 0 (default) to
**            max/2, moved to the next word
**
** NULL: a NULL document has no pieces.
** Errors: document is not text, not valid UTF-8 or has a NUL character; unknown
** options.
**
** > SELECT ord, start, "end", replace(text, char(10), '/')
** > FROM embed_chunks(replace('# One/apple//# Two/pear', '/', char(10)))
** = 0|0|11|# One/apple
** = 1|13|23|# Two/pear
** > SELECT * FROM embed_chunks('x', '{"size":9}')
** ! embed_chunks: options are max and overlap, not {"size":9}
*/
static void embedChunksFilter(ChoirCursor *pCur) {
  EmbedChunks *p = (EmbedChunks *)pCur;
  i64 nMax = CHOIR_CHUNK_BYTES, nOverlap = 0, n = 0;
  const char *z = "";
  p->iChar = p->iByte = 0;
  if (pCur->apArg[0] && sqlite3_value_type(pCur->apArg[0]) != SQLITE_NULL) {
    z = choirArgText(&pCur->err, pCur->apArg[0], "document");
    n = sqlite3_value_bytes(pCur->apArg[0]);
  }
  embedOptions(pCur, &nMax, &nOverlap);
  if (pCur->err.rc == SQLITE_OK) {
    choirChunkInit(&p->chunker, z, n, nMax, nOverlap);
    embedChunksNext(pCur);
  }
}

static void embedChunksColumn(ChoirCursor *pCur, sqlite3_context *pCtx, int i) {
  EmbedChunks *p = (EmbedChunks *)pCur;
  const ChoirChunker *c = &p->chunker;
  switch (i) {
  case 0:
    sqlite3_result_int64(pCtx, c->iOrd);
    break;
  case 1:
    sqlite3_result_int64(pCtx, c->iStart);
    break;
  case 2:
    sqlite3_result_int64(pCtx, c->iEnd);
    break;
  case 3:
    sqlite3_result_text64(pCtx, c->z + c->iStart, (u64)(c->iEnd - c->iStart),
                          SQLITE_TRANSIENT, SQLITE_UTF8);
    break;
  case 4:
    sqlite3_result_int64(pCtx, p->iChar);
    break;
  default:
    sqlite3_result_int64(pCtx, p->iCharEnd);
    break;
  }
}

/* ------------------------------------------------------------ embed_each */

typedef struct EmbedEach {
  ChoirCursor base;
  float *a; /* nText vectors */
  i64 nText;
  int nDim;
  char **azText; /* while they are embedded */
  i64 *anText;
} EmbedEach;

static void embedEachReset(ChoirCursor *pCur) {
  EmbedEach *p = (EmbedEach *)pCur;
  i64 i;
  for (i = 0; p->azText && i < p->nText; i++) {
    sqlite3_free(p->azText[i]);
  }
  sqlite3_free(p->azText);
  sqlite3_free(p->anText);
  sqlite3_free(p->a);
  p->azText = NULL;
  p->anText = NULL;
  p->a = NULL;
  p->nText = 0;
}

static void embedEachAdd(EmbedEach *p, ChoirErr *pErr, sqlite3_value *v,
                         const char *zType) {
  const char *z = (const char *)sqlite3_value_text(v);
  if (strcmp(zType, "text") != 0) {
    choirErrSet(pErr, SQLITE_ERROR, "element %lld must be text, got %s",
                p->nText, zType);
  } else if (z == NULL) {
    choirErrNomem(pErr);
  }
  if ((p->nText & (p->nText - 1)) == 0) { /* full at every power of two */
    u64 n = p->nText ? (u64)p->nText * 2 : 1;
    void *az = choirRealloc(pErr, p->azText, n * sizeof(char *));
    void *an;
    p->azText = az ? az : p->azText;
    an = choirRealloc(pErr, p->anText, n * sizeof(i64));
    p->anText = an ? an : p->anText;
  }
  if (pErr->rc == SQLITE_OK) {
    i64 n = sqlite3_value_bytes(v);
    p->azText[p->nText] = choirMalloc(pErr, (u64)n + 1);
    if (p->azText[p->nText]) {
      memcpy(p->azText[p->nText], z, (size_t)n);
      p->anText[p->nText++] = n;
    }
  }
}

/*
** SQL: embed_each(texts[, role]) -> TABLE(ord, embedding)
**
** The vectors of many texts at once, in their order, ord from 0: one request
** for a batch where a model is behind a network. Each is what embed() gives.
**
**   texts  TEXT, a JSON array of strings
**   role   'document' (default) or 'query'
**
** NULL: NULL texts have no rows.
** Errors: texts is not a JSON array; an element is not a string; the errors of
** embed().
**
** > SELECT ord, embedding = embed('pear') FROM embed_each('["apple","pear"]')
** = 0|0
** = 1|1
** > SELECT * FROM embed_each('["apple",7]')
** ! embed_each: element 1 must be text, got integer
*/
static void embedEachFilter(ChoirCursor *pCur) {
  EmbedEach *p = (EmbedEach *)pCur;
  ChoirErr *pErr = &pCur->err;
  int eRole = embedRole(pErr, pCur->apArg[1]);
  const ChoirEmbedModel *pModel;
  sqlite3_stmt *pStmt;
  const char *z;
  pCur->bEof = 1;
  if (pCur->apArg[0] == NULL ||
      sqlite3_value_type(pCur->apArg[0]) == SQLITE_NULL) {
    return;
  }
  z = choirArgJson(pCur->pConn, pErr, pCur->apArg[0], "texts");
  /* On choir's own connection: a table of the host may be called json_each. */
  pStmt = choirJsonStmt(pCur->pConn, pErr,
                        "SELECT value, type, json_type(?1) FROM json_each(?1)",
                        z, -1);
  while (choirStep(pErr, pStmt)) {
    const char *zType = (const char *)sqlite3_column_text(pStmt, 2);
    if (zType == NULL || strcmp(zType, "array") != 0) {
      choirErrSet(pErr, SQLITE_ERROR, "texts must be a JSON array, got %s",
                  zType ? zType : "null");
    } else {
      zType = (const char *)sqlite3_column_text(pStmt, 1);
      embedEachAdd(p, pErr, sqlite3_column_value(pStmt, 0),
                   zType ? zType : "null");
    }
  }
  sqlite3_finalize(pStmt);
  pModel = pErr->rc == SQLITE_OK && p->nText > 0
               ? choirEmbedModelFor(pCur->pConn, pErr,
                                    (const char *const *)p->azText, p->anText,
                                    (int)p->nText, eRole)
               : NULL;
  if (pModel) {
    p->nDim = pModel->nDim;
    p->a = choirMalloc(pErr, (u64)p->nText * (u64)p->nDim * sizeof(float));
    if (p->a) {
      choirEmbedBatch(pCur->pConn, pErr, pModel, (const char *const *)p->azText,
                      p->anText, (int)p->nText, eRole, p->a);
      choirLittleEndian(p->a, (u64)p->nText * (u64)p->nDim * sizeof(float),
                        sizeof(float));
    }
    pCur->bEof = 0;
  }
}

static void embedEachNext(ChoirCursor *pCur) {
  pCur->bEof = pCur->iRow >= ((EmbedEach *)pCur)->nText;
}

static void embedEachColumn(ChoirCursor *pCur, sqlite3_context *pCtx, int i) {
  EmbedEach *p = (EmbedEach *)pCur;
  if (i == 0) {
    sqlite3_result_int64(pCtx, pCur->iRow);
  } else {
    sqlite3_result_blob64(pCtx, p->a + pCur->iRow * p->nDim,
                          (u64)p->nDim * sizeof(float), SQLITE_TRANSIENT);
    sqlite3_result_subtype(pCtx, EMBED_SUBTYPE);
  }
}

/* ------------------------------------------------------------- embed_all */

#define EMBED_ALL_BATCH 256

typedef struct EmbedAll {
  char *azText[EMBED_ALL_BATCH]; /* waiting */
  i64 anText[EMBED_ALL_BATCH];
  int n;
  int eRole;
  i64 nAll;   /* embedded so far */
  u8 bFailed; /* SQLite still ends the group: nothing more is sent */
} EmbedAll;

static void embedAllFlush(ChoirCall *p, EmbedAll *pAll) {
  const ChoirEmbedModel *pModel =
      pAll->bFailed ? NULL
                    : choirEmbedModelFor(p->pConn, &p->err,
                                         (const char *const *)pAll->azText,
                                         pAll->anText, pAll->n, pAll->eRole);
  float *a = pModel ? choirMalloc(&p->err, (u64)pAll->n * (u64)pModel->nDim *
                                               sizeof(float))
                    : NULL;
  int i;
  if (a) {
    choirEmbedBatch(p->pConn, &p->err, pModel,
                    (const char *const *)pAll->azText, pAll->anText, pAll->n,
                    pAll->eRole, a);
  }
  sqlite3_free(a);
  for (i = 0; i < pAll->n; i++) {
    sqlite3_free(pAll->azText[i]);
  }
  pAll->nAll += p->err.rc == SQLITE_OK ? pAll->n : 0;
  pAll->n = 0;
}

static void embedAllStep(ChoirCall *p) {
  EmbedAll *pAll = sqlite3_aggregate_context(p->pCtx, sizeof(*pAll));
  const char *z;
  if (sqlite3_value_type(p->apArg[0]) == SQLITE_NULL) {
    return;
  }
  z = choirArgText(&p->err, p->apArg[0], "text");
  if (pAll == NULL) {
    choirErrNomem(&p->err);
    return;
  }
  pAll->eRole = p->nArg > 1 ? embedRole(&p->err, p->apArg[1]) : 0;
  pAll->azText[pAll->n] = z ? choirMprintf(&p->err, "%s", z) : NULL;
  if (pAll->azText[pAll->n]) {
    pAll->anText[pAll->n++] = sqlite3_value_bytes(p->apArg[0]);
  }
  if (pAll->n == EMBED_ALL_BATCH) {
    embedAllFlush(p, pAll);
  }
  pAll->bFailed = p->err.rc != SQLITE_OK;
}

/*
** SQL: aggregate embed_all(text[, role]) -> INTEGER
**
** Embeds the texts of a group in batches, so that afterwards embed() of each
** of them sends nothing: a service's vectors are kept in the file embed.cache.
** Returns how many texts there were. With the built-in model, which needs no
** batches, it is only slower than embed() alone.
**
**   text  TEXT
**   role  'document' (default) or 'query', the same for the whole group
**
** NULL: skipped; a group without texts gives 0.
** Errors: those of embed().
**
** > SELECT embed_all(value) FROM json_each('["apple", "pear", null]')
** = 2
*/
static void embedAllFinal(ChoirCall *p) {
  EmbedAll *pAll = sqlite3_aggregate_context(p->pCtx, 0);
  if (pAll && pAll->n > 0) {
    embedAllFlush(p, pAll);
  }
  if (p->err.rc == SQLITE_OK) {
    sqlite3_result_int64(p->pCtx, pAll ? pAll->nAll : 0);
  }
}

static const ChoirFunc aEmbedFunc[] = {
    /* EFFECT because a model may be remote; hash-384 never is. */
    {"embed", 1, 2, CHOIR_EFFECT, CHOIR_LOCAL | CHOIR_SUBTYPE, embedFunc, NULL},
    {"embed_all", 1, 2, CHOIR_EFFECT, 0, embedAllStep, embedAllFinal},
    {"embed_model", 0, 0, CHOIR_READ, 0, embedModelFunc, NULL},
};

static const ChoirTvf aEmbedTvf[] = {
    {"embed_chunks",
     "ord, start, \"end\", text, char_start, char_end, document HIDDEN,"
     " options HIDDEN",
     6, 1, 2, CHOIR_PURE, 0, (int)sizeof(EmbedChunks), embedChunksFilter,
     embedChunksNext, embedChunksColumn, NULL},
    {"embed_each", "ord, embedding, texts HIDDEN, role HIDDEN", 2, 1, 2,
     CHOIR_EFFECT, CHOIR_LOCAL, (int)sizeof(EmbedEach), embedEachFilter,
     embedEachNext, embedEachColumn, embedEachReset},
};

CHOIR_PRIVATE CHOIR_COLD void choirEmbedRegister(ChoirConn *pConn,
                                                 ChoirErr *pErr) {
  choirConfigHook(pConn, "embed.provider", embedConfig);
  choirFuncs(pConn, pErr, aEmbedFunc);
  choirTvfs(pConn, pErr, aEmbedTvf);
}
