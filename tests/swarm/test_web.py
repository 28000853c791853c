"""kvswarm in Locust's web UI, over HTTP; what needs a browser is in tests/browser."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from asking import LOCUSTFILE, Web, basic, web_ui
from running import LOCUST, command, forgiving, free_port, simulator, until

SECRETS = {"KVSWARM_HEADERS": '{"X-Tenant": "sesame-0815"}', "A_KEY": "sk-open-4711"}
SECRET_WORDS = ("sesame-0815", "sk-open-4711")
LOGIN = {"KVSWARM_WEB_USER": "ann", "KVSWARM_WEB_PASSWORD": "two words: yes"}
PAGES = (
    "/", "/llm", "/llm/live.json", "/llm/runs", "/llm/page.js", "/llm/page.css", "/llm/tab.js",
    "/llm/plotly.js", "/stats/requests", "/stats/requests/csv", "/stats/failures/csv",
    "/stats/report", "/exceptions", "/exceptions/csv", "/tasks", "/logs", "/worker-count",
    "/assets/favicon-light.png", "/llm/metrics", "/static/x", "/nowhere",
)  # fmt: skip
FILES = ("summary.json", "report.html", "requests.parquet", "run.json")
ENDLESS = "user_count=4&spawn_rate=4&kv_requests=1000000&kv_profile="


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A simulator."""
    with simulator("--step-ms", "5") as address:
        yield address


@pytest.fixture(scope="module")
def watched(url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Web, Any]]:
    """A web UI with secrets, in which one run has ended; and what it said while it went on."""
    folder = tmp_path_factory.mktemp("web")
    profile = forgiving(folder, "slo: {ttft_ms: 600000}\nrequests: 4000")
    arguments = ("--host", url, "--kv-profile", profile, "--kv-api-key-env", "A_KEY")
    with web_ui(folder, *arguments, env=SECRETS) as web:
        said: dict[str, Any] = {"before": (web.live, web.rows)}
        assert web.start(ENDLESS).json["success"]
        until(lambda: len(web.live.get("samples", {}).get("t_s", [])) >= 2, "it runs")
        said["live"], said["rows"] = web.live, web.rows
        run_id = said["live"]["run"]["id"]
        said["early"] = [web.ask(f"/llm/runs/{run_id}/{name}") for name in FILES]
        at_s = said["live"]["samples"]["t_s"][0]
        said["later"] = web.ask(f"/llm/live.json?run={run_id}&after={at_s}").json
        said["other"] = web.ask(f"/llm/live.json?run=another&after={at_s}").json
        web.ask("/stop", "")
        (said["run"],) = web.ended()
        yield web, said


def test_before_any_run_the_pages_say_so(watched: tuple[Web, Any]) -> None:
    live, rows = watched[1]["before"]
    assert live["run"] is None
    assert rows["Run"]["value"] == "none yet"


def test_while_a_run_goes_on_its_figures_and_plots_move(watched: tuple[Web, Any]) -> None:
    """Figures of the whole so far, samples of the last seconds, the server's own levels beside."""
    live, rows = watched[1]["live"], watched[1]["rows"]
    assert live["run"]["state"] == "running"
    figures = live["figures"]
    assert 0 < figures["ok"] <= figures["started"]
    assert figures["good_share"] == 1.0
    assert figures["valid_output_share"] is None
    assert 0 < figures["ttft_p50_ms"] <= figures["ttft_p90_ms"] <= figures["ttft_p99_ms"]
    samples = live["samples"]
    assert {len(values) for values in samples.values()} == {len(samples["t_s"])}
    assert samples["t_s"] == sorted(samples["t_s"])
    for name in ("ttft_p99_ms", "itl_p50_ms", "output_tokens_per_s", "running"):
        assert samples[name][-1] > 0, name
    assert samples["waiting"][-1] is not None
    assert 0 <= samples["kv_usage_share"][-1] <= 1
    assert int(rows["Requests ok"]["value"].split()[0]) >= figures["ok"]
    assert all(float(rows["TTFT (ms)"][share]) > 0 for share in ("p50", "p90", "p99"))
    assert rows["Verdict"]["value"].startswith("so far: ")


def test_a_page_that_has_the_first_samples_gets_only_later_ones(watched: tuple[Web, Any]) -> None:
    """And all of them where it has those of another run."""
    said = watched[1]
    first_s = said["live"]["samples"]["t_s"][0]
    assert said["later"]["samples"]["t_s"][0] == said["live"]["samples"]["t_s"][1] > first_s
    assert said["other"]["samples"]["t_s"][0] == first_s


