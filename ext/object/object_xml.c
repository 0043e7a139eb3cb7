/* SPDX-License-Identifier: MIT */
/*
** The little XML that S3 replies are made of: elements that hold text alone,
** in the order of the document, and the entities in them. No attributes, no
** DTD, no nesting: what is not understood is passed over.
*/
#include "object_s3.h"
#ifndef CHOIR_OMIT_NET
#include <stdlib.h>

CHOIR_PRIVATE int choirXmlNext(const char **pz, const char *zEnd, ChoirXml *p) {
  const char *z = *pz, *zText;
  while ((z = strchr(z, '<')) != NULL && (zEnd == NULL || z < zEnd)) {
    char c = *++z;
    if (c == '/' || c == '?' || c == '!') {
      continue;
    }
    p->zTag = z;
    while (*z && *z != '>' && *z != ' ' && *z != '/') {
      z++;
    }
    p->nTag = (int)(z - p->zTag);
    z = *z == '>' ? z : strchr(z, '>');
    if (z == NULL) {
      break;
    }
    p->zText = zText = z + 1;
    if (z[-1] != '/') { /* else it is empty: <Tag/> */
      while (*zText && *zText != '<') {
        zText++;
      }
      if (zText[0] == 0 || zText[1] != '/') {
        continue; /* it holds elements */
      }
    }
    p->nText = (int)(zText - p->zText);
    *pz = zText;
    return 1;
  }
  return 0;
}

CHOIR_PRIVATE int choirXmlIs(const ChoirXml *p, const char *zTag) {
  return p->nTag == (int)strlen(zTag) &&
         memcmp(p->zTag, zTag, (size_t)p->nTag) == 0;
}

/* Appends what the entity at z stands for; its length, 0: it is none. */
static size_t xmlEntity(ChoirBuf *pOut, const char *z) {
  static const char *const az[] = {"&amp;", "&",      "&lt;", "<",      "&gt;",
                                   ">",     "&quot;", "\"",   "&apos;", "'"};
  char *zEnd;
  long c;
  int i;
  for (i = 0; i < 10; i += 2) {
    if (strncmp(z, az[i], strlen(az[i])) == 0) {
      choirBufText(pOut, az[i + 1]);
      return strlen(az[i]);
    }
  }
  if (z[1] != '#') {
    return 0;
  }
  c = z[2] == 'x' ? strtol(z + 3, &zEnd, 16) : strtol(z + 2, &zEnd, 10);
  if (*zEnd != ';' || c <= 0 || c > 0x10ffff || (c >> 11) == 0x1b) {
    return 0;
  }
  if (c < 0x80) {
    choirBufPrintf(pOut, "%c", (int)c);
  } else {
    u8 a[4] = {(u8)(0xf0 | c >> 18), (u8)(0x80 | (c >> 12 & 0x3f)),
               (u8)(0x80 | (c >> 6 & 0x3f)), (u8)(0x80 | (c & 0x3f))};
    int n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    a[4 - n] = n == 2   ? (u8)(0xc0 | c >> 6)
               : n == 3 ? (u8)(0xe0 | c >> 12)
                        : a[0];
    choirBufAppend(pOut, a + 4 - n, (u64)n);
  }
  return (size_t)(zEnd + 1 - z);
}

CHOIR_PRIVATE void choirXmlText(ChoirBuf *pOut, const ChoirXml *p) {
  const char *z = p->zText, *zEnd = z + p->nText;
  while (z < zEnd) {
    size_t n = *z == '&' ? xmlEntity(pOut, z) : 0;
    if (n == 0) {
      const char *zNext = memchr(z + 1, '&', (size_t)(zEnd - z - 1));
      n = (size_t)((zNext ? zNext : zEnd) - z);
      choirBufAppend(pOut, z, n);
    }
    z += n;
  }
}

CHOIR_PRIVATE char *choirXmlFirst(ChoirErr *pErr, const char *zXml,
                                  const char *zTag) {
  ChoirXml xml;
  ChoirBuf b;
  while (zXml && choirXmlNext(&zXml, NULL, &xml)) {
    if (choirXmlIs(&xml, zTag)) {
      choirBufInit(&b, pErr, CHOIR_BUF_SQL);
      choirBufText(&b, "");
      choirXmlText(&b, &xml);
      return choirBufTake(&b);
    }
  }
  return NULL;
}

CHOIR_PRIVATE i64 choirXmlTime(const ChoirXml *p) {
  static const char zForm[] = "0000-00-00T00:00:00";
  int a[6] = {0, 0, 0, 0, 0, 0}, i, n = 0;
  if (p->nText < (int)sizeof(zForm) - 1) {
    return 0;
  }
  for (i = 0; zForm[i]; i++) {
    char c = p->zText[i];
    if (zForm[i] != '0') {
      n++;
    } else if (c >= '0' && c <= '9') {
      a[n] = a[n] * 10 + (c - '0');
    } else {
      return 0;
    }
  }
  return choirHttpSeconds(a[0], a[1], a[2], a[3], a[4], a[5]) * 1000;
}
#endif /* CHOIR_OMIT_NET */
