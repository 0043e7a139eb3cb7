# SPDX-License-Identifier: MIT
"""A small service that plays the seeds' getUploadUrl and getDownloadUrl: it has
the keys to a store and gives out presigned URLs, one for each method and key.

  with PresignServer(endpoint, access, secret, region, token="t") as s:
      s.url, s.asked    the endpoint, what was asked of it
"""
import datetime
import hashlib
import hmac
import http.server
import json
import threading
import urllib.parse


def presign(endpoint, access, secret, region, method, path, seconds=60):
    """AWS Signature Version 4 in the query, for s3."""
    now = datetime.datetime.now(datetime.timezone.utc)
    day, stamp = now.strftime("%Y%m%d"), now.strftime("%Y%m%dT%H%M%SZ")
    scope = f"{day}/{region}/s3/aws4_request"
    path = urllib.parse.quote(path, safe="/~")
    query = urllib.parse.urlencode(sorted({
        "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
        "X-Amz-Credential": f"{access}/{scope}", "X-Amz-Date": stamp,
        "X-Amz-Expires": str(seconds), "X-Amz-SignedHeaders": "host"}.items()),
        quote_via=urllib.parse.quote)
    host = urllib.parse.urlsplit(endpoint).netloc
    text = "\n".join([method, path, query, f"host:{host}", "", "host",
                      "UNSIGNED-PAYLOAD"])
    text = "\n".join(["AWS4-HMAC-SHA256", stamp, scope,
                      hashlib.sha256(text.encode()).hexdigest()])
    key = ("AWS4" + secret).encode()
    for part in (day, region, "s3", "aws4_request", text):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return f"{endpoint}{path}?{query}&X-Amz-Signature={key.hex()}"


class PresignServer:
    def __init__(self, endpoint, access, secret, region, token=None,
                 shape="seeds"):
        self.asked, self.reply = [], None
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                ask = json.loads(body)
                outer.asked.append(ask)
                status, reply = 200, {}
                if token and self.headers["Authorization"] != f"Bearer {token}":
                    status = 401
                elif ask["method"] not in ("GET", "PUT"):
                    status = 400
                else:
                    url = presign(endpoint, access, secret, region,
                                  ask["method"],
                                  f"/{ask['bucket']}/{ask['key']}")
                    name = "url" if shape != "seeds" else {
                        "PUT": "uploadUrl", "GET": "downloadUrl"}[ask["method"]]
                    reply = {name: url}
                data = json.dumps(reply).encode()
                if outer.reply is not None:
                    status, data = outer.reply
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/presign"
        threading.Thread(target=self.server.serve_forever, args=(0.01,),
                         daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *args):
        self.server.shutdown()
        self.server.server_close()
