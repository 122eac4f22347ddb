"""The nano zoo goes to an S3 bucket and comes back, by the real dvc and a server of S3's API on loopback."""

import hashlib
import os
import shutil
import subprocess
import sys

import pytest


def needs(module):
    "Of the extra [s3] and its test server: a user may have neither, the project's own environment has both."
    try:
        return __import__(module, fromlist=["x"])
    except ImportError:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"{module} is not installed")


@pytest.fixture
def bucket():
    "The address of an empty bucket."
    needs("dvc_s3")
    server = needs("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        url = f"http://{host}:{port}"
        client = needs("boto3").client(
            "s3", endpoint_url=url, aws_access_key_id="k", aws_secret_access_key="s", region_name="us-east-1"
        )
        client.create_bucket(Bucket="nano-zoo")
        yield url, client
    finally:
        server.stop()


def dvc(folder, *words):
    secret = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", "AWS_DEFAULT_REGION": "us-east-1"}
    quiet = {"DVC_NO_ANALYTICS": "1", "DVC_GLOBAL_CONFIG_DIR": str(folder.parent / "dvc-config")}
    told = subprocess.run(
        [sys.executable, "-m", "dvc", *words],
        cwd=folder,
        env={**os.environ, **secret, **quiet},
        capture_output=True,
        text=True,
    )
    assert told.returncode == 0, f"dvc {' '.join(words)}: {told.stderr[-2000:]}"
    return told.stdout


def contents(folder):
    "Path -> hash of every file that dvc puts into a clone."
    kept = ("data", "zoos", "reports", "results")
    files = [path for part in kept for path in (folder / part).rglob("*") if path.is_file()]
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(files)
    }


def test_the_nano_zoo_goes_to_s3_and_comes_back(tmp_path, pulled, bucket):
    url, client = bucket
    clone = tmp_path / "clone"
    shutil.copytree(pulled, clone)
    before = contents(clone)
    assert any(name.startswith("zoos") for name in before) and len(before) > 100
    dvc(clone, "remote", "add", "--local", "bucket", "s3://nano-zoo/transfergraph")
    dvc(clone, "remote", "modify", "--local", "bucket", "endpointurl", url)
    dvc(clone, "push", "--quiet", "-r", "bucket")
    stored = client.get_paginator("list_objects_v2").paginate(Bucket="nano-zoo")
    assert sum(page["KeyCount"] for page in stored) > 50
    for gone in (".dvc/cache", ".dvc/tmp", ".dvc-store", "data", "zoos", "reports", "results"):
        shutil.rmtree(clone / gone, ignore_errors=True)
    assert contents(clone) == {}
    dvc(clone, "pull", "--quiet", "-r", "bucket")
    assert contents(clone) == before
    config = (clone / ".dvc" / "config").read_text()
    assert "bucket" not in config and "endpointurl" not in config  # what is local stays local
