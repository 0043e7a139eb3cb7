/* SPDX-License-Identifier: MIT */
/*
** A query as words: what FTS5 is asked, how a chunk is scored, which passage
** is shown.
**
** FTS5 only proposes chunks. Their score is computed here, from the chunk's
** text and from how many chunks of both places have each word, because the
** BM25 of two tables cannot be compared: so a document scores the same before
** and after it is indexed. It is BM25 (k1 1.2, b 0.75 against a chunk of
** CHOIR_CHUNK_BYTES) with two changes for short queries: it is multiplied by
** the share of the query's weight that the chunk has at all, and two words
** that stand side by side as in the query count half as much again.
*/
#include "search.h"
#include <math.h>

#define TERM_PREFIX 3 /* letters from which the last word may be unfinished */

CHOIR_PRIVATE void choirSearchTerms(SearchTerms *p, const char *z, i64 n) {
  ChoirWords w;
  int i;
  memset(p, 0, sizeof(*p));
  p->zQuery = z;
  p->nQuery = n;
  choirWordInit(&w, z, n);
  while (p->n < SEARCH_TERM_MAX && choirWordNext(&w)) {
    SearchTerm *pTerm = &p->a[p->n];
    for (i = 0; i < p->n; i++) {
      if (p->a[i].n == w.nFold &&
          memcmp(p->a[i].a, w.aFold, (size_t)w.nFold) == 0) {
        break;
      }
    }
    if (i < p->n) {
      continue;
    }
    memcpy(pTerm->a, w.aFold, (size_t)w.nFold);
    pTerm->n = w.nFold;
    pTerm->zRaw = z + w.iStart;
    pTerm->nRaw = (int)(w.iEnd - w.iStart);
    pTerm->bPrefix = w.iEnd == n && w.nChar >= TERM_PREFIX;
    p->n++;
  }
}

/* ------------------------------------------------------------- misspelt */

/* Edits (one byte put in, left out or changed, two swapped) from a to b, or
** more than iMost. */
static int termDistance(const char *a, int nA, const char *b, int nB,
                        int iMost) {
  int aRow[3][4 * CHOIR_WORD_MAX + 9];
  int i, j;
  for (j = 0; j <= nB; j++) {
    aRow[0][j] = j;
  }
  for (i = 1; i <= nA; i++) {
    int *aNow = aRow[i % 3], *aLast = aRow[(i + 2) % 3];
    int iBest = aNow[0] = i;
    for (j = 1; j <= nB; j++) {
      int iCost = aLast[j - 1] + (a[i - 1] != b[j - 1]);
      iCost = aLast[j] + 1 < iCost ? aLast[j] + 1 : iCost;
      iCost = aNow[j - 1] + 1 < iCost ? aNow[j - 1] + 1 : iCost;
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
          aRow[(i + 1) % 3][j - 2] + 1 < iCost) {
        iCost = aRow[(i + 1) % 3][j - 2] + 1;
      }
      aNow[j] = iCost;
      iBest = iCost < iBest ? iCost : iBest;
    }
    if (iBest > iMost) {
      return iBest;
    }
  }
  return aRow[nA % 3][nB];
}

/* Is this a word that could be misspelt: 4 letters or more, no digit? */
static int termIsPlain(const SearchTerm *t) {
  int i;
  for (i = 0; i < t->n; i++) {
    if (t->a[i] >= '0' && t->a[i] <= '9') {
      return 0;
    }
  }
  return t->n >= 4;
}

