# syntax=docker/dockerfile:1
# Targets: cpu (the default, last) and cuda. Build: docker build --target cpu -t mlpd .

FROM python:3.13-slim AS builder
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY core core
COPY server server
COPY client client
COPY proto proto
RUN python -m venv /opt/mlpd && /opt/mlpd/bin/pip install --no-cache-dir '.[server]'

FROM builder AS cuda-builder
RUN /opt/mlpd/bin/pip install --no-cache-dir '.[server,ctk13]'

FROM python:3.13-slim AS runtime
RUN useradd --system --uid 10001 --home-dir /var/lib/mlpd mlpd \
    && install --directory --owner=mlpd --group=mlpd /var/lib/mlpd
ENV PATH=/opt/mlpd/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    MLPD_DATA_DIR=/var/lib/mlpd \
    MLPD_HOST=0.0.0.0
USER 10001
VOLUME /var/lib/mlpd
EXPOSE 6573
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s CMD ["mlpd", "--timeout-seconds", "4", "info", "--json"]
ENTRYPOINT ["mlpd"]
CMD ["serve"]

FROM runtime AS cuda
COPY --from=cuda-builder /opt/mlpd /opt/mlpd

FROM runtime AS cpu
COPY --from=builder /opt/mlpd /opt/mlpd
