# SPDX-License-Identifier: MIT
"""An encrypted folder remote: the store sees neither content nor key, and who
holds the store can change, swap, cut or roll back nothing unnoticed."""
import base64
import json
import os
import pathlib
import random
import shutil
import time

import pytest

import crypt_reader

KEY, OTHER = bytes(range(32)), bytes(range(1, 33))
FULL = os.environ.get("CHOIR_SYNC_FULL") == "1"


@pytest.fixture
def url(tmp_path):
    (tmp_path / "remote").mkdir()
    return f"file://{tmp_path}/remote/"


def secret(d, scope="file:///", **fields):
    fields = fields or {"key": KEY.hex()}
    d.one("SELECT choir_secret('box', ?)",
          json.dumps({"type": "sync", "scope": scope, **fields}))
    return d


@pytest.fixture
def keyed(open_db):
    """Opens a database whose connection has the key."""
    return lambda *a, key=KEY, **kw: secret(open_db(*a, **kw), key=key.hex())


@pytest.fixture
def box(db):
    return secret(db)


def call(d, sql, *args):
    return json.loads(d.one("SELECT " + sql, *args))


def put(d, path, content="x"):
    d.rows("INSERT INTO artifacts(path, name, content) VALUES(?, ?, ?)",
           path, path.rsplit("/")[-1], content)


def paths(d):
    return [r[0] for r in d.rows("SELECT path FROM artifacts ORDER BY path")]


def files(url):
    root = pathlib.Path(url[7:])
    return sorted(p for p in root.rglob("*") if p.is_file()
                  and not p.name.startswith(".choir"))


def push_file(url, n):
    return pathlib.Path(url[7:]) / f"ltx/0/{n:016x}-{n:016x}.ltx"


def history(d, url, n):
    for i in range(n):
        put(d, f"/{i}", f"content {i} ".encode() * 200)
        call(d, "sync_push(?)", url)


def test_devices_with_the_key_exchange_versions_and_the_store_sees_none(
        tmp_path, box, keyed, url):
    marker = "the plain truth"
    put(box, f"/{marker}", os.urandom(60000) + marker.encode() * 50)
    first = call(box, "sync_push(?)", url)
    assert first["pushed"] == 1 and first["encrypted"] == 1
    put(box, "/b", marker)
    assert call(box, "sync_push(?)", url)["bytes"] < 12000
    assert call(box, "sync_push(?)", url)["pushed"] == 0
    other = keyed(tmp_path / "other.db")
    assert call(other, "sync_pull(?)", url)["pulled"] == 1
    assert paths(other) == ["/b", f"/{marker}"]
    put(other, "/c")
    call(other, "sync_push(?)", url)
    assert call(box, "sync_pull(?)", url)["pulled"] == 1
    assert paths(box) == ["/b", "/c", f"/{marker}"]
    assert call(box, "sync_verify(?, 1)", url)["objects"] == 3
    for p in files(url):
        data = p.read_bytes()
        for clear in (marker.encode(), b"LTX1", b"artifacts", KEY,
                      KEY.hex().encode(), b"sync.lineage"):
            assert clear not in data, p


def test_another_program_decrypts_it_by_the_documentation(box, url):
    box.one("SELECT choir_config('user', 'alice')")
    history(box, url, 3)
    call(box, "sync_compact(?, 'snapshot')", url)
    link = bytes(32)
    lineage = box.one("SELECT value FROM _choir_meta WHERE key='sync.lineage'")
    for n in (1, 2, 3):
        data = push_file(url, n).read_bytes()
        head, content = crypt_reader.decrypt(data, KEY, "alice")
        assert content[:4] == b"LTX1"
        assert (head.level, head.first, head.last) == (0, n, n)
        assert head.lineage.hex() == lineage
        assert head.before == link and head.after == bytes(32)
        link = crypt_reader.link(data)
        assert len(content) == box.one(
            "SELECT bytes FROM sync_log(?) WHERE txid=? AND level=0",
            url, n) if n < 3 else True
    [snapshot] = [p for p in files(url) if "/9/" in str(p)]
    head, content = crypt_reader.decrypt(snapshot.read_bytes(), KEY, "alice")
    assert (head.level, head.first, head.last) == (9, 1, 3)
    assert head.before == bytes(32) and head.after == link
    salts = [crypt_reader.Head(p.read_bytes()).salt for p in files(url)]
    assert len(set(salts)) == len(salts)


