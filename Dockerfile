# The app as a container: `docker build -t sftdemo .`, then `docker compose up` (compose.yaml has the proxy and the volume).
FROM python:3.11-slim AS build
# Wheels of torch without CUDA are a tenth of the size: give their index as a build argument where you want them.
ARG PIP_EXTRA_INDEX_URL=""
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
RUN python -m venv /opt/venv
COPY requirements.txt .
RUN /opt/venv/bin/pip install -r requirements.txt
COPY pyproject.toml README.md LICENSE ./
COPY sftdemo sftdemo
COPY datasets datasets
RUN /opt/venv/bin/pip install --no-deps .

FROM python:3.11-slim
RUN useradd --uid 1000 --create-home sftdemo && install -d -o sftdemo /data
COPY --from=build /opt/venv /opt/venv
# HF_HOME: what the Hub keeps goes to the volume too.
ENV PATH=/opt/venv/bin:$PATH SFTDEMO_HOME=/data HF_HOME=/data/hub SFTDEMO_LOG=json PYTHONUNBUFFERED=1
USER sftdemo
WORKDIR /data
VOLUME /data
EXPOSE 7860
# SIGTERM, which `docker stop` sends, saves a training's checkpoint before it ends.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:7860/healthz', timeout=4)"]
CMD ["sftdemo", "app", "--host", "0.0.0.0"]
