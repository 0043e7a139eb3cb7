/* SPDX-License-Identifier: MIT */
/*
** One attempt of an exchange over libcurl; the only file that knows libcurl.
**
** The library is opened at the first request of a connection, not at load
** (choirLibOpen); CHOIR_CURL_LINKED links it instead. curl_global_cleanup is
** never called: the host may use libcurl too.
**
** A connection has one multi handle, hence one pool of sockets; easy handles
** go back to a small stack after use. After fork() the child leaves the
** parent's handles alone (closing them would end the parent's TLS sessions)
** and begins anew. SIGPIPE is blocked while libcurl works: OpenSSL writes with
** write().
**
** What libcurl does not do by itself: caps are counted in the write callback,
** redirects are not followed here, proxies of the environment are not used,
** only http and https are spoken, link-local addresses (cloud metadata) are
** refused after name lookup.
*/
#include "http.h"
#define CURL_DISABLE_TYPECHECK 1
#include <curl/curl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define CURL_FUNCTIONS(X)                                                      \
  X(easy_init)                                                                 \
  X(easy_setopt)                                                               \
  X(easy_getinfo)                                                              \
  X(easy_reset)                                                                \
  X(easy_cleanup)                                                              \
  X(easy_strerror)                                                             \
  X(global_init)                                                               \
  X(multi_add_handle)                                                          \
  X(multi_cleanup)                                                             \
  X(multi_info_read)                                                           \
  X(multi_init)                                                                \
  X(multi_perform)                                                             \
  X(multi_poll)                                                                \
  X(multi_remove_handle)                                                       \
  X(multi_strerror)                                                            \
  X(version_info)

typedef struct HttpCurl {
#define X(name) __typeof__(&curl_##name) name;
  CURL_FUNCTIONS(X)
#undef X
} HttpCurl;

enum {
  WIRE_IDLE_MAX = 8,
  WIRE_HEADER_MAX = 256 * 1024,
  WIRE_HEADER_USUAL = 1000,
  WIRE_ERROR_BODY = 1 << 20
};

typedef struct CurlState {
  HttpCurl curl;
  u8 bOpen;
  u8 bTls; /* an https URL or a proxy was used */
  CURLM *pMulti;
  CURL *apIdle[WIRE_IDLE_MAX];
  int nIdle;
  int pid;
} CurlState;

typedef struct HttpWire {
  CurlState *pState;
  CURL *pCurl;
  struct curl_slist *pHeader;
  CURLcode rc;
  i64 iRead;                        /* how much of the source was sent */
  i64 iWrite;                       /* how much the sink got */
  u8 bDone, bHead, bBody, bRefused; /* bHead: the header ended */
  u8 bReset;  /* the handle cannot be used again as it is */
  u8 bMethod; /* it is more than a GET */
  char zError[CURL_ERROR_SIZE];
} HttpWire;

/* ---------------------------------------------------------------- library */

#ifdef CHOIR_CURL_LINKED
static void wireOpenLibrary(ChoirErr *pErr, HttpCurl *p) {
  (void)pErr;
#define X(name) p->name = curl_##name;
  CURL_FUNCTIONS(X)
#undef X
}
#else
static void wireOpenLibrary(ChoirErr *pErr, HttpCurl *p) {
  static const char *const azFile[] = {"libcurl.so.4", "libcurl-gnutls.so.4",
                                       "libcurl.4.dylib", NULL};
#define X(name) "curl_" #name,
  static const char *const azSymbol[] = {CURL_FUNCTIONS(X) NULL};
#undef X
  static const ChoirLib lib = {azFile, azSymbol, "libcurl4, 7.85 or newer"};
  choirLibOpen(pErr, &lib, p);
}
#endif

typedef struct WireSignal {
  sigset_t old;
  int bOn, bPending;
} WireSignal;

