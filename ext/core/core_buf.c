/* SPDX-License-Identifier: MIT */
/*
** Growing buffers with a declared cap, JSON string quoting, UTF-8 checking.
*/
#include "core.h"
#include <stdint.h>
#include <sys/mman.h>

CHOIR_PRIVATE void choirBufInit(ChoirBuf *p, ChoirErr *pErr, u64 nMax) {
  memset(p, 0, sizeof(*p));
  p->pErr = pErr;
  p->nMax = nMax;
}

CHOIR_PRIVATE char *choirBufSpace(ChoirBuf *p, u64 n) {
  char *a;
  if (p->pErr->rc != SQLITE_OK) {
    return NULL;
  }
  if (n > p->nMax || p->n > p->nMax - n) {
    choirErrSet(p->pErr, SQLITE_TOOBIG,
                "%llu bytes are more than the limit of %llu", p->n + n,
                p->nMax);
    return NULL;
  }
  if (p->n + n + 1 > p->nAlloc) {
    u64 nNew = (p->n + n + 1) * 2;
    nNew = nNew < 64 ? 64 : nNew;
    nNew = nNew > p->nMax + 1 ? p->nMax + 1 : nNew;
    a = choirRealloc(p->pErr, p->a, nNew);
    if (a == NULL) {
      return NULL;
    }
    p->a = a;
    p->nAlloc = nNew;
  }
  a = p->a + p->n;
  p->n += n;
  p->a[p->n] = 0;
  return a;
}

/* Large pages, where the system has them for the asking: one fault, and one
** address to be looked up, for 2 MB. Only advice; before the first write. */
static void bufLarge(void *a, u64 nByte) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  const uintptr_t szLarge = (uintptr_t)1 << 21;
  uintptr_t iFirst = ((uintptr_t)a + szLarge - 1) & ~(szLarge - 1);
  uintptr_t iEnd = ((uintptr_t)a + nByte) & ~(szLarge - 1);
  if (iFirst < iEnd) {
    (void)madvise((void *)iFirst, iEnd - iFirst, MADV_HUGEPAGE);
  }
#else
  (void)a;
  (void)nByte;
#endif
}

CHOIR_PRIVATE void choirBufReserve(ChoirBuf *p, u64 n) {
  if (p->pErr->rc == SQLITE_OK && n <= p->nMax && n + 1 > p->nAlloc) {
    char *a = choirRealloc(p->pErr, p->a, n + 1);
    if (a) {
      p->a = a;
      p->nAlloc = n + 1;
      bufLarge(a + p->n, n - p->n);
    }
  }
}

CHOIR_PRIVATE void choirBufAppend(ChoirBuf *p, const void *a, u64 n) {
  char *aTo = choirBufSpace(p, n);
  if (aTo && n) {
    memcpy(aTo, a, (size_t)n);
  }
}

CHOIR_PRIVATE void choirBufText(ChoirBuf *p, const char *z) {
  choirBufAppend(p, z, strlen(z));
}

CHOIR_PRIVATE void choirBufPrintf(ChoirBuf *p, const char *zFmt, ...) {
  va_list ap;
  char *z;
  if (p->pErr->rc != SQLITE_OK) {
    return;
  }
  va_start(ap, zFmt);
  z = sqlite3_vmprintf(zFmt, ap);
  va_end(ap);
  if (z == NULL) {
    choirErrNomem(p->pErr);
  } else {
    choirBufText(p, z);
  }
  sqlite3_free(z);
}

/* Bytes of the UTF-8 character at z (n > 0 left), or 0 when it is not one. */
static int bufUtf8Char(const u8 *z, i64 n) {
  int nByte, i;
  if (z[0] < 0x80) {
    return 1;
  }
  if (z[0] < 0xc2 || z[0] > 0xf4) {
    return 0;
  }
  nByte = z[0] < 0xe0 ? 2 : z[0] < 0xf0 ? 3 : 4;
  if (n < nByte) {
    return 0;
  }
  for (i = 1; i < nByte; i++) {
    if ((z[i] & 0xc0) != 0x80) {
      return 0;
    }
  }
  if ((z[0] == 0xe0 && z[1] < 0xa0) || (z[0] == 0xed && z[1] > 0x9f) ||
      (z[0] == 0xf0 && z[1] < 0x90) || (z[0] == 0xf4 && z[1] > 0x8f)) {
    return 0; /* overlong, surrogate, beyond U+10FFFF */
  }
  return nByte;
}

CHOIR_PRIVATE void choirBufBase64(ChoirBuf *p, const void *a, u64 n, int bUrl) {
  const char *zTo =
      bUrl ? "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
           : "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  const u8 *z = a;
  for (; n > 0; z += 3, n -= n < 3 ? n : 3) {
    u32 v = (u32)z[0] << 16 | (n > 1 ? (u32)z[1] << 8 : 0) | (n > 2 ? z[2] : 0);
    char aOut[4] = {zTo[v >> 18], zTo[v >> 12 & 63],
                    n > 1 ? zTo[v >> 6 & 63] : '=', n > 2 ? zTo[v & 63] : '='};
    choirBufAppend(p, aOut, bUrl && n < 3 ? n + 1 : 4);
  }
}

