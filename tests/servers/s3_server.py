# SPDX-License-Identifier: MIT
"""What tests do with any S3 server of this folder: it has endpoint, access,
secret and region."""
import json
import time
import urllib.request


def arm(db, server, **more):
    """Gives db the server's credentials."""
    db.one("SELECT choir_secret('test', ?)", json.dumps(dict(
        {"type": "s3", "access_key": server.access,
         "secret_key": server.secret, "region": server.region,
         "endpoint": server.endpoint}, **more)))


def signed(db, server, method, path, body=b"", **headers):
    """A request that no SQL function makes, signed by s3_sign_v4."""
    url = json.loads(db.one("SELECT s3_sign_v4(?)", json.dumps({
        "method": method, "url": server.endpoint + path, "mode": "query",
        "time": time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()),
        "region": server.region, "access_key": server.access,
        "secret_key": server.secret})))["url"]
    with urllib.request.urlopen(urllib.request.Request(
            url, body or None, method=method, headers=headers)) as reply:
        return reply.read()


