# SPDX-License-Identifier: MIT
"""Qdrant's REST API over its own engine (PyPI qdrant-edge-py), on 127.0.0.1.

  with Qdrant(folder) as q:      q.url, q.seen (method, path, body), q.key
  qdrant_server.py FOLDER        a process of its own: prints its URL

Every request body is first validated by the models of qdrant-client, which are
made from Qdrant's OpenAPI and refuse what they do not know. Filters, scores,
payload indexes, HNSW and storage are the engine's. This file only adds what the
engine leaves to the server: routes, collections, groups, keys, statuses.
"""
import http.server
import json
import pathlib
import shutil
import sys
import threading
import time
import urllib.parse

import qdrant_edge as edge
from pydantic import TypeAdapter, ValidationError
from qdrant_client.http import models

VERSION = "1.19.0"


class Problem(Exception):
    def __init__(self, status, message):
        super().__init__(message)
        self.status = status


# ------------------------------------------------------- JSON to the engine

def match(m):
    kinds = {"value": edge.MatchValue, "any": edge.MatchAny,
             "except": edge.MatchExcept, "text": edge.MatchText,
             "text_any": edge.MatchTextAny, "phrase": edge.MatchPhrase,
             "prefix": edge.MatchPrefix}
    for key, make in kinds.items():
        if key in m:
            return make(m[key])
    raise Problem(400, f"unknown match {m}")


def span(r):
    text = any(isinstance(v, str) for v in r.values())
    r = {k: v for k, v in r.items() if v is not None}
    return (edge.RangeDateTime if text else edge.RangeFloat)(**r)


def point(p):
    return edge.GeoPoint(p["lon"], p["lat"])


def ring(r):
    return [point(p) for p in r["points"]]


NOW = threading.local()  # the shard that a request is about


def boolean(c):
    """The engine's Python binding takes true for 1: found by looking."""
    want, ids = c["match"]["value"], set()
    found, after = NOW.shard.scroll(edge.ScrollRequest(limit=1_000_000))
    for p in found:
        v = (p.payload or {}).get(c["key"])
        if any(x is want for x in (v if isinstance(v, list) else [v])):
            ids.add(p.id)
    return edge.HasIdCondition(ids)


def condition(c):
    if "key" in c and isinstance((c.get("match") or {}).get("value"), bool):
        return boolean(c)
    if "key" in c:
        field = {}
        for name, value in c.items():
            if name == "match":
                field["match"] = match(value)
            elif name == "range":
                field["range"] = span(value)
            elif name == "geo_radius":
                field[name] = edge.GeoRadius(point(value["center"]),
                                             value["radius"])
            elif name == "geo_bounding_box":
                field[name] = edge.GeoBoundingBox(
                    point(value["top_left"]), point(value["bottom_right"]))
            elif name == "geo_polygon":
                field[name] = edge.GeoPolygon(
                    ring(value["exterior"]),
                    [ring(r) for r in value.get("interiors") or []])
            elif name == "values_count":
                field[name] = edge.ValuesCount(**value)
            elif name in ("is_empty", "is_null"):
                field[name] = value
        return edge.FieldCondition(c["key"], **field)
    if "is_empty" in c:
        return edge.IsEmptyCondition(c["is_empty"]["key"])
    if "is_null" in c:
        return edge.IsNullCondition(c["is_null"]["key"])
    if "has_id" in c:
        return edge.HasIdCondition(set(c["has_id"]))
    if "has_vector" in c:
        return edge.HasVectorCondition(c["has_vector"])
    if "nested" in c:
        return edge.NestedCondition(c["nested"]["key"],
                                    filter_of(c["nested"]["filter"]))
    return filter_of(c)


def conditions(v):
    if v is None:
        return None
    return [condition(c) for c in (v if isinstance(v, list) else [v])]


def filter_of(f):
    if f is None:
        return None
    few = f.get("min_should")
    return edge.Filter(
        must=conditions(f.get("must")), should=conditions(f.get("should")),
        must_not=conditions(f.get("must_not")),
        min_should=few and edge.MinShould(conditions(few["conditions"]),
                                          few["min_count"]))