/* Without TLS libcurl sends with MSG_NOSIGNAL: four system calls saved. */
static void wireSigpipeBlock(WireSignal *p, const CurlState *pState) {
  sigset_t set;
  p->bOn = pState->bTls;
  if (!p->bOn) {
    return;
  }
  sigpending(&set);
  p->bPending = sigismember(&set, SIGPIPE);
  sigemptyset(&set);
  sigaddset(&set, SIGPIPE);
  pthread_sigmask(SIG_BLOCK, &set, &p->old);
}

static void wireSigpipeRestore(WireSignal *p) {
  sigset_t set;
  int iSignal;
  if (!p->bOn) {
    return;
  }
  sigpending(&set);
  if (!p->bPending && sigismember(&set, SIGPIPE)) {
    sigemptyset(&set);
    sigaddset(&set, SIGPIPE);
    sigwait(&set, &iSignal); /* it is pending: returns at once */
  }
  pthread_sigmask(SIG_SETMASK, &p->old, NULL);
}

static void curlStateFree(void *pArg) {
  CurlState *p = pArg;
  WireSignal sig;
  if (p->pMulti == NULL || p->pid != choirPid()) {
    return;
  }
  wireSigpipeBlock(&sig, p);
  while (p->nIdle > 0) {
    p->curl.easy_cleanup(p->apIdle[--p->nIdle]);
  }
  p->curl.multi_cleanup(p->pMulti);
  wireSigpipeRestore(&sig);
}

static const ChoirStateType curlState = {"http wire", sizeof(CurlState),
                                         curlStateFree};

static CurlState *wireGet(ChoirConn *pConn, ChoirErr *pErr) {
  CurlState *p = choirState(pConn, pErr, &curlState);
  if (p == NULL || pErr->rc != SQLITE_OK) {
    return NULL;
  }
  if (!p->bOpen) {
    wireOpenLibrary(pErr, &p->curl);
    if (pErr->rc == SQLITE_OK) {
      /* Thread-safe by itself since 7.84; the mutex is for builds without. */
      sqlite3_mutex *pMutex = sqlite3_mutex_alloc(SQLITE_MUTEX_STATIC_APP1);
      sqlite3_mutex_enter(pMutex);
      p->bOpen = p->curl.global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK;
      sqlite3_mutex_leave(pMutex);
      if (!p->bOpen) {
        choirErrSet(pErr, SQLITE_ERROR, "libcurl could not be initialised");
      }
    }
  }
  if (p->bOpen && p->pid != choirPid()) {
    p->nIdle = 0; /* the parent's, when forked: left alone */
    p->pMulti = NULL;
    p->pid = choirPid();
  }
  if (p->bOpen && p->pMulti == NULL) {
    p->pMulti = p->curl.multi_init();
    if (p->pMulti == NULL) {
      choirErrNomem(pErr);
    }
  }
  return pErr->rc == SQLITE_OK ? p : NULL;
}

/* -------------------------------------------------------------- callbacks */

static size_t wireHeader(char *a, size_t m, size_t n, void *pArg) {
  ChoirHttp *p = pArg;
  n *= m;
  if (p->pWire->bBody) {
    return n; /* a trailer */
  }
  if (n > 5 && memcmp(a, "HTTP/", 5) == 0) {
    p->header.n = 0; /* after 100 Continue comes the real one */
    p->pWire->bHead = 0;
  }
  p->pWire->bHead |= n <= 2 && (a[0] == '\r' || a[0] == '\n');
  if (p->header.n + n > WIRE_HEADER_MAX) {
    choirErrSet(&p->err, SQLITE_TOOBIG,
                "the reply's headers are more than %d bytes", WIRE_HEADER_MAX);
    return 0;
  }
  choirBufAppend(&p->header, a, n);
  return p->err.rc == SQLITE_OK ? n : 0;
}

static int wireStatus(HttpWire *pWire) {
  long iStatus = 0;
  pWire->pState->curl.easy_getinfo(pWire->pCurl, CURLINFO_RESPONSE_CODE,
                                   &iStatus);
  return (int)iStatus;
}

