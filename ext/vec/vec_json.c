/* SPDX-License-Identifier: MIT */
/*
** JSON arrays of numbers to vectors.
**
** Short decimals, which are nearly all there are, are converted exactly here:
** at most 2^53 times or over a power of ten that a double holds. The rest goes
** to strtod, which rounds correctly but expects the host's decimal point.
**
** Accepts what sqlite-vec 0.1.9 accepts, which is more than JSON: `[1 2]`,
** `[1,,2]`, `[1,2`, `[1]x`, inf, nan, hexadecimal.
*/
#include "vec.h"
#include <errno.h>
#include <locale.h>
#include <math.h>
#include <stdlib.h>

static int jsonIsSpace(char c) {
  return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static int jsonIsDigit(char c) { return c >= '0' && c <= '9'; }

/* What strtod and strtol skip in front of a number. */
static const char *jsonSkip(const char *z) {
  while (jsonIsSpace(*z) || *z == '\v' || *z == '\f') {
    z++;
  }
  return z;
}

static int jsonIsHex(char c) {
  return jsonIsDigit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

/* Does z start with the lower-case zWord, in any case? */
static int jsonIsWord(const char *z, const char *zWord) {
  return sqlite3_strnicmp(z, zWord, (int)strlen(zWord)) == 0;
}

/* strtod of z[0..n), whatever the host's locale. 0 when out of range. */
static int jsonStrtod(const char *z, size_t n, double *pr) {
  const char *zPoint = localeconv()->decimal_point;
  errno = 0;
  if (strcmp(zPoint, ".") == 0) {
    *pr = strtod(z, NULL);
  } else {
    const char *zDot = memchr(z, '.', n);
    size_t nHead = zDot ? (size_t)(zDot - z) : n;
    char *zCopy =
        sqlite3_mprintf("%.*s%s%.*s", (int)nHead, z, zDot ? zPoint : "",
                        zDot ? (int)(n - nHead - 1) : 0, zDot ? zDot + 1 : "");
    if (zCopy == NULL) {
      return 0;
    }
    *pr = strtod(zCopy, NULL);
    sqlite3_free(zCopy);
  }
  return !(errno == ERANGE && (*pr == 0 || isinf(*pr)));
}

/* inf, nan and hexadecimal, after the sign. NULL: none of them. */
static const char *jsonUnusual(const char *z, const char *zStart, double *pr) {
  int bMinus = *zStart == '-';
  if (jsonIsWord(z, "inf")) {
    *pr = bMinus ? -INFINITY : INFINITY;
    return z + (jsonIsWord(z, "infinity") ? 8 : 3);
  }
  if (jsonIsWord(z, "nan")) {
    const char *zEnd = z + 3;
    *pr = copysign(NAN, bMinus ? -1.0 : 1.0);
    if (*zEnd == '(') {
      do {
        zEnd++;
      } while (jsonIsDigit(*zEnd) || *zEnd == '_' ||
               (*zEnd >= 'a' && *zEnd <= 'z') ||
               (*zEnd >= 'A' && *zEnd <= 'Z'));
      return *zEnd == ')' ? zEnd + 1 : z + 3;
    }
    return zEnd;
  }
  if (z[0] == '0' && (z[1] == 'x' || z[1] == 'X') &&
      (jsonIsHex(z[2]) || (z[2] == '.' && jsonIsHex(z[3])))) {
    const char *zEnd = z + 2;
    while (jsonIsHex(*zEnd) || *zEnd == '.') {
      if (*zEnd == '.' && memchr(z, '.', (size_t)(zEnd - z))) {
        break;
      }
      zEnd++;
    }
    if (*zEnd == 'p' || *zEnd == 'P') {
      const char *zExp = zEnd + 1 + (zEnd[1] == '-' || zEnd[1] == '+');
      if (jsonIsDigit(*zExp)) {
        for (zEnd = zExp; jsonIsDigit(*zEnd); zEnd++) {
        }
      }
    }
    return jsonStrtod(zStart, (size_t)(zEnd - zStart), pr) ? zEnd : NULL;
  }
  return NULL;
}

CHOIR_PRIVATE const char *choirVecNumber(const char *z, double *pr) {
  static const double aTen[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                                1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
  const char *zStart;
  u64 m = 0;
  int nDigit = 0, nSeen = 0, iExp = 0;
  z = jsonSkip(z);
  zStart = z;
  z += *z == '-' || *z == '+';
  if (!jsonIsDigit(*z) && *z != '.') {
    return jsonUnusual(z, zStart, pr);
  }
  if (z[0] == '0' && (z[1] | 32) == 'x') {
    const char *zEnd = jsonUnusual(z, zStart, pr);
    if (zEnd || jsonIsHex(z[2]) || (z[2] == '.' && jsonIsHex(z[3]))) {
      return zEnd;
    } /* otherwise it is the number 0 with an x after it */
  }
  for (; jsonIsDigit(*z); z++, nSeen = 1) {
    m = m * 10 + (u64)(*z - '0');
    nDigit += m != 0 || nDigit > 0;
  }
  if (*z == '.') {
    for (z++; jsonIsDigit(*z); z++, nSeen = 1, iExp--) {
      m = m * 10 + (u64)(*z - '0');
      nDigit += m != 0 || nDigit > 0;
    }
  }
  if (!nSeen) {
    return NULL; /* a lone point */
  }
  if ((*z | 32) == 'e') {
    const char *zExp = z + 1 + (z[1] == '-' || z[1] == '+');
    int iTen = 0;
    if (jsonIsDigit(*zExp)) {
      for (; jsonIsDigit(*zExp); zExp++) {
        iTen = iTen < 99999 ? iTen * 10 + (*zExp - '0') : iTen;
      }
      iExp += z[1] == '-' ? -iTen : iTen;
      z = zExp;
    }
  }
  if (nDigit <= 19 && m <= ((u64)1 << 53) && iExp >= -22 && iExp <= 22) {
    *pr = iExp < 0 ? (double)m / aTen[-iExp] : (double)m * aTen[iExp];
    *pr = *zStart == '-' ? -*pr : *pr;
    return z;
  }
  return jsonStrtod(zStart, (size_t)(z - zStart), pr) ? z : NULL;
}

/* An int8 at z; NULL when there is no integer, *pbRange when it is too big. */
static const char *jsonInt8(const char *z, int *pi, int *pbRange) {
  int bMinus, v = 0;
  z = jsonSkip(z);
  bMinus = *z == '-';
  z += *z == '-' || *z == '+';
  if (!jsonIsDigit(*z)) {
    return NULL;
  }
  for (; jsonIsDigit(*z); z++) {
    v = v < 1000 ? v * 10 + (*z - '0') : v;
  }
  *pi = bMinus ? -v : v;
  *pbRange = *pi < -128 || *pi > 127;
  return z;
}

/* Doubles the vector's room when it is full. */
static int jsonRoom(ChoirErr *pErr, ChoirVec *p, i64 nElem, i64 *pnAlloc) {
  if (p->nDim == *pnAlloc) {
    i64 nNew = *pnAlloc ? *pnAlloc * 2 : 64;
    void *a = choirRealloc(pErr, p->pOwn, (u64)(nNew * nElem));
    if (a == NULL) {
      return 0;
    }
    p->pOwn = a;
    *pnAlloc = nNew;
  }
  return 1;
}

CHOIR_PRIVATE void choirVecJson(ChoirErr *pErr, ChoirVec *p, const char *z,
                                i64 n, int eType, const char *zArg) {
  const char *zEnd = z + n, *zAll = z;
  const i64 nElem = eType == VEC_I8 ? 1 : 4;
  i64 nAlloc = 0;
  memset(p, 0, sizeof(*p));
  p->eType = eType;
  while (z < zEnd && jsonIsSpace(*z)) {
    z++;
  }
  if (n > 0 && (z == zEnd || *z != '[')) {
    choirErrSet(pErr, SQLITE_ERROR, "%s is not a JSON array: %.20s", zArg,
                zAll);
    return;
  }
  z += z < zEnd;
  while (pErr->rc == SQLITE_OK && z < zEnd && !(p->nDim == 0 && *z == ']')) {
    double r = 0;
    int i = 0, bRange = 0;
    const char *zItem = z;
    z = eType == VEC_I8 ? jsonInt8(z, &i, &bRange) : choirVecNumber(z, &r);
    if (z == NULL) {
      choirErrSet(pErr, SQLITE_ERROR,
                  "%s has no usable number at byte %lld: %.20s", zArg,
                  (i64)(zItem - zAll), zItem);
    } else if (bRange) {
      choirErrSet(pErr, SQLITE_ERROR,
                  "%s has a value outside -128 to 127 at byte %lld: %.20s",
                  zArg, (i64)(zItem - zAll), zItem);
    } else if (jsonRoom(pErr, p, nElem, &nAlloc)) {
      if (eType == VEC_I8) {
        ((int8_t *)p->pOwn)[p->nDim++] = (int8_t)i;
      } else {
        ((float *)p->pOwn)[p->nDim++] = (float)r;
      }
      while (z < zEnd && (jsonIsSpace(*z) || *z == ',')) {
        z++;
      }
      if (z < zEnd && *z == ']') {
        break;
      }
    }
  }
  if (p->nDim == 0) {
    choirErrSet(pErr, SQLITE_ERROR,
                "%s has no elements; a vector needs at least one", zArg);
  }
  if (pErr->rc != SQLITE_OK) {
    choirVecFree(p);
  }
  p->nByte = p->nDim * nElem;
  p->a = p->pOwn;
}
