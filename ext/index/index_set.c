/* SPDX-License-Identifier: MIT */
/*
** Sets of rowids: open addressing, at most half full.
*/
#include "index.h"

#define SET_MAX ((i64)1 << 30) /* slots */

static i64 setSlot(const ChoirSet *p, i64 iKey) {
  u64 h = (u64)iKey * 0x9e3779b97f4a7c15u;
  i64 i = (i64)(h >> 20) & (p->nSlot - 1);
  while (p->aUsed[i] && p->aKey[i] != iKey) {
    i = (i + 1) & (p->nSlot - 1);
  }
  return i;
}

static void setGrow(ChoirSet *p, ChoirErr *pErr) {
  ChoirSet big = {0};
  i64 i;
  big.nSlot = p->nSlot ? p->nSlot * 2 : 64;
  if (big.nSlot > SET_MAX) {
    choirErrSet(pErr, SQLITE_TOOBIG, "more than %lld rowids", SET_MAX / 2);
  }
  big.aKey = choirMalloc(pErr, (u64)big.nSlot * sizeof(i64));
  big.aValue = choirMalloc(pErr, (u64)big.nSlot * sizeof(i32));
  big.aUsed = choirMalloc(pErr, (u64)big.nSlot);
  if (pErr->rc != SQLITE_OK) {
    choirSetFree(&big);
    return;
  }
  for (i = 0; i < p->nSlot; i++) {
    if (p->aUsed[i]) {
      i64 at = setSlot(&big, p->aKey[i]);
      big.aUsed[at] = 1;
      big.aKey[at] = p->aKey[i];
      big.aValue[at] = p->aValue[i];
    }
  }
  big.n = p->n;
  choirSetFree(p);
  *p = big;
}

CHOIR_PRIVATE void choirSetPut(ChoirSet *p, ChoirErr *pErr, i64 iKey,
                               i32 iValue) {
  i64 i;
  if (p->n * 2 >= p->nSlot) {
    setGrow(p, pErr);
  }
  if (pErr->rc == SQLITE_OK) {
    i = setSlot(p, iKey);
    p->n += !p->aUsed[i];
    p->aUsed[i] = 1;
    p->aKey[i] = iKey;
    p->aValue[i] = iValue;
  }
}

CHOIR_PRIVATE i32 choirSetGet(const ChoirSet *p, i64 iKey, i32 iNone) {
  i64 i;
  if (p->n == 0) {
    return iNone;
  }
  i = setSlot(p, iKey);
  return p->aUsed[i] ? p->aValue[i] : iNone;
}

CHOIR_PRIVATE void choirSetFree(ChoirSet *p) {
  sqlite3_free(p->aKey);
  sqlite3_free(p->aValue);
  sqlite3_free(p->aUsed);
  memset(p, 0, sizeof(*p));
}