/* Room for the announced length, so that the body is not moved as it grows. */
static void wireReserve(ChoirHttp *p) {
  curl_off_t n = -1;
  p->pWire->pState->curl.easy_getinfo(p->pWire->pCurl,
                                      CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &n);
  if (n > 0 && (u64)n <= p->nMax) {
    choirBufReserve(&p->body, (u64)n + 8); /* 8: see http_sql.c */
  }
}

static size_t wireBody(char *a, size_t m, size_t n, void *pArg) {
  ChoirHttp *p = pArg;
  HttpWire *pWire = p->pWire;
  int bOk;
  n *= m;
  if (!pWire->bBody) {
    pWire->bBody = 1;
    p->iStatus = wireStatus(pWire);
    if (p->xWrite == NULL) {
      wireReserve(p);
    }
  }
  bOk = p->iStatus >= 200 && p->iStatus < 300;
  p->nReceived += (i64)n;
  if (bOk ? (u64)p->nReceived > p->nMax : p->nReceived > WIRE_ERROR_BODY) {
    choirErrSet(&p->err, SQLITE_TOOBIG,
                "the reply is more than the limit of %llu bytes",
                bOk ? p->nMax : (u64)WIRE_ERROR_BODY);
    return 0;
  }
  if (p->xWrite && bOk) {
    if (p->xWrite(p->pArg, pWire->iWrite, a, (i64)n)) {
      p->err.rc = SQLITE_ABORT; /* whose reason pArg has */
      return 0;
    }
    pWire->iWrite += (i64)n;
  } else {
    choirBufAppend(&p->body, a, n);
  }
  return p->err.rc == SQLITE_OK ? n : 0;
}

static size_t wireSource(char *a, size_t m, size_t n, void *pArg) {
  ChoirHttp *p = pArg;
  HttpWire *pWire = p->pWire;
  i64 nWant = (i64)(n * m);
  if (nWant > p->nBody - pWire->iRead) {
    nWant = p->nBody - pWire->iRead;
  }
  if (nWant > 0 && p->xRead(p->pArg, pWire->iRead, a, nWant)) {
    p->err.rc = SQLITE_ABORT;
    return CURL_READFUNC_ABORT;
  }
  pWire->iRead += nWant;
  return (size_t)nWant;
}

static int wireSeek(void *pArg, curl_off_t iOffset, int eOrigin) {
  ChoirHttp *p = pArg;
  if (eOrigin != SEEK_SET) {
    return CURL_SEEKFUNC_CANTSEEK;
  }
  p->pWire->iRead = iOffset;
  return CURL_SEEKFUNC_OK;
}

/* Addresses of the link, where clouds keep their credentials. */
static int wireLinkLocal(const struct curl_sockaddr *pAddr) {
  const u8 *a;
  if (pAddr->family == AF_INET) {
    a = (const u8 *)&((const struct sockaddr_in *)(const void *)&pAddr->addr)
            ->sin_addr;
    return a[0] == 169 && a[1] == 254;
  }
  if (pAddr->family == AF_INET6) {
    static const u8 aEc2[16] = {0xfd, 0x00, 0x0e, 0xc2, 0, 0, 0, 0,
                                0,    0,    0,    0,    0, 0, 2, 0x54};
    static const u8 aMapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    a = (const u8 *)&((const struct sockaddr_in6 *)(const void *)&pAddr->addr)
            ->sin6_addr;
    return (a[0] == 0xfe && (a[1] & 0xc0) == 0x80) ||
           memcmp(a, aEc2, 16) == 0 ||
           (memcmp(a, aMapped, 12) == 0 && a[12] == 169 && a[13] == 254);
  }
  return 0;
}

static curl_socket_t wireSocket(void *pArg, curlsocktype eType,
                                struct curl_sockaddr *pAddr) {
  ChoirHttp *p = pArg;
  int iType = pAddr->socktype;
  (void)eType;
  if (!(p->mFlags & CHOIR_HTTP_LINK_LOCAL) && wireLinkLocal(pAddr)) {
    p->pWire->bRefused = 1;
    return CURL_SOCKET_BAD;
  }
#ifdef SOCK_CLOEXEC
  iType |= SOCK_CLOEXEC;
#endif
  return socket(pAddr->family, iType, pAddr->protocol);
}

