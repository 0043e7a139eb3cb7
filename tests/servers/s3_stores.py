# SPDX-License-Identifier: MIT
"""The stores that object cases run on: a folder, versitygw, Ceph, versitygw under
the seeds' policy. A plugin of the root conftest, so that a run has one server of
each.

store   (db, URL of an empty root) on each of them
s3      the same on versitygw alone
proxy   (db, root, FaultProxy): versitygw behind a proxy
"""
import os
import random

import pytest

import fault_proxy
import rgw as ceph
import seeds_policy
import versitygw
from s3_server import arm, signed


@pytest.fixture(scope="session")
def gateway(tmp_path_factory):
    if versitygw.program() is None:
        pytest.skip("versitygw: no Go to install it with")
    server = versitygw.Versitygw(tmp_path_factory.mktemp("s3"))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def rgw():
    if ceph.missing():
        pytest.skip("Ceph: no " + " ".join(ceph.missing()))
    server = ceph.shared(os.environ.get("PYTEST_XDIST_TESTRUNUID",
                                        str(os.getpid())))
    yield server
    server.stop()


@pytest.fixture(params=["file", pytest.param("s3", marks=pytest.mark.net),
                        pytest.param("rgw", marks=[pytest.mark.net,
                                                   pytest.mark.once]),
                        pytest.param("policy", marks=[pytest.mark.net,
                                                      pytest.mark.once])])
def store(request, db, tmp_path):
    if request.param == "file":
        for folder in ("", "b", "ünï"):  # file:// makes no folders
            (tmp_path / "store" / folder).mkdir()
        yield db, f"file://{tmp_path}/store/"
        return
    if request.param == "policy":
        gateway = request.getfixturevalue("gateway")
        root = f"{random.getrandbits(64):x}/"
        with fault_proxy.FaultProxy(gateway.port) as p:
            p.plan = seeds_policy.plan(gateway, "u1", root)
            arm(db, gateway, endpoint=p.endpoint)
            yield db, f"s3://bucket/{root}users/u1/"
        return
    server = request.getfixturevalue(
        "gateway" if request.param == "s3" else "rgw")
    arm(db, server)
    if request.param == "rgw":
        signed(db, server, "PUT", "/bucket")  # again: nothing happens
    yield db, f"s3://bucket/{random.getrandbits(64):x}/"


@pytest.fixture
def s3(db, gateway):
    arm(db, gateway)
    return db, f"s3://bucket/{random.getrandbits(64):x}/"


@pytest.fixture
def proxy(s3, gateway):
    db, root = s3
    with fault_proxy.FaultProxy(gateway.port) as p:
        arm(db, gateway, endpoint=p.endpoint)
        yield db, root, p
