/* SPDX-License-Identifier: MIT */
/*
** Runs the command of `credential_process` and reads what it prints. Not by a
** shell: words are split at white space, quotes and backslashes as in sh. At
** most 64 KiB of output and a minute, or http.timeout_ms.
**
** It runs in a process group of its own, so that what it has started is killed
** with it when it is given up (too slow, too much, an interrupt); what it leaves
** running when it ends by itself is left. Such a group is not the terminal's: a
** command that would ask there gets an error instead of being stopped.
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

enum {
  PROCESS_WORDS = 64,
  PROCESS_OUTPUT = 1 << 16,
  PROCESS_MS = 60000,
  PROCESS_TICK_MS = 50
};

typedef struct Process {
  ChoirConn *pConn;
  ChoirErr *pErr;
  pid_t pid;  /* and its group; -1: none */
  int fd;     /* its output */
  i64 nMs;    /* how long it may take */
  i64 iEndMs; /* until when */
} Process;

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

static void processStart(Process *p, char **az) {
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attr;
  sigset_t blocked;
  int afd[2], rc;
  if (pipe(afd) != 0) {
    choirErrSet(p->pErr, SQLITE_IOERR, "cannot make a pipe");
    return;
  }
  fcntl(afd[0], F_SETFD, FD_CLOEXEC);
  fcntl(afd[1], F_SETFD, FD_CLOEXEC);
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, afd[1], 1);
  posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
  posix_spawnattr_init(&attr);
  posix_spawnattr_setpgroup(&attr, 0);
  sigemptyset(&blocked); /* those of this thread are not for it */
  sigaddset(&blocked, SIGTTIN);
  sigaddset(&blocked, SIGTTOU);
  posix_spawnattr_setsigmask(&attr, &blocked);
  posix_spawnattr_setflags(&attr,
                           POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK);
  rc = posix_spawnp(&p->pid, az[0], &actions, &attr, az, environ);
  posix_spawnattr_destroy(&attr);
  posix_spawn_file_actions_destroy(&actions);
  close(afd[1]);
  p->fd = afd[0];
  if (rc != 0) {
    close(afd[0]);
    p->pid = -1;
    choirErrSet(p->pErr, SQLITE_ERROR,
                "credential_process: cannot run '%.80s': %s", az[0],
                strerror(rc));
  }
}

/* Is it to be given up? Then why is in pErr. */
static int processGiveUp(Process *p) {
  if (choirInterrupted(p->pConn)) {
    choirErrSet(p->pErr, SQLITE_INTERRUPT, "interrupted");
  } else if (choirMonotonic() > p->iEndMs) {
    choirErrSet(p->pErr, SQLITE_ERROR,
                "credential_process: not done within %lld ms%s", p->nMs,
                p->nMs != PROCESS_MS ? " (http.timeout_ms)" : "");
  }
  return p->pErr->rc != SQLITE_OK;
}

/* Until the end of its output. */
static void processRead(Process *p, ChoirBuf *pOut) {
  struct pollfd poller = {p->fd, POLLIN, 0};
  char a[4096];
  ssize_t n = 1;
  while (n != 0 && !processGiveUp(p)) {
    if (poll(&poller, 1, PROCESS_TICK_MS) > 0) {
      n = read(p->fd, a, sizeof(a));
      choirBufAppend(pOut, a, n > 0 ? (u64)n : 0);
      choirWipe(a, sizeof(a));
      n = n < 0 && errno != EINTR ? 0 : n;
    }
  }
}

/* Until its end, which need not be that of its output; its status. As long as it
** was not waited for, the group is its own. */
static int processWait(Process *p) {
  int iStatus = 0, nMs = 1;
  for (;;) {
    pid_t pid;
    if (processGiveUp(p)) {
      kill(-p->pid, SIGKILL);
    }
    pid = waitpid(p->pid, &iStatus, WNOHANG);
    if (pid > 0 || (pid < 0 && errno != EINTR)) {
      return iStatus;
    }
    poll(NULL, 0, nMs);
    nMs = nMs < PROCESS_TICK_MS ? 2 * nMs : PROCESS_TICK_MS;
  }
}

CHOIR_PRIVATE char *choirHttpProcess(ChoirConn *pConn, ChoirErr *pErr,
                                     const char *zCommand) {
  i64 nSet = choirConfigInt(pConn, "http.timeout_ms", 0);
  Process process = {pConn, pErr, -1, -1, nSet > 0 ? nSet : PROCESS_MS, 0};
  char *z = choirMprintf(pErr, "%s", zCommand);
  char *az[PROCESS_WORDS + 1];
  ChoirBuf out;
  int iStatus;
  choirBufInit(&out, pErr, PROCESS_OUTPUT);
  if (z && processWords(z, az) < 1) {
    choirErrSet(pErr, SQLITE_ERROR,
                "credential_process: not 1 to %d words with closed quotes",
                PROCESS_WORDS);
  }
  if (pErr->rc == SQLITE_OK) {
    process.iEndMs = choirMonotonic() + process.nMs;
    processStart(&process, az);
  }
  if (process.pid > 0) {
    processRead(&process, &out);
    close(process.fd);
    iStatus = processWait(&process);
    if (!WIFEXITED(iStatus) || WEXITSTATUS(iStatus) != 0) {
      choirErrSet(pErr, SQLITE_ERROR,
                  "credential_process: '%.80s' ended with status %d", az[0],
                  WIFEXITED(iStatus) ? WEXITSTATUS(iStatus) : -1);
    }
  }
  sqlite3_free(z);
  return choirBufTake(&out);
}
