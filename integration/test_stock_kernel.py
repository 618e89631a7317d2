"""The kernel of Debian's cloud images decides, remembers and refuses as it should.

The tests are those of the other modules, run in a guest; here it is asserted what came of them. Usually these
are a few that show most, as each takes 10 to 20 times as long there; the long test runs all that the kernel
has a part in.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable

import pytest

from integration.stockkernel import Case, Report, release_of, run_tests, why_not

STORM = (
    "test_storm.py::test_a_change_is_one_moment[drop_on_a_list]",
    "test_storm.py::test_a_change_is_one_moment[network_is_cut]",
    "test_storm.py::test_a_change_is_one_moment[map_of_udp_ranges]",
    "test_storm.py::test_it_sees_leaks",
)
"""A pair for each kind of map: by hash, of addresses with ranges, of ports with ranges."""

LONG_STORM = (
    *STORM,
    "test_storm.py::test_a_change_is_one_moment[accept_for_a_list]",
    "test_storm.py::test_a_change_is_one_moment[observe_to_enforce]",
)
"""All pairs take half an hour in a guest."""

LINKS = (
    "test_lower_devices.py::test_nothing_passes_by_a_lower_device[bond active-backup]",
    "test_lower_devices.py::test_nothing_passes_by_a_lower_device[bond 802.3ad]",
    "test_lower_devices.py::test_nothing_passes_by_a_lower_device[bond balance-alb]",
    "test_lower_devices.py::test_nothing_passes_by_a_lower_device[team]",
    "test_link_names.py::test_a_link_under_another_name_is_refused_and_reported[vlan of an aware bridge]",
    "test_link_names.py::test_a_link_under_another_name_is_refused_and_reported[ipvlan l3s]",
    "test_link_names.py::test_other_ipvlans_are_enforced[l3]",
    "test_link_names.py::test_a_vrf_is_refused",
    "test_link_names.py::test_a_vrf_port_is_judged_by_its_binding[closed-advanced]",
    "test_lower_devices.py::test_no_frame_passes_by_a_link_that_becomes_a_port_unseen",
    "test_bridged_frames.py",
)
"""What links of modules need; HSR and batman-adv are not among those of cloud images."""

CHOSEN = (
    "test_examples.py::test_the_kernel_decides_as_its_file_says[3-databases]",
    "test_dataplane.py::TestLibnftablesDataplane::test_every_counter_is_read",
    "test_dataplane.py::test_an_owned_table_is_safe_from_others",
    "test_dataplane.py::test_a_second_owner_is_told_who_is_the_first",
    "test_dataplane.py::test_a_table_that_was_left_is_taken_up",
    "test_dataplane.py::test_counters_keep_values_over_applies",
    "test_sessions_in_kernel.py::test_only_the_bits_of_the_mask_are_cleared",
    "test_daemon_life.py::test_a_restart_changes_nothing[killed]",
    "test_flow_log.py::test_who_was_dropped_is_told_with_what_decided",
    "test_units.py::test_rules_for_a_unit_that_are_lost_are_added_alone[1]",
    *STORM,
)
CHOSEN_SECONDS = 900.0
"""Enough for a machine that is busy with other things; an idle one needs two minutes."""

NEIGHBOURS = (
    "test_doctor.py::test_a_neighbour_of_a_module_is_named",
    "test_doctor.py::test_of_a_clean_host_with_modules_nothing_is_said",
    "test_invalid_packets.py::test_what_is_dead_by_default_lives_if_evaluated[ipvs]",
    "test_invalid_packets.py::test_containers_by_ipvlan_live_and_are_not_filtered_inwards",
    "test_associations.py",
    "test_flow_tables.py",
    *LINKS,
)
"""What else a host has that takes a module: links, IPVS, SCTP, flow tables."""

EVERY_CASE = ["-m", "long or not long"]
"""Also those that a sample leaves out."""

WHOLE = (
    *("test_examples.py", "test_edges.py", "test_forwarding.py", "test_random_policies.py"),
    *(
        "test_dataplane.py",
        "test_sessions_in_kernel.py",
        "test_sessions.py",
        "test_conntrack_entries.py",
        "test_fixed_ports.py",
        "test_host.py",
        "test_check_text.py",
    ),
    *("test_applier.py", "test_daemon.py", "test_daemon_life.py", "test_daemon_ownership.py"),
    *("test_flow_log.py", *LONG_STORM, "test_storm_daemon.py", "test_removed_hits.py", "test_units.py"),
)
WHOLE_SECONDS = 3600.0

MEASURED = ("--deselect=integration/test_daemon.py::test_a_session_is_cut_by_a_changed_file",)
"""Tests whose very subject is how fast something is, which says nothing in a guest."""

FORBIDDEN = (
    "--deselect=integration/test_check_text.py::test_what_nft_knows_is_known_where_the_kernel_cannot_be_asked",
)
"""Tests that make a user namespace, which a kernel refuses to whoever is in a chroot; all of the guest is."""

pytestmark = [
    pytest.mark.machines,
    pytest.mark.long,
    pytest.mark.skipif(bool(_reason := why_not()), reason=f"the stock kernel can't be run: {_reason}"),
]


@pytest.fixture(scope="module")
def report() -> Report:
    """Run the chosen tests in a guest."""
    return run_tests([f"integration/{name}" for name in CHOSEN], seconds=CHOSEN_SECONDS)


def test_it_is_debians_kernel(report: Report) -> None:
    """The guest runs the package's kernel, and not the one of this machine."""
    assert report.release == release_of()
    assert report.release.endswith("-cloud-amd64")
    assert report.release != platform.release()


