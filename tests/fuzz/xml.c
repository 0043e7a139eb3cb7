/* SPDX-License-Identifier: MIT */
/* The reader of S3's XML: what it gives lies in the document, its text is that
** of choirXmlFirst, times are times. */
#include "fuzz.h"
#include "../../ext/object/object_s3.h"

FUZZ(xml) {
  FuzzIn in = {a, n};
  u64 nXml;
  char *zXml = fuzzPart(&in, &nXml);
  const char *z = zXml;
  ChoirXml x;
  while (choirXmlNext(&z, in.n ? zXml + nXml / 2 : NULL, &x)) {
    ChoirErr err = {SQLITE_OK, NULL};
    ChoirBuf b;
    choirBufInit(&b, &err, nXml);
    MUST(x.nTag >= 0 && x.zTag > zXml && x.zTag + x.nTag <= zXml + nXml);
    MUST(x.nText >= 0 && x.zText > zXml && x.zText + x.nText <= zXml + nXml);
    choirXmlText(&b, &x); /* entities get shorter, never longer */
    MUST(err.rc == SQLITE_OK && b.n <= (u64)x.nText);
    choirXmlTime(&x);
    choirBufFree(&b);
    choirXmlIs(&x, "Key");
  }
  z = choirXmlFirst(&(ChoirErr){SQLITE_OK, NULL}, zXml, "Key");
  sqlite3_free((void *)z);
  sqlite3_free(zXml);
}
