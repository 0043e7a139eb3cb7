# SPDX-License-Identifier: MIT
"""The AWS credential chain: every link, against servers that check signatures."""
import datetime
import json
import pathlib
import stat
import sys
import threading
import time
import urllib.parse

import pytest

from fault_server import FaultServer, reply, stall, status

WHO = "SELECT source, access_key, region FROM s3_credentials()"


def later(seconds):
    return (datetime.datetime.utcnow() + datetime.timedelta(seconds=seconds)
            ).strftime("%Y-%m-%dT%H:%M:%SZ")


class Sts:
    """Gives keys to whoever signs with the right ones; counts."""

    def __init__(self, secrets, expires=3600):
        self.secrets, self.expires, self.calls = secrets, expires, []

    def __call__(self, sock, request):
        form = dict(urllib.parse.parse_qsl(request.body.decode()))
        self.calls.append(form)
        problem = None
        if form["Action"] == "AssumeRole":
            problem = self.verify(request)
        if problem:
            return status(403, body=(
                "<ErrorResponse><Error><Code>SignatureDoesNotMatch</Code>"
                f"<Message>{problem}</Message></Error></ErrorResponse>"
            ).encode())(sock, request)
        n = len(self.calls)
        return reply((
            "<R><Credentials><AccessKeyId>ASIAROLE%04d</AccessKeyId>"
            "<SecretAccessKey>role-secret-%d</SecretAccessKey><SessionToken>"
            "tok/%d+=</SessionToken><Expiration>%s</Expiration></Credentials>"
            "</R>" % (n, n, n, later(self.expires))).encode(),
            type="text/xml")(sock, request)

    def verify(self, request):
        auth = pytest.importorskip("botocore.auth")
        from botocore.awsrequest import AWSRequest
        from botocore.credentials import Credentials
        got = request.get("Authorization") or ""
        access = got.split("Credential=")[-1].split("/")[0]
        if access not in self.secrets:
            return f"unknown key {access}"
        secret, token = self.secrets[access]
        if request.get("X-Amz-Security-Token") != token:
            return "wrong token"
        again = AWSRequest("POST", "http://" + request.get("Host") + "/",
                           data=request.body)
        signed = got.split("SignedHeaders=")[1].split(",")[0].split(";")
        for name in signed:
            again.headers[name] = request.get(name)
        again.context["timestamp"] = request.get("X-Amz-Date")
        signer = auth.SigV4Auth(Credentials(access, secret, token), "sts",
                                "eu-west-1")
        right = signer.signature(signer.string_to_sign(
            again, signer.canonical_request(again)), again)
        return None if got.endswith("Signature=" + right) else "bad signature"


@pytest.fixture
def aws(tmp_path, monkeypatch, open_db):
    """Writes ~/.aws, sets variables, then opens a connection."""
    home = tmp_path / "home"
    (home / ".aws").mkdir(parents=True, exist_ok=True)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")

    def make(credentials="", config="", **env):
        (home / ".aws/credentials").write_text(credentials)
        (home / ".aws/config").write_text(config)
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        return open_db(":memory:")
    make.home = home
    return make


def keys(access, secret="s3cr3t-canary", token=None):
    return (f"aws_access_key_id = {access}\naws_secret_access_key={secret}\n"
            + (f"aws_session_token = {token}\n" if token else ""))


def test_the_environment_comes_first(aws):
    db = aws("[default]\n" + keys("AKIAFILE0001"),
             AWS_ACCESS_KEY_ID="AKIAENV00002", AWS_SECRET_ACCESS_KEY="x",
             AWS_REGION="eu-north-1")
    assert db.rows(WHO) == [("environment", "…0002", "eu-north-1")]


def test_a_profile_of_the_credentials_file(aws):
    db = aws("# mine\n[other]\n" + keys("AKIAOTHER001") + "[ default ]\n"
             + keys("AKIAFIRST001") + keys("AKIALAST0002") + "; end\n",
             "[default]\nregion = eu-west-3 # Paris\n")
    assert db.rows(WHO) == [("profile default", "…0002", "eu-west-3")]


