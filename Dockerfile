FROM python:3.11-slim-bookworm AS build
WORKDIR /src
COPY pyproject.toml README.md ./
COPY gateway gateway
RUN python -m venv /opt/gateway && /opt/gateway/bin/pip install --no-cache-dir '.[azure,google,aws]'

FROM python:3.11-slim-bookworm
RUN useradd --uid 10001 --home-dir /var/lib/dicom-gateway --no-create-home --shell /usr/sbin/nologin gateway \
    && install --directory --owner gateway --group gateway --mode 700 /var/lib/dicom-gateway
COPY --from=build /opt/gateway /opt/gateway
COPY config.yaml /etc/dicom-gateway/config.yaml
ENV PATH=/opt/gateway/bin:$PATH PYTHONUNBUFFERED=1
USER gateway
# Instances on their way and the embedded archive: patient data, keep it on a volume of its own.
VOLUME /var/lib/dicom-gateway
EXPOSE 11112
# As long as its processes run; whether it takes instances, /health/ready says. `admin` elsewhere: --health-cmd.
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8080/health/live', timeout=4)"]
ENTRYPOINT ["dicom-gateway"]
CMD ["serve", "--config", "/etc/dicom-gateway/config.yaml"]
