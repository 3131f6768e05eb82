FROM python:3.12-slim

ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /gangway

# the lock first: it changes less often than the code
COPY requirements/runtime.txt requirements/
RUN pip install --require-hashes --no-deps -r requirements/runtime.txt

COPY . .
RUN pip install --no-deps . && useradd --system --home /gangway gangway
USER gangway

ENTRYPOINT []
CMD ["gangway", "--help"]
