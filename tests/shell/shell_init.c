/* SPDX-License-Identifier: MIT */
/*
** Puts choir into a shell linked from dist/choir.c, SQLite's shell.c (compiled
** with -DSQLITE_SHELL_INIT_PROC=choirShellInit) and libsqlite3.a.
**
** CHOIR_SHELL_ENTRY chooses the entry point: choir (the default), readonly,
** or none for a shell without choir.
*/
#include "../../dist/choir.h"
#include <stdlib.h>
#include <string.h>

void choirShellInit(void);

void choirShellInit(void) {
  const char *z = getenv("CHOIR_SHELL_ENTRY");
  sqlite3_initialize();
  if (z == NULL || strcmp(z, "choir") == 0) {
    sqlite3_auto_extension((void (*)(void))sqlite3_choir_init);
  } else if (strcmp(z, "readonly") == 0) {
    sqlite3_auto_extension((void (*)(void))sqlite3_choir_readonly_init);
  }
}
