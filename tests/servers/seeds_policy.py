# SPDX-License-Identifier: MIT
"""The bucket policy that the project grew from: a user may get and put objects
below users/{user}/, and nothing else. No listing, no deletion, and 403 for a key
that is missing, as S3 answers those who may not list.

  with FaultProxy(gateway.port) as p:
      p.plan = seeds_policy.plan(gateway, "u1")
"""
import urllib.parse

import fault_proxy

# What s3:GetObject and s3:PutObject cover of the queries that there are.
PUT_QUERIES = {"partNumber", "uploadId", "uploads"}
DENIED = (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n"
          b"Content-Type: application/xml\r\n\r\n")


def plan(gateway, user, root=""):
    """A plan for a FaultProxy in front of this versitygw, whose bucket has the
    users below root ("" or "folder/")."""
    def may(method, target):
        path, _, query = target.partition("?")
        key = urllib.parse.unquote(path)
        names = {n for n in urllib.parse.parse_qs(query, True)
                 if not n.lower().startswith("x-amz-") and n != "x-id"}
        if not key.startswith(f"/bucket/{root}users/{user}/"):
            return False
        if method in ("GET", "HEAD"):
            return not names and (gateway.folder / "data" / key[1:]).is_file()
        return method in ("PUT", "POST") and names <= PUT_QUERIES

    def answer(n, method, target):
        if may(method, target):
            return None
        return fault_proxy.said(DENIED) if method == "HEAD" else \
            fault_proxy.error("AccessDenied", 403, "Access Denied")
    return answer