/* Up to 7 letters one edit is allowed, then two; the first letter stands. */
CHOIR_PRIVATE void choirSearchNear(SearchTerms *p, ChoirErr *pErr,
                                   const char *z, i64 n) {
  ChoirWords w;
  int i;
  choirWordInit(&w, z, n);
  while (pErr->rc == SQLITE_OK && choirWordNext(&w)) {
    for (i = 0; i < p->n; i++) {
      SearchTerm *t = &p->a[i];
      int iMost = t->n < 8 ? 1 : 2, nOff = w.nFold - t->n, iFar;
      iMost = t->zMend && t->iMend <= iMost ? t->iMend - 1 : iMost;
      if (t->nDf > 0 || t->a[0] != w.aFold[0] || nOff > iMost ||
          -nOff > iMost || !termIsPlain(t)) {
        continue;
      }
      iFar = termDistance(t->a, t->n, w.aFold, w.nFold, iMost);
      if (iFar <= iMost) {
        sqlite3_free(t->zMend);
        t->zMend =
            choirMprintf(pErr, "%.*s", (int)(w.iEnd - w.iStart), z + w.iStart);
        t->nMend = (int)(w.iEnd - w.iStart);
        t->iMend = iFar;
      }
    }
  }
}

CHOIR_PRIVATE int choirSearchMend(SearchTerms *p) {
  int i, bAny = 0;
  for (i = 0; i < p->n; i++) {
    SearchTerm *t = &p->a[i];
    ChoirWords w;
    if (t->zMend == NULL || t->zRaw == t->zMend) {
      continue;
    }
    choirWordInit(&w, t->zMend, t->nMend);
    if (choirWordNext(&w)) {
      memcpy(t->a, w.aFold, (size_t)w.nFold);
      t->n = w.nFold;
      t->zRaw = t->zMend;
      t->nRaw = t->nMend;
      t->bPrefix = 0;
      bAny = 1;
    }
  }
  return bAny;
}

CHOIR_PRIVATE void choirSearchTermsFree(SearchTerms *p) {
  int i;
  for (i = 0; i < p->n; i++) {
    sqlite3_free(p->a[i].zMend);
  }
  p->n = 0;
}

/* ---------------------------------------------------------------- scores */

CHOIR_PRIVATE void choirSearchWeigh(SearchTerms *p, i64 nChunk) {
  int i;
  for (i = 0; i < p->n; i++) {
    double rDf = (double)(p->a[i].nDf < nChunk ? p->a[i].nDf : nChunk);
    p->a[i].rIdf = log(1.0 + ((double)nChunk - rDf + 0.5) / (rDf + 0.5));
  }
}

/* The term that a word of a text is, -1 for none; an unfinished one counts
** only where the whole is no other term. */
static int termOf(const SearchTerms *p, const ChoirWords *w) {
  int i, iPrefix = -1;
  for (i = 0; i < p->n; i++) {
    const SearchTerm *pTerm = &p->a[i];
    if (pTerm->n > w->nFold ||
        memcmp(pTerm->a, w->aFold, (size_t)pTerm->n) != 0) {
      continue;
    }
    if (pTerm->n == w->nFold) {
      return i;
    }
    iPrefix = pTerm->bPrefix ? i : iPrefix;
  }
  return iPrefix;
}

CHOIR_PRIVATE double choirSearchScore(const SearchTerms *p, const char *z,
                                      i64 n, int *pbAll) {
  int anTerm[SEARCH_TERM_MAX] = {0};
  u8 abPair[SEARCH_TERM_MAX] = {0}; /* term i right before term i+1 */
  double r = 0.0, rHave = 0.0, rAll = 0.0;
  double rLength = 1.2 * (0.25 + 0.75 * (double)n / CHOIR_CHUNK_BYTES);
  ChoirWords w;
  int i, nHave = 0, iLast = -1;
  choirWordInit(&w, z, n);
  while (choirWordNext(&w)) {
    int iTerm = termOf(p, &w);
    if (iTerm >= 0) {
      anTerm[iTerm]++;
      if (iLast >= 0 && iTerm == iLast + 1) {
        abPair[iLast] = 1;
      }
    }
    iLast = iTerm;
  }
  for (i = 0; i < p->n; i++) {
    double rTf = (double)anTerm[i];
    rAll += p->a[i].rIdf;
    if (anTerm[i]) {
      nHave++;
      rHave += p->a[i].rIdf;
      r += p->a[i].rIdf * rTf * 2.2 / (rTf + rLength);
    }
    if (abPair[i]) {
      r += 0.5 * (p->a[i].rIdf + p->a[i + 1].rIdf);
    }
  }
  *pbAll = nHave == p->n;
  return rAll > 0.0 ? r * rHave / rAll : 0.0;
}