@pytest.mark.parametrize("size", [0, 1, 16376, 16377, 40000, 200000])
def test_contents_of_every_size_come_back(tmp_path, box, keyed, url, size):
    put(box, "/a", random.Random(size).randbytes(size))
    call(box, "sync_push(?)", url)
    crypt_reader.decrypt(push_file(url, 1).read_bytes(), KEY)
    other = keyed(tmp_path / "other.db")
    call(other, "sync_pull(?)", url)
    assert other.one("SELECT content FROM artifacts") == random.Random(
        size).randbytes(size)


def test_every_version_restores_and_upkeep_works(tmp_path, box, keyed, url):
    history(box, url, 4)
    assert call(box, "sync_compact(?, 'snapshot')", url)["compacted"] == 1
    for p in files(url):  # in another window, and two days old
        t = time.time() - 2 * 86400
        os.utime(p, (t, t))
    put(box, "/later")
    call(box, "sync_push(?)", url)
    assert call(box, "sync_compact(?, 'snapshot')", url)["compacted"] == 2
    assert [r[0] for r in box.rows(
        "SELECT txid FROM sync_log(?) WHERE pages > 0", url)] == [5, 4, 3, 2, 1]
    for n in range(1, 5):
        call(box, "sync_restore(?, ?, ?)", n, str(tmp_path / f"{n}.db"), url)
        assert len(paths(keyed(tmp_path / f"{n}.db"))) == n
    assert call(box, "sync_prune(2, ?)", url)["pruned"] > 0
    assert call(box, "sync_verify(?, 1)", url)["same"] == 1
    call(keyed(tmp_path / "new.db"), "sync_pull(?)", url)
    put(box, "/last")
    assert call(box, "sync_push(?)", url)["txid"] == 6
    for p in files(url):
        crypt_reader.decrypt(p.read_bytes(), KEY)


@pytest.mark.once
def test_a_passphrase_is_stretched_and_its_salt_is_the_remotes(
        tmp_path, db, open_db, url):
    words = "correct horse battery staple"
    secret(db, passphrase=words)
    history(db, url, 2)
    data = push_file(url, 2).read_bytes()
    assert data[40:56] == push_file(url, 1).read_bytes()[40:56] != bytes(16)
    _, content = crypt_reader.decrypt(
        data, crypt_reader.master(data, passphrase=words))
    assert content[:4] == b"LTX1"
    other = secret(open_db(tmp_path / "other.db"), passphrase=words)
    assert call(other, "sync_pull(?)", url)["pulled"] == 1
    wrong = secret(open_db(tmp_path / "wrong.db"), passphrase=words + "!")
    message = wrong.error("SELECT sync_pull(?)", url)
    assert "is encrypted with the key " in message
    assert "add that key to the secret" in message and words not in message


@pytest.mark.parametrize("how", [
    "hex", "HEX", "base64", "base64url",
    pytest.param("env", marks=pytest.mark.inprocess)])  # a shell has its own
def test_a_key_is_given_as_hexadecimal_base64_or_by_the_environment(
        tmp_path, box, open_db, url, how, monkeypatch):
    history(box, url, 1)
    d = open_db(tmp_path / "d.db")
    monkeypatch.setenv("TEST_SYNC_KEY", KEY.hex())
    secret(d, **{"hex": {"key": KEY.hex()}, "HEX": {"key": KEY.hex().upper()},
                 "base64": {"key": base64.b64encode(KEY).decode()},
                 "base64url": {"key": base64.urlsafe_b64encode(
                     KEY).decode().rstrip("=")},
                 "env": {"key": "TEST_SYNC_KEY", "provider": "env"}}[how])
    assert call(d, "sync_pull(?)", url)["pulled"] == 1


@pytest.mark.parametrize("fields,message", [
    ({"key": "secretsecret"}, "must be 32 bytes, as 64 hexadecimal digits or in"
     " base64, got 12 characters"),
    ({"key": "z" * 64}, "got 64 characters"),
    ({"key": ""}, "got 0 characters"),
    ({"passphrase": "hunter2"}, "has 7 bytes; use 8 or more"),
    ({"token": "secretsecret"}, "has neither key nor passphrase"),
    ({"key": "NO_SUCH_VARIABLE", "provider": "env"}, "is not set"),
    ({"key": [bytes([i] * 32).hex() for i in range(17)]},
     "has more than 16 keys")])
