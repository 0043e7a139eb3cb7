/* SPDX-License-Identifier: MIT */
/*
** nats.c on the other side of a stream.
**
**   oracle publish URL SUBJECT N SIZE   N messages by its asynchronous
**                                       publisher, ids "o-0", "o-1", …; prints
**                                       the seconds until all are acknowledged
**   oracle read URL SUBJECT DURABLE N   reads N by a pull consumer, prints
**                                       subject, id and payload, acknowledges
*/
#include <nats/nats.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static void check(natsStatus s, const char *zWhat) {
  if (s != NATS_OK) {
    fprintf(stderr, "%s: %s\n", zWhat, natsStatus_GetText(s));
    exit(1);
  }
}

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void publish(jsCtx *js, const char *zSubject, int n, int nSize) {
  char *zBody = malloc((size_t)nSize + 1), zId[32];
  jsPubOptions options;
  double start = now();
  int i;
  memset(zBody, 'x', (size_t)nSize);
  zBody[nSize] = 0;
  for (i = 0; i < n; i++) {
    jsPubOptions_Init(&options);
    snprintf(zId, sizeof(zId), "o-%d", i);
    options.MsgId = zId;
    check(js_PublishAsync(js, zSubject, zBody, nSize, &options), "publish");
  }
  jsPubOptions_Init(&options);
  options.MaxWait = 60000;
  check(js_PublishAsyncComplete(js, &options), "complete");
  printf("%.6f\n", now() - start);
  free(zBody);
}

static void read_(jsCtx *js, const char *zSubject, const char *zDurable,
                  int n) {
  natsSubscription *sub = NULL;
  check(js_PullSubscribe(&sub, js, zSubject, zDurable, NULL, NULL, NULL),
        "subscribe");
  while (n > 0) {
    natsMsgList list;
    int i;
    check(natsSubscription_Fetch(&list, sub, n < 100 ? n : 100, 5000, NULL),
          "fetch");
    for (i = 0; i < list.Count; i++) {
      const char *zId = "";
      natsMsgHeader_Get(list.Msgs[i], "Nats-Msg-Id", &zId);
      printf("%s\t%s\t%.*s\n", natsMsg_GetSubject(list.Msgs[i]), zId,
             natsMsg_GetDataLength(list.Msgs[i]), natsMsg_GetData(list.Msgs[i]));
      check(natsMsg_AckSync(list.Msgs[i], NULL, NULL), "ack");
      n--;
    }
    natsMsgList_Destroy(&list);
  }
  natsSubscription_Destroy(sub);
}

int main(int argc, char **argv) {
  natsConnection *nc = NULL;
  jsCtx *js = NULL;
  if (argc != 6) {
    return 2;
  }
  check(natsConnection_ConnectTo(&nc, argv[2]), "connect");
  check(natsConnection_JetStream(&js, nc, NULL), "jetstream");
  if (strcmp(argv[1], "publish") == 0) {
    publish(js, argv[3], atoi(argv[4]), atoi(argv[5]));
  } else {
    read_(js, argv[3], argv[4], atoi(argv[5]));
  }
  jsCtx_Destroy(js);
  natsConnection_Destroy(nc);
  nats_CloseAndWait(0);
  return 0;
}