@pytest.mark.parametrize(
    ("module", "least"),
    (
        *(
            ("test_examples", 1),
            ("test_dataplane", 6),
            ("test_sessions_in_kernel", 1),
            ("test_daemon_life", 1),
        ),
        *(("test_flow_log", 1), ("test_units", 1), ("test_storm", len(STORM))),
    ),
)
def test_it_does_as_it_should(report: Report, module: str, least: int) -> None:
    """Packets, ownership, counters, marks, the flow log, restarts, and changes under a storm."""
    cases = report.of(module)
    assert len(cases) >= least, report.console
    assert _complaints(cases) == {}


def test_neighbours_of_modules_open_and_shut_nothing() -> None:
    """Links, IPVS, SCTP and flow tables are enforced, or named, as the tests of each say."""
    report = run_tests([f"integration/{name}" for name in NEIGHBOURS] + EVERY_CASE, seconds=WHOLE_SECONDS)
    for module, least in (
        *(("test_doctor", 20), ("test_invalid_packets", 2), ("test_associations", 5)),
        ("test_flow_tables", 5),
        *(("test_lower_devices", 9), ("test_link_names", 5), ("test_bridged_frames", 4)),
    ):
        cases = report.of(module)
        assert len(cases) >= least, report.console
        assert _complaints(cases) == {}


def test_everything_holds_there(capsys: pytest.CaptureFixture[str]) -> None:
    """Every example, random policies, sessions, ownership and the daemon's life, on that kernel."""
    report = run_tests(
        [*(f"integration/{name}" for name in WHOLE), *MEASURED, *FORBIDDEN], seconds=WHOLE_SECONDS
    )
    with capsys.disabled():
        print(f"\n  {len(report.cases)} tests on {report.release}", end="")
    assert len(report.cases) >= 200, report.console
    assert _complaints(report.cases) == {}


def test_a_failure_in_the_guest_is_one_here() -> None:
    """A test that fails or is skipped there can't pass unnoticed."""
    passed, failed, skipped = (
        Case(module="integration.test_a", name=name, failure=failure, skipped=skip)
        for name, failure, skip in (("one", "", ""), ("two", "assert 0", ""), ("three", "", "no nft"))
    )
    assert _complaints((passed, failed, skipped)) == {"two": "assert 0", "three": "skipped: no nft"}


def _complaints(cases: Iterable[Case]) -> dict[str, str]:
    """Return the failures of tests, and the reasons of those that were not run."""
    told = {case.name: case.failure or f"skipped: {case.skipped}" for case in cases}
    return {name: text for name, text in told.items() if text != "skipped: "}
