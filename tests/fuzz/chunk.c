/* SPDX-License-Identifier: MIT */
/* A text in pieces: none too long, none empty, every byte that is not white
** space in one, whatever the bytes are. */
#include "fuzz.h"
#include "../../ext/embed/embed.h"

FUZZ(chunk) {
  FuzzIn in = {a, n};
  i64 nMax = CHOIR_CHUNK_MIN + fuzzByte(&in), nOverlap = fuzzByte(&in);
  ChoirChunker chunk;
  i64 iLast = 0, iOrd = 0, i;
  nOverlap = nOverlap < nMax / 2 ? nOverlap : nMax / 2;
  choirChunkInit(&chunk, (const char *)in.a, (i64)in.n, nMax, nOverlap);
  while (choirChunkNext(&chunk)) {
    MUST(chunk.iOrd == iOrd++ && chunk.iStart >= 0);
    MUST(chunk.iStart < chunk.iEnd && chunk.iEnd <= (i64)in.n);
    MUST(chunk.iEnd - chunk.iStart <= nMax && chunk.iEnd > iLast);
    for (i = iLast; i < chunk.iStart; i++) {
      MUST(in.a[i] == ' ' || (in.a[i] >= '\t' && in.a[i] <= '\r'));
    }
    iLast = chunk.iEnd;
  }
  for (i = iLast; i < (i64)in.n; i++) {
    MUST(in.a[i] == ' ' || (in.a[i] >= '\t' && in.a[i] <= '\r'));
  }
}
