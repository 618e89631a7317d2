"""What is read of the API for a host, and what becomes of it."""

from __future__ import annotations

from collections import Counter

import pytest

from sgagent.core.errors import DocumentError
from sgagent.core.model import CidrBlock, GroupType, Snapshot
from sgagent.core.rule_values import objects_text
from sgagent.documents import Limits, parse_documents
from sgagent.sources.aliyun.ecs_api import (
    MOST_TRIES,
    Action,
    ApiAnswer,
    ApiCall,
    ApiError,
    NotThereError,
    Paginator,
    ThrottledError,
)
from sgagent.sources.aliyun.source import ApiSubject, read_everything_about
from tests.fakes.cloud import OWNER, FakeApi, FakeCloud, RefusalError, permission

HERE = ApiSubject(instance_id="i-here")
EVERYTHING = ApiSubject(is_everything=True)
THROTTLED = RefusalError(400, "Throttling.User")


@pytest.fixture
def cloud() -> FakeCloud:
    """Give a cloud in which this host is a web server among others."""
    cloud = FakeCloud()
    cloud.add_group(
        "sg-web",
        permission(SecurityGroupRuleId="sgr-1", SourceCidrIp="0.0.0.0/0", Priority=1),
        permission(SecurityGroupRuleId="sgr-2", SourceGroupId="sg-app", PortRange="8080/8080"),
        permission(SecurityGroupRuleId="sgr-3", SourcePrefixListId="pl-1", Priority="50"),
        permission(
            SecurityGroupRuleId="sgr-4", SourceCidrIp="10.0.0.0/8", PortRange="", PortRangeListId="prl-1"
        ),
        permission(
            SecurityGroupRuleId="sgr-5", SourceGroupId="sg-theirs", SourceGroupOwnerAccount="2000000000000000"
        ),
    )
    cloud.add_group("sg-app", permission(SourceGroupId="sg-db", SecurityGroupRuleId="sgr-9"))
    cloud.add_group("sg-db", permission(SourceCidrIp="192.0.2.0/24", SecurityGroupRuleId="sgr-10"))
    cloud.add_interface("eni-1", "10.0.0.1", "sg-web", instance="i-here", mac="00:16:3e:00:00:01")
    cloud.add_interface("eni-2", "10.0.0.2", "sg-web")
    cloud.add_interface("eni-3", "10.0.0.3", "sg-app", "sg-db")
    cloud.add_interface("eni-4", "10.0.0.4", "sg-db")
    entry = {"Cidr": "203.0.113.0/24", "Description": ""}
    cloud.prefix_lists["pl-1"] = {
        "PrefixListId": "pl-1",
        "AddressFamily": "IPv4",
        "Entries": {"Entry": [entry]},
    }
    cloud.port_lists["prl-1"] = [{"PortRange": "53/53", "Description": ""}]
    return cloud


def read(cloud: FakeCloud, subject: ApiSubject = HERE) -> Snapshot:
    """Return what is read; throttled calls are made again at once."""
    documents = read_everything_about(subject, Paginator(FakeApi(cloud), lambda: 0.0), Limits())
    return parse_documents(documents, Limits())[0]


def asked(cloud: FakeCloud) -> Counter[str]:
    """Return how often each call was made."""
    return Counter(action for action, _ in cloud.asked)


def test_only_what_concerns_the_host_is_read(cloud: FakeCloud) -> None:
    """Its own groups whole, what they refer to, the members of these; nothing of the rest."""
    snapshot = read(cloud)
    assert [group.security_group_id for group in snapshot.security_groups] == ["sg-app", "sg-web"]
    assert [len(group.rules) for group in snapshot.security_groups] == [0, 5]
    interfaces = {one.network_interface_id: one.security_group_ids for one in snapshot.network_interfaces}
    assert interfaces == {"eni-1": ("sg-web",), "eni-2": ("sg-web",), "eni-3": ("sg-app",)}
    assert [one.prefix_list_id for one in snapshot.prefix_lists] == ["pl-1"]
    assert [one.port_list_id for one in snapshot.port_lists] == ["prl-1"]
    assert asked(cloud)["DescribeSecurityGroupAttribute"] == 1


def test_what_the_answers_say_is_kept(cloud: FakeCloud) -> None:
    """Types, owners, priorities in both forms, and the owner of another account's group."""
    web = read(cloud).group_by_id["sg-web"]
    assert (web.group_type, web.account_id, web.tags) == (GroupType.BASIC, OWNER, (("env", "test"),))
    by_id = {rule.rule_id: rule for rule in web.rules}
    assert [by_id[f"sgr-{number}"].priority for number in (1, 2, 3)] == [1, 1, 50]
    assert objects_text(by_id["sgr-5"].authorization_objects) == "2000000000000000/sg-theirs"
    assert str(by_id["sgr-4"].ports) == "prl-1"


