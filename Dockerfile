# The service on a CPU. Not run where this file is written: tests/service/test_container.py reads it.
#   docker build -t dqecir .
#   docker run -p 8000:8000 -v /path/to/INDEX:/data/index -v /path/to/SHOP:/data/shop dqecir
FROM python:3.12-slim

RUN pip install --no-cache-dir torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu
COPY pyproject.toml README.md LICENSE /src/
COPY src /src/src
RUN pip install --no-cache-dir "/src[serve,postgres,s3]" && rm -rf /src \
    && useradd --create-home --uid 10001 shop \
    && mkdir /data && chown shop /data

USER 10001
WORKDIR /data
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/readyz', timeout=4)"]
ENTRYPOINT ["dqecir"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8000", "--index", "/data/index"]
