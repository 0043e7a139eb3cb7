# SPDX-License-Identifier: MIT
"""Embedding services on 127.0.0.1: the dialects of OpenAI, Ollama and Hugging
Face's text-embeddings-inference, over one model.

  with EmbedServer(model) as s:      model(list of texts) -> list of vectors
      s.openai, s.ollama, s.tei      base URLs, as their clients want them
      s.requests                     what came: Seen(path, texts, body, headers)
      s.fail(429, {"Retry-After": "1"})   the next request gets that
      s.max_texts, s.max_bytes       above: 413

The test suite has the official openai and ollama clients speak to it too.
"""
import base64
import collections
import http.server
import json
import struct
import threading

Seen = collections.namedtuple("Seen", "path texts body headers")
TEXTS = {"/v1/embeddings": "input", "/api/embed": "input", "/embed": "inputs"}


def complain(path, status, message):
    if path == "/v1/embeddings":
        return {"error": {"message": message, "type": "invalid_request_error",
                          "param": None, "code": None}}
    if path == "/embed":
        return {"error": message, "error_type": "Validation"}
    return {"error": message}


class EmbedServer:
    def __init__(self, model, name="test-model", key=None, max_texts=2048,
                 max_bytes=2 << 20, max_text=None):
        self.model, self.name, self.key = model, name, key
        self.max_texts, self.max_bytes = max_texts, max_bytes
        self.max_text = max_text  # characters of one text
        self.requests, self.failures, self.rewrite = [], [], None

    def fail(self, status, headers=None, body=None):
        self.failures.append((status, headers or {}, body))

    def __enter__(self):
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args):
                pass

            def reply(self, status, body, headers=None):
                raw = body if isinstance(body, bytes) else \
                    json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(raw)))
                for k, v in (headers or {}).items():
                    self.send_header(k, v)
                self.end_headers()
                self.wfile.write(raw)

            def do_POST(self):
                raw = self.rfile.read(int(self.headers["Content-Length"]))
                try:
                    self.reply(*outer.answer(self.path, raw, self.headers))
                except Exception as e:  # the client sees it
                    self.reply(500, complain(self.path, 500, repr(e)))

        self.httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.httpd.daemon_threads = True
        self.httpd.handle_error = lambda *_: None  # who goes, goes
        port = self.httpd.server_address[1]
        self.ollama = self.tei = f"http://127.0.0.1:{port}"
        self.openai = self.ollama + "/v1"
        self.thread = threading.Thread(target=self.httpd.serve_forever,
                                       args=(0.05,))
        self.thread.start()
        return self

    def __exit__(self, *args):
        self.httpd.shutdown()
        self.thread.join()
        self.httpd.server_close()

    def answer(self, path, raw, headers):
        if path not in TEXTS:
            return 404, complain(path, 404, f"no {path}")
        body = json.loads(raw)
        texts = body[TEXTS[path]]
        texts = [texts] if isinstance(texts, str) else texts
        self.requests.append(Seen(path, texts, body, dict(headers)))
        if self.failures:
            status, extra, text = self.failures.pop(0)
            return status, text if text is not None else complain(
                path, status, f"told to fail with {status}"), extra
        if self.key and headers.get("Authorization") != f"Bearer {self.key}":
            return 401, complain(path, 401, "Incorrect API key provided: "
                                 + headers.get("Authorization", "none"))
        if len(texts) > self.max_texts or len(raw) > self.max_bytes:
            return 413, complain(path, 413, "batch too large")
        if path != "/embed" and body["model"] != self.name:
            return 404, complain(
                path, 404, f"model '{body['model']}' not found")
        if self.max_text and max(map(len, texts)) > self.max_text:
            if not body.get("truncate"):
                return (413 if path == "/embed" else 400), complain(
                    path, 400, "the input length exceeds the context length")
            texts = [t[:self.max_text] for t in texts]
        if path == "/v1/embeddings" and "" in texts:
            return 400, complain(path, 400, "'$.input' is invalid")
        vectors = [[float(x) for x in v] for v in self.model(texts)]
        vectors = [v[:body.get("dimensions", len(v))] for v in vectors]
        reply = self.shape(path, body, vectors)
        return 200, self.rewrite(reply) if self.rewrite else reply

    def shape(self, path, body, vectors):
        if path == "/embed":
            return vectors
        if path == "/api/embed":
            return {"model": body["model"], "embeddings": vectors,
                    "total_duration": 1, "load_duration": 1,
                    "prompt_eval_count": 1}
        if body.get("encoding_format") == "base64":
            vectors = [base64.b64encode(struct.pack(f"<{len(v)}f", *v)).decode()
                       for v in vectors]
        data = [{"object": "embedding", "index": i, "embedding": v}
                for i, v in enumerate(vectors)]
        data.reverse()  # the index counts, not the order
        return {"object": "list", "data": data, "model": body["model"],
                "usage": {"prompt_tokens": 1, "total_tokens": 1}}
