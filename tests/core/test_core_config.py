# SPDX-License-Identifier: MIT
"""Settings: which source wins, what a config file may look like, what is
refused."""
import os

import pytest


def config_file(monkeypatch, tmp_path, text, mode=0o600):
    folder = tmp_path / "xdg" / "choir"
    folder.mkdir(parents=True)
    (folder / "config").write_text(text)
    (folder / "config").chmod(mode)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    return folder / "config"


def source(d, key):
    return d.rows("SELECT value, source FROM choir_settings WHERE key = ?",
                  key)[0]


def test_session_beats_environment_beats_file_beats_default(
        monkeypatch, tmp_path, open_db):
    assert source(open_db(), "user") == (None, "unset")
    config_file(monkeypatch, tmp_path, "# mine\n user = file-user \nzz = 1\n")
    assert source(open_db(), "user") == ("file-user", "file")
    monkeypatch.setenv("CHOIR_USER", "env-user")
    d = open_db()
    assert source(d, "user") == ("env-user", "environment")
    assert d.one("SELECT choir_config('user', 'ada')") == "ada"
    assert source(d, "user") == ("ada", "session")
    assert d.one("SELECT choir_config('user')") == "ada"
    assert d.one("SELECT choir_config('user', NULL)") == "env-user"
    assert source(d, "schema") == ("main", "default")


def test_a_setting_belongs_to_its_connection(open_db):
    a, b = open_db(), open_db()
    a.one("SELECT choir_config('user', 'ada')")
    assert source(b, "user") == (None, "unset")


@pytest.mark.inprocess  # whose environment it is
def test_what_the_environment_says_is_never_old(monkeypatch, open_db):
    d = open_db()
    for value in ("one", "two", "", "three"):
        monkeypatch.setenv("CHOIR_USER", value)
        assert d.one("SELECT choir_config('user')") == (value or None)
        assert source(d, "user") == ((value, "environment") if value
                                     else (None, "unset"))
    monkeypatch.delenv("CHOIR_USER")
    assert source(d, "user") == (None, "unset")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "7")  # the second name of the key
    assert source(d, "http.attempts") == ("7", "environment")
    monkeypatch.setenv("CHOIR_HTTP_ATTEMPTS", "8")
    assert source(d, "http.attempts") == ("8", "environment")


def test_no_file_and_no_transaction_has_a_say(db):
    """A setting is the connection's, not the database's."""
    db.run("CREATE TABLE choir_settings(key, value, source);"
           "INSERT INTO choir_settings VALUES('user', 'evil', 'session')")
    db.run("BEGIN")
    db.one("SELECT choir_config('remote', 'file:///kept')")
    db.run("ROLLBACK")
    assert db.one("SELECT choir_config('user')") is None
    assert db.one("SELECT choir_config('remote')") == "file:///kept"


def test_every_setting_is_found(open_db):
    d = open_db()
    keys = [k for (k,) in d.rows("SELECT key FROM choir_settings")]
    assert len(keys) > 40 and keys == sorted(keys)
    for key in keys:
        d.one("SELECT choir_config(?)", key)


@pytest.mark.parametrize("bad", ["64MB", "-1", "1.5", "", " 1", "1e6", "9" * 19])
def test_a_number_is_a_number(open_db, bad):
    d = open_db()
    assert d.error("SELECT choir_config('http.max_bytes', ?)", bad) == (
        "choir_config: http.max_bytes is a whole number, not negative, got"
        f" '{bad}'")
    assert source(d, "http.max_bytes") == ("67108864", "default")


def test_a_number_of_the_environment_that_is_none_is_told(monkeypatch, open_db):
    sql = "SELECT status, detail FROM choir_doctor WHERE \"check\" = 'settings'"
    assert open_db().rows(sql) == [("ok", "numbers are numbers")]
    monkeypatch.setenv("CHOIR_HTTP_MAX_BYTES", "64MB")
    assert open_db().rows(sql) == [
        ("warn", "http.max_bytes is '64MB' (environment)")]


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660])
def test_a_config_file_that_others_can_read_is_refused(
        monkeypatch, tmp_path, open_db, mode):
    path = config_file(monkeypatch, tmp_path, "user = ada\n", mode)
    d = open_db()
    assert source(d, "user") == (None, "unset")
    assert d.rows("SELECT status, detail FROM choir_doctor"
                  " WHERE \"check\" = 'config file'") == [(
                      "fail", f"{path} is readable by others (mode {mode:o});"
                      " run chmod 600 on it")]