CHOIR_PRIVATE char *choirSearchMatch(const SearchTerms *p, ChoirErr *pErr,
                                     u32 mTerm, const char *zJoin) {
  ChoirBuf b;
  int i, n = 0;
  choirBufInit(&b, pErr, CHOIR_BUF_SQL);
  for (i = 0; i < p->n; i++) {
    const SearchTerm *t = &p->a[i];
    if (!(mTerm >> i & 1)) {
      continue;
    }
    if (n++) {
      choirBufText(&b, zJoin);
    }
    /* A word has no quotation mark in it: it is safe in quotation marks. */
    choirBufPrintf(&b, t->bPrefix ? "(\"%.*s\" OR \"%.*s\"*)" : "\"%.*s\"",
                   t->nRaw, t->zRaw, t->nRaw, t->zRaw);
  }
  return choirBufTake(&b);
}

/* --------------------------------------------------------------- preview */

#define PREVIEW_BYTES 200
#define PREVIEW_BEFORE 40 /* of them before the first word found */
#define PREVIEW_HITS 128  /* places looked at */

static int termIsSpace(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

typedef struct PreviewHit {
  i64 iStart;
  int iTerm;
} PreviewHit;

/* The start of the passage that holds the most of the query's weight. */
static i64 previewStart(const SearchTerms *p, const char *z, i64 n) {
  PreviewHit aHit[PREVIEW_HITS];
  ChoirWords w;
  double rBest = 0.0;
  i64 iBest = 0;
  int i, j, nHit = 0;
  choirWordInit(&w, z, n);
  while (nHit < PREVIEW_HITS && choirWordNext(&w)) {
    int iTerm = termOf(p, &w);
    if (iTerm >= 0) {
      aHit[nHit].iStart = w.iStart;
      aHit[nHit++].iTerm = iTerm;
    }
  }
  for (i = 0; i < nHit; i++) {
    u32 mSeen = 0;
    double r = 0.0;
    for (j = i; j < nHit && aHit[j].iStart <
                                aHit[i].iStart + PREVIEW_BYTES - PREVIEW_BEFORE;
         j++) {
      if (!(mSeen >> aHit[j].iTerm & 1)) {
        r += p->a[aHit[j].iTerm].rIdf;
      }
      mSeen |= 1u << aHit[j].iTerm;
    }
    if (r > rBest) {
      rBest = r;
      iBest = aHit[i].iStart;
    }
  }
  if (iBest <= PREVIEW_BEFORE) {
    return 0;
  }
  i = PREVIEW_BEFORE;
  while (i > 0 && !termIsSpace(z[iBest - i - 1])) {
    i--;
  }
  return iBest - i;
}

CHOIR_PRIVATE char *choirSearchPreview(const SearchTerms *p, ChoirErr *pErr,
                                       const char *z, i64 n) {
  i64 i, iStart = previewStart(p, z, n), iEnd = n;
  ChoirBuf b;
  choirBufInit(&b, pErr, CHOIR_BUF_SQL);
  if (n - iStart > PREVIEW_BYTES) {
    iEnd = iStart + PREVIEW_BYTES;
    while (iEnd > iStart + PREVIEW_BYTES / 2 && !termIsSpace(z[iEnd])) {
      iEnd--;
    }
    if (!termIsSpace(z[iEnd])) {
      iEnd = iStart + PREVIEW_BYTES;
      while (((u8)z[iEnd] & 0xc0) == 0x80) {
        iEnd--;
      }
    }
  }
  if (iStart > 0) {
    choirBufText(&b, "…");
  }
  for (i = iStart; i < iEnd; i++) {
    if (!termIsSpace(z[i])) {
      choirBufAppend(&b, &z[i], 1);
    } else if (i + 1 < iEnd && !termIsSpace(z[i + 1])) {
      choirBufText(&b, " ");
    }
  }
  if (iEnd < n) {
    choirBufText(&b, "…");
  }
  return choirBufTake(&b);
}