/* ---------------------------------------------------------------- options */

/* The system's certificate authorities: libcurl's own default when it is
** there, else where other systems keep theirs. */
static const char *wireCaFile(ChoirConn *pConn, CurlState *pState) {
  static const char *const azKnown[] = {
      "/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt",
      "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem"};
  const char *z = choirConfig(pConn, "http.ca_file");
  const curl_version_info_data *pInfo;
  struct stat st;
  int i;
  if (z && z[0]) {
    return z;
  }
  pInfo = pState->curl.version_info(CURLVERSION_NOW);
  if ((pInfo->cainfo && stat(pInfo->cainfo, &st) == 0) ||
      (pInfo->capath && stat(pInfo->capath, &st) == 0)) {
    return NULL;
  }
  for (i = 0; i < 4; i++) {
    if (stat(azKnown[i], &st) == 0) {
      return azKnown[i];
    }
  }
  return NULL;
}

static int wireHasBody(const ChoirHttp *p) {
  return p->xRead || p->pBody || strcmp(p->zMethod, "POST") == 0 ||
         strcmp(p->zMethod, "PUT") == 0;
}

/* What most requests say besides: read by libcurl, changed by nobody. */
static struct curl_slist aWireUsual[2] = {
    {(char *)"Accept-Encoding: gzip", &aWireUsual[1]},
    {(char *)"User-Agent: choir", NULL}};

/* Adds a line at the end *pp of the list; where that is then. libcurl only reads
** the list, so that it can be of our memory. */
static struct curl_slist **wireLine(ChoirHttp *p, struct curl_slist **pp,
                                    const char *zName, const char *zSep,
                                    const char *zValue) {
  size_t nName = strlen(zName), nSep = strlen(zSep), nValue = strlen(zValue);
  struct curl_slist *pNew =
      choirMalloc(&p->err, sizeof(*pNew) + nName + nSep + nValue + 1);
  if (pNew == NULL) {
    return pp;
  }
  pNew->data = (char *)&pNew[1];
  memcpy(pNew->data, zName, nName);
  memcpy(pNew->data + nName, zSep, nSep);
  memcpy(pNew->data + nName + nSep, zValue, nValue);
  *pp = pNew;
  return &pNew->next;
}

static void wireHeaders(ChoirHttp *p) {
  struct curl_slist **pp = &p->pWire->pHeader;
  int i, bType = 0, bExpect = 0, bAgent = 0, bEncoding = 0;
  const char *zName, *zValue;
  for (i = 0; choirHttpHeaderNth(p, i, &zName, &zValue); i++) {
    /* libcurl: `Name;` sends an empty value, `Name:` sends none */
    pp = wireLine(p, pp, zName, zValue[0] ? ": " : ";", zValue);
    bType |= sqlite3_stricmp(zName, "Content-Type") == 0;
    bExpect |= sqlite3_stricmp(zName, "Expect") == 0;
    bAgent |= sqlite3_stricmp(zName, "User-Agent") == 0;
    bEncoding |= sqlite3_stricmp(zName, "Accept-Encoding") == 0;
  }
  if (wireHasBody(p) && !bType) { /* not what libcurl would say */
    pp = wireLine(p, pp, "Content-Type:", "", "");
  }
  if (wireHasBody(p) && !bExpect) {
    pp = wireLine(p, pp, "Expect:", "", "");
  }
  bEncoding |= !(p->mFlags & CHOIR_HTTP_GZIP);
  if (bAgent && !bEncoding) {
    pp = wireLine(p, pp, "Accept-Encoding", ": ", "gzip");
  }
  *pp = bAgent ? NULL : &aWireUsual[bEncoding];
}

static void wireHeadersFree(struct curl_slist *p) {
  while (p && p != &aWireUsual[0] && p != &aWireUsual[1]) {
    struct curl_slist *pNext = p->next;
    choirWipe(p->data, strlen(p->data));
    sqlite3_free(p);
    p = pNext;
  }
}