def test_aws_profile_chooses_and_a_missing_one_is_named(aws):
    db = aws("[other]\n" + keys("AKIAOTHER001"),
             "[profile third]\nregion=us-west-2\n" + keys("AKIATHIRD003"),
             AWS_PROFILE="third")
    assert db.rows(WHO) == [("profile third", "…D003", "us-west-2")]
    db = aws("[other]\n" + keys("AKIAOTHER001"), AWS_PROFILE="none")
    assert db.error(WHO) == ("s3_credentials: no profile 'none' in"
                             " ~/.aws/credentials or ~/.aws/config")


def test_a_secret_names_its_own_profile(aws):
    db = aws("[a]\n" + keys("AKIAAAAA0001") + "[b]\n" + keys("AKIABBBB0002"),
             AWS_ACCESS_KEY_ID="AKIAENV00003", AWS_SECRET_ACCESS_KEY="x")
    db.one("SELECT choir_secret('one', ?)", json.dumps(
        {"type": "s3", "provider": "chain", "profile": "a",
         "scope": "s3://one/"}))
    who = "SELECT source, access_key FROM s3_credentials(?)"
    assert db.rows(who, "s3://one/k") == [("profile a", "…0001")]
    assert db.rows(who, "s3://two/k") == [("environment", "…0003")]
    assert db.rows(who, "s3://one-more/k") == [("environment", "…0003")]


def test_other_files_may_be_named(aws, tmp_path):
    (tmp_path / "c").write_text("[default]\n" + keys("AKIAELSE0001"))
    db = aws(AWS_SHARED_CREDENTIALS_FILE=str(tmp_path / "c"))
    assert db.rows(WHO)[0][:2] == ("profile default", "…0001")


def test_a_role_by_source_profile_is_signed_with_its_keys(aws):
    sts = Sts({"AKIABASE0001": ("base-secret", None)})
    with FaultServer() as s:
        db = aws("[base]\n" + keys("AKIABASE0001", "base-secret"),
                 "[profile dev]\nrole_arn = arn:aws:iam::1:role/dev\n"
                 "source_profile=base\nregion=eu-west-1\nexternal_id = x y\n"
                 "role_session_name = me\n", AWS_PROFILE="dev",
                 AWS_ENDPOINT_URL_STS=s.on("/", sts))
        assert db.rows(WHO) == [("profile dev", "…0001", "eu-west-1")]
    assert sts.calls == [{
        "Action": "AssumeRole", "Version": "2011-06-15",
        "RoleArn": "arn:aws:iam::1:role/dev", "RoleSessionName": "me",
        "ExternalId": "x y"}]


def test_a_role_of_a_role(aws):
    sts = Sts({"AKIABASE0001": ("base-secret", None),
               "ASIAROLE0001": ("role-secret-1", "tok/1+=")})
    with FaultServer() as s:
        db = aws("", "[profile a]\n" + keys("AKIABASE0001", "base-secret")
                 + "[profile b]\nrole_arn=rb\nsource_profile=a\n"
                 "[profile c]\nrole_arn=rc\nsource_profile=b\n",
                 AWS_PROFILE="c", AWS_ENDPOINT_URL_STS=s.on("/", sts),
                 AWS_REGION="eu-west-1")
        assert db.rows(WHO)[0][:2] == ("profile c", "…0002")
    assert [c["RoleArn"] for c in sts.calls] == ["rb", "rc"]


def test_profiles_in_a_circle_are_named(aws):
    db = aws("", "[profile a]\nrole_arn=r\nsource_profile=b\n"
             "[profile b]\nrole_arn=r\nsource_profile=a\n", AWS_PROFILE="a")
    assert "source_profile goes round" in db.error(WHO)


def test_what_sts_refuses_is_said(aws):
    with FaultServer() as s:
        db = aws("[a]\n" + keys("AKIABASE0001", "wrong-canary"),
                 "[profile b]\nrole_arn=r\nsource_profile=a\n",
                 AWS_PROFILE="b", AWS_REGION="eu-west-1",
                 AWS_ENDPOINT_URL_STS=s.on("/", Sts(
                     {"AKIABASE0001": ("right", None)})))
        assert db.error(WHO) == ("s3_credentials: profile b: STS says 403"
                                 " SignatureDoesNotMatch: bad signature")


