"""Everything that kvswarm adds to Locust's web application, put in its place.

In:  Locust's `WebUI`, before it serves.  Out: `Pages`, which is told of runs.

| Route | What it has |
|---|---|
| `/` | Locust's page, with a tab `LLM` and links below it |
| `/llm` | live plots |
| `/llm/live.json` | the figures and samples behind them |
| `/llm/runs`, `/llm/runs/<id>/<file>` | the runs of this process, and their files |
| `/llm/plotly.js`, `/llm/*.js`, `/llm/*.css` | what the pages need, from no other host |
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any, Final

from flask import Blueprint, Response, jsonify, make_response, request, send_file
from locust.env import Environment
from locust.runners import STATE_RUNNING, STATE_SPAWNING
from werkzeug.datastructures import ImmutableMultiDict

from kvswarm.errors import KvswarmError
from kvswarm.swarm.web import table
from kvswarm.swarm.web.form import StartForm, without_ours
from kvswarm.swarm.web.guard import Guard, login_of
from kvswarm.swarm.web.samples import figures
from kvswarm.swarm.web.watch import FILES, State, Watch, Watches

STATIC: Final = {
    "page.js": "text/javascript", "page.css": "text/css", "tab.js": "text/javascript",
}  # fmt: skip
TYPES: Final = {
    ".json": "application/json",
    ".html": "text/html",
    ".parquet": "application/vnd.apache.parquet",
}
CONTENT_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Nothing from another host. Plotly writes styles of its own into the page."""
REPORT_POLICY: Final = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; sandbox allow-scripts allow-downloads"
)
"""A report holds its own scripts, and must not act in the name of whoever reads it here."""
KEPT_S: Final = 86_400
CLASH, NOT_FOUND = 409, 404


class Pages:
    """The web UI of one process."""

    def __init__(self, environment: Environment, form: StartForm) -> None:
        self.watches = Watches()
        self.form = form
        self._environment = environment
        web_ui: Any = environment.web_ui
        options: Any = environment.parsed_options
        self._web_ui = web_ui
        web_ui.app.register_blueprint(self._blueprint(options.web_base_path))
        web_ui.app.before_request(self._read_form)
        web_ui.app.after_request(self._add_to_locusts_answers)
        web_ui.template_args.update(
            extended_tabs=[{"title": "LLM", "key": table.KEY}],
            extended_tables=[{"key": table.KEY, "structure": list(table.COLUMNS)}],
        )

    # -- the start form ----------------------------------------------------------------------

    def _read_form(self) -> Response | None:
        """Read the start form before Locust reads what is left of it."""
        if request.endpoint != "locust.swarm":
            return None
        runner: Any = self._environment.runner
        is_running = runner.state in {STATE_RUNNING, STATE_SPAWNING}
        try:
            left = without_ours(request.form) if is_running else self.form.read(request.form)
        except KvswarmError as error:
            self.watches.refused(str(error))
            host = self._environment.host
            return jsonify({"success": False, "message": str(error), "host": host})
        # A field may be there more than once, such as user classes.
        more = [(name, value) for name in left for value in request.form.getlist(name)[1:]]
        request.form = ImmutableMultiDict([*left.items(), *more])
        return None

    # -- Locust's own page -------------------------------------------------------------------

    def _add_to_locusts_answers(self, response: Response) -> Response:
        if request.endpoint == "locust.request_stats" and response.is_json:
            # Locust keeps this answer for others: it must stay as it is.
            told = {**(response.get_json() or {})}
            told["extended_stats"] = [{"key": table.KEY, "data": table.rows_of(self.watches)}]
            return jsonify(told)
        if request.endpoint == "locust.index" and response.mimetype == "text/html":
            script = '<script src="./llm/tab.js" defer></script></body>'
            response.set_data(response.get_data(as_text=True).replace("</body>", script, 1))
        return response

    # -- our own -----------------------------------------------------------------------------

    def _blueprint(self, base_path: str) -> Blueprint:
        pages = Blueprint("kvswarm", __name__, url_prefix=f"{base_path.rstrip('/')}/llm")
        for path, view in (
            ("", self._page),
            ("/live.json", self._live),
            ("/plotly.js", _plotly),
            ("/<name>", _static),
            ("/runs", self._runs),
            ("/runs/<run_id>/<name>", self._file),
        ):
            guarded = self._web_ui.auth_required_if_enabled(view)  # that of --web-login
            pages.add_url_rule(path, view.__name__.strip("_"), guarded)
        return pages

    def _page(self) -> Response:
        return _content("page.html", "text/html")

    def _live(self) -> Response:
        """Where the newest run stands; with `run` and `after`, only later samples of that run."""
        watch = self.watches.newest
        told: dict[str, Any] = {"run": None, "refusal": self.watches.refusal}
        if watch is not None:
            after_s = request.args.get("after", type=float)
            if request.args.get("run") != watch.id:
                after_s = None
            told["run"] = self._run(watch)
            told["figures"] = figures(watch.merged, watch.elapsed_s)
            told["samples"] = watch.series.columns(after_s)
        return _fresh(jsonify(told))

    def _runs(self) -> Response:
        return _fresh(jsonify({"runs": [self._run(watch) for watch in self.watches.all]}))

    def _run(self, watch: Watch) -> dict[str, Any]:
        load = watch.profile.load
        return {
            "id": watch.id,
            "name": watch.run.path.name,
            "profile": watch.profile.name,
            "model": watch.target.model,
            "endpoint": watch.target.endpoint,
            "started": datetime.fromtimestamp(watch.started_ns / 1e9, UTC).isoformat(),
            "state": watch.state.value,
            "over": watch.over,
            "elapsed_s": watch.elapsed_s,
            "requests": load.requests,
            "duration_s": load.duration_s,
            "slo": dict(watch.profile.slo),
            "verdict": table.verdict_of(watch),
            "files": watch.files(),
        }

    def _file(self, run_id: str, name: str) -> Response:
        watch = self.watches.get(run_id)
        if watch is None or name not in FILES:
            return _sorry(NOT_FOUND, "no such file of a run of this process; /llm/runs lists them")
        if not watch.over:
            state = "its report is being made" if watch.state is State.REPORTING else "it goes on"
            return _sorry(CLASH, f"run {watch.run.path.name}: {state}; its files come at its end")
        path = watch.run.path / name
        if not path.is_file():
            return _sorry(NOT_FOUND, f"run {watch.run.path.name} has no {name}")
        shown = path.suffix == ".html"
        response: Response = send_file(
            path,
            mimetype=TYPES[path.suffix],
            as_attachment=not shown,
            download_name=f"{watch.run.path.name}-{name}",
        )
        if shown:
            response.headers["Content-Security-Policy"] = REPORT_POLICY
        return response