#define SET(option, value) pCurl->easy_setopt(pEasy, option, value)

/* What a plain GET is without. */
static void wireMethod(ChoirHttp *p, const HttpCurl *pCurl, CURL *pEasy) {
  if (strcmp(p->zMethod, "HEAD") == 0) {
    SET(CURLOPT_NOBODY, 1L);
  } else if (p->xRead) {
    SET(CURLOPT_UPLOAD, 1L);
    SET(CURLOPT_READDATA, p);
    SET(CURLOPT_SEEKDATA, p);
    SET(CURLOPT_INFILESIZE_LARGE, (curl_off_t)p->nBody);
  } else if (wireHasBody(p)) {
    SET(CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)p->nBody);
    SET(CURLOPT_POSTFIELDS, p->pBody ? p->pBody : "");
  }
  if (wireHasBody(p) || strcmp(p->zMethod, "HEAD") != 0) {
    SET(CURLOPT_CUSTOMREQUEST, p->zMethod);
  }
}

/* What is the same for every request, set when a handle is made. */
static void wireConstants(const HttpCurl *pCurl, CURL *pEasy) {
  SET(CURLOPT_PROTOCOLS_STR, "http,https");
  SET(CURLOPT_FOLLOWLOCATION, 0L);
  SET(CURLOPT_NOSIGNAL, 1L);
  SET(CURLOPT_PATH_AS_IS, 1L);
  SET(CURLOPT_BUFFERSIZE, 256L * 1024);
  SET(CURLOPT_UPLOAD_BUFFERSIZE, 256L * 1024);
  SET(CURLOPT_HEADERFUNCTION, wireHeader);
  SET(CURLOPT_WRITEFUNCTION, wireBody);
  SET(CURLOPT_READFUNCTION, wireSource);
  SET(CURLOPT_SEEKFUNCTION, wireSeek);
  SET(CURLOPT_OPENSOCKETFUNCTION, wireSocket);
  SET(CURLOPT_SSL_VERIFYPEER, 1L);
  SET(CURLOPT_SSL_VERIFYHOST, 2L);
}

static CURL *wireHandle(const HttpCurl *pCurl) {
  CURL *pEasy = pCurl->easy_init();
  if (pEasy) {
    wireConstants(pCurl, pEasy);
  }
  return pEasy;
}

static void wireOptions(ChoirHttp *p, CurlState *pState, CURL *pEasy) {
  const HttpCurl *pCurl = &pState->curl;
  const char *zProxy = choirConfig(p->pConn, "http.proxy");
  int bTls = sqlite3_strnicmp(p->zUrl, "https", 5) == 0;
  const char *zCa = bTls ? wireCaFile(p->pConn, pState) : NULL;
  pState->bTls |= zProxy != NULL || bTls;
  p->pWire->bReset = zCa != NULL;
  SET(CURLOPT_URL, p->zUrl);
  SET(CURLOPT_PRIVATE, p);
  SET(CURLOPT_ERRORBUFFER, p->pWire->zError);
  SET(CURLOPT_CONNECTTIMEOUT_MS, (long)p->nConnectMs);
  SET(CURLOPT_MAXFILESIZE_LARGE, /* what HEAD announces does not come */
      (curl_off_t)(strcmp(p->zMethod, "HEAD") == 0 ? 0 : p->nMax));
  SET(CURLOPT_HEADERDATA, p);
  SET(CURLOPT_WRITEDATA, p);
  SET(CURLOPT_OPENSOCKETDATA, p);
  SET(CURLOPT_HTTPHEADER, p->pWire->pHeader);
  SET(CURLOPT_PROXY, zProxy && strcmp(zProxy, "env") == 0 ? NULL
                     : zProxy                             ? zProxy
                                                          : "");
  if (zCa) {
    SET(CURLOPT_CAINFO, zCa);
  }
  p->pWire->bMethod = wireHasBody(p) || strcmp(p->zMethod, "GET") != 0;
  if (p->pWire->bMethod) {
    wireMethod(p, pCurl, pEasy);
  }
}