def test_the_files_of_a_run_are_there_when_it_has_ended_and_not_before(
    watched: tuple[Web, Any],
) -> None:
    """Half a table would be read as a whole one."""
    web, said = watched
    assert [answer.status for answer in said["early"]] == [409] * len(FILES)
    assert sorted(said["run"]["files"]) == sorted(FILES)
    answers = {name: web.ask(f"/llm/runs/{said['run']['id']}/{name}") for name in FILES}
    folder = web.folder / "runs" / said["run"]["name"]
    for name, answer in answers.items():
        assert answer.status == 200
        assert answer.body == (folder / name).read_bytes()
    rows = pq.read_table(io.BytesIO(answers["requests.parquet"].body)).num_rows
    live = web.live["figures"]
    assert rows == live["ok"] + live["failed"] + live["cancelled"]
    summary = answers["summary.json"].json
    assert said["run"]["verdict"].startswith(summary["verdict"]["status"])
    assert live["ok"] == summary["requests"]["ok"]
    for name in ("ttft", "tpot", "e2e"):
        assert live[f"{name}_p50_ms"] == pytest.approx(summary[f"{name}_ms"]["p50"], rel=0.02)
    assert "attachment" in answers["summary.json"].headers["Content-Disposition"]
    # A report shows what servers said: it must not act as the person who reads it.
    assert "sandbox allow-scripts" in answers["report.html"].headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    "path",
    [
        "/llm/runs/{id}/requests.journal", "/llm/runs/{id}/server.parquet",
        "/llm/runs/{id}/", "/llm/runs/{id}/..%2frun.json",
        "/llm/runs/{id}/../{id}/locust.log", "/llm/runs/..%2f{name}/summary.json",
        "/llm/runs/{name}/summary.json", "/llm/runs/ffffffffffff/summary.json",
        "/llm/runs/{id}/%2e%2e/%2e%2e/mine.yaml", "/llm/runs/{id}//etc/passwd", "/llm/pages.py",
        "/llm/..%2f..%2fsession.py",
    ],
)  # fmt: skip
def test_no_other_file_can_be_had(watched: tuple[Web, Any], path: str) -> None:
    """Only these names, only of runs of this process."""
    web, said = watched
    answer = web.ask(path.format(**said["run"]))
    assert answer.status == 404
    assert b"root:" not in answer.body
    assert b"requests:" not in answer.body


def test_no_answer_holds_a_secret_or_opens_to_other_sites(watched: tuple[Web, Any]) -> None:
    """Locust's page shows options, its log what servers said, and its CORS is for everybody."""
    web, said = watched
    files = [f"/llm/runs/{said['run']['id']}/{name}" for name in FILES]
    for path in (*PAGES, *files):
        answer = web.ask(path, headers={"Origin": "http://elsewhere.example"})
        opened = [name for name in answer.headers if name.lower().startswith("access-control")]
        assert opened == [], path
        for word in SECRET_WORDS:
            assert word.encode() not in answer.body, path


def test_our_page_may_load_nothing_from_elsewhere(watched: tuple[Web, Any]) -> None:
    """An inner network has no way out, and figures of a test are nobody else's."""
    page = watched[0].ask("/llm")
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "http" not in policy.replace("'none'", "")
    assert "//" not in page.text.replace("<!doctype", "")
    script = watched[0].ask("/llm/plotly.js")
    assert script.headers["Content-Type"].startswith("text/javascript")
    assert b"plotly.js" in script.body[:200]


def test_the_start_form_says_what_is_wrong_and_starts_nothing(watched: tuple[Web, Any]) -> None:
    """It would stand in the log alone, and a wrong profile's path would be read."""
    web, _ = watched
    users = "user_count=1&spawn_rate=1"
    for form, said in {
        "kv_profile=standart": "no such profile",
        "kv_profile=/etc/passwd": "no such profile",
        "kv_profile=../mine.yaml": "no such profile",
        "kv_requests=many": "not a whole number",
        "kv_requests=-1": "requests",
        "host=http://elsewhere.example:8000": "are for http://127.0.0.1",
        "host=https://127.0.0.1": "are for http://127.0.0.1",
    }.items():
        answer = web.start(f"{users}&{form}").json
        assert answer["success"] is False, form
        assert said in answer["message"], form
        assert web.live["refusal"] == answer["message"]
    assert len(web.ask("/llm/runs").json["runs"]) == 1
    assert "Could not start" in web.rows


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"},
        {"Origin": "http://elsewhere.example"}, {"Origin": "null"},
    ],
)  # fmt: skip
def test_a_page_of_another_site_starts_nothing(
    watched: tuple[Web, Any], headers: dict[str, str]
) -> None:
    """Browsers send forms to any host, with the login that they know for it."""
    answer = watched[0].ask("/swarm", "user_count=1&spawn_rate=1", headers)
    assert answer.status == 403
    own = {"Sec-Fetch-Site": "same-origin", "Origin": watched[0].address}
    assert watched[0].ask("/stop", "", own).status == 200


