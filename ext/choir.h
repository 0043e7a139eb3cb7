/* SPDX-License-Identifier: MIT */
/*
** choir: a plain SQLite file as a whole workspace.
**
** The three entry points below are everything that choir.so exports.
**
**   sqlite3_choir_init            what `.load choir` finds by the file's name
**   sqlite3_extension_init        the same, found whatever the file is called
**   sqlite3_choir_readonly_init   registers nothing that writes or reaches out
**                                 (for Datasette and other shared hosts)
**
** Linked statically (-DSQLITE_CORE), pass one of them to
** sqlite3_auto_extension() or call it once per connection with pApi = NULL.
*/
#ifndef CHOIR_H
#define CHOIR_H

#ifdef SQLITE_CORE
#include "sqlite3.h"
#else
#include "sqlite3ext.h"
#endif

#define CHOIR_VERSION "0.1.0"
#define CHOIR_VERSION_NUMBER 1000 /* major*1000000 + minor*1000 + patch */

#if defined(_WIN32)
#define CHOIR_EXPORT __declspec(dllexport)
#else
#define CHOIR_EXPORT __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

CHOIR_EXPORT int sqlite3_choir_init(sqlite3 *db, char **pzErr,
                                    const sqlite3_api_routines *pApi);
CHOIR_EXPORT int sqlite3_extension_init(sqlite3 *db, char **pzErr,
                                        const sqlite3_api_routines *pApi);
CHOIR_EXPORT int sqlite3_choir_readonly_init(sqlite3 *db, char **pzErr,
                                             const sqlite3_api_routines *pApi);

#ifdef __cplusplus
}
#endif
#endif /* CHOIR_H */
