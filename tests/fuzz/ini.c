/* SPDX-License-Identifier: MIT */
/* AWS's configuration files: a value is a piece of the text. */
#include "fuzz.h"
#include "../../ext/http/http.h"

FUZZ(ini) {
  FuzzIn in = {a, n};
  char *zSection = fuzzPart(&in, NULL), *zKey = fuzzPart(&in, NULL);
  char *zText = fuzzPart(&in, NULL), *z;
  ChoirErr err = {SQLITE_OK, NULL};
  z = choirIniGet(&err, zText, zSection, zKey);
  MUST(err.rc == SQLITE_OK);
  MUST(z == NULL || (strstr(zText, z) && choirIniHas(zText, zSection)));
  sqlite3_free(z);
  z = choirIniGet(&err, zText, "default", "region");
  MUST(z == NULL || strchr(z, '\n') == NULL);
  sqlite3_free(z);
  sqlite3_free(zText);
  sqlite3_free(zKey);
  sqlite3_free(zSection);
}
