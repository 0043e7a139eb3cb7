/* SPDX-License-Identifier: MIT */
/*
** The AWS credential chain, in the order of the AWS tools:
**
**   environment    AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN
**   web identity   AWS_WEB_IDENTITY_TOKEN_FILE, AWS_ROLE_ARN: STS, unsigned
**   profile        ~/.aws/credentials and ~/.aws/config, AWS_PROFILE: keys,
**                  role_arn with source_profile, credential_source or
**                  web_identity_token_file, credential_process
**   ECS            AWS_CONTAINER_CREDENTIALS_RELATIVE_URI or _FULL_URI
**   IMDSv2         unless AWS_EC2_METADATA_DISABLED
**
** Every request is subject to http.allow, those for credentials too: a list
** without their hosts turns STS, ECS and IMDS off.
**
** What a step gives is kept on the connection until five minutes before it
** expires. A refresh that fails while the old keys still hold goes unnoticed.
** IAM Identity Center (SSO) works through credential_process:
** `aws configure export-credentials --format process`.
*/
#include "http.h"
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

CHOIR_PRIVATE char *choirHttpProcess(ChoirConn *pConn, ChoirErr *pErr,
                                     const char *zCommand);

enum { AWS_DEPTH = 8, AWS_FRESH_S = 300 };

typedef struct AwsEntry {
  char *zFor; /* "default", or the secret's name and generation */
  char *zAccess, *zSecret, *zToken, *zRegion, *zSource;
  i64 iExpires;
  struct AwsEntry *pNext;
} AwsEntry;

typedef struct AwsState {
  AwsEntry *pFirst;
} AwsState;

typedef struct AwsChain {
  ChoirConn *pConn;
  ChoirErr *pErr;
  char *zFile[2]; /* credentials, config: their text */
  const char *zRegion;
  const char *zSts; /* endpoint of STS, or NULL */
  AwsEntry *pOut;
  char *zImds; /* why IMDS gave no keys, NULL: this is no instance */
  int nDepth;
} AwsChain;

static void awsEntryClear(AwsEntry *p) {
  sqlite3_free(p->zAccess);
  choirWipeFree(p->zSecret);
  choirWipeFree(p->zToken);
  sqlite3_free(p->zSource);
  p->zAccess = p->zSecret = p->zToken = p->zSource = NULL;
  p->iExpires = 0;
}

static void awsStateFree(void *pArg) {
  AwsState *pState = pArg;
  while (pState->pFirst) {
    AwsEntry *p = pState->pFirst;
    pState->pFirst = p->pNext;
    awsEntryClear(p);
    sqlite3_free(p->zRegion);
    sqlite3_free(p->zFor);
    sqlite3_free(p);
  }
}

static const ChoirStateType awsState = {"aws", sizeof(AwsState), awsStateFree};

/* --------------------------------------------------------------- helpers */

static const char *awsEnv(const char *zName) {
  const char *z = getenv(zName);
  return z && z[0] ? z : NULL;
}

/* A small file's text, wiped and freed by the caller; NULL when absent. */
static char *awsFile(ChoirErr *pErr, const char *zPath) {
  int fd = open(zPath, O_RDONLY | O_CLOEXEC);
  struct stat st;
  char *z = NULL;
  if (fd < 0) {
    return NULL;
  }
  if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size < 1 << 20) {
    z = choirMalloc(pErr, (u64)st.st_size + 1);
  }
  if (z) {
    ssize_t n = read(fd, z, (size_t)st.st_size);
    z[n > 0 ? n : 0] = 0;
  }
  close(fd);
  return z;
}

/* The file that zEnv names, or ~/.aws/zName. */
static char *awsHomeFile(ChoirErr *pErr, const char *zEnv, const char *zName) {
  const char *zPath = awsEnv(zEnv);
  const char *zHome = awsEnv("HOME");
  char *zMade = NULL, *z;
  if (zPath == NULL && zHome) {
    zPath = zMade = choirMprintf(pErr, "%s/.aws/%s", zHome, zName);
  }
  z = zPath ? awsFile(pErr, zPath) : NULL;
  sqlite3_free(zMade);
  return z;
}