def test_a_login_is_asked_for_on_every_route(url: str, tmp_path: Path) -> None:
    """Also on those of Locust, and on those that are not there."""
    right = basic("ann", LOGIN["KVSWARM_WEB_PASSWORD"])
    with web_ui(tmp_path, "--host", url, env=LOGIN) as web:
        for path in PAGES:
            refused = web.ask(path)
            assert (refused.status, refused.body) == (401, b"401 Unauthorized\n"), path
            assert refused.headers["WWW-Authenticate"].startswith('Basic realm="kvswarm"')
            assert web.ask(path, headers=right).status in {200, 404}
        for wrong in (
            basic("ann", "two words: no"), basic("bob", LOGIN["KVSWARM_WEB_PASSWORD"]),
            basic("ann", ""), {"Authorization": "Basic"}, {"Authorization": "Basic \u00e4"},
            {"Authorization": right["Authorization"].replace("Basic", "Bearer")},
        ):  # fmt: skip
            assert web.ask("/llm", headers=wrong).status == 401
        assert web.ask("/swarm", "user_count=1&spawn_rate=1").status == 401
        assert web.ask("/llm", headers=right).status == 200
        assert LOGIN["KVSWARM_WEB_PASSWORD"] not in web.ask("/logs", headers=right).text


def test_the_password_can_be_in_a_file(url: str, tmp_path: Path) -> None:
    """An environment is seen by more eyes than a mounted secret."""
    (tmp_path / "password").write_text("from a file\n")
    env = {"KVSWARM_WEB_USER": "ann", "KVSWARM_WEB_PASSWORD_FILE": str(tmp_path / "password")}
    with web_ui(tmp_path, "--host", url, env=env) as web:
        assert web.ask("/llm", headers=basic("ann", "from a file")).status == 200
        assert web.ask("/llm", headers=basic("ann", "from a file\n")).status == 401


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"KVSWARM_WEB_USER": "ann"}, "there is no password"),
        ({"KVSWARM_WEB_PASSWORD": "sesame"}, "no KVSWARM_WEB_USER"),
        (LOGIN | {"KVSWARM_WEB_PASSWORD_FILE": "/etc/hostname"}, "both set"),
        ({"KVSWARM_WEB_USER": "ann", "KVSWARM_WEB_PASSWORD_FILE": "/no/such"}, "cannot be read"),
        (LOGIN | {"KVSWARM_WEB_USER": "a:b"}, "a colon"),
    ],
)  # fmt: skip
def test_half_a_login_ends_the_start(tmp_path: Path, env: dict[str, str], said: str) -> None:
    """The web UI would be open to everybody, and nobody would know."""
    arguments = (*LOCUST, "-f", LOCUSTFILE, "--host", "http://127.0.0.1:9", "--web-port", "0")
    done = command(arguments, tmp_path, env)
    assert done.code == 2
    assert said in done.err
    assert not any(secret in done.err for secret in ("sesame", "two words"))


def bound_to(web: Web) -> set[str]:
    sockets = psutil.Process(web.locust.process.pid).net_connections("tcp")
    return {s.laddr.ip for s in sockets if s.status == psutil.CONN_LISTEN}


def test_the_web_ui_is_for_this_machine_unless_said_otherwise(url: str, tmp_path: Path) -> None:
    """Locust's own default is every interface, without a login."""
    for place, arguments, env in (
        ({"127.0.0.1"}, (), {}),
        ({"127.0.0.2"}, ("--web-host", "127.0.0.2"), {}),
        ({"127.0.0.3"}, (), {"LOCUST_WEB_HOST": "127.0.0.3"}),
    ):
        with web_ui(tmp_path, "--host", url, *arguments, env=env) as web:
            assert bound_to(web) == place


