"""What the rival's processes are told, by environment variables."""

import os
from typing import Final

API_URL: Final = os.environ["RIVAL_API_URL"]
API_TOKEN: Final = os.environ["RIVAL_API_TOKEN"]
BROKER_URL: Final = os.environ["RIVAL_BROKER_URL"]
DATABASE: Final = os.environ["RIVAL_DATABASE"]
WEBHOOK_SECRET: Final = os.environ["RIVAL_WEBHOOK_SECRET"]
TUNED: Final = os.environ["RIVAL_TUNED"] == "yes"
"""Not as an afternoon leaves it, but as measurements and the reading of dramatiq's source would."""
POLL_EVERY_MS: Final = 1000
COLLECTIONS: Final = [
    f"stripe:{name}" for name in ("customer", "product", "price", "subscription", "invoice", "charge")
]