def selector(v, default):
    if v is None:
        return default
    if isinstance(v, dict):
        return (edge.PayloadSelector.Include(v["include"]) if "include" in v
                else edge.PayloadSelector.Exclude(v["exclude"]))
    return v


def params(p):
    if not p:
        return None
    return edge.SearchParams(hnsw_ef=p.get("hnsw_ef"),
                             exact=bool(p.get("exact")),
                             indexed_only=bool(p.get("indexed_only")))


def vector_in(v):
    """Dense as it is; sparse as the engine's; named ones each."""
    if isinstance(v, dict) and "indices" in v:
        return edge.SparseVector(v["indices"], v["values"])
    return {k: vector_in(x) for k, x in v.items()} if isinstance(v, dict) else v


def vector_out(v):
    if isinstance(v, edge.SparseVector):
        return {"indices": list(v.indices), "values": list(v.values)}
    return v if not isinstance(v, dict) else {
        k: vector_out(v[k]) for k in v}


def id_out(i):
    return i if isinstance(i, int) else str(i)


INDEX = {"keyword": edge.KeywordIndexParams, "integer": edge.IntegerIndexParams,
         "float": edge.FloatIndexParams, "bool": edge.BoolIndexParams,
         "geo": edge.GeoIndexParams, "datetime": edge.DatetimeIndexParams,
         "text": edge.TextIndexParams, "uuid": edge.UuidIndexParams}