def test_web_identity_is_not_signed(aws, tmp_path):
    (tmp_path / "token").write_text("eyJ.canary.sig\n")
    sts = Sts({})
    with FaultServer() as s:
        db = aws(AWS_WEB_IDENTITY_TOKEN_FILE=str(tmp_path / "token"),
                 AWS_ROLE_ARN="arn:x", AWS_ENDPOINT_URL_STS=s.on("/", sts))
        assert db.rows(WHO)[0][:2] == ("web identity", "…0001")
        assert s.seen[0].get("Authorization") is None
    assert sts.calls[0]["WebIdentityToken"] == "eyJ.canary.sig"
    assert sts.calls[0]["Action"] == "AssumeRoleWithWebIdentity"


def test_what_is_wrong_about_an_identity_is_named(aws, tmp_path):
    with FaultServer() as s:
        url = s.on("/", reply(b"<R/>", type="text/xml"))
        db = aws(AWS_WEB_IDENTITY_TOKEN_FILE=str(tmp_path / "none"),
                 AWS_ROLE_ARN="arn:x", AWS_ENDPOINT_URL_STS=url)
        assert db.error(WHO) == ("s3_credentials: web identity: cannot read the"
                                 f" token file '{tmp_path}/none'")
        (tmp_path / "none").write_text("t")
        assert "web identity: the reply of STS has no keys" in db.error(WHO)


