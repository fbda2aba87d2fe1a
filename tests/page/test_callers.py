"""Whose requests are answered, by the host that they ask for and the origin that they name."""

import pytest

from lavis_evlgen.page.callers import CallersLimit, host_name, is_local


def refusal(host, origin=None, local=True, names=()):
    return CallersLimit(None, local, names).refusal(host, origin)


@pytest.mark.parametrize("host", ["localhost:7860", "LOCALHOST", "127.0.0.1:80", "[::1]:7860", "192.168.0.7:7860", ""])
@pytest.mark.parametrize("local", [True, False])
def test_the_page_itself_and_programs_are_answered(host, local):
    assert refusal(host, local=local) is None
    assert refusal(host, f"http://{host}" if host else None, local) is None


def test_another_port_of_the_same_host_is_no_other_site():
    assert refusal("localhost:7860", "http://localhost:8888") is None


@pytest.mark.parametrize("origin", ["http://evil.example", "https://localhost.evil.example", "null", "", "http://[x"])
@pytest.mark.parametrize("local", [True, False])
def test_other_sites_are_refused(origin, local):
    assert refusal("localhost:7860", origin, local).startswith(f"pages of {origin} may not ask this one")


def test_a_name_that_leads_here_is_refused_where_only_this_machine_is_served():
    text = (
        "the page does not answer as 'evil.example'; open it as localhost, or start it with --allow-host evil.example"
    )
    assert refusal("Evil.example:7860", "http://evil.example:7860") == text
    assert refusal("evil.example:7860", local=False) is None
    assert refusal("localhost.evil.example") is not None and refusal("127.0.0.1.evil.example") is not None


def test_the_name_of_a_proxy_is_allowed_in_either_place():
    names = ["Page.example"]
    assert refusal("page.example", "https://page.example", names=names) is None
    assert refusal("127.0.0.1:7860", "https://page.example", names=names) is None
    assert refusal("page.example", "https://other.example", names=names) is not None
    assert refusal("other.example", names=names) is not None


def test_hosts_and_addresses():
    assert host_name("http://[::1]:80/") == "::1" and host_name("null") == "" and host_name("http://[") == ""
    assert [is_local(host) for host in ("127.0.0.2", "::1", "localhost", "0.0.0.0", "a.example")] == [1, 1, 1, 0, 0]