CHOIR_PRIVATE int choirBufUnbase64(ChoirBuf *p, const char *z, u64 n) {
  u32 v = 0;
  int nBit = 0;
  u64 i;
  while (n > 0 && z[n - 1] == '=') {
    n--;
  }
  for (i = 0; i < n; i++) {
    char c = z[i], b;
    int x = c >= 'A' && c <= 'Z'   ? c - 'A'
            : c >= 'a' && c <= 'z' ? c - 'a' + 26
            : c >= '0' && c <= '9' ? c - '0' + 52
            : c == '+' || c == '-' ? 62
            : c == '/' || c == '_' ? 63
                                   : -1;
    if (x < 0) {
      return 0;
    }
    v = v << 6 | (u32)x;
    nBit += 6;
    if (nBit >= 8) {
      nBit -= 8;
      b = (char)(v >> nBit & 0xff);
      choirBufAppend(p, &b, 1);
    }
  }
  return n % 4 != 1;
}

CHOIR_PRIVATE void choirLittleEndian(void *a, u64 nByte, int nWidth) {
#if CHOIR_BIG_ENDIAN
  u8 *p = a, *pEnd = p + (p ? nByte : 0);
  for (; nWidth > 1 && pEnd - p >= nWidth; p += nWidth) {
    int i, j;
    for (i = 0, j = nWidth - 1; i < j; i++, j--) {
      u8 c = p[i];
      p[i] = p[j];
      p[j] = c;
    }
  }
#else
  (void)a;
  (void)nByte;
  (void)nWidth;
#endif
}

CHOIR_PRIVATE i64 choirUtf8Valid(const char *z, i64 n) {
  i64 i = 0;
  while (i < n) {
    u64 aByte = 0;
    int nByte = 8; /* of ASCII at once */
    if (n - i >= 8) {
      memcpy(&aByte, z + i, 8);
    }
    if (n - i < 8 || (aByte & 0x8080808080808080u)) {
      nByte = bufUtf8Char((const u8 *)z + i, n - i);
    }
    if (nByte == 0) {
      break;
    }
    i += nByte;
  }
  return i;
}

CHOIR_PRIVATE void choirBufJson(ChoirBuf *p, const char *z, i64 n) {
  static const char aHex[] = "0123456789abcdef";
  i64 i, iFrom = 0;
  n = n < 0 ? (i64)strlen(z) : n;
  choirBufText(p, "\"");
  for (i = 0; i < n && p->pErr->rc == SQLITE_OK;) {
    u8 c = (u8)z[i];
    int nByte = bufUtf8Char((const u8 *)z + i, n - i);
    if (nByte && c >= 0x20 && c != '"' && c != '\\') {
      i += nByte;
      continue;
    }
    choirBufAppend(p, z + iFrom, (u64)(i - iFrom));
    if (nByte == 0) {
      choirBufText(p, "\xef\xbf\xbd");
    } else if (c == '"' || c == '\\') {
      char a[2] = {'\\', (char)c};
      choirBufAppend(p, a, 2);
    } else if (c == '\n') {
      choirBufText(p, "\\n");
    } else {
      char a[6] = {'\\', 'u', '0', '0', aHex[c >> 4], aHex[c & 15]};
      choirBufAppend(p, a, 6);
    }
    iFrom = ++i;
  }
  choirBufAppend(p, z + iFrom, (u64)(n - iFrom));
  choirBufText(p, "\"");
}

CHOIR_PRIVATE void choirBufColumn(ChoirBuf *p, sqlite3_stmt *pStmt, int i,
                                  i64 nMost) {
  int eType = sqlite3_column_type(pStmt, i), k, n;
  const u8 *a;
  char *zTo;
  double r;
  if (eType == SQLITE_NULL) {
    choirBufText(p, "null");
  } else if (eType == SQLITE_INTEGER) {
    choirBufPrintf(p, "%lld", sqlite3_column_int64(pStmt, i));
  } else if (eType == SQLITE_FLOAT) {
    r = sqlite3_column_double(pStmt, i);
    choirBufPrintf(p, r - r == 0 ? "%!.17g" : "{\"real\":\"%g\"}", r);
  } else {
    a = eType == SQLITE_TEXT ? sqlite3_column_text(pStmt, i)
                             : sqlite3_column_blob(pStmt, i);
    n = a ? sqlite3_column_bytes(pStmt, i) : 0;
    if (nMost >= 0 && n > nMost) {
      choirBufPrintf(p, "{\"bytes\":%d}", n);
    } else if (eType == SQLITE_TEXT &&
               choirUtf8Valid((const char *)a, n) == n) {
      choirBufJson(p, a ? (const char *)a : "", n);
    } else {
      choirBufText(p, eType == SQLITE_TEXT ? "{\"text\":\"" : "{\"blob\":\"");
      zTo = choirBufSpace(p, 2 * (u64)n);
      for (k = 0; zTo && k < n; k++) {
        *zTo++ = "0123456789ABCDEF"[a[k] >> 4];
        *zTo++ = "0123456789ABCDEF"[a[k] & 15];
      }
      choirBufText(p, "\"}");
    }
  }
}

CHOIR_PRIVATE char *choirBufTake(ChoirBuf *p) {
  char *a;
  if (p->a == NULL) {
    choirBufSpace(p, 0); /* an empty result is still a string */
  }
  a = p->pErr->rc == SQLITE_OK ? p->a : NULL;
  if (a == NULL) {
    sqlite3_free(p->a);
  }
  p->a = NULL;
  p->n = p->nAlloc = 0;
  return a;
}

CHOIR_PRIVATE void choirBufFree(ChoirBuf *p) {
  sqlite3_free(p->a);
  p->a = NULL;
  p->n = p->nAlloc = 0;
}

CHOIR_PRIVATE void choirBufResult(ChoirBuf *p, sqlite3_context *pCtx) {
  u64 n = p->n;
  char *z = choirBufTake(p);
  if (z) {
    sqlite3_result_text64(pCtx, z, n, sqlite3_free, SQLITE_UTF8);
  }
}
