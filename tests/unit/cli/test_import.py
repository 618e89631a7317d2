"""``sgagent import`` as a person uses it."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sgagent.cli.main import main
from tests.ecsserver import KEY_ID, SECRET, EcsServer, ecs_server
from tests.fakes.cloud import REGION, FakeCloud, RefusalError, permission

DOCS = Path(__file__).parents[3] / "docs" / "import.md"
ANSWER = {
    "SecurityGroups": [
        {
            "GroupId": "sg-1",
            "OwnerId": "123456789012",
            "IpPermissions": [
                {"IpProtocol": "tcp", "FromPort": 443, "ToPort": 443, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]},
                {"IpProtocol": "icmp", "FromPort": 8, "ToPort": -1, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]},
            ],
        }
    ]
}


@pytest.fixture
def answer(tmp_path: Path) -> Path:
    """Return the path of an answer of the EC2 API."""
    path = tmp_path / "groups.json"
    path.write_text(json.dumps(ANSWER))
    return path


def test_document_and_losses_show(answer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is printed can be checked and explained; what has no equal stands on standard error."""
    assert main(["import", "aws", str(answer)]) == 0
    output, errors = capsys.readouterr()
    assert errors.startswith("left out: ")
    written = tmp_path / "written.yaml"
    written.write_text(output)
    assert main(["check", "--definitions", str(written)]) == 0
    packet = ["--source", "192.0.2.1", "--destination", "10.0.0.1", "--protocol", "tcp", "--port"]
    chosen = ["explain", "--definitions", str(written), "--interface", "eth0=sg-1", "ingress", *packet]
    assert main([*chosen, "443", "--exit-code"]) == 0
    assert main([*chosen, "80", "--exit-code"]) == 1


def test_what_is_printed_passes_the_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Groups of AWS may name each other and themselves; no other cloud's limits are held against them."""
    pair = {"UserIdGroupPairs": [{"GroupId": "sg-1", "UserId": "123456789012"}]}
    rules = [{"IpProtocol": "-1", **pair}, {"IpProtocol": "tcp", "FromPort": 7946, "ToPort": 7946, **pair}]
    groups = [
        {"GroupId": name, "OwnerId": "123456789012", "IpPermissions": rules, "IpPermissionsEgress": rules}
        for name in ("sg-1", "sg-2")
    ]
    answer, written = tmp_path / "groups.json", tmp_path / "written.yaml"
    answer.write_text(json.dumps({"SecurityGroups": groups}))
    assert main(["import", "aws", str(answer), "--output", str(written)]) == 0
    assert capsys.readouterr().err == ""
    assert main(["check", "--strict", "--definitions", str(written)]) == 0
    assert capsys.readouterr().err == ""


def test_the_documentation_shows_what_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The example of docs/import.md, letter by letter."""
    monkeypatch.chdir(tmp_path)
    eni = {"NetworkInterfaceId": "eni-1", "Groups": [{"GroupId": "sg-1"}], "PrivateIpAddress": "10.0.0.5"}
    Path("groups.json").write_text(json.dumps(ANSWER, indent=4))
    Path("interfaces.json").write_text(json.dumps({"NetworkInterfaces": [eni]}, indent=4))
    Path("groups.d").mkdir()
    example = DOCS.read_text(encoding="utf-8").partition("$ sgagent ")[2].partition("```")[0]
    command, _, printed = example.partition("\n")
    assert main(command.split()) == 0
    output, errors = capsys.readouterr()
    assert errors + output == printed


def test_directories_take_a_file(answer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its name says what was read; it is replaced as a whole."""
    groups = tmp_path / "groups.d"
    groups.mkdir()
    assert main(["import", "aws", str(answer), "--output", str(groups)]) == 0
    assert [path.name for path in groups.iterdir()] == ["aws.yaml"]
    assert (
        capsys.readouterr().out == f"wrote 1 group, 1 rule, 0 interfaces, 0 prefix lists: {groups}/aws.yaml\n"
    )
    assert main(["check", "--definitions", str(groups)]) == 0


