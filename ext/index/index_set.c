/* SPDX-License-Identifier: MIT */
/*
** Sets of rowids: open addressing, at most half full; and those of a filter,
** which come ascending and are mostly close together, as bits.
*/
#include "index.h"
#include <stdlib.h>

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

/* ---------------------------------------------------------------- picks */

#define PICK_MAX ((i64)1 << 29) /* rowids */
#define PICK_SPAN 128           /* bits that a rowid may take … */
#define PICK_LEAST (1 << 23)    /* … and so many always: 1 MB */

CHOIR_PRIVATE void choirPickAdd(ChoirPick *p, ChoirErr *pErr, i64 iRowid) {
  if (p->n == p->nAlloc) {
    i64 nNew = p->nAlloc ? p->nAlloc * 2 : 64;
    i64 *a = NULL;
    if (nNew > PICK_MAX) {
      choirErrSet(pErr, SQLITE_TOOBIG, "more than %lld rowids", PICK_MAX);
    } else {
      a = choirRealloc(pErr, p->a, (u64)nNew * sizeof(i64));
    }
    if (a == NULL) {
      return;
    }
    p->a = a;
    p->nAlloc = nNew;
  }
  p->a[p->n++] = iRowid;
}

CHOIR_PRIVATE int choirRowidOrder(const void *pA, const void *pB) {
  i64 a = *(const i64 *)pA, b = *(const i64 *)pB;
  return a < b ? -1 : a > b;
}

CHOIR_PRIVATE void choirPickEnd(ChoirPick *p, ChoirErr *pErr) {
  i64 i, n = 0;
  u64 nSpan;
  for (i = 1; i < p->n && p->a[i - 1] < p->a[i]; i++) {
  }
  if (i < p->n) {
    qsort(p->a, (size_t)p->n, sizeof(i64), choirRowidOrder);
  }
  for (i = 0; i < p->n; i++) {
    if (n == 0 || p->a[n - 1] != p->a[i]) {
      p->a[n++] = p->a[i];
    }
  }
  p->n = n;
  if (n == 0 || pErr->rc != SQLITE_OK) {
    return;
  }
  p->iFirst = p->a[0];
  nSpan = (u64)p->a[n - 1] - (u64)p->iFirst;
  if (nSpan < PICK_LEAST || nSpan < (u64)n * PICK_SPAN) {
    p->aBit = choirMalloc(pErr, (nSpan / 64 + 1) * sizeof(u64));
    p->nBit = p->aBit ? nSpan + 1 : 0;
  }
  for (i = 0; i < n && pErr->rc == SQLITE_OK; i++) {
    if (p->aBit) {
      u64 at = (u64)p->a[i] - (u64)p->iFirst;
      p->aBit[at / 64] |= (u64)1 << (at & 63);
    } else {
      choirSetPut(&p->sparse, pErr, p->a[i], 0);
    }
  }
}

CHOIR_PRIVATE int choirPickHas(const ChoirPick *p, i64 iRowid) {
  u64 at = (u64)iRowid - (u64)p->iFirst;
  if (p->aBit) {
    return at < p->nBit && (p->aBit[at / 64] >> (at & 63) & 1);
  }
  return choirSetGet(&p->sparse, iRowid, -1) == 0;
}

CHOIR_PRIVATE void choirPickFree(ChoirPick *p) {
  sqlite3_free(p->a);
  sqlite3_free(p->aBit);
  choirSetFree(&p->sparse);
  memset(p, 0, sizeof(*p));
}
