"""The stubs in serve/ are what grpcio-tools makes of serve/reco.proto."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT

STUBS = ("reco_pb2.py", "reco_pb2.pyi", "reco_pb2_grpc.py")


def test_the_generated_stubs_match_the_proto(tmp_path):
    pytest.importorskip("grpc_tools")
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I", str(ROOT), "serve/reco.proto"]
    outputs = [f"--{kind}_out={tmp_path}" for kind in ("python", "pyi", "grpc_python")]

    subprocess.run([*command, *outputs], check=True, cwd=ROOT)

    for name in STUBS:
        assert (tmp_path / "serve" / name).read_text() == (ROOT / "serve" / name).read_text()
