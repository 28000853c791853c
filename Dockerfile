# One image for every part: `kvswarm`, Locust's master and workers, the simulator. docs/containers.md
FROM python:3.11.14-slim-bookworm AS build

WORKDIR /src
COPY pyproject.toml README.md LICENSE CHANGELOG.md ./
COPY kvswarm kvswarm
RUN pip wheel --no-cache-dir --wheel-dir /wheels .
# From the wheels alone: what runs is what was built.
RUN python -m venv /opt/kvswarm \
    && /opt/kvswarm/bin/pip install --no-cache-dir --no-index --find-links /wheels kvswarm


FROM python:3.11.14-slim-bookworm

LABEL org.opencontainers.image.title="kvswarm" \
      org.opencontainers.image.description="The load tester for LLMs on KServe" \
      org.opencontainers.image.licenses="Apache-2.0"

# HOME: what looks for settings there finds a place that may be missing and is never written to.
ENV PATH="/opt/kvswarm/bin:$PATH" \
    HOME=/tmp \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    LOCUST_SKIP_UPDATE_CHECK=1

# A number, because Kubernetes' runAsNonRoot can only check numbers.
RUN groupadd --gid 10001 kvswarm \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin kvswarm \
    && install --directory --owner=10001 --group=10001 /runs \
    && ln -s /opt/kvswarm/lib/python3.11/site-packages/kvswarm/locustfiles /locustfiles

COPY --from=build /opt/kvswarm /opt/kvswarm

# Run directories are made in `runs/`: here /runs, the only place that is written to.
WORKDIR /
VOLUME ["/runs"]
EXPOSE 8089
USER 10001:10001

# Of the web UI, for the master or only process; 401 is that of its login. Other parts switch it off
# or have their own.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import http.client as h, sys; c = h.HTTPConnection('127.0.0.1:8089', timeout=4); c.request('GET', '/llm/metrics'); sys.exit(c.getresponse().status not in (200, 401))"]

CMD ["kvswarm", "--help"]
