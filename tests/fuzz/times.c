/* SPDX-License-Identifier: MIT */
/* Times as others write them: HTTP dates, S3's, and what is given to
** sync_restore(). */
#include "fuzz.h"
#include "../../ext/http/http.h"
#include "../../ext/object/object_s3.h"

FUZZ(times) {
  FuzzIn in = {a, n};
  char *z = fuzzPart(&in, NULL);
  ChoirXml x = {z, z, 0, (int)strlen(z)};
  choirHttpDate(z);
  choirXmlTime(&x);
  sqlite3_free(z);
}
