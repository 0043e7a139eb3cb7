/* SPDX-License-Identifier: MIT */
/*
** Replies taken apart in place. SQLite's parser has the first word: what it
** does not accept is refused (qdrant_wire.c). After that values are found by
** walking over them, because a scroll of 10,000 points would otherwise be
** parsed again for every member of every point, and because SQLite makes a
** double of an id above 2^63.
*/
#include "qdrant.h"
#include <locale.h>
#include <stdlib.h>

/* --------------------------------------------------------------- walking */

static int spanSpace(char c) {
  return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static const char *spanSkip(const char *z, const char *zEnd) {
  while (z < zEnd && spanSpace(*z)) {
    z++;
  }
  return z;
}

/* Past the string that starts at z: at a quote with an even number of
** backslashes before it. */
static const char *spanString(const char *z, const char *zEnd) {
  const char *zStart = z++;
  while ((z = z < zEnd ? memchr(z, '"', (size_t)(zEnd - z)) : NULL) != NULL) {
    const char *zBack = z;
    while (zBack[-1] == '\\' && zBack - 1 > zStart) {
      zBack--;
    }
    z++;
    if ((z - 1 - zBack) % 2 == 0) {
      return z;
    }
  }
  return zEnd;
}

/* Past the value that starts at z. */
static const char *spanValue(const char *z, const char *zEnd) {
  i64 nDeep = 0;
  while (z < zEnd) {
    char c = *z;
    if (c == '"') {
      z = spanString(z, zEnd);
    } else if (c == '{' || c == '[') {
      nDeep++;
      z++;
      continue;
    } else if (c == '}' || c == ']') {
      if (nDeep == 0) {
        return z;
      }
      nDeep--;
      z++;
    } else if (nDeep > 0) {
      z++;
      continue;
    } else {
      while (z < zEnd && !strchr(",]} \t\r\n", *z)) {
        z++;
      }
    }
    if (nDeep == 0) {
      return z;
    }
  }
  return zEnd;
}

CHOIR_PRIVATE QdrantSpan choirQdrantInside(QdrantSpan s) {
  QdrantSpan none = {NULL, 0};
  if (s.z == NULL || s.n < 2 || (s.z[0] != '{' && s.z[0] != '[')) {
    return none;
  }
  s.z++;
  s.n -= 2;
  return s;
}

CHOIR_PRIVATE int choirQdrantNext(QdrantSpan *pInside, QdrantSpan *pKey,
                                  QdrantSpan *pValue) {
  const char *zEnd, *z, *zNext;
  if (pInside->z == NULL) {
    return 0;
  }
  zEnd = pInside->z + pInside->n;
  z = spanSkip(pInside->z, zEnd);
  if (z < zEnd && *z == ',') {
    z = spanSkip(z + 1, zEnd);
  }
  if (z >= zEnd) {
    return 0;
  }
  if (pKey) {
    pKey->z = NULL;
    pKey->n = 0;
  }
  zNext = spanValue(z, zEnd);
  if (*z == '"') { /* a key, if a colon follows */
    const char *zColon = spanSkip(zNext, zEnd);
    if (zColon < zEnd && *zColon == ':') {
      if (pKey) {
        pKey->z = z;
        pKey->n = zNext - z;
      }
      z = spanSkip(zColon + 1, zEnd);
      zNext = spanValue(z, zEnd);
    }
  }
  if (zNext == z) {
    return 0; /* not JSON */
  }
  pValue->z = z;
  pValue->n = zNext - z;
  pInside->n = zEnd - zNext;
  pInside->z = zNext;
  return 1;
}

CHOIR_PRIVATE int choirQdrantIs(QdrantSpan s, const char *z) {
  i64 n = (i64)strlen(z);
  if (s.z == NULL || s.n < 2 || s.z[0] != '"') {
    return 0;
  }
  if (s.n == n + 2 && memcmp(s.z + 1, z, (size_t)n) == 0) {
    return memchr(z, '\\', (size_t)n) == NULL;
  }
  if (memchr(s.z, '\\', (size_t)s.n)) { /* written with escapes */
    ChoirErr err = {0, NULL};
    i64 nText;
    char *zText = choirQdrantText(&err, s, &nText);
    int b = zText && nText == n && memcmp(zText, z, (size_t)n) == 0;
    sqlite3_free(zText);
    choirErrClear(&err);
    return b;
  }
  return 0;
}

CHOIR_PRIVATE QdrantSpan choirQdrantGet(QdrantSpan s, const char *zKey) {
  QdrantSpan inside = choirQdrantInside(s), key, value, found = {NULL, 0};
  while (choirQdrantNext(&inside, &key, &value)) {
    if (key.z && choirQdrantIs(key, zKey)) {
      found = value; /* the last one counts, as for the server */
    }
  }
  return found;
}

/* ---------------------------------------------------------------- values */

static int spanHex(const char *z, const char *zEnd) {
  int i, v = 0;
  for (i = 0; i < 4; i++) {
    int d = z + i < zEnd ? choirHexDigit(z[i]) : -1;
    if (d < 0) {
      return -1;
    }
    v = v * 16 + d;
  }
  return v;
}

static char *spanUtf8(char *zOut, u32 c) {
  if (c < 0x80) {
    *zOut++ = (char)c;
  } else if (c < 0x800) {
    *zOut++ = (char)(0xC0 | (c >> 6));
    *zOut++ = (char)(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    *zOut++ = (char)(0xE0 | (c >> 12));
    *zOut++ = (char)(0x80 | ((c >> 6) & 0x3F));
    *zOut++ = (char)(0x80 | (c & 0x3F));
  } else {
    *zOut++ = (char)(0xF0 | (c >> 18));
    *zOut++ = (char)(0x80 | ((c >> 12) & 0x3F));
    *zOut++ = (char)(0x80 | ((c >> 6) & 0x3F));
    *zOut++ = (char)(0x80 | (c & 0x3F));
  }
  return zOut;
}

/* The escape after a backslash at *pz; half a surrogate pair is U+FFFD. */
static char *spanEscape(const char **pz, const char *zEnd, char *zOut) {
  static const char zFrom[] = "bfnrt", zTo[] = "\b\f\n\r\t";
  const char *z = *pz, *zAt;
  int c = spanHex(z + 1, zEnd), cLow;
  if (*z != 'u' || c < 0) {
    zAt = strchr(zFrom, *z);
    *zOut++ = zAt && *z ? zTo[zAt - zFrom] : *z;
    *pz = z + 1;
    return zOut;
  }
  *pz = z + 5;
  if (c >= 0xD800 && c < 0xE000) {
    int bPair =
        c < 0xDC00 && zEnd - *pz >= 6 && (*pz)[0] == '\\' && (*pz)[1] == 'u';
    cLow = bPair ? spanHex(*pz + 2, zEnd) : -1;
    if (cLow >= 0xDC00 && cLow < 0xE000) {
      c = 0x10000 + ((c - 0xD800) << 10) + (cLow - 0xDC00);
      *pz += 6;
    } else {
      c = 0xFFFD;
    }
  }
  return spanUtf8(zOut, (u32)c);
}

CHOIR_PRIVATE char *choirQdrantText(ChoirErr *pErr, QdrantSpan s, i64 *pn) {
  const char *z, *zEnd;
  char *zText, *zOut;
  *pn = 0;
  if (s.z == NULL || s.n < 2 || s.z[0] != '"') {
    return NULL;
  }
  zText = choirMalloc(pErr, (u64)s.n);
  if (zText == NULL) {
    return NULL;
  }
  zOut = zText;
  zEnd = s.z + s.n - 1;
  for (z = s.z + 1; z < zEnd;) {
    if (*z != '\\' || z + 1 >= zEnd) {
      *zOut++ = *z++;
    } else {
      z++;
      zOut = spanEscape(&z, zEnd, zOut);
    }
  }
  *zOut = 0;
  *pn = zOut - zText;
  return zText;
}

CHOIR_PRIVATE int choirQdrantInt(QdrantSpan s, i64 *pi) {
  u64 v = 0, vMax = (u64)1 << 63;
  int bMinus = s.z && s.n > 0 && s.z[0] == '-';
  i64 i;
  if (s.z == NULL || s.n <= bMinus) {
    return 0;
  }
  for (i = bMinus; i < s.n; i++) {
    u64 d = (u64)(u8)s.z[i] - '0';
    if (d > 9 || v > (vMax - d) / 10) {
      return 0;
    }
    v = v * 10 + d;
  }
  if (v == vMax && !bMinus) {
    return 0;
  }
  *pi = bMinus ? (i64)(0 - v) : (i64)v;
  return 1;
}

/* strtod, whatever the host's decimal point; s has no NUL behind it. */
static double spanStrtod(const char *z, i64 n) {
  char a[512], *zDot; /* more digits than a double tells apart */
  const char *zPoint = localeconv()->decimal_point;
  n = n < (i64)sizeof(a) - 1 ? n : (i64)sizeof(a) - 1;
  memcpy(a, z, (size_t)n);
  a[n] = 0;
  zDot = strchr(a, '.');
  if (zDot && zPoint[0] && zPoint[1] == 0) {
    *zDot = zPoint[0];
  }
  return strtod(a, NULL);
}

CHOIR_PRIVATE int choirQdrantReal(QdrantSpan s, double *pr) {
  static const double aTen[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                                1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
  const char *z = s.z, *zEnd = s.z ? s.z + s.n : NULL;
  int bMinus, nDigit = 0, iExp = 0, bExp = 0;
  u64 v = 0;
  if (z == NULL || s.n == 0 || !(*z == '-' || (*z >= '0' && *z <= '9'))) {
    return 0;
  }
  bMinus = *z == '-';
  for (z += bMinus; z < zEnd && nDigit < 19; z++) {
    if (*z >= '0' && *z <= '9') {
      v = v * 10 + (u64)(*z - '0');
      nDigit += v > 0;
      iExp -= bExp;
    } else if (*z == '.' && !bExp) {
      bExp = 1;
    } else {
      break;
    }
  }
  if (z < zEnd && (*z == 'e' || *z == 'E') && zEnd - z <= 4) {
    int bDown = z[1] == '-', e = 0;
    for (z += 1 + (z[1] == '-' || z[1] == '+'); z < zEnd; z++) {
      e = e * 10 + (*z - '0');
    }
    iExp += bDown ? -e : e;
  }
  if (z == zEnd && v <= ((u64)1 << 53) && iExp >= -22 && iExp <= 22) {
    double r = iExp < 0 ? (double)v / aTen[-iExp] : (double)v * aTen[iExp];
    *pr = bMinus ? -r : r; /* one rounding: exact */
  } else {
    *pr = spanStrtod(s.z, s.n);
  }
  return 1;
}

CHOIR_PRIVATE void choirQdrantResult(ChoirErr *pErr, sqlite3_context *pCtx,
                                     QdrantSpan s) {
  char c = s.z && s.n ? s.z[0] : 'n';
  double r;
  i64 i;
  if (c == '"') {
    char *z = choirQdrantText(pErr, s, &i);
    if (z) {
      sqlite3_result_text64(pCtx, z, (u64)i, sqlite3_free, SQLITE_UTF8);
    }
  } else if (c == '{' || c == '[') {
    sqlite3_result_text64(pCtx, s.z, (u64)s.n, SQLITE_TRANSIENT, SQLITE_UTF8);
  } else if (c == 't' || c == 'f') {
    sqlite3_result_int(pCtx, c == 't');
  } else if (c == 'n') {
    return;
  } else if (choirQdrantInt(s, &i)) {
    sqlite3_result_int64(pCtx, i);
  } else if (memchr(s.z, '.', (size_t)s.n) || memchr(s.z, 'e', (size_t)s.n) ||
             memchr(s.z, 'E', (size_t)s.n)) {
    if (choirQdrantReal(s, &r)) {
      sqlite3_result_double(pCtx, r);
    }
  } else { /* an integer above 2^63: exact as text */
    sqlite3_result_text64(pCtx, s.z, (u64)s.n, SQLITE_TRANSIENT, SQLITE_UTF8);
  }
}

/* --------------------------------------------------------------- vectors */

CHOIR_PRIVATE float *choirQdrantFloats(ChoirErr *pErr, QdrantSpan s, int *pn) {
  QdrantSpan inside = choirQdrantInside(s), value;
  int n = 0, nAlloc = 0;
  float *a = NULL;
  double r;
  *pn = 0;
  if (s.z == NULL || s.z[0] != '[') {
    return NULL;
  }
  while (choirQdrantNext(&inside, NULL, &value) && pErr->rc == SQLITE_OK) {
    if (n == nAlloc) {
      float *aNew;
      nAlloc = nAlloc ? nAlloc * 2 : 512;
      aNew = choirRealloc(pErr, a, (u64)nAlloc * sizeof(float));
      if (aNew == NULL) {
        break;
      }
      a = aNew;
    }
    if (!choirQdrantReal(value, &r)) {
      choirErrSet(pErr, SQLITE_ERROR,
                  "the server sent a vector whose element %d is no number", n);
      break;
    }
    a[n++] = (float)r;
  }
  if (pErr->rc != SQLITE_OK) {
    sqlite3_free(a);
    return NULL;
  }
  *pn = n;
  return a;
}

/* A float of moderate size as so many digits behind the point that reading them
** back gives it again: d times the power of ten is below 2^53. */
static int spanFloat(float r, char *z) {
  static const double aTen[] = {1e7, 1e8, 1e9, 1e10, 1e11, 1e12};
  double d = r < 0.0f ? -(double)r : (double)r;
  char aDigit[20];
  int i, n = 0, nFraction, nDigit = 0;
  u64 v = 0;
  if (!(d < 100.0)) {
    return 0;
  }
  for (i = 0; i < 6; i++) {
    v = (u64)(d * aTen[i] + 0.5);
    if ((float)((double)v / aTen[i]) == (float)d) {
      break;
    }
  }
  if (i == 6) {
    return 0;
  }
  nFraction = 7 + i;
  if (r < 0.0f) {
    z[n++] = '-';
  }
  while (nFraction > 0 && v % 10 == 0) {
    v /= 10;
    nFraction--;
  }
  do {
    aDigit[nDigit++] = (char)('0' + v % 10);
    v /= 10;
  } while (v || nDigit <= nFraction);
  while (nDigit > 0) {
    if (nDigit == nFraction) {
      z[n++] = '.';
    }
    z[n++] = aDigit[--nDigit];
  }
  return n;
}

CHOIR_PRIVATE void choirQdrantPutFloats(ChoirBuf *p, const float *a, int n) {
  char z[48];
  int i;
  choirBufText(p, "[");
  for (i = 0; i < n && p->pErr->rc == SQLITE_OK; i++) {
    int nChar = spanFloat(a[i], z);
    if (!(a[i] - a[i] == 0.0f)) {
      choirErrSet(p->pErr, SQLITE_ERROR,
                  "element %d of the vector is NaN or an infinity", i);
    }
    if (nChar == 0) {
      sqlite3_snprintf(sizeof(z), z, "%!.9g", (double)a[i]);
      nChar = (int)strlen(z);
    }
    if (i) {
      choirBufAppend(p, ",", 1);
    }
    choirBufAppend(p, z, (u64)nChar);
  }
  choirBufText(p, "]");
}
