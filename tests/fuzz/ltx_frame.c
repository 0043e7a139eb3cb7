/* SPDX-License-Identifier: MIT */
/* One frame of an LTX file, LZ4 inside, into a page of exactly its size. */
#include "fuzz.h"
#include "../../ext/sync/sync.h"

FUZZ(ltx_frame) {
  FuzzIn in = {a, n};
  u32 szPage = 512u << (fuzzByte(&in) % 8);
  u8 *aPage = sqlite3_malloc64(szPage), aHead[6] = {0, 0, 0, 1, 0, 1};
  ChoirErr err = {SQLITE_OK, NULL};
  u8 *aFrame = sqlite3_malloc64(in.n + 10);
  u32 nData = (u32)in.n;
  choirLtxFrameRead(&err, in.a, in.n, 1, szPage, aPage);
  choirErrClear(&err);
  /* The same as compressed bytes behind a header that fits. */
  memcpy(aFrame, aHead, 6);
  aFrame[6] = (u8)(nData >> 24);
  aFrame[7] = (u8)(nData >> 16);
  aFrame[8] = (u8)(nData >> 8);
  aFrame[9] = (u8)nData;
  memcpy(aFrame + 10, in.a, in.n);
  choirLtxFrameRead(&err, aFrame, in.n + 10, 1, szPage, aPage);
  choirErrClear(&err);
  sqlite3_free(aFrame);
  sqlite3_free(aPage);
}