def test_a_secret_that_makes_no_sense_is_named_and_not_shown(
        db, url, fields, message):
    secret(db, **fields)
    text = db.error("SELECT sync_push(?)", url)
    assert message in text and "'box'" in text
    for word in ("secretsecret", "hunter2", "zzzz"):
        assert word not in text
    assert files(url) == []


def test_a_wrong_key_is_named_by_its_id_and_nothing_is_changed(
        tmp_path, box, keyed, url):
    history(box, url, 1)
    other = keyed(tmp_path / "other.db", key=OTHER)
    ids = [crypt_reader.mac(k, b"choir sync key")[:8].hex()
           for k in (KEY, OTHER)]
    before = [p.read_bytes() for p in files(url)]
    for sql in "sync_pull(?)", "sync_push(?)", "sync_verify(?)":
        if "push" in sql:
            other.one("SELECT choir_init()")
        message = other.error("SELECT " + sql, url)
        assert f"is encrypted with the key {ids[0]}" in message, message
        assert f"the secret 'box' has {ids[1]}; add that key" in message
        assert OTHER.hex() not in message
    assert [p.read_bytes() for p in files(url)] == before
    assert other.one("SELECT detail FROM sync_status(?)", url).startswith(
        f"the remote {url}: ltx/0/")


def test_keys_are_changed_by_putting_a_new_one_in_front(
        tmp_path, box, keyed, open_db, url):
    history(box, url, 2)
    secret(box, key=[OTHER.hex(), KEY.hex()])
    put(box, "/new")
    call(box, "sync_push(?)", url)
    crypt_reader.decrypt(push_file(url, 2).read_bytes(), KEY)
    crypt_reader.decrypt(push_file(url, 3).read_bytes(), OTHER)
    d = keyed(tmp_path / "d.db", key=OTHER)
    assert "add that key" in d.error("SELECT sync_pull(?)", url)
    call(box, "sync_compact(?, 'snapshot')", url)
    assert call(d, "sync_pull(?)", url)["pulled"] == 1
    assert call(box, "sync_verify(?, 1)", url)["same"] == 1


def test_plain_and_encrypted_do_not_mix(tmp_path, db, open_db, url):
    history(db, url, 2)  # plain
    d = secret(open_db(tmp_path / "d.db"))
    before = [p.read_bytes() for p in files(url)]
    for sql in "sync_pull(?)", "sync_verify(?)":
        message = d.error("SELECT " + sql, url)
        assert f"the remote {url} is not encrypted and a secret of type sync" \
            " covers it; push to an empty folder" in message, message
    secret(db)
    put(db, "/more")
    assert "is not encrypted and a secret" in db.error(
        "SELECT sync_push(?)", url)
    assert [p.read_bytes() for p in files(url)] == before
    # Encryption begins in an empty folder, under the same lineage.
    (tmp_path / "new").mkdir()
    new = f"file://{tmp_path}/new/"
    assert call(db, "sync_push(?)", new)["txid"] == 1
    plain = open_db(tmp_path / "plain.db")
    remedy = (f"the remote {new} is encrypted; give its key by choir_secret"
              " with type sync and this scope")
    for sql in ("sync_pull(?)", "sync_verify(?)"):
        assert remedy in plain.error("SELECT " + sql, new)
    assert remedy in plain.error("SELECT sync_restore(1, ?, ?)",
                                 str(tmp_path / "r.db"), new)
    db.one("SELECT choir_secret('box', NULL)")
    assert remedy in db.error("SELECT sync_push(?)", new)
    assert call(secret(d), "sync_pull(?)", new)["pulled"] == 1


def test_a_plain_file_is_not_pushed_where_a_secret_asks_for_encryption(
        tmp_path, box, url):
    message = box.error("SELECT sync_push(?)", url + "ws.sqlite")
    assert "only a folder can be encrypted; use one, ending in '/'" in message
    assert files(url) == []
    secret(box, scope=url)  # another remote is not covered
    (tmp_path / "plain").mkdir()
    call(box, "sync_push(?)", f"file://{tmp_path}/plain/ws.sqlite")