/* `2026-11-21T04:00:00Z` in Unix seconds, 0: none. */
static i64 awsTime(const char *z) {
  int y, mon, d, h, m, s;
  if (z == NULL ||
      sscanf(z, "%4d-%2d-%2dT%2d:%2d:%2d", &y, &mon, &d, &h, &m, &s) != 6) {
    return 0;
  }
  return choirHttpSeconds(y, mon, d, h, m, s);
}

/* Takes the strings over; 1 when these are keys. */
static int awsTake(AwsChain *p, char *zAccess, char *zSecret, char *zToken,
                   char *zExpires, const char *zSource) {
  int bOk = zAccess && zSecret && p->pErr->rc == SQLITE_OK;
  if (bOk) {
    awsEntryClear(p->pOut);
    p->pOut->zAccess = zAccess;
    p->pOut->zSecret = zSecret;
    p->pOut->zToken = zToken;
    p->pOut->iExpires = awsTime(zExpires);
    p->pOut->zSource = choirMprintf(p->pErr, "%s", zSource);
  } else {
    sqlite3_free(zAccess);
    choirWipeFree(zSecret);
    choirWipeFree(zToken);
  }
  sqlite3_free(zExpires);
  return bOk;
}

static char *awsCopy(AwsChain *p, const char *z) {
  return z ? choirMprintf(p->pErr, "%s", z) : NULL;
}

/* Keys out of a JSON reply; zToken names the token's field. */
static int awsJson(AwsChain *p, const char *zJson, const char *zToken,
                   const char *zSource) {
  char *az[4];
  const char *const azPath[4] = {"$.AccessKeyId", "$.SecretAccessKey", zToken,
                                 "$.Expiration"};
  int i;
  for (i = 0; i < 4; i++) {
    az[i] = choirJsonText(p->pConn, p->pErr, zJson ? zJson : "", -1, azPath[i]);
  }
  if (p->pErr->rc == SQLITE_OK && (az[0] == NULL || az[1] == NULL)) {
    choirErrSet(p->pErr, SQLITE_AUTH,
                "%s: the reply has no AccessKeyId and SecretAccessKey",
                zSource);
  }
  return awsTake(p, az[0], az[1], az[2], az[3], zSource);
}

/* The text between <zTag> and </zTag>, or NULL. */
static char *awsXml(ChoirErr *pErr, const ChoirHttp *pHttp, const char *zTag) {
  const char *z = pHttp->body.a;
  size_t n = strlen(zTag);
  while (z && (z = strchr(z, '<')) != NULL) {
    z++;
    if (strncmp(z, zTag, n) == 0 && z[n] == '>') {
      z += n + 1;
      return choirMprintf(pErr, "%.*s", (int)strcspn(z, "<"), z);
    }
  }
  return NULL;
}

/* ------------------------------------------------------------------- STS */

static void awsForm(ChoirBuf *p, const char *zKey, const char *zValue) {
  if (zValue) {
    choirBufPrintf(p, "&%s=", zKey);
    choirUrlEncode(p, zValue, (i64)strlen(zValue), 0);
  }
}