def script(path, text):
    path.write_text(f"#!{sys.executable}\n" + text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_a_credential_process(aws, tmp_path):
    run = script(tmp_path / "get creds", (
        "import json, sys\nassert sys.argv[1:] == ['a b', '$HOME', 'c\\'d']\n"
        "print(json.dumps(dict(Version=1, AccessKeyId='AKIAPROC0001',"
        " SecretAccessKey='s', SessionToken='t')))\n"))
    db = aws("", f"[default]\ncredential_process = '{run}' \"a b\" $HOME"
             " c\\'d\n")
    assert db.rows(WHO)[0][:2] == ("profile default", "…0001")


def test_a_container_that_gives_no_keys_is_named(aws):
    with FaultServer() as s:
        db = aws(AWS_CONTAINER_CREDENTIALS_FULL_URI=s.on("/c", status(404)))
        assert "ECS: status 404 from the container's credentials" in db.error(
            WHO)


@pytest.mark.parametrize("text, problem", [
    ("import sys; print('canary'); sys.exit(3)", "ended with status 3"),
    ("print('{\"AccessKeyId\": \"A\"}')", "has no AccessKeyId and Secret"),
    ("print('canary')", "not JSON"), ("print('x' * 100000)", "limit of 65536"),
    ("import os; os.kill(os.getpid(), 9)", "ended with status -1")])
def test_a_broken_credential_process_is_named(aws, tmp_path, text, problem):
    run = script(tmp_path / "p", text + "\n")
    message = aws("", f"[default]\ncredential_process = {run}\n").error(WHO)
    assert problem in message and "canary" not in message


def readable(path):
    try:
        return path.read_bytes()
    except OSError:  # it has ended
        return b""


def test_a_credential_process_that_does_not_end_is_ended(aws, tmp_path):
    run = script(tmp_path / "p", "import time\nprint('canary', flush=True)\n"
                 "time.sleep(600)\n")
    db = aws("", f"[default]\ncredential_process = {run}\n")
    db.one("SELECT choir_config('http.timeout_ms', 500)")
    start = time.monotonic()
    assert db.error(WHO) == ("s3_credentials: credential_process: not done"
                             " within 500 ms (http.timeout_ms)")
    assert time.monotonic() - start < 60
    assert not [p for p in pathlib.Path("/proc").glob("[0-9]*/cmdline")
                if str(run).encode() in readable(p)]


def ended(pid):
    """No such process, or one that only waits to be collected."""
    stat = readable(pathlib.Path("/proc", pid, "stat"))
    return not stat or stat.rsplit(b")", 1)[-1].split()[0] == b"Z"


def until(what):
    end = time.monotonic() + 30
    while not what():
        assert time.monotonic() < end
        time.sleep(0.01)


def parent(tmp_path, then):
    """A command that has a child, whose id it tells; then what it does."""
    path = tmp_path / "p"
    path.write_text(f"#!/bin/sh\nsleep 600 &\necho $! > {tmp_path}/new\n"
                    f"mv {tmp_path}/new {tmp_path}/pid\n{then}\n")
    path.chmod(0o700)
    return f"[default]\ncredential_process = {path}\n"


@pytest.mark.parametrize("then, problem", [
    ("sleep 600", "not done within 1000 ms"),
    ("exit 0", "not done within 1000 ms"),  # the child has the output
    ("exec >&-; sleep 600", "not done within 1000 ms"),
    ("yes; sleep 600", "limit of 65536")])
def test_what_a_credential_process_has_started_ends_with_it(aws, tmp_path,
                                                            then, problem):
    db = aws("", parent(tmp_path, then))
    db.one("SELECT choir_config('http.timeout_ms', ?)",
           1000 if "done" in problem else 60000)
    assert problem in db.error(WHO)
    until(lambda: ended((tmp_path / "pid").read_text().strip()))


@pytest.mark.inprocess
def test_an_interrupt_ends_a_credential_process_and_its_children(aws,
                                                                 tmp_path):
    db = aws("", parent(tmp_path, "sleep 600"))

    def interrupt():
        until((tmp_path / "pid").exists)
        db.con.interrupt()
    thread = threading.Thread(target=interrupt)
    thread.start()
    assert "interrupted" in db.error(WHO)
    thread.join()
    until(lambda: ended((tmp_path / "pid").read_text().strip()))
    assert db.one("SELECT 1") == 1


def test_a_missing_credential_process_is_named(aws):
    assert "cannot run '/no/such': No such file" in aws(
        "", "[default]\ncredential_process = /no/such x\n").error(WHO)
    assert "closed quotes" in aws(
        "", "[default]\ncredential_process = '/no\n").error(WHO)


def test_ecs(aws, tmp_path):
    (tmp_path / "t").write_text("Bearer ecs-canary\n")
    with FaultServer() as s:
        s.on("/creds", reply(json.dumps({
            "AccessKeyId": "ASIAECS00001", "SecretAccessKey": "s",
            "Token": "t", "Expiration": later(3600)}).encode()))
        db = aws(AWS_CONTAINER_CREDENTIALS_FULL_URI=s.url("/creds"),
                 AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE=str(tmp_path / "t"))
        assert db.rows(WHO)[0][:2] == ("ECS", "…0001")
        assert s.seen[0].get("Authorization") == "Bearer ecs-canary"


@pytest.mark.parametrize("host", ["192.0.2.1", "127.0.0.1.evil.test"])
def test_ecs_by_http_is_for_this_machine_only(aws, host):
    db = aws(AWS_CONTAINER_CREDENTIALS_FULL_URI=f"http://{host}/x",
             AWS_CONTAINER_AUTHORIZATION_TOKEN="canary")
    message = db.error(WHO)
    assert "must be https or this machine" in message
    assert "canary" not in message


def imds(server):
    def token(sock, request):
        assert request.method == "PUT"
        assert request.get("X-aws-ec2-metadata-token-ttl-seconds") == "21600"
        return reply(b"imds-token")(sock, request)

    def guarded(body):
        def act(sock, request):
            if request.get("X-aws-ec2-metadata-token") != "imds-token":
                return status(401)(sock, request)
            return reply(body)(sock, request)
        return act
    base = "/latest/meta-data/iam/security-credentials/"
    server.on("/latest/api/token", token)
    server.on(base, guarded(b"my-role\n"))
    server.on(base + "my-role", guarded(json.dumps({
        "Code": "Success", "AccessKeyId": "ASIAIMDS0001",
        "SecretAccessKey": "s", "Token": "t",
        "Expiration": later(3600)}).encode()))


def test_imds_version_2(aws):
    with FaultServer() as s:
        imds(s)
        db = aws(AWS_EC2_METADATA_DISABLED="false",
                 AWS_EC2_METADATA_SERVICE_ENDPOINT=s.url("/"))
        assert db.rows(WHO)[0][:2] == ("IMDS", "…0001")


def test_hosts_of_credentials_must_be_in_the_list_too(aws, tmp_path):
    """http.allow is about every request, whoever it is for."""
    (tmp_path / "token").write_text("x")
    sts = Sts({})
    with FaultServer() as s:
        imds(s)
        roles = {"AWS_WEB_IDENTITY_TOKEN_FILE": str(tmp_path / "token"),
                 "AWS_ROLE_ARN": "arn:x",
                 "AWS_ENDPOINT_URL_STS": s.on("/sts", sts)}
        ecs = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": s.url("/creds")}
        instance = {"AWS_EC2_METADATA_DISABLED": "false",
                    "AWS_EC2_METADATA_SERVICE_ENDPOINT": s.url()}
        for variables, way in ((roles, "/sts"), (ecs, "/creds"),
                               (instance, "/latest/api/token")):
            with pytest.MonkeyPatch.context() as m:
                for name, value in variables.items():
                    m.setenv(name, value)
                m.setenv("CHOIR_HTTP_ALLOW", "data.test")
                message = aws().error(WHO)
                assert (f"{s.url(way)}: host 127.0.0.1 port {s.port} is not in"
                        " the list of http.allow") in message
                assert s.seen == []
                if way != "/creds":
                    m.setenv("CHOIR_HTTP_ALLOW", f"data.test,127.0.0.1:{s.port}")
                    assert aws().rows(WHO)[0][1] in ("…0001",)
                    s.seen.clear()


def test_without_any_link_all_are_named_quickly(aws):
    with FaultServer() as s:
        s.on("/latest/api/token", stall(20))
        db = aws(AWS_EC2_METADATA_DISABLED="false",
                 AWS_EC2_METADATA_SERVICE_ENDPOINT=s.url())
        db.one("SELECT choir_config('http.timeout_ms', 100)")
        start = time.monotonic()
        message = db.error(WHO)
        assert time.monotonic() - start < 6
        assert message.startswith("s3_credentials: no AWS credentials in")
        assert "choir_secret()" in message


def test_keys_are_kept_until_they_are_about_to_expire(aws, tmp_path):
    (tmp_path / "token").write_text("x")
    for expires, calls in ((3600, 1), (200, 3)):
        sts = Sts({}, expires)
        with FaultServer() as s:
            db = aws(AWS_WEB_IDENTITY_TOKEN_FILE=str(tmp_path / "token"),
                     AWS_ROLE_ARN="arn:x",
                     AWS_ENDPOINT_URL_STS=s.on("/", sts))
            for _ in range(3):
                db.rows(WHO)
            assert len(sts.calls) == calls
            if expires == 200:  # a refresh that fails leaves the old keys
                s.on("/", status(400))
                assert db.rows(WHO)[0][1] == "…0003"


def test_config_and_env_secrets(aws):
    db = aws(MY_AK="AKIAMINE0001", MY_SK="canary")
    add = "SELECT choir_secret('s', ?)"
    who = "SELECT source, access_key, region, endpoint FROM s3_credentials()"
    db.one(add, json.dumps({"type": "s3", "access_key": "AKIACONF0002",
                            "secret_key": "x", "region": "r",
                            "endpoint": "http://127.0.0.1:1"}))
    assert db.rows(who) == [("s", "…0002", "r", "http://127.0.0.1:1")]
    db.one(add, json.dumps({"type": "s3", "provider": "env",
                            "access_key": "MY_AK", "secret_key": "MY_SK"}))
    assert db.rows(who) == [("s", "…0001", "us-east-1", None)]
    db.one(add, json.dumps({"type": "s3", "provider": "env",
                            "access_key": "NO_AK", "secret_key": "NO_SK"}))
    assert "the environment variables are not set" in db.error(who)
    db.one(add, json.dumps({"type": "s3", "provider": "none"}))
    assert db.rows(who) == [("s", None, "us-east-1", None)]
    db.one("SELECT choir_secret('s', NULL)")
    assert "no AWS credentials" in db.error(who)


@pytest.mark.parametrize("wrong, problem", [
    ({"endpoint": "127.0.0.1:9000"}, "the endpoint '127.0.0.1:9000' has no"
     " scheme; write https:// (or http://) before it"),
    ({"url_style": "virtual"}, "url_style must be path or vhost, got"
     " 'virtual'")])
def test_a_secret_that_leads_nowhere_is_named(aws, wrong, problem):
    db = aws()
    db.one("SELECT choir_secret('s', ?)", json.dumps(
        {"type": "s3", "access_key": "A", "secret_key": "canary", **wrong}))
    for sql in (WHO, "SELECT s3_get('s3://bucket/k')"):
        message = db.error(sql)
        assert message.endswith(": " + problem) and "canary" not in message


def test_a_lock_keeps_the_chain_from_running(aws, tmp_path):
    flag = tmp_path / "ran"
    run = script(tmp_path / "p", f"open({str(flag)!r}, 'w')\n")
    db = aws("", f"[default]\ncredential_process = {run}\n")
    db.one("SELECT choir_lock()")
    assert "locked" in db.error(WHO)
    assert not pathlib.Path(flag).exists()
