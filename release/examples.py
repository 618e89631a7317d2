"""The examples of the man pages: for each command, a line to type and what it is for."""

from __future__ import annotations

from collections.abc import Mapping

EXAMPLES: Mapping[str, tuple[tuple[str, str], ...]] = {
    "apply": (
        (
            "sgagent apply groups.d --confirm-within 5m",
            "Try a policy for five minutes.",
        ),
        ("sgagent apply groups.d", "Enforce a policy until the source delivers another version."),
    ),
    "boot": (("sgagent boot", "Enforce the last good policy, as sgagent-boot.service does."),),
    "check": (
        ("sgagent check", "Validate the configuration and the definitions of its source."),
        ("sgagent check groups.d --strict", "Validate documents in a pipeline; warnings fail it."),
    ),
    "compile": (
        (
            "sgagent compile --dry-run groups.d --interface eth0=sg-web",
            "Print the table for a link that is bound to a group.",
        ),
        ("sgagent compile", "Enforce the configured definitions once, without an agent."),
    ),
    "confirm": (("sgagent confirm", "Keep the policy that is on trial."),),
    "denied": (
        ("sgagent denied", "List the newest dropped packets, with the rules that dropped them."),
        ("sgagent denied --follow --direction ingress", "Watch what is dropped from now on."),
    ),
    "doctor": (
        ("sgagent doctor", "List what bypasses or breaks the policy on this host."),
        ("sgagent doctor --json --exit-code", "Fail a pipeline if anything is found."),
    ),
    "explain": (
        (
            "sgagent explain ingress --source 192.0.2.7 --destination 10.0.0.11 --protocol tcp --port 443",
            "Ask the running agent about a packet.",
        ),
    ),
    "fleet": (
        ("sgagent fleet status", "List the hosts that report to the etcd cluster."),
        ("sgagent fleet wait --hosts 20 --timeout 5m", "Wait until 20 hosts enforce the newest publication."),
    ),
    "flush": (("sgagent flush", "Remove the table, once the agent is stopped."),),
    "graph": (
        ("sgagent graph groups.d > graph.svg", "Draw who may connect to whom."),
        (
            "sgagent graph groups.d --highlight 'anywhere->sg-database:5432' > way.svg",
            "Highlight the way to a database.",
        ),
    ),
    "history": (("sgagent history", "List the versions that were enforced."),),
    "hits": (
        ("sgagent hits --watch", "Watch the counters of all rules."),
        ("sgagent hits --unused 30d", "List rules without a hit for 30 days."),
    ),
    "import": (
        ("aws ec2 describe-security-groups | sgagent import aws -", "Convert security groups of AWS."),
        ("terraform show -json | sgagent import terraform - --output groups.d", "Convert a Terraform state."),
    ),
    "init": (
        (
            "sgagent init --ssh-from 203.0.113.0/24 --web",
            "Write a first policy for a web server.",
        ),
    ),
    "keygen": (("sgagent keygen --out policy.key", "Make a key pair; the public key is printed."),),
    "clone": (
        ("sgagent clone sg-web sg-web-2 groups.d --output groups.d", "Copy a group, to change the copy."),
    ),
    "lint": (
        ("sgagent lint groups.d --exit-code", "Fail a pipeline if anything is found."),
        ("sgagent lint groups.d --sarif > lint.sarif", "Write the findings for a code host."),
    ),
    "suggest": (
        ("sgagent suggest --flows web-1.log web-2.log > suggested.yaml", "Suggest a policy for two hosts."),
        ("sgagent suggest --now --explain", "Suggest a policy for what this host does now."),
    ),
    "mode": (
        ("sgagent mode observe", "Drop nothing from now on, but count what would be dropped."),
        ("sgagent mode enforce --interface eth1", "Enforce on one link."),
    ),
    "plan": (
        ("sgagent plan --between sg-web sg-web-2 groups.d", "Show what a copy of a group would change."),
        ("sgagent plan candidate", "Show what a candidate would open and close on this host."),
        ("sgagent plan candidate --against groups.d --everywhere", "Compare two sets of documents."),
    ),
    "publish": (
        ("sgagent publish groups.d --dry-run", "Show the difference from the etcd cluster."),
        ("sgagent publish groups.d --key policy.key", "Sign documents and write them to the cluster."),
    ),
    "reload": (("sgagent reload", "Have the agent fetch now, and print the result."),),
    "rollback": (
        ("sgagent rollback", "Go back to the version before."),
        ("sgagent rollback 3", "Go back to number 3 of the history."),
    ),
    "run": (("sgagent run --config /etc/sgagent/sgagent.toml", "Run the agent, as sgagent.service does."),),
    "schema": (("sgagent schema > schema.json", "Write the JSON Schema for an editor."),),
    "sign": (("sgagent sign groups.d --key policy.key --expires 30d", "Sign documents for 30 days."),),
    "status": (("sgagent status", "Show what is enforced, and since when."),),
    "test": (
        ("sgagent test examples/three-tier", "Run the packet tests in a directory."),
        ("sgagent test packets.yaml candidate --kernel", "Test a candidate with real packets."),
    ),
    "verify": (
        ("sgagent verify", "Prove that the table in the kernel does what the enforced policy says."),
        (
            "sgagent verify --ruleset table.nft groups.d --interface eth0=sg-web",
            "Prove in a pipeline what compile --dry-run has printed.",
        ),
        (
            "sgagent verify --compare --ruleset old.nft groups.d --interface eth0=sg-web",
            "List the packets that a hand-written ruleset treats otherwise.",
        ),
    ),
}
"""Each command has at least one."""

_OBSERVING = """\
[enforcement]
mode = "observe"

[[interface]]
name = "eth0"
security_group_ids = ["sg-web"]
"""
_POLLING = """\
[source]
type = "https"
url = "https://policy.example.com/web.yaml"

[[failsafe]]
direction = "ingress"
cidr = "192.0.2.10/32"
protocol = "tcp"
port_range = "22/22"
"""
_WEB_SERVER = """\
version: 1
security_groups:
- security_group_id: sg-web
  rules:
  - {direction: ingress, policy: accept, protocol: tcp, port_range: [80, 443],
     authorization_object: 0.0.0.0/0}
  - {direction: ingress, policy: accept, protocol: tcp, port_range: 22,
     authorization_object: pl-office}
prefix_lists:
- prefix_list_id: pl-office
  address_family: ipv4
  entries: [203.0.113.0/24]
network_interfaces:
- network_interface_id: eni-web-1
  mac_address: 00:16:3e:00:00:01
  addresses: [10.0.0.11]
  security_group_ids: [sg-web]
"""
PAGES: Mapping[str, tuple[tuple[str, str], ...]] = {
    "sgagent": (
        ("sgagent init --ssh-from 203.0.113.0/24", "Write a first policy, which only observes."),
        ("sgagent check && sgagent plan", "Validate the definitions, and show what they would change."),
        ("sgagent mode enforce", "Drop what no rule accepts from now on."),
    ),
    "sgagent.toml": (
        (_OBSERVING.rstrip(), "Bind a link by hand, and only observe."),
        (_POLLING.rstrip(), "Poll a document, and let an administrator in whatever it says."),
    ),
    "sgagent-documents": (
        (_WEB_SERVER.rstrip(), "Open a web server to everyone, and its SSH to an office."),
    ),
}