def test_members_are_not_asked_for_where_nobody_needs_them(cloud: FakeCloud) -> None:
    """Of a group whose members are let in by no rule and no inner policy, they are of no concern."""
    cloud.groups["sg-web"]["InnerAccessPolicy"] = "Drop"
    assert "eni-2" not in read(cloud).interface_by_id


@pytest.mark.parametrize("by_number", (False, True))
def test_pages_are_followed_to_the_last(cloud: FakeCloud, by_number: bool) -> None:  # noqa: FBT001 - a parameter
    """By tokens, and by numbers where there are none."""
    whole = read(cloud)
    cloud.most_per_page, cloud.pages_by_number = 1, by_number
    assert read(cloud).version == whole.version
    names = [set(parameters) for _, parameters in cloud.asked]
    assert any(("PageNumber" if by_number else "NextToken") in found for found in names)


@pytest.mark.parametrize("sizes", ((49,), (50, 49), (50, 0)))
def test_a_short_page_before_the_last_is_no_answer(sizes: tuple[int, ...]) -> None:
    """By page number: of the announced 120 items, those that are missing would be of no group."""
    pages = [
        {"S": {"I": [{}] * size}, "PageNumber": number, "PageSize": 50, "TotalCount": 120}
        for number, size in enumerate(sizes, 1)
    ]

    class Short(FakeApi):
        def ask(self, call: ApiCall) -> ApiAnswer:
            assert call.parameters.get("PageNumber", 1) == 1 + len(sizes) - len(pages)
            return pages.pop(0)

    paginator = Paginator(Short(FakeCloud()), lambda: 0.0)
    with pytest.raises(ApiError, match=f"a page is missing: {sum(sizes)} items of 120"):
        paginator.ask_all(ApiCall(Action.INTERFACES), ("S", "I"))


def test_a_token_says_alone_whether_there_is_more() -> None:
    """The API's reference calls TotalCount invalid beside tokens: it announces no page that is missing."""
    pages = [
        {"S": {"I": [{}] * 50}, "NextToken": "a", "TotalCount": 120},
        {"S": {"I": [{}]}, "TotalCount": 120},
    ]

    class ByToken(FakeApi):
        def ask(self, call: ApiCall) -> ApiAnswer:
            assert call.parameters.get("NextToken") == (None if len(pages) == 2 else "a")
            return pages.pop(0)

    paginator = Paginator(ByToken(FakeCloud()), lambda: 0.0)
    _, items = paginator.ask_all(ApiCall(Action.INTERFACES), ("S", "I"))
    assert (len(items), pages) == (51, [])


def test_whatever_is_missing_leaves_nothing(cloud: FakeCloud) -> None:
    """Half of the rules is no policy: a call that fails, be it the last page of any, refuses the whole."""
    cloud.most_per_page = 1
    read(cloud)
    calls = len(cloud.asked)
    assert calls > 10
    for number in range(calls):
        with pytest.raises(ApiError, match="Broken"):
            read_with_a_fault(cloud, after=number)


@pytest.mark.parametrize("name", ("InnerAccessPolicy", "VpcId", "SecurityGroupName"))
def test_pages_of_two_times_are_no_answer(cloud: FakeCloud, name: str) -> None:
    """A group that changes while its pages are read is read again, at the next question."""
    cloud.most_per_page = 1

    class Changing(FakeApi):
        def ask(self, call: ApiCall) -> ApiAnswer:
            answer = super().ask(call)
            is_later = call.action is Action.RULES and "NextToken" in call.parameters
            return {**answer, name: "Drop"} if is_later else answer

    with pytest.raises(ApiError, match=f"DescribeSecurityGroupAttribute sg-web: {name} changed while"):
        read_everything_about(HERE, Paginator(Changing(cloud), lambda: 0.0), Limits())


def read_with_a_fault(cloud: FakeCloud, *, after: int) -> Snapshot:
    """Read with an API that answers so many calls and then fails once."""

    class Faulty(FakeApi):
        asked = 0

        def ask(self, call: ApiCall) -> ApiAnswer:
            self.asked += 1
            if self.asked == after + 1:
                raise ApiError(f"{call}: Broken")
            return super().ask(call)

    documents = read_everything_about(HERE, Paginator(Faulty(cloud), lambda: 0.0), Limits())
    return parse_documents(documents, Limits())[0]


def test_everything_is_read_for_who_looks_at_everything(cloud: FakeCloud) -> None:
    """All groups with their rules, and all interfaces with all their groups."""
    snapshot = read(cloud, EVERYTHING)
    assert [len(group.rules) for group in snapshot.security_groups] == [1, 1, 5]
    assert snapshot.interface_by_id["eni-3"].security_group_ids == ("sg-app", "sg-db")


