# syntax=docker/dockerfile:1
FROM python:3.11-slim-bookworm AS build

WORKDIR /build
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH \
    PIP_DISABLE_PIP_VERSION_CHECK=1

# What the package needs, first: a change of the program alone does not download it again.
COPY pyproject.toml constraints.txt ./
RUN python -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; e = p['optional-dependencies']; print(*p['dependencies'], *e['prices'], *e['otel'], *e['mcp'], sep='\n')" > core.txt \
 && pip install --no-cache-dir -c constraints.txt -r core.txt

COPY README.md ./
COPY service ./service
RUN pip install --no-cache-dir --no-deps .


FROM python:3.11-slim-bookworm

# The uid is fixed, so that a volume keeps its owner from one image to the next.
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /app --shell /usr/sbin/nologin emqx-gpt \
 && install -d -o emqx-gpt -g emqx-gpt -m 0700 /data

COPY --from=build /opt/venv /opt/venv
WORKDIR /app
COPY flows.toml ./
COPY emqx ./emqx

ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOST=0.0.0.0 \
    PORT=8000 \
    DATABASE_URL=sqlite:////data/emqx-gpt.db \
    FLOWS=/app/flows.toml

USER 10001:10001
VOLUME /data
EXPOSE 8000

# http.client, since urllib would go through a proxy that the environment names.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
  CMD ["python", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ['PORT']), timeout=4); c.request('GET', '/healthz'); sys.exit(c.getresponse().status != 200)"]

ENTRYPOINT ["emqx-gpt"]
CMD ["serve"]