/* Takes back what wireOptions set, so that nothing points into a request that
** is no more and no URL that is a credential stays. */
static void wireTakeBack(HttpWire *pWire, const HttpCurl *pCurl, CURL *pEasy) {
  if (pWire->bReset) {
    pCurl->easy_reset(pEasy);
    wireConstants(pCurl, pEasy);
  } else {
    SET(CURLOPT_URL, (char *)NULL);
    SET(CURLOPT_ERRORBUFFER, (char *)NULL);
    SET(CURLOPT_HTTPHEADER, (struct curl_slist *)NULL);
    if (pWire->bMethod) {
      SET(CURLOPT_POSTFIELDS, (char *)NULL);
      SET(CURLOPT_CUSTOMREQUEST, (char *)NULL);
      SET(CURLOPT_HTTPGET, 1L); /* no upload, and a body in the reply */
    }
  }
}
#undef SET

/* ---------------------------------------------------------------- attempt */

/* An easy handle goes back to the stack; its socket stays with the multi. */
static void wireRelease(HttpWire *pWire) {
  CurlState *pState = pWire->pState;
  if (pWire->pCurl == NULL || pState->pid != choirPid()) {
    return;
  }
  pState->curl.multi_remove_handle(pState->pMulti, pWire->pCurl);
  if (pState->nIdle < WIRE_IDLE_MAX) {
    wireTakeBack(pWire, &pState->curl, pWire->pCurl);
    pState->apIdle[pState->nIdle++] = pWire->pCurl;
  } else {
    pState->curl.easy_cleanup(pWire->pCurl);
  }
}

CHOIR_PRIVATE void choirHttpWireStop(ChoirHttp *p) {
  WireSignal sig;
  if (p->pWire) {
    wireSigpipeBlock(&sig, p->pWire->pState);
    wireRelease(p->pWire);
    wireSigpipeRestore(&sig);
    wireHeadersFree(p->pWire->pHeader);
    sqlite3_free(p->pWire);
    p->pWire = NULL;
  }
}

CHOIR_PRIVATE void choirHttpWireStart(ChoirHttp *p) {
  CurlState *pState = wireGet(p->pConn, &p->err);
  WireSignal sig;
  CURLMcode rc;
  p->pWire = pState ? choirMalloc(&p->err, sizeof(HttpWire)) : NULL;
  if (p->pWire == NULL) {
    return;
  }
  p->pWire->pState = pState;
  p->pWire->pCurl = pState->nIdle ? pState->apIdle[--pState->nIdle]
                                  : wireHandle(&pState->curl);
  if (p->pWire->pCurl == NULL) {
    choirErrNomem(&p->err);
  }
  wireHeaders(p);
  choirBufReserve(&p->header, WIRE_HEADER_USUAL);
  if (p->err.rc == SQLITE_OK) {
    wireOptions(p, pState, p->pWire->pCurl);
    wireSigpipeBlock(&sig, pState);
    rc = pState->curl.multi_add_handle(pState->pMulti, p->pWire->pCurl);
    wireSigpipeRestore(&sig);
    if (rc != CURLM_OK) {
      choirErrSet(&p->err, SQLITE_ERROR, "%s", pState->curl.multi_strerror(rc));
    }
  }
  if (p->err.rc != SQLITE_OK) {
    choirHttpWireStop(p);
  }
}

/* Marks what has ended; how many. */
static int wireCollect(CurlState *pState) {
  CURLMsg *pMsg;
  int nLeft, n = 0;
  while ((pMsg = pState->curl.multi_info_read(pState->pMulti, &nLeft))) {
    ChoirHttp *p = NULL;
    if (pMsg->msg == CURLMSG_DONE) {
      pState->curl.easy_getinfo(pMsg->easy_handle, CURLINFO_PRIVATE, &p);
      p->pWire->rc = pMsg->data.result;
      p->pWire->bDone = 1;
      n++;
    }
  }
  return n;
}