/* Posts the form to STS, signed by the keys in p->pOut when bSign, and takes
** the keys it gives. */
static int awsSts(AwsChain *p, const ChoirBuf *pForm, int bSign,
                  const char *zSource) {
  const char *zEndpoint = p->zSts ? p->zSts : awsEnv("AWS_ENDPOINT_URL_STS");
  char *zUrl;
  ChoirHttp http;
  int bOk = 0;
  zUrl =
      zEndpoint
          ? choirMprintf(p->pErr, "%s", zEndpoint)
          : choirMprintf(p->pErr, "https://sts.%s.amazonaws.com%s/", p->zRegion,
                         strncmp(p->zRegion, "cn-", 3) == 0 ? ".cn" : "");
  if (zUrl == NULL || p->pErr->rc != SQLITE_OK) {
    sqlite3_free(zUrl);
    return 0;
  }
  choirHttpInit(&http, p->pConn, "POST", zUrl);
  http.mFlags = CHOIR_HTTP_RETRY;
  http.pBody = pForm->a;
  http.nBody = (i64)pForm->n;
  choirHttpHeader(&http, "Content-Type", "application/x-www-form-urlencoded");
  if (bSign) {
    ChoirAws keys;
    memset(&keys, 0, sizeof(keys));
    keys.zAccess = p->pOut->zAccess;
    keys.zSecret = p->pOut->zSecret;
    keys.zToken = p->pOut->zToken;
    keys.zRegion = p->zRegion;
    choirSigv4Http(p->pErr, &http, &keys, "sts", NULL, 0);
  }
  choirHttpRun(&http, p->pErr);
  if (p->pErr->rc == SQLITE_OK && http.iStatus != 200) {
    char *zCode = awsXml(p->pErr, &http, "Code");
    char *zText = awsXml(p->pErr, &http, "Message");
    choirErrSet(p->pErr, SQLITE_AUTH, "%s: STS says %d %s: %.200s", zSource,
                http.iStatus, zCode ? zCode : "", zText ? zText : "");
    sqlite3_free(zCode);
    sqlite3_free(zText);
  } else if (p->pErr->rc == SQLITE_OK) {
    bOk = awsTake(p, awsXml(p->pErr, &http, "AccessKeyId"),
                  awsXml(p->pErr, &http, "SecretAccessKey"),
                  awsXml(p->pErr, &http, "SessionToken"),
                  awsXml(p->pErr, &http, "Expiration"), zSource);
    if (!bOk) {
      choirErrSet(p->pErr, SQLITE_AUTH, "%s: the reply of STS has no keys",
                  zSource);
    }
  }
  choirHttpFree(&http);
  sqlite3_free(zUrl);
  return bOk;
}

static const char *awsSession(const char *zName) {
  return zName ? zName : "choir";
}

static int awsWebIdentity(AwsChain *p, const char *zTokenFile,
                          const char *zRole, const char *zSession,
                          const char *zSource) {
  char *zToken = awsFile(p->pErr, zTokenFile);
  ChoirBuf form;
  int bOk;
  choirBufInit(&form, p->pErr, 1 << 20);
  if (zToken == NULL) {
    choirErrSet(p->pErr, SQLITE_AUTH, "%s: cannot read the token file '%s'",
                zSource, zTokenFile);
  } else {
    zToken[strcspn(zToken, "\r\n")] = 0;
  }
  choirBufText(&form, "Action=AssumeRoleWithWebIdentity&Version=2011-06-15");
  awsForm(&form, "RoleArn", zRole);
  awsForm(&form, "RoleSessionName", awsSession(zSession));
  awsForm(&form, "WebIdentityToken", zToken);
  bOk = awsSts(p, &form, 0, zSource);
  choirBufFree(&form);
  choirWipeFree(zToken);
  return bOk;
}

/* ----------------------------------------------------------- containers */

static int awsGet(AwsChain *p, int nAttempt, const char *zMethod,
                  const char *zUrl, const char *zName, const char *zValue,
                  ChoirHttp *pHttp) {
  choirHttpInit(pHttp, p->pConn, zMethod, zUrl);
  pHttp->mFlags = CHOIR_HTTP_LINK_LOCAL;
  pHttp->nConnectMs = 1000;
  pHttp->nTimeoutMs = 5000;
  pHttp->nMax = 1 << 16;
  pHttp->nAttempt = nAttempt;
  if (zValue) {
    choirHttpHeader(pHttp, zName, zValue);
  }
  choirHttpRun(pHttp, p->pErr);
  return p->pErr->rc == SQLITE_OK && pHttp->iStatus == 200;
}

/* Plain http only to this machine and the link. */
static void awsContainerHost(AwsChain *p, const char *zUrl) {
  static const char *const az[] = {"169.254.170.2", "169.254.170.23",
                                   "[fd00:ec2::23]"};
  ChoirHttpUrl url;
  int i;
  choirHttpUrl(p->pErr, zUrl, &url);
  for (i = 0; i < 3 && p->pErr->rc == SQLITE_OK; i++) {
    if (url.nHost == (int)strlen(az[i]) &&
        sqlite3_strnicmp(url.zHost, az[i], url.nHost) == 0) {
      return;
    }
  }
  if (p->pErr->rc == SQLITE_OK && !url.bTls && !choirHttpLoopback(&url)) {
    choirErrSet(p->pErr, SQLITE_AUTH,
                "AWS_CONTAINER_CREDENTIALS_FULL_URI must be https or this"
                " machine");
  }
}

