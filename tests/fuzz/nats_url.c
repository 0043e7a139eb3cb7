/* SPDX-License-Identifier: MIT */
/* The list of NATS servers, and what is shown of one: no password. */
#include "fuzz.h"
#include "../../ext/nats/nats.h"

FUZZ(nats_url) {
  FuzzIn in = {a, n};
  char *z = fuzzPart(&in, NULL);
  ChoirErr err = {SQLITE_OK, NULL};
  ChoirNatsServer server;
  ChoirNatsShown shown;
  int i;
  memset(&server, 0, sizeof(server));
  for (i = 0; i < 40 && choirNatsServer(&err, z, i, &server); i++) {
    MUST(server.zHost[0] && server.zPort[0] && strlen(server.zName) < 272);
    MUST(strstr(server.zName, server.zHost) != NULL);
    choirNatsServerFree(&server);
    memset(&server, 0, sizeof(server));
  }
  choirErrClear(&err);
  choirNatsSubject(&err, z);
  MUST(err.rc != SQLITE_OK || (z[0] && strpbrk(z, " \r\n\t") == NULL));
  choirErrClear(&err);
  choirNatsName(&err, "stream", z);
  MUST(err.rc != SQLITE_OK || (z[0] && strpbrk(z, " .\r\n\t*>/\\") == NULL));
  choirErrClear(&err);
  MUST(strlen(choirNatsShow(&shown, z, strlen(z))) < sizeof(shown.z));
  sqlite3_free(z);
}