CHOIR_PRIVATE int choirHttpWirePoll(ChoirConn *pConn, ChoirErr *pErr, int nMs) {
  CurlState *pState = wireGet(pConn, pErr);
  CURLMcode rc = CURLM_OK;
  WireSignal sig;
  int nRunning = 0, nEnded = 0;
  if (pState == NULL) {
    return 0;
  }
  wireSigpipeBlock(&sig, pState);
  rc = pState->curl.multi_perform(pState->pMulti, &nRunning);
  if (rc == CURLM_OK) {
    nEnded = wireCollect(pState);
  }
  if (rc == CURLM_OK && nEnded == 0 && nMs > 0) {
    rc = pState->curl.multi_poll(pState->pMulti, NULL, 0, nMs, NULL);
  }
  wireSigpipeRestore(&sig);
  if (rc == CURLM_OUT_OF_MEMORY) {
    choirErrNomem(pErr);
  } else if (rc != CURLM_OK) {
    choirErrSet(pErr, SQLITE_ERROR, "%s", pState->curl.multi_strerror(rc));
  }
  return nEnded;
}

/* The failures that may pass. Certificates do not get better by waiting. */
static int wireTransient(CURLcode rc) {
  switch (rc) {
  case CURLE_COULDNT_RESOLVE_HOST:
  case CURLE_COULDNT_RESOLVE_PROXY:
  case CURLE_COULDNT_CONNECT:
  case CURLE_OPERATION_TIMEDOUT:
  case CURLE_GOT_NOTHING:
  case CURLE_SEND_ERROR:
  case CURLE_RECV_ERROR:
  case CURLE_PARTIAL_FILE:
  case CURLE_SSL_CONNECT_ERROR:
  case CURLE_HTTP2:
  case CURLE_HTTP2_STREAM:
    return 1;
  default:
    return 0;
  }
}

/* Is the end of the body anything but the end of the connection? */
static u8 wireDelimited(ChoirHttp *p, CURL *pEasy, const HttpCurl *pCurl) {
  curl_off_t nLength = -1;
  char *zEncoding;
  u8 b;
  pCurl->easy_getinfo(pEasy, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &nLength);
  if (nLength >= 0 || p->zHttp[0] >= '2' || p->iStatus == 204 ||
      p->iStatus == 304 || strcmp(p->zMethod, "HEAD") == 0) {
    return 0;
  }
  zEncoding = choirHttpReply(p, "Transfer-Encoding");
  b = zEncoding == NULL;
  sqlite3_free(zEncoding);
  return b;
}

static void wireInfo(ChoirHttp *p, CURL *pEasy, const HttpCurl *pCurl) {
  static const CURLINFO aTime[5] = {
      CURLINFO_NAMELOOKUP_TIME_T, CURLINFO_CONNECT_TIME_T,
      CURLINFO_APPCONNECT_TIME_T, CURLINFO_STARTTRANSFER_TIME_T,
      CURLINFO_TOTAL_TIME_T};
  long iVersion = 0, iPort = 0;
  char *zIp = NULL;
  int i;
  for (i = 0; i < 5; i++) {
    curl_off_t iUs = 0;
    pCurl->easy_getinfo(pEasy, aTime[i], &iUs);
    p->aUs[i] = iUs;
  }
  pCurl->easy_getinfo(pEasy, CURLINFO_HTTP_VERSION, &iVersion);
  p->zHttp = iVersion == CURL_HTTP_VERSION_1_0   ? "1.0"
             : iVersion == CURL_HTTP_VERSION_2_0 ? "2"
             : iVersion == CURL_HTTP_VERSION_3   ? "3"
                                                 : "1.1";
  pCurl->easy_getinfo(pEasy, CURLINFO_PRIMARY_IP, &zIp);
  pCurl->easy_getinfo(pEasy, CURLINFO_PRIMARY_PORT, &iPort);
  sqlite3_snprintf(sizeof(p->zRemote), p->zRemote,
                   zIp && strchr(zIp, ':') ? "[%s]:%d" : "%s:%d",
                   zIp ? zIp : "", (int)iPort);
}