def open_pages(
    environment: Environment, at_start: Mapping[str, Any], users_of: Callable[[], int]
) -> Pages:
    """Add kvswarm to Locust's web UI and lock its door.

    `at_start`: Locust's options as they were given; `users_of`: how many users the profile of the
    options wants. Raises UsageError for half a login.
    """
    login = login_of(os.environ)
    form = StartForm(vars(environment.parsed_options), at_start, users_of)
    pages = Pages(environment, form)
    web_ui: Any = environment.web_ui
    web_ui.app.wsgi_app = Guard(web_ui.app.wsgi_app, login)
    return pages


def _static(name: str) -> Response:
    if name not in STATIC:
        return _sorry(NOT_FOUND, f"there is no {name} here")
    return _content(name, STATIC[name])


def _content(name: str, kind: str) -> Response:
    """A file of this package, never kept: another version of kvswarm may serve here tomorrow."""
    text = resources.files("kvswarm.swarm.web").joinpath(name).read_text("utf-8")
    response = make_response(text)
    response.mimetype = kind
    response.headers["Content-Security-Policy"] = CONTENT_POLICY
    return _fresh(response)


def _plotly() -> Response:
    """Plotly's own script, out of its installed package."""
    spec = importlib.util.find_spec("plotly")  # to import it takes a second
    if spec is None or spec.origin is None:
        return _sorry(NOT_FOUND, "plotly is not installed")
    path = Path(spec.origin).parent / "package_data" / "plotly.min.js"
    response: Response = send_file(path, mimetype="text/javascript", max_age=KEPT_S)
    return response


def _fresh(response: Response) -> Response:
    response.headers["Cache-Control"] = "no-store"
    return response


def _sorry(status: int, message: str) -> Response:
    return make_response(jsonify({"error": message}), status)