class Collection:
    def __init__(self, folder, body):
        self.folder, self.body = folder, body
        self.lock = threading.Lock()
        self.schema = {}
        vectors = body.get("vectors") or {}
        if "size" in vectors:
            config = self.vector(vectors)
        else:
            config = {k: self.vector(v) for k, v in vectors.items()}
        hnsw = body.get("hnsw_config") or {}
        folder.mkdir(parents=True)
        self.shard = edge.EdgeShard.create(str(folder), edge.EdgeConfig(
            vectors=config, wal_enabled=False, sparse_vectors={
                k: edge.EdgeSparseVectorParams()
                for k in body.get("sparse_vectors") or {}},
            hnsw_config=edge.HnswIndexConfig(
                m=hnsw.get("m", 16), ef_construct=hnsw.get("ef_construct", 100),
                full_scan_threshold=hnsw.get("full_scan_threshold", 10000),
                payload_m=hnsw.get("payload_m"))))

    @staticmethod
    def vector(v):
        return edge.EdgeVectorParams(v["size"],
                                     getattr(edge.Distance, v["distance"]))

    def info(self):
        i = self.shard.info()
        return {
            "status": "green", "optimizer_status": "ok",
            "segments_count": i.segments_count,
            "points_count": i.points_count,
            "indexed_vectors_count": i.indexed_vectors_count,
            "config": {
                "params": {"vectors": self.body.get("vectors") or {},
                           **({"sparse_vectors": self.body["sparse_vectors"]}
                              if self.body.get("sparse_vectors") else {}),
                           "shard_number": 1, "replication_factor": 1,
                           "write_consistency_factor": 1,
                           "on_disk_payload": True},
                "hnsw_config": {"m": 16, "ef_construct": 100,
                                "full_scan_threshold": 10000,
                                **(self.body.get("hnsw_config") or {})},
                "optimizer_config": {"deleted_threshold": 0.2,
                                     "vacuum_min_vector_number": 1000,
                                     "default_segment_number": 0,
                                     "flush_interval_sec": 5},
                "wal_config": {"wal_capacity_mb": 32,
                               "wal_segments_ahead": 0},
                "metadata": self.body.get("metadata")},
            "payload_schema": {
                k: {"data_type": v["type"], "params": v, "points": 0}
                for k, v in self.schema.items()}}

    # -------------------------------------------------------------- queries

    def query_of(self, b):
        """The engine's query and the vector name."""
        q, using = b.get("query"), b.get("using")
        if q is None:
            return None
        if isinstance(q, (str, int)):  # a point's id: no filter is applied
            return edge.Query.Nearest(self.vector_of(q, using), using=using)
        if isinstance(q, list) or "indices" in q:
            return edge.Query.Nearest(vector_in(q), using=using)
        if "nearest" in q:
            near = q["nearest"]
            if isinstance(near, (str, int)):
                near = self.vector_of(near, using)
            if q.get("mmr") is not None:
                m = q["mmr"]
                return edge.Mmr(near, 1.0 - (m.get("diversity") or 0.5),
                                m.get("candidates_limit") or 100, using=using)
            return edge.Query.Nearest(near, using=using)
        if "recommend" in q:
            r = q["recommend"]

            def all_of(key):
                v = r.get(key) or []
                return [self.vector_of(x, using) if isinstance(x, (str, int))
                        else x for x in v]
            return edge.Query.RecommendBestScore(
                edge.RecommendQuery(all_of("positive"), all_of("negative")),
                using=using)
        if "fusion" in q:
            return edge.Fusion.Rrf(2) if q["fusion"] == "rrf" \
                else edge.Fusion.Dbsf()
        if "rrf" in q:
            return edge.Fusion.Rrf((q["rrf"] or {}).get("k") or 2)
        raise Problem(400, f"query not supported here: {sorted(q)}")

    def vector_of(self, id, using):
        found = self.shard.retrieve([id], with_payload=False, with_vector=True)
        if not found:
            raise Problem(404, f"Not found: No point with id {id} found")
        v = found[0].vector
        return v[using or ""] if isinstance(v, dict) else v

    def prefetch(self, p):
        return edge.Prefetch(
            limit=p.get("limit") or 10, query=self.query_of(p),
            prefetches=self.prefetches(p), params=params(p.get("params")),
            filter=filter_of(p.get("filter")),
            score_threshold=p.get("score_threshold"))

    def prefetches(self, b):
        v = b.get("prefetch")
        if not v:
            return None
        return [self.prefetch(p) for p in (v if isinstance(v, list) else [v])]

    def query(self, b, limit=None):
        if b.get("query") is None and not b.get("prefetch"):
            found, _ = self.shard.scroll(edge.ScrollRequest(
                limit=b.get("limit") or 10, filter=filter_of(b.get("filter")),
                with_payload=selector(b.get("with_payload"), False),
                with_vector=b.get("with_vector") or False))
            return [self.scored(p, 0.0) for p in found]
        found = self.shard.query(edge.QueryRequest(
            limit=limit or b.get("limit") or 10, offset=b.get("offset") or 0,
            query=self.query_of(b), prefetches=self.prefetches(b),
            filter=filter_of(b.get("filter")), params=params(b.get("params")),
            with_payload=selector(b.get("with_payload"), False),
            with_vector=b.get("with_vector") or False,
            score_threshold=b.get("score_threshold")))
        return [self.scored(p, p.score) for p in found]

    @staticmethod
    def scored(p, score):
        out = {"id": id_out(p.id), "version": 0, "score": score}
        if p.payload is not None:
            out["payload"] = p.payload
        if p.vector is not None:
            out["vector"] = vector_out(p.vector)
        return out

    def groups(self, b):
        key, size = b["group_by"], b.get("group_size") or 3
        b = dict(b, with_payload=True)
        groups = {}
        for hit in self.query(b, limit=1000):
            value = (hit.get("payload") or {}).get(key)
            if isinstance(value, (str, int)):
                if value in groups or len(groups) < (b.get("limit") or 10):
                    groups.setdefault(value, []).append(hit)
        return {"groups": [{"id": k, "hits": v[:size]}
                           for k, v in groups.items()]}

    def scroll(self, b):
        order = b.get("order_by")
        if isinstance(order, str):
            order = {"key": order}
        found, after = self.shard.scroll(edge.ScrollRequest(
            offset=b.get("offset"), limit=b.get("limit") or 10,
            filter=filter_of(b.get("filter")),
            with_payload=selector(b.get("with_payload"), True),
            with_vector=b.get("with_vector") or False,
            order_by=order and edge.OrderBy(
                order["key"], direction=None if not order.get("direction")
                else getattr(edge.Direction, order["direction"].title()),
                start_from=order.get("start_from"))))
        points = []
        for p in found:
            out = {"id": id_out(p.id), "payload": p.payload}
            if p.vector is not None:
                out["vector"] = vector_out(p.vector)
            if p.order_value is not None:
                out["order_value"] = p.order_value
            points.append(out)
        return {"points": points,
                "next_page_offset": None if after is None else id_out(after)}