CHOIR_PRIVATE int choirHttpWireDone(ChoirHttp *p, int *pbRetry, int *pbSent) {
  HttpWire *pWire = p->pWire;
  const HttpCurl *pCurl = &pWire->pState->curl;
  long nRequest = 0;
  CURLcode rc;
  if (!pWire->bDone) {
    return 0;
  }
  rc = pWire->rc;
  p->iStatus = wireStatus(pWire);
  pCurl->easy_getinfo(pWire->pCurl, CURLINFO_REQUEST_SIZE, &nRequest);
  *pbSent = nRequest > 0;
  *pbRetry = wireTransient(rc);
  wireInfo(p, pWire->pCurl, pCurl);
  if (rc == CURLE_OK && !pWire->bHead) {
    /* libcurl 7.88 takes the end of the connection for the end of a header */
    choirErrSet(&p->err, SQLITE_ERROR, "the reply ends within its headers");
    *pbRetry = 1;
  } else if (rc == CURLE_OK) {
    p->bDelimited = wireDelimited(p, pWire->pCurl, pCurl);
  } else if (rc == CURLE_OUT_OF_MEMORY && pWire->bHead) {
    choirErrNomem(&p->err);
  } else if (rc == CURLE_OUT_OF_MEMORY) {
    /* what libcurl says of a header line of more than 100 KB */
    choirErrSet(&p->err, SQLITE_TOOBIG, "a header of the reply is too long");
  } else if (rc == CURLE_FILESIZE_EXCEEDED) {
    choirErrSet(&p->err, SQLITE_TOOBIG,
                "the reply is more than the limit of %llu bytes", p->nMax);
  } else if (pWire->bRefused) {
    choirErrSet(&p->err, SQLITE_AUTH, "a link-local address is refused");
    *pbRetry = 0;
  } else {
    const char *z = pWire->zError[0] ? pWire->zError : pCurl->easy_strerror(rc);
    /* lower case, unless the word is a name: OpenSSL, HTTP/2 */
    int bName = z[1 + strcspn(z + 1, " ABCDEFGHIJKLMNOPQRSTUVWXYZ")] > ' ';
    char c = z[0] >= 'A' && z[0] <= 'Z' && !bName ? (char)(z[0] + 32) : z[0];
    choirErrSet(&p->err, SQLITE_ERROR, "%c%s", c, z + 1);
  }
  return 1;
}

CHOIR_PRIVATE i64 choirHttpWireMoved(ChoirHttp *p, i64 *pnTotal,
                                     int *pbConnected) {
  const HttpCurl *pCurl = &p->pWire->pState->curl;
  curl_off_t nDown = 0, nUp = 0, nTotal = -1, iPre = 0;
  pCurl->easy_getinfo(p->pWire->pCurl, CURLINFO_SIZE_DOWNLOAD_T, &nDown);
  pCurl->easy_getinfo(p->pWire->pCurl, CURLINFO_SIZE_UPLOAD_T, &nUp);
  pCurl->easy_getinfo(p->pWire->pCurl, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T,
                      &nTotal);
  pCurl->easy_getinfo(p->pWire->pCurl, CURLINFO_PRETRANSFER_TIME_T, &iPre);
  *pnTotal = p->nBody > 0 ? p->nBody : nTotal;
  *pbConnected = iPre > 0;
  return nDown + nUp;
}

CHOIR_PRIVATE char *choirHttpWireRedirect(ChoirHttp *p) {
  char *z = NULL;
  if (p->iStatus >= 300 && p->iStatus < 400 && p->iStatus != 304) {
    p->pWire->pState->curl.easy_getinfo(p->pWire->pCurl, CURLINFO_REDIRECT_URL,
                                        &z);
  }
  return z ? choirMprintf(&p->err, "%s", z) : NULL;
}
