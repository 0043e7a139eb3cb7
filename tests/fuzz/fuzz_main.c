/* SPDX-License-Identifier: MIT */
/* The door of libFuzzer: the program's name says which target it is. */
#include "fuzz.h"

static FuzzTarget *pTarget;

int LLVMFuzzerInitialize(int *pnArg, char ***pazArg);
int LLVMFuzzerInitialize(int *pnArg, char ***pazArg) {
  const char *z = strrchr((*pazArg)[0], '/');
  (void)pnArg;
  pTarget = fuzzFind(z ? z + 1 : (*pazArg)[0]);
  if (pTarget == NULL) {
    fprintf(stderr, "no fuzz target has this program's name\n");
    exit(2);
  }
  return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *a, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *a, size_t n) {
  pTarget->xRun(a, n);
  return 0;
}
