/* SPDX-License-Identifier: MIT */
/*
** The files ~/.aws/credentials and ~/.aws/config, as the AWS tools read them:
** `[section]`, `key = value`; '#' or ';' begins a comment at the start of a
** line or after white space; indented lines belong to a nested block and are
** passed over; of a key that is given twice the last counts, sections of one
** name are one section.
*/
#include "http.h"

static int iniSpace(char c) { return c == ' ' || c == '\t' || c == '\r'; }

/* z[0..n) without white space at both ends. */
static void iniTrim(const char **pz, i64 *pn) {
  while (*pn > 0 && iniSpace(**pz)) {
    (*pz)++;
    (*pn)--;
  }
  while (*pn > 0 && iniSpace((*pz)[*pn - 1])) {
    (*pn)--;
  }
}

static int iniIs(const char *z, i64 n, const char *zWord) {
  return n == (i64)strlen(zWord) && sqlite3_strnicmp(z, zWord, (int)n) == 0;
}

/* Is the header line z[0..n) that of zSection? */
static int iniHeader(const char *z, i64 n, const char *zSection) {
  const char *zEnd = memchr(z, ']', (size_t)n);
  z++;
  n = zEnd ? zEnd - z : 0;
  iniTrim(&z, &n);
  return n == (i64)strlen(zSection) && memcmp(z, zSection, (size_t)n) == 0;
}

/* Looks through the text; zKey NULL: only for the section. */
static int iniFind(const char *zText, const char *zSection, const char *zKey,
                   const char **pzValue, i64 *pnValue) {
  int bIn = 0, bFound = 0;
  while (*zText) {
    const char *z = zText;
    i64 n = (i64)strcspn(z, "\n");
    zText += n + (zText[n] == '\n');
    if (n > 0 && z[0] == '[') {
      bIn = iniHeader(z, n, zSection);
      bFound |= bIn && zKey == NULL;
    } else if (bIn && zKey && n > 0 && !iniSpace(z[0]) && z[0] != '#' &&
               z[0] != ';') {
      const char *zEq = memchr(z, '=', (size_t)n);
      const char *zName = z;
      i64 nName = zEq ? zEq - z : 0, i;
      iniTrim(&zName, &nName);
      if (zEq && iniIs(zName, nName, zKey)) {
        const char *zValue = zEq + 1;
        i64 nValue = n - (zValue - z);
        for (i = 1; i < nValue; i++) {
          if ((zValue[i] == '#' || zValue[i] == ';') &&
              iniSpace(zValue[i - 1])) {
            nValue = i;
          }
        }
        iniTrim(&zValue, &nValue);
        *pzValue = zValue;
        *pnValue = nValue;
        bFound = 1;
      }
    }
  }
  return bFound;
}

CHOIR_PRIVATE char *choirIniGet(ChoirErr *pErr, const char *zText,
                                const char *zSection, const char *zKey) {
  const char *z = NULL;
  i64 n = 0;
  if (zText == NULL || !iniFind(zText, zSection, zKey, &z, &n) || n == 0) {
    return NULL;
  }
  return choirMprintf(pErr, "%.*s", (int)n, z);
}

CHOIR_PRIVATE int choirIniHas(const char *zText, const char *zSection) {
  return zText && iniFind(zText, zSection, NULL, NULL, NULL);
}