def concurrency(web: Web, run: dict[str, Any]) -> tuple[str, int | None, int]:
    """Profile, users and requests of an ended run."""
    info = json.loads((web.folder / "runs" / run["name"] / "run.json").read_text())
    load = info["profile"]["load"]
    return info["profile"]["name"], load["concurrency"], load["requests"]


def test_the_number_of_users_follows_the_profile_unless_somebody_typed_one(
    url: str, tmp_path: Path
) -> None:
    """The form shows what the first profile wants; another one chosen there wants another number."""
    common = "kv_requests=3&kv_max_tokens=2&kv_endpoint=&kv_model="
    other = "kv_profile=combinations%2Flow-latency"
    with web_ui(tmp_path, "--host", url) as web:
        shown = web.ask("/").text
        assert '"num_users": 10' in shown
        assert '"combinations/low-latency"' in shown
        for form in (
            f"user_count=10&spawn_rate=10&{other}",
            "user_count=10&spawn_rate=10&kv_profile=standard",
            f"user_count=3&spawn_rate=3&{other}",
            "user_count=3&spawn_rate=3&kv_profile=standard",
        ):
            before = len(web.ask("/llm/runs").json["runs"])
            assert web.start(f"{form}&{common}").json["success"]
            web.ended(before + 1)
        runs = [concurrency(web, run) for run in reversed(web.ended())]
    wanted = runs[0][1]
    assert wanted not in {None, 3, 10}
    assert runs == [
        ("combinations/low-latency", wanted, 3), ("standard", 10, 3),
        ("combinations/low-latency", 3, 3), ("standard", 3, 3),
    ]  # fmt: skip


def test_users_of_the_command_line_are_kept(url: str, tmp_path: Path) -> None:
    """Somebody typed them, though not into the form."""
    with web_ui(tmp_path, "--host", url, "-u", "5") as web:
        form = "user_count=5&spawn_rate=5&kv_profile=combinations%2Flow-latency&kv_requests=5"
        assert web.start(form).json["success"]
        (run,) = web.ended()
        assert concurrency(web, run)[1] == 5


def test_below_a_path_of_its_own_the_pages_find_each_other(url: str, tmp_path: Path) -> None:
    """A proxy may serve Locust under a path."""
    with web_ui(tmp_path, "--host", url, "--web-base-path", "/load/test") as web:
        assert './llm/tab.js"' in web.ask("/load/test/").text
        assert 'src="llm/page.js"' in web.ask("/load/test/llm").text
        for name in ("page.js", "live.json", "plotly.js", "runs"):
            assert web.ask(f"/load/test/llm/{name}").status == 200
        assert web.ask("/llm").status == 404


def test_workers_of_a_mix_are_shown_as_one_and_part_by_part(url: str, tmp_path: Path) -> None:
    """Percentiles over all workers, and those of each profile of the mix."""
    port = str(free_port())
    arguments = (
        "--host", url, "--processes", "2", "--kv-profile", "mixed", "--master-port", port,
        "--master-bind-port", port, "--expect-workers", "2",
    )  # fmt: skip
    with web_ui(tmp_path, *arguments) as web:
        until(lambda: web.ask("/worker-count").json["worker_count"] == 2, "the workers are there")
        form = "user_count=4&spawn_rate=4&kv_requests=40&kv_max_tokens=4&kv_profile=mixed"
        assert web.start(form).json["success"]
        (run,) = web.ended()
        rows = web.rows
        summary = web.ask(f"/llm/runs/{run['id']}/summary.json").json
        assert len(summary["generator"]) > 0
        assert summary["generator"]["workers"] == 2
    assert rows["Requests ok"]["value"] == "40 of 40"
    parts = [name.removesuffix(": requests") for name in rows if name.endswith(": requests")]
    assert "standard" in parts
    assert set(parts) <= {"standard", "multi-turn", "structured-output", "tool-calling"}
    ok = [int(rows[f"{part}: requests"]["value"].split()[0]) for part in parts]
    assert sum(ok) == 40
    assert float(rows["standard: TTFT (ms)"]["p99"]) > 0


def test_a_target_that_is_not_there_is_told_on_the_pages(tmp_path: Path) -> None:
    """Locust says that it started, and then nothing happens."""
    host = f"http://127.0.0.1:{free_port()}"
    with web_ui(tmp_path, "--host", host) as web:
        assert web.start("user_count=10&spawn_rate=10").json["success"]
        until(lambda: web.live["refusal"] is not None, "the reason is told")
        assert "cannot be reached" in web.live["refusal"]
        assert "cannot be reached" in web.rows["Could not start"]["value"]
