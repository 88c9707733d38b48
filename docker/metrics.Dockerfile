# `pgdoc metrics`, from the sources of this repository: the context is the repository's folder.
FROM python:3.13-slim-bookworm

COPY pyproject.toml README.md LICENSE _pgdoc_pytestplugin.py /src/
COPY pgdoc /src/pgdoc
COPY migrations /src/migrations
RUN pip install --no-cache-dir "/src[cli,telemetry]" && rm -r /src

# nobody
USER 65534
EXPOSE 9188
# Every address of the container: which ports the machine has is the business of compose.
CMD ["pgdoc", "metrics", "--host=0.0.0.0", "--port=9188"]
