"""Keep the documents of a host, checked as one and replaced as one."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: documents
short_description: Keep the documents that sgagent enforces
description:
  - Holds a directory to just these documents. C(sgagent check) on the host checks all of them together
    before any is written. The diff has what C(sgagent plan) says of them.
options:
  documents:
    description: Text of each document by the name of its file, and of C(sgagent.sig) if they are signed.
    type: dict
    required: true
  path:
    description: The directory in which the agent looks for them.
    type: path
    default: /etc/sgagent/groups.d
  configuration:
    description: Text of the configuration to check them with. The host's own if empty.
    type: str
    default: ""
  state:
    description:
      - V(tried) has the agent enforce them for a while, and writes nothing to O(path).
      - V(present) confirms such a trial, writes them to O(path), and has the agent read them.
    type: str
    choices: [present, tried]
    default: present
  confirm_within:
    description: Seconds after which the agent takes a trial back by itself.
    type: int
    default: 60
attributes:
  check_mode:
    description: Checks the documents, and changes nothing.
    support: full
  diff_mode:
    description: Shows each document, and the plan.
    support: full
author: sgagent contributors
"""

EXAMPLES = """
- name: Keep the documents
  sgagent.host.documents:
    documents:
      web.yaml: "{{ lookup('ansible.builtin.file', 'web.yaml', rstrip=false) }}"
"""

RETURN = """
problems:
  description: What C(sgagent check) found, warnings too.
  returned: when the documents were checked
  type: list
  elements: str
on_trial:
  description: Whether the agent waits to be asked to keep them. It does not where it enforces them already.
  returned: when they were tried
  type: bool
"""

SUFFIXES = (".yaml", ".yml", ".json")
SIGNATURE = "sgagent.sig"


def main() -> None:
    """Hold a directory to documents."""
    module = AnsibleModule(
        argument_spec={
            "documents": {"type": "dict", "required": True},
            "path": {"type": "path", "default": "/etc/sgagent/groups.d"},
            "configuration": {"type": "str", "default": ""},
            "state": {"type": "str", "choices": ["present", "tried"], "default": "present"},
            "confirm_within": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    wanted = dict(sorted(module.params["documents"].items()))
    refuse_names(module, wanted)
    present = read(Path(module.params["path"]))
    with tempfile.TemporaryDirectory(dir=module.tmpdir) as folder:
        candidate = Path(folder) / "groups.d"
        candidate.mkdir()
        for name, text in wanted.items():
            (candidate / name).write_text(text, encoding="utf-8")
        is_tried = module.params["state"] == "tried"
        result: dict[str, Any] = {"changed": present != wanted}
        if module.check_mode or not is_tried:  # the agent checks what it tries
            result["problems"] = check(module, candidate)
        if result["changed"] and module._diff:  # noqa: SLF001 - Ansible has no other name for it
            result["diff"] = difference(module, present, wanted, candidate)
        if result["changed"] and not module.check_mode:
            if is_tried:
                seconds = f"{module.params['confirm_within']}s"
                told = sgagent(module, "apply", str(candidate), "--confirm-within", seconds, "--json")
                result["on_trial"] = json.loads(told)["seconds_left"] is not None
            else:
                keep(module, wanted, set(present) - set(wanted))
    module.exit_json(**result)


def refuse_names(module: AnsibleModule, wanted: dict[str, str]) -> None:
    """End if there is no document, or if the agent would not read one of them under its name."""
    names = set(wanted) - {SIGNATURE}
    if not names:
        module.fail_json(msg="no documents; to enforce nothing, have one that holds 'version: 1'")
    wrong = [
        name for name in sorted(names) if not name.endswith(SUFFIXES) or "/" in name or name.startswith(".")
    ]
    if wrong:
        module.fail_json(msg=f"no names of documents (*.yaml, *.yml, *.json): {', '.join(wrong)}")


def read(folder: Path) -> dict[str, str]:
    """Return what the agent finds in a directory."""
    if not folder.is_dir():
        return {}
    return {
        path.name: path.read_bytes().decode(errors="surrogateescape")  # ends of lines as they are
        for path in sorted(folder.iterdir())
        if path.name == SIGNATURE or (path.name.endswith(SUFFIXES) and not path.name.startswith("."))
    }


def check(module: AnsibleModule, candidate: Path) -> list[str]:
    """Return the warnings about the candidate; end if it has errors."""
    configuration = []
    if module.params["configuration"]:
        file = candidate.parent / "sgagent.toml"
        file.write_text(module.params["configuration"], encoding="utf-8")
        configuration = ["--config", str(file)]
    status, output, errors = module.run_command(
        ["sgagent", "check", *configuration, "--definitions", str(candidate)]
    )
    told = [line.replace(f"{candidate}/", "") for line in (output + errors).splitlines()]
    if status != 0:
        module.fail_json(msg="sgagent check refuses the documents:\n" + "\n".join(told), problems=told)
    return [line for line in told if not line.startswith("ok: ")]


def difference(
    module: AnsibleModule, present: dict[str, str], wanted: dict[str, str], candidate: Path
) -> list[dict[str, str]]:
    """Return how each document changes, and what traffic that opens and closes."""
    changed = [
        {
            "before_header": name,
            "after_header": name,
            "before": present.get(name, ""),
            "after": wanted.get(name, ""),
        }
        for name in sorted({*present, *wanted})
        if present.get(name) != wanted.get(name)
    ]
    plan = sgagent(module, "plan", "--definitions", str(candidate))
    return [*changed, {"prepared": plan}]


def keep(module: AnsibleModule, wanted: dict[str, str], gone: set[str]) -> None:
    """Confirm a trial, and put the documents where the agent finds them, all at once."""
    status, output, _ = module.run_command(["sgagent", "status", "--json"])
    answer: dict[str, Any] = json.loads(output) if status in {0, 1} and output else {}
    if answer.get("pending"):
        sgagent(module, "confirm")
    folder = Path(module.params["path"])
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in wanted.items():
        draft = folder / f".{name}.new"
        draft.write_text(text, encoding="utf-8")
        draft.chmod(0o644)
    for name in wanted:
        (folder / f".{name}.new").rename(folder / name)
    for name in gone:
        (folder / name).unlink()
    if answer:
        sgagent(module, "reload")


def sgagent(module: AnsibleModule, *arguments: str) -> str:
    """Run a command of sgagent and return what it printed; end if it fails."""
    status, output, errors = module.run_command(["sgagent", *arguments])
    if status != 0:
        module.fail_json(msg=f"sgagent {arguments[0]} ended with {status}: {errors or output}")
    return str(output)


if __name__ == "__main__":
    main()