def test_a_config_file_that_is_a_link_is_not_followed(
        monkeypatch, tmp_path, open_db):
    path = config_file(monkeypatch, tmp_path, "user = ada\n")
    path.rename(tmp_path / "elsewhere")
    os.symlink(tmp_path / "elsewhere", path)
    assert source(open_db(), "user") == (None, "unset")


def test_unknown_keys_name_the_nearest(db):
    assert db.error("SELECT choir_config('usr')") == (
        "choir_config: no setting 'usr'; did you mean 'user'?")
    assert db.error("SELECT choir_config('zzzzzzzzzz', 1)") == (
        "choir_config: no setting 'zzzzzzzzzz'; see the table choir_settings")
    assert db.error("SELECT choir_config(NULL)") == (
        "choir_config: key must be text, got null")


@pytest.mark.parametrize("bad", ["", "../x", ".x", "a b", "a/b", "é", "x" * 129])
def test_a_user_that_could_not_be_part_of_a_remote_key_is_refused(db, bad):
    assert db.error("SELECT choir_config('user', ?)", bad).startswith(
        "choir_config: user must be 1 to 128 letters, digits")
    assert source(db, "user") == (None, "unset")


def test_the_workspace_can_live_in_an_attached_schema(open_db, tmp_path):
    d = open_db(tmp_path / "host.db")
    d.run(f"ATTACH '{tmp_path / 'ws.db'}' AS ws")
    d.one("SELECT choir_config('schema', 'ws')")
    d.one("SELECT choir_init()")
    assert d.one("SELECT count(*) FROM ws.artifacts") == 0
    assert d.rows("SELECT name FROM main.sqlite_schema") == []
    assert d.one("SELECT choir_check()") == '{"ok":1,"problems":[]}'
    d.one("SELECT choir_config('schema', NULL)")
    assert "no workspace in schema main" in d.error("SELECT choir_check()")


def test_a_schema_that_is_not_attached_is_named(open_db):
    assert "nowhere" in open_db().error("SELECT choir_init('nowhere')")


@pytest.mark.parametrize("key", ["remote", "qdrant.url", "nats.url"])
def test_a_password_in_any_url_is_masked(open_db, key):
    d = open_db()
    url = "https://ada:canary@host/"
    try:
        shown = d.one("SELECT choir_config(?, ?)", key, url)
    except d.failure as e:
        shown = str(e)
    assert "canary" not in shown
    assert "canary" not in repr(d.rows("SELECT * FROM choir_settings"))


def test_a_message_does_not_grow_with_what_it_quotes(open_db):
    message = open_db().error("SELECT choir_config(?)", "ä" * 1_000_000)
    assert message.startswith("choir_config: no setting 'ää")
    assert "ä'; " in message[-80:]
    assert len(message.encode()) < 2000


@pytest.mark.parametrize("wrong, problem", [
    ('{"scope":"s3://b/"}', "the secret has no type; it is http, libsql,"),
    ('{"type":"S3"}', "no type 'S3'; it is http, libsql, nats, presign,"),
    ('{"type":"synk","scope":"s3://b/"}', "no type 'synk'; it is http,"),
    ('{"type":"sync","scope":"bucket/ws/"}', "a scope is the beginning of URLs"),
    ('{"type":"s3","scope":["s3://a/","b"]}', "a scope is the beginning of"),
    ('{"type":"s3","provider":"aws"}', "no provider 'aws'; it is config,")])
def test_a_secret_that_would_protect_nothing_is_refused(open_db, wrong, problem):
    d = open_db()
    assert problem in d.error("SELECT choir_secret('x', ?)", wrong)
    assert d.rows("SELECT * FROM choir_secrets") == []
