"""Read every account of the bulk provider with dlt, another reader of APIs, into one table per database.

Started by `backfill.py` as a process of its own, whose figures it prints as one JSON object. What it is
asked for is the cheapest that keeps every record: append without merging, nested values as JSON.
"""

import argparse
import json
import resource
import sys
import time

import dlt
from dlt.destinations import sqlalchemy
from dlt.extract import DltResource
from dlt.sources.helpers.rest_client import RESTClient
from dlt.sources.helpers.rest_client.auth import BearerTokenAuth
from dlt.sources.helpers.rest_client.paginators import JSONResponseCursorPaginator


def customers(url: str, key: str) -> DltResource:
    """All customers of one account, page by page."""
    api = RESTClient(
        base_url=url,
        auth=BearerTokenAuth(key),
        paginator=JSONResponseCursorPaginator("data[-1].id", "starting_after", has_more_path="has_more"),
        data_selector="data",
    )
    pages = api.paginate("/v1/customers", params={"limit": 100})
    return dlt.resource(
        pages,
        name=f"account_{key.rpartition('_')[2]}",
        table_name="customer",
        max_table_nesting=0,
        parallelized=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--keys", nargs="+", required=True)
    parser.add_argument("--database", required=True)
    parser.add_argument("--directory", required=True)
    options = parser.parse_args()
    began = time.monotonic()
    pipeline = dlt.pipeline(
        "bulk", destination=sqlalchemy(options.database), dataset_name="main", pipelines_dir=options.directory
    )
    info = pipeline.run([customers(options.url, key) for key in options.keys])
    info.raise_on_failed_jobs()
    took_s = time.monotonic() - began
    with pipeline.sql_client() as client:
        rows = client.execute_sql("SELECT count(*) FROM customer")
    usage = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    figures = {
        "records": rows[0][0] if rows else 0,
        "took_s": took_s,
        "cpu_s": sum(each.ru_utime + each.ru_stime for each in usage),
        "peak_mib": max(each.ru_maxrss for each in usage) / 1024,
    }
    sys.stdout.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main()