def test_everything_as_json(answer: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One object holds the document and what it lost."""
    assert main(["import", "aws", str(answer), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["document"]["security_groups"][0]["security_group_id"] == "sg-1"
    assert (report["rules"], [note["effect"] for note in report["notes"]]) == (1, ["left out"])
    assert report["notes"][0]["path"] == "SecurityGroups[0].IpPermissions[1].IpRanges[0]"


def test_standard_input(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A dash reads what another program prints."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(json.dumps(ANSWER).encode())))
    assert main(["import", "aws", "-"]) == 0
    assert "sg-1" in capsys.readouterr().out


def test_what_hosts_would_refuse_is_not_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A drop rule whose object is not there is told where it stood, and nothing is written."""
    group = {"id": "sg-1", "inner_access_policy": "Accept"}
    rule = {
        "security_group_id": "sg-1",
        "type": "ingress",
        "ip_protocol": "all",
        "policy": "drop",
        "source_security_group_id": "sg-gone",
    }
    resources = [
        {"mode": "managed", "type": "alicloud_security_group", "values": group},
        {"mode": "managed", "type": "alicloud_security_group_rule", "values": rule},
    ]
    state = tmp_path / "state.json"
    state.write_text(json.dumps({"values": {"root_module": {"resources": resources}}}))
    target = tmp_path / "out.yaml"
    assert main(["import", "terraform", str(state), "--output", str(target)]) == 2
    assert (
        "state.json:1: values.root_module.resources[1].values.authorization_object" in capsys.readouterr().err
    )
    assert not target.exists()


@pytest.mark.parametrize("arguments", (["aws"], ["gcp", "x"], ["aws", "/nowhere.json"]))
def test_wrong_use(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Files that are not there, and words that nobody knows."""
    assert main(["import", *arguments]) == 2
    assert capsys.readouterr().err.startswith("sgagent: ")


@pytest.mark.parametrize(
    ("sizes", "message"),
    (
        ((None,), "more than 1000 bytes"),
        ((1000, 1000, 1000, 1000, 1), "the files together hold more than 4 times limits.document_bytes"),
    ),
)
@pytest.mark.parametrize("what", ("aws", "terraform"))
def test_what_is_read_is_bounded(
    what: str, sizes: tuple[int | None, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A device that never ends, and very many files, are refused as documents are."""
    settings = tmp_path / "sgagent.toml"
    settings.write_text("[limits]\ndocument_bytes = 1000\n")
    paths = [
        Path("/dev/zero") if size is None else tmp_path / f"{number}.json"
        for number, size in enumerate(sizes)
    ]
    for path, size in zip(paths, sizes, strict=True):
        if size is not None:
            path.write_bytes(b" " * size)
    assert main(["--config", str(settings), "import", what, *map(str, paths)]) == 2
    assert message in capsys.readouterr().err


@pytest.fixture
def server() -> Iterator[EcsServer]:
    """Give a cloud with a group whose members may not all be known."""
    cloud = FakeCloud()
    cloud.add_group("sg-web", permission(SecurityGroupRuleId="sgr-1", SourceCidrIp="0.0.0.0/0"))
    cloud.add_group("sg-lost", permission(Policy="Drop", SourceGroupId="sg-gone"))
    cloud.add_interface("eni-1", "10.0.0.1", "sg-web", instance="i-1")
    with ecs_server(cloud) as running:
        yield running


@pytest.fixture
def configuration(tmp_path: Path, server: EcsServer) -> Path:
    """Give a configuration that leads to the cloud."""
    key = tmp_path / "key"
    key.write_text(f"[default]\naccess_key_id = {KEY_ID}\naccess_key_secret = {SECRET}\n")
    key.chmod(0o600)
    path = tmp_path / "sgagent.toml"
    path.write_text(
        f'[source]\ntype = "aliyun"\nregion = "{REGION}"\nendpoint = "http://127.0.0.1:{server.port}"\n'
        f'credentials_file = "{key}"\ntimeout_seconds = 1\n[state]\ndirectory = "{tmp_path}"\n'
    )
    return path


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_everything_that_the_api_tells(configuration: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All groups with their rules and ids; what makes no sense is told and kept."""
    assert main(["import", "aliyun", "--config", str(configuration)]) == 0
    output, errors = capsys.readouterr()
    for word in ("sg-web", "sgr-1", "sg-lost", "sg-gone", "eni-1"):
        assert word in output
    assert (
        "the security group of this drop rule is not in the definitions, so it would drop nothing: 'sg-gone'"
        in errors
    )


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("refusal", "code"), ((RefusalError(403, "Forbidden.RAM"), 5), (RefusalError(500, "InternalError"), 4))
)
def test_an_api_that_does_not_answer(
    server: EcsServer,
    configuration: Path,
    capsys: pytest.CaptureFixture[str],
    refusal: RefusalError,
    code: int,
) -> None:
    """Not permitted is 5, out of reach is 4."""
    server.cloud.refusals = [refusal]
    assert main(["import", "aliyun", "--config", str(configuration)]) == code
    assert refusal.code in capsys.readouterr().err


def test_the_api_of_no_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    """Another source, and files for a command that reads none."""
    assert main(["import", "aliyun"]) == 2
    assert main(["import", "aliyun", "file.json"]) == 2
    assert "takes no files" in capsys.readouterr().err