def test_large_artifacts_stay_inside_and_are_encrypted(
        tmp_path, box, keyed, url):
    (tmp_path / "large").mkdir()
    box.one("SELECT choir_config('user', 'alice')")
    box.one("SELECT choir_config('remote.artifacts', ?)",
            f"file://{tmp_path}/large/")
    marker = b"large and secret "
    put(box, "/large", marker * 100000)
    call(box, "sync_push(?)", url)
    assert list((tmp_path / "large").rglob("*")) == []
    assert marker not in push_file(url, 1).read_bytes()
    d = keyed(tmp_path / "d.db")
    d.one("SELECT choir_config('user', 'alice')")
    call(d, "sync_pull(?)", url)
    assert d.one("SELECT length(content) FROM artifacts") == 1700000


# ----------------------------------------------------- who holds the store

@pytest.mark.once
def test_every_single_flipped_byte_is_detected(tmp_path, box, keyed, url):
    history(box, url, 2)
    call(box, "sync_compact(?, 'snapshot')", url)
    rng = random.Random(1)
    device = keyed(tmp_path / "device.db")
    seen = set()
    for path in files(url):
        good = path.read_bytes()
        places = range(len(good)) if FULL else sorted({
            *range(0, 320, 5), *range(120, 140), *range(len(good) - 8,
                                                        len(good)),
            *rng.sample(range(len(good)), 20)})
        with open(path, "r+b", buffering=0) as f:
            for i in places:
                f.seek(i)
                f.write(bytes([good[i] ^ (1 << rng.randrange(8))]))
                message = device.error("SELECT sync_verify(?, 1)", url)
                assert "is damaged: ltx/" in message or (
                    "encrypted with the key" in message) or (
                    "does not know; load a newer" in message), (i, message)
                seen.add(message.split("ltx/")[1][38:60])
                f.seek(i)
                f.write(good[i:i + 1])
    assert len(seen) > 3
    assert call(device, "sync_pull(?)", url)["pulled"] == 1


def test_a_cut_object_is_detected_at_every_boundary(tmp_path, box, keyed, url):
    put(box, "/a", os.urandom(40000))
    call(box, "sync_push(?)", url)
    path = push_file(url, 1)
    good = path.read_bytes()
    ends = {0, 1, 191, 192, 193, 208, 307, 308, 309, 308 + 16400,
            308 + 16401, 308 + 2 * 16400, len(good) - 17, len(good) - 16,
            len(good) - 1, len(good) + 1, len(good) + 20000}
    device = keyed(tmp_path / "device.db")
    for n in sorted(ends):
        path.write_bytes((good + os.urandom(20000))[:n])
        for sql in "sync_pull(?)", "sync_verify(?)":
            assert "is damaged: " in device.error("SELECT " + sql, url), n
    # Chunks of one object in another order, or one of them twice.
    a, b = good[308:308 + 16400], good[308 + 16400:308 + 2 * 16400]
    for swapped in (b + a, a + a, b + b):
        path.write_bytes(good[:308] + swapped + good[308 + 2 * 16400:])
        assert "chunk 1 is not" in device.error(
            "SELECT sync_pull(?)", url) or swapped == a + a
    path.write_bytes(good)
    assert call(device, "sync_pull(?)", url)["pulled"] == 1


def test_an_object_under_another_name_is_named(tmp_path, box, keyed, url):
    history(box, url, 3)
    two, three = push_file(url, 2), push_file(url, 3)
    a, b = two.read_bytes(), three.read_bytes()
    two.write_bytes(b)
    three.write_bytes(a)
    device = keyed(tmp_path / "device.db")
    message = device.error("SELECT sync_pull(?)", url)
    assert "it was stored under another name, as transactions 2 to 2 of" \
        " level 0" in message
    two.write_bytes(a)
    three.unlink()
    shutil.copy(two, push_file(url, 3))
    assert "stored under another name" in box.error(
        "SELECT sync_push(?)", url)


