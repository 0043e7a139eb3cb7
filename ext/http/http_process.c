/* SPDX-License-Identifier: MIT */
/*
** Runs the command of `credential_process` and reads what it prints. Not by a
** shell: words are split at white space, quotes and backslashes as in sh. At
** most 64 KiB of output and a minute, or http.timeout_ms; an interrupt ends it.
*/
#include "http.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

enum { PROCESS_WORDS = 64, PROCESS_OUTPUT = 1 << 16, PROCESS_MS = 60000 };

/* Splits z in place; how many words, -1: too many or an open quote. */
static int processWords(char *z, char **az) {
  int n = 0;
  char *zTo = z;
  for (;;) {
    char cQuote = 0;
    while (*z == ' ' || *z == '\t') {
      z++;
    }
    if (*z == 0) {
      az[n] = NULL;
      return n;
    }
    if (n == PROCESS_WORDS) {
      return -1;
    }
    az[n++] = zTo;
    while (*z && (cQuote || (*z != ' ' && *z != '\t'))) {
      if (*z == cQuote) {
        cQuote = 0;
      } else if (cQuote == 0 && (*z == '\'' || *z == '"')) {
        cQuote = *z;
      } else {
        z += *z == '\\' && cQuote != '\'' && z[1] != 0;
        *zTo++ = *z;
      }
      z++;
    }
    if (cQuote) {
      return -1;
    }
    z += *z != 0;
    *zTo++ = 0;
  }
}

static pid_t processStart(ChoirErr *pErr, char **az, int *pfd) {
  posix_spawn_file_actions_t actions;
  int afd[2], rc;
  pid_t pid = -1;
  if (pipe(afd) != 0) {
    choirErrSet(pErr, SQLITE_IOERR, "cannot make a pipe");
    return -1;
  }
  fcntl(afd[0], F_SETFD, FD_CLOEXEC);
  fcntl(afd[1], F_SETFD, FD_CLOEXEC);
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, afd[1], 1);
  posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
  rc = posix_spawnp(&pid, az[0], &actions, NULL, az, environ);
  posix_spawn_file_actions_destroy(&actions);
  close(afd[1]);
  *pfd = afd[0];
  if (rc != 0) {
    close(afd[0]);
    choirErrSet(pErr, SQLITE_ERROR, "credential_process: cannot run '%.80s'",
                az[0]);
    return -1;
  }
  return pid;
}

/* Until the end of its output; 0 when it had to be given up. */
static int processRead(ChoirConn *pConn, ChoirErr *pErr, int fd,
                       ChoirBuf *pOut) {
  i64 nSet = choirConfigInt(pConn, "http.timeout_ms", 0);
  i64 nMs = nSet > 0 ? nSet : PROCESS_MS;
  i64 iEnd = choirMonotonic() + nMs;
  for (;;) {
    struct pollfd poller = {fd, POLLIN, 0};
    char a[4096];
    ssize_t n;
    if (choirInterrupted(pConn)) {
      choirErrSet(pErr, SQLITE_INTERRUPT, "interrupted");
    } else if (choirMonotonic() > iEnd) {
      choirErrSet(pErr, SQLITE_ERROR,
                  "credential_process: not done within %lld ms%s", nMs,
                  nSet > 0 ? " (http.timeout_ms)" : "");
    }
    if (pErr->rc != SQLITE_OK) {
      return 0;
    }
    if (poll(&poller, 1, 50) <= 0) {
      continue;
    }
    n = read(fd, a, sizeof(a));
    if (n == 0 || (n < 0 && errno != EINTR)) {
      return 1;
    }
    choirBufAppend(pOut, a, n > 0 ? (u64)n : 0);
    choirWipe(a, sizeof(a));
  }
}

CHOIR_PRIVATE char *choirHttpProcess(ChoirConn *pConn, ChoirErr *pErr,
                                     const char *zCommand) {
  char *z = choirMprintf(pErr, "%s", zCommand);
  char *az[PROCESS_WORDS + 1];
  ChoirBuf out;
  pid_t pid = -1;
  int fd = -1, iStatus = 0;
  choirBufInit(&out, pErr, PROCESS_OUTPUT);
  if (z && processWords(z, az) < 1) {
    choirErrSet(pErr, SQLITE_ERROR,
                "credential_process: not 1 to %d words with closed quotes",
                PROCESS_WORDS);
  }
  if (pErr->rc == SQLITE_OK) {
    pid = processStart(pErr, az, &fd);
  }
  if (pid > 0) {
    if (!processRead(pConn, pErr, fd, &out)) {
      kill(pid, SIGKILL);
    }
    close(fd);
    while (waitpid(pid, &iStatus, 0) < 0 && errno == EINTR) {
    }
    if (!WIFEXITED(iStatus) || WEXITSTATUS(iStatus) != 0) {
      choirErrSet(pErr, SQLITE_ERROR,
                  "credential_process: '%.80s' ended with status %d", az[0],
                  WIFEXITED(iStatus) ? WEXITSTATUS(iStatus) : -1);
    }
  }
  sqlite3_free(z);
  return choirBufTake(&out);
}