# ------------------------------------------------------------------ routes

POINTS_SELECTOR = TypeAdapter(models.PointsSelector)
INSERT = TypeAdapter(models.PointInsertOperations)
MODELS = {("POST", "points/query"): models.QueryRequest,
          ("POST", "points/query/batch"): models.QueryRequestBatch,
          ("POST", "points/query/groups"): models.QueryGroupsRequest,
          ("POST", "points/scroll"): models.ScrollRequest,
          ("POST", "points/count"): models.CountRequest,
          ("POST", "facet"): models.FacetRequest,
          ("POST", "points"): models.PointRequest,
          ("PUT", "points"): INSERT,
          ("POST", "points/delete"): POINTS_SELECTOR,
          ("POST", "points/payload"): models.SetPayload,
          ("PUT", "index"): models.CreateFieldIndex,
          ("PUT", ""): models.CreateCollection}


def validated(method, tail, body):
    model = MODELS.get((method, tail))
    if model is None:
        return
    try:
        if isinstance(model, TypeAdapter):
            model.validate_python(body)
        else:
            model.model_validate(body)
    except ValidationError as e:
        raise Problem(400, "Format error in JSON body: "
                      + "; ".join(f"{'.'.join(map(str, x['loc']))}: {x['msg']}"
                                  for x in e.errors()[:3]))