static int awsEcs(AwsChain *p) {
  const char *zRelative = awsEnv("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
  const char *zFull = awsEnv("AWS_CONTAINER_CREDENTIALS_FULL_URI");
  const char *zFile = awsEnv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE");
  char *zUrl, *zToken;
  ChoirHttp http;
  int bOk = 0;
  if ((zRelative == NULL && zFull == NULL) || p->pErr->rc != SQLITE_OK) {
    return 0;
  }
  zUrl = zRelative ? choirMprintf(p->pErr, "http://169.254.170.2%s", zRelative)
                   : choirMprintf(p->pErr, "%s", zFull);
  zToken = zFile ? awsFile(p->pErr, zFile)
                 : awsCopy(p, awsEnv("AWS_CONTAINER_AUTHORIZATION_TOKEN"));
  if (zToken) {
    zToken[strcspn(zToken, "\r\n")] = 0;
  }
  if (zUrl) {
    awsContainerHost(p, zUrl);
  }
  if (p->pErr->rc == SQLITE_OK) {
    if (awsGet(p, 3, "GET", zUrl, "Authorization", zToken, &http)) {
      bOk = awsJson(p, http.body.a, "$.Token", "ECS");
    } else {
      choirErrSet(p->pErr, SQLITE_AUTH,
                  "ECS: status %d from the container's"
                  " credentials",
                  http.iStatus);
    }
    choirHttpFree(&http);
  }
  sqlite3_free(zUrl);
  choirWipeFree(zToken);
  return bOk;
}

/* The instance's role: its name, then its keys. No instance is no error. */
static int awsImds(AwsChain *p) {
  static const char zPath[] = "/latest/meta-data/iam/security-credentials/";
  const char *zBase = awsEnv("AWS_EC2_METADATA_SERVICE_ENDPOINT");
  const char *zOff = awsEnv("AWS_EC2_METADATA_DISABLED");
  ChoirHttp aHttp[3];
  char *zUrl[3] = {NULL, NULL, NULL};
  int i, bOk = 0, n = 0;
  if (p->pErr->rc != SQLITE_OK ||
      (zOff && sqlite3_stricmp(zOff, "true") == 0)) {
    return 0;
  }
  i = zBase ? (int)strlen(zBase) : 0;
  i -= i > 0 && zBase[i - 1] == '/';
  zBase = zBase ? zBase : (i = 22, "http://169.254.169.254");
  zUrl[0] = choirMprintf(p->pErr, "%.*s/latest/api/token", i, zBase);
  zUrl[1] = choirMprintf(p->pErr, "%.*s%s", i, zBase, zPath);
  if (p->pErr->rc == SQLITE_OK) {
    n = 1;
    bOk = awsGet(p, 1, "PUT", zUrl[0], "X-aws-ec2-metadata-token-ttl-seconds",
                 "21600", &aHttp[0]);
  }
  if (bOk) {
    n = 2;
    bOk = awsGet(p, 1, "GET", zUrl[1], "X-aws-ec2-metadata-token",
                 aHttp[0].body.a, &aHttp[1]);
  }
  if (bOk && aHttp[1].body.n) {
    zUrl[2] =
        choirMprintf(p->pErr, "%s%.*s", zUrl[1],
                     (int)strcspn(aHttp[1].body.a, "\r\n"), aHttp[1].body.a);
  }
  if (zUrl[2]) {
    n = 3;
    bOk = awsGet(p, 1, "GET", zUrl[2], "X-aws-ec2-metadata-token",
                 aHttp[0].body.a, &aHttp[2]) &&
          awsJson(p, aHttp[2].body.a, "$.Token", "IMDS");
  }
  while (n > 0) {
    choirHttpFree(&aHttp[--n]);
  }
  for (i = 0; i < 3; i++) {
    sqlite3_free(zUrl[i]);
  }
  if (p->pErr->rc != SQLITE_NOMEM && p->pErr->rc != SQLITE_INTERRUPT && !bOk) {
    if (p->pErr->rc == SQLITE_AUTH) { /* there is one, or it was not asked */
      p->zImds = p->pErr->zMsg;
      p->pErr->zMsg = NULL;
    }
    choirErrClear(p->pErr);
  }
  return bOk;
}

/* --------------------------------------------------------------- profiles */

/* A value of profile zName: of the credentials file, else of the config. */
static char *awsProfileGet(AwsChain *p, const char *zName, const char *zKey) {
  char *z = choirIniGet(p->pErr, p->zFile[0], zName, zKey);
  char *zSection;
  if (z == NULL) {
    zSection = strcmp(zName, "default") == 0
                   ? choirMprintf(p->pErr, "default")
                   : choirMprintf(p->pErr, "profile %s", zName);
    z = zSection ? choirIniGet(p->pErr, p->zFile[1], zSection, zKey) : NULL;
    sqlite3_free(zSection);
  }
  return z;
}

static int awsProfileHas(AwsChain *p, const char *zName) {
  char *z = choirMprintf(p->pErr, "profile %s", zName);
  int b = choirIniHas(p->zFile[0], zName) ||
          (z && choirIniHas(p->zFile[1], z)) ||
          (strcmp(zName, "default") == 0 && choirIniHas(p->zFile[1], zName));
  sqlite3_free(z);
  return b;
}

static int awsProfile(AwsChain *p, const char *zName);

static int awsEnvironment(AwsChain *p) {
  const char *zAccess = awsEnv("AWS_ACCESS_KEY_ID");
  const char *zSecret = awsEnv("AWS_SECRET_ACCESS_KEY");
  return zAccess && zSecret &&
         awsTake(p, awsCopy(p, zAccess), awsCopy(p, zSecret),
                 awsCopy(p, awsEnv("AWS_SESSION_TOKEN")), NULL, "environment");
}

static int awsSourceIs(AwsChain *p, const char *zSource) {
  return strcmp(zSource, "Environment") == 0           ? awsEnvironment(p)
         : strcmp(zSource, "EcsContainer") == 0        ? awsEcs(p)
         : strcmp(zSource, "Ec2InstanceMetadata") == 0 ? awsImds(p)
                                                       : 0;
}

/* role_arn: the keys of another source, exchanged at STS. */
static int awsRole(AwsChain *p, const char *zName, const char *zRole,
                   const char *zLabel) {
  char *zFrom = awsProfileGet(p, zName, "source_profile");
  char *zSource = awsProfileGet(p, zName, "credential_source");
  char *zWeb = awsProfileGet(p, zName, "web_identity_token_file");
  char *zSession = awsProfileGet(p, zName, "role_session_name");
  char *zExternal = awsProfileGet(p, zName, "external_id");
  char *zSeconds = awsProfileGet(p, zName, "duration_seconds");
  ChoirBuf form;
  int bOk = 0;
  choirBufInit(&form, p->pErr, 1 << 16);
  if (zWeb) {
    bOk = awsWebIdentity(p, zWeb, zRole, zSession, zLabel);
  } else if (zFrom && strcmp(zFrom, zName) == 0) {
    char *zAccess = awsProfileGet(p, zName, "aws_access_key_id");
    char *zSecret = awsProfileGet(p, zName, "aws_secret_access_key");
    bOk = awsTake(p, zAccess, zSecret,
                  awsProfileGet(p, zName, "aws_session_token"), NULL, zLabel);
  } else if (zFrom) {
    bOk = awsProfile(p, zFrom);
  } else if (zSource) {
    bOk = awsSourceIs(p, zSource);
  }
  if (!bOk && zWeb == NULL) {
    choirErrSet(p->pErr, SQLITE_AUTH,
                "%s: role_arn has no keys to start from; give source_profile,"
                " credential_source or web_identity_token_file",
                zLabel);
  }
  if (bOk && zWeb == NULL) {
    choirBufText(&form, "Action=AssumeRole&Version=2011-06-15");
    awsForm(&form, "RoleArn", zRole);
    awsForm(&form, "RoleSessionName", awsSession(zSession));
    awsForm(&form, "ExternalId", zExternal);
    awsForm(&form, "DurationSeconds", zSeconds);
    bOk = awsSts(p, &form, 1, zLabel);
  }
  choirBufFree(&form);
  sqlite3_free(zFrom);
  sqlite3_free(zSource);
  sqlite3_free(zWeb);
  sqlite3_free(zSession);
  sqlite3_free(zExternal);
  sqlite3_free(zSeconds);
  return bOk;
}

static int awsProfile(AwsChain *p, const char *zName) {
  char *zLabel = choirMprintf(p->pErr, "profile %s", zName);
  char *zRole, *zProcess, *zSso;
  int bOk = 0;
  if (zLabel == NULL || ++p->nDepth > AWS_DEPTH) {
    choirErrSet(p->pErr, SQLITE_AUTH, "profile %s: source_profile goes round",
                zName);
    sqlite3_free(zLabel);
    return 0;
  }
  if (!awsProfileHas(p, zName)) {
    choirErrSet(p->pErr, SQLITE_AUTH,
                "no profile '%s' in ~/.aws/credentials or ~/.aws/config",
                zName);
  }
  zRole = awsProfileGet(p, zName, "role_arn");
  zProcess = awsProfileGet(p, zName, "credential_process");
  zSso = awsProfileGet(p, zName, "sso_account_id");
  if (zRole) {
    bOk = awsRole(p, zName, zRole, zLabel);
  } else if (p->pErr->rc == SQLITE_OK) {
    bOk = awsTake(p, awsProfileGet(p, zName, "aws_access_key_id"),
                  awsProfileGet(p, zName, "aws_secret_access_key"),
                  awsProfileGet(p, zName, "aws_session_token"), NULL, zLabel);
    if (!bOk && zProcess && p->pErr->rc == SQLITE_OK) {
      char *zJson = choirHttpProcess(p->pConn, p->pErr, zProcess);
      bOk = zJson && awsJson(p, zJson, "$.SessionToken", zLabel);
      choirWipeFree(zJson);
    } else if (!bOk && zSso) {
      choirErrSet(p->pErr, SQLITE_AUTH,
                  "%s uses IAM Identity Center; set credential_process = aws"
                  " configure export-credentials --format process",
                  zLabel);
    }
  }
  sqlite3_free(zRole);
  sqlite3_free(zProcess);
  sqlite3_free(zSso);
  sqlite3_free(zLabel);
  p->nDepth--;
  return bOk;
}

/* ------------------------------------------------------------------ chain */

static void awsResolve(AwsChain *p, const char *zProfile) {
  const char *zNamed = zProfile ? zProfile : awsEnv("AWS_PROFILE");
  const char *zWeb = awsEnv("AWS_WEB_IDENTITY_TOKEN_FILE");
  const char *zRole = awsEnv("AWS_ROLE_ARN");
  int bOk = 0;
  if (zProfile == NULL) {
    bOk = awsEnvironment(p);
    if (!bOk && zWeb && zRole) {
      bOk = awsWebIdentity(p, zWeb, zRole, awsEnv("AWS_ROLE_SESSION_NAME"),
                           "web identity");
    }
  }
  if (!bOk && p->pErr->rc == SQLITE_OK &&
      (zNamed || awsProfileHas(p, "default"))) {
    bOk = awsProfile(p, zNamed ? zNamed : "default");
  }
  if (!bOk && zProfile == NULL) {
    bOk = awsEcs(p) || awsImds(p);
  }
  if (!bOk) {
    choirErrSet(p->pErr, SQLITE_AUTH,
                "no AWS credentials in environment, web identity, profile,"
                " ECS or IMDS%s%s%s; set AWS_ACCESS_KEY_ID and"
                " AWS_SECRET_ACCESS_KEY, or call choir_secret()",
                p->zImds ? " (" : "", p->zImds ? p->zImds : "",
                p->zImds ? ")" : "");
  }
  sqlite3_free(p->zImds);
}

static AwsEntry *awsEntry(ChoirConn *pConn, ChoirErr *pErr,
                          const ChoirSecret *pSecret) {
  AwsState *pState = choirState(pConn, pErr, &awsState);
  char *zFor =
      pSecret ? choirMprintf(pErr, "secret %s %lld", choirSecretName(pSecret),
                             choirSecretGeneration(pConn, pErr))
              : choirMprintf(pErr, "default");
  AwsEntry *p;
  for (p = pState && zFor ? pState->pFirst : NULL;
       p && strcmp(p->zFor, zFor) != 0; p = p->pNext) {
  }
  if (p == NULL && zFor && pState &&
      (p = choirMalloc(pErr, sizeof(*p))) != NULL) {
    p->zFor = zFor;
    p->pNext = pState->pFirst;
    pState->pFirst = p;
    zFor = NULL;
  }
  sqlite3_free(zFor);
  return p;
}

static const char *awsFirst(const char *a, const char *b, const char *c) {
  return a ? a : b ? b : c;
}

/* The chain's keys, from what is kept while that is fresh. */
static void awsFromChain(ChoirConn *pConn, ChoirErr *pErr,
                         const ChoirSecret *pSecret, int bRefresh,
                         ChoirAws *pOut) {
  AwsEntry *pEntry = awsEntry(pConn, pErr, pSecret);
  const char *zProfile = choirSecretGet(pSecret, "profile");
  i64 iNow = choirNow() / 1000;
  AwsEntry fresh;
  AwsChain chain;
  if (pEntry == NULL) {
    return;
  }
  if (bRefresh || pEntry->zAccess == NULL ||
      (pEntry->iExpires && pEntry->iExpires - iNow < AWS_FRESH_S)) {
    memset(&fresh, 0, sizeof(fresh));
    memset(&chain, 0, sizeof(chain));
    chain.pConn = pConn;
    chain.pErr = pErr;
    chain.pOut = &fresh;
    chain.zSts = choirSecretGet(pSecret, "sts_endpoint");
    chain.zFile[0] =
        awsHomeFile(pErr, "AWS_SHARED_CREDENTIALS_FILE", "credentials");
    chain.zFile[1] = awsHomeFile(pErr, "AWS_CONFIG_FILE", "config");
    sqlite3_free(pEntry->zRegion);
    pEntry->zRegion = awsProfileGet(
        &chain, awsFirst(zProfile, awsEnv("AWS_PROFILE"), "default"), "region");
    chain.zRegion = awsFirst(pOut->zRegion, pEntry->zRegion, "us-east-1");
    awsResolve(&chain, zProfile);
    choirWipeFree(chain.zFile[0]);
    choirWipeFree(chain.zFile[1]);
    if (pErr->rc == SQLITE_OK) {
      awsEntryClear(pEntry);
      pEntry->zAccess = fresh.zAccess;
      pEntry->zSecret = fresh.zSecret;
      pEntry->zToken = fresh.zToken;
      pEntry->zSource = fresh.zSource;
      pEntry->iExpires = fresh.iExpires;
    } else {
      awsEntryClear(&fresh);
      if (!bRefresh && pErr->rc != SQLITE_INTERRUPT && pEntry->zAccess &&
          pEntry->iExpires > iNow + 10) {
        choirErrClear(pErr); /* the old ones hold a little longer */
      }
    }
  }
  pOut->zAccess = pEntry->zAccess;
  pOut->zSecret = pEntry->zSecret;
  pOut->zToken = pEntry->zToken;
  pOut->zSource = pEntry->zSource;
  pOut->iExpires = pEntry->iExpires;
  pOut->zRegion = awsFirst(pOut->zRegion, pEntry->zRegion, "us-east-1");
}

/* The fields of a secret; provider env without fields reads the usual names. */
static void awsFromSecret(ChoirErr *pErr, const ChoirSecret *p,
                          ChoirAws *pOut) {
  int bEnv = strcmp(choirSecretGet(p, "provider"), "env") == 0;
  pOut->zAccess =
      awsFirst(choirSecretGet(p, "access_key"), choirSecretGet(p, "key_id"),
               bEnv ? awsEnv("AWS_ACCESS_KEY_ID") : NULL);
  pOut->zSecret =
      awsFirst(choirSecretGet(p, "secret_key"), choirSecretGet(p, "secret"),
               bEnv ? awsEnv("AWS_SECRET_ACCESS_KEY") : NULL);
  pOut->zToken = awsFirst(choirSecretGet(p, "session_token"),
                          bEnv ? awsEnv("AWS_SESSION_TOKEN") : NULL, NULL);
  pOut->zSource = choirSecretName(p);
  if (pOut->zAccess == NULL || pOut->zSecret == NULL) {
    choirErrSet(pErr, SQLITE_AUTH,
                "secret %s has no access_key and secret_key%s",
                choirSecretName(p),
                bEnv ? "; the environment variables are not set" : "");
  }
}

/* Where requests go makes sense. */
static void awsCheck(ChoirErr *pErr, const ChoirAws *p) {
  if (p->zEndpoint && strstr(p->zEndpoint, "://") == NULL) {
    choirErrSet(
        pErr, SQLITE_ERROR,
        "the endpoint '%.80s' has no scheme; write https:// (or http://)"
        " before it",
        p->zEndpoint);
  }
  if (p->zStyle && strcmp(p->zStyle, "path") != 0 &&
      strcmp(p->zStyle, "vhost") != 0) {
    choirErrSet(pErr, SQLITE_ERROR,
                "url_style must be path or vhost, got"
                " '%.40s'",
                p->zStyle);
  }
}

CHOIR_PRIVATE void choirAws(ChoirConn *pConn, ChoirErr *pErr, const char *zUrl,
                            int bRefresh, ChoirAws *pOut) {
  const ChoirSecret *p = choirSecretFor(pConn, pErr, "s3", zUrl);
  const char *zProvider = p ? choirSecretGet(p, "provider") : "chain";
  memset(pOut, 0, sizeof(*pOut));
  pOut->zRegion = awsFirst(choirSecretGet(p, "region"), awsEnv("AWS_REGION"),
                           awsEnv("AWS_DEFAULT_REGION"));
  pOut->zEndpoint =
      awsFirst(choirSecretGet(p, "endpoint"), awsEnv("AWS_ENDPOINT_URL_S3"),
               awsEnv("AWS_ENDPOINT_URL"));
  pOut->zStyle = choirSecretGet(p, "url_style");
  awsCheck(pErr, pOut);
  if (pErr->rc != SQLITE_OK) {
    return;
  }
  if (strcmp(zProvider, "chain") == 0) {
    awsFromChain(pConn, pErr, p, bRefresh, pOut);
  } else if (strcmp(zProvider, "none") != 0) {
    awsFromSecret(pErr, p, pOut);
  }
  pOut->zRegion = awsFirst(pOut->zRegion, "us-east-1", NULL);
}

/*
** SQL: s3_credentials([url]) -> TABLE(source, access_key, region, endpoint,
**   url_style, expires_at)
**
** Where the credentials for an s3 URL come from: the secret's name,
** environment, web identity, profile x, ECS or IMDS. Of the access key only
** the last four characters are shown, of the secret key nothing; expires_at is
** in milliseconds. No row says that requests go unsigned by a NULL access_key.
**
**   url  TEXT, "s3://" by default
**
** Errors: no credentials; what STS, ECS or a credential_process said.
**
** > SELECT choir_secret('a', '{"type":"s3","provider":"none","region":"eu"}');
** > SELECT source, access_key, region FROM s3_credentials('s3://bucket/key')
** = a|NULL|eu
*/
static void awsCredentials(ChoirCursor *p) {
  const char *zUrl = choirArgTextOrNull(&p->err, p->apArg[0], "url");
  const ChoirSecret *pSecret;
  ChoirAws aws;
  char zShown[16];
  if (p->err.rc != SQLITE_OK) {
    return;
  }
  zUrl = zUrl ? zUrl : "s3://";
  choirAws(p->pConn, &p->err, zUrl, 0, &aws);
  pSecret = choirSecretFor(p->pConn, &p->err, "s3", zUrl);
  if (p->err.rc != SQLITE_OK) {
    return;
  }
  if (aws.zAccess) {
    size_t n = strlen(aws.zAccess);
    sqlite3_snprintf(sizeof(zShown), zShown, "…%s",
                     n > 8 ? aws.zAccess + n - 4 : "");
  }
  choirRowText(p, aws.zSource ? aws.zSource : choirSecretName(pSecret));
  choirRowText(p, aws.zAccess ? zShown : NULL);
  choirRowText(p, aws.zRegion);
  choirRowText(p, aws.zEndpoint);
  choirRowText(p, aws.zStyle);
  if (aws.iExpires) {
    choirRowInt(p, aws.iExpires * 1000);
  } else {
    choirRowText(p, NULL);
  }
}

static const ChoirTvf aAwsTvf[] = {
    {"s3_credentials",
     "source, access_key, region, endpoint, url_style, expires_at, url HIDDEN",
     6, 0, 1, CHOIR_EFFECT, 0, 0, awsCredentials, NULL, NULL, NULL},
};

CHOIR_PRIVATE CHOIR_COLD void choirAwsRegister(ChoirConn *pConn,
                                               ChoirErr *pErr) {
  choirTvfs(pConn, pErr, aAwsTvf);
}
