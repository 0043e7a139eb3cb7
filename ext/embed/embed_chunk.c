/* SPDX-License-Identifier: MIT */
/*
** Cutting a text into pieces at its own seams.
**
** A piece begins at a byte that is not white space and looks at most nMax
** bytes ahead, in one pass that notes the seams it meets. Where it ends:
**
**   1. before a Markdown heading (a line of one to six '#' and a space, after
**      a blank line, outside code fences), unless it holds headings only;
**   2. at the end of the text, when that fits;
**   3. at the last blank line,
**   4. sentence end, 5. line end, 6. white space that is far enough in
**      (a quarter of nMax for 3 and 6, a half for 4 and 5);
**   7. after nMax bytes, between two characters.
**
** Each byte is looked at once per piece, so the cost is linear. White space is
** what ASCII calls so.
*/
#include "embed.h"

static int chunkIsSpace(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

static i64 chunkSkip(const ChoirChunker *p, i64 i) {
  while (i < p->n && chunkIsSpace(p->z[i])) {
    i++;
  }
  return i;
}

static int chunkAtLine(const ChoirChunker *p, i64 i) {
  return i == 0 || p->z[i - 1] == '\n';
}

/* Is the line before the one starting at i blank or absent? */
static int chunkAfterBlank(const ChoirChunker *p, i64 i) {
  i64 j = i - 1;
  while (j > 0 && chunkIsSpace(p->z[j - 1]) && p->z[j - 1] != '\n') {
    j--;
  }
  return j <= 0 || p->z[j - 1] == '\n';
}

/* Does the line starting at i open or close a code fence? */
static int chunkIsFence(const ChoirChunker *p, i64 i) {
  const char *z = p->z + i;
  return p->n - i >= 3 && (z[0] == '`' || z[0] == '~') && z[1] == z[0] &&
         z[2] == z[0];
}

static int chunkIsHeading(const ChoirChunker *p, i64 i) {
  i64 j = i;
  while (j < p->n && p->z[j] == '#') {
    j++;
  }
  return j > i && j - i <= 6 && j < p->n &&
         (p->z[j] == ' ' || p->z[j] == '\t') && chunkAfterBlank(p, i);
}

/* Does a sentence end with the bytes before i, which white space follows? */
static int chunkIsSentence(const ChoirChunker *p, i64 iFrom, i64 i) {
  while (i > iFrom && strchr("\"')]", p->z[i - 1]) != NULL) {
    i--;
  }
  return i > iFrom && strchr(".!?", p->z[i - 1]) != NULL;
}

/* Ideographic full stop, full-width ! and ?: they end a sentence alone. */
static int chunkIsWideStop(const ChoirChunker *p, i64 iFrom, i64 i) {
  const char *z = p->z + i - 3;
  return i - iFrom >= 3 && (memcmp(z, "\xe3\x80\x82", 3) == 0 ||
                            memcmp(z, "\xef\xbc\x81", 3) == 0 ||
                            memcmp(z, "\xef\xbc\x9f", 3) == 0);
}

/* The seams between iFrom and iTo: the last of each kind, -1 for none. */
typedef struct ChunkSeam {
  i64 iHeading; /* the first, not the last */
  i64 iBlank, iSentence, iLine, iSpace;
} ChunkSeam;

static void chunkSeams(const ChoirChunker *p, i64 iFrom, i64 iTo,
                       ChunkSeam *pSeam) {
  int bFence = p->bFence, bBody = !chunkAtLine(p, iFrom), bText = 0;
  i64 i;
  pSeam->iHeading = pSeam->iBlank = pSeam->iSentence = -1;
  pSeam->iLine = pSeam->iSpace = -1;
  for (i = iFrom; i < iTo; i++) {
    char c = p->z[i];
    if (chunkAtLine(p, i)) {
      int bHeading = !bFence && c == '#' && chunkIsHeading(p, i);
      bFence ^= (c == '`' || c == '~') && chunkIsFence(p, i);
      if (bHeading && bBody && i > p->iFresh) {
        pSeam->iHeading = i;
        return;
      }
      bBody |= !bHeading && !chunkIsSpace(c);
      bText = 0;
    }
    if (!chunkIsSpace(c)) {
      bText = 1;
      if ((u8)c >= 0x80 && chunkIsWideStop(p, iFrom, i + 1)) {
        pSeam->iSentence = i + 1;
      }
      continue;
    }
    if (i > iFrom && !chunkIsSpace(p->z[i - 1]) &&
        chunkIsSentence(p, iFrom, i)) {
      pSeam->iSentence = i;
    }
    pSeam->iSpace = i;
    if (c == '\n') {
      pSeam->iLine = i;
      if (!bText) {
        pSeam->iBlank = i;
      }
    }
  }
}

CHOIR_PRIVATE void choirChunkInit(ChoirChunker *p, const char *z, i64 n,
                                  i64 nMax, i64 nOverlap) {
  memset(p, 0, sizeof(*p));
  p->z = z;
  p->n = n;
  p->nMax = nMax < CHOIR_CHUNK_MIN ? CHOIR_CHUNK_MIN : nMax;
  p->nOverlap = nOverlap > p->nMax / 2 ? p->nMax / 2 : nOverlap;
  p->iOrd = -1;
  p->iFresh = chunkSkip(p, 0);
}

/* Where the piece after [iStart, iEnd) starts, and its fence state. */
static void chunkAdvance(ChoirChunker *p, int bHeading) {
  i64 i, iNext = p->iEnd;
  p->iFresh = chunkSkip(p, p->iEnd);
  if (p->nOverlap > 0 && !bHeading && p->iFresh < p->n) {
    iNext = p->iEnd - p->nOverlap;
    iNext = iNext > p->iStart ? iNext : p->iStart + 1;
    while (iNext < p->iEnd && !chunkIsSpace(p->z[iNext - 1])) {
      iNext++;
    }
  }
  for (i = p->iStart; i < iNext; i++) {
    p->bFence ^= chunkAtLine(p, i) && chunkIsFence(p, i);
  }
  p->iNext = iNext;
}

CHOIR_PRIVATE int choirChunkNext(ChoirChunker *p) {
  i64 iStart = chunkSkip(p, p->iNext);
  i64 iHard, iEnd, iQuarter, iHalf, i;
  ChunkSeam seam;
  if (p->iFresh >= p->n) {
    return 0;
  }
  if (p->iFresh - iStart > p->nMax - 4) { /* nothing new within nMax */
    iStart = p->iFresh;
  }
  iHard = p->n - iStart > p->nMax ? iStart + p->nMax : p->n;
  for (i = 0; i < 4 && iHard < p->n; i++) { /* not inside a character */
    if (((u8)p->z[iHard - i] & 0xc0) != 0x80) {
      iHard -= i;
      break;
    }
  }
  chunkSeams(p, iStart, iHard, &seam);
  iQuarter = iStart + p->nMax / 4;
  iQuarter = iQuarter > p->iFresh ? iQuarter : p->iFresh + 1;
  iHalf = iStart + p->nMax / 2;
  iHalf = iHalf > p->iFresh ? iHalf : p->iFresh + 1;
  if (seam.iHeading >= 0) {
    iEnd = seam.iHeading;
  } else if (iHard == p->n) {
    iEnd = p->n;
  } else if (seam.iBlank >= iQuarter) {
    iEnd = seam.iBlank;
  } else if (seam.iSentence >= iHalf) {
    iEnd = seam.iSentence;
  } else if (seam.iLine >= iHalf) {
    iEnd = seam.iLine;
  } else if (seam.iSpace >= iQuarter) {
    iEnd = seam.iSpace;
  } else {
    iEnd = iHard;
  }
  while (iEnd > iStart && chunkIsSpace(p->z[iEnd - 1])) {
    iEnd--;
  }
  p->iOrd++;
  p->iStart = iStart;
  p->iEnd = iEnd;
  chunkAdvance(p, seam.iHeading >= 0);
  return 1;
}