class Qdrant:
    def __init__(self, folder, key=None, version=VERSION, validate=True):
        self.folder = pathlib.Path(folder)
        self.key, self.version, self.validate = key, version, validate
        self.collections, self.seen = {}, []
        self.lock = threading.Lock()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = 1 << 16
            disable_nagle_algorithm = True

            def do(self):
                outer.serve(self)
            do_GET = do_PUT = do_POST = do_DELETE = do_PATCH = do

            def log_message(self, *_):
                pass
        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.http.handle_error = lambda *_: None  # who goes, goes
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"

    def __enter__(self):
        threading.Thread(target=self.http.serve_forever, args=(0.01,),
                         daemon=True).start()
        return self

    def __exit__(self, *_):
        self.http.shutdown()
        self.http.server_close()
        for name in list(self.collections):
            self.drop(name)

    def drop(self, name):
        c = self.collections.pop(name, None)
        if c:
            c.shard.close()
            shutil.rmtree(c.folder, ignore_errors=True)
        return c is not None

    def serve(self, h):
        start = time.monotonic()
        body = h.rfile.read(int(h.headers.get("Content-Length") or 0))
        text = None
        try:
            path, _, query = h.path.partition("?")
            if path != "/" and self.key and h.headers.get("api-key") != \
                    self.key and h.headers.get("Authorization") != \
                    "Bearer " + self.key:
                text = (401 if not h.headers.get("api-key") else 403,
                        "Must provide an API key or an Authorization bearer"
                        " token" if not h.headers.get("api-key")
                        else "Invalid API key or JWT")
            else:
                if len(body) > 32 << 20:
                    raise Problem(400, f"Payload error: JSON payload "
                                  f"({len(body)} bytes) is larger than allowed"
                                  f" (limit: {32 << 20} bytes).")
                data = json.loads(body) if body else None
                with self.lock:
                    self.seen.append((h.command, h.path, data))
                result = self.route(h.command, path, query, data)
                status, reply = 200, result if path == "/" else {
                    "result": result, "status": "ok",
                    "time": time.monotonic() - start}
        except Problem as e:
            status, reply = e.status, {"status": {"error": str(e)}, "time": 0}
        except ValueError as e:
            status, reply = 400, {"status": {"error": f"Bad request: {e}"},
                                  "time": 0}
        except Exception as e:
            status, reply = 400, {"status": {"error": f"Wrong input: {e}"},
                                  "time": 0}
        if text:
            status, data = text[0], text[1].encode()
        else:
            data = json.dumps(reply, separators=(",", ":"),
                              ensure_ascii=False).encode()
        h.send_response(status)
        h.send_header("Content-Type",
                      "text/plain" if text else "application/json")
        h.send_header("Content-Length", str(len(data)))
        h.end_headers()
        h.wfile.write(data)
        h.wfile.flush()

    def route(self, method, path, query, body):
        parts = [urllib.parse.unquote(p) for p in path.split("/")[1:]]
        if path == "/":
            return {"title": "qdrant - vector search engine",
                    "version": self.version, "commit": "test"}
        if parts[0] != "collections":
            raise Problem(404, "")
        if len(parts) == 1:
            return {"collections": [{"name": n} for n in self.collections]}
        name, tail = parts[1], "/".join(parts[2:])
        if self.validate and method in ("POST", "PUT"):
            validated(method, tail, body or {})
        if tail == "exists":
            return {"exists": name in self.collections}
        if method == "PUT" and tail == "":
            if name in self.collections:
                raise Problem(409, f"Wrong input: Collection `{name}` already"
                              " exists!")
            self.collections[name] = Collection(
                self.folder / f"{name}-{time.monotonic_ns()}", body or {})
            return True
        if method == "DELETE" and tail == "":
            return self.drop(name)
        c = self.collections.get(name)
        if c is None:
            raise Problem(404, f"Not found: Collection `{name}` doesn't exist!")
        with c.lock:
            NOW.shard = c.shard
            return self.on(c, method, tail, body or {})

    def on(self, c, method, tail, b):
        done = {"operation_id": 0, "status": "completed"}
        if (method, tail) == ("GET", ""):
            return c.info()
        if (method, tail) == ("PUT", "index"):
            schema = b["field_schema"]
            if isinstance(schema, str):
                schema = {"type": schema}
            rest = {k: v for k, v in schema.items() if k != "type"}
            if "tokenizer" in rest:
                rest["tokenizer"] = getattr(edge.TokenizerType,
                                            rest["tokenizer"].title())
            c.shard.update(edge.UpdateOperation.create_field_index(
                b["field_name"], INDEX[schema["type"]](**rest)))
            c.schema[b["field_name"]] = schema
            return done
        if (method, tail) == ("PUT", "points"):
            if "batch" in b:
                t = b["batch"]
                points = [{"id": i, "vector": v, "payload": p} for i, v, p in
                          zip(t["ids"], t["vectors"], t["payloads"])]
            else:
                points = b["points"]
            c.shard.update(edge.UpdateOperation.upsert_points(
                [edge.Point(p["id"], vector_in(p["vector"]), p.get("payload"))
                 for p in points], condition=filter_of(b.get("update_filter"))))
            return done
        if (method, tail) == ("POST", "points/delete"):
            c.shard.update(
                edge.UpdateOperation.delete_points_by_filter(
                    filter_of(b["filter"])) if "filter" in b
                else edge.UpdateOperation.delete_points(b["points"]))
            return done
        if (method, tail) == ("POST", "points/payload"):
            c.shard.update(edge.UpdateOperation.set_payload_by_filter(
                filter_of(b["filter"]), b["payload"]) if b.get("filter")
                else edge.UpdateOperation.set_payload(b["points"],
                                                      b["payload"]))
            return done
        if (method, tail) == ("POST", "points"):
            return [Collection.scored(p, 0.0) for p in c.shard.retrieve(
                b["ids"], with_payload=selector(b.get("with_payload"), True),
                with_vector=b.get("with_vector") or False)]
        if (method, tail) == ("POST", "points/query"):
            return {"points": c.query(b)}
        if (method, tail) == ("POST", "points/query/batch"):
            return [{"points": c.query(one)} for one in b["searches"]]
        if (method, tail) == ("POST", "points/query/groups"):
            return c.groups(b)
        if (method, tail) == ("POST", "points/scroll"):
            return c.scroll(b)
        if (method, tail) == ("POST", "points/count"):
            return {"count": c.shard.count(edge.CountRequest(
                exact=b.get("exact", True), filter=filter_of(b.get("filter"))))}
        if (method, tail) == ("POST", "facet"):
            found = c.shard.facet(edge.FacetRequest(
                b["key"], limit=b.get("limit") or 10,
                exact=b.get("exact") or False,
                filter=filter_of(b.get("filter"))))
            return {"hits": [{"value": x.value, "count": x.count}
                             for x in found.hits]}
        raise Problem(404, "")


if __name__ == "__main__":
    with Qdrant(sys.argv[1], validate="--raw" not in sys.argv) as q:
        print(q.url, flush=True)
        sys.stdin.read()