def test_the_object_of_another_workspace_or_user_is_named(
        tmp_path, box, keyed, url):
    history(box, url, 2)
    (tmp_path / "second").mkdir()
    second = f"file://{tmp_path}/second/"
    d = keyed(tmp_path / "d.db", init=True)
    history(d, second, 2)
    good = push_file(url, 2).read_bytes()
    push_file(url, 2).write_bytes(push_file(second, 2).read_bytes())
    device = keyed(tmp_path / "device.db")
    assert "belongs to another workspace" in device.error(
        "SELECT sync_verify(?, 1)", url)
    assert "the remote " in device.error("SELECT sync_pull(?)", url)
    assert device.rows("SELECT * FROM sqlite_schema") == []
    push_file(url, 2).write_bytes(good)
    device.one("SELECT choir_config('user', 'bob')")
    assert device.error("SELECT sync_pull(?)", url) == (
        f"sync_pull: the remote {url} was stored under another"
        " choir_config('user') than 'bob'; every device needs the same")


def test_a_roll_back_is_seen_by_who_knew_a_newer_version(
        tmp_path, box, keyed, url):
    history(box, url, 2)
    old = {p: p.read_bytes() for p in files(url)}
    b = keyed(tmp_path / "b.db")
    call(b, "sync_pull(?)", url)
    put(box, "/new")
    call(box, "sync_push(?)", url)
    push_file(url, 3).unlink()
    put(box, "/newer")
    for sql in ("sync_push(?)", "sync_pull(?)", "sync_verify(?)"):
        message = box.error("SELECT " + sql, url)
        assert (f"the remote {url} was rolled back: this file has seen"
                " transaction 3 there, and the newest is 2; ") in message
    assert {p: p.read_bytes() for p in files(url)} == old
    assert "was rolled back" in box.one(
        "SELECT detail FROM sync_status(?)", url)
    assert call(b, "sync_pull(?)", url)["pulled"] == 0  # it knew no better
    # Who did not know goes on: the other sees that history was rewritten.
    put(b, "/other")
    call(b, "sync_push(?)", url)
    assert "was rewritten: this file has seen transaction 3 there, and another" \
        " one is there as 3" in box.error("SELECT sync_push(?)", url)
    result = call(box, "sync_pull(?, 'theirs')", url)
    assert result["pulled"] == 1 and os.path.exists(result["saved"])
    assert paths(box) == ["/0", "/1", "/other"]
    assert call(box, "sync_push(?)", url)["pushed"] == 0
    for p in files(url):
        p.unlink()
    assert "was rolled back" in box.error("SELECT sync_pull(?)", url)
    assert call(box, "sync_push(?, 'fork')", url)["txid"] == 1
    assert call(box, "sync_push(?)", url)["pushed"] == 0


def test_objects_of_two_histories_do_not_make_a_third(
        tmp_path, box, keyed, url):
    """Both were made with the key, by a device that was shown an old remote."""
    history(box, url, 1)
    b = keyed(tmp_path / "b.db")
    call(b, "sync_pull(?)", url)
    put(box, "/a")
    call(box, "sync_push(?)", url)
    ours = push_file(url, 2).read_bytes()
    push_file(url, 2).unlink()
    for name in "/b", "/c":
        put(b, name)
        call(b, "sync_push(?)", url)
    push_file(url, 2).write_bytes(ours)
    device = keyed(tmp_path / "device.db")
    message = device.error("SELECT sync_pull(?)", url)
    assert "the history is forked: transaction 2 is not the one" in message
    assert device.rows("SELECT * FROM sqlite_schema") == []


def test_no_table_and_no_message_holds_the_key(tmp_path, box, url):
    put(box, "/a")
    call(box, "sync_push(?)", url)
    box.rows("PRAGMA wal_checkpoint(TRUNCATE)")
    for p in [*tmp_path.rglob("*"), *pathlib.Path(os.environ["HOME"]).rglob(
            "*")]:
        if p.is_file():
            data = p.read_bytes()
            assert KEY not in data and KEY.hex().encode() not in data
    assert KEY.hex() not in repr(box.rows("SELECT * FROM choir_secrets"))
    assert box.one("SELECT hidden FROM choir_secrets") == "key"


@pytest.mark.once
def test_the_background_push_encrypts_too(tmp_path, box, keyed, url):
    box.one("SELECT choir_config('remote', ?)", url)
    put(box, "/a")
    box.one("SELECT sync_auto(200)")
    for _ in range(600):
        if files(url):
            break
        time.sleep(0.05)
    box.one("SELECT sync_auto(0)")
    assert files(url)[0].read_bytes()[:8] == b"choirenc"
    assert call(keyed(tmp_path / "o.db"), "sync_pull(?)", url)["pulled"] == 1
