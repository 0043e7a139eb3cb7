/* SPDX-License-Identifier: MIT */
/* Words of any bytes, in order and apart, and the built-in vector of the text:
** of length 1, or of 0 without a word. */
#include "fuzz.h"
#include "../../ext/embed/embed.h"
#include <math.h>

FUZZ(words) {
  const ChoirEmbedModel *pModel = choirHashModel();
  static ChoirConn *pConn;
  ChoirErr err = {SQLITE_OK, NULL};
  const char *z = (const char *)a;
  i64 nText = (i64)n, iLast = 0;
  float aVec[384];
  double r = 0;
  ChoirWords w;
  int i, nWord = 0;
  choirWordInit(&w, z, nText);
  while (choirWordNext(&w)) {
    MUST(w.iStart >= iLast && w.iStart < w.iEnd && w.iEnd <= nText);
    MUST(w.nFold > 0 && w.nFold <= (int)sizeof(w.aFold));
    MUST(w.nChar > 0 && w.nChar <= 2 * CHOIR_WORD_MAX);
    MUST(choirUtf8Valid(w.aFold, w.nFold) == w.nFold);
    for (i = 0; i < w.nChar; i++) {
      MUST(w.aAt[i] < w.aAt[i + 1] && w.aAt[w.nChar] == w.nFold);
    }
    iLast = w.iEnd;
    nWord++;
  }
  MUST(pModel->nDim == 384);
  pConn = pConn ? pConn : choirConnPrivate(&err, 0);
  choirEmbedBatch(pConn, &err, pModel, &z, &nText, 1, CHOIR_EMBED_DOCUMENT,
                  aVec);
  MUST(err.rc == SQLITE_OK);
  for (i = 0; i < 384; i++) {
    r += (double)aVec[i] * (double)aVec[i];
  }
  MUST(nWord ? fabs(r - 1) < 1e-3 : r == 0);
}
