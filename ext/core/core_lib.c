/* SPDX-License-Identifier: MIT */
/*
** Libraries that choir opens when it first needs them: libcurl, liblz4,
** OpenSSL. Loading the extension opens none.
**
** They are opened with RTLD_LOCAL|RTLD_DEEPBIND: inside a host that carries a
** copy of its own (Node has an OpenSSL) libcurl would otherwise bind to the
** host's. A library stays open for the life of the process: the host may use
** it too, and some never return what they set up.
*/
#include "core.h"
#if defined(_WIN32)
#include <windows.h>
#else
#include <dlfcn.h>
#endif

#if defined(_WIN32)

static void *libOpen(const char *zFile) { return (void *)LoadLibraryA(zFile); }

static void *libSymbol(void *pLib, const char *zName) {
  return (void *)(intptr_t)GetProcAddress((HMODULE)pLib, zName);
}

#else

/* A sanitizer's allocator and DEEPBIND do not go together. */
static int libMode(void) {
  int m = RTLD_NOW | RTLD_LOCAL;
#if defined(RTLD_DEEPBIND)
  if (dlsym(RTLD_DEFAULT, "__asan_init") == NULL &&
      dlsym(RTLD_DEFAULT, "__tsan_init") == NULL &&
      dlsym(RTLD_DEFAULT, "__msan_init") == NULL) {
    m |= RTLD_DEEPBIND;
  }
#endif
  return m;
}

static void *libOpen(const char *zFile) { return dlopen(zFile, libMode()); }

static void *libSymbol(void *pLib, const char *zName) {
  return dlsym(pLib, zName);
}

#endif

CHOIR_PRIVATE void choirLibOpen(ChoirErr *pErr, const ChoirLib *pWant,
                                void *pTable) {
  void *pLib = NULL;
  int i;
  if (pErr->rc != SQLITE_OK) {
    return;
  }
  for (i = 0; pWant->azFile[i] && pLib == NULL; i++) {
    pLib = libOpen(pWant->azFile[i]);
  }
  if (pLib == NULL) {
    choirErrSet(pErr, SQLITE_ERROR, "cannot open %s; install %s",
                pWant->azFile[0], pWant->zInstall);
    return;
  }
  for (i = 0; pWant->azSymbol[i]; i++) {
    void *p = libSymbol(pLib, pWant->azSymbol[i]);
    if (p == NULL) {
      choirErrSet(pErr, SQLITE_ERROR, "%s has no %s; install %s",
                  pWant->azFile[0], pWant->azSymbol[i], pWant->zInstall);
      return;
    }
    memcpy((char *)pTable + (u64)i * sizeof(p), &p, sizeof(p));
  }
}
