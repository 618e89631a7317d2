"""Have the agent enforce, or observe."""

from __future__ import annotations

import json

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: mode
short_description: Have sgagent enforce, or observe
description:
  - Overrides the mode of every interface, as C(sgagent mode) does.
options:
  mode:
    description: V(default) is what the configuration says.
    type: str
    choices: [default, observe, enforce]
    required: true
  undo_within:
    description:
      - Seconds after which the host observes again by itself, unless C(sgagent-undo.timer) is stopped.
      - 0 is never. V(observe) locks nobody out, and needs no undoing.
    type: int
    default: 0
attributes:
  check_mode:
    description: Changes nothing.
    support: full
  diff_mode:
    description: Shows the modes that override the configuration's.
    support: full
author: sgagent contributors
"""

EXAMPLES = """
- name: Observe
  sgagent.host.mode:
    mode: observe
"""

TIMER = "sgagent-undo"


def main() -> None:
    """Hold the agent to a mode."""
    module = AnsibleModule(
        argument_spec={
            "mode": {"type": "str", "choices": ["default", "observe", "enforce"], "required": True},
            "undo_within": {"type": "int", "default": 0},
        },
        supports_check_mode=True,
    )
    mode, seconds = module.params["mode"], module.params["undo_within"]
    before = overrides(module)
    after = {} if mode == "default" else {"all": mode}
    if before != after and not module.check_mode:
        if seconds and mode != "observe":
            timer = ("systemd-run", "--quiet", "--collect", f"--unit={TIMER}", f"--on-active={seconds}s")
            run(module, *timer, "sgagent", "mode", "observe")
        run(module, "sgagent", "mode", mode, *(["--yes"] if seconds else []))  # the timer is the way back
    module.exit_json(changed=before != after, diff={"before": before, "after": after})


def overrides(module: AnsibleModule) -> dict[str, str]:
    """Return the modes that override the configuration's, by interface."""
    status, output, errors = module.run_command(["sgagent", "status", "--json"])
    if status not in {0, 1}:
        module.fail_json(msg=f"sgagent status ended with {status}: {errors}")
    return {one["interface"] or "all": one["mode"] for one in json.loads(output)["mode_overrides"]}


def run(module: AnsibleModule, *argv: str) -> None:
    """Run a command; end if it fails."""
    status, output, errors = module.run_command(list(argv))
    if status != 0:
        module.fail_json(msg=f"{' '.join(argv)} ended with {status}: {errors or output}")


if __name__ == "__main__":
    main()