def test_links_that_are_bound_by_hand(cloud: FakeCloud) -> None:
    """An interface or groups may be named, with or without an instance."""
    snapshot = read(cloud, ApiSubject(network_interface_ids=("eni-4",), security_group_ids=("sg-app",)))
    assert snapshot.interface_by_id["eni-4"].security_group_ids == ("sg-db",)
    rules = {group.security_group_id: len(group.rules) for group in snapshot.security_groups}
    assert rules == {"sg-app": 1, "sg-db": 1}


def test_lists_and_groups_that_are_not_there_stay_unknown(cloud: FakeCloud) -> None:
    """The document says what it says; who resolves it knows what an unknown object means (§5.3)."""
    cloud.prefix_lists.clear()
    cloud.port_lists.clear()
    del cloud.groups["sg-app"]
    snapshot = read(cloud)
    assert (snapshot.prefix_lists, snapshot.port_lists) == ((), ())
    assert len(snapshot.group_by_id["sg-web"].rules) == 5


def test_an_instance_without_an_interface_is_not_believed(cloud: FakeCloud) -> None:
    """Taken at its word, the answer would take every group from this host."""
    cloud.interfaces.clear()
    with pytest.raises(ApiError, match="i-here: the instance has no network interface"):
        read(cloud)


def test_a_group_that_goes_while_it_is_read_leaves_nothing(cloud: FakeCloud) -> None:
    """An attached group that is not there: somebody is changing things, or has no right to see it."""
    del cloud.groups["sg-web"]
    with pytest.raises(NotThereError, match="DescribeSecurityGroupAttribute sg-web"):
        read(cloud)


def test_throttled_calls_are_made_again(cloud: FakeCloud) -> None:
    """Each for itself, so that what was read is not read again; but not for ever."""
    cloud.refusals = [THROTTLED] * (MOST_TRIES - 1)
    assert read(cloud).security_groups
    cloud.refusals = [THROTTLED] * MOST_TRIES
    with pytest.raises(ThrottledError, match=r"Throttling\.User"):
        read(cloud)


def test_a_wait_is_broken_off(cloud: FakeCloud) -> None:
    """Whoever stops need not wait for a throttled call."""
    paginator = Paginator(FakeApi(cloud), lambda: 0.0)
    paginator.break_off()
    with pytest.raises(ApiError, match="cancelled"):
        read_everything_about(HERE, paginator, Limits())


@pytest.mark.parametrize(
    "wrong",
    (
        {"SecurityGroups": []},
        {"SecurityGroups": {"SecurityGroup": {}}},
        {"SecurityGroups": {"SecurityGroup": ["sg-web"]}},
        {"SecurityGroups": {"SecurityGroup": [{"SecurityGroupId": 7}]}},
    ),
)
def test_an_answer_of_another_shape_leaves_nothing(cloud: FakeCloud, wrong: dict[str, object]) -> None:
    """What is not understood is no empty list."""

    class Wrong(FakeApi):
        def ask(self, call: ApiCall) -> ApiAnswer:
            del call
            return wrong

    paginator = Paginator(Wrong(cloud), lambda: 0.0)
    with pytest.raises(ApiError, match="unexpected answer"):
        read_everything_about(EVERYTHING, paginator, Limits())


def test_a_rule_that_cannot_be_read_refuses_the_snapshot(cloud: FakeCloud) -> None:
    """As in a saved answer."""
    cloud.rules["sg-web"][0]["PortRange"] = "99999/1"
    with pytest.raises(DocumentError, match="PortRange"):
        read(cloud)


def test_equal_answers_make_equal_bytes(cloud: FakeCloud) -> None:
    """Whatever order the API tells things in, and whatever numbers it gives its answers."""
    paginator = Paginator(FakeApi(cloud), lambda: 0.0)
    first = read_everything_about(HERE, paginator, Limits())
    cloud.interfaces = dict(reversed(cloud.interfaces.items()))
    cloud.groups = dict(reversed(cloud.groups.items()))
    assert read_everything_about(HERE, paginator, Limits()) == first


def test_the_members_have_all_their_addresses(cloud: FakeCloud) -> None:
    """Secondary ones and IPv6 too."""
    cloud.interfaces["eni-3"]["Ipv6Sets"] = {"Ipv6Set": [{"Ipv6Address": "2001:db8::3"}]}
    found = read(cloud).interface_by_id["eni-3"]
    assert found.addresses == (CidrBlock.parse("10.0.0.3"), CidrBlock.parse("2001:db8::3"))
